"""The one function that sends. It alone enforces where data may go, and resends only what no model saw.

Labels, addresses and keys come from the fleet's configuration, never from a request. Every other retry is a new attempt,
proposed by the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from orchestra.doors import Clock
from orchestra.errors import FleetError
from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
from orchestra.fleet.connection import Block
from orchestra.fleet.faults import Fault
from orchestra.fleet.limits import Breaker, Gate
from orchestra.fleet.order import Turn, ordered
from orchestra.fleet.progress import Progress, Report, silent
from orchestra.fleet.secrets import secret, sent_with, signed
from orchestra.fleet.wire import Answer, Request, Wire
from orchestra.values.labels import may_go

FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
"""Seconds between resends, doubling; each is shortened by chance, so that senders do not march in step."""
NO_HEADERS: Mapping[str, str] = {}
REFUSALS = 6
"""Resends to a stranger's server that cannot be reached: about twelve seconds. One of ours comes back: its supervisor sees to that,
and `patience` bounds the wait."""
REFUSALS_AT_FIRST = 3
"""Resends where nobody has answered there in this process: about a second and a half. Mostly nobody has started it, or it is elsewhere."""
SAID_AFTER = 5.0
"""Seconds in which a server does not do what it is asked, after which whoever waits is told."""
LOOKS = 1.0
"""Seconds between two looks whether an endpoint is there yet."""
AWAY = (0, 502, 503, 504)
"""Statuses of a proxy whose server is not there, and none at all. Whoever says another one is there, whatever it thinks of the question."""
FORGOTTEN = 60.0
"""Seconds without a request after which what a server said is no longer held against it."""

ROOTED = ("vllm", "ollama", "llamacpp")
"""Dialects of servers that listen under `/v1`, whatever stands before it."""


class Addresses(Protocol):
    """Where the fleet's own servers listen; they move when they restart."""

    async def root(self, server: str, seconds: float) -> str | Fault:
        """The address of a local server, once it is ready; waits for at most `seconds`."""

    def key(self, server: str) -> str:
        """The key that it wants there; empty where it wants none."""

    def lost(self, server: str, root: str) -> None:
        """Nobody listens at `root` any longer, or one with another key."""


@dataclass(slots=True)
class Line:
    """What is known of one server: how much it takes, and whether it answers."""

    gate: Gate
    breaker: Breaker
    failures: int = 0
    heard: bool = False
    """Whether anybody has answered there."""
    last: Fault | None = None
    """What the last of the `failures` was."""
    busy_until: float = 0.0
    """Until when others are asked first, because it said that it has too much to do, or restarts."""
    since: float | None = None
    """Since when nobody was answered, by one that is busy or cannot be reached."""
    told: bool = False
    """Whether whoever waits was told so."""
    fault: Fault | None = None
    """What the last request that failed by the server failed by, of whatever kind."""
    failed_at: float | None = None
    """When that was, and when it last answered: seconds since the epoch."""
    answered_at: float | None = None
    _pause: float = 0.0
    _last: float = 0.0

    @property
    def load(self) -> int:
        """Requests that are with it, or wait for it."""
        return self.gate.inside + self.gate.waiting

    def busy(self, now: float, asked: float) -> None:
        """It has too much to do, or restarts, for `asked` seconds as it says, or for a pause that doubles while it stays so."""
        if now >= self.busy_until:  # else it is what others were told in the same moment
            self._pause = min(max(FIRST_WAIT, 2 * self._pause), LONGEST_WAIT)
            self.busy_until = now + self._pause
        self.busy_until = max(self.busy_until, now + asked)

    def unwilling(self, now: float) -> None:
        """It is busy, or cannot be reached; since when, if it is not since long before anybody asked again."""
        if self.since is None or now - max(self._last, self.busy_until) > FORGOTTEN:
            self.since, self.told = now, False
        self._last = now

    def answered(self) -> None:
        """It did what was asked."""
        self.heard, self.failures, self.busy_until, self._pause = True, 0, 0.0, 0.0
        self.since, self.told = None, False


class Sent(msgspec.Struct, frozen=True):
    """How a request went: its answer or its fault, how often it was sent again, and how long all of it took."""

    result: Answer | Fault
    resends: int
    seconds: float


class Sender:
    """Holds a line to each server of a fleet."""

    def __init__(self, config: FleetConfig, wire: Wire, addresses: Addresses, clock: Clock, report: Report = silent) -> None:
        """`report` hears of a server that keeps requests waiting, once each time."""
        self.config, self._report = config, report
        self.lines = {name: Line(Gate(config.limits.in_flight, ordered(config.order)), Breaker()) for name in config.servers}
        self._wire, self._addresses, self._clock = wire, addresses, clock

    async def send(
        self,
        server: str,
        request: Request,
        *,
        seconds: float | None = None,
        fresh: Callable[[], Block] | None = None,
        once: bool = False,
    ) -> Sent:
        """Sends a request to a server of the fleet, within `seconds` in all; a fault is a value, and nothing is raised.

        `fresh` gives a new reader of the stream for every try; `once` is for a caller that has another server to ask: a server of ours
        that restarts is not waited for then. Data goes nowhere beyond the label that its server is cleared for.
        """
        began = self._clock.monotonic()
        target = self.config.servers.get(server)
        if target is None:
            return Sent(Fault.unseen("F201", f"the fleet has no server {server!r}"), 0, 0.0)
        if not may_go(request.label, target.label):
            return Sent(_forbidden(server, request.label, target.label), 0, 0.0)
        deadline = began + (self.config.limits.request_seconds if seconds is None else seconds)
        patience = 0.0 if once else self.config.patience
        result, resends = await self._once(server, target, request, deadline, fresh, patience), 0
        while not once and isinstance(result, Fault) and (pause := self.pause(server, result, resends)) is not None:
            if self._clock.monotonic() + pause >= deadline or result.code == "F216":  # waited for already, as long as may be
                break
            await self._clock.sleep(pause)
            result, resends = await self._once(server, target, request, deadline, fresh, patience), resends + 1
        return Sent(result, resends, self._clock.monotonic() - began)

    def key(self, server: str) -> str:
        """The key that an endpoint is sent, if it is one to hide where the server says it again; else empty, as of servers of ours."""
        target = self.config.servers[server]
        try:
            return sent_with(_signed(target)) if isinstance(target, Endpoint) else ""
        except FleetError:
            return ""

    async def appear(self, server: str, target: Endpoint, seconds: float) -> None:
        """Waits until an endpoint answers, whatever it says, or until `seconds` are over: then its requests say what is wrong."""
        root, request = target.endpoint.removesuffix("/v1"), _placed(target, Request("/v1/models"))
        began, told = self._clock.monotonic(), False
        while (left := began + seconds - self._clock.monotonic()) > 0:
            found = await self._wire.exchange(root, request, NO_HEADERS, min(left, 2 * self.config.limits.connect_seconds))
            if isinstance(found, Answer) or found.status not in AWAY or not (found.traits.absent or found.busy):
                return
            if not told and seconds - left >= SAID_AFTER:
                told = True
                self._report(Progress("wait", f"{server} at {target.endpoint} is not there yet: waiting for at most {seconds:g} s"))
            await self._clock.sleep(min(LOOKS, left))

    async def probe(self, server: str, target: Endpoint, seconds: float) -> Fault | None:
        """Asks an endpoint for its models, past its line and its breaker. What is wrong; None where it answers."""
        try:
            headers = _signed(target)
        except FleetError as error:
            return Fault.of(error)
        request = _placed(target, Request("/v1/models"))
        found = await self._wire.exchange(target.endpoint.removesuffix("/v1"), request, headers, seconds)
        if isinstance(found, Answer) or found.traits.there:
            return None
        return replace(found, reason=f"{server} at {found.reason}", hint="orchestra doctor") if found.code == "F203" else found

    def pause(self, server: str, fault: Fault, resends: int) -> float | None:
        """Seconds until the next try: doubling, shortened by chance; longer where the server asks for it, but never shorter.

        None where there is none: a model may have seen the request, it stays wrong, or there is no hope in time. Who has waited for some
        seconds is told.
        """
        if not _unseen(fault) or (isinstance(self.config.servers[server], Endpoint) and self._hopeless(server, fault, resends)):
            return None
        longest: float = min(FIRST_WAIT * 2 ** min(resends, 16), LONGEST_WAIT)
        pause = max(fault.retry_after or 0.0, longest * (0.5 + self._clock.random() / 2))
        if pause > self.config.limits.retry_after_seconds:
            return None
        line = self.lines[server]
        if line.since is not None and not line.told and self._clock.monotonic() + pause - line.since >= SAID_AFTER:
            line.told = True
            self._report(Progress("wait", f"{fault.reason if fault.code == 'F203' else f'{server}: {fault.reason}'}; trying again"))
        return pause

    def _hopeless(self, server: str, fault: Fault, resends: int) -> bool:
        """Whether a stranger's server has failed for so long that this request gives it up."""
        line = self.lines[server]
        if fault.busy:  # who answers others has more patience
            return line.since is not None and self._clock.monotonic() - line.since >= self.config.limits.busy_seconds
        if line.heard:
            return resends >= REFUSALS
        return resends >= REFUSALS_AT_FIRST or line.breaker.state == "open"

    async def _once(
        self,
        server: str,
        target: LocalServer | Endpoint,
        request: Request,
        deadline: float,
        fresh: Callable[[], Block] | None,
        patience: float,
    ) -> Answer | Fault:
        line = self.lines[server]
        if (pause := line.breaker.wait(self._clock.monotonic())) > 0:
            return _left_alone(server, line, pause, request.body or b"")
        trial = line.breaker.state == "half-open"
        try:
            result = await self._through(server, target, request, deadline, fresh, patience)
            if isinstance(target, LocalServer) and isinstance(result, Fault) and result.status == 401:
                # Another supervisor has come, with a server on the same port: its address is asked for again, and its key.
                result = await self._through(server, target, request, deadline, fresh, patience)
        except BaseException:  # cancelled, mostly; whatever it is, a probe is over
            line.breaker.nothing()
            raise
        self._learn(line, result, trial)
        return result

    async def _through(
        self,
        server: str,
        target: LocalServer | Endpoint,
        request: Request,
        deadline: float,
        fresh: Callable[[], Block] | None,
        patience: float,
    ) -> Answer | Fault:
        """One try: an address, a place in line, an exchange."""
        headers: Mapping[str, str] = NO_HEADERS
        asked = request
        if isinstance(target, LocalServer):
            root = await self._addresses.root(server, min(deadline - self._clock.monotonic(), patience))
            if isinstance(root, Fault):
                return root
            headers = signed(self._addresses.key(server))
        else:
            root, request = target.endpoint.removesuffix("/v1"), _placed(target, asked)
            try:
                headers = _signed(target)
            except FleetError as error:
                return Fault.of(error)
        gate = self.lines[server].gate
        if not gate.free(request.turn) and not await self._let_in(gate, request.turn, deadline):
            hint = "raise the node's `timeout`, or `limits: {in_flight: N}` of the fleet file"
            return Fault.unseen("F204", f"{server} had no room in time", hint, retryable=True, sent=request.body or b"")
        result: Answer | Fault | None = None
        try:
            left, read = deadline - self._clock.monotonic(), fresh() if fresh else None
            result = await self._wire.exchange(root, request, headers, left, read, ours=isinstance(target, LocalServer))
            if isinstance(result, Fault) and result.code == "F203":
                hint = "orchestra doctor" if isinstance(target, Endpoint) else result.hint
                result = replace(result, reason=f"{server} at {result.reason}", hint=hint)
        finally:
            gate.leave(request.turn, good=isinstance(result, Answer), busy=isinstance(result, Fault) and result.busy)
        if isinstance(result, Fault) and isinstance(target, LocalServer) and (result.lost or result.status == 401):
            self._addresses.lost(server, root)
            return replace(result, hint="orchestra fleet stop, then try again") if result.status == 401 else result
        if isinstance(result, Fault) and result.code == "F212" and isinstance(target, Endpoint) and request is not asked:
            return replace(result, hint=f"{result.hint}, or write {target.endpoint}/v1 under `endpoint:`, if that is its path")
        return result

    async def _let_in(self, gate: Gate, turn: Turn, deadline: float) -> bool:
        """Waits at a gate, and says whether it opened in time."""
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic()):
                await gate.enter(turn)
        except TimeoutError:
            return False
        return True

    def _learn(self, line: Line, result: Answer | Fault, trial: bool) -> None:
        if isinstance(result, Answer):
            line.answered_at = self._clock.now()
        elif not result.traits.of_the_call and not result.hurried:
            line.fault, line.failed_at = result, self._clock.now()
        line.heard |= isinstance(result, Fault) and (result.seen or result.busy)
        if isinstance(result, Fault) and (result.busy or result.code == "F203"):
            line.unwilling(self._clock.monotonic())
        if isinstance(result, Answer):
            line.answered()
            line.breaker.good()
        elif result.traits.trips and not result.hurried:
            line.failures, line.last = line.failures + 1, result
            line.breaker.bad(self._clock.monotonic(), trial=trial)
        else:
            line.breaker.nothing()
            if result.busy or _starting(result):
                line.busy(self._clock.monotonic(), min(result.retry_after or 0.0, self.config.limits.retry_after_seconds))


def _signed(target: Endpoint) -> Mapping[str, str]:
    """The headers with an endpoint's key. Raises `FleetError` F105."""
    return signed(secret(target.api_key)) if target.api_key else NO_HEADERS


def _placed(target: Endpoint, request: Request) -> Request:
    """A request as it is sent to an endpoint: one whose address has a path of its own, such as `/api/v3`, has no `/v1` beside it.

    Servers whose paths are known have `/v1` under any path, which is a proxy's.
    """
    endpoint = target.endpoint
    if target.dialect in ROOTED or endpoint.endswith("/v1") or not request.path.startswith("/v1/") or not urlsplit(endpoint).path:
        return request
    return msgspec.structs.replace(request, path=request.path.removeprefix("/v1"))


def _forbidden(server: str, label: str, ceiling: str) -> Fault:
    reason = f"data labelled {label!r} must not go to {server!r}, which is cleared for {ceiling!r}"
    hint = f"use a server that is cleared for {label!r}, or change the `label:` of {server} in the fleet file"
    return Fault.unseen("F202", reason, hint)


def _left_alone(server: str, line: Line, pause: float, sent: bytes) -> Fault:
    """Why a server is not asked for a pause. Of one where nobody has ever answered there is no more to say than why not."""
    if line.last is not None and line.last.code == "F203" and not line.heard:
        return replace(line.last, retry_after=pause, sent=sent, received=b"")
    why = f"; the last time: {line.last.reason}" if line.last is not None else ""
    reason = f"{server} failed {line.failures} times in a row and is left alone for {pause:.0f} s{why}"
    return Fault("F218", reason, "orchestra fleet status", seen=False, retry_after=pause, sent=sent)


def _unseen(fault: Fault) -> bool:
    return not fault.seen and fault.retryable and (fault.traits.resent or _starting(fault))


def _starting(fault: Fault) -> bool:
    """Whether a server of ours is down, and about to be up again."""
    return fault.code == "F216" and fault.retry_after is not None


def failed(sent: Sent) -> Fault | None:
    """The fault of a request that went wrong, with the number of resends in its reason."""
    return None if isinstance(sent.result, Answer) else again(sent, sent.result)


def again(sent: Sent, fault: Fault) -> Fault:
    """The fault, with the number of resends in its reason."""
    return replace(fault, reason=f"{fault.reason}, sent {sent.resends + 1} times") if sent.resends else fault
