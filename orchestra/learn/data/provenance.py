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
from orchestra.agents.card_file import KINDS_WITH_ARRAYS
from orchestra.core.atomic_files import write_file
from orchestra.core.errors import InputError, SourceLocation
from orchestra.learn.data.dataset import MANIFEST_FILE, Dataset, fingerprint, read_manifest
from orchestra.learn.evaluation.rows import EvaluationSet
from orchestra.learn.promotion.promotion import PROVENANCE_FILE
from orchestra.learn.promotion.promotion import weights_digest as learnt_mark
from orchestra.schema.strict_json import JsonDecodingError, decode_json
from orchestra.verification.certificates.row_fingerprints import FINGERPRINT_LENGTH, RowFingerprints, RowSet

TrainingSplit: TypeAlias = Literal["train", "tune"]
TRAINING_SPLITS: tuple[TrainingSplit, ...] = ("train", "tune")
MAX_SMALL_DOMAIN = 50
"""Rows of a domain so small that a training knows most of it: an agent that reads one of twelve categories has no others."""


class TrainingProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """The record beside what an agent has learnt."""

    format: Literal["orchestra/learnt-from/v2"] = "orchestra/learnt-from/v2"
    weights_digest: str
    """Digest of what came of it: a record beside something else is none."""
    data: str
    """The name of the data set, and of those before it; each once."""
    train: RowFingerprints
    tune: RowFingerprints


def write_provenance(card: Card, data: Dataset, folder: Path, previous: TrainingProvenance | None = None) -> None:
    """Writes the provenance record of a training into its folder, merged with that of `previous`, the training that it continues."""
    train, tune = (
        RowFingerprints.of(fingerprint(row.input)[:FINGERPRINT_LENGTH] for row in data.rows[part])
        for part in TRAINING_SPLITS
    )
    name = data.manifest.name
    if previous is not None:
        train, tune = previous.train.merge(train), previous.tune.merge(tune)
        name = ", ".join(dict.fromkeys((*previous.data.split(", "), name)))
    made = TrainingProvenance(weights_digest=learnt_mark(card, folder), data=name, train=train, tune=tune)
    write_file(folder / PROVENANCE_FILE, msgspec.json.encode(made) + b"\n")


def read_provenance(card: Card, folder: Path) -> TrainingProvenance | None:
    """The record in a folder, where it is about what lies there. Raises `InputError` N205 for one that cannot be read."""
    path = folder / PROVENANCE_FILE
    if not path.is_file():
        return None
    try:
        found = decode_json(path.read_bytes(), TrainingProvenance)
    except (OSError, JsonDecodingError) as error:
        raise InputError(
            "N205",
            f"{path} cannot be read: {error}",
            location=SourceLocation(str(path), 1),
            hint="orchestra learn train",
        ) from error
    return found if found.weights_digest == learnt_mark(card, folder) else None


class TrainingOverlap(NamedTuple):
    """Rows that an agent has learnt from, among those that it is to be judged by."""

    message: str
    is_significant: bool
    """Whether they are more than may be there by chance."""
    hint: str


def find_training_overlap(
    card: Card,
    test: EvaluationSet,
    data: Path,
    parts: Sequence[TrainingSplit] = TRAINING_SPLITS,
    display_name: str = "",
) -> list[TrainingOverlap]:
    """Of which rows an agent knows the answers, for each part of what it, or each of its members, has learnt from. `display_name`
    replaces its name in messages.

    Without a record, a file beside the manifest of a data set counts whole that is the agent's and has these very rows as such a part.
    Raises `InputError` N205 for a record that cannot be read.
    """
    found: list[TrainingOverlap] = []
    marks = fingerprints_of(test)
    few = _is_small_domain(marks)
    for one in card.member_cards or (card,):
        folder = _weights_folder(one)
        if folder is None:
            continue
        if (record := read_provenance(one, folder)) is None:
            found += _overlap_by_manifest(one, test, data, parts)
            continue
        for part in parts:
            kept = record.train if part == "train" else record.tune
            looked, hits = kept.count_matches(marks)
            if hits:
                said = f"{hits:,} of {looked:,} rows are among those that {display_name or one.name} was trained on ({record.data}, {part} part)"
                hint = (
                    f"rows that it has not seen: others, or --data with the folder of {record.data}, where it is yours"
                )
                found.append(TrainingOverlap(said, kept.overlaps(marks) and not few, hint))
    return found


def refuse_training_overlap(found: Sequence[TrainingOverlap]) -> None:
    """Refuses to judge an agent by many rows that it knows. Raises `InputError` N205.

    Few may be there by chance; rows of one input count once. Where there are no more than `MAX_SMALL_DOMAIN` inputs, each of them twice and more, the
    domain is so small that a training knows most of it: of these it is only told.
    """
    if (first := next((one for one in found if one.is_significant), None)) is not None:
        raise InputError("N205", first.message, hint=first.hint)


def fingerprints_of(test: EvaluationSet) -> list[str]:
    """The marks of the rows of a test, in their order."""
    return [fingerprint(one.input)[:FINGERPRINT_LENGTH] for one in test.rows]


def row_set_of(test: EvaluationSet) -> RowSet:
    """The rows of a test, as others are held against them; without marks where their domain is so small that other rows have the same."""
    marks = fingerprints_of(test)
    return RowSet(frozenset({test.digest}), frozenset(() if _is_small_domain(marks) else marks))


def _is_small_domain(marks: Sequence[str]) -> bool:
    return len(set(marks)) <= min(MAX_SMALL_DOMAIN, len(marks) / 2)


def _weights_folder(card: Card) -> Path | None:
    """Where what an agent has learnt lies; None where it has learnt nothing, or what the fleet keeps."""
    if card.folder is None:
        return None
    if card.kind in KINDS_WITH_ARRAYS:
        return card.folder if card.is_trained else None
    if card.kind != "model" or not card.adapter:
        return None
    return found if (found := card.folder / card.adapter).is_dir() else None


def _overlap_by_manifest(
    card: Card, test: EvaluationSet, data: Path, parts: Sequence[TrainingSplit]
) -> Iterator[TrainingOverlap]:
    """Of what was trained before there were records."""
    path = data.parent / MANIFEST_FILE
    if data.is_dir() or not path.is_file():
        return
    try:
        manifest = read_manifest(data.parent)
    except JsonDecodingError:
        return  # the manifest of something else
    part = next(
        (part for part in parts if part in manifest.splits and manifest.splits[part].digest == test.digest), None
    )
    if part is not None and manifest.agent == card.name:
        said = (
            f"{data.name} is the {part} part of {manifest.name}, a data set that {card.name} may have been trained on"
        )
        yield TrainingOverlap(said, True, f"rows that it has not seen: --data {data.parent}")
