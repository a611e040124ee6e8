"""The router: turns a request into a typed plan.

`planner` is the state machine: it returns the questions for the planner model and accepts the replies. `capabilities`
says what a plan may call, `plan_grammar` restricts decoding to valid lines, `plan_syntax` parses a line, `validation`
checks it, and `plan` converts a plan to a workflow. All of it is pure; the engine makes the calls.
"""

from typing import Literal, TypeAlias

PlanStyle: TypeAlias = Literal["calls", "steps"]
"""Lines of a plan over any tools: calls with arguments, or steps in words (`orchestra.router.tool_plans`)."""

__all__ = [
    "PlanStyle",
    "capabilities",
    "constants",
    "grounding",
    "input_types",
    "multi_part",
    "plan",
    "plan_cache",
    "plan_syntax",
    "planner",
    "prompt",
    "shortlist",
    "suggestions",
    "tool_turns",
    "tools",
    "validation",
    "voting",
]
