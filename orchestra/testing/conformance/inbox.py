"""Laws of what lies beside the events: letters, answers, messages; and of lists, and of what is removed."""

from __future__ import annotations

import asyncio

from msgspec import structs

from orchestra.core.events import AttemptFinished
from orchestra.core.protocols import Letter
from orchestra.testing.conformance.stories import SPENT, Open, begun, ended, middle, refused, same, sent, true, write

# The inbox


async def letters_are_numbered_and_read_after_a_number(store: Open) -> None:
    letters = [
        Letter(kind="answer", by="ann", node="q[0]", value={"x": ["ß", 1.5, None]}, shown="1" * 32, at=12.5),
        Letter(kind="answer", node="q", value="x" * 40_000, gave=True, asked=7),
        Letter(kind="cancel"),
        Letter(kind="answer", node="q", declined="nobody was there"),
    ]
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        await write(one, "r2", [begun("r2")])
        same("numbers", [await (one, two)[index % 2].post("r1", letter) for index, letter in enumerate(letters)], [1, 2, 3, 4])
        same("of another run", await two.post("r2", letters[2]), 1)
        wanted = [structs.replace(letter, number=number) for number, letter in enumerate(letters, 1)]
        for journal in (one, two):
            for after in range(5):
                same(f"after {after}", await journal.letters("r1", after), wanted[after:])


async def letters_posted_at_once_get_numbers_of_their_own(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        numbers = await asyncio.gather(*((one, two)[index % 2].post("r1", Letter(kind="cancel", by=str(index))) for index in range(20)))
        same("numbers", sorted(numbers), list(range(1, 21)))
        same("in the inbox", [letter.number for letter in await one.letters("r1")], list(range(1, 21)))
        same("by whom", {int(letter.by): letter.number for letter in await one.letters("r1")}, dict(enumerate(numbers)))


async def one_of_several_answers_at_once_is_taken(store: Open) -> None:
    async with store() as one, store() as two:
        await write(one, "r1", [begun("r1")])
        await one.post("r1", Letter(kind="answer", node="q", shown="1" * 32))
        said = [Letter(kind="answer", node="q", shown="1" * 32, value=index) for index in range(20)]
        same("taken already", await two.post("r1", said[0], 0), 0)
        numbers = await asyncio.gather(*((one, two)[index % 2].post("r1", letter, 1) for index, letter in enumerate(said)))
        same("numbers", sorted(numbers), [0] * 19 + [2])
        same("in the inbox", [letter.number for letter in await one.letters("r1")], [1, 2])
        for other in (Letter(kind="answer", node="q[1]", shown="1" * 32), Letter(kind="answer", node="q", shown="2" * 32)):
            true("another question", await two.post("r1", other, 0) > 0)
        again = [Letter(kind="answer", node="q[2]", shown="1" * 32, asked=asked) for asked in (3, 3, 9, 0)]
        same(
            "asked again",
            [await (one, two)[index % 2].post("r1", letter, 0) > 0 for index, letter in enumerate(again)],
            [True, False, True, False],
        )
        true("no answer", await one.post("r1", Letter(kind="cancel"), 0) > 0)
        true("another letter that is no answer", await two.post("r1", Letter(kind="cancel"), 0) > 0)


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
        # A second is that of this loop: a sleep that starts with the wait. The machine may be busy: of three letters, one is enough.
        early = []
        for run in ("r1", "r2", "r3"):
            waiting = asyncio.ensure_future(one.mail())
            await two.post(run, Letter(kind="cancel"))
            second = asyncio.ensure_future(asyncio.sleep(1.0))
            same("mail", await waiting, {run})
            early.append(not second.done())
            second.cancel()
        true("one of three letters is within a second", any(early))


async def mail_names_all_that_came_before(store: Open) -> None:
    async with store() as one, store() as two:
        for run in ("r1", "r2", "r3"):
            await write(one, run, [begun(run)])
        await two.post("r1", Letter(kind="cancel"))
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


async def messages_that_were_delivered_elsewhere_are_never_open(store: Open) -> None:
    async with store() as one, store() as two:
        one.append("r1", [begun("r1"), sent(2, "a"), sent(3, "b")], {"a"})
        await one.durable("r1", 3)
        same("open", [[message.key for message in await journal.outbox()] for journal in (one, two)], [["r1/b"]] * 2)
        await write(one, "r1", [sent(4, "a", "again")])
        same("sent once", [message.key for message in await two.outbox()], ["r1/b"])


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


async def a_blob_that_is_put_again_outlives_a_deletion(store: Open) -> None:
    async with store() as one, store() as two:
        name = one.put(b"shared")
        await write(one, "r1", [begun("r1", graph=name), ended(2)])
        one.put(b"shared")
        await two.delete("r1")
        await write(one, "r2", [begun("r2", graph=name)])
        same("the blob", [await one.blob(name), await two.blob(name)], [b"shared"] * 2)


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
            same("each alone", [await journal.summary(run) for run in ("c", "b", "a", "d")], [*found, None])
            same("the latest", [summary.run for summary in await journal.runs(1)], ["c"])


PROOFS = (
    letters_are_numbered_and_read_after_a_number,
    letters_posted_at_once_get_numbers_of_their_own,
    one_of_several_answers_at_once_is_taken,
    letters_go_to_runs_that_go_on,
    mail_of_another_comes_within_a_second,
    mail_names_all_that_came_before,
    the_first_answer_stays,
    messages_come_in_order_with_their_events,
    messages_that_were_delivered_elsewhere_are_never_open,
    a_message_goes_out_once_for_its_key,
    delivered_messages_leave_the_outbox,
    a_deleted_run_is_gone,
    a_blob_that_is_put_again_outlives_a_deletion,
    a_run_under_way_is_not_deleted,
    messages_are_delivered_before_their_run_is_deleted,
    runs_are_found_by_their_beginning,
    runs_are_listed_newest_first,
)
