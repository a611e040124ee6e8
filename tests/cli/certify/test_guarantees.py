"""The certificates of a run in `run --json` and on its page."""

from __future__ import annotations

import html
import sqlite3
from pathlib import Path

import pytest

from orchestra.cli.run.result_view import show_guarantees
from orchestra.schema.strict_json import digest
from orchestra.verification.certificates.file import ASSUMPTION, Certificate
from tests.cli.shell import Shell
from tests.cli.test_certify import PREDICTED, certified, certify, run, shell, sure
from tests.cli.test_certify_rows import written

__all__ = ["certified", "shell"]


def above(certificate: Certificate) -> int:
    """The accepted message of lowest confidence."""
    return next(n for n in range(1000) if sure(n) >= certificate.threshold)


def page(shell: Shell, name: str) -> str:
    said = shell("runs", "show", name, "--html", "-")
    assert said.code == 0, said.err
    return html.unescape(said.out)


def test_run_shows_the_certificate_of_its_guarantee(shell: Shell, certified: Certificate) -> None:
    said = run(shell, above(certified)).json
    terms = said["certificates"]["sorted"]
    assert terms == certified.summary
    assert (terms["alpha"], terms["delta"], terms["coverage"]) == (0.05, 0.05, certified.coverage)
    assert terms["rows"] == {"tuning": 200, "calibration": 500, "held_out": 300}
    assert (terms["data"], terms["created_at"]) == (
        {"name": "rows.jsonl", "digest": certified.data.digest},
        certified.created_at,
    )
    assert (terms["attempt"], terms["tested_at"], terms["left_out"]) == (
        1,
        certified.spent_delta,
        {"duplicates": 0, "grouped": 0},
    )
    assert (terms["metrics"], terms["assumed"], terms["certificate"]) == (["label same"], ASSUMPTION, certified.digest)
    assert run(shell, above(certified) - 1).json["certificates"] == {}


def test_run_page_shows_the_guarantee_and_its_certificate(shell: Shell, certified: Certificate) -> None:
    shown, data = page(shell, run(shell, above(certified)).json["run"]), certified.data
    for said in (
        certified.guarantee,
        "alpha 0.05, delta 0.05",
        "number 1 on these rows, tested at 4 % of 5 %",
        "1,000 of rows.jsonl: 200 tuning, 500 calibration, 300 held out",
        data.digest,
        "label same",
        certified.created_at,
        ASSUMPTION,
        certified.digest,
    ):
        assert said in shown, said
    assert "What is guaranteed" not in page(shell, run(shell, above(certified) - 1).json["run"])


def test_page_lists_rows_left_out_of_the_certificate(shell: Shell) -> None:
    measure = "metrics: {in scope: {of: accuracy, field: label, without: [other]}}"
    Path("agents/sorter/evaluation.yaml").write_text(f"schema: orchestra/evaluation/v1\n{measure}\n")
    written(2000, lambda n: {"group": n // 10})
    assert certify(shell, *PREDICTED).code == 0
    shown = page(shell, run(shell, 999).json["run"])
    for said in ("0 rows with the input of another, 1,800 of one group with another", "in scope, of all rows"):
        assert said in shown, said


def test_a_page_whose_certificate_is_gone_says_so(shell: Shell, certified: Certificate) -> None:
    name = run(shell, above(certified)).json["run"]
    (journal,) = (path for path in Path().rglob("*") if path.is_file() and path.read_bytes()[:6] == b"SQLite")
    with sqlite3.connect(journal) as file:
        assert file.execute("DELETE FROM blobs WHERE digest = ?", (digest(certified.to_bytes()),)).rowcount == 1
    shown = page(shell, name)
    assert certified.guarantee in shown
    assert "its certificate is missing or unreadable" in shown


def test_element_guarantee_excludes_derived_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_guarantees({"readings[0]": "at most 5 %", "readings[2]": "at most 5 %", "answer": "at most 10 %"})
    said = capsys.readouterr().out.split("\n")
    assert "readings (2 values, each alone, not values derived from them): at most 5 %" in said
    assert "answer: at most 10 %" in said
