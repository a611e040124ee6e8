"""Checks the header of a GGUF file before its conversion: lengths, positions, and sizes that its tensors have
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

The libraries of the conversion trust these values, and allocate what they say.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestra.core.errors import FleetError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 1 << 16
"""Most metadata entries, and most tensors. A model of 671 billion parameters has about 1,100 tensors."""
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32
STRING, ARRAY = 8, 9
SCALAR_FORMATS: Mapping[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Types of metadata by number, as formats of `struct`."""
BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}
"""Elements and bytes of a block of each tensor type (`ggml_type` in ggml.h)."""
CONTEXT_KEYS = ("context_length", "original_context_length", "sliding_window")
"""Metadata that describe no tensor."""
SIZE_KEY = re.compile(r"(_length|_count|_size|_count_kv)$")
BLOCK_NAME = re.compile(r"^blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor: its shape, and its position in the data part of the file."""

    shape: tuple[int, ...]
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The checked part of a header."""

    sizes: Mapping[str, int]
    """Sizes and counts of the architecture, the largest of each array, and the number of tokens."""
    tensors: Mapping[str, GgufTensor]

    @property
    def elements(self) -> int:
        """The number of elements of all tensors."""
        return sum(tensor.elements for tensor in self.tensors.values())


def check_gguf(path: Path) -> GgufHeader:
    """Returns the header of a GGUF file.

    Raises:
        FleetError: F007 if the header is invalid: a length or a tensor outside the file, overlapping tensors, an
            unknown type, or metadata that describe larger tensors than the file has.
    """
    size = path.stat().st_size
    try:
        if size < 24:
            raise ValueError("it is shorter than a header")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _read_header(_Cursor(data, size))
        _check_sizes(header)
    except ValueError as error:
        raise FleetError(
            "F007", f"{path} is not converted: {error}", hint="use another file of the model, or another model"
        ) from error
    return header


class _Cursor:
    """A position in the file. Reading beyond the end raises `ValueError`."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self.data, self.size, self.at = data, size, 0

    def take(self, count: int) -> int:
        """Moves forward, and returns the position before."""
        start = self.at
        if count > self.size - start:
            raise ValueError(
                f"its header has a length of {count:,} bytes at byte {start:,}, beyond the end of the file"
            )
        self.at = start + count
        return start

    def scalar(self, kind: str) -> int | float | bool:
        """Reads a number or a truth value of a `struct` format."""
        code = struct.Struct("<" + kind)
        value: int | float | bool = code.unpack_from(self.data, self.take(code.size))[0]
        return value

    def count(self, kind: str = "Q") -> int:
        """Reads an integer; by default an unsigned one of 64 bits."""
        return int(self.scalar(kind))

    def text(self) -> str:
        """Reads a text: its length, then its bytes."""
        length = self.count()
        start = self.take(length)
        return self.data[start : start + length].decode("utf-8")  # UnicodeDecodeError is a ValueError


def _read_header(cursor: _Cursor) -> GgufHeader:
    if cursor.data[: len(MAGIC)] != MAGIC:
        raise ValueError("it is not a GGUF file")
    cursor.take(len(MAGIC))
    if (version := cursor.count("I")) not in VERSIONS:
        raise ValueError(f"its version is {version}, and the versions {' and '.join(map(str, VERSIONS))} are read")
    tensor_count, entry_count = cursor.count(), cursor.count()
    if max(tensor_count, entry_count) > MAX_ENTRIES:
        raise ValueError(
            f"its header has {tensor_count:,} tensors and {entry_count:,} entries, and the limit is {MAX_ENTRIES:,}"
        )
    entries: dict[str, str | int] = {}
    for _ in range(entry_count):
        key = cursor.text()
        if key in entries:
            raise ValueError(f"its header has {key[:100]!r} twice")
        entries[key] = _read_value(cursor, cursor.count("I"))
    tensors: dict[str, GgufTensor] = {}
    for _ in range(tensor_count):
        name = cursor.text()
        if name in tensors:
            raise ValueError(f"its header has the tensor {name[:100]!r} twice")
        tensors[name] = _read_tensor(cursor, name)
    alignment = entries.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"its alignment is {alignment!r}, and must be a power of two")
    _check_positions(tensors, cursor.size - -(-cursor.at // alignment) * alignment)
    architecture = entries.get("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError("its header has no general.architecture")
    sizes = {
        key: value
        for key, value in entries.items()
        if isinstance(value, int)
        and (key == "tokenizer.ggml.tokens" or (key.startswith(f"{architecture}.") and SIZE_KEY.search(key)))
    }
    return GgufHeader(sizes, tensors)


def _read_value(cursor: _Cursor, kind: int) -> str | int:
    """Returns a text, an integer, the largest integer of an array, or the length of another array."""
    if kind == STRING:
        return cursor.text()
    if kind in SCALAR_FORMATS:
        value = cursor.scalar(SCALAR_FORMATS[kind])
        return value if isinstance(value, int) else 0
    if kind != ARRAY:
        raise ValueError(f"its header has a value of the unknown type {kind}")
    element, length = cursor.count("I"), cursor.count()
    if element == STRING:
        for _ in range(length):  # each takes 8 bytes of the file at least
            cursor.take(cursor.count())
        return length
    if element not in SCALAR_FORMATS:
        raise ValueError(f"its header has an array of the type {element}, which is not read")
    code = SCALAR_FORMATS[element]
    width = struct.calcsize("<" + code)
    start = cursor.take(length * width)
    if code in "fd?" or length > MAX_ENTRIES:
        return length
    return max(struct.unpack_from(f"<{length}{code}", cursor.data, start), default=0)


def _read_tensor(cursor: _Cursor, name: str) -> GgufTensor:
    dimensions = cursor.count("I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"its tensor {name[:100]!r} has {dimensions:,} dimensions")
    shape = tuple(cursor.count() for _ in range(dimensions))
    kind, offset = cursor.count("I"), cursor.count()
    if kind not in BLOCKS:
        raise ValueError(f"its tensor {name[:100]!r} has the unknown type {kind}")
    elements, width = BLOCKS[kind]
    if 0 in shape or shape[0] % elements:
        raise ValueError(f"its tensor {name[:100]!r} has the shape {shape}, in blocks of {elements}")
    return GgufTensor(shape, offset, math.prod(shape) // elements * width)


def _check_positions(tensors: Mapping[str, GgufTensor], data_bytes: int) -> None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
        if tensor.offset < end:
            raise ValueError(f"its tensor {name[:100]!r} overlaps another one")
        end = tensor.offset + tensor.bytes
        if end > data_bytes:
            raise ValueError(f"its tensor {name[:100]!r} ends at byte {end:,} of {data_bytes:,}")


def _check_sizes(header: GgufHeader) -> None:
    """Refuses metadata that would make the conversion build larger tensors than the file has."""
    blocks = len({match[1] for name in header.tensors if (match := BLOCK_NAME.match(name))})
    largest = max((side for tensor in header.tensors.values() for side in tensor.shape), default=0)
    for key, limit in _limits(header, blocks, largest):
        if not 0 <= header.sizes[key] <= limit:
            raise ValueError(f"its {key} is {header.sizes[key]:,}, and its tensors have {limit:,} at most")


def _limits(header: GgufHeader, blocks: int, largest: int) -> Iterator[tuple[str, int]]:
    for key in header.sizes:
        if key.endswith(".block_count"):
            yield key, blocks
        elif not key.endswith(CONTEXT_KEYS):
            yield key, largest
