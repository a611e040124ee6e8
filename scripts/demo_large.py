"""Ten mixed requests to three sizes of model: what is not accepted from the smallest is answered by the larger ones.

    python scripts/demo_large.py [--fleet workstation]

The project `examples/workstation` has the requests, the agents and their checks. The first start fetches 1.7 GB of
weights. Prints each answer with its model and time, and what each model did. Exits with 1 if a run fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestra import Orchestra, Result
from orchestra.cli.output import StatusLine, print_table, print_text
from orchestra.core.quantities import format_duration
from orchestra.journal.history import History, NodeAttempt

PROJECT = Path(__file__).resolve().parent.parent / "examples" / "workstation"


@dataclass
class ModelUse:
    """What one model did."""

    calls: int = 0
    accepted: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, attempt: NodeAttempt) -> None:
        """Adds one call."""
        self.calls += 1
        self.accepted += attempt.accepted is True
        self.tokens += attempt.usage.output_tokens
        self.seconds += attempt.seconds or 0.0


@dataclass
class Totals:
    """The counts of the whole demonstration."""

    right: int = 0
    wrong: int = 0
    withheld: int = 0
    failed: int = 0
    models: dict[str, ModelUse] = field(default_factory=lambda: defaultdict(ModelUse))


def is_right(value: Any, expected: Any) -> bool:
    """Whether an answer has one of the expected words, the number, or all fields."""
    if isinstance(expected, dict):
        return all(str(part).casefold() in str((value or {}).get(key, "")).casefold() for key, part in expected.items())
    if isinstance(expected[0], int):
        return value["value"] in expected
    return any(words.casefold() in f"{value['answer']} {value['quote']}".casefold() for words in expected)


def attempts_of(history: History) -> list[NodeAttempt]:
    """Returns the calls of models of a run, in order."""
    return [attempt for row in history.rows for attempt in row.attempts if attempt.model]


def show(number: int, request: dict[str, Any], result: Result[Any], totals: Totals) -> None:
    """Prints one answer and adds it to the totals."""
    history = History.of(result.events)
    attempts = attempts_of(history)
    for attempt in attempts:
        totals.models[attempt.model].add(attempt)
    inputs = request["inputs"]
    print_text(f"{number:>2}. {inputs.get('question') or inputs['message']}", style="bold")
    if result.status == "done":
        right = is_right(result.value, request["expected"])
        totals.right += right
        totals.wrong += not right
        text = json.dumps(result.value, ensure_ascii=False)
        print_text(f"    {text}", style="green" if right else "red")
    elif result.status == "abstained":
        totals.withheld += 1
        print_text("    withheld: no model gave an answer that the checks accept", style="yellow")
    else:
        totals.failed += 1
        print_text(f"    {result.status}: {result.error}", style="red")
    path = ", then ".join(f"{attempt.model} {format_duration(attempt.seconds or 0.0)}" for attempt in attempts)
    print_text(
        f"    {path} · expected: {json.dumps(request['expected'], ensure_ascii=False)} · {result.run}", style="dim"
    )


async def run(fleet: str) -> int:
    """Runs the requests one after the other; returns the exit status."""
    requests = json.loads((PROJECT / "requests.json").read_text("utf-8"))
    totals = Totals()
    began = time.monotonic()
    print_text(f"{len(requests)} requests to the fleet {fleet}: a larger model answers what the checks reject\n")
    progress = StatusLine()
    async with Orchestra.open(fleet, project=PROJECT, progress=progress) as orchestra:
        for number, request in enumerate(requests, 1):
            run = await orchestra.start(orchestra.find(request["workflow"]), **request["inputs"])
            result = await run.wait()
            progress.close()
            show(number, request, result, totals)
    lines = [
        (name, str(use.calls), str(use.accepted), str(use.tokens), format_duration(use.seconds))
        for name, use in totals.models.items()
    ]
    print_text("\nWhat each model did", style="bold")
    print_table(("model", "calls", "accepted", "tokens out", "time"), lines, right=(1, 2, 3, 4))
    print_text(
        f"\n{totals.right} right, {totals.wrong} wrong, {totals.withheld} withheld, {totals.failed} failed, "
        f"in {format_duration(time.monotonic() - began)} with the start of the servers."
    )
    return 1 if totals.failed else 0


def main() -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fleet", default="workstation", help="a fleet file or its name")
    return asyncio.run(run(parser.parse_args().fleet))


if __name__ == "__main__":
    sys.exit(main())
