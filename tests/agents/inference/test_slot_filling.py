"""Tests slot filling: slots are exact spans of the text, words use the logits of their first token, and windows cover a
long text.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402
from orchestra.agents.inference.crf_tagger import decode_slots, split_words, viterbi  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.slot_filling import (  # noqa: E402
    FORMAT,
    SlotFiller,
    SlotFillingConfig,
    SlotInput,
    fills_slots,
    transition_masks,
)
from orchestra.agents.inference.span_extraction import MAX_WINDOWS  # noqa: E402
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.schema.types import Validator  # noqa: E402
from orchestra.testing.tiny_encoder import SHAPE, write_encoder  # noqa: E402

WORDS = ["a", "table", "for", "8", "at", "nine", "##teen", "ada", "people", "time", ",", "?"]
LABELS = ("O", "B-name", "I-name", "B-people", "I-people")
SPAN = (
    "{type: object, properties: {value: {type: string}, start: {type: integer}, end: {type: integer}}, required:"
    " [value, start, end]}"
)
CARD = f"""
name: clerk
kind: encoder
model: tiny
input: {{text: str, requested: "list[str]"}}
output: {{slots: "dict[str, Span]"}}
types: {{Span: {SPAN}}}
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS))


def arrays(**changes: Any) -> dict[str, Any]:
    chance = np.random.default_rng(3)
    made: dict[str, Any] = {
        "weight": chance.normal(size=(len(LABELS), SHAPE.hidden_size)),
        "bias": np.zeros(len(LABELS)),
    }
    for name in SHAPE.linear_layers:
        taken, gives = SHAPE.layer_shape(name)
        made |= {f"down.{name}": chance.normal(size=(1, 2, taken)), f"up.{name}": np.zeros((1, gives, 2))}
    return made | changes


def said(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "format": FORMAT,
        "input": "text",
        "hint": "requested",
        "output": "slots",
        "labels": LABELS,
        "tokens": 64,
        "overlap": 16,
    }
    return found | {"base": {"licence": "CC0-1.0", "sha256": {}}, "data": [], "arrays": "slots.npz"} | changes


def layout(**changes: Any) -> SlotFillingConfig:
    return SlotFillingConfig.model_validate(said(**changes) | {"sha256": "0" * 64})


def reader(encoder: Encoder, made: dict[str, Any] | None = None, **changes: Any) -> SlotFiller:
    return SlotFiller(layout(**changes), arrays() if made is None else made, encoder)


def write(folder: Path, text: str = CARD) -> Card:
    (folder / "agent.yaml").write_text(text)
    return Card.load(folder)


def asked(text: str, *requested: str) -> dict[str, Any]:
    return {"text": text, "requested": list(requested)}


def test_slot_filling_needs_output_map_of_spans(tmp_path: Path) -> None:
    assert fills_slots(write(tmp_path))
    for other in (
        '{slots: "dict[str, str]"}',
        "{label: str}",
        '{slots: "dict[str, Span]", sure: float}',
        "{slots: Span}",
        "str",
    ):
        assert not fills_slots(write(tmp_path, CARD.replace('{slots: "dict[str, Span]"}', other)))


@given(
    st.text(max_size=60) | st.text(alphabet="a8, nineteen?\u200b", max_size=60),
    st.lists(st.sampled_from(["time", "first_name"])),
)
def test_output_of_any_text_has_card_type_and_exact_spans(
    encoder: Encoder, tmp_path_factory: pytest.TempPathFactory, text: str, requested: list[str]
) -> None:
    output, probability = reader(encoder, tokens=32, overlap=4).predict(asked(text, *requested))
    card = write(tmp_path_factory.mktemp("card"))
    assert Validator(card.output_schema).check(output) is None
    assert all(text[span["start"] : span["end"]] == span["value"] for span in output["slots"].values())
    assert 0 < probability <= 1


def test_slot_word_of_several_tokens_uses_first_logits(encoder: Encoder) -> None:
    text = SlotInput.from_inputs(encoder, layout(), asked("nineteen at 8"))
    assert [word.text for word in text.words] == ["nineteen", "at", "8"]
    assert (text.first_tokens, text.token_count) == ([0, 2, 3], 4)


def test_slot_word_without_token_is_outside(encoder: Encoder) -> None:
    # a combining mark alone; the encoder drops it
    text = SlotInput.from_inputs(encoder, layout(), asked("ada \u0301 8"))
    assert [word.text for word in text.words] == ["ada", "\u0301", "8"]
    assert text.first_tokens == [0, None, 1]
    scores = reader(encoder).word_logits(text)
    assert scores[1].argmax() == 0
    assert (scores[1][1:] < -1e6).all()


def test_slot_filling_encodes_request_with_text(encoder: Encoder) -> None:
    ready = reader(encoder)
    heads = [
        SlotInput.from_inputs(encoder, layout(), asked("8", *names)).windows[0][1].tokens
        for names in ((), ("time",), ("people", "time"))
    ]
    assert [len(tokens) for tokens in heads] == [5, 6, 8]
    told = [
        ready.word_logits(SlotInput.from_inputs(encoder, layout(), asked("8", name))) for name in ("time", "people")
    ]
    assert not np.allclose(*told)
    assert ready.predict({"text": "8"}) == ready.predict(asked("8"))
    alone = reader(encoder, hint="")
    assert alone.predict(asked("8", "time")) == alone.predict(asked("8", "people"))


def test_shared_word_uses_window_with_most_context(encoder: Encoder) -> None:
    words = 60
    text = SlotInput.from_inputs(encoder, layout(tokens=32, overlap=10), asked("8 " * words))
    ready = reader(encoder, tokens=32, overlap=10)
    found = ready.word_logits(text)
    room = len(text.windows[0][1].offsets)
    assert room == 32 - 4
    assert [begins for begins, _ in text.windows] == [0, room - 10, 2 * (room - 10)]
    for at in range(words):
        holding = [(begins, window) for begins, window in text.windows if begins <= at < begins + len(window.offsets)]
        begins, window = max(holding, key=lambda one: min(at - one[0], one[0] + len(one[1].offsets) - 1 - at))
        assert np.allclose(found[at], ready._window_logits(window)[at - begins])


def test_a_text_that_is_too_long_is_refused(encoder: Encoder) -> None:
    with pytest.raises(InputError) as caught:
        reader(encoder, tokens=32, overlap=0).predict(asked("8 " * (MAX_WINDOWS * 28 + 1)))
    assert caught.value.code == "A023"
    reader(encoder, tokens=32, overlap=0).predict(asked("8 " * (MAX_WINDOWS * 28)))


def test_slot_continuation_needs_a_beginning() -> None:
    begins, follows = transition_masks(LABELS)
    assert (begins < 0).tolist() == [False, False, True, False, True]
    for before, row in zip(LABELS, follows, strict=True):
        for after, added in zip(LABELS, row, strict=True):
            assert (added < 0) == (after.startswith("I-") and before[2:] != after[2:])


def test_slot_answer_is_likeliest_with_normalized_probability(encoder: Encoder) -> None:
    made = arrays(weight=np.zeros((len(LABELS), SHAPE.hidden_size)), bias=np.array([1.0, 2.0, 5.0, 0.0, 0.0]))
    output, probability = reader(encoder, made).predict(asked("ada"))
    assert output == {"slots": {"name": {"value": "ada", "start": 0, "end": 3}}}
    assert probability == pytest.approx(math.exp(2) / (math.exp(1) + math.exp(2) + 1), rel=1e-6)
    output, cooler = reader(encoder, made, heat=2.0).predict(asked("ada"))
    assert cooler == pytest.approx(math.exp(1) / (math.exp(0.5) + math.exp(1) + 1), rel=1e-6)


def test_slot_filling_matches_viterbi_over_its_weights(encoder: Encoder) -> None:
    ready = reader(encoder)
    inputs = asked("a table for 8 at nineteen", "time")
    pair = encoder.tokenize_pair("time", inputs["text"])
    read = encoder.encode([*pair.head, *pair.body, *pair.tail], {})[0] @ arrays()["weight"].astype(np.float32).T
    at = [len(pair.head) + first for first in (0, 1, 2, 3, 4, 5)]
    begins, follows = transition_masks(LABELS)
    logits = read[at].astype(np.float64)
    logits[0] += begins
    path, probability = viterbi(logits, follows)
    output, told = ready.predict(inputs)
    assert output["slots"] == decode_slots(
        inputs["text"], split_words(inputs["text"]), [LABELS[label] for label in path]
    )
    assert told == pytest.approx(probability, rel=1e-4)


def test_slot_filling_invalid_files_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    damaged: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (arrays(bias=np.zeros(4)), {}),
        (arrays(weight=np.zeros((5, 3))), {}),
        (arrays(), {"labels": LABELS[:3]}),
        ({name: array for name, array in arrays().items() if name != "bias"}, {}),
        (arrays(), {"format": "orchestra/spans/v1"}),
    ]
    for number, (made, changes) in enumerate(damaged):
        folder = tmp_path / str(number)
        folder.mkdir()
        card = write(folder)
        text, data = pack_arrays(said(**changes), made)
        (folder / "model.json").write_text(text)
        (folder / "slots.npz").write_bytes(data)
        with pytest.raises(InputError) as caught:
            SlotFiller.load(card, encoder)
        assert caught.value.code == "A011"


def test_windows_with_overlap_of_all_tokens_are_refused() -> None:
    assert layout(tokens=64, overlap=31).overlap == 31
    with pytest.raises(ValueError, match="a question leaves 32 tokens"):
        layout(tokens=64, overlap=32)
