"""Renders the Helm chart of `deploy/chart` for tests. It has the part of Helm's templates that the chart uses: values,
`if`, `else`, `range`, `not`, `quote`, and `toYaml` with `nindent`. Anything else fails.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy" / "chart"
_ACTION = re.compile(r"(\s*)\{\{(-?)\s*(.*?)\s*(-?)\}\}(\s*)", re.DOTALL)


def render(values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Returns the documents of the chart, with some values replaced: `{"journal": {"secretName": "db"}}`."""
    merged = _merge(yaml.safe_load((CHART / "values.yaml").read_text()), values or {})
    scope = {"Values": merged, "Release": {"Name": "demo", "Namespace": "apps"}}
    found = []
    for template in sorted((CHART / "templates").glob("*.yaml")):
        tokens = list(_tokens(template.read_text()))
        text, end = _render(tokens, 0, scope, scope)
        assert end == len(tokens), f"{template.name}: an `end` too many"
        found += [document for document in yaml.safe_load_all(text) if document]
    return found


def _merge(base: Any, changes: Mapping[str, Any]) -> Any:
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        assert key in merged, f"values.yaml has no {key}"
        merged[key] = _merge(merged[key], value) if isinstance(value, Mapping) and merged[key] else value
    return merged


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yields texts and actions. `{{-` removes the white space before, `-}}` that behind."""
    at = 0
    for found in _ACTION.finditer(text):
        before, trim_left, action, trim_right, behind = found.groups()
        yield "text", text[at : found.start()] + ("" if trim_left else before)
        yield "action", action
        at = found.end() if trim_right else found.end() - len(behind)
    yield "text", text[at:]


def _render(tokens: list[tuple[str, str]], at: int, dot: Any, root: Any) -> tuple[str, int]:
    """Renders up to the `else` or `end` of the enclosing block; returns the text and the place of that action."""
    written = ""
    while at < len(tokens):
        kind, content = tokens[at]
        word, _, rest = content.partition(" ")
        if kind == "text":
            written += content
        elif word in ("else", "end"):
            return written, at
        elif word == "if":
            chosen = bool(_value(rest, dot, root))
            text, at = _render(tokens, at + 1, dot, root)
            other = ""
            if tokens[at][1] == "else":
                other, at = _render(tokens, at + 1, dot, root)
            written += text if chosen else other
        elif word == "range":
            begin = at + 1
            _, at = _render(tokens, begin, dot, root)
            written += "".join(_render(tokens, begin, item, root)[0] for item in _value(rest, dot, root))
        else:
            written += _text(content, dot, root)
        at += 1
    return written, at


def _value(expression: str, dot: Any, root: Any) -> Any:
    if expression.startswith("not "):
        return not _value(expression.removeprefix("not "), dot, root)
    if expression == ".":
        return dot
    assert re.fullmatch(r"(\.[A-Za-z]+)+", expression), f"unknown expression: {expression}"
    found = root
    for part in expression[1:].split("."):
        found = found[part]
    return found


def _text(action: str, dot: Any, root: Any) -> str:
    first, *filters = [part.strip() for part in action.split("|")]
    is_yaml = first.startswith("toYaml ")
    value = _value(first.removeprefix("toYaml "), dot, root)
    text = yaml.safe_dump(value, sort_keys=False).rstrip() if is_yaml else str(value)
    for name, *arguments in (part.split() for part in filters):
        if name == "quote":
            text = json.dumps(text)
        else:
            assert name == "nindent", f"unknown filter: {name}"
            pad = " " * int(arguments[0])
            text = "\n" + "\n".join(pad + line for line in text.splitlines())
    return text
