"""Two small machines that protect a server: how many requests at once, and whether to ask it at all. Pure but for futures."""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias

from orchestra.fleet.order import NOBODY, Fifo, Order, Ticket, Turn


class Gate:
    """At most `limit` requests at once; an `Order` says which of those that wait goes in next.

    The limit moves by AIMD (Chiu and Jain 1989, https://doi.org/10.1016/0169-7552(89)90019-6): one more after `limit` good
    answers, half as many when the server says that it is busy.
    """

    def __init__(self, most: int, order: Order | None = None) -> None:
        self.most = most
        self.limit = float(most)
        self.inside = 0
        self.order = order or Fifo()
        self._called: dict[Ticket, asyncio.Future[None]] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait at the gate."""
        return self.order.waiting

    def free(self, turn: Turn = NOBODY) -> bool:
        """Goes in where there is room and nobody waits; says whether it did. Needs one `leave` then."""
        if self.inside >= int(self.limit) or not self.order.enter(turn):
            return False
        self.inside += 1
        return True

    async def enter(self, turn: Turn = NOBODY) -> None:
        """Waits until there is room. Every `enter` that returned needs one `leave` of the same turn."""
        if self.free(turn):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = self.order.join(turn)
        self._called[ticket] = future
        self._call()  # it may share its prompt with what is inside, while those before it have to wait
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give_back(turn)
            elif self._called.pop(ticket, None) is not None:
                self.order.withdraw(ticket)
                self._call()  # the others may have waited for this one
            raise

    def leave(self, turn: Turn = NOBODY, *, good: bool, busy: bool) -> None:
        """The request is over; `busy` is the server's own word."""
        if busy:
            self.limit = max(1.0, self.limit / 2)
        elif good:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)
        self._give_back(turn)

    def _give_back(self, turn: Turn) -> None:
        self.inside -= 1
        self.order.over(turn)
        self._call()

    def _call(self) -> None:
        """Lets in who may go."""
        while self.inside < int(self.limit) and (ticket := self.order.next()) is not None:
            future = self._called.pop(ticket)
            if future.done():
                self.order.over(ticket.turn)  # cancelled, and it has not had a chance to say so
            else:
                self.inside += 1
                future.set_result(None)


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

    def wait(self, now: float) -> float:
        """Seconds until a request may go; 0 takes the permission, which must be answered by `good`, `bad` or `nothing`."""
        if self.state == "closed":
            return 0.0
        if now < self._until:
            return self._until - now
        if self._probing:
            return min(self._pause, 1.0)
        self.state, self._probing = "half-open", True
        return 0.0

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
