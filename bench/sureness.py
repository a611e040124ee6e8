"""The trade-off of a confidence threshold for `table_reader`: correct answers, and accepted wrong ones, by threshold.

    python -m bench.sureness [--tune FOLDER/tune.jsonl]

Runs the shipped agent on the table questions of `bench/ask_tables.yaml`, each request as a whole; with `--tune` also on
the TAT-QA rows that its data set was tuned on, and on the written ones with a condition (`python -m
agents.table_reader.data.build --data PATH/tatqa --out FOLDER --longest 3000`). It needs no fleet.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ask import Asked, requests, stands
from bench.machine import ROOT
from orchestra import Orchestra
from orchestra.learn.encoders.table_targets import answers_match
from orchestra.learn.evaluation.evaluation import EVALUATION_PURPOSE
from orchestra.workflows.python.steps import Agent

REQUESTS = ROOT / "bench" / "ask_tables.yaml"
FRESH = "seventh"
"""The part that was unseen at its first run; it was inspected on 2026-11-28."""
SURE = (0.0, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Case:
    """A question, and a function that decides whether an output answers it."""

    question: Mapping[str, Any]
    right: Callable[[Mapping[str, Any]], bool]


def asked(part: str) -> list[Case]:
    """Returns the table questions of a part."""

    def case(one: Asked) -> Case:
        given = {"question": one.request, "table": one.values["table"], "paragraphs": []}
        return Case(given, lambda output: stands(one.expect, output))

    return [case(one) for one in requests(REQUESTS, part) if "table" in one.values]


def tuned_on(path: Path, *, bounded: bool = False) -> list[Case]:
    """Returns the TAT-QA rows of a tune split, or the written ones with a condition."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    theirs = [
        row for row in rows if (row["output"].get("condition") if bounded else not row["id"].startswith("written-"))
    ]
    return [Case(row["input"], lambda output, wanted=row["output"]: answers_match(output, wanted)) for row in theirs]  # type: ignore[misc]


async def answered(cases: Sequence[Case]) -> list[tuple[float, bool]]:
    """Returns the confidence and the correctness of each case."""
    found = []
    async with Orchestra.open(fleet="none") as orchestra:
        card = orchestra.registry.card("table_reader")
        reader = Agent.from_card(card.with_settings(checks=("confidence",), accept=0.0))
        for case in cases:
            result = await (await orchestra.options(purpose=EVALUATION_PURPOSE).start(reader, **case.question)).wait()
            found.append((result.confidence or 0.0, result.value is not None and case.right(result.value)))
    return found


def line(name: str, found: Sequence[tuple[float, bool]]) -> str:
    """Returns the number of correct and of accepted wrong answers at each of `SURE`."""
    cells = []
    for least in SURE:
        kept = [one for sure, one in found if sure >= least]
        cells.append(f"{sum(kept)}, {len(kept) - sum(kept)}")
    return f"| {name} | {len(found)} | {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", type=Path)
    given = parser.parse_args()
    print(
        f"| right, accepted and wrong | questions | "
        f"{' | '.join(f'confidence {least}' if least else 'no threshold' for least in SURE)} |"
    )
    print("|---|---:|" + "---|" * len(SURE))
    others = [case for part in ("dev", "test", "later", "fresh", "last", "sixth") for case in asked(part)]
    print(line("everyday tables, examined", asyncio.run(answered(others))), flush=True)
    print(line("everyday tables, the last author's", asyncio.run(answered(asked(FRESH)))), flush=True)
    if given.tune is not None:
        print(line("annual reports, tune rows", asyncio.run(answered(tuned_on(given.tune)))), flush=True)
        print(line("written, with a condition, tune rows", asyncio.run(answered(tuned_on(given.tune, bounded=True)))))


if __name__ == "__main__":
    main()
