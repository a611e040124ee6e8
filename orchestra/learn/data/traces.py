"""Traces of an agent in recorded runs: its inputs, its outcome, and the source of the final answer.

The journal holds the results of calls and not their inputs. The inputs follow from a run's workflow and results, by
replay.
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
"""The source of the final answer, most trusted first."""
_NODE_TEMPLATE = re.compile(r"\$\{\s*([a-z][a-z0-9_]*)\s*\}")
"""A template that is the value of one node."""


@dataclass(frozen=True, slots=True)
class AgentTrace:
    """One node of a run that called the agent."""

    run: str
    node: str
    label: Label
    """The confidentiality label of the run."""
    inputs: dict[str, Any]
    output: Any
    answered_by: AnswerSource
    is_accepted: bool = False
    """Whether checks accepted the agent's own answer; False too if no check judged it."""
    escalated_directly: bool = False
    """Whether the larger model was called without a call of the agent's own model before."""


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Selects the runs to read."""

    since: float = 0.0
    """Only runs that started then or later, in seconds since the epoch."""
    workflow: str = ""
    """Only runs of this workflow or agent; empty for all."""

    def matches(self, run: RunSummary) -> bool:
        """Returns whether a run is selected."""
        return run.started >= self.since and self.workflow in ("", run.workflow)


@dataclass(slots=True)
class CollectedTraces:
    """The result of a collection."""

    traces: list[AgentTrace] = field(default_factory=list)
    run_count: int = 0
    """Number of runs that may have called the agent."""
    skipped_runs: Counter[str] = field(default_factory=Counter)
    """Number of runs that were not read, by reason."""
    unreached_calls: int = 0
    """Number of calls after the last event that replay can read."""


async def collect_traces(project: Project, journal: Journal, agent: str, run_filter: TraceFilter) -> CollectedTraces:
    """Collects the traces of an agent, newest run first.

    Raises:
        InputError: N006 if no run is selected; N007 if no selected run called the agent.
    """
    traces, programs, known_runs = CollectedTraces(), dict[Any, Program](), set[str]()
    for summary in filter(run_filter.matches, await journal.list_runs(NO_LIMIT)):
        known_runs.add(summary.workflow)
        try:
            events = await journal.read(summary.run)
            first = events[0] if events else None
            if (
                not isinstance(first, RunStarted)
                or not {f"{CARD}/{agent}", f"{CONTRACT}/agent/{agent}"} & first.versions.keys()
            ):
                continue
            traces.run_count += 1
            if first.options.get("purpose") == EVALUATION_PURPOSE:
                traces.skipped_runs["of an evaluation"] += 1
                continue
            key = (first.graph, *first.versions.items())
            if key not in programs:
                programs[key] = await restore_program(project, journal, first, will_call=False)
            run_traces, lost_count = traces_of_run(programs[key], events, first, agent)
        except OrchestraError:
            traces.skipped_runs["that cannot be read any more"] += 1  # `orchestra doctor` and `runs replay` explain it
            continue
        traces.traces += run_traces
        traces.unreached_calls += lost_count
    if not known_runs:
        raise InputError("N006", "the journal has no such run", hint="orchestra runs list shows the runs")
    if not traces.run_count:
        reason = f"{len(known_runs)} workflow{'s' * (len(known_runs) != 1)} ran, and none called {agent!r}"
        raise InputError(
            "N007",
            f"{reason}: {', '.join(sorted(known_runs)[:8])}",
            hint=f"orchestra run {agent}, or another workflow with it",
        )
    return traces


def traces_of_run(
    program: Program, events: Sequence[Event], first: RunStarted, agent: str
) -> tuple[list[AgentTrace], int]:
    """Returns the traces of one run, and the number of calls that replay does not reach."""
    history, calls = History.of(events), defaultdict[str, dict[int, CallRequest]](dict)
    turns: set[str] = set()
    for (node, attempt), (call, _) in replay(program, events).calls.items():
        if (call.kind, call.name) == ("agent", agent):
            calls[node][attempt] = call
            if {tool_prompt.TOOLS, tool_prompt.STEPS} <= call.inputs.keys():
                turns.add(node)  # turns of an agent with tools have other inputs than its card
    outcomes = {row.path: row.outcome for row in history.rows}
    agent_traces: list[AgentTrace] = []
    lost_count = 0
    for row in history.rows:
        if row.path in turns:
            continue
        agent_calls = calls.get(row.path, {})
        if any(call.sample for call in agent_calls.values()):
            continue  # a sample of a check: its answer alone has no meaning
        if row.name == agent and row.kind == "call" and not agent_calls:
            lost_count += 1
        elif agent_calls and (final := _final_answer(program, row, agent_calls, outcomes)) is not None:
            output, by = final
            inputs = agent_calls[min(agent_calls)].inputs
            is_accepted = by == "itself" and bool(row.attempts[-1].accepted)
            agent_traces.append(
                AgentTrace(
                    first.run,
                    row.path,
                    first.label,
                    inputs,
                    output,
                    by,
                    is_accepted,
                    all(call.is_escalated for call in agent_calls.values()),
                )
            )
    return agent_traces, lost_count


def _final_answer(
    program: Program, row: NodeRow, calls: Mapping[int, CallRequest], outcomes: Mapping[str, Outcome | None]
) -> tuple[Any, AnswerSource] | None:
    """Returns the final answer and its source; None if the node has not finished, or the run ended before it."""
    outcome, last = row.outcome, row.attempts[-1]
    for output, by in _replacement_answers(program, row.path, outcomes):
        return output, by
    if row.correction is not None and isinstance(outcome, ValueOutcome):
        return row.correction.value, "a person"
    has_answer = (
        isinstance(outcome, ValueOutcome)
        and not last.error
        and last.accepted is not False
        and outcome.value == last.value
    )
    if has_answer and last.number in calls:
        return last.value, "the larger model" if calls[last.number].is_escalated else "itself"
    # A value that differs from the last answer is the node's fallback: the agent failed.
    return (None, "nobody") if isinstance(outcome, ValueOutcome | FailedOutcome | AbstainedOutcome) else None


def _replacement_answers(
    program: Program, path: str, outcomes: Mapping[str, Outcome | None]
) -> Iterator[tuple[Any, AnswerSource]]:
    """Returns answers that replaced the node's value: corrections by a person, and the alternatives of a `first_of`."""
    within, name = _locate_node(program, path)
    if within is None:
        return
    prefix = path[: len(path) - len(name)]

    def value_outcome(node: CompiledNode) -> ValueOutcome | None:
        outcome = outcomes.get(prefix + node.name)
        return outcome if isinstance(outcome, ValueOutcome) and node.each is None else None

    nodes = {node.name: node for node in within.nodes}
    for node in within.nodes:
        answer = value_outcome(node)
        if answer is None:
            continue
        if node.kind == "ask" and nodes[name].index in node.needs and _is_full_record(nodes[name], answer.value):
            yield answer.value, "a person"
        if isinstance(node.source, FirstOfNode) and not isinstance(outcomes.get(path), ValueOutcome):
            arms = [match[1] if (match := _NODE_TEMPLATE.fullmatch(str(arm))) else "" for arm in node.source.first_of]
            arm_name = (
                next((arm for arm in arms if arm not in nodes or value_outcome(nodes[arm]) is not None), "")
                if name in arms
                else ""
            )
            if arm_name in nodes and nodes[arm_name].kind in ("ask", "agent"):
                yield answer.value, "a person" if nodes[arm_name].kind == "ask" else "another agent"


def _locate_node(program: Program, path: str) -> tuple[Program | None, str]:
    """Returns the program with a node, and the node's name in it; None for an element of a list."""
    *above, name = path.split("/")
    within: Program | None = program
    for step in above:
        node = (
            next((node for node in within.nodes if node.name == workflow_path(step)), None)
            if within is not None
            else None
        )
        within = node.body if node is not None else None
    return (within if within is not None and any(node.name == name for node in within.nodes) else None), name


def _is_full_record(node: CompiledNode, value: Any) -> bool:
    """Returns whether a person's answer is a record with the fields of the node's own output: a correction and not a
    comment.
    """
    fields = node.output.get("properties", {})
    return bool(fields) and isinstance(value, Mapping) and value.keys() == fields.keys()
