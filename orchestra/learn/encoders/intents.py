"""Intents: an agent of kind `encoder`, trained on a user's data set: a committee of one member and a linear classifier; or, of pairs of
texts, one member alone, all of whose blocks are tuned.

Minutes on two cores for ten thousand short texts. Committees of several members are a little better and as many times slower, to train and
to serve; those of the package were trained by `bench/train_intents.py`.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.core.errors import InputError
from orchestra.fleet.weights.encoders import described
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import Row
from orchestra.learn.encoders.classifier import Face, Plan, Rows, train
from orchestra.learn.encoders.texts import Labelled, plain
from orchestra.learn.encoders.training import Made, Training

if TYPE_CHECKING:
    from orchestra.learn.encoders.member import Step

PACKAGES = ("torch", "safetensors", "sklearn", "tokenizers", "threadpoolctl")
MANY = 100
"""Labels from which on the linear classifier gets fewer features: its weights are a number for each of them."""
PAIR_EPOCHS, PAIR_TOKENS = 3, 512
"""Passes over pairs where nothing is said, and the tokens of one that are read at most."""
RATE, RATE_AGAIN = 5e-4, 2e-4
"""The highest learning rate where all blocks are tuned, from the start and from what was learnt before."""
ALL = 1_000
"""Blocks of an encoder, however many it has."""
LEAST = 2
"""Texts that a label needs: one is learnt, and one is left out to settle what the parts count."""


@dataclass(frozen=True, kw_only=True)
class LabelTraining(Training):
    """Of what tells labels."""

    epochs: int | None = None
    minutes: float | None = None
    rate: float | None = None
    """The highest learning rate; None for that which fits what is learnt."""

    @property
    def settings(self) -> tuple[object, ...]:
        """What the result follows from, beside the card, the rows and the base."""
        return self.epochs, self.minutes, self.seed, self.mark, *(() if self.rate is None else (self.rate,))

    @property
    def checkpoint(self) -> Path:
        """Where its checkpoint is kept: that of the only member."""
        return self.folder / "member-0.safetensors"


def run(training: LabelTraining, tell: Callable[[Step], None], *, fresh: bool = False) -> Made:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows or with one label, N141 for a card that tells no
    labels, N123 for a start that does not fit, N143 for a label with too few texts, N144 where the number does not say which label is
    that of texts with none of the others.
    """
    card, data = training.card, training.data
    check_contract(card, data.manifest)
    rows = data.rows["train"]
    if not rows:
        raise InputError("N104", f"{data.manifest.name} has no rows to train on", hint="more rows, or other shares of the parts")
    number = next((name for name, schema in card.form.schema.get("properties", {}).items() if schema.get("type") == "number"), "")
    face = Face.of(card, number)
    output = face.output
    labelled = [
        Labelled(str(row.input[face.given]), str(row.output[output]), str(row.input[face.beside]) if face.beside else "") for row in rows
    ]
    _check(labelled, output)
    outside = _outside(rows, output, number) if number else ""
    if fresh:
        shutil.rmtree(training.folder, ignore_errors=True)
    base = (training.base, described(card.model, training.base))
    begun = training.begun
    if begun is not None and not face.beside:
        reason = f"{card.name} tells labels of texts, and its classifier over n-grams learns from all rows at once"
        raise InputError("N123", reason, hint="leave --start out, and give it the rows of before too")
    plan = replace(_pairs(training), begun=begun) if face.beside else _plan(training, labelled, outside)
    return train(card, Rows(labelled, (training.source,)), base, plan, training.folder, lambda _, step: tell(step))


def _plan(training: LabelTraining, rows: Sequence[Labelled], outside: str) -> Plan:
    from orchestra.learn.encoders.tuned import Pace
    from orchestra.learn.linear import SMALLER, Fit

    own = Pace()
    pace = Pace(epochs=training.epochs or own.epochs, rate=training.rate or own.rate, seed=training.seed)
    fit = SMALLER if len({row.label for row in rows}) > MANY else Fit()
    return Plan(pace, fit, members=1, minutes=training.minutes, outside=outside)


def _pairs(training: LabelTraining) -> Plan:
    """How pairs are learnt: what one text says of another is not in a few last blocks."""
    from orchestra.learn.encoders.tuned import Pace

    rate = training.rate or (RATE if training.start is None else RATE_AGAIN)
    pace = Pace(epochs=training.epochs or PAIR_EPOCHS, rate=rate, rank=16, blocks=ALL, batch=16, seed=training.seed)
    return Plan(pace, None, members=1, minutes=training.minutes, tokens=PAIR_TOKENS)


def _check(rows: Sequence[Labelled], output: str) -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        texts[row.label].add(plain(row.text))
    if len(texts) < LEAST:
        raise InputError("N104", f"all rows to train on have the same {output}", hint="rows of at least two labels")
    if few := sorted(label for label, said in texts.items() if len(said) < LEAST):
        rest = f" and {len(few) - 3} more" if len(few) > 3 else ""
        raise InputError(
            "N143", f"one text alone to train on has the label {', '.join(map(repr, few[:3]))}{rest}", hint="at least two texts"
        )


def _outside(rows: Sequence[Row], output: str, number: str) -> str:
    """The label of texts that have none of the others: those whose number is 1."""
    found = Counter(str(row.output[output]) for row in rows if row.output[number] > 0.5)
    inside = {str(row.output[output]) for row in rows if row.output[number] <= 0.5}
    if len(found) != 1 or inside & found.keys():
        said = f"{number} is 1 for {', '.join(map(repr, found)) or 'no label'}"
        raise InputError("N144", f"{said}; it must be 1 for one label, and 0 for all others", hint="orchestra explain N144")
    return next(iter(found))
