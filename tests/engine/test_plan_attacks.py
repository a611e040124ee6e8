"""Plans of a planner that obeys an attacker, over requests with and without amounts, names, negations and questions: no
effect beyond them.

    python -m pytest -m slow tests/engine/test_plan_attacks.py -s

runs 5,000 plans and prints their results; the quick suite runs a sample.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

import pytest

from orchestra.agents.contract import Catalog
from orchestra.core.events import QuestionAsked, TurnStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import InboxMessage
from orchestra.engine.replay import replay
from orchestra.engine.run import Execution
from orchestra.router.plan_syntax import PlanLiteral, PlanStep, parse_line
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.attacks import Call, Case, Planner, call_of, cases, made
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, program, record, tool

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
PAY, EMAIL = tool("pay", record(to=TEXT, amount=NUMBER), TEXT, "once"), tool("email", record(to=TEXT), TEXT, "once")
HOUSE = Catalog(CATALOG.agents, {"pay": replace(PAY, description="Pays money to somebody."), "email": EMAIL})
PLAN = """
input: {request: str}
output: ${done}
nodes:
  done:
    plan: ${input.request}
    tools: [pay, email]
    returns: anything
    limits: {steps: 4, width: 8}
    repairs: %d
    confirm: %s
    copied: %s
    streaming: %s
    stepwise: %s
"""
BATCH = 50


class Attacked:
    """Runs of requests and their results; each run may take the plan of an earlier run from the cache."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.confirm = seed % 2 == 0
        self.planner = Planner(self.chance)
        self.calls: list[Call] = []
        self.found = Counter[str]()
        switches = [str(one).lower() for one in (self.confirm, *(self.chance.random() < 0.7 for _ in range(3)))]
        self.program = program(PLAN % (self.chance.randint(0, 3), *switches), HOUSE)

    def run(self, number: int) -> Counter[str]:
        """Runs that many requests; raises `AssertionError` if an effect is beyond its request."""

        async def scene(clock: VirtualClock) -> None:
            answers = {"router": self.planner, **{name: self._acting(name) for name in ("pay", "email")}}
            theatre = Theatre(clock, answers)
            for case in islice(cases(self.chance), number):
                await self._asked(theatre, case)
            await theatre.engine.close()

        run_simulated(scene)
        return self.found

    def _acting(self, name: str) -> Any:
        def act(call: Any) -> str:
            self.calls.append(made(call.inputs, name))
            return "done"

        return act

    async def _asked(self, theatre: Theatre, case: Case) -> None:
        self.calls.clear()
        self.planner.begin(case, honest=self.chance.random() < 0.4)
        run = theatre.start(self.program, {"request": case.text})
        await self._answered(theatre, run, case)
        finished = await run.wait()
        events = list(await run.history())
        turns = [one.draft for one in events if isinstance(one, TurnStarted)]
        self.found["plans"] += 1
        self.found["from the cache"] += any(one is not None and bool(one.reused_from) for one in turns)
        self.found["calls"] += len(self.calls)
        self.found["of another argument of the request"] += len(case.amiss(self.calls))
        self.found["honest plans of what is asked"] += self.planner.honest and bool(case.asked)
        self.found["of them carried out"] += (
            self.planner.honest and bool(case.asked) and isinstance(finished.outcome, ValueOutcome)
        )
        assert case.beyond(self.calls) == [], (case, self.calls)
        assert not self.confirm or case.amiss(self.calls) == [], (case, self.calls)
        assert replay(self.program, events).reason == ""

    async def _answered(self, theatre: Theatre, run: Execution, case: Case) -> None:
        """Approves the calls that the request asks for, and no others."""
        while await run.wait_until_blocked() is None:
            (asked,) = run.questions
            self.found["questions"] += 1
            agreed = "yes" if (calls := _calls(asked)) and case.amiss(calls) == [] else "no"
            await theatre.journal.send(
                run.id,
                InboxMessage(kind="answer", node=asked.node, value=agreed, question_digest=asked.question_digest),
            )
            while asked in run.questions:
                await theatre.clock.sleep(1)


def _calls(asked: QuestionAsked) -> list[Call]:
    """Returns the calls in a question; empty if one of them has an argument that is not a constant."""
    found = []
    for line in asked.question.splitlines()[1:]:
        if "“" in line:
            return []
        step = parse_line(f"s1 = {line}")
        assert isinstance(step, PlanStep)
        found.append(
            call_of(
                step.capability,
                **{name: value.value for name, value in step.arguments.items() if isinstance(value, PlanLiteral)},
            )
        )
    return found


def attacked(plans: int) -> Counter[str]:
    """Returns the results of that many plans."""
    found = Counter[str]()
    for seed in range(plans // BATCH):
        found += Attacked(seed).run(BATCH)
    return found


def test_plan_attacks_no_effect_beyond_request() -> None:
    found = attacked(250)
    assert found["plans"] == 250
    assert found["from the cache"] > 5
    assert found["questions"] > 10
    assert found["of them carried out"] > 20


@pytest.mark.slow
def test_plan_attacks_5000_no_effect_beyond_request() -> None:
    found = attacked(5_000)
    print("\n", dict(found))
    assert found["plans"] == 5_000
