"""A run as a page: one HTML file with the request, the answer, each claim beside its evidence, what was withheld, nodes and digests.

The file fetches nothing and runs nothing. All texts are strangers': they are escaped by the template, and what a reader's eyes would obey
(bidi controls, invisible characters) is spelled out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from typing import Any, assert_never

from minijinja import Environment

from orchestra.app.claims.claims import ClaimVerdict, Computation, OutputClaim, Support, dropped_claims
from orchestra.app.claims.locations import EvidenceLocation, RunTexts, TableCell, TextSpan
from orchestra.app.result import outcome_score
from orchestra.cli.certify.promises import StoredCertificate, iter_promises
from orchestra.cli.output import format_duration, format_money, format_time
from orchestra.cli.run.claims_view import QUOTE_NOTE, is_quote_only, outermost_evidence
from orchestra.cli.run.result_view import format_value
from orchestra.cli.runs.tail import describe_choices, describe_given
from orchestra.core.events import Event, RunStarted, TurnStarted
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, ValueOutcome
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.journal.history import History, NodeRow
from orchestra.verification.certificates.certify import format_percent

MAX_TEXT_LENGTH = 20_000
"""Characters of one text that the page shows; what is beyond them is said to be left out."""
FOLD_CHARACTERS, FOLD_LINES = 1_200, 12
"""Characters, and lines, from which on a text is folded away until it is asked for."""
CONTEXT_CHARACTERS = 240
"""Characters of a source that are shown before and after the words that a claim rests on."""
MAX_CHOICES = 100
MAX_CLAIMS = 200
MAX_DOCUMENTS = 50
MAX_EVIDENCE = 20
MAX_ROWS = 500
MAX_WITHHELD = 100
NEAR_ROWS = 1
"""Rows of a table that are shown above and below a cell's."""


def render_page(
    history: History,
    events: Sequence[Event],
    claims: Sequence[OutputClaim],
    status: str,
    certificates: Sequence[StoredCertificate] = (),
) -> str:
    """The page of a run."""
    environment = Environment(
        auto_escape_callback=lambda _: True, undefined_behavior="strict", trim_blocks=True, lstrip_blocks=True
    )
    environment.add_template("page", files("orchestra.cli.runs").joinpath("html_page.html").read_text("utf-8"))
    return environment.render_template(
        "page",
        **_template_values(history, events, claims, status),
        promises=list(_promise_parts(history, certificates)),
    )


def _template_values(
    history: History, events: Sequence[Event], claims: Sequence[OutputClaim], status: str
) -> dict[str, Any]:
    texts = RunTexts.of(history)
    outcome = history.outcome
    supported = sum(not claim.unsupported for claim in claims)
    shown = (*claims, *dropped_claims(events))
    return {
        "run": _one_line(history.run),
        "workflow": _one_line(history.workflow),
        "status": status,
        "facts": list(_run_facts(history, events)),
        "inputs": [(_one_line(name), _text_part(value)) for name, value in _named_inputs(history.inputs)],
        "answer": _text_part(outcome.value) if isinstance(outcome, ValueOutcome) else None,
        "why": ""
        if outcome is None or isinstance(outcome, ValueOutcome)
        else _one_line(f"{outcome.origin}: {outcome.reason}".removeprefix(": ")),
        "claims": [_claim_part(claim, texts) for claim in shown[:MAX_CLAIMS]],
        "claims_left": max(0, len(shown) - MAX_CLAIMS),
        "supported": supported,
        "claimed": len(claims),
        "withheld": list(_withheld_parts(history.rows))[:MAX_WITHHELD],
        "plans": list(_plan_parts(events)),
        "rows": [_row_part(row) for row in history.rows[:MAX_ROWS]],
        "paid": any(row.usage.money > 0 for row in history.rows),
        "choices": [_one_line(text) for text in islice(describe_choices(history.rows), MAX_CHOICES)],
        "rows_left": max(0, len(history.rows) - MAX_ROWS),
        "digests": list(_run_digests(history, events)),
    }


def _promise_parts(history: History, certificates: Sequence[StoredCertificate]) -> Iterator[dict[str, Any]]:
    """What certificates promise of accepted values, once for all elements of a list, each with what stands behind it."""
    nodes = dict[tuple[str, str], tuple[int, StoredCertificate | None]]()
    for path, said, one in iter_promises(history, certificates):
        about = re.sub(r"\[\d+\]|#\d+", "", path), said
        nodes[about] = nodes.get(about, (0, None))[0] + 1, one
    for (path, said), (count, one) in islice(nodes.items(), MAX_CHOICES):
        facts = (
            list(_promise_facts(one.summary))
            if one is not None
            else [("", "its certificate is not stored, or cannot be read")]
        )
        yield {
            "node": _one_line(path) + (f" ({count} values)" if count > 1 else ""),
            "said": _one_line(said),
            "facts": [(_one_line(name), _one_line(text)) for name, text in facts],
        }


def _promise_facts(terms: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What stands behind a promise, in words."""
    rows, seen, rest, data = terms["rows"], terms["calibrated"], terms["held_out"], terms["data"]
    delta = f", delta {terms['delta']:g}" if "delta" in terms else ""
    yield "terms", f"alpha {terms['alpha']:g}{delta}; from a score of {terms['threshold']:.6g}"
    if attempt := terms.get("attempt"):
        yield (
            "attempt",
            f"number {attempt:,} on these rows, tested at {format_percent(terms['tested_at'])} of {format_percent(terms['delta'])}",
        )
    yield "coverage", format_percent(terms["coverage"])
    yield (
        "rows",
        f"{sum(rows.values()):,} of {data['name']}: "
        + ", ".join(f"{count:,} {part.replace('_', ' ')}" for part, count in rows.items()),
    )
    if any((left := terms.get("left_out", {})).values()):
        yield (
            "left out",
            f"{left['duplicates']:,} rows with the input of another, {left['grouped']:,} of one group with another",
        )
    yield "rows' digest", data["digest"]
    low, high = map(format_percent, rest["interval"])
    yield "calibrated", f"{seen['wrong']:,} wrong of {seen['accepted']:,} accepted"
    yield "on the rest", f"{rest['wrong']:,} wrong of {rest['accepted']:,} accepted, 95 % from {low} to {high}"
    yield "right by", ", ".join(terms["metrics"])
    yield "made", terms["created_at"]
    yield "assumed", terms["assumed"]
    yield "certificate", terms["certificate"]


def _run_facts(history: History, events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    usage = history.usage
    yield "started", format_time(history.started)
    if history.seconds is not None:
        yield "took", format_duration(history.seconds)
    score = outcome_score(history.outcome, events)
    if score is not None:
        yield "confidence", f"{score:.2f}"
    yield "tokens", f"{usage.prompt_tokens:,} in, {usage.output_tokens:,} out"
    if usage.money > 0:
        yield "money", format_money(usage.money)
    yield "calls", f"{usage.calls:,}"


def _named_inputs(inputs: Any) -> Iterator[tuple[str, Any]]:
    """The inputs by name; of a list of documents each by itself."""
    for name, value in inputs.items() if isinstance(inputs, Mapping) else [("input", inputs)]:
        documents = value if isinstance(value, list) and value and all(map(_is_document, value)) else []
        if not documents:
            yield str(name), value
        for at, one in enumerate(documents[:MAX_DOCUMENTS]):
            yield f"{name}[{at}]: {one['source']}", one["text"]
        if len(documents) > MAX_DOCUMENTS:
            yield str(name), f"and {len(documents) - MAX_DOCUMENTS} more"


def _is_document(value: Any) -> bool:
    match value:
        case {"source": str(), "text": str(), **rest}:
            return not rest
        case _:
            return False


def _text_part(value: Any) -> dict[str, Any]:
    """A value as the page has it: at most `MAX_TEXT_LENGTH` characters, with how many were left out; what is no text, as JSON."""
    text = format_value(value)
    folded = len(text) > FOLD_CHARACTERS or text.count("\n", 0, FOLD_CHARACTERS) > FOLD_LINES
    data = not isinstance(value, str) and text[:1] in ("{", "[")
    return {
        "text": escape_invisible(text[:MAX_TEXT_LENGTH]),
        "left": max(0, len(text) - MAX_TEXT_LENGTH),
        "long": folded,
        "json": data,
    }


def _one_line(text: str, max_length: int = 2_000) -> str:
    """A text on one line."""
    return escape_invisible(" ".join(shorten(text, max_length).split()), keep="")


def _claim_part(claim: OutputClaim, texts: RunTexts) -> dict[str, Any]:
    shown = outermost_evidence(claim.evidence)
    return {
        "path": _one_line(claim.path) or "the answer",
        "value": _text_part(claim.value),
        "unsupported": _one_line(claim.unsupported),
        "score": "" if claim.score is None else f"{claim.score:.2f}",
        "nodes": [_one_line(node) for node in claim.nodes[:MAX_EVIDENCE]],
        "evidence": [_evidence_part(one, texts) for one in shown[:MAX_EVIDENCE]],
        "evidence_left": max(0, len(shown) - MAX_EVIDENCE),
        "quote_shows": QUOTE_NOTE if not claim.unsupported and is_quote_only(claim) else "",
        "verdicts": [_verdict_part(one) for one in claim.verdicts[:MAX_EVIDENCE]],
    }


def _verdict_part(verdict: ClaimVerdict) -> dict[str, str]:
    score, reason = f"{verdict.score:.2f}", _one_line(verdict.reason)
    return {
        "node": _one_line(verdict.node),
        "check": _one_line(verdict.check),
        "outcome": verdict.outcome,
        "score": score,
        "reason": reason,
    }


def _evidence_part(evidence: Support, texts: RunTexts) -> dict[str, Any]:
    match evidence:
        case TextSpan():
            return _span_part(evidence, texts)
        case TableCell():
            return _table_part(evidence, texts)
        case Computation():
            operands = [
                {
                    "text": _one_line(one.text),
                    "where": "; ".join(_one_line(_format_location(place)) for place in one.places),
                }
                for one in evidence.operands
            ]
            return {
                "kind": "computation",
                "expression": _one_line(evidence.expression),
                "result": _one_line(evidence.result),
                "operands": operands,
            }
        case never:
            assert_never(never)


def _span_part(span: TextSpan, texts: RunTexts) -> dict[str, Any]:
    """The words in their text, with some of it around them; alone where no text of the run has them."""
    source = texts.get(span.where)
    before, after = "", ""
    if source is not None and span.start is not None and span.end is not None:
        begin = max(0, span.start - CONTEXT_CHARACTERS)
        before = ("…" if begin else "") + source.text[begin : span.start]
        after = source.text[span.end : span.end + CONTEXT_CHARACTERS] + (
            "…" if span.end + CONTEXT_CHARACTERS < len(source.text) else ""
        )
    return {
        "kind": "span",
        "before": escape_invisible(before),
        "quote": _text_part(span.quote),
        "after": escape_invisible(after),
        "where": _one_line(_format_location(span)),
        "found": source is not None,
    }


def _table_part(cell: TableCell, texts: RunTexts) -> dict[str, Any]:
    """The cell in its table: the head, and the rows around it."""
    source = texts.get(cell.where)
    table = source.table if source is not None else ()
    first = max(1, cell.row - NEAR_ROWS)
    chosen = [0, *range(first, min(len(table), cell.row + NEAR_ROWS + 1))] if table else []
    rows = [
        {"head": at == 0, "cells": [_cell_part(text, (at, column), cell) for column, text in enumerate(table[at])]}
        for at in chosen
    ]
    return {"kind": "cell", "text": _one_line(cell.text), "where": _one_line(_format_location(cell)), "rows": rows}


def _cell_part(text: str, at: tuple[int, int], wanted: TableCell) -> dict[str, Any]:
    return {"text": _one_line(text, 200), "here": at == (wanted.row, wanted.column)}


def _format_location(place: EvidenceLocation) -> str:
    if isinstance(place, TableCell):
        named = ", ".join(filter(None, (place.row_heading, place.column_heading)))
        return f"{named + ' — ' if named else ''}row {place.row}, column {place.column}"
    at = f", characters {place.start} to {place.end}" if place.start is not None else ""
    return f"{place.source or place.where or 'a text that is not stored'}{at}"


def _withheld_parts(rows: Sequence[NodeRow]) -> Iterator[dict[str, Any]]:
    """The values that checks did not accept, and the nodes that ended without one."""
    for row in rows:
        for tried in row.attempts:
            if tried.accepted is False:
                yield _withheld_part(row, f"attempt {tried.number}", tried.rejection_reason, _text_part(tried.value))
            elif tried.error:
                yield _withheld_part(row, f"attempt {tried.number}", f"{tried.error}: {tried.reason}")
        match row.outcome:
            case AbstainedOutcome(reason, by) | FailedOutcome(_, reason, by):
                told_by = by if by not in ("", row.path) else ""
                yield _withheld_part(row, row.status, f"{told_by}: {reason}" if told_by else reason)
            case _ if row.original_outcome is not None:
                yield _withheld_part(row, row.display_status, row.fallback_reason)
            case _:
                pass


def _withheld_part(row: NodeRow, what: str, why: str, value: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"node": _one_line(row.path), "what": what, "value": value, "why": _one_line(why)}


def _plan_parts(events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    """The lines of each plan that the router wrote, as far as they stood at the last turn."""
    last = {event.node: event.draft for event in events if isinstance(event, TurnStarted) and event.draft is not None}
    for node, drafted in last.items():
        yield {
            "node": _one_line(node),
            "lines": _text_part("\n".join(drafted.lines)),
            "repaired": drafted.repaired_lines,
        }


def _row_part(row: NodeRow) -> dict[str, Any]:
    return {
        "path": _one_line(row.path),
        "depth": min(row.depth, 12),
        "name": _callee_name(row),
        "status": row.display_status,
        "time": "" if row.seconds is None else format_duration(row.seconds),
        "attempts": len(row.attempts) or "",
        "tokens_in": f"{row.usage.prompt_tokens:,}" if row.usage.prompt_tokens else "",
        "tokens_out": f"{row.usage.output_tokens:,}" if row.usage.output_tokens else "",
        "money": format_money(row.usage.money),
    }


def _callee_name(row: NodeRow) -> str:
    """Who was asked, and who said what it gave; of a list its elements."""
    said = describe_given(row.overridden_by) if row.overridden_by is not None else ""
    return (
        _one_line(", ".join(filter(None, (row.name, said))))
        if row.elements is None
        else pluralize(row.elements, "element")
    )


def _run_digests(history: History, events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    """What the run is bound to: its workflow, and by name all that it calls; and which models answered."""
    if history.graph:
        yield "workflow", _one_line(history.graph)
    first = events[0] if events else None
    if isinstance(first, RunStarted):
        for name, mark in first.versions.items():
            yield _one_line(name), _one_line(mark)
    if history.parent:
        yield "forked from run", _one_line(history.parent)
    models = {(tried.server, tried.model) for row in history.rows for tried in row.attempts if tried.model}
    for server, model in sorted(models):
        yield f"model on {_one_line(server)}", _one_line(model)
