"""Tests calibrations: their effect on probabilities, and refused files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.inference.overlap_features import FEATURE_NAMES, wording_features
from orchestra.agents.output_parser import OutputParser, ParsedOutput
from orchestra.core.errors import InputError

CHOICES = ("supported", "contradicted", "not stated")
CARD = """
name: judge
input: {claim: str, evidence: str}
output: {label: "Literal['supported', 'contradicted', 'not stated']", p: float | null, q: float | null}
computed: {p: {probability: supported}, q: {probability: contradicted}}
calibration: calibration.json
"""


def file(**changes: Any) -> dict[str, Any]:
    return {"choices": list(CHOICES), "trust": {"model": 1.0}, "bias": [0.0, 0.0, 0.0], **changes}


def words(weight: float) -> dict[str, Any]:
    rows = [[weight, *[0.0] * (len(FEATURE_NAMES) - 1)], [0.0] * len(FEATURE_NAMES), [0.0] * len(FEATURE_NAMES)]
    zero = [0.0] * len(FEATURE_NAMES)
    return {
        "claim": "claim",
        "evidence": "evidence",
        "mean": zero,
        "spread": [1.0] * len(FEATURE_NAMES),
        "weights": rows,
        "bias": [0.0, 0.0, 0.0],
    }


def card(folder: Path, **changes: Any) -> Card:
    (folder / "agent.yaml").write_text(CARD, "utf-8")
    (folder / "prompt.md").write_text("{{ evidence }} {{ claim }}", "utf-8")
    if changes:
        (folder / "calibration.json").write_text(json.dumps(file(**changes)), "utf-8")
    return Card.load(folder)


class Word:
    text = "supported"
    logprob = math.log(0.6)
    top = (("supported", math.log(0.6)), ("contrad", math.log(0.1)), ("not", math.log(0.3)))


def read(made: Card, **inputs: str) -> Any:
    found = OutputParser(made).parse("supported", tokens=[Word()], inputs=inputs)
    assert isinstance(found, ParsedOutput), found
    return found.value


def test_card_needs_calibration_and_calibration_changes_digest(tmp_path: Path) -> None:
    bare = card(tmp_path)
    assert read(bare) == {"label": "supported", "p": pytest.approx(0.6), "q": pytest.approx(0.1)}

    assert card(tmp_path, bias=[0.0, 0.0, 1.0]).digest != bare.digest


def test_calibration_bias_moves_probabilities_and_label(tmp_path: Path) -> None:
    found = read(card(tmp_path, bias=[0.0, 0.0, math.log(4)]))

    assert found == {"label": "not stated", "p": pytest.approx(0.6 / 1.9), "q": pytest.approx(0.1 / 1.9)}


def test_calibration_high_temperature_lowers_confidence(tmp_path: Path) -> None:
    assert read(card(tmp_path, trust={"model": 0.1}))["p"] == pytest.approx(0.6**0.1 / (0.6**0.1 + 0.1**0.1 + 0.3**0.1))


def test_calibration_is_ignored_with_another_adapter(tmp_path: Path) -> None:
    manifest = tmp_path / "adapter" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text('{"sha256": "mine"}', "utf-8")
    made = card(tmp_path, adapter="mine", bias=[0.0, 0.0, 9.0]).with_settings(adapter="adapter")
    assert read(made)["label"] == "not stated"

    manifest.write_text('{"sha256": "promoted"}', "utf-8")
    assert made.current_calibration is None
    assert read(made)["label"] == "supported"


def test_calibration_is_ignored_for_answer_without_adapter(tmp_path: Path) -> None:
    reader = OutputParser(card(tmp_path, bias=[0.0, 0.0, 9.0]))
    found = reader.parse("supported", tokens=[Word()], with_adapter=False)

    assert isinstance(found, ParsedOutput)
    assert found.value["label"] == "supported"


def test_calibration_combines_wording_and_model(tmp_path: Path) -> None:
    made = card(tmp_path, trust={"model": 1.0, "wording": 1.0}, words=words(3.0))

    alike, apart = (read(made, claim="a red kite", evidence=text)["p"] for text in ("a red kite", "blue whales swim"))
    assert alike > 0.9 > apart == pytest.approx(0.6)


def test_stored_card_loads_calibration_and_reports_changes(tmp_path: Path) -> None:
    made = card(tmp_path, bias=[0.0, 0.0, 1.0])
    assert Card.restore(made.dump(), tmp_path).current_calibration == made.current_calibration

    (tmp_path / "calibration.json").write_text(json.dumps(file()), "utf-8")
    with pytest.raises(InputError, match=r"calibration\.json has changed"):
        Card.restore(made.dump(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"choices": ["yes", "no", "maybe"]}, "its choices are yes, no, maybe"),
        ({"bias": [0.0, 1.0]}, "one number for each choice"),
        ({"bias": ["a", "b", "c"]}, "Expected `float`"),
        ({"code": "print(1)"}, "unknown field"),
        ({"words": {**words(1.0), "mean": [0.0]}}, "its wording model does not have 19 features"),
        ({"words": {**words(1.0), "spread": [0.0] * len(FEATURE_NAMES)}}, "not positive"),
    ],
)
def test_calibration_file_of_another_card_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        card(tmp_path, **changes)
    assert caught.value.code == "A014"


def test_wording_features_match_their_names() -> None:
    found = dict(
        zip(
            FEATURE_NAMES,
            wording_features("Ann was born in 1950, not here!", "Ann was born in 1952 in Rome."),
            strict=True,
        )
    )

    assert found["numbers not found"] == found["numbers"] == 1
    assert found["claim denies"] == found["one denies, the other not"] == 1
    assert found["evidence denies"] == found["names not found"] == 0
    assert found["content words found"] == 0.4  # the content words are ann, born, 1950, not, here
    assert found["exclamation mark"] == 1
    assert wording_features("", "")
    assert all(math.isfinite(number) for number in wording_features("", ""))
