"""The calls with effects of a run and its ancestors: a fork reuses their answers, and repeats none of them unless asked
to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from orchestra.app.code_changes import compare_code
from orchestra.app.reuse import NodeChange, RecallingWorkers, program_changes, reusable_answers
from orchestra.app.snapshot_store import called_contracts, reachable_contracts, restore_program
from orchestra.core.error_codes import ALREADY_CALLED, IN_DOUBT_CODES
from orchestra.core.errors import OrchestraError
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, OverrideSource, RunStarted
from orchestra.core.paths import root_name, without_turn, workflow_path
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.engine.replay import replay
from orchestra.schema.strict_json import canonical
from orchestra.workflows.program import CompiledNode, Program

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.core.protocols import Workers
    from orchestra.engine.engine import Engine

LASTING_EFFECTS: Final = frozenset({"once", "keyed", "transactional"})
"""Effects that happen twice if the call is made twice: the key of a keyed call belongs to one run."""


@dataclass(slots=True)
class EffectHistory:
    """The calls with lasting effects of a run and its ancestors, nearest first."""

    program: Program
    """The program of the fork."""
    repeat: bool = False
    """Whether effects may be repeated."""
    answers: dict[bytes, CallResult] = field(default_factory=dict)
    """By tool, place and inputs; the place is empty if the workflow does not have it any more."""
    made_calls: dict[tuple[str, str], str] = field(default_factory=dict)
    """The run that called a tool at a place, whether or not the call ended."""
    unknown_tools: frozenset[str] = frozenset()
    """Tools that may have been called, because a record is missing or cannot be read."""

    def recorded_reply(self, call: CallRequest) -> CallResult | CallError | None:
        """Returns the recorded answer, of any version of the tool; an error if the call might be a repetition; None if
        it is not.
        """
        if self.repeat or call.kind != "tool":
            return None
        at = _call_site(self.program, call.node).path
        for place in (call.node, workflow_path(at), ""):
            if (call_result := self.answers.get(_effect_key(call.name, place, call.inputs))) is not None:
                return call_result
        run = self.made_calls.get((at, call.name))
        if run is None and call.name not in self.unknown_tools:
            return None
        explanation = "the run that may have called it is gone, or cannot be read"
        reason = f"run {run} has called it here, with other inputs or without an answer" if run else explanation
        hint = f"see what {call.name} has done; to call it again: orchestra runs fork RUN --again"
        if root_name(at) == at:
            hint += f"; to say what {'it' if at == call.node else at} gave: orchestra runs fork RUN --set {at}=VALUE"
        return CallError(code=ALREADY_CALLED, reason=f"{call.name} has effects, and {reason}", hint=hint)

    def add(self, run: str, old: Program, events: Sequence[Event]) -> None:
        """Adds the effects of a run, after those added before."""
        effect_names = effect_tools(old)
        if not effect_names:
            return
        for call, finish_event in replay(old, events).calls.values():
            if (
                call.name in effect_names
                and call.kind == "tool"
                and finish_event is not None
                and not finish_event.error
            ):
                result = _recorded_result(run, finish_event)
                for at in (call.node, workflow_path(self._current_path(old, call.node, call.name))):
                    self.answers.setdefault(_effect_key(call.name, at, call.inputs), result)
        for node, name in _possible_calls(events, effect_names):
            self.made_calls.setdefault((self._current_path(old, node, name) or node, name), run)

    def mark_lost(self) -> None:
        """Notes that older records are missing: every tool may have been called."""
        self.unknown_tools |= effect_tools(self.program)

    def _current_path(self, old: Program, path: str, tool: str) -> str:
        """Returns where the call of an old program would be made today; empty if no such place calls the tool any
        more.
        """
        call_site = _call_site(self.program, _call_site(old, path).path)
        calls = call_site.node is not None and any(
            contract.kind == "tool" and contract.name == tool for contract in reachable_contracts(call_site.node)
        )
        return call_site.path if calls else ""


@dataclass(frozen=True, slots=True)
class _CallSite:
    """A place of calls: a node with a fixed call, or the outer node under which a model chooses the calls, so that a
    call may have another step the next time.
    """

    path: str
    node: CompiledNode | None
    """None if the program has no such node."""


def _call_site(program: Program, path: str) -> _CallSite:
    """Returns the place of a call in a program."""
    before, part = "", program
    for step in path.split("/"):
        node = next((part_node for part_node in part.nodes if part_node.name == workflow_path(step)), None)
        if node is not None and (node.plan_settings is not None or node.tool_use is not None):
            return _CallSite(before + without_turn(step), node)
        if node is None or node.body is None:
            return _CallSite(path, node if before + step == path else None)
        before, part = f"{before}{step}/", node.body
    return _CallSite(path, None)


def _possible_calls(events: Sequence[Event], effect_names: frozenset[str]) -> set[tuple[str, str]]:
    """Returns nodes and tools of calls that happened or may have happened, without failed ones. Independent of what the
    engine would do today, which may not replay the whole record.
    """
    open_: dict[tuple[str, int], str] = {}
    calls: set[tuple[str, str]] = set()
    for event in events:
        if isinstance(event, AttemptStarted) and event.name in effect_names:
            open_[event.node, event.attempt] = event.name
        elif isinstance(event, AttemptFinished):
            name = open_.pop((event.node, event.attempt), event.name)
            if name in effect_names and (not event.error or event.error in IN_DOUBT_CODES):
                calls.add((event.node, name))
    return calls | {(node, name) for (node, _), name in open_.items()}


def has_effects(events: Sequence[Event], lasting: Collection[str]) -> bool:
    """Whether a run itself had, or may have had, an effect with the tools `lasting`; reused answers are another run's
    effects.
    """
    recalled_calls = {
        (event.node, event.attempt) for event in events if isinstance(event, AttemptFinished) and event.reused_from
    }
    new_events = [
        event
        for event in events
        if not isinstance(event, AttemptStarted | AttemptFinished) or (event.node, event.attempt) not in recalled_calls
    ]
    return bool(_possible_calls(new_events, frozenset(lasting)))


def _recorded_result(run: str, finish_event: AttemptFinished) -> CallResult:
    reused_from, source = finish_event.reused_from or run, finish_event.overridden_by
    override_source = OverrideSource(source.by, source.run or run) if source is not None else None
    return CallResult(
        value=finish_event.value,
        confidence=finish_event.confidence,
        server=finish_event.server,
        model=finish_event.model,
        reused_from=reused_from,
        overridden_by=override_source,
    )


def _effect_key(name: str, place: str, inputs: Mapping[str, Any]) -> bytes:
    return canonical([name, place, inputs])


def effect_tools(program: Program) -> frozenset[str]:
    """Returns the tools with lasting effects that a program may call."""
    return frozenset(
        contract.name
        for contract in called_contracts(program)
        if contract.kind == "tool" and contract.effect in LASTING_EFFECTS
    )


@dataclass(frozen=True, slots=True)
class ForkWorkers:
    """The workers of a fork, and the changes since its parent."""

    workers: RecallingWorkers
    changes: tuple[NodeChange, ...]


async def fork_workers(
    project: Project, engine: Engine, first: RunStarted, events: Sequence[Event], new: Program, *, again: bool
) -> ForkWorkers:
    """Returns workers that reuse the answers of a run, and the effects of the run and its ancestors. Raises
    `OrchestraError` E019 if what the run stored cannot be read.
    """
    old = await restore_program(project, engine.journal, first, will_call=False)
    effects = EffectHistory(new, again)
    effects.add(first.run, old, events)
    parent, visited_runs = first.parent, {first.run}
    while parent and parent not in visited_runs:
        visited_runs.add(parent)
        if (start_event := await _add_ancestor(project, engine, parent, effects)) is None:
            effects.mark_lost()
            break
        parent = start_event.parent
    code = await compare_code(project, engine.journal, first, old)
    workers = RecallingWorkers(
        engine.workers, first.run, reusable_answers(old, events, code.changed), effects.recorded_reply
    )
    return ForkWorkers(workers, tuple(code.add_changes(new, program_changes(old, new))))


async def _add_ancestor(project: Project, engine: Engine, run: str, effects: EffectHistory) -> RunStarted | None:
    """Adds the effects of an ancestor and returns its first event; None if it is missing or unreadable."""
    try:
        events = await engine.journal.read(run)
        if not events or not isinstance(start_event := events[0], RunStarted):
            return None
        effects.add(run, await restore_program(project, engine.journal, start_event, will_call=False), events)
    except OrchestraError:
        return None
    return start_event


async def restore_fork_workers(
    project: Project,
    engine: Engine,
    read_run: Callable[[str], Awaitable[tuple[RunStarted, list[Event]]]],
    started: RunStarted,
    program: Program,
) -> Workers | None:
    """Returns the workers of a resumed fork, which reuse the answers of its parent; None for a run that is no fork."""
    if not started.parent:
        return None
    again = started.options.get("again") is True
    try:
        first, events = await read_run(started.parent)
        return (await fork_workers(project, engine, first, events, program, again=again)).workers
    except OrchestraError:  # The parent was deleted, or cannot be read.
        return orphan_workers(engine, started.parent, program, again=again)


def orphan_workers(engine: Engine, parent: str, program: Program, *, again: bool) -> RecallingWorkers:
    """Returns the workers of a fork without a parent: pure calls are made again; calls with effects that the parent may
    have made are not.
    """
    return RecallingWorkers(
        engine.workers, parent, {}, EffectHistory(program, again, unknown_tools=effect_tools(program)).recorded_reply
    )
