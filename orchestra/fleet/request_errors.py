"""What can go wrong between us and a server, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a code means for whoever meets it."""

    trips: bool = False
    """It counts against the server, and opens its breaker where it comes again and again."""
    alone: bool = False
    """Once is enough to say that an endpoint cannot serve: no key, nobody there, no such model, a wrong address, a wrong key."""
    absent: bool = False
    """It is heard of an endpoint that still starts, or of the proxy before it."""
    there: bool = False
    """Whoever says so is there, and has only not liked the question."""
    of_the_call: bool = False
    """No other server would do the call either."""
    resent: bool = False
    """What no model saw is sent again for it."""
    paid: bool = False
    """The answer is none, and a model was at work on it; who says that he failed (F208) asks for nothing."""
    later: bool = False
    """A server that did not come up may be up at the next attempt."""
    final: bool = False
    """A server of ours that does not start for it will not do so by being started again."""


TRAITS: Mapping[str, Traits] = {
    "F001": Traits(final=True),
    "F003": Traits(final=True),
    "F006": Traits(final=True),
    "F007": Traits(final=True),
    "F009": Traits(final=True),
    "F105": Traits(alone=True),
    "F202": Traits(of_the_call=True),
    "F203": Traits(trips=True, alone=True, absent=True, resent=True, later=True),
    "F204": Traits(resent=True),
    "F205": Traits(trips=True, absent=True, paid=True),
    "F206": Traits(trips=True, absent=True, paid=True),
    "F207": Traits(there=True, of_the_call=True),
    "F208": Traits(trips=True, absent=True),
    "F209": Traits(trips=True, paid=True),
    "F210": Traits(paid=True),
    "F211": Traits(paid=True),
    "F212": Traits(alone=True, there=True),
    "F213": Traits(alone=True),
    "F214": Traits(alone=True),
    "F215": Traits(of_the_call=True),
    "F216": Traits(later=True),
    "F217": Traits(trips=True, paid=True),
    "F218": Traits(resent=True),
}
"""By code; those of others mean nothing here."""
_NONE = Traits()


def traits(code: str) -> Traits:
    """What a code means here."""
    return TRAITS.get(code, _NONE)


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

    @classmethod
    def unseen(cls, code: str, reason: str, hint: str = "", *, retryable: bool = False, sent: bytes = b"") -> Fault:
        """A fault that no model saw, and that sending the same again cannot mend unless it is `retryable`."""
        return cls(code, reason, hint, seen=False, retryable=retryable, sent=sent)

    @classmethod
    def of(cls, error: OrchestraError, *, retryable: bool = False) -> Fault:
        """An error of ours, before anything was sent."""
        return cls.unseen(error.code, error.message, error.hint, retryable=retryable)

    @property
    def traits(self) -> Traits:
        """What its code means."""
        return traits(self.code)


def printable(text: str) -> str:
    """A stranger's text on one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)[:300]
