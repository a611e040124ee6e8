"""Sequences of operations, done on a journal and on the journal in memory: both must answer the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import product
from random import Random
from typing import Literal, TypeAlias, assert_never, get_args

import msgspec

from orchestra.core.protocols import Journal, Letter
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing.conformance.stories import Open, begun, ended, middle, same, sent, write

RUNS = ("a", "b", "c")
OPENERS = 3


Kind: TypeAlias = Literal["begin", "append", "message", "finish", "gap", "lease", "release", "post", "remember", "deliver", "delete"]

Answer: TypeAlias = str | int | tuple[str, ...] | None
"""What a step gives; the code where it is refused."""


class Step(msgspec.Struct, frozen=True):
    """One operation of one of the openers on one of the runs; `amount` means something else for each."""

    kind: Kind
    opener: int
    run: str
    amount: int = 1


def steps(seed: int, count: int = 40) -> list[Step]:
    """A sequence of operations, the same for the same seed."""
    kinds: tuple[Kind, ...] = (*get_args(Kind), "append", "append", "lease", "release")  # these more often
    chance = Random(seed)  # noqa: S311  # repeatable, not secret
    return [Step(chance.choice(kinds), chance.randrange(OPENERS), chance.choice(RUNS), chance.randint(1, 5)) for _ in range(count)]


async def follow(open_journal: Open, sequence: Sequence[Step]) -> None:
    """Does the steps on the store and on a journal in memory; raises `AssertionError` where an answer differs, or what can be seen."""
    memory = MemoryStore()
    async with AsyncExitStack() as stack:
        ours = [await stack.enter_async_context(open_journal()) for _ in range(OPENERS)]
        models = [MemoryJournal(memory) for _ in range(OPENERS)]
        holders: dict[str, int | None] = {}
        for number, step in enumerate(sequence):
            if step.run in holders and step.run not in memory.logs:
                continue  # the id of a deleted run comes never again
            holds = holders.get(step.run) == step.opener
            if step.kind == "remember" and not holds:
                continue  # without a commit nobody else would see it
            last = len(await models[0].read(step.run))
            wanted = await _answer(models[step.opener], step, last)
            given = await _answer(ours[step.opener], step, last)
            if not holds and (wanted, given) in _TOLD_OTHERWISE[step.kind == "release"]:
                continue
            same(f"{step} after {list(sequence[:number])}", given, wanted)
            if not isinstance(wanted, str):
                _pass_on(holders, step)
        await _compare(models[0], ours, f"after {list(sequence)}")


WITHOUT_LEASE = ("J001", "J005", "J006")
_TOLD_OTHERWISE: dict[bool, set[tuple[Answer, Answer]]] = {
    False: set(product(WITHOUT_LEASE, WITHOUT_LEASE)),
    True: {(None, "J005")},
}
"""Who has no lease is refused, but may not be able to tell why; and who lost it may be told so when he gives it back."""


def _pass_on(holders: dict[str, int | None], step: Step) -> None:
    if step.kind == "finish" or (step.kind == "release" and holders[step.run] == step.opener):
        holders[step.run] = None
    elif step.kind in ("begin", "lease", "append", "message", "gap"):
        holders[step.run] = step.opener  # any event 1 begins a run


async def _answer(journal: Journal, step: Step, last: int) -> Answer:
    run, amount = step.run, step.amount
    try:
        match step.kind:
            case "begin":
                await write(journal, run, [begun(run, at=float(ord(run)))])
            case "append":
                await write(journal, run, middle(last + 1, amount))
            case "message":
                await write(journal, run, [sent(last + 1, f"n{amount}", amount)])
            case "finish":
                await write(journal, run, [ended(last + 1)])
            case "gap":
                await write(journal, run, middle(last + 1 + amount))
            case "lease":
                return await journal.lease(run)
            case "release":
                await journal.release(run)
            case "post":
                return await journal.post(run, Letter(kind="answer", node="q", value=amount))
            case "remember":
                journal.remember("m", run, amount)
                await write(journal, run, middle(last + 1))
            case "deliver":
                found = await journal.outbox(limit=amount)
                await journal.delivered([message.number for message in found])
                return tuple(message.key for message in found)
            case "delete":
                await journal.delete(run)
            case _ as kind:
                assert_never(kind)
    except JournalError as error:
        return error.code
    return None


async def _compare(model: Journal, ours: Sequence[Journal], where: str) -> None:
    wanted = await model.outbox()
    for journal in ours:
        for run in RUNS:
            same(f"events of {run} {where}", await journal.read(run), await model.read(run))
            same(f"letters of {run} {where}", await journal.letters(run), await model.letters(run))
        same(f"runs {where}", await journal.runs(), await model.runs())
        same(f"ids {where}", await journal.find(""), await model.find(""))
        same(f"answer {where}", await journal.recall("m"), await model.recall("m"))
        found = await journal.outbox()
        same(f"messages {where}", [(one.key, one.value) for one in found], [(one.key, one.value) for one in wanted])
