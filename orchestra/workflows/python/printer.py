"""Expressions and types in Python's words: CEL as a workflow function would write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import assert_never

from orchestra.schema.types import Schema, show
from orchestra.workflows.expressions.parser import (
    Binary,
    Call,
    Choose,
    Index,
    ListOf,
    Literal,
    Logic,
    Macro,
    MapOf,
    Name,
    NotCEL,
    Select,
    Tree,
    Unary,
    parse,
)

_RANK = {"==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "+": 5, "-": 5, "*": 6, "/": 6}
_QUOTED = re.compile(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|\bnull\b|\banything\b")


class Unspoken(ValueError):
    """An expression that Python has no words for; the argument says which part."""


def typed(schema: Schema, *, full: bool = False) -> str:
    """The type as a Python reader would write it."""
    return _QUOTED.sub(lambda match: match[1] or {"null": "None"}.get(match[0], "Any"), show(schema, full=full))


def spoken_cel(cel: str, lists: Mapping[str, str]) -> str:
    """CEL in Python's words; the CEL itself where there are none. `lists` as in `spoken`."""
    try:
        return spoken(parse(cel), lists)
    except (NotCEL, Unspoken):
        return cel


def spoken(tree: Tree, lists: Mapping[str, str], names: Mapping[str, str] | None = None) -> str:
    """A tree of CEL in Python's words. Raises `Unspoken` for what has none.

    `lists` are the nodes under `each`, each with what its list is called, such as `readings` or `values(readings)`; `names` are
    the names that are said otherwise in Python, such as `needed(draft)` for `draft`.
    """
    return _Speaker(lists, names or {}).say(tree)


class _Speaker:
    """Says one tree."""

    def __init__(self, lists: Mapping[str, str], names: Mapping[str, str]) -> None:
        self.lists, self.names = lists, names

    def say(self, tree: Tree) -> str:
        match tree:
            case Literal(value):
                return repr(value)
            case Name(name):
                return self.names.get(name, name)
            case Select(of, name):
                return self.select(of, name)
            case Index(of, key):
                return self.index(of, key)
            case ListOf(items):
                return "[" + ", ".join(map(self.say, items)) + "]"
            case MapOf(items):
                return "{" + ", ".join(f"{self.say(key)}: {self.say(value)}" for key, value in items) + "}"
            case Macro():
                return self.macro(tree)
            case Call(name, of, args):
                return self.call(name, of, args)
            case Unary(op, of):
                return f"not_({self.say(of)})" if op == "!" else self.negative(of)
            case Logic(op, items):
                return f"{'all_of' if op == '&&' else 'any_of'}({', '.join(map(self.say, items))})"
            case Choose(test, then, otherwise):
                return self.choose(test, then, otherwise)
            case Binary(op, left, right):
                return self.binary(op, left, right)
            case _:
                assert_never(tree)

    def negative(self, of: Tree) -> str:
        raise Unspoken(f"-{self.say(of)}")

    def select(self, of: Tree, name: str) -> str:
        match of:
            case Name("input"):
                return self.names.get(f"input.{name}", name)
            case Name(node) if name == "values" and node in self.lists:
                return self.lists[node]
            case _:
                return f"{self.inner(of)}.{name}"

    def index(self, of: Tree, key: Tree) -> str:
        match key:
            case Literal(str(name)) if name.isidentifier():
                return self.select(of, name)
            case Binary("-", Call("size", None, (same,)), Literal(int(back))) if _same(same, of):
                return f"{self.inner(of)}[-{back}]"
            case _:
                return f"{self.inner(of)}[{self.say(key)}]"

    def inner(self, tree: Tree) -> str:
        """What stands before a dot."""
        text = self.say(tree)
        return f"({text})" if isinstance(tree, Binary | Unary) or (isinstance(tree, Literal) and not isinstance(tree.value, str)) else text

    def macro(self, tree: Macro) -> str:
        name = tree.variable.name
        over = self.say(tree.of)
        match tree.kind, tree.bodies:
            case "map", (body,):
                return f"map_(lambda {name}: {self.say(body)}, {over})"
            case "map", (test, body):
                return f"map_(lambda {name}: {self.say(body)}, filter_(lambda {name}: {self.say(test)}, {over}))"
            case "filter", (test,):
                return f"filter_(lambda {name}: {self.say(test)}, {over})"
            case _:
                raise Unspoken(f"{tree.kind}()")

    def call(self, name: str, of: Tree | None, args: tuple[Tree, ...]) -> str:
        given = (of, *args) if of is not None else args
        match name, given:
            case "size", (items,):
                return f"length({self.say(items)})"
            case "double", (number,):
                # Python mixes integers and floats, so the word is written by tracing itself.
                return f"({self.say(number)})" if isinstance(number, Binary) else self.say(number)
            case "string", (value,):
                return f"as_text({self.say(value)})"
            case "contains", (text, part) if of is not None:
                return f"contains({self.say(text)}, {self.say(part)})"
            case _:
                raise Unspoken(f"{name}()")

    def choose(self, test: Tree, then: Tree, otherwise: Tree) -> str:
        match test:
            case Binary("!=", value, Literal(None)) if _same(value, then):
                return f"or_else({self.say(value)}, {self.say(otherwise)})"
            case _:
                return f"choose({self.say(test)}, {self.say(then)}, {self.say(otherwise)})"

    def binary(self, op: str, left: Tree, right: Tree) -> str:
        match op, right:
            case "!=", Literal(None):
                return f"present({self.say(left)})"
            case "in", _:
                return f"contains({self.say(right)}, {self.say(left)})"
            case "%", _:
                raise Unspoken("%")
            case _:
                return f"{self.side(left, op, right=False)} {op} {self.side(right, op, right=True)}"

    def side(self, tree: Tree, op: str, *, right: bool) -> str:
        text, own, rank = self.say(tree), _rank(tree), _RANK[op]
        return f"({text})" if own < rank or (own == rank and (right or rank == 4)) else text


def _rank(tree: Tree) -> int:
    """How tightly the Python words of a tree hold together."""
    match tree:
        case Binary("!=", _, Literal(None)) | Binary("in"):
            return 9
        case Binary(op):
            return _RANK.get(op, 9)
        case Call("double", _, (Binary(),)):
            return 9
        case Call("double", _, (number,)):
            return _rank(number)
        case _:
            return 9


def _same(one: Tree, other: Tree) -> bool:
    """Whether two trees say the same, wherever they stand."""
    return shape(one) == shape(other)


def shape(tree: object) -> object:
    """A tree without its places, to be compared."""
    match tree:
        case tuple():
            return tuple(shape(part) for part in tree)
        case Literal(value):
            return Literal, type(value), value
        case Name() | Select() | Index() | Call() | Macro() | Unary() | Binary() | Logic() | Choose() | ListOf() | MapOf():
            parts = (getattr(tree, name) for name in tree.__struct_fields__ if name not in ("at", "end"))
            return (type(tree), *(shape(part) for part in parts))
        case _:
            return tree
