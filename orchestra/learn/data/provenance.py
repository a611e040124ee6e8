"""Fingerprints of the rows that an agent was trained on, kept beside its weights, so that it is not evaluated on them.

An agent is nearly always correct on its training rows: a guarantee from those does not hold for others. Fingerprints
are digests of inputs, equal for inputs that are equal up to spelling; the texts cannot be recovered from them. Of many
rows only those with the lowest fingerprints are kept: they are a sample, and the same sample can be taken of any other
rows.
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
"""Number of inputs up to which a domain is small: a training covers most of it, such as an agent that reads one of
twelve categories.
"""


class TrainingProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """The provenance record beside the weights of an agent."""

    format: Literal["orchestra/learnt-from/v2"] = "orchestra/learnt-from/v2"
    weights_digest: str
    """Digest of the weights that the record describes; a record beside other weights is ignored."""
    data: str
    """Names of the data set and of those of earlier trainings, each once."""
    train: RowFingerprints
    tune: RowFingerprints


def write_provenance(card: Card, data: Dataset, folder: Path, previous: TrainingProvenance | None = None) -> None:
    """Writes the provenance record of a training into its folder, merged with that of `previous`, the training that it
    continues.
    """
    train, tune = (
        RowFingerprints.of(fingerprint(row.input)[:FINGERPRINT_LENGTH] for row in data.rows[part])
        for part in TRAINING_SPLITS
    )
    name = data.manifest.name
    if previous is not None:
        train, tune = previous.train.merge(train), previous.tune.merge(tune)
        name = ", ".join(dict.fromkeys((*previous.data.split(", "), name)))
    training_provenance = TrainingProvenance(
        weights_digest=learnt_mark(card, folder), data=name, train=train, tune=tune
    )
    write_file(folder / PROVENANCE_FILE, msgspec.json.encode(training_provenance) + b"\n")


def read_provenance(card: Card, folder: Path) -> TrainingProvenance | None:
    """Reads the record in a folder; None if there is none for the weights in the folder.

    Raises:
        InputError: N205 if the record cannot be read.
    """
    path = folder / PROVENANCE_FILE
    if not path.is_file():
        return None
    try:
        training_provenance = decode_json(path.read_bytes(), TrainingProvenance)
    except (OSError, JsonDecodingError) as error:
        raise InputError(
            "N205",
            f"{path} cannot be read: {error}",
            location=SourceLocation(str(path), 1),
            hint="orchestra learn train",
        ) from error
    return training_provenance if training_provenance.weights_digest == learnt_mark(card, folder) else None


class TrainingOverlap(NamedTuple):
    """Rows of an evaluation that an agent was trained on."""

    message: str
    is_significant: bool
    """Whether there are more of them than chance explains."""
    hint: str


def find_training_overlap(
    card: Card,
    test: EvaluationSet,
    data: Path,
    parts: Sequence[TrainingSplit] = TRAINING_SPLITS,
    display_name: str = "",
) -> list[TrainingOverlap]:
    """Finds the rows that an agent was trained on, for each of its training data sets and for each member of an
    ensemble.

    Without a record, a file beside the manifest of the agent's data set counts completely if the manifest lists it with
    these rows.

    Args:
        display_name: The name of the agent in messages.

    Raises:
        InputError: N205 if a record cannot be read.
    """
    overlaps: list[TrainingOverlap] = []
    marks = fingerprints_of(test)
    is_small = _is_small_domain(marks)
    for member_card in card.member_cards or (card,):
        folder = _weights_folder(member_card)
        if folder is None:
            continue
        if (record := read_provenance(member_card, folder)) is None:
            overlaps += _overlap_by_manifest(member_card, test, data, parts)
            continue
        for part in parts:
            row_fingerprints = record.train if part == "train" else record.tune
            match_count, hits = row_fingerprints.count_matches(marks)
            if hits:
                reason = (
                    f"{hits:,} of {match_count:,} rows are among those that {display_name or member_card.name} "
                    "was trained on "
                    f"({record.data}, {part} split)"
                )
                hint = (
                    f"use rows that it has not seen: others, or --data with the folder of {record.data}, if you have it"
                )
                overlaps.append(TrainingOverlap(reason, row_fingerprints.overlaps(marks) and not is_small, hint))
    return overlaps


def refuse_training_overlap(found: Sequence[TrainingOverlap]) -> None:
    """Refuses to evaluate an agent on many rows that it was trained on.

    A few may occur by chance; rows with one input count once. With at most `MAX_SMALL_DOMAIN` inputs, each of them at
    least twice, the domain is so small that a training covers most of it: then the overlap is only reported.

    Raises:
        InputError: N205 if the overlap is significant.
    """
    if (first := next((overlap for overlap in found if overlap.is_significant), None)) is not None:
        raise InputError("N205", first.message, hint=first.hint)


def fingerprints_of(test: EvaluationSet) -> list[str]:
    """Returns the fingerprints of the rows of an evaluation, in order."""
    return [fingerprint(row.input)[:FINGERPRINT_LENGTH] for row in test.rows]


def row_set_of(test: EvaluationSet) -> RowSet:
    """Returns the rows of an evaluation as a set to compare with others; without fingerprints if the domain is so small
    that unrelated rows share them.
    """
    marks = fingerprints_of(test)
    return RowSet(frozenset({test.digest}), frozenset(() if _is_small_domain(marks) else marks))


def _is_small_domain(marks: Sequence[str]) -> bool:
    return len(set(marks)) <= min(MAX_SMALL_DOMAIN, len(marks) / 2)


def _weights_folder(card: Card) -> Path | None:
    """Returns the folder of an agent's weights; None if it has none, or has an adapter of the fleet."""
    if card.folder is None:
        return None
    if card.kind in KINDS_WITH_ARRAYS:
        return card.folder if card.is_trained else None
    if card.kind != "model" or not card.adapter:
        return None
    return path if (path := card.folder / card.adapter).is_dir() else None


def _overlap_by_manifest(
    card: Card, test: EvaluationSet, data: Path, parts: Sequence[TrainingSplit]
) -> Iterator[TrainingOverlap]:
    """Returns the overlap for a training without a record, from the manifest of the data set."""
    path = data.parent / MANIFEST_FILE
    if data.is_dir() or not path.is_file():
        return
    try:
        manifest = read_manifest(data.parent)
    except JsonDecodingError:
        return  # a manifest of another kind
    part = next(
        (part for part in parts if part in manifest.splits and manifest.splits[part].digest == test.digest), None
    )
    if part is not None and manifest.agent == card.name:
        reason = (
            f"{data.name} is the {part} split of {manifest.name}, a data set that {card.name} may have been trained on"
        )
        yield TrainingOverlap(reason, True, f"use rows that it has not seen: --data {data.parent}")
