"""How many requests a server gets at once: a policy that learns from rejections (429, 503). Pure: no clock, no I/O.

A rejection may be caused by our load, or by something else: a gateway with other tenants, a rolling restart. Only the first kind is
a reason to send less. Load shows itself in two ways: a large share of the requests is rejected, and fewer requests succeed at once
than are sent at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

RequestOutcome: TypeAlias = Literal["success", "rejected", "ignored"]
"""How a request ended: with an answer; with 429 or 503; in a way that says nothing about load (cancelled, failed, timed out)."""

DECREASE = 0.7
"""The factor of a decrease, as in CUBIC (RFC 9438, section 4.6)."""
TOLERATED_SHARE, TOLERATED_COUNT = 0.25, 2
"""Rejections that are not taken for overload: two, and one in four of the requests of a round. Of one in ten that is unrelated to load
that is rarely exceeded. Google's client-side throttling tolerates one in two (Site Reliability Engineering, chapter 21)."""
PLATEAU, LONGEST_PLATEAU = 8, 64
"""Rounds at a known capacity until more is tried, as in BBR's probing for bandwidth; doubled each time that one more was too much."""


@dataclass(slots=True)
class InFlightRequest:
    """A request in flight, as a limit remembers it."""

    decreases: int = 0
    """Decreases before it was sent."""
    round: int = 0
    successes: int = 0
    """Successes before it was sent."""


class ConcurrencyLimit(Protocol):
    """Decides how many requests a server gets at once. Each `record_sent` needs one `record_finished`."""

    @property
    def limit(self) -> int:
        """Requests at once, at least 1."""

    def record_sent(self, in_flight: int) -> InFlightRequest:
        """A request is sent; `in_flight` counts it."""

    def record_finished(self, request: InFlightRequest, outcome: RequestOutcome) -> None:
        """A request has ended."""


class AdaptiveLimit:
    """Sends less when a server is overloaded, and not when a few requests are rejected.

    Time is counted in rounds of about a round trip. A round ends with the first success of a request that was sent in it, after as many
    successes as the limit.

    - Overload is a round with more rejections than are tolerated. The limit decreases to 0.7 of itself, but not below a capacity that is
      known: the limit of the round before, if this one tried more; or the number of requests that succeed at once. That number is measured
      without a clock: by the successes between the sending and the success of a request (Little's law; BBR samples its delivery rate in
      the same way).
    - After a decrease only requests that were sent later count, so there is one decrease per round trip.
    - At a known capacity the limit stays for some rounds. Then, and at once after a decrease without a known capacity, it grows by 1, 2, 4
      and so on, once per round without overload.
    - A limit that is not reached does not grow.
    """

    def __init__(self, max_limit: int) -> None:
        """The limit starts at `max_limit` and never exceeds it."""
        self._max_limit = self._limit = max_limit
        self._decreases = self._round = self._successes = 0
        self._sent = self._rejected = 0
        """Of this round."""
        self._reached = False
        """Whether as many requests as the limit were in flight in this round."""
        self._sum = self._samples = 0
        """Of this round: how many requests succeeded at once."""
        self._previous_mean = 0.0
        """The mean of the samples of the round before."""
        self._measured = False
        """Whether there was a success since the last decrease."""
        self._previous_limit = 0
        """The limit of the round before, if it grew after it."""
        self._plateau = PLATEAU
        self._wait = 0
        """Rounds until the limit may grow."""
        self._step = 1

    @property
    def limit(self) -> int:
        """Requests at once, at least 1."""
        return self._limit

    def record_sent(self, in_flight: int) -> InFlightRequest:
        """A request is sent; `in_flight` counts it."""
        self._sent += 1
        self._reached |= in_flight >= self._limit
        return InFlightRequest(self._decreases, self._round, self._successes)

    def record_finished(self, request: InFlightRequest, outcome: RequestOutcome) -> None:
        """A request has ended."""
        if outcome == "success":
            self._successes += 1
            self._sum += self._successes - request.successes
            self._samples += 1
            self._measured = True
            if request.round == self._round and self._samples >= self._limit:
                self._grow()
        elif outcome == "rejected" and request.decreases == self._decreases:
            self._rejected += 1
            if self._rejected > TOLERATED_COUNT + TOLERATED_SHARE * self._sent:
                self._decrease()

    def _capacity(self) -> int:
        """Requests that succeed at once, as far as is known; 0 where nothing is."""
        if not self._measured:
            return self._previous_limit
        now = self._sum / self._samples if 2 * self._samples >= self._limit else 0.0
        return max(self._previous_limit, round(max(self._previous_mean, now)))

    def _decrease(self) -> None:
        capacity, lower = self._capacity(), max(1, int(DECREASE * self._limit))
        known = capacity >= lower
        self._plateau = min(2 * self._plateau, LONGEST_PLATEAU) if known and self._step == 2 else PLATEAU
        self._wait = self._plateau if known else 0
        self._limit = min(self._limit, max(lower, capacity))
        self._decreases += 1
        self._measured, self._step = False, 1
        self._begin_round()

    def _grow(self) -> None:
        reached = self._reached
        self._begin_round()
        if self._wait:
            self._wait -= 1
        elif reached and self._limit < self._max_limit:
            self._previous_limit = self._limit
            self._limit = min(self._max_limit, self._limit + self._step)
            self._step *= 2

    def _begin_round(self) -> None:
        self._previous_mean = self._sum / self._samples if self._samples else 0.0
        self._round += 1
        self._sent = self._rejected = self._sum = self._samples = self._previous_limit = 0
        self._reached = False
