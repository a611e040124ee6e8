"""Turns of an agent with tools: a plan of one step at a time, in which the model sees what each step gave before it writes the next.

Pure, as the planner is. A line is a call in the notation of plans, held by the grammar of exactly what may stand there, and judged by the
same gates; or the word `return`, upon which the agent is asked for its answer. What a call gave is shown in one line of JSON: whatever
stands in it can begin no line of its own, and so is never taken for what the model wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestra.agents.tool_prompt import AGAINST, GRAMMAR, STEPS, TOOLS, VALUES
from orchestra.router import prompt as prompt_module
from orchestra.router.capabilities import Offer, Scope
from orchestra.router.input_types import type_of
from orchestra.router.plan import Plan, declared, workflow
from orchestra.router.plan_grammar import turn_grammar
from orchestra.router.plan_syntax import Answer, Literal, Reference, Step, lines
from orchestra.router.validation import Rejection, judge, line_of
from orchestra.schema.types import Schema
from orchestra.workflows.expressions.parser import escaped
from orchestra.workflows.model import Graph

REASON = 400
"""Characters of a rejection that the model reads."""
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Ends of lines, for some reader or other; JSON lets some of them stand."""
_RETURN = re.compile(r"return\b")


def next_line(reply: str, offer: Offer, steps: Sequence[Step]) -> Step | tuple[Rejection, ...] | None:
    """The call that a model wrote behind these steps; None where it will answer now; or what is wrong with its line.

    Of several lines the first new one counts: what follows was written before the model could see what came of it.
    """
    said = {str(step) for step in steps}
    found = [line.strip() for line in lines(reply) if line.strip() and not line.lstrip().startswith("```")]
    line = next((line for line in found if line not in said), "")
    if not line:
        reason = "this line stands already" if found else "the line is empty"
        return (Rejection("R001", f"/steps/{len(steps) + 1}", reason, f"s{len(steps) + 1} = NAME(ARGUMENT=VALUE), or return"),)
    if _RETURN.match(line):
        return None
    read = line_of(line, len(steps) + 1)
    if isinstance(read, Rejection):
        return (read,)
    assert not isinstance(read, Answer), "a line that begins with return was taken for one"
    return tuple(judge(read, offer, steps)) or read


def question(name: str, node: str, agent: str, offer: Offer, told: Mapping[str, str], more: Mapping[str, Any], **values: Schema) -> Graph:
    """A question to an agent, as the workflow that it is: its own inputs and further `values` by reference, what it is `told` as texts.

    `more` are keys of its node.
    """
    known = {**offer.values, **values}
    inputs, types = declared(known)
    given = {key: f"${{input.{key}}}" for key in known if key != AGAINST}
    asked = {"agent": agent, "with": {**given, **{key: escaped(text) for key, text in told.items()}}, **more}
    said = {"schema": "orchestra/v1", "name": name, "input": inputs, "types": types, "nodes": {node: asked}, "output": f"${{{node}}}"}
    return Graph.model_validate(said, strict=False)


def prompt(offer: Offer, steps: Sequence[Step], values: Sequence[Any], rejected: Sequence[Rejection], shown: int) -> dict[str, str]:
    """What a model is told: what it may call and refer to, and its steps with what they gave."""
    said = {TOOLS: prompt_module.skills(offer.skills.values()), VALUES: prompt_module.values(offer.values)}
    return {**{key: text or "none" for key, text in said.items()}, STEPS: transcript(steps, values, rejected, shown)}


def grammar(offer: Offer, steps: Sequence[Step]) -> dict[str, str]:
    """The grammar of the next line, as it is told."""
    return {GRAMMAR: turn_grammar(offer, steps)}


def transcript(steps: Sequence[Step], values: Sequence[Any], rejected: Sequence[Rejection], shown: int) -> str:
    """The steps, a line each, and behind an arrow what came of it, of which at most `shown` characters; then what was not accepted."""
    made = [part for step, value in zip(steps, values, strict=True) for part in (str(step), f"-> {told(value, shown)}")]
    return "\n".join([*made, *(f"!! {_line(str(one), REASON)}" for one in rejected)])


def told(value: Any, most: int) -> str:
    """A value in one line of at most so many characters, and how many there were where they are more."""
    return _line(json.dumps(value, ensure_ascii=False), most)


def _line(text: str, most: int) -> str:
    line = _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\n", " "))
    return line if len(line) <= most else f"{line[:most]}… ({len(line):,} characters)"


def seen(offer: Offer, steps: Sequence[Step], values: Sequence[Any]) -> Offer:
    """The offer, with the types of steps whose skills do not say what they give, told by what they gave."""
    kinds = Scope(offer, steps).steps
    return replace(offer, known={step.name: type_of(value) for step, value in zip(steps, values, strict=True) if vague(kinds[step.name])})


def vague(kind: Mapping[str, Any]) -> bool:
    """Whether a type says nothing of a value, or of the elements of a list."""
    inner = kind.get("items", kind) if kind.get("type") == "array" else kind
    return not inner or not inner.keys() - {"title", "description", "$defs"}


def step_workflow(step: Step, offer: Offer, steps: Sequence[Step], name: str) -> Graph:
    """The workflow of one step: its inputs are the values that it reads, those of earlier steps among them."""
    kinds = Scope(offer, steps).steps
    alone = replace(
        step,
        arguments={key: value if isinstance(value, Literal) else _as_input(value, kinds) for key, value in step.arguments.items()},
        each=_as_input(step.each, kinds) if isinstance(step.each, Reference) else step.each,
        after=(),
    )
    return workflow(Plan((alone,), Answer((Reference(step.name),))), replace(offer, values={**offer.values, **kinds}), name)


def _as_input(reference: Reference, steps: Mapping[str, Any]) -> Reference:
    return Reference("input", (reference.root, *reference.path)) if reference.root in steps else reference
