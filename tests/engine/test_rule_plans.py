"""`plan` nodes with `rules`: a goal of a known kind is planned without the router, journaled, replayed and replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from orchestra.core.events import NodeFinished, TurnStarted
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest
from orchestra.engine.kinds.plan import forecast_rule
from orchestra.engine.replay import replay
from orchestra.router import rules
from tests.engine.kinds.test_plan import router
from tests.engine.stage import CATALOG, TEXT, Played, listed, play, program, record, tool
from tests.simulation.lab.invariants import AuditCase, audit

TABLE = [["Region", "Q1"], ["North", "5"], ["South", "9"]]
ASKED = "Which region had the highest Q1?"
WORK = """
input: {request: str, table: "list[list[str]]"}
output: ${solve}
nodes:
  solve: {plan: "${input.request}", with: {request: "${input.request}", table: "${input.table}"}, tools: [query_table, shout], returns: str, %s}
"""  # noqa: E501
BY_RULE = ("s1 = query_table(question=input.request, table=input.table)", "return s1")
BY_ROUTER = ("s1 = shout(text=input.request)", "return s1")
TOOLS = replace(
    CATALOG,
    tools={
        **CATALOG.tools,
        "query_table": tool("query_table", record(question=TEXT, table=listed(listed(TEXT))), TEXT),
    },
)
BROKEN = CallError(code="T003", reason="it raised", permanent=True)


def solved(more: str, asked: str = ASKED, **answers: Any) -> Played:
    given = {"query_table": "South", "router": router(*BY_ROUTER), **answers}
    return play(WORK % more, {"request": asked, "table": TABLE}, answers=given, catalog=TOOLS)


def questions(played: Played) -> list[CallRequest]:
    return [call for call in played.workers.calls if call.name == "router"]


def lines(played: Played) -> list[tuple[str, tuple[str, ...]]]:
    return [(event.draft.rule, event.draft.lines) for event in played.of(TurnStarted) if event.draft is not None]


@pytest.mark.parametrize("cache", ["true", "false"])
def test_goal_of_known_kind_is_planned_without_the_router(cache: str) -> None:
    played = solved(f"rules: true, cache: {cache}")
    assert (played.outcome, questions(played)) == (ValueOutcome("South"), [])
    assert lines(played) == [("query a table", BY_RULE)]
    assert audit(AuditCase(program(WORK % f"rules: true, cache: {cache}", TOOLS), played.events)) == []


def test_router_plans_without_rules_and_other_goals() -> None:
    for played in (solved("repairs: 0"), solved("repairs: 0, rules: true", "Make it loud, q 1 region")):
        assert len(questions(played)) > 0
        assert not any(rule for rule, _ in lines(played))


def test_router_is_offered_general_skills_only_if_no_rule_may_plan() -> None:
    by_rule, by_router = (
        solved(more, "Make it loud, q 1 region") for more in ("repairs: 0, rules: true", "repairs: 0")
    )
    assert "query_table" not in questions(by_rule)[0].inputs["skills"]
    assert "query_table" in questions(by_router)[0].inputs["skills"]


def test_router_plans_again_if_a_step_of_a_rule_failed() -> None:
    played = solved("replans: 0, rules: true", query_table=lambda call: BROKEN)
    assert played.outcome == ValueOutcome(ASKED.upper())
    assert lines(played)[0] == ("query a table", BY_RULE)
    assert lines(played)[-1] == ("", BY_ROUTER)
    assert "it raised" in questions(played)[0].inputs["request"]


def test_action_that_no_capability_does_ends_without_a_call() -> None:
    played = solved("rules: true", "Send Ann the table.")
    assert isinstance(played.outcome, FailedOutcome)
    assert "no capability serves the request" in played.outcome.reason
    assert played.workers.calls == []


def test_plan_of_a_rule_is_replayed_as_recorded() -> None:
    played = solved("rules: true")
    assert replay(program(WORK % "rules: true", TOOLS), played.events).first_difference is None
    begun = next(event for event in played.events if isinstance(event, TurnStarted))
    assert begun.draft is not None
    other = structs.replace(begun, draft=structs.replace(begun.draft, rule="an older rule"))
    changed = [other if event is begun else event for event in played.events]
    assert replay(program(WORK % "rules: true", TOOLS), changed).first_difference is None
    forged = structs.replace(
        begun, draft=structs.replace(begun.draft, lines=("s1 = send(text=input.request)", "return s1"))
    )
    changed = [forged if event is begun else event for event in played.events]
    assert replay(program(WORK % "rules: true", TOOLS), changed).first_difference is not None


def test_plan_of_the_router_is_replayed_though_a_rule_applies_today(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(rules, "RULES", ())
        played = solved("repairs: 0, rules: true")
    assert lines(played)[-1] == ("", BY_ROUTER)
    assert replay(program(WORK % "repairs: 0, rules: true", TOOLS), played.events).first_difference is None


def test_declined_goal_is_replayed_though_no_rule_declines_today() -> None:
    played = solved("rules: true", "Send Ann the table.")
    (ended,) = [event for event in played.events if isinstance(event, NodeFinished)]
    assert isinstance(ended.outcome, FailedOutcome)
    assert replay(program(WORK % "rules: true", TOOLS), played.events).first_difference is None


def test_forecast_has_the_steps_of_a_rule_only() -> None:
    compiled = program(WORK % "rules: true", TOOLS)
    known = forecast_rule(compiled.nodes[0], {"request": ASKED, "table": TABLE})
    assert known.applies
    assert known.program is not None
    assert [node.name for node in known.program.nodes] == ["s1"]
    declined = forecast_rule(compiled.nodes[0], {"request": "Send Ann the table.", "table": TABLE})
    assert (declined.applies, declined.program) == (True, None)
    assert not forecast_rule(compiled.nodes[0], {"request": "Make it loud", "table": TABLE}).applies
    assert not forecast_rule(program(WORK % "repairs: 0", TOOLS).nodes[0], {"request": ASKED, "table": TABLE}).applies
