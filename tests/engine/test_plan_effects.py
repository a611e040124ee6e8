"""Plans with effects: arguments of effects are from the inputs of the run, and never from a tool, a model or a document
(DESIGN §11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestra.agents.contract import Catalog, Contract
from orchestra.app.fork_overrides import ParentRun, collect_overrides, skipped_effects
from orchestra.app.reuse import NodeChange, program_changes
from orchestra.core.errors import InputError
from orchestra.core.events import Event, QuestionAnswered, QuestionAsked, RunStarted, TurnStarted
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest, InboxMessage
from orchestra.engine.replay import replay
from orchestra.engine.request import RunOptions
from orchestra.router.capabilities import Capabilities
from orchestra.router.plan_grammar import step_grammar
from orchestra.router.plan_syntax import parse_steps
from orchestra.router.validation import validate_line
from orchestra.schema.builtin_models import Document
from orchestra.schema.types import schema_of
from orchestra.testing import VirtualClock, run_simulated
from orchestra.workflows.yaml.reader import read
from tests.agents.test_evidence_grammar import accepts
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, Played, listed, play, program, record, tool

TEXT = {"type": "string"}
TOOLS = (
    tool("fetch", record(url=TEXT), TEXT),
    tool("pick", record(text=TEXT), TEXT),
    tool("known", record(text=TEXT), {"enum": ["Ada", "Bob"]}),
    tool("names", record(text=TEXT), listed(TEXT)),
    tool("wire", record(to=TEXT), TEXT, "once"),
)
ASKING = """
schema: orchestra/v1
name: asking
input: {to: str}
output: ${done}
nodes:
  ok: {ask: "Wire to ${input.to}?", options: ["yes", "no"]}
  done: {when: "${ok == 'yes'}", tool: wire, with: {to: "${input.to}"}}
"""
SILENT = """
schema: orchestra/v1
name: silent
input: {to: str}
output: ${done}
nodes:
  done: {loop: {at_most: 2, until: "${it == 'x'}", output: "${it}", nodes: {it: {tool: wire, with: {to: "${input.to}"}}}}}
"""  # noqa: E501
PLAIN = """
input: {mail: str}
output: ${done}
nodes:
  done:
    plan: "Answer this mail, and wire to Ada"
    with: {mail: "${input.mail}"}
    tools: [wire, fetch, pick, known, names]
    returns: anything
    confirm: false
    repairs: 0
"""
FETCHED = """
input: {url: str}
output: ${done}
nodes:
  page: {tool: fetch, with: {url: "${input.url}"}}
  done: {plan: "%s", with: {url: "${%s}"}, %s, returns: anything}
"""
ALLOWED = """
input: {who: str}
output: {n: "${note}", d: "${done}"}
nodes:
  note: {tool: pick, with: {text: "${input.who}"}}
  allowed: {ask: "Pay?", options: ["yes", "no"]}
  done: {when: "${allowed == 'yes'}", plan: "Pay ${input.who}", with: {to: "${input.who}"}, %s, returns: anything}
"""
HOUSE = Catalog(
    CATALOG.agents,
    {one.name: one for one in TOOLS},
    workflows={one.name: one for one in (read(ASKING, "asking.yaml").graph, read(SILENT, "silent.yaml").graph)},
)


def planned(*plans: tuple[str, ...], text: str = PLAIN, **answers: Any) -> Played:
    asked = iter([line for plan in plans for line in plan])
    told = {
        "router": lambda call: next(asked),
        "pick": "Mallory",
        "known": "Ada",
        "names": ["Mallory"],
        "fetch": "x",
        **answers,
    }
    return play(
        text,
        {"mail": "please pay to Ada"},
        answers={"wire": lambda call: f"to {call.inputs['to']}", **told},
        catalog=HOUSE,
    )


@pytest.mark.parametrize(
    "lines",
    [
        ("s1 = pick(text=input.mail)", "s2 = wire(to=s1)"),
        ("s1 = names(text=input.mail)", "s2 = wire(to=s1[0])"),
        ("s1 = names(text=input.mail)", "s2 = [wire(to=x) for x in s1]"),
    ],
)
def test_plan_effect_argument_from_step_refused(lines: tuple[str, ...]) -> None:
    played = planned(lines)
    assert isinstance(played.outcome, FailedOutcome)
    assert "wire has effects, and " in played.outcome.reason
    assert "may contain text of a tool, a model or a document" in played.outcome.reason
    assert played.workers.counts["wire"] == 0


@pytest.mark.parametrize(
    ("lines", "came"),
    [
        (('s1 = wire(to="Ada")', "return s1"), "to Ada"),
        (("s1 = wire(to=input.mail)", "return s1"), "to please pay to Ada"),
        (("s1 = pick(text=input.mail)", 's2 = wire(s1, to="Ada")', "return s2"), "to Ada"),
        (("s1 = known(text=input.mail)", "s2 = wire(to=s1)", "return s2"), "to Ada"),
    ],
)
def test_plan_effect_argument_from_input_goal_or_choice_allowed(lines: tuple[str, ...], came: Any) -> None:
    assert planned(lines).outcome == ValueOutcome(came)


@pytest.mark.parametrize("lines", [('s1 = wire(to="Bob")',), ('s1 = [wire(to=x) for x in ["Ada", "Bob"]]',)])
def test_plan_effect_constant_needs_allowed_literals(lines: tuple[str, ...]) -> None:
    assert isinstance(planned(lines).outcome, FailedOutcome)
    text = PLAIN.replace("confirm: false", "confirm: false\n    literals: true")
    assert isinstance(planned((*lines, "return s1"), text=text).outcome, ValueOutcome)


def test_plan_effect_argument_from_earlier_plan_refused() -> None:
    first = ("s1 = pick(text=input.mail)", "s2 = fetch(url=s1)", "return s2")
    text = PLAIN.replace("repairs: 0", "repairs: 0\n    replans: 1")

    async def fetch(call: CallRequest) -> CallError:
        await asyncio.sleep(1)  # virtual time: the first plan is complete before its step fails
        return CallError(code="T009", reason="gone")

    played = planned(first, ("s1 = wire(to=input.s1)",), text=text, fetch=fetch)
    assert isinstance(played.outcome, FailedOutcome)
    assert "input.s1 may contain text of a tool" in played.outcome.reason
    assert played.workers.counts["wire"] == 0
    last = [one.draft for one in played.of(TurnStarted) if one.draft is not None][-1]
    assert last.version == 2


WHOLE = "repairs: 1\n    streaming: false\n    stepwise: false"


@pytest.mark.parametrize("more", ["repairs: 0", "repairs: 2", "repairs: 2\n    votes: 3", WHOLE])
def test_plan_effect_old_permitted_plan_replays(more: str) -> None:
    lines = ("s1 = pick(text=input.mail)", "s2 = wire(to=s1)", "return s2")
    text = PLAIN.replace("repairs: 0", more)
    then = replace(
        HOUSE,
        tools={name: replace(one, effect="idempotent") if name == "wire" else one for name, one in HOUSE.tools.items()},
    )
    whole = "stepwise: false" in more
    router = {"router": lambda call: "\n".join(lines) if whole else lines[call.inputs["plan"].count(" = ")]}
    played = play(text, {"mail": "m"}, answers={"pick": "Ada", "wire": "paid", **router}, catalog=then)
    assert played.outcome == ValueOutcome("paid")
    today = replay(program(text, HOUSE), played.events)
    assert (today.first_difference, today.reason) == (None, "")
    assert ("done@1/s2", 1) in today.calls


def test_plan_effect_listed_choice_in_called_workflow() -> None:
    house = replace(
        HOUSE, workflows={"mailed": read(f"schema: orchestra/v1\nname: mailed\n{PLAIN}", "mailed.yaml").graph}
    )
    text = PLAIN.replace("tools: [wire, fetch, pick, known, names]", "tools: [known]\n    workflows: [mailed]")
    outer, inner = (
        iter(("s1 = known(text=input.mail)", "s2 = mailed(mail=s1)", "return s2")),
        iter(("s1 = wire(to=input.mail)", "return s1")),
    )
    answers = {
        "router": lambda call: next(inner if "/s2/" in call.node else outer),
        "known": "Ada",
        "wire": lambda call: call.inputs["to"],
    }
    assert play(text, {"mail": "m"}, answers=answers, catalog=house).outcome == ValueOutcome("Ada")


@pytest.mark.parametrize(("goal", "value"), [("Answer ${page}", "input.url"), ("Answer", "page")])
@pytest.mark.parametrize("uses", ["tools: [wire, pick]", "tools: [pick], workflows: [silent]"])
def test_plan_from_derived_values_has_no_effects(goal: str, value: str, uses: str) -> None:
    with pytest.raises(InputError) as caught:
        program(FETCHED % (goal, value, uses), HOUSE)
    assert (caught.value.code, " has effects, and the plan is made here of what" in caught.value.message) == (
        "L123",
        True,
    )


def test_plan_in_workflow_with_derived_input_has_no_effects() -> None:
    inner = read(f"schema: orchestra/v1\nname: mailed\n{PLAIN}", "mailed.yaml").graph
    text = FETCHED.replace(
        'plan: "%s", with: {url: "${%s}"}, %s, returns: anything', 'call: mailed, with: {mail: "${%s}"}'
    )
    house = replace(HOUSE, workflows={"mailed": inner})
    with pytest.raises(InputError) as caught:
        program(text % "page", house)
    assert (caught.value.code, "a model chooses effects in mailed from its inputs" in caught.value.message) == (
        "L123",
        True,
    )
    assert program(text % "input.url", house)


@pytest.mark.parametrize(
    "text",
    [
        FETCHED % ("Answer ${page}", "page", "tools: [pick], workflows: [asking]"),
        FETCHED % ("Answer", "input.url", "tools: [wire], workflows: [silent]"),
    ],
)
def test_plan_from_derived_values_reads_or_asks_person(text: str) -> None:
    assert program(text, HOUSE).nodes[1].plan_settings is not None


@pytest.mark.parametrize(
    ("nodes", "may"),
    [
        ('ok: {ask: "Wire?"}, done: {when: "${ok == \'yes\'}", %s}', True),
        ('ok: {ask: "Wire?", timeout: 60, fallback: "yes"}, done: {when: "${ok == \'yes\'}", %s}', False),
        (
            (
                'ok: {ask: "Wire?"}, so: {tool: pick, with: {text: "${ok}"}, fallback: "yes"}, done: {when: "${so =='
                " 'yes'}\", %s}"
            ),
            False,
        ),
        ('ok: {ask: "Wire?", timeout: 60}, done: {after: [ok], %s}', False),
        ("ok: {call: confirm}, done: {when: \"${ok == 'yes'}\", %s}", True),
        ('ok: {call: confirm, fallback: "yes"}, done: {when: "${ok == \'yes\'}", %s}', False),
        ("ok: {call: both}, done: {when: \"${ok.a == 'yes'}\", %s}", True),
        ("ok: {call: either}, done: {when: \"${ok.b == 'yes'}\", %s}", False),
        ('ok: {each: "${input.all}", as: it, ask: "Wire?"}, done: {when: "${size(ok.values) < 3}", %s}', False),
        (
            (
                'ok: {each: "${input.all}", as: it, when: "${it == \'q\'}", ask: "Wire?"}, done: {when:'
                ' "${size(ok.values) < 3}", %s}'
            ),
            False,
        ),
        ('ok: {each: "${input.all}", as: it, call: confirm}, done: {when: "${size(ok.values) < 3}", %s}', False),
        ('ok: {when: "${input.to == \'x\'}", ask: "Wire?"}, done: {when: "${ok == \'yes\' || true}", %s}', True),
        ('ok: {ask: "Wire?"}, so: {first_of: ["${ok}", "yes"]}, done: {when: "${so == \'yes\'}", %s}', False),
    ],
)
def test_plan_effect_allowed_after_certain_human_answer(nodes: str, may: bool) -> None:
    head = (
        "schema: orchestra/v1\n"
        "name: %s\n"
        "input: {to: str, all: {type: 'list[str]', default: []}}\n"
        "output: %s\n"
        "nodes: {%s}\n"
    )
    asks = 'ok: {ask: "Wire?"}, no: {tool: pick, with: {text: "${input.to}"}}'
    texts = (
        head % ("confirm", "${ok}", asks),
        head % ("both", '{a: "${ok}", b: "${ok} ${no}"}', asks),
        head % ("either", '{a: "${ok}", b: "${no}"}', asks),
        head % ("acting", "${done}", nodes % 'tool: wire, with: {to: "${input.to}"}'),
    )
    graphs = [read(text.replace("call: ", 'with: {to: "${input.to}"}, call: '), "x.yaml").graph for text in texts]
    house = replace(HOUSE, workflows={**HOUSE.workflows, **{one.name: one for one in graphs}})
    text = FETCHED % ("Answer ${page}", "page", "tools: [pick], workflows: [acting]")
    if may:
        assert program(text, house)
        return
    with pytest.raises(InputError, match="acting has effects"):
        program(text, house)


def offer(*names: str, **values: Any) -> Capabilities:
    documents = schema_of(list[Document], "serialization")
    return Capabilities.of(
        [one for one in TOOLS if one.name in names], {"documents": documents, "mail": TEXT, **values}
    )


@pytest.mark.parametrize(
    ("line", "may"),
    [
        ("s2 = wire(to=s1)", False),
        ("s2 = wire(to=input.documents[0].source)", False),
        ("s2 = [wire(to=x.text) for x in input.documents]", False),
        ("s2 = [wire(to=x) for x in input.people]", True),
        ("s2 = [wire(to=x.name) for x in input.table]", True),
        ("s2 = pick(text=s1)", True),
        ("s2 = wire(to=input.mail)", True),
        ('s2 = wire(to="Ada")', True),
    ],
)
def test_plan_grammar_agrees_with_gates(line: str, may: bool) -> None:
    given = offer("pick", "wire", people=listed(TEXT), table=listed(record(name=TEXT)))
    before = parse_steps(["s1 = pick(text=input.mail)"])
    assert accepts(step_grammar(given, before), f"\n{line}\nreturn s2") is may
    assert (validate_line(parse_steps([line])[0], given, before) == []) is may


def test_skills_with_effects_are_marked() -> None:
    assert {name: one.has_effects for name, one in offer("pick", "wire").by_name.items()} == {
        "pick": False,
        "wire": True,
    }
    idempotent = replace(TOOLS[-1], effect="idempotent")
    assert not Capabilities.of([idempotent], {}).by_name["wire"].has_effects


@pytest.mark.parametrize(
    ("uses", "held"), [("tools: [wire]", False), ("workflows: [silent]", False), ("tools: [pick]", True)]
)
def test_changed_plan_with_effects_voids_earlier_answer(uses: str, held: bool) -> None:
    made = program(ALLOWED % uses, HOUSE)
    first = RunStarted(seq=1, at=1.0, run="r", workflow="w", graph="g", inputs={"who": "Ada"})
    events: list[Event] = [
        first,
        QuestionAsked(
            seq=2, at=1.0, node="allowed", question="Pay?", options=("yes", "no"), schema={}, question_digest="abc"
        ),
        QuestionAnswered(seq=3, at=1.0, node="allowed", value="yes", by="ann"),
    ]
    before = ParentRun(first, events, [NodeChange("done", "its plan has changed")])
    kept = collect_overrides(made, RunOptions(values={"note": "x"}), before, {"who": "Ada"})
    assert ("allowed" in kept) is held
    assert list(skipped_effects(made, ["done"])) == ([] if held else [("done", "wire")])


def test_changed_callable_workflow_changes_plan() -> None:
    edited = read(SILENT.replace('with: {to: "${input.to}"}', 'with: {to: "Mallory"}'), "silent.yaml").graph
    old = program(ALLOWED % "workflows: [silent]", HOUSE)
    new = program(ALLOWED % "workflows: [silent]", replace(HOUSE, workflows={**HOUSE.workflows, "silent": edited}))
    assert program_changes(old, new) == [NodeChange("done", "its plan may call silent, which has changed")]
    assert program_changes(old, old) == []


SEALED = replace(
    HOUSE,
    tools={name: one.with_digest() for name, one in HOUSE.tools.items()},
    agents={name: one.with_digest() for name, one in HOUSE.agents.items()},
)


def edited(name: str) -> Catalog:
    """The catalog with another version of one of its tools or of its router."""

    def among(known: Mapping[str, Contract]) -> dict[str, Contract]:
        return {
            key: replace(one, version="2", digest="").with_digest() if key == name else one
            for key, one in known.items()
        }

    return replace(SEALED, tools=among(SEALED.tools), agents=among(SEALED.agents))


@pytest.mark.parametrize(
    ("uses", "house", "why"),
    [
        ("tools: [pick, wire]", edited("wire"), "its plan may call wire, which has changed"),
        ("tools: [pick, wire]", edited("pick"), "its plan may call pick, which has changed"),
        ("tools: [wire]", edited("router"), "its plan is made by router, which has changed"),
        ("tools: [wire]", edited("fetch"), ""),
    ],
)
def test_plan_skills_and_planner_compared_like_tools(uses: str, house: Catalog, why: str) -> None:
    old, new = (
        program(ALLOWED.replace("note: {tool: pick", "note: {tool: known") % uses, one) for one in (SEALED, house)
    )
    assert program_changes(old, new) == ([NodeChange("done", why)] if why else [])
    assert program_changes(old, old) == []


def test_changed_tool_voids_plan_approval() -> None:
    old, new = (program(ALLOWED % "tools: [wire]", one) for one in (SEALED, edited("wire")))
    first = RunStarted(seq=1, at=1.0, run="r", workflow="w", graph="g", inputs={"who": "Ada"})
    asked = QuestionAsked(
        seq=2, at=1.0, node="allowed", question="Pay?", options=("yes", "no"), schema={}, question_digest="abc"
    )
    before = ParentRun(
        first,
        [first, asked, QuestionAnswered(seq=3, at=1.0, node="allowed", value="yes", by="ann")],
        program_changes(old, new),
    )
    assert list(collect_overrides(new, RunOptions(values={"note": "x"}), before, {"who": "Ada"})) == ["note"]


def test_nested_plan_workflows_compared_in_bounded_time() -> None:
    graphs = [read(SILENT, "silent.yaml").graph]
    for number in range(24):
        plan = f'{{plan: "Pay", with: {{to: "${{input.to}}"}}, workflows: [{graphs[-1].name}], returns: anything}}'
        head = f"schema: orchestra/v1\nname: w{number}\ninput: {{to: str}}\n"
        text = f"{head}output: {{a: '${{a}}', b: '${{b}}'}}\nnodes:\n  a: {plan}\n  b: {plan}\n"
        graphs.append(read(text, "w.yaml").graph)
    text = ALLOWED % "workflows: [w23]"
    old, new = (
        program(text, replace(house, workflows={one.name: one for one in graphs})) for house in (SEALED, edited("wire"))
    )
    assert program_changes(old, old) == []
    assert program_changes(old, new) == [NodeChange("done", "its plan may call w23, which has changed")]


@pytest.mark.parametrize("lines", [("s1 = wire(to=input.mail)",), ("s1 = [wire(to=x) for x in input.mails]",)])
def test_hearsay_values_name_no_recipient(lines: tuple[str, ...]) -> None:
    text = PLAIN.replace('with: {mail: "${input.mail}"}', 'with: {mail: "${input.mail}", mails: ["${input.mail}"]}')
    said = text.replace("repairs: 0", "hearsay: [mail, mails]\n    repairs: 0")
    assert isinstance(planned((*lines, "return s1"), text=text).outcome, ValueOutcome)
    played = planned(lines, text=said)
    assert isinstance(played.outcome, FailedOutcome)
    assert "wire has effects, and " in played.outcome.reason
    assert played.workers.counts["wire"] == 0
    assert planned(('s1 = wire(to="Ada")', "return s1"), text=said).outcome == ValueOutcome("to Ada")


def test_hearsay_must_name_known_value() -> None:
    with pytest.raises(InputError) as caught:
        program(PLAIN.replace("repairs: 0", "hearsay: mial\n"), HOUSE)
    assert (caught.value.code, caught.value.message) == ("L111", "there is no value 'mial'")


PAYING = PLAIN.replace("confirm: false", "replans: 1")


@pytest.mark.parametrize(("answer", "paid"), [("yes", 1), ("no", 0), (None, 0)])
def test_plan_effects_need_approval_refusal_ends_plan(answer: str | None, paid: int) -> None:
    async def scene(clock: VirtualClock) -> None:
        asked = iter(("s1 = pick(text=input.mail)", 's2 = wire(s1, to="Ada")', "return s2"))
        theatre = Theatre(clock, {"router": lambda call: next(asked), "pick": "Mallory", "wire": "paid"})
        compiled = program(PAYING, HOUSE)
        run = theatre.start(compiled, {"mail": "m"})
        assert await run.wait_until_blocked() is None
        (question,) = run.questions
        assert (question.node, question.question) == ("done@1/confirm", 'Make 1 call with effects?\nwire(to="Ada")')
        assert (theatre.workers.counts["pick"], theatre.workers.counts["wire"]) == (1, 0)
        said: dict[str, Any] = {"value": answer} if answer is not None else {"decline_reason": "not now"}
        await theatre.journal.send(
            run.id, InboxMessage(kind="answer", node=question.node, question_digest=question.question_digest, **said)
        )
        finished = await run.wait()
        assert (finished.status, theatre.workers.counts["wire"]) == ("done" if paid else "abstained", paid)
        events = list(await run.history())
        assert {one.draft.version for one in events if isinstance(one, TurnStarted) and one.draft is not None} == {1}
        assert replay(compiled, events).reason == ""
        await theatre.engine.close()

    run_simulated(scene)


@pytest.mark.parametrize("lines", [('s1 = wire(to="Mallory")', "return s1"), ('s1 = wire(to="Ada")', "return s1")])
def test_plan_of_engine_without_approval_replays(lines: tuple[str, ...]) -> None:
    then = replace(
        HOUSE,
        tools={name: replace(one, effect="idempotent") if name == "wire" else one for name, one in HOUSE.tools.items()},
    )
    text = PLAIN.replace("    confirm: false\n", "")
    played = play(
        text,
        {"mail": "m"},
        answers={"wire": "paid", "router": lambda call: lines[call.inputs["plan"].count(" = ")]},
        catalog=then,
    )
    assert played.outcome == ValueOutcome("paid")
    assert replay(program(text, HOUSE), played.events).reason == ""


def test_plan_approval_question_shows_arguments() -> None:
    text = PAYING.replace("input: {mail: str}", "input: {mail: str, people: 'list[str]'}").replace(
        'with: {mail: "${input.mail}"}', 'with: {mail: "${input.mail}", people: "${input.people}"}'
    )

    async def scene(clock: VirtualClock) -> None:
        asked = iter(("s1 = [wire(to=x) for x in input.people]", "return s1"))
        theatre = Theatre(clock, {"router": lambda call: next(asked)})
        run = theatre.start(program(text, HOUSE), {"mail": "m", "people": ["Ada", "Bob"]})
        assert await run.wait_until_blocked() is None
        assert run.questions[0].question.splitlines()[1] == "wire(to=x) for x in input.people [ “Ada” “Bob” ], 2 in all"
        await theatre.engine.close()

    run_simulated(scene)
