"""Workflow files, read: YAML to the frozen graph, every fault with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from orchestra.core.errors import InputError, InputErrors, SourceLocation
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_yaml import ValuePath, YamlDocument, load_yaml
from orchestra.schema.validator import format_value
from orchestra.workflows import model as model_module
from orchestra.workflows.model import NODE_KINDS, Graph
from orchestra.workflows.yaml.errors import validation_errors

MAX_NODES = 10_000
MAX_EDGES = 100_000
"""Of a workflow, those of its bodies included, at most (RELIABILITY, hostile input)."""
MAX_ERRORS = 50
"""Faults of one workflow that are told at once, at most."""

_NODE_MODELS: Mapping[str, type[model_module.Node]] = {
    "agent": model_module.AgentNode,
    "tool": model_module.ToolNode,
    "call": model_module.CallNode,
    "first_of": model_module.FirstOfNode,
    "loop": model_module.LoopNode,
    "plan": model_module.PlanNode,
    "verify": model_module.VerifyNode,
    "ask": model_module.AskNode,
}
_BODY_MODELS: Mapping[str, type[BaseModel]] = {"loop": model_module.LoopBlock, "call": model_module.NodeBlock}
_LIST_KEYS = ("after", "checks", "otherwise", "agents", "tools", "workflows", "options", "hearsay")
"""Keys whose value is a list; one element may stand by itself."""
_PLAIN_KEYS = frozenset({"agent", "tool", "with", "when", "timeout"})
_CALL_KEYS = frozenset({"agent", "tool", "with", "after", "when", "retry", "timeout"})
_EMPTY_HINTS = {
    "fallback": "fallback: ${null} for null, or leave it out",
    "checks": "leave it out; then the checks of the agent's card apply",
}
"""Keys without a value, and what to write."""
_REQUIRED_KEYS = {
    "schema": "schema: orchestra/v1",
    "name": "name: my_workflow",
    "nodes": "nodes: {...}",
    "output": "output: ${node}",
}
_BODY_KEYS = {
    "at_most": "at_most: 5",
    "until": "until: ${condition}",
    "nodes": "nodes: {draft: {agent: NAME, with: {...}}}",
    "output": "output: ${draft}",
}
_CHOICE_KEYS = {"by": "by: ${intent.intent}", "of": "of: {label: AGENT}"}
_FOREIGN_KEYS = {
    "needs": "references make edges; `after: [node]` orders without one",
    "depends_on": "references make edges; `after: [node]` orders without one",
    "if": "when: ${condition}",
    "foreach": "each: ${list} with as: name",
    "for_each": "each: ${list} with as: name",
    "map": "each: ${list} with as: name",
    "workflow": "call: NAME",
    "inputs": "input:",
    "outputs": "output:",
    "args": "with:",
    "params": "with:",
    "retries": "retry: 3",
    "default": "fallback: value",
}
"""What other languages call it, and what it is here."""


@dataclass(frozen=True)
class SourcePlaces:
    """Where the parts of a workflow stand in its file."""

    marked: YamlDocument

    def place_of(self, *path: str | int, key: bool = False) -> SourceLocation:
        """The place of what is at a path such as `("nodes", "a", "with", "text")`, or of its nearest ancestor."""
        return self.marked.location(path, key=key)


@dataclass(frozen=True)
class WorkflowSource:
    """A workflow with the places of its parts."""

    graph: Graph
    places: SourcePlaces


def read(text: str | bytes, file: str) -> WorkflowSource:
    """The workflow of a file's text. Raises `InputError`, or `InputErrors` with its faults (L001 to L013, L100 to L106)."""
    marked = load_yaml(text, file)
    if not isinstance(marked.value, dict):
        raise InputError(
            "L100",
            "a workflow is a mapping",
            location=marked.location(()),
            hint="it begins with `schema: orchestra/v1`",
        )
    if faults := list(islice(_ShapeChecker(marked).errors(), MAX_ERRORS)):
        raise _merge_errors(faults)
    try:
        graph = Graph.model_validate_json(msgspec.json.encode(_expand(marked.value)))
    except ValidationError as error:
        raise _merge_errors(list(islice(validation_errors(error, marked), MAX_ERRORS))) from None
    return WorkflowSource(graph, SourcePlaces(marked))


def _is_valid_call(node: Any) -> bool:
    """Whether a node has the keys of a node that calls something, and a value for each; other nodes are looked at key by key."""
    if not isinstance(node, dict) or ("tool" in node) == ("agent" in node) or None in node.values():
        return False
    return node.keys() <= _CALL_KEYS and not isinstance(node.get("agent"), dict)


def _merge_errors(errors: list[InputError]) -> InputError:
    unique = {(fault.code, fault.message, str(fault.location)): fault for fault in errors}
    ordered = sorted(
        unique.values(), key=lambda fault: (fault.location.line, fault.location.column) if fault.location else (0, 0)
    )
    return ordered[0] if len(ordered) == 1 else InputErrors(ordered)


class _ShapeChecker:
    """Faults of keys: unknown, missing or empty ones, and nodes that are not of exactly one kind."""

    def __init__(self, marked: YamlDocument) -> None:
        self.marked = marked
        self.node_count = 0

    def _error(self, code: str, message: str, path: ValuePath, hint: str, *, key: bool = False) -> InputError:
        return InputError(code, message, location=self.marked.location(path, key=key), hint=hint)

    def errors(self) -> Iterator[InputError]:
        document = self.marked.value
        yield from self._check_keys((), document, Graph, "a workflow")
        for key, example in _REQUIRED_KEYS.items():
            if key not in document:
                yield self._error("L102", f"a workflow needs `{key}:`", (), example)
        if document.get("schema", "orchestra/v1") not in ("orchestra/v1", None):
            yield self._error(
                "L103", f"the schema {document['schema']!r} is not known", ("schema",), "schema: orchestra/v1"
            )
        yield from self._check_inputs(document.get("input"))
        if document.get("nodes") is not None:
            yield from self._check_nodes(("nodes",), document["nodes"])

    def _check_inputs(self, inputs: Any) -> Iterator[InputError]:
        for name, given in inputs.items() if isinstance(inputs, dict) else ():
            path = ("input", name)
            if isinstance(given, dict):
                yield from self._check_keys(path, given, model_module.Input, "an input", empty=("default",))
                if "type" not in given:
                    yield self._error(
                        "L102", f"the input {name!r} needs a type", path, f"{name}: {{type: str}}", key=True
                    )
            elif not isinstance(given, str):
                yield self._error("L103", f"the type of {name!r} must be a text", path, f"{name}: str")

    def _check_nodes(self, path: ValuePath, given: Any) -> Iterator[InputError]:
        if not isinstance(given, dict) or not given:
            yield self._error(
                "L103",
                "`nodes:` maps names to nodes, at least one",
                path,
                "nodes: {answer: {agent: NAME, with: {...}}}",
            )
            return
        before = self.node_count
        self.node_count += len(given)
        if self.node_count > MAX_NODES:
            if before <= MAX_NODES:
                hint = "move a part into a workflow of its own, and `call` it"
                yield self._error("L106", f"more than {MAX_NODES:,} nodes", path, hint, key=True)
            return
        for name, node in given.items():
            if not _is_valid_call(node):
                yield from self._check_node((*path, name), name, node)

    def _check_node(self, path: ValuePath, name: str, node: Any) -> Iterator[InputError]:
        if not isinstance(node, dict):
            yield self._error(
                "L103",
                f"the node {name!r} must be a mapping",
                path,
                f"{name}: {{agent: NAME, with: {{...}}}}",
                key=True,
            )
            return
        found = [kind for kind in NODE_KINDS if kind in node]
        if len(found) != 1:
            yield self._kind_error(path, name, node, found)
            return
        kind = found[0]
        yield from self._check_keys(path, node, _NODE_MODELS[kind], f"`{kind}` nodes")
        body = node[kind]
        if kind == "agent" and isinstance(body, dict):
            yield from self._check_choice((*path, kind), name, body)
        elif kind in _BODY_MODELS and isinstance(body, dict):
            yield from self._check_body((*path, kind), name, kind, body)
        elif kind == "loop" and body is not None:
            hint = "loop: {at_most: 5, until: ${...}, nodes: {...}, output: ${...}}"
            yield self._error("L103", f"the loop {name!r} must be a mapping", (*path, kind), hint)

    def _kind_error(self, path: ValuePath, name: str, node: dict[str, Any], found: list[str]) -> InputError:
        if found:
            said = f"the node {name!r} has {len(found)} kinds: {', '.join(found)}"
            return self._error("L104", said, path, "one node does one thing: make it several nodes", key=True)
        kinds = f"give it exactly one of {', '.join(NODE_KINDS)}"
        for key in node:
            if near := closest_match(key, NODE_KINDS):
                said = f"the node {name!r} has no kind, and there is no key {key!r}"
                return self._error("L104", said, (*path, key), f"did you mean {near!r}?", key=True)
            if key in _FOREIGN_KEYS:
                return self._error(
                    "L104", f"the node {name!r} has no kind, and there is no key {key!r}", (*path, key), kinds, key=True
                )
        return self._error("L104", f"the node {name!r} has no kind", path, kinds, key=True)

    def _check_choice(self, path: ValuePath, name: str, body: dict[str, Any]) -> Iterator[InputError]:
        yield from self._check_keys(path, body, model_module.AgentChoice, f"the choice of {name!r}")
        for key, example in _CHOICE_KEYS.items():
            if key not in body:
                yield self._error("L102", f"the choice of {name!r} needs `{key}:`", path, example, key=True)
        for key, value in body.items():
            place, hint = (*path, key), _CHOICE_KEYS.get(key, "otherwise: AGENT")
            if key == "of" and value is not None and not (isinstance(value, dict) and value):
                yield self._error("L103", "`of:` maps labels to agents, at least one", place, hint)
            elif key == "of":
                for label, agent in (value or {}).items():
                    if not isinstance(agent, str):
                        yield self._error("L103", f"the agent for {label!r} must be a name", (*place, label), hint)
            elif key in ("by", "otherwise") and value is not None and not isinstance(value, str):
                must = "a text with a reference" if key == "by" else "the name of an agent"
                yield self._error("L103", f"`{key}` must be {must}, got {format_value(value)}", place, hint)

    def _check_body(self, path: ValuePath, name: str, kind: str, body: dict[str, Any]) -> Iterator[InputError]:
        yield from self._check_keys(path, body, _BODY_MODELS[kind], f"the body of {name!r}")
        wanted = _BODY_KEYS if kind == "loop" else ("nodes", "output")
        for key in wanted:
            if key not in body:
                yield self._error("L102", f"the body of {name!r} needs `{key}:`", path, _BODY_KEYS[key], key=True)
        if body.get("nodes") is not None:
            yield from self._check_nodes((*path, "nodes"), body["nodes"])

    def _check_keys(
        self, path: ValuePath, given: dict[str, Any], model: type[BaseModel], what: str, *, empty: tuple[str, ...] = ()
    ) -> Iterator[InputError]:
        known = _known_keys(model)
        for key, value in given.items():
            if key not in known:
                yield self._error(
                    "L101",
                    f"{what}: there is no key {key!r}",
                    (*path, key),
                    unknown_key_hint(key, model_keys(model)),
                    key=True,
                )
            elif (value is None and key not in empty) or (key in ("checks", "otherwise") and value == []):
                hint = _EMPTY_HINTS.get(key, "give it one, or leave the key out")
                yield self._error("L103", f"`{key}:` has no value", (*path, key), hint, key=True)


def unknown_key_hint(key: str, known: list[str]) -> str:
    """The hint for a key that is not there."""
    near = closest_match(key, known)
    other = _FOREIGN_KEYS.get(key, "")
    if near and (not other or other.split(":")[0] not in known):
        return f"did you mean {near!r}?"
    return other if other and near != key else f"keys here: {', '.join(known)}"


def model_keys(model: type[BaseModel]) -> list[str]:
    """The keys of a model as they are written in a file."""
    return [info.alias or name for name, info in model.model_fields.items()]


@lru_cache(maxsize=32)
def _known_keys(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(model_keys(model))


def _expand(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its short forms written out."""
    found = dict(document)
    if isinstance(inputs := found.get("input"), dict):
        found["input"] = {name: _expand_input(given) for name, given in inputs.items()}
    if isinstance(defaults := found.get("defaults"), dict):
        found["defaults"] = _expand_retry(defaults)
    if isinstance(inner := found.get("nodes"), dict):
        found["nodes"] = {name: _expand_node(node) for name, node in inner.items()}
    return found


def _expand_input(given: Any) -> Any:
    if isinstance(given, str):
        return {"type": given}
    return {**given, "optional": True} if isinstance(given, dict) and "default" in given else given


def _expand_retry(node: dict[str, Any]) -> dict[str, Any]:
    retry = node.get("retry")
    return {**node, "retry": {"attempts": retry}} if isinstance(retry, int) and not isinstance(retry, bool) else node


def _expand_node(node: Any) -> Any:
    if node.keys() <= _PLAIN_KEYS:
        return node
    found = _expand_retry(dict(node))
    for key in _LIST_KEYS:
        if isinstance(found.get(key), str):
            found[key] = [found[key]]
    for kind in _BODY_MODELS:
        body = found.get(kind)
        if isinstance(body, dict) and isinstance(body.get("nodes"), dict):
            found[kind] = {**body, "nodes": {name: _expand_node(inner) for name, inner in body["nodes"].items()}}
    return found
