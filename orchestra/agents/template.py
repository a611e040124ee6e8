"""Prompt templates: minijinja with a step limit, split into messages before rendering.

A line `<!-- system -->`, `<!-- user -->` or `<!-- assistant -->` begins a message. A text without such lines is one
user message. Data is only a value of the template, so it cannot add messages or expressions. If the last message is the
assistant's, it is the beginning of the answer, which the model continues. An empty last assistant message is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from minijinja import Environment, TemplateError

from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.suggestions import closest_match

MAX_RENDER_STEPS = 200_000
"""Maximum steps of one rendering (minijinja's count: about one per instruction)."""
MAX_CHARACTERS = 1 << 20
MAX_MESSAGES = 200

TEMPLATE_FUNCTIONS = frozenset({"range", "dict", "namespace"})
"""Functions of minijinja that a template may call."""

RESERVED_NAMES = frozenset({"true", "True", "false", "False", "none", "None", "not"})
"""Words that a template never reads as names, so an input cannot have them."""

Role: TypeAlias = Literal["system", "user", "assistant"]
_MARKER = re.compile(r"^[ \t]*<!--[ \t]*(system|user|assistant)[ \t]*-->[ \t]*$\n?", re.MULTILINE)


def split_messages(template: str) -> list[tuple[Role, str, int]]:
    """Splits a template into messages: role, text, and the 1-based line where the text begins."""
    parts: list[tuple[Role, str, int]] = []
    role: Role = "user"
    start, line = 0, 1
    for marker in _MARKER.finditer(template):
        parts.append((role, template[start : marker.start()], line))
        line += template.count("\n", start, marker.end())
        role, start = _parse_role(marker[1]), marker.end()
    parts.append((role, template[start:], line))
    return [part for part in parts if part[1].strip()]


def extend_system(template: str, text: str) -> str:
    """Returns a template with a text at the end of its system message, or as its first one. The text may have further
    messages, which are examples.
    """
    messages = [(role, part.strip()) for role, part, _ in split_messages(template)]
    if not messages or messages[0][0] != "system":
        messages.insert(0, ("system", ""))
    messages[0] = ("system", f"{messages[0][1]}\n\n{text.strip()}".strip())
    return join_messages(messages)


def join_messages(messages: Iterable[tuple[str, str]]) -> str:
    """Returns the template of these messages, each with its role and its text."""
    return "".join(f"<!-- {role} -->\n{text}\n" for role, text in messages)


def _parse_role(word: str) -> Role:
    return "system" if word == "system" else "assistant" if word == "assistant" else "user"


def normalize_template(template: str) -> str:
    """Returns a template without comments and with normalized white space, to compare templates."""
    bare = re.sub(r"\{#.*?#\}", " ", template, flags=re.DOTALL)
    tight = re.sub(r"(\{[{%])[-+]?\s*|\s*[-+]?([}%]\})", lambda match: match[1] or match[2], bare)
    return " ".join(tight.split())


def check(template: str, names: Iterable[str], file: Path) -> None:
    """Rejects a template that cannot be rendered: A005 for its syntax, A006 for a name that is not an input."""
    name_list = list(names)
    parts = split_messages(template)
    if not parts:
        raise InputError(
            "A005",
            f"{file} is empty",
            location=SourceLocation(str(file), 1),
            hint="write instructions for the model, with {{ input }}",
        )
    if len(parts) > MAX_MESSAGES:
        location = _location(template, parts[MAX_MESSAGES][2], file)
        raise InputError(
            "A005",
            f"{file} has {len(parts):,} messages; at most {MAX_MESSAGES}",
            location=location,
            hint="write fewer examples",
        )
    if parts[-1][0] == "system" or all(role != "user" for role, _, _ in parts):
        raise InputError(
            "A005",
            "there is no user message",
            location=_location(template, parts[-1][2], file),
            hint="<!-- user -->",
        )
    for _, text, line in parts:

        def at(row: int, word: str, first: int = line) -> SourceLocation:
            return _location(template, first + row, file, word)

        _check_message(text, name_list, at, "prompt")


def check_system(text: str, names: Iterable[str], location: SourceLocation) -> None:
    """Rejects an invalid `system:` text, which is one message. `location` is its location."""
    _check_message(text, list(names), lambda row, word: location, "system text")


def _check_message(text: str, names: Sequence[str], at: Callable[[int, str], SourceLocation], part: str) -> None:
    """Rejects an invalid message: A005 for its syntax, A006 for a name that is not an input.

    Args:
        at: Returns the location of a row, counted from 0, and of a word.
    """
    environment = _environment()
    try:
        environment.add_template("prompt", text)
        undeclared_names = environment.undeclared_variables_in_str(text)
    except TemplateError as error:
        reason = (error.detail or error.message).partition("\n")[0]
        raise InputError(
            "A005", f"the {part}'s syntax: {reason}", location=at(*_error_location(error, text)), hint="{{ input }}"
        ) from error
    for name in sorted(undeclared_names - TEMPLATE_FUNCTIONS - set(names)):
        row = next((i for i, row in enumerate(text.split("\n")) if re.search(rf"\b{re.escape(name)}\b", row)), 0)
        near = closest_match(name, names)
        hint = f"did you mean {near!r}?" if near else f"inputs: {', '.join(names) or 'none'}"
        raise InputError("A006", f"the card has no input {name!r}", location=at(row, name), hint=hint)


class Template:
    """One message of a template, compiled once."""

    __slots__ = ("_environment", "_name")

    def __init__(self, text: str, name: str) -> None:
        """Compiles the message. `name` is the agent, for error messages.

        Raises:
            InputError: A007 for invalid syntax.
        """
        self._name = name
        self._environment = _environment()
        try:
            self._environment.add_template(name, text)
        except TemplateError as error:
            raise _render_error(name, error) from error

    def render(self, values: Mapping[str, Any]) -> str:
        """Renders the message.

        Raises:
            InputError: A007 if the step limit is exceeded, or a value lacks what the template reads.
        """
        name = self._name
        try:
            output: str = self._environment.render_template(name, **values)
        except TemplateError as error:
            raise _render_error(name, error) from error
        if len(output) > MAX_CHARACTERS:
            raise InputError(
                "A007",
                f"the prompt of {name!r} has {len(output):,} characters",
                hint="shorten the inputs: at most 1 Mi characters",
            )
        return output


def _render_error(name: str, error: TemplateError) -> InputError:
    reason = error.message.partition("\n")[0]
    hint = (
        "a prompt may take 200,000 steps" if error.kind == "OutOfFuel" else "compare the prompt with the card's input"
    )
    return InputError("A007", f"the prompt of {name!r} cannot be rendered: {reason}", hint=hint)


def _environment() -> Environment:
    return Environment(
        fuel=MAX_RENDER_STEPS,
        undefined_behavior="strict",
        auto_escape_callback=lambda _: False,
        path_join_callback=lambda name, parent: (
            f"{name} " if name == parent else name
        ),  # templates cannot include others or themselves
        pycompat=False,
        debug=False,
    )


def _error_location(error: TemplateError, text: str) -> tuple[int, str]:
    """Returns the first and the last row of the part with a syntax error, from its opening braces on: minijinja reports
    an unclosed part further down.
    """
    if error.range is not None:
        before = text.encode()[: error.range[0]].decode(errors="ignore")
        if (opening := max(before.rfind("{{"), before.rfind("{%"))) >= 0:
            return before.count("\n", 0, opening), text[opening:].partition("\n")[0]
    return (error.line or 1) - 1, ""


def _location(template: str, line: int, file: Path, word: str = "") -> SourceLocation:
    rows = template.split("\n")
    text = rows[line - 1] if line <= len(rows) else ""
    at = text.find(word) if word else 0
    return SourceLocation(str(file), line, max(at, 0) + 1, text, max(len(word), 1))
