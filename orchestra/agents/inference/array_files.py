"""Array files of agents: `.npz` files of numbers, read without pickle and verified by the SHA-256 in `model.json`."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestra.agents.card import Card
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ARRAY_BYTES = 256 << 20
"""Maximum size of all arrays, uncompressed, in bytes."""
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?:\|[biu](?=1)|[<>][iuf](?=[248]))(?P<size>\d)', 'fortran_order':"
    rb" (?:True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,12}(?:, \d{1,12})*,?)?)\), \} *\n",
    re.DOTALL,
)
"""The `.npy` header of a numeric array, as numpy writes it."""


def _repair_hint(card: Card) -> str:
    """Returns the hint for damaged arrays. Agents of the package have a `card.md` with the training command."""
    if card.folder is not None and (card.folder / "card.md").is_file():
        return "rebuild it with the command in card.md, or reinstall the package"
    return f"rebuild it: orchestra learn train {card.name} --data DATA"


@contextmanager
def array_errors(card: Card, file: str = "") -> Iterator[None]:
    """Converts errors in a card's arrays and in their configuration to `InputError` A011."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(step) for step in first["loc"])
        raise InputError(
            "A011", f"{card.name}: {file or card.data}: {at}: {first['msg']}", hint=_repair_hint(card)
        ) from error
    except KeyError as error:
        raise InputError(
            "A011", f"{card.name}: there is no {error.args[0]!r} among its arrays", hint=_repair_hint(card)
        ) from error
    except ValueError as error:
        raise InputError("A011", f"{card.name}: {error.args[0]}", hint=_repair_hint(card)) from error


def staged_name(file: str, sha256: str) -> str:
    """Returns the name of a staged file: it replaces the current file once the file that names its digest is
    written.
    """
    return f".{file}.{sha256[:16]}"


def read_verified(card: Card, file: str, sha256: str) -> bytes:
    """Reads a file of the card's folder by name and digest, or the staged one if a promotion was interrupted.

    Raises:
        ValueError: If no file has the digest.
    """
    for name in (file, staged_name(file, sha256), file):  # the staged file may have replaced it meanwhile
        if name == file or (card.folder is not None and (card.folder / name).is_file()):
            data = card.read(name)
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
    raise ValueError(f"{file} does not have the digest that names it")


def load_arrays(card: Card, file: str, sha256: str) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a file of the card's folder.

    Raises:
        ValueError: If the digest differs, the file is damaged, or it has other contents than arrays of finite numbers.
    """
    data = read_verified(card, file, sha256)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_ARRAY_BYTES:
                raise ValueError("the arrays are too large")
            if not {entry.compress_type for entry in entries} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError(f"{file} is not compressed as `.npz` files are")
            return {
                entry.filename.removesuffix(".npy"): _load_array(entry.filename, archive.read(entry))
                for entry in entries
            }
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        RuntimeError,
    ) as error:  # what zipfile raises for damaged files
        raise ValueError(f"{file} is damaged: {error}") from error


def _load_array(name: str, data: bytes) -> NDArray[Any]:
    """Reads an array from its bytes. The header is checked first, because numpy allocates the size that it states, and
    reads other types.

    Raises:
        ValueError: If it is not an array of finite numbers, or its size differs from the header.
    """
    import numpy

    match = _HEADER.match(data)
    if match is None:
        raise ValueError(f"{name} is not an array of numbers")
    shape = [int(size) for size in match["shape"].split(b",") if size.strip()]
    if (
        match.end() != 10 + int.from_bytes(data[8:10], "little")
        or math.prod(shape) * int(match["size"]) != len(data) - match.end()
    ):
        raise ValueError(f"{name} does not have the size that its header states")
    array: NDArray[Any] = numpy.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.kind == "f" and not (numpy.abs(array) <= numpy.finfo(numpy.float32).max).all():
        raise ValueError(f"{name} contains numbers that are not finite")
    return array


def pack_arrays(layout: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> tuple[str, bytes]:
    """Returns the texts of `model.json` and of the arrays, for a trainer. The configuration has no digest yet."""
    import numpy

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in sorted(arrays.items()):
            inner = io.BytesIO()
            numpy.save(inner, array, allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", date_time=(2026, 1, 1, 0, 0, 0)),
                inner.getvalue(),
                zipfile.ZIP_DEFLATED,
                9,
            )
    data = buffer.getvalue()
    body = {**layout, "sha256": hashlib.sha256(data).hexdigest()}
    return json.dumps(body, indent=1) + "\n", data
