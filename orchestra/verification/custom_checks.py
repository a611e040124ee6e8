"""A check of one's own: `tool(NAME)` asks a tool, which is plain Python of the user's, whether a value is right. Pure: the engine calls it.

The first parameter that the tool must be given gets the value, whatever it is called. Others get, by name, the inputs that the value was
made from, and `evidence` the texts that it is held against. It says

    True or False                                       it passes, or fails
    a number from 0 to 1                                a score, which passes from 0.5 on, as that of `entailment` does
    {"passed": true, "reason": "...", "score": 0.9}     either, with more words; `orchestra.Judgement` is such a record
    None                                                it cannot tell, which never passes

What it raises, or says otherwise, is `unknown`. A null value is an answer withheld: it passes, and is asked of nobody, unless the tool
takes null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.agents.contract import READING, Contract, Schema
from orchestra.agents.tool_prompt import put_in
from orchestra.core.events import Question, Verdict
from orchestra.core.protocols import Source
from orchestra.schema.assignability import assignable
from orchestra.schema.json_schema import branches, show, under
from orchestra.schema.types import Validator
from orchestra.verification.entailment import EVIDENCE, Reply
from orchestra.verification.verdict import FAIL, PASS, passed, unknown

TOOL = "tool"
ENOUGH = 0.5
"""The score from which a number passes."""
SAYING: Schema = {
    "anyOf": [
        {"type": "boolean"},
        {"type": "number"},
        {"type": "null"},
        {
            "type": "object",
            "properties": {
                "passed": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
                "reason": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            },
            "required": ["passed"],
        },
    ]
}
"""What a tool that is asked may return."""
_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
MAX_REASON = 300
"""Characters of a tool's reason that a verdict keeps."""


def own_inputs(producer: Contract, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a value was made from: the inputs of its producer, of those that were left out the defaults; without what is put in for an
    agent with tools, which its calls have written."""
    added = put_in(producer.input)
    return {name: value for name, value in {**producer.defaults, **given}.items() if name not in added}


def own_types(producer: Contract, given: Mapping[str, Schema]) -> dict[str, Schema]:
    """The types of the same, where `given` are those of what the node says."""
    fields, added = producer.input.get("properties", {}), put_in(producer.input)
    left_out = {name: under(producer.input, fields[name]) for name in producer.defaults}
    return {name: part for name, part in {**left_out, **given}.items() if name not in added}


def called(name: str) -> str:
    """How a check names its tool, and how the tool is found among a node's judges: no agent has such a name."""
    return f"{TOOL}({name})"


def asked(judge: str) -> str:
    """The name of the tool that is asked; empty where it is an agent."""
    return judge[len(TOOL) + 1 : -1] if judge.startswith(f"{TOOL}(") else ""


def compares(tool: Contract) -> bool:
    """Whether it is given the evidence."""
    return EVIDENCE in tool.input.get("properties", {}) and parameter(tool) != EVIDENCE


def parameter(tool: Contract) -> str:
    """The input that gets the value: the first that must be given; empty where none must."""
    return next(iter(tool.input.get("required", ())), "")


def misfit(tool: Contract, output: Schema | None = None, inputs: Mapping[str, Schema] | None = None) -> str:
    """Why a tool cannot judge values of a type that were made from such inputs; empty where it can. Either is None where nobody knows it.

    An output that may be null is held against the tool without it.
    """
    if tool.effect not in READING:
        return f"its effect is {tool.effect!r}, and a check may be asked more than once; pure and idempotent tools can be asked"
    first, wanted = parameter(tool), tool.input.get("properties", {})
    if not first:
        return "no parameter of it must be given, and the first of these gets the value"
    if first == EVIDENCE:
        return f"its first parameter gets the value, and is called {EVIDENCE!r}"
    if assignable(tool.output, SAYING):
        return f"it returns {show(tool.output)}, and a check is told a bool, a float, a Judgement or None"
    for part in _filled(output) if output is not None else ():
        if why := assignable(part, under(tool.input, wanted[first])):
            return f"{first}: {why}"
    for name, schema in wanted.items():
        if name == first:
            continue
        if name == EVIDENCE and (inputs is None or name not in inputs):
            if _evidence(tool, ()) is None:
                return f"{name}: it takes the texts as `str` or `list[str]`"
        elif inputs is not None and name in inputs:
            if why := assignable(inputs[name], under(tool.input, schema)):
                return f"{name}: {why}"
        elif inputs is not None and name in tool.input.get("required", ()):
            return f"it wants {name!r}, and there is no such input here"
    return ""


def _filled(output: Schema) -> list[Schema]:
    return [part for part in branches(output) if part.get("type") != "null"]


def question(tool: Contract, value: Any, given: Mapping[str, Any], sources: Sequence[Source]) -> tuple[Question, ...] | Verdict:
    """What the tool is asked of a value; or the verdict, where there is nothing to ask, or something is missing that it wants."""
    first, wanted = parameter(tool), tool.input.get("properties", {})
    if not first:
        return unknown(TOOL, f"{tool.name} has no parameter for the value")
    if value is None and Validator(under(tool.input, wanted[first])).check(None) is not None:
        return passed(TOOL, "there is no answer")
    inputs = {name: given[name] for name in wanted if name in given and name != first}
    if EVIDENCE in wanted and EVIDENCE not in inputs and first != EVIDENCE and (texts := _evidence(tool, sources)) is not None:
        inputs[EVIDENCE] = texts
    missing = next((name for name in tool.input.get("required", ()) if name != first and name not in inputs), None)
    if missing is not None:
        return unknown(TOOL, f"{tool.name} wants the input {missing!r}, and there is none")
    return (Question(called(tool.name), {first: value, **inputs}),)


def _evidence(tool: Contract, sources: Sequence[Source]) -> str | list[str] | None:
    """The texts as the tool takes them; None where it takes neither."""
    schema = under(tool.input, tool.input["properties"][EVIDENCE])
    texts = [source.text for source in sources]
    if assignable(_STRINGS, schema) is None:
        return texts
    return "\n\n".join(texts) if assignable(_STRING, schema) is None else None


def said(replies: Sequence[Reply]) -> Verdict:
    """The verdict of what the tool has said."""
    if len(replies) != 1 or replies[0].fault:
        return unknown(TOOL, replies[0].fault if replies else "nobody answered")
    match replies[0].value:
        case None:
            return unknown(TOOL, "it cannot tell")
        case bool() as good:
            return _verdict(good)
        case int() | float() as score:
            return _verdict(score >= ENOUGH, score)
        case {"passed": bool() | None as good} as record:
            reason, score = record.get("reason"), record.get("score")
            told = " ".join(reason[: 4 * MAX_REASON].split())[:MAX_REASON] if isinstance(reason, str) else ""
            if good is None:
                return unknown(TOOL, told or "it cannot tell")
            return _verdict(good, score if isinstance(score, int | float) and not isinstance(score, bool) else None, told)
        case other:
            return unknown(TOOL, f"it said neither yes nor no, but a {type(other).__name__}")


def _verdict(good: bool, score: float | None = None, reason: str = "") -> Verdict:
    if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
        return unknown(TOOL, f"a score of {score!r} is not in [0, 1]")
    if not good:
        return Verdict(TOOL, FAIL, 0.0, reason or ("it says no" if score is None else f"a score of {score:g} is under {ENOUGH:g}"))
    return Verdict(TOOL, PASS, 1.0 if score is None else float(score), reason)
