"""Event logging: logged events, levels, and absence of data."""

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


def test_log_level_filters_events() -> None:
    assert len(told("debug")) == 4
    assert len(told("info")) == 3
    (failure,) = told("warning")
    assert "event='attempt failed'" in failure
    assert "run='r1'" in failure
    assert "code='F206'" in failure
    assert told("error") == []


def test_log_off_logs_nothing() -> None:
    assert create_observer("off") is None


def test_log_never_contains_data() -> None:
    assert "canary" not in "".join(told("debug"))


def test_log_keeps_structlog_configuration_of_host() -> None:
    before = structlog.get_config()
    told("info")
    assert structlog.get_config() == before


def test_log_line_without_run_has_no_run_id(capsys: pytest.CaptureFixture[str]) -> None:
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
    """Returns the log lines of a failed run, as JSON."""
    stream = io.StringIO()
    observe = create_observer("info", stream, form="json", reasons=reasons)
    assert observe is not None
    for event in FAILED:
        observe("r1", event)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_log_failure_has_code_node_and_line() -> None:
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


def test_log_run_end_has_time_and_money() -> None:
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
    assert "seconds" not in other  # this process does not know when the run started


def test_log_reason_only_if_enabled() -> None:
    _, attempt, end = lines(reasons=True)
    assert attempt["reason"] == end["reason"] == "f raised ValueError: canary"


def test_log_lines_have_context_of_run_start() -> None:
    stream = io.StringIO()
    observe = create_observer("info", stream, form="json")
    assert observe is not None
    first, *rest = FAILED
    with structlog.contextvars.bound_contextvars(request_id="q-1"):
        observe("r1", first)
    with structlog.contextvars.bound_contextvars(
        request_id="q-2"
    ):  # of a message or another run, whichever process recorded the event
        for event in rest:
            observe("r1", event)
    assert [json.loads(line)["request_id"] for line in stream.getvalue().splitlines()] == ["q-1"] * 3


def test_log_to_logging_has_message_and_fields(caplog: pytest.LogCaptureFixture) -> None:
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


def test_log_to_structlog_uses_host_configuration() -> None:
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


def test_log_format_follows_settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestra")
    workers = SimulatedWorkers({"reader": {"answer": "1889"}})

    async def request(orchestra: Orchestra, number: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=number):
            await orchestra.run(orchestra.find("reader"), question="When?", context="It was completed in 1889.")

    async def served() -> None:
        settings = Settings.load({"log": "info", "log_as": "logging", "journal": "off"}, start=tmp_path, environ={})
        async with Orchestra.open(settings, workers=workers) as orchestra:
            await asyncio.gather(request(orchestra, "q-1"), request(orchestra, "q-2"))

    (tmp_path / "orchestra.toml").write_text("")  # without a project, a note is printed
    asyncio.run(served())
    said = {(vars(record)["request_id"], vars(record)["run"]) for record in caplog.records}
    assert len(caplog.records) == 4
    assert len(said) == 2
    assert {number for number, _ in said} == {"q-1", "q-2"}
