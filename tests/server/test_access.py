"""Who may do what: credentials, scopes, and a matrix of every route and every pair of tenants."""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from orchestra.server import JwtSettings, ServerSettings
from orchestra.server.access import create_key
from orchestra.server.application import all_endpoints
from orchestra.server.endpoints import Endpoint
from orchestra.server.principals import SCOPES
from orchestra.server.webhooks import deliveries_of
from tests.server.servers import INPUTS, LOCKED, TestServer, serving, until_async

PUBLIC = {"name": "answer", "code": "E012", "model": "answer"}
"""Path parameters that belong to no tenant."""
BODIES: dict[str, Any] = {
    "start_run": {"workflow": "answer", "inputs": INPUTS},
    "cancel_runs": {"ids": ["RUN"]},
    "check": {"answer": "a", "against": "a"},
    "start_thread_run": {"workflow": "answer", "inputs": INPUTS},
    "create_batch": {"workflow": "answer", "rows": [INPUTS]},
    "create_schedule": {"cron": "0 0 1 1 *", "workflow": "answer", "inputs": INPUTS},
    "create_webhook": {"url": "https://hooks.example/"},
    "create_api_key": {"name": "app", "scopes": ["read"]},
    "ask": {"request": "When?"},
    "plan": {"request": "When?"},
    "create_chat_completion": {"model": "answer", "messages": [{"role": "user", "content": "When?"}]},
    "create_response": {"model": "answer", "input": "When?"},
    "create_embeddings": {"model": "minilm", "input": []},
    "run_ag_ui_agent": {
        "threadId": "t", "runId": "r", "messages": [],
        "resume": [{"interruptId": "RUN:1", "status": "resolved", "payload": "yes"}],
    },
    "call_a2a_method": {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "RUN"}},
    "send_mcp_message": {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "answer", "arguments": {}, "requestState": "RUN",
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    },
}  # fmt: skip
"""Requests; `RUN` is the id of a run."""
NAMES_RUN = ("cancel_runs", "run_ag_ui_agent", "call_a2a_method", "send_mcp_message")
"""Routes whose bodies name a run."""
MCP_HEADERS = {
    "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call",
    "Mcp-Name": "answer",
}  # fmt: skip
SECRET = "canary-of-"
PRIVATE = ("run", "file", "schedule", "webhook", "delivery", "thread", "batch", "key")


def test_every_path_parameter_is_in_the_matrix() -> None:
    names = {name for one in all_endpoints() for name in re.findall(r"{(\w+)", one.path)}
    assert names <= {*PUBLIC, *Belongings.PARAMETERS}


class Belongings:
    """What a tenant has, by the parameter of the path that names it."""

    PARAMETERS = ("run", "node", "digest", "file", "schedule", "webhook", "delivery", "thread", "batch", "key")

    def __init__(self, tenant: str, ids: dict[str, str], headers: dict[str, str]) -> None:
        self.tenant, self.ids, self.headers = tenant, ids, headers

    @classmethod
    async def make(cls, server: TestServer, tenant: str) -> Belongings:
        """Makes one thing of each kind, each with a secret in it."""
        headers, secret = await server.key(tenant), f"{SECRET}{tenant}"
        inputs = {**INPUTS, "question": secret}
        run = {"workflow": "answer", "inputs": inputs, "options": {"tags": {"secret": secret}}}

        async def add(path: str, body: Any) -> str:
            reply = await server.client.post(path, json=body, headers=headers)
            assert reply.is_success, reply.text
            found: str = reply.json()["id"]
            return found

        hook = await add("/api/webhooks", {"url": f"https://{secret}.example/"})
        ids = {
            "webhook": hook,
            "run": await add("/api/runs", run),
            "file": await add(f"/api/files?name={secret}", secret),
            "schedule": await add("/api/schedules", {"cron": "0 0 1 1 *", "workflow": "answer", "inputs": inputs}),
            "thread": await add("/api/threads", {"title": secret}),
            "batch": await add("/api/batches", {"workflow": "answer", "rows": [inputs]}),
            "key": await add("/api/keys", {"name": secret, "scopes": ["read"]}),
            "node": "read",
        }
        ids["digest"] = (await server.services.read_run(ids["run"])).started.graph

        async def has_delivery() -> Any:
            return await deliveries_of(server.services).all(tenant)

        await until_async(has_delivery)
        ids["delivery"] = (await has_delivery())[0].value.id
        return cls(tenant, ids, headers)

    def path(self, endpoint: Endpoint) -> str:
        """The address of a route with these ids."""
        values = {**PUBLIC, **self.ids}
        path = re.sub(r"{(\w+)(:\w+)?}", lambda found: values[found[1]], endpoint.path)
        return {
            "diff_runs": f"{path}?other={self.ids['run']}",
            "upload_file": f"{path}?name=a.txt",
        }.get(endpoint.name, path)


async def send(server: TestServer, endpoint: Endpoint, owner: Belongings, headers: dict[str, str]) -> httpx.Response:
    """Sends a request about what `owner` has."""
    body = json.loads(json.dumps(BODIES.get(endpoint.name, {})).replace("RUN", owner.ids["run"]))
    given: dict[str, Any] = {"json": body} if endpoint.body is not None or body else {}
    if endpoint.path == "/mcp":
        headers = {**MCP_HEADERS, **headers}
    return await server.client.request(endpoint.method, owner.path(endpoint), headers=headers, **given)


@pytest.mark.parametrize("endpoint", all_endpoints(), ids=lambda one: f"{one.method} {one.path}")
async def test_route_shows_nothing_of_another_tenant(tmp_path: Path, endpoint: Endpoint) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        tenants = [await Belongings.make(server, name) for name in ("alpha", "beta")]
        for one, other in itertools.permutations(tenants, 2):
            foreign = await send(server, endpoint, other, one.headers)
            assert f"{SECRET}{other.tenant}" not in foreign.text
            named = [name for name in re.findall(r"{(\w+)", endpoint.path) if name not in PUBLIC]
            if named:
                assert (foreign.status_code, code_of(foreign)) == (404, "S009")
                unknown = Belongings(one.tenant, {name: "x" * len(value) for name, value in other.ids.items()}, {})
                missing = await send(server, endpoint, unknown, one.headers)
                assert without_ids(missing.text, unknown) == without_ids(foreign.text, other)
            elif endpoint.name in NAMES_RUN:
                assert "S009" in foreign.text
            else:
                assert not [name for name, value in other.ids.items() if name in PRIVATE and value in foreign.text]
        assert (await server.services.read_run(tenants[1].ids["run"])).status == "done"
        own = await send(server, endpoint, tenants[0], tenants[0].headers)
        assert own.status_code < 500
        assert own.status_code != 404 or endpoint.name in ("get_agent", "get_tool")


def code_of(reply: httpx.Response) -> str:
    """The code of an error, in the form of either API."""
    found = reply.json()
    code: str = found["error"]["code"] if "error" in found else found["code"]
    return code


def without_ids(text: str, owner: Belongings) -> str:
    for name, value in sorted(owner.ids.items(), key=lambda one: -len(one[1])):
        text = text.replace(value, "ID") if name in PRIVATE else text
    return text


@pytest.mark.parametrize("endpoint", all_endpoints(), ids=lambda one: f"{one.method} {one.path}")
async def test_route_without_credential_or_scope_is_refused(tmp_path: Path, endpoint: Endpoint) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        owner = await Belongings.make(server, "alpha")
        anonymous = await send(server, endpoint, owner, {})
        wrong = await send(server, endpoint, owner, {"Authorization": f"Bearer ok_0123456789ab_{'a' * 43}"})
        others = [scope for scope in SCOPES if scope not in (endpoint.scope, "admin")]
        lesser = await send(server, endpoint, owner, await server.key("alpha", *others))
    if endpoint.scope is None:
        assert anonymous.status_code in (200, 404)
        return
    assert [(one.status_code, code_of(one)) for one in (anonymous, wrong)] == [(401, "S005")] * 2
    assert anonymous.headers["www-authenticate"].startswith("Bearer")
    assert (lesser.status_code, code_of(lesser)) == (403, "S006")


async def test_tag_of_the_server_cannot_be_set_by_a_client(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        headers = await server.key("alpha")
        tags = {"orchestra.tenant": "beta"}
        body = {"workflow": "answer", "inputs": INPUTS, "options": {"tags": tags}}
        started = await server.client.post("/api/runs", json=body, headers=headers)
        listed = await server.client.get("/api/runs?tag=orchestra.tenant=beta", headers=headers)
        summed = await server.client.get("/api/costs?by=tag:orchestra.tenant", headers=headers)
    assert [(one.status_code, one.json()["code"]) for one in (started, listed, summed)] == [(422, "S015")] * 3


async def test_cursor_of_another_tenant_is_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        alpha, beta = [await Belongings.make(server, name) for name in ("alpha", "beta")]
        replies = [
            await server.client.get(f"/api/runs?cursor={cursor}", headers=alpha.headers)
            for cursor in (beta.ids["run"], "x" * len(beta.ids["run"]))
        ]
    assert [one.json() for one in replies] == [replies[0].json()] * 2
    assert replies[0].json()["code"] == "S002"


async def test_equal_keys_of_two_tenants_are_two_runs(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        runs = set[str]()
        for tenant in ("alpha", "beta"):
            headers = {**await server.key(tenant), "Idempotency-Key": "same"}
            body = {"workflow": "answer", "inputs": INPUTS}
            runs.add((await server.client.post("/api/runs", json=body, headers=headers)).json()["id"])
    assert len(runs) == 2


async def test_key_is_stored_as_a_digest_and_ends_when_revoked(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        key, secret = await create_key(server.services.records, "app", "alpha", ("read",), None)
        headers = {"Authorization": f"Bearer {secret}"}
        before = await server.client.get("/api", headers=headers)
        await server.services.records.delete("key", key.id)
        after = await server.client.get("/api", headers=headers)
        old, expired = await create_key(server.services.records, "app", "alpha", ("read",), time.time() - 1)
        late = await server.client.get("/api", headers={"Authorization": f"Bearer {expired}"})
    stored = b"".join(map(Path.read_bytes, sorted(tmp_path.glob("runs.db-server*"))))  # noqa: ASYNC240
    assert before.json()["tenant"] == "alpha"
    assert [one.status_code for one in (after, late)] == [401, 401]
    assert secret.rpartition("_")[2].encode() not in stored
    assert old.id.encode() in stored


async def test_known_key_with_another_secret_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        key, secret = await create_key(server.services.records, "app", "alpha", ("read",), None)
        _, other = await create_key(server.services.records, "app", "beta", ("read",), None)
        mixed = f"{key.id}_{other.removeprefix('ok_').partition('_')[2]}"
        replies = [
            await server.client.get("/api", headers={"Authorization": f"Bearer {one}"}) for one in (secret, mixed)
        ]
    assert [one.status_code for one in replies] == [200, 401]


@pytest.fixture
def signing_key() -> ec.EllipticCurvePrivateKey:
    """The key of an identity provider."""
    return ec.generate_private_key(ec.SECP256R1())


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a valid token."""
    return {
        "iss": "https://id.example", "aud": "orchestra", "sub": "ada", "tenant": "alpha", "scope": "read run",
        "exp": time.time() + 600, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"exp": 1}, 401),
        ({"aud": "other"}, 401),
        ({"iss": "https://other.example"}, 401),
        ({"tenant": None}, 401),
        ({"tenant": "../beta"}, 401),
        ({"scope": "run"}, 403),
        ({"scope": ["read"]}, 200),
    ],
)
async def test_token_gives_tenant_and_scopes(
    tmp_path: Path, signing_key: ec.EllipticCurvePrivateKey, changes: dict[str, Any], status: int
) -> None:
    async with provider(signing_key) as url, serving(tmp_path, settings=with_tokens(url)) as server:
        token = jwt.encode(claims(**changes), signing_key, "ES256", {"kid": "one"})
        reply = await server.client.get("/api", headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == status
    assert status != 200 or (reply.json()["tenant"], reply.json()["subject"]) == ("alpha", "ada")


async def test_token_with_another_key_or_algorithm_is_refused(
    tmp_path: Path, signing_key: ec.EllipticCurvePrivateKey
) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    async with provider(signing_key) as url, serving(tmp_path, settings=with_tokens(url)) as server:
        tokens = [
            jwt.encode(claims(), other, "ES256", {"kid": "one"}),
            jwt.encode(claims(), signing_key, "ES256", {"kid": "two"}),
            jwt.encode(claims(), "secret" * 10, "HS256", {"kid": "one"}),
            jwt.encode(claims(), "", "none", {"kid": "one"}),
            "a.b.c",
        ]
        for token in tokens:
            reply = await server.client.get("/api", headers={"Authorization": f"Bearer {token}"})
            assert (reply.status_code, reply.json()["code"]) == (401, "S005")


def with_tokens(url: str) -> ServerSettings:
    """Settings with an identity provider."""
    tokens = JwtSettings(jwks_url=url, issuer="https://id.example", audience="orchestra")
    return ServerSettings(hosts=("*",), jwt=tokens)


def provider(key: ec.EllipticCurvePrivateKey) -> Any:
    """A server with the public key of an identity provider."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from tests.server.servers import listening

    public = {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "one", "use": "sig", "alg": "ES256"}
    return listening(Starlette(routes=[Route("/", lambda _: JSONResponse({"keys": [public]}))]))
