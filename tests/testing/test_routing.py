"""The rule-based router: its lines over lists are valid plans, or the validation refuses them."""

from __future__ import annotations

from random import Random

from orchestra.router import prompt
from orchestra.router.capabilities import Capabilities
from orchestra.router.plan_syntax import PlanLiteral, PlanStep, PlanSyntaxError, parse_line
from orchestra.router.validation import validate_line
from orchestra.workflows.model import PlanLimits
from tests.simulation.lab.catalog import catalog
from tests.simulation.lab.fake_router import plan_line


def test_routing_lines_over_stated_lists() -> None:
    tools = catalog().tools
    values = {"request": {"type": "string"}, "text": {"type": "string"}}
    goal = "go on and on"
    offered = Capabilities.of(
        [tools[name] for name in ("shout", "split", "join")],
        values,
        limits=PlanLimits(steps=4, width=2),
        request_text=goal,
    )
    told = {
        "skills": prompt.capability_lines(offered.by_name.values()),
        "values": prompt.value_lines(values),
        "plan": "",
        "request": goal,
    }
    chance, counts = Random(5), {True: 0, False: 0}
    for _ in range(400):
        try:
            found = parse_line(plan_line(told, chance.randbytes(8), wrong=0.0).splitlines()[0])
        except PlanSyntaxError:
            continue
        if isinstance(found, PlanStep) and isinstance(found.each, PlanLiteral):
            fits = len(found.each.value) <= 2
            assert [one.code for one in validate_line(found, offered, [])] == ([] if fits else ["R006"])
            counts[fits] += 1
    assert min(counts.values()) >= 5
