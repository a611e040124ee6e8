"""Order of the requests that wait for a server. Pure: no clock, no I/O.

A server with continuous batching works on its requests in the order of arrival. That order decides how often the prefix
of a prompt is computed again because it was evicted from the cache, and whether runs finish one after the other or all
at the end. `ProgramScheduler` optimizes it; `FifoScheduler` keeps the order of arrival.
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
"""One part in so many of the cache may be in use. The rest keeps prefixes to which runs return."""
MIN_CONCURRENT = 4
"""Requests in flight that are allowed even if their prompts take a larger part of the cache: one at a time would be
slow.
"""
MAX_PASSES = 8
"""Requests of younger runs that may pass the oldest waiting run in a row."""
NEW_RUN_WINDOW = 64
"""New runs among which one with a cached prompt is searched."""
MAX_RUNS = 4096
"""Runs that are kept in memory."""


class QueueRequest(msgspec.Struct, frozen=True):
    """The properties of a request that decide its order."""

    run: str = ""
    """The run of the request; empty for a request without a run, such as loading an adapter. Those go first."""
    priority: int = 0
    """Lower goes first, among the requests of one run."""
    prefix: Prefix = ()


NO_RUN = QueueRequest()


class Ticket:
    """A place in the queue."""

    __slots__ = ("cancelled", "number", "request", "run")

    def __init__(self, request: QueueRequest, number: int, run: _RunQueue | None = None) -> None:
        self.request, self.number, self.run, self.cancelled = request, number, run, False

    def __lt__(self, other: Ticket) -> bool:
        return (self.request.priority, self.number) < (other.request.priority, other.number)


class Scheduler(Protocol):
    """The queue of one server. Each request that `try_enter` or `dequeue` admits needs one `finish`."""

    waiting: int
    """The number of tickets in the queue."""

    def try_enter(self, request: QueueRequest) -> bool:
        """Admits a request without a ticket if the queue is empty and the request may be sent.

        Returns whether it did.
        """

    def enqueue(self, request: QueueRequest) -> Ticket:
        """Adds a request to the queue."""

    def cancel(self, ticket: Ticket) -> None:
        """Removes a ticket from the queue."""

    def dequeue(self) -> Ticket | None:
        """Removes and returns the next ticket; None if no request should be sent now, which requires requests in
        flight.
        """

    def finish(self, request: QueueRequest) -> None:
        """Records that an admitted request has ended."""

    def cached_blocks(self, prefix: Prefix) -> int:
        """Returns the number of leading blocks of a prompt that the server has cached, as estimated."""

    def set_cache_size(self, tokens: int) -> None:
        """Sets the size of the server's cache in tokens."""


class FifoScheduler:
    """Order by priority, then by arrival."""

    def __init__(self) -> None:
        self.waiting = 0
        self._queue: list[Ticket] = []
        self._number = 0

    def try_enter(self, request: QueueRequest) -> bool:
        """Admits a request if the queue is empty."""
        return not self.waiting

    def enqueue(self, request: QueueRequest) -> Ticket:
        """Adds a request behind those of its priority."""
        self._number += 1
        ticket = Ticket(request, self._number)
        heapq.heappush(self._queue, ticket)
        self.waiting += 1
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Removes a ticket from the queue."""
        ticket.cancelled = True
        self.waiting -= 1

    def dequeue(self) -> Ticket | None:
        """Removes and returns the first ticket."""
        ticket = _first_waiting(self._queue)
        if ticket is not None:
            heapq.heappop(self._queue)
            self.waiting -= 1
        return ticket

    def finish(self, request: QueueRequest) -> None:
        """Does nothing."""

    def cached_blocks(self, prefix: Prefix) -> int:
        """Returns 0: prefixes are not tracked."""
        return 0

    def set_cache_size(self, tokens: int) -> None:
        """Does nothing."""


class _RunQueue:
    """A run with requests in the queue, now or recently."""

    __slots__ = ("in_ages", "level", "listed_level", "number", "queue", "served_blocks", "started", "waiting")

    def __init__(self, number: int) -> None:
        self.number = number
        """The number of the run, by the arrival of its first request."""
        self.started = False
        self.served_blocks = 0
        """Blocks that the server has computed for the run, plus one per request."""
        self.level = 0
        """0 for a small run; never decreases."""
        self.queue: list[Ticket] = []
        self.waiting = 0
        """The number of tickets in the queue."""
        self.in_ages = False
        self.listed_level = -1
        """The level in `_started`, and whether the run is in `_ages`."""


class ProgramScheduler:
    """Starts runs one after the other. Started runs go first, the oldest first, so runs finish and find their prompts
    in the cache.

    Of the new runs, one whose prompt is cached goes first, else the oldest. No request is admitted whose prompt would
    evict more than a share of the cache (Denning's working set, https://doi.org/10.1145/363095.363141). A run that has
    used more than that share goes behind the others (Autellix's attained service, https://arxiv.org/abs/2502.13965), so
    that a large run does not block small ones. The oldest run is passed a limited number of times in a row.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.prefix_cache = PrefixCache()
        self.max_used_blocks: int | None = None
        """Blocks in use at most; None until the server has stated its capacity."""
        self._in_flight = 0
        self._number = self._passed = 0
        self._runs: OrderedDict[str, _RunQueue] = OrderedDict()
        self._without_run: list[Ticket] = []
        """Tickets without a run."""
        self._new: OrderedDict[int, _RunQueue] = OrderedDict()
        """Runs in the queue that have not started, by number."""
        self._started: list[tuple[int, int, _RunQueue]] = []
        """A heap of started runs by level and number. Entries with an old level or an empty queue are skipped."""
        self._ages: list[tuple[int, _RunQueue]] = []
        """A heap of runs by number, including those whose queue is empty."""

    def set_cache_size(self, tokens: int) -> None:
        """Sets the size of the server's cache in tokens."""
        self.prefix_cache.capacity = max(1, tokens // BLOCK_TOKENS)
        self.max_used_blocks = max(1, self.prefix_cache.capacity // CACHE_SHARE)

    def cached_blocks(self, prefix: Prefix) -> int:
        """Returns the number of leading blocks of a prompt that the server has cached, as estimated."""
        return self.prefix_cache.cached_blocks(prefix)

    def try_enter(self, request: QueueRequest) -> bool:
        """Admits a request if the queue is empty and the prompt fits."""
        if self.waiting or not self._fits(request):
            return False
        self._start(request, self._run(request.run) if request.run else None)
        return True

    def enqueue(self, request: QueueRequest) -> Ticket:
        """Adds a request to the queue of its run."""
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
        """Removes a ticket from the queue."""
        ticket.cancelled = True
        self.waiting -= 1
        if ticket.run is not None:
            ticket.run.waiting -= 1
            if not ticket.run.waiting:
                self._new.pop(ticket.run.number, None)

    def dequeue(self) -> Ticket | None:
        """Returns a ticket without a run; else the best one, or that of the oldest run if it was passed too often."""
        if (free := _first_waiting(self._without_run)) is not None:
            heapq.heappop(self._without_run)
            self.waiting -= 1
            self._start(free.request, None)
            return free
        oldest = self._oldest()
        if oldest is None:
            return None
        run_queue = self._best() if self._passed < MAX_PASSES else oldest if self._fits(_next_request(oldest)) else None
        if run_queue is None:
            return None
        self._passed = 0 if run_queue is oldest else self._passed + 1
        return self._take_ticket(run_queue)

    def finish(self, request: QueueRequest) -> None:
        """Records that a request has ended. Its prompt may be evicted now."""
        self._in_flight -= 1
        if request.prefix:
            self.prefix_cache.release(request.prefix)

    def _run(self, name: str) -> _RunQueue:
        """Returns the run of a name, and marks it as most recently seen."""
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
        """Whether the prompts in flight leave space for this one. Shared blocks take none."""
        if self.max_used_blocks is None or not request.prefix or not self._in_flight:
            return True
        missing_blocks = self.prefix_cache.missing_blocks(request.prefix)
        return not missing_blocks or self.prefix_cache.used_blocks + missing_blocks <= (
            self.max_used_blocks if self._in_flight >= MIN_CONCURRENT else self.prefix_cache.capacity
        )

    def _oldest(self) -> _RunQueue | None:
        ages = self._ages
        while ages and not ages[0][1].waiting:
            heapq.heappop(ages)[1].in_ages = False
        return ages[0][1] if ages else None

    def _best(self) -> _RunQueue | None:
        """Returns the best ticket: small runs that have started, then a new run, then large runs that have started."""
        blocked_queues: list[tuple[int, int, _RunQueue]] = []
        """Runs whose next prompt does not fit now."""
        run_queue: _RunQueue | None = None
        sought = False
        while run_queue is None and self._started:
            level, _, run = self._started[0]
            if not run.waiting or run.level != level:
                heapq.heappop(self._started)
                if run.listed_level == level:
                    run.listed_level = -1
            elif level and not sought:
                sought, run_queue = True, self._best_new()
            elif self._fits(_next_request(run)):
                run_queue = run
            else:
                blocked_queues.append(heapq.heappop(self._started))
        for entry in blocked_queues:
            heapq.heappush(self._started, entry)
        return run_queue if run_queue is not None or sought else self._best_new()

    def _best_new(self) -> _RunQueue | None:
        """Returns the new run to start: one whose prompt is cached by half or more, else the oldest; only runs whose
        prompt fits.
        """
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
    """Returns a scheduler of the given kind."""
    return ProgramScheduler() if wanted == "programs" else FifoScheduler()


def _first_waiting(line: list[Ticket]) -> Ticket | None:
    """Returns the first ticket that is not cancelled."""
    while line and line[0].cancelled:
        heapq.heappop(line)
    return line[0] if line else None


def _next_request(run: _RunQueue) -> QueueRequest:
    ticket = _first_waiting(run.queue)
    assert ticket is not None, "a run in line has a ticket"
    return ticket.request
