"""Workflow files, read: YAML to the frozen graph, every fault with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from orchestra.errors import InputError, InputErrors, Place
from orchestra.values.schema import nearest
from orchestra.values.yaml import Marked, Path, load
from orchestra.workflow import nodes
from orchestra.workflow.nodes import KINDS, Graph

_MODELS: Mapping[str, type[nodes.Node]] = {
    "agent": nodes.AgentNode,
    "tool": nodes.ToolNode,
    "call": nodes.CallNode,
    "first_of": nodes.FirstOfNode,
    "loop": nodes.LoopNode,
    "plan": nodes.PlanNode,
    "verify": nodes.VerifyNode,
    "ask": nodes.AskNode,
}
_BODIES: Mapping[str, type[BaseModel]] = {"loop": nodes.Loop, "call": nodes.Block}
_LISTS = ("after", "checks", "otherwise", "agents", "tools", "options")
"""Keys whose value is a list; one element may stand by itself."""
_ELSEWHERE = {
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
class Places:
    """Where the parts of a workflow stand in its file."""

    marked: Marked

    def at(self, *path: str | int, key: bool = False) -> Place:
        """The place of what is at a path such as `("nodes", "a", "with", "text")`, or of its nearest ancestor."""
        return self.marked.place(path, key=key)


@dataclass(frozen=True)
class Source:
    """A workflow with the places of its parts."""

    graph: Graph
    places: Places


def read(text: str | bytes, file: str) -> Source:
    """The workflow of a file's text. Raises `InputError`, or `InputErrors` with all faults (L001 to L013, L100 to L105)."""
    marked = load(text, file)
    if not isinstance(marked.value, dict):
        raise InputError("L100", "a workflow is a mapping", place=marked.place(()), hint="it begins with `schema: orchestra/v1`")
    faults = list(_shape(marked))
    if faults:
        raise _together(faults)
    try:
        graph = Graph.model_validate_json(msgspec.json.encode(_plain(marked.value)))
    except ValidationError as error:
        raise _together([_fault(entry, marked) for entry in error.errors(include_url=False)]) from None
    return Source(graph, Places(marked))


def _together(faults: list[InputError]) -> InputError:
    unique = {(fault.code, fault.message, str(fault.place)): fault for fault in faults}
    ordered = sorted(unique.values(), key=lambda fault: (fault.place.line, fault.place.column) if fault.place else (0, 0))
    return ordered[0] if len(ordered) == 1 else InputErrors(ordered)


def _shape(marked: Marked) -> Iterator[InputError]:
    """Faults of keys: unknown, missing, and nodes that are not of exactly one kind."""
    document = marked.value
    yield from _keys(marked, (), document, Graph, "a workflow")
    for key in ("schema", "name", "nodes", "output"):
        if key not in document:
            example = {"schema": "schema: orchestra/v1", "name": "name: my_workflow", "nodes": "nodes: {...}", "output": "output: ${node}"}
            yield InputError("L102", f"a workflow needs `{key}:`", place=marked.place(()), hint=example[key])
    if "schema" in document and document["schema"] != "orchestra/v1":
        yield InputError(
            "L103", f"the schema {document['schema']!r} is not known", place=marked.place(("schema",)), hint="schema: orchestra/v1"
        )
    yield from _inputs(marked, document.get("input", {}))
    if "nodes" in document:
        yield from _nodes(marked, ("nodes",), document["nodes"])


def _inputs(marked: Marked, inputs: Any) -> Iterator[InputError]:
    for name, given in inputs.items() if isinstance(inputs, dict) else ():
        if isinstance(given, dict):
            yield from _keys(marked, ("input", name), given, nodes.Input, "an input")
            if "type" not in given:
                yield InputError("L102", f"the input {name!r} needs a type", place=marked.place(("input", name)), hint=f"{name}: str")
        elif not isinstance(given, str):
            yield InputError("L103", f"the type of {name!r} is a text", place=marked.place(("input", name)), hint=f"{name}: str")


def _nodes(marked: Marked, path: Path, given: Any) -> Iterator[InputError]:
    if not isinstance(given, dict) or not given:
        yield InputError(
            "L103", "`nodes:` maps names to nodes", place=marked.place(path), hint="nodes: {answer: {agent: reader, with: {...}}}"
        )
        return
    for name, node in given.items():
        yield from _node(marked, (*path, name), name, node)


def _node(marked: Marked, path: Path, name: str, node: Any) -> Iterator[InputError]:
    if not isinstance(node, dict):
        yield InputError(
            "L103", f"the node {name!r} is a mapping", place=marked.place(path), hint=f"{name}: {{agent: NAME, with: {{...}}}}"
        )
        return
    found = [kind for kind in KINDS if kind in node]
    if len(found) != 1:
        said = "has no kind" if not found else f"has {len(found)} kinds: {', '.join(found)}"
        yield InputError(
            "L104", f"the node {name!r} {said}", place=marked.place(path, key=True), hint=f"give it exactly one of {', '.join(KINDS)}"
        )
        if not found:
            yield from (
                fault for fault in _keys(marked, path, node, nodes.AgentNode, f"the node {name!r}") if fault.hint.startswith("did you")
            )
        return
    kind = found[0]
    yield from _keys(marked, path, node, _MODELS[kind], f"`{kind}` nodes")
    body = node[kind]
    if kind in _BODIES and isinstance(body, dict):
        yield from _keys(marked, (*path, kind), body, _BODIES[kind], f"the body of {name!r}")
        for key in ("nodes", "output", *(("at_most", "until") if kind == "loop" else ())):
            if key not in body:
                yield InputError("L102", f"the body of {name!r} needs `{key}:`", place=marked.place((*path, kind)), hint=f"add `{key}:`")
        if "nodes" in body:
            yield from _nodes(marked, (*path, kind, "nodes"), body["nodes"])
    elif kind == "loop":
        yield InputError(
            "L103",
            f"the loop {name!r} is a mapping",
            place=marked.place((*path, kind)),
            hint="{at_most: 5, until: ..., nodes: ..., output: ...}",
        )


def _keys(marked: Marked, path: Path, given: Any, model: type[BaseModel], what: str) -> Iterator[InputError]:
    if not isinstance(given, dict):
        return
    known = keys(model)
    for key in given:
        if key not in known:
            near = nearest(key, known)
            other = _ELSEWHERE.get(key, "")
            hint = other or (f"did you mean {near!r}?" if near else f"keys here: {', '.join(known)}")
            yield InputError("L101", f"{what}: there is no key {key!r}", place=marked.place((*path, key), key=True), hint=hint)


def keys(model: type[BaseModel]) -> list[str]:
    """The keys of a model as they are written in a file."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its short forms written out."""
    found = dict(document)
    if isinstance(inputs := found.get("input"), dict):
        found["input"] = {name: _input(given) for name, given in inputs.items()}
    if isinstance(defaults := found.get("defaults"), dict):
        found["defaults"] = _retried(defaults)
    if isinstance(inner := found.get("nodes"), dict):
        found["nodes"] = {name: _plain_node(node) for name, node in inner.items()}
    return found


def _input(given: Any) -> Any:
    if isinstance(given, str):
        return {"type": given}
    return {**given, "optional": True} if isinstance(given, dict) and "default" in given else given


def _retried(node: dict[str, Any]) -> dict[str, Any]:
    retry = node.get("retry")
    return {**node, "retry": {"attempts": retry}} if isinstance(retry, int) and not isinstance(retry, bool) else node


def _plain_node(node: Any) -> Any:
    found = _retried(dict(node))
    for key in _LISTS:
        if isinstance(found.get(key), str):
            found[key] = [found[key]]
    for kind in _BODIES:
        body = found.get(kind)
        if isinstance(body, dict) and isinstance(body.get("nodes"), dict):
            found[kind] = {**body, "nodes": {name: _plain_node(inner) for name, inner in body["nodes"].items()}}
    return found


def _fault(entry: Any, marked: Marked) -> InputError:
    """One finding of pydantic, at its place and in our words."""
    path, name_fault = _path(entry["loc"], marked.value)
    place = marked.place(path, key=name_fault)
    said = ".".join(str(step) for step in path) or "the workflow"
    if name_fault or (entry["type"] == "string_pattern_mismatch" and path[-1:] in (("name",), ("as",))):
        named = path[-1] if name_fault else entry.get("input")
        return InputError("L105", f"{named!r} is no name", place=place, hint="names match [a-z][a-z0-9_]*, at most 64 characters")
    reason = str(entry["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    reason = {
        "a valid string": "a text",
        "a valid integer": "an integer",
        "a valid dictionary": "a mapping",
        "an object": "a mapping",
        "a valid array": "a list",
    }.get(reason, reason)
    words = "expected " if "should be" in str(entry["msg"]) else ""
    last = str(path[-1]) if path else ""
    if last == "accept":
        words, reason = "", "a score in [0, 1], or `certified`"
    return InputError("L103", f"{said}: {words}{reason}", place=place, hint=_EXAMPLES.get(last, ""))


_EXAMPLES = {
    "retry": "retry: 3, or retry: {attempts: 3, wait: [0.5, 8]}; at most 10 attempts",
    "attempts": "at most 10 attempts",
    "timeout": "timeout: 30, in seconds, at most 86,400",
    "otherwise": "otherwise: [retry, escalate, abstain]",
    "accept": "accept: 0.5, a score in [0, 1]",
    "limit": "limit: 100, at most 10,000",
    "at_most": "at_most: 5, at most 100",
    "budget": "budget: {tokens: 20000, seconds: 60}",
    "label": "label: public, internal or restricted",
}


def _path(location: tuple[Any, ...], here: Any) -> tuple[Path, bool]:
    """The keys of a location, without the tags that pydantic puts among them; and whether the fault is in the last key itself."""
    path: list[str | int] = []
    tagged = False
    for step in location:
        if not tagged and step in KINDS and path[-2:-1] == ["nodes"]:
            tagged = True
            continue
        tagged = False
        if step == "[key]":
            return tuple(path), True
        if (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int) and step < len(here)):
            path.append(step)
            here = here[step]
    return tuple(path), False
