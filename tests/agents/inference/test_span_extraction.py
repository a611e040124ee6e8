"""Tests span extraction: answers are spans of the passage and follow from the weights; encoders match transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402
from orchestra.agents.inference.encoder import (  # noqa: E402
    RELATIVE_BIAS,
    EncodedPair,
    Encoder,
    map_safetensors,
    relative_position_buckets,
)
from orchestra.agents.inference.model_file import base_encoder  # noqa: E402
from orchestra.agents.inference.span_extraction import (  # noqa: E402
    FORMAT,
    MAX_QUESTION,
    MAX_WINDOWS,
    SpanExtractionConfig,
    SpanExtractor,
    Window,
    extracts_spans,
    split_windows,
)
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.schema.types import Validator  # noqa: E402
from orchestra.testing.tiny_encoder import BUCKETS, SHAPE, write_encoder  # noqa: E402

WORDS = ["the", "tower", "was", "built", "in", "1889", "by", "eiffel", "when", "who", "?", "."]
PASSAGE = "The tower was built in 1889 by Eiffel."
CARD = """
name: finder
kind: encoder
model: tiny
input: {question: str, context: str}
output: {answer: Quote | null}
evidence: context
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS, kind="mpnet"))


def arrays(rank: int = 2, up: float = 0.0) -> dict[str, Any]:
    chance = np.random.default_rng(3)
    made: dict[str, Any] = {"weight": chance.normal(size=(2, SHAPE.hidden_size)), "bias": np.zeros(2)}
    for name in SHAPE.linear_layers:
        taken, gives = SHAPE.layer_shape(name)
        made |= {f"down.{name}": chance.normal(size=(1, rank, taken)), f"up.{name}": np.full((1, gives, rank), up)}
    return made


def layout(**changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "format": FORMAT,
        "question": "question",
        "passage": "context",
        "output": "answer",
        "tokens": 32,
        "overlap": 8,
    }
    return said | {"base": {"licence": "CC0-1.0", "sha256": {}}, "data": [], "arrays": "spans.npz"} | changes


def reader(encoder: Encoder, made: dict[str, Any] | None = None, **changes: Any) -> SpanExtractor:
    return SpanExtractor(
        SpanExtractionConfig.model_validate(layout(**changes) | {"sha256": "0" * 64}),
        arrays() if made is None else made,
        encoder,
    )


def write(folder: Path, made: dict[str, Any]) -> Card:
    text, data = pack_arrays(layout(), made)
    (folder / "agent.yaml").write_text(CARD)
    (folder / "model.json").write_text(text)
    (folder / "spans.npz").write_bytes(data)
    return Card.load(folder)


# The encoder


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_encoder_output_equals_transformers(kind: Any, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = write_encoder(tmp_path / kind, WORDS, kind=kind)
    ours = Encoder.load(folder)
    tokens = ours.tokenize(PASSAGE * 3, 30)
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([tokens])).last_hidden_state[0].numpy()
    assert len(tokens) > 20
    assert np.abs(ours.encode(tokens, {})[0] - theirs).max() < 1e-4


def test_mpnet_buckets_merge_far_and_separate_directions() -> None:
    found = relative_position_buckets(400, 32)
    assert found[0, 0] == 0
    assert len(set(found[200, 192:208].tolist())) == 16
    assert found[0, 200] == found[0, 399] == 31
    assert found[399, 0] == 15
    assert found.max() < 32


def test_mpnet_without_relative_positions_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "base", WORDS, kind="mpnet")
    said = dict(map_safetensors(folder / "model.safetensors"))
    shape = Encoder.load(folder).shape
    assert shape.relative_buckets == BUCKETS
    said[RELATIVE_BIAS] = said[RELATIVE_BIAS][:2]
    with pytest.raises(ValueError, match="relative_attention_bias"):
        Encoder(shape, said, None)


# Windows


def pair(count: int, question: int = 3) -> EncodedPair:
    return EncodedPair(
        [2, *[4] * question, 3, 3], list(range(10, 10 + count)), [(at * 2, at * 2 + 1) for at in range(count)], [3]
    )


@given(st.integers(0, 300), st.integers(1, 400), st.integers(0, 16))
def test_windows_cover_all_tokens_with_given_overlap(count: int, question: int, overlap: int) -> None:
    found = list(split_windows(pair(count, question), 200, overlap))
    seen = [token for window in found for token in window.tokens[window.start : window.start + len(window.offsets)]]
    assert set(seen) == set(range(10, 10 + count))
    assert len(seen) == count + overlap * (len(found) - 1)
    assert all(len(window.tokens) <= 200 and window.start <= MAX_QUESTION for window in found)


@given(st.integers(32, 96), st.integers(1, 32), st.integers(0, 300), st.integers(1, 100))
@example(64, 2, 300, 100)
def test_windows_reach_end_for_any_overlap_and_question(tokens: int, less: int, count: int, question: int) -> None:
    found = list(split_windows(pair(count, question), tokens, (tokens - less) // 2))
    seen = {token for window in found for token in window.tokens[window.start : window.start + len(window.offsets)]}
    assert seen == set(range(10, 10 + count))


@pytest.mark.parametrize(("question", "count"), [(1, 1000), (100, 700), (400, 1000)])
def test_long_windows_accept_overlap_of_half_or_more(encoder: Encoder, question: int, count: int) -> None:
    layout = reader(encoder, tokens=384, overlap=200).config
    seen = {
        token
        for one in split_windows(pair(count, question), layout.tokens, layout.overlap)
        for token in one.tokens[one.start : -1]
    }
    assert seen == set(range(10, 10 + count))


def test_windows_with_overlap_of_all_tokens_are_refused(encoder: Encoder) -> None:
    assert reader(encoder, tokens=64, overlap=31).config.overlap == 31
    with pytest.raises(ValueError, match="a question leaves 32 tokens"):
        reader(encoder, tokens=64, overlap=96)
    with pytest.raises(ValueError, match="a question leaves 96 tokens"):
        reader(encoder, tokens=192, overlap=96)
    with pytest.raises(ValueError, match="make no progress"):
        list(split_windows(pair(300), 64, 32))


# Choice of the span


def chosen(encoder: Encoder, *pieces: tuple[list[float], list[float]], silence: float = 0.0, **changes: Any) -> Any:
    """Returns the choice for windows of one more token than logits; the first token is the mark, and each token covers
    one character.
    """
    read, at = [], 0
    for first, last in pieces:
        spans = [(at + step, at + step + 1) for step in range(len(first))]
        read.append(
            (Window([2, *[4] * len(first)], 1, spans), np.array([[silence / 2] * 2, *zip(first, last, strict=True)]))
        )
        at += len(first)
    return reader(encoder, **changes).decode(read)


def test_span_choice_is_likeliest_with_end_after_start(encoder: Encoder) -> None:
    assert chosen(encoder, ([0, 5, 0, 0], [8, 0, 0, 4]))[0] == (1, 4)
    assert chosen(encoder, ([0, 5, 0, 0], [8, 0, 0, 4]), longest=2)[0] == (0, 1)


def test_span_choice_is_none_if_likelier(encoder: Encoder) -> None:
    assert chosen(encoder, ([1, 1], [1, 1]), silence=3)[0] is None
    assert chosen(encoder, ([1, 2], [1, 2]), silence=3)[0] == (1, 2)
    assert chosen(encoder, ([1, 2], [1, 2]), silence=3)[1] < chosen(encoder, ([1, 9], [1, 9]), silence=3)[1]


def test_span_silence_bias_decides_tie(encoder: Encoder) -> None:
    made = reader(encoder)
    read = [(Window([2, 4], 1, [(0, 1)]), np.array([[1.0, 1.0], [1.0, 1.0]]))]
    made.config = made.config.model_copy(update={"silence": 0.5})
    assert made.decode(read)[0] is None
    made.config = made.config.model_copy(update={"silence": -0.5})
    assert made.decode(read)[0] == (0, 1)


def test_span_in_one_window_is_returned(encoder: Encoder) -> None:
    silent = (Window([2, 4], 1, [(0, 1)]), np.array([[9.0, 9.0], [0.0, 0.0]]))
    tells = (Window([2, 4], 1, [(7, 8)]), np.array([[0.0, 0.0], [5.0, 5.0]]))
    assert reader(encoder).decode([silent, tells])[0] == (7, 8)
    assert reader(encoder).decode([tells, silent])[0] == (7, 8)


def test_span_probability_is_normalized_over_all_spans(encoder: Encoder) -> None:
    _, sure = chosen(encoder, ([1, 0], [1, 0]), silence=0.5)
    sums = [2, 1, 0, 0.5]  # both tokens, start and end; and no answer
    assert sure == pytest.approx(np.exp(2) / np.exp(sums).sum())
    assert chosen(encoder, ([1, 0], [1, 0]), silence=0.5, heat=4)[1] < sure


class Chosen(SpanExtractor):
    """An extractor that always returns the same characters."""

    span: tuple[int, int] | None = None

    def decode(self, read: Any) -> tuple[tuple[int, int] | None, float]:
        return self.span, 0.5


@pytest.mark.parametrize(
    ("passage", "part", "answer"),
    [
        ("the tower was built", "ow", "tower"), ("the tower was built", "tower wa", "tower was"),
        ("built in 1889.", "88", "1889"),
        ("we can't stop", "can", "can't"), ("we can't stop", "'", "can't"), ("we can’t go", "t", "can’t"),
        ("they're in", "re", "they're"),
        ("the house of O'Neill", "Neill", "O'Neill"), ("the house of O’Neill", "O", "O’Neill"),
        ("Eiffel's tower", "iffel", "Eiffel"),
        ("Eiffel’s tower", "s", "Eiffel’s"), ("dans l'été", "ét", "été"), ("the dogs' tails", "og", "dogs"),
        ("rock 'n' roll", "n", "n"),
        ("a well-known tower", "now", "known"), ("a well-known tower", "ell-kn", "well-known"),
        ("state-of-the-art", "of", "of"),
        ("co\u00adoperate", "op", "co\u00adoperate"), ("at −5 °C", "5", "−5"), ("COVID-19", "9", "19"),
        ("2010-15", "5", "15"),
        ("at 10:30 pm", "30", "10:30"), ("$5.3M of", "5.3", "5.3M"), ("12\u00a0345 men", "345", "12\u00a0345"),
        ("塔は1889年に建てられた", "88", "1889"), ("東京タワーが好き", "タワ", "タワ"), ("ภาษาไทย", "ไท", "ไท"),
        ("कि\u200dताब है", "त", "कि\u200dताब"),
    ],
)  # fmt: skip
def test_span_is_extended_to_whole_words(encoder: Encoder, passage: str, part: str, answer: str) -> None:
    made = Chosen(SpanExtractionConfig.model_validate(layout() | {"sha256": "0" * 64}), arrays(), encoder)
    made.span = (passage.index(part), passage.index(part) + len(part))
    assert made.predict({"question": "what", "context": passage}) == ({"answer": answer}, 0.5)
    made.span = None
    assert made.predict({"question": "what", "context": passage}) == ({"answer": None}, 0.5)


# Cards


@given(st.text(max_size=200), st.text(max_size=400))
@example("0:0:0:0:0:0:0:0:0:0:0:0:0:0:0", "0:0:0:0:0:0:0:0:0:0:0:0:0:0:\xa10\xa7")
def test_span_is_text_of_the_passage(question: str, passage: str) -> None:
    made = reader(_ENCODER)
    output, sure = made.predict({"question": question, "context": passage})
    assert output["answer"] is None or output["answer"] in passage.encode("utf-8", "replace").decode("utf-8")
    assert 0 < sure <= 1


def test_span_card_is_loaded_and_returns_its_type(encoder: Encoder, tmp_path: Path) -> None:
    card = write(tmp_path, arrays())
    assert extracts_spans(card)
    assert base_encoder(card).licence == "CC0-1.0"
    output, _ = SpanExtractor.load(card, encoder).predict({"question": "When?", "context": PASSAGE})
    assert Validator(card.output_schema).check(output) is None
    other, _ = SpanExtractor.load(write(tmp_path, arrays(up=0.3)), encoder).predict(
        {"question": "When?", "context": PASSAGE}
    )
    assert other != output


def test_arrays_that_do_not_fit_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    for name, array in (
        ("weight", np.zeros((3, SHAPE.hidden_size))),
        (f"up.{next(SHAPE.linear_layers)}", np.zeros((1, 5, 2))),
    ):
        with pytest.raises(InputError) as caught:
            SpanExtractor.load(write(tmp_path, arrays() | {name: array}), encoder)
        assert caught.value.code == "A011"


def test_span_too_long_passage_is_refused_before_encoding(encoder: Encoder) -> None:
    with pytest.raises(InputError) as caught:
        reader(encoder).predict({"question": "When?", "context": "the tower " * 20 * MAX_WINDOWS})
    assert caught.value.code == "A023"


def _made() -> Encoder:
    import tempfile

    return Encoder.load(write_encoder(Path(tempfile.mkdtemp()), WORDS, kind="mpnet"))


_ENCODER = _made()
