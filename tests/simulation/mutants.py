"""Mutants: the engine and its journal with one fault each. A simulation that does not find them shows nothing.

    python -m tests.simulation.mutants               # all of them, with a table
    python -m tests.simulation.mutants "lost cancel" # those whose name has these words

Each is a change of the source text, made in a copy of the package, and run in a process of its own until the first violation.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = 2_400
"""Runs within which a mutant must be found."""
STEPS = (120, 600, RUNS)
"""A mutant is run with a few seeds first, and with more where those do not find it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault: in which file, instead of what, and what is there then."""

    name: str
    file: str
    old: str
    new: str


def patched(mutant: Mutant) -> str:
    """The file's text with the fault in it. Raises `LookupError` where the place is not there once: the source has moved on."""
    text = (ROOT / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: {mutant.file} has {text.count(mutant.old)} times {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)


DRIVER, EVOLVE, DECIDE = "orchestra/engine/driver.py", "orchestra/engine/evolve.py", "orchestra/engine/decide.py"
SHELL, RUN, CALLING = "orchestra/engine/shell.py", "orchestra/engine/run.py", "orchestra/engine/kinds/calling.py"
MEMORY, PURSE = "orchestra/journal/memory.py", "orchestra/engine/purse.py"

MUTANTS = (
    Mutant("a lost cancel", DRIVER, "            self.cancel(letter.by, letter.number)\n", "            pass\n"),
    Mutant(
        "an effect before its start is on disk",
        DRIVER,
        "                await self.journal.durable(run.id, self.state.seq)\n        else",
        "                pass\n        else",
    ),
    Mutant("a run that is told before it is on disk", DRIVER, "        await self.journal.durable(self.run.id, self.state.seq)\n        self.run.end", "        self.run.end"),
    Mutant("a double settle", EVOLVE, "            spreading.pending -= 1\n", "            spreading.pending -= 2\n"),
    Mutant("a node before its last need", EVOLVE, "        if not left[child]:", "        if left[child] <= 1:"),
    Mutant("a stale lease accepted", MEMORY, "if not log.line.ended and self._epochs.get(run) != log.epoch:", "if log.line.ended and False:"),
    Mutant("an epoch that does not grow", MEMORY, "        log.epoch += 1\n", ""),
    Mutant("an event out of order", RUN, "fresh = self.log[self.flushed :]", "fresh = self.log[self.flushed :][::-1]"),
    Mutant("a reader that skips an event", RUN, "            position += len(batch)\n", "            position += len(batch) + (len(batch) > 2)\n"),
    Mutant("a retry more than allowed", "orchestra/engine/retry.py", "        most = own.attempts\n", "        most = own.attempts + 1\n"),
    Mutant("a retry before its time", DRIVER, "await self.clock.sleep(max(0.0, due - self.clock.now()))", "await self.clock.sleep(max(0.0, due - self.clock.now()) / 2)"),
    Mutant("a budget that is not reserved", PURSE, "            purse.reserved += tokens\n", "            purse.reserved += 0\n"),
    Mutant("an outer budget that is not charged", PURSE, "            purse.tokens += tokens\n", "            purse.tokens += tokens if purse.outer is None else 0\n"),
    Mutant("a memo of an unaccepted answer", DRIVER, "if accepted and answer is not None and answer.memo", "if answer is not None and answer.memo"),
    Mutant("a call that must happen once, made again", EVOLVE, 'contract.effect == "once"', 'contract.effect == "never"'),
    Mutant("an answer to a stale question accepted", SHELL, "        if shown != asked.shown:", '        if shown == "":'),
    Mutant("an answer of another type accepted", SHELL, "if asked.schema else None) or \"\"", "if asked.schema and False else None) or \"\""),
    Mutant("a letter opened twice", EVOLVE, "def _letter_refused(state: State, event: LetterRefused, program: Program) -> None:\n    state.letters = max(state.letters, event.letter)", "def _letter_refused(state: State, event: LetterRefused, program: Program) -> None:\n    pass"),
    Mutant("a non-value taken as a value", DRIVER, "if isinstance(reply, Done) and schema and (fault", "if isinstance(reply, Done) and not schema and (fault"),
    Mutant("a loop that turns once too often", "orchestra/engine/kinds/body.py", "unit.turn < node.at_most", "unit.turn <= node.at_most"),
    Mutant("an element lost", DECIDE, "return Value([outcome.value for outcome in outcomes if", "return Value([outcome.value for outcome in outcomes[:5] if"),
    Mutant("more elements at once than admitted", EVOLVE, "while spreading.busy < most and", "while spreading.busy <= most and"),
    Mutant("a deadline that begins anew", DRIVER, "budget.seconds - self.state.active", "budget.seconds"),
    Mutant("an alarm that is not set again", DRIVER, "if unit.due and unit.phase in (Phase.PAUSED, Phase.INSIDE, Phase.ASKED):", "if unit.due and unit.phase in (Phase.PAUSED, Phase.ASKED):"),
    Mutant("an attempt that is counted twice after a crash", EVOLVE, "                unit.attempt -= 1\n                state.enqueue(unit)", "                state.enqueue(unit)"),
    Mutant("feedback that is forgotten", EVOLVE, "        unit.feedback = (*unit.feedback, event.reason)\n", "        pass\n"),
    Mutant("a tier that is forgotten", CALLING, "escalate=unit.wanted or unit.escalated", "escalate=False"),
    Mutant("a check that is not asked", "orchestra/engine/kinds/acceptance.py", "if unit.spread or acceptance is None or", "if unit.attempt or unit.spread or acceptance is None or"),
    Mutant("a label that is lost", CALLING, "label=state.label", 'label="public"'),
    Mutant("a key that changes with the attempt", CALLING, 'key=f"{state.run}/{unit.path}"', 'key=f"{state.run}/{unit.path}/{unit.attempt}"'),
    Mutant("a message that never gets into the outbox", DRIVER, 'outbox=contract is not None and contract.effect == "transactional"', "outbox=False"),
    Mutant("the last arm instead of the first", "orchestra/engine/kinds/choice.py", "for arm in unit.node.arms:", "for arm in reversed(unit.node.arms):"),
    Mutant("a condition on elements that is not asked", DECIDE, "node.variable in node.when.references\n", "node.variable not in node.when.references\n"),
    Mutant("a task that outlives its engine", SHELL, "        for task in idle:\n            task.cancel()\n", "        idle.clear()\n"),
    Mutant("letters that nobody hears after a crash", SHELL, "        self._asleep[run.id] = sleeper\n        self._attend()\n", "        self._asleep[run.id] = sleeper\n"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a mutant was found, after how many runs, and by what."""

    mutant: Mutant
    runs: int
    found: str
    seconds: float


def judge(mutant: Mutant | None, steps: Sequence[int] = STEPS, seed: int = 0) -> Verdict:
    """Runs a simulation of a mutant; of the sound package where it is None."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "orchestra", Path(folder) / "orchestra", ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            (Path(folder) / mutant.file).write_text(patched(mutant))
        before = 0
        for runs in steps:
            command = [sys.executable, "-m", "orchestra.testing.simulate", "--seed", str(seed + before), "--runs", str(runs - before)]
            done = subprocess.run([*command, "--jobs", "1", "--stop"], cwd=folder, capture_output=True, text=True, check=False, timeout=900)
            before = runs
            if done.returncode:
                return Verdict(mutant or SOUND, runs, _finding(done), time.perf_counter() - began)
    return Verdict(mutant or SOUND, before, "", time.perf_counter() - began)


SOUND = Mutant("(no change)", "", "", "")


def _finding(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stdout.splitlines()
    at = next((number for number, line in enumerate(lines) if "--runs 1 -v" in line), 0)
    return lines[at - 1] if at else (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description="faults that the simulation must find")
    parser.add_argument("name", nargs="*", help="only those whose name has these words")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    wanted = " ".join(options.name)
    chosen = [mutant for mutant in MUTANTS if wanted in mutant.name]
    missed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(judge, chosen):
            missed += not verdict.found
            found = f"within {verdict.runs:>5,} runs  {verdict.found[:90]}" if verdict.found else "NOT FOUND"
            print(f"{verdict.mutant.name:<46} {found}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} mutants found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
