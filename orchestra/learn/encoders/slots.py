"""Readers that find slots, trained: rows with a text and the places of its slots in, the files of a card of kind `encoder` out.

The base is frozen but for adapters on the linear layers of its blocks, and a head gives each word a label
(`orchestra.agents.inference.slot_filling`). The
loss of a text is how improbable the labels of its words are. The rows to tune on settle how sure it says that it is, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestra.agents.inference.crf_tagger import OUTSIDE, labels_of
from orchestra.agents.inference.slot_filling import FORMAT, Layout, Slots, Text
from orchestra.agents.inference.span_extraction import Window
from orchestra.core.errors import InputError
from orchestra.learn.compatibility import check_contract
from orchestra.learn.crf import Places
from orchestra.learn.data.dataset import Row
from orchestra.learn.encoders.training import HEATS, LEAST, HeadTraining, Lesson, Made, arrays_of, likeliest

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import Step
    from orchestra.learn.encoders.tuned import Frozen, Pointing
    from orchestra.learn.encoders.warm_start import Begun

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


def run(training: HeadTraining, tell: Callable[[Step], None], *, fresh: bool = False) -> Made:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows, N150 for one in which no row has a slot, N151 for a
    card without a text, N140 for a checkpoint of another training.
    """
    places = Places.of(training.card)
    check_contract(training.card, training.data.manifest)
    labels = _labels(training.examples(lambda row: row), places)
    reader, frozen = training.opened(fresh=fresh)
    overlap = min(Layout.model_fields["overlap"].default, training.tokens // 4)
    fields = {"input": places.input, "hint": places.hint, "output": places.output, "labels": labels, "overlap": overlap}
    layout = training.layout(FORMAT, ARRAYS, fields)
    draft = Layout.model_validate({**layout, "sha256": "0" * 64})
    found = [one for row in training.examples(lambda row: examples(row, reader, draft)) for one in row]
    arrays = arrays_of(_trained(training, frozen, found, labels, tell))
    settled, figures = _settled(Slots(draft, arrays, reader), training.data.rows["tune"])
    return training.made(layout | settled, arrays, figures)


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


def _trained(
    training: HeadTraining, base: Frozen, found: Sequence[Example], labels: Sequence[str], tell: Callable[[Step], None]
) -> Pointing:
    """A reader that has learnt the examples."""
    from orchestra.learn.encoders.tuned import Pointing

    member = Pointing(base, training.pace(base, HEAD_RATE), len(labels))
    facts = (FORMAT, list(labels), member.pace, BATCH, [(one.window.tokens, one.at, one.labels) for one in found])
    lesson = Lesson(lambda batch: _loss(member, [found[at] for at in batch]), [len(one.window.tokens) for one in found], facts, BATCH)
    begun = None if training.begun is None else _begun(training.begun.of_kind(FORMAT), labels)
    return training.taught(member, lesson, begun, tell)


def _loss(member: Pointing, read: Sequence[Example]) -> Tensor:
    """How improbable the labels of a text's words are, on average over the texts."""
    import torch
    from torch.nn import functional

    from orchestra.learn.encoders.tuned import padded_tokens

    tokens, mask = padded_tokens([one.window.tokens for one in read])
    rows = torch.tensor([row for row, one in enumerate(read) for _ in one.at])
    at = torch.tensor([place for one in read for place in one.at])
    wanted = torch.tensor([label for one in read for label in one.labels])
    logits = member.logits(member.base.begun(tokens), mask)[rows, at]
    return functional.cross_entropy(logits, wanted, reduction="sum") / len(read)


def _settled(reader: Slots, rows: Sequence[Row]) -> tuple[dict[str, float], dict[str, float]]:
    """The heat at which the probabilities that it says are likeliest, and the share of the rows to tune on whose slots are all right.
    Nothing where there are few rows."""
    layout, read = reader.layout, []
    for row in rows if len(rows) >= LEAST else ():
        text = Text.of(reader.encoder, layout, row.input)
        labels = labels_of(text.words, row.output[layout.output])
        if text.words and labels is not None:
            read.append((labels, reader.scores(text)))
    if not read:
        return {"heat": 1.0}, {}

    def said(heat: float) -> list[tuple[bool, float]]:
        reader.layout = layout.model_copy(update={"heat": heat})
        chosen = [(labels, *reader.choose(scores)) for labels, scores in read]
        return [(labels == given, sure) for labels, given, sure in chosen]

    heat = likeliest(HEATS, said)
    return {"heat": heat}, {"all slots": sum(one for one, _ in said(heat)) / len(read)}
