"""Errors of requests to servers, which are returned as values and not raised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPolicy:
    """How the fleet reacts to an error code."""

    trips_breaker: bool = False
    """The error counts against the server; repeated, it opens the breaker."""
    marks_unavailable: bool = False
    """One such error shows that an endpoint cannot serve: no key, connection refused, no such model, a wrong address, a
    wrong key.
    """
    may_be_starting: bool = False
    """An endpoint that still starts, or the proxy before it, may answer with this error."""
    proves_reachable: bool = False
    """The server is reachable; it only refused the request."""
    caused_by_call: bool = False
    """No other server would answer the call either."""
    resendable: bool = False
    """Requests that no model has received are sent again."""
    billable: bool = False
    """A model worked on the failed request. A server error (F208) is not billed."""
    retry_later: bool = False
    """A server that did not start may be up at the next attempt."""
    permanent: bool = False
    """Another start of a local server would fail with the same error."""


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
    "F226": ErrorPolicy(retry_later=True),
}
"""Policies by code. Codes of other packages have none."""
_NO_POLICY = ErrorPolicy()


def error_policy(code: str) -> ErrorPolicy:
    """Returns the policy of a code."""
    return ERROR_POLICIES.get(code, _NO_POLICY)


@dataclass(frozen=True, slots=True)
class RequestError:
    """Why a request has no answer: an error code, and whether a model may have received the request."""

    code: str
    reason: str
    hint: str = ""
    reached_model: bool = True
    """False only if no model can have worked on the request, so that resending it is free."""
    retryable: bool = True
    busy: bool = False
    """The server reported overload."""
    timed_out: bool = False
    """The caller's own timeout ended, too early to be evidence about the server."""
    unreachable: bool = False
    """The connection is refused or lost."""
    retry_after: float | None = None
    usage: Usage | None = None
    """The usage of the failed request, if the server reported it."""
    sent: bytes = b""
    received: bytes = b""
    status: int = 0
    """The HTTP status; 0 without a response."""

    @classmethod
    def not_reached(
        cls, code: str, reason: str, hint: str = "", *, retryable: bool = False, sent: bytes = b""
    ) -> RequestError:
        """Returns an error of a request that no model has received.

        Resending it fails again unless it is `retryable`.
        """
        return cls(code, reason, hint, reached_model=False, retryable=retryable, sent=sent)

    @classmethod
    def from_error(cls, error: OrchestraError, *, retryable: bool = False) -> RequestError:
        """Returns an error that was raised before anything was sent."""
        return cls.not_reached(error.code, error.message, error.hint, retryable=retryable)

    @property
    def policy(self) -> ErrorPolicy:
        """The policy of the code."""
        return error_policy(self.code)


def printable(text: str) -> str:
    """Returns untrusted text as one line without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)[:300]
