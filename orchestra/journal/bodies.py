"""Bodies: what goes into the file as JSON bytes, checked before it is put in line."""

from __future__ import annotations

import msgspec

from orchestra.events import Event, encode
from orchestra.journal.error import not_json

MAX_BODY = 64 << 20
"""Bytes of one event, letter or answer at most."""
NOT_JSON = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def bounded(value: object) -> bytes:
    body = encode(value)
    if len(body) > MAX_BODY:
        raise ValueError(f"{len(body)} bytes")
    return body


def body_of(run: str, event: Event) -> bytes:
    try:
        body = encode(event)
    except NOT_JSON as error:
        raise not_json(run, event.seq, str(error)) from error
    if len(body) > MAX_BODY:
        raise not_json(run, event.seq, f"{len(body)} bytes")
    return body


def is_text(run: str) -> bool:
    """Whether a run's id is text that a file can hold: lone surrogates come in from command lines."""
    try:
        run.encode()
    except UnicodeEncodeError:
        return False
    return True
