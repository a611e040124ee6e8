"""Questions to persons: their display, the commands that answer them, and the parsing of answers."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from orchestra.app.inputs import select_question
from orchestra.cli.inputs import InputType, StdinReader, resolve_text
from orchestra.core.errors import InputError
from orchestra.core.events import QuestionAsked, WithheldOutput
from orchestra.core.protocols import InboxMessage
from orchestra.core.quantities import format_time
from orchestra.core.untrusted_text import escape_invisible, shorten
from orchestra.schema.strict_json import StrictJsonError, canonical, digest, parse_untrusted

DECLINE_COMMAND = "/decline"
"""The prefix of a terminal line that declines to answer, with a reason."""
CALL_RESULT_COMMAND = "/gave"
"""The prefix of a terminal line with the result of a call of unknown outcome."""
QUOTE_PREFIX = "  | "
"""Marks lines of quoted text."""


def format_question(question: QuestionAsked) -> str:
    """Formats a question with its node, its text and its numbered options or answer type. Further lines, and evidence,
    are marked: untrusted text may imitate options or an answering command.
    """
    first, *other_lines = _split_lines(question.question)
    lines = [
        f"{question.node}: {first}",
        *(f"{QUOTE_PREFIX}{line}" for line in other_lines),
        *(_format_withheld(question.withheld) if question.withheld is not None else ()),
    ]
    lines += [f"  {number}  {option}" for number, option in enumerate(question.options, 1)]
    if question.result_schema is not None:
        lines.append(f"  or the result of the call, if it happened: {_describe_type(question.result_schema)}")
    if not question.options and not _accepts_text(question):
        lines.append(f"  an answer of type {InputType(question.schema)}, as JSON")
    if question.due:
        lines.append(f"  until {format_time(question.due)}; a later answer is ignored")
    return escape_invisible("\n".join(lines))


def _format_withheld(withheld_output: WithheldOutput) -> Iterator[str]:
    """A withheld value, its verdicts and its evidence."""
    yield from ("", json.dumps(withheld_output.value, indent=2, ensure_ascii=False), "")
    for verdict in withheld_output.verdicts:
        yield f"  {verdict.check}: {verdict.outcome} ({verdict.score:.2f}) {' '.join(verdict.reason.split())}".rstrip()
    if withheld_output.tiers:
        yield f"  asked: {withheld_output.tiers}"
    for text in withheld_output.evidence:
        yield from (
            "",
            f"{' '.join(text.source.split()) or 'evidence'}:",
            *(f"{QUOTE_PREFIX}{line}" for line in _split_lines(text.text)),
        )
    yield ""


def _split_lines(text: str) -> list[str]:
    return text.splitlines() or [""]


def question_token(question: QuestionAsked) -> str:
    """Identifies a question within its run: by its node, all that was shown, and its time, because the same question
    may be asked again.
    """
    return digest(canonical([question.node, question.question_digest, question.seq]))[:12]


def find_question(
    questions: Sequence[QuestionAsked], run: str, node: str, token: str, messages: Sequence[InboxMessage]
) -> QuestionAsked:
    """Finds the open question for an answer, without an answer in the inbox. Raises `InputError` E021, E037."""
    if not token:
        return select_question(questions, run, node, messages)
    question = next(
        (candidate for candidate in questions if question_token(candidate) == token and node in ("", candidate.node)),
        None,
    )
    if question is None:
        hint = f"orchestra runs show {run}{'  shows its current question' if questions else ''}"
        raise InputError("E037", f"run {run} no longer asks the question {token}", hint=hint)
    return select_question([question], run, question.node, messages)


def _answer_command_prefix(run: str, question: QuestionAsked) -> str:
    return f"orchestra runs answer {run} --to {question_token(question)}"


def repeat_command(
    run: str, question: QuestionAsked, value: str | None, declined: str | None, call_result: str | None
) -> str:
    """The command that gives the same answer to this question."""
    options = [
        f"--{name} {shlex.quote(option_value)}"
        for name, option_value in (("decline", declined), ("gave", call_result))
        if option_value is not None
    ]
    if value is not None:
        options.append(f"{'-- ' if value.startswith('-') else ''}{shlex.quote(value)}")
    return " ".join((_answer_command_prefix(run, question), *options))


def answer_command(run: str, question: QuestionAsked) -> str:
    """The command that answers, with the first option or an example of the type."""
    value = (
        question.options[0]
        if question.options
        else "your text"
        if _accepts_text(question)
        else InputType(question.schema).example
    )
    if question.withheld is not None and not _accepts_text(question):
        value = canonical(question.withheld.value).decode("utf-8", "replace")  # the user edits it
    return f"{_answer_command_prefix(run, question)} {'-- ' if value.startswith('-') else ''}{shlex.quote(value)}"


def format_open_questions(run: str, questions: Sequence[QuestionAsked]) -> str:
    """The open questions of a run, each with the command that answers it."""
    return "\n\n".join(_format_open_question(run, question) for question in questions)


def _format_open_question(run: str, question: QuestionAsked) -> str:
    result_command = call_result_command(run, question)
    return f"{format_question(question)}\nanswer with: {answer_command(run, question)}" + (
        f"\n         or: {result_command}" if result_command else ""
    )


def question_data(run: str, questions: Sequence[QuestionAsked]) -> list[dict[str, Any]]:
    """The open questions of a run as JSON values."""
    return [
        {
            "node": question.node,
            "question": question.question,
            "options": question.options,
            "schema": question.schema,
            "about": question.kind,
            "withheld": question.withheld,
            "shown": question.question_digest,
            "due": question.due,
            "to": question_token(question),
            "answer": answer_command(run, question),
            "decline": decline_command(run, question),
            "gives": question.result_schema,
            "gave": call_result_command(run, question),
        }
        for question in questions
    ]


def decline_command(run: str, question: QuestionAsked) -> str | None:
    """The command that declines to answer; None if that is not allowed."""
    return f"{_answer_command_prefix(run, question)} --decline 'your reason'" if question.kind != "effect" else None


def call_result_command(run: str, question: QuestionAsked) -> str | None:
    """The command that reports the result of a call of unknown outcome; None without such a call."""
    if question.result_schema is None:
        return None
    value = "your text" if InputType(question.result_schema).accepts_text else InputType(question.result_schema).example
    return f"{_answer_command_prefix(run, question)} --gave {shlex.quote(value)}"


def read_value(text: str, schema: dict[str, Any], option: str) -> tuple[str, bool]:
    """Reads a command line value. Returns its text, and whether it is JSON although its type accepts texts: true for a
    .json file if the type accepts more, such as null. Raises `InputError` C014.
    """
    input_type = InputType(schema)
    is_file = (
        text.startswith("@")
        and not text.startswith("@@")
        and text.endswith(".json")
        and text not in input_type.allowed_texts
    )
    return resolve_text(
        text, f"{option} {text}".strip(), StdinReader(), input_type
    ), is_file and input_type.json_types != ["string"]


def parse_call_result(question: QuestionAsked, text: str, *, as_json: bool = False) -> Any:
    """Parses the result of a call of unknown outcome; with `as_json` always as JSON. Raises `InputError` C024."""
    if question.kind != "effect":
        raise InputError(
            "C024", f"{question.node} asks for an answer, not for the result of a call", hint="leave out --gave"
        )
    if question.result_schema is None:  # asked by an older version
        return text
    if InputType(question.result_schema).accepts_text and not as_json:
        return text
    try:
        return parse_untrusted(text)
    except StrictJsonError as error:
        hint = f"such as {InputType(question.result_schema).example}"
        raise InputError(
            "C024",
            f"{question.node} outputs {_describe_type(question.result_schema)}, which {shorten(text, 40)!r} is not",
            hint=hint,
        ) from error


def parse_terminal_line(run: str, question: QuestionAsked, line: str) -> tuple[Any, bool]:
    """Parses a terminal line. Returns the value, and whether it is the result of a call. Raises `InputError` C024."""
    word, _, rest = line.strip().partition(" ")
    if word == CALL_RESULT_COMMAND and question.result_schema is not None:
        return parse_call_result(question, rest.strip()), True
    return parse_terminal_answer(run, question, line), False


def _describe_type(schema: dict[str, Any]) -> str:
    return f"a value of type {InputType(schema)}" + ("" if InputType(schema).accepts_text else ", as JSON")


def parse_decline_reason(question: QuestionAsked, line: str) -> str:
    """The reason on a declining terminal line; empty for other lines. Raises `InputError` C024 without a reason."""
    word, _, reason = line.strip().partition(" ")
    if word != DECLINE_COMMAND or question.kind == "effect":
        return ""
    if not reason.strip():
        raise InputError(
            "C024", f"a reason is required to decline {question.node}", hint=f"{DECLINE_COMMAND} I was not there"
        )
    return reason.strip()


def parse_answer(run: str, question: QuestionAsked, text: str, *, as_json: bool = False) -> Any:
    """Parses an answer: literal text if the question accepts it, otherwise, or with `as_json`, JSON. Raises
    `InputError` C024.
    """
    if _accepts_text(question) and not as_json:
        return text
    try:
        return parse_untrusted(text)
    except StrictJsonError as error:
        excerpt = shorten(text, 40)
        hint = answer_command(run, question)
        raise InputError(
            "C024",
            f"{question.node} requires {InputType(question.schema)} as JSON, which {excerpt!r} is not",
            hint=hint,
        ) from error


def parse_terminal_answer(run: str, question: QuestionAsked, line: str) -> Any:
    """Parses an answer at the terminal; a number selects an option. Raises `InputError` C024."""
    text = line.strip("\r\n")
    if question.options and text.strip() not in question.options:
        number = text.strip()
        if number.isascii() and number.isdigit() and 1 <= int(number) <= len(question.options):
            return question.options[int(number) - 1]
    return parse_answer(run, question, text.strip() if question.options else text)


def show_question(question: QuestionAsked) -> None:
    """Shows a question on stderr."""
    decline_hint = f"  {DECLINE_COMMAND} REASON, to decline\n" if question.kind != "effect" else ""
    decline_hint += (
        f"  {CALL_RESULT_COMMAND} VALUE, if the call happened\n" if question.result_schema is not None else ""
    )
    sys.stderr.write(f"\n{format_question(question)}\n{decline_hint}> ")
    sys.stderr.flush()


async def read_terminal_line() -> str | None:
    """Reads the next typed line; None at the end of input. After a cancellation, the next reader gets the text."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    future: asyncio.Future[bytes] = loop.create_future()

    def read_input() -> None:
        if not future.done():
            future.set_result(os.read(descriptor, 1 << 16))

    loop.add_reader(descriptor, read_input)
    try:
        data = await future
    finally:
        loop.remove_reader(descriptor)
    return data.decode("utf-8", "replace") if data else None


def _accepts_text(question: QuestionAsked) -> bool:
    """True if a bare text is a valid answer."""
    return bool(question.options) or InputType(question.schema).accepts_text
