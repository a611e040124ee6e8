"""Random sequences of operations on a journal and on the journal in memory. Both must give the same results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import product
from random import Random
from typing import Literal, TypeAlias, assert_never, get_args

import msgspec

from orchestra.core.protocols import InboxMessage, Journal
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing.conformance.scenarios import (
    OpenJournal,
    append_durably,
    assert_equal,
    node_events,
    outbox_event,
    run_finished,
    run_started,
)

RUNS = ("a", "b", "c")
OPENERS = 3


StepKind: TypeAlias = Literal[
    "begin", "append", "message", "finish", "gap", "lease", "release", "post", "remember", "deliver", "delete"
]

StepResult: TypeAlias = str | int | tuple[str, ...] | None
"""The result of a step; the error code if it is refused."""


class ConformanceStep(msgspec.Struct, frozen=True):
    """One operation of one opener on one run. The meaning of `amount` depends on the operation."""

    kind: StepKind
    opener: int
    run: str
    amount: int = 1


def random_steps(seed: int, count: int = 40) -> list[ConformanceStep]:
    """Returns a random sequence of operations. The same seed gives the same sequence."""
    # these are more frequent
    kinds: tuple[StepKind, ...] = (*get_args(StepKind), "append", "append", "lease", "release")
    chance = Random(seed)  # noqa: S311  # repeatable, not secret
    return [
        ConformanceStep(chance.choice(kinds), chance.randrange(OPENERS), chance.choice(RUNS), chance.randint(1, 5))
        for _ in range(count)
    ]


async def run_steps(open_journal: OpenJournal, sequence: Sequence[ConformanceStep]) -> None:
    """Runs the steps on the store and on a journal in memory.

    Raises:
        AssertionError: A result or the visible state differs.
    """
    memory = MemoryStore()
    async with AsyncExitStack() as stack:
        journals = [await stack.enter_async_context(open_journal()) for _ in range(OPENERS)]
        models = [MemoryJournal(memory) for _ in range(OPENERS)]
        holders: dict[str, int | None] = {}
        for number, step in enumerate(sequence):
            if step.run in holders and step.run not in memory.logs:
                continue  # the id of a deleted run is never used again
            holds = holders.get(step.run) == step.opener
            if step.kind == "remember" and not holds:
                continue  # without a commit no other opener would see it
            last = len(await models[0].read(step.run))
            expected_result = await _run_step(models[step.opener], step, last)
            actual_result = await _run_step(journals[step.opener], step, last)
            if not holds and (expected_result, actual_result) in _ALLOWED_DIFFERENCES[step.kind == "release"]:
                continue
            assert_equal(f"{step} after {list(sequence[:number])}", actual_result, expected_result)
            if not isinstance(expected_result, str):
                _update_holders(holders, step)
        await _compare_journals(models[0], journals, f"after {list(sequence)}")


WITHOUT_LEASE_CODES = ("J001", "J005", "J006")
_ALLOWED_DIFFERENCES: dict[bool, set[tuple[StepResult, StepResult]]] = {
    False: set(product(WITHOUT_LEASE_CODES, WITHOUT_LEASE_CODES)),
    True: {(None, "J005")},
}
"""Refusals that may differ: the reason without a lease, and whether releasing a lost lease is refused."""


def _update_holders(holders: dict[str, int | None], step: ConformanceStep) -> None:
    if step.kind == "finish" or (step.kind == "release" and holders[step.run] == step.opener):
        holders[step.run] = None
    elif step.kind in ("begin", "lease", "append", "message", "gap"):
        holders[step.run] = step.opener  # any event with number 1 starts a run


async def _run_step(journal: Journal, step: ConformanceStep, last: int) -> StepResult:
    run, amount = step.run, step.amount
    try:
        match step.kind:
            case "begin":
                await append_durably(journal, run, [run_started(run, at=float(ord(run)))])
            case "append":
                await append_durably(journal, run, node_events(last + 1, amount))
            case "message":
                await append_durably(journal, run, [outbox_event(last + 1, f"n{amount}", amount)])
            case "finish":
                await append_durably(journal, run, [run_finished(last + 1)])
            case "gap":
                await append_durably(journal, run, node_events(last + 1 + amount))
            case "lease":
                return await journal.lease(run)
            case "release":
                await journal.release(run)
            case "post":
                return await journal.send(run, InboxMessage(kind="answer", node="q", value=amount))
            case "remember":
                journal.put_memo("m", run, amount)
                await append_durably(journal, run, node_events(last + 1))
            case "deliver":
                outbox_messages = await journal.outbox(limit=amount)
                await journal.mark_delivered([message.number for message in outbox_messages])
                return tuple(message.key for message in outbox_messages)
            case "delete":
                await journal.delete(run)
            case _ as kind:
                assert_never(kind)
    except JournalError as error:
        return error.code
    return None


async def _compare_journals(model: Journal, own_journals: Sequence[Journal], location: str) -> None:
    expected_messages = await model.outbox()
    for journal in own_journals:
        for run in RUNS:
            assert_equal(f"events of {run} {location}", await journal.read(run), await model.read(run))
            assert_equal(f"inbox of {run} {location}", await journal.inbox(run), await model.inbox(run))
        assert_equal(f"runs {location}", await journal.list_runs(), await model.list_runs())
        assert_equal(f"ids {location}", await journal.find_runs(""), await model.find_runs(""))
        assert_equal(f"answer {location}", await journal.get_memo("m"), await model.get_memo("m"))
        actual_messages = await journal.outbox()
        assert_equal(
            f"messages {location}",
            [(message.key, message.value) for message in actual_messages],
            [(message.key, message.value) for message in expected_messages],
        )
