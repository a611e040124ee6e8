"""Other ways to call the shipped planner, in the harness of `bench.planners`: line by line, and with repairs.

They call the agent `tool_planner` as the workflow `planner` does, with the same tools and the same adapter.

- Line by line: the grammar of each call allows one more line, and the previous lines are the start of the model's
  message.
- With a repair: an invalid plan is returned with the reason and requested once more. It matters without a grammar.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.metrics import Plan
from bench.plan_baselines import Planned, Tally, card, sound
from bench.plan_sets import PlanSet, Task
from orchestra.app.orchestra import Orchestra
from orchestra.core.errors import InputError
from orchestra.router import PlanStyle, tool_plans
from orchestra.router.tool_plans import RequestTool
from orchestra.workflows.python.steps import Agent, Step

WRITER = "tool_planner"


@dataclass(frozen=True)
class _Asking:
    """The agent and the inputs of a task."""

    orchestra: Orchestra
    known: PlanSet
    name: str

    @property
    def style(self) -> PlanStyle:
        """Returns the kind of plans of the set."""
        return "steps" if self.known.kind.steps else "calls"

    def offer(self, task: Task) -> tuple[list[RequestTool], str]:
        """Returns the tools and their text for the model."""
        chosen = tool_plans.shortlist(task.text, tool_plans.parse_tools(task.raw))
        return chosen, tool_plans.describe_tools(task.text, chosen, task.tables or None)

    def read(self, text: str, task: Task) -> Plan | None:
        """Parses lines as a graph. Raises `InputError` if they are invalid."""
        return sound(tool_plans.parse_graph(text, tool_plans.parse_tools(task.raw), self.style))


@dataclass(frozen=True)
class Stepwise(_Asking):
    """One call for each line."""

    name: str = "ours, line by line"

    @cached_property
    def writer(self) -> Step[..., Any]:
        """The shipped agent, whose message begins with the previous lines."""
        shipped = self.orchestra.registry.cards[WRITER]
        prompt = f"{shipped.template.rstrip()}\n<!-- assistant -->\n{{{{ so_far }}}}\n"
        kept = {
            "system": shipped.system,
            "model": shipped.model,
            "adapter": shipped.adapter,
            "elsewhere": shipped.elsewhere,
        }
        inputs = ("task", "tools", "so_far", "grammar")
        made = card("tool_planner_by_line", prompt, inputs, shipped.max_output, grammar="grammar", **kept)
        return Agent.from_card(made.model_copy(update={"folder": shipped.folder}))

    async def __call__(self, task: Task) -> Planned:
        chosen, told = self.offer(task)
        tally, so_far = Tally(), ""
        for before in range(tool_plans.MAX_STEPS):
            grammar = tool_plans.next_line_grammar(chosen, before, self.style)
            said = await tally.ask(
                self.orchestra, self.writer, task=task.text, tools=told, so_far=so_far, grammar=grammar
            )
            if said is None:
                return Planned(None, tally.usage, fault=tally.fault)
            so_far += said
            if not said.endswith("\ns"):
                break
        try:
            return Planned(self.read(so_far.removesuffix("\ns"), task), tally.usage)
        except InputError as error:
            return Planned(None, tally.usage, fault=f"{error.code}: {error.message}")


@dataclass(frozen=True)
class Repaired(_Asking):
    """The complete plan in one call; an invalid one is requested again with the reason."""

    name: str = "ours, without its grammar, one repair"
    repairs: int = 1

    async def __call__(self, task: Task) -> Planned:
        chosen, told = self.offer(task)
        writer, tally, asked = self.orchestra.find(WRITER), Tally(), task.text
        for _ in range(self.repairs + 1):
            given = {"task": asked, "tools": told, "grammar": tool_plans.build_grammar(chosen, self.style)}
            said = await tally.ask(self.orchestra, writer, **given)
            if said is None:
                break
            try:
                return Planned(self.read(said, task), tally.usage)
            except InputError as error:
                tally.fault = f"{error.code}: {error.message}"
                asked = f"{task.text}\n\nThis was refused: {error.message}; {error.hint}\n{said}"
        return Planned(None, tally.usage, fault=tally.fault)
