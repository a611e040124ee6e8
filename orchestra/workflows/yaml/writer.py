"""Writes a frozen graph as canonical YAML, which the reader reads back to an equal graph.

Keys have a fixed order. Short mappings and lists are written in one line, and defaults are omitted. Texts are quoted if
YAML 1.1, YAML 1.2 or the stricter reader of this package could read them as something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestra.core.errors import InputError
from orchestra.workflows.model import (
    DEFAULT_RETRY,
    NODE_KINDS,
    AgentChoice,
    AnyNode,
    Budget,
    Defaults,
    Graph,
    Input,
    LoopBlock,
    Node,
    NodeBlock,
    PlanLimits,
    Retry,
)

MAX_WIDTH = 110
"""The maximum width of a mapping or list in one line, in columns."""

_KEY_ORDER = (
    *(*NODE_KINDS, "with", "escalate", "when", "each", "as", "limit", "concurrency", "at_least", "after"),
    *("agents", "tools", "workflows", "returns", "options", "limits", "repairs", "replans", "streaming"),
    *("router", "larger", "votes", "cache", "stepwise", "copied", "literals", "confirm", "grounded"),
    *("each_part", "rules", "hearsay", "anyway", "shortlist"),
    *("checks", "against", "score", "accept", "otherwise", "retry", "timeout", "fallback"),
)
"""The keys of a node in their order."""

_AMBIGUOUS_WORDS = frozenset({"null", "true", "false", "<<", "="})
"""Lower-case words that YAML 1.2 or other tools do not read as texts."""
_RESERVED_STARTS = frozenset("0123456789+-.~?:,[]{}#&*!|>'\"%@` ")
"""Characters that no plain text starts with: indicators, and the first characters of numbers and dates in any version
of YAML.
"""
_FLOW_SIGNS = re.compile(r"[,\[\]{}:?]")
_MAX_KEY_LENGTH = 1000
"""The maximum length of a key without `?` in YAML: 1,024 characters, less the quotes."""
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class _BlockMapping(dict[str, Any]):
    """A mapping that is never written in one line."""


def write(graph: Graph) -> str:
    """Returns the YAML of a workflow: `read(write(graph), file).graph == graph`.

    Raises `InputError` L013 for a number that is not finite. Texts with control characters and data beyond the
    language's limits are written anyway; the reader refuses them.
    """
    return "".join(f"{line}\n" for line in _block(_document(graph), 0))


def _document(graph: Graph) -> _BlockMapping:
    """Returns the data of the file, in order and in short forms."""
    return _BlockMapping(
        schema=graph.schema_,
        name=graph.name,
        **_non_empty(
            description=graph.description,
            input={name: _input(declaration) for name, declaration in graph.input.items()},
            types=graph.types,
        ),
        output=graph.output,
        **({} if graph.budget is None else {"budget": _set_fields(graph.budget)}),
        **({} if graph.defaults is None else {"defaults": _set_fields(graph.defaults)}),
        **_non_empty(label=graph.label, accept=_compact_number(graph.accept)),
        nodes=_nodes(graph.nodes),
    )


def _non_empty(**fields: Any) -> dict[str, Any]:
    """Returns the entries that are neither null nor empty."""
    return {key: value for key, value in fields.items() if value is not None and value not in ("", (), {})}


def _input(declaration: Input) -> Any:
    fields: dict[str, Any] = {"type": declaration.type}
    if declaration.default is not None:
        fields["default"] = declaration.default
    elif declaration.optional:
        fields["default"] = None
    fields |= _non_empty(description=declaration.description)
    return declaration.type if len(fields) == 1 else fields


def _set_fields(model: Budget | Defaults | PlanLimits) -> dict[str, Any]:
    fields = ((name, getattr(model, name)) for name in type(model).model_fields)
    return {
        name: _retry(value) if isinstance(value, Retry) else _compact_number(value)
        for name, value in fields
        if value is not None
    }


def _compact_number(value: Any) -> Any:
    """Shortens a number of seconds or a score: 60, not 60.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and value < 1e15 else value


def _retry(retry: Retry) -> Any:
    options = {} if retry.wait == DEFAULT_RETRY.wait else {"wait": [_compact_number(seconds) for seconds in retry.wait]}
    options |= {} if retry.within is None else {"within": _compact_number(retry.within)}
    return {"attempts": retry.attempts, **options} if options else retry.attempts


def _nodes(nodes: Mapping[str, AnyNode]) -> _BlockMapping:
    return _BlockMapping({name: _node(node) for name, node in nodes.items()})


def _node(node: Node) -> _BlockMapping:
    model = type(node).model_fields
    fields = {info.alias or name: (getattr(node, name), info.get_default()) for name, info in model.items()}
    return _BlockMapping(
        {
            key: _modifier(key, fields[key][0])
            for key in _KEY_ORDER
            if key in fields and fields[key][0] != fields[key][1]
        }
    )


def _modifier(key: str, value: Any) -> Any:
    match value:
        case AgentChoice():
            return {"by": value.by, "of": dict(value.of), **_non_empty(otherwise=value.otherwise)}
        case LoopBlock():
            return _BlockMapping(
                at_most=value.at_most, until=value.until, nodes=_nodes(value.nodes), output=value.output
            )
        case NodeBlock():
            return _BlockMapping(nodes=_nodes(value.nodes), output=value.output)
        case Retry():
            return _retry(value)
        case PlanLimits():
            return _set_fields(value)
        case _:
            return _compact_number(value) if key in ("timeout", "accept") else value


def _block(value: Mapping[str, Any] | list[Any] | tuple[Any, ...], indent: int) -> Iterator[str]:
    """Returns the lines of a mapping or list that is not empty."""
    pad = " " * indent
    if isinstance(value, Mapping):
        for key, entry in value.items():
            name = _text(key, flow=True)
            head = f"{pad}{name}:"
            if len(name) > _MAX_KEY_LENGTH:
                yield f"{pad}? {name}"
                head = f"{pad}:"
            if (line := _inline(entry, len(head) + 1)) is not None:
                yield f"{head} {line}"
            else:
                yield head
                yield from _block(entry, indent + 2)
        return
    for entry in value:
        if (line := _inline(entry, indent + 2)) is not None:
            yield f"{pad}- {line}"
        else:
            first, *rest = _block(entry, indent + 2)
            yield f"{pad}- {first[indent + 2 :]}"
            yield from rest


def _inline(value: Any, column: int) -> str | None:
    """Returns the value in one line from a column on; None if it does not fit. A scalar always fits."""
    if not isinstance(value, Mapping | list | tuple):
        return _scalar(value, flow=False)
    if isinstance(value, _BlockMapping) and value:
        return None
    text = _flow(value)
    return text if text is not None and (not value or column + len(text) <= MAX_WIDTH) else None


def _flow(value: Any) -> str | None:
    """Returns the value in flow style; None if a key is too long for it."""
    if isinstance(value, Mapping):
        parts = []
        for key, entry in value.items():
            name, text = _text(key, flow=True), _flow(entry)
            if text is None or len(name) > _MAX_KEY_LENGTH:
                return None
            parts.append(f"{name}: {text}")
        return f"{{{', '.join(parts)}}}"
    if isinstance(value, list | tuple):
        texts = [_flow(entry) for entry in value]
        return None if None in texts else f"[{', '.join(text for text in texts if text is not None)}]"
    return _scalar(value, flow=True)


def _scalar(value: Any, *, flow: bool) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            text = repr(value)
            if text.strip("-") in ("inf", "nan"):
                raise InputError("L013", f"{text} is not a finite number", hint="leave it out, or write a number")
            return text
        case _:
            return _text(str(value), flow=flow)


def _text(text: str, *, flow: bool) -> str:
    """Returns a text as a plain scalar if that is unambiguous, else with the quotes that need the fewest escapes."""
    if _is_plain(text, flow):
        return text
    if text.isprintable() and ('"' in text or "\\" in text) and "'" not in text:
        return f"'{text}'"
    return '"' + "".join(_ESCAPES.get(char) or (char if char.isprintable() else _escape(char)) for char in text) + '"'


def _is_plain(text: str, flow: bool) -> bool:
    if (
        not text
        or text[0] in _RESERVED_STARTS
        or text[-1] in " :"
        or text.lower() in _AMBIGUOUS_WORDS
        or not text.isprintable()
    ):
        return False
    return ": " not in text and " #" not in text and not (flow and _FLOW_SIGNS.search(text))


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
