"""Readers that point, trained: rows with a question, a passage and words of the passage in, the files of a card of kind `encoder` out.

The base is frozen but for adapters on the linear layers of its blocks, and a head says for each token of the passage whether
the answer begins or ends there (`orchestra.agent.spans`). The rows to tune on settle how readily it is silent and how sure it says that
it is; nothing else is chosen by them.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from orchestra.agent.card import Card
from orchestra.agent.classical import packed
from orchestra.agent.committee import Source
from orchestra.agent.spans import FORMAT, Layout, Spans, Window, points, windows
from orchestra.errors import InputError
from orchestra.fleet.encoders import described
from orchestra.learn.begun import Begun
from orchestra.learn.contract import check_contract, contract_digest
from orchestra.learn.dataset import DataSet, Row
from orchestra.learn.encoder import Made, Settled
from orchestra.learn.metrics import normal
from orchestra.values.json import digest
from orchestra.values.words import content, places

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from orchestra.agent.encoder import Encoder
    from orchestra.learn.member import Step
    from orchestra.learn.tuned import Adapted, Frozen, Pace, Pointing

E = TypeVar("E")
PACKAGES = ("torch", "safetensors", "tokenizers", "threadpoolctl")
ARRAYS = "spans.npz"
EPOCHS = 7
"""Passes over the rows, where nothing is said."""
TOKENS = 384
"""Tokens of a window."""
SILENCES = tuple(step / 4 for step in range(-16, 17))
"""What is tried on the rows to tune on as the logit that is added to "no answer here"."""
HEATS = tuple(2 ** (step / 4) for step in range(-4, 13))
NEAR = 100
"""Characters around an answer that tell which of its places is meant, where sentences do not."""
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s")
LEAST = 30
"""Rows to tune on from which on they settle anything."""
BATCH = 2_500
"""Tokens of a batch, those that fill up its rows among them."""
POOL = 200
"""Rows among which those of like length are sought."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, on what, and for how long."""

    card: Card
    data: DataSet
    base: Path
    """The folder of the encoder that the card names."""
    cache: Path
    """Where checkpoints are kept."""
    epochs: int = EPOCHS
    rate: float = 5e-4
    rank: int = 16
    seed: int = 0
    tokens: int = TOKENS
    """Tokens of question and passage that are read at once."""
    start: Path | None = None
    """The folder of an encoder that it goes on from; None for the base alone."""

    @cached_property
    def begun(self) -> Begun | None:
        """What it goes on from. Raises `InputError` A003, A004, A011 or N123 for what does not fit."""
        return None if self.start is None else Begun.of(self.card, self.start, described(self.card.model, self.base))

    @property
    def sources(self) -> tuple[Source, ...]:
        """What a card says of the rows that it is trained on, and was before."""
        manifest, rows = self.data.manifest, len(self.data.rows["train"])
        own = Source(name=manifest.name, licence=manifest.licence, rows=rows, digest=manifest.digest)
        return (*(self.begun.sources if self.begun else ()), own)

    @property
    def folder(self) -> Path:
        """Where its checkpoints are kept."""
        base = sorted(described(self.card.model, self.base).sha256.items())
        mine = (self.epochs, self.rate, self.rank, self.seed, self.tokens, self.begun.sha256 if self.begun else "")
        facts = (contract_digest(self.card), self.data.manifest.digest, base, mine)
        return self.cache / "learn" / self.card.name / digest(msgspec.json.encode(facts))[:12]

    def examples(self, made: Callable[[Row], E | None]) -> list[E]:
        """What is made of the rows to train on, but of those of which nothing is. Raises `InputError` N104 where nothing is left."""
        found = [one for row in self.data.rows["train"] if (one := made(row)) is not None]
        if not found:
            raise InputError("N104", f"{self.data.manifest.name} has no rows to train on", hint="more rows, or other shares of the parts")
        return found

    def pace(self, base: Frozen, head: float = 1.0) -> Pace:
        """How it is trained: all blocks of the base, and its head so many times as fast."""
        from orchestra.learn.tuned import Pace

        return Pace(epochs=self.epochs, rate=self.rate, head=head, rank=self.rank, blocks=base.shape.layers, seed=self.seed)


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


def run(training: Training, tell: Callable[[Step], None], *, fresh: bool = False) -> Made:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows, N146 for a card that points at nothing, N140 for a
    checkpoint of another training.
    """
    from orchestra.agent.encoder import Encoder
    from orchestra.learn.tuned import Frozen

    card, data, face = training.card, training.data, Face.of(training.card)
    check_contract(card, data.manifest)
    if not data.rows["train"]:
        raise InputError("N104", f"{data.manifest.name} has no rows to train on", hint="more rows, or other shares of the parts")
    if fresh:
        shutil.rmtree(training.folder, ignore_errors=True)
    reader, frozen, begun = Encoder.load(training.base), Frozen.load(training.base), training.begun
    layout: dict[str, Any] = {
        "format": FORMAT,
        "question": face.question,
        "passage": face.passage,
        "output": face.output,
        "base": described(card.model, training.base).model_dump(),
        "tokens": training.tokens,
        "data": [source.model_dump() for source in training.sources],
        "arrays": ARRAYS,
    }
    draft = Layout.model_validate({**layout, "sha256": "0" * 64})
    found = [example for row in data.rows["train"] for example in examples(row, face, reader, draft)]
    member = trained(frozen, found, training.pace(frozen), training.folder / "member.safetensors", tell, begun)
    arrays = arrays_of(member)
    tune = data.rows["tune"]
    settled = _settled(Spans(draft, arrays, reader), [(row, _said(row, face)) for row in tune], face, member)
    text, content = packed(layout | {"silence": settled.bias, "heat": settled.slope}, arrays)
    return Made({ARRAYS: content, card.data: text.encode()}, settled)


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


def trained(
    base: Frozen, found: Sequence[Example], pace: Pace, checkpoint: Path, tell: Callable[[Step], None], begun: Begun | None = None
) -> Pointing:
    """A reader that has learnt the examples; `begun` is what it goes on from."""
    from torch.nn import functional

    from orchestra.learn.member import Epochs
    from orchestra.learn.tuned import Pointing

    member = Pointing(base, pace)

    def loss(batch: Sequence[int]) -> Tensor:
        import torch

        rows = [found[row] for row in batch]
        logits = _logits(member, [row.window for row in rows])
        first, last = (torch.tensor([getattr(row, name) for row in rows]) for name in ("first", "last"))
        return (functional.cross_entropy(logits[..., 0], first) + functional.cross_entropy(logits[..., 1], last)) / 2

    mark = hashlib.sha256(repr((pace, BATCH, [(row.window.tokens, row.first, row.last) for row in found])).encode()).hexdigest()
    lengths = [len(row.window.tokens) for row in found]
    run = Epochs(loss, lambda seed: batches(lengths, seed), mark + (begun.sha256 if begun else ""), checkpoint)
    run.through(member, pace, lambda: None if begun is None else begun.give(member), tell)
    return member


def _logits(member: Pointing, read: Sequence[Window]) -> Tensor:
    """Of a batch of windows, (rows, tokens, 2); next to nothing where no answer may begin or end."""
    import torch

    length = max(len(window.tokens) for window in read)
    tokens = torch.tensor([[*window.tokens, *[0] * (length - len(window.tokens))] for window in read])
    mask = torch.arange(length) < torch.tensor([[len(window.tokens)] for window in read])
    allowed = torch.zeros(len(read), length, dtype=torch.bool)
    for row, window in enumerate(read):
        allowed[row, 0] = True
        allowed[row, window.start : window.start + len(window.spans)] = True
    return member.logits(member.base.begun(tokens), mask).masked_fill(~allowed[:, :, None], -1e4)


def batches(lengths: Sequence[int], seed: int, most: int = BATCH) -> list[list[int]]:
    """Rows of like length, so many that a batch has `most` tokens, in random order."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(lengths)))
    chance.shuffle(order)
    made: list[list[int]] = []
    for start in range(0, len(order), POOL):
        batch: list[int] = []
        for row in sorted(order[start : start + POOL], key=lambda row: lengths[row]):
            if batch and (len(batch) + 1) * lengths[row] > most:
                made.append(batch)
                batch = []
            batch.append(row)
        made.append(batch)
    chance.shuffle(made)
    return made


def arrays_of(member: Adapted) -> dict[str, NDArray[Any]]:
    """What a member has learnt, as a card's arrays have it."""
    import numpy as np

    halves = ("down.", "up.")
    return {
        name: np.asarray(array[None] if name.startswith(halves) else array, dtype=np.float16) for name, array in member.arrays().items()
    }


def _settled(reader: Spans, rows: Sequence[tuple[Row, str | None]], face: Face, member: Pointing) -> Settled:
    """How readily the reader is silent, so that most rows are right, and the heat at which its probabilities are likeliest."""
    if len(rows) < LEAST:
        return Settled(1.0, 0.0, 1.0, 0.0, {})
    read = []
    for row, wanted in rows:
        pair = reader.encoder.pair(str(row.input[face.question]), str(row.input[face.passage]))
        pieces = list(windows(pair, reader.layout.tokens, reader.layout.overlap))
        read.append(([(piece, _of(member, piece)) for piece in pieces], str(row.input[face.passage]), wanted))

    def asked(layout: Layout) -> list[tuple[bool, float]]:
        reader.layout = layout
        found = [(reader.choose(pieces), passage, wanted) for pieces, passage, wanted in read]
        return [(_right(None if span is None else passage[slice(*span)], wanted), sure) for (span, sure), passage, wanted in found]

    def right(silence: float) -> tuple[int, float]:
        return sum(one for one, _ in asked(_with(silence, 1.0))), -abs(silence)

    def _with(silence: float, heat: float) -> Layout:
        return reader.layout.model_copy(update={"silence": silence, "heat": heat})

    silence = max(SILENCES, key=right)
    said = {heat: asked(_with(silence, heat)) for heat in HEATS}
    heat = min(HEATS, key=lambda heat: -sum(math.log(max(sure if one else 1 - sure, 1e-6)) for one, sure in said[heat]))
    return Settled(1.0, 0.0, heat, silence, {"exact": sum(one for one, _ in said[heat]) / len(rows)})


def _of(member: Pointing, window: Window) -> NDArray[Any]:
    import torch

    with torch.no_grad():
        given: NDArray[Any] = _logits(member, [window])[0].numpy()
    return given


def _right(answer: str | None, wanted: str | None) -> bool:
    return answer == wanted if answer is None or wanted is None else normal(answer) == normal(wanted)
