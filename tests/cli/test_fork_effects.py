"""Forks of runs with effects: effects are recalled and not repeated."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra import Orchestra
from orchestra.app.fork_effects import EffectHistory, effect_tools
from orchestra.core.errors import RunFailed
from orchestra.core.events import AttemptFinished
from orchestra.core.protocols import CallError, CallRequest
from orchestra.core.settings import Settings
from tests.cli.shell import Shell

MODULE = '''
from pathlib import Path

from orchestra import tool

HERE = Path(__file__).parent

@tool(effect="EFFECT")
def pay(item: str, amount: float) -> str:
    """Pays."""
    with (HERE / "paid.txt").open("a") as file:
        file.write(f"{item} {amount:g}\\n")
    return 7 if (HERE / "odd").exists() else f"receipt {item}"

@tool(effect="pure")
def mail(receipt: str) -> str:
    """Mails, where the server is up."""
    if not (HERE / "up").exists():
        raise ConnectionError("smtp down")
    return f"sent {receipt}"

@tool(effect="pure")
def prepare(item: str) -> str:
    """Fails where it is told to."""
    if (HERE / "broken").exists():
        raise ValueError("broken")
    return item
'''
WORKFLOW = """
schema: orchestra/v1
name: buy
input: {items: "list[str]"}
output: ${sent}
nodes:
  ready: {tool: prepare, with: {item: "${input.items[0]}"}, retry: {attempts: 1}}
  paid: {tool: pay, each: "${input.items}", as: item, after: [ready], with: {item: "${item}", amount: 1.0}}
  sent: {tool: mail, with: {receipt: "${paid.values[0]}"}, retry: {attempts: 1}}
"""
LOOPED = """
schema: orchestra/v1
name: buy
input: {items: "list[str]"}
output: ${tip}
nodes:
  paid:
    loop:
      at_most: 1
      until: ${turn == 1}
      output: ${once}
      nodes:
        once: {tool: pay, with: {item: "${input.items[0]}", amount: 1.0}}
  sent: {tool: mail, with: {receipt: "${paid}"}, retry: {attempts: 1}}
  tip: {tool: pay, when: "${size(sent) > 0}", with: {item: "${input.items[0]}", amount: 1.0}}
"""


@pytest.fixture(params=["once"])
def shop(shell: Shell, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that pays and then mails."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a module edited within a second is read again
    sys.modules.pop("shop_tools", None)
    where = shell.project
    (where / "workflows").mkdir()
    (where / "workflows" / "buy.yaml").write_text(WORKFLOW)
    (where / "shop_tools.py").write_text(MODULE.replace("EFFECT", request.param))
    (where / "orchestra.toml").write_text('modules = ["shop_tools"]\njournal = "runs.db"\n')
    return where


@asynccontextmanager
async def opened(shop: Path) -> AsyncIterator[Orchestra]:
    sys.modules.pop("shop_tools", None)  # as in another process
    async with Orchestra.open(Settings.load({"journal": str(shop / "runs.db")}, start=shop)) as orchestra:
        yield orchestra


def paid(shop: Path) -> list[str]:
    return sorted((shop / "paid.txt").read_text().split("\n")[:-1])


async def begun(orchestra: Orchestra, *items: str) -> str:
    """A run that paid and could not mail."""
    run = await orchestra.start(orchestra.find("buy"), items=list(items))
    assert (await run.wait()).status == "failed"
    return run.id


def errors(events: list[Any]) -> dict[str, str]:
    return {event.node: event.error for event in events if isinstance(event, AttemptFinished) and event.error}


async def test_fork_of_a_failed_run_repeats_no_payment(shop: Path) -> None:
    async with opened(shop) as orchestra:
        run = await begun(orchestra, "desk", "lamp")
    (shop / "up").touch()
    module = shop / "shop_tools.py"
    module.write_text(module.read_text().replace('@tool(effect="once")', '@tool(effect="once", version="2")'))
    async with opened(shop) as orchestra:
        assert (await (await orchestra.fork(run)).run).value == "sent receipt desk"
        fewer = await orchestra.fork(run, items=["lamp"])  # another index of the list, but the same payment
        assert (await fewer.run).value == "sent receipt lamp"
    assert paid(shop) == ["desk 1", "lamp 1"]


async def test_fork_repeats_no_payment_of_an_ancestor(shop: Path) -> None:
    async with opened(shop) as orchestra:
        run = await begun(orchestra, "desk")
        (shop / "broken").touch()
        middle = (await orchestra.fork(run, items=["chair"])).run
        assert (await middle.wait()).status == "failed"  # before the payment
        (shop / "broken").unlink()
        (shop / "up").touch()
        assert (await (await orchestra.fork(middle.id, items=["desk"])).run).value == "sent receipt desk"
    assert paid(shop) == ["desk 1"]


async def test_fork_refuses_an_effect_with_other_inputs_without_again(shop: Path) -> None:
    async with opened(shop) as orchestra:
        run = await begun(orchestra, "desk")
        (shop / "up").touch()
        fork = (await orchestra.fork(run, items=["chair"])).run
        with pytest.raises(RunFailed):
            await fork
        assert errors(await orchestra.journal.read(fork.id)) == {"paid[0]": "E024"}
        with pytest.raises(RunFailed):  # the refusal replaces the payment
            await (await orchestra.fork(fork.id)).run
        assert paid(shop) == ["desk 1"]
        assert (await (await orchestra.options(again=True).fork(run)).run).value == "sent receipt desk"
    assert paid(shop) == ["desk 1", "desk 1"]


async def test_fork_repeats_no_payment_with_an_invalid_receipt(shop: Path) -> None:
    (shop / "odd").touch()
    async with opened(shop) as orchestra:
        run = await begun(orchestra, "desk")
        assert errors(await orchestra.journal.read(run)) == {"paid[0]": "T004"}
        (shop / "odd").unlink()
        with pytest.raises(RunFailed):
            await (await orchestra.fork(run)).run
    assert paid(shop) == ["desk 1"]


async def test_fork_pays_a_new_element(shop: Path) -> None:
    async with opened(shop) as orchestra:
        run = await begun(orchestra, "desk")
        (shop / "up").touch()
        await (await orchestra.fork(run, items=["desk", "lamp"])).run
    assert paid(shop) == ["desk 1", "lamp 1"]


async def test_fork_repeats_no_payment_of_a_renamed_node(shop: Path) -> None:
    async with opened(shop) as orchestra:
        run = await begun(orchestra, "desk")
    (shop / "up").touch()
    file = shop / "workflows" / "buy.yaml"
    file.write_text(file.read_text().replace("paid", "payment"))
    async with opened(shop) as orchestra:
        await (await orchestra.fork(run)).run
    assert paid(shop) == ["desk 1"]


async def test_fork_does_not_reuse_a_loop_payment_for_another_node(shop: Path) -> None:
    (shop / "workflows" / "buy.yaml").write_text(LOOPED)
    async with opened(shop) as orchestra:
        run = await begun(orchestra, "desk")
        (shop / "up").touch()
        assert (await (await orchestra.fork(run)).run).value == "receipt desk"
    assert paid(shop) == ["desk 1", "desk 1"]  # once in the loop, by the parent; once for the tip


@pytest.mark.parametrize("shop", ["transactional"], indirect=True)
async def test_fork_does_not_resend_a_recalled_message(shop: Path) -> None:
    async with opened(shop) as orchestra:
        run = await begun(orchestra, "desk")
        (shop / "up").touch()
        await (await orchestra.fork(run)).run
        assert [message.run for message in await orchestra.journal.outbox()] == [run]


async def test_fork_without_its_parent_pays_nothing(shop: Path) -> None:
    async with opened(shop) as orchestra:
        program = orchestra.program(orchestra.find("buy"))
    left = EffectHistory(program, unknown_tools=effect_tools(program))
    call = CallRequest(
        run="r", node="paid[0]", attempt=1, kind="tool", name="pay", inputs={"item": "desk", "amount": 1.0}
    )
    assert isinstance(refused := left.recorded_reply(call), CallError)
    assert refused.code == "E024"
    assert left.recorded_reply(msgspec.structs.replace(call, name="mail")) is None


def test_fork_prints_that_effects_are_recalled(shop: Path, shell: Shell) -> None:
    run = shell("run", "buy", "-i", 'items=["desk"]', "--json").json["run"]
    (shop / "up").touch()
    assert f"orchestra runs fork {run}" in shell("runs", "resume", run).err
    assert shell("runs", "fork", run).out.endswith(f"2 calls recalled from run {run}, 1 made\n")
    said = shell("runs", "fork", run, "-i", 'items=["chair"]')
    assert said.code == 1
    fork = shell("runs", "show", "last", "--json").json["run"]
    assert f"orchestra runs fork {fork} --again" in said.err
    assert shell("runs", "fork", fork, "--again").code == 0, "with the inputs of the fork"
    assert paid(shop) == ["chair 1", "desk 1"]


def test_fallback_does_not_hide_a_skipped_payment(shop: Path, shell: Shell) -> None:
    (shop / "up").touch()
    file = shop / "workflows" / "buy.yaml"
    file.write_text(
        file.read_text()
        .replace(
            'each: "${input.items}", as: item, after: [ready], with: {item: "${item}"',
            'fallback: none, with: {item: "${ready}"',
        )
        .replace("${paid.values[0]}", "${paid}")
    )
    run = shell("run", "buy", "-i", 'items=["desk"]', "--json").json["run"]
    said = shell("runs", "fork", run, "-i", 'items=["chair"]')
    assert (said.code, "E024" in said.err) == (1, True)
    shown = shell("runs", "show", "last")
    assert "paid: its fallback was taken: E024: pay has effects" in shown.out
    assert "fallback" in next(line for line in shown.out.splitlines() if line.startswith("paid "))
    assert "its fallback is used" in shell("runs", "tail", "last", "--no-follow").out
    node = shell("runs", "show", "last", "paid", "--json").json
    assert (node["outcome"]["value"], node["instead"]["code"]) == ("none", "E024")
    assert "its fallback was taken: E024" in shell("runs", "show", "last", "--html", "-").out


def test_question_does_not_hide_a_skipped_payment(shop: Path, shell: Shell) -> None:
    (shop / "up").touch()
    (shop / "workflows" / "buy.yaml").write_text(
        """
schema: orchestra/v1
name: buy
input: {item: str}
output: ${paid}
nodes:
  sure: {ask: "Which one?"}
  paid: {tool: pay, fallback: none, with: {item: "${sure}", amount: 1.0}}
"""
    )
    run = shell("run", "buy", "-i", "item=desk", "--json").json["run"]
    assert shell("runs", "answer", run, "desk").code == 0
    assert shell("runs", "fork", run, "-i", "item=chair").code == 5
    said = shell("runs", "answer", "last", "chair")
    fork = shell("runs", "show", "last", "--json").json["run"]
    assert (said.code, f"orchestra runs fork {fork} --again" in said.err) == (1, True)
    assert shell("runs", "resume", "last").code == 1, "shown again, it is no better"
    assert paid(shop) == ["desk 1"]
