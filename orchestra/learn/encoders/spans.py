"""Training of span readers: from questions, passages and quoted answers to the files of a card of kind `encoder`.

The base is frozen except for adapters on the linear layers of its blocks, and a head scores each token of the passage
as the first and the last token of the answer (`orchestra.agents.inference.span_extraction`). The tune split determines
the no-answer bias and the temperature, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestra.agents.card import Card
from orchestra.agents.inference.span_extraction import (
    FORMAT,
    SpanExtractionConfig,
    SpanExtractor,
    Window,
    extracts_spans,
    split_windows,
)
from orchestra.core.errors import InputError
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import DatasetRow
from orchestra.learn.encoders.training import (
    BATCH_TOKENS,
    MIN_TUNE_ROWS,
    TEMPERATURES,
    HeadTraining,
    TrainedEncoder,
    TrainingExamples,
    maximize_likelihood,
    member_arrays,
)
from orchestra.learn.evaluation.metrics import normalize_squad
from orchestra.text.keywords import content_words, find_words

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import TrainingStep
    from orchestra.learn.encoders.tuned import FrozenEncoder, TokenHeadEncoder

ARRAYS_FILE = "spans.npz"
EPOCHS = 7
"""Default number of epochs."""
TOKENS = 384
"""Tokens of a window."""
NO_ANSWER_BIASES = tuple(step / 4 for step in range(-16, 17))
"""Candidate biases that are added to the no-answer logit on the tune split."""
CONTEXT_CHARACTERS = 100
"""Number of characters around an answer that select its occurrence if sentences do not."""
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s")


@dataclass(frozen=True, slots=True)
class SpanExample:
    """A window of a row, and the first and last token of the answer; 0, the first special token, if the answer is not
    in the window.
    """

    window: Window
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class SpanFields:
    """The fields of a card for question, passage and answer."""

    question: str
    passage: str
    output: str

    @classmethod
    def from_card(cls, card: Card) -> SpanFields:
        """Returns the fields of a card.

        Raises:
            InputError: N146 if the card has other fields.
        """
        inputs, outputs = card.input_schema.get("properties", {}), card.output_schema.get("properties", {})
        passage = card.evidence or ""
        if extracts_spans(card) and passage in inputs and len(inputs) == 2 and len(outputs) == 1:
            return cls(next(name for name in inputs if name != passage), passage, next(iter(outputs)))
        hint = "input: {question: str, context: str}, output: {answer: Quote | null}, evidence: context"
        raise InputError("N146", f"{card.name} is not a span reader", hint=hint)


def run(training: HeadTraining, on_step: Callable[[TrainingStep], None], *, fresh: bool = False) -> TrainedEncoder:
    """Trains, or resumes a killed training from its last checkpoint.

    Raises:
        InputError: N103 if the data set has other types; N104 if it has no rows; N146 if the card has no quoted answer;
        N140 if a checkpoint belongs to another training.
    """
    data, fields_of_card = training.data, SpanFields.from_card(training.card)
    check_contract(training.card, data.manifest)
    rows = training.build_examples(lambda row: row)
    reader, frozen_encoder = training.load_base(fresh=fresh)
    overlap = min(SpanExtractionConfig.model_fields["overlap"].default, training.tokens // 4)
    fields = {
        "question": fields_of_card.question,
        "passage": fields_of_card.passage,
        "output": fields_of_card.output,
        "overlap": overlap,
    }
    layout = training.base_config(FORMAT, ARRAYS_FILE, fields)
    draft = SpanExtractionConfig.model_validate({**layout, "sha256": "0" * 64})
    examples = [example for row in rows for example in span_examples(row, fields_of_card, reader, draft)]
    member = _train_member(training, frozen_encoder, examples, on_step)
    arrays = member_arrays(member)
    fitted_settings, figures = _fit_calibration(
        SpanExtractor(draft, arrays, reader),
        [(row, _expected_answer(row, fields_of_card)) for row in data.rows["tune"]],
        fields_of_card,
        member,
    )
    return training.build_files(layout | fitted_settings, arrays, figures)


def _expected_answer(row: DatasetRow, fields: SpanFields) -> str | None:
    answer = row.output[fields.output]
    return None if answer is None else str(answer)


def span_examples(
    row: DatasetRow, fields: SpanFields, encoder: Encoder, config: SpanExtractionConfig
) -> Iterator[SpanExample]:
    """Returns the windows of a row, without those that cut the answer; none if the answer does not occur in the
    passage.
    """
    question, passage, answer = (
        str(row.input[fields.question]),
        str(row.input[fields.passage]),
        _expected_answer(row, fields),
    )
    start = locate_answer(answer, passage, question) if answer else -1
    if start is None:
        return
    end = start + len(answer or "")
    for window in split_windows(encoder.tokenize_pair(question, passage), config.tokens, config.overlap):
        inside = [at for at, (first, last) in enumerate(window.offsets) if answer and last > start and first < end]
        if not inside:
            yield SpanExample(window)
        elif window.offsets[inside[0]][0] <= start and window.offsets[inside[-1]][1] >= end:
            yield SpanExample(window, window.start + inside[0], window.start + inside[-1])


def locate_answer(answer: str, passage: str, question: str) -> int | None:
    """Returns the position of an answer in its passage; None if it does not occur.

    Of several occurrences, those at word boundaries come first (`9` is not meant by `1998`). Of these the one whose
    sentence, or else whose surroundings, have most of the question's words is taken, and the earliest of equal ones. Of
    the 73 answers of XQuAD's training split with several occurrences, 59 are located correctly, 49 by taking the first
    one.
    """
    word_indexes = find_words(answer, passage)
    if not word_indexes:
        return at if (at := passage.find(answer)) >= 0 else None
    question_words = content_words(question)
    borders = [0, *(end.end() for end in _SENTENCE_END.finditer(passage)), len(passage)]

    def shared_words(at: int) -> tuple[int, int]:
        end = at + len(answer)
        sentence = passage[
            max(border for border in borders if border <= at) : min(border for border in borders if border >= end)
        ]
        return len(question_words & content_words(sentence)), len(
            question_words & content_words(passage[max(0, at - CONTEXT_CHARACTERS) : end + CONTEXT_CHARACTERS])
        )

    return max(word_indexes, key=shared_words)


def _train_member(
    training: HeadTraining,
    base: FrozenEncoder,
    examples: Sequence[SpanExample],
    on_step: Callable[[TrainingStep], None],
) -> TokenHeadEncoder:
    """Trains a span reader on the examples."""
    from torch.nn import functional

    from orchestra.learn.encoders.tuned import TokenHeadEncoder

    member = TokenHeadEncoder(base, training.hyperparameters(base))

    def loss(batch: Sequence[int]) -> Tensor:
        import torch

        rows = [examples[row] for row in batch]
        logits = _window_logits(member, [row.window for row in rows])
        first, last = (torch.tensor([getattr(row, name) for row in rows]) for name in ("first", "last"))
        return (functional.cross_entropy(logits[..., 0], first) + functional.cross_entropy(logits[..., 1], last)) / 2

    facts = (member.hyperparameters, BATCH_TOKENS, [(row.window.tokens, row.first, row.last) for row in examples])
    return training.train_member(
        member,
        TrainingExamples(loss, [len(row.window.tokens) for row in examples], facts),
        training.warm_start,
        on_step,
    )


def _window_logits(member: TokenHeadEncoder, windows: Sequence[Window]) -> Tensor:
    """Returns the logits of a batch of windows, (rows, tokens, 2); very low where no answer may begin or end."""
    import torch

    from orchestra.learn.encoders.tuned import pad_tokens

    tokens, mask = pad_tokens([window.tokens for window in windows])
    valid_mask = torch.zeros_like(mask)
    for row, window in enumerate(windows):
        valid_mask[row, 0] = True
        valid_mask[row, window.start : window.start + len(window.offsets)] = True
    return member.logits(member.base.embed_tokens(tokens), mask).masked_fill(~valid_mask[:, :, None], -1e4)


def _fit_calibration(
    reader: SpanExtractor, rows: Sequence[tuple[DatasetRow, str | None]], fields: SpanFields, member: TokenHeadEncoder
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the no-answer bias with most correct rows, the temperature with the best likelihood, and the share of
    correct rows.
    """
    if len(rows) < MIN_TUNE_ROWS:
        return {"silence": 0.0, "heat": 1.0}, {}
    readings = []
    for row, expected in rows:
        pair = reader.encoder.tokenize_pair(str(row.input[fields.question]), str(row.input[fields.passage]))
        pieces = list(split_windows(pair, reader.config.tokens, reader.config.overlap))
        readings.append(
            ([(piece, _logits_of(member, piece)) for piece in pieces], str(row.input[fields.passage]), expected)
        )

    def predict(silence: float, heat: float = 1.0) -> list[tuple[bool, float]]:
        reader.config = reader.config.model_copy(update={"silence": silence, "heat": heat})
        predictions = [(reader.decode(pieces), passage, expected) for pieces, passage, expected in readings]
        return [
            (_answers_match(None if span is None else passage[slice(*span)], expected), sure)
            for (span, sure), passage, expected in predictions
        ]

    def right(silence: float) -> tuple[int, float]:
        return sum(is_right for is_right, _ in predict(silence)), -abs(silence)

    silence = max(NO_ANSWER_BIASES, key=right)
    heat = maximize_likelihood(TEMPERATURES, lambda heat: predict(silence, heat))
    return {"silence": silence, "heat": heat}, {"exact": right(silence)[0] / len(rows)}


def _logits_of(member: TokenHeadEncoder, window: Window) -> NDArray[Any]:
    import torch

    with torch.no_grad():
        logits: NDArray[Any] = _window_logits(member, [window])[0].numpy()
    return logits


def _answers_match(answer: str | None, expected: str | None) -> bool:
    return (
        answer == expected
        if answer is None or expected is None
        else normalize_squad(answer) == normalize_squad(expected)
    )
