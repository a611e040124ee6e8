"""Readers that find slots, trained: rows with a text and the places of its slots in, the files of a card of kind `encoder` out.

The base is frozen but for adapters on the linear layers of its blocks, and a head gives each word a label (`orchestra.agent.slots`). The
loss of a text is how improbable the labels of its words are. The rows to tune on settle how sure it says that it is, and nothing else.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestra.agent.classical import packed
from orchestra.agent.slots import FORMAT, Layout, Slots, Text
from orchestra.agent.spans import Window
from orchestra.agent.tagger import OUTSIDE, labels_of
from orchestra.errors import InputError
from orchestra.fleet.encoders import described
from orchestra.learn.contract import check_contract
from orchestra.learn.dataset import Row
from orchestra.learn.encoder import Made, Settled
from orchestra.learn.spans import HEATS, LEAST, Training, arrays_of, batches
from orchestra.learn.tagging import Places

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from orchestra.agent.encoder import Encoder
    from orchestra.learn.begun import Begun
    from orchestra.learn.member import Step
    from orchestra.learn.tuned import Frozen, Pace, Pointing

ARRAYS = "slots.npz"
EPOCHS = 5
"""Passes over the rows, where nothing is said."""
TOKENS = 256
"""Tokens of a window."""
BATCH = 1_000
"""Tokens of a batch: texts with slots are short, and of more there would be too few steps."""
HEAD_RATE = 4.0
"""How much faster the head learns than the adapters, for it begins with nothing."""


@dataclass(frozen=True, slots=True)
class Example:
    """A window of a text, the tokens at which its words begin, and the number of the label of each."""

    window: Window
    at: tuple[int, ...]
    labels: tuple[int, ...]


def run(training: Training, tell: Callable[[Step], None], *, fresh: bool = False) -> Made:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows, N150 for one in which no row has a slot, N151 for a
    card without a text, N140 for a checkpoint of another training.
    """
    from orchestra.agent.encoder import Encoder
    from orchestra.learn.tuned import Frozen

    card, data, places = training.card, training.data, Places.of(training.card)
    check_contract(card, data.manifest)
    labels = _labels(training.examples(lambda row: row), places)
    if fresh:
        shutil.rmtree(training.folder, ignore_errors=True)
    reader, frozen = Encoder.load(training.base), Frozen.load(training.base)
    layout: dict[str, Any] = {
        "format": FORMAT,
        "input": places.input,
        "hint": places.hint,
        "output": places.output,
        "labels": labels,
        "base": described(card.model, training.base).model_dump(),
        "tokens": training.tokens,
        "overlap": min(Layout.model_fields["overlap"].default, training.tokens // 4),
        "data": [source.model_dump() for source in training.sources],
        "arrays": ARRAYS,
    }
    draft = Layout.model_validate({**layout, "sha256": "0" * 64})
    found = [one for row in training.examples(lambda row: examples(row, reader, draft)) for one in row]
    begun = None if training.begun is None else _begun(training.begun.of_kind(FORMAT), labels)
    member = trained(frozen, found, labels, training.pace(frozen, HEAD_RATE), training.folder / "member.safetensors", tell, begun)
    arrays = arrays_of(member)
    settled = _settled(Slots(draft, arrays, reader), data.rows["tune"])
    text, content = packed(layout | {"heat": settled.slope}, arrays)
    return Made({ARRAYS: content, card.data: text.encode()}, settled)


def _begun(begun: Begun, labels: Sequence[str]) -> Begun:
    """The same with the labels of these rows: those that it knows go on, and the others begin at nothing."""
    return begun if begun.headless else replace(begun, outputs=begun.labels).with_outputs(labels)


def _labels(rows: Sequence[Row], places: Places) -> list[str]:
    """The labels of rows. Raises `InputError` N150 where no row has a slot."""
    slots = sorted({name for row in rows for name in row.output[places.output]})
    if not slots:
        raise InputError("N150", "no row has a slot to learn", hint='{"input": {"text": "for 8"}, "output": {"slots": {"people": {...}}}}')
    return [OUTSIDE, *(f"{part}-{name}" for name in slots for part in "BI")]


def examples(row: Row, encoder: Encoder, layout: Layout) -> list[Example] | None:
    """The windows of a row; None of one whose slots begin or end inside a word, and of one without words."""
    text = Text.of(encoder, layout, row.input)
    labels = labels_of(text.words, row.output[layout.output])
    if labels is None:
        return None
    known = [(at, layout.labels.index(label)) for at, label in zip(text.firsts, labels, strict=True) if at is not None]
    found = []
    for begins, window in text.windows:
        inside = [(at - begins, label) for at, label in known if 0 <= at - begins < len(window.spans)]
        found.append(Example(window, tuple(window.start + at for at, _ in inside), tuple(label for _, label in inside)))
    return [one for one in found if one.at] or None


def trained(
    base: Frozen,
    found: Sequence[Example],
    labels: Sequence[str],
    pace: Pace,
    checkpoint: Path,
    tell: Callable[[Step], None],
    begun: Begun | None = None,
) -> Pointing:
    """A reader that has learnt the examples; `begun` is what it goes on from."""
    from orchestra.learn.member import Epochs
    from orchestra.learn.tuned import Pointing

    member = Pointing(base, pace, len(labels))
    facts = (FORMAT, list(labels), pace, BATCH, [(one.window.tokens, one.at, one.labels) for one in found])
    mark = hashlib.sha256(repr(facts).encode()).hexdigest()
    lengths = [len(one.window.tokens) for one in found]
    run = Epochs(
        lambda batch: _loss(member, [found[at] for at in batch]),
        lambda seed: batches(lengths, seed, BATCH),
        mark + (begun.sha256 if begun else ""),
        checkpoint,
    )
    run.through(member, pace, lambda: None if begun is None else begun.give(member), tell)
    return member


def _loss(member: Pointing, read: Sequence[Example]) -> Tensor:
    """How improbable the labels of a text's words are, on average over the texts."""
    import torch
    from torch.nn import functional

    length = max(len(one.window.tokens) for one in read)
    tokens = torch.tensor([[*one.window.tokens, *[0] * (length - len(one.window.tokens))] for one in read])
    mask = torch.arange(length) < torch.tensor([[len(one.window.tokens)] for one in read])
    rows = torch.tensor([row for row, one in enumerate(read) for _ in one.at])
    at = torch.tensor([place for one in read for place in one.at])
    wanted = torch.tensor([label for one in read for label in one.labels])
    logits = member.logits(member.base.begun(tokens), mask)[rows, at]
    return functional.cross_entropy(logits, wanted, reduction="sum") / len(read)


def _settled(reader: Slots, rows: Sequence[Row]) -> Settled:
    """The heat at which the probabilities that it says are likeliest, and the share of the rows to tune on whose slots are all right.
    Nothing where there are few rows."""
    layout, read = reader.layout, []
    for row in rows if len(rows) >= LEAST else ():
        text = Text.of(reader.encoder, layout, row.input)
        labels = labels_of(text.words, row.output[layout.output])
        if text.words and labels is not None:
            read.append((labels, reader.scores(text)))
    if not read:
        return Settled(1.0, 0.0, 1.0, 0.0, {})

    def said(heat: float) -> list[tuple[bool, float]]:
        reader.layout = layout.model_copy(update={"heat": heat})
        chosen = [(labels, *reader.choose(scores)) for labels, scores in read]
        return [(labels == given, sure) for labels, given, sure in chosen]

    heat = min(HEATS, key=lambda heat: -sum(math.log(max(sure if one else 1 - sure, 1e-6)) for one, sure in said(heat)))
    return Settled(1.0, 0.0, heat, 0.0, {"all slots": sum(one for one, _ in said(heat)) / len(read)})
