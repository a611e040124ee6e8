"""Readers that point, trained: rows with a question, a passage and words of the passage in, the files of a card of kind `encoder` out.

The base is frozen but for adapters on the linear layers of its blocks, and a head says for each token of the passage whether
the answer begins or ends there (`orchestra.agents.inference.span_extraction`). The rows to tune on settle how readily
it is silent and how sure it says that
it is; nothing else is chosen by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestra.agents.card import Card
from orchestra.agents.inference.span_extraction import FORMAT, SpanExtractionConfig, SpanExtractor, Window, extracts_spans, split_windows
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
"""Passes over the rows, where nothing is said."""
TOKENS = 384
"""Tokens of a window."""
NO_ANSWER_BIASES = tuple(step / 4 for step in range(-16, 17))
"""What is tried on the rows to tune on as the logit that is added to "no answer here"."""
CONTEXT_CHARACTERS = 100
"""Characters around an answer that tell which of its places is meant, where sentences do not."""
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s")


@dataclass(frozen=True, slots=True)
class SpanExample:
    """A window of a row, and the numbers of the tokens at which the answer begins and ends; 0, the first mark, where it is not in there."""

    window: Window
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class SpanFields:
    """Which fields of a card are the question, the passage and the answer."""

    question: str
    passage: str
    output: str

    @classmethod
    def from_card(cls, card: Card) -> SpanFields:
        """Raises `InputError` N146 for a card of another form."""
        inputs, outputs = card.input_schema.get("properties", {}), card.output_schema.get("properties", {})
        passage = card.evidence or ""
        if extracts_spans(card) and passage in inputs and len(inputs) == 2 and len(outputs) == 1:
            return cls(next(name for name in inputs if name != passage), passage, next(iter(outputs)))
        hint = "input: {question: str, context: str}, output: {answer: Quote | null}, evidence: context"
        raise InputError("N146", f"{card.name} does not point at words of a passage", hint=hint)


def run(training: HeadTraining, on_step: Callable[[TrainingStep], None], *, fresh: bool = False) -> TrainedEncoder:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows, N146 for a card that points at nothing, N140 for a
    checkpoint of another training.
    """
    data, face = training.data, SpanFields.from_card(training.card)
    check_contract(training.card, data.manifest)
    rows = training.build_examples(lambda row: row)
    reader, frozen = training.load_base(fresh=fresh)
    overlap = min(SpanExtractionConfig.model_fields["overlap"].default, training.tokens // 4)
    fields = {"question": face.question, "passage": face.passage, "output": face.output, "overlap": overlap}
    layout = training.base_config(FORMAT, ARRAYS_FILE, fields)
    draft = SpanExtractionConfig.model_validate({**layout, "sha256": "0" * 64})
    found = [example for row in rows for example in span_examples(row, face, reader, draft)]
    member = _train_member(training, frozen, found, on_step)
    arrays = member_arrays(member)
    settled, figures = _fit_calibration(
        SpanExtractor(draft, arrays, reader), [(row, _expected_answer(row, face)) for row in data.rows["tune"]], face, member
    )
    return training.build_files(layout | settled, arrays, figures)


def _expected_answer(row: DatasetRow, fields: SpanFields) -> str | None:
    said = row.output[fields.output]
    return None if said is None else str(said)


def span_examples(row: DatasetRow, fields: SpanFields, encoder: Encoder, config: SpanExtractionConfig) -> Iterator[SpanExample]:
    """The windows of a row, but those that have a part of the answer only; none of a row whose answer stands nowhere."""
    question, passage, answer = str(row.input[fields.question]), str(row.input[fields.passage]), _expected_answer(row, fields)
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
    """Where an answer begins in its passage; None where it does not stand there. Of several places, those between words' ends come first
    (`9` is not meant by `1998`), and of these the one whose sentence has most of the question's words, or whose surroundings have; the
    earliest of equal ones. Of 73 answers of XQuAD's training part that stand at several places 59 are found so, 49 by taking the first."""
    found = find_words(answer, passage)
    if not found:
        return at if (at := passage.find(answer)) >= 0 else None
    asked = content_words(question)
    borders = [0, *(end.end() for end in _SENTENCE_END.finditer(passage)), len(passage)]

    def words(at: int) -> tuple[int, int]:
        end = at + len(answer)
        sentence = passage[max(border for border in borders if border <= at) : min(border for border in borders if border >= end)]
        return len(asked & content_words(sentence)), len(
            asked & content_words(passage[max(0, at - CONTEXT_CHARACTERS) : end + CONTEXT_CHARACTERS])
        )

    return max(found, key=words)


def _train_member(
    training: HeadTraining, base: FrozenEncoder, found: Sequence[SpanExample], on_step: Callable[[TrainingStep], None]
) -> TokenHeadEncoder:
    """A reader that has learnt the examples."""
    from torch.nn import functional

    from orchestra.learn.encoders.tuned import TokenHeadEncoder

    member = TokenHeadEncoder(base, training.hyperparameters(base))

    def loss(batch: Sequence[int]) -> Tensor:
        import torch

        rows = [found[row] for row in batch]
        logits = _window_logits(member, [row.window for row in rows])
        first, last = (torch.tensor([getattr(row, name) for row in rows]) for name in ("first", "last"))
        return (functional.cross_entropy(logits[..., 0], first) + functional.cross_entropy(logits[..., 1], last)) / 2

    facts = (member.hyperparameters, BATCH_TOKENS, [(row.window.tokens, row.first, row.last) for row in found])
    return training.train_member(
        member, TrainingExamples(loss, [len(row.window.tokens) for row in found], facts), training.warm_start, on_step
    )


def _window_logits(member: TokenHeadEncoder, read: Sequence[Window]) -> Tensor:
    """Of a batch of windows, (rows, tokens, 2); next to nothing where no answer may begin or end."""
    import torch

    from orchestra.learn.encoders.tuned import pad_tokens

    tokens, mask = pad_tokens([window.tokens for window in read])
    allowed = torch.zeros_like(mask)
    for row, window in enumerate(read):
        allowed[row, 0] = True
        allowed[row, window.start : window.start + len(window.offsets)] = True
    return member.logits(member.base.embed_tokens(tokens), mask).masked_fill(~allowed[:, :, None], -1e4)


def _fit_calibration(
    reader: SpanExtractor, rows: Sequence[tuple[DatasetRow, str | None]], fields: SpanFields, member: TokenHeadEncoder
) -> tuple[dict[str, float], dict[str, float]]:
    """How readily the reader is silent, so that most rows are right, and the heat at which its probabilities are likeliest; and the share
    of rows that are right."""
    if len(rows) < MIN_TUNE_ROWS:
        return {"silence": 0.0, "heat": 1.0}, {}
    read = []
    for row, wanted in rows:
        pair = reader.encoder.tokenize_pair(str(row.input[fields.question]), str(row.input[fields.passage]))
        pieces = list(split_windows(pair, reader.config.tokens, reader.config.overlap))
        read.append(([(piece, _logits_of(member, piece)) for piece in pieces], str(row.input[fields.passage]), wanted))

    def asked(silence: float, heat: float = 1.0) -> list[tuple[bool, float]]:
        reader.config = reader.config.model_copy(update={"silence": silence, "heat": heat})
        found = [(reader.decode(pieces), passage, wanted) for pieces, passage, wanted in read]
        return [(_answers_match(None if span is None else passage[slice(*span)], wanted), sure) for (span, sure), passage, wanted in found]

    def right(silence: float) -> tuple[int, float]:
        return sum(one for one, _ in asked(silence)), -abs(silence)

    silence = max(NO_ANSWER_BIASES, key=right)
    heat = maximize_likelihood(TEMPERATURES, lambda heat: asked(silence, heat))
    return {"silence": silence, "heat": heat}, {"exact": right(silence)[0] / len(rows)}


def _logits_of(member: TokenHeadEncoder, window: Window) -> NDArray[Any]:
    import torch

    with torch.no_grad():
        given: NDArray[Any] = _window_logits(member, [window])[0].numpy()
    return given


def _answers_match(answer: str | None, wanted: str | None) -> bool:
    return answer == wanted if answer is None or wanted is None else normalize_squad(answer) == normalize_squad(wanted)
