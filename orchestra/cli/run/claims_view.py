"""How claims are shown: under an answer, each with what it rests on, who checked it, and how surely; then what nothing supports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, assert_never

from orchestra.app.claims.claims import ClaimVerdict, Computation, OutputClaim, Support
from orchestra.app.claims.locations import TableCell, TextSpan
from orchestra.cli.output import print_text
from orchestra.core.untrusted_text import escape_invisible, shorten

MAX_CLAIMS = 20
MAX_EVIDENCE = 6
MAX_QUOTE_LENGTH = 400
MAX_VALUE_LENGTH = 120
QUOTE_NOTE = "quote: these words are in the source. It does not show that they are the right answer."
"""What a claim is told with that no other check passed."""


def show_claims(claims: Sequence[OutputClaim], answer: str, dropped: Sequence[OutputClaim] = ()) -> None:
    """Prints the claims of an answer, and what was dropped from it. One that is all of the answer is not said again."""
    from rich.text import Text

    supported = [claim for claim in claims if not claim.unsupported]
    for claim in supported[:MAX_CLAIMS]:
        print_text()
        value = format_claim_value(claim.value, MAX_VALUE_LENGTH)
        if value.strip() != answer.strip():
            print_text(Text.assemble((f"{_claim_path(claim)}: ", "bold"), escape_invisible(value, keep="")))
        shown = outermost_evidence(claim.evidence)
        for support in shown[:MAX_EVIDENCE]:
            print_text(_format_evidence(support))
        if len(shown) > MAX_EVIDENCE:
            print_text(f"  and {len(shown) - MAX_EVIDENCE} more", style="dim")
        print_text(f"  {escape_invisible(describe_checks(claim), keep='')}", style="dim")
    if any(is_quote_only(claim) for claim in supported):
        print_text(f"\n{QUOTE_NOTE}", style="dim")
    if len(supported) > MAX_CLAIMS:
        print_text(f"\nand {len(supported) - MAX_CLAIMS} more claims that are supported; see --json", style="dim")
    _show_unsupported(claims)
    if dropped:
        print_text()
    for claim in dropped[:MAX_CLAIMS]:
        said = f"dropped from {', '.join(claim.nodes)}: {format_claim_value(claim.value, MAX_VALUE_LENGTH)}: {claim.unsupported.removeprefix('dropped: ')}"
        print_text(escape_invisible(said, keep=""), style="yellow")
    if len(dropped) > MAX_CLAIMS:
        print_text(f"and {len(dropped) - MAX_CLAIMS} more that were dropped; see --json", style="dim")


def is_quote_only(claim: OutputClaim) -> bool:
    """Whether no check but `quote` passed a claim."""
    return {one.check for one in claim.verdicts if one.outcome == "pass"} <= {"quote", "schema"}


def claim_data(claims: Sequence[OutputClaim], dropped: Sequence[OutputClaim] = ()) -> dict[str, Any]:
    """Claims as parts of a JSON object; `unsupported` are the paths of those that nothing supports."""
    return {"claims": claims, "unsupported": [claim.path for claim in claims if claim.unsupported], "dropped": dropped}


def outermost_evidence(evidence: Iterable[Support]) -> list[Support]:
    """Evidence without the spans that lie in another one of it."""
    every = list(evidence)
    spans = [one for one in every if isinstance(one, TextSpan)]
    return [one for one in every if not (isinstance(one, TextSpan) and any(_is_within(one, other) for other in spans))]


def format_claim_value(value: Any, max_length: int) -> str:
    """A claim's value on one line."""
    from orchestra.cli.run.result_view import format_value

    return shorten(" ".join(format_value(value).split()), max_length)


def describe_checks(claim: OutputClaim) -> str:
    """Who checked a claim, in one line: `checked by quote, numbers (readings[0]), score 1.00`."""
    by_node: dict[str, list[ClaimVerdict]] = {}
    for verdict in claim.verdicts:
        by_node.setdefault(verdict.node, []).append(verdict)
    said = [f"{', '.join(_format_verdict(one) for one in verdicts)} ({node})" for node, verdicts in by_node.items()]
    more = f" and {len(said) - 3} more nodes" if len(said) > 3 else ""
    score = "" if claim.score is None else f", score {claim.score:.2f}"
    return f"checked by {'; '.join(said[:3])}{more}{score}" if said else f"checked by nothing{score}"


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
                for one in evidence.operands
                for place in one.places
            ]
            rests = f"  from {', '.join(places)}" if places else ""
            said = f"{evidence.expression} = {evidence.result}"
            return Text.assemble("  ", (escape_invisible(said, keep=""), "green"), escape_invisible(rests, keep=""))
        case never:
            assert_never(never)


def _format_location(place: TextSpan | TableCell) -> str:
    if isinstance(place, TableCell):
        named = ", ".join(filter(None, (place.row_heading, place.column_heading)))
        return f"{named or 'the cell'} [{place.row}][{place.column}]"
    at = f" [{place.start}:{place.end}]" if place.start is not None else ""
    return f"{place.source or place.where or 'the input'}{at}"


def _is_within(one: TextSpan, other: TextSpan) -> bool:
    """Whether a span lies in another one, and is not the same."""
    if one.start is None or one.end is None or other.start is None or other.end is None:
        return False
    same = (one.source, one.where) == (other.source, other.where)
    return (
        same and other.start <= one.start and one.end <= other.end and (one.start, one.end) != (other.start, other.end)
    )


def _show_unsupported(claims: Sequence[OutputClaim]) -> None:
    if claims and not any(claim.verdicts or claim.evidence for claim in claims):
        print_text("\nnothing checked this answer", style="dim")
        return
    why: dict[str, list[str]] = {}
    for claim in claims:
        if claim.unsupported:
            why.setdefault(claim.unsupported, []).append(_claim_path(claim))
    if why:
        print_text()
    for reason, paths in why.items():
        more = f" and {len(paths) - MAX_CLAIMS} more" if len(paths) > MAX_CLAIMS else ""
        print_text(
            escape_invisible(f"not supported: {', '.join(paths[:MAX_CLAIMS])}{more}: {reason}", keep=""), style="yellow"
        )


def _claim_path(claim: OutputClaim) -> str:
    return claim.path or "the answer"
