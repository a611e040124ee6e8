"""Tests the packaged linear agents and damaged files."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import pack_arrays
from orchestra.agents.inference.linear import LinearClassifier, LinearRegressor, NgramFeatures
from orchestra.agents.registry import builtin_folder
from orchestra.core.errors import InputError
from orchestra.schema.types import Validator

np = pytest.importorskip("numpy")

FOLDER = builtin_folder("agents") / "banking_intent"
FILE = "linear.json"


@pytest.fixture(scope="module")
def classifier() -> LinearClassifier:
    return LinearClassifier.load(Card.load(FOLDER), FILE)


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("Somebody stole my card, please block it", "lost_or_stolen_card"),
        ("How long until my new card arrives?", "card_arrival"),
        ("I was charged twice for the same purchase", "transaction_charged_twice"),
        ("I forgot my passcode", "passcode_forgotten"),
        ("what is the exchange rate", "exchange_rate"),
    ],
)
def test_plain_messages_get_their_intent(classifier: LinearClassifier, text: str, intent: str) -> None:
    output, probability = classifier.predict({"text": text})
    assert output == {"intent": intent}
    assert 0.3 < probability <= 1


@pytest.mark.parametrize("text", ["", "   ", "東京", "\x00\u202e", "x" * 100_000])
def test_output_of_any_text_has_card_type(classifier: LinearClassifier, text: str) -> None:
    output, probability = classifier.predict({"text": text})
    assert Validator(Card.load(FOLDER).output_schema).check(output) is None
    assert 0 < probability <= 1


def test_the_probabilities_sum_to_one(classifier: LinearClassifier) -> None:
    assert float(classifier.probabilities("my card").sum()) == pytest.approx(1, abs=1e-4)


def test_classifier_labels_equal_card_labels(classifier: LinearClassifier) -> None:
    assert sorted(map(str, classifier.config.labels)) == sorted(
        Card.load(FOLDER).output_schema["properties"]["intent"]["enum"]
    )


def test_features_are_words_characters_and_pairs() -> None:
    found = NgramFeatures(words=(1, 2), characters=(3,), gap=1).extract("The red Car")
    assert {"wred", "wthe red", "c re", "c car"[:4], "sthe car"} <= set(found)
    assert "sthe red" not in found


def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "agent"))


def refused(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        LinearClassifier.load(Card.load(folder), FILE)
    return caught.value


def test_arrays_that_differ_from_written_ones_are_refused(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    data = bytearray((folder / "linear.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "linear.npz").write_bytes(data)
    assert refused(folder).code == "A011"


def test_arrays_missing_or_outside_folder_are_refused(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    layout = json.loads((folder / FILE).read_text())
    (folder / "linear.npz").rename(tmp_path / "linear.npz")
    assert refused(folder).code == "A004"
    (folder / FILE).write_text(json.dumps({**layout, "arrays": "../linear.npz"}))
    assert refused(folder).code == "A003"


@pytest.mark.parametrize(
    "change",
    [{"format": "pickle"}, {"labels": ["a"]}, {"labels": ["a", "b"]}, {"module": "os"}, {"features": {"words": [99]}}],
)
def test_a_layout_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = copy(tmp_path)
    layout = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**layout, **change}))
    assert refused(folder).code == "A011"


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    layout = json.loads((folder / FILE).read_text())
    np.savez(folder / "linear.npz", vocabulary=np.array([{"a": 1}], dtype=object))
    mark = hashlib.sha256((folder / "linear.npz").read_bytes()).hexdigest()
    (folder / FILE).write_text(json.dumps({**layout, "sha256": mark}))
    assert refused(folder).code == "A011"


def small(folder: Path, **changed: bytes | None) -> Path:
    """Returns a classifier with two words; `changed` replaces or removes entries of its arrays."""
    arrays = {
        "vocabulary": np.frombuffer(b"wa\nwb", np.uint8),
        "idf": np.ones(2, np.float32),
        "weights": np.ones((2, 2), np.int8),
    }
    arrays |= {"scale": np.ones(2, np.float32), "intercept": np.zeros(2, np.float32)}
    entries = {f"{name}.npy": plain(array) for name, array in arrays.items()} | {
        f"{name}.npy": data for name, data in changed.items()
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            if data is not None:
                archive.writestr(name, data)
    folder.mkdir()
    (folder / "agent.yaml").write_text(
        "name: small\nkind: sklearn\ninput: {text: str}\noutput: {label: \"Literal['a', 'b']\"}\n"
    )
    return written(folder, made.getvalue())


def written(folder: Path, data: bytes) -> Path:
    """Returns the folder with these bytes as arrays and a matching configuration."""
    (folder / "linear.npz").write_bytes(data)
    layout = {
        "format": "orchestra/linear-text/v1",
        "input": "text",
        "output": "label",
        "features": {},
        "labels": ["a", "b"],
    }
    (folder / FILE).write_text(
        json.dumps({**layout, "arrays": "linear.npz", "sha256": hashlib.sha256(data).hexdigest()})
    )
    return folder


def plain(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def header(shape: tuple[int, ...]) -> bytes:
    """Returns the header of an array without data."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return made.getvalue()


@pytest.mark.parametrize(
    "idf",
    [
        header((10**13,)), header((10**30,)), header((-5, -5)), b"", b"hello", plain(np.ones(2, np.float32))[:-3], None,
        plain(np.array(["a", "b"])), plain(np.ones(2, complex)), plain(np.zeros(2, "M8[s]")),
        plain(np.zeros(2, [("a", "f4")])),
        plain(np.array([1, np.nan], np.float32)), plain(np.array([-np.inf, 1], np.float16)),
        plain(np.array([1e200, 1])),
    ],
)  # fmt: skip
def test_arrays_not_finite_are_refused_before_allocation(tmp_path: Path, idf: bytes | None) -> None:
    assert LinearClassifier.load(Card.load(small(tmp_path / "sound")), FILE).predict({"text": "a"}) == (
        {"label": "a"},
        0.5,
    )
    assert refused(small(tmp_path / "damaged", idf=idf)).code == "A011"


def test_arrays_entry_of_another_type_is_refused(tmp_path: Path) -> None:
    folder = small(tmp_path / "small", idf=None)
    with zipfile.ZipFile(folder / "linear.npz", "a") as archive:
        archive.writestr("idf", b"hello")
    assert refused(written(folder, (folder / "linear.npz").read_bytes())).code == "A011"


def test_arrays_damaged_at_any_byte_are_refused_or_read(tmp_path: Path) -> None:
    folder, rng = small(tmp_path / "small"), random.Random(8)
    card = Card.load(folder)
    data = (folder / "linear.npz").read_bytes()
    for _ in range(100):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        written(folder, bytes(changed[: rng.choice([None, None, None, rng.randrange(len(data))])]))
        with suppress(InputError):
            assert 0.5 <= LinearClassifier.load(card, FILE).predict({"text": "a b"})[1] <= 1


def test_features_with_zero_weight_give_even_probability(tmp_path: Path) -> None:
    folder = small(tmp_path / "small", idf=plain(np.zeros(2, np.float32)))
    assert LinearClassifier.load(Card.load(folder), FILE).predict({"text": "a b"}) == ({"label": "a"}, 0.5)


def test_packed_arrays_are_deterministic() -> None:
    arrays = {"b": np.arange(3), "a": np.zeros((2, 2), dtype=np.int8)}
    assert pack_arrays({"x": 1}, arrays) == pack_arrays({"x": 1}, dict(reversed(arrays.items())))


def number_folder(folder: Path, **changed: Any) -> Path:
    """Returns an agent that predicts 0.5, and more for a text with "prove"."""
    arrays = {
        "vocabulary": np.frombuffer(b"wprove", dtype=np.uint8),
        "idf": np.ones(1, dtype=np.float32),
        "weights": np.full((1, 1), 127, dtype=np.int8),
        "scale": np.full(1, 0.25 / 127, dtype=np.float32),
        "intercept": np.full(1, 0.5, dtype=np.float32),
        "lengths": np.zeros(4, dtype=np.float32),
    }
    layout = {
        "format": "orchestra/linear-number/v1",
        "input": "question",
        "output": "need",
        "features": {"words": [1], "characters": []},
    }
    text, data = pack_arrays(
        {**layout, "lowest": 0.0, "highest": 1.0, "arrays": "weights.npz", **changed.pop("layout", {})},
        {**arrays, **changed},
    )
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(
        "name: difficulty\nkind: sklearn\ninput: {question: str}\noutput: {need: float}\n"
    )
    (folder / "model.json").write_text(text)
    (folder / "weights.npz").write_bytes(data)
    return folder


def test_regression_output_is_sum_of_feature_weights(tmp_path: Path) -> None:
    found = LinearRegressor.load(Card.load(number_folder(tmp_path / "difficulty")))
    assert found.predict({"question": "prove it"}) == ({"need": pytest.approx(0.75)}, None)
    assert found.predict_number("add it") == pytest.approx(0.5)


@pytest.mark.parametrize("text", ["", "prove", "東京", "x" * 200_000])
def test_regression_output_is_clipped_to_training_range(tmp_path: Path, text: str) -> None:
    steep = np.full(40, 3.0, dtype=np.float32)
    assert (
        0
        <= LinearRegressor.load(Card.load(number_folder(tmp_path / "difficulty", lengths=steep))).predict_number(text)
        <= 1
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": np.ones((2, 1), dtype=np.int8)},
        {"scale": np.ones(2, dtype=np.float32)},
        {"scale": np.ones((), dtype=np.float32)},
        {"intercept": np.ones(2, dtype=np.float32)},
        {"intercept": np.ones((1, 1), dtype=np.float32)},
        {"scale": np.ones(2, dtype=np.float32), "intercept": np.ones(2, dtype=np.float32)},
        {"idf": np.ones(2, dtype=np.float32)},
        {"lengths": np.ones((1, 1), dtype=np.float32)},
        {"layout": {"lowest": 2.0}},
    ],
)
def test_regression_arrays_of_wrong_shape_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        LinearRegressor.load(Card.load(number_folder(tmp_path / "difficulty", **changed)))
    assert caught.value.code == "A011"
