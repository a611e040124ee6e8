"""The table that `orchestra batch` writes: input columns, output columns, and the state of each row."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallError, CallRequest
from tests.cli.shell import Said, Shell
from tests.cli.stage import BAD, GOOD, TEXT, Simulated, furnish

OUTPUT = ("answer", "quote", "status", "score", "error")


def answer(call: CallRequest) -> Any:
    match call.inputs["question"]:
        case "bad":
            return BAD
        case "broken":
            return CallError(code="M001", reason="not JSON")
        case "no fleet":
            return CallError(code="F001", reason="vLLM is not installed", hint="pip install it")
        case _:
            return GOOD


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    shell.opener = Simulated(answer)
    return shell


def batch(shell: Shell, source: str = "rows.csv", target: str = "out.csv", *more: str) -> Said:
    return shell("batch", "ask", "-i", source, "-o", target, *more)


def table(path: str = "out.csv", separator: str = ",") -> list[list[str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=separator))


def write_rows(*cells: tuple[str, ...], header: tuple[str, ...] = ("question", "text")) -> None:
    with Path("rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *cells])


def test_batch_table_repeats_input_columns_before_output(shell: Shell) -> None:
    write_rows(("7", "good", TEXT, "x, y"), ("8", "bad", TEXT, ""), header=("no", "question", "text", "remark"))
    assert batch(shell).code == 0
    header, good, bad = table()
    assert header == ["no", "question", "text", "remark", *OUTPUT]
    assert good[:5] == ["7", "good", TEXT, "x, y", "1889"]
    assert (good[5], good[6], good[8]) == ("in 1889", "done", "")
    assert bad[:4] == ["8", "bad", TEXT, ""]
    assert (bad[4:7], bad[8][:6]) == (["", "", "abstained"], "E010: ")
    assert [json.loads(line)["id"] for line in Path("out.csv.jsonl").read_text().splitlines()] == ["1", "2"]


def test_batch_table_of_json_lines_has_inputs_as_columns(shell: Shell) -> None:
    row = {"id": "a", "input": {"text": TEXT, "question": "good"}, "expected": "secret"}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    assert batch(shell, "rows.jsonl", "out.tsv").code == 0
    header, good = table("out.tsv", "\t")
    assert header == ["id", "question", "text", *OUTPUT]
    assert good[:4] == ["a", "good", TEXT, "1889"]


def test_batch_table_equal_column_names_are_told_apart(shell: Shell) -> None:
    names = ("question", "text", "answer", "output.answer", "status")
    write_rows(("good", TEXT, "1", "2", "3"), header=names)
    assert batch(shell).code == 0
    header, row = table()
    assert header == [*names, "output.output.answer", "quote", "output.status", "score", "error"]
    assert (row[2:6], row[7]) == (["1", "2", "3", "1889"], "done")


def test_batch_table_cells_are_no_formulas(shell: Shell) -> None:
    shell.opener = Simulated({"answerer": {"answer": "=1+1", "quote": None}})
    write_rows(("=cmd()", "=1+1", "-5"), header=("question", "text", "@n"))
    assert batch(shell).code == 0
    header, row = table()
    assert (header[2], row[:3]) == ("'@n", ["'=cmd()", "'=1+1", "-5"])
    assert not [cell for cell in row if cell.startswith("=")]


def test_batch_table_keeps_format_of_input(shell: Shell) -> None:
    Path("rows.csv").write_text(f"\ufeffquestion;text\ngood;{TEXT}\n", "utf-8")
    assert batch(shell).code == 0
    assert Path("out.csv").read_text("utf-8").startswith("\ufeffquestion;text;answer;")
    assert table(separator=";")[1][0] == "good"


def test_batch_interrupted_table_has_rows_so_far_in_order(shell: Shell) -> None:
    write_rows(("good", TEXT), ("no fleet", TEXT), ("broken", TEXT))
    assert batch(shell, "rows.csv", "out.csv", "-c", "1").code == 1
    assert [row[0] for row in table()] == ["question", "good"]
    Path("out.csv.jsonl").write_text("")
    shell.opener = Simulated({"answerer": GOOD})
    assert batch(shell).code == 0
    assert [row[0] for row in table()] == ["question", "good", "no fleet", "broken"]
    record = Path("out.csv.jsonl").read_text().splitlines(keepends=True)
    Path("out.csv.jsonl").write_text("".join(record[1:]))
    assert batch(shell).code == 0
    assert [row[0] for row in table()] == ["question", "good", "no fleet", "broken"]


def test_batch_finished_table_keeps_edits_of_user(shell: Shell) -> None:
    write_rows(("good", TEXT))
    assert batch(shell).code == 0
    written = Path("out.csv").read_text()
    Path("out.csv").write_text("edited")
    for _ in range(2):
        assert batch(shell).code == 0
        assert Path("out.csv").read_text() == "edited"
    Path("out.csv").unlink()
    assert batch(shell).code == 0
    assert Path("out.csv").read_text() == written


def test_batch_table_older_than_results_is_written_again(shell: Shell) -> None:
    write_rows(("good", TEXT))
    assert batch(shell).code == 0
    written = Path("out.csv").read_text()
    Path("out.csv").write_text("of a batch that was killed before it wrote the table")
    os.utime("out.csv", (0, 0))
    assert batch(shell).code == 0
    assert Path("out.csv").read_text() == written


def test_batch_table_of_other_origin_is_refused(shell: Shell) -> None:
    write_rows(("good", TEXT))
    before = Path("rows.csv").read_text()
    assert batch(shell, "rows.csv", "rows.csv").err.startswith("C022: rows.csv exists")
    Path("rows.csv.jsonl").write_text("")
    assert batch(shell, "rows.csv", "rows.csv").err.startswith("C022: rows.csv exists")
    Path("out.csv").write_text("mine")
    assert batch(shell).err.startswith("C022: out.csv exists")
    assert (Path("rows.csv").read_text(), Path("out.csv").read_text()) == (before, "mine")


def test_batch_table_that_cannot_be_written_keeps_results(shell: Shell) -> None:
    write_rows(("good", TEXT))
    Path("out.csv.jsonl").write_text("")
    Path("out.csv").mkdir()
    assert batch(shell).err.startswith("C023: out.csv cannot be written")
    assert len(Path("out.csv.jsonl").read_text().splitlines()) == 1
    Path("out.csv").rmdir()
    assert batch(shell).code == 0
    assert table()[1][0] == "good"
