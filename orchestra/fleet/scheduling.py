"""Who goes next where requests wait for a server. Pure: no clock, no I/O.

A server with continuous batching works on whatever it was given, in the order in which it came. That order is ours to choose, and it
decides how often the beginning of a prompt is computed again because it was pushed out of the cache meanwhile, and whether runs finish
one after the other or all of them at the end. `ProgramScheduler` chooses; `FifoScheduler` takes requests as they come.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import islice
from typing import Literal, Protocol, TypeAlias

import msgspec

from orchestra.fleet.prefix_cache import BLOCK_TOKENS, Prefix, PrefixCache

Ordering: TypeAlias = Literal["programs", "fifo"]
CACHE_SHARE = 4
"""One part in so many of the cache may be in use; the rest remembers what runs come back to."""
MIN_CONCURRENT = 4
"""Requests that may be with the server at once also where their prompts take a larger part of the cache: alone, each would be slow."""
MAX_PASSES = 8
"""Requests of younger runs that may go in a row before the oldest run that waits."""
NEW_RUN_WINDOW = 64
"""Runs that have not begun, among which one is looked for whose prompt the server remembers."""
MAX_RUNS = 4096
"""Runs that are remembered."""


class QueueRequest(msgspec.Struct, frozen=True):
    """What a request says of itself in line."""

    run: str = ""
    """Whose it is; empty for what belongs to no run, such as loading an adapter. That goes first."""
    priority: int = 0
    """Lower goes first, among those of one run."""
    prefix: Prefix = ()


NO_RUN = QueueRequest()


class Ticket:
    """A place in line."""

    __slots__ = ("cancelled", "number", "request", "run")

    def __init__(self, request: QueueRequest, number: int, run: _RunQueue | None = None) -> None:
        self.request, self.number, self.run, self.cancelled = request, number, run, False

    def __lt__(self, other: Ticket) -> bool:
        return (self.request.priority, self.number) < (other.request.priority, other.number)


class Scheduler(Protocol):
    """A line in front of one server. Whatever went in by `enter` or `dequeue` needs one `finish`."""

    waiting: int
    """Tickets in line."""

    def try_enter(self, request: QueueRequest) -> bool:
        """Goes in past the line, where nobody waits and nothing speaks against it; says whether it did."""

    def enqueue(self, request: QueueRequest) -> Ticket:
        """Gets in line."""

    def cancel(self, ticket: Ticket) -> None:
        """Leaves the line."""

    def dequeue(self) -> Ticket | None:
        """The one that goes in now, no longer in line; None where it is better that nobody does. Then somebody is inside."""

    def finish(self, request: QueueRequest) -> None:
        """A request that went in is done with."""

    def cached_blocks(self, prefix: Prefix) -> int:
        """How many leading blocks of a prompt the server remembers, as far as we know."""

    def set_cache_size(self, tokens: int) -> None:
        """The server says how many tokens its cache holds."""


class FifoScheduler:
    """By priority, then as they come."""

    def __init__(self) -> None:
        self.waiting = 0
        self._queue: list[Ticket] = []
        self._number = 0

    def try_enter(self, request: QueueRequest) -> bool:
        """Where nobody waits."""
        return not self.waiting

    def enqueue(self, request: QueueRequest) -> Ticket:
        """At the end of its priority."""
        self._number += 1
        ticket = Ticket(request, self._number)
        heapq.heappush(self._queue, ticket)
        self.waiting += 1
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Leaves the line."""
        ticket.cancelled = True
        self.waiting -= 1

    def dequeue(self) -> Ticket | None:
        """The first."""
        found = _first_waiting(self._queue)
        if found is not None:
            heapq.heappop(self._queue)
            self.waiting -= 1
        return found

    def finish(self, request: QueueRequest) -> None:
        """Nothing is kept of it."""

    def cached_blocks(self, prefix: Prefix) -> int:
        """Nothing."""
        return 0

    def set_cache_size(self, tokens: int) -> None:
        """Makes no difference."""


class _RunQueue:
    """A run that has requests here, or had some lately."""

    __slots__ = ("in_ages", "level", "listed_level", "number", "queue", "served_blocks", "started", "waiting")

    def __init__(self, number: int) -> None:
        self.number = number
        """By the arrival of its first request."""
        self.started = False
        self.served_blocks = 0
        """Blocks that the server has computed for it, with one for each request."""
        self.level = 0
        """0 while it is small; never falls."""
        self.queue: list[Ticket] = []
        self.waiting = 0
        """Tickets in line."""
        self.in_ages = False
        self.listed_level = -1
        """Whether it stands among the `_ages`, and by which level among the `_started`."""


class ProgramScheduler:
    """Runs are begun one after the other, and those that have begun go first, the oldest first; so runs finish, and find their prompts in
    the cache.

    Of the runs that have not begun, one goes next whose prompt the server remembers already; else the oldest. Nothing goes in whose
    prompt would push out more than a share of the cache (Denning's working set, https://doi.org/10.1145/363095.363141). A run that
    has had more than that goes behind the others (Autellix's attained service, https://arxiv.org/abs/2502.13965), so that a large run does
    not keep small ones waiting. And the oldest run is passed over only so many times in a row.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.prefix_cache = PrefixCache()
        self.max_used_blocks: int | None = None
        """Blocks in use at most; unknown until the server has said how much it holds."""
        self._in_flight = 0
        self._number = self._passed = 0
        self._runs: OrderedDict[str, _RunQueue] = OrderedDict()
        self._without_run: list[Ticket] = []
        """Tickets that belong to no run."""
        self._new: OrderedDict[int, _RunQueue] = OrderedDict()
        """Runs in line that have not begun, by number."""
        self._started: list[tuple[int, int, _RunQueue]] = []
        """A heap of runs that have, by level and number; entries whose level is over, or whose line is empty, are passed over."""
        self._ages: list[tuple[int, _RunQueue]] = []
        """A heap of runs in line by number, those whose line is empty among them."""

    def set_cache_size(self, tokens: int) -> None:
        """The server says how many tokens its cache holds."""
        self.prefix_cache.capacity = max(1, tokens // BLOCK_TOKENS)
        self.max_used_blocks = max(1, self.prefix_cache.capacity // CACHE_SHARE)

    def cached_blocks(self, prefix: Prefix) -> int:
        """How many leading blocks of a prompt the server remembers, as far as we know."""
        return self.prefix_cache.cached_blocks(prefix)

    def try_enter(self, request: QueueRequest) -> bool:
        """Where nobody waits, and the prompt fits."""
        if self.waiting or not self._fits(request):
            return False
        self._start(request, self._run(request.run) if request.run else None)
        return True

    def enqueue(self, request: QueueRequest) -> Ticket:
        """In line with those of its run."""
        self._number += 1
        self.waiting += 1
        if not request.run:
            ticket = Ticket(request, self._number)
            heapq.heappush(self._without_run, ticket)
            return ticket
        run = self._run(request.run)
        ticket = Ticket(request, self._number, run)
        heapq.heappush(run.queue, ticket)
        run.waiting += 1
        if not run.in_ages:
            run.in_ages = True
            heapq.heappush(self._ages, (run.number, run))
        self._list_run(run)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Leaves the line."""
        ticket.cancelled = True
        self.waiting -= 1
        if ticket.run is not None:
            ticket.run.waiting -= 1
            if not ticket.run.waiting:
                self._new.pop(ticket.run.number, None)

    def dequeue(self) -> Ticket | None:
        """What belongs to no run; else the best request, or that of the oldest run where it was passed over too often."""
        if (free := _first_waiting(self._without_run)) is not None:
            heapq.heappop(self._without_run)
            self.waiting -= 1
            self._start(free.request, None)
            return free
        oldest = self._oldest()
        if oldest is None:
            return None
        chosen = self._best() if self._passed < MAX_PASSES else oldest if self._fits(_next_request(oldest)) else None
        if chosen is None:
            return None
        self._passed = 0 if chosen is oldest else self._passed + 1
        return self._take_ticket(chosen)

    def finish(self, request: QueueRequest) -> None:
        """Its prompt may be pushed out now."""
        self._in_flight -= 1
        if request.prefix:
            self.prefix_cache.release(request.prefix)

    def _run(self, name: str) -> _RunQueue:
        """The run of a name, as the one that was seen last."""
        if (run := self._runs.get(name)) is not None:
            self._runs.move_to_end(name)
            return run
        self._number += 1
        run = self._runs[name] = _RunQueue(self._number)
        if len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)
        return run

    def _list_run(self, run: _RunQueue) -> None:
        if not run.started:
            self._new[run.number] = run
        elif run.listed_level != run.level:
            run.listed_level = run.level
            heapq.heappush(self._started, (run.level, run.number, run))

    def _fits(self, request: QueueRequest) -> bool:
        """Whether the prompts that are with the server leave room for this one. What shares theirs takes none."""
        if self.max_used_blocks is None or not request.prefix or not self._in_flight:
            return True
        more = self.prefix_cache.missing_blocks(request.prefix)
        return not more or self.prefix_cache.used_blocks + more <= (
            self.max_used_blocks if self._in_flight >= MIN_CONCURRENT else self.prefix_cache.capacity
        )

    def _oldest(self) -> _RunQueue | None:
        ages = self._ages
        while ages and not ages[0][1].waiting:
            heapq.heappop(ages)[1].in_ages = False
        return ages[0][1] if ages else None

    def _best(self) -> _RunQueue | None:
        """Small runs that have begun; then one that has not; then large ones that have."""
        held: list[tuple[int, int, _RunQueue]] = []
        """Runs whose next prompt does not fit now."""
        found: _RunQueue | None = None
        sought = False
        while found is None and self._started:
            level, _, run = self._started[0]
            if not run.waiting or run.level != level:
                heapq.heappop(self._started)
                if run.listed_level == level:
                    run.listed_level = -1
            elif level and not sought:
                sought, found = True, self._best_new()
            elif self._fits(_next_request(run)):
                found = run
            else:
                held.append(heapq.heappop(self._started))
        for entry in held:
            heapq.heappush(self._started, entry)
        return found if found is not None or sought else self._best_new()

    def _best_new(self) -> _RunQueue | None:
        """The run to begin: one whose prompt the server remembers by half or more; else the oldest. Among those that fit."""
        first: _RunQueue | None = None
        for run in islice(self._new.values(), NEW_RUN_WINDOW):
            request = _next_request(run)
            if self._fits(request):
                if request.prefix and 2 * self.prefix_cache.cached_blocks(request.prefix) >= len(request.prefix):
                    return run
                first = first or run
        return first

    def _take_ticket(self, run: _RunQueue) -> Ticket:
        ticket = _first_waiting(run.queue)
        assert ticket is not None, "a run in line has a ticket"
        heapq.heappop(run.queue)
        run.waiting -= 1
        self.waiting -= 1
        self._new.pop(run.number, None)
        self._start(ticket.request, run)
        if run.waiting:
            self._list_run(run)
        return ticket

    def _start(self, request: QueueRequest, run: _RunQueue | None) -> None:
        self._in_flight += 1
        if run is not None:
            run.started = True
            run.served_blocks += (
                1 + len(request.prefix) - (self.prefix_cache.cached_blocks(request.prefix) if request.prefix else 0)
            )
            run.level = max(
                run.level, (run.served_blocks // (self.max_used_blocks or self.prefix_cache.capacity)).bit_length()
            )
        if request.prefix:
            self.prefix_cache.acquire(request.prefix)


def make_scheduler(wanted: Ordering) -> Scheduler:
    """A line of the wanted kind."""
    return ProgramScheduler() if wanted == "programs" else FifoScheduler()


def _first_waiting(line: list[Ticket]) -> Ticket | None:
    """The first in line that is still there."""
    while line and line[0].cancelled:
        heapq.heappop(line)
    return line[0] if line else None


def _next_request(run: _RunQueue) -> QueueRequest:
    ticket = _first_waiting(run.queue)
    assert ticket is not None, "a run in line has a ticket"
    return ticket.request
