"""The `plan` node as it ships, on recorded steps: the router's agent, asked by the engine, writes the recorded lines and no others.

Only what stands behind the `Workers` door is another: where the engine asks the router for a line, the grammar that it compiled is
replaced by one that has the recorded line in it. Lines, gates, the plan's run and its look-ups are the engine's own; whether steps start
while the plan is still being written is for the engine to say.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench.parallel_steps import MOST_FACTS, Question, Trace, compute, exactly, found, lookup, one_model, page, reckon
from orchestra.app.orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.app.workers import FleetMode, ProjectWorkers
from orchestra.core.protocols import CallError, CallEstimate, CallReply, CallRequest, CallResult
from orchestra.core.settings import Settings
from orchestra.router.plan_grammar import STEP_PREFIX
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.reader import read

ROUTER, READER = "router", "reader"


def plan_lines(asked: Question) -> list[str]:
    """The recorded steps in the notation of plans."""
    numbers = range(1, len(asked.facts) + 1)
    looked = [f's{number} = reader(question="{asked.facts[number - 1].question}", context=input.p{number})' for number in numbers]
    last = len(asked.facts) + 1
    read_by = ", ".join(f"r{number}=s{number}.answer" for number in numbers)
    return [*looked, f's{last} = compute(term="{asked.term}", names=input.names, {read_by})', f"return s{last}"]


def mapped_lines(asked: Question) -> list[str]:
    """The same steps, where the look-ups that are alike are one line."""
    looked = [
        f's{number} = [lookup(what="{what}", of=x) for x in {json.dumps(names)}]' for number, (what, names) in enumerate(asked.alike, 1)
    ]
    last = len(looked) + 1
    read_by = ", ".join(f"{name}=s{number}" for number, name in zip(range(1, last), ("facts", "more"), strict=False))
    return [*looked, f's{last} = reckon(term="{asked.term}", {read_by})', f"return s{last}"]


def reply(lines: Sequence[str], number: int, *, begun: bool) -> str:
    """What a router answers that writes these lines, and is asked for one: this line, and the answer or the beginning of the next one."""
    after = lines[number + 1 : number + 2]
    behind = [one if one.startswith("return ") else STEP_PREFIX for one in after]
    return "\n".join([lines[number].removeprefix(STEP_PREFIX) if begun else lines[number], *behind])


@dataclass
class Held:
    """Workers whose router writes recorded lines, and a trace of what is asked."""

    troupe: ProjectWorkers
    lines: dict[str, list[str]] = field(default_factory=dict)
    """By the goal of the plan."""
    trace: Trace = field(default_factory=Trace)
    page: str = ""
    """What a page begins with that a tool has found, so that it is in nobody's cache."""

    def _held(self, call: CallRequest) -> CallRequest:
        if call.kind == "agent" and call.name == READER:
            self.trace.looks_up()
            call = msgspec.structs.replace(call, inputs={**call.inputs, "context": f"{self.page}{call.inputs['context']}"})
        if call.kind != "agent" or call.name != ROUTER:
            return call
        stands = str(call.inputs["plan"]).splitlines()
        begun = stands[-1:] == [STEP_PREFIX]
        text = reply(self.lines[call.inputs["request"]], len(stands) - begun, begun=begun)
        self.trace.written.append(text)
        return msgspec.structs.replace(call, inputs={**call.inputs, "grammar": exactly(text, goes_on=bool(stands) and not begun)})

    def _counted(self, call: CallRequest, reply: CallReply) -> None:
        if isinstance(reply, CallResult | CallError):
            if call.name == ROUTER:
                self.trace.planning += reply.usage
            elif call.name == READER:
                self.trace.reading += reply.usage

    async def run(self, call: CallRequest) -> AsyncGenerator[CallReply, None]:
        """Does one call."""
        async with aclosing(self.troupe.run(self._held(call))) as replies:
            async for reply in replies:
                self._counted(call, reply)
                yield reply

    async def do(self, call: CallRequest) -> CallResult | CallError:
        """Does one call without chunks."""
        reply = await self.troupe.call(self._held(call))
        self._counted(call, reply)
        return reply

    def measure(self, call: CallRequest) -> CallEstimate:
        """What a call may cost."""
        return self.troupe.estimate(call)

    async def count(self, call: CallRequest) -> int | None:
        """The tokens of its prompt."""
        return await self.troupe.count_tokens(call)


@dataclass(frozen=True)
class PlanNode:
    """Workflows of one `plan` node, on held workers: with a line for each look-up, and with one for those that are alike."""

    orchestra: Orchestra
    held: Held
    workflow: Workflow[..., Any]
    mapped: Workflow[..., Any]

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, fleet: FleetMode) -> AsyncIterator[PlanNode]:
        """Open for work."""
        project = Project.load(settings)
        reader = one_model(project.registry)
        for step in (reader, compute, reckon, page, found, lookup):
            project.register(step)
        async with ProjectWorkers.open(project, mode=fleet) as troupe:
            held = Held(troupe)
            async with Orchestra.open(settings, workers=held) as orchestra:
                for step in (reader, compute, reckon, lookup):
                    orchestra.program(step)
                texts = (_workflow(), MAPPED)
                yield cls(orchestra, held, *(Workflow.from_graph(read(text, "planned.yaml").graph) for text in texts))

    async def apart(self, trace: Trace, asked: Question, word: str) -> str | None:
        """What the node answers that has a line for each look-up; None where it fails."""
        pages = [f"Page {word}. {fact.passage}" for fact in asked.facts]
        pages += [""] * (MOST_FACTS - len(pages))
        self.held.page = ""
        given = {f"p{number}": page for number, page in enumerate(pages, 1)}
        return await self._ran(self.workflow, trace, asked, word, plan_lines(asked), names=[fact.of for fact in asked.facts], **given)

    async def together(self, trace: Trace, asked: Question, word: str) -> str | None:
        """What the node answers whose look-ups are one line; None where it fails."""
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
