"""Inputs of a run: named, made JSON, checked against their types before anything starts; and which question an answer is to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestra.core.error_codes import ENDED
from orchestra.core.errors import InputError
from orchestra.core.events import Asked, Event
from orchestra.core.protocols import Journal, Letter
from orchestra.core.suggestions import nearest
from orchestra.schema.strict_json import canonical, unkept
from orchestra.schema.types import Validator, show
from orchestra.workflows.program import Program

MOST = 63 << 20
"""Bytes of all inputs together at most: they are one event of the journal, which takes 64 MiB, beside a run's options and versions."""
SMALLER = "pass names of files, and let tools read them"


def bound(program: Program, args: Sequence[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a program by name, as JSON, with defaults. Raises `InputError` E012 or E013."""
    names = list(program.inputs)
    if len(args) > len(names):
        raise InputError("E012", f"{program.name} takes {len(names)} inputs, and got {len(args)}", hint=_signature(program))
    given = dict(zip(names, args, strict=False))
    for name, value in inputs.items():
        if name in given:
            raise InputError("E012", f"{program.name} got {name!r} twice", hint=_signature(program))
        if name not in program.inputs:
            near = nearest(name, names)
            raise InputError(
                "E012", f"{program.name} has no input {name!r}", hint=f"did you mean {near!r}?" if near else _signature(program)
            )
        given[name] = value
    found: dict[str, Any] = {}
    for name, field in program.inputs.items():
        if name in given:
            found[name] = _kept(program.name, name, given[name])
            if fault := Validator(field.schema).check(found[name]):
                raise InputError("E013", f"the input {name!r} of {program.name}: {fault}", hint=f"{name}: {show(field.schema)}")
        elif field.required:
            raise InputError("E012", f"{program.name} needs the input {name!r}", hint=_signature(program))
        else:
            found[name] = field.default
    if len(given) > 1 and (size := len(canonical(found))) > MOST:
        raise InputError("E013", f"the inputs of {program.name} have {size:,} bytes as JSON; at most {MOST:,} are kept", hint=SMALLER)
    return found


def _kept(program: str, name: str, value: Any) -> Any:
    """An input as JSON that a journal reads back the same."""
    try:
        plain = jsonable(value)
    except InputError as error:
        raise InputError(error.code, f"the input {name!r} of {program}: {error.message}", hint=error.hint) from error
    if fault := unkept(plain):
        raise InputError("E013", f"the input {name!r} of {program}: {fault}", hint="pass finite numbers, valid texts and flat values")
    return plain


def jsonable(value: Any) -> Any:
    """A value as plain JSON: models, dataclasses, paths and dates are written as pydantic writes them. Raises `InputError` E013."""
    try:
        return to_jsonable_python(value, by_alias=True)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise InputError(
            "E013", f"a {type(value).__name__} has no JSON form", hint="pass JSON values, pydantic models or dataclasses"
        ) from error


def _signature(program: Program) -> str:
    fields = (f"{name}: {show(field.schema)}{'' if field.required else ' = …'}" for name, field in program.inputs.items())
    return f"{program.name}({', '.join(fields)})"


def questions(events: Sequence[Event]) -> list[Asked]:
    """What persons are asked, as of these events of a run."""
    from orchestra.journal.history import History

    return list(History.of(events).asked)


def unanswered(asked: Sequence[Asked], letters: Sequence[Letter]) -> list[Asked]:
    """The questions to which no answer lies in the inbox, of which these are the letters that nobody has opened."""
    return [one for one in asked if not any(map(_answer_to(one).repeats, letters))]


def _answer_to(asked: Asked) -> Letter:
    return Letter(kind="answer", node=asked.node, shown=asked.shown, asked=number_of(asked))


def number_of(asked: Asked) -> int:
    """The number by which an answer names its question; 0 of one that is not asked again in the same words, as of a call in doubt it is."""
    return asked.seq if asked.about == "effect" else 0


def meant(events: Sequence[Event], run: str, letters: Sequence[Letter], node: str, shown: str, number: int) -> Asked:
    """The open question that an answer is to, of a person who saw what is `shown`, asked by the event of this number, where these are told.
    Raises `InputError` E021, or E037 where it is asked no more or nobody can tell which one was seen."""
    asked = questions(events)
    if number:
        found = [one for one in asked if one.seq == number and node in ("", one.node)]
        if not found:
            hint = f"orchestra runs show {run}{'  has what it asks now' if asked else ''}"
            raise InputError("E037", f"run {run} asks the question of its event {number} no more", hint=hint)
        return chosen(found, run, found[0].node, letters)
    one = chosen(asked, run, node, letters)
    seen = [event.seq for event in events if isinstance(event, Asked) and (event.node, event.shown) == (one.node, shown)]
    if len(seen) > 1:
        said = f"which question is answered? {one.node} of run {run} has asked it in the events {', '.join(map(str, seen))}"
        raise InputError("E037", said, hint="say which one was read: orchestra.answer(..., asked=asked.seq)")
    return one


def chosen(asked: Sequence[Asked], run: str, node: str, letters: Sequence[Letter]) -> Asked:
    """The question that is meant, of those to which no answer lies in the inbox. Raises `InputError` E021."""
    left = unanswered(asked, letters)
    found = [one for one in left if not node or one.node == node]
    if len(found) == 1:
        return found[0]
    if not found:
        for one in asked:
            if (not node or one.node == node) and (first := next(filter(_answer_to(one).repeats, letters), None)) is not None:
                raise _answered(run, first)
        nodes = ", ".join(one.node for one in asked)
        said = f"run {run} asks nothing" if not asked else f"{node} of run {run} asks nothing"
        raise InputError("E021", said, hint=f"these do: {nodes}" if asked else f"orchestra runs show {run}")
    raise InputError("E021", f"run {run} asks {len(found)} things", hint=f"name the node: {', '.join(one.node for one in found)}")


def refused(asked: Asked, run: str, why: str, *, late: bool, gave: bool = False) -> InputError:
    """Of an answer that does not count."""
    if late:
        hint = f"without an answer its `fallback` stands; where no process has the run in hand: orchestra runs resume {run}"
        return InputError("E031", f"{asked.node} of run {run}: {why}", hint=hint)
    if gave:
        hint = f"what the call gave is a value of type {show(asked.gives)}" if asked.gives is not None else f"orchestra runs show {run}"
        return InputError("E022", f"{asked.node} of run {run}: {why}", hint=hint)
    hint = f"one of: {', '.join(asked.options)}" if asked.options else f"a value of type {show(asked.schema)}"
    return InputError("E022", f"{asked.node} of run {run}: {why}", hint=hint)


async def posted(journal: Journal, run: str, letter: Letter, since: int) -> None:
    """Puts an answer into a run's inbox, where none lies there since the letter of this number: of several in the same moment the first
    counts. Raises `InputError` E021 for the others."""
    from orchestra.journal.errors import JournalError

    try:
        if await journal.post(run, letter, since):
            return
    except JournalError as error:
        if error.code != ENDED:  # by the other answer
            raise
    first = next((one for one in await journal.letters(run, since) if letter.repeats(one)), None)
    if first is None:
        raise InputError("E021", f"run {run} has ended, and asks nothing", hint=f"orchestra runs show {run}")
    raise _answered(run, first)


def _answered(run: str, letter: Letter) -> InputError:
    by = f" by {letter.by}" if letter.by else ""
    hint = f"whoever has the run in hand takes the answer; where nobody does: orchestra runs resume {run}"
    return InputError("E021", f"{letter.node} of run {run} has been answered{by} already", hint=hint)


def nowhere(run: str) -> InputError:
    """Of a run that nobody knows."""
    return InputError("E020", f"there is no run {run!r}", hint="orchestra runs list")
