"""Questions to people: shown with options or type, answered at the terminal or by a command."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from orchestra.app.inputs import chosen
from orchestra.cli.inputs import Stdin, Type, told
from orchestra.cli.output import moment
from orchestra.core.errors import InputError
from orchestra.core.events import Asked, Withheld
from orchestra.core.protocols import Letter
from orchestra.core.untrusted_text import shortened, visible
from orchestra.schema.strict_json import NotStrictJSON, canonical, digest, parse_untrusted

DECLINE = "/decline"
"""How a line at the terminal begins that says why nobody answers."""
GAVE = "/gave"
"""And one that says what a call in doubt gave."""
QUOTED = "  | "
"""How a line begins that is no line of ours."""


def somebody_is_here() -> bool:
    """Whether a person sits at this process's terminal, and can be asked there."""
    return sys.platform != "win32" and sys.stdin.isatty() and sys.stderr.isatty()


def question_text(asked: Asked) -> str:
    """A question as a person reads it: who asks, what, and the options, numbered, or the type of the answer. Further lines of its text, and
    of evidence, are marked: what a stranger has written may look like options, or like a command that answers."""
    first, *more = _lines(asked.question)
    lines = [
        f"{asked.node}: {first}",
        *(f"{QUOTED}{line}" for line in more),
        *(_withheld_text(asked.withheld) if asked.withheld is not None else ()),
    ]
    lines += [f"  {number}  {option}" for number, option in enumerate(asked.options, 1)]
    if asked.gives is not None:
        lines.append(f"  or what it gave, where it happened: {_a_value(asked.gives)}")
    if not asked.options and not _bare(asked):
        lines.append(f"  an answer of type {Type(asked.schema)}, as JSON")
    if asked.due:
        lines.append(f"  until {moment(asked.due)}; a later answer does not count")
    return visible("\n".join(lines))


def _withheld_text(withheld: Withheld) -> Iterator[str]:
    """A value that was not accepted, what was said of it, and what it had to rest on."""
    yield from ("", json.dumps(withheld.value, indent=2, ensure_ascii=False), "")
    for one in withheld.verdicts:
        yield f"  {one.check}: {one.outcome} ({one.score:.2f}) {' '.join(one.reason.split())}".rstrip()
    if withheld.tiers:
        yield f"  asked: {withheld.tiers}"
    for text in withheld.evidence:
        yield from ("", f"{' '.join(text.source.split()) or 'evidence'}:", *(f"{QUOTED}{line}" for line in _lines(text.text)))
    yield ""


def _lines(text: str) -> list[str]:
    return text.splitlines() or [""]


def word(asked: Asked) -> str:
    """What tells a question from every other one that its run may ask: of its node, all that was shown, and when it was asked, for the
    same may be asked again."""
    return digest(canonical([asked.node, asked.shown, asked.seq]))[:12]


def meant(questions: Sequence[Asked], run: str, node: str, to: str, letters: Sequence[Letter]) -> Asked:
    """The open question that an answer is to, where none lies in the inbox yet. Raises `InputError` E021, E037."""
    if not to:
        return chosen(questions, run, node, letters)
    found = next((one for one in questions if word(one) == to and node in ("", one.node)), None)
    if found is None:
        hint = f"orchestra runs show {run}{'  has what it asks now' if questions else ''}"
        raise InputError("E037", f"run {run} asks the question {to} no more", hint=hint)
    return chosen([found], run, found.node, letters)


def _command(run: str, asked: Asked) -> str:
    return f"orchestra runs answer {run} --to {word(asked)}"


def same_command(run: str, asked: Asked, value: str | None, declined: str | None, gave: str | None) -> str:
    """What to type in order to give this question what was given to whichever there is."""
    given = [f"--{name} {shlex.quote(said)}" for name, said in (("decline", declined), ("gave", gave)) if said is not None]
    if value is not None:
        given.append(f"{'-- ' if value.startswith('-') else ''}{shlex.quote(value)}")
    return " ".join((_command(run, asked), *given))


def answer_command(run: str, asked: Asked) -> str:
    """What to type in order to answer: with the first of the options, or with an example of the type."""
    value = asked.options[0] if asked.options else "your text" if _bare(asked) else Type(asked.schema).example
    if asked.withheld is not None and not _bare(asked):
        value = canonical(asked.withheld.value).decode("utf-8", "replace")  # to be mended
    return f"{_command(run, asked)} {'-- ' if value.startswith('-') else ''}{shlex.quote(value)}"


def waiting_text(run: str, questions: Sequence[Asked]) -> str:
    """The open questions of a run, each with the command that answers it."""
    return "\n\n".join(_waiting_text(run, asked) for asked in questions)


def _waiting_text(run: str, asked: Asked) -> str:
    gave = gave_command(run, asked)
    return f"{question_text(asked)}\nanswer with: {answer_command(run, asked)}" + (f"\n         or: {gave}" if gave else "")


def question_data(run: str, questions: Sequence[Asked]) -> list[dict[str, Any]]:
    """The open questions of a run as JSON."""
    return [
        {
            "node": asked.node,
            "question": asked.question,
            "options": asked.options,
            "schema": asked.schema,
            "about": asked.about,
            "withheld": asked.withheld,
            "shown": asked.shown,
            "due": asked.due,
            "to": word(asked),
            "answer": answer_command(run, asked),
            "decline": decline_command(run, asked),
            "gives": asked.gives,
            "gave": gave_command(run, asked),
        }
        for asked in questions
    ]


def decline_command(run: str, asked: Asked) -> str | None:
    """What to type in order to say that one does not answer; None where somebody must."""
    return f"{_command(run, asked)} --decline 'your reason'" if asked.about != "effect" else None


def gave_command(run: str, asked: Asked) -> str | None:
    """What to type in order to say what a call in doubt gave; None where no call is."""
    if asked.gives is None:
        return None
    value = "your text" if Type(asked.gives).accepts_text else Type(asked.gives).example
    return f"{_command(run, asked)} --gave {shlex.quote(value)}"


def read(text: str, schema: dict[str, Any], option: str) -> tuple[str, bool]:
    """The text that a value on the command line stands for (`told`), and whether it is JSON though its type takes texts: where it is that
    of a .json file, and the type takes more, such as null. Raises `InputError` C014."""
    wanted = Type(schema)
    named = text.startswith("@") and not text.startswith("@@") and text.endswith(".json") and text not in wanted.texts
    return told(text, f"{option} {text}".strip(), Stdin(), wanted), named and wanted.kinds != ["string"]


def gave(asked: Asked, text: str, *, as_json: bool = False) -> Any:
    """What a call in doubt gave, as it was typed, and with `as_json` as JSON in any case. Raises `InputError` C024."""
    if asked.about != "effect":
        raise InputError("C024", f"{asked.node} asks for an answer, and not for what a call gave", hint="leave out --gave")
    if asked.gives is None:  # an older version asked
        return text
    if Type(asked.gives).accepts_text and not as_json:
        return text
    try:
        return parse_untrusted(text)
    except NotStrictJSON as error:
        hint = f"such as {Type(asked.gives).example}"
        raise InputError("C024", f"{asked.node} gives {_a_value(asked.gives)}, and {shortened(text, 40)!r} is none", hint=hint) from error


def said_at_terminal(run: str, asked: Asked, line: str) -> tuple[Any, bool]:
    """What a line at the terminal stands for, and whether it is what a call in doubt gave. Raises `InputError` C024."""
    word, _, rest = line.strip().partition(" ")
    if word == GAVE and asked.gives is not None:
        return gave(asked, rest.strip()), True
    return chosen_at_terminal(run, asked, line), False


def _a_value(schema: dict[str, Any]) -> str:
    return f"a value of type {Type(schema)}" + ("" if Type(schema).accepts_text else ", as JSON")


def declined(asked: Asked, line: str) -> str:
    """The reason on a line at the terminal that declines to answer; empty for one that does not. Raises `InputError` C024 without one."""
    word, _, reason = line.strip().partition(" ")
    if word != DECLINE or asked.about == "effect":
        return ""
    if not reason.strip():
        raise InputError("C024", f"why is {asked.node} not answered?", hint=f"{DECLINE} I was not there")
    return reason.strip()


def parsed(run: str, asked: Asked, text: str, *, as_json: bool = False) -> Any:
    """The answer that a text stands for: itself where the question takes a text, else, and with `as_json`, JSON. Raises `InputError`
    C024."""
    if _bare(asked) and not as_json:
        return text
    try:
        return parse_untrusted(text)
    except NotStrictJSON as error:
        said = shortened(text, 40)
        hint = answer_command(run, asked)
        raise InputError("C024", f"{asked.node} wants {Type(asked.schema)} as JSON, and {said!r} is none", hint=hint) from error


def chosen_at_terminal(run: str, asked: Asked, line: str) -> Any:
    """The answer that a line at the terminal stands for; a number chooses among options. Raises `InputError` C024."""
    text = line.strip("\r\n")
    if asked.options and text.strip() not in asked.options:
        number = text.strip()
        if number.isascii() and number.isdigit() and 1 <= int(number) <= len(asked.options):
            return asked.options[int(number) - 1]
    return parsed(run, asked, text.strip() if asked.options else text)


def prompt(asked: Asked) -> None:
    """Shows a question at the terminal, beside the output that a program may read."""
    more = f"  {DECLINE} REASON, where you cannot say\n" if asked.about != "effect" else ""
    more += f"  {GAVE} VALUE, where it happened\n" if asked.gives is not None else ""
    sys.stderr.write(f"\n{question_text(asked)}\n{more}> ")
    sys.stderr.flush()


async def line_from_terminal() -> str | None:
    """The next line that is typed; None at the end of input. Being cancelled leaves what is typed to the next reader."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    typed: asyncio.Future[bytes] = loop.create_future()

    def ready() -> None:
        if not typed.done():
            typed.set_result(os.read(descriptor, 1 << 16))

    loop.add_reader(descriptor, ready)
    try:
        data = await typed
    finally:
        loop.remove_reader(descriptor)
    return data.decode("utf-8", "replace") if data else None


def _bare(asked: Asked) -> bool:
    """Whether a bare text answers it."""
    return bool(asked.options) or Type(asked.schema).accepts_text
