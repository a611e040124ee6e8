"""The settings of the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from orchestra.server.tenant_limits import LimitsByTenant

LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSettings:
    """How bearer tokens of an identity provider are checked. Only asymmetric signatures are accepted."""

    jwks_url: str
    """Where the provider publishes its public keys."""
    issuer: str
    audience: str
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    """A list of scopes, or a text with spaces between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings of the server."""

    auth: bool = True
    """Whether requests need a credential. Without one, everybody who can connect may do everything."""
    jwt: JwtSettings | None = None
    hosts: tuple[str, ...] = LOOPBACK_HOSTS
    """The names in the `Host` header for which the server answers; `*` for any."""
    origins: tuple[str, ...] = ()
    """Other web pages that may call the API from a browser, such as `https://app.example`."""
    max_body: int = 16 << 20
    """Bytes of a JSON body at most."""
    max_upload: int = 64 << 20
    """Bytes of an uploaded file at most."""
    max_headers: int = 32 << 10
    """Bytes of all headers at most."""
    max_header_count: int = 100
    body_timeout: float = 30.0
    """Seconds in which a body must arrive."""
    keep_alive: float = 15.0
    """Seconds between two comments on a silent stream."""
    send_timeout: float = 60.0
    """Seconds that a reader of a stream may block it. Then the stream is closed, and the reader can resume it."""
    drain: float = 8.0
    """Seconds that the server waits at its end for requests and runs. Runs that still go on are resumed by the next
    server.
    """
    retention: float | None = None
    """Seconds that ended runs of the server are kept; None for ever."""
    private_webhooks: bool = False
    """Whether webhooks may go to private and loopback addresses."""
    tenants: LimitsByTenant = field(default_factory=dict)
    """The limits of tenants by name; `*` for all others."""
