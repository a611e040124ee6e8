"""Custom checks in a run: a tool is called, its call is an ordinary event, and an unknown verdict never passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestra.agents.contract import Catalog, Contract
from orchestra.core.errors import InputError
from orchestra.core.events import OutputJudged
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.core.protocols import CallError
from orchestra.engine.replay import replay
from orchestra.verification.custom_checks import RESULT_SCHEMA
from tests.engine.kinds.test_tool_use import catalog, used
from tests.engine.stage import TEXT, Played, agent, play, program, record
from tests.engine.test_checks import TOWER, WITH, chance, reasons, verdicts
from tests.engine.test_replanning import versions
from tests.simulation.lab.invariants import AuditCase, audit

READING = WITH.agents["reader"].output
OWN: Catalog = replace(
    WITH,
    tools={
        **WITH.tools,
        "true": (
            Contract(
                "true", "tool", record(value=READING, evidence={"type": "array", "items": TEXT}), RESULT_SCHEMA
            ).with_digest()
        ),
        "plain": Contract("plain", "tool", record(value=READING), {"type": "boolean"}).with_digest(),
        "sends": Contract("sends", "tool", record(value=READING), {"type": "boolean"}, effect="once").with_digest(),
        "texts": Contract("texts", "tool", record(value=TEXT), {"type": "boolean"}).with_digest(),
    },
)


def text(checks: str, more: str = "") -> str:
    return f"""
input: {{text: str}}
output: ${{reading}}
nodes:
  reading: {{agent: reader, with: {{question: when, context: "${{input.text}}"}}, checks: {checks}, against: "${{input.text}}", {more}}}
"""  # noqa: E501


def read(checks: str, answers: dict[str, Any], more: str = "", catalog: Catalog = OWN, **options: Any) -> Played:
    return play(text(checks, more), {"text": TOWER}, answers, catalog=catalog, **options)


def test_tool_check_true_passes_with_score() -> None:
    played = read('[quote, "tool(true)"]', {"true": {"passed": True, "score": 0.8, "reason": "so it is"}})
    assert isinstance(played.outcome, ValueOutcome)
    assert played.outcome.score == 0.8
    assert verdicts(played) == [("quote", "pass"), ("tool(true)", "pass")]
    assert [call.name for call in played.workers.calls if call.node == "reading?1/tool_0"] == ["true"]
    compiled = program(text('[quote, "tool(true)"]'), OWN)
    assert audit(AuditCase(compiled, played.events)) == []
    assert replay(compiled, played.events).first_difference is None


def test_tool_check_gets_value_and_evidence() -> None:
    played = read('["tool(true)"]', {"true": True})
    assert isinstance(played.outcome, ValueOutcome)
    call = next(one for one in played.workers.calls if one.name == "true")
    assert call.inputs == {"value": played.outcome.value, "evidence": [TOWER]}


def test_tool_check_false_withholds_with_reason() -> None:
    played = read('["tool(true)"]', {"true": {"passed": False, "reason": "that was another tower"}})
    assert reasons(played) == "tool(true): that was another tower"


@pytest.mark.parametrize(
    "said",
    [
        None,
        CallError(code="T003", reason="it raised", permanent=True, retryable=True),
        CallError(code="T004", reason="of another type"),
    ],
)
def test_tool_check_unknown_never_passes(said: Any) -> None:
    played = read('["tool(true)"]', {"true": lambda call: said})
    assert isinstance(played.outcome, AbstainedOutcome)
    assert verdicts(played) == [("tool(true)", "unknown")]
    assert len([call for call in played.workers.calls if call.name == "true"]) == 1, (
        "what would come again is not asked again"
    )


def test_tool_check_runs_before_agents() -> None:
    played = read('[entailment, "tool(plain)"]', {"plain": False, "entailment": chance(0.9)})
    assert isinstance(played.outcome, AbstainedOutcome)
    assert [call.name for call in played.workers.calls] == ["reader", "plain"]
    both = read('["entailment | tool(plain)"]', {"plain": True, "entailment": chance(0.1)})
    assert isinstance(both.outcome, ValueOutcome)
    assert [call.name for call in both.workers.calls] == [
        "reader",
        "plain",
    ], "one of two is enough, and a tool costs nothing"


def test_tool_check_reason_given_to_retry() -> None:
    verdict = iter([{"passed": False, "reason": "give the year alone"}, True])
    played = read('["tool(true)"]', {"true": lambda call: next(verdict)}, "otherwise: [retry, abstain]")
    assert isinstance(played.outcome, ValueOutcome)
    again = [call for call in played.workers.calls if call.name == "reader"][1]
    assert any("give the year alone" in one for one in again.feedback)
    assert [judged.accepted for judged in played.of(OutputJudged)] == [False, True]


def test_tool_check_gets_no_dropped_parts() -> None:
    catalog = replace(
        OWN, agents={**OWN.agents, "lister": agent("lister", record(text=TEXT), {"type": "array", "items": TEXT})}
    )
    own = Contract("few", "tool", record(value={"type": "array", "items": TEXT}), {"type": "boolean"}).with_digest()
    catalog = replace(catalog, tools={**catalog.tools, "few": own})
    flow = f"""
output: ${{all}}
nodes:
  all: {{agent: lister, with: {{text: x}}, checks: [entailment, "tool(few)"], against: "{TOWER}", otherwise: [back_off, abstain]}}
"""  # noqa: E501
    answers: dict[str, Any] = {"lister": lambda call: ["It was completed in 1889.", "It is red."], "few": True}
    answers["entailment"] = lambda call: chance(0.9 if "1889" in call.inputs["claim"] else 0.1)
    played = play(flow, {}, answers, catalog=catalog)
    assert isinstance(played.outcome, ValueOutcome)
    assert played.outcome.value == ["It was completed in 1889."]
    assert next(call for call in played.workers.calls if call.name == "few").inputs == {
        "value": ["It was completed in 1889."]
    }


def test_tool_check_not_charged_to_check_budget() -> None:
    flow = "budget: {check_tokens: 1}\n" + text('["tool(true)"]')
    played = play(flow, {"text": TOWER}, {"true": True}, catalog=OWN)
    assert isinstance(played.outcome, ValueOutcome)


@pytest.mark.parametrize(
    ("checks", "code", "says"),
    [
        ('["tool(missing)"]', "L070", "needs the tool 'missing', which does not exist"),
        ("[tool]", "L070", "`tool` needs the name of a tool"),
        ('["tool(5)"]', "L070", "`tool` needs the name of a tool"),
        ('["tool(sends)"]', "L071", "its effect is 'once'"),
        ('["tool(texts)"]', "L071", "value: expected str"),
        ('["tool(shout)"]', "L071", "it returns str"),
        ("[plain]", "L111", "there is no check 'plain'"),
    ],
)
def test_tool_check_unusable_tool_refused_at_compile(checks: str, code: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        program(text(checks), OWN)
    assert (caught.value.code, says in caught.value.message) == (code, True), caught.value.message
    if code == "L111":
        assert caught.value.hint == 'checks: ["tool(plain)"] asks the tool of that name'


def test_tool_check_same_name_as_agent_distinct() -> None:
    twin = Contract("second", "tool", record(value=READING), {"type": "boolean"}).with_digest()
    catalog = replace(OWN, tools={**OWN.tools, "second": twin})
    compiled = program(text('["tool(second)", "rederive(second)"]'), catalog)
    acceptance = compiled.nodes[0].acceptance
    assert acceptance is not None
    assert {name: judge.kind for name, judge in acceptance.judges.items()} == {
        "tool(second)": "tool",
        "second": "agent",
    }


def test_tool_check_in_card() -> None:
    careful = replace(OWN.agents["reader"], checks=("tool(true)",), evidence="context", otherwise=("abstain",))
    catalog = replace(OWN, agents={**OWN.agents, "reader": careful})
    flow = f'output: ${{a}}\nnodes:\n  a: {{agent: reader, with: {{question: when, context: "{TOWER}"}}}}'
    played = play(flow, answers={"true": False}, catalog=catalog)
    assert isinstance(played.outcome, AbstainedOutcome)


CRASH = CallError(
    code="T003", reason="no connection to postgresql://me:hunter2@db.internal", permanent=True, retryable=True
)


def test_tool_check_crash_not_retried() -> None:
    flow = text('["tool(true)"]', "otherwise: [retry, abstain]")
    played = play(flow, {"text": TOWER}, {"true": lambda call: CRASH}, catalog=OWN)
    assert isinstance(played.outcome, AbstainedOutcome)
    assert [call.name for call in played.workers.calls].count("reader") == 1, (
        "the same model on the same input is not asked again"
    )
    verdict = played.of(OutputJudged)[-1].verdicts[-1]
    assert verdict.outcome == "unknown"
    assert verdict.reason in played.outcome.reason, "the reason is in the journal and in the outcome"
    assert played.outcome.reason_for_models == ""
    compiled = program(flow, OWN)
    assert audit(AuditCase(compiled, played.events)) == []
    assert replay(compiled, played.events).first_difference is None


GONE = CallError(code="F203", reason="the server at 10.0.0.3 is gone", retryable=False)


@pytest.mark.parametrize("said", [None, {"passed": None, "reason": "no entry in 10.0.0.3"}, GONE])
def test_tool_check_unknown_retries_without_reason(said: Any) -> None:
    heard = iter([said, True])
    flow = text('["tool(true)"]', "otherwise: [retry, abstain]")
    played = play(flow, {"text": TOWER}, {"true": lambda call: next(heard)}, catalog=OWN)
    assert isinstance(played.outcome, ValueOutcome)
    assert [call.feedback for call in played.workers.calls if call.name == "reader"] == [
        (),
        ("tool(true): it cannot tell",),
    ]
    compiled = program(flow, OWN)
    assert audit(AuditCase(compiled, played.events)) == []
    assert replay(compiled, played.events).first_difference is None


def test_tool_check_dissent_retried() -> None:
    def reader(call: Any) -> Any:
        return {"answer": "1890" if call.attempt == 1 and not call.sample else "1889", "quote": "completed in 1889"}

    played = play(text('["agree(3)"]', "otherwise: [retry, abstain]"), {"text": TOWER}, {"reader": reader}, catalog=OWN)
    assert isinstance(played.outcome, ValueOutcome)
    assert played.outcome.value["answer"] == "1889"


def test_tool_check_passed_alternatives_not_in_retry() -> None:
    answers: dict[str, Any] = {
        "true": lambda call: CRASH,
        "reader": lambda call: {"answer": "1889", "quote": "completed in 1890"},
    }
    played = read('["(quote | numbers) & tool(true)"]', answers, "otherwise: [retry, abstain]")
    assert [call.feedback for call in played.workers.calls if call.name == "reader"] == [()]


def test_tool_check_unknown_uses_next_clause() -> None:
    played = read('["tool(true)"]', {"true": lambda call: CRASH}, "otherwise: [retry, escalate, abstain]")
    asked = [(call.tier, call.feedback) for call in played.workers.calls if call.name == "reader"]
    assert asked == [(0, ()), (1, ())]


@pytest.mark.parametrize("checks", ["agree(3)", "rederive(reader)"])
def test_tool_check_unfixable_failure_calls_agent_once(checks: str) -> None:
    good = {"answer": "1889", "quote": "completed in 1889"}
    answers: dict[str, Any] = {"reader": lambda call: CRASH if call.sample else good}
    played = play(text(f'["{checks}"]', "otherwise: [retry, abstain]"), {"text": TOWER}, answers, catalog=OWN)
    assert [call.feedback for call in played.workers.calls if call.name == "reader" and not call.sample] == [()]
    assert audit(AuditCase(program(text(f'["{checks}"]', "otherwise: [retry, abstain]"), OWN), played.events)) == []


@pytest.mark.parametrize("checks", ['[quote, "tool(true)"]', '["quote | tool(true)"]', '["tool(true) & tool(plain)"]'])
def test_tool_check_retry_has_failures_not_crashes(checks: str) -> None:
    quotes = iter(["completed in 1890", "completed in 1889"])
    answers: dict[str, Any] = {
        "reader": lambda call: {"answer": "1889", "quote": next(quotes)},
        "true": lambda call: CRASH,
    }
    answers["plain"] = lambda call: call.inputs["value"]["quote"].endswith("9")
    flow = text(checks, "otherwise: [retry, abstain]")
    played = play(flow, {"text": TOWER}, answers, catalog=OWN)
    told = [call.feedback for call in played.workers.calls if call.name == "reader"]
    if "plain" in checks:  # the second tool is not called: no result of it would let the value pass
        assert told == [()]
    else:
        assert [len(feedback) for feedback in told] == [0, 1]
        assert "quote: " in told[1][0]
    assert "hunter2" not in repr(told)
    assert audit(AuditCase(program(flow, OWN), played.events)) == []


OUT = {
    **OWN.agents,
    "writer": replace(OWN.agents["writer"], checks=("tool(true)",), evidence="text", otherwise=("abstain",)),
}
TOLD_OUT = replace(
    OWN,
    agents=OUT,
    tools={**OWN.tools, "true": Contract("true", "tool", record(value=TEXT), RESULT_SCHEMA).with_digest()},
)
"""A catalog with a writer whose texts a tool judges."""


def test_tool_check_crash_hidden_from_replanning_router() -> None:
    flow = """
input: {text: str}
output: ${solve}
nodes:
  solve: {plan: go, with: {text: "${input.text}"}, tools: [shout], agents: [writer], returns: str, repairs: 0}
"""
    plans = versions(("s1 = writer(text=input.text)", "return s1"), ("s1 = shout(text=input.text)", "return s1"))
    played = play(flow, {"text": "a"}, {"router": plans, "true": lambda call: CRASH}, catalog=TOLD_OUT)
    assert played.outcome == ValueOutcome("A")
    asked = [call.inputs["request"] for call in played.workers.calls if call.name == "router"]
    assert "withheld" in repr(asked)
    assert "hunter2" not in repr(asked)


def test_tool_check_crash_hidden_from_agent_with_tools() -> None:
    more = catalog()
    more = replace(
        more, agents={**more.agents, "writer": OUT["writer"]}, tools={**more.tools, "true": TOLD_OUT.tools["true"]}
    )
    played = used(
        "",
        "s1 = writer(text=input.text)",
        "s1 = shout(text=input.text)",
        catalog=more,
        answers={"true": lambda call: CRASH},
    )
    steps = [call.inputs["steps"] for call in played.workers.calls if call.name == "helper" and "steps" in call.inputs]
    assert "withheld" in repr(steps)
    assert "hunter2" not in repr(steps)
