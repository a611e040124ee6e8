"""Planners in one harness on the same served model: baselines, ReAct, a plan in free text, and ours; a table for each
set in docs/evaluation/planning.md.

    python -m bench.planners --data FOLDER [--sets ultratool tmdb ...] [--rows 24] [--seed 0]
                             [--arms floor react ...] [--out KEPT] [--dry]

FOLDER has the sets as described in `DATA/README.md`. Rows are a seeded sample of dev, or with `--rows 0` all of it; a
sample larger than 24, and all of dev, have separate tables. All planners get the same rows. The result of each row is
stored under KEPT, so an interrupted measurement continues: stored rows are not run again with the same fleet file and
the same agents. A planner that fails on a row, or whose answer is not a plan, scores 0 there. Intervals are 95 %
bootstrap intervals over the rows; seconds per row are the time of all rows, run concurrently, divided by their number.
It needs the fleet, unless `--arms floor`; it starts it and does not stop it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec

from bench.evaluate import learnt_by
from bench.evaluation_tables import between, rate
from bench.machine import ROOT, now
from bench.plan_baselines import OneShot, Ours, Planned, ReAct, has_planner
from bench.plan_floors import floors
from bench.plan_sets import KINDS, PlanSet, Task, case_of
from bench.plan_ways import WRITER, Repaired, Stepwise
from orchestra.app.orchestra import Orchestra
from orchestra.core.settings import Settings
from orchestra.learn.evaluation.bootstrap import estimate_interval
from orchestra.learn.evaluation.metrics import Case
from orchestra.schema.strict_json import canonical, digest

PAGE = ROOT / "docs" / "evaluation" / "planning.md"
AT_ONCE = 4
ROWS = 24
"""Default number of rows of a set."""
ARMS = ("floor", "react", "free", "ours", "ours-lines", "ours-unstyled", "ours-free", "ours-repaired")
UNHELD = ("ours-free", "ours-repaired")
"""Arms without a grammar."""


class Planner(Protocol):
    """A planner of tasks."""

    @property
    def name(self) -> str:
        """Name in the table."""
        ...

    async def __call__(self, task: Task) -> Planned:
        """Plans a task."""
        ...


@dataclass(frozen=True)
class Arm:
    """A planner with its results."""

    name: str
    planned: tuple[Planned, ...]
    seconds: float = 0.0
    """Time of all rows, run concurrently."""

    @property
    def failed(self) -> int:
        """Rows without a plan."""
        return sum(one.plan is None for one in self.planned)


async def carried_out(ask: Planner, rows: Sequence[Task], at_once: int = AT_ONCE, kept: Path | None = None) -> Arm:
    """Runs a planner on all rows without a stored result. Raises `FleetError` if no server is available."""
    gate = asyncio.Semaphore(at_once)
    known = read(kept) if kept is not None else {}

    async def one(task: Task) -> Planned:
        if task.id in known:
            return known[task.id]
        async with gate:
            began = time.perf_counter()
            planned = await ask(task)
            planned = replace(planned, seconds=time.perf_counter() - began)
        if kept is not None:
            with kept.open("ab") as file:
                file.write(msgspec.json.encode({"id": task.id, "planned": planned}) + b"\n")
        return planned

    began = time.perf_counter()
    planned = await asyncio.gather(*map(one, rows))
    before = sum(known[task.id].seconds for task in rows if task.id in known) / at_once
    return Arm(ask.name, tuple(planned), before + time.perf_counter() - began)


def read(kept: Path) -> dict[str, Planned]:
    """Reads the results of a file; a torn line is run again."""
    whole = kept.read_bytes().rpartition(b"\n")[0] if kept.exists() else b""
    if kept.exists():
        kept.write_bytes(whole + b"\n" * bool(whole))
    lines = [msgspec.json.decode(line) for line in whole.splitlines()]
    return {line["id"]: msgspec.convert(line["planned"], Planned) for line in lines}


def without_model(known: PlanSet) -> list[Arm]:
    """Runs the baselines on the same rows."""
    return [Arm(floor.name, tuple(Planned(floor(task)) for task in known.rows)) for floor in floors(known)]


def answering(orchestra: Orchestra) -> str:
    """Returns eight characters that identify the fleet file, the planning agent and its weights."""
    fleet = orchestra.settings.find_resource("configs", orchestra.settings.fleet).read_text("utf-8")
    card = orchestra.registry.cards.get(WRITER)
    return digest(canonical([fleet, [card.digest, learnt_by(card)] if card is not None else []]))[:8]


async def served(
    settings: Settings, known: PlanSet, arms: Sequence[str], at_once: int, out: Path | None = None
) -> list[Arm]:
    """Returns the planners with a model. Raises `FleetError` if no server is available."""
    async with Orchestra.open(settings, fleet="start") as orchestra:
        asks: dict[str, Planner] = {"react": ReAct(orchestra, known), "free": OneShot(orchestra, known)}
        if has_planner(orchestra):
            asks |= {
                "ours": Ours(orchestra, known),
                "ours-lines": Stepwise(orchestra, known),
                "ours-unstyled": Ours(orchestra, known, "ours, style not given", styled=False),
                "ours-free": Ours(orchestra, known, "ours, without its grammar"),
                "ours-repaired": Repaired(orchestra, known),
            }
        who = "" if out is None else answering(orchestra)
        kept = {name: None if out is None else out / f"{known.name}.{name}.{who}.jsonl" for name in asks}
        return [await carried_out(ask, known.rows, at_once, kept[name]) for name, ask in asks.items() if name in arms]


async def measured(
    known: PlanSet, arms: Sequence[str], settings: Settings, at_once: int, out: Path | None = None
) -> list[Arm]:
    """Runs all arms of a set; the result of each row is stored under `out`."""
    found = without_model(known) if "floor" in arms else []
    free = settings.model_copy(update={"constraint": "none"})
    for held, wanted in ((settings, set(arms) - {"floor", *UNHELD}), (free, set(arms) & set(UNHELD))):
        if wanted:
            found += await served(held, known, sorted(wanted), at_once, out)
    return found


def section(known: PlanSet, arms: Sequence[Arm], command: str, stamp: str) -> str:
    """Returns the section of a set."""
    names = [metric.name for metric in known.metrics]
    lines = [
        f"| | {' | '.join(names)} | no plan | tokens in, out a row | calls a row | seconds a row |",
        f"|{'---|' * (len(names) + 5)}",
    ]
    for name, figures in known.kind.floors.items():
        cells = [f"{figures[one]:.3f}" if one in figures else "" for one in names]
        lines.append(f"| floor of DATA/README.md, all of dev: {name} | {' | '.join(cells)} | | | | |")
    for arm in arms:
        cases = [case_of(task, one.plan) for task, one in zip(known.rows, arm.planned, strict=True)]
        lines.append(_line(arm, [_shown(known, at, cases) for at in range(len(names))], len(known.rows)))
    which = sample(known)
    said = (
        f"All {known.whole} rows of dev"
        if which == "all"
        else f"{len(known.rows)} of the {known.whole} rows of dev, seed {known.seed}"
    )
    title = {"all": f"{known.name}, all of dev", "more": f"{known.name}, {len(known.rows)} rows"}.get(which, known.name)
    return f"### {title}\n\n{said}; {stamp}.\n\n    $ {command}\n\n" + "\n".join(lines) + "\n"


def _shown(known: PlanSet, at: int, cases: Sequence[Case]) -> str:
    return str(estimate_interval(known.metrics[at], cases, seed=known.seed))


def _line(arm: Arm, cells: Sequence[str], rows: int) -> str:
    usages = [one.usage for one in arm.planned]
    prompt, output, calls = (
        sum(getattr(one, key) for one in usages) / rows for key in ("prompt_tokens", "output_tokens", "calls")
    )
    spent = [f"{prompt:.0f}, {output:.0f}", f"{calls:.1f}", rate(arm.seconds / rows)] if calls else ["", "", ""]
    return f"| {arm.name} | {' | '.join([*cells, str(arm.failed), *spent])} |"


def sample(known: PlanSet) -> str:
    """Returns which of a set's tables its rows belong to: `all` for all rows, `more` for a large sample, else empty."""
    return "all" if len(known.rows) == known.whole else "more" if len(known.rows) > ROWS else ""


def marks(name: str, which: str = "") -> tuple[str, str]:
    """Returns the markers of a set's table; those of a larger sample and of all rows follow that of a small one."""
    table = f"{name}, {which}" if which else name
    return f"<!-- planners:{table} -->", f"<!-- end:planners:{table} -->"


def placed(text: str, known: PlanSet, table: str) -> str:
    """Returns the page with a set's table; a new one is inserted after that of the small sample."""
    begin, end = marks(known.name, sample(known))
    beside = marks(known.name)[1]
    if begin not in text:
        text = text.replace(beside, f"{beside}\n\n{begin}\n{end}", 1)
    return between(text, (begin, end), f"\n{table}\n")


def main(page: Path = PAGE) -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of each set; 0 for all of dev")
    parser.add_argument("--out", type=Path, help="a folder in which the results of rows are stored and reused")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--fleet", help="a name in configs/, or a path")
    parser.add_argument("--dry", action="store_true", help="print only")
    given = parser.parse_args()
    settings = Settings.load({"fleet": given.fleet, "journal": "off"})
    for name in given.sets:
        known = PlanSet.load(given.data, name, given.rows, given.seed)
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
        arms = asyncio.run(measured(known, given.arms, settings, given.at_once, given.out))
        again = f"python -m bench.planners --data DATA --sets {name} --rows {given.rows} --seed {given.seed}"
        if given.arms != list(ARMS):
            again += f" --arms {' '.join(given.arms)}"
        if given.at_once != AT_ONCE:
            again += f" --at-once {given.at_once}"
        text = section(known, arms, again, f"{given.at_once} rows at once, {now()}")
        print(text, flush=True)
        for arm in arms:
            faults = sorted({one.fault for one in arm.planned if one.fault})
            if faults:
                print(f"{name}, {arm.name}: {'; '.join(faults[:3])}", file=sys.stderr)
        if not given.dry:
            page.write_text(placed(page.read_text("utf-8"), known, text), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
