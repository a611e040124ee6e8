"""Secrets of a fleet: what the references `env:NAME` and `file:PATH` stand for, read in the moment they are sent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestra.errors import FleetError
from orchestra.fleet.config import Endpoint, LocalServer


def secret(reference: str, environment: Mapping[str, str] = os.environ) -> str:
    """What `env:NAME` or `file:PATH` stands for. Raises `FleetError` F105 where nothing is there."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        found = environment.get(name, "")
    else:
        try:
            found = Path(name).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, RuntimeError) as error:  # the last of `~` where there is no home
            raise FleetError("F105", f"the secret {reference} cannot be read: {error}", hint=f"put it into {name}") from error
    if not (found := found.strip()):
        raise FleetError("F105", f"the secret {reference} is empty", hint=f"export {name}=…" if kind == "env" else f"put it into {name}")
    if not found.isprintable():
        raise FleetError("F105", f"the secret {reference} is no key: it has several lines, or control characters", hint=f"look at {name}")
    return found


def lacking(server: Endpoint | LocalServer) -> FleetError | None:
    """F105 for an endpoint whose key is not there now: its requests would fail by that."""
    try:
        if isinstance(server, Endpoint) and server.api_key:
            secret(server.api_key)
    except FleetError as error:
        return error
    return None
