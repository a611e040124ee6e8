"""Which servers of a fleet are up. Its own are brought up when a call first wants them; no call waits for those that only others want."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import msgspec

from orchestra.core.errors import FleetError
from orchestra.core.protocols import CallRequest
from orchestra.fleet.config import Endpoint, FleetConfig
from orchestra.fleet.server_selection import ServerChoice

RESTART_AFTER = 60.0
"""Seconds after which a server that did not come up is started again, where another one answers meanwhile."""


def fleet_timeout(timeout: float) -> float:
    """The seconds of a call's `timeout` that the fleet takes: the engine stops waiting at it, and cancels, and then nobody says why."""
    return timeout - min(timeout / 10, 1.0)


class ServerReadiness:
    """Knows the servers that were up once; whether one still is, its requests find out. Of endpoints only those with `starts_within` are
    waited for."""

    def __init__(self, config: FleetConfig, bring_up: Callable[[str], Awaitable[None]]) -> None:
        """`bring_up` brings up one server of the fleet's own, and raises `FleetError`; or waits for an endpoint."""
        self._config, self._bring_up = config, bring_up
        self._up = {
            name for name, one in config.servers.items() if isinstance(one, Endpoint) and one.starts_within is None
        }
        self._start_tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, tuple[float, FleetError]] = {}
        """Of servers that did not come up: when, and why."""

    @property
    def start_tasks(self) -> list[asyncio.Task[None]]:
        """The starts that somebody has begun; they go on without whoever waited for them."""
        return list(self._start_tasks.values())

    async def wait_for_servers(self, call: CallRequest, choice: ServerChoice) -> tuple[CallRequest, ServerChoice]:
        """A call with the time that it has left, and its choice without the servers that did not come up.

        Raises `FleetError` where none did, F216 (of an endpoint F203) where the time of the call was over first; the start goes on.
        """
        if self._up.issuperset(choice.servers):
            return call, choice
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(None if call.timeout is None else fleet_timeout(call.timeout)):
                choice = replace(choice, servers=await self.ensure_up(choice.servers))
        except TimeoutError as error:
            raise _timeout_error(
                choice.servers[0], choice.servers[0] in self._config.local_servers, call.timeout or 0.0
            ) from error
        if call.timeout is not None:
            call = msgspec.structs.replace(call, timeout=max(0.0, call.timeout - (clock() - began)))
        return call, choice

    async def ensure_up(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of some servers that are up, once one of them is; the others start meanwhile, once, however many ask.

        What could not be brought up is tried again by the next call that has no other server, and after a while by any. Raises
        `FleetError` where none came up.
        """
        if self._up.issuperset(names):
            return tuple(names)
        latest = asyncio.get_running_loop().time() - RESTART_AFTER
        hopeless = {name for name in names if name in self._failures and self._failures[name][0] > latest}
        for name in names:
            if (
                name not in self._up
                and not self._is_starting(name)
                and (name not in hopeless or len(hopeless) == len(names))
            ):
                self._start_tasks[name] = asyncio.create_task(self._start(name))
        while self._up.isdisjoint(names) and (
            starting := [self._start_tasks[name] for name in names if self._is_starting(name)]
        ):
            await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
        up = tuple(name for name in names if name in self._up)
        if not up:
            self._start_tasks[names[0]].result()  # raises what is no `FleetError`
            raise self._failures[names[0]][1]
        return up

    def _is_starting(self, name: str) -> bool:
        return name in self._start_tasks and not self._start_tasks[name].done()

    async def _start(self, name: str) -> None:
        try:
            await self._bring_up(name)
        except FleetError as error:
            self._failures[name] = asyncio.get_running_loop().time(), error
        else:
            self._up.add(name)
            self._failures.pop(name, None)


def _timeout_error(name: str, ours: bool, seconds: float) -> FleetError:
    """Of a server that was not up when the time of a call was over."""
    code, verb = ("F216", "start") if ours else ("F203", "status")
    reason = f"{name} was still starting when the {seconds:g} s of the call were over"
    return FleetError(code, reason, hint=f"raise the node's `timeout`, or: orchestra fleet {verb}")
