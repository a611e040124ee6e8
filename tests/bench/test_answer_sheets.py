"""Answer sheets: answered rows are not run again, unless another agent answered them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from bench.answer_sheets import SETS, Arm, Sheet, as_input, read
from orchestra.agents.card import Card
from orchestra.agents.registry import builtin_folder
from orchestra.learn.evaluation.rows import EvaluationRow

TEXT = {
    "type": "object",
    "properties": {"question": {"type": "string"}},
    "required": ["question"],
    "additionalProperties": False,
}
CARD = Card.declare("reader", input=TEXT, output={"type": "string"}, prompt="{{ question }}")
ARM = Arm(SETS[0], "base", CARD, {"a": {"question": "Who?"}, "b": {"question": "When?"}})


def test_missing_rows_after_card_or_input_change(tmp_path: Path) -> None:
    assert ARM.missing(tmp_path) == ["a", "b"]
    sheets = [Sheet("a", "it", of=ARM.marks["a"]), Sheet("b", "then", of=ARM.marks["b"])]
    ARM.file(tmp_path).write_bytes(b"".join(msgspec.json.encode(sheet) + b"\n" for sheet in sheets))
    assert ARM.missing(tmp_path) == []
    assert replace(ARM, inputs={**ARM.inputs, "b": {"question": "Where?"}}).missing(tmp_path) == ["b"]
    assert replace(ARM, card=CARD.with_settings(max_output=9)).missing(tmp_path) == ["a", "b"]
    assert ARM.missing(tmp_path / "elsewhere") == ["a", "b"]


def test_digest_includes_weights(tmp_path: Path) -> None:
    marks = []
    for weights in ("one", "two"):
        (tmp_path / "adapter").mkdir(exist_ok=True)
        (tmp_path / "adapter" / "manifest.json").write_text(f'{{"sha256": "{weights}"}}')
        marks.append(replace(ARM, card=CARD.with_settings(adapter="adapter", folder=tmp_path)).marks)
    assert marks[0] != marks[1]


def test_missing_removes_outdated_answers_first(tmp_path: Path) -> None:
    """An interrupted collection uses no outdated answer, and no row occurs twice."""
    rows = [
        Sheet("a", "of before"),
        Sheet("b", "then", of=ARM.marks["b"]),
        Sheet("c", "of a larger sample", of="other"),
        Sheet("d", "of both"),
    ]
    ARM.file(tmp_path).write_bytes(b"".join(msgspec.json.encode(sheet) + b"\n" for sheet in rows))
    assert ARM.missing(tmp_path) == ["a"]
    assert {name: sheet.output for name, sheet in read(ARM.file(tmp_path)).items()} == {
        "b": "then",
        "c": "of a larger sample",
    }


def test_as_input_same_or_adapted_inputs() -> None:
    asked = EvaluationRow("a", {"question": "What are 2 and 3?"}, {"answer": 5})
    assert as_input(CARD, asked) == {"question": "What are 2 and 3?"}
    tables = Card.load(builtin_folder("agents") / "table_reader")
    assert as_input(tables, asked) == {
        "question": "What are 2 and 3?",
        "table": [],
        "paragraphs": ["What are 2 and 3?"],
    }
