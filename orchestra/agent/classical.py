"""Classical agents: a linear model over n-grams of a text, read from plain arrays. No pickle, no scikit-learn, numpy only.

`model.json` says which features were used, how the labels are called, and the SHA-256 of the arrays beside it (`.npz`):
`vocabulary` (UTF-8 lines as bytes), `idf`, `weights` (int8, features by labels) with one `scale` a label, and `intercept`.
Where the output is a number there is one column of weights, and `lengths`: what each step of the text's length adds.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestra.agent.card import Card
from orchestra.errors import InputError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

MAX_ARRAYS = 256 << 20
"""Bytes of all arrays, unpacked, at most."""
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?:\|[biu](?=1)|[<>][iuf](?=[248]))(?P<size>\d)', 'fortran_order': (?:True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,12}(?:, \d{1,12})*,?)?)\), \} *\n",
    re.DOTALL,
)
"""What stands before an array of numbers, as numpy writes it."""
_WORD = re.compile(r"\w+")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Features(_Frozen):
    """What of a text counts: runs of words, runs of characters within a word, and pairs of words with others between."""

    words: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 2)
    characters: tuple[Annotated[int, Field(ge=1, le=8)], ...] = (3, 4, 5)
    gap: Annotated[int, Field(ge=0, le=5)] = 0
    """Words that may stand between the two of a pair; 0 for no pairs."""

    def of(self, text: str) -> list[str]:
        """The features of a text, each as often as it occurs."""
        words: list[str] = _WORD.findall(text.lower())
        found = ["w" + " ".join(words[i : i + n]) for n in self.words for i in range(len(words) - n + 1)]
        for word in words:
            padded = f" {word} "
            found += ["c" + padded[i : i + n] for n in self.characters for i in range(len(padded) - n + 1)]
        for i, left in enumerate(words):
            found += [f"s{left} {right}" for right in words[i + 2 : i + 2 + self.gap]]
        return found


class Layout(_Frozen):
    """What `model.json` says."""

    format: Literal["orchestra/linear-text/v1"]
    input: str
    """The input that is read."""
    output: str
    """The output's field that gets the label."""
    features: Features
    labels: tuple[str | bool | int | None, ...] = Field(min_length=2)
    """As they stand in the output."""
    arrays: str
    sha256: str


class NumberLayout(_Frozen):
    """What `model.json` says where the output is a number."""

    format: Literal["orchestra/linear-number/v1"]
    input: str
    output: str
    """The output's field that gets the number."""
    features: Features
    lowest: float
    highest: float
    """What it was trained on lies between these, and so does what it says."""
    arrays: str
    sha256: str


class _NGrams:
    """The TF-IDF features of a text, by the row of each, at Euclidean length 1."""

    def __init__(self, features: Features, arrays: Mapping[str, NDArray[Any]], columns: int) -> None:
        """Raises `ValueError` or `KeyError` for arrays that do not fit each other."""
        words = arrays["vocabulary"].tobytes().decode("utf-8").split("\n")
        self._features, self._index = features, {word: row for row, word in enumerate(words)}
        self._idf, self._weights = arrays["idf"].astype("float32"), arrays["weights"]
        self._scale, self.intercept = arrays["scale"].astype("float32"), arrays["intercept"].astype("float32")
        found = [array.shape for array in (self._weights, self._idf, self._scale, self.intercept)]
        if found != [(len(words), columns), (len(words),), (columns,), (columns,)]:
            raise ValueError("the arrays have other shapes than the vocabulary and the labels")

    def sums(self, text: str) -> NDArray[numpy.float32]:
        """What the features say, by column; the intercept where there are none."""
        import numpy

        counts = Counter(row for feature in self._features.of(text) if (row := self._index.get(feature)) is not None)
        rows = numpy.fromiter(counts, dtype=numpy.int64)
        weights = numpy.array([1 + math.log(count) for count in counts.values()], dtype=numpy.float32) * self._idf[rows]
        if not weights.any():  # none that counts: nothing has a length of 1
            return self.intercept
        weights /= numpy.linalg.norm(weights)
        found: NDArray[numpy.float32] = weights @ self._weights[rows].astype(numpy.float32) * self._scale + self.intercept
        return found


class Classifier:
    """A linear classifier, ready: multinomial logistic regression over TF-IDF features."""

    def __init__(self, layout: Layout, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises `ValueError` or `KeyError` for arrays that do not fit the layout."""
        self.layout = layout
        self._ngrams = _NGrams(layout.features, arrays, len(layout.labels))

    @classmethod
    def load(cls, card: Card, file: str = "") -> Classifier:
        """The classifier of a card's folder, by its data file or by another one.

        Raises `InputError` A011 where the files are missing, damaged or do not fit.
        """
        with reading(card, file or card.data):
            layout = Layout.model_validate_json(card.read(file or card.data))
            return cls(layout, unpacked(card, layout.arrays, layout.sha256))

    def probabilities(self, text: str) -> NDArray[numpy.float32]:
        """The probability of each label."""
        import numpy

        logits = self._ngrams.sums(text)
        powers = numpy.exp(logits - logits.max())
        chances: NDArray[numpy.float32] = (powers / powers.sum()).astype(numpy.float32)
        return chances

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """The output, and its probability."""
        chances = self.probabilities(str(inputs[self.layout.input]))
        best = int(chances.argmax())
        return {self.layout.output: self.layout.labels[best]}, float(chances[best])


class Regressor:
    """A linear regression, ready: a number of a text, by ridge regression over TF-IDF features and the text's length."""

    def __init__(self, layout: NumberLayout, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises `ValueError` or `KeyError` for arrays that do not fit the layout."""
        self.layout = layout
        self._ngrams = _NGrams(layout.features, arrays, 1)
        self._lengths = arrays["lengths"].astype("float32")
        if self._lengths.ndim != 1 or layout.lowest > layout.highest:
            raise ValueError("the lengths are no list, or the lowest number is above the highest")

    @classmethod
    def load(cls, card: Card) -> Regressor:
        """The regression of a card's folder. Raises `InputError` A011 where the files are missing, damaged or do not fit."""
        with reading(card):
            layout = NumberLayout.model_validate_json(card.read(card.data))
            return cls(layout, unpacked(card, layout.arrays, layout.sha256))

    def number(self, text: str) -> float:
        """The number of a text."""
        found = float(self._ngrams.sums(text)[0] + self._lengths[: length_steps(text)].sum())
        return min(self.layout.highest, max(self.layout.lowest, found))

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        """The output; a regression does not say how sure it is."""
        return {self.layout.output: self.number(str(inputs[self.layout.input]))}, None


def length_steps(text: str) -> int:
    """How often a text's length is half a doubling longer than one character; at most 40, for a mebibyte."""
    return min(40, int(2 * math.log2(max(1, len(text)))))


def gives_number(card: Card) -> bool:
    """Whether a linear agent gives a number, and not a label."""
    fields: Mapping[str, Any] = card.output_schema.get("properties", {})
    return [field.get("type") for field in fields.values()] == ["number"]


def _mend(card: Card) -> str:
    """What to do about damaged arrays: those of the package have a `card.md`, which says how they were made."""
    if card.folder is not None and (card.folder / "card.md").is_file():
        return "make it again with the command in card.md, or reinstall the package"
    return f"make it again: orchestra learn train {card.name} --data DATA"


@contextmanager
def reading(card: Card, file: str = "") -> Iterator[None]:
    """Makes what is wrong with a card's arrays and with their layout an `InputError` A011."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(step) for step in first["loc"])
        raise InputError("A011", f"{card.name}: {file or card.data}: {at}: {first['msg']}", hint=_mend(card)) from error
    except (ValueError, KeyError) as error:
        raise InputError("A011", f"{card.name}: {error.args[0]}", hint=_mend(card)) from error


def unpacked(card: Card, file: str, sha256: str) -> dict[str, NDArray[Any]]:
    """The arrays of a file of the card's folder.

    Raises `ValueError` for another file than the one of that digest, for a damaged one, and for what is no array of finite numbers.
    """
    data = card.read(file)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{file} is not the file that the layout was written for")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_ARRAYS:
                raise ValueError("the arrays are too large")
            if not {entry.compress_type for entry in entries} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError(f"{file} is not compressed as `.npz` files are")
            return {entry.filename.removesuffix(".npy"): _array(entry.filename, archive.read(entry)) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError) as error:  # what zipfile raises for damaged ones
        raise ValueError(f"{file} is damaged: {error}") from error


def _array(name: str, data: bytes) -> NDArray[Any]:
    """An array from its bytes. Its header is read here first, for numpy makes room for whatever a header says, and reads other types.

    Raises `ValueError` for what is no array of finite numbers, or has other bytes than its header says.
    """
    import numpy

    said = _HEADER.match(data)
    if said is None:
        raise ValueError(f"{name} is no array of numbers")
    shape = [int(size) for size in said["shape"].split(b",") if size.strip()]
    if said.end() != 10 + int.from_bytes(data[8:10], "little") or math.prod(shape) * int(said["size"]) != len(data) - said.end():
        raise ValueError(f"{name} has other bytes than its header says")
    array: NDArray[Any] = numpy.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.kind == "f" and not (numpy.abs(array) <= numpy.finfo(numpy.float32).max).all():
        raise ValueError(f"{name} has numbers that are not finite")
    return array


def packed(layout: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> tuple[str, bytes]:
    """The texts of `model.json` and of its arrays, for a trainer: the layout without its digest, and the arrays."""
    import numpy

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in sorted(arrays.items()):
            inner = io.BytesIO()
            numpy.save(inner, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(2026, 1, 1, 0, 0, 0)), inner.getvalue(), zipfile.ZIP_DEFLATED, 9)
    data = buffer.getvalue()
    body = {**layout, "sha256": hashlib.sha256(data).hexdigest()}
    return json.dumps(body, indent=1) + "\n", data
