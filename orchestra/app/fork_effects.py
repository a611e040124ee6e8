"""What a run and those before it did in the world: a fork takes the answers, and does none of it a second time unasked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    from orchestra.engine.engine import Engine

LASTING_EFFECTS: Final = frozenset({"once", "keyed", "transactional"})
"""Effects that are there twice where the call is made twice: the key of a keyed call is that of one run."""


@dataclass(slots=True)
class EffectHistory:
    """The calls with lasting effects of a run and of those that it was forked from, the nearest first."""

    program: Program
    """What asks for them now."""
    repeat: bool = False
    """Whether they are made again: that was said."""
    answers: dict[bytes, CallResult] = field(default_factory=dict)
    """By tool, place and inputs; the place is empty where the workflow has it no longer."""
    made_calls: dict[tuple[str, str], str] = field(default_factory=dict)
    """The run that made a call of a tool at a place, whether its end is on record or not."""
    unknown_tools: frozenset[str] = frozenset()
    """Tools of whose calls nobody knows whether they were made, since the record is gone, or cannot be read."""

    def recorded_reply(self, call: CallRequest) -> CallResult | CallError | None:
        """The answer on record, of whatever version of the tool; a refusal where the call might be a repetition; None where it is none."""
        if self.repeat or call.kind != "tool":
            return None
        at = _call_site(self.program, call.node).path
        for place in (call.node, workflow_path(at), ""):
            if (known := self.answers.get(_effect_key(call.name, place, call.inputs))) is not None:
                return known
        run = self.made_calls.get((at, call.name))
        if run is None and call.name not in self.unknown_tools:
            return None
        gone = "the run that may have called it is gone, or cannot be read"
        why = f"run {run} has called it here, with other inputs or without an answer" if run else gone
        hint = f"see what {call.name} has done; to call it again: orchestra runs fork RUN --again"
        if root_name(at) == at:
            hint += f"; to say what {'it' if at == call.node else at} gave: orchestra runs fork RUN --set {at}=VALUE"
        return CallError(code=ALREADY_CALLED, reason=f"{call.name} has effects, and {why}", hint=hint)

    def add(self, run: str, old: Program, events: Sequence[Event]) -> None:
        """Adds what a run did, behind those that were added before."""
        lasting = effect_tools(old)
        if not lasting:
            return
        for call, finished in replay(old, events).calls.values():
            if call.name in lasting and call.kind == "tool" and finished is not None and not finished.error:
                done = _recorded_result(run, finished)
                for at in (call.node, workflow_path(self._current_path(old, call.node, call.name))):
                    self.answers.setdefault(_effect_key(call.name, at, call.inputs), done)
        for node, name in _possible_calls(events, lasting):
            self.made_calls.setdefault((self._current_path(old, node, name) or node, name), run)

    def mark_lost(self) -> None:
        """From here on the record is missing: whatever is called today may have been called."""
        self.unknown_tools |= effect_tools(self.program)

    def _current_path(self, old: Program, path: str, tool: str) -> str:
        """Where today the call would be made that an old program made there; empty where no such place calls the tool any more."""
        found = _call_site(self.program, _call_site(old, path).path)
        calls = found.node is not None and any(
            one.kind == "tool" and one.name == tool for one in reachable_contracts(found.node)
        )
        return found.path if calls else ""


@dataclass(frozen=True, slots=True)
class _CallSite:
    """What stands at a path: a node that calls what is written there, or the one above under which a model chooses the calls, so that each
    may come at another step the next time."""

    path: str
    node: CompiledNode | None
    """None where the program has no such node."""


def _call_site(program: Program, path: str) -> _CallSite:
    """The place of a call in a program."""
    before, part = "", program
    for step in path.split("/"):
        node = next((one for one in part.nodes if one.name == workflow_path(step)), None)
        if node is not None and (node.plan_settings is not None or node.tool_use is not None):
            return _CallSite(before + without_turn(step), node)
        if node is None or node.body is None:
            return _CallSite(path, node if before + step == path else None)
        before, part = f"{before}{step}/", node.body
    return _CallSite(path, None)


def _possible_calls(events: Sequence[Event], lasting: frozenset[str]) -> set[tuple[str, str]]:
    """Nodes and tools of calls that came about, or may have: not those that failed. Not by what the engine would do today, which may not
    follow the record to its end."""
    open_: dict[tuple[str, int], str] = {}
    found: set[tuple[str, str]] = set()
    for event in events:
        if isinstance(event, AttemptStarted) and event.name in lasting:
            open_[event.node, event.attempt] = event.name
        elif isinstance(event, AttemptFinished):
            name = open_.pop((event.node, event.attempt), event.name)
            if name in lasting and (not event.error or event.error in IN_DOUBT_CODES):
                found.add((event.node, name))
    return found | {(node, name) for (node, _), name in open_.items()}


def has_effects(events: Sequence[Event], lasting: Collection[str]) -> bool:
    """Whether a run itself did something in the world with the tools `lasting`, or may have: what it recalled, another had done."""
    recalled = {(one.node, one.attempt) for one in events if isinstance(one, AttemptFinished) and one.reused_from}
    own = [
        one
        for one in events
        if not isinstance(one, AttemptStarted | AttemptFinished) or (one.node, one.attempt) not in recalled
    ]
    return bool(_possible_calls(own, frozenset(lasting)))


def _recorded_result(run: str, found: AttemptFinished) -> CallResult:
    recalled, said = found.reused_from or run, found.overridden_by
    given = OverrideSource(said.by, said.run or run) if said is not None else None
    return CallResult(
        value=found.value,
        confidence=found.confidence,
        server=found.server,
        model=found.model,
        reused_from=recalled,
        overridden_by=given,
    )


def _effect_key(name: str, place: str, inputs: Mapping[str, Any]) -> bytes:
    return canonical([name, place, inputs])


def effect_tools(program: Program) -> frozenset[str]:
    """The tools with lasting effects that may be called in a program's course."""
    return frozenset(
        one.name for one in called_contracts(program) if one.kind == "tool" and one.effect in LASTING_EFFECTS
    )


@dataclass(frozen=True, slots=True)
class ForkWorkers:
    """The workers of a fork, and what has changed since the run that it is a fork of."""

    workers: RecallingWorkers
    changes: tuple[NodeChange, ...]


async def fork_workers(
    project: Project, engine: Engine, first: RunStarted, events: Sequence[Event], new: Program, *, again: bool
) -> ForkWorkers:
    """Of a run: the workers know what it was answered, and what it and those before it did.

    Raises `OrchestraError` E019 where what the run stored cannot be read.
    """
    old = await restore_program(project, engine.journal, first, will_call=False)
    effects = EffectHistory(new, again)
    effects.add(first.run, old, events)
    parent, seen = first.parent, {first.run}
    while parent and parent not in seen:
        seen.add(parent)
        if (begun := await _add_ancestor(project, engine, parent, effects)) is None:
            effects.mark_lost()
            break
        parent = begun.parent
    code = await compare_code(project, engine.journal, first, old)
    workers = RecallingWorkers(
        engine.workers, first.run, reusable_answers(old, events, code.changed), effects.recorded_reply
    )
    return ForkWorkers(workers, tuple(code.add_changes(new, program_changes(old, new))))


async def _add_ancestor(project: Project, engine: Engine, run: str, effects: EffectHistory) -> RunStarted | None:
    """How an ancestor began, once what it did is added; None where it is not there any more, or cannot be read."""
    try:
        events = await engine.journal.read(run)
        if not events or not isinstance(begun := events[0], RunStarted):
            return None
        effects.add(run, await restore_program(project, engine.journal, begun, will_call=False), events)
    except OrchestraError:
        return None
    return begun


def orphan_workers(engine: Engine, parent: str, program: Program, *, again: bool) -> RecallingWorkers:
    """The workers of a fork whose parent is gone: pure calls are made anew, and none that the parent may have made with effects."""
    return RecallingWorkers(
        engine.workers, parent, {}, EffectHistory(program, again, unknown_tools=effect_tools(program)).recorded_reply
    )
