"""The notation of plans: one line a step, as a model writes it and a person reads it.

    s1 = search(query=input.question, documents=input.documents, top=3)
    s2 = [reader(question=input.question, context=x.text) for x in s1]
    s3 = cite(question=input.question, readings=s2, passages=s1)
    return s3

Steps are called `s1`, `s2` and so on. What stands behind `=` in a call is a reference to an input or to an earlier step, or JSON. The
comprehension is an `each`: one call for every element of a list, which is one at hand or one that the line itself states, so that
several like calls are one line: `s1 = [reader(question=x, context=input.text) for x in ["Where is it?", "How high is it?"]]`. A step that
only waits for another one names it without an argument: `s4 = send(s3, text=input.text)`. A plan of one line, `return nothing`, says that
nothing which is offered serves the request. It looks like Python because models have read much of it, and takes half the tokens of the
same steps as JSON (decision 014); but it is read by the few rules below, and nothing is ever executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from orchestra.core.paths import written
from orchestra.schema.strict_json import NotStrictJSON, parse_untrusted

INPUT = "input"
NOTHING = "nothing"
"""What a plan returns that has no steps, because nothing that is offered serves the request."""
ELEMENT = "x"
"""The name of an element under `each`."""
MAX_LINE = 8_000
"""Characters of a line at most."""
MAX_ARGUMENTS = 64


class NotPlan(ValueError):
    """A line that is no step of a plan; `column` counts from 1."""

    def __init__(self, reason: str, column: int) -> None:
        super().__init__(reason)
        self.reason, self.column = reason, column


@dataclass(frozen=True, slots=True)
class Reference:
    """A value at hand, or a part of one: `input.question`, `s2`, `s1[0].text`, `x.text`."""

    root: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return written((self.root, *self.path))


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that the plan itself states: JSON."""

    value: Any

    def __str__(self) -> str:
        return json.dumps(self.value, ensure_ascii=False)


Argument: TypeAlias = Reference | Literal


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an agent or a tool; with `each`, one for every element of a list."""

    name: str
    skill: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    each: Reference | Literal | None = None
    """The list: one at hand, or one that the plan states."""
    after: tuple[str, ...] = ()
    """Steps that it waits for without reading them."""

    def __str__(self) -> str:
        call = f"{self.skill}({', '.join([*self.after, *(f'{name}={value}' for name, value in self.arguments.items())])})"
        return f"{self.name} = [{call} for {ELEMENT} in {self.each}]" if self.each else f"{self.name} = {call}"

    @property
    def references(self) -> tuple[Reference, ...]:
        """What it reads of inputs and other steps."""
        read = [value for value in self.arguments.values() if isinstance(value, Reference) and (not self.each or value.root != ELEMENT)]
        return (*read, self.each) if isinstance(self.each, Reference) else tuple(read)


@dataclass(frozen=True, slots=True)
class Answer:
    """The last line: which value is the plan's, or which are; none where nothing that there is serves the request."""

    values: tuple[Reference, ...]

    def __str__(self) -> str:
        return f"return {', '.join(map(str, self.values)) or NOTHING}"


Line: TypeAlias = Step | Answer

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name of an argument, a value or a field."""
CUT = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
"""The words of a name such as `bookTable` or `book_table`."""
COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How a server of grammars spaces JSON so that it is what the notation has."""
_SKILL = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_.:/-]*[A-Za-z0-9_])?")
_NAME = re.compile(r"s[1-9][0-9]{0,2}")
_ALONE = re.compile(r"(s[1-9][0-9]{0,2})(?=[ \t]*[,)])")
_SPACE = re.compile(r"[ \t]*")
_INDEX = re.compile(r"\[(0|[1-9][0-9]{0,3})\]")
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")


def read(text: str) -> Line:
    """The step or the answer that a line is. Raises `NotPlan` with the column of what is wrong."""
    if len(text) > MAX_LINE:
        raise NotPlan(f"a line has at most {MAX_LINE:,} characters", MAX_LINE)
    return _Reader(text).line()


def steps_of(lines: Iterable[str]) -> tuple[Step, ...]:
    """The steps among lines that were read before."""
    return tuple(line for line in map(read, lines) if isinstance(line, Step))


def lines(text: str) -> list[str]:
    """The lines of a text. What may stand in a string of JSON as it is, such as U+2028, ends none of them."""
    return _ENDS.split(text)


_ENDS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e]")


def read_plan(text: str) -> list[Line]:
    """The lines of a plan, empty ones and a fence around them left out. Raises `NotPlan`, its reason with the number of the line."""
    found: list[Line] = []
    for number, line in enumerate(lines(text), 1):
        if not line.strip() or line.lstrip().startswith("```"):
            continue
        try:
            found.append(read(line))
        except NotPlan as error:
            raise NotPlan(f"line {number}: {error.reason}", error.column) from error
    return found


class _Reader:
    """One line, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def line(self) -> Line:
        found: Line = self.answer() if self._word("return") else self.step()
        self.space()
        if self.at < len(self.text):
            raise self.fault("nothing more follows on a line")
        return found

    def answer(self) -> Answer:
        if self._word(NOTHING):
            return Answer(())
        found = [self.reference()]
        self.space()
        while self._is(",") and len(found) < MAX_ARGUMENTS:
            found.append(self.reference())
            self.space()
        return Answer(tuple(found))

    def step(self) -> Step:
        name = self._match(_NAME, "a step begins with its name: s1 = …")
        self._sign("=")
        self.space()
        if not self._is("["):
            skill, arguments, after = self.call()
            return Step(name, skill, arguments, None, after)
        skill, arguments, after = self.call()
        self._keyword("for")
        self._keyword(ELEMENT)
        self._keyword("in")
        each = Literal(self._json(self._end())) if self.text.startswith("[", self.at) else self.reference()
        self._sign("]")
        return Step(name, skill, arguments, each, after)

    def call(self) -> tuple[str, dict[str, Argument], tuple[str, ...]]:
        skill = self._match(_SKILL, "here stands the name of an agent or a tool")
        self._sign("(")
        found: dict[str, Argument] = {}
        after: list[str] = []
        while not self._is(")"):
            if found or after:
                self._sign(",")
            if len(found) + len(after) == MAX_ARGUMENTS:
                raise self.fault(f"a call has at most {MAX_ARGUMENTS} arguments")
            if not found and (step := _ALONE.match(self.text, self.at)):
                after.append(step[1])
                self.at = step.end()
            else:
                self.named(found)
            self.space()
        return skill, found, tuple(after)

    def named(self, found: dict[str, Argument]) -> None:
        name = self._match(WORD, "here stands the name of an argument")
        if name in found:
            raise self.fault(f"the argument {name} is given twice")
        self._sign("=")
        found[name] = self.argument()

    def argument(self) -> Argument:
        self.space()
        rest = self.text[self.at : self.at + 1]
        if rest in ('"', "[", "{"):
            return Literal(self._json(self._end()))
        if scalar := _SCALAR.match(self.text, self.at):
            return Literal(self._json(scalar.end()))
        return self.reference()

    def reference(self) -> Reference:
        root = self._match(WORD, "here stands a value: input.NAME, a step such as s1, or JSON")
        path: list[str | int] = []
        while self.at < len(self.text):
            if index := _INDEX.match(self.text, self.at):
                path.append(int(index[1]))
                self.at = index.end()
            elif self._is("."):
                path.append(self._match(WORD, "here stands the name of a field"))
            else:
                break
        return Reference(root, tuple(path))

    def space(self) -> None:
        if found := _SPACE.match(self.text, self.at):
            self.at = found.end()

    def fault(self, reason: str) -> NotPlan:
        return NotPlan(reason, self.at + 1)

    def _end(self) -> int:
        """Where the JSON that begins here ends: at the bracket that closes it, strings apart."""
        depth, at, inside = 0, self.at, False
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
        raise self.fault("the text or the list that begins here does not end")

    def _json(self, end: int) -> Any:
        try:
            value = parse_untrusted(self.text[self.at : end])
        except NotStrictJSON as error:
            raise self.fault(f"no JSON: {error.args[0]}") from error
        self.at = end
        return value

    def _is(self, sign: str) -> bool:
        if self.text.startswith(sign, self.at):
            self.at += len(sign)
            return True
        return False

    def _sign(self, sign: str) -> None:
        self.space()
        if not self._is(sign):
            raise self.fault(f"here stands {sign!r}")
        self.space()

    def _word(self, word: str) -> bool:
        self.space()
        found = WORD.match(self.text, self.at)
        if found is None or found[0] != word:
            return False
        self.at = found.end()
        self.space()
        return True

    def _keyword(self, word: str) -> None:
        if not self._word(word):
            raise self.fault(f"here stands {word!r}")

    def _match(self, pattern: re.Pattern[str], wanted: str) -> str:
        self.space()
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self.fault(wanted)
        self.at = found.end()
        return found[0]
