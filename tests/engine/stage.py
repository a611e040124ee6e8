"""Harness for engine tests: a workflow as YAML, handwritten contracts, simulated workers, virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.agents.contract import Catalog, Contract, Effect, Schema
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, NodeFinished, RunFinished
from orchestra.core.outcomes import Outcome, ValueOutcome
from orchestra.core.protocols import CallRequest
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.program import Program
from orchestra.workflows.yaml.reader import read

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}


def record(**fields: Schema) -> Schema:
    return {
        "type": "object",
        "title": "Record",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def tool(name: str, inputs: Schema, output: Schema, effect: Effect = "pure") -> Contract:
    return Contract(name, "tool", inputs, output, effect=effect)


def agent(name: str, inputs: Schema, output: Schema) -> Contract:
    return Contract(name, "agent", inputs, output, max_output=50)


READING = {
    "type": "object",
    "title": "Reading",
    "properties": {"answer": TEXT, "quote": {"type": "string", "format": "quote"}},
    "required": ["answer", "quote"],
    "additionalProperties": False,
}
CATALOG = Catalog(
    agents={
        "reader": agent("reader", record(question=TEXT, context=TEXT), READING),
        "writer": agent("writer", record(text=TEXT), TEXT),
        "router": agent("router", record(request=TEXT, skills=TEXT, values=TEXT, plan=TEXT, grammar=TEXT), TEXT),
    },
    tools={
        "split": tool("split", record(text=TEXT), listed(TEXT)),
        "shout": tool("shout", record(text=TEXT), TEXT),
        "count": tool("count", record(items=listed(TEXT)), NUMBER),
        "grow": tool("grow", record(text={"anyOf": [TEXT, {"type": "null"}]}), TEXT),
        "send": tool("send", record(text=TEXT), TEXT, "once"),
    },
)
ANSWERS: dict[str, Any] = {
    "split": lambda call: call.inputs["text"].split(),
    "shout": lambda call: call.inputs["text"].upper(),
    "count": lambda call: len(call.inputs["items"]),
    "grow": lambda call: (call.inputs["text"] or "") + "x",
    "send": lambda call: "sent",
    "writer": lambda call: f"<{call.inputs['text']}>",
    "reader": lambda call: {"answer": "1889", "quote": "completed in 1889"},
}


def program(text: str, catalog: Catalog = CATALOG) -> Program:
    head = "" if text.lstrip().startswith("schema:") else "schema: orchestra/v1\nname: staged\n"
    return compile_graph(read(head + text, "staged.yaml").graph, catalog)


@dataclass
class Played:
    """Record of a finished run."""

    finished: RunFinished
    events: Sequence[Event]
    workers: SimulatedWorkers
    journal: MemoryJournal

    @property
    def outcome(self) -> Outcome:
        return self.finished.outcome

    @property
    def outcomes(self) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        for event in self.events:
            if isinstance(event, NodeFinished):
                found[event.node] = event.outcome
            elif isinstance(event, AttemptFinished) and event.final:
                found[event.node] = ValueOutcome(event.value, event.confidence)
        return found

    @property
    def attempts(self) -> list[Any]:
        """Returns the first event of each attempt: its start, or its end if it returned at once."""
        found: dict[tuple[str, int], Event] = {}
        for event in self.events:
            if isinstance(event, AttemptStarted | AttemptFinished):
                found.setdefault((event.node, event.attempt), event)
        return list(found.values())

    def of(self, kind: type[Event], node: str = "") -> list[Any]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (not node or getattr(event, "node", "") == node)
        ]


def play(
    text: str,
    inputs: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    catalog: Catalog = CATALOG,
    concurrency: int = 64,
    tiers: tuple[str, ...] = (),
    **simulation: Any,
) -> Played:
    """Runs a workflow to its end in virtual time."""
    compiled = program(text, catalog)

    async def scene(clock: VirtualClock) -> Played:
        journal = MemoryJournal()
        workers = SimulatedWorkers({**ANSWERS, **(answers or {})}, seed=seed, clock=clock, **simulation)
        engine = Engine(clock, journal, workers, concurrency=concurrency)
        run = engine.start(compiled, RunRequest(inputs=inputs or {}, graph="0" * 32, tiers=tiers))
        finished = await run.wait()
        events = list(await run.history())
        await engine.close()
        return Played(finished, events, workers, journal)

    return run_simulated(scene, seed)


def sequence(*values: Any) -> Any:
    """An answer that changes with the attempt: the first value for the first attempt, and so on; the last value for all
    later attempts.
    """

    def answer(call: CallRequest) -> Any:
        return values[min(call.attempt, len(values)) - 1]

    return answer
