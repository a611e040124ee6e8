"""The notation of plans: one line per step, for models and people.

    s1 = search(query=input.question, documents=input.documents, top=3)
    s2 = [reader(question=input.question, context=x.text) for x in s1]
    s3 = cite(question=input.question, readings=s2, passages=s1)
    return s3

Steps are named `s1`, `s2` and so on. An argument is a reference to an input or to an earlier step, or JSON. A
comprehension is an `each`: one call for every element of an available list, or of a list in the line itself, so that
several similar calls are one line: `s1 = [reader(question=x, context=input.text) for x in ["Where is it?", "How high is
it?"]]`. A step that only waits for another one names it without a keyword: `s4 = send(s3, text=input.text)`. The plan
`return nothing` says that no capability serves the request. The notation resembles Python because models have seen much
of it, and takes half the tokens of the same steps as JSON (decision 014). It is parsed by the rules below and never
executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from orchestra.core.paths import format_path
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted

INPUT = "input"
NOTHING = "nothing"
"""The answer of a plan without steps, if no capability serves the request."""
ELEMENT = "x"
"""Name of the element under `each`."""
MAX_LINE_LENGTH = 8_000
"""Maximum characters of a line."""
MAX_ARGUMENTS = 64


class PlanSyntaxError(ValueError):
    """A syntax error in a line. `column` counts from 1."""

    def __init__(self, reason: str, column: int) -> None:
        super().__init__(reason)
        self.reason, self.column = reason, column


@dataclass(frozen=True, slots=True)
class PlanReference:
    """An available value or a part of one: `input.question`, `s2`, `s1[0].text`, `x.text`."""

    root: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return format_path((self.root, *self.path))


@dataclass(frozen=True, slots=True)
class PlanLiteral:
    """A JSON value that the plan itself states."""

    value: Any

    def __str__(self) -> str:
        return json.dumps(self.value, ensure_ascii=False)


Argument: TypeAlias = PlanReference | PlanLiteral


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One call of a capability, or with `each` one call for every element of a list."""

    name: str
    capability: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    each: PlanReference | PlanLiteral | None = None
    """The list: an available one, or one that the plan states."""
    after: tuple[str, ...] = ()
    """Steps that it waits for without reading them."""

    def __str__(self) -> str:
        arguments = [*self.after, *(f"{name}={value}" for name, value in self.arguments.items())]
        call = f"{self.capability}({', '.join(arguments)})"
        return f"{self.name} = [{call} for {ELEMENT} in {self.each}]" if self.each else f"{self.name} = {call}"

    @property
    def references(self) -> tuple[PlanReference, ...]:
        """References to inputs and other steps."""
        plan_references = [
            value
            for value in self.arguments.values()
            if isinstance(value, PlanReference) and (not self.each or value.root != ELEMENT)
        ]
        return (*plan_references, self.each) if isinstance(self.each, PlanReference) else tuple(plan_references)


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """The last line: the values of the answer; none if no capability serves the request."""

    values: tuple[PlanReference, ...]

    def __str__(self) -> str:
        return f"return {', '.join(map(str, self.values)) or NOTHING}"


PlanLine: TypeAlias = PlanStep | PlanAnswer

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Name of an argument, a value or a field."""
NAME_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
"""Words of a name such as `bookTable` or `book_table`."""
JSON_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Options of a grammar server for JSON in the spacing of this notation."""
_CAPABILITY_NAME = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_.:/-]*[A-Za-z0-9_])?")
_STEP_NAME = re.compile(r"s[1-9][0-9]{0,2}")
_WAITED_STEP = re.compile(r"(s[1-9][0-9]{0,2})(?=[ \t]*[,)])")
_SPACE = re.compile(r"[ \t]*")
_INDEX = re.compile(r"\[(0|[1-9][0-9]{0,3})\]")
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")


def parse_line(text: str) -> PlanLine:
    """Parses a step or an answer. Raises `PlanSyntaxError` with the column."""
    if len(text) > MAX_LINE_LENGTH:
        raise PlanSyntaxError(f"a line has at most {MAX_LINE_LENGTH:,} characters", MAX_LINE_LENGTH)
    return _LineParser(text).line()


def parse_steps(lines: Iterable[str]) -> tuple[PlanStep, ...]:
    """Returns the steps among lines that were parsed before."""
    return tuple(line for line in map(parse_line, lines) if isinstance(line, PlanStep))


def split_lines(text: str) -> list[str]:
    """Splits a text into lines. Characters that JSON strings may contain, such as U+2028, do not end a line."""
    return _LINE_ENDS.split(text)


_LINE_ENDS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e]")


def parse_plan(text: str) -> list[PlanLine]:
    """Parses the lines of a plan; skips empty lines and a surrounding code fence.

    Raises:
        PlanSyntaxError: The reason names the number of the line.
    """
    lines: list[PlanLine] = []
    for number, line in enumerate(split_lines(text), 1):
        if not line.strip() or line.lstrip().startswith("```"):
            continue
        try:
            lines.append(parse_line(line))
        except PlanSyntaxError as error:
            raise PlanSyntaxError(f"line {number}: {error.reason}", error.column) from error
    return lines


class _LineParser:
    """Parser of one line."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def line(self) -> PlanLine:
        parsed_line: PlanLine = self.answer() if self._take_word("return") else self.step()
        self.skip_space()
        if self.position < len(self.text):
            raise self.error("unexpected text at the end of the line")
        return parsed_line

    def answer(self) -> PlanAnswer:
        if self._take_word(NOTHING):
            return PlanAnswer(())
        plan_references = [self.reference()]
        self.skip_space()
        while self._take(",") and len(plan_references) < MAX_ARGUMENTS:
            plan_references.append(self.reference())
            self.skip_space()
        return PlanAnswer(tuple(plan_references))

    def step(self) -> PlanStep:
        name = self._expect_match(_STEP_NAME, "a step begins with its name: s1 = …")
        self._expect_sign("=")
        self.skip_space()
        if not self._take("["):
            capability, arguments, after = self.call()
            return PlanStep(name, capability, arguments, None, after)
        capability, arguments, after = self.call()
        self._expect_word("for")
        self._expect_word(ELEMENT)
        self._expect_word("in")
        list_value = (
            PlanLiteral(self._json(self._json_end())) if self.text.startswith("[", self.position) else self.reference()
        )
        self._expect_sign("]")
        return PlanStep(name, capability, arguments, list_value, after)

    def call(self) -> tuple[str, dict[str, Argument], tuple[str, ...]]:
        capability = self._expect_match(_CAPABILITY_NAME, "expected the name of an agent or a tool")
        self._expect_sign("(")
        arguments: dict[str, Argument] = {}
        after: list[str] = []
        while not self._take(")"):
            if arguments or after:
                self._expect_sign(",")
            if len(arguments) + len(after) == MAX_ARGUMENTS:
                raise self.error(f"a call has at most {MAX_ARGUMENTS} arguments")
            if not arguments and (step := _WAITED_STEP.match(self.text, self.position)):
                after.append(step[1])
                self.position = step.end()
            else:
                self.named_argument(arguments)
            self.skip_space()
        return capability, arguments, tuple(after)

    def named_argument(self, found: dict[str, Argument]) -> None:
        name = self._expect_match(IDENTIFIER, "expected the name of an argument")
        if name in found:
            raise self.error(f"the argument {name} is given twice")
        self._expect_sign("=")
        found[name] = self.argument()

    def argument(self) -> Argument:
        self.skip_space()
        rest = self.text[self.position : self.position + 1]
        if rest in ('"', "[", "{"):
            return PlanLiteral(self._json(self._json_end()))
        if scalar := _SCALAR.match(self.text, self.position):
            return PlanLiteral(self._json(scalar.end()))
        return self.reference()

    def reference(self) -> PlanReference:
        root = self._expect_match(IDENTIFIER, "expected a value: input.NAME, a step such as s1, or JSON")
        path: list[str | int] = []
        while self.position < len(self.text):
            if index := _INDEX.match(self.text, self.position):
                path.append(int(index[1]))
                self.position = index.end()
            elif self._take("."):
                path.append(self._expect_match(IDENTIFIER, "expected the name of a field"))
            else:
                break
        return PlanReference(root, tuple(path))

    def skip_space(self) -> None:
        if match := _SPACE.match(self.text, self.position):
            self.position = match.end()

    def error(self, reason: str) -> PlanSyntaxError:
        return PlanSyntaxError(reason, self.position + 1)

    def _json_end(self) -> int:
        """End of the JSON value that begins here: the bracket that closes it, outside of strings."""
        depth, at, inside = 0, self.position, False
        while at < len(self.text):
            char = self.text[at]
            if inside:
                if char == "\\":
                    at += 1
                elif char == '"':
                    inside = False
            elif char == '"':
                inside = True
            elif char in "[{":
                depth += 1
            elif char in "]}":
                depth -= 1
            at += 1
            if not depth and not inside:
                return min(at, len(self.text))
        raise self.error("the text or the list that begins here does not end")

    def _json(self, end: int) -> Any:
        try:
            value = parse_untrusted(self.text[self.position : end])
        except StrictJsonError as error:
            raise self.error(f"no JSON: {error.args[0]}") from error
        self.position = end
        return value

    def _take(self, sign: str) -> bool:
        if self.text.startswith(sign, self.position):
            self.position += len(sign)
            return True
        return False

    def _expect_sign(self, sign: str) -> None:
        self.skip_space()
        if not self._take(sign):
            raise self.error(f"expected {sign!r}")
        self.skip_space()

    def _take_word(self, word: str) -> bool:
        self.skip_space()
        match = IDENTIFIER.match(self.text, self.position)
        if match is None or match[0] != word:
            return False
        self.position = match.end()
        self.skip_space()
        return True

    def _expect_word(self, word: str) -> None:
        if not self._take_word(word):
            raise self.error(f"expected {word!r}")

    def _expect_match(self, pattern: re.Pattern[str], expectation: str) -> str:
        self.skip_space()
        match = pattern.match(self.text, self.position)
        if match is None:
            raise self.error(expectation)
        self.position = match.end()
        return match[0]
