"""Laws of the queue for a budget: released capacity goes to the next waiting call, and calls of different budgets do
not block each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.events import NodeFinished, Usage
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import CallEstimate, CallRequest, CallResult
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from orchestra.workflows.model import Graph
from orchestra.workflows.yaml.reader import read
from tests.engine.stage import ANSWERS, CATALOG, Played, program


class Costly(SimulatedWorkers):
    """Each call reserves thirty tokens, uses two, and takes a second, or the seconds given for its node."""

    def __init__(self, clock: VirtualClock, seconds: Mapping[str, float], answers: Any = None) -> None:
        self.answers = answers or {}
        super().__init__(
            {**ANSWERS, "writer": self.write}, clock=clock, latency=lambda call, _: seconds.get(call.node, 1.0)
        )

    def write(self, call: CallRequest) -> CallResult:
        value = self.answers[call.node](call) if call.node in self.answers else "w"
        return CallResult(value=value, usage=Usage(prompt_tokens=1, output_tokens=1, calls=1))

    def estimate(self, call: CallRequest) -> CallEstimate:
        return CallEstimate(prompt_tokens=10, max_output=20, min_output=20)


def inner(name: str, text: str) -> Graph:
    """A workflow with a budget for one call at a time."""
    return read(f"schema: orchestra/v1\nname: {name}\nbudget: {{tokens: 45}}\n{text}".encode(), f"{name}.yaml").graph


def spend(
    text: str, seconds: Mapping[str, float], *called: Graph, answers: Any = None, concurrency: int = 64, seed: int = 0
) -> Played:
    """Runs a workflow to its end."""
    catalog = dataclasses.replace(CATALOG, workflows={graph.name: graph for graph in called})

    async def scene(clock: VirtualClock) -> Played:
        workers = Costly(clock, seconds, answers)
        engine = Engine(clock, MemoryJournal(), workers, concurrency=concurrency)
        run = engine.start(program(text, catalog), RunRequest(graph="0" * 32))
        finished = await run.wait()
        await engine.close()
        return Played(finished, list(run.log), workers, MemoryJournal())

    return run_simulated(scene, seed)


def test_budget_queue_released_tokens_go_to_waiting_calls() -> None:
    text = """
budget: {tokens: 35}
output: {x: "${slow}", y: "${w}"}
nodes:
  slow: {call: {nodes: {i: {agent: writer, with: {text: x}}}, output: "${i}"}, timeout: 5, fallback: late}
  s: {tool: shout, with: {text: x}}
  w: {agent: writer, with: {text: "${s}"}}
"""
    assert spend(text, {"slow/i": 100.0}).outcome == ValueOutcome({"x": "late", "y": "w"})


def test_budget_queue_expired_call_lets_next_start() -> None:
    called = """
output: {p: "${p}", u: "${u}", v: "${v}"}
nodes:
  p: {agent: writer, with: {text: p}}
  u: {call: {nodes: {i: {agent: writer, with: {text: u}}}, output: "${i}"}, timeout: 20, fallback: late}
  v: {call: {nodes: {i: {agent: writer, with: {text: v}}}, output: "${i}"}}
"""
    text = """
output: {n: "${n}", t: "${others}"}
nodes:
  n: {call: inner}
  others:
    call:
      nodes:
        first: {tool: shout, with: {text: x}}
        a: {tool: shout, with: {text: "${first}"}}
        b: {tool: shout, with: {text: "${first}"}}
        c: {tool: shout, with: {text: "${first}"}}
        last: {tool: shout, with: {text: "${a}${b}${c}"}}
      output: ${last}
    timeout: 19.5
    fallback: cut
"""
    seconds = {"n/p": 10.0, "n/u/i": 5.0, "others/first": 3.0, "others/a": 50.0, "others/b": 50.0, "others/c": 50.0}
    outcome = spend(text, seconds, inner("inner", called), concurrency=3).outcome
    assert isinstance(outcome, ValueOutcome)
    assert outcome.value["n"] == {"p": "w", "u": "late", "v": "w"}


MANY = """
output: ${m.values}
nodes:
  m: {agent: writer, each: "${['1', '2', '3', '4']}", as: x, with: {text: "${x}"}}
"""


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_budget_queue_independent_of_other_budgets(seed: int) -> None:
    text = 'output: {a: "${a}", b: "${b}"}\nnodes:\n  a: {call: slow}\n  b: {call: fast}'
    seconds = {f"a/m[{index}]": 100.0 for index in range(4)}
    played = spend(text, seconds, inner("slow", MANY), inner("fast", MANY), seed=seed)
    (end,) = played.of(NodeFinished, "b")
    assert end.at - played.events[0].at < 10


def test_budget_queue_waiting_escalation_stays_escalation() -> None:
    text = """
budget: {tokens: 64}
output: {x: "${r}", y: "${w}"}
nodes:
  w: {agent: writer, with: {text: x}}
  r: {agent: writer, with: {text: x}, checks: [numbers], against: none, otherwise: [escalate, abstain]}
"""
    played = spend(text, {"w": 5.0}, answers={"r": lambda call: "fine" if call.is_escalated else "17"})
    assert [(call.attempt, call.is_escalated) for call in played.workers.calls if call.node == "r"] == [
        (1, False),
        (2, True),
    ]
