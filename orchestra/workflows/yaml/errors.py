"""Misfits: what pydantic finds in a workflow file, at its place and in our words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_yaml import ValuePath, YamlDocument
from orchestra.schema.validator import format_value
from orchestra.workflows import model
from orchestra.workflows.model import NODE_KINDS

_EXPECTED_BY_KIND = {
    "string_type": "a text",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "finite_number": "a finite number",
    "greater_than": "greater than {gt:,.10g}",
    "greater_than_equal": "at least {ge:,.10g}",
    "less_than": "less than {lt:,.10g}",
    "less_than_equal": "at most {le:,.10g}",
}
"""What a value must be, by the kind of pydantic's finding."""
_EXPECTED_BY_KEY = {
    "score": "`combined`, or left out",
    "at_least": "`all`, or a number from 1 to 10,000",
    "accept": "`certified`, or a score in [0, 1]",
    "agent": "the name of an agent, or a choice with `by` and `of`",
    "call": "the name of a workflow, or a block with `nodes` and `output`",
    "when": "a text with a reference",
    "escalate": "a text with a reference",
    "each": "a text with a reference",
    "until": "a text with a reference",
}
"""What a value must be, by its key."""
_EXAMPLES = {
    "retry": "retry: 3, or retry: {attempts: 3, wait: [0.5, 8], within: 60}; at most 10 attempts",
    "attempts": "at most 10 attempts",
    "wait": "wait: [0.5, 8], in seconds, each at most 3,600",
    "timeout": "timeout: 30, in seconds, at most 86,400; of an `ask` node 31,622,400, which are 366 days",
    "otherwise": "otherwise: [retry, escalate, ask, abstain]",
    "score": "score: combined",
    "accept": "accept: 0.5",
    "limit": "limit: 100, at most 10,000",
    "concurrency": "concurrency: 8",
    "at_least": "at_least: all, or at_least: 3",
    "at_most": "at_most: 5, at most 100",
    "budget": "budget: {tokens: 20000, seconds: 60}",
    "tokens": "budget: {tokens: 20000}",
    "seconds": "budget: {seconds: 60}, at most 86,400",
    "calls": "budget: {calls: 100}",
    "money": "budget: {money: 0.5}",
    "check_tokens": "budget: {check_tokens: 2000}",
    "label": "label: public, internal or restricted",
    "when": "when: ${condition}",
    "escalate": "escalate: ${condition}",
    "until": "until: ${condition}",
    "each": "each: ${list}",
    "with": 'with: {question: "${input.question}"}',
    "agent": "agent: reader, or agent: {by: ${label}, of: {label: reader}, otherwise: writer}",
    "call": "call: my_workflow",
    "first_of": 'first_of: ["${a}", "${b}", nothing found]',
    "after": "after: [node]",
    "checks": "checks: [quote]",
    "input": "input: {question: str}",
    "types": "types: {Invoice: {number: str, total: float}}",
}
_NESTED_MODELS: dict[str, type[BaseModel]] = {
    "budget": model.Budget,
    "retry": model.Retry,
    "limits": model.PlanLimits,
    "defaults": model.Defaults,
}


def validation_errors(error: ValidationError, marked: YamlDocument) -> Iterator[InputError]:
    """The faults, in the order in which pydantic found them."""
    for entry in error.errors(include_url=False, include_context=True):
        path, name_fault = _key_path(entry["loc"], marked.value)
        # A call is a name or a block, and pydantic says of each why it is not that.
        if path[-1:] == ("call",) and entry["type"] == "string_type" and isinstance(entry["input"], dict):
            continue
        yield _to_input_error(entry, path, name_fault, marked)


def _to_input_error(entry: ErrorDetails, path: ValuePath, name_fault: bool, marked: YamlDocument) -> InputError:
    kind, given = str(entry["type"]), entry["input"]
    last = next((step for step in reversed(path) if isinstance(step, str)), "")
    said = _describe_path(path)
    place = marked.location(path, key=name_fault)
    if name_fault or (kind in ("string_pattern_mismatch", "string_too_long") and last in ("name", "as", "after")):
        named = path[-1] if name_fault else given
        hint = "names match [a-z][a-z0-9_]*, at most 64 characters"
        return InputError("L105", f"{format_value(named)} is not a name", location=place, hint=hint)
    if kind == "extra_forbidden":
        known = (
            [info.alias or name for name, info in _NESTED_MODELS[str(path[-2])].model_fields.items()]
            if str(path[-2]) in _NESTED_MODELS
            else []
        )
        near = closest_match(str(last), known)
        hint = f"did you mean {near!r}?" if near else f"keys here: {', '.join(known)}"
        return InputError(
            "L101", f"`{path[-2]}`: there is no key {last!r}", location=marked.location(path, key=True), hint=hint
        )
    hint = _EXAMPLES.get(last, "")
    if kind == "too_short":
        return InputError("L103", f"{said} must not be empty", location=place, hint=hint)
    if kind in ("missing", "too_long") and last == "wait":
        return InputError("L103", f"{said} must be two numbers", location=place, hint=hint)
    context = entry.get("ctx", {})
    bound = kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
    if kind == "literal_error":
        form = str(context.get("expected", "")).replace("'", "")
    else:
        form = (
            _EXPECTED_BY_KIND[kind].format(**context)
            if kind in _EXPECTED_BY_KIND
            else str(entry["msg"]).removeprefix("Input should be ")
        )
    form = _EXPECTED_BY_KEY.get(last, form) if not bound or last in ("accept", "at_least") else form
    return InputError("L103", f"{said} must be {form}, got {_describe_value(given)}", location=place, hint=hint)


def _describe_value(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else format_value(value)


def _describe_path(path: ValuePath) -> str:
    """A path in words: of which node, and of which of its keys."""
    names = [str(path[number + 1]) for number, step in enumerate(path[:-1]) if step == "nodes"]
    if path[:1] != ("nodes",) or not names or len(path) < 3:
        return f"`{'.'.join(str(step) for step in path)}`" if path else "the workflow"
    at = max(number for number, step in enumerate(path[:-1]) if step == "nodes") + 2
    rest = ".".join(str(step) for step in path[at:])
    return f"`{rest}` of the node {names[-1]!r}" if rest else f"the node {names[-1]!r}"


def _key_path(location: tuple[Any, ...], here: Any) -> tuple[ValuePath, bool]:
    """The keys of a location, without the tags that pydantic puts among them; and whether the fault is in the last key itself."""
    path: list[str | int] = []
    tagged = False
    for step in location:
        if not tagged and step in NODE_KINDS and path[-2:-1] == ["nodes"]:
            tagged = True
            continue
        tagged = False
        if step == "[key]":
            return tuple(path), True
        if (isinstance(here, dict) and step in here) or (
            isinstance(here, list) and isinstance(step, int) and step < len(here)
        ):
            path.append(step)
            here = here[step]
    return tuple(path), False
