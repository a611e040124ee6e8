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

from orchestra.core.errors import FleetError
from orchestra.core.labels import may_go
from orchestra.core.protocols import Clock
from orchestra.fleet.concurrency import Breaker, Gate, Permit
from orchestra.fleet.concurrency_limit import AdaptiveLimit, ConcurrencyLimit, Outcome
from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
from orchestra.fleet.http.client import Answer, Request, Wire
from orchestra.fleet.http.connection import Block
from orchestra.fleet.progress import Progress, Report, silent
from orchestra.fleet.request_errors import Fault
from orchestra.fleet.scheduling import Turn, ordered
from orchestra.fleet.secrets import secret, sent_with, signed

FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
"""Seconds between resends, doubling; each is shortened by chance, so that senders do not march in step."""
NO_HEADERS: Mapping[str, str] = {}
SEVERAL = 3
"""Rejections (429, 503) in a row after which nothing else is sent to a server for a while."""
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


class Deadline:
    """When the time of a request is over. The wait for a place at the server does not count, unless the time is `total`."""

    def __init__(self, clock: Clock, seconds: float, *, total: bool = False) -> None:
        """`seconds` from now."""
        self._clock, self._end, self._total = clock, clock.monotonic() + seconds, total

    @property
    def left(self) -> float:
        """Seconds that are left; negative when it is over."""
        return self._end - self._clock.monotonic()

    @property
    def queue(self) -> float | None:
        """Seconds that the request may wait for a place; None where there is no bound."""
        return self.left if self._total else None

    def queued(self, seconds: float) -> None:
        """The request has waited for a place."""
        if not self._total:
            self._end += seconds


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
    """Until when others are asked first, because it said several times in a row that it has too much to do, or restarts."""
    rejections: int = 0
    """Rejections in a row."""
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
    _timer: asyncio.TimerHandle | None = None

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

    def hold(self, now: float, asked: float) -> None:
        """Nothing is sent to it while it is busy, or until it answers: a request that is in flight may show that it is not."""
        self.busy(now, asked)
        self.gate.hold()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.busy_until - now, self.gate.release)

    def unwilling(self, now: float) -> None:
        """It is busy, or cannot be reached; since when, if it is not since long before anybody asked again."""
        if self.since is None or now - max(self._last, self.busy_until) > FORGOTTEN:
            self.since, self.told = now, False
        self._last = now

    def answered(self) -> None:
        """It did what was asked."""
        self.heard, self.failures, self.busy_until, self._pause = True, 0, 0.0, 0.0
        self.since, self.told, self.rejections = None, False, 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.gate.release()


class Sent(msgspec.Struct, frozen=True):
    """How a request went: its answer or its fault, how often it was sent again, and how long all of it took."""

    result: Answer | Fault
    resends: int
    seconds: float


class Sender:
    """Holds a line to each server of a fleet."""

    def __init__(
        self,
        config: FleetConfig,
        wire: Wire,
        addresses: Addresses,
        clock: Clock,
        report: Report = silent,
        concurrency: Callable[[int], ConcurrencyLimit] = AdaptiveLimit,
    ) -> None:
        """`report` hears of a server that keeps requests waiting, once each time. `concurrency` makes the limit of each server."""
        self.config, self._report = config, report
        most = config.limits.in_flight
        self.lines = {name: Line(Gate(concurrency(most), ordered(config.order)), Breaker()) for name in config.servers}
        self._wire, self._addresses, self._clock = wire, addresses, clock

    async def send(
        self,
        server: str,
        request: Request,
        *,
        seconds: float | Deadline | None = None,
        fresh: Callable[[], Block] | None = None,
        once: bool = False,
    ) -> Sent:
        """Sends a request to a server of the fleet, within `seconds` in all, or by a deadline; without either within
        `limits.request_seconds`, without its wait for a place. A fault is a value, and nothing is raised.

        `fresh` gives a new reader of the stream for every try; `once` is for a caller that has another server to ask: a server of ours
        that restarts is not waited for then. Data goes nowhere beyond the label that its server is cleared for.
        """
        began = self._clock.monotonic()
        target = self.config.servers.get(server)
        if target is None:
            return Sent(Fault.unseen("F201", f"the fleet has no server {server!r}"), 0, 0.0)
        if not may_go(request.label, target.label):
            return Sent(_forbidden(server, request.label, target.label), 0, 0.0)
        deadline = self._deadline(seconds)
        patience = 0.0 if once else self.config.patience
        result, resends = await self._once(server, target, request, deadline, fresh, patience), 0
        while not once and isinstance(result, Fault) and (pause := self.pause(server, result, resends)) is not None:
            if pause >= deadline.left or result.code == "F216":  # waited for already, as long as may be
                break
            await self._clock.sleep(pause)
            result, resends = await self._once(server, target, request, deadline, fresh, patience), resends + 1
        return Sent(result, resends, self._clock.monotonic() - began)

    def _deadline(self, seconds: float | Deadline | None) -> Deadline:
        if isinstance(seconds, Deadline):
            return seconds
        if seconds is None:
            return Deadline(self._clock, self.config.limits.request_seconds)
        return Deadline(self._clock, seconds, total=True)

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
        """Seconds until the next try: doubling, shortened by chance; longer where the server asks for it, or while it is held, but never
        shorter.

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
        return max(pause, line.busy_until - self._clock.monotonic()) if line.gate.held else pause

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
        deadline: Deadline,
        fresh: Callable[[], Block] | None,
        patience: float,
    ) -> Answer | Fault:
        line = self.lines[server]
        if (pause := line.breaker.pause(self._clock.monotonic())) > 0:
            return _left_alone(server, line, pause, request.body or b"")
        result = await self._through(server, target, request, deadline, fresh, patience)
        if isinstance(target, LocalServer) and isinstance(result, Fault) and result.status == 401:
            # Another supervisor has come, with a server on the same port: its address is asked for again, and its key.
            result = await self._through(server, target, request, deadline, fresh, patience)
        return result

    async def _through(
        self,
        server: str,
        target: LocalServer | Endpoint,
        request: Request,
        deadline: Deadline,
        fresh: Callable[[], Block] | None,
        patience: float,
    ) -> Answer | Fault:
        """One try: an address, a place in line, an exchange."""
        line, headers = self.lines[server], NO_HEADERS
        asked = request
        if isinstance(target, LocalServer):
            root = await self._addresses.root(server, min(deadline.left, patience))
            if isinstance(root, Fault):
                return self._learnt(line, root)
            headers = signed(self._addresses.key(server))
        else:
            root, request = target.endpoint.removesuffix("/v1"), _placed(target, asked)
            try:
                headers = _signed(target)
            except FleetError as error:
                return self._learnt(line, Fault.of(error))
        permit = await self._admitted(line, request.turn, deadline)
        if permit is None:
            hint = "raise the node's `timeout`, or `limits: {in_flight: N}` of the fleet file"
            fault = Fault.unseen("F204", f"{server} had no room in time", hint, retryable=True, sent=request.body or b"")
            return self._learnt(line, fault)
        result: Answer | Fault | None = None
        trial = False
        try:
            if (pause := line.breaker.wait(self._clock.monotonic())) > 0:  # it has failed while this one waited
                return _left_alone(server, line, pause, request.body or b"")
            trial = line.breaker.state == "half-open"
            read = fresh() if fresh else None
            result = await self._wire.exchange(root, request, headers, deadline.left, read, ours=isinstance(target, LocalServer))
        finally:
            if trial and result is None:  # cancelled, mostly; whatever it is, a probe is over
                line.breaker.nothing()
            line.gate.leave(permit, _outcome(result))
        if isinstance(result, Fault):
            result = self._explained(server, line, target, result, placed=request is not asked)
            if isinstance(target, LocalServer) and (result.lost or result.status == 401):
                self._addresses.lost(server, root)
        return self._learnt(line, result, trial)

    def _explained(self, server: str, line: Line, target: LocalServer | Endpoint, fault: Fault, *, placed: bool) -> Fault:
        """A fault of an exchange, with what is known of the server. `placed`: the request went to a path of the endpoint's own."""
        if fault.code == "F203":
            hint = "orchestra doctor" if isinstance(target, Endpoint) else fault.hint
            return replace(fault, reason=f"{server} at {fault.reason}", hint=hint)
        if isinstance(target, LocalServer):
            return replace(fault, hint="orchestra fleet stop, then try again") if fault.status == 401 else fault
        if fault.code == "F212" and placed:
            return replace(fault, hint=f"{fault.hint}, or write {target.endpoint}/v1 under `endpoint:`, if that is its path")
        if fault.code == "F213" and line.answered_at is not None:
            return replace(fault, retryable=True)  # the address is right, so another attempt may be answered
        return fault

    async def _admitted(self, line: Line, turn: Turn, deadline: Deadline) -> Permit | None:
        """A place at a server; None where there is none in time."""
        gate, began = line.gate, self._clock.monotonic()
        if began >= line.busy_until:
            gate.release()
        if (permit := gate.free(turn)) is not None:
            return permit
        try:
            async with asyncio.timeout(deadline.queue):
                permit = await gate.enter(turn)
        except TimeoutError:
            return None
        deadline.queued(self._clock.monotonic() - began)
        return permit

    def _learnt(self, line: Line, result: Answer | Fault, trial: bool = False) -> Answer | Fault:
        """The result, after what it says of the server is kept. `trial`: it is the one that a breaker let through."""
        now = self._clock.monotonic()
        if isinstance(result, Answer):
            line.answered_at = self._clock.now()
            line.answered()
            line.breaker.good()
            return result
        if not result.traits.of_the_call and not result.hurried:
            line.fault, line.failed_at = result, self._clock.now()
        line.heard |= result.seen or result.busy
        if result.busy or result.code == "F203":
            line.unwilling(now)
        if result.traits.trips and not result.hurried:
            line.failures, line.last = line.failures + 1, result
            line.breaker.bad(now, trial=trial)
        elif trial:
            line.breaker.nothing()
        if result.busy:
            self._rejected(line, result, now)
        elif _starting(result):
            line.busy(now, min(result.retry_after or 0.0, self.config.limits.retry_after_seconds))
        return result

    def _rejected(self, line: Line, fault: Fault, now: float) -> None:
        """One rejection is about one request. Several in a row are about the server, until they are so many that requests give it up."""
        line.rejections += 1
        given_up = line.since is not None and now - line.since >= self.config.limits.busy_seconds
        if line.rejections >= SEVERAL and not given_up:
            line.hold(now, min(fault.retry_after or 0.0, self.config.limits.retry_after_seconds))


def _outcome(result: Answer | Fault | None) -> Outcome:
    """What the end of a request says about load."""
    if isinstance(result, Answer):
        return "success"
    return "rejected" if result is not None and result.busy else "ignored"


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
