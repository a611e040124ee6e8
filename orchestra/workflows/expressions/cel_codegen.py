"""Trees written as CEL that evaluates fast: paths become variables of their own, with the types that CEL can hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from orchestra.schema.json_schema import Schema, branches
from orchestra.workflows.expressions.cel_values import declared
from orchestra.workflows.expressions.parser import (
    KEYWORDS,
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
    Select,
    Tree,
    Unary,
    children,
    quoted,
)
from orchestra.workflows.expressions.type_checker import Checker, kinds

_RANKS = {"==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "in": 4, "+": 5, "-": 5, "*": 6, "/": 6, "%": 6}
_ATOM = 9


class Slot(msgspec.Struct, frozen=True):
    """A variable of CEL, `v0`, `v1`, ...: a tree that is evaluated beforehand, and its declared type."""

    tree: Tree
    schema: Schema
    type: str


@dataclass
class Writer:
    """Writes one checked tree. With `hoist`, the outermost `map` and `filter` are slots too: CEL needs quadratic time for them."""

    checker: Checker
    hoist: bool = False
    slots: list[Slot] = field(default_factory=list)
    _known: dict[Any, str] = field(default_factory=dict)
    _inside: int = 0

    def write(self, tree: Tree) -> str:
        """The text of the tree, over the slots."""
        return self._write(tree)[0]

    def _part(self, tree: Tree, rank: int) -> str:
        text, own = self._write(tree)
        return text if own >= rank else f"({text})"

    def _schema(self, tree: Tree) -> Schema:
        return self.checker.schemas[id(tree)]

    def _write(self, tree: Tree) -> tuple[str, int]:
        match tree:
            case Literal(value):
                return quoted(value), _ATOM if not isinstance(value, int | float) or value >= 0 else 7
            case Name() | Select() | Index():
                return self._path(tree), _ATOM
            case Call(name, of, args):
                return self._call(name, of, args), _ATOM
            case Macro():
                return self._macro(tree), _ATOM
            case Unary(op, of):
                return f"{op}{self._part(of, _ATOM)}", 7
            case Binary(op, left, right):
                rank = _RANKS[op]
                return f"{self._part(left, rank)} {op} {self._part(right, rank + 1)}", rank
            case Logic(op, items):
                rank = 2 if op == "||" else 3
                return f" {op} ".join(self._part(one, rank + 1) for one in items), rank
            case Choose(test, then, otherwise):
                first, second = self._alike((then, otherwise))
                return f"{self._part(test, 2)} ? {first} : {second}", 1
            case ListOf(items):
                return f"[{', '.join(self._alike(items, mixed=True))}]", _ATOM
            case MapOf(pairs):
                values = self._alike(tuple(value for _, value in pairs), mixed=True)
                keys = [self._part(key, 1) for key, _ in pairs]
                return "{" + ", ".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True)) + "}", _ATOM

    def _alike(self, trees: tuple[Tree, ...], *, mixed: bool = False) -> list[str]:
        """Values of one place: integers become floats beside floats, and what still differs is `dyn` where CEL wants one type."""
        found: set[str] = set()
        for tree in trees:
            found |= kinds(self._schema(tree))
        texts = []
        for tree in trees:
            text = self._part(tree, 2)
            texts.append(f"double({text})" if "float" in found and kinds(self._schema(tree)) == {"int"} else text)
        if mixed or len({self._declared(tree) for tree in trees}) == 1:
            return texts
        if found == {"float"} or found == {"float", "int"}:
            return texts
        return [f"dyn({text})" for text in texts]

    def _declared(self, tree: Tree) -> str:
        return declared(self._schema(tree))

    def _path(self, tree: Tree) -> str:
        steps: list[Select | Index] = []
        here: Tree = tree
        while isinstance(here, Select | Index):
            steps.append(here)
            here = here.of
        if not isinstance(here, Name):
            text = self._part(here, _ATOM)
        elif here.name in self.checker.types or not self._inside:
            text = self._slot(here, steps)
        else:
            text = f"x_{here.name}"
        for step in reversed(steps):
            text += self._step(step)
        return text

    def _step(self, step: Select | Index) -> str:
        match step:
            case Select(_, name):
                return f'["{name}"]' if name in KEYWORDS else f".{name}"
            case Index(_, key):
                return f"[{self._part(key, 1)}]"

    def _slot(self, root: Name, steps: list[Select | Index]) -> str:
        """The variable for the longest beginning of a path that cannot fail; what is left stays in `steps`."""
        here: Tree = root
        while steps and id(here) not in self.checker.narrowed and _sure(self._schema(here), steps[-1]):
            here = steps.pop()
        return self._variable(here, self.checker.source(here))

    def _variable(self, tree: Tree, key: Any) -> str:
        schema = self._schema(tree)
        kind = declared(schema) if "null" not in kinds(schema) and id(tree) not in self.checker.narrowed else "dyn"
        if (key, kind) not in self._known:
            self._known[key, kind] = f"v{len(self.slots)}"
            self.slots.append(Slot(tree, schema, kind))
        return self._known[key, kind]

    def _call(self, name: str, of: Tree | None, args: tuple[Tree, ...]) -> str:
        if name == "has" and isinstance(args[0], Select):
            return f"has({self._part(args[0].of, _ATOM)}.{args[0].name})"
        inner = ", ".join(self._part(one, 1) for one in args)
        return f"{name}({inner})" if of is None else f"{self._part(of, _ATOM)}.{name}({inner})"

    def _macro(self, tree: Macro) -> str:
        if self.hoist and not self._inside and hoistable(tree, self.checker):
            return self._variable(tree, id(tree))
        over = self._part(tree.of, _ATOM)
        self._inside += 1
        bodies = ", ".join(self._part(body, 1) for body in tree.bodies)
        self._inside -= 1
        return f"{over}.{tree.kind}(x_{tree.variable.name}, {bodies})"


def hoistable(tree: Tree, checker: Checker) -> bool:
    """Whether a tree is a `map` or `filter` of a list that can be run element by element."""
    return (
        isinstance(tree, Macro)
        and tree.kind in ("map", "filter")
        and kinds(checker.schemas[id(tree.of)]) == {"list"}
        and not any(_has_macro(body) for body in tree.bodies)
    )


def _has_macro(tree: Tree) -> bool:
    return isinstance(tree, Macro) or any(_has_macro(part) for part in children(tree))


def _sure(schema: Schema, step: Select | Index) -> bool:
    """Whether a step to a field always finds it."""
    match step:
        case Select(_, name) | Index(_, Literal(str(name))):
            return all(name in part.get("required", ()) and name in part.get("properties", {}) for part in branches(schema))
        case _:
            return False
