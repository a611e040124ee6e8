"""The log: which events are told, at which level, and that no data is."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from orchestra import Orchestra
from orchestra.core.event_logging import create_observer, log_info
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunResumed, RunStarted, Usage
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers

EVENTS: list[Event] = [
    RunStarted(seq=1, at=0.0, run="r1", workflow="w", graph="", inputs={"text": "canary"}),
    AttemptFinished(seq=2, at=0.0, node="a", attempt=1, error="F206", reason="canary", server="smol"),
    AttemptFinished(seq=3, at=0.0, node="a", attempt=2, value="canary"),
    RunFinished(seq=4, at=0.0, status="done", outcome=ValueOutcome("canary")),
]


def told(level: str) -> list[str]:
    stream = io.StringIO()
    observe = create_observer(level, stream)  # type: ignore[arg-type]  # one of the levels
    assert observe is not None
    for event in EVENTS:
        observe("r1", event)
    return stream.getvalue().splitlines()


def test_levels_choose_what_is_told() -> None:
    assert len(told("debug")) == 4
    assert len(told("info")) == 3
    (failure,) = told("warning")
    assert "event='attempt failed'" in failure
    assert "run='r1'" in failure
    assert "code='F206'" in failure
    assert told("error") == []


def test_off_is_silent() -> None:
    assert create_observer("off") is None


def test_data_is_never_told() -> None:
    assert "canary" not in "".join(told("debug"))


def test_the_hosts_structlog_stays_as_it_was() -> None:
    before = structlog.get_config()
    told("info")
    assert structlog.get_config() == before


def test_a_line_that_belongs_to_no_run_names_none(capsys: pytest.CaptureFixture[str]) -> None:
    log_info("info", "no project here", folder="/srv")
    log_info("warning", "no project here", folder="/srv")
    log_info("off", "no project here", folder="/srv")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("level='info' event='no project here' folder='/srv'")


FAILED: list[Event] = [
    RunStarted(seq=1, at=0.0, run="r1", workflow="w", graph="", inputs={"text": "canary"}),
    AttemptFinished(
        seq=2,
        at=0.0,
        node="a",
        attempt=1,
        error="T003",
        reason="f raised ValueError: canary",
        frames=("x.py:1 in g", "x.py:9 in f"),
    ),
    RunFinished(seq=3, at=0.0, status="failed", outcome=FailedOutcome("T003", "f raised ValueError: canary", "a")),
]


def lines(*, reasons: bool = False) -> list[dict[str, Any]]:
    """What is logged of a run that failed, as JSON."""
    stream = io.StringIO()
    observe = create_observer("info", stream, form="json", reasons=reasons)
    assert observe is not None
    for event in FAILED:
        observe("r1", event)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_failure_is_told_with_its_code_its_node_and_the_line_that_raised() -> None:
    _, attempt, end = lines()
    assert (attempt["code"], attempt["node"], attempt["at"]) == ("T003", "a", "x.py:9 in f")
    assert (end["event"], end["status"], end["code"], end["node"], end["level"]) == (
        "run finished",
        "failed",
        "T003",
        "a",
        "warning",
    )
    assert "canary" not in str(lines())


def test_the_end_of_a_run_is_told_with_its_time_and_with_its_money_where_it_cost_some() -> None:
    *_, end = lines()
    assert (end["seconds"], "money" in end) == (0.0, False)
    stream = io.StringIO()
    observe = create_observer("info", stream, form="json")
    assert observe is not None
    began = RunStarted(seq=1, at=10.0, run="r1", workflow="w", graph="", inputs={})
    ended = RunFinished(
        seq=3, at=12.3456, status="done", outcome=ValueOutcome(1), usage=Usage(prompt_tokens=7, calls=2, money=0.25)
    )
    for run, event in (("r1", began), ("r1", ended), ("r2", RunResumed(seq=2, at=11.0, epoch=2)), ("r2", ended)):
        observe(run, event)
    _, one, _, other = map(json.loads, stream.getvalue().splitlines())
    assert (one["calls"], one["tokens"], one["money"], one["seconds"]) == (2, 7, 0.25, 2.346)
    assert "seconds" not in other  # this process does not know when it began


def test_its_reason_is_told_only_where_that_is_wanted() -> None:
    _, attempt, end = lines(reasons=True)
    assert attempt["reason"] == end["reason"] == "f raised ValueError: canary"


def test_lines_of_a_run_have_what_was_bound_where_it_began() -> None:
    stream = io.StringIO()
    observe = create_observer("info", stream, form="json")
    assert observe is not None
    first, *rest = FAILED
    with structlog.contextvars.bound_contextvars(request_id="q-1"):
        observe("r1", first)
    with structlog.contextvars.bound_contextvars(
        request_id="q-2"
    ):  # a letter's, or another run's, whoever the event came through
        for event in rest:
            observe("r1", event)
    assert [json.loads(line)["request_id"] for line in stream.getvalue().splitlines()] == ["q-1"] * 3


def test_pythons_logging_gets_a_message_for_people_and_fields_for_formatters(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestra")
    observe = create_observer("info", form="logging")
    assert observe is not None
    with structlog.contextvars.bound_contextvars(request_id="q-1", name="a name that a record has itself"):
        for event in FAILED:
            observe("r1", event)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]
    assert {record.name for record in caplog.records} == {"orchestra"}
    record = caplog.records[-1]
    assert record.getMessage().startswith("run finished run=r1 status=failed ")
    assert (vars(record)["request_id"], vars(record)["code"], vars(record)["run"]) == ("q-1", "T003", "r1")


def test_the_hosts_own_structlog_gets_events_as_it_is_configured() -> None:
    observe = create_observer("info", form="structlog")
    assert observe is not None
    capturing = structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars])
    with capturing as captured, structlog.contextvars.bound_contextvars(request_id="q-1"):
        for event in FAILED:
            observe("r1", event)
    assert [(line["event"], line["log_level"], line["request_id"]) for line in captured] == [
        ("run started", "info", "q-1"),
        ("attempt failed", "warning", "q-1"),
        ("run finished", "warning", "q-1"),
    ]


def test_the_settings_say_how_runs_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestra")
    workers = SimulatedWorkers({"reader": {"answer": "1889"}})

    async def request(orchestra: Orchestra, number: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=number):
            await orchestra.run(orchestra.find("reader"), question="When?", context="It was completed in 1889.")

    async def served() -> None:
        settings = Settings.load({"log": "info", "log_as": "logging", "journal": "off"}, start=tmp_path, environ={})
        async with Orchestra.open(settings, workers=workers) as orchestra:
            await asyncio.gather(request(orchestra, "q-1"), request(orchestra, "q-2"))

    (tmp_path / "orchestra.toml").write_text("")  # without one, a line says so
    asyncio.run(served())
    said = {(vars(record)["request_id"], vars(record)["run"]) for record in caplog.records}
    assert len(caplog.records) == 4
    assert len(said) == 2
    assert {number for number, _ in said} == {"q-1", "q-2"}
