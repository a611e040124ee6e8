"""Tests text classifiers: outputs follow from their weights, and any text has a prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402
from orchestra.agents.inference.encoder import WEIGHTS_FILE, Encoder, LoraWeights, gelu, map_safetensors  # noqa: E402
from orchestra.agents.inference.model_file import base_encoder  # noqa: E402
from orchestra.agents.inference.text_classifier import FORMAT, TextClassifier  # noqa: E402
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.schema.types import Validator  # noqa: E402
from orchestra.testing.tiny_encoder import SHAPE, write_encoder  # noqa: E402

WORDS = ["my", "card", "was", "stolen", "how", "much", "money", "is", "left"]
CARD = """
name: desk
kind: encoder
model: tiny
input: {text: str}
output: {intent: Intent, p_oos: float}
types: {Intent: {type: string, enum: [balance, lost, outside]}}
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS))


def arrays(encoder: Encoder, texts: list[str], members: int = 2) -> dict[str, Any]:
    """Returns adapters without effect, and the directions of some texts."""
    vectors = np.concatenate([encoder.embed(encoder.tokenize(text, 16), {}) for text in texts])
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    made: dict[str, Any] = {}
    for name in SHAPE.linear_layers:
        taken, given = SHAPE.layer_shape(name)
        made |= {f"down.{name}": np.ones((members, 2, taken)), f"up.{name}": np.zeros((members, given, 2))}
    return made | {"prototypes": np.stack([directions] * members), "sharpness": np.full(members, 20.0)}


def write(folder: Path, encoder: Encoder, given: dict[str, Any] | None = None, **changes: Any) -> Card:
    layout: dict[str, Any] = {
        "format": FORMAT,
        "input": "text",
        "output": "intent",
        "labels": ["balance", "lost", "outside"],
        "outside": {"label": "outside", "output": "p_oos"},
        "base": {"licence": "CC0-1.0", "sha256": {}},
        "members": 2,
        "share": 1.0,
        "data": [],
        "arrays": "adapters.npz",
    }
    made = arrays(encoder, ["how much money is left", "my card was stolen", "is my how"]) if given is None else given
    text, data = pack_arrays(layout | changes, made)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(CARD)
    (folder / "model.json").write_text(text)
    (folder / "adapters.npz").write_bytes(data)
    return Card.load(folder)


def test_classifier_label_follows_embedding_direction(tmp_path: Path, encoder: Encoder) -> None:
    committee = TextClassifier.load(write(tmp_path, encoder), encoder)
    output, probability = committee.predict({"text": "My card was STOLEN!"[:-1]})
    assert output["intent"] == "lost"
    assert probability > 0.5
    output, probability = committee.predict({"text": "is my how"})
    assert output["intent"] == "outside"
    assert probability == output["p_oos"]


@pytest.mark.parametrize("text", ["", "   ", "東京", "\ud800", "\x00\u202e", "x" * 100_000, "card " * 50_000])
def test_output_of_any_text_has_card_type(tmp_path: Path, encoder: Encoder, text: str) -> None:
    card = write(tmp_path, encoder)
    output, probability = TextClassifier.load(card, encoder).predict({"text": text})
    assert Validator(card.output_schema).check(output) is None
    assert 0 < probability <= 1


def test_classifier_bias_decides_outside_label(tmp_path: Path, encoder: Encoder) -> None:
    said = []
    for bias in (-30.0, 30.0):
        card = write(tmp_path / str(bias), encoder, outside={"label": "outside", "output": "p_oos", "bias": bias})
        said.append(TextClassifier.load(card, encoder).predict({"text": "my card"})[0])
    assert said[0]["p_oos"] < 0.5 < said[1]["p_oos"]
    assert said[0]["intent"] != "outside" == said[1]["intent"]


def test_encoder_batched_adapters_equal_single_ones(encoder: Encoder) -> None:
    chance = np.random.default_rng(3)
    name = f"encoder.layer.{SHAPE.layers - 1}.output.dense"
    taken, given = SHAPE.layer_shape(name)
    many = LoraWeights(
        chance.normal(size=(3, 2, taken)).astype(np.float32), chance.normal(size=(3, given, 2)).astype(np.float32)
    )
    tokens = encoder.tokenize("my card was stolen", 16)
    together = encoder.embed(tokens, {name: many}, 3)
    alone = [
        encoder.embed(tokens, {name: LoraWeights(many.down[at : at + 1], many.up[at : at + 1])})[0] for at in range(3)
    ]
    assert np.abs(together - np.stack(alone)).max() < 1e-5
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_classifier_long_text_is_truncated_at_the_end(encoder: Encoder) -> None:
    assert encoder.tokenize("card " * 500, 16) == encoder.tokenize("card " * 14, 16)
    assert len(encoder.tokenize("card " * 500, 16)) == 16


def test_gelu_is_the_normal_distribution(encoder: Encoder) -> None:
    import math

    x = np.linspace(-8, 8, 100_001).astype(np.float32)  # more than one block of values
    exact = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])
    assert np.abs(gelu(x) - exact).max() < 2e-6


@pytest.mark.parametrize(
    "change",
    [
        {"format": "pickle"},
        {"members": 3},
        {"labels": ["balance", "lost"]},
        {"outside": {"label": "elsewhere", "output": "p_oos"}},
        {"sha256": "0" * 64},
        {"linear": {"file": "linear.json", "sha256": "0" * 64, "share": 1.0}},
        {"module": "os"},
    ],
)
def test_a_layout_that_does_not_fit_is_refused(tmp_path: Path, encoder: Encoder, change: dict[str, Any]) -> None:
    card = write(tmp_path, encoder)
    said = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "linear.json").write_text("{}")
    (tmp_path / "model.json").write_text(json.dumps(said | change))
    with pytest.raises(InputError) as caught:
        TextClassifier.load(card, encoder)
    assert caught.value.code == "A011"


def test_adapters_of_another_shape_are_refused(tmp_path: Path, encoder: Encoder) -> None:
    given = arrays(encoder, ["a", "b", "c"])
    name = f"up.{next(iter(SHAPE.linear_layers))}"
    card = write(tmp_path, encoder, given | {name: given[name][:, :-1]})
    with pytest.raises(InputError) as caught:
        TextClassifier.load(card, encoder)
    assert caught.value.code == "A011"


def test_a_card_without_a_base_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    card = write(tmp_path, encoder, base={"licence": "MIT"})
    with pytest.raises(InputError) as caught:
        base_encoder(card)
    assert caught.value.code == "A011"


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", (1 << 40).to_bytes(8, "little") + b"{}"):
        (tmp_path / WEIGHTS_FILE).write_bytes(content)
        with pytest.raises(ValueError, match=r".+"):
            map_safetensors(tmp_path / WEIGHTS_FILE)
