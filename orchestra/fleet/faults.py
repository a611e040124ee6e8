"""What can go wrong between us and a server, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.events import Usage


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no answer: a code of `orchestra explain`, and whether a model may have seen the request."""

    code: str
    reason: str
    hint: str = ""
    seen: bool = True
    """False only where no model can have worked on it, so that sending it again costs nothing."""
    retryable: bool = True
    busy: bool = False
    """The server said that it has too much to do."""
    hurried: bool = False
    """The caller's own time was up, so early that it says nothing of the server."""
    lost: bool = False
    """Nobody listens there, or no longer."""
    retry_after: float | None = None
    usage: Usage | None = None
    """What it has cost all the same, where the server says so."""
    sent: bytes = b""
    received: bytes = b""
    status: int = 0
    """The HTTP status that said so; 0 where none did."""


def printable(text: str) -> str:
    """A stranger's text on one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)[:300]
