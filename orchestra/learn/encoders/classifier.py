"""Committees, trained: labelled texts, or pairs, in, the files of a card of kind `encoder` out.

Each member is the base with adapters of its own and leaves out one fold of the rows. On these folds, which that member has not seen, it is
settled what the members count and what the linear classifier counts, and how the probability of "none of the labels" is calibrated.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import packed
from orchestra.agents.inference.model_file import Base, Source
from orchestra.agents.inference.text_classifier import FLOOR, FORMAT, Outside, digest_of, logarithms
from orchestra.core.errors import InputError
from orchestra.learn.encoders.texts import Labelled, folds
from orchestra.learn.encoders.texts import digest_of as rows_digest
from orchestra.learn.encoders.training import Made

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import Step
    from orchestra.learn.encoders.tuned import Frozen, Pace
    from orchestra.learn.encoders.warm_start import Begun
    from orchestra.learn.linear import Fit

ARRAYS, LINEAR, LINEAR_ARRAYS = "adapters.npz", "linear.json", "linear.npz"
MOST_EPOCHS = 20
"""Epochs of a member at most, however many minutes there are."""
MEASURED = 4
"""Batches whose time says how long an epoch takes."""
EPOCHS = "epochs.json"
"""What a budget of minutes became, beside the checkpoints: a training that goes on keeps to it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a committee is trained."""

    pace: Pace
    fit: Fit | None
    """Of the linear classifier; None where what is labelled are pairs."""
    members: int = 2
    minutes: float | None = None
    """About how long all of it may take: as many epochs as fit, instead of those of the pace."""
    tokens: int = 64
    """Tokens of a text that are read at most."""
    begun: Begun | None = None
    """What the only member goes on from; None for the base."""
    outside: str = ""
    """The label of texts that have none of the others; empty where every text has one."""
    outside_times: int = 5
    """How often a member sees each such text of the rows in an epoch."""
    outside_share: float = 0.15
    """What share of texts is taken to be outside when its probability is calibrated."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What is learnt from: rows of the agent's own work, and texts of another origin that help."""

    own: Sequence[Labelled]
    sources: tuple[Source, ...]
    other: Sequence[Labelled] = ()

    @classmethod
    def of(cls, own: tuple[str, str, Sequence[Labelled]], *others: tuple[str, str, Sequence[Labelled]]) -> Rows:
        """Rows with the names and the licences of where they come from."""
        sources = tuple(
            Source(name=name, licence=licence, rows=len(rows), digest=rows_digest(rows)) for name, licence, rows in (own, *others)
        )
        return cls(own[2], sources, [row for _, _, rows in others for row in rows])


@dataclass(frozen=True, slots=True)
class Held:
    """What the parts said of the rows that each member left out, as logarithms of probabilities (rows, labels)."""

    rows: Sequence[Labelled]
    members: NDArray[Any]
    linear: NDArray[Any]
    wanted: NDArray[Any]
    """The numbers of the labels."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What the parts count, and the figures on the rows that were left out."""

    share: float
    linear: float
    slope: float
    bias: float
    accuracy: Mapping[str, float]


def train(card: Card, rows: Rows, base: tuple[Path, Base], plan: Plan, work: Path, told: Callable[[int, Step], None]) -> Made:
    """Trains a committee.

    `base` is the encoder's folder and what the card will say of it; checkpoints stand in `work`. `told` hears the member's number and
    its step. Raises `InputError` N141 for a card that tells no labels, N142 for a label that the card does not have, N123 for something
    else to go on from, N140 for a checkpoint of another training.
    """
    from orchestra.learn.linear import fitted

    face = Face.of(card, plan.outside)
    labels = _labels(card, face.output, rows)
    if plan.begun is not None and list(plan.begun.labels) != labels:
        reason = f"{plan.begun.folder} tells {', '.join(plan.begun.labels) or 'no labels'}, and the rows have {', '.join(labels)}"
        raise InputError("N123", reason, hint="rows of all of its labels, and of no others")
    arrays, held = _members(rows, labels, base[0], plan, work, told)
    files: dict[str, bytes] = {}
    said: Callable[[str], NDArray[Any]] | None = None
    if plan.fit is not None:
        fold = dict(zip(rows.own, folds(rows.own), strict=True))
        seen = [row for row in rows.own if fold[row] >= plan.members]
        said = fitted([*seen, *rows.other], (face.given, face.output), plan.fit, LINEAR_ARRAYS).classifier.probabilities
        linear = fitted([*rows.own, *rows.other], (face.given, face.output), plan.fit, LINEAR_ARRAYS)
        files = {LINEAR_ARRAYS: linear.arrays, LINEAR: linear.layout.encode()}
    settled = settle(held_out(held, labels, said), labels, plan)
    outside = Outside(label=plan.outside, output=face.outside, slope=settled.slope, bias=settled.bias) if plan.outside else None
    layout: dict[str, Any] = {
        "format": FORMAT,
        "input": face.given,
        **({"beside": face.beside} if face.beside else {}),
        "output": face.output,
        "outside": None if outside is None else outside.model_dump(),
        "base": base[1].model_dump(),
        "tokens": plan.tokens,
        "members": plan.members,
        "share": settled.share,
        "linear": {"file": LINEAR, "sha256": digest_of(files[LINEAR]), "share": settled.linear} if files else None,
        "data": [source.model_dump() for source in (*(plan.begun.sources if plan.begun else ()), *rows.sources)],
        "labels": labels,
        "arrays": ARRAYS,
    }
    text, data = packed(layout, arrays)
    return Made(files | {ARRAYS: data, card.data: text.encode()}, settled.accuracy)


@dataclass(frozen=True, slots=True)
class Face:
    """Which fields of a card are read and told."""

    given: str
    """The input."""
    beside: str
    """The second input, which is read beside the first; empty where there is one."""
    output: str
    """The label."""
    outside: str
    """The probability of being outside; empty where every text has one of the labels."""

    @classmethod
    def of(cls, card: Card, outside: str) -> Face:
        """Raises `InputError` N141 for a card of another form."""
        inputs, outputs = list(card.input_schema.get("properties", {})), card.form.schema.get("properties", {})
        of_labels = [name for name in outputs if _enum(card, outputs[name])]
        numbers = [name for name in outputs if outputs[name].get("type") == "number"]
        fits = len(of_labels) == 1 and len(outputs) == 1 + len(numbers) and len(numbers) == bool(outside)
        fits = fits and not (outside and (card.computed or card.calibration))  # the calibration of the outside is another
        if fits and (len(inputs) == 1 or (len(inputs) == 2 and not outside)):
            return cls(inputs[0], inputs[1] if len(inputs) == 2 else "", of_labels[0], numbers[0] if outside else "")
        wanted = "one field of an enum, and one number for the probability of being outside" if outside else "one field, of an enum"
        raise InputError(
            "N141", f"{card.name} tells no labels of texts", hint=f"one input{'' if outside else ', or two'}; in the output {wanted}"
        )


def _enum(card: Card, schema: Mapping[str, Any]) -> list[str]:
    if "$ref" in schema:
        schema = card.output_schema.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
    return list(schema.get("enum", ()))


def _labels(card: Card, output: str, rows: Rows) -> list[str]:
    known = set(_enum(card, card.output_schema["properties"][output]))
    found = sorted({row.label for row in rows.own})
    for label in (*found, *(row.label for row in rows.other)):
        if label not in known:
            raise InputError("N142", f"{label!r} is no label of {card.name}", hint="add it to the enum, or leave the rows out")
    return found


def _members(
    rows: Rows, labels: list[str], folder: Path, plan: Plan, work: Path, told: Callable[[int, Step], None]
) -> tuple[dict[str, NDArray[Any]], list[tuple[Labelled, NDArray[Any]]]]:
    """The arrays of all members, and of each member's left-out rows what it said."""
    import numpy as np
    import torch

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders import tuned
    from orchestra.learn.encoders.member import embedded, trained

    began = time.monotonic()
    reader, frozen, number = Encoder.load(folder), tuned.Frozen.load(folder), {label: index for index, label in enumerate(labels)}
    whole, blocks = [*rows.own, *rows.other], min(plan.pace.blocks, frozen.shape.layers)
    hidden = frozen.below([_tokens(reader, row, plan) for row in whole], blocks)
    pace = replace(plan.pace, blocks=blocks)
    if plan.minutes is not None:
        pace = replace(pace, epochs=_epochs(frozen, hidden, [number[row.label] for row in whole], pace, plan, work, began))
    fold = [*folds(rows.own), *folds(rows.other)]
    made: list[dict[str, torch.Tensor]] = []
    held: list[tuple[Labelled, NDArray[Any]]] = []
    for index in range(plan.members):
        taken = [at for at in range(len(whole)) if fold[at] != index]
        taken += [at for at in taken if at < len(rows.own) and whole[at].label == plan.outside] * (plan.outside_times - 1)
        wanted = [number[whole[at].label] for at in taken]
        own = replace(pace, seed=pace.seed + index)
        checkpoint = work / f"member-{index}.safetensors"
        told_of = partial(told, index)
        member = trained(frozen, [hidden[at] for at in taken], wanted, len(labels), own, checkpoint, told_of, plan.begun)
        left = [at for at in range(len(rows.own)) if fold[at] == index]
        with torch.no_grad():
            logits = member.logits(embedded(member, [hidden[at] for at in left]))
        held += zip([whole[at] for at in left], logits.log_softmax(1).numpy(), strict=True)
        made.append(member.arrays())
    arrays = {name: torch.stack([one[name] for one in made]).numpy().astype(np.float16) for name in made[0]}
    return arrays | {"sharpness": arrays["sharpness"].astype(np.float32)}, held


def _tokens(reader: Encoder, row: Labelled, plan: Plan) -> list[int]:
    """Of a text, or, where there is no linear classifier, of a pair."""
    return reader.both(row.text, row.beside, plan.tokens) if plan.fit is None else reader.tokens(row.text, plan.tokens)


def _epochs(frozen: Frozen, hidden: Sequence[Tensor], labels: Sequence[int], pace: Pace, plan: Plan, work: Path, began: float) -> int:
    """The epochs that fit into what is left of the minutes, by the time of some batches; the first answer stays."""
    from orchestra.learn.encoders.member import trained

    assert plan.minutes is not None
    kept = work / EPOCHS
    if kept.is_file():
        return int(json.loads(kept.read_bytes()))
    some = range(min(len(hidden), MEASURED * pace.batch))
    wanted = {label: index for index, label in enumerate(dict.fromkeys(labels[at] for at in some))}
    with tempfile.TemporaryDirectory() as place:
        start = time.monotonic()
        once, told = replace(pace, epochs=1), (lambda step: None)
        trained(frozen, [hidden[at] for at in some], [wanted[labels[at]] for at in some], len(wanted), once, Path(place) / "m", told)
    now = time.monotonic()
    epoch = max(1e-9, (now - start) * len(hidden) / len(some)) * plan.members
    found = min(MOST_EPOCHS, max(1, int((plan.minutes * 60 - (now - began)) / epoch)))
    work.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found))
    return found


def held_out(held: Sequence[tuple[Labelled, NDArray[Any]]], labels: list[str], linear: Callable[[str], NDArray[Any]] | None) -> Held:
    """What members and the linear classifier said, side by side; of a classifier that is not there, that all labels are as likely."""
    import numpy as np

    rows, members = [row for row, _ in held], np.stack([voice for _, voice in held])
    said = np.zeros_like(members) if linear is None else np.log(np.maximum(np.stack([linear(row.text) for row in rows]), FLOOR))
    return Held(rows, members, said, np.array([labels.index(row.label) for row in rows]))


SHARES = tuple(round(0.1 * step, 1) for step in range(21))
"""What a part may count."""


def settle(held: Held, labels: list[str], plan: Plan) -> Settled:
    """The shares with the least log loss on the rows that were left out, and the calibration of the label of those outside."""
    import numpy as np

    def loss(shares: tuple[float, float]) -> float:
        said = logarithms(shares[0] * held.members + shares[1] * held.linear)
        return -float(said[np.arange(len(held.wanted)), held.wanted].mean())

    share, linear = min(((a, b) for a in SHARES[1:] for b in (SHARES if plan.fit is not None else SHARES[:1])), key=loss)
    both = logarithms(share * held.members + linear * held.linear)
    slope, bias = _calibrated(both, held, labels, plan) if plan.outside else (1.0, 0.0)
    inside = held.wanted != labels.index(plan.outside) if plan.outside else np.ones(len(held.wanted), dtype=bool)
    parts = {"members": held.members, "linear": held.linear, "committee": both} if plan.fit is not None else {"members": held.members}
    right = {name: float((said.argmax(axis=1) == held.wanted)[inside].mean()) for name, said in parts.items()}
    return Settled(share, linear, slope, bias, right)


def _calibrated(both: NDArray[Any], held: Held, labels: list[str], plan: Plan) -> tuple[float, float]:
    """Slope and bias on the log-odds of the label of those outside."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    at = labels.index(plan.outside)
    outside = held.wanted == at
    chances = np.clip(np.exp(both[:, at].astype(np.float64)), FLOOR, 1 - FLOOR)
    odds = np.log(chances) - np.log1p(-chances)
    weight = np.where(outside, plan.outside_share / outside.mean(), (1 - plan.outside_share) / (1 - outside.mean()))
    model = LogisticRegression(C=math.inf).fit(odds[:, None], outside, weight)
    return float(model.coef_[0, 0]), float(model.intercept_[0])
