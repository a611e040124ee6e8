"""ParallelQA: latency of a plan with parallel look-ups compared with ReAct, both on the same served models.

    python -m bench.parallel --data FOLDER [--rows 16] [--seed 0] [--arms NAME ...] [--fleet NAME] [--dry]

All arms replay the same recorded steps (`bench/parallel.yaml`): the same look-ups, each a call of the agent `reader` on
the same frozen passage, and the same computation, which is code. The planner's output is forced token by token with a
grammar of one text, so a model generates it, and no arm has an advantage; the actions are the same texts in all arms.

- `react`: a thought and an action are generated, the action is executed, its observation is added, and so on; at the
  end it reports that it is done. One model call for each (Yao et al. 2022, https://arxiv.org/abs/2210.03629).
- `act`: the same without thoughts, to separate the effect of parallel work.
- `whole`: all actions as the lines of a plan in one call; then one run of the resulting workflow, with parallel
  look-ups.
- `call_streaming`: the same call, read while it is generated; a look-up starts when its line is complete.
- `lines`: the lines of the same plan in separate calls, as the router is called; a look-up starts when its line is
  complete.
- `mapped`: as `whole`, but similar look-ups are one line with a list: their common part is generated once.
- `mapped_streamed`: the same call, read while it is generated; a look-up starts when its element is complete.
- `node`: a `plan` node as shipped (`bench.parallel_node`): the router's own prompt, adapter and notation, line by line,
  with validation.
- `node_mapped`: the same with similar look-ups as one line; its look-up is a workflow that finds the passage and calls
  the reader.

Questions are run one after the other, each by all arms in an alternating order. A word that is unique to each arm
separates their prefix caches. Times are wall-clock times, and a question counts in all arms or in none. An answer is
correct by ParallelQA's rule, within 1 % of a number. If an arm has fewer than 0.8 of them correct, its times are
meaningless, and the exit code is 1. It needs the fleet.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import string
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from bench.evaluation_tables import between
from bench.machine import ROOT, now
from bench.metrics import short_answer_match
from bench.parallel_node import PlanNode
from bench.parallel_steps import Question, Trace, compute, exactly, one_model, questions
from bench.plan_baselines import card
from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.workers import FleetMode
from orchestra.core.errors import FleetError
from orchestra.core.events import NO_USAGE, Usage
from orchestra.core.outcomes import FailedOutcome
from orchestra.core.protocols import CallError, CallRequest
from orchestra.core.settings import Settings
from orchestra.fleet import config
from orchestra.fleet.dispatch import Fleet
from orchestra.learn.evaluation.bootstrap import IntervalEstimate, estimate_interval
from orchestra.learn.evaluation.metrics import Case, Metric
from orchestra.workflows.python.steps import Agent, Step, Workflow
from orchestra.workflows.yaml.reader import read

PAGE = ROOT / "docs" / "evaluation" / "planning.md"
MARKS = "<!-- parallel -->", "<!-- end:parallel -->"
FLOOR, GOAL = 0.8, 2.5
"""Minimal share of correct answers of an arm, and the required speed-up of a plan over ReAct."""
PLAN, MAPPED = "plans", "maps"
INPUTS = ("question", "word", "so_far", "grammar")
HEADS = (
    "",
    "right",
    "seconds a question",
    "until the first look-up, s",
    "calls: planner, reader",
    "planner's seconds",
    "planner's tokens in, of them cached, out",
    "reader's tokens in, out",
)
HEAD = """<!-- system -->
{how}
lookup("the fact") finds a fact. compute("a term") computes; s1 is what the first look-up found.

Question: Which is longer, the Seine or the Rhine, in kilometres?
{example}
<!-- user -->
Session {{{{ word }}}}.
Question: {{{{ question }}}}
<!-- assistant -->
{{{{ so_far }}}}
"""
PLANS = HEAD.format(
    how="Write a plan that answers the question: one line an action, then return.",
    example=(
        's1 = lookup("length of the Seine")\ns2 = lookup("length of the Rhine")\ns3 = compute("largest(s1, s2)")\n'
        "return s3"
    ),
)
MAPS = HEAD.format(
    how=(
        "Write a plan that answers the question: one line for look-ups that are alike, one for the computation, then "
        "return."
    ),
    example=(
        's1 = [lookup("length", x) for x in ["the Seine", "the Rhine"]]\ns2 = compute("largest(s1, s2)")\nreturn s2'
    ),
)
REACTS = HEAD.format(
    how="Answer the question, one action at a time; what it gave is told. In the end, finish.",
    example="""Thought: I need the length of the Seine.
Action: lookup("length of the Seine")
Observation: s1 = 777 kilometres
Thought: I need the length of the Rhine.
Action: lookup("length of the Rhine")
Observation: s2 = 1,230 kilometres
Thought: I have the facts and compute.
Action: compute("largest(s1, s2)")
Observation: s3 = the Rhine
Thought: I know the answer.
Action: finish(s3)""",
)


@dataclass(frozen=True)
class Bench:
    """Shared by all arms: the fleet, the planner's agents, the reader, and the unique word of a question and arm."""

    orchestra: Orchestra
    reader: Step[..., Any]
    plans: Step[..., Any]
    maps: Step[..., Any]
    reacts: Step[..., Any]
    texts: Fleet
    """The same servers, for streamed calls."""
    node: PlanNode

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, fleet: FleetMode) -> AsyncIterator[Bench]:
        """Opens the fleets."""
        prompts = ((PLAN, PLANS), (MAPPED, MAPS), ("reacts", REACTS))
        plans, maps, reacts = (card(name, text, INPUTS, 512, grammar="grammar") for name, text in prompts)
        servers = config.read_config(Path(settings.find_resource("configs", settings.fleet)))
        async with (
            Orchestra.open(settings, fleet=fleet) as orchestra,
            Fleet.open(servers, cards={PLAN: plans, MAPPED: maps}, mode=fleet) as texts,
            PlanNode.open(settings, fleet) as node,
        ):
            orchestra.program(compute)
            reader = one_model(orchestra.registry)
            orchestra.program(reader)
            yield cls(
                orchestra, reader, Agent.from_card(plans), Agent.from_card(maps), Agent.from_card(reacts), texts, node
            )

    async def write(
        self, trace: Trace, agent: Step[..., Any], asked: Question, word: str, so_far: str, text: str
    ) -> None:
        """Has a model generate this text. Raises RuntimeError if it generated another one."""
        given = {"question": asked.text, "word": word, "so_far": so_far, "grammar": exactly(text, goes_on=bool(so_far))}
        result = await self._run(agent, **given)
        trace.planning += result.usage
        trace.written.append(text)
        if str(result.value).strip() != text.strip():
            raise RuntimeError(f"{text!r} was forced, and {result.value!r} was written")

    async def look_up(self, trace: Trace, asked: Question, at: int, word: str) -> str | None:
        """Returns the reader's answer for a fact."""
        trace.looks_up()
        fact = asked.facts[at]
        result = await self._run(self.reader, question=fact.question, context=f"Page {word}. {fact.passage}")
        trace.reading += result.usage
        return None if result.value is None else result.value["answer"]

    async def work_out(self, asked: Question, readings: Sequence[str | None]) -> str | None:
        """Executes the computation."""
        given = {f"r{number}": reading for number, reading in enumerate(readings, 1)}
        value = (await self._run(compute, term=asked.term, names=[fact.of for fact in asked.facts], **given)).value
        return None if value is None else str(value)

    async def _run(self, step: Step[..., Any], **inputs: Any) -> Result[Any]:
        result = await (await self.orchestra.start(step, **inputs)).wait()
        if isinstance(result.outcome, FailedOutcome) and result.outcome.code.startswith("F"):
            raise FleetError(result.outcome.code, result.outcome.reason, hint=result.outcome.hint)
        return result

    # Arms

    async def react(self, trace: Trace, asked: Question, word: str) -> str | None:
        """Thought, action, observation."""
        return await self._stepwise(trace, asked, word, thinks=True)

    async def act(self, trace: Trace, asked: Question, word: str) -> str | None:
        """Action, observation."""
        return await self._stepwise(trace, asked, word, thinks=False)

    async def _stepwise(self, trace: Trace, asked: Question, word: str, *, thinks: bool) -> str | None:
        so_far, readings = "", list[str | None]()

        async def said(thought: str, action: str) -> str:
            text = f"Thought: {thought}\nAction: {action}" if thinks else f"Action: {action}"
            await self.write(trace, self.reacts, asked, word, so_far, text)
            return f"{so_far}\n{text}".lstrip()

        for at, fact in enumerate(asked.facts):
            so_far = await said(f"I need the {fact.what} of {fact.of}.", fact.action)
            readings.append(await self.look_up(trace, asked, at, word))
            so_far += f"\nObservation: s{at + 1} = {readings[-1] or 'nothing'}"
        so_far = await said("I have the facts and compute.", asked.computation)
        answer = await self.work_out(asked, readings)
        last = len(readings) + 1
        so_far += f"\nObservation: s{last} = {answer or 'nothing'}"
        await said("I know the answer.", f"finish(s{last})")
        return answer

    async def whole(self, trace: Trace, asked: Question, word: str) -> str | None:
        """The plan in one call, then its run as a workflow."""
        return await self._at_once(trace, asked, word, self.plans, lines(asked))

    async def mapped(self, trace: Trace, asked: Question, word: str) -> str | None:
        """The same with similar look-ups as one line."""
        return await self._at_once(trace, asked, word, self.maps, mapped_lines(asked))

    async def _at_once(
        self, trace: Trace, asked: Question, word: str, agent: Step[..., Any], plan: list[str]
    ) -> str | None:
        await self.write(trace, agent, asked, word, "", "\n".join(plan))
        trace.looks_up()
        given: dict[str, Any] = {"term": asked.term, "names": [fact.of for fact in asked.facts]}
        for number, fact in enumerate(asked.facts, 1):
            given |= {f"question{number}": fact.question, f"context{number}": f"Page {word}. {fact.passage}"}
        result = await self._run(program(len(asked.facts)), **given)
        trace.reading += sum((usage for node, usage in result.usage_by_node.items() if node != "answer"), NO_USAGE)
        return None if result.value is None else str(result.value)

    async def streamed(self, trace: Trace, asked: Question, word: str) -> str | None:
        """The plan in one streamed call; a look-up starts with the first token of the next line."""
        return await self._streamed(trace, asked, word, PLAN, lines(asked), lambda said: said.count("\n"))

    async def mapped_streamed(self, trace: Trace, asked: Question, word: str) -> str | None:
        """The same with similar look-ups as one line; each starts when its element is complete."""
        return await self._streamed(
            trace, asked, word, MAPPED, mapped_lines(asked), lambda said: len(ELEMENT.findall(said))
        )

    async def _streamed(
        self, trace: Trace, asked: Question, word: str, agent: str, plan: list[str], there: Callable[[str], int]
    ) -> str | None:
        """Streams a plan; `there` returns the number of complete look-ups in the text so far."""
        text = "\n".join(plan)
        trace.written.append(text)
        given = {"question": asked.text, "word": word, "so_far": "", "grammar": exactly(text, goes_on=False)}
        call = CallRequest(run=word, node="plan", attempt=1, kind="agent", name=agent, inputs=given)
        async with asyncio.TaskGroup() as group:
            tasks = list[asyncio.Task[str | None]]()
            said = ""

            def read_piece(piece: str) -> None:
                nonlocal said
                said += piece
                for at in range(len(tasks), min(there(said), len(asked.facts))):
                    tasks.append(group.create_task(self.look_up(trace, asked, at, word)))

            reply = await self.texts.call(call, read_piece)
            if isinstance(reply, CallError):
                raise FleetError(reply.code, reply.reason, hint=reply.hint)
            trace.planning += reply.usage
        if said.strip() != text:
            raise RuntimeError(f"{text!r} was forced, and {said!r} was written")
        return await self.work_out(asked, [task.result() for task in tasks])

    async def by_line(self, trace: Trace, asked: Question, word: str) -> str | None:
        """A call for each line, whose look-up starts at once."""
        so_far = ""
        async with asyncio.TaskGroup() as group:
            tasks = []
            for at, line in enumerate(lines(asked)):
                await self.write(trace, self.plans, asked, word, so_far, line)
                so_far = f"{so_far}\n{line}".lstrip()
                if at < len(asked.facts):
                    tasks.append(group.create_task(self.look_up(trace, asked, at, word)))
        return await self.work_out(asked, [task.result() for task in tasks])

    async def planned(self, trace: Trace, asked: Question, word: str) -> str | None:
        """A `plan` node."""
        return await self.node.apart(trace, asked, word)

    async def planned_mapped(self, trace: Trace, asked: Question, word: str) -> str | None:
        """A `plan` node whose look-ups are one line."""
        return await self.node.together(trace, asked, word)


Ask: TypeAlias = Callable[[Bench, Trace, Question, str], Awaitable[str | None]]
ARMS: dict[str, Ask] = {
    "react": Bench.react,
    "act": Bench.act,
    "whole": Bench.whole,
    "streamed": Bench.streamed,
    "lines": Bench.by_line,
    "mapped": Bench.mapped,
    "mapped_streamed": Bench.mapped_streamed,
    "node": Bench.planned,
    "node_mapped": Bench.planned_mapped,
}


def lines(asked: Question) -> list[str]:
    """Returns the plan."""
    last = len(asked.facts) + 1
    looked = [f"s{number} = {fact.action}" for number, fact in enumerate(asked.facts, 1)]
    return [*looked, f"s{last} = {asked.computation}", f"return s{last}"]


def mapped_lines(asked: Question) -> list[str]:
    """Returns the plan with similar look-ups as one line."""
    looked = [
        f's{number} = [lookup("{what}", x) for x in {json.dumps(of)}]'
        for number, (what, of) in enumerate(asked.alike, 1)
    ]
    last = len(looked) + 1
    return [*looked, f"s{last} = {asked.computation}", f"return s{last}"]


ELEMENT = re.compile(r'(?:\[|, )"[^"]*"')
"""A list element of a line."""


def program(facts: int) -> Workflow[..., Any]:
    """Returns the workflow of a plan with that many look-ups."""
    numbers = range(1, facts + 1)
    inputs = "".join(f"question{number}: str, context{number}: str, " for number in numbers)
    nodes = [
        (
            f'  s{number}: {{agent: reader, with: {{question: "${{input.question{number}}}", context: '
            f'"${{input.context{number}}}"}}}}'
        )
        for number in numbers
    ]
    read_by = ", ".join(f'r{number}: "${{s{number}.answer}}"' for number in numbers)
    text = f"""schema: orchestra/v1
name: look_up_{facts}
input: {{{inputs}term: str, names: "list[str]"}}
output: ${{answer}}
nodes:
{chr(10).join(nodes)}
  answer: {{tool: compute, with: {{term: "${{input.term}}", names: "${{input.names}}", {read_by}}}}}
"""
    return Workflow.from_graph(read(text, f"look_up_{facts}.yaml").graph)


async def asked_of(bench: Bench, arm: str, asked: Question, word: str) -> Trace:
    """Runs a question in an arm."""
    trace = Trace()
    trace.answer = await ARMS[arm](bench, trace, asked, word)
    trace.seconds = time.perf_counter() - trace.began
    return trace


async def measured(
    settings: Settings,
    rows: Sequence[Question],
    seed: int,
    fleet: FleetMode = "start",
    arms: Sequence[str] = tuple(ARMS),
) -> list[dict[str, Trace]]:
    """Returns the results of each question except the first, which warms up. Raises `FleetError`, and RuntimeError if a
    model did not generate the forced text.
    """
    chance = random.Random(seed)
    found = []
    async with Bench.open(settings, fleet) as bench:
        for turn, asked in enumerate(rows):
            order = [*arms[turn % len(arms) :], *arms[: turn % len(arms)]]
            traces = {
                arm: await asked_of(bench, arm, asked, "".join(chance.choices(string.ascii_lowercase, k=6)))
                for arm in order
            }
            if turn:
                found.append(traces)
                print(
                    f"{turn} of {len(rows) - 1}: " + ", ".join(f"{a} {t.seconds:.2f} s" for a, t in traces.items()),
                    file=sys.stderr,
                )
    return found


# Results


def ratio(
    found: Sequence[dict[str, Trace]], slow: str, fast: str, of: str = "seconds", seed: int = 0
) -> IntervalEstimate:
    """Returns the ratio of the total times of two arms; resampled by question."""
    cases = [Case({}, {arm: getattr(traces[arm], of) for arm in (slow, fast)}) for traces in found]
    return estimate_interval(
        Metric("ratio", lambda case: case.output, lambda parts: _over(parts, slow, fast)), cases, seed=seed
    )


def _over(parts: Sequence[Any], slow: str, fast: str) -> float:
    below = sum(part[fast] for part in parts)
    return sum(part[slow] for part in parts) / below if below else float("nan")


def share(found: Sequence[dict[str, Trace]], rows: Sequence[Question], arm: str, seed: int = 0) -> IntervalEstimate:
    """Returns the share of correct answers."""
    right = [short_answer_match(asked.answer, traces[arm].answer) for asked, traces in zip(rows, found, strict=True)]
    cases = [Case({}, {"right": float(one)}) for one in right]
    return estimate_interval(
        Metric("right", lambda case: case.output, lambda parts: _mean([one["right"] for one in parts])),
        cases,
        seed=seed,
    )


def _row(arm: str, traces: Sequence[Trace], right: IntervalEstimate) -> str:
    """Returns a line of the table."""
    usages = [[trace.planning for trace in traces], [trace.reading for trace in traces]]
    seconds = [_mean([getattr(trace, key) for trace in traces]) for key in ("seconds", "first")]
    calls = ", ".join(f"{_mean([one.calls for one in usage]):.1f}" for usage in usages)
    spent = _mean([usage.seconds for usage in usages[0]])
    planner = _tokens(usages[0], "prompt_tokens", "cached_tokens", "output_tokens")
    cells = [str(right), f"{seconds[0]:.2f}", f"{seconds[1]:.2f}", calls, f"{spent:.2f}", planner]
    return f"| `{arm}` | {' | '.join(cells)} | {_tokens(usages[1], 'prompt_tokens', 'output_tokens')} |"


def _tokens(usages: Sequence[Usage], *keys: str) -> str:
    return ", ".join(f"{_mean([getattr(one, key) for one in usages]):.0f}" for key in keys)


def section(
    found: Sequence[dict[str, Trace]], rows: Sequence[Question], command: str, stamp: str, seed: int = 0
) -> str:
    """Returns the section of the page."""
    arms = list(found[0])
    rights = {arm: share(found, rows, arm, seed) for arm in ARMS if arm in arms}
    table = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    table += [_row(arm, [one[arm] for one in found], right) for arm, right in rights.items()]
    facts = _mean([len(one.facts) for one in rows])
    told = [
        f"{len(rows)} questions with {facts:.1f} facts each, seed {seed}; {stamp}.",
        "",
        f"    $ {command}",
        "",
        *table,
        "",
    ]
    for slow, fast in ((slow, fast) for slow in list(ARMS)[:2] for fast in list(ARMS)[2:] if {slow, fast} <= {*arms}):
        against = ratio(found, slow, fast, seed=seed)
        met = "met" if against.value >= GOAL else "missed"
        told.append(
            f"- `{slow}` takes {_plain(against)} times as long as "
            f"`{fast}`{f'; the goal of {GOAL} is {met}' * (slow == 'react')}."
        )
    for late in (
        one for one in ("whole", "lines", "mapped_streamed", "node", "node_mapped") if {one, "streamed"} <= {*arms}
    ):
        first = _plain(ratio(found, late, "streamed", "first", seed))
        told.append(f"- The first look-up starts {first} times as late under `{late}` as under `streamed`.")
    low = [arm for arm, right in rights.items() if right.value < FLOOR]
    kept = f"missed by {', '.join(low)}: the times mean nothing" if low else "kept by all arms"
    told.append(f"- The floor of {FLOOR} right answers is {kept}.")
    return "\n".join(told) + "\n"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plain(figure: IntervalEstimate) -> str:
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def main(page: Path = PAGE) -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with parallelqa/dev.jsonl")
    parser.add_argument(
        "--rows", type=int, default=16, help="size of a seeded sample of questions, beside one to warm up; 0 for all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="only these arms; the page is not written"
    )
    parser.add_argument("--fleet", help="a name in configs/, or a path")
    parser.add_argument("--dry", action="store_true", help="print only")
    given = parser.parse_args()
    known = questions(given.data / "parallelqa" / "dev.jsonl")
    first, *rows = random.Random(given.seed).sample(
        known, min(given.rows + 1 if given.rows else len(known), len(known))
    )
    settings = Settings.load({"fleet": given.fleet, "journal": "off"})
    found = asyncio.run(measured(settings, [first, *rows], given.seed, arms=given.arms))
    again = f"python -m bench.parallel --data DATA --rows {given.rows} --seed {given.seed}"
    again += f" --arms {' '.join(given.arms)}" * (set(given.arms) != set(ARMS))
    text = section(found, rows, again, now(), given.seed)
    print(text)
    if faults := sorted({trace.fault for traces in found for trace in traces.values() if trace.fault}):
        print("; ".join(faults), file=sys.stderr)
    if not given.dry and set(given.arms) == set(ARMS):
        page.write_text(between(page.read_text("utf-8"), MARKS, f"\n{text}\n"), "utf-8")
    return 0 if all(share(found, rows, arm).value >= FLOOR for arm in given.arms) else 1


if __name__ == "__main__":
    sys.exit(main())
