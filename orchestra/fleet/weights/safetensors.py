"""Safety checks of weights: only safetensors with valid headers; no file that refers to Python, no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestra.core.errors import FleetError
from orchestra.schema.strict_json import MAX_BYTES, StrictJsonError, parse_untrusted

MAX_HEADER_BYTES = 100 << 20
"""Size limit of a header, the limit of the safetensors library itself (https://github.com/huggingface/safetensors)."""
DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes per element. All other types have one byte or are packed."""
VOCABULARY_FILES = frozenset({"tokenizer.json", "vocab.json"})
"""Larger than any configuration. vLLM reads no auto_map from them."""
MAX_JSON_BYTES = 64 << 20
"""Size limit of other JSON files: `tokenizer_config.json` of Gemma 3 has more than a MiB, and so has the index of a
model with many experts.
"""
UNSAFE_SUFFIXES = frozenset(
    {
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".pkl",
        ".pickle",
        ".dill",
        ".joblib",
        ".sav",
        ".msgpack",
        ".h5",
        ".keras",
        ".py",
        ".pyc",
        ".so",
    }
)
"""Suffixes of files that may run code, in lower case; names are compared in lower case."""


def check_folder(folder: Path) -> None:
    """Refuses a folder of a model or an adapter that could run code when it is loaded.

    Raises:
        FleetError: F007 for a pickle, for Python, for `auto_map` or `trust_remote_code` in a JSON file other than a
        vocabulary, for an
            invalid header, if there are no safetensors, and for an unreadable file.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink()]
    if pickles := [path for path in files if path.suffix.lower() in UNSAFE_SUFFIXES]:
        raise _unsafe_error(pickles[0], "only safetensors are loaded, without files that may run code", "remove it")
    if not any(path.suffix == ".safetensors" for path in files):
        raise _unsafe_error(folder, "there are no safetensors in it", "orchestra fleet start")
    for path in files:
        try:
            if path.suffix == ".json":
                _check_json(path)
            elif path.suffix == ".safetensors":
                check_header(path)
        except OSError as error:  # a dangling link, or a file of another user
            raise _unsafe_error(
                path, f"it cannot be read: {error.strerror or error}", "remove it, or make it readable"
            ) from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a safetensors file's tensors by name, from its header. Raises like `check_header`."""
    header, _ = _read_header(path)
    try:
        return {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
    except (KeyError, TypeError) as error:
        raise _unsafe_error(path, f"its header does not describe tensors: {error!r}") from error


def check_header(path: Path) -> None:
    """Refuses a safetensors file with an invalid header: lengths, offsets without gaps or overlaps, known shapes.

    Raises:
        FleetError: F007.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    header, length = _read_header(path)
    end = 0
    try:
        spans = sorted(_tensor_spans({name: value for name, value in header.items() if name != "__metadata__"}, size))
    except (KeyError, TypeError, ValueError) as error:
        raise _unsafe_error(path, f"its header does not describe tensors: {error!r}") from error
    for start, stop in spans:
        if start != end:
            raise _unsafe_error(path, "its tensors overlap or leave gaps")
        end = stop
    if 8 + length + end != size:
        raise _unsafe_error(path, f"it has {size} bytes, and its header says {8 + length + end}")


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the header of a safetensors file, and its bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise _unsafe_error(path, "its header is longer than the file")
        try:
            header = json.loads(file.read(length).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _unsafe_error(path, f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _unsafe_error(path, "its header is not a mapping")
    return header, length


def _tensor_spans(tensors: dict[str, Any], size: int) -> Iterator[tuple[int, int]]:
    for tensor in tensors.values():
        start, stop = tensor["data_offsets"]
        if not (isinstance(start, int) and isinstance(stop, int) and 0 <= start <= stop <= size):
            raise ValueError("data_offsets outside the file")
        count = 1
        for side in tensor["shape"]:
            if not isinstance(side, int) or side < 0:
                raise ValueError(f"shape {tensor['shape']}")
            count *= side
        width = DTYPE_BYTES.get(tensor["dtype"])
        if width is not None and stop - start != count * width:
            raise ValueError(f"{stop - start} bytes for {count} elements of {tensor['dtype']}")
        yield start, stop


def _check_json(path: Path) -> None:
    size = path.stat().st_size
    if path.name in VOCABULARY_FILES and size > MAX_BYTES:
        return
    if size > MAX_JSON_BYTES:
        raise _unsafe_error(path, f"it is too large for a configuration, with more than {MAX_JSON_BYTES >> 20} MiB")
    try:
        text = path.read_text(encoding="utf-8")
        value = parse_untrusted(text) if size <= MAX_BYTES else json.loads(text)
    except (StrictJsonError, ValueError, RecursionError) as error:
        raise _unsafe_error(path, f"it is not plain JSON: {error}") from error
    pending_values = [] if path.name in VOCABULARY_FILES else [value]  # there auto_map is a word
    while pending_values:
        part = pending_values.pop()
        if isinstance(part, dict):
            if key := next(
                (key for key in ("auto_map", "trust_remote_code", "custom_pipelines") if part.get(key)), None
            ):
                raise _unsafe_error(path, f"it has {key}, which makes loaders run the model's Python code")
            pending_values += part.values()
        elif isinstance(part, list):
            pending_values += part


def _unsafe_error(path: Path, reason: str, hint: str = "use another model, or another revision of it") -> FleetError:
    return FleetError("F007", f"{path} is not loaded: {reason}", hint=hint)
