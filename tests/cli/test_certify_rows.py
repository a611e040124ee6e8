"""The rows of `orchestra certify`: selection, duplicates and repeated attempts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra.verification.certificates.file import Certificate
from tests.cli.shell import Shell
from tests.cli.stage import Simulated
from tests.cli.test_certify import AGENT, FILE, PREDICTED, answer, certify, label, lines, predictions, rows, shell, sure

__all__ = ["shell"]
ATTEMPTS = Path("agents/sorter/attempts.jsonl")


def written(count: int, change: Callable[[int], dict[str, Any]]) -> None:
    """Rows, and right answers to all of them."""
    lines(
        "rows.jsonl",
        [{"id": f"{n}", "input": {"text": f"{n}"}, "expected": {"label": "yes"}, **change(n)} for n in range(count)],
    )
    lines("answers.jsonl", [{"id": f"{n}", "output": {"label": "yes"}, "score": 0.9} for n in range(count)])


def test_duplicate_rows_count_once(shell: Shell) -> None:
    written(1000, lambda n: {"input": {"text": f"{n % 25}"}})
    said = certify(shell, *PREDICTED)
    assert said.code == 3, said.out
    assert "975 rows left out: equal inputs count once" in said.out
    assert not ATTEMPTS.exists(), "so few test nothing"


def test_certificate_samples_one_row_of_each_group(shell: Shell) -> None:
    written(2000, lambda n: {"group": n // 10})
    said = certify(shell, *PREDICTED)
    assert said.code == 0, said.out
    assert "1,800 rows left out: rows of one group are not independent" in said.out
    made = Certificate.from_bytes(FILE.read_bytes())
    assert (made.data.grouped, made.data.tuning + made.data.calibration + made.data.held_out) == (1800, 200)
    assert made.guarantee.endswith("each group counts once")
    assert "1,800 of one group with another" in shell("certify", "sorter").out


def test_group_option_accepts_an_input(shell: Shell) -> None:
    Path("agents/sorter/agent.yaml").write_text(AGENT.replace("{text: str}", "{text: str, passage: str}"))
    written(1000, lambda n: {"input": {"text": f"{n}", "passage": f"{n % 100}"}})
    said = certify(shell, *PREDICTED, "--group", "passage", "--json")
    assert (said.code, said.json["left_out"]) == (3, {"duplicates": 0, "grouped": 900})
    said = certify(shell, *PREDICTED, "--group", "pasage")
    assert (said.code, said.err[:4], "--group passage" in said.err) == (2, "V026", True)


def test_rows_with_equal_evidence_form_a_group(shell: Shell) -> None:
    card = AGENT.replace("{text: str}", "{text: str, passage: str}") + "evidence: passage\n"
    Path("agents/sorter/agent.yaml").write_text(card)
    written(1000, lambda n: {"input": {"text": f"{n}", "passage": f"{n % 100}"}})
    assert certify(shell, *PREDICTED, "--json").json["left_out"] == {"duplicates": 0, "grouped": 900}


EVALUATION = "schema: orchestra/evaluation/v1\nmetrics: {in scope: {of: accuracy, field: label, without: [other]}}\n"


def test_rows_omitted_by_the_metric_count_for_the_guarantee(shell: Shell) -> None:
    Path("agents/sorter/evaluation.yaml").write_text(EVALUATION)
    written(1000, lambda n: {"expected": {"label": "yes" if n % 10 else "other"}})
    said = certify(shell, *PREDICTED)
    assert said.code == 3, "a tenth of what is accepted is wrong"
    assert "1,000 rows" in said.out
    assert "100 rows that the metric leaves out are included: the guarantee covers all accepted answers" in said.out
    assert certify(shell, *PREDICTED, "--alpha", "0.3").code == 0
    assert Certificate.from_bytes(FILE.read_bytes()).data.metrics == ("in scope, of all rows",)


def test_rows_omitted_by_the_metric_without_a_label_are_refused(shell: Shell) -> None:
    Path("agents/sorter/evaluation.yaml").write_text(EVALUATION.replace("without: [other]", "where: {kind: [a]}"))
    written(1000, lambda n: {"expected": {"label": "yes", "kind": "a"} if n else {"kind": "b"}})
    said = certify(shell, *PREDICTED)
    assert (said.code, said.err[:4], "such as '0'" in said.err) == (2, "V027", True)


def test_default_metric_for_text_is_exact_match_with_a_note(shell: Shell) -> None:
    written(1000, lambda n: {"expected": {"label": "Yes "}})
    said = certify(shell, *PREDICTED)
    assert "right: label same (the same text but for case, blanks and Unicode form)" in said.out
    assert said.code == 0
    written(1000, lambda n: {"expected": {"label": "-yes!"}})
    assert certify(shell, *PREDICTED).code == 3


def test_attempts_on_equal_rows_share_delta(shell: Shell) -> None:
    rows(400)
    predictions(400, lambda n: {"output": {"label": "yes" if n % 16 else "no"}, "score": 0.5})
    said = certify(shell, *PREDICTED)
    assert said.code == 3
    assert "It is the first attempt on these rows, tested at 4 % of the 5 %." in said.out
    assert "the next attempt has 0.5 % of the 5 %, and requires at least 104 accepted answers" in said.out
    assert certify(shell, *PREDICTED, "--json").json["attempt"] == 1, "the same once more is no other attempt"
    assert certify(shell, *PREDICTED, "--seed", "1", "--json").json["attempt"] == 2
    rows(500)
    predictions(500, lambda n: {"output": {"label": "yes"}, "score": 0.5})
    said = certify(shell, *PREDICTED, "--alpha", "0.06", "--json")
    assert (said.code, said.json["attempt"], said.json["tested_at"]) == (0, 3, pytest.approx(0.05 / 30))
    made = Certificate.from_bytes(FILE.read_bytes())
    assert (made.attempt, made.delta) == (3, 0.05)
    assert "number 3 on these rows, tested at 0.167 % of 5 %" in shell("certify", "sorter").out
    assert [json.loads(line)["outcome"] for line in ATTEMPTS.read_text().splitlines()] == [
        "insufficient data",
        "insufficient data",
        "certified",
    ]
    rows(500, 500)
    predictions(500, first=500)
    assert certify(shell, *PREDICTED, "--json", "--out", "other.json").json["attempt"] == 1, "other rows"


def test_equal_answers_are_certified_again_without_a_new_attempt(shell: Shell) -> None:
    rows(160)
    predictions(160, lambda n: {"output": {"label": "yes"}})
    for _ in range(2):
        said = certify(shell, *PREDICTED)
        assert said.code == 0, said.out
        assert "It is the first attempt on these rows" in said.out
    assert len(ATTEMPTS.read_text().splitlines()) == 1
    assert certify(shell, *PREDICTED, "--seed", "1").code == 3, "80 answers calibrate, and a second attempt takes 104"


def test_equal_generated_answers_do_not_count_as_an_attempt(shell: Shell) -> None:
    rows(1000)
    for told in (False, True):
        said = certify(shell)
        assert (said.code, "the answers of an earlier attempt. It is the first attempt" in said.out) == (0, told)
    assert len(ATTEMPTS.read_text().splitlines()) == 1


def test_generated_answers_count_as_an_attempt_and_guard_the_log(shell: Shell) -> None:
    rows(1000)
    assert certify(shell).code == 0
    assert len(ATTEMPTS.read_text().splitlines()) == 1
    ATTEMPTS.write_text(ATTEMPTS.read_text().replace('"number":1', '"number":2'))
    said = certify(shell)
    assert (said.code, said.err[:4]) == (2, "V025")
    assert label(0) != label(999)
    assert sure(0) < sure(999)


def test_unwritable_attempt_log_stops_before_any_call(shell: Shell) -> None:
    rows(1000)
    ATTEMPTS.symlink_to(Path("nowhere/attempts.jsonl").absolute())
    shell.opener = Simulated(answer)
    said = certify(shell)
    assert (said.code, said.err[:4], shell.opener.opened) == (2, "V025", [])
