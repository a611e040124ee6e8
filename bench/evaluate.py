"""Evaluation of every agent on the rows of its `evaluation.yaml`: baselines, untuned base, the agent. `make evaluate`
runs it.

    python -m bench.evaluate --data FOLDER [--only AGENT ...] [--fleet NAME] [--dry]

Each evaluation is a separate `orchestra learn evaluate`, so a failure does not affect the others. The tables in the
agents' cards and in the README are rewritten for evaluations that succeed. The members of an ensemble come before it:
if they answered the same rows, they are not run again, and its table has their results. Rows are sampled by the seed in
the file, intervals are 95 % bootstrap intervals. Language-model agents need the fleet: it is started, and stopped if it
was not running before. Exits with 1 if an agent failed, with 2 if the data is missing.
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
"""Estimated seconds per row of agents without a measurement, by kind, on two cores; other kinds take almost no time."""
OWN = ROOT / "bench" / "evaluations"
"""Rows that were written for this project and need no public set."""
LIMIT = 1200
"""Timeout of an evaluation in seconds."""
Keep: TypeAlias = Callable[[Sequence[Measured]], None]
"""Called with the results of an agent when all its evaluations are done."""


@dataclass(frozen=True)
class Task:
    """An evaluation to run."""

    agent: str
    name: str
    plan: Evaluation
    rows: RowSelection
    card: Card
    questions: int
    """Number of rows that will be run."""
    data: Path = Path()
    """The folder with the rows."""
    before: Path | None = None
    """The agent's weights before its last promotion, if they still exist."""
    told: bool = False
    """Whether the members of an ensemble answer the same rows before it, so that it need not call them."""

    def asks_as(self, other: Task) -> bool:
        """Returns whether another agent answers the same rows with the same metrics."""
        mine, others = (one.rows.model_copy(update={"untuned": 0}) for one in (self, other))
        return (self.name, mine, self.data, self.plan.metrics) == (other.name, others, other.data, other.plan.metrics)

    def seconds(self, rates: dict[tuple[str, str], float]) -> float:
        """Returns the estimated duration."""
        each = rates.get((self.agent, self.name), RATES.get(self.card.kind, 0.002))
        untuned = min(self.questions, self.rows.untuned or self.questions) if self.card.adapter is not None else 0
        members = 0 if self.told else len(self.card.member_cards)
        return OPENING + ((1 + members + (self.before is not None)) * self.questions + untuned) * each


def tasks_of(folder: Path, data: Path) -> tuple[list[Task], list[str]]:
    """Returns the tasks of an agent, and the reasons for those that cannot run."""
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
    """Returns the tasks with those that need no model first, because the fleet starts on demand; ensembles follow
    members whose answers they reuse.
    """
    ordered = sorted(tasks, key=lambda task: (task.card.uses_model, bool(task.card.member_cards)))
    told: list[Task] = []
    for task in ordered:
        asked = {other.agent for other in told if task.asks_as(other)}
        told.append(
            replace(task, told=bool(task.card.member_cards) and {part.name for part in task.card.member_cards} <= asked)
        )
    return told


def _beside(folder: Path) -> dict[str, Card]:
    """Returns the cards of the sibling folders by name, which include an ensemble's members."""
    return {path.parent.name: Card.load(path.parent) for path in folder.parent.glob(f"*/{AGENT}")}


def predecessor(card: Card) -> Path | None:
    """Returns the folder of an agent's weights before its last promotion; None if there were none, or they are not on
    this machine.
    """
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
    """Returns the digest of the weights of an agent or of its members; empty if it has none."""
    own = card.folder / card.adapter if card.adapter and card.folder else card.folder or Path()
    return card.weights_digest if card.member_cards else weights_digest(card, own)


def stamp_of(card: Card) -> str:
    """Returns what results are valid for: day and machine, the card, and the weights."""
    learnt = learnt_by(card)
    return f"{now().partition(', load')[0]}; card {card.digest[:12]}" + (f", learnt {learnt[:12]}" if learnt else "")


def measured(task: Task, fleet: str | None, root: Path, members: Sequence[Measured] = ()) -> Measured:
    """Runs an evaluation. An ensemble reuses the given results of its members, marked if checks were applied to them;
    without given results its members are called without checks.

    Raises:
        CalledProcessError: The command failed.
        TimeoutExpired: The command took too long.
        ValueError: Rows failed.
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
    """Returns whether the fleet is running."""
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
    """Starts the fleet and waits for it, so its start counts for no evaluation. If it fails, each evaluation reports
    the reason.
    """
    command = [sys.executable, "-m", "orchestra.cli", "fleet", "start", *(["--fleet", fleet] if fleet else [])]
    subprocess.run(command, cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL, check=False)


def stop(fleet: str | None) -> None:
    """Stops the fleet."""
    command = [sys.executable, "-m", "orchestra.cli", "fleet", "stop", *(["--fleet", fleet] if fleet else [])]
    subprocess.run(command, cwd=ROOT, env=_environment(), stdout=sys.stderr, check=False)


def minutes(seconds: float) -> str:
    """Returns the text of a remaining time."""
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{max(seconds, 1):.0f} s"


def carry_out(
    tasks: Sequence[Task],
    measure: Callable[[Task], Measured],
    rates: dict[tuple[str, str], float],
    told: Callable[[str], None],
    start: float = 0.0,
    keep: Keep = lambda _: None,
) -> tuple[list[Measured], list[str]]:
    """Runs all tasks one after the other, printing the remaining time before each; returns those that failed.

    `keep` gets the results of an agent when they are complete, so an interrupted call keeps the tables of the earlier
    agents.
    """
    planned, spent, counted = [task.seconds(rates) for task in tasks], 0.0, start
    found, faults = [], []
    for number, task in enumerate(tasks):
        pace = spent / counted if spent and counted else 1.0
        left = (sum(planned[number:]) + (start if not number else 0.0)) * pace
        told(
            f"{number + 1} of {len(tasks)}: {task.agent}, {task.name}, {task.questions:,} rows; about "
            f"{minutes(left)} left in all"
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
    """Returns the agent of a failure."""
    return fault.partition(":")[0].partition(",")[0]


def with_fleet(
    tasks: Sequence[Task],
    fleet: str | None,
    root: Path,
    rates: dict[tuple[str, str], float],
    told: Callable[[str], None],
    keep: Keep,
) -> tuple[list[Measured], list[str]]:
    """Runs all tasks; the fleet is started on demand, and stopped if it was not running before."""
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
    """Writes the tables of agents without failures; returns the changed files."""
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
    """Returns the required sets and the format of their rows."""
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
        '\nA file has one JSON object a line: {"id": "...", "input": {...}, "expected": {...}}; gzip where it '
        "ends in .gz."
    )
    lines.append("Only `input` reaches an agent. `train` files are what floors are made of.")
    return "\n".join(lines)


def main(root: Path = ROOT) -> int:
    """Evaluates the agents of a project and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder with one folder for each set")
    parser.add_argument("--only", nargs="*", default=[], help="only these agents")
    parser.add_argument("--fleet", help="a name in configs/, or a path")
    parser.add_argument("--dry", action="store_true", help="write nothing, print what would be run")
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
