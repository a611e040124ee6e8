"""What two tenants have on the server under attack: the attacker's own things, and the victim's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from orchestra.server.endpoints import Endpoint
from tests.server.hostile.target import ATTACKER, VICTIM, Target
from tests.server.servers import INPUTS

CANARY = "canary-of-the-victim"
"""A text in everything that the victim has."""
PUBLIC: Mapping[str, str] = {"name": "answer", "code": "E012", "model": "answer", "node": "read"}
"""Path parameters that belong to no tenant."""
UNKNOWN = "0" * 20


@dataclass(frozen=True)
class Belongings:
    """What a tenant has, by the parameter of the path that names it."""

    key: str
    ids: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of its requests."""
        return {"Authorization": f"Bearer {self.key}"}

    def path(self, endpoint: Endpoint) -> str:
        """Returns the address of a route with these ids."""
        values = {**PUBLIC, **self.ids}
        return re.sub(r"{(\w+)(:\w+)?}", lambda match: values.get(match[1], UNKNOWN), endpoint.path)


@dataclass(frozen=True)
class World:
    """Both tenants, and the addresses of the server."""

    port: int
    attacker: Belongings
    victim: Belongings

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://localhost:{self.port}"


def make_world(target: Target) -> World:
    """Gives each tenant one thing of each kind."""
    keys = target.started.keys
    made = [_make(target, keys[ATTACKER], "public"), _make(target, keys[VICTIM], CANARY)]
    return World(target.port, *made)


def _make(target: Target, key: str, text: str) -> Belongings:
    inputs = {**INPUTS, "question": text}
    with httpx.Client(
        base_url=f"http://localhost:{target.port}", headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:

        def add(path: str, body: object) -> str:
            reply = client.post(path, json=body)
            assert reply.is_success, reply.text
            return str(reply.json()["id"])

        ids = {
            "run": add("/api/runs", {"workflow": "answer", "inputs": inputs, "options": {"tags": {"text": text}}}),
            "file": add(f"/api/files?name={text}.txt", text),
            "schedule": add("/api/schedules", {"cron": "0 0 1 1 *", "workflow": "answer", "inputs": inputs}),
            "webhook": add("/api/webhooks", {"url": f"https://{text}.invalid/"}),
            "thread": add("/api/threads", {"title": text}),
            "batch": add("/api/batches", {"workflow": "answer", "rows": [inputs]}),
            "key": add("/api/keys", {"name": text, "scopes": ["read"]}),
            "waiting": add("/api/runs", {"workflow": "approve", "inputs": {"draft": text}, "mode": "background"}),
        }
    return Belongings(key, ids)


def missing_things(world: World) -> list[str]:
    """Returns what the victim does not have any more."""
    victim, missing = world.victim, list[str]()
    with httpx.Client(base_url=world.url, headers=victim.headers, timeout=60) as client:
        for kind in ("run", "file", "schedule", "thread", "batch"):
            found = client.get(f"/api/{'batches' if kind == 'batch' else f'{kind}s'}/{victim.ids[kind]}")
            if not found.is_success:
                missing.append(f"the victim's {kind} is gone: {found.status_code}")
        for kind in ("webhook", "key"):
            if victim.ids[kind] not in client.get(f"/api/{kind}s").text:
                missing.append(f"the victim's {kind} is gone")
        waiting = client.get(f"/api/runs/{victim.ids['waiting']}/answer").json()
        if waiting.get("status") != "waiting":
            missing.append(f"the victim's question was answered or cancelled: {waiting.get('status')}")
    return missing
