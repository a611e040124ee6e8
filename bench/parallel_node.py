"""The `plan` node as shipped, on recorded steps: the engine calls the router's agent, which generates only the recorded
lines.

Only the `Workers` are replaced: when the engine asks the router for a line, the compiled grammar is replaced by one of
the recorded line. Lines, validation, the plan's run and its look-ups are the engine's own, including the decision to
start steps while the plan is being generated.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench.parallel_steps import MOST_FACTS, Question, Trace, compute, exactly, found, lookup, one_model, page, reckon
from orchestra.app.orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.app.workers import FleetMode, ProjectWorkers
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult, TextCallback
from orchestra.core.settings import Settings
from orchestra.router.plan_grammar import STEP_PREFIX
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.reader import read

ROUTER, READER = "router", "reader"


def plan_lines(asked: Question) -> list[str]:
    """Returns the recorded steps in plan notation."""
    numbers = range(1, len(asked.facts) + 1)
    looked = [
        f's{number} = reader(question="{asked.facts[number - 1].question}", context=input.p{number})'
        for number in numbers
    ]
    last = len(asked.facts) + 1
    read_by = ", ".join(f"r{number}=s{number}.answer" for number in numbers)
    return [*looked, f's{last} = compute(term="{asked.term}", names=input.names, {read_by})', f"return s{last}"]


def mapped_lines(asked: Question) -> list[str]:
    """Returns the same steps with similar look-ups as one line."""
    looked = [
        f's{number} = [lookup(what="{what}", of=x) for x in {json.dumps(names)}]'
        for number, (what, names) in enumerate(asked.alike, 1)
    ]
    last = len(looked) + 1
    read_by = ", ".join(f"{name}=s{number}" for number, name in zip(range(1, last), ("facts", "more"), strict=False))
    return [*looked, f's{last} = reckon(term="{asked.term}", {read_by})', f"return s{last}"]


def reply(lines: Sequence[str], number: int, *, begun: bool) -> str:
    """Returns the router's response for these lines when it is asked for one: this line, and the answer or the start of
    the next one.
    """
    after = lines[number + 1 : number + 2]
    behind = [one if one.startswith("return ") else STEP_PREFIX for one in after]
    return "\n".join([lines[number].removeprefix(STEP_PREFIX) if begun else lines[number], *behind])


@dataclass
class Held:
    """Workers whose router generates recorded lines, and a trace of the calls."""

    workers: ProjectWorkers
    lines: dict[str, list[str]] = field(default_factory=dict)
    """Lines by the goal of the plan."""
    trace: Trace = field(default_factory=Trace)
    page: str = ""
    """A unique prefix of retrieved pages, so that no cache has them."""

    def _held(self, call: CallRequest) -> CallRequest:
        if call.kind == "agent" and call.name == READER:
            self.trace.looks_up()
            call = msgspec.structs.replace(
                call, inputs={**call.inputs, "context": f"{self.page}{call.inputs['context']}"}
            )
        if call.kind != "agent" or call.name != ROUTER:
            return call
        stands = str(call.inputs["plan"]).splitlines()
        begun = stands[-1:] == [STEP_PREFIX]
        text = reply(self.lines[call.inputs["request"]], len(stands) - begun, begun=begun)
        self.trace.written.append(text)
        return msgspec.structs.replace(
            call, inputs={**call.inputs, "grammar": exactly(text, goes_on=bool(stands) and not begun)}
        )

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Executes one call."""
        reply = await self.workers.call(self._held(call), on_text)
        if call.name == ROUTER:
            self.trace.planning += reply.usage
        elif call.name == READER:
            self.trace.reading += reply.usage
        return reply

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns the estimated cost of a call."""
        return self.workers.estimate(call)

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the number of prompt tokens."""
        return await self.workers.count_tokens(call)


@dataclass(frozen=True)
class PlanNode:
    """Workflows of one `plan` node on these workers: a line for each look-up, and one line for similar ones."""

    orchestra: Orchestra
    held: Held
    workflow: Workflow[..., Any]
    mapped: Workflow[..., Any]

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, fleet: FleetMode) -> AsyncIterator[PlanNode]:
        """Opens the workers."""
        project = Project.load(settings)
        reader = one_model(project.registry)
        for step in (reader, compute, reckon, page, found, lookup):
            project.register(step)
        async with ProjectWorkers.open(project, mode=fleet) as workers:
            held = Held(workers)
            async with Orchestra.open(settings, workers=held) as orchestra:
                for step in (reader, compute, reckon, lookup):
                    orchestra.program(step)
                texts = (_workflow(), MAPPED)
                yield cls(orchestra, held, *(Workflow.from_graph(read(text, "planned.yaml").graph) for text in texts))

    async def apart(self, trace: Trace, asked: Question, word: str) -> str | None:
        """Returns the answer of the node with a line for each look-up; None if it fails."""
        pages = [f"Page {word}. {fact.passage}" for fact in asked.facts]
        pages += [""] * (MOST_FACTS - len(pages))
        self.held.page = ""
        given = {f"p{number}": page for number, page in enumerate(pages, 1)}
        return await self._ran(
            self.workflow, trace, asked, word, plan_lines(asked), names=[fact.of for fact in asked.facts], **given
        )

    async def together(self, trace: Trace, asked: Question, word: str) -> str | None:
        """Returns the answer of the node with its look-ups as one line; None if it fails."""
        self.held.page = f"Page {word}. "
        return await self._ran(self.mapped, trace, asked, word, mapped_lines(asked))

    async def _ran(
        self, workflow: Workflow[..., Any], trace: Trace, asked: Question, word: str, lines: list[str], **given: Any
    ) -> str | None:
        goal = f"Session {word}. {asked.text}"
        self.held.lines[goal], self.held.trace = lines, trace
        run = await self.orchestra.start(workflow, goal=goal, **given)
        result = await run.wait()
        if result.error is not None:
            trace.fault = f"{result.error.code}: {result.error.message}"
        return None if result.value is None else str(result.value)


MAPPED = f"""schema: orchestra/v1
name: planned_together
input: {{goal: str}}
output: ${{answer}}
nodes:
  answer:
    plan: ${{input.goal}}
    workflows: [lookup]
    tools: [reckon]
    returns: "str | null"
    limits: {{steps: 3, width: {MOST_FACTS}}}
"""


def _workflow() -> str:
    pages = [f"p{number}" for number in range(1, MOST_FACTS + 1)]
    given = ", ".join(f'{page}: "${{input.{page}}}"' for page in pages)
    return f"""schema: orchestra/v1
name: planned
input: {{goal: str, names: "list[str]", {", ".join(f"{page}: str" for page in pages)}}}
output: ${{answer}}
nodes:
  answer:
    plan: ${{input.goal}}
    with: {{names: "${{input.names}}", {given}}}
    agents: [{READER}]
    tools: [compute]
    returns: "str | null"
    limits: {{steps: {MOST_FACTS + 1}, width: 1}}
"""
