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

from orchestra.app.claims.claims import Claim, Computation, Judgement, Support, dropped
from orchestra.app.claims.locations import Place, Span, TableCell, Texts
from orchestra.app.result import score_of
from orchestra.cli.certify.promises import Held, promised
from orchestra.cli.output import moment, money, seconds
from orchestra.cli.run.claims_view import QUOTE_SHOWS, rests_on_quote_alone, told
from orchestra.cli.run.result_view import as_text
from orchestra.cli.runs.tail import choices, given_text
from orchestra.core.events import Event, RunStarted, TurnStarted
from orchestra.core.outcomes import Abstained, Failed, Value
from orchestra.core.untrusted_text import counted, shortened, visible
from orchestra.journal.history import History, Row
from orchestra.verification.certificates.certify import percent

LONGEST = 20_000
"""Characters of one text that the page shows; what is beyond them is said to be left out."""
FOLDED, FOLDED_LINES = 1_200, 12
"""Characters, and lines, from which on a text is folded away until it is asked for."""
AROUND = 240
"""Characters of a source that are shown before and after the words that a claim rests on."""
MAX_CHOICES = 100
MAX_CLAIMS = 200
MAX_DOCUMENTS = 50
MAX_EVIDENCE = 20
MAX_ROWS = 500
MAX_WITHHELD = 100
NEAR_ROWS = 1
"""Rows of a table that are shown above and below a cell's."""


def page(history: History, events: Sequence[Event], claims: Sequence[Claim], status: str, held: Sequence[Held] = ()) -> str:
    """The page of a run."""
    environment = Environment(auto_escape_callback=lambda _: True, undefined_behavior="strict", trim_blocks=True, lstrip_blocks=True)
    environment.add_template("page", files("orchestra.cli.runs").joinpath("html_page.html").read_text("utf-8"))
    return environment.render_template("page", **_parts(history, events, claims, status), promises=list(_promises(history, held)))


def _parts(history: History, events: Sequence[Event], claims: Sequence[Claim], status: str) -> dict[str, Any]:
    texts = Texts.of(history)
    outcome = history.outcome
    supported = sum(not claim.unsupported for claim in claims)
    shown = (*claims, *dropped(events))
    return {
        "run": _line(history.run),
        "workflow": _line(history.workflow),
        "status": status,
        "facts": list(_facts(history, events)),
        "inputs": [(_line(name), _cut(value)) for name, value in _inputs(history.inputs)],
        "answer": _cut(outcome.value) if isinstance(outcome, Value) else None,
        "why": "" if outcome is None or isinstance(outcome, Value) else _line(f"{outcome.by}: {outcome.reason}".removeprefix(": ")),
        "claims": [_claim(claim, texts) for claim in shown[:MAX_CLAIMS]],
        "claims_left": max(0, len(shown) - MAX_CLAIMS),
        "supported": supported,
        "claimed": len(claims),
        "withheld": list(_withheld(history.rows))[:MAX_WITHHELD],
        "plans": list(_plans(events)),
        "rows": [_row(row) for row in history.rows[:MAX_ROWS]],
        "paid": any(row.usage.money > 0 for row in history.rows),
        "choices": [_line(text) for text in islice(choices(history.rows), MAX_CHOICES)],
        "rows_left": max(0, len(history.rows) - MAX_ROWS),
        "digests": list(_digests(history, events)),
    }


def _promises(history: History, held: Sequence[Held]) -> Iterator[dict[str, Any]]:
    """What certificates promise of accepted values, once for all elements of a list, each with what stands behind it."""
    nodes = dict[tuple[str, str], tuple[int, Held | None]]()
    for path, said, one in promised(history, held):
        about = re.sub(r"\[\d+\]|#\d+", "", path), said
        nodes[about] = nodes.get(about, (0, None))[0] + 1, one
    for (path, said), (count, one) in islice(nodes.items(), MAX_CHOICES):
        facts = list(_behind(one.terms)) if one is not None else [("", "its certificate is not stored, or cannot be read")]
        yield {
            "node": _line(path) + (f" ({count} values)" if count > 1 else ""),
            "said": _line(said),
            "facts": [(_line(name), _line(text)) for name, text in facts],
        }


def _behind(terms: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What stands behind a promise, in words."""
    rows, seen, rest, data = terms["rows"], terms["calibrated"], terms["judged"], terms["data"]
    delta = f", delta {terms['delta']:g}" if "delta" in terms else ""
    yield "terms", f"alpha {terms['alpha']:g}{delta}; from a score of {terms['threshold']:.6g}"
    if attempt := terms.get("attempt"):
        yield "attempt", f"number {attempt:,} on these rows, tested at {percent(terms['tested_at'])} of {percent(terms['delta'])}"
    yield "coverage", percent(terms["coverage"])
    yield "rows", f"{sum(rows.values()):,} of {data['name']}: " + ", ".join(f"{count:,} {part}" for part, count in rows.items())
    if any((left := terms.get("left_out", {})).values()):
        yield "left out", f"{left['copies']:,} rows with the input of another, {left['grouped']:,} of one group with another"
    yield "rows' digest", data["digest"]
    low, high = map(percent, rest["interval"])
    yield "calibrated", f"{seen['wrong']:,} wrong of {seen['accepted']:,} accepted"
    yield "on the rest", f"{rest['wrong']:,} wrong of {rest['accepted']:,} accepted, 95 % from {low} to {high}"
    yield "right by", ", ".join(terms["right"])
    yield "made", terms["made"]
    yield "assumed", terms["assumed"]
    yield "certificate", terms["certificate"]


def _facts(history: History, events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    usage = history.usage
    yield "started", moment(history.started)
    if history.seconds is not None:
        yield "took", seconds(history.seconds)
    score = score_of(history.outcome, events)
    if score is not None:
        yield "confidence", f"{score:.2f}"
    yield "tokens", f"{usage.prompt_tokens:,} in, {usage.output_tokens:,} out"
    if usage.money > 0:
        yield "money", money(usage.money)
    yield "calls", f"{usage.calls:,}"


def _inputs(inputs: Any) -> Iterator[tuple[str, Any]]:
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


def _cut(value: Any) -> dict[str, Any]:
    """A value as the page has it: at most `LONGEST` characters, with how many were left out; what is no text, as JSON."""
    text = as_text(value)
    folded = len(text) > FOLDED or text.count("\n", 0, FOLDED) > FOLDED_LINES
    data = not isinstance(value, str) and text[:1] in ("{", "[")
    return {"text": visible(text[:LONGEST]), "left": max(0, len(text) - LONGEST), "long": folded, "json": data}


def _line(text: str, most: int = 2_000) -> str:
    """A text on one line."""
    return visible(" ".join(shortened(text, most).split()), keep="")


def _claim(claim: Claim, texts: Texts) -> dict[str, Any]:
    shown = told(claim.evidence)
    return {
        "path": _line(claim.path) or "the answer",
        "value": _cut(claim.value),
        "unsupported": _line(claim.unsupported),
        "score": "" if claim.score is None else f"{claim.score:.2f}",
        "nodes": [_line(node) for node in claim.nodes[:MAX_EVIDENCE]],
        "evidence": [_support(one, texts) for one in shown[:MAX_EVIDENCE]],
        "evidence_left": max(0, len(shown) - MAX_EVIDENCE),
        "quote_shows": QUOTE_SHOWS if not claim.unsupported and rests_on_quote_alone(claim) else "",
        "verdicts": [_verdict(one) for one in claim.verdicts[:MAX_EVIDENCE]],
    }


def _verdict(verdict: Judgement) -> dict[str, str]:
    score, reason = f"{verdict.score:.2f}", _line(verdict.reason)
    return {"node": _line(verdict.node), "check": _line(verdict.check), "outcome": verdict.outcome, "score": score, "reason": reason}


def _support(support: Support, texts: Texts) -> dict[str, Any]:
    match support:
        case Span():
            return _span(support, texts)
        case TableCell():
            return _cell(support, texts)
        case Computation():
            operands = [
                {"text": _line(one.text), "where": "; ".join(_line(_address(place)) for place in one.places)} for one in support.operands
            ]
            return {"kind": "computation", "expression": _line(support.expression), "result": _line(support.result), "operands": operands}
        case never:
            assert_never(never)


def _span(span: Span, texts: Texts) -> dict[str, Any]:
    """The words in their text, with some of it around them; alone where no text of the run has them."""
    source = texts.at(span.where)
    before, after = "", ""
    if source is not None and span.start is not None and span.end is not None:
        begin = max(0, span.start - AROUND)
        before = ("…" if begin else "") + source.text[begin : span.start]
        after = source.text[span.end : span.end + AROUND] + ("…" if span.end + AROUND < len(source.text) else "")
    return {
        "kind": "span",
        "before": visible(before),
        "quote": _cut(span.quote),
        "after": visible(after),
        "where": _line(_address(span)),
        "found": source is not None,
    }


def _cell(cell: TableCell, texts: Texts) -> dict[str, Any]:
    """The cell in its table: the head, and the rows around it."""
    source = texts.at(cell.where)
    table = source.table if source is not None else ()
    first = max(1, cell.row - NEAR_ROWS)
    chosen = [0, *range(first, min(len(table), cell.row + NEAR_ROWS + 1))] if table else []
    rows = [{"head": at == 0, "cells": [_shown(text, (at, column), cell) for column, text in enumerate(table[at])]} for at in chosen]
    return {"kind": "cell", "text": _line(cell.text), "where": _line(_address(cell)), "rows": rows}


def _shown(text: str, at: tuple[int, int], wanted: TableCell) -> dict[str, Any]:
    return {"text": _line(text, 200), "here": at == (wanted.row, wanted.column)}


def _address(place: Place) -> str:
    if isinstance(place, TableCell):
        named = ", ".join(filter(None, (place.row_heading, place.column_heading)))
        return f"{named + ' — ' if named else ''}row {place.row}, column {place.column}"
    at = f", characters {place.start} to {place.end}" if place.start is not None else ""
    return f"{place.source or place.where or 'a text that is not stored'}{at}"


def _withheld(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The values that checks did not accept, and the nodes that ended without one."""
    for row in rows:
        for tried in row.attempts:
            if tried.accepted is False:
                yield _lost(row, f"attempt {tried.number}", tried.refused, _cut(tried.value))
            elif tried.error:
                yield _lost(row, f"attempt {tried.number}", f"{tried.error}: {tried.reason}")
        match row.outcome:
            case Abstained(reason, by) | Failed(_, reason, by):
                told_by = by if by not in ("", row.path) else ""
                yield _lost(row, row.status, f"{told_by}: {reason}" if told_by else reason)
            case _ if row.instead is not None:
                yield _lost(row, row.came_to, row.rescued)
            case _:
                pass


def _lost(row: Row, what: str, why: str, value: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"node": _line(row.path), "what": what, "value": value, "why": _line(why)}


def _plans(events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    """The lines of each plan that the router wrote, as far as they stood at the last turn."""
    last = {event.node: event.drafted for event in events if isinstance(event, TurnStarted) and event.drafted is not None}
    for node, drafted in last.items():
        yield {"node": _line(node), "lines": _cut("\n".join(drafted.lines)), "repaired": drafted.repaired}


def _row(row: Row) -> dict[str, Any]:
    return {
        "path": _line(row.path),
        "depth": min(row.depth, 12),
        "name": _name(row),
        "status": row.came_to,
        "time": "" if row.seconds is None else seconds(row.seconds),
        "attempts": len(row.attempts) or "",
        "tokens_in": f"{row.usage.prompt_tokens:,}" if row.usage.prompt_tokens else "",
        "tokens_out": f"{row.usage.output_tokens:,}" if row.usage.output_tokens else "",
        "money": money(row.usage.money),
    }


def _name(row: Row) -> str:
    """Who was asked, and who said what it gave; of a list its elements."""
    said = given_text(row.given) if row.given is not None else ""
    return _line(", ".join(filter(None, (row.name, said)))) if row.elements is None else counted(row.elements, "element")


def _digests(history: History, events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    """What the run is bound to: its workflow, and by name all that it calls; and which models answered."""
    if history.graph:
        yield "workflow", _line(history.graph)
    first = events[0] if events else None
    if isinstance(first, RunStarted):
        for name, mark in first.versions.items():
            yield _line(name), _line(mark)
    if history.parent:
        yield "forked from run", _line(history.parent)
    models = {(tried.server, tried.model) for row in history.rows for tried in row.attempts if tried.model}
    for server, model in sorted(models):
        yield f"model on {_line(server)}", _line(model)
