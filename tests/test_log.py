"""The log: which events are told, at which level, and that no data is."""

from __future__ import annotations

import io

import pytest
import structlog

from orchestra.events import AttemptFinished, Event, RunFinished, RunStarted
from orchestra.log import note, observer
from orchestra.values.outcome import Value

EVENTS: list[Event] = [
    RunStarted(seq=1, at=0.0, run="r1", workflow="w", graph="", inputs={"text": "canary"}),
    AttemptFinished(seq=2, at=0.0, node="a", attempt=1, error="F206", reason="canary", server="smol"),
    AttemptFinished(seq=3, at=0.0, node="a", attempt=2, value="canary"),
    RunFinished(seq=4, at=0.0, status="done", outcome=Value("canary")),
]


def told(level: str) -> list[str]:
    stream = io.StringIO()
    observe = observer(level, stream)  # type: ignore[arg-type]  # one of the levels
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
    assert observer("off") is None


def test_data_is_never_told() -> None:
    assert "canary" not in "".join(told("debug"))


def test_the_hosts_structlog_stays_as_it_was() -> None:
    before = structlog.get_config()
    told("info")
    assert structlog.get_config() == before


def test_a_line_that_belongs_to_no_run_names_none(capsys: pytest.CaptureFixture[str]) -> None:
    note("info", "no project here", folder="/srv")
    note("warning", "no project here", folder="/srv")
    note("off", "no project here", folder="/srv")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("level='info' event='no project here' folder='/srv'")
