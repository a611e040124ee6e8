"""Bodies: what goes into the file as JSON bytes, checked before it is put in line."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestra.core.events import AttemptFinished, Event, NodeFinished, RunFinished, RunStarted, encode
from orchestra.core.outcomes import ValueOutcome
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


LARGE_EVENT_BYTES = 16 << 10
"""Bytes of an event beyond which its value is a blob of its own."""


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
    """The event's bytes without its value, and the value's bytes; None for an event that carries none.

    The value is cut out of `body` as it was encoded when the event came, whatever became of the object since.
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
    """The event with another value; raises `ValueError` for one that carries none."""
    match event:
        case AttemptFinished():
            return msgspec.structs.replace(event, value=value)
        case RunStarted():
            return msgspec.structs.replace(event, inputs=value)
        case NodeFinished(outcome=ValueOutcome() as outcome) | RunFinished(outcome=ValueOutcome() as outcome):
            return msgspec.structs.replace(event, outcome=msgspec.structs.replace(outcome, value=value))
        case _:
            raise ValueError("an event of this kind has no value")
