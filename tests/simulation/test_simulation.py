"""Simulation: random workflows under random faults end as required, and faults of the engine are detected."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

import msgspec
import pytest

from orchestra.core.events import AttemptFinished, Event
from tests.mutation.mutant import Mutant, patched
from tests.simulation.lab.forks import RelatedRun
from tests.simulation.lab.invariants import AuditCase, audit
from tests.simulation.lab.random_workflows import random_workflow
from tests.simulation.lab.simulate import RARE_FEATURES, digest, main, node_count, simulate
from tests.simulation.lab.storms import FaultPlan
from tests.simulation.lab.trial import Trial, findings, run_trial
from tests.simulation.mutants import MUTANTS, judge

pytestmark = [
    pytest.mark.slow,
    # A process that dies leaves coroutines that never started.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> Iterator[None]:
    """Discards what dead processes left behind here, and not during another test."""
    yield
    gc.collect()


SEED = 700_000
"""Seeds other than those of `make simulate`."""


@pytest.mark.parametrize("part", range(5))
def test_invariants_hold_under_crashes_and_faults(part: int) -> None:
    start = SEED + part * 100
    tally = simulate(range(start, start + 100))
    assert [
        f"{found}: python -m tests.simulation.lab.simulate --seed {seed} --runs 1 -v"
        for seed, found in tally.violations
    ] == []


def test_seed_repeats_run() -> None:
    assert [digest(_trial(seed)) for seed in range(SEED, SEED + 20)] == [
        digest(_trial(seed)) for seed in range(SEED, SEED + 20)
    ]


def test_seed_repeats_run_in_another_process() -> None:
    """The order of sets differs there: a grammar that was written in that order made resumed runs send other
    prompts.
    """
    code = "from tests.simulation.test_simulation import _trial, digest; "
    code += "print([digest(_trial(seed)) for seed in (1280, 1281, 1283)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, check=True
        ).stdout
        for salt in ("1", "2")
    }
    assert len(said) == 1
    assert b"[" in said.pop()


def test_runs_execute_fifteen_nodes_in_median() -> None:
    nodes = sorted(node_count(_trial(seed)) for seed in range(SEED, SEED + 240, 4))
    assert nodes[len(nodes) // 2] >= 13  # of few runs; `make simulate` shows the median of all


def test_all_kinds_and_modifiers_are_covered() -> None:
    drawn = [random_workflow(number) for number in range(300)]
    features = {feature for one in drawn for feature in one.features} - RARE_FEATURES
    few = {feature for feature in features if sum(feature in one.features for one in drawn) < 0.05 * len(drawn)}
    assert few == set()
    assert len(features) > 30


def test_forks_and_deletions_are_covered() -> None:
    tally = simulate(range(SEED, SEED + 400))
    kinds = (
        "fork of a run that was done",
        "fork of a run that was failed",
        "fork of a run that was cut off",
        "fork, answers recalled",
    )
    deletions = (
        "deleted, the parent",
        "deleted, a neighbour",
        "deleted, the younger",
        "not deleted: under way",
        "not deleted: messages",
    )
    assert {
        name: tally.features[f"fault {name}"] for name in (*kinds, *deletions) if tally.features[f"fault {name}"] < 3
    } == {}
    assert min(tally.features["has a parent"], tally.features["has a neighbour"]) >= 20


def test_failed_run_prints_repeat_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        "tests.simulation.lab.simulate.findings", lambda trial: ["I0 made up"] if trial.plan.seed == SEED + 3 else []
    )
    assert main(["--seed", str(SEED), "--runs", "6", "--jobs", "1"]) == 1
    assert (
        f"I0 made up\n  python -m tests.simulation.lab.simulate --seed {SEED + 3} --runs 1 -v\n"
        in capsys.readouterr().out
    )


def test_leftovers_of_dead_processes_are_silent() -> None:
    gc.collect()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        simulate(range(2, 3))
        gc.collect()
    assert said == []


def test_processes_end_without_leak_warnings() -> None:
    """The run of seed 208 builds an index with a progress bar of tqdm, which has a semaphore."""
    code = "from tests.simulation.lab import simulate as s; s.SEEDS_PER_PART = 1; "
    code += "s.main(['--seed', '207', '--runs', '2', '--jobs', '2'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120).stderr == b""


def test_auditor_detects_answer_missing_in_parent() -> None:
    trial = next(found for seed in range(SEED, SEED + 200) if (found := _trial(seed)).forked and _recalled(found))
    assert trial.earlier is not None
    first = _recalled(trial)[0]
    parent = [
        msgspec.structs.replace(event, value="another") if _same_answer(event, first) else event
        for event in trial.earlier.events
    ]
    relative = RelatedRun(trial.earlier.run, trial.workflow.program, parent)
    said = audit(
        AuditCase(
            trial.workflow.program,
            trial.events,
            related_run=relative,
            cancelled=trial.cancelled,
            left_waiting=trial.left_waiting,
        )
    )
    assert any("did not get for that call" in found for found in said)
    strangers = audit(
        AuditCase(trial.workflow.program, trial.events, cancelled=trial.cancelled, left_waiting=trial.left_waiting)
    )
    assert any("the answer of an unrelated run" in found for found in strangers)


def _recalled(trial: Trial) -> list[AttemptFinished]:
    events = [event for event in trial.events if isinstance(event, AttemptFinished)]
    return [
        event
        for event in events
        if trial.earlier is not None and event.reused_from == trial.earlier.run and not event.memo_key
    ]


def _same_answer(event: Event, other: AttemptFinished) -> bool:
    return isinstance(event, AttemptFinished) and event.value == other.value


def test_auditor_detects_missing_event() -> None:
    trial = _calm(SEED)
    assert findings(trial) == []
    for gone in range(1, len(trial.events) - 1):
        events = [*trial.events[:gone], *trial.events[gone + 1 :]]
        assert audit(AuditCase(trial.workflow.program, events)) != []


def _trial(seed: int) -> Trial:
    return run_trial(random_workflow(seed // 8), FaultPlan.from_seed(seed))


def _calm(seed: int) -> Trial:
    return run_trial(random_workflow(seed // 8), FaultPlan.from_seed(seed).without_faults())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_simulation_mutants_apply_to_source(mutant: Mutant) -> None:
    assert patched(mutant) != ""


QUICK = ("a plan begins without what it was given", "an element lost", "an effect before its start is on disk")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_simulation_detects_mutant(name: str) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    assert judge(mutant, steps=(100, 400)).found != ""
