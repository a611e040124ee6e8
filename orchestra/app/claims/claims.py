"""Claims: the parts of a run's output, each with its evidence, verdicts and score. Pure.

Computed from a run's events and its stored workflow, so that an old run gives the same claims. A claim is supported if
it has evidence and a check that passed; a person may have given it; any other is unsupported, with the reason.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from heapq import merge
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import msgspec

from orchestra.app.claims.accepted_output import MISSING, accepted_output, passed_on_nodes
from orchestra.app.claims.attribution import Attribution, Attributor, BaseOrigins
from orchestra.app.claims.evidence import CitedEvidence, EvidenceByPath, Statement
from orchestra.app.claims.leaves import Leaf, leaves, record_path, records
from orchestra.app.claims.lineage import NodeOrigin, OriginGroup, OutputLineage, PartOrigins, PathSteps, parse_graph
from orchestra.app.claims.locations import EvidenceLocation, RunTexts, TableCell, TextSpan
from orchestra.core.events import Event, OutputJudged, RunStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.paths import format_path
from orchestra.journal.history import History, NodeAttempt, NodeRow
from orchestra.schema.content import content_key, is_cell, is_citation
from orchestra.verification.verdict import FAIL, PASS, UNKNOWN

if TYPE_CHECKING:
    from orchestra.text.numbers.numbers import Number

MAX_CLAIMS = 1_000
"""Claims of an output that are examined one by one; the rest is one more, unsupported claim."""
MAX_EVIDENCE = 100
"""Pieces of evidence of one claim, at most: the first ones."""
NUMBERS = "numbers"
"""The check whose evidence is the location of a number: for one field only."""
SCALES = (1, 100)
"""Factors by which a number may be written: a share is shown as per cent."""
QUOTE_NOTE = "quote: these words are in the source. This does not prove that they answer the question."
"""Shown for a claim that passed only the check `quote`."""


class Operand(msgspec.Struct, frozen=True):
    """A number of an expression, with its location; without one it is a constant, such as a factor of a hundred."""

    text: str
    places: tuple[EvidenceLocation, ...] = ()


class Computation(msgspec.Struct, frozen=True, tag_field="kind", tag="computation"):
    """An expression whose result is the claimed number, computed again here; its operands in written order."""

    expression: str
    result: str
    operands: tuple[Operand, ...] = ()


Support: TypeAlias = TextSpan | TableCell | Computation


class ClaimVerdict(msgspec.Struct, frozen=True):
    """The verdict of a check on the value of a node from which the claim comes."""

    node: str
    check: str
    outcome: str
    score: float
    reason: str = ""


class OutputClaim(msgspec.Struct, frozen=True):
    """One claim of an output."""

    path: str
    """The part of the output, such as `text` or `items[0].answer`; empty for the whole."""
    value: Any
    nodes: tuple[str, ...] = ()
    """The nodes that said it; empty if nothing can be traced."""
    evidence: tuple[Support, ...] = ()
    verdicts: tuple[ClaimVerdict, ...] = ()
    score: float | None = None
    """In [0, 1]: the lowest of the nodes' scores; None if nothing gave one."""
    unsupported: str = ""
    """Why it is not supported; empty if it is, or if a person gave it."""
    person: str = ""
    """Which person gave it, and where; empty for another claim. No check has to support a person's decision."""
    dropped: bool = False
    """Whether the output does not contain it any more: a node with back-off removed it from its value, at this path."""


def extract_claims(
    events: Iterable[Event], workflows: Mapping[str, bytes], history: History | None = None
) -> tuple[OutputClaim, ...]:
    """Returns the claims of a run's output, in its order; none without an output, or if it is null, empty or a plan.

    Args:
        events: The events of the run.
        workflows: Its stored workflows: its own under an empty name, called ones under `workflow/NAME`.
        history: The history of these events, if it is known.
    """
    events = list(events)
    history = history or History.of(events)
    plans = bool(events) and isinstance(events[0], RunStarted) and events[0].plan_only
    if plans or not isinstance(history.outcome, ValueOutcome):
        return ()
    return tuple(_ClaimExtractor(history, OutputLineage.of(history, events, workflows)).claims(history.outcome.value))


def extract_accepted_claims(events: Iterable[Event], workflows: Mapping[str, bytes]) -> tuple[OutputClaim, ...]:
    """Returns the claims of a run's output that are known before the run ends: those of accepted nodes whose values the
    output passes on unchanged. The other arguments and the order are those of `extract_claims`.
    """
    events = list(events)
    if not events or not isinstance(events[0], RunStarted) or events[0].plan_only:
        return ()
    history = History.of(events)
    lineage = OutputLineage.of(history, events, workflows)
    if lineage.root is None:
        return ()
    output = accepted_output(lineage.root.output, lineage.root.nodes, lineage.rows)
    if output is MISSING:
        return ()
    return tuple(_ClaimExtractor(history, lineage).claims(output))


def awaited_nodes(workflow: bytes) -> frozenset[str]:
    """Returns the nodes of a stored workflow whose acceptance makes more claims known (`extract_accepted_claims`)."""
    graph = parse_graph(workflow)
    return frozenset() if graph is None else passed_on_nodes(graph.output, graph.nodes)


def dropped_claims(events: Iterable[Event]) -> tuple[OutputClaim, ...]:
    """Returns what nodes with back-off removed from accepted values, with the reason; `path` is the path in the node's
    answer.
    """
    output_claims: list[OutputClaim] = []
    for event in events:
        if not isinstance(event, OutputJudged) or not event.accepted:
            continue
        for verdict in event.verdicts:
            for part in verdict.dropped:
                outcome = UNKNOWN if part.score is None else FAIL
                claim_verdict = ClaimVerdict(
                    event.node, verdict.check, outcome, 0.0 if part.score is None else part.score, part.reason
                )
                reason = f"dropped: {part.reason}"
                output_claims.append(
                    OutputClaim(
                        part.path,
                        part.text,
                        (event.node,),
                        verdicts=(claim_verdict,),
                        score=part.score,
                        unsupported=reason,
                        dropped=True,
                    )
                )
    return tuple(output_claims)


@dataclass(frozen=True, slots=True)
class _ClaimBasis:
    """What does not depend on the words of a claim: the same for all claims with the same sources."""

    nodes: tuple[str, ...]
    verdicts: tuple[ClaimVerdict, ...]
    score: float | None
    unsupported: str
    """Why it is unsupported, independent of its evidence."""
    person: str
    """Which person gave it."""
    node_names: frozenset[str]


@dataclass(frozen=True, slots=True)
class _BaseEvidence:
    """The evidence of sources of a group whose content differs from the part, in the order of the group, with their
    indices.
    """

    places: list[tuple[int, EvidenceLocation]]
    distinct: list[tuple[int, EvidenceLocation]]
    """Without repetitions, and limited as for a claim."""
    results: list[tuple[Fraction, int]]
    """Results of the expressions beside their values, sorted."""


@dataclass(frozen=True, slots=True)
class _ClaimEvidence:
    """The evidence of a claim for a quote beside it in the value of one node."""

    evidence: frozenset[Support]
    verdicts: frozenset[ClaimVerdict]
    supported: bool

    @classmethod
    def of(cls, claim: OutputClaim) -> Self:
        """Returns the evidence of a claim."""
        has_support = not (claim.unsupported or claim.person)
        return cls(frozenset(claim.evidence), frozenset(claim.verdicts), has_support)

    def covers(self, quote: OutputClaim, places: frozenset[Support]) -> bool:
        """Whether the quote is in this evidence with its verdicts, and this claim is not less supported than the
        quote.
        """
        return (
            places <= self.evidence
            and self.verdicts.issuperset(quote.verdicts)
            and (self.supported or bool(quote.unsupported))
        )


class _ClaimExtractor:
    def __init__(self, history: History, lineage: OutputLineage) -> None:
        self.history, self.lineage = history, lineage
        self.verdicts = {row.path: _verdicts(row) for row in history.rows}
        self.attributor = Attributor(self._row, lambda node: bool(self.verdicts[node]))
        self.arithmetic = _Arithmetic()
        self._statements: dict[str, Statement | None] = {}
        self._origin_cache: dict[PathSteps, PartOrigins] = {}
        self._basis_cache: dict[tuple[Any, ...], _ClaimBasis] = {}
        self._evidence_cache: dict[BaseOrigins, _BaseEvidence] = {}
        self._group_nodes: dict[OriginGroup, frozenset[str]] = {}
        self._overlap_cache: dict[tuple[int, OriginGroup], bool] = {}
        self._support_cache: dict[tuple[Attribution, type, Any], Sequence[Support]] = {}

    @cached_property
    def texts(self) -> RunTexts:
        """The texts of the run."""
        return RunTexts.of(self.history)

    def claims(self, output: Any) -> Iterator[OutputClaim]:
        """Yields the claims of an output: one for each part that states something."""
        output_leaves, omitted_count, first = _take_parts(leaves(output))
        citations = self._citations(output)
        if not output_leaves:
            if output not in (None, "", [], {}) and any(
                is_citation(record_fields) or is_cell(record_fields) for _, record_fields in records(output)
            ):
                yield self._build_claim(Leaf((), "", output), EvidenceByPath(citations))
            return
        shelf = EvidenceByPath(citations)
        claim_rows = [(leaf, self._build_claim(leaf, shelf), self._quote_places(leaf)) for leaf in output_leaves]
        evidence_by_record: dict[tuple[str, str, str], set[_ClaimEvidence]] = {}
        for leaf, claim, quoted_places in claim_rows:
            if not quoted_places:
                for record in self._source_records(leaf):
                    evidence_by_record.setdefault(record, set()).add(_ClaimEvidence.of(claim))
        for leaf, claim, quoted_places in claim_rows:
            beside = (
                (
                    claim_evidence
                    for record in self._source_records(leaf)
                    for claim_evidence in evidence_by_record.get(record, ())
                )
                if quoted_places
                else ()
            )
            if not any(claim_evidence.covers(claim, quoted_places) for claim_evidence in beside):
                yield claim
        if omitted_count:
            reason = (
                f"the output has {len(output_leaves) + omitted_count:,} parts, and {MAX_CLAIMS:,} are looked at one "
                "by one"
            )
            yield OutputClaim("", f"{omitted_count:,} more parts, from {first} on", unsupported=reason)

    def _quote_places(self, leaf: Leaf) -> frozenset[Support]:
        """Returns where a check found a part of the output that is a quote; empty for another part."""
        quote_places: set[Support] = set()
        for origin in self._origins(leaf.steps).exact:
            if (statement := self._statement(origin.node)) is not None:
                quote_places.update(statement.found.at(format_path(origin.steps)))
        return frozenset(quote_places)

    def _source_records(self, leaf: Leaf) -> Iterator[tuple[str, str, str]]:
        """Yields the record of a part of the output, and the record of each node's value that passed the part on
        unchanged.
        """
        return (
            (leaf.record, origin.node, record_path(format_path(origin.steps)))
            for origin in self._origins(leaf.steps).exact
        )

    def _origins(self, steps: PathSteps) -> PartOrigins:
        if steps not in self._origin_cache:
            self._origin_cache[steps] = self.lineage.origins(steps)
        return self._origin_cache[steps]

    def _build_claim(self, leaf: Leaf, citations: EvidenceByPath) -> OutputClaim:
        way = self._origins(leaf.steps)
        attribution = self.attributor.attribute(way.derived, leaf.value)
        basis = self._basis(way.exact, attribution)
        support = chain(
            self._exact_support(way.exact, leaf.value),
            self._derived_support(attribution, leaf.value),
            self._cited_support(leaf, citations, basis),
        )
        evidence = _distinct(support)
        reason = basis.unsupported
        if not (evidence or reason or basis.person):
            reason = "its checks pass, and none of them gives evidence"
        return OutputClaim(
            leaf.path, leaf.value, basis.nodes, evidence, basis.verdicts, basis.score, reason, basis.person
        )

    def _basis(self, exact: tuple[NodeOrigin, ...], attribution: Attribution) -> _ClaimBasis:
        key = (
            tuple((origin.node, origin.kind, origin.covered) for origin in exact),
            attribution.base,
            attribution.additional,
        )
        if (cached_basis := self._basis_cache.get(key)) is not None:
            return cached_basis
        origins = [*exact, *attribution.origins()]
        nodes = tuple(dict.fromkeys(origin.node for origin in origins))
        verdicts = tuple(
            dict.fromkeys(claim_verdict for node in nodes for claim_verdict in self.verdicts.get(node, ()))
        )
        scores = [
            score for node in nodes if (row := self._row(node)) is not None and (score := _row_score(row)) is not None
        ]
        person = self._person(exact, origins, verdicts)
        reason = "" if person else self._unsupported_reason(origins, verdicts)
        new_basis = self._basis_cache[key] = _ClaimBasis(
            nodes, verdicts, min(scores, default=None), reason, person, frozenset(nodes)
        )
        return new_basis

    def _cited_support(self, leaf: Leaf, citations: EvidenceByPath, basis: _ClaimBasis) -> Iterator[Support]:
        """Yields the citations of the output beside a claim, if a node of the claim has the citation too."""
        for cited_evidence in citations.nearest(leaf.path):
            way = self._origins(cited_evidence.steps)
            if (
                any(origin.node in basis.node_names for origin in way.exact)
                or self._overlaps(basis, way.derived)
                or self.lineage.root is None
            ):
                yield cited_evidence.support

    def _overlaps(self, basis: _ClaimBasis, group: OriginGroup) -> bool:
        """Whether one of these nodes is in a group."""
        key = (id(basis), group)
        if (cached_overlap := self._overlap_cache.get(key)) is None:
            if group not in self._group_nodes:
                self._group_nodes[group] = frozenset(origin.node for origin in group.origins)
            cached_overlap = self._overlap_cache[key] = not basis.node_names.isdisjoint(self._group_nodes[group])
        return cached_overlap

    def _exact_support(self, exact: Iterable[NodeOrigin], value: Any) -> Iterator[Support]:
        for origin in exact:
            yield from self._node_support(origin.node, format_path(origin.steps), value)

    def _node_support(self, node: str, path: str, value: Any) -> Iterator[Support]:
        """Yields what the checks found for a part of a node's value, what the value cites, and the computation beside
        it.
        """
        if (statement := self._statement(node)) is not None:
            yield from statement.places(path)
            if (computation := self.arithmetic.computation(statement, path, value)) is not None:
                yield computation

    def _derived_support(self, attribution: Attribution, value: Any) -> Sequence[Support]:
        """Yields the same for the sources of a group, limited as for a claim."""
        if content_key(value) is None:
            return _distinct(evidence for _, evidence in self._ordered_support(attribution, value))
        key = (attribution, type(value), value)
        if (cached_support := self._support_cache.get(key)) is None:
            cached_support = self._support_cache[key] = _distinct(
                evidence for _, evidence in self._ordered_support(attribution, value)
            )
        return cached_support

    def _ordered_support(self, attribution: Attribution, value: Any) -> Iterator[tuple[int, Support]]:
        """Yields the evidence of the sources of a group, with their indices; for the first ones the locations, then the
        computation.
        """
        origins, agree = attribution.base.group.origins, attribution.agreeing
        base_evidence = self._base_evidence(attribution.base)
        apart = agree.keys() & attribution.base.members
        places = (
            ((at, place) for at, place in base_evidence.places if at not in apart)
            if apart
            else iter(base_evidence.distinct)
        )
        computations = self._computations(base_evidence, origins, value, apart)
        evidence_pairs = (
            (at, evidence)
            for at in sorted(agree)
            for evidence in self._node_support(origins[at].node, agree[at], value)
        )
        return merge(places, computations, evidence_pairs, key=itemgetter(0))

    def _computations(
        self, base_evidence: _BaseEvidence, origins: Sequence[NodeOrigin], value: Any, apart: Collection[int]
    ) -> Iterator[tuple[int, Computation]]:
        for at in self.arithmetic.matching(base_evidence.results, value):
            statement = self._statement(origins[at].node)
            if (
                at not in apart
                and statement is not None
                and (computation := self.arithmetic.computation(statement, "", value)) is not None
            ):
                yield at, computation

    def _base_evidence(self, base: BaseOrigins) -> _BaseEvidence:
        if (cached_evidence := self._evidence_cache.get(base)) is not None:
            return cached_evidence
        places: list[tuple[int, EvidenceLocation]] = []
        results: list[tuple[Fraction, int]] = []
        for at in base.positions:
            if (statement := self._statement(base.group.origins[at].node)) is not None:
                places += ((at, place) for place in statement.places(""))
                if (expression := statement.expression("")) is not None:
                    results += ((value, at) for value in self.arithmetic.results(expression))
        once: dict[EvidenceLocation, int] = {}
        for at, place in places:
            once.setdefault(place, at)
        first = [(at, place) for place, at in islice(once.items(), MAX_EVIDENCE)]
        cached_evidence = self._evidence_cache[base] = _BaseEvidence(places, first, sorted(results))
        return cached_evidence

    def _statement(self, node: str) -> Statement | None:
        """Returns a node's value with its evidence; None without a value."""
        if node not in self._statements:
            row, statement = self._row(node), None
            if row is not None and isinstance(row.outcome, ValueOutcome):
                statement = Statement(row.outcome.value, self._check_evidence(row), self._citations(row.outcome.value))
            self._statements[node] = statement
        return self._statements[node]

    def _check_evidence(self, row: NodeRow) -> list[CitedEvidence]:
        """Yields the evidence of the checks of a node's last attempt, by the path of the supported field."""
        attempt = _accepted_attempt(row)
        return [
            CitedEvidence(
                evidence.field,
                self.texts.locate(evidence.quote, evidence.source, evidence.start, evidence.end),
                field_only=evidence.check == NUMBERS,
            )
            for verdict in (attempt.verdicts if attempt is not None else ())
            for evidence in verdict.evidence
        ]

    def _citations(self, value: Any) -> list[CitedEvidence]:
        """Yields the citations and cells in a value that occur in the run's texts; others are no evidence."""
        cited_evidence: list[CitedEvidence] = []
        for steps, record in records(value):
            if is_citation(record):
                place: EvidenceLocation | None = self.texts.locate(
                    record["quote"], record["source"], record["start"], record["end"]
                )
            elif is_cell(record):
                place = self.texts.find_cell(record["row"], record["column"], record["text"])
            else:
                continue
            if place is not None and place.where:
                cited_evidence.append(CitedEvidence(format_path(steps), place, steps=steps))
        return cited_evidence

    def _person(
        self, exact: Iterable[NodeOrigin], origins: Sequence[NodeOrigin], verdicts: Sequence[ClaimVerdict]
    ) -> str:
        """Returns which person gave a part; empty if none did, if it also has another unchecked source, or if it was
        computed from what the person gave.
        """
        if any(verdict.outcome == FAIL for verdict in verdicts):
            return ""
        answer_texts = {origin: answer_text for origin in exact if (answer_text := self._given_by(origin))}
        if any(origin not in answer_texts and self._unchecked_reason(origin) for origin in origins):
            return ""
        return next(iter(answer_texts.values()), "")

    def _given_by(self, origin: NodeOrigin) -> str:
        """Returns who gave the value of an origin, if it was a person and no check covers the value; otherwise
        empty.
        """
        if origin.covered or (row := self._row(origin.node)) is None:
            return ""
        if row.correction is not None:
            by = row.correction.by or "a person"
            return f"{by} gave it instead of a value that its checks rejected ({origin.node})"
        if row.overridden_by is not None:
            return f"given by {row.overridden_by.by or 'a person'} ({origin.node})"
        if origin.kind == "ask" and not row.unanswered_reason and not self.verdicts[origin.node]:
            return f"answered by a person ({origin.node})"
        return ""

    def _unsupported_reason(self, origins: Iterable[NodeOrigin], verdicts: Sequence[ClaimVerdict]) -> str:
        if any(verdict.outcome == FAIL for verdict in verdicts):
            return "a check of it fails"
        if reason := next(filter(None, map(self._unchecked_reason, origins)), ""):
            return reason
        if not any(verdict.outcome == PASS for verdict in verdicts):
            if self.lineage.root is None:
                return "the workflow of this run is not stored, so its checks are unknown"
            return "nothing checked it"
        return ""

    def _unchecked_reason(self, origin: NodeOrigin) -> str:
        """Returns why the value of an origin counts as unchecked; empty if it does not."""
        if origin.covered:
            return ""
        if (row := self._row(origin.node)) is not None:
            if row.correction is not None:
                return f"a person gave it instead of a value that its checks rejected ({origin.node})"
            if row.overridden_by is not None:
                return f"a person gave it{f': {row.overridden_by.by}' if row.overridden_by.by else ''} ({origin.node})"
            if origin.kind == "ask" and row.unanswered_reason:
                return f"{row.unanswered_reason}; the default applies ({origin.node})"
        if origin.kind == "ask" and not self.verdicts[origin.node]:
            return f"a person gave it, and it was not checked ({origin.node})"
        if origin.kind == "agent" and not self.verdicts[origin.node]:
            return f"nothing checked what {origin.node} says"
        return ""

    def _row(self, node: str) -> NodeRow | None:
        return self.lineage.rows.get(node)


def _accepted_attempt(row: NodeRow) -> NodeAttempt | None:
    """Returns the attempt whose value was accepted."""
    last = row.attempts[-1] if row.attempts else None
    return last if last is not None and last.accepted else None


def _verdicts(row: NodeRow) -> tuple[ClaimVerdict, ...]:
    attempt = _accepted_attempt(row)
    verdicts = attempt.verdicts if attempt is not None else ()
    return tuple(
        ClaimVerdict(row.path, verdict.check, verdict.outcome, verdict.score, verdict.reason) for verdict in verdicts
    )


def _row_score(row: NodeRow) -> float | None:
    attempt = _accepted_attempt(row)
    if attempt is not None and attempt.score is not None:
        return attempt.score
    return row.outcome.score if isinstance(row.outcome, ValueOutcome) else None


class _Arithmetic:
    """Computations that are repeated, each expression once."""

    def __init__(self) -> None:
        self._cache: dict[str, tuple[tuple[Fraction, ...], tuple[Fraction, ...]]] = {}

    def results(self, expression: str) -> tuple[Fraction, ...]:
        """Returns the results of an expression; empty if it is not arithmetic."""
        return self._evaluate(expression)[0]

    def matching(self, results: Sequence[tuple[Fraction, int]], claimed: Any) -> list[int]:
        """Yields the indices of results that a claimed number may be, in order; `results` are sorted."""
        if not results or (number := _single_number(claimed)) is None:
            return []
        positions: set[int] = set()
        for scale in SCALES:
            low, high = (scale * (number.value + side * number.step / 2) for side in (-1, 1))
            begin, end = bisect_left(results, low, key=itemgetter(0)), bisect_right(results, high, key=itemgetter(0))
            positions.update(at for _, at in results[begin:end])
        return sorted(positions)

    def computation(self, statement: Statement, path: str, claimed: Any) -> Computation | None:
        """Returns the expression beside a number if its result is that number; its operands with their locations."""
        if (expression := statement.expression(path)) is None or (number := _single_number(claimed)) is None:
            return None
        from orchestra.text import arithmetic

        results, operands = self._evaluate(expression)
        fits = (
            result
            for result in results
            for scale in SCALES
            if arithmetic.is_close(number.value * scale, number.step * scale, result)
        )
        if (exact := next(fits, None)) is None:
            return None
        return Computation(
            expression, _format_number(exact), tuple(_operand(statement, operand) for operand in operands)
        )

    def _evaluate(self, expression: str) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
        """Returns the result and the operands in written order."""
        if (cached_results := self._cache.get(expression)) is not None:
            return cached_results
        from orchestra.text import arithmetic
        from orchestra.text.numbers.numbers import find_numbers

        try:
            results, operands = arithmetic.possible_values(expression), arithmetic.operands(expression)
        except arithmetic.ArithmeticParseError:
            results, operands = (), []
        numbers = [abs(number.value) for number in find_numbers(expression)] if operands else []
        order = sorted(
            dict.fromkeys(operands), key=lambda operand: numbers.index(operand) if operand in numbers else len(numbers)
        )
        cached_results = self._cache[expression] = (results, tuple(order))
        return cached_results


def _operand(statement: Statement, operand: Fraction) -> Operand:
    place = statement.operand(operand)
    return Operand(_format_number(operand), () if place is None else (place,))


def _distinct(support: Iterable[Support]) -> tuple[Support, ...]:
    """Returns the first pieces of evidence, each once."""
    distinct_evidence: dict[Support, None] = {}
    for evidence in support:
        distinct_evidence[evidence] = None
        if len(distinct_evidence) == MAX_EVIDENCE:
            break
    return tuple(distinct_evidence)


def _take_parts(parts: Iterable[Leaf]) -> tuple[list[Leaf], int, str]:
    """Returns the parts of an output to examine; the number of further parts, and the path of the first of these."""
    line = iter(parts)
    output_leaves = list(islice(line, MAX_CLAIMS))
    beyond = next(line, None)
    return (output_leaves, 0, "") if beyond is None else (output_leaves, 1 + sum(1 for _ in line), beyond.path)


def _single_number(value: Any) -> Number | None:
    """Returns the one number in a part; None for another part."""
    from orchestra.text.numbers.numbers import MAX_DIGITS, find_numbers, from_json_number

    if isinstance(value, str):
        numbers = find_numbers(value)
        return numbers[0] if len(numbers) == 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    is_printable = abs(value) < 10**MAX_DIGITS if isinstance(value, int) else math.isfinite(value)
    return from_json_number(value) if is_printable else None


def _format_number(number: Fraction) -> str:
    """Formats a number for people, to 12 digits."""
    from orchestra.text import arithmetic

    return str(number.numerator) if number.denominator == 1 else arithmetic.format_fraction(number)


def is_supported(claim: OutputClaim) -> bool:
    """True if evidence and checks support a claim; False also for what a person gave."""
    return not (claim.unsupported or claim.person)


def is_quote_only(claim: OutputClaim) -> bool:
    """True if a claim passed no check except `quote`."""
    return {verdict.check for verdict in claim.verdicts if verdict.outcome == "pass"} <= {"quote", "schema"}


def outermost_evidence(evidence: Iterable[Support]) -> list[Support]:
    """Evidence without spans that lie within other spans."""
    all_evidence = list(evidence)
    spans = [item for item in all_evidence if isinstance(item, TextSpan)]
    return [
        item
        for item in all_evidence
        if not (isinstance(item, TextSpan) and any(_is_within(item, other_span) for other_span in spans))
    ]


def _is_within(span: TextSpan, other_span: TextSpan) -> bool:
    """True if a span lies within a different span."""
    if span.start is None or span.end is None or other_span.start is None or other_span.end is None:
        return False
    is_same_source = (span.source, span.where) == (other_span.source, other_span.where)
    return (
        is_same_source
        and other_span.start <= span.start
        and span.end <= other_span.end
        and (span.start, span.end) != (other_span.start, other_span.end)
    )
