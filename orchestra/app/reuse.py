"""Reuse of recorded answers in a fork; and the comparison of two programs or two runs, node by node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from orchestra.app.snapshot_store import called_contracts
from orchestra.core.events import AttemptFinished, Event, RunStarted
from orchestra.core.labels import Label, join
from orchestra.core.outcomes import Outcome
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult, TextCallback, Workers
from orchestra.engine.replay import certificate_digest, replay
from orchestra.journal.history import History
from orchestra.schema.strict_json import canonical
from orchestra.workflows.program import CompiledNode, Program, node_contracts

if TYPE_CHECKING:
    from orchestra.workflows.program import CalledWorkflow

KnownReply: TypeAlias = Callable[[CallRequest], CallResult | CallError | None]
"""Returns the known answer of a call, or the error for a call that must not be made; None for a call to make."""
ComparisonCache: TypeAlias = dict[tuple[int, int], bool]
"""Whether two programs differ, by their identities."""
NEW: Final = "is new"
"""The reason of a change for a new node."""


class RecallingWorkers:
    """Workers that answer a call from an earlier run if that run made the same call, and pass on all others.

    Calls are the same if agent or tool, version, inputs, evidence, feedback and tier are the same; the path of the node
    does not matter. Errors are tried again. `effects` answers or rejects calls with effects that must not be repeated.
    """

    def __init__(
        self, inner: Workers, run: str, answers: Mapping[bytes, AttemptFinished], effects: KnownReply | None = None
    ) -> None:
        self._inner, self._run, self._answers, self._effects = inner, run, answers, effects

    def call(
        self, call: CallRequest, on_text: TextCallback | None = None
    ) -> Coroutine[Any, Any, CallResult | CallError]:
        """Answers the call or passes it on. A known answer has no text."""
        result = self._known_reply(call)
        return self._inner.call(call, on_text) if result is None else self._return_reply(result)

    def _known_reply(self, call: CallRequest) -> CallResult | CallError | None:
        """Returns the known answer of a call, or the error for a call that must not be made; None for a call to
        make.
        """
        if (finish_event := self._answers.get(_call_key(call))) is None:
            return None if self._effects is None else self._effects(call)
        return CallResult(
            value=finish_event.value,
            confidence=finish_event.confidence,
            server=finish_event.server,
            model=finish_event.model,
            reused_from=self._run,
        )

    async def _return_reply(self, result: CallResult | CallError) -> CallResult | CallError:
        return result

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Estimates the cost of a call; nothing if its answer is known."""
        measure = self._inner.estimate(call)
        return CallEstimate(memo_key=measure.memo_key) if _call_key(call) in self._answers else measure

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the tokens of a call's prompt."""
        return await self._inner.count_tokens(call)


def reusable_answers(
    program: Program, events: Sequence[Event], anew: Collection[str] = ()
) -> dict[bytes, AttemptFinished]:
    """Returns the answers of a run's pure calls that may be reused, except for the tools in `anew`. Checks judge them
    again.
    """
    pure = {pure_call for pure_call in _pure_calls(program) if pure_call[0] != "tool" or pure_call[1] not in anew}
    finish_events: dict[bytes, AttemptFinished] = {}
    for call, finish_event in replay(program, events).calls.values():
        if finish_event is not None and not finish_event.error and (call.kind, call.name) in pure:
            finish_events[_call_key(call)] = finish_event
    return finish_events


def fork_label(parent: RunStarted, own: Label) -> Label:
    """Returns the label of a fork: its inputs and answers are its parent's data."""
    return join((parent.label, own))


def _pure_calls(program: Program) -> set[tuple[str, str]]:
    return {(contract.kind, contract.name) for contract in called_contracts(program) if contract.effect == "pure"}


def call_question(call: CallRequest) -> list[Any]:
    """Returns the question of a call and its agent or tool. Two calls with the same question may have the same answer,
    regardless of their node or priority.
    """
    return [call.kind, call.name, call.version, call.inputs, call.evidence, call.feedback, call.tier, call.sample]


def _call_key(call: CallRequest) -> bytes:
    """Returns the key of a call for a fork. It includes the label, since the data's clearance may have changed; and the
    output limit, since a smaller one may have cut the answer.
    """
    return canonical([*call_question(call), call.label, call.max_output])


def walk_nodes(program: Program, prefix: str = "") -> Iterator[tuple[str, CompiledNode]]:
    """Yields the nodes of a program with their paths, those of bodies after their own; each body once."""
    visited_nodes: set[int] = set()
    line = [(prefix, program)]
    while line:
        before, part = line.pop()
        for node in part.nodes:
            path = f"{before}{node.name}"
            yield path, node
            if node.body is not None and id(node.body) not in visited_nodes:
                visited_nodes.add(id(node.body))
                line.append((f"{path}/", node.body))


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A changed node, and what has changed."""

    node: str
    reason: str


def program_changes(old: Program, new: Program) -> list[NodeChange]:
    """Returns the differences of two programs, node by node."""
    return _compare_programs(old, new, {})


def _compare_programs(old: Program, new: Program, comparisons: ComparisonCache) -> list[NodeChange]:
    before, after = dict(walk_nodes(old)), dict(walk_nodes(new))
    changes = [NodeChange(path, "is gone") for path in before if path not in after]
    for path, node in after.items():
        if (old_node := before.get(path)) is None:
            changes.append(NodeChange(path, NEW))
        elif node.kind != old_node.kind:
            changes.append(NodeChange(path, f"was `{old_node.kind}`, is `{node.kind}`"))
        elif _node_source(node) != _node_source(old_node):
            changes.append(NodeChange(path, "is written otherwise"))
        elif (
            node.contract is not None
            and old_node.contract is not None
            and node.contract.digest != old_node.contract.digest
        ):
            changes.append(NodeChange(path, f"its {node.contract.kind} {node.contract.name} has changed"))
        elif judge := _changed_judge(old_node, node):
            changes.append(NodeChange(path, f"its check asks {judge}, which has changed"))
        elif change := _changed_contract(old_node, node) or _changed_plan_workflow(old_node, node, comparisons):
            changes.append(NodeChange(path, f"{change}, which has changed"))
        elif certificate_digest(node) != certificate_digest(old_node):
            changes.append(NodeChange(path, "its certificate has changed"))
        elif _combination_digest(node) != _combination_digest(old_node):
            changes.append(NodeChange(path, "the combination of its checks has changed"))
    if _output_source(old) != _output_source(new):
        changes.append(NodeChange("output", "is written otherwise"))
    return changes


def _changed_judge(old_node: CompiledNode, node: CompiledNode) -> str:
    """Returns the first changed judge of a node's checks; empty if there is none."""
    before, after = (
        compared_node.acceptance.judges if compared_node.acceptance is not None else {}
        for compared_node in (old_node, node)
    )
    return next((name for name, judge in after.items() if name in before and before[name].digest != judge.digest), "")


def _changed_contract(old_node: CompiledNode, node: CompiledNode) -> str:
    """Returns, as text, the first changed agent or tool that a node's plan or agent may call; empty if there is
    none.
    """
    before = {
        (node_contract.kind, node_contract.name): node_contract.digest for node_contract in node_contracts(old_node)
    }
    contract = next(
        (
            node_contract
            for node_contract in node_contracts(node)
            if before.get((node_contract.kind, node_contract.name), node_contract.digest) != node_contract.digest
        ),
        None,
    )
    if contract is None:
        return ""
    if node.plan_settings is None:
        return f"it may call {contract.name}"
    planners = (node.plan_settings.router, node.plan_settings.larger)
    return f"its plan is made by {contract.name}" if contract in planners else f"its plan may call {contract.name}"


def _changed_plan_workflow(old_node: CompiledNode, node: CompiledNode, comparisons: ComparisonCache) -> str:
    """Returns the same for workflows that the node's plan may call."""
    before, after = (
        compared_node.plan_settings.workflows if compared_node.plan_settings is not None else {}
        for compared_node in (old_node, node)
    )
    return next(
        (
            f"its plan may call {name}"
            for name, called_workflow in after.items()
            if name in before and _is_changed_workflow(before[name], called_workflow, comparisons)
        ),
        "",
    )


def _is_changed_workflow(
    old_workflow: CalledWorkflow, new_workflow: CalledWorkflow, comparisons: ComparisonCache
) -> bool:
    """Whether a workflow has changed. Each pair is compared once: many paths may lead to the same workflow."""
    pair = id(old_workflow.program), id(new_workflow.program)
    if pair not in comparisons:
        comparisons[pair] = bool(_compare_programs(old_workflow.program, new_workflow.program, comparisons))
    return comparisons[pair]


def _combination_digest(node: CompiledNode) -> str:
    combination = node.acceptance.combination if node.acceptance is not None else None
    return combination.digest if combination is not None else ""


def _node_source(node: CompiledNode) -> Any:
    source_fields = node.source.model_dump(mode="json", by_alias=True)
    for inner in ("call", "loop"):
        if isinstance(source_fields.get(inner), dict):
            source_fields[inner] = {key: value for key, value in source_fields[inner].items() if key != "nodes"}
    return source_fields


def _output_source(program: Program) -> Any:
    return program.graph.output if program.graph is not None else None


@dataclass(frozen=True, slots=True)
class NodeDifference:
    """A node with different outcomes in two runs; None if a run does not have it."""

    node: str
    before: Outcome | None
    after: Outcome | None


def compare_runs(before: Sequence[Event], after: Sequence[Event]) -> list[NodeDifference]:
    """Returns the nodes with different outcomes, in the order of the second run; first the outcome of the whole run,
    under an empty name.
    """
    first_history, two = History.of(before), History.of(after)
    rows = {row.path: row.outcome for row in first_history.rows}
    differences = (
        [] if first_history.outcome == two.outcome else [NodeDifference("", first_history.outcome, two.outcome)]
    )
    for row in two.rows:
        old_outcome = rows.pop(row.path, None)
        if old_outcome != row.outcome:
            differences.append(NodeDifference(row.path, old_outcome, row.outcome))
    differences += [NodeDifference(path, outcome, None) for path, outcome in rows.items() if outcome is not None]
    return differences
