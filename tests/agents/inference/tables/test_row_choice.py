"""Tests the most probable sets and pairs against brute force, and the groups of rows and columns."""

from __future__ import annotations

import math
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.encoding import TableEncoding  # noqa: E402
from orchestra.agents.inference.tables.row_choice import (  # noqa: E402
    column_groups,
    most_probable_pair,
    most_probable_set,
    row_groups,
    softmax,
)
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402
from tests.agents.tables import WORDS, sigmoid  # noqa: E402

LOGITS = st.lists(st.floats(-6, 6), min_size=2, max_size=6)
TABLE = [
    ["name", "rooms", "books", "age"],
    ["ada", "Total  of", "12", "4"],
    ["grace", "total of", "9", "7"],
    ["alan", "the least", "", "4"],
    ["donald", "total of", "3", "1"],
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS))


def sheet_of(encoder: Encoder, question: str, table: list[list[str]] = TABLE) -> TableEncoding:
    return TableEncoding(encoder, question, table, [], 64)


def weights_of(
    logits: list[float], groups: list[tuple[int, ...]], factor: float, at_least: int
) -> dict[tuple[int, ...], float]:
    """Returns the weight of each set with at least `at_least` members."""
    every = chain.from_iterable(combinations(range(len(logits)), size) for size in range(at_least, len(logits) + 1))
    alone = {
        one: math.prod(sigmoid(logit if at in one else -logit) for at, logit in enumerate(logits)) for one in every
    }
    return {one: weight * (math.exp(factor) if one in groups else 1.0) for one, weight in alone.items()}


@given(LOGITS, st.floats(0, 5), st.integers(0, 2), st.data())
def test_most_probable_set_and_its_probability_match_brute_force(
    logits: list[float], factor: float, at_least: int, data: st.DataObject
) -> None:
    members = st.sets(st.integers(0, len(logits) - 1), min_size=max(at_least, 1)).map(lambda one: tuple(sorted(one)))
    groups = data.draw(st.lists(members, max_size=3))
    weights = weights_of(logits, groups, factor, at_least)
    taken, sure = most_probable_set(np.array(logits), groups, factor, at_least)
    assert weights[taken] == pytest.approx(max(weights.values()))
    assert sure == pytest.approx(weights[taken] / sum(weights.values()), rel=1e-6)


def test_group_probability_exceeds_product_of_members() -> None:
    logits = np.array([2.0, 1.0, -1.0])
    taken, sure = most_probable_set(logits, [(1, 0)], 2.0)
    alone, less = most_probable_set(logits, [], 2.0)
    assert taken == alone == (0, 1)
    assert sure > less


def test_required_members_without_evidence_have_low_probability() -> None:
    taken, sure = most_probable_set(np.full(10, -4.0), [], 0.0, 2)
    assert len(taken) == 2
    assert sure == pytest.approx(1 / 45, rel=0.1), "any two of ten"
    assert most_probable_set(np.full(10, -40.0), [], 0.0, 2)[1] == pytest.approx(1 / 45)
    assert most_probable_set(np.full(10, -40.0), [], 0.0, 1)[1] == pytest.approx(1 / 10)


def test_set_probability_of_long_table_does_not_underflow() -> None:
    taken, sure = most_probable_set(np.full(900, -1.0), [tuple(range(900))], 3.0)
    assert taken == ()
    assert sure == pytest.approx(sigmoid(1.0) ** 900)
    taken, sure = most_probable_set(np.array([4.0] * 899 + [-1.0]), [tuple(range(900))], 3.0)
    assert len(taken) == 900


@given(
    st.lists(st.tuples(st.floats(-6, 6), st.floats(-6, 6)), min_size=2, max_size=5),
    st.floats(0, 4),
    st.booleans(),
    st.data(),
)
def test_most_probable_pair_matches_brute_force(
    both: list[tuple[float, float]], less: float, either: bool, data: st.DataObject
) -> None:
    count = len(both)
    apart = np.array(data.draw(st.lists(st.booleans(), min_size=count * count, max_size=count * count))).reshape(
        count, count
    )
    apart = apart | apart.T
    first, second = (np.array(side) for side in zip(*both, strict=True))
    one, other, sure = most_probable_pair(first, second, apart, less, unordered=either)
    weight = {
        (a, b): math.exp(first[a] + second[b] - less * apart[a, b])
        for a in range(count)
        for b in range(count)
        if a != b
    }
    if either:
        weight = {(a, b): one + weight[b, a] for (a, b), one in weight.items() if a < b}
    assert weight[one, other] == pytest.approx(max(weight.values()))
    assert sure == pytest.approx(weight[one, other] / sum(weight.values()), rel=1e-6)


def test_softmax_of_equal_scores_is_uniform() -> None:
    assert softmax(np.array([1.0, 1.0, 1.0])).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        ("what is the total ?", [(1, 2, 4)]),
        ("which is the least ?", []),  # in only one row
        ("who has 4 books ?", []),  # figures are compared; they are not words
        ("who is that ?", []),
        ("how many books has ada ?", []),
        ("who has not the total ?", []),  # asks for the other rows
        ("who has all but the total ?", []),
        ("has all of them a total ?", [(1, 2, 4)]),
    ],
)
def test_row_groups_use_words_shared_by_rows(encoder: Encoder, question: str, rows: list[tuple[int, ...]]) -> None:
    assert [*row_groups(sheet_of(encoder, question))] == rows


def test_row_groups_exclude_equal_names_across_sections(encoder: Encoder) -> None:
    table = [["name", "age"], ["of the books", ""], ["total", "4"], ["of the rooms", ""], ["total", "7"]]
    assert [*row_groups(sheet_of(encoder, "what is the total ?", table))] == []
    assert [*row_groups(sheet_of(encoder, "what is the total ?", [row for row in table if row[1]]))] == [(1, 2)]
    assert [*row_groups(sheet_of(encoder, "what is the total ?", [*table[:3], ["total", "7"]]))] == [(2, 3)], (
        "one name alone makes no section"
    )


def test_column_groups_need_a_cell_in_each_row(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, "what is the total of ages ?")
    fit = {
        (one.row, one.column): at for at, one in enumerate(sheet.locations) if one.figure is not None and one.row >= 0
    }
    said = [[sheet.locations[at].text for at in cells] for cells in column_groups(sheet, fit)]
    assert said == [["4", "7", "4", "1"], ["12", "9", "3"], ["4", "7", "1"]]


def test_column_group_excludes_total_row(encoder: Encoder) -> None:
    table = [*TABLE, ["Total", "", "24", "16"]]
    sheet = sheet_of(encoder, "how many books ?", table)
    fit = {
        (one.row, one.column): at for at, one in enumerate(sheet.locations) if one.figure is not None and one.row >= 0
    }
    assert [[sheet.locations[at].text for at in cells] for cells in column_groups(sheet, fit)] == [["4", "7", "4", "1"]]


def test_groups_without_table_are_empty(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, "what is the total ?", [])
    assert ([*row_groups(sheet)], [*column_groups(sheet, {})]) == ([], [])
