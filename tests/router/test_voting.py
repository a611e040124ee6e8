"""Voting: plans are equal if their graphs are, and the most frequent one wins."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.router.plan import Plan, build_plan
from orchestra.router.plan_syntax import INPUT, Argument, PlanAnswer, PlanLiteral, PlanReference, PlanStep, parse_plan
from orchestra.router.voting import VoteResult, count_votes, plan_digest

SKILLS = ("search", "reader", "cite", "sum")
PARTS = ((), ("text",), (0,), (0, "text"))


def plan(text: str) -> Plan:
    found = build_plan(parse_plan(text))
    assert found is not None
    return found


truth = st.booleans()
constants: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "iron", "Iron works", "5 %", "${x}"])
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of up to six steps that read, map and wait for earlier ones, without repeated calls, as validation
    ensures.
    """
    steps: list[PlanStep] = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        names = [step.name for step in steps]

        def reference(names: list[str] = names) -> PlanReference:
            if draw(truth) and names:
                return PlanReference(draw(st.sampled_from(names)), draw(st.sampled_from(PARTS)))
            return PlanReference(INPUT, (draw(st.sampled_from(["request", "documents"])),))

        arguments: dict[str, Argument] = {}
        for name in draw(st.lists(st.sampled_from(["a", "b", "c"]), max_size=3, unique=True)):
            arguments[name] = reference() if draw(truth) else PlanLiteral(draw(constants))
        each = (
            draw(st.none() | st.lists(constants, min_size=1, max_size=3).map(PlanLiteral))
            if draw(truth)
            else reference()
        )
        if each is not None:
            arguments["x"] = PlanReference("x")
        after = tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=2))) if names else ()
        step = PlanStep(f"s{number}", draw(st.sampled_from(SKILLS)), arguments, each, after)
        if not any(replace(one, name=step.name) == step for one in steps):
            steps.append(step)
    values = draw(st.lists(st.sampled_from([step.name for step in steps]), min_size=1, max_size=3, unique=True))
    return Plan(tuple(steps), PlanAnswer(tuple(PlanReference(name) for name in values)))


def rewritten(found: Plan, random: Random) -> Plan:
    """The same graph: other order of independent steps, new names, shuffled arguments, an unused step."""
    left = [*found.steps, PlanStep("s999", "search", {"a": PlanLiteral("unused")})]
    names: dict[str, str] = {}
    made: list[PlanStep] = []
    while left:
        ready = [
            step for step in left if {one.root for one in step.references} | set(step.after) <= names.keys() | {INPUT}
        ]
        step = random.choice(ready)
        left.remove(step)
        renamed = {name: _renamed(value, names) for name, value in step.arguments.items()}
        arguments = dict(random.sample(list(renamed.items()), len(renamed)))
        each = None if step.each is None else _renamed(step.each, names)
        after = tuple(random.sample([names[name] for name in step.after], len(step.after)))
        names[step.name] = f"s{len(made) + 1}"
        made.append(PlanStep(names[step.name], step.capability, arguments, each, after))
    answers = [_reference(value, names) for value in found.answer.values]
    return Plan(tuple(made), PlanAnswer(tuple(random.sample(answers, len(answers)))))


def _renamed(value: Argument, names: dict[str, str]) -> Argument:
    return _reference(value, names) if isinstance(value, PlanReference) else value


def _reference(value: PlanReference, names: dict[str, str]) -> PlanReference:
    return PlanReference(names.get(value.root, value.root), value.path)


@given(plans(), st.randoms(use_true_random=False))
def test_plan_digest_ignores_names_order_and_unused_steps(found: Plan, random: Random) -> None:
    assert plan_digest(rewritten(found, random)) == plan_digest(found)


@given(plans(), st.data())
def test_plan_digest_other_references_differ(found: Plan, data: st.DataObject) -> None:
    """A reference of a used step is changed to another value that is not equal by its own graph."""
    wired = [
        (step, name)
        for step in found.used_steps
        for name, value in step.arguments.items()
        if isinstance(value, PlanReference) and name != "x"
    ]
    if not wired:
        return
    step, name = data.draw(st.sampled_from(wired))
    value = step.arguments[name]
    assert isinstance(value, PlanReference)
    other = PlanReference(value.root, (*value.path, "elsewhere"))
    changed = replace(step, arguments={**step.arguments, name: other})
    steps = tuple(changed if one is step else one for one in found.steps)
    assert plan_digest(replace(found, steps=steps)) != plan_digest(found)


TWO = "s1 = search(query=input.a)\ns2 = search(query=input.b)\ns3 = cite(first=%s, second=%s)\nreturn s3"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TWO % ("s1", "s2"), TWO % ("s2", "s1")),
        (TWO % ("s1", "s2"), TWO % ("s1", "s1")),
        ("s1 = a(x1=input.a)\nreturn s1", "s1 = b(x1=input.a)\nreturn s1"),
        ("s1 = a(x1=input.a)\nreturn s1", "s1 = a(x2=input.a)\nreturn s1"),
        ("s1 = a(x1=input.a)\nreturn s1", "s1 = a(x1=input.a, x2=1)\nreturn s1"),
        ("s1 = a(x1=input.a)\nreturn s1", "s1 = a(x1=input.a)\nreturn s1[0]"),
        ("s1 = a()\ns2 = [b(y=x) for x in s1]\nreturn s2", "s1 = a()\ns2 = b(y=s1)\nreturn s2"),
        ("s1 = a()\ns2 = b()\nreturn s2, s1", "s1 = a()\ns2 = b()\nreturn s2"),
        ("s1 = a()\ns2 = b(s1)\nreturn s1, s2", "s1 = a()\ns2 = b()\nreturn s1, s2"),
        ('s1 = a(k="5")\nreturn s1', "s1 = a(k=5)\nreturn s1"),
        ("s1 = a(k=true)\nreturn s1", "s1 = a(k=1)\nreturn s1"),
        ("s1 = a(k=[1, 2])\nreturn s1", "s1 = a(k=[2, 1])\nreturn s1"),
        ('s1 = a(k="$5")\nreturn s1', 's1 = a(k="€5")\nreturn s1'),
        ("s1 = [a(k=x) for x in [1, 2]]\nreturn s1", "s1 = [a(k=x) for x in [2, 1]]\nreturn s1"),
        ("s1 = [a(k=x) for x in [1]]\nreturn s1", "s1 = a(k=1)\nreturn s1"),  # a list of one value is not a value
    ],
)
def test_plan_digest_differs(one: str, other: str) -> None:
    assert plan_digest(plan(one)) != plan_digest(plan(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s1 = a(k=5)\nreturn s1", "s1 = a(k=5.0)\nreturn s1"),
        ('s1 = a(k="iron  works")\nreturn s1', 's1 = a(k="Iron Works ")\nreturn s1'),
        ('s1 = a(k="1,000")\nreturn s1', 's1 = a(k="1000")\nreturn s1'),
        (
            's1 = [a(k=x) for x in ["Iron  works", "1,000"]]\nreturn s1',
            's1 = [a(k=x) for x in ["iron works", "1000"]]\nreturn s1',
        ),
        ("s1 = a()\ns2 = b(s1, y=s1)\nreturn s2", "s1 = a()\ns2 = b(y=s1)\nreturn s2"),
        ("s1 = a()\ns2 = b(y=s1)\ns3 = c(s1, y=s2)\nreturn s3", "s1 = a()\ns2 = b(y=s1)\ns3 = c(y=s2)\nreturn s3"),
    ],
)
def test_plan_digest_is_equal(one: str, other: str) -> None:
    assert plan_digest(plan(one)) == plan_digest(plan(other))


A, B = plan("s1 = a()\nreturn s1"), plan("s1 = b()\nreturn s1")
A_AGAIN = plan("s1 = b()\ns2 = a()\nreturn s2")


@pytest.mark.parametrize(
    ("sampled", "expected"),
    [
        ([A], VoteResult(0, 1, 1)),
        ([B, A, A_AGAIN], VoteResult(1, 2, 3)),
        ([B, A, None, None], VoteResult(0, 1, 4)),
        ([A, B, B, A], VoteResult(0, 2, 4)),
        ([None, None], None),
        ([], None),
    ],
)
def test_count_votes_most_win_and_ties_go_to_first(sampled: list[Any], expected: VoteResult | None) -> None:
    assert count_votes(sampled) == expected


def test_vote_agreement_is_share_of_all_samples() -> None:
    won = count_votes([A, B, A_AGAIN, None])
    assert won is not None
    assert won.agreement == 0.5
