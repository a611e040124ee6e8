"""Lists that a person gives in a fork, where all elements are needed: what is held to their number, and what then comes of the run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestra import InputError
from tests.cli.shell import Shell
from tests.cli.shop import furnished, opened

MODULE = '''
from pathlib import Path

from orchestra import tool

@tool(effect="pure")
def draft(topic: str) -> str:
    """Drafts."""
    return f"about {topic}"

@tool(effect="pure")
def write(lines: list[str]) -> str:
    """Writes."""
    return ", ".join(lines)

@tool(effect="pure")
def split(text: str) -> list[str]:
    """Splits."""
    return text.split()

@tool(effect="once")
def pay(item: str) -> str:
    """Pays."""
    with (Path(__file__).parent / "paid.txt").open("a") as file:
        file.write(f"{item}\\n")
    return f"receipt {item}"
'''
ORDER = """
schema: orchestra/v1
name: order
input: {topics: "list[str]"}
output: ${letter}
nodes:
  lines: {tool: draft, each: "${input.topics}", as: topic, at_least: all, with: {topic: "${topic}"}}
  letter: {tool: write, with: {lines: "${lines.values}"}}
  paid: {tool: pay, after: [letter], with: {item: "${input.topics[0]}"}}
"""


@pytest.fixture
def desk(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    return furnished(shell.project, monkeypatch, "list_tools", MODULE, ORDER)


async def test_a_list_that_a_run_took_before_all_were_counted_holds_on(desk: Path) -> None:
    (desk / "workflows" / "order.yaml").write_text(ORDER.replace("at_least: all, ", ""))
    async with opened(desk) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea", "milk"])
        await run
        taken = (await orchestra.options(values={"lines": ["only one"]}, by="ada").fork(run.id)).run
        assert (await taken).output == "only one"
    (desk / "workflows" / "order.yaml").write_text(ORDER)
    async with opened(desk) as orchestra:
        assert (await (await orchestra.fork(taken.id)).run).output == "only one"
        assert (await (await orchestra.options(values={"lines": ["a", "b"]}).fork(taken.id)).run).output == "a, b"
    assert (desk / "paid.txt").read_text() == "tea\n"


async def test_a_list_that_is_not_all_is_refused_before_anything_begins_where_the_inputs_say_so(desk: Path) -> None:
    async with opened(desk) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea", "milk"])
        await run
        with pytest.raises(InputError, match="the value of lines: 1 element given for the 2 that it goes over") as caught:
            await orchestra.options(values={"lines": ["x"]}).fork(run.id)
        assert caught.value.code == "E033"
        taken = (await orchestra.options(values={"lines": ["a", "b"]}).fork(run.id)).run
        assert (await taken).output == "a, b"
        with pytest.raises(InputError, match=f"lines, given in run {taken.id}: 2 elements given for the 3 that it goes over"):
            await orchestra.fork(taken.id, topics=["tea", "milk", "rice"])
        assert len(await orchestra.runs()) == 2


@pytest.mark.parametrize(
    "after", ['best: {first_of: ["${letter}", "nothing"]}', 'best: {tool: pay, with: {item: "${letter}"}, fallback: "x"}']
)
async def test_no_step_goes_on_without_a_list_that_was_given_and_is_not_all(desk: Path, shell: Shell, after: str) -> None:
    text = ORDER.replace('"${input.topics}"', '"${parts}"').replace("output: ${letter}", "output: ${best}")
    text = text.replace("nodes:", 'nodes:\n  parts: {tool: split, with: {text: "${input.topics[0]}"}}').replace("[letter]", "[best]")
    (desk / "workflows" / "order.yaml").write_text(f"{text}  {after}\n")
    async with opened(desk) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea milk"])
        await run
        paid = (desk / "paid.txt").read_text()
        fork = await orchestra.options(values={"lines": ["x"]}).fork(run.id)
        result = await fork.run.wait()
        assert result.error is not None
        assert (result.status, result.error.code) == ("failed", "E033")
        assert (await orchestra.replay(fork.run.id)).reason == ""
    said = await asyncio.to_thread(shell, "runs", "fork", run.id, "--set", 'lines=["x"]', "--set", "best=y")
    assert (said.code, "1 element given for the 2 that it goes over" in said.out + said.err) == (1, True)
    assert (desk / "paid.txt").read_text() == paid


async def test_where_the_node_would_come_to_nothing_a_persons_list_stands(desk: Path) -> None:
    rules = 'at_least: all, limit: 2, when: "${input.go}"'
    text = ORDER.replace("at_least: all", rules).replace('"list[str]"}', '"list[str]", go: bool}')
    (desk / "workflows" / "order.yaml").write_text(text)
    async with opened(desk) as orchestra:
        order = orchestra.find("order")
        for topics, go, status in ((["a", "b", "c"], True, "failed"), (["a", "b"], False, "abstained")):
            run = await orchestra.start(order, topics=topics, go=go)
            assert (await run.wait()).status == status
            fork = (await orchestra.options(values={"lines": ["x"]}).fork(run.id)).run
            assert (await fork).output == "x"
            assert (await orchestra.replay(fork.id)).reason == ""
        with pytest.raises(InputError, match="1 element given for the 2"):
            await orchestra.options(values={"lines": ["x"]}).fork(run.id, go=True)


async def test_a_value_that_holds_on_is_let_go_where_a_person_says_so_and_never_else(desk: Path, shell: Shell) -> None:
    other = "schema: orchestra/v1\nname: other\ninput: {topics: 'list[str]'}\noutput: ${lines}\nnodes:\n"
    (desk / "workflows" / "other.yaml").write_text(f"{other}  lines: {{tool: draft, with: {{topic: '${{input.topics[0]}}'}}}}\n")
    async with opened(desk) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea", "milk"])
        await run
        held = (await orchestra.options(values={"lines": ["a", "b"], "paid": "r"}, by="ada").fork(run.id)).run
        await held
        let_go = orchestra.options(unset=["paid"])
        with pytest.raises(InputError, match=f"the value of lines, given in run {held.id}: expected str") as caught:
            await let_go.fork(held.id, orchestra.find("other"))
        assert "--set lines=VALUE; without one: --unset lines" in caught.value.hint
        with pytest.raises(InputError, match=f"the value of paid, given in run {held.id}, has no node") as caught:
            await orchestra.options(unset=["lines"]).fork(held.id, orchestra.find("other"))
        assert "without it: --unset paid" in caught.value.hint
        free = await let_go.options(unset=["paid", "lines"]).fork(held.id, orchestra.find("other"))
        assert ((await free.run).output, free.overrides) == ("about tea", {})
        for options, why in (({"unset": ["line"]}, "no value of line"), ({"unset": "lines"}, "a collection of node names")):
            with pytest.raises(InputError, match=why) as caught:
                await orchestra.options(**options).fork(held.id)
            assert caught.value.code == "E033"
        with pytest.raises(InputError, match="lines is in `values` and in `unset`"):
            await orchestra.options(unset=["lines"], values={"lines": ["c", "d"]}).fork(held.id)
        with pytest.raises(InputError, match="`unset` is for a fork"):
            await let_go.resume(held.id)
    said = await asyncio.to_thread(shell, "runs", "fork", held.id, "--unset", "lines")
    assert (said.code, "lines: the value that a person gave it is let go\n" in said.out) == (0, True)
    assert "about tea, about milk" in said.out
    assert (desk / "paid.txt").read_text() == "tea\n"
