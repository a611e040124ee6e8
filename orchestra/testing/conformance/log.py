"""Laws of what was appended: events, blobs, leases."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from orchestra.core.events import Answered, Asked, AttemptFinished, Event, NodeFinished, Resumed, RunFinished, encode
from orchestra.core.outcomes import Value
from orchestra.core.protocols import Journal
from orchestra.schema.strict_json import digest
from orchestra.testing.conformance.stories import Open, begun, code_of, ended, every_kind, middle, refused, same, status_of, write

# Append, durable, read


async def events_come_back_equal_and_in_order(store: Open) -> None:
    events = every_kind("r1")
    async with store() as one:
        for event in events:
            one.append("r1", [event])
        await one.durable("r1", len(events))
        same("read by its writer", await one.read("r1"), events)
    async with store() as two:
        found = await two.read("r1")
        same("read by another", found, events)
        same("their bytes", [encode(event) for event in found], [encode(event) for event in events])


async def what_is_durable_outlives_its_writer(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1"), *middle(2, 3)])
        same("seen by another at once", len(await two.read("r1")), 4)
    async with store() as three:
        same("seen after both are closed", [event.seq for event in await three.read("r1")], [1, 2, 3, 4])


async def closing_commits_what_is_in_line(store: Open) -> None:
    async with store() as one:
        name = one.put(b"blob")
        one.append("r1", [begun("r1", graph=name), *middle(2, 50)])
    async with store() as two:
        same("events", len(await two.read("r1")), 51)
        same("blob", await two.blob(name), b"blob")


async def reading_goes_on_after_a_number(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1"), *middle(2, 4)])
        for after in range(7):
            same(f"after {after}", [event.seq for event in await one.read("r1", after)], list(range(after + 1, 6)))


async def what_is_in_line_can_be_read(store: Open) -> None:
    async with store() as one:
        one.append("r1", [begun("r1"), *middle(2)])
        same("events", len(await one.read("r1")), 2)
        same("found", await one.find("r"), ["r1"])
        same("listed", await status_of(one, "r1"), "running")


async def nobody_has_no_events(store: Open) -> None:
    async with store() as one:
        same("read", await one.read("nobody"), [])
        same("letters", await one.letters("nobody"), [])
        same("runs", await one.runs(), [])


async def a_gap_is_refused_and_nothing_kept(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1"), *middle(2)])
        for first in (1, 2, 4):
            await refused(f"event {first} after 2", write(one, "r1", middle(first)), "J001")
        await refused("a gap in the middle", write(one, "r1", [*middle(3), *middle(5)]), "J001")
        await refused("a run that begins at 2", write(one, "r2", middle(2)), "J001", "J005")
        await write(one, "r1", middle(3))
        same("kept", await one.read("r1"), [begun("r1"), *middle(2, 2)])
        same("a run that was never begun", await one.read("r2"), [])


async def nothing_follows_the_end(store: Open) -> None:
    async with store() as one:
        await refused("in one append", write(one, "r0", [begun("r0"), ended(2), *middle(3)]), "J006")
        await write(one, "r1", [begun("r1"), ended(2)])
        await refused("event 3", write(one, "r1", middle(3)), "J006")
        same("kept", len(await one.read("r1")), 2)


async def waiting_for_what_nobody_appended_is_refused(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1")])
        for run, seq in (("r1", 2), ("nobody", 1)):
            await refused(f"event {seq} of {run}", one.durable(run, seq), "J003")


async def a_run_that_ended_stays_durable(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1"), ended(2)])
        await one.durable("r1", 1)
        await one.durable("r1", 2)


async def a_closed_journal_takes_nothing(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1")])
        await one.close()
        await refused("append", write(one, "r1", middle(2)), "J002")
        await one.close()


async def many_runs_are_written_at_once(store: Open) -> None:
    async def one_run(journal: Journal, run: str) -> None:
        for event in [begun(run), *middle(2, 18), ended(20)]:
            await write(journal, run, [event])

    async with store() as one, store() as two:
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(one_run((one, two)[number % 2], f"r{number:02d}"))
        for number in range(40):
            same(f"run {number}", [event.seq for event in await one.read(f"r{number:02d}")], list(range(1, 21)))


# Blobs and large values


async def blobs_are_kept_by_digest(store: Open) -> None:
    data = b"\x00bytes\xff" * 10_000
    async with store() as one:
        same("digest", [one.put(data), one.put(data)], [digest(data)] * 2)
        same("before the commit", await one.blob(digest(data)), data)
        await write(one, "r1", [begun("r1", graph=digest(data))])
        same("unknown", await one.blob("0" * 32), None)
        async with store() as two:
            same("for another", await two.blob(digest(data)), data)


async def large_values_come_back_exactly(store: Open) -> None:
    text = 'ä\\"\n\0' * 8000
    values: list[Any] = [
        *("x" * size for size in (16_000, 16_383, 16_384, 16_385, 1 << 20)),
        *(text, [text, {"a": text, "b": [1.0, -0.0, 1e300, 2**53 + 1, None, True]}], {text: None}, ["x" * 40_000] * 2),
        *({"blob": digest(b"x"), "value": "y" * 20_000}, {"$ref": "z" * 20_000}, [digest(b"x")] * 1000, list(range(20_000))),
    ]
    events: list[Event] = [begun("r1", inputs={"text": text})]
    for value in values:
        seq = len(events) + 1
        events.append(AttemptFinished(seq=seq, at=1.0, node=f"n{seq}", attempt=1, value=value, reason="r" * 20_000))
        events.append(NodeFinished(seq=seq + 1, at=1.0, node=f"n{seq}", outcome=Value(value=value, score=0.5)))
        events.append(Answered(seq=seq + 2, at=1.0, node=f"n{seq}", value=value))
    events.append(Asked(seq=len(events) + 1, at=1.0, node="q", question=text, schema={"x": text}, shown="0" * 32))
    events.append(RunFinished(seq=len(events) + 1, at=1.0, status="done", outcome=Value(value=values)))
    async with store() as one:
        await write(one, "r1", events)
    async with store() as two:
        same("bytes", [encode(event) for event in await two.read("r1")], [encode(event) for event in events])
        same("bytes of the last", [encode(event) for event in await two.read("r1", len(events) - 1)], [encode(events[-1])])


# Leases


async def a_lease_is_not_taken_from_the_living(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        await refused("by another", two.lease("r1"), "J022")
        await refused("by its holder", one.lease("r1"), "J022")
        await write(one, "r1", middle(2))
        same("written on", len(await two.read("r1")), 2)


async def only_a_run_that_goes_on_has_a_lease(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1"), ended(2)])
        await refused("nobody", two.lease("nobody"), "J023")
        await refused("ended", two.lease("r1"), "J006")
        await refused("ended, for its writer", one.lease("r1"), "J006")
        await refused("release of nobody", two.release("nobody"), "J023")


async def the_lease_of_the_dead_can_be_taken(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1")])
    async with store() as two:
        same("status", await status_of(two, "r1"), "interrupted")
        same("epoch", await two.lease("r1"), 2)
        same("status", await status_of(two, "r1"), "running")
        await write(two, "r1", [Resumed(seq=2, at=2.0, epoch=2), *middle(3)])
    async with store() as three:
        same("epoch", await three.lease("r1"), 3)
        await write(three, "r1", [ended(4)])
        same("events", [event.seq for event in await three.read("r1")], [1, 2, 3, 4])


async def who_lost_the_lease_writes_no_more(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        await write(one, "r2", [begun("r2")])
        await one.release("r1")
        await refused("after the release", write(one, "r1", middle(2)), "J005")
        await two.lease("r1")
        await refused("after another took it", write(one, "r1", middle(2)), "J005")
        await write(two, "r1", middle(2))
        await refused("what follows the other's events", write(one, "r1", middle(3)), "J005")
        await write(one, "r2", middle(2))
        same("the run", await two.read("r1"), [begun("r1"), *middle(2)])
        same("the other run", len(await two.read("r2")), 2)


async def a_run_is_begun_once(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        await refused("the same id elsewhere", write(two, "r1", [begun("r1", at=2.0)]), "J005")
        await refused("and on", write(two, "r1", middle(2)), "J005")
        await write(one, "r1", middle(2))
        same("the run", await two.read("r1"), [begun("r1"), *middle(2)])


async def who_takes_a_lease_back_goes_on(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        await one.release("r1")
        same("epoch", await two.lease("r1"), 2)
        await write(two, "r1", middle(2))
        await two.release("r1")
        same("epoch", await one.lease("r1"), 3)
        await write(one, "r1", middle(3))
        same("events", len(await two.read("r1")), 3)


async def a_released_run_waits_where_somebody_is_asked(store: Open) -> None:
    async with store() as one, store() as two:
        one.append("r1", [begun("r1"), *middle(2, 20)])
        await one.release("r1")
        same("on disk", len(await two.read("r1")), 21)
        same("status", [await status_of(one, "r1"), await status_of(two, "r1")], ["interrupted", "interrupted"])
        await one.lease("r1")
        await write(one, "r1", [Asked(seq=22, at=3.0, node="q", question="Well?", schema={"type": "string"}, shown="4" * 32)])
        await one.release("r1")
        same("status", [await status_of(one, "r1"), await status_of(two, "r1")], ["waiting", "waiting"])
        await one.release("r1")
    async with store() as three:
        same("status after its writer is gone", await status_of(three, "r1"), "waiting")
        same("epoch", await three.lease("r1"), 3)
        same("status", await status_of(three, "r1"), "running")


async def one_of_many_gets_a_lease(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1")])
    async with AsyncExitStack() as stack:
        journals = [await stack.enter_async_context(store()) for _ in range(5)]
        codes = await asyncio.gather(*(code_of(journal.lease("r1")) for journal in journals))
        same("codes", sorted(codes), ["", *["J022"] * 4])
        await write(journals[codes.index("")], "r1", middle(2))


PROOFS = (
    events_come_back_equal_and_in_order,
    what_is_durable_outlives_its_writer,
    closing_commits_what_is_in_line,
    reading_goes_on_after_a_number,
    what_is_in_line_can_be_read,
    nobody_has_no_events,
    a_gap_is_refused_and_nothing_kept,
    nothing_follows_the_end,
    waiting_for_what_nobody_appended_is_refused,
    a_run_that_ended_stays_durable,
    a_closed_journal_takes_nothing,
    many_runs_are_written_at_once,
    blobs_are_kept_by_digest,
    large_values_come_back_exactly,
    a_lease_is_not_taken_from_the_living,
    only_a_run_that_goes_on_has_a_lease,
    the_lease_of_the_dead_can_be_taken,
    who_lost_the_lease_writes_no_more,
    a_run_is_begun_once,
    who_takes_a_lease_back_goes_on,
    a_released_run_waits_where_somebody_is_asked,
    one_of_many_gets_a_lease,
)
