"""The laws of a journal: what whoever keeps runs in a store of his own lets his tests prove.

    from orchestra.testing.conformance import LAWS, Law

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
    def test_my_journal(law: Law, tmp_path: Path) -> None:
        asyncio.run(law.check(lambda: MyJournal.open(tmp_path / "journal")))

Each law wants a fresh store, and opens it as often as it likes: each opening stands for a process. A law that does not hold
raises `AssertionError` with what was seen and what should have been.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

from msgspec import structs

from orchestra.doors import Journal, Letter
from orchestra.events import Answered, Asked, AttemptFinished, Event, NodeFinished, Resumed, RunFinished, encode
from orchestra.testing.conformance_stories import (
    SPENT,
    begun,
    code_of,
    ended,
    every_kind,
    middle,
    refused,
    same,
    sent,
    status_of,
    true,
    write,
)
from orchestra.values.json import digest
from orchestra.values.outcome import Value

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Journal]]
"""Opens the store: the same one each time."""

PATIENCE = 60.0
"""Seconds that a law may take; one that waits for ever does not hold."""


@dataclass(frozen=True)
class Law:
    """One sentence about journals, and its proof."""

    name: str
    prove: Callable[[Open], Coroutine[Any, Any, None]]

    async def check(self, open_journal: Open) -> None:
        """Raises `AssertionError` where the law does not hold for the store that `open_journal` opens."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.prove(open_journal)
        except TimeoutError as error:
            raise AssertionError(f"{self.name}: nothing came within {PATIENCE:g} seconds") from error


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


async def a_released_run_waits(store: Open) -> None:
    async with store() as one, store() as two:
        one.append("r1", [begun("r1"), *middle(2, 20)])
        await one.release("r1")
        same("on disk", len(await two.read("r1")), 21)
        same("status", [await status_of(one, "r1"), await status_of(two, "r1")], ["waiting", "waiting"])
        await one.release("r1")
    async with store() as three:
        same("status after its writer is gone", await status_of(three, "r1"), "waiting")
        same("epoch", await three.lease("r1"), 2)
        same("status", await status_of(three, "r1"), "running")


async def one_of_many_gets_a_lease(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1")])
    async with AsyncExitStack() as stack:
        journals = [await stack.enter_async_context(store()) for _ in range(5)]
        codes = await asyncio.gather(*(code_of(journal.lease("r1")) for journal in journals))
        same("codes", sorted(codes), ["", *["J022"] * 4])
        await write(journals[codes.index("")], "r1", middle(2))


# The inbox


async def letters_are_numbered_and_read_after_a_number(store: Open) -> None:
    letters = [
        Letter(kind="answer", by="ann", node="q[0]", value={"x": ["ß", 1.5, None]}, shown="1" * 32, at=12.5),
        Letter(kind="answer", node="q", value="x" * 40_000),
        Letter(kind="cancel"),
    ]
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        await write(one, "r2", [begun("r2")])
        same("numbers", [await (one, two)[index % 2].post("r1", letter) for index, letter in enumerate(letters)], [1, 2, 3])
        same("of another run", await two.post("r2", letters[2]), 1)
        wanted = [structs.replace(letter, number=number) for number, letter in enumerate(letters, 1)]
        for journal in (one, two):
            for after in range(4):
                same(f"after {after}", await journal.letters("r1", after), wanted[after:])


async def letters_posted_at_once_get_numbers_of_their_own(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        numbers = await asyncio.gather(*((one, two)[index % 2].post("r1", Letter(kind="cancel", by=str(index))) for index in range(20)))
        same("numbers", sorted(numbers), list(range(1, 21)))
        same("in the inbox", [letter.number for letter in await one.letters("r1")], list(range(1, 21)))
        same("by whom", {int(letter.by): letter.number for letter in await one.letters("r1")}, dict(enumerate(numbers)))


async def letters_go_to_runs_that_go_on(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1"), ended(2)])
        await refused("nobody", two.post("nobody", Letter(kind="cancel")), "J023")
        await refused("ended", two.post("r1", Letter(kind="cancel")), "J006")
        await write(one, "r2", [begun("r2")])
        await one.release("r2")
        same("waiting", await two.post("r2", Letter(kind="cancel")), 1)


async def mail_of_another_comes_within_a_second(store: Open) -> None:
    async with store() as one, store() as two:
        for run in ("r1", "r2", "r3"):
            await write(one, run, [begun(run)])
        # The machine may be busy: of three letters, one is enough.
        spent = []
        for run in ("r1", "r2", "r3"):
            waiting = asyncio.ensure_future(one.mail())
            await two.post(run, Letter(kind="cancel"))
            begin = time.monotonic()
            same("mail", await waiting, {run})
            spent.append(time.monotonic() - begin)
        true(f"one of {spent} is within a second", min(spent) <= 1.0)


async def mail_names_all_that_came_before(store: Open) -> None:
    async with store() as one, store() as two:
        for run in ("r1", "r2", "r3"):
            await write(one, run, [begun(run)])
        await two.post("r1", Letter(kind="cancel"))
        await two.post("r2", Letter(kind="cancel"))
        await one.post("r2", Letter(kind="cancel"))
        found = set[str]()
        while found != {"r1", "r2"}:
            more = await one.mail()
            true(f"mail is for r1 and r2 only, not {more}", more <= {"r1", "r2"})
            found |= more
        waiting = asyncio.ensure_future(one.mail())
        await two.post("r3", Letter(kind="cancel"))
        same("mail", await waiting, {"r3"})


# Memo and outbox


async def the_first_answer_stays(store: Open) -> None:
    value = {"answer": ["ß", 1.5, None], "long": "x" * 40_000}
    async with store() as one, store() as two:
        same("unknown", await one.recall("m1"), None)
        one.remember("m1", "r1", value)
        one.remember("m1", "r2", "another")
        one.remember("m2", "r1", None)
        same("before the commit", await one.recall("m1"), ("r1", value))
        await write(one, "r1", [begun("r1")])
        same("for another", await two.recall("m1"), ("r1", value))
        same("an answer that is null", await two.recall("m2"), ("r1", None))
        two.remember("m1", "r3", "late")
        await write(two, "r3", [begun("r3")])
        same("still", [await one.recall("m1"), await two.recall("m1")], [("r1", value)] * 2)


async def messages_come_in_order_with_their_events(store: Open) -> None:
    quiet = AttemptFinished(seq=2, at=1.0, node="quiet", attempt=1, name="mail", value="no", settled=True)
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1"), quiet, sent(3, "a", {"to": "ann"}), sent(4, "b[1]")])
        await write(two, "r2", [begun("r2"), sent(2, "a", "x" * 40_000)])
        found = await two.outbox()
        same("keys", [message.key for message in found], ["r1/a", "r1/b[1]", "r2/a"])
        same("whence", [(message.run, message.node, message.name) for message in found[:2]], [("r1", "a", "mail"), ("r1", "b[1]", "mail")])
        same("values", [message.value for message in found], [{"to": "ann"}, "hello", "x" * 40_000])
        numbers = [message.number for message in found]
        true(f"numbers grow: {numbers}", numbers == sorted(set(numbers)) and numbers[0] > 0)
        same("for its writer", await one.outbox(), found)
        same("after the first", await one.outbox(after=numbers[0]), found[1:])
        same("one at a time", await one.outbox(limit=1), found[:1])
        same("after the last", await one.outbox(after=numbers[-1]), [])


async def a_message_goes_out_once_for_its_key(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1"), sent(2, "a", "first"), sent(3, "a", "second")])
        await write(one, "r1", [sent(4, "a", "third")])
        found = await one.outbox()
        same("messages", [(message.key, message.value) for message in found], [("r1/a", "first")])
        await one.delivered([found[0].number])
        await write(one, "r1", [sent(5, "a", "fourth")])
        same("after its delivery", await one.outbox(), [])


async def delivered_messages_leave_the_outbox(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1"), sent(2, "a"), sent(3, "b"), sent(4, "c")])
        found = await two.outbox()
        await two.delivered([found[0].number, found[2].number])
        await two.delivered([found[0].number])
        await two.delivered([])
        same("left", [await one.outbox(), await two.outbox()], [found[1:2]] * 2)
        await write(one, "r1", [sent(5, "d")])
        true("later messages have greater numbers", (await two.outbox())[-1].number > found[2].number)
    async with store() as three:
        same("after a restart", [message.node for message in await three.outbox()], ["b", "d"])


# Delete, find, list


async def a_deleted_run_is_gone(store: Open) -> None:
    large = "y" * 40_000
    async with store() as one, store() as two:
        mine, ours = one.put(b"mine"), one.put(b"ours")
        attempt = AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value=large, sent=mine, received=ours, settled=True)
        await write(one, "r1", [begun("r1", graph=ours), attempt])
        await write(one, "r2", [begun("r2", graph=ours), AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value=large, settled=True)])
        await one.post("r1", Letter(kind="cancel"))
        await write(one, "r1", [ended(3)])
        await two.delete("r1")
        for journal in (one, two):
            same("events, letters", [await journal.read("r1"), await journal.letters("r1")], [[], []])
            same("found, listed", [await journal.find("r"), [summary.run for summary in await journal.runs()]], [["r2"], ["r2"]])
            same("blobs", [await journal.blob(mine), await journal.blob(ours)], [None, b"ours"])
            same("what another run shares", (await journal.read("r2"))[1:], [structs.replace(attempt, sent="", received="")])
        await refused("again", two.delete("r1"), "J023")


async def a_run_under_way_is_not_deleted(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        await refused("by another", two.delete("r1"), "J022")
        await refused("by its holder", one.delete("r1"), "J022")
        await one.release("r1")
        await two.delete("r1")
        await write(one, "r2", [begun("r2")])
        await one.close()
        await two.delete("r2")
        same("left", await two.runs(), [])


async def messages_are_delivered_before_their_run_is_deleted(store: Open) -> None:
    async with store() as one:
        await write(one, "r1", [begun("r1"), sent(2, "a"), ended(3)])
        await refused("not delivered", one.delete("r1"), "J024")
        same("kept", len(await one.read("r1")), 3)
        await one.delivered([message.number for message in await one.outbox()])
        await one.delete("r1")
        same("left", await one.find(""), [])


async def runs_are_found_by_their_beginning(store: Open) -> None:
    async with store() as one:
        for run in ("01ab", "01ac", "02", "%1", "_1", "ß1", "\U0001f9801"):
            await write(one, run, [begun(run)])
        wanted = {"01": ["01ab", "01ac"], "01ab": ["01ab"], "%": ["%1"], "_": ["_1"], "ß": ["ß1"], "\U0001f980": ["\U0001f9801"], "3": []}
        for prefix, found in wanted.items():
            same(f"from {prefix!r}", await one.find(prefix), found)
        same("all", await one.find(""), ["%1", "01ab", "01ac", "02", "_1", "ß1", "\U0001f9801"])
        for number in range(120):
            one.append(f"x{number:03d}", [begun(f"x{number:03d}")])
        same("a hundred at most", await one.find("x"), [f"x{number:03d}" for number in range(100)])


async def runs_are_listed_newest_first(store: Open) -> None:
    settled = AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value="x", usage=SPENT, settled=True)
    async with store() as one, store() as two:
        await write(one, "a", [begun("a", at=10.0), settled, *middle(3), ended(4, at=13.0)])
        await write(one, "c", [begun("c", at=20.0)])
        await write(one, "b", [begun("b", at=20.0), settled, structs.replace(settled, seq=3)])
        for journal in (one, two):
            found = await journal.runs()
            same("order", [summary.run for summary in found], ["c", "b", "a"])
            same("status", [summary.status for summary in found], ["running", "running", "done"])
            same("nodes", [summary.nodes for summary in found], [0, 2, 2])
            same("started", [summary.started for summary in found], [20.0, 20.0, 10.0])
            same("finished", [summary.finished for summary in found], [None, None, 13.0])
            same("usage", [summary.usage for summary in found[1:]], [SPENT + SPENT, SPENT])
            same("workflow", found[2].workflow, "staged")
            same("the latest", [summary.run for summary in await journal.runs(1)], ["c"])


LAWS = tuple(
    Law(proof.__name__, proof)
    for proof in (
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
        a_released_run_waits,
        one_of_many_gets_a_lease,
        letters_are_numbered_and_read_after_a_number,
        letters_posted_at_once_get_numbers_of_their_own,
        letters_go_to_runs_that_go_on,
        mail_of_another_comes_within_a_second,
        mail_names_all_that_came_before,
        the_first_answer_stays,
        messages_come_in_order_with_their_events,
        a_message_goes_out_once_for_its_key,
        delivered_messages_leave_the_outbox,
        a_deleted_run_is_gone,
        a_run_under_way_is_not_deleted,
        messages_are_delivered_before_their_run_is_deleted,
        runs_are_found_by_their_beginning,
        runs_are_listed_newest_first,
    )
)
"""All laws, to be proven one by one."""
