"""Webhooks: signed messages to other services when runs end or wait, as https://www.standardwebhooks.com describes.

A message is a record before it is sent, and is sent until the receiver accepts it, or the attempts are used up. It goes
to public addresses only: the address of the name is checked, and the connection is made to the checked address.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from contextlib import aclosing
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from orchestra.app.run import Run
from orchestra.core.errors import OrchestraError
from orchestra.core.events import QuestionAsked, RunFinished
from orchestra.core.tags import Tags
from orchestra.server.collections import Collection, SharedRead, Stored
from orchestra.server.endpoints import JSON_TYPE, Call, NoBody, Page, PageQuery, RouteTable
from orchestra.server.principals import TENANT_TAG
from orchestra.server.problems import RequestError, not_found
from orchestra.server.push_records import find_push_config, push_headers
from orchestra.server.services import Services
from orchestra.server.streams import run_events

ROUTES = RouteTable()
Topic: TypeAlias = Literal["run.finished", "run.waiting"]
DeliveryStatus: TypeAlias = Literal["pending", "delivered", "dead"]
PUSH: Final = "push"
"""Marks messages to the addresses that the clients of tasks have named, in place of a webhook."""
BACKOFF: Final = (5.0, 30.0, 120.0, 600.0, 3600.0, 18_000.0, 36_000.0)
"""Seconds before each further attempt. After the last one the message is dead."""
CLAIM_SECONDS = 60.0
"""Seconds for which one process has a message."""
TIMEOUT = 10.0
MAX_REPLY_BYTES = 64 << 10
MAX_HOOKS = 50
MAX_CONCURRENT = 8
MAX_DUE: Final = MAX_CONCURRENT * int(CLAIM_SECONDS / TIMEOUT - 1)
"""Messages that are sent before the next look: all of them are tried while the claims on them last."""
MAX_EXAMINED: Final = 5_000
"""Messages that are examined at most for one page of a list."""
POLL_SECONDS = 1.0
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16"))
"""IPv6 networks whose addresses contain IPv4 addresses."""
IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class WebhookBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where messages go, and about what."""

    url: str
    events: tuple[Topic, ...] = ("run.finished", "run.waiting")
    workflow: str = ""
    """Only runs of this workflow."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as stored."""

    id: str
    url: str
    events: tuple[Topic, ...]
    workflow: str
    created: float
    secret: str


class WebhookItem(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook."""

    id: str
    url: str
    events: tuple[Topic, ...]
    workflow: str
    created: float
    secret: str | None
    """With it the receiver checks the signature. It is shown once."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message to a webhook, or to the address that a client has named for its task."""

    id: str
    webhook: str
    """The id of the webhook; or of the configuration of the task, if `target` is `push`."""
    event: Topic
    run: str
    status: DeliveryStatus
    attempts: int
    next_attempt: float | None
    last_error: str
    created: float
    body: str
    target: Literal["webhook", "push"] = "webhook"


class DeliveryItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message to a webhook, without its text."""

    id: str
    event: Topic
    run: str
    status: DeliveryStatus
    attempts: int
    next_attempt: float | None
    last_error: str
    created: float


class DeliveriesQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which messages."""

    status: DeliveryStatus | None = None


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose messages are not all recorded yet."""

    run: str


def webhooks_of(services: Services) -> Collection[Webhook]:
    """The webhooks of all tenants."""
    return Collection(services.records, "webhook", "hook", Webhook)


def deliveries_of(services: Services) -> Collection[Delivery]:
    """The messages of all tenants."""
    return Collection(services.records, "delivery", "message", Delivery, _next_attempt)


def _next_attempt(delivery: Delivery) -> float | None:
    return delivery.next_attempt if delivery.status == "pending" else None


def watches_of(services: Services) -> Collection[Watch]:
    """The runs of all tenants whose messages are not all recorded yet."""
    return Collection(services.records, "watch", "watch", Watch)


# Routes


@ROUTES.route("POST", "/api/webhooks", "admin", WebhookItem, body=WebhookBody, status=201)
async def create_webhook(call: Call[WebhookBody]) -> WebhookItem:
    """Add a webhook. The reply has the secret with which messages are signed."""
    body = call.body
    check_url(body.url, allow_private=call.services.settings.private_webhooks)
    hooks = webhooks_of(call.services)
    if len(await hooks.all(call.principal.tenant)) >= MAX_HOOKS:
        raise RequestError("S002", f"a tenant has at most {MAX_HOOKS} webhooks", hint="delete one")
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    hook = Webhook(
        id=hooks.new_id(), url=body.url, events=body.events, workflow=body.workflow, created=time.time(), secret=secret
    )
    await hooks.add(hook.id, call.principal.tenant, hook)
    return _item(hook, secret)


def _item(hook: Webhook, secret: str | None = None) -> WebhookItem:
    return WebhookItem(
        id=hook.id, url=hook.url, events=hook.events, workflow=hook.workflow, created=hook.created, secret=secret
    )


@ROUTES.route("GET", "/api/webhooks", "admin", Page[WebhookItem], query=PageQuery)
async def list_webhooks(call: Call[NoBody, PageQuery]) -> Page[WebhookItem]:
    """List the webhooks of the tenant."""
    return await webhooks_of(call.services).page(
        call.principal.tenant, call.query, lambda stored_webhook: _item(stored_webhook.value)
    )


@ROUTES.route("DELETE", "/api/webhooks/{webhook}", "admin")
async def delete_webhook(call: Call) -> None:
    """Delete a webhook with its messages."""
    hook = (await webhooks_of(call.services).require(call.path["webhook"], call.principal.tenant)).value
    await webhooks_of(call.services).delete(hook.id)
    async for record in deliveries_of(call.services).scan(call.principal.tenant):
        if record.value.webhook == hook.id:
            await deliveries_of(call.services).delete(record.value.id)


@ROUTES.route("GET", "/api/webhooks/{webhook}/deliveries", "admin", Page[DeliveryItem], query=DeliveriesQuery)
async def list_deliveries(call: Call[NoBody, DeliveriesQuery]) -> Page[DeliveryItem]:
    """List the messages of a webhook, newest first; with `status=dead` those that were given up."""
    hook = (await webhooks_of(call.services).require(call.path["webhook"], call.principal.tenant)).value
    query, delivery_items, examined, last = call.query, list[DeliveryItem](), 0, ""
    async with aclosing(deliveries_of(call.services).scan(call.principal.tenant, query.cursor)) as stored_deliveries:
        async for record in stored_deliveries:
            delivery = record.value
            is_listed = delivery.webhook == hook.id and query.status in (None, delivery.status)
            if examined == MAX_EXAMINED or (is_listed and len(delivery_items) == query.limit):
                return Page(items=tuple(delivery_items), next=last)
            if is_listed:
                delivery_items.append(_delivery_item(delivery))
            examined, last = examined + 1, delivery.id
    return Page(items=tuple(delivery_items))


def _delivery_item(delivery: Delivery) -> DeliveryItem:
    return DeliveryItem(**{name: getattr(delivery, name) for name in DeliveryItem.__struct_fields__})


@ROUTES.route(
    "POST", "/api/webhooks/{webhook}/deliveries/{delivery}/retry", "admin", DeliveryItem, body=NoBody, status=202
)
async def retry_delivery(call: Call) -> DeliveryItem:
    """Send a message again, with all of its attempts."""
    hook = (await webhooks_of(call.services).require(call.path["webhook"], call.principal.tenant)).value
    stored_delivery = await deliveries_of(call.services).get(call.path["delivery"])
    if stored_delivery is None or stored_delivery.value.webhook != hook.id:
        raise not_found("webhook", hook.id)
    changed = await deliveries_of(call.services).change(
        stored_delivery.value.id,
        lambda delivery: msgspec.structs.replace(delivery, status="pending", attempts=0, next_attempt=time.time()),
    )
    if changed is None:
        raise not_found("webhook", hook.id)
    return _delivery_item(changed)


# Messages


async def record_message(services: Services, tenant: str, run: str, workflow: str, topic: Topic, seq: int) -> None:
    """Records the message about a run for each webhook that wants it; once, whichever process does it."""
    for stored_webhook in await webhooks_of(services).all(tenant):
        hook = stored_webhook.value
        if topic not in hook.events or hook.workflow not in ("", workflow):
            continue
        now = time.time()
        answer = await services.answer(run)
        body = msgspec.json.encode({"type": topic, "timestamp": now, "data": answer}).decode()
        name = f"{hook.id}.{run}.{topic}.{seq}"
        delivery = Delivery(
            id=name, webhook=hook.id, event=topic, run=run, status="pending", attempts=0, next_attempt=now,
            last_error="", created=now, body=body,
        )  # fmt: skip
        await deliveries_of(services).add(name, tenant, delivery)


class Reporter:
    """Records the messages about runs, also about those of a process that has died."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._watched: set[str] = set()
        self._tenants = SharedRead(self._read_tenants)

    async def watch(self, run: Run[Any], tags: Tags) -> None:
        """Records the messages about a run in the background, if its tenant has webhooks."""
        tenant, services = tags.get(TENANT_TAG, ""), self._services
        if run.id in self._watched or not tenant or tenant not in await self._tenants.get():
            return
        await watches_of(services).add(run.id, tenant, Watch(run=run.id))
        self._begin(run.id, tenant)

    async def _read_tenants(self) -> set[str]:
        """Returns the tenants that have webhooks."""
        return {stored_webhook.record.tenant for stored_webhook in await webhooks_of(self._services).all()}

    async def recover(self) -> None:
        """Records what processes that have died did not record."""
        for watch in await watches_of(self._services).all():
            self._begin(watch.value.run, watch.record.tenant)

    def _begin(self, run: str, tenant: str) -> None:
        if run not in self._watched:
            self._watched.add(run)
            self._services.spawn(self._report(run, tenant))

    async def _report(self, run: str, tenant: str) -> None:
        services = self._services
        try:
            async with aclosing(run_events(services, run, 0)) as events:
                async for event in events:
                    if isinstance(event, QuestionAsked | RunFinished):
                        topic: Topic = "run.waiting" if isinstance(event, QuestionAsked) else "run.finished"
                        start_event = await services.started(run)
                        name = start_event.workflow if start_event is not None else ""
                        await record_message(services, tenant, run, name, topic, event.seq)
            await watches_of(services).delete(run)
        except OrchestraError as error:
            services.log("webhooks of a run not recorded", run=run, code=error.code)
        finally:
            self._watched.discard(run)


async def deliver_forever(services: Services) -> None:
    """Sends messages whose time has come."""
    slots = asyncio.Semaphore(MAX_CONCURRENT)
    async with open_session(allow_private=services.settings.private_webhooks) as session:
        while True:
            try:
                number = await deliver_due(services, session, slots, time.time())
            except OrchestraError as error:
                services.log("webhooks not sent", code=error.code)
                number = 0
            if number < MAX_DUE:
                await asyncio.sleep(POLL_SECONDS)


async def deliver_due(services: Services, session: aiohttp.ClientSession, slots: asyncio.Semaphore, now: float) -> int:
    """Sends the messages whose time has come at a time, at most `MAX_DUE`; returns their number."""
    due = await deliveries_of(services).all_due(now, MAX_DUE)

    async def send_one(stored_delivery: Stored[Delivery]) -> None:
        async with slots:
            await _deliver(services, session, stored_delivery, now)

    await asyncio.gather(*map(send_one, due))
    return len(due)


async def _deliver(
    services: Services, session: aiohttp.ClientSession, stored_delivery: Stored[Delivery], now: float
) -> None:
    delivery = stored_delivery.value
    if (attempt := _next_attempt(delivery)) is None or attempt > now:
        # A process of an earlier version has written the record, and not its time.
        await deliveries_of(services).replace(stored_delivery, delivery)
        return
    receiver = await _receiver(services, delivery)
    if receiver is None:
        await deliveries_of(services).delete(delivery.id)
        return
    number = delivery.attempts + 1
    claimed = msgspec.structs.replace(delivery, attempts=number, next_attempt=now + CLAIM_SECONDS)
    if not await deliveries_of(services).replace(stored_delivery, claimed):
        return  # Another process sends it.
    fault = await send(session, receiver, delivery, allow_private=services.settings.private_webhooks)
    status: DeliveryStatus = "delivered" if not fault else "pending" if number <= len(BACKOFF) else "dead"
    later = now + BACKOFF[number - 1] * (1 + secrets.randbelow(100) / 1000) if status == "pending" else None
    # The messages of a task are neither listed nor repeated. Their records stay, so that none is sent twice.
    body = "" if delivery.target == PUSH and status != "pending" else delivery.body
    await deliveries_of(services).change(
        delivery.id,
        lambda old_delivery: msgspec.structs.replace(
            old_delivery, status=status, next_attempt=later, last_error=fault, body=body
        ),
    )
    if delivery.target == PUSH and status == "dead":
        services.log("push notification given up", run=delivery.run, error=fault)


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message goes, and what its headers prove."""

    url: str
    secret: str = ""
    """The key of the signature; empty without one."""
    headers: dict[str, str]


async def _receiver(services: Services, delivery: Delivery) -> Receiver | None:
    """Returns where a message goes; None if its webhook, or the configuration of its task, was deleted."""
    if delivery.target == PUSH:
        config = await find_push_config(services, delivery.run, delivery.webhook)
        return None if config is None else Receiver(url=config.url, headers=push_headers(config))
    hook = await webhooks_of(services).get(delivery.webhook)
    if hook is None:
        return None
    return Receiver(url=hook.value.url, secret=hook.value.secret, headers={"Content-Type": JSON_TYPE})


async def send(session: aiohttp.ClientSession, receiver: Receiver, delivery: Delivery, *, allow_private: bool) -> str:
    """Sends a message once; returns why it was not accepted, or nothing."""
    body, now = delivery.body.encode(), str(int(time.time()))
    headers = {**receiver.headers, "webhook-id": delivery.id, "webhook-timestamp": now}
    if receiver.secret:
        headers["webhook-signature"] = sign(receiver.secret, delivery.id, now, body)
    try:
        check_url(receiver.url, allow_private=allow_private)
        async with session.post(receiver.url, data=body, headers=headers, allow_redirects=False) as reply:
            await reply.content.read(MAX_REPLY_BYTES)
            return "" if 200 <= reply.status < 300 else f"status {reply.status}"
    except RequestError as error:
        return error.message
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:300]


def sign(secret: str, id: str, timestamp: str, body: bytes) -> str:
    """Returns the signature of a message."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, b"%s.%s.%s" % (id.encode(), timestamp.encode(), body), hashlib.sha256)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"


# Addresses


def open_session(*, allow_private: bool) -> aiohttp.ClientSession:
    """Returns a client that connects to public addresses only, unless private ones are allowed."""

    def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        """Opens the socket of a connection: the last look at an address, which no form of the name can avoid."""
        family, kind, protocol, _, place = address
        if not allow_private and not is_public(ipaddress.ip_address(str(place[0]).partition("%")[0])):
            raise OSError("the address is not public")
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        resolver=PublicResolver(allow_private=allow_private), use_dns_cache=False, socket_factory=open_socket
    )
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False, auto_decompress=False)


def check_url(url: str, *, allow_private: bool) -> None:
    """Raises `RequestError` S012 for an address to which no webhook may go."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = URL(url).host or ""  # as the client will read it: other digits and dots are the ones of addresses
    except ValueError as error:
        raise _refused(url, "it is not an address") from error
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise _refused(url, "it is not https")
    if not host or parts.username is not None or parts.fragment or len(url) > 2000 or not url.isprintable():
        raise _refused(url, "it is not a plain address")
    if port == 0:
        raise _refused(url, "its port is 0")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return  # A name: the resolver checks its addresses at each attempt.
    if not allow_private and not is_public(address):
        raise _refused(url, "its address is not public")


def _refused(url: str, reason: str) -> RequestError:
    return RequestError("S012", f"webhooks cannot go to {url[:100]!r}: {reason}", hint="https://…", pointer="/url")


def is_public(address: IpAddress) -> bool:
    """Whether an address is one of the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses those that have an address which is not public."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns the addresses of a name. Raises `OSError` if one of them is not public."""
        loop = asyncio.get_running_loop()
        records = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys((str(record[4][0]), record[0]) for record in records))
        for address, _ in addresses:
            if not self._allow_private and not is_public(ipaddress.ip_address(address.partition("%")[0])):
                raise OSError(f"{host} has an address that is not public")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for address, kind in addresses
        ]

    async def close(self) -> None:
        """Closes nothing."""
