"""Simulations: random workflows under random faults, by the thousand, each run audited.

    python -m tests.simulation.lab.simulate --runs 20000 --jobs 2
    python -m tests.simulation.lab.simulate --seed 123 --runs 1 -v      # repeats one run, with its events

Exits with 1 if an invariant is violated (docs/concepts/simulation.md), and prints one line that repeats that run.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

from orchestra.core.events import AttemptFinished, NodeFinished, encode
from tests.simulation.lab.random_workflows import RandomWorkflow
from tests.simulation.lab.random_workflows import random_workflow as drawn
from tests.simulation.lab.storms import FaultPlan
from tests.simulation.lab.trial import Trial, findings, run_trial

RUNS_PER_WORKFLOW = 8
"""Runs of one workflow: its compilation costs as much as a run."""
REPEAT_EVERY = 100
"""One seed in this many is run twice, and must give the same bytes."""
SEEDS_PER_PART = 64
"""Seeds that a process takes at a time."""
MAX_SHOWN, MAX_PER_RUN = 20, 2
"""Violations that are printed at most, and counted per run."""
KINDS = ("agent", "tool", "call by name", "call of a block", "first_of", "loop", "plan", "verify", "ask")


@dataclass(slots=True)
class SimulationTotals:
    """The totals of some runs."""

    runs: int = 0
    nodes: list[int] = field(default_factory=list)
    """Executed nodes of each run; elements and iterations count separately."""
    faults: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    """The number of runs with each kind, modifier, fault and end."""
    repeats: int = 0
    violations: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    """Virtual time."""

    def add(self, other: SimulationTotals) -> None:
        """Adds other totals."""
        self.runs += other.runs
        self.nodes += other.nodes
        self.faults += other.faults
        self.features += other.features
        self.repeats += other.repeats
        self.violations += other.violations
        self.seconds += other.seconds


def simulate(seeds: range) -> SimulationTotals:
    """Runs the seeds one after the other."""
    with _clean_up_after():
        return _simulate(seeds)


@contextmanager
def _clean_up_after() -> Iterator[None]:
    """Discards silently what a dying process leaves behind: coroutines that never started."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        try:
            yield
        finally:
            gc.collect()


def _simulate(seeds: range) -> SimulationTotals:
    tally = SimulationTotals()
    workflow: RandomWorkflow | None = None
    for seed in seeds:
        if workflow is None or workflow.number != seed // RUNS_PER_WORKFLOW:
            workflow = drawn(seed // RUNS_PER_WORKFLOW)
        trial = run_trial(workflow, FaultPlan.from_seed(seed))
        _count(tally, trial)
        tally.violations += [(seed, found) for found in findings(trial)[:MAX_PER_RUN]]
        if seed % REPEAT_EVERY == 0:
            tally.repeats += 1
            if digest(trial) != digest(run_trial(workflow, FaultPlan.from_seed(seed))):
                tally.violations.append((seed, "the same seed gave another run"))
    return tally


def digest(trial: Trial) -> str:
    """Returns a digest of a trial: its events, the observed calls, the virtual time."""
    made = blake2b(digest_size=16)
    for one in _runs(trial):
        for event in one.events:
            made.update(encode(event))
        for seen in one.log.calls:
            made.update(repr((seen.call, seen.durable, seen.process, seen.reply)).encode())
        made.update(repr((one.process_ends, one.seconds, sorted(one.log.fault_counts.items()))).encode())
    return made.hexdigest()


def _runs(trial: Trial) -> tuple[Trial, ...]:
    return (trial,) if trial.earlier is None else (trial, trial.earlier)


def node_count(trial: Trial) -> int:
    """Returns the number of nodes that ended; elements and iterations count separately."""
    return sum(
        isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.final)
        for event in trial.events
    )


def _count(tally: SimulationTotals, trial: Trial) -> None:
    tally.runs += 1
    tally.nodes.append(node_count(trial))
    tally.faults.update(trial.log.fault_counts)
    tally.seconds += trial.seconds
    tally.features.update(f"has {feature}" for feature in trial.workflow.features)
    tally.features.update(f"fault {fault}" for fault in trial.log.fault_counts)
    tally.features[f"ends {_final_status(trial)}"] += 1
    if trial.earlier is not None:
        tally.faults.update(trial.earlier.log.fault_counts)
        tally.features["has a neighbour" if not trial.forked else "has a parent"] += 1
    if trial.earlier is not None and trial.forked:
        tally.features[f"fault fork of a run that was {trial.parent_status}"] += 1
        tally.features["fault fork, answers recalled"] += any(
            isinstance(event, AttemptFinished) and event.reused_from == trial.earlier.run for event in trial.events
        )
    tally.features["fault more than one crash"] += sum(fate == "crashed" for fate in trial.process_ends) > 1


def _final_status(trial: Trial) -> str:
    return trial.ended.status if trial.ended is not None else "waiting"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.lab.simulate", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others follow")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--stop", action="store_true", help="end with the first violation")
    parser.add_argument("-v", "--verbose", action="store_true", help="with each run's workflow, storm and events")
    options = parser.parse_args(arguments)
    if options.verbose:
        with _clean_up_after():
            return _print_runs(range(options.seed, options.seed + options.runs))
    began = time.perf_counter()
    tally = SimulationTotals()
    for part in _parts(options.seed, options.runs, options.jobs):
        tally.add(part)
        if sys.stderr.isatty():
            print(f"\r{tally.runs:,} of {options.runs:,} runs", end="", file=sys.stderr, flush=True)
        if options.stop and tally.violations:
            break
    print(*_report(tally, time.perf_counter() - began, all_of=options.runs >= 1_000), sep="\n")
    return 1 if tally.violations else 0


def _parts(seed: int, runs: int, jobs: int) -> Iterator[SimulationTotals]:
    parts = [
        range(start, min(start + SEEDS_PER_PART, seed + runs)) for start in range(seed, seed + runs, SEEDS_PER_PART)
    ]
    if jobs < 2 or len(parts) == 1:
        yield from map(simulate, parts)
        return
    gc.freeze()
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(parts))) as pool:
        yield from pool.imap_unordered(simulate, parts)
        pool.close()
        # `with` would kill its processes, and a semaphore of theirs, such as tqdm's, would be reported as leaked
        pool.join()


def _report(tally: SimulationTotals, seconds: float, *, all_of: bool) -> Iterator[str]:
    shares = {name: count / max(1, tally.runs) for name, count in sorted(tally.features.items())}
    for heading, least in (("has", 0.05), ("fault", 0.01), ("ends", 0.0)):
        rows = [
            (name.removeprefix(f"{heading} "), share)
            for name, share in shares.items()
            if name.startswith(f"{heading} ")
        ]
        yield f"runs that {'have met' if heading == 'fault' else 'have' if heading == 'has' else 'ended'}:"
        for name, share in sorted(rows, key=lambda row: -row[1]):
            few = "   FEW" if all_of and share < least and name not in RARE_FEATURES else ""
            yield f"  {name:<32} {share:7.1%}{few}"
    for seed, found in tally.violations[:MAX_SHOWN]:
        yield f"{found}\n  python -m tests.simulation.lab.simulate --seed {seed} --runs 1 -v"
    nodes = sorted(tally.nodes)
    yield (
        f"{tally.runs:,} runs, {sum(nodes):,} nodes (median {nodes[len(nodes) // 2]} a run), "
        f"{tally.faults.total():,} faults, {tally.repeats:,} seeds run twice, "
        f"{len(tally.violations):,} violations, {tally.seconds / 3600:,.0f} virtual hours, {seconds:.1f} s"
    )


RARE_FEATURES = frozenset({"crowd"})
"""Features that are too expensive for many runs."""


def _print_runs(seeds: range) -> int:
    wrong = 0
    for seed in seeds:
        workflow, storm = drawn(seed // RUNS_PER_WORKFLOW), FaultPlan.from_seed(seed)
        trial = run_trial(workflow, storm)
        print(workflow.text, storm, sep="\n")
        for one in reversed(_runs(trial)):
            print(f"{one.run}: {one.process_ends}, {one.seconds:.3f} s", *one.events, *one.log.calls, sep="\n")
        for found in findings(trial):
            wrong = 1
            print(found)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
