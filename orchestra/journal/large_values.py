"""Large values: how the value of a long event leaves its body for a blob, and comes back."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestra.core.events import AttemptFinished, Event, NodeFinished, RunFinished, RunStarted, encode
from orchestra.core.outcomes import ValueOutcome

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
