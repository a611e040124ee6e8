"""Conformance tests of inbox messages, memos, outbox messages, lists and deletion."""

from __future__ import annotations

import asyncio

from msgspec import structs

from orchestra.core.events import AttemptFinished
from orchestra.core.protocols import InboxMessage
from orchestra.testing.conformance.scenarios import (
    USAGE,
    OpenJournal,
    append_durably,
    assert_equal,
    assert_refused,
    assert_true,
    node_events,
    outbox_event,
    run_finished,
    run_started,
)

# Inbox


async def inbox_messages_are_numbered_and_read_after_a_number(store: OpenJournal) -> None:
    messages = [
        InboxMessage(
            kind="answer", by="ann", node="q[0]", value={"x": ["ß", 1.5, None]}, question_digest="1" * 32, at=12.5
        ),
        InboxMessage(kind="answer", node="q", value="x" * 40_000, call_happened=True, question_seq=7),
        InboxMessage(kind="cancel"),
        InboxMessage(kind="answer", node="q", decline_reason="no answer in time"),
    ]
    async with store() as one, store() as two:
        await append_durably(one, "r1", [run_started("r1")])
        await append_durably(one, "r2", [run_started("r2")])
        assert_equal(
            "numbers",
            [await (one, two)[index % 2].send("r1", message) for index, message in enumerate(messages)],
            [1, 2, 3, 4],
        )
        assert_equal("of another run", await two.send("r2", messages[2]), 1)
        wanted = [structs.replace(message, number=number) for number, message in enumerate(messages, 1)]
        for journal in (one, two):
            for after in range(5):
                assert_equal(f"after {after}", await journal.inbox("r1", after), wanted[after:])


async def concurrent_inbox_messages_get_distinct_numbers(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        await append_durably(one, "r1", [run_started("r1")])
        numbers = await asyncio.gather(
            *((one, two)[index % 2].send("r1", InboxMessage(kind="cancel", by=str(index))) for index in range(20))
        )
        assert_equal("numbers", sorted(numbers), list(range(1, 21)))
        assert_equal("in the inbox", [message.number for message in await one.inbox("r1")], list(range(1, 21)))
        assert_equal(
            "by whom", {int(message.by): message.number for message in await one.inbox("r1")}, dict(enumerate(numbers))
        )


async def one_of_several_concurrent_answers_is_taken(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        await append_durably(one, "r1", [run_started("r1")])
        await one.send("r1", InboxMessage(kind="answer", node="q", question_digest="1" * 32))
        said = [InboxMessage(kind="answer", node="q", question_digest="1" * 32, value=index) for index in range(20)]
        assert_equal("taken already", await two.send("r1", said[0], 0), 0)
        numbers = await asyncio.gather(
            *((one, two)[index % 2].send("r1", message, 1) for index, message in enumerate(said))
        )
        assert_equal("numbers", sorted(numbers), [0] * 19 + [2])
        assert_equal("in the inbox", [message.number for message in await one.inbox("r1")], [1, 2])
        for other in (
            InboxMessage(kind="answer", node="q[1]", question_digest="1" * 32),
            InboxMessage(kind="answer", node="q", question_digest="2" * 32),
        ):
            assert_true("another question", await two.send("r1", other, 0) > 0)
        again = [
            InboxMessage(kind="answer", node="q[2]", question_digest="1" * 32, question_seq=asked)
            for asked in (3, 3, 9, 0)
        ]
        assert_equal(
            "asked again",
            [await (one, two)[index % 2].send("r1", message, 0) > 0 for index, message in enumerate(again)],
            [True, False, True, False],
        )
        assert_true("no answer", await one.send("r1", InboxMessage(kind="cancel"), 0) > 0)
        assert_true(
            "another inbox message that is not an answer", await two.send("r1", InboxMessage(kind="cancel"), 0) > 0
        )


async def inbox_messages_go_to_unfinished_runs(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        await append_durably(one, "r1", [run_started("r1"), run_finished(2)])
        await assert_refused("nobody", two.send("nobody", InboxMessage(kind="cancel")), "J023")
        await assert_refused("ended", two.send("r1", InboxMessage(kind="cancel")), "J006")
        await append_durably(one, "r2", [run_started("r2")])
        await one.release("r2")
        assert_equal("waiting", await two.send("r2", InboxMessage(kind="cancel")), 1)


async def messages_of_another_process_arrive_within_a_second(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        for run in ("r1", "r2", "r3"):
            await append_durably(one, run, [run_started(run)])
        # The second is measured by a sleep that starts with the wait. The machine may be busy: one of three messages is
        # enough.
        early = []
        for run in ("r1", "r2", "r3"):
            waiting = asyncio.ensure_future(one.wait_for_messages())
            await two.send(run, InboxMessage(kind="cancel"))
            second = asyncio.ensure_future(asyncio.sleep(1.0))
            assert_equal("mail", await waiting, {run})
            early.append(not second.done())
            second.cancel()
        assert_true("one of three messages is within a second", any(early))


async def waiting_names_all_runs_with_messages(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        for run in ("r1", "r2", "r3"):
            await append_durably(one, run, [run_started(run)])
        await two.send("r1", InboxMessage(kind="cancel"))
        await one.send("r2", InboxMessage(kind="cancel"))
        found = set[str]()
        while found != {"r1", "r2"}:
            more = await one.wait_for_messages()
            assert_true(f"messages are for r1 and r2 only, not {more}", more <= {"r1", "r2"})
            found |= more
        waiting = asyncio.ensure_future(one.wait_for_messages())
        await two.send("r3", InboxMessage(kind="cancel"))
        assert_equal("mail", await waiting, {"r3"})


# Memo and outbox


async def the_first_memo_value_stays(store: OpenJournal) -> None:
    value = {"answer": ["ß", 1.5, None], "long": "x" * 40_000}
    async with store() as one, store() as two:
        assert_equal("unknown", await one.get_memo("m1"), None)
        one.put_memo("m1", "r1", value)
        one.put_memo("m1", "r2", "another")
        one.put_memo("m2", "r1", None)
        assert_equal("before the commit", await one.get_memo("m1"), ("r1", value))
        await append_durably(one, "r1", [run_started("r1")])
        assert_equal("for another", await two.get_memo("m1"), ("r1", value))
        assert_equal("an answer that is null", await two.get_memo("m2"), ("r1", None))
        two.put_memo("m1", "r3", "late")
        await append_durably(two, "r3", [run_started("r3")])
        assert_equal("still", [await one.get_memo("m1"), await two.get_memo("m1")], [("r1", value)] * 2)


async def outbox_messages_come_in_order_with_their_events(store: OpenJournal) -> None:
    quiet = AttemptFinished(seq=2, at=1.0, node="quiet", attempt=1, name="mail", value="no", final=True)
    async with store() as one, store() as two:
        await append_durably(
            one, "r1", [run_started("r1"), quiet, outbox_event(3, "a", {"to": "ann"}), outbox_event(4, "b[1]")]
        )
        await append_durably(two, "r2", [run_started("r2"), outbox_event(2, "a", "x" * 40_000)])
        found = await two.outbox()
        assert_equal("keys", [message.key for message in found], ["r1/a", "r1/b[1]", "r2/a"])
        assert_equal(
            "whence",
            [(message.run, message.node, message.name) for message in found[:2]],
            [("r1", "a", "mail"), ("r1", "b[1]", "mail")],
        )
        assert_equal("values", [message.value for message in found], [{"to": "ann"}, "hello", "x" * 40_000])
        numbers = [message.number for message in found]
        assert_true(f"numbers grow: {numbers}", numbers == sorted(set(numbers)) and numbers[0] > 0)
        assert_equal("for its writer", await one.outbox(), found)
        assert_equal("after the first", await one.outbox(after=numbers[0]), found[1:])
        assert_equal("one at a time", await one.outbox(limit=1), found[:1])
        assert_equal("after the last", await one.outbox(after=numbers[-1]), [])


async def messages_delivered_elsewhere_never_enter_the_outbox(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        one.append("r1", [run_started("r1"), outbox_event(2, "a"), outbox_event(3, "b")], {"a"})
        await one.wait_durable("r1", 3)
        assert_equal(
            "open", [[message.key for message in await journal.outbox()] for journal in (one, two)], [["r1/b"]] * 2
        )
        await append_durably(one, "r1", [outbox_event(4, "a", "again")])
        assert_equal("sent once", [message.key for message in await two.outbox()], ["r1/b"])


async def a_message_goes_out_once_for_its_key(store: OpenJournal) -> None:
    async with store() as one:
        await append_durably(
            one, "r1", [run_started("r1"), outbox_event(2, "a", "first"), outbox_event(3, "a", "second")]
        )
        await append_durably(one, "r1", [outbox_event(4, "a", "third")])
        found = await one.outbox()
        assert_equal("messages", [(message.key, message.value) for message in found], [("r1/a", "first")])
        await one.mark_delivered([found[0].number])
        await append_durably(one, "r1", [outbox_event(5, "a", "fourth")])
        assert_equal("after its delivery", await one.outbox(), [])


async def delivered_messages_leave_the_outbox(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        await append_durably(
            one, "r1", [run_started("r1"), outbox_event(2, "a"), outbox_event(3, "b"), outbox_event(4, "c")]
        )
        found = await two.outbox()
        await two.mark_delivered([found[0].number, found[2].number])
        await two.mark_delivered([found[0].number])
        await two.mark_delivered([])
        assert_equal("left", [await one.outbox(), await two.outbox()], [found[1:2]] * 2)
        await append_durably(one, "r1", [outbox_event(5, "d")])
        assert_true("later messages have higher numbers", (await two.outbox())[-1].number > found[2].number)
    async with store() as three:
        assert_equal("after a restart", [message.node for message in await three.outbox()], ["b", "d"])


# Delete, find, list


async def a_deleted_run_is_gone(store: OpenJournal) -> None:
    large = "y" * 40_000
    async with store() as one, store() as two:
        mine, ours = one.put_blob(b"mine"), one.put_blob(b"ours")
        attempt = AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value=large, sent=mine, received=ours, final=True)
        await append_durably(one, "r1", [run_started("r1", graph=ours), attempt])
        await append_durably(
            one,
            "r2",
            [
                run_started("r2", graph=ours),
                AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value=large, final=True),
            ],
        )
        await one.send("r1", InboxMessage(kind="cancel"))
        await append_durably(one, "r1", [run_finished(3)])
        await two.delete("r1")
        for journal in (one, two):
            assert_equal("events, inbox", [await journal.read("r1"), await journal.inbox("r1")], [[], []])
            assert_equal(
                "found, listed",
                [await journal.find_runs("r"), [summary.run for summary in await journal.list_runs()]],
                [["r2"], ["r2"]],
            )
            assert_equal("blobs", [await journal.get_blob(mine), await journal.get_blob(ours)], [None, b"ours"])
            assert_equal(
                "what another run shares",
                (await journal.read("r2"))[1:],
                [structs.replace(attempt, sent="", received="")],
            )
        await assert_refused("again", two.delete("r1"), "J023")


async def a_blob_put_again_outlives_a_deletion(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        name = one.put_blob(b"shared")
        await append_durably(one, "r1", [run_started("r1", graph=name), run_finished(2)])
        one.put_blob(b"shared")
        await two.delete("r1")
        await append_durably(one, "r2", [run_started("r2", graph=name)])
        assert_equal("the blob", [await one.get_blob(name), await two.get_blob(name)], [b"shared"] * 2)


async def a_run_under_way_is_not_deleted(store: OpenJournal) -> None:
    async with store() as one, store() as two:
        await append_durably(one, "r1", [run_started("r1")])
        await assert_refused("by another", two.delete("r1"), "J022")
        await assert_refused("by its holder", one.delete("r1"), "J022")
        await one.release("r1")
        await two.delete("r1")
        await append_durably(one, "r2", [run_started("r2")])
        await one.close()
        await two.delete("r2")
        assert_equal("left", await two.list_runs(), [])


async def messages_are_delivered_before_their_run_is_deleted(store: OpenJournal) -> None:
    async with store() as one:
        await append_durably(one, "r1", [run_started("r1"), outbox_event(2, "a"), run_finished(3)])
        await assert_refused("not delivered", one.delete("r1"), "J024")
        assert_equal("kept", len(await one.read("r1")), 3)
        await one.mark_delivered([message.number for message in await one.outbox()])
        await one.delete("r1")
        assert_equal("left", await one.find_runs(""), [])


async def runs_are_found_by_their_beginning(store: OpenJournal) -> None:
    async with store() as one:
        for run in ("01ab", "01ac", "02", "%1", "_1", "ß1", "\U0001f9801"):
            await append_durably(one, run, [run_started(run)])
        wanted = {
            "01": ["01ab", "01ac"],
            "01ab": ["01ab"],
            "%": ["%1"],
            "_": ["_1"],
            "ß": ["ß1"],
            "\U0001f980": ["\U0001f9801"],
            "3": [],
        }
        for prefix, found in wanted.items():
            assert_equal(f"from {prefix!r}", await one.find_runs(prefix), found)
        assert_equal("all", await one.find_runs(""), ["%1", "01ab", "01ac", "02", "_1", "ß1", "\U0001f9801"])
        for number in range(120):
            one.append(f"x{number:03d}", [run_started(f"x{number:03d}")])
        assert_equal("a hundred at most", await one.find_runs("x"), [f"x{number:03d}" for number in range(100)])


async def runs_are_listed_newest_first(store: OpenJournal) -> None:
    settled = AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value="x", usage=USAGE, final=True)
    async with store() as one, store() as two:
        await append_durably(one, "a", [run_started("a", at=10.0), settled, *node_events(3), run_finished(4, at=13.0)])
        await append_durably(one, "c", [run_started("c", at=20.0)])
        await append_durably(one, "b", [run_started("b", at=20.0), settled, structs.replace(settled, seq=3)])
        for journal in (one, two):
            found = await journal.list_runs()
            assert_equal("order", [summary.run for summary in found], ["c", "b", "a"])
            assert_equal("status", [summary.status for summary in found], ["running", "running", "done"])
            assert_equal("nodes", [summary.nodes for summary in found], [0, 2, 2])
            assert_equal("started", [summary.started for summary in found], [20.0, 20.0, 10.0])
            assert_equal("finished", [summary.finished for summary in found], [None, None, 13.0])
            assert_equal("usage", [summary.usage for summary in found[1:]], [USAGE + USAGE, USAGE])
            assert_equal("workflow", found[2].workflow, "staged")
            assert_equal("each alone", [await journal.summary(run) for run in ("c", "b", "a", "d")], [*found, None])
            assert_equal("the latest", [summary.run for summary in await journal.list_runs(1)], ["c"])


INBOX_TESTS = (
    inbox_messages_are_numbered_and_read_after_a_number,
    concurrent_inbox_messages_get_distinct_numbers,
    one_of_several_concurrent_answers_is_taken,
    inbox_messages_go_to_unfinished_runs,
    messages_of_another_process_arrive_within_a_second,
    waiting_names_all_runs_with_messages,
    the_first_memo_value_stays,
    outbox_messages_come_in_order_with_their_events,
    messages_delivered_elsewhere_never_enter_the_outbox,
    a_message_goes_out_once_for_its_key,
    delivered_messages_leave_the_outbox,
    a_deleted_run_is_gone,
    a_blob_put_again_outlives_a_deletion,
    a_run_under_way_is_not_deleted,
    messages_are_delivered_before_their_run_is_deleted,
    runs_are_found_by_their_beginning,
    runs_are_listed_newest_first,
)
