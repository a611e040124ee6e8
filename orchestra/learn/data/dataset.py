"""Data sets: rows of an agent's task in three splits, with their sources, licence and confidentiality label.

A data set is a folder with `manifest.json` and `train.jsonl`, `tune.jsonl`, `test.jsonl`; each line is a row `{"id",
"input", "output", "group"}`. Its version is the digest of the rows. All rows of a group are in one split, and no input
of the test split occurs in another split, up to spelling.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from orchestra.core.atomic_files import open_private_file, write_file
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, join
from orchestra.learn.data.jsonl import JsonLinesFormat
from orchestra.schema.strict_json import JsonDecodingError, canonical, decode_json, digest

Split: TypeAlias = Literal["train", "tune", "test"]
SPLITS: tuple[Split, ...] = ("train", "tune", "test")
MANIFEST_FILE = "manifest.json"


class DatasetRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One example of an agent's task: the input and the expected output."""

    id: str
    input: dict[str, Any]
    output: Any
    group: str
    """Rows of one group are related, such as questions about one passage."""


_LINE_FORMAT = JsonLinesFormat(DatasetRow, "N001", "row", "orchestra learn data")


class DatasetSource(msgspec.Struct, frozen=True):
    """A source of rows."""

    name: str
    licence: str
    digest: str = ""
    """Digest of the source file."""
    description: str = ""
    """How the rows were made from the source."""
    rows: int = 0
    runs: tuple[str, ...] = ()
    """For a journal: the ids of the runs."""
    label: Literal[Label, ""] = ""
    """For a journal: the strictest label of these runs."""


class SplitRecord(msgspec.Struct, frozen=True):
    """The file of a split and its size."""

    rows: int
    groups: int
    digest: str


_FORMAT_FAMILY = "orchestra/dataset/"
_FORMAT: Literal["orchestra/dataset/v2"] = "orchestra/dataset/v2"


class _FormatOnly(msgspec.Struct):
    """The first field of a manifest, to report the format of a manifest that cannot be decoded."""

    format: str


class DatasetManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest of a data set."""

    format: Literal["orchestra/dataset/v2"] = _FORMAT
    name: str
    agent: str
    contract: str
    """Digest of the agent's input and output types (`compatibility.contract_digest`)."""
    digest: str
    """Digest of the rows: the version."""
    licence: str
    sources: tuple[DatasetSource, ...]
    splits: dict[str, SplitRecord]
    left_out: dict[str, int] = {}
    """Number of rows that were left out, by reason."""

    @property
    def label(self) -> Label | None:
        """The strictest label of the sources; None if no source has a label."""
        labels: list[Label] = [source.label for source in self.sources if source.label]
        return join(labels) if labels else None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set with its rows."""

    manifest: DatasetManifest
    rows: Mapping[Split, Sequence[DatasetRow]]

    @classmethod
    def build(
        cls,
        name: str,
        agent: str,
        contract: str,
        licence: str,
        sources: Sequence[DatasetSource],
        rows: Mapping[Split, Sequence[DatasetRow]],
        left_out: Mapping[str, int] | None = None,
    ) -> Dataset:
        """Builds a data set.

        Raises:
            InputError: N002 if there is no licence; N003 if a group, or an input of the test split, occurs in two
            splits; N004 if an id occurs twice.
        """
        if not licence.strip():
            raise InputError("N002", f"{name} has no licence", hint="--licence 'CC BY 4.0'")
        rows_by_split: dict[Split, Sequence[DatasetRow]] = {part: list(rows.get(part, ())) for part in SPLITS}
        _check_rows(name, rows_by_split)
        records: dict[str, SplitRecord] = {part: _split_record(rows_by_split[part]) for part in SPLITS}
        version = digest(canonical({part: record.digest for part, record in records.items()}))
        manifest = DatasetManifest(
            name=name,
            agent=agent,
            contract=contract,
            digest=version,
            licence=licence.strip(),
            sources=tuple(sources),
            splits=records,
            left_out=dict(left_out or {}),
        )
        return cls(manifest, rows_by_split)

    def write(self, folder: Path) -> None:
        """Writes the folder. The manifest is written last, so a folder with a manifest is complete."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
        for part in SPLITS:
            with open_private_file(folder / f"{part}.jsonl") as file:
                file.write(_encode_rows(self.rows[part]))
        write_file(folder / MANIFEST_FILE, msgspec.json.format(msgspec.json.encode(self.manifest)) + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Loads a data set and compares its rows with the manifest.

        Raises:
            InputError: N001 to N004 if the data set is invalid.
        """
        try:
            manifest = read_manifest(folder)
            texts = {part: (folder / f"{part}.jsonl").read_bytes() for part in SPLITS}
        except OSError as error:
            reason = f"{folder} is not a data set: {error.strerror or error} ({error.filename})"
            raise InputError("N001", reason, hint="orchestra learn data") from error
        except JsonDecodingError as error:
            raise InputError(
                "N001", f"{folder / MANIFEST_FILE} is not a manifest: {error}", hint="orchestra learn data"
            ) from error
        rows = {
            part: [row for _, row in _LINE_FORMAT.parse_lines(folder / f"{part}.jsonl", texts[part])] for part in SPLITS
        }
        dataset = cls.build(
            manifest.name,
            manifest.agent,
            manifest.contract,
            manifest.licence,
            manifest.sources,
            rows,
            manifest.left_out,
        )
        if dataset.manifest.digest != manifest.digest:
            reason = (
                f"the rows in {folder} have the digest {dataset.manifest.digest}, and its manifest has "
                f"{manifest.digest}"
            )
            raise InputError("N001", reason, hint="make it again: orchestra learn data")
        return dataset


def read_manifest(folder: Path) -> DatasetManifest:
    """Returns the manifest of a data set's folder.

    Raises:
        OSError: The file cannot be read.
        JsonDecodingError: The file is not a manifest of a data set.
        InputError: N001 if the manifest has another version of the format.
    """
    content = (folder / MANIFEST_FILE).read_bytes()
    try:
        return decode_json(content, DatasetManifest)
    except JsonDecodingError:
        try:
            version = decode_json(content, _FormatOnly).format
        except JsonDecodingError:
            version = ""
        if not version.startswith(_FORMAT_FAMILY) or version == _FORMAT:
            raise
    reason = f"{folder / MANIFEST_FILE} has the format {version}, and this Orchestra reads {_FORMAT}"
    raise InputError("N001", reason, hint="make it again: orchestra learn data --replace")


def dataset_label_of(file: Path) -> Label | None:
    """Returns the label of the data set that a file of rows belongs to; None if it belongs to none.

    Raises:
        InputError: N001 if the manifest beside the file has an earlier format: its label would be lost.
    """
    try:
        manifest = read_manifest(file.parent)
    except (OSError, JsonDecodingError):  # no manifest, or a manifest of another kind
        return None
    return manifest.label if file.suffix == ".jsonl" and file.stem in manifest.splits else None


def check_overwrite(folder: Path, version: str = "") -> None:
    """Checks that a folder has no data set of another version and no other manifest.

    Raises:
        InputError: N016 if writing would overwrite it.
    """
    path = folder / MANIFEST_FILE
    if not os.path.isfile(path):
        return
    try:
        manifest = read_manifest(folder)
    except (OSError, JsonDecodingError) as error:
        raise InputError(
            "N016", f"{path} is not the manifest of a data set", hint="--out with another folder"
        ) from error
    if manifest.digest != version:
        parts = ", ".join(f"{split_record.rows:,} to {part}" for part, split_record in manifest.splits.items())
        reason = f"{folder} has another data set: {manifest.name} {manifest.digest[:12]}, rows {parts}"
        raise InputError("N016", reason, hint="--out with another folder, or --replace")


def _check_rows(name: str, rows: Mapping[Split, Sequence[DatasetRow]]) -> None:
    parts_of: dict[str, Split] = {}
    for part, split_rows in rows.items():
        for row in split_rows:
            if parts_of.setdefault(row.group, part) != part:
                reason = f"the group {row.group!r} of {name} is in two splits, {parts_of[row.group]} and {part}"
                raise InputError("N003", reason, hint="orchestra explain N003")
    test_rows = {fingerprint(row.input): row for row in rows["test"]}
    for row in (*rows["train"], *rows["tune"]) if test_rows else ():
        if (dataset_row := test_rows.get(fingerprint(row.input))) is not None:
            reason = (
                f"the row {dataset_row.id!r} of the test split of {name} has the input of {row.id!r} in "
                f"{parts_of[row.group]}"
            )
            raise InputError("N003", reason, hint="orchestra explain N003")
    check_unique_ids(name, (row for split_rows in rows.values() for row in split_rows))


def check_unique_ids(name: str, rows: Iterable[DatasetRow]) -> None:
    """Checks that row ids are unique.

    Raises:
        InputError: N004 if an id occurs twice.
    """
    ids: set[str] = set()
    for row in rows:
        if row.id in ids:
            raise InputError(
                "N004", f"two rows of {name} have the id {row.id!r}", hint="give each row an id of its own"
            )
        ids.add(row.id)


def _split_record(rows: Sequence[DatasetRow]) -> SplitRecord:
    return SplitRecord(len(rows), len({row.group for row in rows}), digest(_encode_rows(rows)))


def _encode_rows(rows: Iterable[DatasetRow]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


@dataclass(frozen=True, slots=True)
class SplitShares:
    """Shares of the groups in the tune split and the test split; the others are in the training split."""

    tune: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        """Raises `InputError` N005 if the shares leave nothing for training."""
        if not (0 <= self.tune < 1 and 0 <= self.test < 1 and self.tune + self.test < 1):
            raise InputError(
                "N005",
                f"--tune {self.tune:g} and --test {self.test:g} leave nothing for training",
                hint="--tune 0.1 --test 0.1",
            )


def assign_split(group: str, shares: SplitShares, salt: str = "") -> Split:
    """Returns the split of a group, by a hash of its name: adding or removing rows does not change it."""
    place = int.from_bytes(hashlib.sha256(f"{salt}\n{group}".encode()).digest()[:8], "big") / 2**64
    return "test" if place < shares.test else "tune" if place < shares.test + shares.tune else "train"


def split(rows: Iterable[DatasetRow], shares: SplitShares, salt: str = "") -> dict[Split, list[DatasetRow]]:
    """Returns the rows by split."""
    parts: dict[Split, list[DatasetRow]] = {"train": [], "tune": [], "test": []}
    for row in rows:
        parts[assign_split(row.group, shares, salt)].append(row)
    return parts


_PUNCTUATION = re.compile(r"(?P<sign>[-(](?=\s*\d)|(?<=\d)\)|(?<=\d)[.,](?=\d))|[^\w\s]")
r"""A sign beside digits, or a character that is neither part of a word (as in Python's `\w`) nor a blank."""
_SYMBOLS = "/*%#&@\\"
"""Characters that Unicode classifies as punctuation but that distinguish texts."""


@dataclass(frozen=True, slots=True)
class DeduplicatedRows:
    """Rows without duplicates, and what was left out."""

    rows: list[DatasetRow]
    exact_duplicates: int
    """Number of rows with exactly the input and output of an earlier row."""
    near_duplicates: int
    """Number of rows that equal an earlier row up to spelling."""
    contradictions: list[tuple[DatasetRow, DatasetRow]]
    """Pairs of an earlier row and a row with the same input and another output."""


def deduplicate(rows: Iterable[DatasetRow]) -> DeduplicatedRows:
    """Removes duplicates; the first row of each stays.

    Rows are duplicates if they are equal up to case, punctuation, spacing and Unicode form. Symbols are not
    punctuation, and neither are signs beside digits: `7 - 3` is not `7 + 3`, and `C++` is not `C#`.
    """
    rows_by_key: dict[str, DatasetRow] = {}
    duplicate_count = near = 0
    contradicting: list[tuple[DatasetRow, DatasetRow]] = []
    for row in rows:
        first = rows_by_key.setdefault(fingerprint(row.input), row)
        if first is row:
            continue
        if _normalize(first.output) != _normalize(row.output):
            contradicting.append((first, row))
        elif first.input == row.input:
            duplicate_count += 1
        else:
            near += 1
    return DeduplicatedRows(list(rows_by_key.values()), duplicate_count, near, contradicting)


def is_empty(value: Any) -> bool:
    """Returns whether an input has no content: only blank texts, nulls, and empty lists and records."""
    match value:
        case str():
            return not value.strip()
        case dict():
            return all(is_empty(item) for item in value.values())
        case list():
            return all(is_empty(item) for item in value)
        case _:
            return value is None


def fingerprint(value: Any) -> str:
    """Returns a digest that is equal for inputs that are equal up to spelling."""
    return digest(canonical(_normalize(value)))


def _normalize(value: Any) -> Any:
    """Returns a value with each text replaced by the list of its words; a text without words is kept."""
    match value:
        case str():
            return (
                _PUNCTUATION.sub(_normalize_character, unicodedata.normalize("NFKC", value).casefold()).split() or value
            )
        case dict():
            return {key: _normalize(item) for key, item in value.items()}
        case list():
            return [_normalize(item) for item in value]
        case _:
            return value


def _normalize_character(match: re.Match[str]) -> str:
    r"""Returns the replacement of a character that is not a letter or digit. Vowel signs and accents (which `\w` does
    not match), symbols, and signs beside digits are kept.
    """
    char, category = match[0], unicodedata.category(match[0])
    if category[0] == "M":
        return char
    if match["sign"] or char in _SYMBOLS or category in ("Sm", "Sc", "So"):
        return f" {char} "
    return "" if category == "Cf" else " "
