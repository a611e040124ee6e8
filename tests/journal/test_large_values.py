"""Large values are stored once, by digest, and restored unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.events import (
    AttemptFinished,
    Event,
    NodeFinished,
    OutputJudged,
    RunFinished,
    RunStarted,
    Usage,
    Verdict,
    encode,
)
from orchestra.core.outcomes import AbstainedOutcome, Evidence, ValueOutcome
from orchestra.journal.encoding import LARGE_EVENT_BYTES, split_value, with_value
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.schema.strict_json import digest
from tests.journal.files import sql
from tests.journal.stories import begun, middle

TEXT = "ein langer Text, " * 4_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def story(value: Any) -> list[Event]:
    evidence = (Evidence(check="quote", quote="q", start=1, end=2),)
    return [
        RunStarted(
            seq=1, at=1.0, run="r1", workflow="w", graph="0" * 32, inputs=value, options={"budget": {"tokens": 5}}
        ),
        AttemptFinished(seq=2, at=2.0, node="a", attempt=1, value=value, usage=Usage(5, 6), confidence=0.5, final=True),
        NodeFinished(seq=3, at=3.0, node="b", outcome=ValueOutcome(value=value, score=0.5, evidence=evidence)),
        RunFinished(seq=4, at=4.0, status="done", outcome=ValueOutcome(value=value)),
    ]


async def test_large_value_is_stored_once_and_restored(file: Path) -> None:
    value = {"text": TEXT, "none": None, "deep": [[1.5, True, {}]]}
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", story(value))
        await journal.wait_durable("r1", 4)
        assert await journal.read("r1") == story(value)
        assert await journal.read("r1", 2) == story(value)[2:]
    assert sql(file, "SELECT digest, length(data) > 60000 FROM blobs", "SELECT DISTINCT big FROM events") == [
        (digest(encode(value)), 1),
        (digest(encode(value)),),
    ]
    assert sql(file, "SELECT max(length(body)) < 400 FROM events") == [(1,)]


async def test_small_value_stays_in_event(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", story("x" * 100))
    assert sql(file, "SELECT count(*) FROM blobs", "SELECT DISTINCT big FROM events") == [(0,), ("",)]


async def test_long_event_without_value_is_not_split(file: Path) -> None:
    events: list[Event] = [
        begun("r1"),
        AttemptFinished(seq=2, at=1.0, node="a", attempt=1, error="A1", reason=TEXT),
        OutputJudged(
            seq=3, at=1.0, node="a", attempt=1, verdicts=(Verdict("c", "fail", 0.0, reason=TEXT),), accepted=False
        ),
        NodeFinished(seq=4, at=1.0, node="a", outcome=AbstainedOutcome(reason=TEXT)),
    ]
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", events)
        assert await journal.read("r1") == events
    assert sql(file, "SELECT count(*) FROM blobs", "SELECT DISTINCT big FROM events") == [(0,), ("",)]


async def test_value_changed_after_append_is_stored_unchanged(file: Path) -> None:
    value: dict[str, object] = {"text": TEXT}
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1"), NodeFinished(seq=2, at=1.0, node="a", outcome=ValueOutcome(value=value))])
        value["text"] = object()
        assert (await journal.read("r1"))[1] == NodeFinished(
            seq=2, at=1.0, node="a", outcome=ValueOutcome(value={"text": TEXT})
        )


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM blobs",
        "UPDATE blobs SET data = replace(data, 'Text', 'Test')",
        "UPDATE events SET big = '' WHERE seq = 2",
        "UPDATE events SET big = (SELECT max(digest) FROM blobs) WHERE seq = 3",
    ],
)
async def test_altered_large_value_is_refused(file: Path, damage: str) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [*story(TEXT)[:2], *middle(3, 1)])
    sql(file, damage)
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError) as caught:
            await journal.read("r1")
    assert caught.value.code == "J013"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from(range(4)))
@settings(max_examples=200)
def test_split_value_and_with_value_are_inverse(value: Any, which: int) -> None:
    event = story(value)[which]
    parts = split_value(event, encode(event))
    if parts is None:
        assert value is None
    else:
        shell = msgspec.json.decode(parts[0], type=type(event))
        assert with_value(shell, msgspec.json.decode(parts[1])) == event
        assert len(parts[0]) < LARGE_EVENT_BYTES
