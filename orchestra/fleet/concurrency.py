"""Protection of a server from overload: an adaptive limit of requests in flight, and a circuit breaker.

Everything here is pure, except for the futures of `ConcurrencyGate`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from orchestra.fleet.scheduling import NO_RUN, FifoScheduler, QueueRequest, Scheduler, Ticket

RequestOutcome: TypeAlias = Literal["success", "rejected", "ignored"]
"""How a request ended: with an answer, with 429 or 503, or in a way that is no evidence of load (cancelled, failed,
timed out).
"""

DECREASE = 0.7
"""The factor of a decrease, as in CUBIC (RFC 9438, section 4.6)."""
TOLERATED_SHARE, TOLERATED_COUNT = 0.25, 2
"""Rejections per round that do not count as overload: two, and one in four requests. If one request in ten is rejected
for other reasons, this is rarely exceeded. Google's client-side throttling tolerates one in two (Site Reliability
Engineering, chapter 21).
"""
PLATEAU, LONGEST_PLATEAU = 8, 64
"""Rounds at a known capacity before more is tried, as in BBR's probing for bandwidth. Doubled each time that one more
was too much.
"""


@dataclass(slots=True)
class InFlightRequest:
    """The state of the limit when a request was sent."""

    decreases: int = 0
    """Decreases before it was sent."""
    round: int = 0
    successes: int = 0
    """Successes before it was sent."""


class ConcurrencyLimit(Protocol):
    """Decides how many requests a server gets at once. Each `record_sent` needs one `record_finished`."""

    @property
    def limit(self) -> int:
        """The number of requests at once, at least 1."""

    def record_sent(self, in_flight: int) -> InFlightRequest:
        """Records that a request is sent. `in_flight` includes it."""

    def record_finished(self, request: InFlightRequest, outcome: RequestOutcome) -> None:
        """Records that a request has ended."""


class AdaptiveLimit:
    """Limits the requests to an overloaded server, and ignores a few rejections.

    Time is counted in rounds of about one round trip. A round ends with the first success of a request that was sent in
    it, after as many successes as the limit.

    - Overload is a round with more rejections than tolerated. The limit decreases to 0.7 of itself, but not below a
      known capacity: the limit of the round before, if this round tried more; or the number of requests that succeed at
      once. That number is measured without a clock: by the successes between the sending and the success of a request
      (Little's law; BBR samples its delivery rate in the same way).
    - After a decrease only requests that were sent later count, so there is one decrease per round trip.
    - At a known capacity the limit stays for some rounds. Then, and at once after a decrease without a known capacity,
      it grows by 1, 2, 4 and so on, once per round without overload.
    - A limit that is not reached does not grow.
    """

    def __init__(self, max_limit: int) -> None:
        """The limit starts at `max_limit` and never exceeds it."""
        self._max_limit = self._limit = max_limit
        self._decreases = self._round = self._successes = 0
        self._sent = self._rejected = 0
        """Counts of this round."""
        self._reached = False
        """Whether the requests in flight reached the limit in this round."""
        self._sum = self._samples = 0
        """Sum and number of this round's samples of the requests that succeeded at once."""
        self._previous_mean = 0.0
        """The mean of the samples of the previous round."""
        self._measured = False
        """Whether there was a success since the last decrease."""
        self._previous_limit = 0
        """The limit of the previous round, if the limit grew after it; else 0."""
        self._plateau = PLATEAU
        self._wait = 0
        """Rounds until the limit may grow."""
        self._step = 1

    @property
    def limit(self) -> int:
        """The number of requests at once, at least 1."""
        return self._limit

    def record_sent(self, in_flight: int) -> InFlightRequest:
        """Records that a request is sent. `in_flight` includes it."""
        self._sent += 1
        self._reached |= in_flight >= self._limit
        return InFlightRequest(self._decreases, self._round, self._successes)

    def record_finished(self, request: InFlightRequest, outcome: RequestOutcome) -> None:
        """Records that a request has ended."""
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
        """Returns the known number of requests that succeed at once; 0 if unknown."""
        if not self._measured:
            return self._previous_limit
        now = self._sum / self._samples if 2 * self._samples >= self._limit else 0.0
        return max(self._previous_limit, round(max(self._previous_mean, now)))

    def _decrease(self) -> None:
        capacity, lower = self._capacity(), max(1, int(DECREASE * self._limit))
        has_capacity = capacity >= lower
        self._plateau = min(2 * self._plateau, LONGEST_PLATEAU) if has_capacity and self._step == 2 else PLATEAU
        self._wait = self._plateau if has_capacity else 0
        self._limit = min(self._limit, max(lower, capacity))
        self._decreases += 1
        self._measured, self._step = False, 1
        self._begin_round()

    def _grow(self) -> None:
        has_reached_limit = self._reached
        self._begin_round()
        if self._wait:
            self._wait -= 1
        elif has_reached_limit and self._limit < self._max_limit:
            self._previous_limit = self._limit
            self._limit = min(self._max_limit, self._limit + self._step)
            self._step *= 2

    def _begin_round(self) -> None:
        self._previous_mean = self._sum / self._samples if self._samples else 0.0
        self._round += 1
        self._sent = self._rejected = self._sum = self._samples = self._previous_limit = 0
        self._reached = False


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to send one request to a server."""

    request: QueueRequest
    in_flight: InFlightRequest


class ConcurrencyGate:
    """Admits at most `limit` requests at once. A `Scheduler` chooses the next request. A paused gate admits none."""

    def __init__(self, concurrency: ConcurrencyLimit, scheduler: Scheduler | None = None) -> None:
        self.concurrency = concurrency
        self.in_flight = 0
        self.paused = False
        self.scheduler = scheduler or FifoScheduler()
        self._waiters: dict[Ticket, asyncio.Future[Permit]] = {}

    @property
    def limit(self) -> int:
        """The current number of requests at once."""
        return self.concurrency.limit

    @property
    def waiting(self) -> int:
        """The number of requests that wait at the gate."""
        return self.scheduler.waiting

    def try_enter(self, request: QueueRequest = NO_RUN) -> Permit | None:
        """Returns a permit if there is capacity and the queue is empty. A permit needs one `leave`."""
        if not self._has_room() or not self.scheduler.try_enter(request):
            return None
        return self._permit(request)

    async def enter(self, request: QueueRequest = NO_RUN) -> Permit:
        """Waits for capacity and returns a permit. Each permit needs one `leave`."""
        if (permit := self.try_enter(request)) is not None:
            return permit
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        ticket = self.scheduler.enqueue(request)
        self._waiters[ticket] = future
        self._admit_waiting()  # it may share its prompt with a request in flight, while those before it have to wait
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave(future.result(), "ignored")
            elif self._waiters.pop(ticket, None) is not None:
                self.scheduler.cancel(ticket)
                self._admit_waiting()  # others may have waited for this request
            raise

    def leave(self, permit: Permit, outcome: RequestOutcome) -> None:
        """Returns a permit after its request has ended."""
        self.concurrency.record_finished(permit.in_flight, outcome)
        self.in_flight -= 1
        self.scheduler.finish(permit.request)
        self._admit_waiting()

    def pause(self) -> None:
        """Admits no request until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Ends a pause."""
        if self.paused:
            self.paused = False
            self._admit_waiting()

    def _has_room(self) -> bool:
        return not self.paused and self.in_flight < self.concurrency.limit

    def _permit(self, request: QueueRequest) -> Permit:
        self.in_flight += 1
        return Permit(request, self.concurrency.record_sent(self.in_flight))

    def _admit_waiting(self) -> None:
        """Admits waiting requests as far as the limit allows."""
        while self._has_room() and (ticket := self.scheduler.dequeue()) is not None:
            future = self._waiters.pop(ticket)
            if future.done():
                self.scheduler.finish(ticket.request)  # its future was cancelled, and its task has not run yet
            else:
                future.set_result(self._permit(ticket.request))


MAX_TRIAL_WAIT = 1.0
"""The longest wait in seconds that a breaker states while a trial is in flight: the trial may end at any time."""
BreakerState: TypeAlias = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Stops requests to a server after `threshold` failures in a row, for a pause that doubles from `initial_pause` to
    `max_pause` seconds.

    After the pause one trial request is sent. Its result closes the breaker or opens it again (Nygard, Release It!, 2nd
    ed., chapter 5). If it has no result within the pause, another trial is sent and the pause doubles: a single request
    without an answer is no evidence that the server fails the others. The caller passes the time.
    """

    def __init__(self, threshold: int = 5, initial_pause: float = 1.0, max_pause: float = 30.0) -> None:
        self._threshold, self._initial_pause, self._max_pause = threshold, initial_pause, max_pause
        self._failures = 0
        self._pause = initial_pause
        self._open_until = 0.0
        self._next_trial = 0.0
        """The time of the next trial if none of those in flight ends before."""
        self.state: BreakerState = "closed"

    def state_at(self, now: float) -> BreakerState:
        """Returns the state at a time: an open breaker is half-open after its pause."""
        return "half-open" if self.state == "open" and now >= self._open_until else self.state

    def remaining_pause(self, now: float) -> float:
        """Returns the seconds until a request may be sent. Does not acquire permission."""
        if self.state == "closed":
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        return min(max(0.0, self._next_trial - now), MAX_TRIAL_WAIT)

    def acquire(self, now: float) -> float:
        """Returns the seconds until a request may be sent; 0 grants permission.

        After 0, call `record_success`, `record_failure` or `record_ignored` once.
        """
        if (pause := self.remaining_pause(now)) == 0 and self.state != "closed":
            if self._next_trial:  # the previous trial has no result yet
                self._pause = min(2 * self._pause, self._max_pause)
            self.state, self._next_trial = "half-open", now + self._pause
        return pause

    def record_success(self) -> None:
        """Records that a request was answered."""
        self._failures, self._pause, self._next_trial, self.state = 0, self._initial_pause, 0.0, "closed"

    def record_failure(self, now: float, *, trial: bool = True) -> None:
        """Records that a request failed because of the server.

        Only a failed trial makes the pause longer. Requests that were in flight when the breaker opened fail for the
        same reason, which is no evidence of the length of the outage.

        Args:
            now: The time in seconds.
            trial: Whether the request is the trial after a pause.
        """
        if self.state == "closed":
            self._failures += 1
            if self._failures < self._threshold:
                return
        elif self.state == "half-open" and trial:
            self._pause = min(2 * self._pause, self._max_pause)
        else:
            return
        self.state, self._open_until, self._next_trial = "open", now + self._pause, 0.0

    def record_ignored(self) -> None:
        """Records that a request ended without evidence about the server: it was cancelled, or was invalid itself."""
        self._next_trial = 0.0
