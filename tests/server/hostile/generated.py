"""Requests that schemathesis generates from the server's own OpenAPI description: right ones, and ones with faults."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator
from typing import Any

import msgspec
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from orchestra.server.application import all_endpoints
from orchestra.server.openapi import describe
from tests.server.hostile.exchange import Attack, message
from tests.server.hostile.world import PUBLIC, World

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
SKIPPED = frozenset(
    {"host", "content-length", "connection", "accept-encoding", "user-agent", "x-schemathesis-testcaseid"}
)
WITH_KEY, WITH_ID = 0.9, 0.6
"""Shares of the requests that get the attacker's credential, and ids that exist."""


def generate(world: World, count: int, number: int) -> Iterator[Attack]:
    """Yields about so many requests, the same ones for the same number (and world)."""
    schema = schemathesis.openapi.from_dict(msgspec.json.decode(msgspec.json.encode(describe(all_endpoints()))))
    operations: list[Any] = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    chance = random.Random(number)
    each = count // (len(operations) * len(MODES)) + 2  # Nothing can be wrong with some routes.
    for place, operation in enumerate(operations):
        for mode in MODES:
            name = f"{mode.value} {operation.method.upper()} {operation.path}"
            for case in _cases(operation.as_strategy(generation_mode=mode), each, number * 1000 + place):
                if (data := _encode(world, case, chance)) is not None:
                    yield Attack(name, data)


def _cases(strategy: Any, count: int, number: int) -> list[Any]:
    cases = list[Any]()

    @seed(number)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(case: Any) -> None:
        cases.append(case)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            collect()
    except Unsatisfiable:
        pass  # Nothing can be wrong with such a route.
    return cases[:count]


def _encode(world: World, case: Any, chance: random.Random) -> bytes | None:
    """Returns a case as bytes; None if the client's library refuses it."""
    if chance.random() < WITH_ID:
        owner = world.victim if chance.random() < 0.3 else world.attacker
        known = {**PUBLIC, **owner.ids}
        for name in case.path_parameters or {}:
            case.path_parameters[name] = known.get(name, case.path_parameters[name])
    try:
        sent = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
    except (ValueError, requests.RequestException):
        return None
    body = sent.body.encode("utf-8", "surrogatepass") if isinstance(sent.body, str) else sent.body
    if body is not None and not isinstance(body, bytes):
        return None
    headers = [(name, _text(value)) for name, value in sent.headers.items() if name.lower() not in SKIPPED]
    if chance.random() < WITH_KEY:
        headers = [one for one in headers if one[0].lower() != "authorization"]
        headers.append(("Authorization", f"Bearer {world.attacker.key}"))
    path = re.sub(r"^http://localhost", "", str(sent.url)) or "/"
    return message(str(sent.method), path, headers, body)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
