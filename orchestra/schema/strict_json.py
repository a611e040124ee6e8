"""JSON values: type alias, canonical bytes, digests, and strict parsing of untrusted text."""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")
JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
"""Input or output of a node. Containers are treated as immutable everywhere."""

MAX_BYTES = 1 << 20
"""Maximum size of untrusted JSON text in bytes (RELIABILITY, hostile input)."""
MAX_DEPTH = 64
MAX_DIGITS = 40
MAX_STORED_BYTES = 48 << 20
"""Maximum size of one stored value as JSON in bytes; less than a journal accepts for an event."""

_encode = msgspec.json.Encoder(order="deterministic").encode
_encode_unsorted = msgspec.json.Encoder().encode
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def canonical(value: object) -> bytes:
    """Encodes a JSON value in its canonical form: UTF-8, sorted keys, no spaces. NaN and infinities become null."""
    return _encode(value)


def digest(data: bytes) -> str:
    """Returns a content digest: the first 32 hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def iter_json_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the non-empty lines of a JSON Lines file with their numbers from 1, without a byte order mark."""
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if line.strip():
            yield number, line


class JsonDecodingError(ValueError):
    """Bytes that do not encode a value of the expected type; `args[0]` is the reason."""


def decode_json(data: bytes, type: type[T]) -> T:
    """Decodes JSON as a type. Raises `JsonDecodingError` for invalid JSON or UTF-8, another type, or deep nesting."""
    try:
        return msgspec.json.decode(data, type=type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JsonDecodingError(str(error)) from error


class StrictJsonError(ValueError):
    """Text that is not JSON, or is refused by the strict parser; `args[0]` is the reason."""


def storage_error(value: object) -> str:
    """Returns why an untrusted value cannot be stored as JSON and read back unchanged; empty if it can.

    Reasons: NaN, infinities, lone surrogates, integers over 40 digits, nesting over 64, more than 48 MiB. `value` comes
    from a JSON parser or from pydantic as JSON, so sets, bytes and keys of other types are not checked.
    """
    try:
        data = _encode_unsorted(value)
    except RecursionError:
        return f"it is nested deeper than {MAX_DEPTH}"
    except UnicodeEncodeError:
        return "it has a lone surrogate in a string"
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        return f"it is not JSON: {str(error)[:200]}"
    if len(data) > MAX_STORED_BYTES:
        return f"it has {len(data):,} bytes as JSON; at most {MAX_STORED_BYTES:,} can be stored"
    # Only suspicious values are traversed: most values of tools are flat.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and (deep := _depth_error(value)):
        return deep
    if _LONG_NUMBER.search(data) and _has_long_number(value):
        return f"it has an integer of more than {MAX_DIGITS} digits"
    return non_finite_error(value) if b"null" in data else ""


_LONG_NUMBER = re.compile(rb"[0-9]{41}")


def may_have_null(value: object) -> bool:
    """Returns whether a value may contain a null. There are no false negatives."""
    return b"null" in _encode_unsorted(value)


def non_finite_error(value: object) -> str:
    """Returns an error text if a value contains NaN or an infinity."""
    bad = next((item for item in _iter_values(value) if isinstance(item, float) and not math.isfinite(item)), None)
    return "" if bad is None else f"{bad} is not a JSON number"


def _has_long_number(value: object) -> bool:
    return any(isinstance(item, int) and abs(item) >= 10**MAX_DIGITS for item in _iter_values(value))


def _depth_error(value: object) -> str:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, list | tuple | dict)]:
        depth += 1
        if depth > MAX_DEPTH:
            return f"it is nested deeper than {MAX_DEPTH}"
        level = [item for element in level for item in (element.values() if isinstance(element, dict) else element)]
    return ""


def _iter_values(value: object) -> Iterator[object]:
    line = [value]
    while line:
        subtree = line.pop()
        yield subtree
        if isinstance(subtree, dict):
            line += subtree.values()
        elif isinstance(subtree, list | tuple | set | frozenset):
            line += subtree


def parse_untrusted(text: str) -> Any:
    """Parses JSON from a model or another untrusted source.

    Refused are text over 1 MiB, nesting over 64, duplicate keys, NaN and infinities, integers over 40 digits and lone
    surrogates.

    Raises:
        StrictJsonError: The reason.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise StrictJsonError("more than 1 MiB of JSON")
    _refuse_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
    except StrictJsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise StrictJsonError(f"not JSON: {error}") from error
    if _SURROGATE.search(text) or _ESCAPED_SURROGATE.search(text):
        _refuse_surrogates(value)
    return value


_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|([\[{])|[\]}]', re.DOTALL)
"""A string, complete or not, which is skipped; or a bracket."""


def _refuse_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKET.finditer(text):
        if match.start(1) >= 0:
            depth += 1
            if depth > MAX_DEPTH:
                raise StrictJsonError(f"nested deeper than {MAX_DEPTH}")
        elif text[match.start()] != '"':
            depth -= 1


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique_keys: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique_keys:
            raise StrictJsonError(f"the key {key[:60]!r} occurs twice")
        unique_keys[key] = value
    return unique_keys


def _refuse_constant(name: str) -> Any:
    raise StrictJsonError(f"{name} is not JSON")


def _bounded_int(digits: str) -> int:
    if (length := len(digits.lstrip("-"))) > MAX_DIGITS:
        raise StrictJsonError(f"an integer of {length} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise StrictJsonError(f"{digits[:20]} is out of range")
    return number


def _refuse_surrogates(value: Any) -> None:
    match value:
        case str():
            if _SURROGATE.search(value):
                raise StrictJsonError("a lone surrogate in a string")
        case list():
            for item in value:
                _refuse_surrogates(item)
        case dict():
            for key, item in value.items():
                _refuse_surrogates(key)
                _refuse_surrogates(item)
        case _:
            pass
