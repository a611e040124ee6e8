"""User-defined checks: `tool(NAME)` calls a tool, plain Python of the user, to judge a value. Pure: the engine makes
the call.

The first required parameter of the tool receives the value, under any name. Other parameters receive the producer's
inputs by name, and `evidence` receives the texts of the evidence. The tool returns

    True or False                                       pass or fail
    a number from 0 to 1                                a score, which passes from 0.5 on, as that of `entailment` does
    {"passed": true, "reason": "...", "score": 0.9}     either of these with a reason; `orchestra.Judgement` is such a
    record None                                                undetermined, which never passes

An exception or another return value is `unknown`. A null value (an abstention) passes without a call, unless the tool
accepts null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.agents.contract import SAFE_EFFECTS, Contract, Schema
from orchestra.agents.tool_prompt import injected_names
from orchestra.core.events import CheckQuestion, Verdict
from orchestra.core.protocols import EvidenceSource
from orchestra.schema.assignability import assignability_error
from orchestra.schema.json_schema import format_type, subschema, union_members
from orchestra.schema.types import Validator
from orchestra.verification.entailment import EVIDENCE, JudgeReply
from orchestra.verification.verdict import FAIL, PASS, passed, unknown

TOOL = "tool"
PASS_THRESHOLD = 0.5
"""Score from which a number passes."""
RESULT_SCHEMA: Schema = {
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
"""JSON Schema of what a tool may return."""
_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
MAX_REASON = 300
"""Characters of a tool's reason that a verdict keeps."""


def producer_inputs(producer: Contract, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inputs of a value: those of its producer with defaults, without those that a tool loop injects."""
    added = injected_names(producer.input)
    return {name: value for name, value in {**producer.defaults, **given}.items() if name not in added}


def producer_types(producer: Contract, given: Mapping[str, Schema]) -> dict[str, Schema]:
    """Returns the types of `producer_inputs`. `given` has the types that the node states."""
    fields, added = producer.input.get("properties", {}), injected_names(producer.input)
    left_out = {name: subschema(producer.input, fields[name]) for name in producer.defaults}
    return {name: part for name, part in {**left_out, **given}.items() if name not in added}


def tool_reference(name: str) -> str:
    """Name of a tool among the judges of a node. No agent has such a name."""
    return f"{TOOL}({name})"


def tool_name(judge: str) -> str:
    """Name of the tool in a judge name; empty for an agent."""
    return judge[len(TOOL) + 1 : -1] if judge.startswith(f"{TOOL}(") else ""


def takes_evidence(tool: Contract) -> bool:
    """Whether the tool has a parameter for the evidence."""
    return EVIDENCE in tool.input.get("properties", {}) and value_parameter(tool) != EVIDENCE


def value_parameter(tool: Contract) -> str:
    """Name of the parameter for the value: the first required one; empty if there is none."""
    return next(iter(tool.input.get("required", ())), "")


def signature_error(tool: Contract, output: Schema | None = None, inputs: Mapping[str, Schema] | None = None) -> str:
    """Returns why a tool cannot judge values of a type that were made from these inputs; empty if it can.

    `None` as a type means an unknown type. A nullable output is compared without null.
    """
    if tool.effect not in SAFE_EFFECTS:
        return f"its effect is {tool.effect!r}, and a check may call it more than once; use a pure or idempotent tool"
    first, wanted = value_parameter(tool), tool.input.get("properties", {})
    if not first:
        return "it has no required parameter, and the first one receives the value"
    if first == EVIDENCE:
        return f"its first required parameter receives the value, and is named {EVIDENCE!r}"
    if assignability_error(tool.output, RESULT_SCHEMA):
        return f"it returns {format_type(tool.output)}, not a bool, a float, a Judgement or None"
    for part in _non_null_branches(output) if output is not None else ():
        if why := assignability_error(part, subschema(tool.input, wanted[first])):
            return f"{first}: {why}"
    for name, schema in wanted.items():
        if name == first:
            continue
        if name == EVIDENCE and (inputs is None or name not in inputs):
            if _evidence_argument(tool, ()) is None:
                return f"{name}: the evidence is passed as `str` or `list[str]`"
        elif inputs is not None and name in inputs:
            if why := assignability_error(inputs[name], subschema(tool.input, schema)):
                return f"{name}: {why}"
        elif inputs is not None and name in tool.input.get("required", ()):
            return f"it requires {name!r}, which is no input here"
    return ""


def _non_null_branches(output: Schema) -> list[Schema]:
    return [part for part in union_members(output) if part.get("type") != "null"]


def build_questions(
    tool: Contract, value: Any, given: Mapping[str, Any], sources: Sequence[EvidenceSource]
) -> tuple[CheckQuestion, ...] | Verdict:
    """Returns the question to the tool, or a verdict if there is nothing to ask or an input is missing."""
    first, wanted = value_parameter(tool), tool.input.get("properties", {})
    if not first:
        return unknown(TOOL, f"{tool.name} has no parameter for the value")
    if value is None and Validator(subschema(tool.input, wanted[first])).check(None) is not None:
        return passed(TOOL, "there is no answer")
    inputs = {name: given[name] for name in wanted if name in given and name != first}
    if (
        EVIDENCE in wanted
        and EVIDENCE not in inputs
        and first != EVIDENCE
        and (texts := _evidence_argument(tool, sources)) is not None
    ):
        inputs[EVIDENCE] = texts
    missing = next((name for name in tool.input.get("required", ()) if name != first and name not in inputs), None)
    if missing is not None:
        return unknown(TOOL, f"{tool.name} requires the input {missing!r}, which is missing")
    return (CheckQuestion(tool_reference(tool.name), {first: value, **inputs}),)


def _evidence_argument(tool: Contract, sources: Sequence[EvidenceSource]) -> str | list[str] | None:
    """The evidence in the form that the tool accepts; None if it accepts neither form."""
    schema = subschema(tool.input, tool.input["properties"][EVIDENCE])
    texts = [source.text for source in sources]
    if assignability_error(_STRINGS, schema) is None:
        return texts
    return "\n\n".join(texts) if assignability_error(_STRING, schema) is None else None


def judge_replies(replies: Sequence[JudgeReply]) -> Verdict:
    """Returns the verdict for the tool's reply."""
    if len(replies) != 1 or replies[0].error:
        return unknown(TOOL, replies[0].error if replies else "no reply")
    match replies[0].value:
        case None:
            return unknown(TOOL, "it cannot tell")
        case bool() as good:
            return _score_verdict(good)
        case int() | float() as score:
            return _score_verdict(score >= PASS_THRESHOLD, score)
        case {"passed": bool() | None as good} as record:
            reason, score = record.get("reason"), record.get("score")
            text = " ".join(reason[: 4 * MAX_REASON].split())[:MAX_REASON] if isinstance(reason, str) else ""
            if good is None:
                return unknown(TOOL, text or "it cannot tell")
            return _score_verdict(
                good, score if isinstance(score, int | float) and not isinstance(score, bool) else None, text
            )
        case other:
            return unknown(TOOL, f"it returned no verdict, but a {type(other).__name__}")


def _score_verdict(good: bool, score: float | None = None, reason: str = "") -> Verdict:
    if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
        return unknown(TOOL, f"a score of {score!r} is not in [0, 1]")
    if not good:
        return Verdict(
            TOOL,
            FAIL,
            0.0,
            reason or ("it returned False" if score is None else f"a score of {score:g} is under {PASS_THRESHOLD:g}"),
        )
    return Verdict(TOOL, PASS, 1.0 if score is None else float(score), reason)
