"""Readiness of a fleet's servers. A local server starts when a call first needs it. A call waits for its own servers
only.
"""

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
"""Seconds after which a failed server is started again if another one answers meanwhile."""


def fleet_timeout(timeout: float) -> float:
    """Returns the part of a call's timeout that the fleet uses.

    It ends before the engine's timeout, because the engine cancels the call then and the reason would be lost.
    """
    return timeout - min(timeout / 10, 1.0)


class ServerReadiness:
    """The servers that have been up. Whether one still is shows in its requests. Endpoints are waited for only with
    `starts_within`, or with `auto` until it is known what they are.
    """

    def __init__(
        self,
        config: FleetConfig,
        bring_up: Callable[[str], Awaitable[None]],
        is_running: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """Starts no server.

        Args:
            config: The configuration of the fleet.
            bring_up: Starts a local server, and raises `FleetError`; or waits for an endpoint.
            is_running: Whether a local server that starts on demand still runs, and then runs for the next request,
                too. None if servers are not stopped.
        """
        self._config, self._bring_up, self._is_running = config, bring_up, is_running
        self._up = {
            name
            for name, server in config.servers.items()
            if isinstance(server, Endpoint) and server.starts_within is None and server.is_resolved
        }
        self._start_tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, tuple[float, FleetError]] = {}
        """Server to the time and error of its last failed start."""

    @property
    def start_tasks(self) -> list[asyncio.Task[None]]:
        """The current starts. They continue when their callers stop waiting."""
        return list(self._start_tasks.values())

    async def wait_for_servers(self, call: CallRequest, choice: ServerChoice) -> tuple[CallRequest, ServerChoice]:
        """Waits until a server of the choice is up.

        Returns:
            The call with its remaining timeout, and the choice without the servers that are not up.

        Raises:
            FleetError: No server came up; F216 (for an endpoint F203) if the call's timeout ended first. The start
            continues.
        """
        if self._config.start != "on_demand" and self._up.issuperset(choice.servers):
            return call, choice
        clock = asyncio.get_running_loop().time
        start_time = clock()
        try:
            async with asyncio.timeout(None if call.timeout is None else fleet_timeout(call.timeout)):
                choice = replace(choice, servers=await self.ensure_up(choice.servers))
        except TimeoutError as error:
            raise _timeout_error(
                choice.servers[0], choice.servers[0] in self._config.local_servers, call.timeout or 0.0
            ) from error
        if call.timeout is not None:
            call = msgspec.structs.replace(call, timeout=max(0.0, call.timeout - (clock() - start_time)))
        return call, choice

    async def ensure_up(self, names: Sequence[str]) -> tuple[str, ...]:
        """Waits until one of the servers is up, and returns those that are. The others continue to start. Concurrent
        calls start a server once.

        A failed server is started again by the next call that has no other server, and after `RESTART_AFTER` by any
        call.

        Raises:
            FleetError: No server came up.
        """
        if self._config.start == "on_demand":
            if running_names := [name for name in names if await self._still_runs(name)]:
                return tuple(running_names)
        elif self._up.issuperset(names):
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
            start_tasks := [self._start_tasks[name] for name in names if self._is_starting(name)]
        ):
            await asyncio.wait(start_tasks, return_when=asyncio.FIRST_COMPLETED)
        up = tuple(name for name in names if name in self._up)
        if not up:
            self._start_tasks[names[0]].result()  # raises an exception that is not a `FleetError`
            raise self._failures[names[0]][1]
        return up

    async def _still_runs(self, name: str) -> bool:
        """Whether a server is up. One that the supervisor has stopped meanwhile is no longer."""
        if self._is_running is None or name not in self._config.local_servers:
            return name in self._up
        if name in self._up and not await self._is_running(name):
            self._up.discard(name)
        return name in self._up

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


def _timeout_error(name: str, is_own: bool, seconds: float) -> FleetError:
    """Returns the error of a call whose timeout ended before the server was up."""
    code, verb = ("F216", "start") if is_own else ("F203", "status")
    reason = f"{name} was still starting when the call's timeout of {seconds:g} s ended"
    return FleetError(code, reason, hint=f"raise the node's `timeout`, or: orchestra fleet {verb}")
