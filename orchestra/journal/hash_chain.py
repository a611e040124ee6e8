"""The hash chain of a run's log, which detects altered logs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from orchestra.core.events import Event, decode
from orchestra.journal.errors import damaged_event_error, unknown_event_error

ChainLink: TypeAlias = tuple[int, bytes, bytes, str | None]
"""An event in a log: `seq`, its bytes, its stored hash, and the digest of its separate value. The digest is empty
without a separate value, and None if the hash covers a value that is not available.
"""


def next_hash(chain: bytes, body: bytes, value_digest: str = "") -> bytes:
    """Returns the next hash: SHA-256 of the previous hash, the event's bytes and the digest of its separate value.

    The first previous hash is the run's id in UTF-8.
    """
    return hashlib.sha256(chain + body + value_digest.encode() if value_digest else chain + body).digest()


def verify_log(run: str, links: Iterable[ChainLink], end: tuple[int, bytes], after: int = 0) -> list[Event]:
    """Checks a log and returns its events with `seq > after`.

    Args:
        run: The run.
        links: The stored events, starting with event `after`.
        end: The greatest `seq` and the last hash.
        after: Returns later events only.

    Raises:
        JournalError: J013 if numbers, hashes or end were altered, J021 for an unknown kind.
    """
    rest = iter(links)
    seq, chain = 0, run.encode()
    if after > 0:
        seq, _, chain, _ = next(rest, (0, b"", b"", ""))
        if seq != after:
            if after <= end[0]:
                raise damaged_event_error(run, after, "it is missing")
            if seq:
                raise damaged_event_error(run, seq, f"the log should end at {end[0]}")
            return []
    events = []
    for number, body, stored_chain, big in rest:
        seq += 1
        if number != seq:
            raise damaged_event_error(run, seq, "it is missing")
        chain = stored_chain if big is None else next_hash(chain, body, big)
        if chain != stored_chain:
            raise damaged_event_error(run, seq, "its hash differs from the stored one")
        events.append(decode_event(run, seq, body))
    if (seq, chain) != end:
        raise damaged_event_error(run, seq + 1, f"the log should end at {end[0]}")
    return events


def verify_ends(run: str, links: Sequence[ChainLink], end: tuple[int, bytes]) -> tuple[Event, Event]:
    """Checks the ends of a log and returns its first and last event.

    Args:
        run: The run.
        links: The first event, the last one, and the one before the last.
        end: The greatest `seq` and the last hash.

    Raises:
        JournalError: J013 if numbers, hashes or end were altered, J021 for an unknown kind.
    """
    last, chain = end
    sequence_numbers = sorted({1, last - 1, last} - {0})
    if [number for number, _, _, _ in links] != sequence_numbers or links[-1][2] != chain:
        raise damaged_event_error(run, last, "the first or the last event was altered")
    before = {1: run.encode(), last: links[-2][2] if last > 1 else run.encode()}
    for number, body, stored_chain, big in links:
        if number in before and big is not None and next_hash(before[number], body, big) != stored_chain:
            raise damaged_event_error(run, number, "its hash differs from the stored one")
    return decode_event(run, 1, links[0][1]), decode_event(run, last, links[-1][1])


def decode_event(run: str, seq: int, body: bytes) -> Event:
    """Decodes an event. Raises `JournalError` J013, or J021 for an unknown kind."""
    try:
        event: Event = decode(body)
    except msgspec.ValidationError as error:
        raise unknown_event_error(run, seq, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # RecursionError: nested too deep
        raise damaged_event_error(run, seq, str(error)) from error
    if event.seq != seq:
        raise damaged_event_error(run, seq, f"its number is {event.seq}")
    return event
