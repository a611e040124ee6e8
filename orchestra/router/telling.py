"""What a router reads: one line a skill, one line a value at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestra.router.notation import INPUT
from orchestra.router.offer import Skill
from orchestra.values.schema import choices
from orchestra.values.types import Schema, branches, elements, show, under

LONGEST = 110
"""Characters of a description."""
FEW = 4
"""Choices that are listed; of more a router need not know the words."""
MAX_REQUEST = 8_000
"""Characters of a request that a model is shown; of a longer one the beginning and the end, and such a one has no intent to be kept."""
_WORDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "null"}


def skills(offered: Iterable[Skill]) -> str:
    """Skills, one a line: `search(query: str, top?: int) -> list[{source, text}]: The passages that answer a query best.`"""
    return "\n".join(map(line, offered))


def line(skill: Skill) -> str:
    """One of them."""
    taken = ", ".join(f"{name}{'' if name in skill.required else '?'}: {kind(schema)}" for name, schema in skill.fields.items())
    said = sentence(skill.description)
    return f"{skill.name}({taken}) -> {kind(skill.output, inside=True)}{': ' + said if said else ''}"


def values(given: Mapping[str, Schema]) -> str:
    """The values at hand, one a line: `input.question: str`."""
    return "\n".join(f"{INPUT}.{name}: {kind(schema, inside=True)}" for name, schema in given.items())


def kind(schema: Schema, *, inside: bool = False) -> str:
    """A type in few words; with `inside` a record is told by the names of its fields, so that one sees what can be referred to."""
    names = list(dict.fromkeys(_one(under(schema, one), inside) for one in branches(schema)))
    return " | ".join([*(name for name in names if name != "null"), *(name for name in names if name == "null")])


def _one(schema: Schema, inside: bool) -> str:
    if (values := choices(schema)) is not None:
        few = not inside and len(values) <= FEW and all(isinstance(one, str) for one in values)
        return show(schema) if few else " | ".join(dict.fromkeys(_of_value(one) for one in values))
    if schema.get("type") == "array" and isinstance(inner := elements(schema), dict):
        return f"list[{kind(inner, inside=inside)}]"
    if inside and schema.get("type") == "object" and schema.get("properties"):
        return f"{{{', '.join(schema['properties'])}}}"
    return _WORDS.get(str(schema.get("type")), "") or show(schema)


def _of_value(value: object) -> str:
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


def sentence(text: str) -> str:
    """The first sentence of a description, in one line."""
    line = " ".join(text.split())
    first, stop, _ = line.partition(". ")
    first += "." if stop else ""
    return first if len(first) <= LONGEST else first[: LONGEST - 1] + "…"
