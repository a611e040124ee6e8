"""Prints CEL and types as Python code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import assert_never

from orchestra.schema.types import Schema, format_type
from orchestra.workflows.expressions.parser import (
    CelBinary,
    CelCall,
    CelConditional,
    CelIndex,
    CelList,
    CelLiteral,
    CelLogic,
    CelMacro,
    CelMap,
    CelName,
    CelSelect,
    CelSyntaxError,
    CelTree,
    CelUnary,
    parse,
)

_PRECEDENCE = {"==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "+": 5, "-": 5, "*": 6, "/": 6}
_QUOTED_OR_WORD = re.compile(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|\bnull\b|\banything\b")


class NotExpressible(ValueError):
    """An expression that Python cannot express; the argument names the part."""


def python_type(schema: Schema, *, full: bool = False) -> str:
    """Returns the type as Python writes it."""
    return _QUOTED_OR_WORD.sub(
        lambda match: match[1] or {"null": "None"}.get(match[0], "Any"), format_type(schema, full=full)
    )


def cel_to_python(cel: str, lists: Mapping[str, str]) -> str:
    """Returns CEL as Python, or the CEL itself if Python cannot express it. `lists` as in `tree_to_python`."""
    try:
        return tree_to_python(parse(cel), lists)
    except (CelSyntaxError, NotExpressible):
        return cel


def tree_to_python(tree: CelTree, lists: Mapping[str, str], names: Mapping[str, str] | None = None) -> str:
    """Returns a CEL tree as Python. Raises `NotExpressible` if there is no form.

    `lists` maps the nodes under `each` to their lists, such as `readings` or `values(readings)`. `names` maps names to
    other Python expressions, such as `require(draft)` for `draft`.
    """
    return _PythonPrinter(lists, names or {}).render(tree)


class _PythonPrinter:
    """Prints one tree."""

    def __init__(self, lists: Mapping[str, str], names: Mapping[str, str]) -> None:
        self.lists, self.names = lists, names

    def render(self, tree: CelTree) -> str:
        """Returns a tree as Python. Raises `NotExpressible` if there is no form."""
        match tree:
            case CelLiteral(value):
                return repr(value)
            case CelName(name):
                return self.names.get(name, name)
            case CelSelect(of, name):
                return self.select(of, name)
            case CelIndex(of, key):
                return self.index(of, key)
            case CelList(items):
                return "[" + ", ".join(map(self.render, items)) + "]"
            case CelMap(items):
                return "{" + ", ".join(f"{self.render(key)}: {self.render(value)}" for key, value in items) + "}"
            case CelMacro():
                return self.macro(tree)
            case CelCall(name, of, args):
                return self.call(name, of, args)
            case CelUnary(op, of):
                return f"not_({self.render(of)})" if op == "!" else self.negative(of)
            case CelLogic(op, items):
                return f"{'all_of' if op == '&&' else 'any_of'}({', '.join(map(self.render, items))})"
            case CelConditional(test, then, otherwise):
                return self.choose(test, then, otherwise)
            case CelBinary(op, left, right):
                return self.binary(op, left, right)
            case _:
                assert_never(tree)

    def negative(self, of: CelTree) -> str:
        raise NotExpressible(f"-{self.render(of)}")

    def select(self, of: CelTree, name: str) -> str:
        match of:
            case CelName("input"):
                return self.names.get(f"input.{name}", name)
            case CelName(node) if name == "values" and node in self.lists:
                return self.lists[node]
            case _:
                return f"{self.base(of)}.{name}"

    def index(self, of: CelTree, key: CelTree) -> str:
        match key:
            case CelLiteral(str(name)) if name.isidentifier():
                return self.select(of, name)
            case CelBinary("-", CelCall("size", None, (inner_tree,)), CelLiteral(int(back))) if _is_same(
                inner_tree, of
            ):
                return f"{self.base(of)}[-{back}]"
            case _:
                return f"{self.base(of)}[{self.render(key)}]"

    def base(self, tree: CelTree) -> str:
        """Returns the expression before a dot."""
        text = self.render(tree)
        return (
            f"({text})"
            if isinstance(tree, CelBinary | CelUnary)
            or (isinstance(tree, CelLiteral) and not isinstance(tree.value, str))
            else text
        )

    def macro(self, tree: CelMacro) -> str:
        name = tree.variable.name
        over = self.render(tree.items)
        match tree.kind, tree.bodies:
            case "map", (body,):
                return f"map_(lambda {name}: {self.render(body)}, {over})"
            case "map", (test, body):
                return f"map_(lambda {name}: {self.render(body)}, filter_(lambda {name}: {self.render(test)}, {over}))"
            case "filter", (test,):
                return f"filter_(lambda {name}: {self.render(test)}, {over})"
            case _:
                raise NotExpressible(f"{tree.kind}()")

    def call(self, name: str, of: CelTree | None, args: tuple[CelTree, ...]) -> str:
        operands = (of, *args) if of is not None else args
        match name, operands:
            case "size", (items,):
                return f"length({self.render(items)})"
            case "double", (number,):
                # Python mixes integers and floats, so tracing inserts the conversion itself.
                return f"({self.render(number)})" if isinstance(number, CelBinary) else self.render(number)
            case "string", (value,):
                return f"as_text({self.render(value)})"
            case "contains", (text, part) if of is not None:
                return f"contains({self.render(text)}, {self.render(part)})"
            case _:
                raise NotExpressible(f"{name}()")

    def choose(self, test: CelTree, then: CelTree, otherwise: CelTree) -> str:
        match test:
            case CelBinary("!=", value, CelLiteral(None)) if _is_same(value, then):
                return f"or_else({self.render(value)}, {self.render(otherwise)})"
            case _:
                return f"choose({self.render(test)}, {self.render(then)}, {self.render(otherwise)})"

    def binary(self, op: str, left: CelTree, right: CelTree) -> str:
        match op, right:
            case "!=", CelLiteral(None):
                return f"has_value({self.render(left)})"
            case "in", _:
                return f"contains({self.render(right)}, {self.render(left)})"
            case "%", _:
                raise NotExpressible("%")
            case _:
                return f"{self.operand(left, op, right=False)} {op} {self.operand(right, op, right=True)}"

    def operand(self, tree: CelTree, op: str, *, right: bool) -> str:
        text, own_precedence, precedence = self.render(tree), _precedence(tree), _PRECEDENCE[op]
        return (
            f"({text})"
            if own_precedence < precedence or (own_precedence == precedence and (right or precedence == 4))
            else text
        )


def _precedence(tree: CelTree) -> int:
    """Returns the precedence of a tree's Python form."""
    match tree:
        case CelBinary("!=", _, CelLiteral(None)) | CelBinary("in"):
            return 9
        case CelBinary(op):
            return _PRECEDENCE.get(op, 9)
        case CelCall("double", _, (CelBinary(),)):
            return 9
        case CelCall("double", _, (number,)):
            return _precedence(number)
        case _:
            return 9


def _is_same(tree: CelTree, other_tree: CelTree) -> bool:
    """Whether two trees are the same apart from their positions."""
    return without_positions(tree) == without_positions(other_tree)


def without_positions(tree: object) -> object:
    """Returns a tree without positions, for comparison."""
    match tree:
        case tuple():
            return tuple(without_positions(part) for part in tree)
        case CelLiteral(value):
            return CelLiteral, type(value), value
        case (
            CelName()
            | CelSelect()
            | CelIndex()
            | CelCall()
            | CelMacro()
            | CelUnary()
            | CelBinary()
            | CelLogic()
            | CelConditional()
            | CelList()
            | CelMap()
        ):
            parts = (getattr(tree, name) for name in tree.__struct_fields__ if name not in ("start", "end"))
            return (type(tree), *(without_positions(part) for part in parts))
        case _:
            return tree
