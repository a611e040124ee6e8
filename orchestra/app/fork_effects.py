"""What a run and those before it did in the world: a fork takes the answers, and does none of it a second time unasked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from orchestra.app.code_changes import code_since
from orchestra.app.reuse import Change, Recalling, answers, changes
from orchestra.app.snapshot_store import called, reached, restored
from orchestra.core.error_codes import OPEN, REPEATED
from orchestra.core.errors import OrchestraError
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, Given, RunStarted
from orchestra.core.paths import first_name, without_numbers, without_turn
from orchestra.core.protocols import Call, Done, Refused
from orchestra.engine.replay import replay
from orchestra.schema.strict_json import canonical
from orchestra.workflows.program import CompiledNode, Program

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.engine.engine import Engine

LASTING: Final = frozenset({"once", "keyed", "transactional"})
"""Effects that are there twice where the call is made twice: the key of a keyed call is that of one run."""


@dataclass(slots=True)
class Effects:
    """The calls with lasting effects of a run and of those that it was forked from, the nearest first."""

    program: Program
    """What asks for them now."""
    again: bool = False
    """Whether they are made again: that was said."""
    answers: dict[bytes, Done] = field(default_factory=dict)
    """By tool, place and inputs; the place is empty where the workflow has it no longer."""
    made: dict[tuple[str, str], str] = field(default_factory=dict)
    """The run that made a call of a tool at a place, whether its end is on record or not."""
    lasting: frozenset[str] = frozenset()
    """Tools of whose calls nobody knows whether they were made, since the record is gone, or cannot be read."""

    def reply(self, call: Call) -> Done | Refused | None:
        """The answer on record, of whatever version of the tool; a refusal where the call might be a repetition; None where it is none."""
        if self.again or call.kind != "tool":
            return None
        at = _place(self.program, call.node).path
        for place in (call.node, without_numbers(at), ""):
            if (known := self.answers.get(_key(call.name, place, call.inputs))) is not None:
                return known
        run = self.made.get((at, call.name))
        if run is None and call.name not in self.lasting:
            return None
        gone = "the run that may have called it is gone, or cannot be read"
        why = f"run {run} has called it here, with other inputs or without an answer" if run else gone
        hint = f"see what {call.name} has done; to call it again: orchestra runs fork RUN --again"
        if first_name(at) == at:
            hint += f"; to say what {'it' if at == call.node else at} gave: orchestra runs fork RUN --set {at}=VALUE"
        return Refused(code=REPEATED, reason=f"{call.name} has effects, and {why}", hint=hint)

    def add(self, run: str, old: Program, events: Sequence[Event]) -> None:
        """Adds what a run did, behind those that were added before."""
        lasting = tools(old)
        if not lasting:
            return
        for call, finished in replay(old, events).calls.values():
            if call.name in lasting and call.kind == "tool" and finished is not None and not finished.error:
                done = _done(run, finished)
                for at in (call.node, without_numbers(self._today(old, call.node, call.name))):
                    self.answers.setdefault(_key(call.name, at, call.inputs), done)
        for node, name in _made(events, lasting):
            self.made.setdefault((self._today(old, node, name) or node, name), run)

    def lose(self) -> None:
        """From here on the record is missing: whatever is called today may have been called."""
        self.lasting |= tools(self.program)

    def _today(self, old: Program, path: str, tool: str) -> str:
        """Where today the call would be made that an old program made there; empty where no such place calls the tool any more."""
        found = _place(self.program, _place(old, path).path)
        calls = found.node is not None and any(one.kind == "tool" and one.name == tool for one in reached(found.node))
        return found.path if calls else ""


@dataclass(frozen=True, slots=True)
class _Place:
    """What stands at a path: a node that calls what is written there, or the one above under which a model chooses the calls, so that each
    may come at another step the next time."""

    path: str
    node: CompiledNode | None
    """None where the program has no such node."""


def _place(program: Program, path: str) -> _Place:
    """The place of a call in a program."""
    before, part = "", program
    for step in path.split("/"):
        node = next((one for one in part.nodes if one.name == without_numbers(step)), None)
        if node is not None and (node.planning is not None or node.using is not None):
            return _Place(before + without_turn(step), node)
        if node is None or node.body is None:
            return _Place(path, node if before + step == path else None)
        before, part = f"{before}{step}/", node.body
    return _Place(path, None)


def _made(events: Sequence[Event], lasting: frozenset[str]) -> set[tuple[str, str]]:
    """Nodes and tools of calls that came about, or may have: not those that failed. Not by what the engine would do today, which may not
    follow the record to its end."""
    open_: dict[tuple[str, int], str] = {}
    found: set[tuple[str, str]] = set()
    for event in events:
        if isinstance(event, AttemptStarted) and event.name in lasting:
            open_[event.node, event.attempt] = event.name
        elif isinstance(event, AttemptFinished):
            name = open_.pop((event.node, event.attempt), event.name)
            if name in lasting and (not event.error or event.error in OPEN):
                found.add((event.node, name))
    return found | {(node, name) for (node, _), name in open_.items()}


def acts(events: Sequence[Event], lasting: Collection[str]) -> bool:
    """Whether a run itself did something in the world with the tools `lasting`, or may have: what it recalled, another had done."""
    recalled = {(one.node, one.attempt) for one in events if isinstance(one, AttemptFinished) and one.recalled}
    own = [one for one in events if not isinstance(one, AttemptStarted | AttemptFinished) or (one.node, one.attempt) not in recalled]
    return bool(_made(own, frozenset(lasting)))


def _done(run: str, found: AttemptFinished) -> Done:
    recalled, said = found.recalled or run, found.given
    given = Given(said.by, said.run or run) if said is not None else None
    return Done(value=found.value, confidence=found.confidence, server=found.server, model=found.model, recalled=recalled, given=given)


def _key(name: str, place: str, inputs: Mapping[str, Any]) -> bytes:
    return canonical([name, place, inputs])


def tools(program: Program) -> frozenset[str]:
    """The tools with lasting effects that may be called in a program's course."""
    return frozenset(one.name for one in called(program) if one.kind == "tool" and one.effect in LASTING)


@dataclass(frozen=True, slots=True)
class Heir:
    """The workers of a fork, and what has changed since the run that it is a fork of."""

    workers: Recalling
    changes: tuple[Change, ...]


async def heir(project: Project, engine: Engine, first: RunStarted, events: Sequence[Event], new: Program, *, again: bool) -> Heir:
    """Of a run: the workers know what it was answered, and what it and those before it did.

    Raises `OrchestraError` E019 where what the run stored cannot be read.
    """
    old = await restored(project, engine.journal, first, asking=False)
    effects = Effects(new, again)
    effects.add(first.run, old, events)
    parent, seen = first.parent, {first.run}
    while parent and parent not in seen:
        seen.add(parent)
        if (begun := await _added(project, engine, parent, effects)) is None:
            effects.lose()
            break
        parent = begun.parent
    code = await code_since(project, engine.journal, first, old)
    workers = Recalling(engine.workers, first.run, answers(old, events, code.changed), effects.reply)
    return Heir(workers, tuple(code.changes(new, changes(old, new))))


async def _added(project: Project, engine: Engine, run: str, effects: Effects) -> RunStarted | None:
    """How an ancestor began, once what it did is added; None where it is not there any more, or cannot be read."""
    try:
        events = await engine.journal.read(run)
        if not events or not isinstance(begun := events[0], RunStarted):
            return None
        effects.add(run, await restored(project, engine.journal, begun, asking=False), events)
    except OrchestraError:
        return None
    return begun


def orphan(engine: Engine, parent: str, program: Program, *, again: bool) -> Recalling:
    """The workers of a fork whose parent is gone: pure calls are made anew, and none that the parent may have made with effects."""
    return Recalling(engine.workers, parent, {}, Effects(program, again, lasting=tools(program)).reply)
