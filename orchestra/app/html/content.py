"""The values that the templates show of a run: shortened, on one line where needed, with counts of what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, assert_never

from orchestra.app.claims.claims import (
    QUOTE_NOTE,
    ClaimVerdict,
    Computation,
    OutputClaim,
    Support,
    is_quote_only,
    is_supported,
    outermost_evidence,
)
from orchestra.app.claims.locations import EvidenceLocation, RunTexts, TableCell, TextSpan
from orchestra.app.run_text import describe_choices, describe_given, format_value
from orchestra.app.stored_certificates import StoredCertificate, iter_guarantees
from orchestra.core.events import Event, QuestionAsked, RunStarted, TurnStarted
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, ValueOutcome
from orchestra.core.paths import workflow_path
from orchestra.core.quantities import format_duration, format_money, format_time
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.journal.history import History, NodeRow
from orchestra.verification.certificates.certify import format_percent

MIN_BAR = 0.5
"""The minimum width of a bar of the timeline, in percent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a run is shown. The HTML states how much is left out."""

    text: int
    """Characters of a text."""
    line: int
    """Characters of a text on one line, such as a reason."""
    fold_characters: int
    """Characters above which a text is folded."""
    fold_lines: int
    context: int
    """Characters of a source before and after cited words."""
    claims: int
    evidence: int
    """Pieces of evidence, verdicts and nodes of a claim."""
    documents: int
    choices: int
    rows: int
    """Nodes in the timeline."""
    columns: int
    """Columns of a table around a cited cell."""
    withheld: int


PAGE = Limits(
    text=20_000,
    line=2_000,
    fold_characters=1_200,
    fold_lines=12,
    context=240,
    claims=200,
    evidence=20,
    documents=50,
    choices=100,
    rows=500,
    columns=50,
    withheld=100,
)
"""Limits of a page in a file."""
CELL = Limits(
    text=2_000,
    line=300,
    fold_characters=600,
    fold_lines=8,
    context=160,
    claims=10,
    evidence=3,
    documents=5,
    choices=10,
    rows=60,
    columns=8,
    withheld=10,
)
"""Limits of an output of a notebook cell, which is saved with the notebook."""


@dataclass(frozen=True)
class RunContent:
    """What is known of a run."""

    events: Sequence[Event]
    status: str
    claims: Sequence[OutputClaim] = ()
    dropped: Sequence[OutputClaim] = ()
    confidence: float | None = None
    questions: Sequence[QuestionAsked] = ()
    """Open questions to persons."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Failed elements that are missing in their lists, with the reason."""
    certificates: Sequence[StoredCertificate] = ()
    """The certificates that the run started with. Only the page shows their figures."""

    @cached_property
    def history(self) -> History:
        """The run, folded from its events."""
        return History.of(self.events)

    @property
    def first(self) -> RunStarted | None:
        """The first event of the run."""
        first = self.events[0] if self.events else None
        return first if isinstance(first, RunStarted) else None

    def values(self, limits: Limits) -> dict[str, Any]:
        """Returns the values of the templates."""
        return _ContentParts(self, limits).values()


class _ContentParts:
    """The parts of a run, within limits."""

    def __init__(self, content: RunContent, limits: Limits) -> None:
        self._content, self._limits = content, limits
        self._history = content.history
        self._texts = RunTexts.of(self._history)

    def values(self) -> dict[str, Any]:
        """Returns all parts by the names that the templates have for them."""
        content, history, limits = self._content, self._history, self._limits
        outcome = history.outcome
        output_claims = (*content.claims, *content.dropped)
        withheld_parts = list(islice(self._withheld_parts(), limits.withheld + 1))
        return {
            "run": self._line(history.run),
            "workflow": self._line(history.workflow),
            "status": content.status,
            "facts": list(self._facts()),
            "restricted": content.first is not None and content.first.label == "restricted",
            "inputs": [(self._line(name), self._text(value)) for name, value in self._inputs()],
            "questions": [(self._line(question.node), self._line(question.question)) for question in content.questions],
            "answer": self._text(outcome.value) if isinstance(outcome, ValueOutcome) else None,
            "why": ""
            if outcome is None or isinstance(outcome, ValueOutcome)
            else self._line(f"{outcome.origin}: {outcome.reason}".removeprefix(": ")),
            "guarantees": list(self._guarantee_parts()),
            "claims": [self._claim_part(claim) for claim in output_claims[: limits.claims]],
            "claims_left": max(0, len(output_claims) - limits.claims),
            "supported": sum(map(is_supported, content.claims)),
            "given": sum(bool(claim.person) for claim in content.claims),
            "claimed": len(content.claims),
            "left_out": [
                (self._line(path), self._line(reason))
                for path, reason in islice(content.left_out.items(), limits.withheld)
            ],
            "left_out_more": max(0, len(content.left_out) - limits.withheld),
            "withheld": withheld_parts[: limits.withheld],
            "withheld_more": len(withheld_parts) > limits.withheld,
            "plans": list(self._plan_parts()),
            "rows": list(self._row_parts()),
            "paid": any(row.usage.money > 0 for row in history.rows),
            "choices": [self._line(text) for text in islice(describe_choices(history.rows), limits.choices)],
            "rows_left": max(0, len(history.rows) - limits.rows),
            "digests": list(self._digests()),
        }

    def _line(self, text: str, max_length: int = 0) -> str:
        """A text on one line."""
        return escape_invisible(" ".join(shorten(text, max_length or self._limits.line).split()), keep="")

    def _text(self, value: Any) -> dict[str, Any]:
        """A value: its first characters, and the number of omitted ones; JSON unless it is a text."""
        text, limits = format_value(value), self._limits
        is_folded = (
            len(text) > limits.fold_characters or text.count("\n", 0, limits.fold_characters) > limits.fold_lines
        )
        data = not isinstance(value, str) and text[:1] in ("{", "[")
        return {
            "text": escape_invisible(text[: limits.text]),
            "left": max(0, len(text) - limits.text),
            "long": is_folded,
            "json": data,
        }

    def _facts(self) -> Iterator[tuple[str, str]]:
        history, usage = self._history, self._history.usage
        yield "started", format_time(history.started)
        if history.seconds is not None:
            yield "took", format_duration(history.seconds)
        if self._content.confidence is not None:
            yield "confidence", f"{self._content.confidence:.2f}"
        yield "tokens", f"{usage.prompt_tokens:,} in, {usage.output_tokens:,} out"
        if usage.money > 0:
            yield "money", format_money(usage.money)
        yield "calls", f"{usage.calls:,}"
        if self._content.first is not None:
            yield "label", self._content.first.label

    def _inputs(self) -> Iterator[tuple[str, Any]]:
        """The inputs by name; each document of a list separately."""
        inputs, max_count = self._history.inputs, self._limits.documents
        for name, value in inputs.items() if isinstance(inputs, Mapping) else [("input", inputs)]:
            documents = value if isinstance(value, list) and value and all(map(_is_document, value)) else []
            if not documents:
                yield str(name), value
            for at, document in enumerate(documents[:max_count]):
                yield f"{name}[{at}]: {document['source']}", document["text"]
            if len(documents) > max_count:
                yield str(name), f"and {len(documents) - max_count} more"

    def _guarantee_parts(self) -> Iterator[dict[str, Any]]:
        """The guarantees of accepted values with their certificates; once for all elements of a list."""
        nodes = dict[tuple[str, str], tuple[int, StoredCertificate | None]]()
        for path, statement, certificate in iter_guarantees(self._history, self._content.certificates):
            about = workflow_path(path), statement
            nodes[about] = nodes.get(about, (0, None))[0] + 1, certificate
        for (path, statement), (count, certificate) in islice(nodes.items(), self._limits.choices):
            facts = (
                list(_guarantee_facts(certificate.summary))
                if certificate is not None
                else [("", "its certificate is missing or unreadable")]
            )
            yield {
                "node": self._line(path) + (f" ({count} values)" if count > 1 else ""),
                "said": self._line(statement, 2_000),
                "facts": [(self._line(name), self._line(text)) for name, text in facts],
            }

    def _claim_part(self, claim: OutputClaim) -> dict[str, Any]:
        evidence, max_count = outermost_evidence(claim.evidence), self._limits.evidence
        return {
            "path": self._line(claim.path) or "the answer",
            "value": self._text(claim.value),
            "unsupported": self._line(claim.unsupported),
            "person": self._line(claim.person),
            "score": "" if claim.score is None else f"{claim.score:.2f}",
            "nodes": [self._line(node) for node in claim.nodes[:max_count]],
            "evidence": [self._evidence_part(item) for item in evidence[:max_count]],
            "evidence_left": max(0, len(evidence) - max_count),
            "quote_shows": QUOTE_NOTE if is_supported(claim) and is_quote_only(claim) else "",
            "verdicts": [self._verdict_part(verdict) for verdict in claim.verdicts[:max_count]],
            "verdicts_left": max(0, len(claim.verdicts) - max_count),
        }

    def _verdict_part(self, verdict: ClaimVerdict) -> dict[str, str]:
        return {
            "node": self._line(verdict.node),
            "check": self._line(verdict.check),
            "outcome": verdict.outcome,
            "score": f"{verdict.score:.2f}",
            "reason": self._line(verdict.reason),
        }

    def _evidence_part(self, evidence: Support) -> dict[str, Any]:
        match evidence:
            case TextSpan():
                return self._span_part(evidence)
            case TableCell():
                return self._table_part(evidence)
            case Computation():
                operands = [
                    {
                        "text": self._line(operand.text),
                        "where": "; ".join(self._line(_format_location(place)) for place in operand.places),
                    }
                    for operand in evidence.operands
                ]
                return {
                    "kind": "computation",
                    "expression": self._line(evidence.expression),
                    "result": self._line(evidence.result),
                    "operands": operands,
                }
            case never:
                assert_never(never)

    def _span_part(self, span: TextSpan) -> dict[str, Any]:
        """Cited words within their text; alone if no text of the run contains them."""
        source, room = self._texts.get(span.where), self._limits.context
        before, after = "", ""
        if source is not None and span.start is not None and span.end is not None:
            begin = max(0, span.start - room)
            before = ("…" if begin else "") + source.text[begin : span.start]
            after = source.text[span.end : span.end + room] + ("…" if span.end + room < len(source.text) else "")
        return {
            "kind": "span",
            "before": escape_invisible(before),
            "quote": self._text(span.quote),
            "after": escape_invisible(after),
            "where": self._line(_format_location(span)),
            "found": source is not None,
        }

    def _table_part(self, cell: TableCell) -> dict[str, Any]:
        """A cited cell within its table: the header and neighbouring rows."""
        source = self._texts.get(cell.where)
        table = source.table if source is not None else ()
        first = max(1, cell.row - NEAR_ROWS)
        row_indexes = [0, *range(first, min(len(table), cell.row + NEAR_ROWS + 1))] if table else []
        max_count = self._limits.columns
        begin = max(0, min(cell.column - max_count // 2, len(table[0]) - max_count)) if table else 0
        columns = slice(begin, begin + max_count)
        rows = [
            {
                "head": at == 0,
                "cells": [
                    {"text": self._line(text, 200), "here": (at, column) == (cell.row, cell.column)}
                    for column, text in enumerate(table[at][columns], begin)
                ],
            }
            for at in row_indexes
        ]
        return {
            "kind": "cell",
            "text": self._line(cell.text),
            "where": self._line(_format_location(cell)),
            "rows": rows,
        }

    def _withheld_parts(self) -> Iterator[dict[str, Any]]:
        """The rejected values, and the nodes without an output."""
        for row in self._history.rows:
            for attempt in row.attempts:
                if attempt.accepted is False:
                    yield self._withheld_part(
                        row, f"attempt {attempt.number}", attempt.rejection_reason, self._text(attempt.value)
                    )
                elif attempt.error:
                    yield self._withheld_part(row, f"attempt {attempt.number}", f"{attempt.error}: {attempt.reason}")
            match row.outcome:
                case AbstainedOutcome(reason, by) | FailedOutcome(_, reason, by):
                    origin = by if by not in ("", row.path) else ""
                    yield self._withheld_part(row, row.status, f"{origin}: {reason}" if origin else reason)
                case _ if row.original_outcome is not None:
                    yield self._withheld_part(row, row.display_status, row.fallback_reason)
                case _:
                    pass

    def _withheld_part(
        self, row: NodeRow, status: str, reason: str, value: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return {"node": self._line(row.path), "what": status, "value": value, "why": self._line(reason)}

    def _plan_parts(self) -> Iterator[dict[str, Any]]:
        """The lines of each plan at the last turn of its router."""
        last = {
            event.node: event.draft
            for event in self._content.events
            if isinstance(event, TurnStarted) and event.draft is not None
        }
        for node, draft in islice(last.items(), self._limits.choices):
            yield {
                "node": self._line(node),
                "lines": self._text("\n".join(draft.lines)),
                "repaired": draft.repaired_lines,
            }

    def _row_parts(self) -> Iterator[dict[str, Any]]:
        """The nodes, each with its bar in the timeline: offset and width in percent of the run."""
        history = self._history
        begin = history.started
        end = max([history.finished or begin, *(event.at for event in self._content.events)])
        for row in history.rows[: self._limits.rows]:
            left = _percent(row.started - begin, end - begin)
            right = _percent((end if row.finished is None else row.finished) - begin, end - begin)
            width = max(MIN_BAR, right - left)
            yield {
                "path": self._line(row.path),
                "depth": min(row.depth, 12),
                "name": self._callee_name(row),
                "status": row.display_status,
                "time": "" if row.seconds is None else format_duration(row.seconds),
                "bar_left": f"{min(left, 100 - width):.2f}",
                "bar_width": f"{width:.2f}",
                "attempts": len(row.attempts) or "",
                "tokens_in": f"{row.usage.prompt_tokens:,}" if row.usage.prompt_tokens else "",
                "tokens_out": f"{row.usage.output_tokens:,}" if row.usage.output_tokens else "",
                "money": format_money(row.usage.money),
            }

    def _callee_name(self, row: NodeRow) -> str:
        """The called agent or tool, and the author of an override; for a list, those of its elements."""
        origin = describe_given(row.overridden_by) if row.overridden_by is not None else ""
        return (
            self._line(", ".join(filter(None, (row.name, origin))))
            if row.elements is None
            else pluralize(row.elements, "element")
        )

    def _digests(self) -> Iterator[tuple[str, str]]:
        """The digests of the workflow and of everything it calls, and the models that answered."""
        history, first = self._history, self._content.first
        if history.graph:
            yield "workflow", self._line(history.graph)
        if first is not None:
            for name, mark in first.versions.items():
                yield self._line(name), self._line(mark)
        if history.parent:
            yield "forked from run", self._line(history.parent)
        models = {(attempt.server, attempt.model) for row in history.rows for attempt in row.attempts if attempt.model}
        for server, model in sorted(models):
            yield f"model on {self._line(server)}", self._line(model)


NEAR_ROWS = 1
"""Table rows shown above and below a cited cell."""


def _percent(part: float, share: float) -> float:
    """A share of the run in percent, within 0 and 100: a damaged journal may have any times."""
    return min(100.0, max(0.0, 100 * part / share)) if share > 0 else 0.0


def _guarantee_facts(terms: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts of a certificate in words."""
    rows, result, rest, data = terms["rows"], terms["calibrated"], terms["held_out"], terms["data"]
    delta = f", delta {terms['delta']:g}" if "delta" in terms else ""
    yield "terms", f"alpha {terms['alpha']:g}{delta}; from a score of {terms['threshold']:.6g}"
    if attempt := terms.get("attempt"):
        yield (
            "attempt",
            f"number {attempt:,} on these rows, tested at {format_percent(terms['tested_at'])} of "
            f"{format_percent(terms['delta'])}",
        )
    yield "coverage", format_percent(terms["coverage"])
    yield (
        "rows",
        f"{sum(rows.values()):,} of {data['name']}: "
        + ", ".join(f"{count:,} {part.replace('_', ' ')}" for part, count in rows.items()),
    )
    if any((omissions := terms.get("left_out", {})).values()):
        yield (
            "left out",
            f"{omissions['duplicates']:,} rows with the input of another, "
            f"{omissions['grouped']:,} of one group with another",
        )
    yield "rows' digest", data["digest"]
    low, high = map(format_percent, rest["interval"])
    yield "calibrated", f"{result['wrong']:,} wrong of {result['accepted']:,} accepted"
    yield "on the rest", f"{rest['wrong']:,} wrong of {rest['accepted']:,} accepted, 95 % from {low} to {high}"
    yield "right by", ", ".join(terms["metrics"])
    yield "made", terms["created_at"]
    yield "assumed", terms["assumed"]
    yield "certificate", terms["certificate"]


def _is_document(value: Any) -> bool:
    match value:
        case {"source": str(), "text": str(), **rest}:
            return rest.keys() <= {"locations"}
        case _:
            return False


def _format_location(place: EvidenceLocation) -> str:
    if isinstance(place, TableCell):
        text = ", ".join(filter(None, (place.row_heading, place.column_heading)))
        at = place.location or f"row {place.row}, column {place.column}"
        return f"{text + ' — ' if text else ''}{at}"
    if place.location:
        return f"{place.source} {place.location}"
    at = f", characters {place.start} to {place.end}" if place.start is not None else ""
    return f"{place.source or place.where or 'a text outside of the journal'}{at}"
