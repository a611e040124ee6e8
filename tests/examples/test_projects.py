"""The projects in `examples/`: their files are valid, and their requests fit them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.machine import ROOT
from orchestra import Orchestra
from orchestra.documents.reading import read_files
from scripts.demo_large import is_right

EXAMPLES = ROOT / "examples"


def requests(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((EXAMPLES / name / "requests.json").read_text("utf-8"))
    return found


async def test_requests_of_the_workstation_fit_its_workflows() -> None:
    async with Orchestra.open("workstation", project=EXAMPLES / "workstation", fleet="none") as orchestra:
        for request in requests("workstation"):
            program = orchestra.program(orchestra.find(request["workflow"]))
            assert program.may_escalate
            assert set(request["inputs"]) == set(program.inputs)


@pytest.mark.parametrize(
    ("value", "expected", "right"),
    [
        ({"answer": "Ines Falk", "quote": "Ines Falk approves it."}, ["Ines Falk"], True),
        ({"answer": "the lead", "quote": "the lead approves it."}, ["Ines Falk"], False),
        ({"expression": "250*0.30", "value": 75}, [75], True),
        ({"expression": "250*0.3-1", "value": 74}, [75], False),
        ({"customer": "Lindner Optics", "quantity": 40}, {"customer": "lindner", "quantity": 40}, True),
        ({"customer": "Lindner Optics", "quantity": 4}, {"customer": "lindner", "quantity": 40}, False),
        (None, {"customer": "lindner"}, False),
    ],
)
def test_answer_is_right_if_it_has_what_is_expected(value: Any, expected: Any, right: bool) -> None:
    assert is_right(value, expected) is right


def test_documents_of_the_office_are_read_and_have_two_tables() -> None:
    result = read_files([EXAMPLES / "office" / "documents"])
    assert result.failures == []
    assert [table.name for table in result.tables] == ["sales.csv", "suppliers.csv"]
    text = " ".join(document.text for document in result.documents)
    people = [name for request in requests("office") for name in request["expected"] if " " in name]
    assert [name for name in people if name not in text] == []
