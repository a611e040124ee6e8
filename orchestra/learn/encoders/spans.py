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
from orchestra.agents.inference.span_extraction import FORMAT, Layout, Spans, Window, points, windows
from orchestra.core.errors import InputError
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import Row
from orchestra.learn.encoders.training import BATCH, HEATS, LEAST, HeadTraining, Lesson, Made, arrays_of, likeliest
from orchestra.learn.evaluation.metrics import normal
from orchestra.text.keywords import content, places

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import Step
    from orchestra.learn.encoders.tuned import Frozen, Pointing

ARRAYS = "spans.npz"
EPOCHS = 7
"""Passes over the rows, where nothing is said."""
TOKENS = 384
"""Tokens of a window."""
SILENCES = tuple(step / 4 for step in range(-16, 17))
"""What is tried on the rows to tune on as the logit that is added to "no answer here"."""
NEAR = 100
"""Characters around an answer that tell which of its places is meant, where sentences do not."""
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s")


@dataclass(frozen=True, slots=True)
class Example:
    """A window of a row, and the numbers of the tokens at which the answer begins and ends; 0, the first mark, where it is not in there."""

    window: Window
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Face:
    """Which fields of a card are the question, the passage and the answer."""

    question: str
    passage: str
    output: str

    @classmethod
    def of(cls, card: Card) -> Face:
        """Raises `InputError` N146 for a card of another form."""
        inputs, outputs = card.input_schema.get("properties", {}), card.output_schema.get("properties", {})
        passage = card.evidence or ""
        if points(card) and passage in inputs and len(inputs) == 2 and len(outputs) == 1:
            return cls(next(name for name in inputs if name != passage), passage, next(iter(outputs)))
        hint = "input: {question: str, context: str}, output: {answer: Quote | null}, evidence: context"
        raise InputError("N146", f"{card.name} does not point at words of a passage", hint=hint)


def run(training: HeadTraining, tell: Callable[[Step], None], *, fresh: bool = False) -> Made:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows, N146 for a card that points at nothing, N140 for a
    checkpoint of another training.
    """
    data, face = training.data, Face.of(training.card)
    check_contract(training.card, data.manifest)
    rows = training.examples(lambda row: row)
    reader, frozen = training.opened(fresh=fresh)
    overlap = min(Layout.model_fields["overlap"].default, training.tokens // 4)
    fields = {"question": face.question, "passage": face.passage, "output": face.output, "overlap": overlap}
    layout = training.layout(FORMAT, ARRAYS, fields)
    draft = Layout.model_validate({**layout, "sha256": "0" * 64})
    found = [example for row in rows for example in examples(row, face, reader, draft)]
    member = _trained(training, frozen, found, tell)
    arrays = arrays_of(member)
    settled, figures = _settled(Spans(draft, arrays, reader), [(row, _said(row, face)) for row in data.rows["tune"]], face, member)
    return training.made(layout | settled, arrays, figures)


def _said(row: Row, face: Face) -> str | None:
    said = row.output[face.output]
    return None if said is None else str(said)


def examples(row: Row, face: Face, encoder: Encoder, layout: Layout) -> Iterator[Example]:
    """The windows of a row, but those that have a part of the answer only; none of a row whose answer stands nowhere."""
    question, passage, answer = str(row.input[face.question]), str(row.input[face.passage]), _said(row, face)
    start = place_meant(answer, passage, question) if answer else -1
    if start is None:
        return
    end = start + len(answer or "")
    for window in windows(encoder.pair(question, passage), layout.tokens, layout.overlap):
        inside = [at for at, (first, last) in enumerate(window.spans) if answer and last > start and first < end]
        if not inside:
            yield Example(window)
        elif window.spans[inside[0]][0] <= start and window.spans[inside[-1]][1] >= end:
            yield Example(window, window.start + inside[0], window.start + inside[-1])


def place_meant(answer: str, passage: str, question: str) -> int | None:
    """Where an answer begins in its passage; None where it does not stand there. Of several places, those between words' ends come first
    (`9` is not meant by `1998`), and of these the one whose sentence has most of the question's words, or whose surroundings have; the
    earliest of equal ones. Of 73 answers of XQuAD's training part that stand at several places 59 are found so, 49 by taking the first."""
    found = places(answer, passage)
    if not found:
        return at if (at := passage.find(answer)) >= 0 else None
    asked = content(question)
    borders = [0, *(end.end() for end in _SENTENCE_END.finditer(passage)), len(passage)]

    def words(at: int) -> tuple[int, int]:
        end = at + len(answer)
        sentence = passage[max(border for border in borders if border <= at) : min(border for border in borders if border >= end)]
        return len(asked & content(sentence)), len(asked & content(passage[max(0, at - NEAR) : end + NEAR]))

    return max(found, key=words)


def _trained(training: HeadTraining, base: Frozen, found: Sequence[Example], tell: Callable[[Step], None]) -> Pointing:
    """A reader that has learnt the examples."""
    from torch.nn import functional

    from orchestra.learn.encoders.tuned import Pointing

    member = Pointing(base, training.pace(base))

    def loss(batch: Sequence[int]) -> Tensor:
        import torch

        rows = [found[row] for row in batch]
        logits = _logits(member, [row.window for row in rows])
        first, last = (torch.tensor([getattr(row, name) for row in rows]) for name in ("first", "last"))
        return (functional.cross_entropy(logits[..., 0], first) + functional.cross_entropy(logits[..., 1], last)) / 2

    facts = (member.pace, BATCH, [(row.window.tokens, row.first, row.last) for row in found])
    return training.taught(member, Lesson(loss, [len(row.window.tokens) for row in found], facts), training.begun, tell)


def _logits(member: Pointing, read: Sequence[Window]) -> Tensor:
    """Of a batch of windows, (rows, tokens, 2); next to nothing where no answer may begin or end."""
    import torch

    from orchestra.learn.encoders.tuned import padded_tokens

    tokens, mask = padded_tokens([window.tokens for window in read])
    allowed = torch.zeros_like(mask)
    for row, window in enumerate(read):
        allowed[row, 0] = True
        allowed[row, window.start : window.start + len(window.spans)] = True
    return member.logits(member.base.begun(tokens), mask).masked_fill(~allowed[:, :, None], -1e4)


def _settled(
    reader: Spans, rows: Sequence[tuple[Row, str | None]], face: Face, member: Pointing
) -> tuple[dict[str, float], dict[str, float]]:
    """How readily the reader is silent, so that most rows are right, and the heat at which its probabilities are likeliest; and the share
    of rows that are right."""
    if len(rows) < LEAST:
        return {"silence": 0.0, "heat": 1.0}, {}
    read = []
    for row, wanted in rows:
        pair = reader.encoder.pair(str(row.input[face.question]), str(row.input[face.passage]))
        pieces = list(windows(pair, reader.layout.tokens, reader.layout.overlap))
        read.append(([(piece, _of(member, piece)) for piece in pieces], str(row.input[face.passage]), wanted))

    def asked(silence: float, heat: float = 1.0) -> list[tuple[bool, float]]:
        reader.layout = reader.layout.model_copy(update={"silence": silence, "heat": heat})
        found = [(reader.choose(pieces), passage, wanted) for pieces, passage, wanted in read]
        return [(_right(None if span is None else passage[slice(*span)], wanted), sure) for (span, sure), passage, wanted in found]

    def right(silence: float) -> tuple[int, float]:
        return sum(one for one, _ in asked(silence)), -abs(silence)

    silence = max(SILENCES, key=right)
    heat = likeliest(HEATS, lambda heat: asked(silence, heat))
    return {"silence": silence, "heat": heat}, {"exact": right(silence)[0] / len(rows)}


def _of(member: Pointing, window: Window) -> NDArray[Any]:
    import torch

    with torch.no_grad():
        given: NDArray[Any] = _logits(member, [window])[0].numpy()
    return given


def _right(answer: str | None, wanted: str | None) -> bool:
    return answer == wanted if answer is None or wanted is None else normal(answer) == normal(wanted)
