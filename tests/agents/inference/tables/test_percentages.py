"""Tests percentages of a question: the operation that words select, its figure, and percentages that only name rows."""

from __future__ import annotations

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.operations import OPERATIONS  # noqa: E402
from orchestra.agents.inference.tables.percentages import WORD_BONUS, add_percentage_logits, find_percentage  # noqa: E402
from orchestra.agents.inference.tables.reader import TableReader, answer_fields  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402
from tests.agents.tables import WORDS, Hand, answer, arrays, spot, write  # noqa: E402

TABLE = [["name", "books"], ["ada", "20"], ["grace", "15"]]


@pytest.mark.parametrize(
    ("question", "way", "figure"),
    [
        ("what is the full service with 15 percent off?", "discount", "15"),
        ("at 7.5% discount please", "discount", "7.5"),
        ("with the 8 per cent taken off?", "discount", "8"),
        ("the price reduced by 10 %", "discount", "10"),
        ("minus 3 percent", "discount", "3"),
        ("20% on top of that", "surcharge", "20"),
        ("The mayor wants 3 per cent more on repairs", "surcharge", "3"),
        ("plus 19 % VAT", "surcharge", "19"),
        ("rent raised by 4%: what is it then?", "surcharge", "4"),
        ("The auctioneer keeps 5 % of the price", "portion", "5"),
        ("30 percent of the total?", "portion", "30"),
        ("Rates go up by 4 per cent in July. What will Farid get per hour then?", "surcharge", "4"),
        ("Landlord adds 10 per cent admin to the fee", "surcharge", "10"),
        ("How many euros do I save with a coupon of 20% off the tent?", "discount", "20"),
        ("a 15-percent discount", "discount", "15"),
    ],
)
def test_percentage_words_select_operation(question: str, way: str, figure: str) -> None:
    assert find_percentage(question) == (way, figure)


@pytest.mark.parametrize(
    "question",
    [
        "what percentage of the total is that?",
        "Which plans have 10% off?",
        "In which wards did less than 40 percent bother to vote",
        "routes that are punctual in more than 85 per cent of cases",
        "reservoirs that are less than 60% full",
        "Why did revenue increase by 14%?",
        "How many give 5 percent off?",
        "what is 15 off?",
        "Total budget of the projects that are 60% or more finished?",
        "What is the average turnout in wards with 40 percent or less?",
        "What party took 15% of the vote?",
        "reservoirs that are less then 60% full",
        "Quick question: which shops give 10% off?",
        "What is the effect on profit of a 10% increase in the dollar?",
        "Is there a lender with 10% of the market?",
        "1.000,5 % of it",
        "9" * 5_000 + "% off",
        "15 more of them",
        "",
    ],
)
def test_percentage_of_rows_or_missing_selects_none(question: str) -> None:
    assert find_percentage(question) is None


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TableReader:
    base: Path = write_encoder(tmp_path_factory.mktemp("base"), [*WORDS, "%", "off", "percent"])
    return TableReader.load(write(tmp_path_factory.mktemp("card"), arrays()), Encoder.load(base))


def test_percentage_words_raise_operation_and_figure_scores(reader: TableReader) -> None:
    sheet = reader.encode_inputs({"question": "what is it with 15 % off ?", "table": TABLE, "paragraphs": []})
    plain = Hand(["cells"], cells={(1, 1): 5.0}, first={(1, 1): 4.0}, second={(2, 1): 4.0}).logits(sheet)
    told = add_percentage_logits(sheet, plain)
    asked = next(at for at, one in enumerate(sheet.locations) if one.question_figure is not None)
    assert told.operations[OPERATIONS.index("discount")] - plain.operations[
        OPERATIONS.index("discount")
    ] == pytest.approx(WORD_BONUS)
    assert {at for at in range(len(sheet.locations)) if told.second[at] != plain.second[at]} == {asked}, (
        "and not the cell that is 15 too"
    )
    assert (sheet.locations[asked].row, spot(sheet, (2, 1)) != asked) == (-1, True)
    assert plain.second[asked] == pytest.approx(told.second[asked] - WORD_BONUS), "what was given is left as it was"


def test_percentage_bounding_rows_or_in_table_adds_no_score(reader: TableReader) -> None:
    head = [["name", "price with 15 % off"], *TABLE[1:]]
    for question, table in (
        ("what is it with 15 % off ?", head),
        ("sum of up to 15 % off ?", TABLE),
        ("what is it at a maximum of 15 % off ?", TABLE),
        ("what is it at over 15 % off ?", TABLE),
        ("what is it ?", TABLE),
    ):
        sheet = reader.encode_inputs({"question": question, "table": table, "paragraphs": []})
        plain = Hand(["cells"]).logits(sheet)
        assert add_percentage_logits(sheet, plain) is plain, question


def test_percentage_with_minus_decreases(reader: TableReader) -> None:
    sheet = reader.encode_inputs({"question": "what is ada minus 15 percent ?", "table": TABLE, "paragraphs": []})
    hand = Hand(["cells", "discount"], cells={(1, 1): 2.0}, first={(1, 1): 4.0}, second={(2, 1): 4.0})
    found, scale = reader.decode(sheet, add_percentage_logits(sheet, hand.logits(sheet)))
    assert answer_fields(found, scale, sheet)["expression"] == "20 * (100 - 15) / 100"


def test_table_logits_include_percentage_scores(reader: TableReader) -> None:
    off, without = (
        reader.encode_inputs({"question": question, "table": TABLE, "paragraphs": []})
        for question in ("with 15 % off ?", "with 15 off ?")
    )
    ways = reader.logits(off).operations
    assert ways[OPERATIONS.index("discount")] - ways[OPERATIONS.index("surcharge")] > WORD_BONUS - 5
    assert (
        answer(reader, without, Hand(["product"], first={(1, 1): 4.0}, second={"15": 4.0}))["expression"] == "20 * 15"
    )
