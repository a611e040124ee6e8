"""JSON values: the alias, canonical bytes and digests, and the strict reading of untrusted text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
"""What a node reads and writes. Containers are treated as immutable everywhere."""

MAX_BYTES = 1 << 20
"""Bytes of untrusted JSON text that are read at most (RELIABILITY, hostile input)."""
MAX_DEPTH = 64
MAX_DIGITS = 40

_encode = msgspec.json.Encoder(order="deterministic").encode


def canonical(value: object) -> bytes:
    """The one UTF-8 spelling of a JSON value: keys sorted, no spaces. NaN and infinities become null."""
    return _encode(value)


def digest(data: bytes) -> str:
    """A content digest: the first 32 hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


class NotStrictJSON(ValueError):
    """Text that is no JSON, or JSON that a careful reader refuses; `args[0]` says why."""


def parse_untrusted(text: str) -> Any:
    """Reads JSON from a model or a stranger.

    Refuses text over 1 MiB, nesting over 64, duplicate keys, NaN and infinities, integers over 40 digits and lone
    surrogates; raises `NotStrictJSON` with the reason.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise NotStrictJSON("more than 1 MiB of JSON")
    _refuse_depth(text)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_small_int, parse_float=_finite)
    except NotStrictJSON:
        raise
    except (ValueError, RecursionError) as error:
        raise NotStrictJSON(f"not JSON: {error}") from error
    _refuse_surrogates(value)
    return value


def _refuse_depth(text: str) -> None:
    depth, quoted, escaped = 0, False, False
    for char in text:
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise NotStrictJSON(f"nested deeper than {MAX_DEPTH}")
        elif char in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NotStrictJSON(f"the key {key!r} stands twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise NotStrictJSON(f"{name} is not JSON")


def _small_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise NotStrictJSON(f"an integer of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotStrictJSON(f"{digits[:20]} is out of range")
    return number


def _refuse_surrogates(value: Any) -> None:
    match value:
        case str():
            if any("\ud800" <= char <= "\udfff" for char in value):
                raise NotStrictJSON("a lone surrogate in a string")
        case list():
            for item in value:
                _refuse_surrogates(item)
        case dict():
            for key, item in value.items():
                _refuse_surrogates(key)
                _refuse_surrogates(item)
        case _:
            pass
