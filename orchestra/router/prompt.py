"""What a router reads: one line a skill, one line a value at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestra.router.capabilities import Skill
from orchestra.router.plan_syntax import INPUT
from orchestra.schema.json_schema import choices
from orchestra.schema.types import Schema, branches, elements, show, under

LONGEST = 110
"""Characters of a description."""
FEW = 4
"""Choices that are listed; of more a router need not know the words."""
MAX_REQUEST = 8_000
"""Characters of a request that a model is shown; of a longer one the beginning and the end, and such a one has no intent to be kept."""
MAX_TOKENS = MAX_REQUEST // 2
"""Tokens of a request, where nobody knows how much its planner can read."""
LEAST = 200
"""Tokens of a request that are shown in any case."""
OMITTED = "\n[…]\n"
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


def tokens(text: str) -> int:
    """The tokens of a text, at most, near enough: two letters, digits or spaces of ASCII make one at least, and of all else no byte makes
    more than one. A tokenizer of bytes has no piece that is less than a byte; ours, and those of other small models, are of that kind."""
    plain = sum(_plain(letter) for letter in text)
    return len(text.encode("utf-8", "surrogatepass")) - plain // 2


def cut(text: str, most: int) -> str:
    """A text of so many tokens at most: as it is, or its beginning and its end."""
    if tokens(text) <= most:
        return text
    half = (most - tokens(OMITTED)) / 2
    return f"{_begin(text, half)}{OMITTED}{_begin(text[::-1], half)[::-1]}"


def _begin(text: str, most: float) -> str:
    for place, letter in enumerate(text):
        most -= 0.5 if _plain(letter) else len(letter.encode("utf-8", "surrogatepass"))
        if most < 0:
            return text[:place]
    return text


def _plain(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter.isspace())
