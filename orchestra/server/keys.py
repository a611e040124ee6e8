"""The routes of API keys."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from orchestra.server.access import KEY, ApiKey, create_key, list_keys
from orchestra.server.endpoints import Call, Page, RouteTable
from orchestra.server.principals import SCOPES, Scope
from orchestra.server.problems import not_found

ROUTES = RouteTable()


class KeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a new key may do."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    scopes: tuple[Scope, ...]
    expires: float | None = None
    """Seconds since the epoch; null for a key that does not expire."""


class KeyItem(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without its secret."""

    id: str
    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None


class NewKey(KeyItem, frozen=True, kw_only=True):
    """A new key."""

    key: str
    """What the client sends. It is shown once; the server stores only a digest."""


def _fields(key: ApiKey) -> dict[str, object]:
    return {name: getattr(key, name) for name in KeyItem.__struct_fields__}


@ROUTES.route("POST", "/api/keys", "admin", NewKey, body=KeyBody, status=201)
async def create_api_key(call: Call[KeyBody]) -> NewKey:
    """Make a key of the tenant."""
    body, tenant = call.body, call.principal.tenant
    scopes = tuple(scope for scope in SCOPES if scope in body.scopes)
    key, secret = await create_key(call.services.records, body.name, tenant, scopes, body.expires)
    return msgspec.convert({**_fields(key), "key": secret}, NewKey)


@ROUTES.route("GET", "/api/keys", "admin", Page[KeyItem])
async def list_api_keys(call: Call) -> Page[KeyItem]:
    """List the keys of the tenant, without their secrets."""
    keys = await list_keys(call.services.records, call.principal.tenant)
    return Page(items=tuple(msgspec.convert(_fields(key), KeyItem) for key in keys))


@ROUTES.route("DELETE", "/api/keys/{key}", "admin")
async def revoke_api_key(call: Call) -> None:
    """Revoke a key. Requests with it are refused from now on."""
    record = await call.services.records.get(KEY, call.path["key"])
    if record is None or record.tenant != call.principal.tenant:
        raise not_found("key", call.path["key"][:100])
    await call.services.records.delete(KEY, record.id)
