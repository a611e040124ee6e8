"""What a person gives in the place of a step: of a call in doubt what it gave, of a fork what a node comes to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra import InputError, Orchestra
from orchestra.cli import asking
from orchestra.config import Settings
from orchestra.events import Answered, Asked, AttemptFinished, CancelRequested, Event, Given, Resumed
from orchestra.journal.history import History
from orchestra.values.outcome import Failed
from tests.cli.shell import Shell

MODULE = '''
import os
from pathlib import Path

from pydantic import BaseModel

from orchestra import tool

HERE = Path(__file__).parent

class Receipt(BaseModel):
    number: int
    item: str

@tool(effect="once")
def pay(item: str) -> Receipt:
    """Pays."""
    with (HERE / "paid.txt").open("a") as file:
        file.write(f"{item}\\n")
    if (HERE / "die").exists():
        os._exit(9)
    return Receipt(number=1, item=item)

@tool(effect="pure")
def draft(topic: str) -> str:
    """Drafts."""
    with (HERE / "drafted.txt").open("a") as file:
        file.write(f"{topic}\\n")
    return f"about {topic}"

@tool(effect="pure")
def write(lines: list[str], receipt: Receipt) -> str:
    """Writes."""
    return f"{', '.join(lines)}; {receipt.item} {receipt.number}"
'''
WORKFLOW = """
schema: orchestra/v1
name: order
input: {topics: "list[str]"}
output: ${letter}
nodes:
  allowed: {ask: "Order about ${input.topics[0]}?", options: ["yes", "no"]}
  paid: {tool: pay, after: [allowed], with: {item: "${input.topics[0]}"}}
  lines: {tool: draft, each: "${input.topics}", as: topic, with: {topic: "${topic}"}}
  letter: {tool: write, with: {lines: "${lines.values}", receipt: "${paid}"}}
  sure: {ask: "Send ${letter}?", options: ["yes", "no"]}
"""

NOTE = """
schema: orchestra/v1
name: note
output: {it: "${note}"}
nodes:
  note: {ask: "What is noted?", returns: "str | null"}
"""


@pytest.fixture
def shop(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("given_tools", None)
    (shell.project / "workflows").mkdir()
    (shell.project / "workflows" / "order.yaml").write_text(WORKFLOW)
    (shell.project / "given_tools.py").write_text(MODULE)
    (shell.project / "orchestra.toml").write_text('modules = ["given_tools"]\njournal = "runs.db"\n')
    return shell.project


@asynccontextmanager
async def opened(shop: Path) -> AsyncIterator[Orchestra]:
    async with Orchestra.open(Settings.load({"journal": str(shop / "runs.db")}, start=shop)) as orchestra:
        yield orchestra


async def ended(shop: Path, *topics: str) -> str:
    """A run of which both questions are answered."""
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=list(topics))
        for node in ("allowed", "sure"):
            await run.pause()
            await orchestra.answer(run.id, "yes", node=node, by="ada")
        assert (await run.wait()).status == "done"
    return run.id


def rows(events: list[Event]) -> dict[str, tuple[str, Any]]:
    return {row.path: (row.came_to, getattr(row.outcome, "value", None)) for row in History.of(events).rows}


async def doubtful(shop: Path) -> str:
    """A run whose process died between its payment and the answer of that."""
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        assert await run.pause() is None
    (shop / "die").touch()
    command = (sys.executable, "-m", "orchestra.cli", "runs", "answer", run.id, "yes", "--by", "ada")
    died = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, timeout=60)
    assert died.returncode == 9
    (shop / "die").unlink()
    return run.id


async def test_what_a_call_in_doubt_gave_is_said_by_a_person_and_stands_in_forks_too(shop: Path, shell: Shell) -> None:
    run = await doubtful(shop)
    said = await asyncio.to_thread(shell, "runs", "resume", run)
    assert said.code == 5
    assert "or what it gave, where it happened: a value of type Receipt, as JSON" in said.out
    assert f"or: orchestra runs answer {run} --to " in said.out
    wrong = await asyncio.to_thread(shell, "runs", "answer", run, "--node", "paid", "--gave", '{"number": "seven"}')
    assert wrong.code == 2
    assert "E022: paid of run" in wrong.err
    assert "what the call gave is a value of type Receipt" in wrong.err
    (shop / "receipt.json").write_text('{"number": 7, "item": "tea"}')
    text = await asyncio.to_thread(shell, "runs", "answer", run, "--node", "paid", "--gave", "seven")
    assert "C024: paid gives a value of type Receipt" in text.err
    both = await asyncio.to_thread(shell, "runs", "answer", run, "again", "--node", "paid", "--gave", "7")
    assert both.code == 2
    done = await asyncio.to_thread(shell, "runs", "answer", run, "--node", "paid", "--gave", "@receipt.json", "--by", "ada")
    assert done.code == 5, done.err  # the letter is asked about
    assert "Send about tea; tea 7?" in done.out
    assert (await asyncio.to_thread(shell, "runs", "answer", run, "yes", "--node", "sure")).code == 0
    assert (shop / "paid.txt").read_text() == "tea\n"
    shown = (await asyncio.to_thread(shell, "runs", "show", run)).out
    assert "paid: it happened, as ada says, and gave" in shown
    assert " given " in shown
    node = (await asyncio.to_thread(shell, "runs", "show", run, "paid")).out
    assert "given by ada" in node
    assert "under way" not in node
    async with opened(shop) as orchestra:
        events = list(await orchestra.journal.read(run))
        (answer,) = [event for event in events if isinstance(event, Answered) and event.gave]
        assert (answer.by, answer.value) == ("ada", {"number": 7, "item": "tea"})
        assert (await orchestra.replay(run)).reason == ""
        assert (await orchestra.whatif(run)).verdict == "same"
        forked = (await orchestra.fork(run)).run
        for node_ in ("allowed", "sure"):
            await forked.pause()
            await orchestra.answer(forked.id, "yes", node=node_)
        result = await forked
        assert result.output == "about tea; tea 7"
        recalled = [event for event in await orchestra.journal.read(forked.id) if isinstance(event, AttemptFinished) and event.given]
        assert [(event.node, event.given) for event in recalled] == [("paid", Given("ada", run))]
        assert rows(list(await orchestra.journal.read(forked.id)))["paid"][0] == "given"
        (claim,) = result.claims
        assert "ada" in claim.unsupported
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_who_said_not_to_call_again_is_told_how_it_goes_on(shop: Path, shell: Shell) -> None:
    run = await doubtful(shop)
    await asyncio.to_thread(shell, "runs", "resume", run)
    said = await asyncio.to_thread(shell, "runs", "answer", run, "fail", "--node", "paid")
    assert said.code == 1
    async with opened(shop) as orchestra:
        outcome = History.of(await orchestra.journal.read(run)).outcome
        assert isinstance(outcome, Failed)
        assert (outcome.code, outcome.hint) == (
            "E016",
            "see what it has done; to call it again: orchestra runs fork RUN --again; "
            "to say what it gave: orchestra runs fork RUN --set paid=VALUE",
        )
        fork = await orchestra.options(values={"paid": {"number": 7, "item": "tea"}}).fork(run)
        assert await fork.run.pause() is None
        assert "Send about tea; tea 7?" in fork.run.asked[0].question
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_a_fork_takes_a_nodes_value_from_a_person_and_makes_anew_what_depends_on_it(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea", "milk")
    (shop / "drafted.txt").unlink()
    async with opened(shop) as orchestra:
        told = orchestra.options(values={"lines": ["no tea", "no milk"]}, by="bob")
        fork = await told.fork(run)
        assert {path: one.given for path, one in fork.given.items()} == {"allowed": Given("ada", run), "lines": Given("bob")}
        assert await fork.run.pause() is None
        assert [asked.node for asked in fork.run.asked] == ["sure"]  # it depends on the lines; whether it is allowed does not
        assert fork.run.asked[0].question == "Send no tea, no milk; tea 1?"
    # its process is gone; another one goes on
    async with opened(shop) as orchestra:
        again = await orchestra.resume(fork.run.id)
        await again.pause()
        await orchestra.answer(again.id, "yes")
        result = await again
        events = list(await orchestra.journal.read(again.id))
        assert (await orchestra.replay(again.id)).reason == ""
        assert (await orchestra.whatif(again.id)).verdict == "same"
        assert result.output == "no tea, no milk; tea 1"
        (claim,) = result.claims
        assert claim.unsupported == "a person gave it: bob (lines)"
        held = await orchestra.fork(again.id)
        assert {path: one.given for path, one in held.given.items()} == {"lines": Given("bob", again.id)}
        held.run.cancel()
        await held.run.wait()
    found = rows(events)
    assert found["lines"] == ("given", ["no tea", "no milk"])
    assert found["allowed"] == ("given", "yes")
    assert found["paid"] == ("done", {"number": 1, "item": "tea"})
    assert not (shop / "drafted.txt").exists()
    assert (shop / "paid.txt").read_text() == "tea\n"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"lives": []}, "has no node 'lives'"),
        ({"lines[0]": "x"}, r"lines\[0\] stands inside of lines"),
        ({"lines": "x"}, "the value of lines"),
        ({"paid": {"number": "x", "item": "tea"}}, "the value of paid"),
        ({"allowed": "perhaps"}, "the value of allowed"),
    ],
)
async def test_a_value_that_no_node_takes_is_refused_before_anything_begins(shop: Path, values: dict[str, Any], why: str) -> None:
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        with pytest.raises(InputError, match=why) as caught:
            await orchestra.options(values=values).fork(run)
        assert caught.value.code == "E033"
        assert len(await orchestra.runs()) == 1


async def test_one_key_is_one_fork_with_one_value(shop: Path) -> None:
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        first = await orchestra.options(values={"letter": "one", "sure": "no"}, idempotency_key="k").fork(run)
        assert (await first.run).output == "one"
        again = await orchestra.options(values={"letter": "one", "sure": "no"}, idempotency_key="k").fork(run)
        assert again.run.id == first.run.id
        with pytest.raises(InputError, match=r"belongs to run k\w+, which has other given values"):
            await orchestra.options(values={"letter": "two", "sure": "no"}, idempotency_key="k").fork(run)


async def test_at_the_shell_a_value_is_a_text_json_or_a_file(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    (shop / "lines.json").write_text('["a", "b"]')
    said = await asyncio.to_thread(
        shell,
        "runs",
        "fork",
        run,
        "--set",
        "lines=@lines.json",
        "--set",
        'paid={"number": 9, "item": "cake"}',
        "--set",
        "sure=yes",
        "--by",
        "bob",
    )
    assert said.code == 0, said.err
    assert "lines: the value is given by bob\n" in said.out
    assert f"allowed: the answer is given by ada, in run {run}\n" in said.out
    assert "paid: pay has effects, and is not called\n" in said.out
    assert "a, b; cake 9" in said.out
    assert (shop / "paid.txt").read_text() == "tea\n"
    events = (await asyncio.to_thread(shell, "runs", "show", "last", "--json")).json["events"]
    assert events[0]["given"]["lines"] == {"value": ["a", "b"], "given": {"by": "bob"}}
    page = shop / "page.html"
    assert (await asyncio.to_thread(shell, "runs", "show", "last", "--html", str(page))).code == 0
    assert "given by bob" in page.read_text()
    told = (await asyncio.to_thread(shell, "runs", "tail", "last")).out
    assert "lines: given by bob" in told
    unknown = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "line=x")
    assert (unknown.code, "did you mean 'lines'?" in unknown.err) == (2, True)
    bad = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "lines=x")
    assert "C012: lines gives list[str]" in bad.err
    assert [event["type"] for event in events][-1] == "run_finished"


def test_at_the_terminal_a_line_says_what_a_call_in_doubt_gave() -> None:
    gives = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    asked = Asked(
        seq=1, at=0.0, node="paid", question="Again?", schema={}, shown="s", options=("again", "fail"), about="effect", gives=gives
    )
    assert asking.said_at_terminal("r", asked, '/gave {"number": 7}\n') == ({"number": 7}, True)
    assert asking.said_at_terminal("r", asked, "1\n") == ("again", False)
    with pytest.raises(InputError) as caught:
        asking.said_at_terminal("r", asked, "/gave\n")
    assert caught.value.code == "C024"
    older = msgspec.structs.replace(asked, gives=None)
    assert asking.gave_command("r", older) is None
    assert asking.said_at_terminal("r", older, "/gave 7\n") == ("/gave 7", False)  # which is none of its options


async def test_who_gives_a_value_is_said_with_the_value(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    said = await asyncio.to_thread(shell, "runs", "fork", run, "--by", "bob")
    assert said.code == 2
    assert "C010: --by says who gives a value" in said.err
    twice = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "letter=a", "--set", "letter=b")
    assert "C010: --set gives letter twice" in twice.err


async def test_a_payment_that_a_fork_may_not_repeat_is_given(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    refused = await asyncio.to_thread(shell, "runs", "fork", run, "-i", 'topics=["cake"]', "--set", "allowed=yes")
    assert "orchestra runs fork RUN --set paid=VALUE" in refused.out + refused.err
    receipt = '{"number": 3, "item": "cake"}'
    more = ("--set", "allowed=yes", "--set", f"paid={receipt}", "--set", "sure=yes")
    said = await asyncio.to_thread(shell, "runs", "fork", run, "-i", 'topics=["cake"]', *more)
    assert said.code == 0, said.err
    assert "about cake; cake 3" in said.out
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_a_value_whose_node_was_renamed_is_not_dropped_and_its_tool_not_called(shop: Path) -> None:
    run = await ended(shop, "tea")
    receipt = {"number": 3, "item": "cake"}
    async with opened(shop) as orchestra:
        told = orchestra.options(values={"allowed": "yes", "paid": receipt, "sure": "yes"}, by="ada")
        fork = await told.fork(run, topics=["cake"])
        assert (await fork.run).output == "about cake; cake 3"
    renamed = WORKFLOW.replace("paid", "receipt")
    (shop / "workflows" / "order.yaml").write_text(renamed)
    (shop / "workflows" / "other.yaml").write_text(renamed.replace("name: order", "name: other"))
    async with opened(shop) as orchestra:
        for values in ({}, {"letter": "x"}, {"reciept": receipt}):
            with pytest.raises(InputError, match=f"the value of paid, given in run {fork.run.id}, has no node any more in order") as caught:
                await orchestra.options(values=values).fork(fork.run.id)
            assert (caught.value.code, "--set receipt=VALUE" in caught.value.hint) == ("E033", True)
        anew = await orchestra.options(values={"receipt": receipt}, by="ada").fork(fork.run.id)
        assert (await anew.run).output == "about cake; cake 3"
        with pytest.raises(InputError, match=f"the value of paid, given in run {fork.run.id}, has no node any more in other"):
            await orchestra.fork(fork.run.id, orchestra.find("other"))
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_an_answer_that_depends_on_nothing_changed_is_kept_in_a_fork_of_a_fork_too(shop: Path) -> None:
    (shop / "workflows" / "order.yaml").write_text(WORKFLOW + '  note: {tool: draft, with: {topic: "${input.topics[0]}"}}\n')
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        told = orchestra.options(values={"lines": ["one"]}, by="bob")
        first = (await told.fork(run)).run
        await first.pause()
        await orchestra.answer(first.id, "yes", by="eve")
        await first
        second = await orchestra.options(values={"note": "two"}, by="bob").fork(first.id)
        assert {path: one.given for path, one in second.given.items()} == {
            "allowed": Given("ada", run),
            "lines": Given("bob", first.id),  # it holds on, and `sure`, which depends on it, was asked with it
            "sure": Given("eve", first.id),
            "note": Given("bob"),
        }
        await second.run
        third = await orchestra.options(values={"lines": ["three"]}, by="bob").fork(second.run.id)
        assert third.given.keys() == {"allowed", "lines", "note"}
        third.run.cancel()
        await third.run.wait()


APPROVED = """
schema: orchestra/v1
name: order
input: {topics: "list[str]"}
output: ${done}
nodes:
  chosen: {tool: draft, with: {topic: "${input.topics[0]}"}}
  note: {tool: draft, with: {topic: "${input.topics[0]}"}}
  allowed: {ask: "Pay?", options: ["yes", "no"]}
  paid: {when: "${allowed == 'yes'}", tool: pay, with: {item: "${chosen}"}}
  done: {tool: write, with: {lines: ["${note}"], receipt: "${paid}"}}
"""


@pytest.mark.parametrize(
    ("workflow", "values", "kept"),
    [
        (APPROVED, {"chosen": "gold"}, set()),
        (APPROVED.replace("when: \"${allowed == 'yes'}\"", "after: [allowed]"), {"chosen": "gold"}, set()),
        (APPROVED.replace("{when: \"${allowed == 'yes'}\",", "{").replace("{item", "{item"), {"chosen": "gold"}, {"allowed"}),
        (APPROVED, {"note": "other"}, {"allowed"}),
        (APPROVED, {"chosen": "gold", "paid": {"number": 7, "item": "gold"}}, {"allowed"}),
    ],
    ids=["a condition", "an order", "nothing waits for it", "no effect reads it", "nothing is called"],
)
async def test_what_somebody_allowed_is_asked_again_where_it_would_happen_with_something_else(
    shop: Path, workflow: str, values: dict[str, Any], kept: set[str]
) -> None:
    (shop / "workflows" / "order.yaml").write_text(workflow)
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        await run.pause()
        await orchestra.answer(run.id, "yes", by="ann")
        assert (await run).status == "done"
        fork = await orchestra.options(values=values, by="mallory").fork(run.id)
        assert fork.given.keys() - values.keys() == kept
        if kept:
            await fork.run.pause()
        else:
            assert await fork.run.pause() is None
            assert (shop / "paid.txt").read_text() == "about tea\n"
        fork.run.cancel()
        await fork.run.wait()


async def test_a_list_that_is_given_has_as_many_elements_as_its_node_may_have(shop: Path) -> None:
    def rule(keys: str) -> None:
        (shop / "workflows" / "order.yaml").write_text(WORKFLOW.replace("as: topic,", f"as: topic, {keys},"))

    run = await ended(shop, "tea", "milk")
    rule("limit: 3, at_least: 2")
    async with opened(shop) as orchestra:
        for values, why in ((["a"], "1 element, and 2 are needed"), (["a", "b", "c", "d"], "4 elements, and the limit is 3")):
            with pytest.raises(InputError, match=f"the value of lines: {why}") as caught:
                await orchestra.options(values={"lines": values}).fork(run)
            assert caught.value.code == "E033"
        taken = await orchestra.options(values={"lines": ["a", "b", "c"], "letter": "x", "sure": "yes"}).fork(run)
        assert (await taken.run).output == "x"
    rule("limit: 2")
    async with opened(shop) as orchestra:
        with pytest.raises(InputError, match=f"the value of lines, given in run {taken.run.id}: 3 elements, and the limit is 2"):
            await orchestra.fork(taken.run.id)
    for keys, wrong in (("at_least: all", (["a"], ["a", "b", "c"])), ('at_least: all, when: "${topic != input.topics[0]}"', (["a"] * 3,))):
        rule(keys)
        async with opened(shop) as orchestra:
            for values in wrong:
                with pytest.raises(InputError, match=f"{len(values)} elements? given for the 2 that it goes over, and all are needed"):
                    await orchestra.options(values={"lines": values, "sure": "yes"}).fork(run)
            right = await orchestra.options(values={"lines": ["a", "b"][: len(wrong)], "letter": "x", "sure": "yes"}).fork(run)
            assert (await right.run).output == "x"
            assert (await orchestra.replay(right.run.id)).reason == ""


async def test_where_the_list_that_all_are_needed_of_has_no_value_a_persons_word_stands(shop: Path) -> None:
    (shop / "workflows" / "order.yaml").write_text(
        WORKFLOW.replace("as: topic,", "as: topic, at_least: all,").replace('"${input.topics}"', '"${[input.topics[5]]}"')
    )
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        await run.pause()
        await orchestra.answer(run.id, "yes", node="allowed")
        assert (await run.wait()).status == "failed"
        fork = await orchestra.options(values={"lines": ["a", "b"], "sure": "yes"}).fork(run.id)
        assert (await fork.run).output == "a, b; tea 1"


async def test_only_a_fork_takes_values_by_the_names_of_nodes(shop: Path) -> None:
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        given, order = orchestra.options(values={"letter": "x"}), orchestra.find("order")
        await orchestra.options(idempotency_key="k").start(order, topics=["x"])
        doors = [given.start(order, topics=["x"]), given.run(order, topics=["x"]), given.resume(run), given.whatif(run)]
        doors += [given.check("x", against="x"), given.options(idempotency_key="k").start(order, topics=["x"])]
        for door in doors:
            with pytest.raises(InputError, match="`values` are for a fork") as caught:
                await door
            assert caught.value.code == "E033"
        wrong: list[Any] = [["letter"], [], "letter", {1: "x"}, {0: "x"}, {None: "x"}]
        for values in wrong:
            for door in (orchestra.options(values=values).fork(run), orchestra.options(values=values).resume(run)):
                with pytest.raises(InputError, match="`values`") as caught:
                    await door
                assert caught.value.code == "E033"
        assert (await orchestra.options(values={}).resume(run)).id == run


async def test_who_says_it_is_told_once_for_values_answers_resumptions_and_cancellations(shop: Path) -> None:
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        assert await run.pause() is None
    async with opened(shop) as orchestra:
        eve = orchestra.options(by="eve")
        await eve.answer(run.id, "yes")
        going = await eve.resume(run.id)
        await going.pause()
        await eve.answer(run.id, "no", by="ada")
        await going
        fork = (await eve.options(values={"letter": "x"}).fork(run.id)).run
        await fork.pause()
        await eve.cancel(fork.id)
        events = [*await orchestra.journal.read(run.id), *await orchestra.journal.read(fork.id)]
    found = [event for event in events if isinstance(event, Answered | Resumed | CancelRequested)]
    said = [(event.by, type(event).__name__) for event in found if event.by != "a letter"]  # which woke the run
    assert said == [("eve", "Resumed"), ("eve", "Answered"), ("ada", "Answered"), ("eve", "CancelRequested")]


async def test_values_of_a_fork_are_one_object_too_and_stdin_is_read_once(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    (shop / "values.json").write_text('{"lines": ["a"], "letter": "b"}')
    said = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "@values.json", "--set", "sure=-", stdin="yes")
    assert (said.code, said.out.count("the value is given")) == (0, 3), said.err
    piped = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "-", stdin='{"letter": "c", "sure": "no"}')
    assert (piped.code, "\nc\n" in piped.out) == (0, True), piped.err
    twice = await asyncio.to_thread(shell, "runs", "fork", run, "-i", "topics=-", "--set", "letter=@-", stdin='["x"]')
    assert "C010: -i topics=- has read stdin, and nothing is left of it for --set letter=@-" in twice.err
    unknown = await asyncio.to_thread(shell, "runs", "fork", run, "--set", "-", stdin='{"line": "c"}')
    assert (unknown.code, "did you mean 'lines'?" in unknown.err) == (2, True)


@pytest.mark.parametrize(
    ("typed", "value"),
    [("@none.json", None), ("@none.txt", "null\n"), ("null", "null"), ("@@ada", "@ada"), ("-", "piped"), ("@-", "piped")],
)
def test_an_answer_is_read_as_inputs_are_and_null_is_one_in_a_file(shell: Shell, typed: str, value: str | None) -> None:
    (shell.project / "workflows").mkdir()
    (shell.project / "workflows" / "note.yaml").write_text(NOTE)
    for name in ("none.json", "none.txt"):
        (shell.project / name).write_text("null\n")
    assert shell("run", "note").code == 5
    assert shell("runs", "answer", "last", typed, "--json", stdin="piped").json["output"] == {"it": value}
    again = shell("runs", "fork", "last", "--set", "-", "--json", stdin='{"note": null}').json
    assert again["given"]["note"]["value"] is None


async def test_a_value_holds_on_where_the_workflow_itself_was_renamed(shop: Path, shell: Shell) -> None:
    run = await ended(shop, "tea")
    more = ("--set", 'paid={"number": 3, "item": "cake"}', "--set", "allowed=yes", "--set", "sure=yes", "--by", "ada")
    assert (await asyncio.to_thread(shell, "runs", "fork", run, "-i", 'topics=["cake"]', *more)).code == 0
    (shop / "workflows" / "order.yaml").rename(shop / "workflows" / "bill.yaml")
    (shop / "workflows" / "bill.yaml").write_text(WORKFLOW.replace("name: order", "name: bill"))
    assert "C004" in (await asyncio.to_thread(shell, "runs", "fork", "last")).err
    said = await asyncio.to_thread(shell, "runs", "fork", "last", "--workflow", "bill")
    assert (said.code, "paid: the value is given by ada, in run" in said.out) == (0, True), said.err
    assert "about cake; cake 3" in said.out
    assert (shop / "paid.txt").read_text() == "tea\n"
