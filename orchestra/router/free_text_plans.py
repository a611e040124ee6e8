"""Plans that a model wrote without a grammar: other spellings of the notation, rewritten where their meaning is unique.

Small models leave out `s1 =`, give results names of their own, number their lines, add prose, quote texts like Python,
or write the calls as JSON. A line that is not understood stays as it is, so that its rejection shows it. The rewritten
lines are validated like all others. A line in the notation that reads known values is never changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestra.router.plan_syntax import (
    ELEMENT,
    INPUT,
    Argument,
    PlanAnswer,
    PlanLine,
    PlanLiteral,
    PlanReference,
    PlanStep,
    PlanSyntaxError,
    parse_line,
)
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted

NAME_KEYS = ("tool", "function", "skill", "agent", "action", "call", "name")
ARGUMENT_KEYS = ("arguments", "args", "parameters", "params", "inputs", "input", "with")
RESULT_KEYS = ("id", "step", "as", "result", "output")
LIST_KEYS = ("steps", "plan", "calls", "tool_calls")
ANSWER_KEYS = ("return", "answer", "result", "output")
"""Keys of plans in JSON, as models write them."""
MAX_JSON_STEPS = 64
_LIST_MARK = re.compile(r"(?:[-*•]|\(?\d{1,3}[.):]|(?:step|line)\s+\d{1,3}\s*[.:)-])\s+", re.IGNORECASE)
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)\s*=\s*(?=[^=\s])")
_STEP = re.compile(r"s[1-9]\d{0,2}")
_CALL = re.compile(r"\[?\s*(?!return\b)[A-Za-z_][\w.:/-]*\(")
_COMMENT = re.compile(r"\s+(?:#|//).*")
_QUOTED = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""")
_RETURN_CALL = re.compile(r"return\s*\((.*)\)")
_PLACEHOLDER = re.compile(r"\$?\{+\s*(.+?)\s*\}+|<\s*(.+?)\s*>|\$(.+)")
_LOOKS_LIKE_PLAN = re.compile(r"[A-Za-z_][\w.:/-]*\(|=|^\s*return\b")


def rewrite_lines(lines: Sequence[str], steps: Sequence[PlanStep], inputs: Collection[str]) -> list[str]:
    """Returns the lines of a reply in the notation, where their meaning is unique.

    Lines of prose are left out if others are understood.

    Args:
        lines: The lines of the reply, without a code fence.
        steps: The steps that are accepted already.
        inputs: The names of the available inputs.
    """
    reader = _Reader(list(steps), inputs, tuple(steps))
    call_lines = lines[:-1] if len(lines) > 1 and isinstance(_parse(lines[-1].strip()), PlanAnswer) else lines
    if (rows := _parse_json(call_lines)) is not None and (read_lines := list(reader.read_json(rows))):
        return [*read_lines, *(reader.read_line(line)[0] for line in lines[len(call_lines) :])]
    parsed_lines = [reader.read_line(line) for line in lines]
    if not any(understood for _, understood in parsed_lines):
        return [text for text, _ in parsed_lines if text]
    return [text for text, understood in parsed_lines if text and (understood or _LOOKS_LIKE_PLAN.search(text))]


@dataclass
class _Reader:
    """Reads the lines of one reply. It knows the steps before each line, and the names that the model gave them."""

    steps: list[PlanStep]
    inputs: Collection[str]
    accepted: tuple[PlanStep, ...] = ()
    """The steps before the reply."""
    names: dict[str, str] = field(default_factory=dict)
    """Name of the model's own to the step that it means."""

    def read_line(self, text: str) -> tuple[str, bool]:
        """Returns a line in the notation, and whether it was understood; empty for a call of the same reply."""
        unclear = text
        for candidate in _spellings(text.strip()):
            if (line := _parse(candidate)) is not None:
                return self._add(line, candidate), True
            assigned = _ASSIGNED.match(candidate)
            if assigned is not None and _STEP.fullmatch(assigned[1]):
                continue
            call = candidate[assigned.end() :] if assigned is not None else candidate
            if _CALL.match(call) and (line := _parse(f"{self._next_name} = {call}")) is not None:
                assert isinstance(line, PlanStep)
                return self._add_named(line, assigned[1] if assigned is not None else ""), True
            if _CALL.match(call) and call.endswith((")", "]")):
                unclear = f"{self._next_name} = {call}"  # its rejection shows what is wrong in the call
        return unclear, False

    def read_json(self, rows: Sequence[Any]) -> Iterator[str]:
        """Yields the lines of a plan in JSON; none if it is not one."""
        if len(rows) == 1 and isinstance(rows[0], dict) and (key := _first_key(rows[0], LIST_KEYS, list)):
            answer = [rows[0][name] for name in ANSWER_KEYS if name in rows[0]]
            rows = rows[0][key]
        else:
            answer = []
        calls = [_read_call(row) for row in rows[:MAX_JSON_STEPS]]
        if not calls or len(rows) > MAX_JSON_STEPS or None in calls:
            return
        for capability, arguments, name in filter(None, calls):
            values_by_key = {key: self._read_value(value) for key, value in arguments.items()}
            line = _parse(str(PlanStep(self._next_name, capability, values_by_key)))
            if not isinstance(line, PlanStep):  # a name that the notation cannot express
                return
            if text := self._add_named(line, name):
                yield text
        values = answer[0] if answer and isinstance(answer[0], list) else answer[:1]
        list_values = [self._read_value(value) for value in values]
        if list_values and all(isinstance(value, PlanReference) for value in list_values):
            yield str(PlanAnswer(tuple(value for value in list_values if isinstance(value, PlanReference))))

    @property
    def _next_name(self) -> str:
        return f"s{len(self.steps) + 1}"

    def _add(self, line: PlanLine, text: str) -> str:
        """Records a line in the notation. It is returned as it is unless it reads a name of the model's own."""
        resolved_line = self._resolve(line)
        if isinstance(resolved_line, PlanStep):
            self.steps.append(resolved_line)
        return text if resolved_line == line else str(resolved_line)

    def _add_named(self, step: PlanStep, name: str) -> str:
        """Records a call without the name of a step, and returns its line; that of the step that makes the same call
        already, or an empty text if that step is of the same reply.
        """
        resolved_step = self._resolve(step)
        assert isinstance(resolved_step, PlanStep)
        equal_step = next(
            (plan_step for plan_step in self.steps if replace(resolved_step, name=plan_step.name) == plan_step), None
        )
        if name:
            self.names[name] = resolved_step.name if equal_step is None else equal_step.name
        if equal_step is not None:
            return str(equal_step) if equal_step in self.accepted else ""
        self.steps.append(resolved_step)
        return str(resolved_step)

    def _resolve(self, line: PlanLine) -> PlanLine:
        """Replaces the model's own names of results, and names of inputs without `input.`."""
        if isinstance(line, PlanAnswer):
            return PlanAnswer(tuple(map(self._resolve_reference, line.values)))
        arguments: dict[str, Argument] = {
            name: self._resolve_reference(value) if isinstance(value, PlanReference) else value
            for name, value in line.arguments.items()
        }
        list_value = self._resolve_reference(line.each) if isinstance(line.each, PlanReference) else line.each
        return replace(line, arguments=arguments, each=list_value)

    def _resolve_reference(self, value: PlanReference) -> PlanReference:
        if value.root in self.names:
            return PlanReference(self.names[value.root], value.path)
        if value.root in self.inputs and value.root not in (INPUT, ELEMENT) and not _STEP.fullmatch(value.root):
            return PlanReference(INPUT, (value.root, *value.path))
        return value

    def _read_value(self, value: Any) -> Argument:
        """Returns a value of JSON: a reference if it is a text that names an available value, else the value."""
        if isinstance(value, str):
            match = _PLACEHOLDER.fullmatch(value.strip())
            inner = next(filter(None, match.groups()), "") if match is not None else value.strip()
            line = _parse(f"return {inner}")
            if isinstance(line, PlanAnswer) and len(line.values) == 1:
                reference = self._resolve_reference(line.values[0])
                is_known = reference.root in {step.name for step in self.steps} or (
                    reference.root == INPUT and reference.path[:1] and reference.path[0] in self.inputs
                )
                if is_known and (match is not None or "." in inner or reference.root != INPUT):
                    return reference
        return PlanLiteral(value)


def _spellings(text: str) -> Iterator[str]:
    """Yields a line as it is, then without marks of lists and code, comments, and quotes of Python."""
    yield text
    bare = _LIST_MARK.sub("", text, count=1) if _LIST_MARK.match(text) else text
    bare = bare.strip("`").rstrip(";. \t")
    yield bare
    if (match := _RETURN_CALL.fullmatch(bare)) is not None:
        yield f"return {match[1]}"
    short = _COMMENT.sub("", bare, count=1)
    for shorter in dict.fromkeys((short, _QUOTED.sub(_double_quotes, bare), _QUOTED.sub(_double_quotes, short))):
        yield shorter.rstrip(";. \t")


def _double_quotes(match: re.Match[str]) -> str:
    """Returns a text in single quotes as JSON."""
    text = match[0]
    if text.startswith('"'):
        return text
    return json.dumps(re.sub(r"\\(['\"\\])", r"\1", text[1:-1]), ensure_ascii=False)


def _parse(text: str) -> PlanLine | None:
    try:
        return parse_line(text)
    except PlanSyntaxError:
        return None


def _parse_json(lines: Sequence[str]) -> list[Any] | None:
    """Returns the values of a text that is JSON, or of which each line is; None for another text."""
    if not lines or not lines[0].lstrip().startswith(("{", "[")):
        return None
    for texts in (["\n".join(lines)], lines):
        try:
            values = [parse_untrusted(text.strip().rstrip(",")) for text in texts]
        except StrictJsonError:
            continue
        return values[0] if len(values) == 1 and isinstance(values[0], list) else values
    return None


def _read_call(row: Any) -> tuple[str, Mapping[str, Any], str] | None:
    """Returns the capability, the arguments and the result's name of a call in JSON; None for another value."""
    if not isinstance(row, dict):
        return None
    if isinstance(row.get("function"), dict):
        row = row["function"]
    if len(row) == 1 and isinstance(next(iter(row.values())), dict):
        ((name, arguments),) = row.items()
        return name, arguments, ""
    if not (key := _first_key(row, NAME_KEYS, str)):
        return None
    result = next((row[name] for name in RESULT_KEYS if isinstance(row.get(name), str)), "")
    call_arguments = next((row[name] for name in ARGUMENT_KEYS if name in row), None)
    if isinstance(call_arguments, str):
        try:
            call_arguments = parse_untrusted(call_arguments)
        except StrictJsonError:
            return None
    if call_arguments is None:
        call_arguments = {name: value for name, value in row.items() if name != key and name not in RESULT_KEYS}
    return (row[key], call_arguments, result) if isinstance(call_arguments, dict) else None


def _first_key(row: Mapping[str, Any], keys: Sequence[str], kind: type) -> str:
    return next((key for key in keys if isinstance(row.get(key), kind)), "")
