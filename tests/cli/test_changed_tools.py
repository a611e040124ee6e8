"""Waiting runs whose tools change."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestra import tool
from orchestra.agents.contract import Contract, is_compatible
from tests.cli.shell import Shell

MODULE = '''
from pathlib import Path

from orchestra import tool

@tool(effect="pure")
def price(item: str) -> float:
    """Prices."""
    return 9.5

@tool(effect="once")
def pay(item: str, amount: float) -> str:
    """Pays."""
    return f"receipt {item}"
'''
WORKFLOW = """
schema: orchestra/v1
name: buy
input: {item: str}
output: {receipt: "${receipt}"}
nodes:
  price: {tool: price, with: {item: "${input.item}"}}
  ok: {ask: "Buy for ${price}?", options: ["yes", "no"]}
  paid: {tool: pay, when: '${ok == "yes"}', with: {item: "${input.item}", amount: "${price}"}}
  receipt: {first_of: ["${paid}", "not bought"]}
"""


@pytest.fixture
def waiting(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that waits for a person."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (shell.project / "workflows").mkdir()
    (shell.project / "workflows" / "buy.yaml").write_text(WORKFLOW)
    (shell.project / "orchestra.toml").write_text('modules = ["desk_tools"]\n')
    written(MODULE)
    run: str = shell("run", "buy", "-i", "item=pen", "--json").json["run"]
    return run


def written(module: str) -> None:
    """Writes the tools, and imports them again."""
    Path("desk_tools.py").write_text(module)
    sys.modules.pop("desk_tools", None)


def changed(old: str, new: str) -> str:
    assert old in MODULE
    return MODULE.replace(old, new)


def test_an_answer_for_another_tool_is_refused_and_the_run_waits_on(waiting: str, shell: Shell) -> None:
    for module in (
        changed("amount: float)", "amount: float, note: str)"),
        changed('"once"', '"keyed"').replace("amount: float)", KEYED),
    ):
        written(module)
        for command in (("answer", waiting, "yes"), ("answer", waiting, "yes", "--later"), ("resume", waiting)):
            said = shell("runs", *command)
            assert (said.code, said.err.partition(":")[0]) == (2, "T009")
            assert f"orchestra runs fork {waiting}" in said.err
        assert [run["status"] for run in shell("runs", "list", "--json").json] == ["waiting"]
    written(MODULE)
    assert shell("runs", "answer", waiting, "yes", "--json").json["output"] == {"receipt": "receipt pen"}


KEYED = 'amount: float, *, idempotency_key: str = "")'


def test_a_tool_that_is_gone_leaves_the_run_waiting(waiting: str, shell: Shell) -> None:
    written(MODULE[: MODULE.index('@tool(effect="once")')])
    said = shell("runs", "answer", waiting, "yes")
    assert (said.code, said.err.partition(":")[0]) == (2, "T005")
    written(MODULE)
    assert shell("runs", "resume", waiting, "--json").json["output"] == {
        "receipt": "receipt pen"
    }  # the answer was not lost


def test_an_input_that_can_be_left_out_changes_nothing(waiting: str, shell: Shell) -> None:
    written(changed("amount: float)", 'amount: float, note: str = "")'))
    assert shell("runs", "answer", waiting, "yes", "--json").json["output"] == {"receipt": "receipt pen"}
    assert shell("runs", "replay", waiting).code == 0


def test_a_tool_that_has_done_its_part_may_change(waiting: str, shell: Shell) -> None:
    written(changed("def price(item: str) -> float", "def price(item: str, year: int) -> float"))
    assert shell("runs", "answer", waiting, "yes", "--json").json["output"] == {"receipt": "receipt pen"}


def contract(**changes: Any) -> Contract:
    @tool(effect="pure")
    def find(query: str, top: int = 3) -> list[str]:
        """Finds."""
        return [query] * top

    return replace(find.contract, digest="", **changes).with_digest()


def test_which_contracts_serve_calls_of_others() -> None:
    then = contract()
    properties, required = then.input["properties"], then.input["required"]
    more = {**then.input, "properties": {**properties, "year": {"type": "integer"}}}
    assert is_compatible(then, then)
    assert is_compatible(contract(input=more), then)
    assert is_compatible(contract(input={**then.input, "required": []}), then)
    assert not is_compatible(contract(input={**more, "required": [*required, "year"]}), then)
    assert not is_compatible(then, contract(input=more))  # a removed one
    assert not is_compatible(
        contract(input={**then.input, "properties": {**properties, "top": {"type": "string"}}}), then
    )
    for other in (contract(effect="once"), contract(version="2"), contract(output={"type": "string"})):
        assert not is_compatible(other, then)
