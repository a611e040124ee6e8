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
    async with store() as first_journal, store() as second_journal:
        await append_durably(first_journal, "r1", [run_started("r1")])
        await append_durably(first_journal, "r2", [run_started("r2")])
        assert_equal(
            "numbers",
            [
                await (first_journal, second_journal)[index % 2].send("r1", message)
                for index, message in enumerate(messages)
            ],
            [1, 2, 3, 4],
        )
        assert_equal("of another run", await second_journal.send("r2", messages[2]), 1)
        expected_messages = [structs.replace(message, number=number) for number, message in enumerate(messages, 1)]
        for journal in (first_journal, second_journal):
            for after in range(5):
                assert_equal(f"after {after}", await journal.inbox("r1", after), expected_messages[after:])


async def concurrent_inbox_messages_get_distinct_numbers(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1")])
        numbers = await asyncio.gather(
            *(
                (journal, second_journal)[index % 2].send("r1", InboxMessage(kind="cancel", by=str(index)))
                for index in range(20)
            )
        )
        assert_equal("numbers", sorted(numbers), list(range(1, 21)))
        assert_equal("in the inbox", [message.number for message in await journal.inbox("r1")], list(range(1, 21)))
        assert_equal(
            "by whom",
            {int(message.by): message.number for message in await journal.inbox("r1")},
            dict(enumerate(numbers)),
        )


async def one_of_several_concurrent_answers_is_taken(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1")])
        await journal.send("r1", InboxMessage(kind="answer", node="q", question_digest="1" * 32))
        answers = [InboxMessage(kind="answer", node="q", question_digest="1" * 32, value=index) for index in range(20)]
        assert_equal("taken already", await second_journal.send("r1", answers[0], 0), 0)
        numbers = await asyncio.gather(
            *((journal, second_journal)[index % 2].send("r1", message, 1) for index, message in enumerate(answers))
        )
        assert_equal("numbers", sorted(numbers), [0] * 19 + [2])
        assert_equal("in the inbox", [message.number for message in await journal.inbox("r1")], [1, 2])
        for other_message in (
            InboxMessage(kind="answer", node="q[1]", question_digest="1" * 32),
            InboxMessage(kind="answer", node="q", question_digest="2" * 32),
        ):
            assert_true("another question", await second_journal.send("r1", other_message, 0) > 0)
        again = [
            InboxMessage(kind="answer", node="q[2]", question_digest="1" * 32, question_seq=answer_value)
            for answer_value in (3, 3, 9, 0)
        ]
        assert_equal(
            "asked again",
            [
                await (journal, second_journal)[index % 2].send("r1", message, 0) > 0
                for index, message in enumerate(again)
            ],
            [True, False, True, False],
        )
        assert_true("no answer", await journal.send("r1", InboxMessage(kind="cancel"), 0) > 0)
        assert_true(
            "another inbox message that is not an answer",
            await second_journal.send("r1", InboxMessage(kind="cancel"), 0) > 0,
        )


async def inbox_messages_go_to_unfinished_runs(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1"), run_finished(2)])
        await assert_refused("nobody", second_journal.send("nobody", InboxMessage(kind="cancel")), "J023")
        await assert_refused("ended", second_journal.send("r1", InboxMessage(kind="cancel")), "J006")
        await append_durably(journal, "r2", [run_started("r2")])
        await journal.release("r2")
        assert_equal("waiting", await second_journal.send("r2", InboxMessage(kind="cancel")), 1)


async def messages_of_another_process_arrive_within_a_second(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        for run in ("r1", "r2", "r3"):
            await append_durably(journal, run, [run_started(run)])
        # The second is measured by a sleep that starts with the wait. The machine may be busy: one of three messages is
        # enough.
        early = []
        for run in ("r1", "r2", "r3"):
            task = asyncio.ensure_future(journal.wait_for_messages())
            await second_journal.send(run, InboxMessage(kind="cancel"))
            second = asyncio.ensure_future(asyncio.sleep(1.0))
            assert_equal("mail", await task, {run})
            early.append(not second.done())
            second.cancel()
        assert_true("one of three messages is within a second", any(early))


async def waiting_names_all_runs_with_messages(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        for run in ("r1", "r2", "r3"):
            await append_durably(journal, run, [run_started(run)])
        await second_journal.send("r1", InboxMessage(kind="cancel"))
        await journal.send("r2", InboxMessage(kind="cancel"))
        waiting_runs = set[str]()
        while waiting_runs != {"r1", "r2"}:
            later_runs = await journal.wait_for_messages()
            assert_true(f"messages are for r1 and r2 only, not {later_runs}", later_runs <= {"r1", "r2"})
            waiting_runs |= later_runs
        task = asyncio.ensure_future(journal.wait_for_messages())
        await second_journal.send("r3", InboxMessage(kind="cancel"))
        assert_equal("mail", await task, {"r3"})


# Memo and outbox


async def the_first_memo_value_stays(store: OpenJournal) -> None:
    value = {"answer": ["ß", 1.5, None], "long": "x" * 40_000}
    async with store() as journal, store() as second_journal:
        assert_equal("unknown", await journal.get_memo("m1"), None)
        journal.put_memo("m1", "r1", value)
        journal.put_memo("m1", "r2", "another")
        journal.put_memo("m2", "r1", None)
        assert_equal("before the commit", await journal.get_memo("m1"), ("r1", value))
        await append_durably(journal, "r1", [run_started("r1")])
        assert_equal("for another", await second_journal.get_memo("m1"), ("r1", value))
        assert_equal("an answer that is null", await second_journal.get_memo("m2"), ("r1", None))
        second_journal.put_memo("m1", "r3", "late")
        await append_durably(second_journal, "r3", [run_started("r3")])
        assert_equal("still", [await journal.get_memo("m1"), await second_journal.get_memo("m1")], [("r1", value)] * 2)


async def outbox_messages_come_in_order_with_their_events(store: OpenJournal) -> None:
    quiet = AttemptFinished(seq=2, at=1.0, node="quiet", attempt=1, name="mail", value="no", final=True)
    async with store() as journal, store() as second_journal:
        await append_durably(
            journal, "r1", [run_started("r1"), quiet, outbox_event(3, "a", {"to": "ann"}), outbox_event(4, "b[1]")]
        )
        await append_durably(second_journal, "r2", [run_started("r2"), outbox_event(2, "a", "x" * 40_000)])
        outbox_messages = await second_journal.outbox()
        assert_equal("keys", [message.key for message in outbox_messages], ["r1/a", "r1/b[1]", "r2/a"])
        assert_equal(
            "whence",
            [(message.run, message.node, message.name) for message in outbox_messages[:2]],
            [("r1", "a", "mail"), ("r1", "b[1]", "mail")],
        )
        assert_equal("values", [message.value for message in outbox_messages], [{"to": "ann"}, "hello", "x" * 40_000])
        numbers = [message.number for message in outbox_messages]
        assert_true(f"numbers grow: {numbers}", numbers == sorted(set(numbers)) and numbers[0] > 0)
        assert_equal("for its writer", await journal.outbox(), outbox_messages)
        assert_equal("after the first", await journal.outbox(after=numbers[0]), outbox_messages[1:])
        assert_equal("one at a time", await journal.outbox(limit=1), outbox_messages[:1])
        assert_equal("after the last", await journal.outbox(after=numbers[-1]), [])


async def messages_delivered_elsewhere_never_enter_the_outbox(store: OpenJournal) -> None:
    async with store() as first_journal, store() as second_journal:
        first_journal.append("r1", [run_started("r1"), outbox_event(2, "a"), outbox_event(3, "b")], {"a"})
        await first_journal.wait_durable("r1", 3)
        assert_equal(
            "open",
            [[message.key for message in await journal.outbox()] for journal in (first_journal, second_journal)],
            [["r1/b"]] * 2,
        )
        await append_durably(first_journal, "r1", [outbox_event(4, "a", "again")])
        assert_equal("sent once", [message.key for message in await second_journal.outbox()], ["r1/b"])


async def a_message_goes_out_once_for_its_key(store: OpenJournal) -> None:
    async with store() as journal:
        await append_durably(
            journal, "r1", [run_started("r1"), outbox_event(2, "a", "first"), outbox_event(3, "a", "second")]
        )
        await append_durably(journal, "r1", [outbox_event(4, "a", "third")])
        outbox_messages = await journal.outbox()
        assert_equal("messages", [(message.key, message.value) for message in outbox_messages], [("r1/a", "first")])
        await journal.mark_delivered([outbox_messages[0].number])
        await append_durably(journal, "r1", [outbox_event(5, "a", "fourth")])
        assert_equal("after its delivery", await journal.outbox(), [])


async def delivered_messages_leave_the_outbox(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(
            journal, "r1", [run_started("r1"), outbox_event(2, "a"), outbox_event(3, "b"), outbox_event(4, "c")]
        )
        outbox_messages = await second_journal.outbox()
        await second_journal.mark_delivered([outbox_messages[0].number, outbox_messages[2].number])
        await second_journal.mark_delivered([outbox_messages[0].number])
        await second_journal.mark_delivered([])
        assert_equal("left", [await journal.outbox(), await second_journal.outbox()], [outbox_messages[1:2]] * 2)
        await append_durably(journal, "r1", [outbox_event(5, "d")])
        assert_true(
            "later messages have higher numbers", (await second_journal.outbox())[-1].number > outbox_messages[2].number
        )
    async with store() as third_journal:
        assert_equal("after a restart", [message.node for message in await third_journal.outbox()], ["b", "d"])


# Delete, find, list


async def a_deleted_run_is_gone(store: OpenJournal) -> None:
    large = "y" * 40_000
    async with store() as first_journal, store() as second_journal:
        own_blob, shared_blob = first_journal.put_blob(b"mine"), first_journal.put_blob(b"ours")
        attempt = AttemptFinished(
            seq=2, at=1.0, node="a", attempt=1, value=large, sent=own_blob, received=shared_blob, final=True
        )
        await append_durably(first_journal, "r1", [run_started("r1", graph=shared_blob), attempt])
        await append_durably(
            first_journal,
            "r2",
            [
                run_started("r2", graph=shared_blob),
                AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value=large, final=True),
            ],
        )
        await first_journal.send("r1", InboxMessage(kind="cancel"))
        await append_durably(first_journal, "r1", [run_finished(3)])
        await second_journal.delete("r1")
        for journal in (first_journal, second_journal):
            assert_equal("events, inbox", [await journal.read("r1"), await journal.inbox("r1")], [[], []])
            assert_equal(
                "found, listed",
                [await journal.find_runs("r"), [summary.run for summary in await journal.list_runs()]],
                [["r2"], ["r2"]],
            )
            assert_equal(
                "blobs", [await journal.get_blob(own_blob), await journal.get_blob(shared_blob)], [None, b"ours"]
            )
            assert_equal(
                "what another run shares",
                (await journal.read("r2"))[1:],
                [structs.replace(attempt, sent="", received="")],
            )
        await assert_refused("again", second_journal.delete("r1"), "J023")


async def a_blob_put_again_outlives_a_deletion(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        name = journal.put_blob(b"shared")
        await append_durably(journal, "r1", [run_started("r1", graph=name), run_finished(2)])
        journal.put_blob(b"shared")
        await second_journal.delete("r1")
        await append_durably(journal, "r2", [run_started("r2", graph=name)])
        assert_equal("the blob", [await journal.get_blob(name), await second_journal.get_blob(name)], [b"shared"] * 2)


async def a_run_under_way_is_not_deleted(store: OpenJournal) -> None:
    async with store() as journal, store() as second_journal:
        await append_durably(journal, "r1", [run_started("r1")])
        await assert_refused("by another", second_journal.delete("r1"), "J022")
        await assert_refused("by its holder", journal.delete("r1"), "J022")
        await journal.release("r1")
        await second_journal.delete("r1")
        await append_durably(journal, "r2", [run_started("r2")])
        await journal.close()
        await second_journal.delete("r2")
        assert_equal("left", await second_journal.list_runs(), [])


async def messages_are_delivered_before_their_run_is_deleted(store: OpenJournal) -> None:
    async with store() as journal:
        await append_durably(journal, "r1", [run_started("r1"), outbox_event(2, "a"), run_finished(3)])
        await assert_refused("not delivered", journal.delete("r1"), "J024")
        assert_equal("kept", len(await journal.read("r1")), 3)
        await journal.mark_delivered([message.number for message in await journal.outbox()])
        await journal.delete("r1")
        assert_equal("left", await journal.find_runs(""), [])


async def runs_are_found_by_their_beginning(store: OpenJournal) -> None:
    async with store() as journal:
        for run in ("01ab", "01ac", "02", "%1", "_1", "ß1", "\U0001f9801"):
            await append_durably(journal, run, [run_started(run)])
        expected_runs = {
            "01": ["01ab", "01ac"],
            "01ab": ["01ab"],
            "%": ["%1"],
            "_": ["_1"],
            "ß": ["ß1"],
            "\U0001f980": ["\U0001f9801"],
            "3": [],
        }
        for prefix, run_names in expected_runs.items():
            assert_equal(f"from {prefix!r}", await journal.find_runs(prefix), run_names)
        assert_equal("all", await journal.find_runs(""), ["%1", "01ab", "01ac", "02", "_1", "ß1", "\U0001f9801"])
        for number in range(120):
            journal.append(f"x{number:03d}", [run_started(f"x{number:03d}")])
        assert_equal("a hundred at most", await journal.find_runs("x"), [f"x{number:03d}" for number in range(100)])


async def runs_are_listed_newest_first(store: OpenJournal) -> None:
    finish_event = AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value="x", usage=USAGE, final=True)
    async with store() as first_journal, store() as second_journal:
        await append_durably(
            first_journal, "a", [run_started("a", at=10.0), finish_event, *node_events(3), run_finished(4, at=13.0)]
        )
        await append_durably(first_journal, "c", [run_started("c", at=20.0)])
        await append_durably(
            first_journal, "b", [run_started("b", at=20.0), finish_event, structs.replace(finish_event, seq=3)]
        )
        for journal in (first_journal, second_journal):
            run_summaries = await journal.list_runs()
            assert_equal("order", [summary.run for summary in run_summaries], ["c", "b", "a"])
            assert_equal("status", [summary.status for summary in run_summaries], ["running", "running", "done"])
            assert_equal("nodes", [summary.nodes for summary in run_summaries], [0, 2, 2])
            assert_equal("started", [summary.started for summary in run_summaries], [20.0, 20.0, 10.0])
            assert_equal("finished", [summary.finished for summary in run_summaries], [None, None, 13.0])
            assert_equal("usage", [summary.usage for summary in run_summaries[1:]], [USAGE + USAGE, USAGE])
            assert_equal("workflow", run_summaries[2].workflow, "staged")
            assert_equal(
                "each alone", [await journal.summary(run) for run in ("c", "b", "a", "d")], [*run_summaries, None]
            )
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
