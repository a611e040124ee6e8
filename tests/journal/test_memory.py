"""A journal in memory that keeps only the latest runs: dropped runs are dropped completely."""

from __future__ import annotations

from orchestra.core.events import AttemptFinished, RunFinished
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.memory import MemoryJournal
from tests.journal.stories import begun


def sends(seq: int) -> AttemptFinished:
    return AttemptFinished(seq=seq, at=1.0, node="mail", attempt=1, name="mailer", value="hello", outbox=True)


def ran(journal: MemoryJournal, run: str) -> None:
    """A run with an answer to remember and a message."""
    journal.put_memo(
        f"memo of {run}", run, "x" * 1000
    )  # facts are written to the journal at the end of the turn, so this may come first
    journal.append(run, [begun(run), sends(2)])
    journal.append(run, [RunFinished(seq=3, at=1.0, status="done", outcome=ValueOutcome(1))])


async def test_memory_drops_answers_and_keys_with_run() -> None:
    journal = MemoryJournal(max_ended_runs=4)
    for number in range(100):
        ran(journal, f"r{number}")
        await journal.mark_delivered([message.number for message in await journal.outbox()])
    store = journal.store
    kept = (store.logs, store.memos, store.memo_keys, store.sent_keys, store.message_keys, store.messages)
    assert [len(one) for one in kept] == [4, 4, 4, 4, 4, 0]
    assert await journal.get_memo("memo of r0") is None
    assert await journal.get_memo("memo of r99") == ("r99", "x" * 1000)


async def test_memory_keeps_undelivered_message() -> None:
    journal = MemoryJournal(max_ended_runs=1)
    for number in range(3):
        ran(journal, f"r{number}")
    waiting = await journal.outbox()
    assert [message.run for message in waiting] == ["r0", "r1", "r2"]
    await journal.mark_delivered([message.number for message in waiting])
    assert journal.store.sent_keys == {"r2/mail"}


async def test_memory_delete_drops_answers() -> None:
    journal = MemoryJournal()
    ran(journal, "r1")
    ran(journal, "r2")
    await journal.mark_delivered([message.number for message in await journal.outbox()])
    await journal.delete("r1")
    assert (await journal.get_memo("memo of r1"), list(journal.store.memos), list(journal.store.message_keys)) == (
        None,
        ["memo of r2"],
        ["r2"],
    )
