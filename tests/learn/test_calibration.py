"""Calibration: the fit lowers an overconfident model, uses the wording if it is better, and refuses unsuitable rows."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.inference.calibration import Calibration
from orchestra.core.errors import InputError
from orchestra.learn.calibration import CalibrationRow, calibration_rows, encode_calibration, fit_calibration
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, DatasetSource
from orchestra.learn.evaluation.metrics import Case
from tests.agents.inference.test_calibration import CHOICES, card

SILENT = {"supported": "the kite is red", "contradicted": "the kite is not red", "not stated": "whales swim"}


def data(made: Card) -> Dataset:
    rows = [
        DatasetRow(f"{label}{n}", {"claim": f"the kite {n} is red", "evidence": text}, {"label": label}, f"{label}{n}")
        for label, text in SILENT.items()
        for n in range(20)
    ]
    return Dataset.build(
        "kites", made.name, contract_digest(made), "own", [DatasetSource("x", "own", "", "", 60)], {"train": rows}
    )


def sure(right: float, chance: random.Random) -> list[CalibrationRow]:
    """Rows of a model that always gives 0.98 to one choice and is correct in this share of them."""
    found = []
    for n in range(300):
        label = CHOICES[n % 3]
        said = label if chance.random() < right else chance.choice([one for one in CHOICES if one != label])
        odds = {one: 0.98 if one == said else 0.01 for one in CHOICES}
        found.append(CalibrationRow({"claim": "the kite is red", "evidence": SILENT[label]}, odds, label))
    return found


def loss(made: Calibration | None, rows: list[CalibrationRow]) -> float:
    odds = [one.probabilities if made is None else made.calibrate(one.probabilities, one.inputs) for one in rows]
    return -sum(math.log(chances[one.target]) for chances, one in zip(odds, rows, strict=True)) / len(rows)


def test_calibration_lowers_overconfidence(tmp_path: Path) -> None:
    made, chance = card(tmp_path), random.Random(1)
    found = fit_calibration(made, data(made), sure(0.7, chance))

    fresh = sure(0.7, chance)
    assert found.calibrate(fresh[0].probabilities, {})[
        max(fresh[0].probabilities, key=fresh[0].probabilities.__getitem__)
    ] == pytest.approx(0.7, abs=0.06)
    assert loss(found, fresh) < loss(None, fresh) - 0.3
    assert found.trust.wording == 0
    assert found.words is None
    assert found.rows == 300


def test_calibration_uses_wording_if_better(tmp_path: Path) -> None:
    made, chance = card(tmp_path), random.Random(2)
    alone, both = (
        fit_calibration(made, data(made), sure(0.5, chance), words) for words in (None, ("claim", "evidence"))
    )

    fresh = sure(0.5, chance)
    assert both.trust.wording > both.trust.model
    assert loss(both, fresh) < loss(alone, fresh) - 0.5
    assert Calibration.read(encode_calibration(both), CHOICES) == both


def test_calibration_few_rows_of_choice_refused(tmp_path: Path) -> None:
    made = card(tmp_path)
    with pytest.raises(InputError, match="of not stated") as caught:
        fit_calibration(made, data(made), [one for one in sure(0.7, random.Random(1)) if one.target != "not stated"])
    assert caught.value.code == "N161"


def test_calibration_rows_skip_missing_probabilities(tmp_path: Path) -> None:
    made = card(tmp_path)
    rows = list(data(made).rows["train"][:3])
    answers: list[dict[str, Any] | None] = [
        {"label": "supported", "p": 0.75, "q": 0.2},
        {"label": "supported", "p": None, "q": None},
        None,
    ]
    found = calibration_rows(made, rows, [Case({}, one) for one in answers])

    assert [one.probabilities for one in found] == [
        {"supported": 0.75, "contradicted": 0.2, "not stated": pytest.approx(0.05)}
    ]


def test_calibration_agent_without_probabilities_refused(tmp_path: Path) -> None:
    made = card(tmp_path)
    for other, said in (
        (made.with_settings(computed={"p": {"probability": "supported"}}), "contradicted and"),
        (made.with_settings(calibration=None), "key"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            calibration_rows(other, [], [])
        assert caught.value.code == "N160"
