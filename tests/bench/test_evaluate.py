"""`make evaluate`: tables between markers, failing agents, and a complete call for an agent that needs no fleet."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.evaluate import OWN, Task, carry_out, in_order, main, needed, tasks_of, write
from bench.evaluation_tables import Measured, card_with, page_with, rates_of, reached
from bench.machine import ROOT
from orchestra.agents.card import Card
from orchestra.learn.evaluation.config import Evaluation, RowSelection

PLAN = Evaluation.model_validate(
    {
        "data": "a set",
        "rows": {"file": "begin/dev.jsonl", "sample": 10, "seed": 3},
        "metrics": {"EM": {"of": "exact", "field": "answer"}, "accepted and wrong": {"of": "wrong", "field": "answer"}},
        "goals": {"EM": 0.5, "accepted and wrong": 0.1},
        "floors": {"a rule | of thumb": {"EM": 0.45, "accepted and wrong": 0.4}},
    }
)


def arm(name: str, value: float, seconds: float = 0.0) -> dict[str, Any]:
    figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {
        "arm": name,
        "metrics": {"EM": figure, "accepted and wrong": {**figure, "value": 1 - value}},
        "answered": 1.0,
        "failed": 0,
        "rows": 10,
        "prompt_tokens": 1000 if seconds else 0,
        "output_tokens": 50,
        "seconds": seconds,
    }


def measured(agent: str, value: float, name: str = "begin") -> Measured:
    arms = [arm("floor: the most frequent output", 0.2), arm("its untuned base", 0.1, 9.0), arm("as it is", value, 5.0)]
    return Measured(agent, name, PLAN, {"rows": 10, "arms": arms}, "2026-11-25")


def test_card_with_replaces_between_markers() -> None:
    before = "# it\n\n<!-- evaluation -->\nold\n<!-- end:evaluation -->\n\n**Limits.** Many.\n"
    once = card_with(before, [measured("it", 0.6), measured("it", 0.7, "other")])
    assert once.startswith(
        "# it\n\n<!-- evaluation -->\n\n`begin`: a set. 10 rows, seed 3; 2026-11-25. 95 % intervals: by "
    )
    assert once.endswith("<!-- end:evaluation -->\n\n**Limits.** Many.\n")
    assert "| it | 0.600 [0.500, 0.700] | 0.400 [0.500, 0.700] | 1.000 | 100, 5 | 0.50 |" in once
    assert r"| floor: a rule \| of thumb | 0.450 | 0.400 |  |  | measured elsewhere |" in once
    assert "| the goal | 0.500 | 0.100 |" in once
    assert once.index("evaluation begin") < once.index("evaluation other")
    assert "old" not in once
    assert card_with(once, [measured("it", 0.6), measured("it", 0.7, "other")]) == once


def test_card_with_adds_missing_markers() -> None:
    once = card_with("# it\n", [measured("it", 0.6)])
    assert once.startswith("# it\n\n**Evaluation**\n\n<!-- evaluation -->\n")
    assert card_with(once, [measured("it", 0.6)]) == once


def test_page_with_keeps_known_drops_removed_agents() -> None:
    page = "# all\n\n<!-- begin:evaluations -->\n<!-- end:evaluations -->\n\nThe rest.\n"
    both = page_with(page, [measured("b", 0.6), measured("a", 0.3)], ["a", "b"])
    assert both.endswith("<!-- end:evaluations -->\n\nThe rest.\n")
    assert "| a | begin | 10 | EM | 0.450 | 0.100 | 0.300 [0.200, 0.400] | 0.5 | no | 0.50 |" in both
    assert "| b | begin | 10 | EM | 0.450 | 0.100 | 0.600 [0.500, 0.700] | 0.5 | yes | 0.50 |" in both
    assert (
        "| b | begin | 10 | accepted and wrong | 0.400 | 0.900 | 0.400 [0.500, 0.700] | at most 0.1 | no |  |" in both
    )
    again = page_with(both, [measured("a", 0.7)], ["a", "b"])
    assert again == both.replace("0.300 [0.200, 0.400] | 0.5 | no", "0.700 [0.600, 0.800] | 0.5 | yes").replace(
        "| 0.900 | 0.700 [0.200, 0.400]", "| 0.900 | 0.300 [0.600, 0.800]"
    )
    assert "| b |" not in page_with(both, [measured("a", 0.7)], ["a"])
    assert rates_of(both) == {("a", "begin"): 0.5, ("b", "begin"): 0.5}


def task(agent: str) -> Task:
    card = Card.declare(
        agent,
        input={"type": "object", "properties": {"q": {"type": "string"}}},
        output={"type": "string"},
        prompt="{{ q }}",
    )
    return Task(agent, "begin", PLAN, RowSelection(file="begin/dev.jsonl"), card, 10)


def test_evaluate_failing_agent_does_not_affect_others(tmp_path: Path) -> None:
    def measure(one: Task) -> Measured:
        if one.agent == "broken":
            raise subprocess.CalledProcessError(1, "learn evaluate")
        if one.agent == "slow":
            raise subprocess.TimeoutExpired("learn evaluate", 1)
        return measured(one.agent, 0.6)

    told: list[str] = []
    kept: list[str] = []
    tasks = [task("a"), task("broken"), task("slow"), task("b"), task("b")]
    found, faults = carry_out(tasks[:4], measure, {}, told.append)
    carry_out(tasks, measure, {}, lambda _: None, keep=lambda good: kept.append(" ".join(one.agent for one in good)))
    assert kept == ["a", "b b"]
    assert [one.agent for one in found] == ["a", "b"]
    assert [fault.partition(":")[0] for fault in faults] == ["broken, begin", "slow, begin"]
    assert [line.partition(",")[0] for line in told] == ["1 of 4: a", "2 of 4: broken", "3 of 4: slow", "4 of 4: b"]
    assert all("left in all" in line for line in told)

    page, agents = tmp_path / "page.md", tmp_path / "agents"
    page.write_text("<!-- begin:evaluations -->\n<!-- end:evaluations -->\n", "utf-8")
    for name in ("a", "b"):
        (agents / name).mkdir(parents=True)
        (agents / name / "evaluation.yaml").touch()
        (agents / name / "card.md").write_text(f"# {name}\n", "utf-8")
    assert {path.parent.name for path in write(found, {"b"}, agents, page)} == {"a", tmp_path.name}
    assert (agents / "b" / "card.md").read_text("utf-8") == "# b\n"
    assert "| b |" not in page.read_text("utf-8")
    assert write(found, {"b"}, agents, page) == []


PAGE = "docs/evaluation/agents.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the extractor, three rows, and a page."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "agents" / "crf_extractor", root / "agents" / "crf_extractor")
    (root / "orchestra.toml").write_text("", "utf-8")
    (root / "docs" / "evaluation").mkdir(parents=True)
    (root / PAGE).write_text("<!-- begin:evaluations -->\n<!-- end:evaluations -->\n", "utf-8")
    span = {"value": "8 people", "start": 4, "end": 12}
    rows = [("for 8 people", {"people": span}), ("Do you have parking?", {}), ("in the garden", {})]
    lines = [
        {"id": str(n), "input": {"text": text, "requested": []}, "expected": {"slots": slots}}
        for n, (text, slots) in enumerate(rows)
    ]
    (tmp_path / "restaurant8k").mkdir()
    for name in ("dev", "train"):
        (tmp_path / "restaurant8k" / f"{name}.jsonl").write_text(
            "".join(f"{json.dumps(line)}\n" for line in lines), "utf-8"
        )
    return root


def run(project: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["evaluate", *arguments])
    return main(project)


def test_evaluate_extractor_writes_card_and_page(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    assert run(project, monkeypatch, "--data", str(project.parent), "--only", "crf_extractor") == 0
    card, page = ((project / name).read_text("utf-8") for name in ("agents/crf_extractor/card.md", PAGE))
    assert (
        "| crf_extractor | restaurant8k | 3 | span F1 | 1.000 |  | 1.000 [0.025, 1.000] | 0.9 | yes, not surely | "
        in page
    )
    assert "3 rows, seed 0; " in card
    assert "95 % intervals: by drawing the rows anew; exact" in card
    assert f"card {Card.load(project / 'agents' / 'crf_extractor').digest[:12]}, learnt " in card
    assert "| floor: values that were seen in training | 1.000 [0.025, 1.000] |" in card


def test_evaluate_ensemble_reuses_member_results(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    agents = project / "agents"
    shutil.copytree(agents / "crf_extractor", agents / "other_extractor")
    shutil.copytree(ROOT / "agents" / "extractor", agents / "both")
    for name, was, becomes in (
        ("other_extractor", "name: crf_extractor", "name: other_extractor"),
        ("both", "name: extractor", "name: both"),
        ("both", "[crf_extractor, encoder_extractor]", "[crf_extractor, other_extractor]"),
    ):
        file = agents / name / "agent.yaml"
        file.write_text(file.read_text("utf-8").replace(was, becomes), "utf-8")
    shutil.copy(agents / "crf_extractor" / "evaluation.yaml", agents / "both" / "evaluation.yaml")

    commands: list[list[str]] = []
    ran = subprocess.run

    def spied(command: list[str], **rest: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return ran(command, **rest)

    monkeypatch.setattr("bench.evaluate.subprocess.run", spied)

    def asked(*only: str) -> tuple[list[str], list[str]]:
        commands.clear()
        assert run(project, monkeypatch, "--data", str(project.parent), "--only", *only) == 0
        order = [
            f"{given[given.index('evaluate') + 1]}{' alone' * ('--no-members' in given)}"
            for given in commands
            if "evaluate" in given
        ]
        table = (agents / "both" / "card.md").read_text("utf-8").partition("<!-- evaluation -->")[2]
        return order, [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]

    floors = ["the most frequent output", "the output of the nearest training row", "values that were seen in training"]
    table = ["", *(f"floor: {floor}" for floor in floors), "crf_extractor", "other_extractor", "both", "the goal"]
    assert asked("both", "crf_extractor", "other_extractor") == (
        ["crf_extractor", "other_extractor", "both alone"],
        table,
    )
    assert asked("both", "crf_extractor") == (["crf_extractor", "both"], table)


def test_evaluate_ensemble_other_rows_reruns_members() -> None:
    tasks = [
        task
        for name in ("reader", "extractive_reader", "generative_reader")
        for task in tasks_of(ROOT / "agents" / name, OWN)[0]
    ]
    assert [(task.agent, task.told) for task in in_order(tasks)] == [
        ("extractive_reader", False),
        ("generative_reader", False),
        ("reader", True),
    ]
    fewer = replace(tasks[1], rows=tasks[1].rows.model_copy(update={"sample": 3}))
    assert not any(task.told for task in in_order([tasks[0], fewer, tasks[2]]))
    assert not any(task.told for task in in_order(tasks[:2]))


def test_evaluate_without_data_lists_required_sets(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, monkeypatch) == 2
    said = capsys.readouterr().err
    assert (
        "restaurant8k/dev.jsonl, restaurant8k/train.jsonl\n"
        "      for crf_extractor: input text, requested; expected slots\n"
    ) in said
    assert "from https://github.com/PolyAI-LDN/task-specific-datasets, CC BY 4.0" in said


def test_evaluate_missing_file_or_agent_reported(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.parent / "restaurant8k" / "train.jsonl").unlink()
    before = (project / "agents" / "crf_extractor" / "card.md").read_text("utf-8")
    assert run(project, monkeypatch, "--data", str(project.parent)) == 1
    assert "failed: crf_extractor, restaurant8k: restaurant8k/train.jsonl not in" in capsys.readouterr().err
    assert (project / "agents" / "crf_extractor" / "card.md").read_text("utf-8") == before
    assert run(project, monkeypatch, "--data", str(project.parent), "--only", "extracter") == 2
    assert "no evaluation.yaml of extracter; there are crf_extractor" in capsys.readouterr().err


OUR_OWN = {
    "calculator": ["problems"],
    "deductive_calculator": ["problems"],
    "entailment": ["claims", "sentences", "shortened", "plain"],
    "extractive_reader": ["passages"],
    "generative_calculator": ["problems"],
    "generative_reader": ["passages"],
    "reader": ["passages"],
    "table_reader": ["tables"],
}


@pytest.mark.parametrize("path", sorted((ROOT / "agents").glob("*/evaluation.yaml")), ids=lambda path: path.parent.name)
def test_shipped_evaluations_name_rows_and_source(path: Path) -> None:
    tasks, faults = tasks_of(path.parent, Path("/nowhere"))
    own = OUR_OWN.get(path.parent.name, [])
    assert [(task.name, task.data) for task in tasks] == [(name, OWN) for name in own], (
        "public rows are not in the tree"
    )
    assert all("not in /nowhere" in fault or "card.md" in fault for fault in faults)
    assert needed(path.parent.parent).count("from https://") >= 4


@pytest.mark.parametrize(
    ("figure", "goal", "less", "said"),
    [
        ((0.949, 0.935, 0.963), 0.94, False, "yes, not surely"),
        ((0.970, 0.961, 0.978), 0.975, False, "no, not surely"),
        ((0.878, 0.814, 0.927), 0.8, False, "yes"),
        ((0.547, 0.487, 0.569), 0.57, False, "no"),
        ((0.12, 0.08, 0.17), 0.15, True, "yes, not surely"),
        ((0.12, 0.08, 0.17), 0.1, True, "no, not surely"),
        ((0.12, 0.08, 0.17), 0.2, True, "yes"),
        ((0.12, 0.08, 0.17), 0.05, True, "no"),
    ],
)
def test_reached_goal_in_interval_is_uncertain(
    figure: tuple[float, float, float], goal: float, less: bool, said: str
) -> None:
    assert reached(dict(zip(("value", "low", "high"), figure, strict=True)), goal, less=less) == said
