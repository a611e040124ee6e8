"""What an agent has learnt from: marks of its rows, kept beside what it has learnt, so that nobody judges it by rows that it knows.

An agent is nearly always right on rows that it was trained on: a promise about those says nothing about others. The marks are digests of
inputs, equal for those that say the same; no text of a row can be read in them. Of many rows those with the lowest marks are kept: they
are a sample, and of any other rows the same sample can be taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.card_file import WITH_ARRAYS
from orchestra.core.atomic_files import write_file
from orchestra.core.errors import InputError, Place
from orchestra.learn.data.dataset import MANIFEST, DataSet, Manifest
from orchestra.learn.data.deduplication import mark
from orchestra.learn.evaluation.rows import Test
from orchestra.learn.promotion.promotion import LEARNT_FROM
from orchestra.learn.promotion.promotion import mark as learnt_mark
from orchestra.schema.strict_json import NotDecodable, decoded
from orchestra.verification.certificates.row_fingerprints import LENGTH, Marks, Rows

LearntPart: TypeAlias = Literal["train", "tune"]
BOTH: tuple[LearntPart, ...] = ("train", "tune")
FEW = 50
"""Rows of a domain so small that a training knows most of it: an agent that reads one of twelve categories has no others."""


class LearntFrom(msgspec.Struct, frozen=True, kw_only=True):
    """The record beside what an agent has learnt."""

    format: Literal["orchestra/learnt-from/v1"] = "orchestra/learnt-from/v1"
    learnt: str
    """Digest of what came of it: a record beside something else is none."""
    data: str
    """The name of the data set, and of those before it; each once."""
    train: Marks
    tune: Marks


def record(card: Card, data: DataSet, folder: Path, before: LearntFrom | None = None) -> None:
    """Writes what a training has learnt from into the folder that it left; with what it went on from, which is read `before` it."""
    train, tune = (Marks.of(mark(row.input)[:LENGTH] for row in data.rows[part]) for part in BOTH)
    name = data.manifest.name
    if before is not None:
        train, tune = before.train.and_(train), before.tune.and_(tune)
        name = ", ".join(dict.fromkeys((*before.data.split(", "), name)))
    made = LearntFrom(learnt=learnt_mark(card, folder), data=name, train=train, tune=tune)
    write_file(folder / LEARNT_FROM, msgspec.json.encode(made) + b"\n")


def read(card: Card, folder: Path) -> LearntFrom | None:
    """The record in a folder, where it is about what lies there. Raises `InputError` N205 for one that cannot be read."""
    path = folder / LEARNT_FROM
    if not path.is_file():
        return None
    try:
        found = decoded(path.read_bytes(), LearntFrom)
    except (OSError, NotDecodable) as error:
        raise InputError("N205", f"{path} cannot be read: {error}", place=Place(str(path), 1), hint="orchestra learn train") from error
    return found if found.learnt == learnt_mark(card, folder) else None


class Known(NamedTuple):
    """Rows that an agent has learnt from, among those that it is to be judged by."""

    said: str
    many: bool
    """Whether they are more than may be there by chance."""
    hint: str


def known(card: Card, test: Test, data: Path, parts: Sequence[LearntPart] = BOTH, who: str = "") -> list[Known]:
    """Of which rows an agent knows the answers, for each part of what it, or each of its members, has learnt from. `who` is what it is
    called, where that is not its name.

    Without a record, a file beside the manifest of a data set counts whole that is the agent's and has these very rows as such a part.
    Raises `InputError` N205 for a record that cannot be read.
    """
    found: list[Known] = []
    marks = marks_of(test)
    few = _few(marks)
    for one in card.parts or (card,):
        folder = _folder(one)
        if folder is None:
            continue
        if (record := read(one, folder)) is None:
            found += _before_records(one, test, data, parts)
            continue
        for part in parts:
            kept = record.train if part == "train" else record.tune
            looked, hits = kept.held(marks)
            if hits:
                said = f"{hits:,} of {looked:,} rows are among those that {who or one.name} was trained on ({record.data}, {part} part)"
                hint = f"rows that it has not seen: others, or --data with the folder of {record.data}, where it is yours"
                found.append(Known(said, kept.many(marks) and not few, hint))
    return found


def refuse(found: Sequence[Known]) -> None:
    """Refuses to judge an agent by many rows that it knows. Raises `InputError` N205.

    Few may be there by chance; rows of one input count once. Where there are no more than `FEW` inputs, each of them twice and more, the
    domain is so small that a training knows most of it: of these it is only told.
    """
    if (first := next((one for one in found if one.many), None)) is not None:
        raise InputError("N205", first.said, hint=first.hint)


def marks_of(test: Test) -> list[str]:
    """The marks of the rows of a test, in their order."""
    return [mark(one.input)[:LENGTH] for one in test.questions]


def rows_of(test: Test) -> Rows:
    """The rows of a test, as others are held against them; without marks where their domain is so small that other rows have the same."""
    marks = marks_of(test)
    return Rows(frozenset({test.digest}), frozenset(() if _few(marks) else marks))


def _few(marks: Sequence[str]) -> bool:
    return len(set(marks)) <= min(FEW, len(marks) / 2)


def _folder(card: Card) -> Path | None:
    """Where what an agent has learnt lies; None where it has learnt nothing, or what the fleet keeps."""
    if card.folder is None:
        return None
    if card.kind in WITH_ARRAYS:
        return card.folder if card.trained else None
    if card.kind != "model" or not card.adapter:
        return None
    return found if (found := card.folder / card.adapter).is_dir() else None


def _before_records(card: Card, test: Test, data: Path, parts: Sequence[LearntPart]) -> Iterator[Known]:
    """Of what was trained before there were records."""
    path = data.parent / MANIFEST
    if data.is_dir() or not path.is_file():
        return
    try:
        manifest = decoded(path.read_bytes(), Manifest)
    except NotDecodable:
        return  # the manifest of something else
    part = next((part for part in parts if part in manifest.parts and manifest.parts[part].digest == test.digest), None)
    if part is not None and manifest.agent == card.name:
        said = f"{data.name} is the {part} part of {manifest.name}, a data set that {card.name} may have been trained on"
        yield Known(said, True, f"rows that it has not seen: --data {data.parent}")
