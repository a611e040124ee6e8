"""Turns of an agent with tools: a plan of one step at a time, in which the model sees the result of each step before it
writes the next.

Pure, as the planner is. A line is a call in plan notation, decoded under the grammar of exactly the valid lines and
validated in the same way, or the word `return`, after which the agent is asked for its answer. The result of a call is
shown as one line of JSON. It cannot begin a line of its own, so it is never mistaken for text of the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestra.agents.tool_prompt import AGAINST, FUNCTIONS, GRAMMAR, STEPS, TOOLS, VALUES
from orchestra.router import prompt as prompt_module
from orchestra.router.capabilities import Capabilities, PlanScope
from orchestra.router.function_schemas import build_functions
from orchestra.router.input_types import infer_schema
from orchestra.router.plan import Plan, declare_inputs, to_workflow
from orchestra.router.plan_grammar import turn_grammar
from orchestra.router.plan_syntax import PlanAnswer, PlanLiteral, PlanReference, PlanStep, split_lines
from orchestra.router.validation import Rejection, parse_or_reject, validate_line
from orchestra.schema.types import Schema
from orchestra.workflows.expressions.parser import escape_references
from orchestra.workflows.model import Graph

MAX_REASON_LENGTH = 400
"""Maximum characters of a rejection in the prompt."""
_LINE_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Line separators of some reader. JSON allows some of them in strings."""
_RETURN = re.compile(r"return\b")


def parse_next_line(
    reply: str, capabilities: Capabilities, steps: Sequence[PlanStep]
) -> PlanStep | tuple[Rejection, ...] | None:
    """Parses the call that a model wrote after these steps.

    Of several lines only the first new one counts, because the model wrote the others before it saw the result.

    Returns:
        The call, None for `return`, or why the line is rejected.
    """
    earlier = {str(step) for step in steps}
    lines = [line.strip() for line in split_lines(reply) if line.strip() and not line.lstrip().startswith("```")]
    line = next((line for line in lines if line not in earlier), "")
    if not line:
        reason = "this line was already written" if lines else "the line is empty"
        return (
            Rejection(
                "R001", f"/steps/{len(steps) + 1}", reason, f"s{len(steps) + 1} = NAME(ARGUMENT=VALUE), or return"
            ),
        )
    if _RETURN.match(line):
        return None
    parsed_line = parse_or_reject(line, len(steps) + 1)
    if isinstance(parsed_line, Rejection):
        return (parsed_line,)
    assert not isinstance(parsed_line, PlanAnswer), "a line that begins with return was taken for one"
    return tuple(validate_line(parsed_line, capabilities, steps)) or parsed_line


def question_workflow(
    name: str,
    node: str,
    agent: str,
    capabilities: Capabilities,
    texts: Mapping[str, str],
    node_options: Mapping[str, Any],
    **values: Schema,
) -> Graph:
    """Builds the workflow of a question to an agent: its own inputs and further `values` by reference, and `texts` as
    literal texts.

    Args:
        node_options: Keys of its node.
    """
    input_types = {**capabilities.inputs, **values}
    inputs, types = declare_inputs(input_types)
    references = {key: f"${{input.{key}}}" for key in input_types if key != AGAINST}
    ask_node = {
        "agent": agent,
        "with": {**references, **{key: escape_references(text) for key, text in texts.items()}},
        **node_options,
    }
    source = {
        "schema": "orchestra/v1",
        "name": name,
        "input": inputs,
        "types": types,
        "nodes": {node: ask_node},
        "output": f"${{{node}}}",
    }
    return Graph.model_validate(source, strict=False)


def build_prompt(
    capabilities: Capabilities,
    steps: Sequence[PlanStep],
    values: Sequence[Any],
    rejected: Sequence[Rejection],
    max_length: int,
) -> dict[str, str]:
    """Builds the prompt: what the model may call and reference, and its steps with their results."""
    sections = {
        TOOLS: prompt_module.capability_lines(capabilities.by_name.values()),
        VALUES: prompt_module.value_lines(capabilities.inputs),
    }
    return {
        **{key: text or "none" for key, text in sections.items()},
        STEPS: transcript(steps, values, rejected, max_length),
    }


def build_grammar(capabilities: Capabilities, steps: Sequence[PlanStep]) -> dict[str, str]:
    """Builds the grammar of the next line."""
    return {GRAMMAR: turn_grammar(capabilities, steps)}


def encode_functions(capabilities: Capabilities, steps: Sequence[PlanStep]) -> dict[str, str]:
    """Encodes what the next line may call, for servers with native function calling; nothing if it is too long."""
    text = build_functions(capabilities, steps).encode()
    return {FUNCTIONS: text} if text else {}


def transcript(steps: Sequence[PlanStep], values: Sequence[Any], rejected: Sequence[Rejection], max_length: int) -> str:
    """Formats the steps, one per line, each with its result after an arrow, truncated to `max_length` characters; then
    the rejections.
    """
    lines = [
        part
        for step, value in zip(steps, values, strict=True)
        for part in (str(step), f"-> {format_value(value, max_length)}")
    ]
    return "\n".join([*lines, *(f"!! {_single_line(str(rejection), MAX_REASON_LENGTH)}" for rejection in rejected)])


def format_value(value: Any, max_length: int) -> str:
    """Formats a value on one line of at most this many characters, with its full length if it is truncated."""
    return _single_line(json.dumps(value, ensure_ascii=False), max_length)


def _single_line(text: str, max_length: int) -> str:
    line = _LINE_BREAKS.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\n", " "))
    return line if len(line) <= max_length else f"{line[:max_length]}… ({len(line):,} characters)"


def with_observed_types(capabilities: Capabilities, steps: Sequence[PlanStep], values: Sequence[Any]) -> Capabilities:
    """Returns capabilities with the types of completed steps whose capabilities do not declare an output type."""
    kinds = PlanScope(capabilities, steps).steps
    return replace(
        capabilities,
        observed_types={
            step.name: infer_schema(value)
            for step, value in zip(steps, values, strict=True)
            if is_untyped(kinds[step.name])
        },
    )


def is_untyped(kind: Mapping[str, Any]) -> bool:
    """Whether a type places no restriction on a value, or on the elements of a list."""
    inner = kind.get("items", kind) if kind.get("type") == "array" else kind
    return not inner or not inner.keys() - {"title", "description", "$defs"}


def step_workflow(step: PlanStep, capabilities: Capabilities, steps: Sequence[PlanStep], name: str) -> Graph:
    """Builds the workflow of one step. Its inputs are the values that it reads, also those of earlier steps."""
    kinds = PlanScope(capabilities, steps).steps
    alone = replace(
        step,
        arguments={
            key: value if isinstance(value, PlanLiteral) else _as_input(value, kinds)
            for key, value in step.arguments.items()
        },
        each=_as_input(step.each, kinds) if isinstance(step.each, PlanReference) else step.each,
        after=(),
    )
    return to_workflow(
        Plan((alone,), PlanAnswer((PlanReference(step.name),))),
        replace(capabilities, inputs={**capabilities.inputs, **kinds}),
        name,
    )


def _as_input(reference: PlanReference, steps: Mapping[str, Any]) -> PlanReference:
    return PlanReference("input", (reference.root, *reference.path)) if reference.root in steps else reference
