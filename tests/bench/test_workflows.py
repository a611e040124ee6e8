"""The evaluation of workflows: correct values are derived from the rows, and every shipped file is valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.workflows import FOLDER, Asked, Expected, bare, floors, read, section
from bench.workflows import test_of as rows_of
from orchestra.agents.registry import Registry
from orchestra.learn.evaluation.metrics import Case, build_metric

RULE = Expected(of="intent", values={"person": ("stolen", "lost"), "booking": ("table",)}, otherwise="assistant")


@pytest.mark.parametrize(
    ("expected", "right"),
    [
        ({"intent": "lost"}, "person"),
        ({"intent": "table"}, "booking"),
        ({"intent": "timer"}, "assistant"),
        ({"intent": {"time": {}}}, "assistant"),
        ({}, "assistant"),
    ],
)
def test_expected_value_from_row_value(expected: dict[str, object], right: str) -> None:
    assert RULE.made(expected) == right


def test_expected_value_added_to_row(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    row = {"id": "1", "input": {"text": "gone"}, "expected": {"intent": "lost"}}
    (tmp_path / "set" / "train.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    asked = Asked.model_validate(
        {
            "rows": {"file": "set/dev.jsonl", "inputs": {"message": "text"}},
            "expect": {"branch": {"of": "intent", "values": {"person": ["lost"]}, "otherwise": "assistant"}},
            "metrics": {"branch": {"of": "accuracy", "field": "branch"}},
        }
    )
    (question,) = rows_of(asked, tmp_path, "train", None).rows
    assert (question.input, question.expected) == ({"message": "gone"}, {"intent": "lost", "branch": "person"})

    more = [{**row, "id": str(n), "expected": {"intent": intent}} for n, intent in enumerate(("lost", "timer", "tea"))]
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in more), "utf-8")
    (floor,) = floors(asked, rows_of(asked, tmp_path, "train", None))
    assert build_metric("it", asked.metrics["branch"]).compute(floor.cases) == pytest.approx(
        2 / 3
    )  # everything to the assistant


def test_message_to_person_is_not_accepted() -> None:
    wrong = build_metric("it", read(FOLDER / "support_desk.yaml").evaluations["clinc150"].metrics["accepted and wrong"])
    found = [wrong.case_score(Case({"branch": "bank"}, {"branch": branch})) for branch in ("bank", "person", "booking")]
    assert found == [(0.0, 1.0), (0.0, 1.0), (1.0, 1.0)]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_evaluation_files_name_workflow_and_source(path: Path) -> None:
    file = read(path)
    assert (FOLDER.parents[1] / "workflows" / f"{file.workflow}.yaml").is_file()
    assert all(one.rows and one.source.startswith("https://") for one in file.evaluations.values())


def test_bare_project_only_drops_adapters(tmp_path: Path) -> None:
    folder = bare(tmp_path)
    cards = Registry.load([folder / "agents"]).cards
    assert cards["generative_calculator"].adapter is None
    assert cards["generative_calculator"].template == Registry.load().cards["generative_calculator"].template
    assert (folder / "workflows" / "financial_question.yaml").is_file()


def test_workflows_page_has_section_for_each() -> None:
    page = "# It\n\n<!-- evaluation:one -->\nold\n<!-- end:evaluation:one -->\n\nThe rest.\n"
    assert section(page, "one", []) == "# It\n\n<!-- evaluation:one -->\n\n\n<!-- end:evaluation:one -->\n\nThe rest.\n"
