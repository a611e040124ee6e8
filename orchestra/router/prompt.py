"""What a router reads: one line a skill, one line a value at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestra.router.capabilities import Capability
from orchestra.router.plan_syntax import INPUT
from orchestra.schema.json_schema import enum_values
from orchestra.schema.types import Schema, element_type, format_type, subschema, union_members

MAX_DESCRIPTION_LENGTH = 110
"""Characters of a description."""
MAX_LISTED_CHOICES = 4
"""Choices that are listed; of more a router need not know the words."""
MAX_REQUEST_LENGTH = 8_000
"""Characters of a request that a model is shown; of a longer one the beginning and the end, and such a one has no intent to be kept."""
DEFAULT_REQUEST_TOKENS = MAX_REQUEST_LENGTH // 2
"""Tokens of a request, where nobody knows how much its planner can read."""
MIN_REQUEST_TOKENS = 200
"""Tokens of a request that are shown in any case."""
OMISSION_MARK = "\n[…]\n"
_WORDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "null"}


def capability_lines(offered: Iterable[Capability]) -> str:
    """Skills, one a line: `search(query: str, top?: int) -> list[{source, text}]: The passages that answer a query best.`"""
    return "\n".join(map(capability_line, offered))


def capability_line(capability: Capability) -> str:
    """One of them."""
    taken = ", ".join(
        f"{name}{'' if name in capability.required else '?'}: {type_text(schema)}"
        for name, schema in capability.fields.items()
    )
    description = first_sentence(capability.description)
    return f"{capability.name}({taken}) -> {type_text(capability.output, inside=True)}{': ' + description if description else ''}"


def value_lines(given: Mapping[str, Schema]) -> str:
    """The values at hand, one a line: `input.question: str`."""
    return "\n".join(f"{INPUT}.{name}: {type_text(schema, inside=True)}" for name, schema in given.items())


def type_text(schema: Schema, *, inside: bool = False) -> str:
    """A type in few words; with `inside` a record is told by the names of its fields, so that one sees what can be referred to."""
    names = list(dict.fromkeys(_branch_text(subschema(schema, one), inside) for one in union_members(schema)))
    return " | ".join([*(name for name in names if name != "null"), *(name for name in names if name == "null")])


def _branch_text(schema: Schema, inside: bool) -> str:
    if (values := enum_values(schema)) is not None:
        few = not inside and len(values) <= MAX_LISTED_CHOICES and all(isinstance(one, str) for one in values)
        return format_type(schema) if few else " | ".join(dict.fromkeys(_value_type(one) for one in values))
    if schema.get("type") == "array" and isinstance(inner := element_type(schema), dict):
        return f"list[{type_text(inner, inside=inside)}]"
    if inside and schema.get("type") == "object" and schema.get("properties"):
        return f"{{{', '.join(schema['properties'])}}}"
    return _WORDS.get(str(schema.get("type")), "") or format_type(schema)


def _value_type(value: object) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "str"
        case int() | float():
            return "float"
        case None:
            return "null"
        case _:
            return "object"


def first_sentence(text: str) -> str:
    """The first sentence of a description, in one line."""
    line = " ".join(text.split())
    first, stop, _ = line.partition(". ")
    first += "." if stop else ""
    return first if len(first) <= MAX_DESCRIPTION_LENGTH else first[: MAX_DESCRIPTION_LENGTH - 1] + "…"


def estimate_tokens(text: str) -> int:
    """The tokens of a text, at most, near enough: two letters, digits or spaces of ASCII make one at least, and of all else no byte makes
    more than one. A tokenizer of bytes has no piece that is less than a byte; ours, and those of other small models, are of that kind."""
    plain = sum(_is_plain(char) for char in text)
    return len(text.encode("utf-8", "surrogatepass")) - plain // 2


def truncate(text: str, max_tokens: int) -> str:
    """A text of so many tokens at most: as it is, or its beginning and its end."""
    if estimate_tokens(text) <= max_tokens:
        return text
    half = (max_tokens - estimate_tokens(OMISSION_MARK)) / 2
    return f"{_prefix(text, half)}{OMISSION_MARK}{_prefix(text[::-1], half)[::-1]}"


def _prefix(text: str, most: float) -> str:
    for place, char in enumerate(text):
        most -= 0.5 if _is_plain(char) else len(char.encode("utf-8", "surrogatepass"))
        if most < 0:
            return text[:place]
    return text


def _is_plain(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char.isspace())
