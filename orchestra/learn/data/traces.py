"""Traces: what an agent was asked in runs that the journal has, what came of it, and who answered where it did not.

The journal holds what calls were answered, and no inputs: these follow from a run's workflow and its answers, and replay tells them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from orchestra.agents import tool_prompt
from orchestra.app.project import Project
from orchestra.app.snapshot_store import CARD, CONTRACT, restore_program
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Event, RunStarted
from orchestra.core.labels import Label
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, ValueOutcome
from orchestra.core.paths import workflow_path
from orchestra.core.protocols import NO_LIMIT, CallRequest, Journal, RunSummary
from orchestra.engine.replay import replay
from orchestra.journal.history import History, NodeRow
from orchestra.learn.evaluation.evaluation import EVALUATION_PURPOSE
from orchestra.workflows.model import FirstOfNode
from orchestra.workflows.program import CompiledNode, Program

AnswerSource: TypeAlias = Literal["a person", "the larger model", "another agent", "itself", "nobody"]
"""Who gave the answer that counted; the surest first."""
_NODE_TEMPLATE = re.compile(r"\$\{\s*([a-z][a-z0-9_]*)\s*\}")
"""A template that is the value of one node."""


@dataclass(frozen=True, slots=True)
class AgentTrace:
    """One node of a run that asked the agent."""

    run: str
    node: str
    label: Label
    """Of the run: where its data may go."""
    inputs: dict[str, Any]
    output: Any
    answered_by: AnswerSource
    is_accepted: bool = False
    """Whether checks accepted the agent's own answer; False too where nothing judged it."""
    escalated_directly: bool = False
    """Whether the larger model was asked without the agent's own before it."""


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Which runs are read."""

    since: float = 0.0
    """Those that began then or later; seconds since the epoch."""
    workflow: str = ""
    """Those of this workflow, or agent; empty for all."""

    def matches(self, run: RunSummary) -> bool:
        """Whether a run is one of them."""
        return run.started >= self.since and self.workflow in ("", run.workflow)


@dataclass(slots=True)
class CollectedTraces:
    """What was found."""

    traces: list[AgentTrace] = field(default_factory=list)
    run_count: int = 0
    """Runs in which the agent may have been asked."""
    skipped_runs: Counter[str] = field(default_factory=Counter)
    """Runs that were not read, by reason."""
    unreached_calls: int = 0
    """Calls that come after what today's engine follows of their run."""


async def collect_traces(project: Project, journal: Journal, agent: str, run_filter: TraceFilter) -> CollectedTraces:
    """The traces of an agent, of the newest run first.

    Raises `InputError` N006 where the journal has no such run, N007 where none of them asked the agent.
    """
    made, programs, seen = CollectedTraces(), dict[Any, Program](), set[str]()
    for summary in filter(run_filter.matches, await journal.list_runs(NO_LIMIT)):
        seen.add(summary.workflow)
        try:
            events = await journal.read(summary.run)
            first = events[0] if events else None
            if not isinstance(first, RunStarted) or not {f"{CARD}/{agent}", f"{CONTRACT}/agent/{agent}"} & first.versions.keys():
                continue
            made.run_count += 1
            if first.options.get("purpose") == EVALUATION_PURPOSE:
                made.skipped_runs["of an evaluation"] += 1
                continue
            key = (first.graph, *first.versions.items())
            if key not in programs:
                programs[key] = await restore_program(project, journal, first, will_call=False)
            found, lost = traces_of_run(programs[key], events, first, agent)
        except OrchestraError:
            made.skipped_runs["that cannot be read any more"] += 1  # `orchestra doctor` and `runs replay` say more
            continue
        made.traces += found
        made.unreached_calls += lost
    if not seen:
        raise InputError("N006", "the journal has no such run", hint="orchestra runs list says what there is")
    if not made.run_count:
        asked = f"{len(seen)} workflow{'s' * (len(seen) != 1)} ran, and none asked {agent!r}"
        raise InputError("N007", f"{asked}: {', '.join(sorted(seen)[:8])}", hint=f"orchestra run {agent}, or another workflow with it")
    return made


def traces_of_run(program: Program, events: Sequence[Event], first: RunStarted, agent: str) -> tuple[list[AgentTrace], int]:
    """The traces of one run, and the number of calls that replay does not reach."""
    history, calls = History.of(events), defaultdict[str, dict[int, CallRequest]](dict)
    turns: set[str] = set()
    for (node, attempt), (call, _) in replay(program, events).calls.items():
        if (call.kind, call.name) == ("agent", agent):
            calls[node][attempt] = call
            if {tool_prompt.TOOLS, tool_prompt.STEPS} <= call.inputs.keys():
                turns.add(node)  # of an agent with tools: a line, or an answer, to other inputs than its card has
    outcomes = {row.path: row.outcome for row in history.rows}
    found: list[AgentTrace] = []
    lost = 0
    for row in history.rows:
        if row.path in turns:
            continue
        asked = calls.get(row.path, {})
        if any(call.sample for call in asked.values()):
            continue  # a sample of a check that asks again: its answer counts for nothing by itself
        if row.name == agent and row.kind == "call" and not asked:
            lost += 1
        elif asked and (told := _final_answer(program, row, asked, outcomes)) is not None:
            output, by = told
            inputs = asked[min(asked)].inputs
            judged = by == "itself" and bool(row.attempts[-1].accepted)
            found.append(
                AgentTrace(first.run, row.path, first.label, inputs, output, by, judged, all(call.is_escalated for call in asked.values()))
            )
    return found, lost


def _final_answer(
    program: Program, row: NodeRow, calls: Mapping[int, CallRequest], outcomes: Mapping[str, Outcome | None]
) -> tuple[Any, AnswerSource] | None:
    """The answer that counted, and who gave it; None while the node is under way, or where the run ended before it."""
    outcome, last = row.outcome, row.attempts[-1]
    for output, by in _replacement_answers(program, row.path, outcomes):
        return output, by
    if row.correction is not None and isinstance(outcome, ValueOutcome):
        return row.correction.value, "a person"
    own = isinstance(outcome, ValueOutcome) and not last.error and last.accepted is not False and outcome.value == last.value
    if own and last.number in calls:
        return last.value, "the larger model" if calls[last.number].is_escalated else "itself"
    # A value that is not the last answer is the node's fallback: the agent failed.
    return (None, "nobody") if isinstance(outcome, ValueOutcome | FailedOutcome | AbstainedOutcome) else None


def _replacement_answers(program: Program, path: str, outcomes: Mapping[str, Outcome | None]) -> Iterator[tuple[Any, AnswerSource]]:
    """Answers that took a node's place: a person's who corrects its record, and what a `first_of` took for what it had not."""
    within, name = _locate_node(program, path)
    if within is None:
        return
    prefix = path[: len(path) - len(name)]

    def value(node: CompiledNode) -> ValueOutcome | None:
        found = outcomes.get(prefix + node.name)
        return found if isinstance(found, ValueOutcome) and node.each is None else None

    nodes = {node.name: node for node in within.nodes}
    for node in within.nodes:
        answer = value(node)
        if answer is None:
            continue
        if node.kind == "ask" and nodes[name].index in node.needs and _is_full_record(nodes[name], answer.value):
            yield answer.value, "a person"
        if isinstance(node.source, FirstOfNode) and not isinstance(outcomes.get(path), ValueOutcome):
            arms = [found[1] if (found := _NODE_TEMPLATE.fullmatch(str(arm))) else "" for arm in node.source.first_of]
            taken = next((arm for arm in arms if arm not in nodes or value(nodes[arm]) is not None), "") if name in arms else ""
            if taken in nodes and nodes[taken].kind in ("ask", "agent"):
                yield answer.value, "a person" if nodes[taken].kind == "ask" else "another agent"


def _locate_node(program: Program, path: str) -> tuple[Program | None, str]:
    """The program that a node stands in, and its name there; None for an element of a list, which has no place of its own."""
    *above, name = path.split("/")
    within: Program | None = program
    for step in above:
        node = next((node for node in within.nodes if node.name == workflow_path(step)), None) if within is not None else None
        within = node.body if node is not None else None
    return (within if within is not None and any(node.name == name for node in within.nodes) else None), name


def _is_full_record(node: CompiledNode, value: Any) -> bool:
    """Whether a person's answer is a record with the fields of the node's own: a correction, and no mere word about it."""
    fields = node.output.get("properties", {})
    return bool(fields) and isinstance(value, Mapping) and value.keys() == fields.keys()
