"""Two small machines that protect a server: how many requests at once, and whether to ask it at all. Pure but for futures."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, TypeAlias

from orchestra.fleet.concurrency_limit import ConcurrencyLimit, Flight, Outcome
from orchestra.fleet.scheduling import NOBODY, Fifo, Order, Ticket, Turn


@dataclass(frozen=True, slots=True)
class Permit:
    """A place at a server, for one request."""

    turn: Turn
    flight: Flight


class Gate:
    """At most `limit` requests at once; an `Order` says which of those that wait goes in next. While it is held, nobody goes in."""

    def __init__(self, concurrency: ConcurrencyLimit, order: Order | None = None) -> None:
        self.concurrency = concurrency
        self.inside = 0
        self.held = False
        self.order = order or Fifo()
        self._called: dict[Ticket, asyncio.Future[Permit]] = {}

    @property
    def limit(self) -> int:
        """Requests at once, now."""
        return self.concurrency.limit

    @property
    def waiting(self) -> int:
        """Requests that wait at the gate."""
        return self.order.waiting

    def free(self, turn: Turn = NOBODY) -> Permit | None:
        """A permit where there is room and nobody waits. It needs one `leave`."""
        if not self._has_room() or not self.order.enter(turn):
            return None
        return self._permit(turn)

    async def enter(self, turn: Turn = NOBODY) -> Permit:
        """Waits until there is room. Every permit needs one `leave`."""
        if (permit := self.free(turn)) is not None:
            return permit
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        ticket = self.order.join(turn)
        self._called[ticket] = future
        self._call()  # it may share its prompt with what is inside, while those before it have to wait
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave(future.result(), "ignored")
            elif self._called.pop(ticket, None) is not None:
                self.order.withdraw(ticket)
                self._call()  # the others may have waited for this one
            raise

    def leave(self, permit: Permit, outcome: Outcome) -> None:
        """The request is over."""
        self.concurrency.finished(permit.flight, outcome)
        self.inside -= 1
        self.order.over(permit.turn)
        self._call()

    def hold(self) -> None:
        """Lets nobody in until `release`."""
        self.held = True

    def release(self) -> None:
        """Ends a hold."""
        if self.held:
            self.held = False
            self._call()

    def _has_room(self) -> bool:
        return not self.held and self.inside < self.concurrency.limit

    def _permit(self, turn: Turn) -> Permit:
        self.inside += 1
        return Permit(turn, self.concurrency.sent(self.inside))

    def _call(self) -> None:
        """Lets in who may go."""
        while self._has_room() and (ticket := self.order.next()) is not None:
            future = self._called.pop(ticket)
            if future.done():
                self.order.over(ticket.turn)  # cancelled, and it has not had a chance to say so
            else:
                future.set_result(self._permit(ticket.turn))


State: TypeAlias = Literal["closed", "open", "half-open"]


class Breaker:
    """Stops asking a server that failed `threshold` times in a row, for a pause that doubles from `first` to `longest` seconds.

    After the pause one request goes through; its result closes the breaker or opens it again (Nygard, Release It!, 2nd ed.,
    chapter 5). Time is given from outside.
    """

    def __init__(self, threshold: int = 5, first: float = 1.0, longest: float = 30.0) -> None:
        self._threshold, self._first, self._longest = threshold, first, longest
        self._failures = 0
        self._pause = first
        self._until = 0.0
        self._probing = False
        self.state: State = "closed"

    def at(self, now: float) -> State:
        """The state as a request would find it: one that is open is half-open once its pause is over."""
        return "half-open" if self.state == "open" and now >= self._until else self.state

    def pause(self, now: float) -> float:
        """Seconds until a request may go. Takes no permission."""
        if self.state == "closed":
            return 0.0
        if now < self._until:
            return self._until - now
        return min(self._pause, 1.0) if self._probing else 0.0

    def wait(self, now: float) -> float:
        """Seconds until a request may go; 0 takes the permission, which must be answered by `good`, `bad` or `nothing`."""
        if (pause := self.pause(now)) == 0 and self.state != "closed":
            self.state, self._probing = "half-open", True
        return pause

    def good(self) -> None:
        """A request was answered."""
        self._failures, self._pause, self._probing, self.state = 0, self._first, False, "closed"

    def bad(self, now: float, *, trial: bool = True) -> None:
        """A request failed by the server's fault; `trial` says whether it is the one that went through after the pause.

        Only a trial that fails makes the pause longer. What was under way when the breaker opened fails by the same fault, and says
        nothing of how long that will last.
        """
        if self.state == "closed":
            self._failures += 1
            if self._failures < self._threshold:
                return
        elif self.state == "half-open" and trial:
            self._pause = min(2 * self._pause, self._longest)
        else:
            return
        self.state, self._until, self._probing = "open", now + self._pause, False

    def nothing(self) -> None:
        """A request ended without telling anything of the server: it was cancelled, or wrong itself."""
        self._probing = False
