"""The data set of the router: its plans pass the gates and the grammar under which they will be decoded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.router_data import SETS, made, pieces, wanted
from orchestra.router.notation import Answer, Literal, Step, read_plan

WORDS = (
    "Does it rain in May?",
    "What was sold in 2019?",
    "Hens lay eggs.",
    "my card was stolen",
    "book me a table",
    "for 3 people at 7 pm",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for (name, (_, field)), text in zip(SETS.items(), WORDS, strict=True):
        (tmp_path / name).mkdir()
        rows = [{"input": {field: f"{text} number {number}"}} for number in range(30)] + [
            {"input": {field: "x" * 300}},
            {"input": {field: "?"}},
        ]
        (tmp_path / name / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_texts_of_a_plan_are_pieces_of_its_request(folder: Path) -> None:
    for one in wanted(pieces(folder), 40):
        stated = [
            value.value
            for step in read_plan(one.plan)
            if isinstance(step, Step)
            for value in step.arguments.values()
            if isinstance(value, Literal)
        ]
        assert all(text in one.request for text in stated if isinstance(text, str))


def test_pieces_are_short_and_taken_once(folder: Path) -> None:
    found = pieces(folder)
    assert all(len(texts) == 30 for name, texts in found.items() if name in SETS)
    plans = "\n".join(one.plan for one in wanted(found, 60))
    assert all(plans.count(f'claim="{text}"') <= 1 for text in found["factcheckgpt"])


async def test_rows_are_made_of_plans_that_the_gates_accept(folder: Path) -> None:
    data = await made(folder, 30)
    assert sum(len(rows) for rows in data.rows.values()) == 30
    row = data.rows["train"][0]
    assert row.input["plan"] == row.input["grammar"] == ""
    assert row.output.splitlines()[-1].startswith("return ")
    assert data.manifest.agent == "router"


def test_what_nothing_serves_or_lacks_what_it_needs_has_no_plan(folder: Path) -> None:
    found = pieces(folder)
    hopeless = [one for one in wanted(found, 100) if one.plan == str(Answer(()))]
    strange = [one for one in hopeless if any(text in one.request for name in ("tasks", "clinc150") for text in found[name])]
    lacking = [one for one in hopeless if one not in strange]
    assert len(strange) > 2
    assert len(lacking) > 2
    assert not any("documents" in one.values and "text" in one.values for one in lacking)
