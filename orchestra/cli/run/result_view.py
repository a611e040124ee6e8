"""Shows results: the answer, its claims and evidence, the nodes with their cost, and further commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from orchestra.app.claims.locations import TableCell, TextSpan
from orchestra.app.result import Result
from orchestra.app.run_text import format_value
from orchestra.cli.output import print_table, print_text
from orchestra.cli.typer_adapter import error_data
from orchestra.core.events import Event, Usage
from orchestra.core.paths import workflow_path
from orchestra.core.quantities import format_duration, format_money
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.journal.history import History, NodeRow

MAX_ROWS = 40


def show_result(
    result: Result[Any],
    events: Sequence[Event],
    nodes: Callable[[], None] | None = None,
    answer_text: Callable[[Any], str] = format_value,
    *,
    claims: bool = True,
) -> None:
    """Prints a result.

    Args:
        result: The result.
        events: The events of its run.
        nodes: Prints the nodes instead of the default table.
        answer_text: Formats the value.
        claims: Whether the claims are shown. The text of an answer may contain its evidence.
    """
    if result.error is None:
        print_text(escape_invisible(answer_text(result.value)))
        if claims:
            show_claims(result.claims, format_value(result.value), result.dropped)
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
    show_guarantees(result.guarantees)
    show_failed_elements(result.left_out)
    show_defaults(history)
    print_text()
    confidence = f", confidence {result.confidence:.2f}" if result.confidence is not None else ""
    print_text(
        f"{result.status} in {format_duration(history.seconds or 0.0)}{format_cost(result.usage)}{confidence}",
        style="bold",
    )
    print_text(f"more: orchestra runs show {result.run}", style="dim")


def result_data(result: Result[Any]) -> dict[str, Any]:
    """A result as JSON values."""
    return {
        "run": result.run,
        "status": result.status,
        "output": result.value,
        "confidence": result.confidence,
        "evidence": result.evidence,
        "guarantees": dict(result.guarantees),
        "left_out": dict(result.left_out),
        **claim_data(result.claims, result.dropped),
        "usage": result.usage,
        "ledger": dict(result.usage_by_node),
        "error": None if result.error is None else error_data(result.error),
    }


def format_cost(usage: Usage) -> str:
    """The cost of a run as a suffix of its duration; empty without prices."""
    return f" for {format_money(usage.money)} of money" if usage.money > 0 else ""


def default_answers(rows: Iterable[NodeRow]) -> Iterator[str]:
    """Which questions to persons were not answered, so that the default stands."""
    yield from (f"{row.path}: {row.unanswered_reason}; the default applies" for row in rows if row.unanswered_reason)


def show_guarantees(guarantees: Mapping[str, str]) -> None:
    """Prints the guarantees of accepted values; once for all elements of a list, with their number."""
    counts = Counter((workflow_path(node), guarantee) for node, guarantee in guarantees.items())
    if counts:
        print_text()
    for (node, guarantee), count in counts.items():
        count_text = f" ({count} values, each alone, not values derived from them)" if count > 1 else ""
        print_text(escape_invisible(f"{node}{count_text}: {guarantee}"), style="green")


def show_failed_elements(failed: Mapping[str, str]) -> None:
    """Prints the lists that lack failed elements: their number, and the reason of the first one."""
    lists: dict[str, list[str]] = {}
    for path, reason in failed.items():
        lists.setdefault(path.rpartition("[")[0], []).append(reason)
    if lists:
        print_text()
    for path, reasons in lists.items():
        element_text = pluralize(len(reasons), "element")
        print_text(
            escape_invisible(
                f"{path}: {element_text} failed, so the list lacks {'it' if len(reasons) == 1 else 'them'}: "
                f"{reasons[0]}"
            ),
            style="yellow",
        )


def show_defaults(history: History) -> None:
    """Prints the unanswered questions."""
    lines = list(default_answers(history.rows))
    if lines:
        print_text()
    for line in lines[:MAX_ROWS]:
        print_text(escape_invisible(line), style="yellow")
    if len(lines) > MAX_ROWS:
        print_text(f"and {len(lines) - MAX_ROWS} more; orchestra runs show {history.run} --all", style="dim")


def show_nodes(history: History, *, everything: bool = False) -> None:
    """Prints the nodes with their cost. Elements of long lists are summed in their node, unless `everything` is set."""
    rows = history.rows
    if not everything and len(rows) > MAX_ROWS:
        rows = tuple(row for row in rows if "[" not in row.path)
    has_costs = any(row.usage.money > 0 for row in history.rows)
    table_rows = [
        (
            "  " * row.depth + row.path,
            row.name if row.elements is None else pluralize(row.elements, "element"),
            row.display_status,
            "" if row.seconds is None else format_duration(row.seconds),
            str(len(row.attempts) or ""),
            str(row.usage.prompt_tokens or ""),
            str(row.usage.output_tokens or ""),
            *((format_money(row.usage.money),) if has_costs else ()),
        )
        for row in rows
    ]
    headings = (
        "node",
        "called",
        "outcome",
        "time",
        "attempts",
        "tokens in",
        "tokens out",
        *(("money",) if has_costs else ()),
    )
    print_table(headings, table_rows, right=range(3, len(headings)))
    if len(rows) < len(history.rows):
        print_text(
            f"and {len(history.rows) - len(rows)} inside lists; orchestra runs show {history.run} --all", style="dim"
        )


MAX_CLAIMS = 20
MAX_EVIDENCE = 6
MAX_QUOTE_LENGTH = 400
MAX_VALUE_LENGTH = 120


def show_claims(claims: Sequence[OutputClaim], answer: str, dropped: Sequence[OutputClaim] = ()) -> None:
    """Prints the claims of an answer and its dropped parts. The value of a claim that equals the answer is not
    repeated.
    """
    from rich.text import Text

    supported_claims = [claim for claim in claims if is_supported(claim)]
    for claim in supported_claims[:MAX_CLAIMS]:
        print_text()
        value = format_claim_value(claim.value, MAX_VALUE_LENGTH)
        if value.strip() != answer.strip():
            print_text(Text.assemble((f"{_claim_path(claim)}: ", "bold"), escape_invisible(value, keep="")))
        evidence = outermost_evidence(claim.evidence)
        for support in evidence[:MAX_EVIDENCE]:
            print_text(_format_evidence(support))
        if len(evidence) > MAX_EVIDENCE:
            print_text(f"  and {len(evidence) - MAX_EVIDENCE} more", style="dim")
        print_text(f"  {escape_invisible(describe_checks(claim), keep='')}", style="dim")
    if any(is_quote_only(claim) for claim in supported_claims):
        print_text(f"\n{QUOTE_NOTE}", style="dim")
    if len(supported_claims) > MAX_CLAIMS:
        print_text(f"\nand {len(supported_claims) - MAX_CLAIMS} more supported claims; see --json", style="dim")
    _show_unsupported(claims)
    if dropped:
        print_text()
    for claim in dropped[:MAX_CLAIMS]:
        line = (
            f"dropped from {', '.join(claim.nodes)}: {format_claim_value(claim.value, MAX_VALUE_LENGTH)}: "
            f"{claim.unsupported.removeprefix('dropped: ')}"
        )
        print_text(escape_invisible(line, keep=""), style="yellow")
    if len(dropped) > MAX_CLAIMS:
        print_text(f"and {len(dropped) - MAX_CLAIMS} more dropped parts; see --json", style="dim")


def claim_data(claims: Sequence[OutputClaim], dropped: Sequence[OutputClaim] = ()) -> dict[str, Any]:
    """Claims as JSON values; `unsupported` are the paths of unsupported claims."""
    return {"claims": claims, "unsupported": [claim.path for claim in claims if claim.unsupported], "dropped": dropped}


def format_claim_value(value: Any, max_length: int) -> str:
    """The value of a claim on one line."""

    return shorten(" ".join(format_value(value).split()), max_length)


def describe_checks(claim: OutputClaim) -> str:
    """The checks of a claim on one line: `checked by quote, numbers (readings[0]), score 1.00`."""
    by_node: dict[str, list[ClaimVerdict]] = {}
    for verdict in claim.verdicts:
        by_node.setdefault(verdict.node, []).append(verdict)
    descriptions = [
        f"{', '.join(_format_verdict(verdict) for verdict in verdicts)} ({node})" for node, verdicts in by_node.items()
    ]
    more_text = f" and {len(descriptions) - 3} more nodes" if len(descriptions) > 3 else ""
    score = "" if claim.score is None else f", score {claim.score:.2f}"
    return (
        f"checked by {'; '.join(descriptions[:3])}{more_text}{score}" if descriptions else f"checked by nothing{score}"
    )


def _format_verdict(verdict: ClaimVerdict) -> str:
    return verdict.check if verdict.outcome == "pass" else f"{verdict.check} {verdict.outcome}"


def _format_evidence(evidence: Support) -> Any:
    from rich.text import Text

    match evidence:
        case TextSpan():
            quote = shorten(evidence.quote, MAX_QUOTE_LENGTH)
            return Text.assemble(
                ("  “", "dim"),
                (escape_invisible(quote), "green"),
                ("”", "dim"),
                f"  {escape_invisible(_format_location(evidence), keep='')}",
            )
        case TableCell():
            return Text.assemble(
                "  ",
                (escape_invisible(evidence.text, keep=""), "green"),
                f"  {escape_invisible(_format_location(evidence), keep='')}",
            )
        case Computation():
            places = [
                place.text if isinstance(place, TableCell) else place.quote
                for operand in evidence.operands
                for place in operand.places
            ]
            rests = f"  from {', '.join(places)}" if places else ""
            equation = f"{evidence.expression} = {evidence.result}"
            return Text.assemble("  ", (escape_invisible(equation, keep=""), "green"), escape_invisible(rests, keep=""))
        case never:
            assert_never(never)


def _format_location(place: TextSpan | TableCell) -> str:
    if isinstance(place, TableCell):
        text = ", ".join(filter(None, (place.row_heading, place.column_heading)))
        return f"{text or 'the cell'} {place.location or f'[{place.row}][{place.column}]'}"
    if place.location:
        return f"{place.source} {place.location}"
    at = f" [{place.start}:{place.end}]" if place.start is not None else ""
    return f"{place.source or place.where or 'the input'}{at}"


def _show_unsupported(claims: Sequence[OutputClaim]) -> None:
    _show_given(claims)
    other_claims = [claim for claim in claims if not claim.person]
    if other_claims and not any(claim.verdicts or claim.evidence for claim in other_claims):
        part = "this answer" if len(other_claims) == len(claims) else "the rest of this answer"
        print_text(f"\nno check was run on {part}", style="dim")
        return
    reasons: dict[str, list[str]] = {}
    for claim in claims:
        if claim.unsupported:
            reasons.setdefault(claim.unsupported, []).append(_claim_path(claim))
    if reasons:
        print_text()
    for reason, paths in reasons.items():
        more_text = f" and {len(paths) - MAX_CLAIMS} more" if len(paths) > MAX_CLAIMS else ""
        print_text(
            escape_invisible(f"not supported: {', '.join(paths[:MAX_CLAIMS])}{more_text}: {reason}", keep=""),
            style="yellow",
        )


def _show_given(claims: Sequence[OutputClaim]) -> None:
    """Prints which parts a person gave."""
    by_person: dict[str, list[str]] = {}
    for claim in claims:
        if claim.person:
            by_person.setdefault(claim.person, []).append(_claim_path(claim))
    if by_person:
        print_text()
    for person, paths in by_person.items():
        more_text = f" and {len(paths) - MAX_CLAIMS} more" if len(paths) > MAX_CLAIMS else ""
        print_text(escape_invisible(f"{', '.join(paths[:MAX_CLAIMS])}{more_text}: {person}", keep=""), style="dim")


def _claim_path(claim: OutputClaim) -> str:
    return claim.path or "the answer"
