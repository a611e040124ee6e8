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
    "description": "What it is for, for people and for the router.",
    "input": "Names and types: `{question: str, documents: 'list[Document]'}`.",
    "types": "Records of this workflow, by name: JSON Schemas.",
    "output": "What the run gives: a reference such as `${answer}`, or a list or a mapping of references.",
    "budget": "Limits of a run: `{tokens: 20000, seconds: 60, calls: 100, money: 0.5}`.",
    "defaults": "`retry` and `timeout` for the nodes that state none of their own.",
    "label": "Where the inputs may go.",
    "nodes": "The steps, by name. References between them make the edges; their order in the file means nothing.",
    "with": "The inputs of what is called; texts may hold `${references}`.",
    "when": "A condition: the node is skipped where it is false. `${kind.label == 'math'}`",
    "each": "A list: the node runs once for each element, which `as` names.",
    "as": "The name of one element of `each`.",
    "limit": "Elements at most.",
    "concurrency": "Elements at once, at most.",
    "at_least": (
        "Elements that must have a value, else the node fails at once: `all`, or a number. Else those that fail are"
        " left out."
    ),
    "after": "Nodes that must have ended before, although none of their values is used.",
    "retry": "Attempts in all: `3`, or `{attempts: 3, wait: [0.5, 8], within: 60}` with seconds.",
    "within": "Seconds after the first attempt began, after which no other one is planned.",
    "timeout": "Seconds that an attempt may take.",
    "fallback": "The value where the node gives none: a reference or a literal.",
    "checks": (
        "What the value must stand before it is accepted: `[quote, numbers, entailment]`; `quote | entailment` wants"
        " one of two."
    ),
    "against": "The evidence that the checks compare the value with.",
    "score": (
        "How the scores of the checks become one: `combined`, as `orchestra learn combine` found; left out it is the"
        " lowest."
    ),
    "accept": "A score from 0 to 1, or `certified`.",
    "otherwise": (
        "What to do, in order, with a value that is not accepted: `[retry, escalate, ask, abstain]`, or `[back_off,"
        " abstain]`."
    ),
    "agent": (
        "The name of the specialist that is asked; or one by a label: `{by: ${intent.intent}, of: {lost: desk},"
        " otherwise: general}`."
    ),
    "escalate": "A condition: where it holds, the fleet's larger model is asked at once. `${difficulty.need > 0.4}`",
    "tool": "The name of the tool that is called.",
    "call": "The name of a workflow, or a block: `{nodes: {...}, output: ${...}}`.",
    "first_of": (
        "Arms in order of preference: the first that ends in a value is the node's value. `['${a}', '${b}', 'none']`"
    ),
    "loop": "A block and its end: `{at_most: 5, until: ${...}, nodes: {...}, output: ${...}}`.",
    "plan": "The goal that the router plans for.",
    "verify": "The value to judge, with `checks` and `against`.",
    "ask": "The question to a person.",
    "agents": "The agents that the plan may use.",
    "tools": (
        "The tools that the plan may use; of an agent, those of its card that have effects, and that it may use here."
    ),
    "workflows": "The workflows that the plan may use, with all that they do.",
    "returns": "The type of the value: `str`, `list[Fact]`, ...; of a plan also `anything`.",
    "options": "The answers that the person chooses from.",
    "limits": "How large the plan may be: `{steps: 8, width: 4}`.",
    "repairs": "How often a line of the plan that was refused is handed back.",
    "replans": "How often another plan may follow one of which a step failed.",
    "streaming": "Whether steps without effects start while the plan is still being written.",
    "router": "The agent that plans; `router` where nothing is said.",
    "larger": "The agent that plans where the repairs of the router are used up; it goes on from the lines that stand.",
    "votes": "How many plans are sampled; the one that most of them agree on runs. From 1 to 16.",
    "cache": "Whether a plan that has served may serve again; `false` asks the router each time.",
    "stepwise": (
        "Whether the router writes the plan line by line; `false` asks for the whole plan at once, and nothing starts"
        " before."
    ),
    "copied": "Whether the texts that the plan states are pieces of its goal.",
    "literals": "Whether calls with effects may be given texts and numbers that are not in the goal.",
    "confirm": "Whether a person is asked before the plan makes calls with effects; `false` asks nobody.",
    "grounded": (
        "Whether the first step of the plan reads one of the values of `with` beside its goal, where some skill can."
    ),
    "each_part": "Whether each part of a goal that has several (`...? Also: ...`) gets a step of the plan.",
    "hearsay": (
        "The values of `with` that may be somebody else's words, such as a mail: no argument of a tool with effects is"
        " one of them."
    ),
    "anyway": "Whether what can be done is planned even where the router finds that nothing serves the goal.",
    "shortlist": "How many of the skills the router is shown at most: those that the goal is likely to need.",
    "at_most": "Turns at most.",
    "until": "The condition that ends the loop; it may read `turn` and the nodes of the block.",
    "type": (
        "`str`, `int`, `float`, `bool`, `list[T]`, `dict[str, T]`, `T | null`, `Literal['a', 'b']`, or a record by"
        " name."
    ),
    "default": "The value where none is given, which makes the input optional.",
    "optional": "Whether the input may be left out; it is null then.",
    "attempts": "Attempts in all.",
    "wait": "Seconds before the second attempt, and seconds at most; it grows exponentially between them.",
    "tokens": "Tokens of prompts and outputs.",
    "seconds": "Active wall-clock time.",
    "calls": "Calls.",
    "check_tokens": "Tokens that checks may spend on asking agents; they go where they are worth most.",
    "money": "Money at most, in the currency of the fleet's prices.",
    "steps": "Steps at most.",
    "width": "Steps that run side by side, at most.",
}
"""The descriptions of keys in an editor."""
_CHOICE_DESCRIPTIONS = {
    "by": "What gives the label: a text, a choice of texts, or a bool.",
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
    found = {key: value for key, value in model.items() if key != "title"}
    found["properties"] = {key: _field_schema(key, given) for key, given in model["properties"].items()}
    return found


def _field_schema(key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in given.items() if name not in ("title", "default")}
    choices = [choice for choice in found.pop("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        found |= choices[0]
    elif choices:
        found["anyOf"] = choices
    if "patternProperties" in found:
        named = {
            pattern: {"$ref": "#/$defs/Node"} if "oneOf" in part else part
            for pattern, part in found["patternProperties"].items()
        }
        found |= {"patternProperties": named, "additionalProperties": False}
    if key == "nodes":
        found["minProperties"] = 1
    if key in _LIST_KEYS and "items" in found:
        found = {"anyOf": [found["items"], found]}
    if key in _DESCRIPTIONS:
        found["description"] = _DESCRIPTIONS[key]
    return found
