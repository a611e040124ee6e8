"""Overrides of node outputs in forks: accepted nodes, dependent nodes and lifetime."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError
from orchestra.core.events import OverrideSource
from tests.cli.shell import Shell
from tests.cli.shop import WORKFLOW, ended, opened, rows

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


PRICED = """
schema: orchestra/v1
name: order
input: {topics: "list[str]"}
output: ${done}
nodes:
  allowed: {ask: "Pay?", options: ["yes", "no"]}
  price: {tool: draft, after: [allowed], with: {topic: "${input.topics[0]}"}}
  paid: {tool: pay, with: {item: "${price}"}}
  done: {tool: write, with: {lines: ["${allowed}"], receipt: "${paid}"}}
"""


async def questions_of_fork(
    shop: Path, run: str, *, again: bool = False
) -> tuple[list[str], dict[str, OverrideSource]]:
    """The questions that a fork asks first, and the reused answers."""
    async with opened(shop) as orchestra:
        fork = await orchestra.options(again=again).fork(run)
        await fork.run.wait_until_blocked()
        asked = [question.node for question in fork.run.questions]
        fork.run.cancel()
        await fork.run.wait()
        return asked, {path: one.source for path, one in fork.overrides.items()}


async def test_fork_reuses_answers_unless_something_before_them_changed(shop: Path) -> None:
    run = await ended(shop, "tea")
    ada = OverrideSource("ada", run)
    assert await questions_of_fork(shop, run) == ([], {"allowed": ada, "sure": ada})
    (shop / "workflows" / "order.yaml").write_text(WORKFLOW.replace('"${lines.values}"', '["a", "b"]'))
    assert await questions_of_fork(shop, run) == (["sure"], {"allowed": ada})
    (shop / "workflows" / "order.yaml").write_text(WORKFLOW.replace("Order about", "Buy for"))
    assert (await questions_of_fork(shop, run))[0] == ["allowed"]


async def test_fork_of_fork_keeps_reused_answers(shop: Path) -> None:
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        second = await (await orchestra.fork(run)).run
        assert second.output == "about tea; tea 1"
        assert [claim.person for claim in second.claims] == [""]
    assert (await questions_of_fork(shop, second.run))[0] == []
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_fork_that_repeats_effects_asks_for_approval_again(shop: Path) -> None:
    run = await ended(shop, "tea")
    assert await questions_of_fork(shop, run, again=True) == (["allowed"], {"sure": OverrideSource("ada", run)})


async def test_fork_with_new_input_of_effect_asks_for_approval_again(shop: Path) -> None:
    (shop / "workflows" / "order.yaml").write_text(PRICED)
    module = (shop / "given_tools.py").read_text()
    (shop / "given_tools.py").write_text(
        module.replace('return f"about', 'raise OSError("no list of prices")\n    return f"about')
    )
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        await run.wait_until_blocked()
        await orchestra.answer(run.id, "yes", by="ada")
        assert (await run.wait()).status == "failed"
    assert await questions_of_fork(shop, run.id) == (["allowed"], {})


async def test_fork_with_an_override_reruns_dependent_nodes(shop: Path) -> None:
    run = await ended(shop, "tea", "milk")
    (shop / "drafted.txt").unlink()
    async with opened(shop) as orchestra:
        told = orchestra.options(values={"lines": ["no tea", "no milk"]}, by="bob")
        fork = await told.fork(run)
        assert {path: one.source for path, one in fork.overrides.items()} == {
            "allowed": OverrideSource("ada", run),
            "lines": OverrideSource("bob"),
        }
        assert await fork.run.wait_until_blocked() is None
        assert [asked.node for asked in fork.run.questions] == [
            "sure"
        ]  # it depends on the lines; the approval does not
        assert fork.run.questions[0].question == "Send no tea, no milk; tea 1?"
    # its process has ended; another one continues
    async with opened(shop) as orchestra:
        again = await orchestra.resume(fork.run.id)
        await again.wait_until_blocked()
        await orchestra.answer(again.id, "yes")
        result = await again
        events = list(await orchestra.journal.read(again.id))
        assert (await orchestra.replay(again.id)).reason == ""
        assert (await orchestra.whatif(again.id)).verdict == "same"
        assert result.output == "no tea, no milk; tea 1"
        (claim,) = result.claims
        assert claim.unsupported == "a person gave it: bob (lines)"
        held = await orchestra.fork(again.id)
        assert {path: one.source for path, one in held.overrides.items()} == {
            "allowed": OverrideSource("ada", run),
            "lines": OverrideSource("bob", again.id),
            "sure": OverrideSource("", again.id),
        }
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
        ({"lines[0]": "x"}, r"lines\[0\] is inside of lines"),
        ({"lines": "x"}, "the value of lines"),
        ({"paid": {"number": "x", "item": "tea"}}, "the value of paid"),
        ({"allowed": "perhaps"}, "the value of allowed"),
    ],
)
async def test_override_of_a_wrong_type_is_refused_before_the_run(shop: Path, values: dict[str, Any], why: str) -> None:
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        with pytest.raises(InputError, match=why) as caught:
            await orchestra.options(values=values).fork(run)
        assert caught.value.code == "E033"
        assert len(await orchestra.runs()) == 1


async def test_fork_key_identifies_one_fork_with_its_overrides(shop: Path) -> None:
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        first = await orchestra.options(values={"letter": "one", "sure": "no"}, idempotency_key="k").fork(run)
        assert (await first.run).output == "one"
        again = await orchestra.options(values={"letter": "one", "sure": "no"}, idempotency_key="k").fork(run)
        assert again.run.id == first.run.id
        with pytest.raises(InputError, match=r"belongs to run k\w+, which has other given values"):
            await orchestra.options(values={"letter": "two", "sure": "no"}, idempotency_key="k").fork(run)


async def test_override_of_a_renamed_node_is_kept_without_a_call(shop: Path) -> None:
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
            with pytest.raises(
                InputError, match=f"the value of paid, given in run {fork.run.id}, has no node any more in order"
            ) as caught:
                await orchestra.options(values=values).fork(fork.run.id)
            assert (caught.value.code, "--set receipt=VALUE" in caught.value.hint) == ("E033", True)
        anew = await orchestra.options(values={"receipt": receipt}, by="ada").fork(fork.run.id)
        assert (await anew.run).output == "about cake; cake 3"
        with pytest.raises(
            InputError, match=f"the value of paid, given in run {fork.run.id}, has no node any more in other"
        ):
            await orchestra.fork(fork.run.id, orchestra.find("other"))
    assert (shop / "paid.txt").read_text() == "tea\n"


async def test_fork_of_a_fork_keeps_unaffected_answers(shop: Path) -> None:
    (shop / "workflows" / "order.yaml").write_text(
        WORKFLOW + '  note: {tool: draft, with: {topic: "${input.topics[0]}"}}\n'
    )
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        told = orchestra.options(values={"lines": ["one"]}, by="bob")
        first = (await told.fork(run)).run
        await first.wait_until_blocked()
        await orchestra.answer(first.id, "yes", by="eve")
        await first
        second = await orchestra.options(values={"note": "two"}, by="bob").fork(first.id)
        assert {path: one.source for path, one in second.overrides.items()} == {
            "allowed": OverrideSource("ada", run),
            "lines": OverrideSource("bob", first.id),  # it is kept, and the dependent `sure` was asked again
            "sure": OverrideSource("eve", first.id),
            "note": OverrideSource("bob"),
        }
        await second.run
        third = await orchestra.options(values={"lines": ["three"]}, by="bob").fork(second.run.id)
        assert third.overrides.keys() == {"allowed", "lines", "note"}
        third.run.cancel()
        await third.run.wait()


@pytest.mark.parametrize(
    ("workflow", "values", "kept"),
    [
        (APPROVED, {"chosen": "gold"}, set()),
        (APPROVED.replace("when: \"${allowed == 'yes'}\"", "after: [allowed]"), {"chosen": "gold"}, set()),
        (
            APPROVED.replace("{when: \"${allowed == 'yes'}\",", "{").replace("{item", "{item"),
            {"chosen": "gold"},
            {"allowed"},
        ),
        (APPROVED, {"note": "other"}, {"allowed"}),
        (APPROVED, {"chosen": "gold", "paid": {"number": 7, "item": "gold"}}, {"allowed"}),
    ],
    ids=["a condition", "an order", "nothing waits for it", "no effect reads it", "nothing is called"],
)
async def test_approval_is_asked_again_for_other_arguments(
    shop: Path, workflow: str, values: dict[str, Any], kept: set[str]
) -> None:
    (shop / "workflows" / "order.yaml").write_text(workflow)
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        await run.wait_until_blocked()
        await orchestra.answer(run.id, "yes", by="ann")
        assert (await run).status == "done"
        fork = await orchestra.options(values=values, by="mallory").fork(run.id)
        assert fork.overrides.keys() - values.keys() == kept
        if kept:
            await fork.run.wait_until_blocked()
        else:
            assert await fork.run.wait_until_blocked() is None
            assert (shop / "paid.txt").read_text() == "about tea\n"
        fork.run.cancel()
        await fork.run.wait()


async def test_override_list_has_the_length_of_its_node(shop: Path) -> None:
    def rule(keys: str) -> None:
        (shop / "workflows" / "order.yaml").write_text(WORKFLOW.replace("as: topic,", f"as: topic, {keys},"))

    run = await ended(shop, "tea", "milk")
    rule("limit: 3, at_least: 2")
    async with opened(shop) as orchestra:
        for values, why in (
            (["a"], "1 element, and 2 are needed"),
            (["a", "b", "c", "d"], "4 elements, and the limit is 3"),
        ):
            with pytest.raises(InputError, match=f"the value of lines: {why}") as caught:
                await orchestra.options(values={"lines": values}).fork(run)
            assert caught.value.code == "E033"
        taken = await orchestra.options(values={"lines": ["a", "b", "c"], "letter": "x", "sure": "yes"}).fork(run)
        assert (await taken.run).output == "x"
    rule("limit: 2")
    async with opened(shop) as orchestra:
        with pytest.raises(
            InputError, match=f"the value of lines, given in run {taken.run.id}: 3 elements, and the limit is 2"
        ):
            await orchestra.fork(taken.run.id)
    for keys, wrong in (
        ("at_least: all", (["a"], ["a", "b", "c"])),
        ('at_least: all, when: "${topic != input.topics[0]}"', (["a"] * 3,)),
    ):
        rule(keys)
        async with opened(shop) as orchestra:
            for values in wrong:
                with pytest.raises(
                    InputError, match=f"{len(values)} elements? given for the 2 that it goes over, and all are needed"
                ):
                    await orchestra.options(values={"lines": values, "sure": "yes"}).fork(run)
            right = await orchestra.options(
                values={"lines": ["a", "b"][: len(wrong)], "letter": "x", "sure": "yes"}
            ).fork(run)
            assert (await right.run).output == "x"
            assert (await orchestra.replay(right.run.id)).reason == ""


async def test_override_list_is_kept_if_the_length_is_unknown(shop: Path) -> None:
    (shop / "workflows" / "order.yaml").write_text(
        WORKFLOW.replace("as: topic,", "as: topic, at_least: all,").replace(
            '"${input.topics}"', '"${[input.topics[5]]}"'
        )
    )
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea"])
        await run.wait_until_blocked()
        await orchestra.answer(run.id, "yes", node="allowed")
        assert (await run.wait()).status == "failed"
        fork = await orchestra.options(values={"lines": ["a", "b"], "sure": "yes"}).fork(run.id)
        assert (await fork.run).output == "a, b; tea 1"


async def test_only_fork_accepts_node_overrides(shop: Path) -> None:
    run = await ended(shop, "tea")
    async with opened(shop) as orchestra:
        given, order = orchestra.options(values={"letter": "x"}), orchestra.find("order")
        await orchestra.options(idempotency_key="k").start(order, topics=["x"])
        doors = [given.start(order, topics=["x"]), given.run(order, topics=["x"]), given.resume(run), given.whatif(run)]
        doors += [given.check("x", against="x"), given.options(idempotency_key="k").start(order, topics=["x"])]
        for door in doors:
            with pytest.raises(InputError, match="`values` is for a fork") as caught:
                await door
            assert caught.value.code == "E033"
        wrong: list[Any] = [["letter"], [], "letter", {1: "x"}, {0: "x"}, {None: "x"}]
        for values in wrong:
            for door in (orchestra.options(values=values).fork(run), orchestra.options(values=values).resume(run)):
                with pytest.raises(InputError, match="`values`") as caught:
                    await door
                assert caught.value.code == "E033"
        assert (await orchestra.options(values={}).resume(run)).id == run


async def test_override_is_kept_in_a_renamed_workflow(shop: Path, shell: Shell) -> None:
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
