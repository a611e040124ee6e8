"""Cassettes: recording and replay, errors of unknown calls, and hostile files."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.events import Usage
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult, EvidenceSource, TextCallback
from orchestra.testing import CassetteError, Player, Recorder, SimulatedWorkers, VirtualClock, run_simulated
from orchestra.testing.cassette_file import (
    FORMAT,
    MAX_CALLS,
    CassetteEntry,
    encode_cassette,
    parse_cassette,
    read_cassette,
)

HEAD = msgspec.json.encode({"cassette": FORMAT}) + b"\n"


def call(name: str = "reader", **changed: Any) -> CallRequest:
    facts: dict[str, Any] = {
        "run": "r1",
        "node": "n1",
        "attempt": 1,
        "kind": "agent",
        "name": name,
        "inputs": {"question": "When?"},
    }
    return CallRequest(**{**facts, **changed})


Reply: TypeAlias = str | CallResult | CallError
"""A piece of text, or the reply of a call."""


async def replies(workers: Any, asked: CallRequest) -> list[Reply]:
    """Returns the pieces of text of a call, then its reply."""
    pieces = list[Reply]()
    reply = await workers.call(asked, pieces.append)
    return [*pieces, reply]


class Answering:
    """Workers that give each call the same reply and the same estimate."""

    def __init__(self, reply: CallResult | CallError, text: Sequence[str] = ()) -> None:
        self.reply, self.text, self.asked = reply, text, 0

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        self.asked += 1
        if on_text is not None:
            for piece in self.text:
                on_text(piece)
        return self.reply

    def estimate(self, call: CallRequest) -> CallEstimate:
        return CallEstimate(prompt_tokens=12, max_output=7, min_output=3, memo_key="m")

    async def count_tokens(self, call: CallRequest) -> int | None:
        return 11


def recorded(path: Path, workers: Any, *calls: CallRequest, **options: Any) -> Recorder:
    async def scenario(clock: VirtualClock) -> Recorder:
        recorder = Recorder(workers, path, clock=clock, **options)
        for one in calls:
            recorder.estimate(one)
            await recorder.count_tokens(one)
            await replies(recorder, one)
        recorder.save()
        return recorder

    return run_simulated(scenario)


def played(player: Player, *calls: CallRequest) -> list[list[Reply]]:
    async def scenario(clock: VirtualClock) -> list[list[Reply]]:
        return [await replies(player, one) for one in calls]

    return run_simulated(scenario)


DONE = CallResult(
    value={"answer": "ü"},
    usage=Usage(prompt_tokens=3, calls=1),
    server="s",
    model="m",
    sent=b"\xff\x00",
    received="ü".encode(),
    confidence=0.5,
)
REFUSED = CallError(code="F203", reason="no", hint="try", retryable=True, server="s", sent=b"{}")


@pytest.mark.parametrize("reply", [DONE, REFUSED, CallResult(value=None)], ids=["done", "refused", "nothing"])
def test_cassette_reply_is_replayed_exactly(reply: CallResult | CallError, tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.jsonl"
    recorded(path, Answering(reply, ["a", "b"]), call())
    assert played(Player(path), call()) == [["ab", reply]]


def test_cassette_estimate_and_count_are_replayed(tmp_path: Path) -> None:
    recorded(tmp_path / "c", Answering(DONE), call())
    player = Player(tmp_path / "c")
    assert player.estimate(call()) == Answering(DONE).estimate(call())
    assert asyncio.run(player.count_tokens(call())) == 11
    assert asyncio.run(player.count_tokens(call(inputs={}))) is None


def test_cassette_ignores_node_and_run(tmp_path: Path) -> None:
    recorded(tmp_path / "c", Answering(DONE), call())
    assert played(Player(tmp_path / "c"), call(node="other[3]", run="r2", timeout=9.0, priority=3)) == [[DONE]]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "writer"},
        {"kind": "tool"},
        {"inputs": {"question": "Who?"}},
        {"evidence": (EvidenceSource("text"),)},
        {"feedback": ("no quote",)},
        {"tier": 1},
        {"tier": 2},
        {"attempt": 2},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_cassette_unknown_call_is_refused_and_collected(changed: dict[str, Any], tmp_path: Path) -> None:
    recorded(tmp_path / "c", Answering(DONE), call())
    player = Player(tmp_path / "c")
    ((reply,),) = played(player, call(**changed))
    assert isinstance(reply, CallError)
    assert (reply.code, reply.retryable) == ("C034", False)
    assert [fault.code for fault in player.errors] == ["C034"]


def test_cassette_error_shows_nearest_call(tmp_path: Path) -> None:
    far = call(inputs={"question": "Quite another thing altogether", "top": 9})
    recorded(tmp_path / "c", Answering(DONE), far, call(inputs={"question": "When was it built?", "top": 1}))
    player = Player(tmp_path / "c")
    played(player, call(inputs={"question": "When was it broken?", "top": 1}))
    assert "inputs.question: recorded 'When was it built?', now 'When was it broken?'" in player.errors[0].why
    assert "top" not in player.errors[0].why


def test_cassette_equal_calls_are_replayed_in_order(tmp_path: Path) -> None:
    numbers = iter(range(9))
    recorded(tmp_path / "c", SimulatedWorkers(lambda _: next(numbers)), call(), call())
    found = played(Player(tmp_path / "c"), call(), call(), call())
    assert [reply.value for (reply,) in found if isinstance(reply, CallResult)] == [0, 1, 1]


def test_cassette_overlapping_equal_calls_keep_replies(tmp_path: Path) -> None:
    def latency(asked: CallRequest, _: Random) -> float:
        return 3.0 if asked.node == "n[0]" else 1.0

    async def both(workers: Any) -> list[list[Reply]]:
        return await asyncio.gather(*(replies(workers, call(node=f"n[{n}]")) for n in range(2)))

    async def record(clock: VirtualClock) -> list[list[Reply]]:
        recorder = Recorder(
            SimulatedWorkers(lambda asked: asked.node, clock=clock, latency=latency), tmp_path / "c", clock=clock
        )
        found = await both(recorder)
        recorder.save()
        return found

    found = run_simulated(record)
    assert [reply.value for (reply,) in found if isinstance(reply, CallResult)] == ["n[0]", "n[1]"]
    assert run_simulated(lambda clock: both(Player(tmp_path / "c", clock=clock))) == found


def test_cassette_samples_are_distinct(tmp_path: Path) -> None:
    workers = SimulatedWorkers(lambda asked: asked.sample)
    samples = [call(sample=number) for number in (3, 1, 2)]
    recorded(tmp_path / "c", workers, *samples)
    found = played(Player(tmp_path / "c"), *reversed(samples))
    assert [reply.value for (reply,) in found if isinstance(reply, CallResult)] == [2, 1, 3]
    ((other,),) = played(Player(tmp_path / "c"), call(sample=4))
    assert isinstance(other, CallError)


def test_cassette_without_samples_is_readable(tmp_path: Path) -> None:
    numbers = iter(range(9))
    recorded(tmp_path / "c", SimulatedWorkers(lambda _: next(numbers)), call(), call())
    player = Player(tmp_path / "c")
    found = played(player, call(sample=1), call(sample=2))
    assert [reply.value for (reply,) in found if isinstance(reply, CallResult)] == [0, 1]
    assert player.estimate(call(sample=1)) == player.estimate(call())


def test_cassette_replay_takes_recorded_time(tmp_path: Path) -> None:
    async def record(clock: VirtualClock) -> None:
        recorder = Recorder(SimulatedWorkers({"reader": 1}, clock=clock, latency=90.0), tmp_path / "c", clock=clock)
        await replies(recorder, call())
        recorder.save()

    async def replay(clock: VirtualClock) -> float:
        await replies(Player(tmp_path / "c", clock=clock), call())
        return clock.monotonic()

    run_simulated(record)
    assert run_simulated(replay) == 90.0


def test_cassette_cancelled_call_is_cancelled_again(tmp_path: Path) -> None:
    async def given_up(workers: Any) -> bool:
        try:
            async with asyncio.timeout(5):
                await replies(workers, call())
        except TimeoutError:
            return True
        return False

    async def record(clock: VirtualClock) -> bool:
        recorder = Recorder(SimulatedWorkers({"reader": 1}, clock=clock, latency=90.0), tmp_path / "c", clock=clock)
        found = await given_up(recorder)
        recorder.save()
        return found

    assert run_simulated(record)
    assert run_simulated(lambda clock: given_up(Player(tmp_path / "c", clock=clock)))


def test_cassette_restricted_data_is_not_recorded(tmp_path: Path) -> None:
    workers = Answering(DONE)
    recorder = recorded(tmp_path / "c", workers, call(label="restricted"))
    assert (workers.asked, read_cassette(tmp_path / "c"), recorder.errors[0].code) == (0, [], "C032")
    recorded(tmp_path / "c", workers, call(label="restricted"), label="restricted")
    assert len(read_cassette(tmp_path / "c")) == 1


def test_cassette_file_is_independent_of_order(tmp_path: Path) -> None:
    calls = [call(name, inputs={"n": n}) for name in ("b", "a") for n in (2, 1)]
    recorded(tmp_path / "one", Answering(DONE), *calls)
    recorded(tmp_path / "other", Answering(DONE), *reversed(calls))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_cassette_long_request_is_omitted_long_value_fails(
    tmp_path: Path,
) -> None:
    recorded(tmp_path / "c", Answering(msgspec.structs.replace(DONE, sent=b"x" * (1 << 20))), call())
    assert read_cassette(tmp_path / "c")[0].sent == ""
    with pytest.raises(CassetteError) as raised:
        recorded(tmp_path / "c", Answering(CallResult(value="x" * (1 << 20))), call())
    assert raised.value.code == "C031"
    assert len(read_cassette(tmp_path / "c")) == 1


def test_cassette_missing_has_hint(tmp_path: Path) -> None:
    with pytest.raises(CassetteError, match="there is no cassette") as raised:
        Player(tmp_path / "none.jsonl")
    assert (raised.value.code, raised.value.hint) == ("C030", "record it: pytest --record")


@pytest.mark.parametrize(
    "line",
    [
        b'{"agent":"a","inputs":{},"value":1,"unknown":1}',
        b'{"agent":"a","tool":"b","inputs":{},"value":1}',
        b'{"inputs":{},"value":1}',
        b'{"agent":"a","inputs":{}}',
        b'{"agent":"a","inputs":{},"value":1,"cancelled":true}',
        b'{"agent":"a","inputs":{},"value":1,"value":2}',
        b'{"agent":"a","inputs":[],"value":1}',
        b'{"agent":"a","inputs":{},"value":1,"attempt":"1"}',
        b'{"agent":"a","inputs":{},"value":1,"seconds":-1}',
        b'{"agent":"a","inputs":{},"value":1,"seconds":NaN}',
        b'{"agent":"a","inputs":{},"value":1,"sent_base64":"?"}',
        b'{"agent":"a","inputs":{},"value":1,"evidence":[{"text":"t","more":1}]}',
        b'{"agent":"a","inputs":{},"value":' + b"[" * 100 + b"]" * 100 + b"}",
        b"",
        b"\xff",
        b"<<<<<<< HEAD",
    ],
    ids=lambda line: line[:60].decode(errors="replace"),
)
def test_cassette_invalid_line_is_refused(line: bytes) -> None:
    with pytest.raises(CassetteError) as raised:
        parse_cassette(HEAD + line + b"\n")
    assert raised.value.code == "C031"


def test_cassette_wrong_format_or_size_is_refused() -> None:
    for data in (b"", b'{"cassette":"orchestra/cassette/v1"}\n', HEAD + b"{}\n" * (MAX_CALLS + 1)):
        with pytest.raises(CassetteError):
            parse_cassette(data)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.builds(
    CassetteEntry,
    agent=st.text(min_size=1, max_size=8),
    inputs=st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    feedback=st.lists(st.text(), max_size=2).map(tuple),
    attempt=st.integers(1, 9),
    value=VALUES,
    seconds=st.floats(0, 100),
    written=st.text(),
    received=st.text(),
)


@given(st.lists(ENTRIES, max_size=4))
def test_cassette_file_round_trips(entries: list[CassetteEntry]) -> None:
    data = encode_cassette(entries)
    assert encode_cassette(parse_cassette(data)) == data
    assert len(parse_cassette(data)) == len(entries)


@given(st.lists(ENTRIES, min_size=1, max_size=2), st.data())
def test_cassette_damaged_file_is_read_or_refused(entries: list[CassetteEntry], data: st.DataObject) -> None:
    whole = bytearray(encode_cassette(entries))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole)))
        cut = data.draw(st.integers(0, 5))
        whole[at : at + cut] = data.draw(
            st.binary(max_size=5) | st.sampled_from([b'"', b"{", b"]", b",", b"\n", b"1e999", b"\\ud800"])
        )
    with contextlib.suppress(CassetteError):
        assert encode_cassette(parse_cassette(bytes(whole)))


@given(st.binary(max_size=200))
def test_cassette_random_bytes_are_refused(noise: bytes) -> None:
    with pytest.raises(CassetteError):
        parse_cassette(noise)
