"""Answers as text for a person: sentences, the evidence below them, and what was not found. JSON is for `--json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestra.app.run_text import format_value
from orchestra.core.untrusted_text import shorten
from orchestra.tools.replies import not_found_sentence

REPLY_FIELDS = frozenset({"text", "findings", "citations", "cells", "computation", "missing"})
"""The fields of a reply of a general skill."""
MAX_QUOTE_LENGTH = 300
MAX_QUOTES = 6
MAX_CELLS = 12
VERDICT_SENTENCES = {
    "supported": "Yes, the text supports it.",
    "contradicted": "No, the text contradicts it.",
    "not stated": "The text does not say.",
}


def is_reply(value: Any) -> bool:
    """Whether a value is the reply of a general skill, or several of them by step."""
    if not isinstance(value, Mapping):
        return False
    return set(value) == REPLY_FIELDS or (bool(value) and all(map(is_reply, value.values())))


def answer_text(value: Any, request: str) -> str:
    """The text of an answer, with its evidence below."""
    return "\n".join(_lines(value, request))


def _lines(value: Any, request: str) -> Iterator[str]:
    match value:
        case Mapping() if set(value) == REPLY_FIELDS:
            yield from _reply_lines(value)
        case Mapping() if (
            value
            and all(isinstance(element, Mapping | list) or element is None for element in value.values())
            and _is_steps(value)
        ):
            for number, element in enumerate(value.values()):
                yield from ([""] if number else [])
                yield from _lines(element, request)
        case {"text": _, "citations": list(), **rest} if not rest:
            yield format_value(value)
        case {"expression": str(expression), "answer": answer, **rest} if not rest:
            yield f"{format_number(answer)}  ({expression})" if answer is not None else not_found_sentence(request)
        case {"label": str(label), **rest} if all(str(name).startswith("p_") for name in rest):
            yield VERDICT_SENTENCES.get(label, f"{label}.")
        case {"answer": answer, "cells": list(), "expression": _, **rest} if set(rest) <= {"scale"}:
            yield _table_sentence(answer, str(rest.get("scale") or ""), request)
        case {"answer": answer}:
            yield format_number(answer) if answer is not None else not_found_sentence(request)
        case Mapping() | list() if not value:
            yield not_found_sentence(request)
        case Mapping():
            yield from _record_lines(value)
        case list():
            for element in value:
                yield from _item_lines(element, request)
        case None:
            yield not_found_sentence(request)
        case _:
            yield format_value(value)


def _is_steps(value: Mapping[str, Any]) -> bool:
    """Whether a value has the results of several steps."""
    return all(name[:1] == "s" and name[1:].partition("_")[0].isdigit() for name in value)


def _reply_lines(value: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(value["text"], str):
        yield value["text"]
    for name in value["missing"]:
        yield not_found_sentence(str(name))
    if value["computation"]:
        yield f"  {value['computation']}"
    yield from _quote_lines(value["citations"])
    yield from _cell_lines(value["cells"])


def _quote_lines(citations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for citation in citations[:MAX_QUOTES]:
        place = " ".join(filter(None, (str(citation.get("source", "")), str(citation.get("location") or ""))))
        yield f"  “{shorten(' '.join(str(citation.get('quote', '')).split()), MAX_QUOTE_LENGTH)}”  {place}"
    if len(citations) > MAX_QUOTES:
        yield f"  and {len(citations) - MAX_QUOTES} more quotes"


def _cell_lines(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for cell in cells[:MAX_CELLS]:
        heading = ", ".join(filter(None, (str(cell.get("row_heading") or ""), str(cell.get("column_heading") or ""))))
        place = str(cell.get("location") or f"[{cell.get('row')}][{cell.get('column')}]")
        yield f"  {cell.get('text', '')}  {heading}  {place}"
    if len(cells) > MAX_CELLS:
        yield f"  and {len(cells) - MAX_CELLS} more cells"


def _table_sentence(answer: Any, scale: str, request: str) -> str:
    if answer is None or answer == []:
        return not_found_sentence(request)
    unit = " %" if scale == "percent" else f" {scale}" if scale else ""
    if isinstance(answer, list):
        return f"{', '.join(map(format_number, answer))}{unit}."
    return f"{format_number(answer)}{unit}."


def format_number(value: Any) -> str:
    """A number without a needless fraction; other values as text."""
    if isinstance(value, float):
        return f"{round(value, 4):g}" if abs(value) < 1e6 else f"{value:,.2f}".rstrip("0").rstrip(".")
    return str(value)


def _record_lines(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, part in value.items():
        label = name.replace("_", " ")
        match part:
            case {"value": parts, "start": _, "end": _}:
                yield f"{indent}{label}: {parts}"
            case Mapping() if part:
                yield f"{indent}{label}:"
                yield from _record_lines(part, f"{indent}  ")
            case list() if part and all(not isinstance(item, Mapping | list) for item in part):
                yield f"{indent}{label}: {', '.join(map(format_number, part))}"
            case list() if part:
                yield f"{indent}{label}:"
                for item in part:
                    yield from (f"{indent}  {line}" for line in _item_lines(item, ""))
            case None | [] | {}:
                continue
            case _:
                yield f"{indent}{label}: {format_number(part)}"


def _item_lines(item: Any, request: str) -> Iterator[str]:
    match item:
        case {"text": str(text), "source": str(source)}:
            yield f"- {shorten(' '.join(text.split()), MAX_QUOTE_LENGTH)}  {source}"
        case Mapping() | list():
            lines = list(_lines(item, request))
            yield from (f"{'- ' if number == 0 else '  '}{line}" for number, line in enumerate(lines))
        case _:
            yield f"- {format_number(item)}"
