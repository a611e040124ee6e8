"""Runs again: a fork takes the answers of an old run where nothing changed; a comparison tells two runs apart, node by node."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from orchestra.app.snapshot_store import called
from orchestra.core.events import AttemptFinished, Event, RunStarted
from orchestra.core.labels import Label, join
from orchestra.core.outcomes import Outcome
from orchestra.core.protocols import Call, Direct, Done, Measure, Refused, Reply, Workers
from orchestra.engine.call_results import streamed
from orchestra.engine.replay import certificate_of, replay
from orchestra.journal.history import History
from orchestra.schema.strict_json import canonical
from orchestra.workflows.program import CompiledNode, Program, contracts

if TYPE_CHECKING:
    from orchestra.workflows.compile.compiler import Called

Known: TypeAlias = Callable[[Call], Done | Refused | None]
"""What is known of a call: its answer, or why it is not made; None of one that is to go out."""
Compared: TypeAlias = dict[tuple[int, int], bool]
"""Whether two programs differ, by what Python knows them by."""
NEW: Final = "is new"
"""Why a node is not what it was, where it was not there."""


class Recalling:
    """Workers that answer a call from an old run where that run made the very same call, and pass on all others.

    The same call: the same agent or tool of the same version, the same inputs, evidence, feedback and tier; the node's path does
    not matter. Errors are tried anew. `effects` answers, or refuses, what was done in the world and is not to be done again.
    """

    def __init__(self, inner: Workers, run: str, answers: Mapping[bytes, AttemptFinished], effects: Known | None = None) -> None:
        self._inner, self._run, self._answers, self._effects = inner, run, answers, effects

    def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Answers, or passes the call on."""
        known = self._reply(call)
        return self._inner.run(call) if known is None else self._known(known)

    def do(self, call: Call) -> Coroutine[Any, Any, Done | Refused]:
        """The same without chunks."""
        known = self._reply(call)
        if known is not None:
            return self._taken(known)
        return self._inner.do(call) if isinstance(self._inner, Direct) else streamed(self._inner, call)

    def _reply(self, call: Call) -> Done | Refused | None:
        """What is known of a call, or why it is not made; None for one that goes out."""
        if (found := self._answers.get(_identity(call))) is None:
            return None if self._effects is None else self._effects(call)
        return Done(value=found.value, confidence=found.confidence, server=found.server, model=found.model, recalled=self._run)

    async def _taken(self, known: Done | Refused) -> Done | Refused:
        return known

    async def _known(self, known: Done | Refused) -> AsyncGenerator[Reply, None]:
        yield known

    def measure(self, call: Call) -> Measure:
        """What a call may cost; nothing where it is known."""
        measure = self._inner.measure(call)
        return Measure(memo=measure.memo) if _identity(call) in self._answers else measure

    async def count(self, call: Call) -> int | None:
        """The tokens of a call's prompt."""
        return await self._inner.count(call)


def answers(program: Program, events: Sequence[Event], anew: Collection[str] = ()) -> dict[bytes, AttemptFinished]:
    """The answers of a run that may be taken again: of pure calls, but for those of the tools in `anew`. Checks judge them anew."""
    pure = {one for one in _pure(program) if one[0] != "tool" or one[1] not in anew}
    found: dict[bytes, AttemptFinished] = {}
    for call, finished in replay(program, events).calls.values():
        if finished is not None and not finished.error and (call.kind, call.name) in pure:
            found[_identity(call)] = finished
    return found


def inherited(parent: RunStarted, own: Label) -> Label:
    """The label of a fork: its inputs and its answers are its parent's data."""
    return join((parent.label, own))


def _pure(program: Program) -> set[tuple[str, str]]:
    return {(contract.kind, contract.name) for contract in called(program) if contract.effect == "pure"}


def question_of(call: Call) -> list[Any]:
    """What a call asks, of whom: two that ask the same can have the same answer, wherever they stand and however urgent they are."""
    return [call.kind, call.name, call.version, call.inputs, call.evidence, call.feedback, call.tier, call.sample]


def _identity(call: Call) -> bytes:
    """What makes two calls the same for a fork: the label too, since what may see the data now may not be what saw it then; and how long
    the output may be, since an answer under a smaller limit may have been cut short."""
    return canonical([*question_of(call), call.label, call.max_output])


def walk(program: Program, prefix: str = "") -> Iterator[tuple[str, CompiledNode]]:
    """The nodes of a program with their paths as a person writes them, those of bodies behind their own; each body once."""
    seen: set[int] = set()
    line = [(prefix, program)]
    while line:
        before, part = line.pop()
        for node in part.nodes:
            path = f"{before}{node.name}"
            yield path, node
            if node.body is not None and id(node.body) not in seen:
                seen.add(id(node.body))
                line.append((f"{path}/", node.body))


@dataclass(frozen=True, slots=True)
class Change:
    """A node that is not what it was, and why."""

    node: str
    why: str


def changes(old: Program, new: Program) -> list[Change]:
    """What differs between two programs, node by node."""
    return _changes(old, new, {})


def _changes(old: Program, new: Program, known: Compared) -> list[Change]:
    before, after = dict(walk(old)), dict(walk(new))
    found = [Change(path, "is gone") for path in before if path not in after]
    for path, node in after.items():
        if (was := before.get(path)) is None:
            found.append(Change(path, NEW))
        elif node.kind != was.kind:
            found.append(Change(path, f"was `{was.kind}`, is `{node.kind}`"))
        elif _source(node) != _source(was):
            found.append(Change(path, "is written otherwise"))
        elif node.contract is not None and was.contract is not None and node.contract.digest != was.contract.digest:
            found.append(Change(path, f"its {node.contract.kind} {node.contract.name} has changed"))
        elif judge := _judge(was, node):
            found.append(Change(path, f"its check asks {judge}, which has changed"))
        elif said := _chosen(was, node) or _planned(was, node, known):
            found.append(Change(path, f"{said}, which has changed"))
        elif certificate_of(node) != certificate_of(was):
            found.append(Change(path, "its certificate has changed"))
        elif _combination(node) != _combination(was):
            found.append(Change(path, "the combination of its checks has changed"))
    if _output(old) != _output(new):
        found.append(Change("output", "is written otherwise"))
    return found


def _judge(was: CompiledNode, node: CompiledNode) -> str:
    """The first that its checks asked and ask, and that is not what it was; empty where there is none."""
    before, after = (one.acceptance.judges if one.acceptance is not None else {} for one in (was, node))
    return next((name for name, judge in after.items() if name in before and before[name].digest != judge.digest), "")


def _chosen(was: CompiledNode, node: CompiledNode) -> str:
    """Says which agent or tool that its plan, or its agent with tools, could call and can is not what it was; empty where there is none."""
    before = {(one.kind, one.name): one.digest for one in contracts(was)}
    found = next((one for one in contracts(node) if before.get((one.kind, one.name), one.digest) != one.digest), None)
    if found is None:
        return ""
    if node.planning is None:
        return f"it may call {found.name}"
    planners = (node.planning.router, node.planning.larger)
    return f"its plan is made by {found.name}" if found in planners else f"its plan may call {found.name}"


def _planned(was: CompiledNode, node: CompiledNode, known: Compared) -> str:
    """The same of the workflows that its plan could call and can."""
    before, after = (one.planning.workflows if one.planning is not None else {} for one in (was, node))
    return next((f"its plan may call {name}" for name, one in after.items() if name in before and _other(before[name], one, known)), "")


def _other(was: Called, one: Called, known: Compared) -> bool:
    """Whether a workflow is not what it was. Each pair is compared once: many ways lead to one where plans call what plans call."""
    pair = id(was.program), id(one.program)
    if pair not in known:
        known[pair] = bool(_changes(was.program, one.program, known))
    return known[pair]


def _combination(node: CompiledNode) -> str:
    combination = node.acceptance.combination if node.acceptance is not None else None
    return combination.digest if combination is not None else ""


def _source(node: CompiledNode) -> Any:
    whole = node.source.model_dump(mode="json", by_alias=True)
    for inner in ("call", "loop"):
        if isinstance(whole.get(inner), dict):
            whole[inner] = {key: value for key, value in whole[inner].items() if key != "nodes"}
    return whole


def _output(program: Program) -> Any:
    return program.graph.output if program.graph is not None else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A node that ended otherwise in two runs; None where a run does not have it."""

    node: str
    before: Outcome | None
    after: Outcome | None


def compare(before: Sequence[Event], after: Sequence[Event]) -> list[Difference]:
    """The nodes that ended otherwise, in the order of the second run; the whole run's outcome, under an empty name, first."""
    one, two = History.of(before), History.of(after)
    rows = {row.path: row.outcome for row in one.rows}
    found = [] if one.outcome == two.outcome else [Difference("", one.outcome, two.outcome)]
    for row in two.rows:
        was = rows.pop(row.path, None)
        if was != row.outcome:
            found.append(Difference(row.path, was, row.outcome))
    found += [Difference(path, outcome, None) for path, outcome in rows.items() if outcome is not None]
    return found
