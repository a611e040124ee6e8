"""Tests table readers: the unit that words give, the order of two figures, and incomputable operations."""

from __future__ import annotations

from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.encoding import TableEncoding  # noqa: E402
from orchestra.agents.inference.tables.operations import SCALES  # noqa: E402
from orchestra.agents.inference.tables.reader import TableReader  # noqa: E402
from orchestra.agents.inference.tables.scales import UNIT_SIGNS, UnitWeights  # noqa: E402
from tests.agents.inference.tables.test_reader import ADA, AGE, GRACE, card, encoder, reader, sheet_of  # noqa: E402
from tests.agents.tables import Hand, answer, arrays, spot, sure, told, way_and_scale  # noqa: E402

__all__ = ["card", "encoder", "reader"]
HEAD_FIRST = UnitWeights(
    signs=tuple(5.0 if name.endswith(".head") else 1.0 for name in UNIT_SIGNS), usual=(0.5, 0.0, 0.0)
)
"""Words above a table have the highest weight."""


def scales(reader: TableReader, units: UnitWeights | None, sheet: TableEncoding) -> Any:
    """Returns the scale logits of a reader with these units."""
    made = arrays()
    return (
        TableReader(reader.config.model_copy(update={"units": units}), made, reader.encoder, reader._card)
        .logits(sheet)
        .scales
    )


@pytest.mark.parametrize(
    ("head", "cell", "text", "unit"),
    [
        ("in millions", "thousand", "a thousand of them", "million"),
        ("in thousands", "5 million", "a million of them", "thousand"),
        ("age", "in billions", "", "billion"),
        ("age", "36", "a million of them", "million"),
        ("age", "36", "", "thousand"),
    ],
)
def test_unit_comes_from_words_if_encoder_predicts_one(
    reader: TableReader, head: str, cell: str, text: str, unit: str
) -> None:
    sheet = sheet_of(reader, "what is it ?", [["name", head], ["ada", cell]], [text])
    plain, found = scales(reader, None, sheet), scales(reader, HEAD_FIRST, sheet)
    assert SCALES[2 + int(found[2:].argmax())] == unit
    assert np.exp(found[2:]).sum() == pytest.approx(np.exp(plain[2:]).sum()), "it is as likely that there is a unit"
    assert found[:2].tolist() == plain[:2].tolist()


def test_unit_without_weights_comes_from_encoder(reader: TableReader) -> None:
    sheet = sheet_of(reader, "what is it ?", [["name", "in millions"], ["ada", "36"]], [])
    assert reader.config.units is None
    assert scales(reader, None, sheet).tolist() == reader.logits(sheet).scales.tolist()


def test_gap_has_larger_figure_first_and_adds_both_orders(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = Hand(["gap"], first={"7": 3.0, (GRACE, AGE): 1.0}, second={(GRACE, AGE): 2.0, "7": 1.5})
    assert answer(reader, sheet, hand) == told("gap", expression="85 - 7", cells=[[GRACE, AGE]])
    logits = hand.logits(sheet)
    figures = [at for at, one in enumerate(sheet.locations) if one.figure is not None]
    seven, grace = (figures.index(spot(sheet, place)) for place in ("7", (GRACE, AGE)))
    first, second = np.exp(logits.first[figures]), np.exp(logits.second[figures])
    every = first.sum() * second.sum() - (first * second).sum()  # of two different ones
    either = (first[seven] * second[grace] + first[grace] * second[seven]) / every
    assert sure(reader, sheet, hand) == pytest.approx(either * way_and_scale(logits, "gap"))
    other = Hand(["difference"], first=hand.first, second=hand.second)
    assert answer(reader, sheet, other)["expression"] == "7 - 85"


@pytest.mark.parametrize(
    ("way", "figure"), [("ratio", "0"), ("share", "0"), ("change", "0.0"), ("gap", "12,34,5"), ("difference", "1,2,3")]
)
def test_incomputable_operation_yields_to_next(encoder: Encoder, reader: TableReader, way: str, figure: str) -> None:
    sheet = sheet_of(reader, "what is it ?", [["name", "age"], ["ada", "36"], ["grace", figure]], [])
    hand = Hand([way, "cells"], first={(ADA, AGE): 5.0}, second={(GRACE, AGE): 5.0}, cells={(GRACE, AGE): 2.0})
    assert answer(reader, sheet, hand) == told("cells", [figure], cells=[[GRACE, AGE]])
    fine = Hand(["difference", "cells"], first={(ADA, AGE): 5.0}, second={(ADA, AGE): 4.0, (GRACE, AGE): 5.0})
    assert (answer(reader, sheet, fine)["way"] == "cells") == (figure in ("12,34,5", "1,2,3"))


def test_pair_excludes_figure_with_itself(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    both = Hand(["difference"], first={(ADA, AGE): 9.0, "7": 1.0}, second={(ADA, AGE): 8.0, "40": 3.0})
    assert answer(reader, sheet, both)["expression"] == "36 - 40"
