"""Decides from observations whether a running server is dead. A server that is only slow is not: on a busy machine a
live server can answer minutes late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from orchestra.core.errors import FleetError

Health: TypeAlias = Literal["ok", "late", "failed"]
"""The result of a request to `/health`. `late`: no response in time, which proves nothing. `failed`: an error status,
or the port refused the connection.
"""
WAITING_LINES = ("throughput: 0.0 tokens/s", "No available shared memory broadcast block")
"""Parts of lines that vLLM repeats while it makes no progress."""


class Liveness:
    """The observations of one running server. Times are seconds of a monotonic clock."""

    def __init__(self, stall_timeout: float, failure_timeout: float, now: float) -> None:
        """Starts with a server that was just healthy.

        Args:
            stall_timeout: Seconds without progress after which a server that has requests is dead.
            failure_timeout: Seconds of failed health requests after which a server is dead.
            now: The time.
        """
        self._stall_timeout, self._failure_timeout = stall_timeout, failure_timeout
        self._progress_at = now
        self._failing_since: float | None = None
        self._busy = False
        self.suspected = False
        """Whether a request of a client timed out, and the server has made no progress since."""

    @property
    def has_requests(self) -> bool:
        """Whether the server has requests, as far as is known."""
        return self._busy or self.suspected

    def observe_health(self, health: Health, now: float) -> None:
        """Records the result of a request to `/health`."""
        if health != "failed":
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now

    def observe_load(self, *, busy: bool, progressed: bool, now: float) -> None:
        """Records a reading of the load: whether there are requests, and whether tokens or ends of requests were
        counted since the last reading.
        """
        if progressed:
            self.observe_progress(now)
        elif not self.has_requests:
            self._progress_at = now
        self._busy = busy

    def observe_log(self, lines: Sequence[str], now: float) -> None:
        """Records new lines of the log. Lines that vLLM repeats while it waits are no progress."""
        if any(line.strip() and not any(part in line for part in WAITING_LINES) for line in lines):
            self._progress_at = now

    def observe_progress(self, now: float) -> None:
        """Records that the server generated a token or ended a request."""
        self._progress_at, self.suspected = now, False

    def suspect(self, now: float) -> None:
        """Records that a client's request timed out, so the server has requests, also if its last load shows none."""
        if not self.has_requests:
            self._progress_at = now
        self.suspected = True

    def failure(self, now: float) -> FleetError | None:
        """Returns why the server is dead; None if it may live."""
        if self._failing_since is not None and now - self._failing_since > self._failure_timeout:
            reason = f"the server failed its health checks for {self._failure_timeout:g} s and was ended"
            return FleetError("F216", reason, hint="orchestra fleet logs")
        if self.has_requests and now - self._progress_at > self._stall_timeout:
            reason = f"the server had requests and made no progress for {self._stall_timeout:g} s, and was ended"
            return FleetError(
                "F216", reason, hint="orchestra fleet logs; on a slower machine raise stall_timeout: in the fleet file"
            )
        return None
