"""Which servers of a fleet are up. Its own are brought up when a call first wants them; no call waits for those that only others want."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import msgspec

from orchestra.doors import Call
from orchestra.errors import FleetError
from orchestra.fleet.choice import Choice
from orchestra.fleet.config import FleetConfig


class Readiness:
    """Knows the servers that were up once; whether one still is, its requests find out. Endpoints need no start."""

    def __init__(self, config: FleetConfig, bring_up: Callable[[str], Awaitable[None]]) -> None:
        """`bring_up` brings up one server of the fleet's own, and raises `FleetError`."""
        self._bring_up = bring_up
        self._up = set(config.servers) - set(config.local)
        self._starts: dict[str, asyncio.Task[None]] = {}

    @property
    def starts(self) -> list[asyncio.Task[None]]:
        """The starts that somebody has begun; they go on without whoever waited for them."""
        return list(self._starts.values())

    async def reached(self, call: Call, choice: Choice) -> tuple[Call, Choice]:
        """A call with the time that it has left, and its choice without the servers that did not come up.

        Raises `FleetError` where none did, F216 where the time of the call was over first; the start goes on.
        """
        if self._up.issuperset(choice.servers):
            return call, choice
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(call.timeout):
                choice = replace(choice, servers=await self.bring(choice.servers))
        except TimeoutError as error:
            reason = f"{choice.servers[0]} was still starting when the {call.timeout:g} s of the call were over"
            raise FleetError("F216", reason, hint="raise the node's `timeout`, or: orchestra fleet start") from error
        if call.timeout is not None:
            call = msgspec.structs.replace(call, timeout=max(0.0, call.timeout - (clock() - began)))
        return call, choice

    async def bring(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of some servers that are up, once each was brought up or could not be; once, however many ask.

        What could not be is tried again by the next call that has no other server. Raises `FleetError` where none is up.
        """
        others = not self._up.isdisjoint(names)
        errors: list[FleetError] = []
        for name in names:
            if name not in self._up and not (others and self._failed(name)):
                try:
                    await self._start(name)
                except FleetError as error:
                    errors.append(error)
        up = tuple(name for name in names if name in self._up)
        if not up and errors:
            raise errors[0]
        return up

    async def _start(self, name: str) -> None:
        if name not in self._starts or self._failed(name):
            self._starts[name] = asyncio.create_task(self._one(name))
        await asyncio.shield(self._starts[name])

    async def _one(self, name: str) -> None:
        await self._bring_up(name)
        self._up.add(name)

    def _failed(self, name: str) -> bool:
        task = self._starts.get(name)
        return task is not None and task.done() and (task.cancelled() or task.exception() is not None)
