"""`orchestra learn train` for table readers: from rows to an agent that answers questions about a table; on a tiny
encoder.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.encoding import TableEncoding  # noqa: E402
from orchestra.agents.inference.tables.filters import condition_choices  # noqa: E402
from orchestra.agents.inference.tables.head import TableLogits  # noqa: E402
from orchestra.agents.inference.tables.operations import OPERATIONS, PAIR_OPERATIONS, PERCENT_OPERATIONS, SCALES  # noqa: E402
from orchestra.fleet.config import FolderSource, Weights  # noqa: E402
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS  # noqa: E402
from orchestra.learn.compatibility import contract_digest  # noqa: E402
from orchestra.learn.data.dataset import Dataset, DatasetRow  # noqa: E402
from orchestra.learn.encoders.member import TrainingStep  # noqa: E402
from orchestra.learn.encoders.table_targets import TableTarget, answers_match, build_target, operation_of  # noqa: E402
from orchestra.learn.encoders.tables import TableExample, loss  # noqa: E402
from orchestra.learn.encoders.training import HeadTraining  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402
from orchestra.text.numbers.sort_keys import BOUNDS  # noqa: E402
from tests.agents.tables import CARD, NAMES, WORDS, told  # noqa: E402

TABLE = [
    ["name", "20", "30"],
    ["ada", "36", "$ 12"],
    ["grace", "36", "-"],
    ["Alan", "(9)", "1,200"],
    ["total", "72", "12"],
]
TEXT = ["ada has 7 of 12 books .", "grace has 7 ."]
ASKED = ("most", "least", "difference", "total", "how", "who", "which")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny encoder that cards may name."""
    folder = write_encoder(tmp_path / "encoder", WORDS)
    monkeypatch.setitem(KNOWN_ENCODERS, "tiny", Weights(licence="CC0", sources=(FolderSource(folder=str(folder)),)))
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("encoder"), WORDS))


def make_card(tmp_path: Path, text: str = CARD) -> Card:
    folder = tmp_path / "agents" / "teller"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(text)
    return Card.load(folder)


def row(number: int) -> DatasetRow:
    """Two names with their ages, and one-word questions with different operations."""
    chance = random.Random(number)
    one, other, somebody = chance.sample(NAMES, 3)
    first, second = chance.sample(range(10, 60), 2)
    asked = ASKED[number % len(ASKED)]
    match asked:
        case "most" | "least":
            output = told(asked, [one if (first > second) == (asked == "most") else other], rows=[1, 2], column=1)
        case "difference":
            output = told("difference", expression=f"{first} - {second}")
        case "total":
            output = told("sum", expression=f"{first} + {second}", scale="thousand")
        case "how":
            output = told("count", expression="2", rows=[1, 2])
        case "who":
            output = told("text", [somebody])
        case _:
            output = told("cells", [other])
    table = [["name", "age"], [one, str(first)], [other, str(second)]]
    return DatasetRow(
        str(number),
        {"question": f"{asked} ?", "table": table, "paragraphs": [f"{somebody} is in"]},
        output,
        str(number),
    )


def data_set(card: Card, train: int = 70, tune: int = 35) -> Dataset:
    rows = [row(number) for number in range(train + tune)]
    return Dataset.build(
        "rows", "teller", contract_digest(card), "CC0", (), {"train": rows[:train], "tune": rows[train:]}
    )


def training(tmp_path: Path, base: Path) -> HeadTraining:
    card = make_card(tmp_path)
    return HeadTraining(card=card, data=data_set(card), base=base, cache=tmp_path / "cache", epochs=2, tokens=64)


def quiet(step: TrainingStep) -> None:
    """A progress callback that does nothing."""


# Targets


def encoding_of(
    encoder: Encoder, question: str = "what is it ?", table: Any = TABLE, paragraphs: Sequence[str] = TEXT
) -> TableEncoding:
    return TableEncoding(encoder, question, table, paragraphs, 64)


def cells(table_encoding: TableEncoding, *places: tuple[int, int]) -> frozenset[int]:
    """The indices of cells by row and column."""
    return frozenset(
        at for at, location in enumerate(table_encoding.locations) if (location.row, location.column) in places
    )


def outside(table_encoding: TableEncoding, *texts: str) -> frozenset[int]:
    """The indices of figures outside of the table by their text."""
    return frozenset(
        at for at, location in enumerate(table_encoding.locations) if location.row < 0 and location.text in texts
    )


def wanted(way: str, scale: str = "", **more: Any) -> TableTarget:
    return TableTarget(OPERATIONS.index(way), SCALES.index(scale), **more)


def test_target_quotes_ignore_case_and_currency(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder)
    assert build_target(told("cells", ["grace", "alan"], scale="million"), table_encoding) == wanted(
        "cells", "million", cells=cells(table_encoding, (2, 0), (3, 0))
    )
    for quote in ("12", "$12", "$ 12", " 12€"):
        found = build_target(told("cells", [quote]), table_encoding)
        assert found is not None
        assert found.cells | found.equivalent_cells == cells(table_encoding, (1, 2), (4, 2)), quote
    assert build_target(told("cells", ["1,200"]), table_encoding) == wanted(
        "cells", cells=cells(table_encoding, (3, 2))
    )


@pytest.mark.parametrize("quotes", [["nobody"], ["ada", "nobody"], ["20", "20"], ["7"], ["-", "-"], ["gra"], []])
def test_target_missing_quotes_give_none(encoder: Encoder, quotes: list[str]) -> None:
    assert build_target(told("cells", quotes), encoding_of(encoder)) is None


@pytest.mark.parametrize(
    ("question", "quotes", "taken", "alike"),
    [
        ("what is it ?", ["36"], [(1, 1)], [(2, 1)]),
        ("what has grace ?", ["36"], [(2, 1)], [(1, 1)]),
        ("what is the total ?", ["12"], [(4, 2)], [(1, 2)]),
        ("what is it ?", ["36", "36"], [(1, 1), (2, 1)], []),
        ("what is it ?", ["36", "grace"], [(2, 1), (2, 0)], [(1, 1)]),
        ("what has ada ?", ["36", "grace"], [(2, 1), (2, 0)], [(1, 1)]),
        ("what has ada ?", ["12", "72", "total"], [(4, 2), (4, 1), (4, 0)], [(1, 2)]),
    ],
)
def test_target_equal_cells_prefer_neighbours_and_question(
    encoder: Encoder, question: str, quotes: list[str], taken: list[tuple[int, int]], alike: list[tuple[int, int]]
) -> None:
    table_encoding = encoding_of(encoder, question)
    assert build_target(told("cells", quotes), table_encoding) == wanted(
        "cells", cells=cells(table_encoding, *taken), equivalent_cells=cells(table_encoding, *alike)
    )


@pytest.mark.parametrize(
    ("beside", "place"),
    [(["20"], (1, 1)), (["30"], (2, 2)), (["alan"], (2, 2)), (["ada"], (1, 1)), ([], (2, 2))],
)
def test_target_neighbours_share_row_or_column(encoder: Encoder, beside: list[str], place: tuple[int, int]) -> None:
    table_encoding = encoding_of(
        encoder, "what has alan ?", [["name", "20", "30"], ["ada", "5", "7"], ["alan", "8", "5"]]
    )
    found = build_target(told("cells", ["5", *beside]), table_encoding)
    assert found is not None
    assert cells(table_encoding, place) <= found.cells
    assert found.equivalent_cells == cells(table_encoding, (1, 1), (2, 2)) - cells(table_encoding, place)


def test_target_spans_at_every_occurrence(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder)

    def said(quote: str) -> list[str]:
        found = build_target(told("text", [quote]), table_encoding)
        assert found is not None
        spans = [(table_encoding.chars[first], table_encoding.chars[last]) for first, last in found.spans]
        return [
            table_encoding.text[first[0] : last[1]] for first, last in spans if first is not None and last is not None
        ]

    assert said("has 7 of") == ["has 7 of"]
    assert said("has 7") == ["has 7", "has 7"]
    assert said("grace") == ["grace"], "the cell is none"
    assert said("books .") == ["books ."]


@pytest.mark.parametrize("quotes", [["nobody"], ["total"], ["has", "7"], [], [""], ["books . grace"]])
def test_target_split_text_gives_none(encoder: Encoder, quotes: list[str]) -> None:
    assert build_target(told("text", quotes), encoding_of(encoder)) is None


def test_target_spans_in_later_windows(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, table=TABLE * 4)
    assert len(table_encoding.windows) > 2
    found = build_target(told("text", ["7 of 12 books"]), table_encoding)
    assert found is not None
    [(first, last)] = found.spans
    assert (last - first, first > len(table_encoding.windows[0])) == (3, True)


def test_target_count_has_named_rows(encoder: Encoder) -> None:
    assert build_target(told("count", expression="2", rows=[1, 3]), encoding_of(encoder)) == wanted(
        "count", rows=frozenset({1, 3})
    )
    assert build_target(told("count", expression="0"), encoding_of(encoder)) is None


@pytest.mark.parametrize(
    ("way", "quote", "rows", "column", "asked"),
    [
        ("most", "total", [1, 2, 3, 4], 1, {0}),
        ("least", "Alan", [1, 2, 3, 4], 1, {0}),
        ("least", "alan", [1, 2, 3, 4], 1, {0}),
        ("most", "36", [1, 2, 3], 1, {1}),
        ("most", "grace", [1, 2, 3], 1, {0}),
        ("most", "ada", [1, 2, 3], 1, {0}),
        ("least", "12", [1, 2, 4], 2, {2}),
        ("least", "72", [3, 4], 2, {1}),
    ],
)
def test_target_comparison_has_column(
    encoder: Encoder, way: str, quote: str, rows: list[int], column: int, asked: set[int]
) -> None:
    found = build_target(told(way, [quote], rows=rows, column=column), encoding_of(encoder))
    assert found == wanted(way, rows=frozenset(rows), ranking_column=column, answer_columns=frozenset(asked))


def test_target_duplicate_value_allows_either_column(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, table=[["name", "20", "30"], ["ada", "7", "7"], ["alan", "9", "8"]])
    found = build_target(told("least", ["7"], rows=[1, 2], column=2), table_encoding)
    assert found == wanted("least", rows=frozenset({1, 2}), ranking_column=2, answer_columns=frozenset({1, 2}))


@pytest.mark.parametrize(
    ("quotes", "rows", "column"),
    [
        (["ada"], [1, 2, 3, 4], 1),
        (["ada", "36"], [1, 2], 1),
        (["ada"], [], 1),
        (["ada"], [1, 2], None),
        (["ada"], [1, 2], 0),
        ([], [1], 1),
    ],
)
def test_target_wrong_comparison_gives_none(
    encoder: Encoder, quotes: list[str], rows: list[int], column: int | None
) -> None:
    assert build_target(told("most", quotes, rows=rows, column=column), encoding_of(encoder)) is None


@pytest.mark.parametrize("way", PAIR_OPERATIONS)
def test_target_two_figures_allow_all_places(encoder: Encoder, way: str) -> None:
    table_encoding = encoding_of(encoder, "what is 7 of 36 and 5 , twice ?")
    form = {
        "difference": "{} - {}",
        "gap": "{} - {}",
        "change": "({0} - {1}) / {1} * 100",
        "share": "{} / {} * 100",
        "ratio": "{} / {}",
    }
    form |= {"portion": "{} * {} / 100", "discount": "{} * (100 - {}) / 100", "surcharge": "{} * (100 + {}) / 100"}
    written = form.get(way, "{} * {}")
    found = build_target(told(way, expression=written.format("12", "36"), scale="percent"), table_encoding)
    first = cells(table_encoding, (1, 2), (4, 2)) | outside(table_encoding, "12")
    second = outside(table_encoding, "36") if way in PERCENT_OPERATIONS else cells(table_encoding, (1, 1), (2, 1))
    assert found == wanted(way, "percent", first=first, second=second), (
        "those of the question only where they are percentages"
    )
    asked = build_target(told(way, expression=written.format("1200", "-9")), table_encoding)
    assert asked == wanted(way, first=cells(table_encoding, (3, 2)), second=cells(table_encoding, (3, 1)))
    sevens = frozenset(
        at for at in outside(table_encoding, "7") if table_encoding.locations[at].question_figure is None
    )
    assert len(sevens) == 2
    only = build_target(told(way, expression=written.format("7", "5")), table_encoding)
    assert only == wanted(way, first=sevens, second=outside(table_encoding, "5")), (
        "what only the question says is taken from there"
    )
    doubled = build_target(told(way, expression=written.format("72", "2")), table_encoding)
    assert doubled == wanted(way, first=cells(table_encoding, (4, 1)), second=outside(table_encoding, "twice"))


@pytest.mark.parametrize(("way", "form"), [("sum", "{} + {} + {}"), ("mean", "({} + {} + {}) / 3")])
def test_target_sum_parts_in_table_and_text(encoder: Encoder, way: str, form: str) -> None:
    table_encoding = encoding_of(encoder, "what is 5 and 7 ?")
    found = build_target(told(way, expression=form.format("-9", "1,200", "36")), table_encoding)
    assert found == wanted(
        way, cells=cells(table_encoding, (3, 1), (3, 2), (1, 1)), equivalent_cells=cells(table_encoding, (2, 1))
    )
    twice = build_target(told(way, expression=form.format("36", "36", "72")), table_encoding)
    assert twice == wanted(way, cells=cells(table_encoding, (1, 1), (2, 1), (4, 1)))
    sevens = frozenset(
        at for at in outside(table_encoding, "7") if table_encoding.locations[at].question_figure is None
    )
    mixed = build_target(told(way, expression=form.format("7", "7", "72")), table_encoding)
    assert mixed == wanted(way, cells=cells(table_encoding, (4, 1)) | sevens)
    assert build_target(told(way, expression=form.format("5", "36", "72")), table_encoding) is None, (
        "nothing of the question is summed up"
    )
    assert build_target(told(way, expression=form.format("36", "36", "36")), table_encoding) is None, (
        "the table has it twice"
    )


@pytest.mark.parametrize(
    ("way", "expression"),
    [
        ("difference", "36 + 72"),
        ("sum", "36"),
        ("difference", "36 - 99"),
        ("mean", "(36 + 72) / 3"),
        ("product", "36 * (72 - 9)"),
        ("gap", "36 / 72"),
        ("gap", "36 + 72"),
        ("gap", "(36 - 72) / 72 * 100"),
    ],
)
def test_target_other_expression_gives_none(encoder: Encoder, way: str, expression: str) -> None:
    assert build_target(told(way, expression=expression), encoding_of(encoder)) is None


@pytest.mark.parametrize(
    ("expression", "quotes", "way"),
    [
        ("5 - 3", [], "difference"), ("(5 + 3) / 2", [], "mean"), ("5", [], None), ("5 + 3 - 1", [], None),
        (None, ["ada"], "cells"), (None, ["ADA", "$12"], "cells"), (None, ["ada", "books"], "text"),
        (None, ["has 7"], "text"),
    ],
)  # fmt: skip
def test_operation_from_expression_or_quotes(expression: str | None, quotes: list[str], way: str | None) -> None:
    assert operation_of(expression, quotes, TABLE) == way


# Loss


def logits_for(table_encoding: TableEncoding, found: TableTarget) -> TableLogits[Any]:
    """Logits that give the target nearly all probability."""

    def high(count: int, those: Sequence[int] | frozenset[int]) -> Any:
        made = torch.full((count,), -9.0)
        made[list(those)] = 9.0
        return made

    places, rows, wide = len(table_encoding.locations), len(table_encoding.table), len(table_encoding.table[0])
    return TableLogits(
        operations=high(len(OPERATIONS), [found.operation]),
        scales=high(len(SCALES), [found.scale]),
        cells=high(places, found.cells),
        first=high(places, found.first),
        second=high(places, found.second),
        rows=high(rows, found.rows),
        answer_columns=high(wide, found.answer_columns),
        order_columns=high(wide, [] if found.ranking_column is None else [found.ranking_column]),
        begin=high(len(table_encoding.chars), [first for first, _ in found.spans]),
        end=high(len(table_encoding.chars), [last for _, last in found.spans]),
        condition_columns=high(wide, [] if found.condition is None else [found.condition.column]),
        limits=high(
            places,
            [] if found.condition is None else [condition_choices(table_encoding)[min(found.condition.choices)][0]],
        ),
        bounds=high(
            1 + len(BOUNDS),
            [0 if found.condition is None else 1 + condition_choices(table_encoding)[min(found.condition.choices)][1]],
        ),
        extra_columns=high(wide, []),
        extra_limits=high(places, []),
        extra_bounds=high(1 + len(BOUNDS), [0]),
    )


SAID: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "cells": (told("cells", ["grace", "12"]), ("cells",)),
    "text": (told("text", ["has 7 of"]), ("begin", "end")),
    "count": (told("count", expression="2", rows=[1, 2]), ("rows",)),
    "most": (told("most", ["total"], rows=[1, 2, 4], column=1), ("rows", "order_columns", "answer_columns")),
    "sum": (told("sum", expression="36 + 72"), ("cells",)),
    "share": (told("share", expression="36 / 72 * 100"), ("first", "second")),
}


@pytest.mark.parametrize("way", SAID)
def test_table_loss_covers_operation_scale_and_locations(encoder: Encoder, way: str) -> None:
    table_encoding = encoding_of(encoder)
    output, counts = SAID[way]
    found = build_target(output, table_encoding)
    assert found is not None
    best = logits_for(table_encoding, found)
    least = float(loss(best, TableExample(table_encoding, found)))
    assert least < 0.02
    for name in TableLogits._fields:
        other = loss(best._replace(**{name: -getattr(best, name)}), TableExample(table_encoding, found))
        assert (float(other) > least + 1) == (name in ("operations", "scales", *counts)), name


def test_table_loss_ignores_equivalent_cells(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder)
    found = build_target(told("cells", ["36"]), table_encoding)
    assert found is not None
    logits = torch.zeros(len(table_encoding.locations), requires_grad=True)
    loss(logits_for(table_encoding, found)._replace(cells=logits), TableExample(table_encoding, found)).backward()
    assert logits.grad is not None
    wrong = cells(table_encoding, (0, 0), (3, 2), (4, 2))
    assert all(float(logits.grad[at]) < 0 for at in found.cells | found.equivalent_cells)
    assert all(float(logits.grad[at]) > 0 for at in wrong)
    assert all(float(logits.grad[at]) == 0 for at in outside(table_encoding, "7", "12")), "those are never read off"


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        (told("count", expression="1 + 1 + 1"), True),
        (told("sum", expression="1 + 2.004"), True),
        (told("sum", expression="1 + 2.1"), False),
        (told("sum", expression="1 + 2", scale="percent"), False),
        (told("ratio", expression="3 / 0"), False),
        (told("cells", ["3"]), False),
    ],
)
def test_answers_match_by_value_and_scale(said: dict[str, Any], is_right: bool) -> None:
    assert answers_match(said, told("difference", expression="5 - 2")) is is_right


def test_answers_match_quotes_in_order(encoder: Encoder) -> None:
    assert answers_match(told("text", ["Ada", "$ 12"]), told("cells", ["ada", "12"]))
    assert not answers_match(told("cells", ["12", "ada"]), told("cells", ["ada", "12"]))
    assert not answers_match(told("cells", ["ada"]), told("cells", ["ada", "12"]))


def test_answers_match_gap_in_either_order() -> None:
    assert answers_match(told("gap", expression="5 - 2"), told("gap", expression="2 - 5"))
    assert not answers_match(told("difference", expression="5 - 2"), told("difference", expression="2 - 5"))
    assert not answers_match(told("gap", expression="5 - 2"), told("gap", expression="2 - 6"))


@pytest.mark.parametrize(("said", "costs"), [("million", False), ("percent", True), ("", True)])
def test_table_loss_ignores_choice_of_unit(encoder: Encoder, said: str, costs: bool) -> None:
    table_encoding = encoding_of(encoder)
    found = build_target(told("cells", ["grace"], scale="thousand"), table_encoding)
    assert found is not None
    best = logits_for(table_encoding, found)
    scales = torch.full((len(SCALES),), -9.0)
    scales[SCALES.index(said)] = 9.0
    lost = float(
        loss(best._replace(scales=scales), TableExample(table_encoding, found))
        - loss(best, TableExample(table_encoding, found))
    )
    assert (lost > 1) == costs


# Training


def test_target_named_cells_select_location(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder)
    either = build_target(told("cells", ["36"]), table_encoding)
    meant = build_target(told("cells", ["36"], cells=[[2, 1]]), table_encoding)
    assert either is not None
    assert (either.cells | either.equivalent_cells, meant) == (
        cells(table_encoding, (1, 1), (2, 1)),
        wanted("cells", cells=cells(table_encoding, (2, 1))),
    )
    both = build_target(told("difference", expression="36 - 12", cells=[[2, 1], [4, 2]]), table_encoding)
    assert both == wanted(
        "difference",
        first=cells(table_encoding, (2, 1)),
        second=cells(table_encoding, (4, 2)) | outside(table_encoding, "12"),
    )
    assert build_target(told("cells", ["36"], cells=[[3, 2]]), table_encoding) is None, "the cell has another value"
