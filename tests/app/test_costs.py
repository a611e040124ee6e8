"""Costs of runs, summed up: every call counts once, and a call without a known price is not free."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra import Orchestra
from orchestra.app.costs import COST_KEYS, CostKey, CostReport, CostRow, costs, fleet_servers, unpriced_server
from orchestra.core.errors import InputError
from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    AttemptStarted,
    Event,
    PlanDraft,
    RunFinished,
    RunResumed,
    RunStarted,
    TurnStarted,
    Usage,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import Journal
from orchestra.core.settings import Settings
from orchestra.fleet.config import parse_config
from orchestra.journal.costs import CostCounter
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers
from tests.cli.stage import GOOD, TEXT, furnish

FLEET = parse_config(
    """\
schema: orchestra/fleet/v1
name: several
servers:
  paid: {endpoint: "http://127.0.0.1:9/v1", model: m, price: {prompt: 1, output: 2}}
  given: {endpoint: "http://127.0.0.1:9/v1", model: m, price: {prompt: 0, output: 0}}
  gateway: {endpoint: "http://127.0.0.1:9/v1", model: m}
  ours: {endpoint: "http://127.0.0.1:9/v1", model: m, external: false}
models: {base: paid}
""",
    "several.yaml",
).servers
DAY = 86_400.0


def used(tokens: int = 10, money: float = 0.0) -> Usage:
    return Usage(prompt_tokens=tokens, output_tokens=1, calls=1, seconds=0.5, money=money)


def run_of(
    name: str, *told: Mapping[str, Any], workflow: str = "w", at: float = DAY, ended: bool = True, **began: Any
) -> list[Event]:
    """A run with these calls, each started before it ended; `open` is a call without an end."""
    found: list[Event] = [RunStarted(seq=1, at=at, run=name, workflow=workflow, graph="", inputs={}, **began)]
    for number, call in enumerate(told):
        node, attempt = f"n{number}", 1
        found.append(
            AttemptStarted(seq=len(found) + 1, at=at, node=node, attempt=attempt, name=call.get("name", "reader"))
        )
        if not call.get("open"):
            more = {key: value for key, value in call.items() if key not in ("name", "open")}
            found.append(
                AttemptFinished(seq=len(found) + 1, at=at, node=node, attempt=attempt, **{"usage": used(), **more})
            )
    if ended:
        found.append(RunFinished(seq=len(found) + 1, at=at + 1, status="done", outcome=ValueOutcome(1)))
    return found


async def summed(*runs: list[Event], by: Any = "workflow", **more: Any) -> CostReport:
    return await costs(kept(*runs), FLEET, by, **more)


def kept(*runs: list[Event]) -> MemoryJournal:
    journal = MemoryJournal()
    for events in runs:
        assert isinstance(events[0], RunStarted)
        journal.append(events[0].run, events)
    return journal


def named(found: CostReport) -> dict[str, CostRow]:
    return {"/".join(row.group.values()): row for row in found.rows}


async def test_costs_summed_by_workflow_and_agent() -> None:
    runs = (
        run_of("r1", {"name": "reader"}, {"name": "reader"}, {"name": "search", "usage": Usage(calls=1, seconds=0.1)}),
        run_of("r2", {"name": "reader", "usage": used(30)}, workflow="v"),
        run_of("r3", workflow="v"),
    )
    found = named(await summed(*runs))
    assert {
        name: (row.cost.runs, row.cost.usage.calls, row.cost.usage.prompt_tokens) for name, row in found.items()
    } == {
        "v": (2, 1, 30),
        "w": (1, 3, 20),
    }
    agents = await summed(*runs, by="agent")
    assert {name: (row.cost.runs, row.cost.usage.calls) for name, row in named(agents).items()} == {
        "reader": (2, 3),
        "search": (1, 1),
    }
    assert (agents.total.runs, agents.total.usage.calls) == (3, 4)


async def test_costs_immediate_call_attributed_to_name() -> None:
    at_once = AttemptFinished(seq=2, at=1.0, node="a", attempt=1, name="search", usage=used())
    found = await summed([RunStarted(seq=1, at=1.0, run="r", workflow="w", graph="", inputs={}), at_once], by="agent")
    assert list(named(found)) == ["search"]


async def test_costs_recalled_answers_counted_free() -> None:
    found = await summed(run_of("r1", {}, {"reused_from": "r0", "usage": NO_USAGE, "server": "gateway"}))
    assert (found.total.reused, found.total.usage, found.total.unpriced) == (1, used(), {})


@pytest.mark.parametrize(
    ("server", "usage", "why"),
    [
        ("paid", used(money=0.5), ""),
        ("paid", used(), "paid"),  # its price was recorded later
        ("gateway", used(), "gateway"),
        ("gateway", used(money=0.5), ""),  # its price was removed later
        ("gateway", Usage(calls=1), ""),  # no model received it
        ("given", used(), ""),
        ("ours", used(), ""),
        ("elsewhere", used(), "elsewhere"),
        ("local", used(), ""),
        ("", used(), ""),
        ("ours+gateway", used(), "gateway"),
        ("paid+gateway", used(money=0.5), "gateway"),
        ("paid+ours", used(money=0.5), ""),
    ],
)
def test_costs_unpriced_call_names_server(server: str, usage: Usage, why: str) -> None:
    assert unpriced_server(FLEET)(server, usage) == why


async def test_costs_money_unknown_without_price() -> None:
    paid, gateway = {"server": "paid", "usage": used(money=0.5)}, {"server": "gateway"}
    found = named(
        await summed(
            run_of("r1", gateway, gateway), run_of("r2", gateway, paid, workflow="v"), run_of("r3", workflow="u")
        )
    )
    assert {name: (row.cost.money, row.cost.unpriced) for name, row in found.items()} == {
        "w": (None, {"gateway": 2}),
        "v": (0.5, {"gateway": 1}),
        "u": (0.0, {}),
    }


async def test_costs_unfinished_calls_counted_per_attempt() -> None:
    events = run_of("r1", {"open": True}, ended=False)
    events += [
        RunResumed(seq=3, at=2.0, epoch=2),
        AttemptStarted(seq=4, at=2.0, node="n0", attempt=1, name="reader"),
        AttemptFinished(seq=5, at=3.0, node="n0", attempt=1, usage=used()),
        AttemptStarted(seq=6, at=3.0, node="n1", attempt=1, name="search"),
    ]
    found = await summed(events, by="agent")
    assert {name: (row.cost.open, row.cost.usage.calls) for name, row in named(found).items()} == {
        "reader": (1, 1),
        "search": (1, 0),
    }
    assert (found.total.open, found.unfinished) == (2, 1)


async def test_costs_cached_plans_report_savings() -> None:
    saved = Usage(calls=3, prompt_tokens=40, output_tokens=2)
    first = run_of(
        "r1",
        options={"planned": {"run": "r0", "saved": {"calls": 1, "prompt_tokens": 5, "output_tokens": 0}}},
        ended=False,
    )
    again = TurnStarted(seq=2, at=2.0, node="solve", turn=1, draft=PlanDraft(None, reused_from="r0", saved_usage=saved))
    found = await summed([*first, again])
    assert (found.reused_plans, found.saved_usage) == (2, saved + Usage(calls=1, prompt_tokens=5))


@pytest.mark.parametrize(
    ("by", "name"),
    [
        ("label", "public"),
        ("purpose", "evaluation"),
        ("run", "r1"),
        ("status", "done"),
        ("server", "paid"),
        ("model", "m"),
        ("month", "1970-01"),
    ],
)
async def test_costs_each_key_has_names(by: CostKey, name: str) -> None:
    call = {"server": "paid", "model": "m", "usage": used(money=1.0)}
    found = await summed(run_of("r1", call, at=10 * DAY, label="public", options={"purpose": "evaluation"}), by=by)
    assert [row.group for row in found.rows] == [{by: name}]
    assert (await summed(run_of("r2", call, ended=False), by="status")).rows[0].group == {"status": "running"}


async def test_costs_days_in_order_others_by_cost() -> None:
    runs = [
        run_of("r1", {"usage": used(10)}, at=10.5 * DAY),
        run_of("r2", {"usage": used(99)}, at=12.5 * DAY),
        run_of("r3", {"usage": used(50)}, at=11.5 * DAY),
        run_of("r4", {"usage": used(70)}, at=11.5 * DAY, workflow="v"),
        run_of("r5", {"usage": used(1, money=0.1)}, at=10.5 * DAY, workflow="u"),
    ]
    days = ["1970-01-11/u", "1970-01-11/w", "1970-01-12/v", "1970-01-12/w", "1970-01-13/w"]
    assert list(named(await summed(*runs, by=("day", "workflow")))) == days
    order = ["u/1970-01-11", "w/1970-01-11", "w/1970-01-12", "w/1970-01-13", "v/1970-01-12"]
    assert list(named(await summed(*runs, by=("workflow", "day")))) == order


@pytest.mark.parametrize(
    ("more", "runs"),
    [
        ({}, 3),
        ({"since": datetime.fromtimestamp(11 * DAY, UTC)}, 2),
        ({"until": datetime.fromtimestamp(11 * DAY, UTC)}, 1),
        ({"since": timedelta(days=1)}, 1),
        ({"until": timedelta(days=1)}, 2),
        ({"workflow": "v"}, 1),
    ],
)
async def test_costs_filtered_by_time_or_name(more: dict[str, Any], runs: int) -> None:
    now = datetime.now(UTC).timestamp()
    assert (
        await summed(run_of("r1", at=10 * DAY), run_of("r2", at=11 * DAY), run_of("r3", at=now, workflow="v"), **more)
    ).total.runs == runs


@pytest.mark.parametrize(
    ("by", "hint"), [("agnt", "did you mean 'agent'?"), ((), "one of: workflow, agent"), (("day", "cost"), "one of:")]
)
async def test_costs_unknown_key_refused(by: Any, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        await summed(by=by)
    assert caught.value.code == "C043"
    assert caught.value.hint.startswith(hint)


async def test_costs_run_without_start_skipped_and_named() -> None:
    counting = CostCounter(("workflow",), unpriced_server(FLEET))
    counting.add_events("r1", [RunResumed(seq=1, at=1.0, epoch=1)])
    counting.add_events("r2", run_of("r2", {}, at=1e300))
    found = counting.report()
    assert ([left.run for left in found.unreadable], found.total.runs) == (["r1"], 1)
    counting = CostCounter(("day",), unpriced_server(FLEET))
    counting.add_events("r2", run_of("r2", {}, at=1e300))
    assert counting.report().rows[0].group == {"day": "1e+300"}


class Plain:
    """A user's own journal that cannot iterate over runs: it implements only the methods that costs need."""

    def __init__(self, inner: Journal) -> None:
        self.list_runs, self.read = inner.list_runs, inner.read


async def test_costs_custom_journal_gives_same_totals() -> None:
    journal: Any = kept(
        run_of("r1", {}, at=10 * DAY), run_of("r2", {"server": "gateway"}, at=12 * DAY), run_of("r3", {}, at=11 * DAY)
    )
    plain: Any = Plain(journal)
    for since in (None, datetime.fromtimestamp(11 * DAY, UTC)):
        assert await costs(plain, FLEET, COST_KEYS, since=since) == await costs(journal, FLEET, COST_KEYS, since=since)


CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["reader", "search"]),
            "server": st.sampled_from(["", "paid", "gateway"]),
            "usage": st.builds(used, st.integers(0, 50), st.sampled_from([0.0, 0.25])),
            "open": st.booleans(),
        }
    ),
    max_size=5,
)


@given(
    st.lists(st.tuples(CALLS, st.sampled_from("vw")), max_size=5),
    st.lists(st.sampled_from(COST_KEYS), min_size=1, max_size=3),
)
def test_costs_rows_add_up_to_total(told: list[tuple[list[dict[str, Any]], str]], by: list[CostKey]) -> None:
    counting = CostCounter(tuple(dict.fromkeys(by)), unpriced_server(FLEET))
    runs = [run_of(f"r{number}", *called, workflow=workflow) for number, (called, workflow) in enumerate(told)]
    for number, events in enumerate(runs):
        counting.add_events(f"r{number}", events)
    found = counting.report()
    assert sum((row.cost.usage for row in found.rows), NO_USAGE) == found.total.usage
    assert sum(row.cost.open for row in found.rows) == found.total.open
    assert sum(sum(row.cost.unpriced.values()) for row in found.rows) == sum(found.total.unpriced.values())
    assert found.total.runs == len(runs)
    finished = [event for events in runs for event in events if isinstance(event, AttemptFinished)]
    assert found.total.usage == sum((event.usage for event in finished), NO_USAGE)


@pytest.fixture
async def orchestra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Orchestra]:
    monkeypatch.chdir(tmp_path)
    furnish()
    async with Orchestra.open(
        Settings.load({"journal": "runs.db"}), workers=SimulatedWorkers({"answerer": GOOD})
    ) as opened:
        yield opened


async def test_costs_of_open_orchestra(orchestra: Orchestra) -> None:
    results = [await orchestra.run(orchestra.find("ask"), question=f"When {number}?", text=TEXT) for number in range(3)]
    found = await orchestra.costs("agent", since=timedelta(hours=1))
    assert named(found)["answerer"].cost.usage == sum((result.usage for result in results), NO_USAGE)
    assert (found.total.runs, found.total.money, found.total.unpriced) == (3, None, {"simulated": 3})
    assert (await orchestra.costs(until=timedelta(hours=1))).rows == ()


@pytest.mark.parametrize("wrong", ["30d", 0, 5.0, datetime.min, timedelta.max])
async def test_costs_invalid_time_refused(tmp_path: Path, wrong: Any) -> None:
    async with Orchestra.open(
        Settings.load({"journal": str(tmp_path / "runs.db")}, start=tmp_path), fleet="none"
    ) as orchestra:
        for told in ({"since": wrong}, {"until": wrong}):
            with pytest.raises(InputError) as caught:
                await orchestra.costs(**told)
            assert caught.value.code == "C010"
        either: Any = "tool"
        assert (await orchestra.costs(either, since=date(2026, 1, 1))).group_by == ("agent",)


def test_costs_packaged_fleets_price_only_free_servers(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    own = (
        "schema: orchestra/fleet/v1\n"
        "name: own\n"
        'servers: {mine: {endpoint: "http://127.0.0.1:9/v1", model: m}}\n'
        "models: {base: mine}\n"
    )
    (tmp_path / "configs" / "own.yaml").write_text(own)
    (tmp_path / "orchestra.toml").write_text('fleet = "own"\n')
    known = fleet_servers(Settings.load(start=tmp_path, environ={}))
    assert {"mine", "smol"} <= set(known), "runs on the package's own server cost nothing"
    assert "server" not in known, "a copy of its template for endpoints may have any price"
