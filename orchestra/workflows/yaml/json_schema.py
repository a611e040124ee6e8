"""The JSON Schema of workflow files for editors: the allowed keys and values, with descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra.workflows.model import NODE_KINDS, Graph

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_LIST_KEYS = ("after", "checks", "otherwise", "agents", "tools", "workflows", "options", "hearsay")
"""Keys of a node whose list may be written as its only element."""
_DEPENDENT_KEYS = {
    "each": ["as"],
    "as": ["each"],
    "limit": ["each"],
    "concurrency": ["each"],
    "at_least": ["each"],
    "against": ["checks"],
    "score": ["checks"],
}
"""Keys of a node, and the keys that they require."""

_DESCRIPTIONS = {
    "schema": "The version of the language: `orchestra/v1`.",
    "name": "The workflow's name: lower-case letters, digits and `_`.",
    "description": "The purpose, for people and for the router.",
    "input": "Names and types: `{question: str, documents: 'list[Document]'}`.",
    "types": "Records of this workflow, by name: JSON Schemas.",
    "output": "The output of the run: a reference such as `${answer}`, or a list or a mapping of references.",
    "budget": "Limits of a run: `{tokens: 20000, seconds: 60, calls: 100, money: 0.5}`.",
    "defaults": "`retry` and `timeout` for the nodes that do not set them.",
    "label": "The confidentiality of the inputs.",
    "nodes": "The steps, by name. References between them are the edges; the order in the file is irrelevant.",
    "with": "The inputs of the callee; texts may contain `${references}`.",
    "when": "A condition: the node is skipped if it is false. `${kind.label == 'math'}`",
    "each": "A list: the node runs once for each element, which `as` names.",
    "as": "The name of one element of `each`.",
    "limit": "The maximum number of elements.",
    "concurrency": "The maximum number of elements at once.",
    "at_least": "Elements that must have a value: `all`, or a number. By default failed elements are left out.",
    "after": "Nodes that must have ended first, although their values are not used.",
    "retry": "The maximum number of attempts: `3`, or `{attempts: 3, wait: [0.5, 8], within: 60}` with seconds.",
    "within": "Seconds after the start of the first attempt until which others are planned.",
    "timeout": "The time limit of an attempt in seconds.",
    "fallback": "The value if the node has none: a reference or a literal.",
    "checks": "Checks that the value must pass: `[quote, numbers, entailment]`; `quote | entailment` for one of them.",
    "against": "The evidence that the checks compare the value with.",
    "score": "How the scores are combined: `combined` as fitted by `orchestra learn combine`; by default the lowest.",
    "accept": "A score from 0 to 1, or `certified`.",
    "otherwise": "Actions on a refused value, in order: `[retry, escalate, ask, abstain]`, or `[back_off, abstain]`.",
    "agent": "The agent, or a choice by a label: `{by: ${intent.intent}, of: {lost: desk}, otherwise: general}`.",
    "escalate": "A condition: if it holds, the fleet's larger model is called at once. `${difficulty.need > 0.4}`",
    "tool": "The name of the tool.",
    "call": "The name of a workflow, or a block: `{nodes: {...}, output: ${...}}`.",
    "first_of": "Arms in order of preference: the first one with a value is taken. `['${a}', '${b}', 'none']`",
    "loop": "A block and its end condition: `{at_most: 5, until: ${...}, nodes: {...}, output: ${...}}`.",
    "plan": "The goal of the plan.",
    "verify": "The value to check, with `checks` and `against`.",
    "ask": "The question to a person.",
    "agents": "The agents that the plan may use.",
    "tools": "The tools that the plan may use; for an agent, the permitted tools with effects from its card.",
    "workflows": "The workflows that the plan may use, with their effects.",
    "returns": "The type of the value: `str`, `list[Fact]`, ...; of a plan also `anything`.",
    "options": "The answers that the person chooses from.",
    "limits": "Limits of the size of the plan: `{steps: 8, width: 4}`.",
    "repairs": "How often a refused line of the plan is returned to the router.",
    "replans": "How many further plans may follow one with a failed step.",
    "streaming": "Whether steps without effects start while the plan is still being written.",
    "router": "The planning agent; `router` by default.",
    "larger": "The planning agent after the router's repairs are used up; it continues from the accepted lines.",
    "votes": "How many plans are sampled; the plan with the most votes runs. From 1 to 16.",
    "cache": "Whether an earlier plan may be reused; `false` calls the router each time.",
    "stepwise": "Whether the router writes the plan line by line; `false` requests the whole plan at once.",
    "copied": "Whether literal texts of the plan must be parts of its goal.",
    "literals": "Whether calls with effects may be given texts and numbers that are not in the goal.",
    "confirm": "Whether a person is asked before the plan makes calls with effects.",
    "grounded": "Whether the first step of the plan reads a value of `with` besides its goal, if a capability can.",
    "each_part": "Whether each part of a goal with several parts (`...? Also: ...`) gets a step.",
    "rules": "Whether a goal of a known kind is planned by rule, without a planning agent.",
    "hearsay": "Values of `with` with untrusted text, such as a mail. They cannot be arguments of tools with effects.",
    "anyway": "Whether the feasible part is planned even if the router finds that no capability serves the goal.",
    "shortlist": "The maximum number of capabilities that the router sees: those that the goal is likely to need.",
    "at_most": "The maximum number of turns.",
    "until": "The condition that ends the loop; it may read `turn` and the nodes of the block.",
    "type": "`str`, `int`, `float`, `bool`, `list[T]`, `dict[str, T]`, `T | null`, `Literal['a', 'b']`, or a record.",
    "default": "The default value, which makes the input optional.",
    "optional": "Whether the input may be left out; it is null then.",
    "attempts": "The maximum number of attempts.",
    "wait": "Seconds before the second attempt, and the maximum; the wait grows exponentially.",
    "tokens": "Tokens of prompts and outputs.",
    "seconds": "Active wall-clock time.",
    "calls": "Calls.",
    "check_tokens": "Tokens that model checks may spend; they go to the checks with the most influence.",
    "money": "The maximum cost, in the currency of the fleet's prices.",
    "steps": "The maximum number of steps.",
    "width": "The maximum number of parallel steps.",
}
"""The descriptions of keys in an editor."""
_CHOICE_DESCRIPTIONS = {
    "by": "The label: a text, a choice of texts, or a bool.",
    "of": "The agents by label; true and false are written in quotes.",
    "otherwise": "The agent for all labels that are not listed.",
}
"""The descriptions of keys in a choice of agents."""


def workflow_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of a workflow file, short forms included.

    It covers keys, shapes and limits. Types, names and references are checked by the compiler.
    """
    model = Graph.model_json_schema(by_alias=True)
    parts: dict[str, Any] = {name: _record_schema(part) for name, part in model.pop("$defs").items()}
    for key, means in _CHOICE_DESCRIPTIONS.items():
        parts["AgentChoice"]["properties"][key]["description"] = means
    parts["Retry"] = {
        "description": _DESCRIPTIONS["retry"],
        "anyOf": [_attempts_schema(parts["Retry"]), parts["Retry"]],
    }
    parts["Input"] = {"anyOf": [{"type": "string", "description": _DESCRIPTIONS["type"]}, parts["Input"]]}
    parts["Node"] = _node_schema([name for name in parts if name.endswith("Node")], parts)
    root = _record_schema(model)
    root["required"] = ["schema", *root["required"]]
    return {
        "$schema": DIALECT,
        "title": "Orchestra workflow",
        **{key: root[key] for key in root if key != "title"},
        "$defs": parts,
    }


def _attempts_schema(retry: Mapping[str, Any]) -> dict[str, Any]:
    return dict(retry["properties"]["attempts"])


def _node_schema(names: list[str], parts: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a node: a mapping with exactly one key of a kind, which determines the other allowed keys.

    The decision is written as conditions instead of a union, so that an editor reports errors of that one kind.
    """
    by_kind = {next(kind for kind in NODE_KINDS if kind in parts[name]["required"]): name for name in names}
    return {
        "description": f"A step: exactly one of {', '.join(NODE_KINDS)}, with its modifiers.",
        "type": "object",
        "oneOf": [{"required": [kind]} for kind in NODE_KINDS],
        "allOf": [{"if": {"required": [kind]}, "then": {"$ref": f"#/$defs/{by_kind[kind]}"}} for kind in NODE_KINDS],
        "dependentRequired": _DEPENDENT_KEYS,
    }


def _record_schema(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the schema of a record for editors: without null and titles, with short forms and a description of each
    key.
    """
    schema_fields = {key: value for key, value in model.items() if key != "title"}
    schema_fields["properties"] = {
        key: _field_schema(key, property_schema) for key, property_schema in model["properties"].items()
    }
    return schema_fields


def _field_schema(key: str, field_schema: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in field_schema.items() if name not in ("title", "default")}
    choices = [choice for choice in values.pop("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        values |= choices[0]
    elif choices:
        values["anyOf"] = choices
    if "patternProperties" in values:
        parts = {
            pattern: {"$ref": "#/$defs/Node"} if "oneOf" in part else part
            for pattern, part in values["patternProperties"].items()
        }
        values |= {"patternProperties": parts, "additionalProperties": False}
    if key == "nodes":
        values["minProperties"] = 1
    if key in _LIST_KEYS and "items" in values:
        values = {"anyOf": [values["items"], values]}
    if key in _DESCRIPTIONS:
        values["description"] = _DESCRIPTIONS[key]
    return values
