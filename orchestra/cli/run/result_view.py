"""How a result is shown: the answer first, then what it rests on, what it took, and where to look next."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestra.app.result import Result
from orchestra.cli.exit_codes import error_data
from orchestra.cli.output import format_duration, format_money, make_console, make_table, print_text
from orchestra.cli.run.claims_view import claim_data, show_claims
from orchestra.core.events import Event, Usage
from orchestra.core.untrusted_text import escape_invisible, pluralize
from orchestra.journal.history import History, NodeRow

MAX_ROWS = 40


def show_result(result: Result[Any], events: Sequence[Event], nodes: Callable[[], None] | None = None) -> None:
    """Prints a result for a person; `nodes` prints what its nodes took, where that is not the usual table."""
    if result.error is None:
        answer = format_value(result.value)
        print_text(escape_invisible(answer))
        show_claims(result.claims, answer, result.dropped)
    else:
        colour = "yellow" if result.status == "abstained" else "red"
        print_text(escape_invisible(result.error.message), style=colour)
        if result.error.hint:
            print_text(escape_invisible(f"  {result.error.hint}"), style="dim")
    print_text()
    history = History.of(events)
    if nodes is None:
        show_nodes(history)
    else:
        nodes()
    show_promises(result.guarantees)
    show_failed_elements(result.left_out)
    show_defaults(history)
    print_text()
    confidence = f", confidence {result.confidence:.2f}" if result.confidence is not None else ""
    print_text(f"{result.status} in {format_duration(history.seconds or 0.0)}{format_cost(result.usage)}{confidence}", style="bold")
    print_text(f"more: orchestra runs show {result.run}", style="dim")


def result_data(result: Result[Any]) -> dict[str, Any]:
    """A result as one JSON object."""
    return {
        "run": result.run,
        "status": result.status,
        "output": result.value,
        "confidence": result.confidence,
        "evidence": result.evidence,
        "promises": dict(result.guarantees),
        "left_out": dict(result.left_out),
        **claim_data(result.claims, result.dropped),
        "usage": result.usage,
        "ledger": dict(result.usage_by_node),
        "error": None if result.error is None else error_data(result.error),
    }


def format_cost(usage: Usage) -> str:
    """What a run cost, as words behind how long it took; empty where nothing has a price."""
    return f" for {format_money(usage.money)} of money" if usage.money > 0 else ""


def format_value(value: Any) -> str:
    """A value as people read it: a text bare, an answer with a text by its text, anything else as indented JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"text", "citations"}:
        return value["text"] if isinstance(value["text"], str) else "The documents do not tell."
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except RecursionError:  # no value that Orchestra writes, but a journal's may be nested so deep
        return "(nested too deep to be shown; see --json)"


def default_answers(rows: Iterable[NodeRow]) -> Iterator[str]:
    """Which questions to persons were not answered, so that the default stands."""
    yield from (f"{row.path}: {row.unanswered_reason}; the default applies" for row in rows if row.unanswered_reason)


def show_promises(promises: Mapping[str, str]) -> None:
    """Prints what certificates promise of accepted values: once for all elements of a list, with their number."""
    counted = Counter((re.sub(r"\[\d+\]|#\d+", "", node), promise) for node, promise in promises.items())
    if counted:
        print_text()
    for (node, promise), count in counted.items():
        many = f" ({count} values, each by itself, and not what is made of them)" if count > 1 else ""
        print_text(escape_invisible(f"{node}{many}: {promise}"), style="green")


def show_failed_elements(failed: Mapping[str, str]) -> None:
    """Prints which lists do without elements that failed: the number of each, and the reason of the first."""
    lists: dict[str, list[str]] = {}
    for path, reason in failed.items():
        lists.setdefault(path.rpartition("[")[0], []).append(reason)
    if lists:
        print_text()
    for path, reasons in lists.items():
        many = pluralize(len(reasons), "element")
        print_text(
            escape_invisible(f"{path}: {many} failed, and the list is without {'it' if len(reasons) == 1 else 'them'}: {reasons[0]}"),
            style="yellow",
        )


def show_defaults(history: History) -> None:
    """Prints which questions to persons were not answered."""
    lines = list(default_answers(history.rows))
    if lines:
        print_text()
    for line in lines[:MAX_ROWS]:
        print_text(escape_invisible(line), style="yellow")
    if len(lines) > MAX_ROWS:
        print_text(f"and {len(lines) - MAX_ROWS} more; orchestra runs show {history.run} --all", style="dim")


def show_nodes(history: History, *, everything: bool = False) -> None:
    """Prints what each node took, and what it cost where something has a price. Of long lists the elements are left out, unless
    `everything` is wanted; their node has the sum."""
    rows = history.rows
    if not everything and len(rows) > MAX_ROWS:
        rows = tuple(row for row in rows if "[" not in row.path)
    paid = any(row.usage.money > 0 for row in history.rows)
    shown = [
        (
            "  " * row.depth + row.path,
            row.name if row.elements is None else pluralize(row.elements, "element"),
            row.display_status,
            "" if row.seconds is None else format_duration(row.seconds),
            str(len(row.attempts) or ""),
            str(row.usage.prompt_tokens or ""),
            str(row.usage.output_tokens or ""),
            *((format_money(row.usage.money),) if paid else ()),
        )
        for row in rows
    ]
    headings = ("node", "asked", "came to", "time", "attempts", "tokens in", "tokens out", *(("money",) if paid else ()))
    make_console().print(make_table(headings, shown, right=range(3, len(headings))))
    if len(rows) < len(history.rows):
        print_text(f"and {len(history.rows) - len(rows)} inside lists; orchestra runs show {history.run} --all", style="dim")
