"""Metrics: the text is valid for Prometheus, the counters are right after a run, and it has no data of the run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestra import Budget, Orchestra
from orchestra.core.events import (
    AttemptFinished,
    OutputJudged,
    RunFinished,
    RunResumed,
    RunStarted,
    Usage,
    Verdict,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import CallError, CallResult
from orchestra.core.settings import Settings
from orchestra.engine.engine import EngineActivity
from orchestra.fleet.status import FleetStatus, ServerStatus
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal
from orchestra.telemetry.exposition import SERVER_STATES, Gauge, render_metrics
from orchestra.telemetry.metrics import CALLS, MAX_VALUES, OTHER, RUN_DURATION, VERDICTS, RunMetrics
from orchestra.testing import SimulatedWorkers

CANARY = "canary-7f3a"
CONTEXT = f"It was completed in 1889. {CANARY}"
WORKFLOW = """
schema: orchestra/v1
name: reading
description: Reads.
input: {question: str, context: str}
output: ${r}
nodes:
  r:
    agent: reader
    with: {question: "${input.question}", context: "${input.context}"}
    checks: [quote]
    against: ${input.context}
    retry: {attempts: 2, wait: [0, 0]}
    otherwise: [abstain]
"""
QUOTE = "completed in 1889"


@dataclass
class IdleSource:
    """An `Orchestra` without runs, whose servers have a given status."""

    fleet: FleetStatus
    journal: MemoryJournal = field(default_factory=MemoryJournal)

    def activity(self) -> EngineActivity:
        return EngineActivity(running=0, waiting=0, followed=0, calls=0, queued_calls=0)

    async def fleet_status(self, *, probe: bool = False) -> FleetStatus:
        return self.fleet


def samples(text: bytes) -> dict[str, float]:
    """Returns the samples of a text by name and labels: `orchestra_tokens_total{kind=prompt,model=m}`."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def answer(call: Any) -> Any:
    """Refuses the first attempt, then answers with tokens; without a valid quote if the question asks for it."""
    if call.attempt == 1:
        return CallError(code="F203", reason=CANARY, retryable=True)
    quote = "not there" if "wrong" in call.inputs["question"] else QUOTE
    used = Usage(prompt_tokens=100, cached_tokens=40, output_tokens=7, calls=1, money=0.5)
    return CallResult(value={"answer": quote}, usage=used, model="smol", server="s")


def scripted_run(
    folder: Path, *questions: str, journal: MemoryJournal | None = None, gauges: tuple[Gauge, ...] = ()
) -> bytes:
    """Runs a workflow for each question, and returns the metrics."""
    (folder / "orchestra.toml").write_text("")
    (folder / "workflows").mkdir()
    (folder / "workflows" / "reading.yaml").write_text(WORKFLOW)

    async def scene() -> bytes:
        workers = SimulatedWorkers({"reader": answer})
        metrics = RunMetrics()
        settings = Settings.load({"journal": "off"}, start=folder, environ={})
        async with Orchestra.open(settings, workers=workers, journal=journal) as orchestra:
            orchestra.observe(metrics.observe, metrics.restore)
            tagged = orchestra.options(tags={"tenant": CANARY}, budget=Budget(tokens=100_000))
            for question in questions:
                run = await tagged.start(orchestra.find("reading"), question=question, context=CONTEXT)
                await run.wait()
            return await render_metrics(metrics, orchestra, gauges)

    return asyncio.run(scene())


def test_counters_after_scripted_runs_are_right(tmp_path: Path) -> None:
    found = samples(scripted_run(tmp_path, "When?", "When?"))
    assert found["orchestra_runs_started_total{workflow=reading}"] == 2
    assert found["orchestra_runs_finished_total{status=done,workflow=reading}"] == 2
    assert found["orchestra_nodes_finished_total{outcome=value,workflow=reading}"] == 2
    assert found["orchestra_calls_total{name=reader,result=error}"] == 2
    assert found["orchestra_calls_total{name=reader,result=ok}"] == 2
    assert found["orchestra_call_errors_total{code=F203}"] == 2
    assert found["orchestra_retries_total"] == 2
    assert found["orchestra_tokens_total{kind=prompt,model=smol}"] == 200
    assert found["orchestra_tokens_total{kind=cached,model=smol}"] == 80
    assert found["orchestra_tokens_total{kind=output,model=smol}"] == 14
    assert found["orchestra_money_total{model=smol}"] == 1.0
    assert found["orchestra_run_seconds_count{workflow=reading}"] == 2
    assert found["orchestra_run_budget_used_ratio_bucket{le=0.25,resource=tokens}"] == 2
    assert found["orchestra_runs{state=running}"] == 0
    assert found["orchestra_journal_up"] == 1


def test_verdicts_are_counted_by_check_and_outcome(tmp_path: Path) -> None:
    found = samples(scripted_run(tmp_path, "When?", "wrong?"))
    verdicts = {name: value for name, value in found.items() if name.startswith("orchestra_verdicts_total")}
    assert sum(verdicts.values()) > 0
    assert found["orchestra_verdicts_total{check=quote,outcome=pass}"] == 1
    assert found["orchestra_verdicts_total{check=quote,outcome=fail}"] == 1
    assert found["orchestra_judgements_total{accepted=no,workflow=reading}"] == 1
    assert found["orchestra_runs_finished_total{status=abstained,workflow=reading}"] == 1


def test_verdicts_of_a_combined_check_are_counted_too() -> None:
    combined = Verdict("all", "fail", 0.0, parts=(Verdict("quote", "pass", 1.0), Verdict("entailment", "fail", 0.1)))
    metrics = RunMetrics()
    metrics.observe("r", OutputJudged(seq=2, at=0.0, node="n", attempt=1, accepted=False, verdicts=(combined,)))
    assert metrics.counters[VERDICTS] == {("all", "fail"): 1, ("quote", "pass"): 1, ("entailment", "fail"): 1}


def test_text_has_no_data_of_runs_and_no_tenant(tmp_path: Path) -> None:
    assert CANARY not in scripted_run(tmp_path, "When?", "wrong?").decode()


def test_further_gauges_are_in_the_text(tmp_path: Path) -> None:
    gauge = Gauge("orchestra_server_requests", "Requests.", ("state",), {("in_progress",): 3})
    assert (
        samples(scripted_run(tmp_path, "When?", gauges=(gauge,)))["orchestra_server_requests{state=in_progress}"] == 3
    )


class FullDisk(MemoryJournal):
    async def check_writable(self) -> None:
        raise JournalError("J010", "the disk is full", hint="free some space")


class StuckDisk(MemoryJournal):
    async def check_writable(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("journal", [FullDisk, StuckDisk])
def test_journal_that_cannot_be_written_is_down(
    journal: type[MemoryJournal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra.telemetry.exposition.JOURNAL_TIMEOUT", 0.01)
    assert samples(scripted_run(tmp_path, journal=journal()))["orchestra_journal_up"] == 0


def test_state_of_each_server_is_in_the_text() -> None:
    status = ServerStatus(
        name="s",
        kind="endpoint",
        model="m",
        address="http://models:8000/v1",
        state="failed",
        breaker="open",
        in_flight=2,
        waiting=3,
        limit=4,
    )
    source = IdleSource(FleetStatus(fleet="f", running=True, servers=(status,), models={"base": ("s",)}))
    found = samples(asyncio.run(render_metrics(RunMetrics(), source)))
    states = {name: value for name, value in found.items() if name.startswith("orchestra_fleet_server_state")}
    assert len(states) == len(SERVER_STATES)
    assert [name for name, value in states.items() if value] == ["orchestra_fleet_server_state{server=s,state=failed}"]
    assert {
        name: value for name, value in found.items() if name.startswith("orchestra_fleet") and name not in states
    } == {
        "orchestra_fleet_in_flight{server=s}": 2,
        "orchestra_fleet_waiting{server=s}": 3,
        "orchestra_fleet_limit{server=s}": 4,
        "orchestra_fleet_breaker_open{server=s}": 1,
        "orchestra_fleet_missing_models": 1,
    }


def test_label_values_are_bounded() -> None:
    metrics = RunMetrics()
    for number in range(MAX_VALUES + 50):
        metrics.observe("r", AttemptFinished(seq=number, at=0.0, node="n", attempt=1, name=f"tool{number}"))
    assert len(metrics.counters[CALLS]) == MAX_VALUES + 1
    assert metrics.counters[CALLS][OTHER, "ok"] == 50


def test_run_resumed_from_other_process_has_its_workflow() -> None:
    metrics = RunMetrics()
    started = RunStarted(seq=1, at=5.0, run="r", workflow="w", graph="", inputs={})
    metrics.restore("r", [started])
    metrics.observe("r", RunResumed(seq=2, at=6.0, epoch=2))
    metrics.observe("r", RunFinished(seq=3, at=7.0, status="done", outcome=ValueOutcome(1)))
    said = {family.name: series for family, series in metrics.counters.items() if series}
    assert said == {"orchestra_runs_resumed": {("w",): 1}, "orchestra_runs_finished": {("w", "done"): 1}}
    assert metrics.histograms[RUN_DURATION]["w",].total == 2.0, "seconds since its start in the other process"


@pytest.mark.parametrize("method", ["observe", "restore"])
def test_run_without_end_is_dropped_after_the_limit(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.telemetry.metrics.MAX_RUNS", 2)
    metrics = RunMetrics()
    for run in ("a", "b", "c"):
        started = RunStarted(seq=1, at=0.0, run=run, workflow="w", graph="", inputs={})
        if method == "observe":
            metrics.observe(run, started)
        else:
            metrics.restore(run, [started])
    metrics.observe("a", RunFinished(seq=2, at=0.0, status="done", outcome=ValueOutcome(1)))
    (counted,) = [series for family, series in metrics.counters.items() if family.name == "orchestra_runs_finished"]
    assert counted == {(OTHER, "done"): 1}
