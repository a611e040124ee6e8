"""Plans over the tools of a request: the prompt, the grammar, and the graph."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError, RunFailed
from orchestra.router import PlanStyle
from orchestra.router.tool_plans import (
    MAX_PROMPT_LENGTH,
    MIN_SHORTLIST,
    build_grammar,
    describe_tools,
    format_graph,
    parse_graph,
    parse_tools,
    shortlist,
)
from orchestra.testing import SimulatedOrchestra
from tests.agents.test_evidence_grammar import accepts
from tests.router.sample_capabilities import walked

TOOLS: list[Any] = [
    {
        "name": "findFlight",
        "description": "Flights to a city, with their prices.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "day": {"type": "integer"}},
            "required": ["city"],
        },
    },
    {
        "name": "book",
        "description": "Books what was found.",
        "parameters": {"what": {"type": "str"}, "seats": {"type": "int"}},
    },
    {"name": "send mail!", "description": "Tells somebody."},
    "alarm",
]
KNOWN = parse_tools(TOOLS)


def test_parse_tools_accepts_several_declarations() -> None:
    flight, book, mail, alarm = KNOWN
    assert (list(flight.fields), list(flight.required)) == (["city", "day"], ["city"])
    assert book.fields == {"what": {"type": "string"}, "seats": {"type": "integer"}}
    assert (mail.name, mail.plan_name, dict(mail.fields)) == ("send mail!", "send_mail_", {})
    assert (alarm.name, alarm.plan_name, alarm.description) == ("alarm", "alarm", "")


def test_parse_tools_parameter_named_properties() -> None:
    (one,) = parse_tools(
        [
            {
                "name": "draw",
                "parameters": {"type": {"type": "str"}, "properties": {"type": "str", "description": "Which."}},
            }
        ]
    )
    assert list(one.fields) == ["type", "properties"]


def test_parse_tools_parameters_as_descriptions() -> None:
    (one,) = parse_tools(
        [{"name": "draw", "parameters": {"id": "Required. string. The id.", "size": "integer. How large."}}]
    )
    assert one.signature == "draw(id, size?)"


def test_parse_tools_similar_names_stay_unique() -> None:
    assert [one.plan_name for one in parse_tools(["a b", "a_b", "a-b"])] == ["a_b", "a_b_2", "a-b"]


@pytest.mark.parametrize("tools", [["alarm", "alarm"], [{"description": "no name"}], [3], [None], [""]])
def test_parse_tools_duplicate_names_are_refused(tools: list[Any]) -> None:
    with pytest.raises(InputError) as refused:
        parse_tools(tools)
    assert refused.value.code == "A016"


def test_tool_shortlist_is_ranked_and_fits_prompt() -> None:
    many = parse_tools([f"tool_{number}" for number in range(400)] + TOOLS)
    found = shortlist("Find a flight to Rome, and set the alarm", many)
    assert {one.name for one in found[:2]} == {"findFlight", "alarm"}
    assert (
        sum(len(one.signature) + 1 for one in found) <= MAX_PROMPT_LENGTH < sum(len(one.signature) + 1 for one in many)
    )


def test_tool_shortlist_long_tools_has_minimum_size() -> None:
    long = parse_tools([{"name": f"tool_{number}_{'x' * 400}"} for number in range(9)])
    assert len(shortlist("a task", long)) == MIN_SHORTLIST


def test_describe_tools_adds_relevant_descriptions() -> None:
    assert (
        describe_tools("What are the prices?", KNOWN[:2])
        == "findFlight(city, day?: int): Flights to a city, with their prices.\nbook(what?, seats?: int)"
    )


def test_describe_tools_tables_fit_prompt() -> None:
    text = describe_tools("How many?", [], {"pets": ["id", "kind"], "b" * MAX_PROMPT_LENGTH: ["id"], "later": []})
    assert text == "table pets(id, kind)"


@pytest.mark.parametrize(
    "plan",
    [
        's1 = findFlight(city="Rome")',
        's1 = findFlight(city="Rome", day=3)\ns2 = book(what=s1, seats=2)\ns3 = send_mail_(s2)',
        "s1 = alarm()\ns2 = send_mail_(s1)\ns3 = alarm(s1, s2)",
        's1 = findFlight(city="Rome")\ns2 = book(s1)',
        "s1 = book()",
    ],
)
def test_tool_plan_of_calls_is_accepted_and_parsed(plan: str) -> None:
    assert accepts(build_grammar(KNOWN), plan)
    assert accepts(build_grammar(KNOWN, "calls"), plan)
    assert not accepts(build_grammar(KNOWN, "steps"), plan)
    found = parse_graph(plan, KNOWN)
    assert format_graph(found["nodes"], found["edges"], KNOWN) == plan


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ("s1 = fly()", "R002"),
        ("s1 = findFlight()\ns1 = book(s2)", "R002"),
        ("s1 = book(what=s1)", "R002"),
        ('s1 = findFlight(town="Rome")', "R002"),
        ("Call book, then mail.", "R001"),
        ("", "R001"),
        ("return s1", "R001"),
        ('s1 = [findFlight(city=x) for x in ["Rome", "Paris"]]', "R001"),
        ('s1 = findFlight(city="Rome")\ns2 = [book(what=x) for x in s1]', "R001"),
        ("s1 = alarm()\ns1 = alarm()", "R001"),
        ("\n".join(f"s{number} = alarm()" for number in range(1, 12)), "R001"),
    ],
)
def test_tool_plan_invalid_is_refused_by_grammar_and_parser(plan: str, code: str) -> None:
    assert not accepts(build_grammar(KNOWN), plan)
    with pytest.raises(InputError) as refused:
        parse_graph(plan, KNOWN)
    assert refused.value.code == code


@pytest.mark.parametrize("plan", ["s1 = findFlight()", 's1 = findFlight(city=3, day="x")', "s2 = alarm()"])
def test_tool_plan_grammar_has_further_limits(plan: str) -> None:
    assert not accepts(build_grammar(KNOWN), plan)


def test_tool_plan_of_steps() -> None:
    plan = 's1 = step(do="Add the costs.")\ns2 = step(do="Count the \\"days\\".")\ns3 = step(s1, s2, do="Divide.")'
    assert accepts(build_grammar(KNOWN), plan)
    assert accepts(build_grammar([], "steps"), plan)
    assert not accepts(build_grammar(KNOWN, "calls"), plan)
    found = parse_graph(plan, KNOWN)
    assert found == {
        "nodes": [{"step": "Add the costs."}, {"step": 'Count the "days".'}, {"step": "Divide."}],
        "edges": [[0, 2], [1, 2]],
    }
    assert format_graph(found["nodes"], found["edges"], KNOWN) == plan
    with pytest.raises(InputError):
        parse_graph(plan, KNOWN, "calls")


def test_parse_graph_node_has_tool_and_references() -> None:
    found = parse_graph('s1 = findFlight(city="Rome")\ns2 = book(what=s1)\ns3 = send_mail_(s2)', KNOWN)
    assert found == {
        "nodes": [
            {"tool": "findFlight", "arguments": {"city": "Rome"}},
            {"tool": "book", "arguments": {"what": "${s1}"}},
            {"tool": "send mail!"},
        ],
        "edges": [[0, 1], [1, 2]],
    }


@pytest.mark.parametrize("style", [None, "calls", "steps"])
@pytest.mark.parametrize("seed", range(8))
def test_tool_plan_random_graph_has_no_cycle(seed: int, style: PlanStyle | None) -> None:
    text = walked(build_grammar(KNOWN, style), Random(seed))
    if text is None:
        pytest.skip("this walk came to no end")
    found = parse_graph(text, KNOWN, style)
    assert found["nodes"]
    assert all(0 <= i < j < len(found["nodes"]) for i, j in found["edges"])


@given(
    st.lists(st.tuples(st.sampled_from(["alarm", "send mail!"]), st.sets(st.integers(0, 8))), min_size=1, max_size=8)
)
def test_tool_plan_lines_and_graph_round_trip(drawn: list[tuple[str, set[int]]]) -> None:
    nodes = [{"tool": name} for name, _ in drawn]
    edges = [[i, j] for j, (_, before) in enumerate(drawn) for i in sorted(before) if i < j]
    assert parse_graph(format_graph(nodes, edges, KNOWN), KNOWN) == {"nodes": nodes, "edges": edges}


async def test_planner_workflow_returns_graph(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers({"tool_planner": 's1 = findFlight(city="Rome")\ns2 = alarm(s1)'})
    result = await simulated.run(
        simulated.find("planner"), task="Find a flight to Rome, then set the alarm.", tools=TOOLS
    )
    assert result.value == {
        "nodes": [{"tool": "findFlight", "arguments": {"city": "Rome"}}, {"tool": "alarm"}],
        "edges": [[0, 1]],
    }


async def test_planner_workflow_unknown_tool_fails(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers({"tool_planner": "s1 = delete_all()"})
    with pytest.raises(RunFailed, match="R002: there is no tool 'delete_all'"):
        await simulated.run(simulated.find("planner"), task="Find a flight to Rome.", tools=TOOLS)


def test_parse_tools_large_catalogue_keeps_parameters() -> None:
    many = [
        {"name": f"tool_{at}", "parameters": {f"p{number}": {"type": "str"} for number in range(8)}}
        for at in range(4000)
    ]
    assert all(len(one.fields) == 8 for one in parse_tools(many))
