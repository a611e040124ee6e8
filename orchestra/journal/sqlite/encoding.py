"""Bodies: what goes into the file as JSON bytes, checked before it is put in line."""

from __future__ import annotations

import msgspec

from orchestra.core.events import Event, encode
from orchestra.journal import MAX_BODY
from orchestra.journal.errors import not_json, too_large

NOT_JSON = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def bounded(what: str, value: object) -> bytes:
    """A letter or an answer as bytes. Raises `JournalError` J004."""
    try:
        body = encode(value)
    except NOT_JSON as error:
        raise not_json(what, str(error)) from error
    if len(body) > MAX_BODY:
        raise too_large(what, len(body))
    return body


def body_of(run: str, event: Event) -> bytes:
    """As `bounded`, of an event, which is named only where it must be."""
    try:
        body = encode(event)
    except NOT_JSON as error:
        raise not_json(f"event {event.seq} of run {run}", str(error)) from error
    if len(body) > MAX_BODY:
        raise too_large(f"event {event.seq} of run {run}", len(body))
    return body


def is_text(run: str) -> bool:
    """Whether a run's id is text that a file can hold: lone surrogates come in from command lines."""
    try:
        run.encode()
    except UnicodeEncodeError:
        return False
    return True
