"""Two small machines that protect a server: how many requests at once, and whether to ask it at all. Pure but for futures."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, TypeAlias

from orchestra.fleet.concurrency_limit import ConcurrencyLimit, InFlightRequest, RequestOutcome
from orchestra.fleet.scheduling import NO_RUN, FifoScheduler, QueueRequest, Scheduler, Ticket


@dataclass(frozen=True, slots=True)
class Permit:
    """A place at a server, for one request."""

    request: QueueRequest
    in_flight: InFlightRequest


class ConcurrencyGate:
    """At most `limit` requests at once; a `Scheduler` chooses the next one that goes in. While it is held, nobody goes in."""

    def __init__(self, concurrency: ConcurrencyLimit, scheduler: Scheduler | None = None) -> None:
        self.concurrency = concurrency
        self.in_flight = 0
        self.paused = False
        self.scheduler = scheduler or FifoScheduler()
        self._waiters: dict[Ticket, asyncio.Future[Permit]] = {}

    @property
    def limit(self) -> int:
        """Requests at once, now."""
        return self.concurrency.limit

    @property
    def waiting(self) -> int:
        """Requests that wait at the gate."""
        return self.scheduler.waiting

    def try_enter(self, request: QueueRequest = NO_RUN) -> Permit | None:
        """A permit where there is room and nobody waits. It needs one `leave`."""
        if not self._has_room() or not self.scheduler.try_enter(request):
            return None
        return self._permit(request)

    async def enter(self, request: QueueRequest = NO_RUN) -> Permit:
        """Waits until there is room. Every permit needs one `leave`."""
        if (permit := self.try_enter(request)) is not None:
            return permit
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        ticket = self.scheduler.enqueue(request)
        self._waiters[ticket] = future
        self._admit_waiting()  # it may share its prompt with what is inside, while those before it have to wait
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave(future.result(), "ignored")
            elif self._waiters.pop(ticket, None) is not None:
                self.scheduler.cancel(ticket)
                self._admit_waiting()  # the others may have waited for this one
            raise

    def leave(self, permit: Permit, outcome: RequestOutcome) -> None:
        """The request is over."""
        self.concurrency.record_finished(permit.in_flight, outcome)
        self.in_flight -= 1
        self.scheduler.finish(permit.request)
        self._admit_waiting()

    def pause(self) -> None:
        """Lets nobody in until `release`."""
        self.paused = True

    def resume(self) -> None:
        """Ends a hold."""
        if self.paused:
            self.paused = False
            self._admit_waiting()

    def _has_room(self) -> bool:
        return not self.paused and self.in_flight < self.concurrency.limit

    def _permit(self, request: QueueRequest) -> Permit:
        self.in_flight += 1
        return Permit(request, self.concurrency.record_sent(self.in_flight))

    def _admit_waiting(self) -> None:
        """Lets in who may go."""
        while self._has_room() and (ticket := self.scheduler.dequeue()) is not None:
            future = self._waiters.pop(ticket)
            if future.done():
                self.scheduler.finish(ticket.request)  # cancelled, and it has not had a chance to say so
            else:
                future.set_result(self._permit(ticket.request))


BreakerState: TypeAlias = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Stops asking a server that failed `threshold` times in a row, for a pause that doubles from `initial_pause` to `max_pause` seconds.

    After the pause one request goes through; its result closes the breaker or opens it again (Nygard, Release It!, 2nd ed.,
    chapter 5). Time is given from outside.
    """

    def __init__(self, threshold: int = 5, initial_pause: float = 1.0, max_pause: float = 30.0) -> None:
        self._threshold, self._initial_pause, self._max_pause = threshold, initial_pause, max_pause
        self._failures = 0
        self._pause = initial_pause
        self._open_until = 0.0
        self._probing = False
        self.state: BreakerState = "closed"

    def state_at(self, now: float) -> BreakerState:
        """The state as a request would find it: one that is open is half-open once its pause is over."""
        return "half-open" if self.state == "open" and now >= self._open_until else self.state

    def remaining_pause(self, now: float) -> float:
        """Seconds until a request may go. Takes no permission."""
        if self.state == "closed":
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        return min(self._pause, 1.0) if self._probing else 0.0

    def acquire(self, now: float) -> float:
        """Seconds until a request may go; 0 takes the permission.

        After 0, call `record_success`, `record_failure` or `record_ignored` once.
        """
        if (pause := self.remaining_pause(now)) == 0 and self.state != "closed":
            self.state, self._probing = "half-open", True
        return pause

    def record_success(self) -> None:
        """A request was answered."""
        self._failures, self._pause, self._probing, self.state = 0, self._initial_pause, False, "closed"

    def record_failure(self, now: float, *, trial: bool = True) -> None:
        """A request failed by the server's fault; `trial` says whether it is the one that went through after the pause.

        Only a trial that fails makes the pause longer. What was under way when the breaker opened fails by the same fault, and says
        nothing of how long that will last.
        """
        if self.state == "closed":
            self._failures += 1
            if self._failures < self._threshold:
                return
        elif self.state == "half-open" and trial:
            self._pause = min(2 * self._pause, self._max_pause)
        else:
            return
        self.state, self._open_until, self._probing = "open", now + self._pause, False

    def record_ignored(self) -> None:
        """A request ended without telling anything of the server: it was cancelled, or wrong itself."""
        self._probing = False
