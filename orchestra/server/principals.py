"""Who sends a request: tenants and scopes.

The tenant comes from the credential only. It is a tag of each run whose name clients cannot use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from orchestra.core.tags import Tags
from orchestra.server.problems import RequestError

Scope: TypeAlias = Literal["read", "run", "answer", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
RESERVED: Final = "orchestra."
"""The prefix of tags that only the server sets."""
TENANT_TAG: Final = "orchestra.tenant"
SERVER_TAG: Final = "orchestra.server"
"""Marks the runs that a server has started, and that a server resumes."""
LOCAL_TENANT: Final = "local"
"""The tenant of everybody while authentication is off."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a request."""

    tenant: str
    scopes: frozenset[Scope]
    subject: str
    sees_all: bool = False
    """Whether it sees the runs of every tenant: only while authentication is off."""

    def allows(self, scope: Scope | None) -> bool:
        """Whether it has a scope; `admin` includes all."""
        return scope is None or scope in self.scopes or "admin" in self.scopes

    def owns(self, tags: Tags) -> bool:
        """Whether a run with these tags belongs to its tenant."""
        return self.sees_all or tags.get(TENANT_TAG) == self.tenant

    @property
    def filter(self) -> dict[str, str]:
        """The tags that its runs have."""
        return {} if self.sees_all else {TENANT_TAG: self.tenant}

    @property
    def marks(self) -> dict[str, str]:
        """The tags that the server gives its runs."""
        return {TENANT_TAG: self.tenant, SERVER_TAG: "1"}


LOCAL_USER = Principal(tenant=LOCAL_TENANT, scopes=frozenset(SCOPES), subject="local user", sees_all=True)

NOBODY = Principal(tenant="", scopes=frozenset(), subject="")
"""The sender of a request to a route that needs no credential."""


def public_tags(tags: Tags) -> dict[str, str]:
    """Returns the tags that clients see."""
    return {name: value for name, value in tags.items() if not name.startswith(RESERVED)}


def require_public_tags(tags: Mapping[str, str], pointer: str) -> None:
    """Raises `RequestError` S015 for a tag that only the server sets."""
    for name in tags:
        if name.startswith(RESERVED):
            raise RequestError("S015", f"the tag {name!r} is set by the server only", hint="rename it", pointer=pointer)
