"""Claims: what a run's output says, part by part, each with what it rests on, what the checks said, and its score. Pure.

Computed from a run's events and the workflow that it stored, so that an old run gives the same as a new one. A claim is supported where
it has evidence and a check that passed; every other one is unsupported and says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import msgspec

from orchestra.events import Event, Judged
from orchestra.journal.history import Attempt, History, Row
from orchestra.lineage import Lineage, Origin, Steps
from orchestra.places import Place, Span, TableCell, Texts, is_cell, is_citation
from orchestra.values import arithmetic
from orchestra.values.fields import EXPRESSION, is_share
from orchestra.values.outcome import Value
from orchestra.verify.numbers import MAX_DIGITS, Number, numbers, stated
from orchestra.verify.verdict import FAIL, PASS, UNKNOWN

MAX_CLAIMS = 1_000
"""Claims of one output that are looked at one by one; what is beyond them is one claim more, and unsupported."""
MAX_EVIDENCE = 100
"""Pieces of evidence of one claim, at most: the first ones."""
MAX_LEAVES = 1_000
"""Parts of a node's value that are compared with a claim, at most."""
_ABOUT_ITSELF = frozenset({"confidence", "probability", "score"})
"""Fields that speak of the answer, not of the world, where they are a number from 0 to 1; as in `verify.deterministic`."""
NUMBERS = "numbers"
"""The check whose evidence is the place of a number: of one field's alone."""
_INDICES = re.compile(r"(?:\[\d+\])+\Z")


class Operand(msgspec.Struct, frozen=True):
    """A number of an expression, and where it stands; without a place it is a constant, such as a factor of a hundred."""

    text: str
    places: tuple[Place, ...] = ()


class Computation(msgspec.Struct, frozen=True, tag_field="kind", tag="computation"):
    """An expression that gives the claimed number, computed again here; its operands in the order in which they are written."""

    expression: str
    result: str
    operands: tuple[Operand, ...] = ()


Support: TypeAlias = Span | TableCell | Computation


class Judgement(msgspec.Struct, frozen=True):
    """What a check said of the value of a node that the claim comes from."""

    node: str
    check: str
    outcome: str
    score: float
    reason: str = ""


class Claim(msgspec.Struct, frozen=True):
    """One thing that an output says."""

    path: str
    """Which part of the output, such as `text` or `items[0].answer`; empty for the whole."""
    value: Any
    nodes: tuple[str, ...] = ()
    """The nodes that said it; empty where nothing can be traced."""
    evidence: tuple[Support, ...] = ()
    verdicts: tuple[Judgement, ...] = ()
    score: float | None = None
    """In [0, 1]: the lowest of the nodes' scores; None where nothing gave one."""
    unsupported: str = ""
    """Why it is not supported; empty where it is."""
    dropped: bool = False
    """Whether the output does not say it any more: a node that backs off took it out of its value, at this path."""


def claims(events: Iterable[Event], workflows: Mapping[str, bytes]) -> tuple[Claim, ...]:
    """The claims of a run's output, in its order; none where there is no output, or where it says nothing (null, or empty).

    `workflows` are the frozen ones that the run stored: its own under an empty name, called ones under `workflow/NAME`.
    """
    events = list(events)
    history = History.of(events)
    if not isinstance(history.outcome, Value):
        return ()
    return tuple(_Reading(history, Lineage.of(history, events, workflows), Texts.of(history)).claims(history.outcome.value))


def dropped(events: Iterable[Event]) -> tuple[Claim, ...]:
    """What nodes that back off took out of values that they accepted, with the reason; `path` is the way to it in the node's own answer."""
    found: list[Claim] = []
    for event in events:
        if not isinstance(event, Judged) or not event.accepted:
            continue
        for verdict in event.verdicts:
            for part in verdict.dropped:
                outcome = UNKNOWN if part.score is None else FAIL
                said = Judgement(event.node, verdict.check, outcome, 0.0 if part.score is None else part.score, part.reason)
                why = f"dropped: {part.reason}"
                found.append(Claim(part.path, part.text, (event.node,), verdicts=(said,), score=part.score, unsupported=why, dropped=True))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A part of a value that holds no other: its steps and its path, and the path of the record that it stands in."""

    steps: Steps
    path: str
    value: Any

    @property
    def record(self) -> str:
        return _record(self.path)


@dataclass(frozen=True, slots=True)
class _Cited:
    """Evidence in a node's value or in an output, and the path at which it stands there."""

    path: str
    support: Support
    steps: Steps = ()
    alone: bool = False
    """Whether it supports that field and no other beside it, as the place of a number does; a quote supports its record."""


class _Reading:
    def __init__(self, history: History, lineage: Lineage, texts: Texts) -> None:
        self.history, self.lineage, self.texts = history, lineage, texts
        self.judged = {row.path: _judgements(row) for row in history.rows}
        self._checked: dict[str, list[_Cited]] = {}
        self._cited: dict[str, list[_Cited]] = {}
        self._origins: dict[Steps, list[Origin]] = {}

    def claims(self, output: Any) -> Iterator[Claim]:
        leaves = list(_leaves(output))
        spoken, rest = leaves[:MAX_CLAIMS], leaves[MAX_CLAIMS:]
        if not spoken:
            if output not in (None, "", [], {}) and any(is_citation(one) or is_cell(one) for _, one in _records(output)):
                yield self._claim(_Leaf((), "", output), output)
            return
        quotes = {leaf.path for leaf in spoken if self._is_quote(leaf)}
        speaking = {leaf.record for leaf in spoken if leaf.path not in quotes}
        for leaf in spoken:
            if leaf.path not in quotes or leaf.record not in speaking:
                yield self._claim(leaf, output)
        if rest:
            why = f"the output has {len(leaves):,} parts, and {MAX_CLAIMS:,} are looked at one by one"
            yield Claim("", f"{len(rest):,} more parts, from {rest[0].path} on", unsupported=why)

    def _is_quote(self, leaf: _Leaf) -> bool:
        """Whether a part of the output is a quote that a check found in the evidence."""
        exact = [origin for origin in self._traced(leaf.steps) if origin.exact]
        return any(not one.alone and one.path == _path(origin.steps) for origin in exact for one in self._found(origin.node))

    def _traced(self, steps: Steps) -> list[Origin]:
        if steps not in self._origins:
            self._origins[steps] = self.lineage.origins(steps)
        return self._origins[steps]

    def _claim(self, leaf: _Leaf, output: Any) -> Claim:
        origins = self._said(self._traced(leaf.steps), leaf.value)
        evidence: dict[Support, None] = {}
        for origin, path in origins:
            for support in self._support(origin, path, leaf.value):
                evidence[support] = None
        for support in self._told_with(leaf, output, {origin.node for origin, _ in origins}):
            evidence[support] = None
        verdicts = tuple(dict.fromkeys(one for origin, _ in origins for one in self.judged.get(origin.node, ())))
        known = [self._row(origin.node) for origin, _ in origins]
        scores = [score for row in known if row is not None and (score := _score(row)) is not None]
        nodes = tuple(dict.fromkeys(origin.node for origin, _ in origins))
        found = tuple(evidence)[:MAX_EVIDENCE]
        why = self._unsupported([origin for origin, _ in origins], verdicts, found)
        return Claim(leaf.path, leaf.value, nodes, found, verdicts, min(scores, default=None), why)

    def _told_with(self, leaf: _Leaf, output: Any, nodes: set[str]) -> Iterator[Support]:
        """What the output itself cites beside a claim: where one of the nodes that said the claim has said the citation too."""
        near = _beside(leaf.path, self._citations("", output))
        for cited in near:
            if nodes & {origin.node for origin in self._traced(cited.steps)} or self.lineage.root is None:
                yield cited.support

    def _said(self, origins: Sequence[Origin], value: Any) -> list[tuple[Origin, str]]:
        """The nodes that a claim comes from, each with the path of it in the node's value.

        Of several that code put together, those agents that say the same as the claim speak for it, where there are any; and of tools
        whose value is handed on through others only those with evidence or checks.
        """
        found: list[tuple[Origin, str]] = []
        agrees: set[int] = set()
        for origin in origins:
            path = _path(origin.steps)
            if not origin.exact:
                row = self._row(origin.node)
                inside = _leaves(row.outcome.value) if row is not None and isinstance(row.outcome, Value) else iter(())
                same = next((one.path for _, one in zip(range(MAX_LEAVES), inside, strict=False) if _same(one.value, value)), None)
                if same is not None:
                    agrees.add(len(found))
                path = same or ""
            found.append((origin, path))
        agreed = any(found[at][0].kind == "agent" for at in agrees)

        def speaks(at: int, origin: Origin) -> bool:
            if origin.exact or at in agrees:
                return True
            return not agreed if origin.kind == "agent" else origin.kind != "tool" or bool(self.judged[origin.node])

        return [(origin, path) for at, (origin, path) in enumerate(found) if speaks(at, origin)]

    def _support(self, origin: Origin, path: str, value: Any) -> Iterator[Support]:
        """What the checks found for a part of a node's value, what that value cites, and the computation beside it."""
        row = self._row(origin.node)
        if row is None or not isinstance(row.outcome, Value):
            return
        found, cited = self._found(origin.node), self._citations(origin.node, row.outcome.value)
        for near in (_beside(path, found) or _all(path, found), _beside(path, cited) or _all(path, cited)):
            yield from (one.support for one in near)
        if (computed := _computation(row.outcome.value, path, value, [*found, *cited])) is not None:
            yield computed

    def _found(self, node: str) -> list[_Cited]:
        """What the checks of a node's last attempt found, by the path of the field that it supports."""
        if node not in self._checked:
            row = self._row(node)
            attempt = _accepted(row) if row is not None else None
            self._checked[node] = [
                _Cited(one.field, self.texts.place(one.quote, one.source, one.start, one.end), alone=one.check == NUMBERS)
                for verdict in (attempt.verdicts if attempt is not None else ())
                for one in verdict.evidence
            ]
        return self._checked[node]

    def _citations(self, node: str, value: Any) -> list[_Cited]:
        """The citations and cells in a node's value, or in the output, that stand in the run's texts; others are no evidence."""
        if (known := self._cited.get(node)) is not None:
            return known
        found = self._cited[node] = []
        for steps, record in _records(value):
            if is_citation(record):
                place: Place | None = self.texts.place(record["quote"], record["source"], record["start"], record["end"])
            elif is_cell(record):
                place = self.texts.cell(record["row"], record["column"], record["text"])
            else:
                continue
            if place is not None and place.where:
                found.append(_Cited(_path(steps), place, steps=steps))
        return found

    def _unsupported(self, origins: Sequence[Origin], verdicts: Sequence[Judgement], evidence: Sequence[Support]) -> str:
        if any(one.outcome == FAIL for one in verdicts):
            return "a check of it fails"
        for origin in origins:
            if not origin.covered and (row := self._row(origin.node)) is not None and row.corrected is not None:
                return f"a person said so, in the place of what its checks did not accept ({origin.node})"
            if origin.kind == "ask" and not origin.covered and not self.judged[origin.node]:
                return f"a person said so, and nothing checked it ({origin.node})"
            if origin.kind == "agent" and not origin.covered and not self.judged[origin.node]:
                return f"nothing checked what {origin.node} says"
        if not any(one.outcome == PASS for one in verdicts):
            if self.lineage.root is None:
                return "the workflow of this run is not stored, so nobody knows which checks it passed"
            return "nothing checked it"
        return "" if evidence else "its checks pass, and none of them gives evidence"

    def _row(self, node: str) -> Row | None:
        return self.lineage.rows.get(node)


def _accepted(row: Row) -> Attempt | None:
    """The attempt whose value was accepted."""
    last = row.attempts[-1] if row.attempts else None
    return last if last is not None and last.accepted else None


def _judgements(row: Row) -> tuple[Judgement, ...]:
    attempt = _accepted(row)
    verdicts = attempt.verdicts if attempt is not None else ()
    return tuple(Judgement(row.path, one.check, one.outcome, one.score, one.reason) for one in verdicts)


def _score(row: Row) -> float | None:
    attempt = _accepted(row)
    if attempt is not None and attempt.score is not None:
        return attempt.score
    return row.outcome.score if isinstance(row.outcome, Value) else None


def _leaves(value: Any) -> Iterator[_Leaf]:
    """The parts of a value that say something: no nulls and empty texts, no evidence, no expressions, no scores."""
    line: list[tuple[Steps, Any]] = [((), value)]
    while line:
        steps, here = line.pop()
        if isinstance(here, Mapping):
            if is_citation(here) or is_cell(here):
                continue
            passage = {"text", "source", "start", "end"} <= here.keys()
            for key, part in reversed(list(here.items())):
                if (key in _ABOUT_ITSELF and is_share(part)) or (key == EXPRESSION and isinstance(part, str)):
                    continue
                if not passage or key not in ("source", "start", "end"):
                    line.append(((*steps, str(key)), part))
        elif isinstance(here, Sequence) and not isinstance(here, str):
            line += [((*steps, index), part) for index, part in reversed(list(enumerate(here)))]
        elif here is not None and here != "":
            yield _Leaf(steps, _path(steps), here)


def _records(value: Any) -> Iterator[tuple[Steps, Mapping[str, Any]]]:
    """The records in a value, containers before what they hold, each with the steps that lead to it."""
    line: list[tuple[Steps, Any]] = [((), value)]
    while line:
        steps, here = line.pop()
        if isinstance(here, Mapping):
            yield steps, here
            line += [((*steps, str(key)), part) for key, part in reversed(list(here.items()))]
        elif isinstance(here, Sequence) and not isinstance(here, str):
            line += [((*steps, index), part) for index, part in reversed(list(enumerate(here)))]


def _path(steps: Steps) -> str:
    """Steps as evidence writes them: `items[0].quote`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _record(path: str) -> str:
    """The path of the record that a part stands in, through the lists between; empty for the whole value."""
    return _INDICES.sub("", path).rpartition(".")[0]


def _beside(path: str, cited: Sequence[_Cited]) -> list[_Cited]:
    """The evidence that stands nearest: in the record of a part, or in one around it; that in records beside it is theirs."""
    around = _record(path)
    while True:
        own = [one for one in cited if _record(one.path) == around and _is_shared(one, path)]
        if own or not around:
            return own
        around = _record(around)


def _all(path: str, cited: Sequence[_Cited]) -> list[_Cited]:
    """What a part of the outermost record of a node's value rests on, where that record has no evidence of its own: on all in the value."""
    return [] if _record(path) else [one for one in cited if not one.alone]


def _is_shared(one: _Cited, path: str) -> bool:
    """Whether evidence in a part's record speaks for the part too: not that of another number, nor that of another item of a list."""
    return one.path == path or not (one.alone or _INDICES.sub("", one.path) == _INDICES.sub("", path))


def _same(one: Any, other: Any) -> bool:
    """Whether two scalars say the same: texts up to case and spacing."""
    if isinstance(one, str) and isinstance(other, str):
        return " ".join(one.casefold().split()) == " ".join(other.casefold().split())
    return type(one) is type(other) and bool(one == other)


def _computation(value: Any, path: str, claimed: Any, cited: Sequence[_Cited]) -> Computation | None:
    """The expression beside a number, where it gives that number; its operands with their places."""
    if (shown := _number(claimed)) is None:
        return None
    record = next((one for steps, one in _records(value) if _path(steps) == _record(path)), None)
    expression = record.get(EXPRESSION) if record is not None else None
    if not isinstance(expression, str):
        return None
    try:
        results, operands = arithmetic.results(expression), arithmetic.operands(expression)
    except arithmetic.NotArithmetic:
        return None
    fits = (one for one in results for scale in (1, 100) if arithmetic.close(shown.value * scale, shown.step * scale, one))
    if (exact := next(fits, None)) is None:
        return None
    places = [one.support for one in cited if not isinstance(one.support, Computation)]
    written = [abs(number.value) for number in numbers(expression)]
    order = sorted(dict.fromkeys(operands), key=lambda operand: written.index(operand) if operand in written else len(written))
    return Computation(expression, _written(exact), tuple(_operand(operand, places) for operand in order))


def _operand(operand: Fraction, places: Sequence[Place]) -> Operand:
    fitting = [
        place
        for place in places
        for number in numbers(place.text if isinstance(place, TableCell) else place.quote, words=True)
        if abs(operand) in (abs(number.value), abs(number.plain))
    ]
    return Operand(_written(operand), tuple(dict.fromkeys(fitting))[:1])


def _number(value: Any) -> Number | None:
    """The one number that a part states; None for another part."""
    if isinstance(value, str):
        found = numbers(value)
        return found[0] if len(found) == 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    shown = abs(value) < 10**MAX_DIGITS if isinstance(value, int) else math.isfinite(value)
    return stated(value) if shown else None


def _written(number: Fraction) -> str:
    """A number as people read it, to 12 digits."""
    return str(number.numerator) if number.denominator == 1 else arithmetic.shown(number)
