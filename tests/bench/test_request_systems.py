"""`python -m bench.requests`: the systems over simulated workers and servers, the selection of requests, the report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.requests.__main__ import choose_requests, evaluate, parse_arguments, run
from bench.requests.baselines import Model, Rag, React, Stuffed, documents_of, open_tables, use_tool
from bench.requests.report import Row, write_report
from bench.requests.scoring import Score, Status
from bench.requests.systems import Answer, System, copy_files, cpu_seconds, open_orchestra_system
from bench.requests.worlds import Request, World, read_worlds
from orchestra import Orchestra
from orchestra.app.planning import PlanOptions
from orchestra.core.protocols import CallError, CallRequest
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers
from orchestra.testing.fake_vllm.faults import SimulatedRequest
from orchestra.testing.fake_vllm.server import SimulatedServer

DENTAL = read_worlds("dev", ["dental"])[0]
LEAVE, ABSENT = DENTAL.requests[0], next(one for one in DENTAL.requests if not one.answerable)
PLAN = ("s1 = search(query=input.request, documents=input.documents)", "return s1")
BROKEN = CallError(code="T002", reason="the index is broken")
PASSAGE = {"source": "staff_handbook.md", "start": 0, "end": 7, "text": "27 days", "score": 1.0}


async def answer_with(tmp_path: Path, router: Callable[[CallRequest], Any], found: Any) -> Answer:
    (tmp_path / "orchestra.toml").write_text("")
    settings = Settings.load({"journal": "off"}, start=tmp_path, environ={})
    workers = SimulatedWorkers({"router": router, "search": found})
    opened = Orchestra.open(settings, workers=workers, journal=MemoryJournal())
    async with open_orchestra_system(opened, PlanOptions(only=("search",), cache=False)) as system:
        return await system.answer(DENTAL, LEAVE)


async def test_orchestra_answers_by_its_plan(tmp_path: Path) -> None:
    answer = await answer_with(tmp_path, lambda call: PLAN[bool(call.inputs["plan"])], [PASSAGE])
    assert (answer.status, answer.text, answer.steps, answer.calls) == ("done", "27 days", PLAN, 3)


async def test_orchestra_without_a_plan_refuses(tmp_path: Path) -> None:
    answer = await answer_with(tmp_path, lambda call: "s1 = telephone(number=1)", [])
    assert (answer.status, answer.text, answer.steps) == ("refused", "", ())
    assert "telephone" in answer.reason


async def test_orchestra_with_a_failed_step_fails(tmp_path: Path) -> None:
    answer = await answer_with(tmp_path, lambda call: PLAN[bool(call.inputs["plan"])], lambda call: BROKEN)
    assert (answer.status, answer.text) == ("failed", "")
    assert "the index is broken" in answer.reason


def test_copied_files_have_no_requests(tmp_path: Path) -> None:
    folder = copy_files(DENTAL, tmp_path)
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert names == {file.relative_to(DENTAL.folder).as_posix() for file in DENTAL.files}
    assert {"documents/staff_handbook.md", "tables/stock.csv"} <= names


async def asked(system: Callable[[Model], System], *texts: str) -> tuple[Answer, Sequence[SimulatedRequest]]:
    """Returns the answer of a comparison to the first request, and what its model received."""
    async with SimulatedServer("small", answer=lambda request: texts[min(request.number, len(texts)) - 1]) as server:
        answer = await system(Model(f"{server.url}/v1", "small")).answer(DENTAL, LEAVE)
        return answer, server.app.requests


async def test_stuffed_prompt_has_all_files() -> None:
    answer, requests = await asked(Stuffed, "27 days")
    assert (answer.status, answer.text, answer.calls, len(requests)) == ("done", "27 days", 1, 1)
    assert all(f"=== {file.name} ===" in requests[0].prompt for file in DENTAL.files)
    assert LEAVE.request in requests[0].prompt
    assert answer.prompt_tokens > 1000
    assert answer.output_tokens == 2


async def test_rag_prompt_has_found_passages_only() -> None:
    answer, requests = await asked(Rag, "27 days")
    assert (answer.text, answer.calls) == ("27 days", 1)
    assert 1 <= requests[0].prompt.count("=== ") // 2 <= 5
    assert answer.prompt_tokens < 1500


async def test_react_uses_tools_until_it_answers() -> None:
    answer, requests = await asked(
        React,
        "I look it up.\nsearch: annual leave full-time",
        "sql: select sum(Missed) from appointments",
        "calculate: 27 + 2",
        "answer: 27 days",
    )
    assert (answer.status, answer.text, answer.calls) == ("done", "27 days", 4)
    last = requests[-1].prompt
    assert "27 days of annual leave" in last
    assert "Result: 132" in last
    assert "Result: 29" in last
    assert 'Table "appointments": "Month", "Practitioner"' in last


async def test_react_ends_after_its_turns() -> None:
    answer, _ = await asked(lambda model: React(model, turns=3), "search: leave")
    assert (answer.status, answer.text, answer.calls) == ("failed", "", 3)


async def test_react_answer_without_form_is_the_text() -> None:
    assert (await asked(React, "You have 27 days."))[0].text == "You have 27 days."


@pytest.mark.parametrize("system", [Stuffed, Rag, React])
async def test_comparison_with_unknown_model_fails(system: Callable[[Model], System]) -> None:
    async with SimulatedServer("small") as server:
        answer = await system(Model(f"{server.url}/v1", "large")).answer(DENTAL, LEAVE)
    assert (answer.status, answer.text) == ("failed", "")
    assert "404" in answer.reason


@pytest.mark.parametrize(
    ("tool", "text", "result"),
    [
        ("open", "`documents/infection_control.txt`", "INFECTION CONTROL"),
        ("open", "nothing.md", "there is no file nothing.md"),
        ("sql", "select count(*) from stock;", "8"),
        ("sql", "select Colour from stock", "error: no such column"),
        ("sql", "delete from stock", "error: attempt to write a readonly database"),
        ("calculate", "585 * 0.85", "497.25"),
        ("calculate", "__import__('os')", "error: "),
        ("search", "zzzz", "nothing found"),
    ],
)
def test_react_tool_returns_text(tool: str, text: str, result: str) -> None:
    assert use_tool(tool, text, documents_of(DENTAL), open_tables(DENTAL)).startswith(result)


class Fixed:
    """A system with one answer to all requests, or none in time."""

    def __init__(self, text: str = "", status: Status = "done") -> None:
        self.text, self.status = text, status

    async def answer(self, world: World, request: Request) -> Answer:
        if self.text == "late":
            await asyncio.Event().wait()
        return Answer(self.status, self.text, prompt_tokens=10, output_tokens=2, calls=1)


async def test_evaluation_writes_a_line_for_each_request(tmp_path: Path) -> None:
    with (tmp_path / "lines.jsonl").open("w") as out:
        rows = await evaluate(Fixed("27 days"), [(DENTAL, LEAVE), (DENTAL, ABSENT)], out)
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [row.score.verdict for row in rows] == [line["verdict"] for line in lines] == ["right", "wrong"]
    assert (lines[0]["id"], lines[0]["answer"], lines[0]["needs"]) == ("dental-01", "27 days", ["read"])


async def test_evaluation_without_an_answer_in_time_fails() -> None:
    rows = await evaluate(Fixed("late"), [(DENTAL, LEAVE), (DENTAL, ABSENT)], timeout=0.01)
    assert [(row.answer.status, row.score.verdict) for row in rows] == [("failed", "no answer")] * 2


def test_report_counts_by_kind_and_words() -> None:
    rows = [
        Row(LEAVE, Answer("done", "27 days", prompt_tokens=100, calls=2), Score("right"), 1.0, 2.0),
        Row(LEAVE, Answer("done", "25 days", prompt_tokens=300, calls=4), Score("wrong"), 3.0, 4.0),
        Row(ABSENT, Answer("refused", ""), Score("no answer"), 2.0, 0.0),
    ]
    text = write_report(rows, "Title", "today, a CPU")
    assert "# Title\n\ntoday, a CPU." in text
    assert "| all | 3 | 1 (33%) | 1 (33%) | 1 (33%) | 2.00 / 2.80 | 133 | 0 | 2.0 | 2.0 |" in text
    assert "| dental | 3 | 1 (33%) | 1 (33%) | 1 (33%) | 2.00 / 2.80 |" in text
    assert "| other words | 2 | 1 (50%) | 1 (50%) | 0 (0%) | 2.00 / 2.80 |" in text
    assert "| unanswerable | 1 | 0 (0%) | 0 (0%) | 1 (100%) | 2.00 / 2.00 |" in text


def test_limit_spreads_over_all_worlds() -> None:
    chosen = choose_requests(read_worlds("dev"), limit=8)
    assert len(chosen) == 8
    assert {world.name for world, _ in chosen} == {"brewery", "dental", "language_school", "tool_rental"}
    assert len(choose_requests([DENTAL], kinds=["claim"])) == 3
    assert [one.id for _, one in choose_requests([DENTAL], ids=["dental-05"])] == ["dental-05"]


def test_unknown_world_is_an_error() -> None:
    with pytest.raises(ValueError, match="no world bakery in dev: brewery, dental"):
        read_worlds("dev", ["bakery"])


def test_comparison_needs_an_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--system", "rag"])
    assert "--system rag needs --endpoint and --model" in capsys.readouterr().err


async def test_command_line_writes_lines_and_table(tmp_path: Path) -> None:
    async with SimulatedServer("small", answer=lambda request: "27 days") as server:
        options = ["--system", "stuffed", "--endpoint", f"{server.url}/v1", "--model", "small"]
        lines, table = await run(
            parse_arguments([*options, "--worlds", "dental", "--limit", "2", "--out", str(tmp_path)])
        )
    assert lines == tmp_path / "dev_stuffed.jsonl"
    assert len(lines.read_text().splitlines()) == 2
    assert (tmp_path / "dev_stuffed.md").read_text() == table
    assert "Requests of an office: dev, stuffed, small" in table


def test_cpu_seconds_count_own_work() -> None:
    began = cpu_seconds()
    while (used := cpu_seconds() - began) == 0:
        sum(range(100_000))
    assert used > 0
