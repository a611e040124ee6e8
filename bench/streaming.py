"""Latency of the first step and of the answer of a plan: steps that start while the plan is generated, compared with a
complete plan first.

    python -m bench.streaming
    python -m bench.streaming --fleet NAME --documents FOLDER "When was the tower opened?" …
    python -m bench.streaming --fleet NAME --ask 1 16 23 25 26 --rounds 3

The first form runs a plan of three steps on simulated workers in virtual time, with given durations of a router line
and of each step (`SECONDS`); it shows the effect of streaming on such a plan, and is the same on every machine. The
second form uses a fleet: each request is run in both ways, alternating, so that caches serve both alike; plans may
differ if the router samples. The third form runs requests of `bench/ask.yaml` by number as `orchestra ask` does, in one
run; and in the earlier way, the plan first and then a run of it.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from bench.ask import Asked, requests
from bench.machine import now
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions, plan, request_workflow
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, TurnStarted
from orchestra.core.protocols import CallRequest
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from orchestra.workflows.model import REQUEST
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.reader import read

WORK = """
schema: orchestra/v1
name: %s
input: {question: str, documents: "list[Document]"}
output: ${solved}
nodes:
  solved:
    plan: ${input.question}
    with: {question: "${input.question}", documents: "${input.documents}"}
    agents: [reader]
    tools: [search, cite]
    returns: Answer
    limits: {steps: 6, width: 8}
    streaming: %s
    cache: false
"""
LINES = (
    "s1 = search(query=input.question, documents=input.documents, top=2)",
    "s2 = [reader(question=input.question, context=x.text) for x in s1]",
    "s3 = cite(question=input.question, readings=s2, passages=s1)",
    "return s3",
)
SECONDS = {"router": 1.0, "search": 0.05, "reader": 2.0, "cite": 0.05}
"""Durations of calls in the simulation; those of the router are for one line."""
DOCUMENTS = [
    {"source": "tower.txt", "text": "It was opened in 1889."},
    {"source": "bridge.txt", "text": "It is of 1889 as well."},
]


@dataclass(frozen=True)
class Times:
    """Seconds from the start of a run to its first step, to its complete plan, and to its end."""

    first: float
    whole: float
    end: float
    status: str

    @classmethod
    def of(cls, events: Sequence[Event], status: str, began: float | None = None) -> Times:
        """Returns the times of a run's events, from its first one or from `began`. An event that did not occur has an
        infinite time.
        """
        began = events[0].at if began is None else began
        steps = (
            event.at - _took(event)
            for event in events
            if isinstance(event, AttemptStarted | AttemptFinished) and "@" in event.node
        )
        whole = (
            event.at
            for event in events
            if isinstance(event, TurnStarted) and event.draft and _is_whole(event.draft.lines)
        )
        return cls(next(steps, float("inf")) - began, next(whole, float("inf")) - began, events[-1].at - began, status)


def _took(event: AttemptStarted | AttemptFinished) -> float:
    """Returns the duration of a call without a recorded start."""
    return event.usage.seconds if isinstance(event, AttemptFinished) else 0.0


def _is_whole(lines: Sequence[str]) -> bool:
    return bool(lines) and lines[-1].startswith("return ")


async def timed(orchestra: Orchestra, question: str, documents: Any, *, streaming: bool) -> Times:
    """Times one run."""
    name = "streamed" if streaming else "planned_first"
    step = Workflow.from_graph(read(WORK % (name, str(streaming).lower()), f"{name}.yaml").graph)
    run = await orchestra.start(step, question=question, documents=documents)
    result = await run.wait()
    return Times.of([event async for event in run.events()], result.status)


async def answered(orchestra: Orchestra, asked: Asked, *, streaming: bool) -> Times:
    """Times one request, as one run or planned first, from the moment of the request."""
    options, given, began = PlanOptions(cache=False), {REQUEST: asked.request, **asked.values}, time.time()
    if streaming:
        run = await orchestra.start(request_workflow(orchestra, asked.request, asked.values, options), **given)
        result = await run.wait()
        return Times.of([event async for event in run.events()], result.status, began)
    draft = await plan(orchestra, asked.request, asked.values, options)
    whole = time.time() - began
    graph = draft.graph
    run = await orchestra.start(
        Workflow.from_graph(graph), **{name: value for name, value in given.items() if name in graph.input}
    )
    result = await run.wait()
    events = [event async for event in run.events()]
    first = min(event.at - _took(event) for event in events if isinstance(event, AttemptStarted | AttemptFinished))
    return Times(first - began, whole, events[-1].at - began, result.status)


async def rounds(fleet: str | None, asked: Sequence[Asked], number: int) -> list[list[dict[bool, Times]]]:
    """Runs each request several times in both ways after one warm-up; the order alternates."""
    async with Orchestra.open(fleet, fleet="start") as orchestra:
        found = []
        for one in asked:
            await answered(orchestra, one, streaming=True)
            orders = [(True, False) if turn % 2 else (False, True) for turn in range(number)]
            found.append(
                [
                    {streaming: await answered(orchestra, one, streaming=streaming) for streaming in order}
                    for order in orders
                ]
            )
        return found


def by_request(asked: Sequence[Asked], found: Sequence[Sequence[dict[bool, Times]]]) -> str:
    """Returns the medians of each request, and of all of them together."""
    rows = ["| request | first step | planned first | answer | planned first |", "|---|---|---|---|---|"]
    everything = [times for one in found for times in one]
    for name, times in [*((one.request, part) for one, part in zip(asked, found, strict=True)), ("all", everything)]:
        cells = [
            f"{median(getattr(one[way], part) for one in times):.2f} s"
            for part in ("first", "end")
            for way in (True, False)
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def simulated() -> dict[bool, Times]:
    """Runs both ways in virtual time."""

    def answer(call: CallRequest) -> Any:
        match call.name:
            case "router":
                return LINES[call.inputs["plan"].count("\n") + bool(call.inputs["plan"])]
            case "search":
                return DOCUMENTS
            case "cite":
                return {"text": "1889", "citations": []}
            case _:
                return {"answer": "1889"}

    def latency(call: CallRequest, chance: Random) -> float:
        return SECONDS[call.name]

    async def scene(clock: VirtualClock) -> dict[bool, Times]:
        workers = SimulatedWorkers(answer, clock=clock, latency=latency)
        settings = Settings.load({"journal": "off"})
        async with Orchestra.open(
            settings, fleet="none", workers=workers, journal=MemoryJournal(), clock=clock
        ) as orchestra:
            asked = "When was the tower opened?"
            return {
                streaming: await timed(orchestra, asked, DOCUMENTS, streaming=streaming) for streaming in (True, False)
            }

    return run_simulated(scene, 0)


async def real(fleet: str | None, requests: Sequence[str], documents: Any) -> list[dict[bool, Times]]:
    """Runs both ways on a fleet, request by request; the order alternates."""
    async with Orchestra.open(fleet, fleet="start") as orchestra:
        # waits until the servers are up, and caches the prompt
        await timed(orchestra, requests[0], documents, streaming=True)
        found = []
        for number, request in enumerate(requests):
            order = (True, False) if number % 2 else (False, True)
            found.append(
                {streaming: await timed(orchestra, request, documents, streaming=streaming) for streaming in order}
            )
        return found


def table(found: Sequence[dict[bool, Times]]) -> str:
    """Returns the medians as a table."""
    rows = ["|  | first step | plan whole | answer | done |", "|---|---|---|---|---|"]
    for streaming, name in ((True, "while it is written"), (False, "plan first")):
        times = [one[streaming] for one in found]
        cells = (f"{median(getattr(one, part) for one in times):.2f} s" for part in ("first", "whole", "end"))
        rows.append(f"| {name} | {' | '.join(cells)} | {sum(one.status == 'done' for one in times)} of {len(times)} |")
    return "\n".join(rows)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", nargs="*", help="requests; without any, the simulation runs")
    parser.add_argument("--documents", type=Path, help="a folder of .txt and .md files")
    parser.add_argument(
        "--ask", nargs="+", type=int, metavar="NUMBER", help="requests of bench/ask.yaml, counted from 1"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fleet")
    given = parser.parse_args()
    if given.ask:
        asked = [requests()[number - 1] for number in given.ask]
        print(f"{now()}\n\n{by_request(asked, asyncio.run(rounds(given.fleet, asked, given.rounds)))}")
        return
    if not given.requests:
        print(f"simulated, seconds a call: {SECONDS}\n\n{table([simulated()])}")
        return
    if given.documents is None:
        parser.error("--documents FOLDER")
    documents = [
        {"source": path.name, "text": path.read_text("utf-8")} for path in sorted(given.documents.glob("*.[tm][xd]*"))
    ]
    print(f"{now()}\n\n{table(asyncio.run(real(given.fleet, given.requests, documents)))}")


if __name__ == "__main__":
    main()
