"""How a result is shown: the answer first, then what it rests on, what it took, and where to look next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestra.cli.failure import as_data
from orchestra.cli.screen import console, say, seconds, table
from orchestra.cli.story import MAX_ROWS, NodeStory, lines, tell
from orchestra.events import Event
from orchestra.result import Result
from orchestra.values.outcome import Evidence
from orchestra.values.text import visible

MAX_EVIDENCE = 20
LONG_QUOTE = 400


def show_result(result: Result[Any], events: Sequence[Event]) -> None:
    """Prints a result for a person."""
    if result.error is None:
        say(visible(as_text(result.value)))
        show_evidence(result.evidence)
    else:
        colour = "yellow" if result.status == "abstained" else "red"
        say(visible(result.error.message), style=colour)
    say()
    show_nodes(tell(events))
    say()
    took = events[-1].at - events[0].at if events else 0.0
    confidence = f", confidence {result.confidence:.2f}" if result.confidence is not None else ""
    say(f"{result.status} in {seconds(took)}{confidence}", style="bold")
    say(f"more: orchestra runs show {result.run}", style="dim")


def result_data(result: Result[Any]) -> dict[str, Any]:
    """A result as one JSON object."""
    return {
        "run": result.run,
        "status": result.status,
        "output": result.value,
        "confidence": result.confidence,
        "evidence": result.evidence,
        "usage": result.usage,
        "ledger": dict(result.ledger),
        "error": None if result.error is None else as_data(result.error),
    }


def as_text(value: Any) -> str:
    """A value as people read it: a text bare, an answer with a text by its text, anything else as indented JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"text", "citations"}:
        return value["text"] if isinstance(value["text"], str) else "The documents do not tell."
    return json.dumps(value, indent=2, ensure_ascii=False)


def show_evidence(evidence: Sequence[Evidence]) -> None:
    """Prints what an output rests on, each quote once."""
    from rich.text import Text

    screen = console()
    told: dict[tuple[str, str, int | None], Evidence] = {
        (found.quote, found.source, found.start): found for found in evidence if found.quote
    }
    if told:
        say()
    for found in list(told.values())[:MAX_EVIDENCE]:
        quote = found.quote if len(found.quote) <= LONG_QUOTE else found.quote[:LONG_QUOTE] + "…"
        at = f" [{found.start}:{found.end}]" if found.start is not None else ""
        source = visible(found.source or "the input", keep="")
        screen.print(Text.assemble(("  “", "dim"), (visible(quote), "green"), ("”", "dim"), f"  {source}{at}", (f"  {found.check}", "dim")))
    if len(told) > MAX_EVIDENCE:
        say(f"  and {len(told) - MAX_EVIDENCE} more", style="dim")


def show_nodes(stories: Sequence[NodeStory], *, everything: bool = False) -> None:
    """Prints what each node took."""
    gather = not everything and len(stories) > MAX_ROWS
    rows = [
        (
            line.path if line.count == 1 else f"{line.path} ×{line.count}",
            line.name,
            line.status,
            seconds(line.seconds),
            str(line.attempts or ""),
            str(line.usage.prompt_tokens or ""),
            str(line.usage.output_tokens or ""),
        )
        for line in lines(stories, gather=gather)
    ]
    console().print(table(("node", "asked", "came to", "time", "attempts", "tokens in", "tokens out"), rows, right=(3, 4, 5, 6)))
