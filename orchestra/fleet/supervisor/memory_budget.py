"""Memory for servers that start on demand: whether another one fits, and which idle servers must be stopped first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestra.core.errors import FleetError
from orchestra.fleet.memory import AvailableMemory, gigabytes

MEMORY_HINT = "wait until they have no requests, raise `memory:` in the fleet file, or lower kv_cache_gib"


@dataclass(frozen=True, slots=True)
class Need:
    """The memory that a server needs."""

    minimum: int
    """Bytes without which it cannot run: its weights and its key-value cache."""
    expected: int
    """Bytes that it is expected to hold: those of its last run, or the minimum and those of the process."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A server that holds memory."""

    name: str
    bytes: int
    """Bytes that are reserved for it, or that it holds if these are more."""
    unused: int
    """Bytes of these that it does not hold yet, because it still starts."""
    idle: float | None
    """Seconds since its last request; None if it has requests, or starts, or stops."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a server may start, or what must happen before."""

    fits: bool = False
    stop: str = ""
    """The server to stop first; empty if none helps now."""
    hopeless: bool = False
    """Whether the server does not fit, even if all others are stopped."""


def decide(need: Need, limit: int | None, free: int | None, holders: Sequence[Holder], least_idle: float) -> Decision:
    """Decides whether a server may start.

    Args:
        need: The memory that it needs.
        limit: The budget of all servers; None without one.
        free: The memory that a new process can use; None if unknown.
        holders: The other servers that hold memory.
        least_idle: Seconds without a request after which a server may be stopped.
    """

    def fits(stopped_holders: Sequence[Holder]) -> bool:
        remaining_holders = [holder for holder in holders if holder not in stopped_holders]
        in_budget = limit is None or need.expected + sum(holder.bytes for holder in remaining_holders) <= limit
        released_bytes = sum(holder.bytes - holder.unused for holder in stopped_holders)
        pending = sum(holder.unused for holder in remaining_holders)
        return in_budget and (free is None or need.minimum + pending <= free + released_bytes)

    idle = sorted(
        (holder for holder in holders if holder.idle is not None and holder.idle >= least_idle),
        key=lambda holder: -(holder.idle or 0.0),
    )
    if fits(()):
        return Decision(fits=True)
    if any(fits(idle[: count + 1]) for count in range(len(idle))):
        return Decision(stop=idle[0].name)
    return Decision(hopeless=not fits(holders))


class Tenant(Protocol):
    """A server that holds memory, as the budget sees it."""

    name: str

    def need(self) -> Need:
        """Returns the memory that it needs."""

    def holder(self) -> Holder | None:
        """Returns what it holds; None if it holds nothing."""

    async def release(self) -> None:
        """Stops the server if it has no requests. Returns when it has ended, or has requests again."""


class MemoryBudget:
    """Admits servers one after the other, so that none starts in the memory of another one."""

    def __init__(
        self, limit: int | None, available: Callable[[], AvailableMemory | None], wait: float, least_idle: float
    ) -> None:
        """Creates a budget without servers.

        Args:
            limit: Bytes of all servers together; None without a limit.
            available: Returns the memory that a new process can use.
            wait: Seconds for which a start waits until others have no requests.
            least_idle: Seconds without a request after which a server may be stopped for another one.
        """
        self._limit, self._available, self._wait, self._least_idle = limit, available, wait, least_idle
        self.tenants: dict[str, Tenant] = {}
        self._lock = asyncio.Lock()

    async def admit(
        self,
        name: str,
        reserve: Callable[[int], None],
        may_stop: Callable[[], bool],
        pause: Callable[[str], Awaitable[bool]],
    ) -> FleetError | None:
        """Waits until a server fits, and stops idle servers for it.

        Args:
            name: The server.
            reserve: Called with the reserved bytes when it fits.
            may_stop: Whether other servers may be stopped for it.
            pause: Waits a moment. Takes the reason of the wait, and returns whether the start goes on.

        Returns:
            None; or the error F226 with what holds the memory. None also if the start does not go on.
        """
        while self._lock.locked():
            if not await pause("waiting for the start of another server"):
                return None
        async with self._lock:
            need, deadline = self.tenants[name].need(), time.monotonic() + self._wait
            while True:
                holders = [
                    tenant_holder
                    for tenant in self.tenants.values()
                    if (tenant_holder := tenant.holder()) and tenant_holder.name != name
                ]
                available = self._available()
                free = None if available is None else available.bytes
                decision = decide(need, self._limit, free, holders, self._least_idle)
                if decision.fits:
                    reserve(need.expected)
                    return None
                if decision.hopeless or not may_stop() or time.monotonic() >= deadline:
                    return self._refusal(name, need, available, holders)
                if decision.stop:
                    await self.tenants[decision.stop].release()
                names = ", ".join(holder.name for holder in holders)
                if not await pause(f"waiting for memory that {names} has"):
                    return None

    def _refusal(
        self, name: str, need: Need, available: AvailableMemory | None, holders: Sequence[Holder]
    ) -> FleetError:
        limits = [f"`memory:` of the fleet file is {gigabytes(self._limit)}"] if self._limit is not None else []
        if available is not None:
            limits.append(f"{gigabytes(available.bytes)} are available ({available.limit})")
        holders_text = ", ".join(f"{holder.name} {gigabytes(holder.bytes)} ({_state(holder)})" for holder in holders)
        return FleetError(
            "F226",
            f"there is no memory to start {name}: it needs {gigabytes(need.expected)}, {' and '.join(limits)}; "
            + (f"the running servers hold {holders_text}" if holders_text else "no other server of the fleet runs"),
            hint=MEMORY_HINT
            if holders_text
            else "raise `memory:` in the fleet file, lower kv_cache_gib, or close programs",
        )


def _state(holder: Holder) -> str:
    if holder.idle is None:
        return "starts" if holder.unused else "has requests"
    return f"idle for {holder.idle:.0f} s"
