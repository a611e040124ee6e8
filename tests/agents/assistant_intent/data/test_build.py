"""The training rows of the agents `assistant_intent` and `banking_intent`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from agents.assistant_intent.data import build as assistant_intent
from agents.assistant_intent.data.build import OUTSIDE
from agents.banking_intent.data import build as banking_intent
from orchestra.learn.encoders.texts import LabelledText


def write_lines(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def question(text: str, source: str = "mmlu", subject: str = "law") -> dict[str, Any]:
    return {"input": {"question": text, "set": source}, "expected": {"subject": subject}}


def intent(text: str, label: str) -> dict[str, Any]:
    return {"input": {"text": text}, "expected": {"intent": label}}


def test_banking_rows_have_source_and_licence(tmp_path: Path) -> None:
    write_lines(tmp_path / "banking77" / "train.jsonl", intent("Where is my card?", "card_arrival"))
    rows = banking_intent.rows(tmp_path)
    assert rows.own_rows == [LabelledText("Where is my card?", "card_arrival")]
    assert [(source.name, source.licence) for source in rows.sources] == [("banking77", "CC-BY-4.0")]


def test_assistant_rows_add_out_of_scope_questions(tmp_path: Path) -> None:
    write_lines(tmp_path / "clinc150" / "train.jsonl", intent("wake me at six", "alarm"))
    write_lines(
        tmp_path / "routellm" / "train.jsonl.gz",
        question("Who wrote the first treaty of Rome?\nA. One"),
        question("Who wrote the first treaty of Paris?", source="gsm8k"),
        question("How many groups have order six?", subject="abstract_algebra"),
        question("What does the word estoppel mean?"),
        question("Which of the following is a treaty?"),
        question("Who wrote it?"),
    )
    rows = assistant_intent.rows(tmp_path)
    assert rows.own_rows == [LabelledText("wake me at six", "alarm")]
    assert rows.other_rows == [LabelledText("who wrote the first treaty of rome", OUTSIDE)]
    assert [source.name for source in rows.sources] == ["clinc150", "routellm"]
