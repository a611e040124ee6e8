"""Reads workflow files: YAML to the frozen graph. Errors have their location and a hint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestra.core.errors import InputError, InputErrors, SourceLocation
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_yaml import ValuePath, YamlDocument, load_yaml
from orchestra.schema.validator import format_value
from orchestra.workflows import model
from orchestra.workflows import model as model_module
from orchestra.workflows.model import NODE_KINDS, Graph

MAX_NODES = 10_000


MAX_EDGES = 100_000
"""Limits of a workflow, bodies included (RELIABILITY, hostile input)."""


MAX_ERRORS = 50
"""The maximum number of reported errors of one workflow."""


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
"""Keys whose value is a list. A single element may be written without brackets."""


_PLAIN_KEYS = frozenset({"agent", "tool", "with", "when", "timeout"})


_CALL_KEYS = frozenset({"agent", "tool", "with", "after", "when", "retry", "timeout"})


_EMPTY_HINTS = {
    "fallback": "fallback: ${null} for null, or leave it out",
    "checks": "leave it out; then the checks of the agent's card apply",
}
"""Hints for keys without a value."""


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
"""Keys of other languages, with the key of this one."""


@dataclass(frozen=True)
class SourcePlaces:
    """The locations of the parts of a workflow in its file."""

    marked: YamlDocument

    def location_of(self, *path: str | int, key: bool = False) -> SourceLocation:
        """Returns the location of a path such as `("nodes", "a", "with", "text")`, or of its nearest ancestor."""
        return self.marked.location(path, key=key)


@dataclass(frozen=True)
class WorkflowSource:
    """A workflow with the locations of its parts."""

    graph: Graph
    places: SourcePlaces


def read(text: str | bytes, file: str) -> WorkflowSource:
    """Reads a workflow. Raises `InputError`, or `InputErrors` with all errors (L001 to L013, L100 to L106)."""
    yaml_document = load_yaml(text, file)
    if not isinstance(yaml_document.value, dict):
        raise InputError(
            "L100",
            "a workflow is a mapping",
            location=yaml_document.location(()),
            hint="it begins with `schema: orchestra/v1`",
        )
    if faults := list(islice(_ShapeChecker(yaml_document).errors(), MAX_ERRORS)):
        raise _merge_errors(faults)
    try:
        graph = Graph.model_validate_json(msgspec.json.encode(_expand(yaml_document.value)))
    except ValidationError as error:
        raise _merge_errors(list(islice(validation_errors(error, yaml_document), MAX_ERRORS))) from None
    return WorkflowSource(graph, SourcePlaces(yaml_document))


def _is_valid_call(node: Any) -> bool:
    """Whether a node is a complete call, each key with a value. Other nodes are checked key by key."""
    if not isinstance(node, dict) or ("tool" in node) == ("agent" in node) or None in node.values():
        return False
    return node.keys() <= _CALL_KEYS and not isinstance(node.get("agent"), dict)


def _merge_errors(errors: list[InputError]) -> InputError:
    unique = {(fault.code, fault.message, str(fault.location)): fault for fault in errors}
    sorted_errors = sorted(
        unique.values(), key=lambda fault: (fault.location.line, fault.location.column) if fault.location else (0, 0)
    )
    return sorted_errors[0] if len(sorted_errors) == 1 else InputErrors(sorted_errors)


class _ShapeChecker:
    """Checks keys: unknown, missing and empty ones, and nodes that do not have exactly one kind."""

    def __init__(self, marked: YamlDocument) -> None:
        self.marked = marked
        self.node_count = 0

    def _error(self, code: str, message: str, path: ValuePath, hint: str, *, key: bool = False) -> InputError:
        return InputError(code, message, location=self.marked.location(path, key=key), hint=hint)

    def errors(self) -> Iterator[InputError]:
        """Yields the errors of the document."""
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
        for name, entry in inputs.items() if isinstance(inputs, dict) else ():
            path = ("input", name)
            if isinstance(entry, dict):
                yield from self._check_keys(path, entry, model_module.Input, "an input", empty=("default",))
                if "type" not in entry:
                    yield self._error(
                        "L102", f"the input {name!r} needs a type", path, f"{name}: {{type: str}}", key=True
                    )
            elif not isinstance(entry, str):
                yield self._error("L103", f"the type of {name!r} must be a text", path, f"{name}: str")

    def _check_nodes(self, path: ValuePath, nodes: Any) -> Iterator[InputError]:
        if not isinstance(nodes, dict) or not nodes:
            yield self._error(
                "L103",
                "`nodes:` maps names to nodes, at least one",
                path,
                "nodes: {answer: {agent: NAME, with: {...}}}",
            )
            return
        before = self.node_count
        self.node_count += len(nodes)
        if self.node_count > MAX_NODES:
            if before <= MAX_NODES:
                hint = "move a part into a workflow of its own, and `call` it"
                yield self._error("L106", f"more than {MAX_NODES:,} nodes", path, hint, key=True)
            return
        for name, node in nodes.items():
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
        node_kinds = [kind for kind in NODE_KINDS if kind in node]
        if len(node_kinds) != 1:
            yield self._kind_error(path, name, node, node_kinds)
            return
        kind = node_kinds[0]
        yield from self._check_keys(path, node, _NODE_MODELS[kind], f"`{kind}` nodes")
        body = node[kind]
        if kind == "agent" and isinstance(body, dict):
            yield from self._check_choice((*path, kind), name, body)
        elif kind in _BODY_MODELS and isinstance(body, dict):
            yield from self._check_body((*path, kind), name, kind, body)
        elif kind == "loop" and body is not None:
            hint = "loop: {at_most: 5, until: ${...}, nodes: {...}, output: ${...}}"
            yield self._error("L103", f"the loop {name!r} must be a mapping", (*path, kind), hint)

    def _kind_error(self, path: ValuePath, name: str, node: dict[str, Any], node_kinds: list[str]) -> InputError:
        if node_kinds:
            message = f"the node {name!r} has {len(node_kinds)} kinds: {', '.join(node_kinds)}"
            return self._error("L104", message, path, "one node does one thing: make it several nodes", key=True)
        kinds = f"give it exactly one of {', '.join(NODE_KINDS)}"
        for key in node:
            if near := closest_match(key, NODE_KINDS):
                message = f"the node {name!r} has no kind, and there is no key {key!r}"
                return self._error("L104", message, (*path, key), f"did you mean {near!r}?", key=True)
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
        body_keys = _BODY_KEYS if kind == "loop" else ("nodes", "output")
        for key in body_keys:
            if key not in body:
                yield self._error("L102", f"the body of {name!r} needs `{key}:`", path, _BODY_KEYS[key], key=True)
        if body.get("nodes") is not None:
            yield from self._check_nodes((*path, "nodes"), body["nodes"])

    def _check_keys(
        self, path: ValuePath, body: dict[str, Any], model: type[BaseModel], title: str, *, empty: tuple[str, ...] = ()
    ) -> Iterator[InputError]:
        known_keys = _known_keys(model)
        for key, value in body.items():
            if key not in known_keys:
                yield self._error(
                    "L101",
                    f"{title}: there is no key {key!r}",
                    (*path, key),
                    unknown_key_hint(key, model_keys(model)),
                    key=True,
                )
            elif (value is None and key not in empty) or (key in ("checks", "otherwise") and value == []):
                hint = _EMPTY_HINTS.get(key, "give it one, or leave the key out")
                yield self._error("L103", f"`{key}:` has no value", (*path, key), hint, key=True)


def unknown_key_hint(key: str, known: list[str]) -> str:
    """Returns the hint for an unknown key."""
    near = closest_match(key, known)
    foreign_key = _FOREIGN_KEYS.get(key, "")
    if near and (not foreign_key or foreign_key.split(":")[0] not in known):
        return f"did you mean {near!r}?"
    return foreign_key if foreign_key and near != key else f"keys here: {', '.join(known)}"


def model_keys(model: type[BaseModel]) -> list[str]:
    """Returns the keys of a model as they are written in a file."""
    return [info.alias or name for name, info in model.model_fields.items()]


@lru_cache(maxsize=32)
def _known_keys(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(model_keys(model))


def _expand(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the document with its short forms expanded."""
    expansion = dict(document)
    if isinstance(inputs := expansion.get("input"), dict):
        expansion["input"] = {name: _expand_input(entry) for name, entry in inputs.items()}
    if isinstance(defaults := expansion.get("defaults"), dict):
        expansion["defaults"] = _expand_retry(defaults)
    if isinstance(inner := expansion.get("nodes"), dict):
        expansion["nodes"] = {name: _expand_node(node) for name, node in inner.items()}
    return expansion


def _expand_input(entry: Any) -> Any:
    if isinstance(entry, str):
        return {"type": entry}
    return {**entry, "optional": True} if isinstance(entry, dict) and "default" in entry else entry


def _expand_retry(node: dict[str, Any]) -> dict[str, Any]:
    retry = node.get("retry")
    return {**node, "retry": {"attempts": retry}} if isinstance(retry, int) and not isinstance(retry, bool) else node


def _expand_node(node: Any) -> Any:
    if node.keys() <= _PLAIN_KEYS:
        return node
    expansion = _expand_retry(dict(node))
    for key in _LIST_KEYS:
        if isinstance(expansion.get(key), str):
            expansion[key] = [expansion[key]]
    for kind in _BODY_MODELS:
        body = expansion.get(kind)
        if isinstance(body, dict) and isinstance(body.get("nodes"), dict):
            expansion[kind] = {**body, "nodes": {name: _expand_node(inner) for name, inner in body["nodes"].items()}}
    return expansion


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
"""The expected values, by the kind of pydantic's error."""


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
"""The expected values, by key."""


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
    """Converts pydantic's errors, in their order."""
    for entry in error.errors(include_url=False, include_context=True):
        path, name_fault = _key_path(entry["loc"], marked.value)
        # A call is a name or a block, and pydantic reports an error for each of the two.
        if path[-1:] == ("call",) and entry["type"] == "string_type" and isinstance(entry["input"], dict):
            continue
        yield _to_input_error(entry, path, name_fault, marked)


def _to_input_error(entry: ErrorDetails, path: ValuePath, name_fault: bool, yaml_document: YamlDocument) -> InputError:
    kind, value = str(entry["type"]), entry["input"]
    last = next((step for step in reversed(path) if isinstance(step, str)), "")
    path_text = _describe_path(path)
    location = yaml_document.location(path, key=name_fault)
    if name_fault or (kind in ("string_pattern_mismatch", "string_too_long") and last in ("name", "as", "after")):
        key_name = path[-1] if name_fault else value
        hint = "names match [a-z][a-z0-9_]*, at most 64 characters"
        return InputError("L105", f"{format_value(key_name)} is not a name", location=location, hint=hint)
    if kind == "extra_forbidden":
        aliases = (
            [info.alias or name for name, info in _NESTED_MODELS[str(path[-2])].model_fields.items()]
            if str(path[-2]) in _NESTED_MODELS
            else []
        )
        near = closest_match(str(last), aliases)
        hint = f"did you mean {near!r}?" if near else f"keys here: {', '.join(aliases)}"
        return InputError(
            "L101",
            f"`{path[-2]}`: there is no key {last!r}",
            location=yaml_document.location(path, key=True),
            hint=hint,
        )
    hint = _EXAMPLES.get(last, "")
    if kind == "too_short":
        return InputError("L103", f"{path_text} must not be empty", location=location, hint=hint)
    if kind in ("missing", "too_long") and last == "wait":
        return InputError("L103", f"{path_text} must be two numbers", location=location, hint=hint)
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
    return InputError("L103", f"{path_text} must be {form}, got {_describe_value(value)}", location=location, hint=hint)


def _describe_value(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else format_value(value)


def _describe_path(path: ValuePath) -> str:
    """Describes a path in words: the node and the key."""
    names = [str(path[number + 1]) for number, step in enumerate(path[:-1]) if step == "nodes"]
    if path[:1] != ("nodes",) or not names or len(path) < 3:
        return f"`{'.'.join(str(step) for step in path)}`" if path else "the workflow"
    at = max(number for number, step in enumerate(path[:-1]) if step == "nodes") + 2
    rest = ".".join(str(step) for step in path[at:])
    return f"`{rest}` of the node {names[-1]!r}" if rest else f"the node {names[-1]!r}"


def _key_path(location: tuple[Any, ...], current_value: Any) -> tuple[ValuePath, bool]:
    """Returns the keys of a location without pydantic's tags, and whether the error is in the last key itself."""
    path: list[str | int] = []
    is_tagged = False
    for step in location:
        if not is_tagged and step in NODE_KINDS and path[-2:-1] == ["nodes"]:
            is_tagged = True
            continue
        is_tagged = False
        if step == "[key]":
            return tuple(path), True
        if (isinstance(current_value, dict) and step in current_value) or (
            isinstance(current_value, list) and isinstance(step, int) and step < len(current_value)
        ):
            path.append(step)
            current_value = current_value[step]
    return tuple(path), False
