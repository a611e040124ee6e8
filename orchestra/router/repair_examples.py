"""Examples in rejections: the line that the model wrote, and a valid call of the same capability with available values.

A small model copies an example more reliably than it follows a rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import shorten
from orchestra.router.capabilities import Capabilities, Capability, PlanScope
from orchestra.router.plan_syntax import INPUT, Argument, PlanLine, PlanLiteral, PlanReference, PlanStep
from orchestra.router.validation import Rejection, validate_line
from orchestra.schema.types import Schema

EXPLAINED_CODES = frozenset({"R001", "R002", "R003", "R004", "R005"})
"""Codes of lines that are malformed, or name what does not exist. Others are refused for what they do."""
MAX_SHOWN_LINE = 160
_CALLED = re.compile(r"([A-Za-z_][\w.:/-]*)\s*\(")


def with_example(
    rejections: Sequence[Rejection], text: str, line: PlanLine | None, capabilities: Capabilities,
    steps: Sequence[PlanStep],
) -> tuple[Rejection, ...]:  # fmt: skip
    """Adds the rejected line and a corrected one to the first rejection, if a valid call can be made of it.

    Args:
        rejections: The rejections of the line.
        text: The line as it was written.
        line: The line, if it could be parsed.
        capabilities: What a plan may consist of.
        steps: The accepted steps.
    """
    first = rejections[0]
    if first.code not in EXPLAINED_CODES or first.path == "/answer":
        return tuple(rejections)
    example = corrected_call(text, line, capabilities, steps)
    if example is None:
        return tuple(rejections)
    line_text = "" if first.code == "R001" else f"in {shorten(text.strip(), MAX_SHOWN_LINE)!r}; "
    hint = f"{first.hint}; " if first.hint and first.code != "R001" else ""
    return (replace(first, hint=f"{hint}{line_text}write for example: {example}"), *rejections[1:])


def corrected_call(
    text: str, line: PlanLine | None, capabilities: Capabilities, steps: Sequence[PlanStep]
) -> PlanStep | None:
    """Returns a valid call of the capability that a line names; None if there is none, or if it has effects."""
    capability = _named_capability(text, line, capabilities)
    if capability is None or capability.has_effects:
        return None
    arguments = dict(line.arguments) if isinstance(line, PlanStep) and line.each is None else {}
    references = {name: value for name, value in arguments.items() if isinstance(value, PlanReference)}
    for sources in (arguments, references):
        step = _fill_call(capability, sources, PlanScope(capabilities, steps), f"s{len(steps) + 1}")
        if step is not None and not validate_line(step, capabilities, steps):
            return step
    return None


def _fill_call(
    capability: Capability, known_arguments: Mapping[str, Argument], scope: PlanScope, name: str
) -> PlanStep | None:
    """Returns a call with the written arguments that fit, and available values for the other required ones."""
    arguments: dict[str, Argument] = {}
    for argument, kind in capability.fields.items():
        value = known_arguments.get(argument)
        if isinstance(value, PlanLiteral) or (value is not None and _fits(value, kind, scope)):
            arguments[argument] = value
        elif argument in capability.required:
            root = value.root if isinstance(value, PlanReference) else ""
            fitting = [
                plan_reference for plan_reference, _ in scope.available_values() if _fits(plan_reference, kind, scope)
            ]
            if not fitting:
                return None
            arguments[argument] = min(
                fitting,
                key=lambda reference: (
                    reference.root != root,
                    reference in arguments.values(),
                    reference.path[-1:] != (argument,)
                    and (reference.root == INPUT or reference.path[-1:] != ("text",)),
                ),
            )
    return PlanStep(name, capability.name, arguments)


def _named_capability(text: str, line: PlanLine | None, capabilities: Capabilities) -> Capability | None:
    """Returns the capability of a line, or the one with the most similar name."""
    names = [line.capability] if isinstance(line, PlanStep) else _CALLED.findall(text)
    words = [*names, *re.findall(r"[A-Za-z_][\w.:/-]*", text)]
    for word in words:
        if word in capabilities.by_name:
            return capabilities.by_name[word]
    near = next(filter(None, (closest_match(word, capabilities.by_name) for word in names)), None)
    return None if near is None else capabilities.by_name[near]


def _fits(value: PlanReference, kind: Schema, scope: PlanScope) -> bool:
    value_kind = scope.type_of(value)
    return not isinstance(value_kind, str) and scope.capabilities.assignability.mismatch(value_kind, kind) is None
