"""How claims are shown: under an answer, each with what it rests on, who checked it, and how surely; then what nothing supports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, assert_never

from orchestra.app.claims.claims import Claim, Computation, Judgement, Support
from orchestra.app.claims.locations import Span, TableCell
from orchestra.cli.output import say
from orchestra.core.untrusted_text import shortened, visible

MAX_CLAIMS = 20
MAX_EVIDENCE = 6
LONG_QUOTE = 400
LONG_VALUE = 120
QUOTE_SHOWS = "quote: these words are in the source. It does not show that they are the right answer."
"""What a claim is told with that no other check passed."""


def show_claims(claims: Sequence[Claim], answer: str, dropped: Sequence[Claim] = ()) -> None:
    """Prints the claims of an answer, and what was dropped from it. One that is all of the answer is not said again."""
    from rich.text import Text

    supported = [claim for claim in claims if not claim.unsupported]
    for claim in supported[:MAX_CLAIMS]:
        say()
        value = short(claim.value, LONG_VALUE)
        if value.strip() != answer.strip():
            say(Text.assemble((f"{_path(claim)}: ", "bold"), visible(value, keep="")))
        shown = told(claim.evidence)
        for support in shown[:MAX_EVIDENCE]:
            say(_support(support))
        if len(shown) > MAX_EVIDENCE:
            say(f"  and {len(shown) - MAX_EVIDENCE} more", style="dim")
        say(f"  {visible(checked(claim), keep='')}", style="dim")
    if any(rests_on_quote_alone(claim) for claim in supported):
        say(f"\n{QUOTE_SHOWS}", style="dim")
    if len(supported) > MAX_CLAIMS:
        say(f"\nand {len(supported) - MAX_CLAIMS} more claims that are supported; see --json", style="dim")
    _show_unsupported(claims)
    if dropped:
        say()
    for claim in dropped[:MAX_CLAIMS]:
        said = f"dropped from {', '.join(claim.nodes)}: {short(claim.value, LONG_VALUE)}: {claim.unsupported.removeprefix('dropped: ')}"
        say(visible(said, keep=""), style="yellow")
    if len(dropped) > MAX_CLAIMS:
        say(f"and {len(dropped) - MAX_CLAIMS} more that were dropped; see --json", style="dim")


def rests_on_quote_alone(claim: Claim) -> bool:
    """Whether no check but `quote` passed a claim."""
    return {one.check for one in claim.verdicts if one.outcome == "pass"} <= {"quote", "schema"}


def claim_data(claims: Sequence[Claim], dropped: Sequence[Claim] = ()) -> dict[str, Any]:
    """Claims as parts of a JSON object; `unsupported` are the paths of those that nothing supports."""
    return {"claims": claims, "unsupported": [claim.path for claim in claims if claim.unsupported], "dropped": dropped}


def told(evidence: Iterable[Support]) -> list[Support]:
    """Evidence without the spans that lie in another one of it."""
    every = list(evidence)
    spans = [one for one in every if isinstance(one, Span)]
    return [one for one in every if not (isinstance(one, Span) and any(_within(one, other) for other in spans))]


def short(value: Any, most: int) -> str:
    """A claim's value on one line."""
    from orchestra.cli.run.result_view import as_text

    return shortened(" ".join(as_text(value).split()), most)


def checked(claim: Claim) -> str:
    """Who checked a claim, in one line: `checked by quote, numbers (readings[0]), score 1.00`."""
    by_node: dict[str, list[Judgement]] = {}
    for verdict in claim.verdicts:
        by_node.setdefault(verdict.node, []).append(verdict)
    said = [f"{', '.join(_verdict(one) for one in verdicts)} ({node})" for node, verdicts in by_node.items()]
    more = f" and {len(said) - 3} more nodes" if len(said) > 3 else ""
    score = "" if claim.score is None else f", score {claim.score:.2f}"
    return f"checked by {'; '.join(said[:3])}{more}{score}" if said else f"checked by nothing{score}"


def _verdict(verdict: Judgement) -> str:
    return verdict.check if verdict.outcome == "pass" else f"{verdict.check} {verdict.outcome}"


def _support(support: Support) -> Any:
    from rich.text import Text

    match support:
        case Span():
            quote = shortened(support.quote, LONG_QUOTE)
            return Text.assemble(("  “", "dim"), (visible(quote), "green"), ("”", "dim"), f"  {visible(_where(support), keep='')}")
        case TableCell():
            return Text.assemble("  ", (visible(support.text, keep=""), "green"), f"  {visible(_where(support), keep='')}")
        case Computation():
            places = [place.text if isinstance(place, TableCell) else place.quote for one in support.operands for place in one.places]
            rests = f"  from {', '.join(places)}" if places else ""
            said = f"{support.expression} = {support.result}"
            return Text.assemble("  ", (visible(said, keep=""), "green"), visible(rests, keep=""))
        case never:
            assert_never(never)


def _where(place: Span | TableCell) -> str:
    if isinstance(place, TableCell):
        named = ", ".join(filter(None, (place.row_heading, place.column_heading)))
        return f"{named or 'the cell'} [{place.row}][{place.column}]"
    at = f" [{place.start}:{place.end}]" if place.start is not None else ""
    return f"{place.source or place.where or 'the input'}{at}"


def _within(one: Span, other: Span) -> bool:
    """Whether a span lies in another one, and is not the same."""
    if one.start is None or one.end is None or other.start is None or other.end is None:
        return False
    same = (one.source, one.where) == (other.source, other.where)
    return same and other.start <= one.start and one.end <= other.end and (one.start, one.end) != (other.start, other.end)


def _show_unsupported(claims: Sequence[Claim]) -> None:
    if claims and not any(claim.verdicts or claim.evidence for claim in claims):
        say("\nnothing checked this answer", style="dim")
        return
    why: dict[str, list[str]] = {}
    for claim in claims:
        if claim.unsupported:
            why.setdefault(claim.unsupported, []).append(_path(claim))
    if why:
        say()
    for reason, paths in why.items():
        more = f" and {len(paths) - MAX_CLAIMS} more" if len(paths) > MAX_CLAIMS else ""
        say(visible(f"not supported: {', '.join(paths[:MAX_CLAIMS])}{more}: {reason}", keep=""), style="yellow")


def _path(claim: Claim) -> str:
    return claim.path or "the answer"
