"""Limits of tenants: budgets that concurrent runs and restarts do not exceed, runs at once, and requests."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from orchestra import Orchestra
from orchestra.core.errors import InputError
from orchestra.core.events import Usage
from orchestra.core.protocols import CallEstimate, CallRequest, CallResult
from orchestra.server import ServerSettings
from orchestra.server.open_records import open_records
from orchestra.server.tenant_budgets import Account, Amounts, grant
from orchestra.server.tenant_limits import SpendingLimits, TenantLimits, read_tenant_limits
from orchestra.testing.fake_workers import SimulatedWorkers
from tests.server.servers import INPUTS, OPEN, REPLY, TestServer, project, serving, until

CALL_TOKENS = 50
BUDGET = SpendingLimits(tokens=4 * CALL_TOKENS)
MANY = {"questions": ["a", "b", "c"], "documents": INPUTS["documents"]}


class PricedWorkers(SimulatedWorkers):
    """Workers whose calls cost at most `CALL_TOKENS`, as they estimate."""

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns an upper bound."""
        return CallEstimate(prompt_tokens=30, max_output=20, min_output=20)


def priced(call: CallRequest, tokens: int = CALL_TOKENS) -> CallResult:
    """The reader's answer, with its cost."""
    return CallResult(value=REPLY, usage=Usage(prompt_tokens=tokens - 10, output_tokens=10, calls=1))


def limited(**limits: Any) -> ServerSettings:
    """A server without credentials whose tenant has limits."""
    return dataclasses.replace(OPEN, tenants={"local": TenantLimits(**limits)})


@asynccontextmanager
async def priced_server(folder: Path, settings: ServerSettings, tokens: int = CALL_TOKENS) -> AsyncIterator[TestServer]:
    """A server whose calls cost tokens."""
    workers = PricedWorkers(lambda call: priced(call, tokens), latency=0.0)
    async with serving(folder, settings=settings, workers=workers) as server:
        yield server


async def post(server: TestServer, workflow: str = "answer", inputs: Any = None, **body: Any) -> Any:
    """Sends the request for a run."""
    json = {"workflow": workflow, "inputs": INPUTS if inputs is None else inputs, **body}
    return await server.client.post("/api/runs", json=json)


async def usage(server: TestServer) -> Any:
    """The limits and the spending of the tenant."""
    return (await server.client.get("/api/usage")).json()


async def spent_tokens(server: TestServer) -> int:
    """The tokens of all runs in the journal."""
    report = await server.orchestra.costs()
    return report.total.usage.prompt_tokens + report.total.usage.output_tokens


@settings(max_examples=15, deadline=None)
@given(
    budget=st.integers(1, 1500),
    run=st.none() | st.integers(1, 400),
    stated=st.lists(st.none() | st.integers(1, 400), min_size=1, max_size=12),
    tokens=st.integers(11, CALL_TOKENS),
)
def test_concurrent_runs_never_spend_more_than_the_budget(
    budget: int, run: int | None, stated: list[int | None], tokens: int
) -> None:
    async def check(folder: Path) -> None:
        limits = limited(day=SpendingLimits(tokens=budget), run=SpendingLimits(tokens=run))
        async with priced_server(folder, limits, tokens) as server:
            bodies = [{"options": {"budget": {"tokens": one}}} if one else {} for one in stated]
            replies = await asyncio.gather(*(post(server, "many", MANY, **body) for body in bodies))
            assert {reply.status_code for reply in replies} <= {200, 402, 429}
            assert any(reply.status_code == 200 for reply in replies)
            spent = await spent_tokens(server)
            assert spent <= budget
            found = await usage(server)
            assert (found["day"]["spent"]["tokens"], found["day"]["reserved"]["tokens"]) == (spent, 0)
            assert found["day"]["available"] == {"tokens": budget - spent}

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


async def test_spent_budget_is_402_until_the_end_of_the_period(tmp_path: Path) -> None:
    async with priced_server(tmp_path, limited(month=SpendingLimits(calls=2))) as server:
        first = [(await post(server)).status_code for _ in range(2)]
        refused = await post(server)
        other = await server.client.post(
            "/v1/chat/completions", json={"model": "answer", "messages": [{"role": "user", "content": "When?"}],
                                          "orchestra": {"inputs": {"documents": INPUTS["documents"]}}},
        )  # fmt: skip
        started = await server.orchestra.runs()
    assert first == [200, 200]
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (402, "S024")
    assert "calls for a month" in problem["detail"]
    assert "UTC" in problem["hint"]
    assert 0 < int(refused.headers["retry-after"]) <= 31 * 86_400
    assert (other.status_code, other.json()["error"]["code"]) == (402, "S024")
    assert len(started) == 2


async def test_budget_of_a_run_is_what_it_has_reserved(tmp_path: Path) -> None:
    limits = limited(day=SpendingLimits(tokens=1000), run=SpendingLimits(tokens=2 * CALL_TOKENS))
    async with priced_server(tmp_path, limits) as server:
        answer = (await post(server, "many", MANY)).json()
        nodes = (await server.client.get(f"/api/runs/{answer['id']}/nodes?under=read")).json()["items"]
        found = await usage(server)
    assert sorted(node["status"] for node in nodes) == ["failed", "value", "value"]
    assert found["day"]["spent"]["tokens"] == 2 * CALL_TOKENS


async def test_reservation_of_runs_in_progress_is_429(tmp_path: Path) -> None:
    release, called = asyncio.Event(), asyncio.Event()

    async def answer(call: CallRequest) -> Any:
        called.set()
        await release.wait()
        return priced(call)

    workers = PricedWorkers(answer, latency=0.0)
    limits = limited(day=SpendingLimits(tokens=100), run=SpendingLimits(tokens=80))
    async with serving(tmp_path, settings=limits, workers=workers) as server:
        run = (await post(server, mode="background")).json()["id"]
        await called.wait()
        refused, held = await post(server), await usage(server)
        release.set()
        await server.client.get(f"/api/runs/{run}/answer?wait=60")
        allowed = await post(server)
    assert (refused.status_code, refused.json()["code"]) == (429, "S024")
    assert "options.budget.tokens" in refused.json()["hint"]
    assert (held["day"]["reserved"]["tokens"], held["day"]["available"], held["runs"]) == (80, {"tokens": 20}, 1)
    assert allowed.status_code == 200


async def test_account_survives_a_restart_and_lost_records(tmp_path: Path) -> None:
    limits = limited(day=SpendingLimits(tokens=1000))
    async with priced_server(tmp_path, OPEN) as server:
        await post(server)  # Before there was a limit.
    seen = []
    for _ in range(2):
        async with priced_server(tmp_path, limits) as server:
            await post(server)
            seen.append((await usage(server))["day"]["spent"]["tokens"])
    (tmp_path / "runs.db-server").unlink()
    async with priced_server(tmp_path, limits) as server:
        seen.append((await usage(server))["day"]["spent"]["tokens"])
    assert seen == [2 * CALL_TOKENS, 3 * CALL_TOKENS, 3 * CALL_TOKENS]


async def test_run_that_ends_without_its_server_is_charged_later(tmp_path: Path) -> None:
    limits = limited(day=SpendingLimits(tokens=1000))
    async with priced_server(tmp_path, limits) as server:
        run = (await post(server, "approve", {"draft": "a"})).json()["id"]
    async with Orchestra.open(project(tmp_path), workers=PricedWorkers(priced)) as orchestra:
        await orchestra.cancel(run)
    async with priced_server(tmp_path, limits) as server:
        await server.client.get(f"/api/runs/{run}/answer?wait=60")
        found = await usage(server)
    assert (found["runs"], found["day"]["reserved"]["tokens"]) == (0, 0)


async def test_run_that_does_not_start_holds_no_budget(tmp_path: Path) -> None:
    async with priced_server(tmp_path, limited(day=SpendingLimits(tokens=1000))) as server:
        wrong = await post(server, inputs={"question": 1})
        found = await usage(server)
    assert wrong.status_code == 422
    assert found["day"]["reserved"]["tokens"] == 0


async def test_repeated_request_with_a_key_reserves_once(tmp_path: Path) -> None:
    async with priced_server(tmp_path, limited(day=SpendingLimits(tokens=1000))) as server:
        body = {"workflow": "answer", "inputs": INPUTS}
        replies = [await server.client.post("/api/runs", json=body, headers={"Idempotency-Key": "a"}) for _ in range(3)]
        found = await usage(server)
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert found["day"]["spent"]["tokens"] == CALL_TOKENS


async def test_fork_and_batch_spend_from_the_budget(tmp_path: Path) -> None:
    async with priced_server(tmp_path, limited(day=SpendingLimits(calls=6))) as server:
        run = (await post(server)).json()["id"]
        changed = {"inputs": {"question": "Where?"}}
        forked = await server.client.post(f"/api/runs/{run}/fork", json=changed)
        rows = [{**INPUTS, "question": str(number)} for number in range(6)]
        batch = (await server.client.post("/api/batches", json={"workflow": "answer", "rows": rows})).json()["id"]
        await until(lambda: not server.services.work)
        shown = (await server.client.get(f"/api/batches/{batch}")).json()
        found = await usage(server)
        refused = await server.client.post(f"/api/runs/{run}/fork", json={"inputs": {"question": "Who?"}})
    assert forked.status_code == 200
    assert found["day"]["spent"]["calls"] == 6
    assert shown["counts"] == {"done": 4, "failed": 2}
    assert refused.status_code == 402


async def test_runs_beyond_the_limit_of_concurrent_ones_are_429(tmp_path: Path) -> None:
    async with priced_server(tmp_path, limited(concurrent_runs=1)) as server:
        waiting = (await post(server, "approve", {"draft": "a"})).json()
        beside = await post(server)  # A run that waits for a person does not count.
    release, called = asyncio.Event(), asyncio.Event()

    async def answer(call: CallRequest) -> Any:
        called.set()
        await release.wait()
        return priced(call)

    workers = PricedWorkers(answer, latency=0.0)
    async with serving(tmp_path, settings=limited(concurrent_runs=1), workers=workers) as server:
        run = (await post(server, mode="background")).json()["id"]
        await called.wait()
        refused = await post(server)
        release.set()
        await server.client.get(f"/api/runs/{run}/answer?wait=60")
        allowed = await post(server)
    assert (waiting["status"], beside.status_code) == ("waiting", 200)
    assert (refused.status_code, refused.json()["code"]) == (429, "S022")
    assert int(refused.headers["retry-after"]) > 0
    assert allowed.status_code == 200


async def test_requests_beyond_those_of_a_minute_are_429(tmp_path: Path) -> None:
    settings = ServerSettings(hosts=("*",), tenants={"*": TenantLimits(requests_per_minute=3)})
    async with serving(tmp_path, settings=settings) as server:
        one, other = await server.key("one"), await server.key("other")
        replies = [await server.client.get("/api", headers=one) for _ in range(4)]
        beside = await server.client.get("/api", headers=other)
        server.services.budgets.count_request("one", time.monotonic() + 61)
        metrics = await server.client.get("/metrics", headers=other)
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    assert replies[-1].json()["code"] == "S021"
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 60
    assert beside.status_code == 200
    families = {family.name: family for family in text_string_to_metric_families(metrics.text)}
    refusals = {one.labels["limit"]: one.value for one in families["orchestra_tenant_refusals"].samples}
    assert refusals["requests"] >= 1


async def test_metrics_show_the_largest_used_part_without_names(tmp_path: Path) -> None:
    async with priced_server(tmp_path, limited(day=BUDGET, run=BUDGET)) as server:
        await post(server)
        await usage(server)
        text = (await server.client.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = families["orchestra_tenant_budget_used_ratio"].samples
    assert (sample.labels, sample.value) == ({"period": "day", "amount": "tokens"}, 0.25)
    assert "local" not in text


def test_account_begins_anew_with_each_period() -> None:
    night = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
    before, after = night.timestamp(), (night + timedelta(minutes=2)).timestamp()
    account = Account(day="2026-01-31", month="2026-01", spent_day=Amounts(calls=3), spent_month=Amounts(calls=5))
    account = account.reserve("run", Amounts(calls=4), before)
    later = account.at(after)
    assert (later.spent_day, later.spent_month, later.reserved_in("month")) == (Amounts(), Amounts(), Amounts())
    charged = later.charge("run", Amounts(calls=1))
    assert charged is not None
    assert (charged.spent_day, charged.spent_month, charged.reserved) == (Amounts(), Amounts(), {})
    limits = TenantLimits(day=SpendingLimits(calls=4))
    assert grant(later, limits, Amounts(calls=4), after, ()) == Amounts(calls=4)
    same = account.at(before).charge("run", Amounts(calls=1))
    assert same is not None
    assert (same.spent_day.calls, same.spent_month.calls) == (4, 6)


async def test_reservation_of_a_dead_process_is_released(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    limits = limited(day=SpendingLimits(tokens=100), concurrent_runs=1)
    async with priced_server(tmp_path, limits) as server:
        await usage(server)
        await server.services.budgets.account("local")
    async with open_records(path) as records:
        record = await records.get("account", "local")
        assert record is not None
        account = msgspec.json.decode(record.data, type=Account)
        lost = account.reserve("never-started", Amounts(tokens=100), 0.0)
        await records.replace(record, msgspec.json.encode(lost))
    async with priced_server(tmp_path, limits) as server:
        assert (await post(server)).status_code == 200


def test_limits_of_tenants_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text('[tenants.acme]\nrequests_per_minute = 60\nday = {tokens = 1000}\n[tenants."*"]\n')
    found = read_tenant_limits(path)
    assert found["acme"] == TenantLimits(requests_per_minute=60, day=SpendingLimits(tokens=1000))
    assert found["*"] == TenantLimits()


@pytest.mark.parametrize("text", ["[tenants.acme]\nday = 3\n", "[tenants.acme]\nweek = {}\n", "[tenants", "a = 1\n"])
def test_limits_that_are_invalid_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text(text)
    with pytest.raises(InputError, match="S023"):
        read_tenant_limits(path)
