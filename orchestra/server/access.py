"""How a sender is recognized: by API keys, and by tokens of an identity provider."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import jwt
import msgspec
from starlette.requests import Request

from orchestra.server.principals import LOCAL_USER, SCOPES, Principal, Scope
from orchestra.server.problems import RequestError
from orchestra.server.records import Records
from orchestra.server.settings import JwtSettings, ServerSettings

KEY = "key"
"""The kind of the records of API keys."""
_KEY = re.compile(r"(ok_[0-9a-f]{12})_([A-Za-z0-9_-]{43})")
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_JWKS_SECONDS = 300
_REFRESH_SECONDS = 30.0
"""Seconds between two requests for the provider's keys at least, however many tokens arrive."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as stored: only a digest of its secret."""

    id: str
    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None
    digest: str

    def is_expired(self, now: float) -> bool:
        """Whether it is no longer valid."""
        return self.expires is not None and now >= self.expires


def _digest(secret: str) -> str:
    # The secret has 256 random bits, so a fast digest is enough.
    return hashlib.sha256(secret.encode()).hexdigest()


async def create_key(
    records: Records, name: str, tenant: str, scopes: tuple[Scope, ...], expires: float | None
) -> tuple[ApiKey, str]:
    """Creates a key; returns it, and the text that the client sends, which is stored nowhere. Raises `RequestError`
    S002 for an invalid tenant, or no scope.
    """
    if not TENANT_NAME.fullmatch(tenant):
        raise RequestError("S002", f"{tenant!r} is not a name of a tenant", hint="letters, digits and . _ -")
    if not scopes:
        raise RequestError("S002", "a key needs a scope", hint=", ".join(SCOPES), pointer="/scopes")
    key, secret = f"ok_{secrets.token_hex(6)}", secrets.token_urlsafe(32)
    api_key = ApiKey(
        id=key, name=name, tenant=tenant, scopes=scopes, created=time.time(), expires=expires, digest=_digest(secret)
    )
    await records.add(KEY, key, tenant, msgspec.json.encode(api_key))
    return api_key, f"{key}_{secret}"


async def list_keys(records: Records, tenant: str | None) -> list[ApiKey]:
    """Returns the keys of a tenant, or of all."""
    return [msgspec.json.decode(record.data, type=ApiKey) for record in await records.list(KEY, tenant)]


class Authenticator:
    """Finds out who sends a request."""

    def __init__(self, settings: ServerSettings, records: Records) -> None:
        self._settings, self._records = settings, records
        self._tokens = None if settings.jwt is None else TokenVerifier(settings.jwt)

    async def authenticate(self, request: Request) -> Principal:
        """Returns the sender. Raises `RequestError` S005 without a valid credential."""
        if not self._settings.auth:
            return LOCAL_USER
        kind, _, credential = request.headers.get("authorization", "").partition(" ")
        credential = credential.strip()
        if kind.lower() != "bearer" or not credential:
            raise _unauthenticated("the request has no credential")
        if (key := _KEY.fullmatch(credential)) is not None:
            return await self._of_key(key[1], key[2])
        if self._tokens is None:
            raise _unauthenticated("the credential is not valid")
        return await self._tokens.verify(credential)

    async def _of_key(self, key: str, secret: str) -> Principal:
        record = await self._records.get(KEY, key)
        api_key = None if record is None else msgspec.json.decode(record.data, type=ApiKey)
        digest = api_key.digest if api_key is not None else _digest("")
        if not hmac.compare_digest(digest, _digest(secret)) or api_key is None or api_key.is_expired(time.time()):
            raise _unauthenticated("the credential is not valid")
        return Principal(tenant=api_key.tenant, scopes=frozenset(api_key.scopes), subject=api_key.name or api_key.id)


class TokenVerifier:
    """Checks tokens of an identity provider."""

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def verify(self, token: str) -> Principal:
        """Returns the sender. Raises `RequestError` S005 for a token that is not valid, S010 if the provider's keys
        cannot be read.
        """
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in _ALGORITHMS:
                raise _unauthenticated("the credential is not valid")
            key = await self._key(str(header.get("kid", "")))
            if key is None:
                raise _unauthenticated("the credential is not valid")
            claims = jwt.decode(
                token,
                key,
                algorithms=list(_ALGORITHMS),
                audience=settings.audience,
                issuer=settings.issuer,
                options={"require": ["exp", "iss", "aud", "sub"]},
                leeway=10,
            )
        except jwt.PyJWTError as error:
            raise _unauthenticated("the credential is not valid") from error
        return _principal_of(claims, settings)

    async def _key(self, name: str) -> jwt.PyJWK | None:
        async with self._lock:
            age = time.monotonic() - self._fetched
            if age > _JWKS_SECONDS or (name not in self._keys and age > _REFRESH_SECONDS):
                await self._fetch()
        return self._keys.get(name)

    async def _fetch(self) -> None:
        self._fetched = time.monotonic()
        client = jwt.PyJWKClient(self._settings.jwks_url, cache_keys=False, timeout=5)
        try:
            keys = await asyncio.to_thread(client.get_signing_keys, True)
        except (jwt.PyJWTError, OSError, ValueError) as error:
            if self._keys:
                return  # The known keys stay valid while the provider cannot be reached.
            raise RequestError("S010", "the keys of the identity provider cannot be read", hint="try again") from error
        self._keys = {str(key.key_id): key for key in keys}


def _principal_of(claims: Mapping[str, Any], settings: JwtSettings) -> Principal:
    tenant, scopes = claims.get(settings.tenant_claim), claims.get(settings.scope_claim, ())
    if not isinstance(tenant, str) or not TENANT_NAME.fullmatch(tenant):
        raise _unauthenticated(f"the token has no claim {settings.tenant_claim!r} with a name")
    scope_names = scopes.split() if isinstance(scopes, str) else scopes if isinstance(scopes, list) else ()
    return Principal(
        tenant=tenant,
        scopes=frozenset(scope for scope in SCOPES if scope in scope_names),
        subject=str(claims["sub"])[:200],
    )


def _unauthenticated(message: str) -> RequestError:
    return RequestError("S005", message, hint="Authorization: Bearer KEY; make one with: orchestra serve keys create")


def require_scope(principal: Principal, scope: Scope | None) -> None:
    """Raises `RequestError` S006 if a sender does not have a scope."""
    if not principal.allows(scope):
        raise RequestError("S006", f"the credential does not have the scope {scope!r}", hint="use another credential")
