"""Conformance tests of events, blobs and leases."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from orchestra.core.events import (
    AttemptFinished,
    Event,
    NodeFinished,
    QuestionAnswered,
    QuestionAsked,
    RunFinished,
    RunResumed,
    encode,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import Journal
from orchestra.schema.strict_json import digest
from orchestra.testing.conformance.scenarios import (
    OpenJournal,
    all_event_kinds,
    append_durably,
    assert_equal,
    assert_refused,
    error_code,
    node_events,
    run_finished,
    run_started,
    status_of,
)

# Append, durable, read


async def events_come_back_equal_and_in_order(store: OpenJournal) -> None:
    events = all_event_kinds("r1")
    async with store() as journal:
        for event in events:
            journal.append("r1", [event])
        await journal.wait_durable("r1", len(events))
        assert_equal("read by its writer", await journal.read("r1"), events)
    async with store() as second_journal:
        read_events = await second_journal.read("r1")
        assert_equal("read by another", read_events, events)
        assert_equal("their bytes", [encode(event) for event in read_events], [encode(event) for event in events])


async def durable_events_outlive_their_writer(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1"), *node_events(2, 3)])
        assert_equal("seen by another at once", len(await second_journal.read("r1")), 4)
    async with store() as third_journal:
        assert_equal(
            "seen after both are closed", [event.seq for event in await third_journal.read("r1")], [1, 2, 3, 4]
        )


async def closing_commits_the_queue(store: OpenJournal) -> None:
    async with store() as journal:
        name = journal.put_blob(b"blob")
        journal.append("r1", [run_started("r1", graph=name), *node_events(2, 50)])
    async with store() as second_journal:
        assert_equal("events", len(await second_journal.read("r1")), 51)
        assert_equal("blob", await second_journal.get_blob(name), b"blob")


async def reading_goes_on_after_a_number(store: OpenJournal) -> None:
    async with store() as journal:
        await append_durably(journal, "r1", [run_started("r1"), *node_events(2, 4)])
        for after in range(7):
            assert_equal(
                f"after {after}", [event.seq for event in await journal.read("r1", after)], list(range(after + 1, 6))
            )


async def queued_events_can_be_read(store: OpenJournal) -> None:
    async with store() as journal:
        journal.append("r1", [run_started("r1"), *node_events(2)])
        assert_equal("events", len(await journal.read("r1")), 2)
        assert_equal("found", await journal.find_runs("r"), ["r1"])
        assert_equal("listed", await status_of(journal, "r1"), "running")


async def an_unknown_run_has_no_events(store: OpenJournal) -> None:
    async with store() as journal:
        assert_equal("read", await journal.read("nobody"), [])
        assert_equal("inbox", await journal.inbox("nobody"), [])
        assert_equal("runs", await journal.list_runs(), [])


async def a_gap_is_refused_and_nothing_kept(store: OpenJournal) -> None:
    async with store() as journal:
        await append_durably(journal, "r1", [run_started("r1"), *node_events(2)])
        for first in (1, 2, 4):
            await assert_refused(f"event {first} after 2", append_durably(journal, "r1", node_events(first)), "J001")
        await assert_refused(
            "a gap in the middle", append_durably(journal, "r1", [*node_events(3), *node_events(5)]), "J001"
        )
        await assert_refused("a run that begins at 2", append_durably(journal, "r2", node_events(2)), "J001", "J005")
        await append_durably(journal, "r1", node_events(3))
        assert_equal("kept", await journal.read("r1"), [run_started("r1"), *node_events(2, 2)])
        assert_equal("a run that was never started", await journal.read("r2"), [])


async def nothing_follows_the_end(store: OpenJournal) -> None:
    async with store() as journal:
        await assert_refused(
            "in one append",
            append_durably(journal, "r0", [run_started("r0"), run_finished(2), *node_events(3)]),
            "J006",
        )
        await append_durably(journal, "r1", [run_started("r1"), run_finished(2)])
        await assert_refused("event 3", append_durably(journal, "r1", node_events(3)), "J006")
        assert_equal("kept", len(await journal.read("r1")), 2)


async def waiting_for_events_not_appended_is_refused(store: OpenJournal) -> None:
    async with store() as journal:
        await append_durably(journal, "r1", [run_started("r1")])
        for run, seq in (("r1", 2), ("nobody", 1)):
            await assert_refused(f"event {seq} of {run}", journal.wait_durable(run, seq), "J003")


async def a_run_that_ended_stays_durable(store: OpenJournal) -> None:
    async with store() as journal:
        await append_durably(journal, "r1", [run_started("r1"), run_finished(2)])
        await journal.wait_durable("r1", 1)
        await journal.wait_durable("r1", 2)


async def a_closed_journal_takes_nothing(store: OpenJournal) -> None:
    async with store() as journal:
        await append_durably(journal, "r1", [run_started("r1")])
        await journal.close()
        await assert_refused("append", append_durably(journal, "r1", node_events(2)), "J002")
        await journal.close()


async def many_runs_are_written_at_once(store: OpenJournal) -> None:
    async def one_run(journal: Journal, run: str) -> None:
        for event in [run_started(run), *node_events(2, 18), run_finished(20)]:
            await append_durably(journal, run, [event])

    async with store() as first_journal, store() as second_journal:
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(one_run((first_journal, second_journal)[number % 2], f"r{number:02d}"))
        for number in range(40):
            assert_equal(
                f"run {number}", [event.seq for event in await first_journal.read(f"r{number:02d}")], list(range(1, 21))
            )


# Blobs and large values


async def blobs_are_kept_by_digest(store: OpenJournal) -> None:
    data = b"\x00bytes\xff" * 10_000
    async with store() as journal:
        assert_equal("digest", [journal.put_blob(data), journal.put_blob(data)], [digest(data)] * 2)
        assert_equal("before the commit", await journal.get_blob(digest(data)), data)
        await append_durably(journal, "r1", [run_started("r1", graph=digest(data))])
        assert_equal("unknown", await journal.get_blob("0" * 32), None)
        async with store() as second_journal:
            assert_equal("for another", await second_journal.get_blob(digest(data)), data)


async def large_values_come_back_exactly(store: OpenJournal) -> None:
    text = 'ä\\"\n\0' * 8000
    values: list[Any] = [
        *("x" * size for size in (16_000, 16_383, 16_384, 16_385, 1 << 20)),
        *(text, [text, {"a": text, "b": [1.0, -0.0, 1e300, 2**53 + 1, None, True]}], {text: None}, ["x" * 40_000] * 2),
        *(
            {"blob": digest(b"x"), "value": "y" * 20_000},
            {"$ref": "z" * 20_000},
            [digest(b"x")] * 1000,
            list(range(20_000)),
        ),
    ]
    events: list[Event] = [run_started("r1", inputs={"text": text})]
    for value in values:
        seq = len(events) + 1
        events.append(AttemptFinished(seq=seq, at=1.0, node=f"n{seq}", attempt=1, value=value, reason="r" * 20_000))
        events.append(NodeFinished(seq=seq + 1, at=1.0, node=f"n{seq}", outcome=ValueOutcome(value=value, score=0.5)))
        events.append(QuestionAnswered(seq=seq + 2, at=1.0, node=f"n{seq}", value=value))
    events.append(
        QuestionAsked(
            seq=len(events) + 1, at=1.0, node="q", question=text, schema={"x": text}, question_digest="0" * 32
        )
    )
    events.append(RunFinished(seq=len(events) + 1, at=1.0, status="done", outcome=ValueOutcome(value=values)))
    async with store() as journal:
        await append_durably(journal, "r1", events)
    async with store() as second_journal:
        assert_equal(
            "bytes", [encode(event) for event in await second_journal.read("r1")], [encode(event) for event in events]
        )
        assert_equal(
            "bytes of the last",
            [encode(event) for event in await second_journal.read("r1", len(events) - 1)],
            [encode(events[-1])],
        )


# Leases


async def a_lease_is_not_taken_from_a_live_holder(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1")])
        await assert_refused("by another", second_journal.lease("r1"), "J022")
        await assert_refused("by its holder", journal.lease("r1"), "J022")
        await append_durably(journal, "r1", node_events(2))
        assert_equal("written on", len(await second_journal.read("r1")), 2)


async def only_a_run_that_goes_on_has_a_lease(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1"), run_finished(2)])
        await assert_refused("nobody", second_journal.lease("nobody"), "J023")
        await assert_refused("ended", second_journal.lease("r1"), "J006")
        await assert_refused("ended, for its writer", journal.lease("r1"), "J006")
        await assert_refused("release of an unknown run", second_journal.release("unknown"), "J023")


async def the_lease_of_a_dead_holder_can_be_taken(store: OpenJournal) -> None:
    async with store() as journal:
        await append_durably(journal, "r1", [run_started("r1")])
    async with store() as second_journal:
        assert_equal("status", await status_of(second_journal, "r1"), "interrupted")
        assert_equal("epoch", await second_journal.lease("r1"), 2)
        assert_equal("status", await status_of(second_journal, "r1"), "running")
        await append_durably(second_journal, "r1", [RunResumed(seq=2, at=2.0, epoch=2), *node_events(3)])
    async with store() as third_journal:
        assert_equal("epoch", await third_journal.lease("r1"), 3)
        await append_durably(third_journal, "r1", [run_finished(4)])
        assert_equal("events", [event.seq for event in await third_journal.read("r1")], [1, 2, 3, 4])


async def a_lost_lease_stops_writing(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1")])
        await append_durably(journal, "r2", [run_started("r2")])
        await journal.release("r1")
        await assert_refused("after the release", append_durably(journal, "r1", node_events(2)), "J005")
        await second_journal.lease("r1")
        await assert_refused("after another opener took it", append_durably(journal, "r1", node_events(2)), "J005")
        await append_durably(second_journal, "r1", node_events(2))
        await assert_refused("what follows the other's events", append_durably(journal, "r1", node_events(3)), "J005")
        await append_durably(journal, "r2", node_events(2))
        assert_equal("the run", await second_journal.read("r1"), [run_started("r1"), *node_events(2)])
        assert_equal("the other run", len(await second_journal.read("r2")), 2)


async def a_run_is_begun_once(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1")])
        await assert_refused(
            "the same id elsewhere", append_durably(second_journal, "r1", [run_started("r1", at=2.0)]), "J005"
        )
        await assert_refused("and on", append_durably(second_journal, "r1", node_events(2)), "J005")
        await append_durably(journal, "r1", node_events(2))
        assert_equal("the run", await second_journal.read("r1"), [run_started("r1"), *node_events(2)])


async def a_lease_taken_back_allows_writing(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1")])
        await journal.release("r1")
        assert_equal("epoch", await second_journal.lease("r1"), 2)
        await append_durably(second_journal, "r1", node_events(2))
        await second_journal.release("r1")
        assert_equal("epoch", await journal.lease("r1"), 3)
        await append_durably(journal, "r1", node_events(3))
        assert_equal("events", len(await second_journal.read("r1")), 3)


async def a_released_run_with_an_open_question_waits(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        journal.append("r1", [run_started("r1"), *node_events(2, 20)])
        await journal.release("r1")
        assert_equal("on disk", len(await second_journal.read("r1")), 21)
        assert_equal(
            "status",
            [await status_of(journal, "r1"), await status_of(second_journal, "r1")],
            ["interrupted", "interrupted"],
        )
        await journal.lease("r1")
        await append_durably(
            journal,
            "r1",
            [
                QuestionAsked(
                    seq=22, at=3.0, node="q", question="Well?", schema={"type": "string"}, question_digest="4" * 32
                )
            ],
        )
        await journal.release("r1")
        assert_equal(
            "status", [await status_of(journal, "r1"), await status_of(second_journal, "r1")], ["waiting", "waiting"]
        )
        await journal.release("r1")
    async with store() as third_journal:
        assert_equal("status after its writer has ended", await status_of(third_journal, "r1"), "waiting")
        assert_equal("epoch", await third_journal.lease("r1"), 3)
        assert_equal("status", await status_of(third_journal, "r1"), "running")


async def one_of_many_gets_a_lease(store: OpenJournal) -> None:
    async with store() as first_journal:
        await append_durably(first_journal, "r1", [run_started("r1")])
    async with AsyncExitStack() as stack:
        journals = [await stack.enter_async_context(store()) for _ in range(5)]
        codes = await asyncio.gather(*(error_code(journal.lease("r1")) for journal in journals))
        assert_equal("codes", sorted(codes), ["", *["J022"] * 4])
        await append_durably(journals[codes.index("")], "r1", node_events(2))


LOG_TESTS = (
    events_come_back_equal_and_in_order,
    durable_events_outlive_their_writer,
    closing_commits_the_queue,
    reading_goes_on_after_a_number,
    queued_events_can_be_read,
    an_unknown_run_has_no_events,
    a_gap_is_refused_and_nothing_kept,
    nothing_follows_the_end,
    waiting_for_events_not_appended_is_refused,
    a_run_that_ended_stays_durable,
    a_closed_journal_takes_nothing,
    many_runs_are_written_at_once,
    blobs_are_kept_by_digest,
    large_values_come_back_exactly,
    a_lease_is_not_taken_from_a_live_holder,
    only_a_run_that_goes_on_has_a_lease,
    the_lease_of_a_dead_holder_can_be_taken,
    a_lost_lease_stops_writing,
    a_run_is_begun_once,
    a_lease_taken_back_allows_writing,
    a_released_run_with_an_open_question_waits,
    one_of_many_gets_a_lease,
)
