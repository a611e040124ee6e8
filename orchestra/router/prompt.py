"""Prompt text of the planner: one line per capability, one line per available value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestra.router.capabilities import Capability
from orchestra.router.plan_syntax import INPUT
from orchestra.schema.json_schema import enum_values
from orchestra.schema.types import Schema, element_type, format_type, subschema, union_members

MAX_DESCRIPTION_LENGTH = 110
"""Maximum characters of a description."""
MAX_LISTED_CHOICES = 4
"""Maximum number of enum values that are listed. The planner need not know the words of larger enums."""
MAX_REQUEST_LENGTH = 8_000
"""Maximum characters of a request that a model is shown. Longer ones are cut in the middle, and their plans are not
cached.
"""
DEFAULT_REQUEST_TOKENS = MAX_REQUEST_LENGTH // 2
"""Maximum tokens of a request if the context size of the planner is unknown."""
MIN_REQUEST_TOKENS = 200
"""Tokens of a request that are always shown."""
OMISSION_MARK = "\n[…]\n"
LOCATION_FIELDS = frozenset({"location", "locations"})
"""Fields that a record of the package has for the reader of an answer. No plan reads them, so they are not shown."""
_WORDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "null"}


def capability_lines(offered: Iterable[Capability]) -> str:
    """Formats capabilities, one per line: `search(query: str, top?: int) -> list[{source, text}]: The passages that
    answer a query best.`
    """
    return "\n".join(map(capability_line, offered))


def capability_line(capability: Capability) -> str:
    """Formats one capability."""
    argument_text = ", ".join(
        f"{name}{'' if name in capability.required else '?'}: {type_text(schema)}"
        for name, schema in capability.fields.items()
    )
    description = first_sentence(capability.description)
    signature = f"{capability.name}({argument_text}) -> {type_text(capability.output, inside=True)}"
    return f"{signature}: {description}" if description else signature


def value_lines(given: Mapping[str, Schema]) -> str:
    """Formats the available values, one per line: `input.question: str`."""
    return "\n".join(f"{INPUT}.{name}: {type_text(schema, inside=True)}" for name, schema in given.items())


def type_text(schema: Schema, *, inside: bool = False) -> str:
    """Formats a type briefly. With `inside`, a record is shown with its field names, which can be referenced."""
    names = list(dict.fromkeys(_branch_text(subschema(schema, branch), inside) for branch in union_members(schema)))
    return " | ".join([*(name for name in names if name != "null"), *(name for name in names if name == "null")])


def _branch_text(schema: Schema, inside: bool) -> str:
    if (values := enum_values(schema)) is not None:
        is_short_list = (
            not inside and len(values) <= MAX_LISTED_CHOICES and all(isinstance(value, str) for value in values)
        )
        return (
            format_type(schema) if is_short_list else " | ".join(dict.fromkeys(_value_type(value) for value in values))
        )
    if schema.get("type") == "array" and isinstance(inner := element_type(schema), dict):
        return f"list[{type_text(inner, inside=inside)}]"
    if inside and schema.get("type") == "object" and schema.get("properties"):
        return f"{{{', '.join(name for name in schema['properties'] if name not in LOCATION_FIELDS)}}}"
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
    """The first sentence of a description, on one line."""
    line = " ".join(text.split())
    first, stop, _ = line.partition(". ")
    first += "." if stop else ""
    return first if len(first) <= MAX_DESCRIPTION_LENGTH else first[: MAX_DESCRIPTION_LENGTH - 1] + "…"


def estimate_tokens(text: str) -> int:
    """Approximate upper bound of the tokens of a text: one for two ASCII letters, digits or spaces, and one for each
    other byte. Byte-level tokenizers, such as those of small models, have no token shorter than a byte.
    """
    plain = sum(_is_plain(char) for char in text)
    return len(text.encode("utf-8", "surrogatepass")) - plain // 2


def truncate(text: str, max_tokens: int) -> str:
    """Truncates a text to this many tokens, in the middle."""
    if estimate_tokens(text) <= max_tokens:
        return text
    half = (max_tokens - estimate_tokens(OMISSION_MARK)) / 2
    return f"{_prefix(text, half)}{OMISSION_MARK}{_prefix(text[::-1], half)[::-1]}"


def _prefix(text: str, max_share: float) -> str:
    for place, char in enumerate(text):
        max_share -= 0.5 if _is_plain(char) else len(char.encode("utf-8", "surrogatepass"))
        if max_share < 0:
            return text[:place]
    return text


def _is_plain(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char.isspace())
