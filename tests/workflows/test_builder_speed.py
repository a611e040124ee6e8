"""Tests that the time of a trace grows linearly with its length."""

from __future__ import annotations

import gc
import time
from typing import Any

from orchestra import Answer, or_else, tool, workflow
from tests.unsafe_reference import assert_cost
from tests.workflows.ensemble import calculator


def test_trace_many_nodes_is_fast() -> None:

    def traced() -> None:
        @workflow()
        def long(question: str) -> Answer:
            answer = calculator(question=question)
            for _ in range(1000):
                answer = calculator(question=or_else(answer.text, "none"))
            return answer

        assert len(long.graph.nodes) == 1001

    assert_cost(traced, at_most=1_000)


def test_trace_many_lines_is_fast() -> None:
    """A thousand statements, each with a name of its own: the function's code is read once, and not once a call."""
    lines = [f"    a{at} = calculator(question=or_else(a{at - 1}.text, question))" for at in range(1, 1000)]
    source = "\n".join(
        ["def long(question: str) -> Answer:", "    a0 = calculator(question=question)", *lines, "    return a999"]
    )
    space: dict[str, Any] = {"calculator": calculator, "Answer": Answer, "or_else": or_else}
    exec(compile(source, "<long>", "exec"), space)
    assert list(workflow()(space["long"]).graph.nodes) == [f"a{at}" for at in range(1000)]
    assert_cost(lambda: workflow()(space["long"]).graph, at_most=600)


def test_trace_time_is_linear() -> None:
    """Nine times as many nodes, each after three others, take about nine times as long; twice that is allowed for
    noise.
    """

    @tool(effect="pure")
    def step(number: int) -> int:
        return number

    def seconds(nodes: int) -> float:
        @workflow(name=f"long_{nodes}")
        def long() -> int:
            made = [step(number=0)]
            for number in range(1, nodes):
                made.append(step.options(name=f"n{number}", after=made[-3:])(number=number))
            return made[-1]

        gc.collect()
        began = time.process_time()
        assert len(long.graph.nodes) == nodes
        return time.process_time() - began

    short = min(seconds(1000) for _ in range(3))
    assert min(seconds(9000) for _ in range(3)) < 18 * short
