"""Encoding of events, inbox messages and memoized answers as JSON bytes, with size limits. Large values become separate
blobs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestra.core.events import AttemptFinished, Event, NodeFinished, RunFinished, RunStarted, encode
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal import MAX_BODY_BYTES
from orchestra.journal.errors import not_json_error, too_large_error

ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def encode_value(what: str, value: object) -> bytes:
    """Encodes an inbox message or an answer. Raises `JournalError` J004."""
    try:
        body = encode(value)
    except ENCODING_ERRORS as error:
        raise not_json_error(what, str(error)) from error
    if len(body) > MAX_BODY_BYTES:
        raise too_large_error(what, len(body))
    return body


def encode_event(run: str, event: Event) -> bytes:
    """Encodes an event. Raises `JournalError` J004. Its name is only formatted for an error."""
    try:
        body = encode(event)
    except ENCODING_ERRORS as error:
        raise not_json_error(f"event {event.seq} of run {run}", str(error)) from error
    if len(body) > MAX_BODY_BYTES:
        raise too_large_error(f"event {event.seq} of run {run}", len(body))
    return body


def is_encodable(run: str) -> bool:
    """Returns whether an id can be stored as UTF-8. Ids from command lines may contain lone surrogates."""
    try:
        run.encode()
    except UnicodeEncodeError:
        return False
    return True


LARGE_EVENT_BYTES = 16 << 10
"""Size in bytes of an event above which its value is stored as a blob."""


class _Valued(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw()


class _Started(msgspec.Struct):
    inputs: msgspec.Raw


class _Ended(msgspec.Struct):
    outcome: _Valued


_decode_valued = msgspec.json.Decoder(_Valued).decode
_decode_started = msgspec.json.Decoder(_Started).decode
_decode_ended = msgspec.json.Decoder(_Ended).decode


def split_value(event: Event, body: bytes) -> tuple[bytes, bytes] | None:
    """Splits an encoded event into the event without its value and the value; None for an event without a value.

    The value is cut out of `body` as it was encoded, even if the object has changed since.
    """
    match event:
        case AttemptFinished(value=value) if value is not None:
            return encode(with_value(event, None)), bytes(_decode_valued(body).value)
        case RunStarted():
            return encode(with_value(event, None)), bytes(_decode_started(body).inputs)
        case NodeFinished(outcome=ValueOutcome()) | RunFinished(outcome=ValueOutcome()):
            return encode(with_value(event, None)), bytes(_decode_ended(body).outcome.value)
        case _:
            return None


def with_value(event: Event, value: Any) -> Event:
    """Returns the event with another value. Raises `ValueError` for an event without a value."""
    match event:
        case AttemptFinished():
            return msgspec.structs.replace(event, value=value)
        case RunStarted():
            return msgspec.structs.replace(event, inputs=value)
        case NodeFinished(outcome=ValueOutcome() as outcome) | RunFinished(outcome=ValueOutcome() as outcome):
            return msgspec.structs.replace(event, outcome=msgspec.structs.replace(outcome, value=value))
        case _:
            raise ValueError("an event of this kind has no value")
