"""Bodies: what goes into the file as JSON bytes, checked before it is put in line."""

from __future__ import annotations

import msgspec

from orchestra.core.events import Event, encode
from orchestra.journal import MAX_BODY_BYTES
from orchestra.journal.errors import not_json_error, too_large_error

ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def encode_value(what: str, value: object) -> bytes:
    """A letter or an answer as bytes. Raises `JournalError` J004."""
    try:
        body = encode(value)
    except ENCODING_ERRORS as error:
        raise not_json_error(what, str(error)) from error
    if len(body) > MAX_BODY_BYTES:
        raise too_large_error(what, len(body))
    return body


def encode_event(run: str, event: Event) -> bytes:
    """As `encode_value`, of an event, which is named only where it must be."""
    try:
        body = encode(event)
    except ENCODING_ERRORS as error:
        raise not_json_error(f"event {event.seq} of run {run}", str(error)) from error
    if len(body) > MAX_BODY_BYTES:
        raise too_large_error(f"event {event.seq} of run {run}", len(body))
    return body


def is_encodable(run: str) -> bool:
    """Whether a run's id is text that a file can hold: lone surrogates come in from command lines."""
    try:
        run.encode()
    except UnicodeEncodeError:
        return False
    return True
