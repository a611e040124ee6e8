"""Inputs of a run, checked against their types before it starts; and the question to which an answer belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestra.core.error_codes import RUN_ENDED
from orchestra.core.errors import InputError
from orchestra.core.events import Event, QuestionAsked
from orchestra.core.protocols import InboxMessage, Journal
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_json import canonical, storage_error
from orchestra.schema.types import Validator, format_type
from orchestra.workflows.program import Program

MAX_INPUT_BYTES = 63 << 20
"""Bytes of all inputs at most: they are one event of the journal, which takes 64 MiB, with the run's options and
versions.
"""
TOO_LARGE_HINT = "pass names of files, and let tools read them"


def bind_arguments(program: Program, args: Sequence[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inputs of a program by name, as JSON, with defaults. Raises `InputError` E012 or E013."""
    names = list(program.inputs)
    if len(args) > len(names):
        raise InputError(
            "E012", f"{program.name} takes {len(names)} inputs, and got {len(args)}", hint=_signature(program)
        )
    values = dict(zip(names, args, strict=False))
    for name, value in inputs.items():
        if name in values:
            raise InputError("E012", f"{program.name} got {name!r} twice", hint=_signature(program))
        if name not in program.inputs:
            near = closest_match(name, names)
            raise InputError(
                "E012",
                f"{program.name} has no input {name!r}",
                hint=f"did you mean {near!r}?" if near else _signature(program),
            )
        values[name] = value
    arguments: dict[str, Any] = {}
    for name, field in program.inputs.items():
        if name in values:
            arguments[name] = _checked_input(program.name, name, values[name])
            if fault := Validator(field.schema).check(arguments[name]):
                raise InputError(
                    "E013",
                    f"the input {name!r} of {program.name}: {fault}",
                    hint=f"{name}: {format_type(field.schema)}",
                )
        elif field.required:
            raise InputError("E012", f"{program.name} needs the input {name!r}", hint=_signature(program))
        else:
            arguments[name] = field.default
    if len(values) > 1 and (size := len(canonical(arguments))) > MAX_INPUT_BYTES:
        raise InputError(
            "E013",
            f"the inputs of {program.name} have {size:,} bytes as JSON; at most {MAX_INPUT_BYTES:,} are kept",
            hint=TOO_LARGE_HINT,
        )
    return arguments


def _checked_input(program: str, name: str, value: Any) -> Any:
    """Returns an input as JSON that a journal reads back unchanged."""
    try:
        plain = to_jsonable(value)
    except InputError as error:
        raise InputError(error.code, f"the input {name!r} of {program}: {error.message}", hint=error.hint) from error
    if fault := storage_error(plain):
        raise InputError(
            "E013", f"the input {name!r} of {program}: {fault}", hint="pass finite numbers, valid texts and flat values"
        )
    return plain


def to_jsonable(value: Any) -> Any:
    """Returns a value as plain JSON: models, dataclasses, paths and dates as pydantic writes them. Raises `InputError`
    E013.
    """
    try:
        return to_jsonable_python(value, by_alias=True)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise InputError(
            "E013",
            f"a {type(value).__name__} has no JSON form",
            hint="pass JSON values, pydantic models or dataclasses",
        ) from error


def _signature(program: Program) -> str:
    fields = (
        f"{name}: {format_type(field.schema)}{'' if field.required else ' = …'}"
        for name, field in program.inputs.items()
    )
    return f"{program.name}({', '.join(fields)})"


def open_questions(events: Sequence[Event]) -> list[QuestionAsked]:
    """Returns the open questions after these events of a run."""
    from orchestra.journal.history import History

    return list(History.of(events).open_questions)


def unanswered_questions(asked: Sequence[QuestionAsked], messages: Sequence[InboxMessage]) -> list[QuestionAsked]:
    """Returns the questions that none of these unread inbox messages answers."""
    return [question for question in asked if not any(map(_answer_message(question).answers_same_question, messages))]


def _answer_message(question: QuestionAsked) -> InboxMessage:
    return InboxMessage(
        kind="answer",
        node=question.node,
        question_digest=question.question_digest,
        question_seq=question_number(question),
    )


def question_number(asked: QuestionAsked) -> int:
    """Returns the number by which an answer names its question; 0 for a question that is not asked again in the same
    words, as a call in doubt is.
    """
    return asked.seq if asked.kind == "effect" else 0


def find_question(
    events: Sequence[Event], run: str, messages: Sequence[InboxMessage], node: str, shown: str, number: int
) -> QuestionAsked:
    """Returns the open question that an answer is for.

    Raises:
        InputError: E021: there is none; E037: the question that the person saw is closed, or it is unclear which one it
        was.
    """
    questions = open_questions(events)
    if number:
        numbered_questions = [
            candidate for candidate in questions if candidate.seq == number and node in ("", candidate.node)
        ]
        if not numbered_questions:
            hint = f"orchestra runs show {run}{'  has what it asks now' if questions else ''}"
            raise InputError("E037", f"run {run} asks the question of its event {number} no more", hint=hint)
        return select_question(numbered_questions, run, numbered_questions[0].node, messages)
    question = select_question(questions, run, node, messages)
    seqs = [
        event.seq
        for event in events
        if isinstance(event, QuestionAsked) and (event.node, event.question_digest) == (question.node, shown)
    ]
    if len(seqs) > 1:
        numbers = ", ".join(map(str, seqs))
        reason = f"which question is answered? {question.node} of run {run} asked it in the events {numbers}"
        raise InputError("E037", reason, hint="state the question: orchestra.answer(..., question_seq=question.seq)")
    return question


def select_question(
    asked: Sequence[QuestionAsked], run: str, node: str, messages: Sequence[InboxMessage]
) -> QuestionAsked:
    """Returns the question that is meant, of those without an answer in the inbox. Raises `InputError` E021."""
    questions = unanswered_questions(asked, messages)
    node_questions = [question for question in questions if not node or question.node == node]
    if len(node_questions) == 1:
        return node_questions[0]
    if not node_questions:
        for question in asked:
            if (not node or question.node == node) and (
                first := next(filter(_answer_message(question).answers_same_question, messages), None)
            ) is not None:
                raise _already_answered_error(run, first)
        nodes = ", ".join(question.node for question in asked)
        message = f"run {run} asks nothing" if not asked else f"{node} of run {run} asks nothing"
        raise InputError("E021", message, hint=f"these do: {nodes}" if asked else f"orchestra runs show {run}")
    raise InputError(
        "E021",
        f"run {run} asks {len(node_questions)} things",
        hint=f"name the node: {', '.join(question.node for question in node_questions)}",
    )


def answer_error(asked: QuestionAsked, run: str, why: str, *, late: bool, call_happened: bool = False) -> InputError:
    """Returns the error for a rejected answer."""
    if late:
        hint = f"its `fallback` applies; if no process holds the run: orchestra runs resume {run}"
        return InputError("E031", f"{asked.node} of run {run}: {why}", hint=hint)
    if call_happened:
        hint = (
            f"what the call gave is a value of type {format_type(asked.result_schema)}"
            if asked.result_schema is not None
            else f"orchestra runs show {run}"
        )
        return InputError("E022", f"{asked.node} of run {run}: {why}", hint=hint)
    hint = f"one of: {', '.join(asked.options)}" if asked.options else f"a value of type {format_type(asked.schema)}"
    return InputError("E022", f"{asked.node} of run {run}: {why}", hint=hint)


async def send_answer(journal: Journal, run: str, message: InboxMessage, since: int) -> None:
    """Puts an answer into a run's inbox, unless the inbox has one since the given message: of several simultaneous
    answers the first counts. Raises `InputError` E021 for the others.
    """
    from orchestra.journal.errors import JournalError

    try:
        if await journal.send(run, message, since):
            return
    except JournalError as error:
        if error.code != RUN_ENDED:  # By the other answer.
            raise
    first = next(
        (
            inbox_message
            for inbox_message in await journal.inbox(run, since)
            if message.answers_same_question(inbox_message)
        ),
        None,
    )
    if first is None:
        raise InputError("E021", f"run {run} has ended, and asks nothing", hint=f"orchestra runs show {run}")
    raise _already_answered_error(run, first)


def _already_answered_error(run: str, message: InboxMessage) -> InputError:
    by = f" by {message.by}" if message.by else ""
    hint = f"the process that holds the run takes the answer; if none does: orchestra runs resume {run}"
    return InputError("E021", f"{message.node} of run {run} has been answered{by} already", hint=hint)


def run_not_found(run: str) -> InputError:
    """Returns the error for an unknown run."""
    return InputError("E020", f"there is no run {run!r}", hint="orchestra runs list")
