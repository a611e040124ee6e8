"""One row for each input and each group: rows in families add no independent evidence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.learn.certification.independent import RepeatedInput, select_independent
from orchestra.learn.evaluation import rows as rows_module
from orchestra.learn.evaluation.rows import EvaluationRow
from orchestra.verification.certificates.certify import CertificationTerms, Certified, ScoredAnswer, certify

CARD = "schema: orchestra/v1\nname: sorter\ninput: {text: str, passage: str}\noutput: {label: str}\nevidence: passage\n"


@pytest.fixture
def card(tmp_path: Path) -> Card:
    (tmp_path / "agent.yaml").write_text(CARD)
    (tmp_path / "prompt.md").write_text("{{ text }}")
    return Card.load(tmp_path)


def rows(count: int, of: int, *, group: bool) -> rows_module.EvaluationSet:
    made = [
        EvaluationRow(
            f"{n}", {"text": f"{n}", "passage": f"{n if group else n // of}"}, {}, f"{n // of}" if group else ""
        )
        for n in range(count)
    ]
    return rows_module.EvaluationSet("rows", "", made)


@pytest.mark.parametrize("group", [True, False])
def test_select_independent_one_row_per_group_or_evidence(card: Card, group: bool) -> None:
    found = select_independent(rows(100, 10, group=group), card, 0)
    assert (found.duplicates, found.group_duplicates) == (0, 90)
    assert sorted({int(row.id) // 10 for row in found.test.rows}) == list(range(10))


def test_select_independent_depends_on_seed_and_ids_only(card: Card) -> None:
    test = rows(100, 10, group=True)
    backwards = rows_module.EvaluationSet("rows", "", list(reversed(test.rows)))
    ids = [
        {row.id for row in select_independent(one, card, seed).test.rows}
        for one, seed in ((test, 0), (backwards, 0), (test, 1))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_select_independent_equal_inputs_across_groups(card: Card) -> None:
    made = [
        EvaluationRow(f"{n}", {"text": "Hello" if n % 2 else "hello!", "passage": ""}, {}, f"{n}") for n in range(50)
    ]
    found = select_independent(rows_module.EvaluationSet("rows", "", made), card, 0)
    assert (found.duplicates, len(found.test.rows)) == (49, 1)


def test_select_independent_correlated_groups_keep_delta(
    card: Card,
) -> None:
    """With a true risk of 6 %, a bound of 5 % is violated: with ten rows of each family treated as independent, in one
    of ten draws.
    """
    test, broken = rows(2000, 10, group=True), [0, 0]
    apart = select_independent(test, card, 0).test
    for seed in range(200):
        source = random.Random(seed)
        wrong = [source.random() < 0.06 for _ in range(200)]
        for at, one in enumerate((apart, test)):
            items = [ScoredAnswer(row.id, 0.5, wrong[int(row.group)]) for row in one.rows]
            broken[at] += isinstance(certify(items, CertificationTerms(), rounds=0).outcome, Certified)
    assert broken[0] <= 200 * CertificationTerms().delta
    assert broken[1] > 15


def test_select_independent_reports_repeated_long_input(card: Card) -> None:
    """83 tables with six questions each are 83 rows if the card names no evidence."""
    plain = card.with_settings(evidence=None)
    made = [
        EvaluationRow(
            f"{n}",
            {"text": f"Question {n}", "passage": f"The table with the number {n // 6}, which is long enough"},
            {},
        )
        for n in range(498)
    ]
    found = select_independent(rows_module.EvaluationSet("rows", "", made), plain, 0)
    assert found.repeated_input == RepeatedInput("passage", 83, 498)
    assert select_independent(rows_module.EvaluationSet("rows", "", made), plain, 0, "passage").repeated_input is None
    short = [EvaluationRow(f"{n}", {"text": f"Question {n}", "passage": "yes"}, {}) for n in range(100)]
    assert select_independent(rows_module.EvaluationSet("rows", "", short), plain, 0).repeated_input is None
    alike = [
        EvaluationRow(f"{n}", {"text": f"{n}", "passage": "the same instruction in each of all these rows"}, {})
        for n in range(498)
    ]
    assert select_independent(rows_module.EvaluationSet("rows", "", alike), plain, 0).repeated_input is None, (
        "no two rows differ in it"
    )
