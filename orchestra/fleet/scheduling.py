"""Who goes next where requests wait for a server. Pure: no clock, no I/O.

A server with continuous batching works on whatever it was given, in the order in which it came. That order is ours to choose, and it
decides how often the beginning of a prompt is computed again because it was pushed out of the cache meanwhile, and whether runs finish
one after the other or all of them at the end. `Programs` chooses; `Fifo` takes requests as they come.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import islice
from typing import Literal, Protocol, TypeAlias

import msgspec

from orchestra.fleet.prefix_cache import TOKENS, Prefix, Prefixes

Ordering: TypeAlias = Literal["programs", "fifo"]
SHARE = 4
"""One part in so many of the cache may be in use; the rest remembers what runs come back to."""
FEW = 4
"""Requests that may be with the server at once also where their prompts take a larger part of the cache: alone, each would be slow."""
PASSES = 8
"""Requests of younger runs that may go in a row before the oldest run that waits."""
WINDOW = 64
"""Runs that have not begun, among which one is looked for whose prompt the server remembers."""
KEPT = 4096
"""Runs that are remembered."""


class Turn(msgspec.Struct, frozen=True):
    """What a request says of itself in line."""

    run: str = ""
    """Whose it is; empty for what belongs to no run, such as loading an adapter. That goes first."""
    priority: int = 0
    """Lower goes first, among those of one run."""
    prefix: Prefix = ()


NOBODY = Turn()


class Ticket:
    """A place in line."""

    __slots__ = ("gone", "number", "run", "turn")

    def __init__(self, turn: Turn, number: int, run: _Run | None = None) -> None:
        self.turn, self.number, self.run, self.gone = turn, number, run, False

    def __lt__(self, other: Ticket) -> bool:
        return (self.turn.priority, self.number) < (other.turn.priority, other.number)


class Order(Protocol):
    """A line in front of one server. Whatever went in by `enter` or `next` must be told `over` once."""

    waiting: int
    """Tickets in line."""

    def enter(self, turn: Turn) -> bool:
        """Goes in past the line, where nobody waits and nothing speaks against it; says whether it did."""

    def join(self, turn: Turn) -> Ticket:
        """Gets in line."""

    def withdraw(self, ticket: Ticket) -> None:
        """Leaves the line."""

    def next(self) -> Ticket | None:
        """The one that goes in now, no longer in line; None where it is better that nobody does. Then somebody is inside."""

    def over(self, turn: Turn) -> None:
        """A request that went in is done with."""

    def known(self, prefix: Prefix) -> int:
        """How many leading blocks of a prompt the server remembers, as far as we know."""

    def learn(self, tokens: int) -> None:
        """The server says how many tokens its cache holds."""


class Fifo:
    """By priority, then as they come."""

    def __init__(self) -> None:
        self.waiting = 0
        self._line: list[Ticket] = []
        self._number = 0

    def enter(self, turn: Turn) -> bool:
        """Where nobody waits."""
        return not self.waiting

    def join(self, turn: Turn) -> Ticket:
        """At the end of its priority."""
        self._number += 1
        ticket = Ticket(turn, self._number)
        heapq.heappush(self._line, ticket)
        self.waiting += 1
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Leaves the line."""
        ticket.gone = True
        self.waiting -= 1

    def next(self) -> Ticket | None:
        """The first."""
        found = _first(self._line)
        if found is not None:
            heapq.heappop(self._line)
            self.waiting -= 1
        return found

    def over(self, turn: Turn) -> None:
        """Nothing is kept of it."""

    def known(self, prefix: Prefix) -> int:
        """Nothing."""
        return 0

    def learn(self, tokens: int) -> None:
        """Makes no difference."""


class _Run:
    """A run that has requests here, or had some lately."""

    __slots__ = ("aged", "begun", "left", "level", "line", "listed", "number", "served")

    def __init__(self, number: int) -> None:
        self.number = number
        """By the arrival of its first request."""
        self.begun = False
        self.served = 0
        """Blocks that the server has computed for it, with one for each request."""
        self.level = 0
        """0 while it is small; never falls."""
        self.line: list[Ticket] = []
        self.left = 0
        """Tickets in line."""
        self.aged = False
        self.listed = -1
        """Whether it stands among the `_ages`, and by which level among the `_begun`."""


class Programs:
    """Runs are begun one after the other, and those that have begun go first, the oldest first; so runs finish, and find their prompts in
    the cache.

    Of the runs that have not begun, one goes next whose prompt the server remembers already; else the oldest. Nothing goes in whose
    prompt would push out more than a share of the cache (Denning's working set, https://doi.org/10.1145/363095.363141). A run that
    has had more than that goes behind the others (Autellix's attained service, https://arxiv.org/abs/2502.13965), so that a large run does
    not keep small ones waiting. And the oldest run is passed over only so many times in a row.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.prefixes = Prefixes()
        self.room: int | None = None
        """Blocks in use at most; unknown until the server has said how much it holds."""
        self._inside = 0
        self._number = self._passed = 0
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._free: list[Ticket] = []
        """Tickets that belong to no run."""
        self._new: OrderedDict[int, _Run] = OrderedDict()
        """Runs in line that have not begun, by number."""
        self._begun: list[tuple[int, int, _Run]] = []
        """A heap of runs that have, by level and number; entries whose level is over, or whose line is empty, are passed over."""
        self._ages: list[tuple[int, _Run]] = []
        """A heap of runs in line by number, those whose line is empty among them."""

    def learn(self, tokens: int) -> None:
        """The server says how many tokens its cache holds."""
        self.prefixes.room = max(1, tokens // TOKENS)
        self.room = max(1, self.prefixes.room // SHARE)

    def known(self, prefix: Prefix) -> int:
        """How many leading blocks of a prompt the server remembers, as far as we know."""
        return self.prefixes.known(prefix)

    def enter(self, turn: Turn) -> bool:
        """Where nobody waits, and the prompt fits."""
        if self.waiting or not self._fits(turn):
            return False
        self._go(turn, self._run(turn.run) if turn.run else None)
        return True

    def join(self, turn: Turn) -> Ticket:
        """In line with those of its run."""
        self._number += 1
        self.waiting += 1
        if not turn.run:
            ticket = Ticket(turn, self._number)
            heapq.heappush(self._free, ticket)
            return ticket
        run = self._run(turn.run)
        ticket = Ticket(turn, self._number, run)
        heapq.heappush(run.line, ticket)
        run.left += 1
        if not run.aged:
            run.aged = True
            heapq.heappush(self._ages, (run.number, run))
        self._list(run)
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Leaves the line."""
        ticket.gone = True
        self.waiting -= 1
        if ticket.run is not None:
            ticket.run.left -= 1
            if not ticket.run.left:
                self._new.pop(ticket.run.number, None)

    def next(self) -> Ticket | None:
        """What belongs to no run; else the best request, or that of the oldest run where it was passed over too often."""
        if (free := _first(self._free)) is not None:
            heapq.heappop(self._free)
            self.waiting -= 1
            self._go(free.turn, None)
            return free
        oldest = self._oldest()
        if oldest is None:
            return None
        chosen = self._best() if self._passed < PASSES else oldest if self._fits(_head(oldest)) else None
        if chosen is None:
            return None
        self._passed = 0 if chosen is oldest else self._passed + 1
        return self._take(chosen)

    def over(self, turn: Turn) -> None:
        """Its prompt may be pushed out now."""
        self._inside -= 1
        if turn.prefix:
            self.prefixes.leave(turn.prefix)

    def _run(self, name: str) -> _Run:
        """The run of a name, as the one that was seen last."""
        if (run := self._runs.get(name)) is not None:
            self._runs.move_to_end(name)
            return run
        self._number += 1
        run = self._runs[name] = _Run(self._number)
        if len(self._runs) > KEPT:
            self._runs.popitem(last=False)
        return run

    def _list(self, run: _Run) -> None:
        if not run.begun:
            self._new[run.number] = run
        elif run.listed != run.level:
            run.listed = run.level
            heapq.heappush(self._begun, (run.level, run.number, run))

    def _fits(self, turn: Turn) -> bool:
        """Whether the prompts that are with the server leave room for this one. What shares theirs takes none."""
        if self.room is None or not turn.prefix or not self._inside:
            return True
        more = self.prefixes.fresh(turn.prefix)
        return not more or self.prefixes.used + more <= (self.room if self._inside >= FEW else self.prefixes.room)

    def _oldest(self) -> _Run | None:
        ages = self._ages
        while ages and not ages[0][1].left:
            heapq.heappop(ages)[1].aged = False
        return ages[0][1] if ages else None

    def _best(self) -> _Run | None:
        """Small runs that have begun; then one that has not; then large ones that have."""
        held: list[tuple[int, int, _Run]] = []
        """Runs whose next prompt does not fit now."""
        found: _Run | None = None
        sought = False
        while found is None and self._begun:
            level, _, run = self._begun[0]
            if not run.left or run.level != level:
                heapq.heappop(self._begun)
                if run.listed == level:
                    run.listed = -1
            elif level and not sought:
                sought, found = True, self._fresh()
            elif self._fits(_head(run)):
                found = run
            else:
                held.append(heapq.heappop(self._begun))
        for entry in held:
            heapq.heappush(self._begun, entry)
        return found if found is not None or sought else self._fresh()

    def _fresh(self) -> _Run | None:
        """The run to begin: one whose prompt the server remembers by half or more; else the oldest. Among those that fit."""
        first: _Run | None = None
        for run in islice(self._new.values(), WINDOW):
            turn = _head(run)
            if self._fits(turn):
                if turn.prefix and 2 * self.prefixes.known(turn.prefix) >= len(turn.prefix):
                    return run
                first = first or run
        return first

    def _take(self, run: _Run) -> Ticket:
        ticket = _first(run.line)
        assert ticket is not None, "a run in line has a ticket"
        heapq.heappop(run.line)
        run.left -= 1
        self.waiting -= 1
        self._new.pop(run.number, None)
        self._go(ticket.turn, run)
        if run.left:
            self._list(run)
        return ticket

    def _go(self, turn: Turn, run: _Run | None) -> None:
        self._inside += 1
        if run is not None:
            run.begun = True
            run.served += 1 + len(turn.prefix) - (self.prefixes.known(turn.prefix) if turn.prefix else 0)
            run.level = max(run.level, (run.served // (self.room or self.prefixes.room)).bit_length())
        if turn.prefix:
            self.prefixes.use(turn.prefix)


def ordered(wanted: Ordering) -> Order:
    """A line of the wanted kind."""
    return Programs() if wanted == "programs" else Fifo()


def _first(line: list[Ticket]) -> Ticket | None:
    """The first in line that is still there."""
    while line and line[0].gone:
        heapq.heappop(line)
    return line[0] if line else None


def _head(run: _Run) -> Turn:
    ticket = _first(run.line)
    assert ticket is not None, "a run in line has a ticket"
    return ticket.turn
