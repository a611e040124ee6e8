"""Variants of planning with the same router and requests: line by line or in one call, with or without a grammar, with
or without repairs.

    python -m bench.router_ways --rows DATASET [--sample 0] [--seed 0] [--at-once 4] [--fleet NAME] [--dry]

DATASET is one of `agents.router.data.build`; its held-out rows are used, all or a seeded sample. A plan is correct if
it equals the row's, line for line; a request without a plan counts 0. Intervals are 95 % bootstrap intervals over the
rows. *Seconds a row* are the time of all rows, run concurrently, divided by their number; *median wait* is the duration
of one. Without a grammar the router writes to the end of the plan in every variant, so that variant is measured once. A
variant without invalid lines is not measured with repairs. The journal is off, so no answer is reused. The table goes
into docs/concepts/router.md."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from bench.evaluation_tables import between
from bench.machine import now
from bench.router import AT_ONCE, NONE, PAGE, SKILL, Asked, drafts, held_out, written
from orchestra.app.planning import PlanOptions, PlanResult
from orchestra.core.settings import Settings
from orchestra.learn.evaluation.bootstrap import estimate_interval
from orchestra.learn.evaluation.metrics import Case, Metric
from orchestra.router.planner import DECLINED_CODE
from orchestra.workflows.model import PlanLimits

MARKS = "<!-- ways -->", "<!-- end:ways -->"
REPAIRS = (0, 2)
HEADS = (
    "",
    "repairs",
    "the right plan",
    "F1 of its skills",
    "no plan",
    "questions",
    "tokens in, of them cached, out",
    "seconds a row",
    "median wait, s",
)


@dataclass(frozen=True)
class Way:
    """A variant of planning."""

    name: str
    stepwise: bool
    constraint: Literal["evidence", "none"]


WAYS = (
    Way("line by line, under grammars", True, "evidence"),
    Way("at once, under one grammar", False, "evidence"),
    Way("without a grammar", False, "none"),
)


@dataclass(frozen=True)
class Measured:
    """A variant with the results of each row."""

    way: Way
    repairs: int
    drafts: tuple[PlanResult, ...]
    waits: tuple[float, ...]
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether any line was invalid; otherwise repairs change nothing."""
        return any(one.code != DECLINED_CODE for draft in self.drafts for one in draft.rejections)


async def measured(asked: Sequence[Asked], way: Way, repairs: int, settings: Settings, at_once: int) -> Measured:
    """Runs all rows in one variant. Raises `FleetError` if no server is available."""
    options = PlanOptions(
        limits=PlanLimits(steps=8, width=8), repairs=repairs, stepwise=way.stepwise, grounded=False, cache=False
    )
    waits: dict[int, float] = {}
    began = time.perf_counter()
    settings = settings.model_copy(update={"constraint": way.constraint})
    made = await drafts(
        asked, options, settings, at_once, lambda number, _, seconds: waits.__setitem__(number, seconds)
    )
    seconds = time.perf_counter() - began
    return Measured(way, repairs, tuple(made), tuple(waits[number] for number in range(len(asked))), seconds)


def skills_f1(plan: str, found: str) -> float:
    """Returns the F1 of the capabilities of two plans, as bags; 1 if both plan nothing."""
    if NONE in (plan, found):
        return float(plan == found)
    wanted, had = (Counter(SKILL.findall(text)) for text in (plan, found))
    return 2 * sum((wanted & had).values()) / max(1, sum(wanted.values()) + sum(had.values()))


def share(values: Sequence[float], seed: int) -> str:
    """Returns a mean over the rows, with its interval."""
    mean = Metric("mean", lambda case: case.output, lambda parts: sum(part["of"] for part in parts) / len(parts))
    return str(estimate_interval(mean, [Case({}, {"of": value}) for value in values], seed=seed))


def row(arm: Measured, asked: Sequence[Asked], seed: int) -> str:
    """Returns a line of the table."""
    said = [written(draft) for draft in arm.drafts]
    rights = [float(text == what.plan) for what, text in zip(asked, said, strict=True)]
    alike = [skills_f1(what.plan, text) for what, text in zip(asked, said, strict=True)]
    figures = [share(rights, seed), share(alike, seed)]
    count, usages = len(asked), [draft.usage for draft in arm.drafts]
    tokens = ", ".join(
        f"{sum(getattr(one, key) for one in usages) / count:.0f}"
        for key in ("prompt_tokens", "cached_tokens", "output_tokens")
    )
    questions = sum(draft.question_count for draft in arm.drafts) / count
    cells = [
        *figures,
        str(said.count("")),
        f"{questions:.1f}",
        tokens,
        f"{arm.seconds / count:.2f}",
        f"{median(arm.waits):.2f}",
    ]
    return f"| {arm.way.name} | {arm.repairs} | {' | '.join(cells)} |"


def section(arms: Sequence[Measured], asked: Sequence[Asked], command: str, stamp: str, seed: int) -> str:
    """Returns the section of the page."""
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}", *(row(arm, asked, seed) for arm in arms)]
    return f"\n{len(asked)} held-out rows, {stamp}.\n\n    $ {command}\n\n" + "\n".join(lines) + "\n\n"


def main(page: Path = PAGE) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="a data set of agents.router.data.build")
    parser.add_argument("--sample", type=int, default=0, help="number of held-out rows; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--fleet", help="a name in configs/, or a path")
    parser.add_argument("--dry", action="store_true", help="print only")
    given = parser.parse_args()
    asked = held_out(given.rows)
    if given.sample:
        asked = random.Random(given.seed).sample(asked, min(given.sample, len(asked)))
    settings = Settings.load({"fleet": given.fleet, "journal": "off"})
    asyncio.run(measured(asked[:1], WAYS[0], 0, settings, 1))  # waits until the server is up and has the adapter
    arms: list[Measured] = []
    for way in WAYS:
        for repairs in REPAIRS:
            if repairs and not arms[-1].refused:
                continue
            arms.append(asyncio.run(measured(asked, way, repairs, settings, given.at_once)))
            print(row(arms[-1], asked, given.seed), flush=True)
    command = (
        f"python -m bench.router_ways --rows DATASET --sample {given.sample} --seed {given.seed} --at-once "
        f"{given.at_once}"
    )
    text = section(arms, asked, command, f"{given.at_once} at once, {now()}", given.seed)
    print(text)
    if not given.dry:
        page.write_text(between(page.read_text("utf-8"), MARKS, text), "utf-8")


if __name__ == "__main__":
    main()
