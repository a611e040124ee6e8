"""The only function that sends requests. It enforces the labels of data. It resends a request only if no model has
received it.

Labels, addresses and keys come from the fleet's configuration, never from a request. Every other retry is a new
attempt, which the engine proposes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from orchestra.core.errors import FleetError
from orchestra.core.event_logging import CALL_TRACE
from orchestra.core.labels import is_allowed
from orchestra.core.protocols import Clock
from orchestra.fleet.concurrency import (
    AdaptiveLimit,
    CircuitBreaker,
    ConcurrencyGate,
    ConcurrencyLimit,
    Permit,
    RequestOutcome,
)
from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
from orchestra.fleet.http.client import HttpClient, HttpRequest, HttpResponse
from orchestra.fleet.http.connection import BodyCallback
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.scheduling import QueueRequest, make_scheduler
from orchestra.fleet.secrets import auth_headers, key_in_headers, read_secret

INITIAL_BACKOFF, MAX_BACKOFF = 0.25, 8.0
"""Seconds between resends, doubling. Each is shortened by a random factor, so that clients do not synchronize."""
NO_HEADERS: Mapping[str, str] = {}
REJECTION_THRESHOLD = 3
"""Rejections (429, 503) in a row after which requests to a server pause."""
MAX_RESENDS = 6
"""Resends to an unreachable endpoint: about twelve seconds. A local server is restarted by its supervisor, and
`patience` bounds the wait.
"""
MAX_FIRST_RESENDS = 3
"""Resends to an endpoint that has not answered this process yet: about 1.5 seconds. Usually it is not started, or the
address is wrong.
"""
NOTIFY_AFTER = 5.0
"""Seconds without success after which a progress message is sent."""
PROBE_INTERVAL = 1.0
"""Seconds between two probes of an endpoint that starts."""
AWAY_STATUSES = (0, 502, 503, 504)
"""Statuses of a proxy whose server is down, and no status. A server that answers another status is up."""
FORGET_AFTER = 60.0
"""Seconds without a request after which a server's failures are forgotten."""

UNREACHABLE_ENDPOINT_HINT = (
    "start the server, or correct its address; orchestra doctor lists the servers of this machine"
)

V1_DIALECTS = ("vllm", "ollama", "llamacpp")
"""Dialects of servers that listen under `/v1`, after any path."""


class Addresses(Protocol):
    """The addresses of local servers. They change with a restart."""

    async def url(self, server: str, seconds: float) -> str | RequestError:
        """Returns the address of a local server when it is ready. Waits at most `seconds`."""

    def key(self, server: str) -> str:
        """Returns the key of the server at an address; empty if it needs none."""

    def forget(self, server: str, url: str) -> None:
        """Forgets an address: the connection was refused, or the server there has another key."""


class Deadline:
    """The deadline of a request. The time in the queue does not count, unless the deadline is `total`."""

    def __init__(self, clock: Clock, seconds: float, *, total: bool = False) -> None:
        """Starts a deadline in `seconds`."""
        self._clock, self._end, self._total = clock, clock.monotonic() + seconds, total

    @property
    def remaining(self) -> float:
        """Seconds that are left; negative after the deadline."""
        return self._end - self._clock.monotonic()

    @property
    def queue_timeout(self) -> float | None:
        """Seconds that the request may wait in the queue; None if unlimited."""
        return self.remaining if self._total else None

    def extend(self, seconds: float) -> None:
        """Extends the deadline by the time in the queue."""
        if not self._total:
            self._end += seconds


@dataclass(slots=True)
class ServerState:
    """The state of one server: its concurrency, and whether it answers."""

    gate: ConcurrencyGate
    breaker: CircuitBreaker
    failures: int = 0
    has_answered: bool = False
    """Whether the server has answered this process."""
    breaker_error: RequestError | None = None
    """The error of the latest of the `failures`."""
    busy_until: float = 0.0
    """Until this time other servers are preferred, because this one was overloaded several times in a row, or restarts.
    """
    rejections: int = 0
    """Rejections in a row."""
    unavailable_since: float | None = None
    """Start of the current series of requests without an answer, because the server is busy or unreachable."""
    notified: bool = False
    """Whether a progress message about it was sent."""
    last_error: RequestError | None = None
    """The error of the latest request that failed because of the server."""
    failed_at: float | None = None
    """The time of that error, and the time of the latest answer, in seconds since the epoch."""
    answered_at: float | None = None
    _backoff: float = 0.0
    _last_unavailable: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    @property
    def load(self) -> int:
        """Requests in flight and in the queue."""
        return self.gate.in_flight + self.gate.waiting

    def mark_busy(self, now: float, asked: float) -> None:
        """Marks the server as overloaded or restarting, for `asked` seconds if it states them, else for a pause that
        doubles while it lasts.
        """
        if now >= self.busy_until:  # else other requests got the same answer at the same time
            self._backoff = min(max(INITIAL_BACKOFF, 2 * self._backoff), MAX_BACKOFF)
            self.busy_until = now + self._backoff
        self.busy_until = max(self.busy_until, now + asked)

    def pause(self, now: float, asked: float) -> None:
        """Pauses requests while the server is busy, or until it answers: a request in flight may succeed."""
        self.mark_busy(now, asked)
        self.gate.pause()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.busy_until - now, self.gate.resume)

    def mark_unavailable(self, now: float) -> None:
        """Marks the server as busy or unreachable. An earlier start counts, unless no request was sent for long."""
        if self.unavailable_since is None or now - max(self._last_unavailable, self.busy_until) > FORGET_AFTER:
            self.unavailable_since, self.notified = now, False
        self._last_unavailable = now

    def mark_answered(self) -> None:
        """Marks the server as answering."""
        self.has_answered, self.failures, self.busy_until, self._backoff = True, 0, 0.0, 0.0
        self.unavailable_since, self.notified, self.rejections = None, False, 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.gate.resume()


class SendResult(msgspec.Struct, frozen=True):
    """The result of a request: its response or error, the number of resends, and the duration."""

    result: HttpResponse | RequestError
    resends: int
    seconds: float


class Sender:
    """Sends requests to the servers of a fleet."""

    def __init__(
        self,
        config: FleetConfig,
        client: HttpClient,
        addresses: Addresses,
        clock: Clock,
        progress: ProgressCallback = ignore_progress,
        concurrency: Callable[[int], ConcurrencyLimit] = AdaptiveLimit,
    ) -> None:
        """Creates a sender.

        Args:
            config: The configuration of the fleet.
            client: The HTTP client.
            addresses: The addresses of local servers.
            clock: The clock.
            progress: Called once each time that a server delays requests.
            concurrency: Creates the concurrency limit of a server.
        """
        self.config, self._progress = config, progress
        self.targets: dict[str, LocalServer | Endpoint] = dict(config.servers)
        """The servers by name. An endpoint with `auto` is replaced by what it really is when that is known."""
        max_requests = config.limits.in_flight
        self.states = {
            name: ServerState(
                ConcurrencyGate(concurrency(max_requests), make_scheduler(config.order)), CircuitBreaker()
            )
            for name in config.servers
        }
        self._client, self._addresses, self._clock = client, addresses, clock

    async def send(
        self,
        server: str,
        request: HttpRequest,
        *,
        seconds: float | Deadline | None = None,
        new_reader: Callable[[], BodyCallback] | None = None,
        once: bool = False,
    ) -> SendResult:
        """Sends a request to a server of the fleet. Errors are returned, not raised.

        Data is not sent to a server whose label is lower than that of the request.

        Args:
            server: The name of the server.
            request: The request.
            seconds: The timeout in all, or a deadline. The default is `limits.request_seconds` without the time in the
            queue.
            new_reader: Creates a reader of the stream for each try.
            once: Whether to give up after one try, because the caller can use another server. A restart is not awaited
            then.
        """
        start_time = self._clock.monotonic()
        target = self.targets.get(server)
        if target is None:
            return SendResult(RequestError.not_reached("F201", f"the fleet has no server {server!r}"), 0, 0.0)
        if not is_allowed(request.label, target.label):
            return SendResult(_forbidden_error(server, request.label, target.label), 0, 0.0)
        deadline = self._deadline(seconds)
        patience = 0.0 if once else self.config.patience
        result, resends = await self._try_send(server, target, request, deadline, new_reader, patience), 0
        while (
            not once
            and isinstance(result, RequestError)
            and (pause := self.resend_delay(server, result, resends)) is not None
        ):
            if pause >= deadline.remaining or result.code == "F216":  # the wait for the server has used all its time
                break
            await self._clock.sleep(pause)
            result, resends = await self._try_send(server, target, request, deadline, new_reader, patience), resends + 1
        return SendResult(result, resends, self._clock.monotonic() - start_time)

    def _deadline(self, seconds: float | Deadline | None) -> Deadline:
        if isinstance(seconds, Deadline):
            return seconds
        if seconds is None:
            return Deadline(self._clock, self.config.limits.request_seconds)
        return Deadline(self._clock, seconds, total=True)

    def key(self, server: str) -> str:
        """Returns the key of an endpoint to redact; empty for a local server or a word instead of a key."""
        target = self.targets[server]
        try:
            return key_in_headers(_endpoint_headers(target)) if isinstance(target, Endpoint) else ""
        except FleetError:
            return ""

    async def wait_for_endpoint(self, server: str, target: Endpoint, seconds: float) -> None:
        """Waits until an endpoint answers with any status, or until `seconds` have passed. Later requests report what
        is wrong.
        """
        root, request = target.endpoint.removesuffix("/v1"), _endpoint_request(target, HttpRequest("/v1/models"))
        start_time, is_notified = self._clock.monotonic(), False
        while (remaining_time := start_time + seconds - self._clock.monotonic()) > 0:
            answer = await self._client.exchange(
                root, request, NO_HEADERS, min(remaining_time, 2 * self.config.limits.connect_seconds)
            )
            if (
                isinstance(answer, HttpResponse)
                or answer.status not in AWAY_STATUSES
                or not (answer.policy.may_be_starting or answer.busy)
            ):
                return
            if not is_notified and seconds - remaining_time >= NOTIFY_AFTER:
                is_notified = True
                self._progress(
                    Progress(
                        "wait", f"{server} at {target.endpoint} does not answer yet: waiting for at most {seconds:g} s"
                    )
                )
            await self._clock.sleep(min(PROBE_INTERVAL, remaining_time))

    async def probe(self, server: str, target: Endpoint, seconds: float) -> RequestError | None:
        """Lists the models of an endpoint, without queue and breaker. Returns the error, or None."""
        try:
            headers = _endpoint_headers(target)
        except FleetError as error:
            return RequestError.from_error(error)
        request = _endpoint_request(target, HttpRequest("/v1/models"))
        answer = await self._client.exchange(target.endpoint.removesuffix("/v1"), request, headers, seconds)
        if isinstance(answer, HttpResponse) or answer.policy.proves_reachable:
            return None
        return (
            replace(answer, reason=f"{server} at {answer.reason}", hint=UNREACHABLE_ENDPOINT_HINT)
            if answer.code == "F203"
            else answer
        )

    def resend_delay(self, server: str, fault: RequestError, resends: int) -> float | None:
        """Returns the seconds until the next try; None if there is none.

        The delay doubles and is shortened by a random factor. It is at least what the server asks for, or the rest of
        its pause. There is no next try if a model may have received the request, the error is permanent, or the
        deadline is too close. A long wait is reported as progress.
        """
        if not _is_resendable(fault) or (
            isinstance(self.targets[server], Endpoint) and self._should_give_up(server, fault, resends)
        ):
            return None
        longest: float = min(INITIAL_BACKOFF * 2 ** min(resends, 16), MAX_BACKOFF)
        pause = max(fault.retry_after or 0.0, longest * (0.5 + self._clock.random() / 2))
        if pause > self.config.limits.retry_after_seconds:
            return None
        server_state = self.states[server]
        if (
            server_state.unavailable_since is not None
            and not server_state.notified
            and self._clock.monotonic() + pause - server_state.unavailable_since >= NOTIFY_AFTER
        ):
            server_state.notified = True
            self._progress(
                Progress(
                    "wait", f"{fault.reason if fault.code == 'F203' else f'{server}: {fault.reason}'}; trying again"
                )
            )
        return max(pause, server_state.busy_until - self._clock.monotonic()) if server_state.gate.paused else pause

    def _should_give_up(self, server: str, fault: RequestError, resends: int) -> bool:
        """Whether an endpoint has failed for so long that this request fails."""
        server_state = self.states[server]
        if fault.busy:  # a server that answers other requests gets more time
            return (
                server_state.unavailable_since is not None
                and self._clock.monotonic() - server_state.unavailable_since >= self.config.limits.busy_seconds
            )
        if server_state.has_answered:
            return resends >= MAX_RESENDS
        return resends >= MAX_FIRST_RESENDS or server_state.breaker.state == "open"

    async def _try_send(
        self,
        server: str,
        target: LocalServer | Endpoint,
        request: HttpRequest,
        deadline: Deadline,
        new_reader: Callable[[], BodyCallback] | None,
        patience: float,
    ) -> HttpResponse | RequestError:
        server_state = self.states[server]
        if (pause := server_state.breaker.remaining_pause(self._clock.monotonic())) > 0:
            return _breaker_open_error(server, server_state, pause, request.body or b"")
        result = await self._exchange(server, target, request, deadline, new_reader, patience)
        if isinstance(target, LocalServer) and isinstance(result, RequestError) and result.status == 401:
            # A new supervisor may have started a server on the same port. So the address and the key are requested
            # again.
            result = await self._exchange(server, target, request, deadline, new_reader, patience)
        return result

    async def _exchange(
        self,
        server: str,
        target: LocalServer | Endpoint,
        request: HttpRequest,
        deadline: Deadline,
        new_reader: Callable[[], BodyCallback] | None,
        patience: float,
    ) -> HttpResponse | RequestError:
        """One try: an address, a place in the queue, an exchange."""
        server_state, headers = self.states[server], NO_HEADERS
        http_request = request
        if isinstance(target, LocalServer):
            root = await self._addresses.url(server, min(deadline.remaining, patience))
            if isinstance(root, RequestError):
                return self._record_result(server_state, root)
            headers = auth_headers(self._addresses.key(server))
        else:
            root, request = target.endpoint.removesuffix("/v1"), _endpoint_request(target, http_request)
            try:
                headers = _endpoint_headers(target)
            except FleetError as error:
                return self._record_result(server_state, RequestError.from_error(error))
        if trace := CALL_TRACE.get():
            headers = {**headers, "traceparent": trace}
        permit = await self._acquire_permit(server_state, request.queue_request, deadline)
        if permit is None:
            hint = "raise the node's `timeout`, or `limits: {in_flight: N}` of the fleet file"
            fault = RequestError.not_reached(
                "F204", f"{server} had no capacity before the timeout", hint, retryable=True, sent=request.body or b""
            )
            return self._record_result(server_state, fault)
        result: HttpResponse | RequestError | None = None
        trial = False
        try:
            # The breaker may have opened while this request waited.
            if (pause := server_state.breaker.acquire(self._clock.monotonic())) > 0:
                return _breaker_open_error(server, server_state, pause, request.body or b"")
            trial = server_state.breaker.state == "half-open"
            read_chunk = new_reader() if new_reader else None
            result = await self._client.exchange(
                root, request, headers, deadline.remaining, read_chunk, own_server=isinstance(target, LocalServer)
            )
        finally:
            if trial and result is None:  # cancelled, in most cases; the trial has ended in any case
                server_state.breaker.record_ignored()
            server_state.gate.leave(permit, _request_outcome(result))
        if isinstance(result, RequestError):
            result = self._explain(server, server_state, target, result, placed=request is not http_request)
            if isinstance(target, LocalServer) and (result.unreachable or result.status == 401):
                self._addresses.forget(server, root)
        return self._record_result(server_state, result, trial)

    def _explain(
        self,
        server: str,
        server_state: ServerState,
        target: LocalServer | Endpoint,
        fault: RequestError,
        *,
        placed: bool,
    ) -> RequestError:
        """Returns the error of an exchange with what is known of the server. `placed`: the request used the endpoint's
        own path.
        """
        if fault.code == "F203":
            hint = UNREACHABLE_ENDPOINT_HINT if isinstance(target, Endpoint) else fault.hint
            return replace(fault, reason=f"{server} at {fault.reason}", hint=hint)
        if isinstance(target, LocalServer):
            return replace(fault, hint="orchestra fleet stop, then try again") if fault.status == 401 else fault
        if fault.code == "F212" and placed:
            return replace(
                fault, hint=f"{fault.hint}, or write {target.endpoint}/v1 under `endpoint:`, if that is its path"
            )
        if fault.code == "F213" and server_state.answered_at is not None:
            return replace(fault, retryable=True)  # the address is right, so another attempt may be answered
        return fault

    async def _acquire_permit(
        self, server_state: ServerState, queue_request: QueueRequest, deadline: Deadline
    ) -> Permit | None:
        """Waits for a permit of a server; None if there is none before the deadline."""
        gate, start_time = server_state.gate, self._clock.monotonic()
        if start_time >= server_state.busy_until:
            gate.resume()
        if (permit := gate.try_enter(queue_request)) is not None:
            return permit
        try:
            async with asyncio.timeout(deadline.queue_timeout):
                permit = await gate.enter(queue_request)
        except TimeoutError:
            return None
        deadline.extend(self._clock.monotonic() - start_time)
        return permit

    def _record_result(
        self, server_state: ServerState, result: HttpResponse | RequestError, trial: bool = False
    ) -> HttpResponse | RequestError:
        """Returns the result after it was recorded for the server. `trial`: the breaker let this request through."""
        now = self._clock.monotonic()
        if isinstance(result, HttpResponse):
            server_state.answered_at = self._clock.now()
            server_state.mark_answered()
            server_state.breaker.record_success()
            return result
        if not result.policy.caused_by_call and not result.timed_out:
            server_state.last_error, server_state.failed_at = result, self._clock.now()
        server_state.has_answered |= result.reached_model or result.busy
        if result.busy or result.code == "F203":
            server_state.mark_unavailable(now)
        if result.policy.trips_breaker and not result.timed_out:
            server_state.failures, server_state.breaker_error = server_state.failures + 1, result
            server_state.breaker.record_failure(now, trial=trial)
        elif trial:
            server_state.breaker.record_ignored()
        if result.busy:
            self._record_rejection(server_state, result, now)
        elif _is_starting(result):
            server_state.mark_busy(now, min(result.retry_after or 0.0, self.config.limits.retry_after_seconds))
        return result

    def _record_rejection(self, server_state: ServerState, fault: RequestError, now: float) -> None:
        """Records a rejection. A single one is about the request. Several in a row are about the server, and finally
        fail its requests.
        """
        server_state.rejections += 1
        given_up = (
            server_state.unavailable_since is not None
            and now - server_state.unavailable_since >= self.config.limits.busy_seconds
        )
        if server_state.rejections >= REJECTION_THRESHOLD and not given_up:
            server_state.pause(now, min(fault.retry_after or 0.0, self.config.limits.retry_after_seconds))


def _request_outcome(result: HttpResponse | RequestError | None) -> RequestOutcome:
    """Returns the evidence of load in the end of a request."""
    if isinstance(result, HttpResponse):
        return "success"
    return "rejected" if result is not None and result.busy else "ignored"


def _endpoint_headers(target: Endpoint) -> Mapping[str, str]:
    """Returns the headers with an endpoint's key. Raises `FleetError` F105."""
    return auth_headers(read_secret(target.api_key)) if target.api_key else NO_HEADERS


def _endpoint_request(target: Endpoint, request: HttpRequest) -> HttpRequest:
    """Returns the request as it is sent to an endpoint. An address with a path such as `/api/v3` gets no `/v1`.

    Servers with known paths have `/v1` after any path, which is a proxy's.
    """
    endpoint = target.endpoint
    if (
        target.dialect in V1_DIALECTS
        or endpoint.endswith("/v1")
        or not request.path.startswith("/v1/")
        or not urlsplit(endpoint).path
    ):
        return request
    return msgspec.structs.replace(request, path=request.path.removeprefix("/v1"))


def _forbidden_error(server: str, label: str, ceiling: str) -> RequestError:
    reason = f"data labelled {label!r} must not go to {server!r}, which is cleared for {ceiling!r}"
    hint = f"use a server that is cleared for {label!r}, or change the `label:` of {server} in the fleet file"
    return RequestError.not_reached("F202", reason, hint)


def _breaker_open_error(server: str, server_state: ServerState, pause: float, request_body: bytes) -> RequestError:
    """Returns the error during a pause. If the server has never answered, it is the original error."""
    if (
        server_state.breaker_error is not None
        and server_state.breaker_error.code == "F203"
        and not server_state.has_answered
    ):
        return replace(server_state.breaker_error, retry_after=pause, sent=request_body, received=b"")
    reason_suffix = (
        f"; the last error: {server_state.breaker_error.reason}" if server_state.breaker_error is not None else ""
    )
    reason = f"{server} failed {server_state.failures} times in a row; no requests for {pause:.0f} s{reason_suffix}"
    return RequestError(
        "F218", reason, "orchestra fleet status", reached_model=False, retry_after=pause, sent=request_body
    )


def _is_resendable(fault: RequestError) -> bool:
    return not fault.reached_model and fault.retryable and (fault.policy.resendable or _is_starting(fault))


def _is_starting(fault: RequestError) -> bool:
    """Whether a local server is down and expected to be up again."""
    return fault.code == "F216" and fault.retry_after is not None


def send_error(sent: SendResult) -> RequestError | None:
    """Returns the error of a failed request, with the number of resends in its reason."""
    return None if isinstance(sent.result, HttpResponse) else with_resends(sent, sent.result)


def with_resends(sent: SendResult, fault: RequestError) -> RequestError:
    """Returns the error with the number of resends in its reason."""
    return replace(fault, reason=f"{fault.reason}, sent {sent.resends + 1} times") if sent.resends else fault
