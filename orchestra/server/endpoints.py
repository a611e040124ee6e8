"""Routes as data: method, path, scope and types. Dispatch, the OpenAPI description and the tests use the same table."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, Literal, TypeAlias, cast, get_origin

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypeVar

from orchestra.app.orchestra import Orchestra
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_json import storage_error
from orchestra.server.principals import Principal, Scope
from orchestra.server.problems import RequestError, pointer_of
from orchestra.server.services import Services

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
JSON_TYPE = "application/json"
PROTOCOL_PATHS = frozenset({"mcp", "a2a", ".well-known", "ag-ui"})
"""The first parts of the paths of protocols between agents."""
T = TypeVar("T")


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of a route without parameters."""


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a route without one; `{}` is accepted."""


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of a list."""

    limit: int = 50
    cursor: str = ""


B = TypeVar("B", default=NoBody)
Q = TypeVar("Q", default=NoQuery)


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A page of a list."""

    items: tuple[T, ...]
    next: str | None = None
    """The cursor of the next page; null at the end."""


@dataclass(slots=True)
class Call(Generic[B, Q]):
    """One request: who sent it, and what it says."""

    services: Services
    request: Request
    principal: Principal
    body: B
    query: Q

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters in the path."""
        return cast(Mapping[str, str], self.request.path_params)

    @property
    def orchestra(self) -> Orchestra:
        """The open `Orchestra`."""
        return self.services.orchestra

    @property
    def idempotency_key(self) -> str:
        """The header `Idempotency-Key`; empty without one. Raises `RequestError` S002."""
        key = self.request.headers.get("idempotency-key", "")
        if len(key) > 255 or not key.isprintable():
            raise RequestError(
                "S002", "the header Idempotency-Key is not a printable text of at most 255 characters",
                hint="use a UUID", pointer="Idempotency-Key",
            )  # fmt: skip
        return key


Handler: TypeAlias = Callable[[Call[Any, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One route."""

    method: Method
    path: str
    handler: Handler
    scope: Scope | None
    """The scope that it needs; None if it needs no credential."""
    response: Any = None
    """The type of the reply; None for a reply that is no JSON, or without a body."""
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] = NoQuery
    status: int = 200
    media_type: str = JSON_TYPE
    is_upload: bool = False
    """Whether the body is a file."""
    while_draining: bool = True
    """Whether it is answered while the server stops."""

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """What it does, from the documentation of its handler."""
        return (inspect.getdoc(self.handler) or "").partition("\n\n")[0].replace("\n", " ")

    @property
    def area(self) -> str:
        """The group of routes to which it belongs."""
        parts = self.path.strip("/").split("/")
        if parts[0] == "v1":
            return "openai"
        if parts[0] in PROTOCOL_PATHS:
            return "protocols"
        return parts[1] if parts[0] == "api" and len(parts) > 1 else "server"


@dataclass(slots=True)
class RouteTable:
    """A list of routes that decorated functions join."""

    endpoints: list[Endpoint] = field(default_factory=list)

    def route(
        self, method: Method, path: str, scope: Scope | None, response: Any = None, **options: Any
    ) -> Callable[[Handler], Handler]:
        """Adds a function as the handler of a route. `options` are fields of `Endpoint`."""

        def add(handler: Handler) -> Handler:
            self.endpoints.append(
                Endpoint(method=method, path=path, handler=handler, scope=scope, response=response, **options)
            )
            return handler

        return add


def to_response(endpoint: Endpoint, result: Any) -> Response:
    """Returns what a handler returned as a reply: JSON, or no content for None."""
    if isinstance(result, Response):
        return result
    if result is None:
        return Response(status_code=204)
    return Response(msgspec.json.encode(result), endpoint.status, media_type=JSON_TYPE)


@cache
def _field_types(query_type: type[msgspec.Struct]) -> Mapping[str, Any]:
    """The types of the parameters of a query, by name."""
    return {field_info.encode_name: field_info.type for field_info in msgspec.structs.fields(query_type)}


def decode_query(request: Request, wanted: type[T]) -> T:
    """Returns the parameters of a query. Raises `RequestError` S002 for an unknown, repeated or invalid one."""
    arguments: dict[str, Any] = {}
    fields = _field_types(cast(type[msgspec.Struct], wanted))
    for name, value in request.query_params.multi_items() if request.scope["query_string"] else ():
        if name not in fields:
            near = closest_match(name, list(fields))
            field_names = ", ".join(fields) or "none"
            hint = f"did you mean {near!r}?" if near else f"parameters: {field_names}"
            raise RequestError("S002", f"there is no parameter {name!r}", hint=hint, pointer=name[:100])
        if get_origin(fields[name]) is tuple:
            arguments.setdefault(name, []).append(value)
        elif name in arguments:
            raise RequestError("S002", f"the parameter {name!r} is repeated", hint="state it once", pointer=name)
        else:
            arguments[name] = value
    try:
        query = msgspec.convert(arguments, wanted, strict=False)
    except msgspec.ValidationError as error:
        text, place = pointer_of(str(error))
        raise RequestError("S002", text, hint="see /docs", pointer=place.removeprefix("/")) from error
    if isinstance(query, PageQuery) and not 1 <= query.limit <= 200:
        raise RequestError("S002", f"limit={query.limit} is not in 1 to 200", hint="limit=50", pointer="limit")
    return query


def require_json_type(request: Request) -> None:
    """Raises `RequestError` S001 unless the content type of a request is JSON."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON_TYPE:
        hint = "Content-Type: application/json"
        message = f"the body is {content_type[:100] or 'of no stated type'}"
        raise RequestError("S001", message, hint=hint, pointer="Content-Type")


async def decode_body(request: Request, wanted: type[T]) -> T:
    """Returns the JSON body of a request. Raises `RequestError` S001 for another content type, S002 for another
    value.
    """
    data = await request.body()
    if not data and wanted is NoBody:
        return wanted()
    require_json_type(request)
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("S002", f"the body is not JSON: {error}", hint="send an object", status=400) from error
    if reason := storage_error(value):
        raise RequestError("S002", f"the body cannot be stored: {reason}", hint="send plain JSON values")
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        text, place = pointer_of(str(error))
        raise RequestError("S002", text, hint="see /docs", pointer=place) from error
