"""ParallelQA: the recorded steps, and all arms on one simulated server, with the same actions, look-ups and answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.machine import ROOT
from bench.parallel import ARMS, ELEMENT, mapped_lines, measured, ratio, section, share
from bench.parallel_node import mapped_lines as node_lines
from bench.parallel_node import plan_lines
from bench.parallel_steps import Question, Trace, computed, questions
from orchestra.core.settings import Settings
from orchestra.testing.fake_vllm.faults import SimulatedRequest
from orchestra.testing.fake_vllm.server import SimulatedServer
from tests.bench.test_planners import FLEET

ROWS = [
    (
        "parallelqa-1",
        "The Mariana Trench 20% shallower, the Puerto Rico Trench 20% deeper: which is shallower?",
        "Mariana Trench",
    ),
    ("parallelqa-104", "What is the minimum depth difference in meters?", "137"),
]


READS = "Answer the question with words of the passage"


@pytest.fixture
def rows(tmp_path: Path) -> list[Question]:
    said = [
        {"id": name, "input": {"question": text}, "expected": {"answer": answer, "branch": 2}}
        for name, text, answer in ROWS
    ]
    said.append(
        {"id": "parallelqa-2", "input": {"question": "Not recorded?"}, "expected": {"answer": "1", "branch": 2}}
    )
    (tmp_path / "dev.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in said), "utf-8")
    return questions(tmp_path / "dev.jsonl")


def test_questions_have_facts_unrecorded_left_out(
    rows: list[Question],
) -> None:
    assert [one.id for one in rows] == ["parallelqa-1", "parallelqa-104"]
    fact = rows[0].facts[0]
    assert fact.question == "What is the depth of the Mariana Trench?"
    assert fact.action == 'lookup("depth of the Mariana Trench")'
    assert (
        fact.passage
        == "The Mariana Trench has a depth of 10,984 metres. The Puerto Rico Trench has a depth of 8,376 metres."
    )
    assert rows[0].computation == 'compute("smallest(0.8 * s1, 1.2 * s2)")'


def test_recorded_steps_have_facts_and_terms(tmp_path: Path) -> None:
    numbers = re.findall(r'^  "(\d+)": ', (ROOT / "bench" / "parallel.yaml").read_text("utf-8"), re.MULTILINE)
    said = [{"id": f"parallelqa-{one}", "input": {"question": "?"}, "expected": {"answer": "1"}} for one in numbers]
    (tmp_path / "all.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in said), "utf-8")
    found = questions(tmp_path / "all.jsonl")
    assert len(found) == len(set(numbers)) == 58
    assert all(len(one.facts) == max(map(int, re.findall(r"s(\d)", one.term))) for one in found)
    assert None not in [
        computed(one.term, ["1,000"] * len(one.facts), [fact.of for fact in one.facts]) for one in found
    ]


def test_terms_use_first_figure_of_reading() -> None:
    assert computed("largest(0.5 * s1, s2)", ["10,984 metres", "5,600 m (2024)"], ["a", "b"]) == "b"
    assert computed("(s1 + s2) / 2", ["1,000.5", "2"], []) == "501.25"
    assert computed("1000000 * s1", ["77.8465"], []) == "77846500"
    assert computed("s1 / s2", ["1", "0"], []) is None
    assert computed("s1 + s2", ["1", None], []) is None
    assert computed("s1 + s2", ["1", "no figure"], []) is None
    assert computed("__import__('os')", ["1"], []) is None


def reads(request: SimulatedRequest) -> Any:
    """A reader that quotes the figure of the first sentence; the simulation generates forced texts."""
    if READS not in request.prompt:
        return None
    found = re.search(r"has a [\w ]+ of ([\d,.]+ \w+)", request.prompt)
    return {"answer": found[1] if found else None}


async def traces_of(folder: Path, rows: list[Question], answer: Any = reads) -> list[dict[str, Trace]]:
    pytest.importorskip("llguidance")
    packaged, agent = ROOT / "agents" / "generative_reader", folder / "agents" / "generative_reader"
    agent.mkdir(parents=True)
    card = (packaged / "agent.yaml").read_text("utf-8").replace("adapter: adapter\n", "")
    (agent / "agent.yaml").write_text(card, "utf-8")
    (agent / "prompt.md").write_text((packaged / "prompt.md").read_text("utf-8"), "utf-8")
    (folder / "orchestra.toml").write_text("", "utf-8")
    async with SimulatedServer("m", answer=answer, first_token=0.02) as server:
        (folder / "fleet.yaml").write_text(FLEET.replace("URL", server.url), "utf-8")
        settings = Settings.load({"fleet": str(folder / "fleet.yaml"), "journal": "off"}, start=folder, environ={})
        return await measured(settings, [rows[0], *rows], seed=0, fleet="none")


async def test_parallel_arms_do_same_work(tmp_path: Path, rows: list[Question]) -> None:
    found = await traces_of(tmp_path, rows)
    assert [{trace.answer for trace in traces.values()} for traces in found] == [{"the Mariana Trench"}, {"137"}]
    for asked, traces in zip(rows, found, strict=True):
        facts = len(asked.facts)
        assert {arm: (trace.planning.calls, trace.reading.calls) for arm, trace in traces.items()} == {
            "react": (facts + 2, facts),
            "act": (facts + 2, facts),
            "whole": (1, facts),
            "streamed": (1, facts),
            "lines": (facts + 2, facts),
            "mapped": (1, facts),
            "mapped_streamed": (1, facts),
            "node": (facts + 1, facts),  # the answer follows the last step
            "node_mapped": (2, facts),
        }
        assert "".join(traces["node"].written).splitlines() == plan_lines(asked)
        assert "".join(traces["node_mapped"].written).splitlines() == node_lines(asked)
        assert traces["node"].fault == traces["node_mapped"].fault == ""
        written = {arm: "\n".join(trace.written) for arm, trace in traces.items() if not arm.startswith("node")}
        assert written.pop("mapped") == written.pop("mapped_streamed") == "\n".join(mapped_lines(asked))
        for text in written.values():
            assert re.findall(r"(?:lookup|compute)\(.*\)", text) == [
                *(fact.action for fact in asked.facts),
                asked.computation,
            ]
        assert written["whole"] == written["streamed"] == written["lines"]
        assert written["act"] == "\n".join(line for line in written["react"].splitlines() if line.startswith("Action"))
        assert all(0 < trace.first < trace.seconds for trace in traces.values())


def test_mapped_lines_group_similar_lookups(rows: list[Question]) -> None:
    names = ["the Mariana Trench", "the Puerto Rico Trench"]
    assert rows[0].alike == [("depth", names)]
    assert (
        mapped_lines(rows[0])[0]
        == 's1 = [lookup("depth", x) for x in ["the Mariana Trench", "the Puerto Rico Trench"]]'
    )
    for asked in rows:
        text = "\n".join(mapped_lines(asked))
        assert [one.lstrip('[, "').rstrip('"') for one in ELEMENT.findall(text)] == [fact.of for fact in asked.facts]


async def test_parallel_section_shows_ratio_and_minimum(tmp_path: Path, rows: list[Question]) -> None:
    found = await traces_of(tmp_path, rows)
    text = section(found, rows, "python -m bench.parallel", "today")
    assert "2 questions with 3.5 facts each, seed 0; today." in text
    assert text.count("\n| `") == len(ARMS)
    assert "- `react` takes " in text
    assert "The floor of 0.8 right answers is kept by all arms." in text
    for arm in found[0]:
        assert share(found, rows, arm).value == 1.0


async def test_parallel_useless_reader_misses_minimum(tmp_path: Path, rows: list[Question]) -> None:
    found = await traces_of(tmp_path, rows[:1], lambda request: {"answer": None} if READS in request.prompt else None)
    assert {arm: trace.answer for arm, trace in found[0].items()} == dict.fromkeys(ARMS)
    assert f"missed by {', '.join(ARMS)}: the times mean nothing" in section(found, rows[:1], "", "")


def test_parallel_ratio_over_all_questions() -> None:
    found = [
        {"react": Trace(seconds=4.0), "whole": Trace(seconds=1.0)},
        {"react": Trace(seconds=2.0), "whole": Trace(seconds=2.0)},
    ]
    assert ratio(found, "react", "whole").value == 2.0
