"""Every agent on the rows that its `evaluation.yaml` names, through its card: floors, untuned base, the agent. `make evaluate` runs it.

    python -m bench.evaluate --data FOLDER [--only AGENT ...] [--fleet NAME] [--dry]

Each evaluation is one `orchestra learn evaluate`, so that one which fails spoils no other; the tables in the agents'
cards and in docs/evaluation/agents.md are written anew for those that did not fail. An ensemble's members come before
it: where they were asked the same rows, they are not asked again, and its table has what their own has. Rows are
drawn by the seed in the file, intervals are of 95 % by bootstrap. It needs the fleet for agents that are language
models: it starts it, and stops it again where it was not running before. Exits with 1 where an agent failed, with 2
where the data is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from bench.evaluation_tables import Measured, card_with, page_with, rates_of
from bench.machine import ROOT, now
from orchestra.agents.card import CARD_FILE as AGENT
from orchestra.agents.card import Card
from orchestra.agents.ensemble import join_members
from orchestra.core.errors import InputError
from orchestra.fleet.supervisor.folders import Folders
from orchestra.learn.evaluation.config import FILE, Evaluation, RowSelection, read_evaluations
from orchestra.learn.evaluation.evaluation import INCUMBENT
from orchestra.learn.promotion.promotion import AdapterStore, weights_digest

OPENING, FLEET = 4.0, 90.0
"""Seconds that a command takes before its first row, and that a fleet may take to start."""
RATES = {"model": 0.3, "encoder": 0.02, "ensemble": 2.0}
"""Seconds a row of a kind of agent that was not measured yet, on two cores; the others take next to nothing."""
OWN = ROOT / "bench" / "evaluations"
"""Rows that were written for this project, and need no public set."""
LIMIT = 1200
"""Seconds after which an evaluation counts as failed."""
Keep: TypeAlias = Callable[[Sequence[Measured]], None]
"""Hears of an agent whose evaluations are all done."""


@dataclass(frozen=True)
class Task:
    """One evaluation that is to be done."""

    agent: str
    name: str
    plan: Evaluation
    rows: RowSelection
    card: Card
    questions: int
    """How many of them will be asked."""
    data: Path = Path()
    """The folder with the rows."""
    before: Path | None = None
    """What the agent had before its last promotion, where it is still there."""
    told: bool = False
    """Whether an ensemble's members are asked the same rows before it, so that it need not ask them alone."""

    def asks_as(self, other: Task) -> bool:
        """Whether another agent is asked the very same rows, and measured by the same."""
        mine, others = (one.rows.model_copy(update={"untuned": 0}) for one in (self, other))
        return (self.name, mine, self.data, self.plan.metrics) == (other.name, others, other.data, other.plan.metrics)

    def seconds(self, rates: dict[tuple[str, str], float]) -> float:
        """How long it will take, as far as one knows."""
        each = rates.get((self.agent, self.name), RATES.get(self.card.kind, 0.002))
        untuned = min(self.questions, self.rows.untuned or self.questions) if self.card.adapter is not None else 0
        members = 0 if self.told else len(self.card.member_cards)
        return OPENING + ((1 + members + (self.before is not None)) * self.questions + untuned) * each


def tasks_of(folder: Path, data: Path) -> tuple[list[Task], list[str]]:
    """What there is to do for an agent, and what stands against it."""
    try:
        card, plans = Card.load(folder), read_evaluations(folder / FILE)
        card = join_members(card, _beside(folder) if card.members else {})
    except InputError as error:
        return [], [f"{folder.name}: {error}"]
    if not (folder / "card.md").is_file():
        return [], [f"{folder.name}: there is no card.md to write into"]
    tasks, faults = [], []
    for name, plan in plans.items():
        if plan.rows is None:
            faults.append(f"{folder.name}, {name}: evaluation.yaml names no rows")
            continue
        where = OWN if (OWN / plan.rows.file).is_file() else data
        if missing := [file for file in (plan.rows.file, plan.rows.train) if file and not (where / file).is_file()]:
            faults.append(f"{folder.name}, {name}: {', '.join(missing)} not in {where}")
        else:
            count = sum(1 for line in (where / plan.rows.file).open("rb") if line.strip())
            asked = min(plan.rows.sample or count, count)
            tasks.append(Task(folder.name, name, plan, plan.rows, card, asked, where, predecessor(card)))
    return tasks, faults


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Tasks that ask no model first, since the fleet starts when it is needed; ensembles behind members that need not be asked twice."""
    ordered = sorted(tasks, key=lambda task: (task.card.uses_model, bool(task.card.member_cards)))
    told: list[Task] = []
    for task in ordered:
        asked = {other.agent for other in told if task.asks_as(other)}
        told.append(
            replace(task, told=bool(task.card.member_cards) and {part.name for part in task.card.member_cards} <= asked)
        )
    return told


def _beside(folder: Path) -> dict[str, Card]:
    """The cards of the folders beside one, by name: an ensemble's members are among them."""
    return {path.parent.name: Card.load(path.parent) for path in folder.parent.glob(f"*/{AGENT}")}


def predecessor(card: Card) -> Path | None:
    """The folder of what an agent had before its last promotion; None where it had nothing, or it is not on this machine."""
    if card.folder is None:
        return None
    shelf = AdapterStore(card, card.folder, Folders.from_environment().adapters)
    last = shelf.promotions()[-1:]
    found = (
        shelf.archive / last[0].previous_digest
        if last and last[0].verb == "promote" and last[0].previous_digest
        else None
    )
    return found if found is not None and found.is_dir() else None


def learnt_by(card: Card) -> str:
    """The digest of what an agent, or its members, have learnt; empty where it has learnt nothing."""
    own = card.folder / card.adapter if card.adapter and card.folder else card.folder or Path()
    return card.weights_digest if card.member_cards else weights_digest(card, own)


def stamp_of(card: Card) -> str:
    """What figures hold for: day and machine, the card, and what it has learnt."""
    learnt = learnt_by(card)
    return f"{now().partition(', load')[0]}; card {card.digest[:12]}" + (f", learnt {learnt[:12]}" if learnt else "")


def measured(task: Task, fleet: str | None, root: Path, members: Sequence[Measured] = ()) -> Measured:
    """What came of an evaluation. An ensemble's members have the figures given, in whose name it is said where checks judged their answers;
    where none are given they are asked, without checks.

    Raises `CalledProcessError` or `TimeoutExpired` where it failed, ValueError where rows did.
    """
    command = [sys.executable, "-m", "orchestra.cli", "learn", "evaluate", task.agent, "--json"]
    command += ["--data", str(task.data.resolve()), "--evaluation", task.name, *(["--fleet", fleet] if fleet else [])]
    command += ["--candidate", str(task.before)] if task.before else []
    command += ["--no-members"] if members else []
    done = subprocess.run(
        command, cwd=root, env=_environment(), stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT
    )
    report: dict[str, Any] = json.loads(done.stdout)
    failed = {arm["arm"]: arm["failed"] for arm in report["arms"] if arm["failed"] > report["rows"] / 2}
    if failed:
        raise ValueError(
            f"of {report['rows']} rows failed: {', '.join(f'{count} of {arm}' for arm, count in failed.items())}"
        )
    at = next(n for n, arm in enumerate(report["arms"]) if arm["arm"] == INCUMBENT)
    checked = {part.name for part in task.card.member_cards if part.checks or part.accept is not None}
    named = [(one, f"{one.agent}, with its checks" if one.agent in checked else one.agent) for one in members]
    report["arms"][at:at] = [{**one.arms[INCUMBENT], "arm": name} for one, name in named]
    own = (
        f"orchestra learn evaluate {task.agent} --data {OWN.relative_to(ROOT)} --evaluation {task.name}"
        if task.data == OWN
        else ""
    )
    return Measured(task.agent, task.name, task.plan, report, stamp_of(task.card), own)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}


def running(fleet: str | None) -> bool:
    """Whether the fleet is up."""
    command = [
        sys.executable,
        "-m",
        "orchestra.cli",
        "fleet",
        "status",
        "--json",
        *(["--fleet", fleet] if fleet else []),
    ]
    return subprocess.run(command, cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL, check=False).returncode == 0


def start(fleet: str | None) -> None:
    """Starts the fleet and waits for it, so that its start counts for no evaluation; where it fails, each of them says why."""
    command = [sys.executable, "-m", "orchestra.cli", "fleet", "start", *(["--fleet", fleet] if fleet else [])]
    subprocess.run(command, cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL, check=False)


def stop(fleet: str | None) -> None:
    """Stops the fleet."""
    command = [sys.executable, "-m", "orchestra.cli", "fleet", "stop", *(["--fleet", fleet] if fleet else [])]
    subprocess.run(command, cwd=ROOT, env=_environment(), stdout=sys.stderr, check=False)


def minutes(seconds: float) -> str:
    """A time that is left."""
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{max(seconds, 1):.0f} s"


def carry_out(
    tasks: Sequence[Task],
    measure: Callable[[Task], Measured],
    rates: dict[tuple[str, str], float],
    told: Callable[[str], None],
    start: float = 0.0,
    keep: Keep = lambda _: None,
) -> tuple[list[Measured], list[str]]:
    """All tasks, one after the other, with what is left told before each; and which of them failed.

    `keep` gets an agent's figures once all of them are there: who stops it half-way has the tables of the others.
    """
    planned, spent, counted = [task.seconds(rates) for task in tasks], 0.0, start
    found, faults = [], []
    for number, task in enumerate(tasks):
        pace = spent / counted if spent and counted else 1.0
        left = (sum(planned[number:]) + (start if not number else 0.0)) * pace
        told(
            f"{number + 1} of {len(tasks)}: {task.agent}, {task.name}, {task.questions:,} rows; about {minutes(left)} left in all"
        )
        began = time.monotonic()
        try:
            found.append(measure(task))
        except subprocess.TimeoutExpired:
            faults.append(f"{task.agent}, {task.name}: not done after {LIMIT} s")
        except subprocess.CalledProcessError as error:
            faults.append(f"{task.agent}, {task.name}: orchestra learn evaluate ended with {error.returncode}")
        except ValueError as error:
            faults.append(f"{task.agent}, {task.name}: {error}")
        spent, counted = spent + time.monotonic() - began, counted + planned[number]
        if task.agent not in (later.agent for later in tasks[number + 1 :]) and task.agent not in map(agent_of, faults):
            keep([one for one in found if one.agent == task.agent])
    return found, faults


def agent_of(fault: str) -> str:
    """Whose fault it is."""
    return fault.partition(":")[0].partition(",")[0]


def with_fleet(
    tasks: Sequence[Task],
    fleet: str | None,
    root: Path,
    rates: dict[tuple[str, str], float],
    told: Callable[[str], None],
    keep: Keep,
) -> tuple[list[Measured], list[str]]:
    """All tasks, with a fleet that is started at the first one which needs it, and stopped where it was not running before."""
    adopted = running(fleet) or not any(task.card.uses_model for task in tasks)

    done: dict[tuple[str, str], Measured] = {}

    def measure(task: Task) -> Measured:
        if task.card.uses_model and not adopted and not running(fleet):
            start(fleet)
        members = [
            done[part.name, task.name]
            for part in task.card.member_cards
            if task.told and (part.name, task.name) in done
        ]
        one = measured(task, fleet, root, members if len(members) == len(task.card.member_cards) else ())
        done[task.agent, task.name] = one
        return one

    try:
        return carry_out(tasks, measure, rates, told, 0.0 if adopted else FLEET, keep)
    finally:
        if not adopted:
            stop(fleet)


def write(found: Sequence[Measured], spoilt: set[str], agents: Path, page: Path) -> list[Path]:
    """Writes the tables of the agents of which nothing failed; gives the files that changed."""
    good = [one for one in found if one.agent not in spoilt]
    if not good:
        return []
    pages = {page: page_with(page.read_text("utf-8"), good, [path.parent.name for path in agents.glob(f"*/{FILE}")])}
    for agent in {one.agent for one in good}:
        card = agents / agent / "card.md"
        pages[card] = card_with(card.read_text("utf-8"), [one for one in good if one.agent == agent])
    changed = [path for path, text in pages.items() if path.read_text("utf-8") != text]
    for path in changed:
        path.write_text(pages[path], "utf-8")
    return changed


def needed(agents: Path) -> str:
    """Which sets the agents are measured on, and how rows must look."""
    lines = ["make evaluate DATA=FOLDER needs a folder with these files:\n"]
    for path in sorted(agents.glob(f"*/{FILE}")):
        inputs = ", ".join(Card.load(path.parent).input)
        for name, plan in read_evaluations(path).items():
            rows = plan.rows
            if rows is not None and (OWN / rows.file).is_file():
                continue
            files = ", ".join(file for file in (rows.file, rows.train) if file) if rows else "(no rows are named)"
            keys = sorted({measure.expected or measure.field for measure in plan.metrics.values()})
            asked = ", ".join(rows.inputs.values()) if rows and rows.inputs else inputs
            lines += [
                f"  {files}",
                f"      for {path.parent.name}: input {asked}; expected {', '.join(keys)}",
                f"      {plan.data or name}",
            ]
            lines += [f"      from {plan.source}"] if plan.source else []
    lines.append(
        '\nA file has one JSON object a line: {"id": "...", "input": {...}, "expected": {...}}; gzip where it ends in .gz.'
    )
    lines.append("Only `input` reaches an agent. `train` files are what floors are made of.")
    return "\n".join(lines)


def main(root: Path = ROOT) -> int:
    """Measures the agents of a project and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder with one folder a set")
    parser.add_argument("--only", nargs="*", default=[], help="these agents")
    parser.add_argument("--fleet", help="a name in configs/, or a path")
    parser.add_argument("--dry", action="store_true", help="write nothing, say what would be asked")
    given = parser.parse_args()
    agents, page = root / "agents", root / "docs" / "evaluation" / "agents.md"
    if not given.data:
        print(needed(agents), file=sys.stderr)
        return 2
    known = {path.parent.name for path in agents.glob(f"*/{FILE}")}
    if strange := sorted(set(given.only) - known):
        print(f"no {FILE} of {', '.join(strange)}; there are {', '.join(sorted(known))}", file=sys.stderr)
        return 2

    tasks: list[Task] = []
    faults: list[str] = []
    for agent in sorted(known & set(given.only) if given.only else known):
        mine, against = tasks_of(agents / agent, Path(given.data))
        tasks, faults = tasks + mine, faults + against
    tasks = in_order(tasks)

    def told(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    rates = rates_of(page.read_text("utf-8"))
    for fault in faults:
        told(fault)
    if given.dry:
        for task in tasks:
            told(f"{task.agent}, {task.name}: {task.questions:,} rows, about {minutes(task.seconds(rates))}")
        return 1 if faults else 0
    began, spoilt = time.monotonic(), set(map(agent_of, faults))

    def keep(good: Sequence[Measured]) -> None:
        for path in write(good, spoilt, agents, page):
            told(f"{path.relative_to(root)} written")

    found, failed = with_fleet(tasks, given.fleet, root, rates, told, keep)
    faults += failed
    told(f"{len(found)} evaluations in {minutes(time.monotonic() - began)}")
    for fault in faults:
        told(f"failed: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
