"""Threads: turns that are runs, follow-ups over earlier values, and what a thread keeps: budget, label, history."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import BudgetExceeded, InputError, Orchestra
from orchestra.app.threads import FOLLOW_UP, THREAD_TAG, Turn, answer_values, remaining_budget
from orchestra.core.events import RunStarted, Usage
from orchestra.core.settings import Settings
from orchestra.router.follow_ups import Resolution
from orchestra.workflows.model import Budget

TABLE = [
    ["Quarter", "Town", "Sales"],
    ["Q1", "Sligo", "120"],
    ["Q2", "Sligo", "150"],
    ["Q1", "Galway", "70"],
    ["Q2", "Galway", "90"],
]
SLIGO = "What were the sales of Sligo in Q1?"


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Orchestra]:
    (folder / "orchestra.toml").write_text('journal = "runs.db"\n')
    async with Orchestra.open(Settings.load({}, start=folder), fleet="none") as orchestra:
        yield orchestra


async def started_event(orchestra: Orchestra, run: str) -> RunStarted:
    first = (await orchestra.journal.read(run))[0]
    assert isinstance(first, RunStarted)
    return first


async def test_thread_follow_up_continues_earlier_request(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        thread = orchestra.thread("sales")
        first = await thread.ask(SLIGO, table=TABLE)
        second = await thread.ask("and in Q2?", table=TABLE)
    assert (first.request, first.status) == (SLIGO, "done")
    assert "120" in first.answer
    assert (second.number, second.request) == (2, "What were the sales of Sligo in Q2?")
    assert "150" in second.answer


async def test_thread_is_read_from_journal_by_another_process(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from tests.app.test_threads import *\n"
        "async def main():\n"
        "    async with opened(Path(sys.argv[1])) as orchestra:\n"
        "        await orchestra.thread('sales').ask(SLIGO, table=TABLE)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), cwd=Path(__file__).parents[2]
    )
    assert await process.wait() == -signal.SIGKILL
    async with opened(tmp_path) as orchestra:
        thread = orchestra.thread("sales")
        (turn,) = await thread.turns()
        assert (turn.number, turn.text, turn.status) == (1, SLIGO, "done")
        assert "150" in (await thread.ask("and in Q2?", table=TABLE)).answer


async def test_turn_records_text_and_resolution_in_its_run(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        thread = orchestra.options(tags={"customer": "42"}).thread("sales")
        await thread.ask(SLIGO, table=TABLE)
        turn = await thread.ask("and Galway?", table=TABLE)
        first = await started_event(orchestra, turn.run)
        read = (await thread.turns())[-1]
    assert first.tags == {"customer": "42", THREAD_TAG: "sales"}
    assert first.inputs["request"] == "What were the sales of Galway in Q1?"
    assert first.inputs[FOLLOW_UP] == {
        "text": "and Galway?",
        "number": 2,
        "status": "resolved",
        "turn": 1,
        "replaced": "Sligo -> Galway (value of Town)",
        "reason": "",
    }
    assert (read.text, read.request, read.resolution.status) == ("and Galway?", first.inputs["request"], "resolved")


async def test_thread_computes_with_earlier_value(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        thread = orchestra.thread("sales")
        await thread.ask(SLIGO, table=TABLE)
        turn = await thread.ask("What is 20 % of that?", table=TABLE)
        first = await started_event(orchestra, turn.run)
    assert (turn.request, turn.answer) == ("What is 20 % of 120?", "24.")
    assert "table" not in first.inputs  # a computation of stated numbers reads no table


async def test_thread_runs_nothing_if_meaning_is_unclear(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        thread = orchestra.thread("sales")
        fragment = await thread.ask("and in Q2?", table=TABLE)
        await thread.ask("How did sales of Sligo change from Q1 to Q2?", table=TABLE)
        unclear = await thread.ask("and Q3?", table=TABLE)
        runs = await orchestra.runs()
    assert fragment.needs_choice
    assert fragment.resolution.reason == "“in Q2” is no full request, and there is no earlier request"
    assert (unclear.needs_choice, len(unclear.resolution.options)) == (True, 2)
    assert len(runs) == 1


async def test_thread_turns_go_one_after_the_other(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        thread = orchestra.thread("sales")
        turns = await asyncio.gather(*(thread.ask(SLIGO, table=TABLE) for _ in range(3)))
        read = await thread.turns()
    assert sorted(turn.number for turn in turns) == [1, 2, 3]
    assert [turn.number for turn in read] == [1, 2, 3]


async def test_threads_do_not_share_turns(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        await orchestra.thread("sales").ask(SLIGO, table=TABLE)
        assert await orchestra.thread("other").turns() == []
        assert (await orchestra.thread("other").ask("and in Q2?", table=TABLE)).needs_choice


async def test_thread_label_of_earlier_turns_holds_for_later_ones(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        await orchestra.options(label="restricted").thread("sales").ask(SLIGO, table=TABLE)
        turn = await orchestra.thread("sales").ask("What is 20 % of that?")
        first = await started_event(orchestra, turn.run)
        alone = await orchestra.thread("other").ask(SLIGO, table=TABLE)
    assert (turn.label, first.label) == ("restricted", "restricted")
    assert alone.label == "internal"


async def test_thread_budget_covers_all_turns(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        thread = orchestra.thread("sales", budget=Budget(calls=2))
        await thread.ask(SLIGO, table=TABLE)
        second = await thread.ask("and in Q2?", table=TABLE)
        first = await started_event(orchestra, second.run)
        with pytest.raises(BudgetExceeded) as caught:
            await thread.ask("and Galway?", table=TABLE)
        larger = await orchestra.thread("sales", budget=Budget(calls=9)).ask("and Galway?", table=TABLE)
    assert first.options["budget"] == {"calls": 1}
    assert (caught.value.code, caught.value.message) == ("E042", "the thread sales has used 2 of 2 calls")
    assert larger.status == "done"


def test_remaining_budget_subtracts_each_limit() -> None:
    used = Usage(calls=1, seconds=2.0, prompt_tokens=30, output_tokens=12)
    left = remaining_budget(Budget(tokens=100, seconds=10.0), used, "sales")
    assert left == Budget(tokens=58, seconds=8.0)


async def test_thread_delete_deletes_its_runs_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        thread, other = orchestra.thread("sales"), orchestra.thread("other")
        await thread.ask(SLIGO, table=TABLE)
        await thread.ask("and in Q2?", table=TABLE)
        kept = await other.ask(SLIGO, table=TABLE)
        assert await thread.delete() == 2
        assert [run.run for run in await orchestra.runs()] == [kept.run]
        assert (await thread.ask("and in Q2?", table=TABLE)).needs_choice
        assert (await thread.ask(SLIGO, table=TABLE)).number == 1


def test_blocking_thread_answers_and_deletes(tmp_path: Path) -> None:
    (tmp_path / "orchestra.toml").write_text('journal = "runs.db"\n')
    with Orchestra.open_sync(Settings.load({}, start=tmp_path), fleet="none") as orchestra:
        thread = orchestra.thread("sales")
        thread.ask(SLIGO, table=TABLE)
        assert "150" in thread.ask("and in Q2?", table=TABLE).answer
        assert [turn.number for turn in thread.turns()] == [1, 2]
        assert (thread.id, thread.delete()) == ("sales", 2)


@pytest.mark.parametrize("id", ["", "a\nb", "x" * 201])
async def test_thread_invalid_id_refused(tmp_path: Path, id: str) -> None:
    async with opened(tmp_path) as orchestra:
        with pytest.raises(InputError) as caught:
            orchestra.thread(id)
    assert caught.value.code == "E040"


@pytest.mark.parametrize(
    ("output", "values"),
    [
        ({"text": "Ann.", "findings": [{"question": "Who?", "answer": "Ann"}]}, ["Ann"]),
        ({"text": None, "findings": []}, []),
        ({"s1": {"text": "A.", "findings": [{"question": "?", "answer": "A"}]}, "s2": {"answer": 5.0}}, ["A", "5"]),
        ({"answer": None}, []),
        (["x", "y" * 300], ["x"]),
        (True, []),
        (None, []),
        ([str(number) for number in range(50)], [str(number) for number in range(12)]),
    ],
)
def test_answer_values_are_typed_and_bounded(output: Any, values: list[str]) -> None:
    assert list(answer_values(output)) == values


def test_turn_answer_is_bounded() -> None:
    turn = Turn(1, "?", Resolution("complete", "?"), "r", "done", {"text": "word " * 5000})
    assert len(turn.as_earlier().answer) <= 2000
