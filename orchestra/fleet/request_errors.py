"""What can go wrong between us and a server, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPolicy:
    """What a code means for whoever meets it."""

    trips_breaker: bool = False
    """It counts against the server, and opens its breaker where it comes again and again."""
    marks_unavailable: bool = False
    """Once is enough to say that an endpoint cannot serve: no key, nobody there, no such model, a wrong address, a wrong key."""
    may_be_starting: bool = False
    """It is heard of an endpoint that still starts, or of the proxy before it."""
    proves_reachable: bool = False
    """Whoever says so is there, and has only not liked the question."""
    caused_by_call: bool = False
    """No other server would do the call either."""
    resendable: bool = False
    """What no model saw is sent again for it."""
    billable: bool = False
    """The answer is none, and a model was at work on it; who says that he failed (F208) asks for nothing."""
    retry_later: bool = False
    """A server that did not come up may be up at the next attempt."""
    permanent: bool = False
    """A server of ours that does not start for it will not do so by being started again."""


ERROR_POLICIES: Mapping[str, ErrorPolicy] = {
    "F001": ErrorPolicy(permanent=True),
    "F003": ErrorPolicy(permanent=True),
    "F006": ErrorPolicy(permanent=True),
    "F007": ErrorPolicy(permanent=True),
    "F009": ErrorPolicy(permanent=True),
    "F105": ErrorPolicy(marks_unavailable=True),
    "F202": ErrorPolicy(caused_by_call=True),
    "F203": ErrorPolicy(
        trips_breaker=True, marks_unavailable=True, may_be_starting=True, resendable=True, retry_later=True
    ),
    "F204": ErrorPolicy(resendable=True),
    "F205": ErrorPolicy(trips_breaker=True, may_be_starting=True, billable=True),
    "F206": ErrorPolicy(trips_breaker=True, may_be_starting=True, billable=True),
    "F207": ErrorPolicy(proves_reachable=True, caused_by_call=True),
    "F208": ErrorPolicy(trips_breaker=True, may_be_starting=True),
    "F209": ErrorPolicy(trips_breaker=True, billable=True),
    "F210": ErrorPolicy(billable=True),
    "F211": ErrorPolicy(billable=True),
    "F212": ErrorPolicy(marks_unavailable=True, proves_reachable=True),
    "F213": ErrorPolicy(marks_unavailable=True),
    "F214": ErrorPolicy(marks_unavailable=True),
    "F215": ErrorPolicy(caused_by_call=True),
    "F216": ErrorPolicy(retry_later=True),
    "F217": ErrorPolicy(trips_breaker=True, billable=True),
    "F218": ErrorPolicy(resendable=True),
}
"""By code; those of others mean nothing here."""
_NO_POLICY = ErrorPolicy()


def error_policy(code: str) -> ErrorPolicy:
    """What a code means here."""
    return ERROR_POLICIES.get(code, _NO_POLICY)


@dataclass(frozen=True, slots=True)
class RequestError:
    """Why there is no answer: a code of `orchestra explain`, and whether a model may have seen the request."""

    code: str
    reason: str
    hint: str = ""
    reached_model: bool = True
    """False only where no model can have worked on it, so that sending it again costs nothing."""
    retryable: bool = True
    busy: bool = False
    """The server said that it has too much to do."""
    timed_out: bool = False
    """The caller's own time was up, so early that it says nothing of the server."""
    unreachable: bool = False
    """Nobody listens there, or no longer."""
    retry_after: float | None = None
    usage: Usage | None = None
    """What it has cost all the same, where the server says so."""
    sent: bytes = b""
    received: bytes = b""
    status: int = 0
    """The HTTP status that said so; 0 where none did."""

    @classmethod
    def not_reached(
        cls, code: str, reason: str, hint: str = "", *, retryable: bool = False, sent: bytes = b""
    ) -> RequestError:
        """A fault that no model saw, and that sending the same again cannot mend unless it is `retryable`."""
        return cls(code, reason, hint, reached_model=False, retryable=retryable, sent=sent)

    @classmethod
    def from_error(cls, error: OrchestraError, *, retryable: bool = False) -> RequestError:
        """An error of ours, before anything was sent."""
        return cls.not_reached(error.code, error.message, error.hint, retryable=retryable)

    @property
    def policy(self) -> ErrorPolicy:
        """What its code means."""
        return error_policy(self.code)


def printable(text: str) -> str:
    """A stranger's text on one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)[:300]
