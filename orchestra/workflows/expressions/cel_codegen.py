"""Trees written as CEL that evaluates fast: paths become variables of their own, with the types that CEL can hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from orchestra.schema.json_schema import Schema, union_members
from orchestra.workflows.expressions.cel_values import cel_type
from orchestra.workflows.expressions.parser import (
    KEYWORDS,
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
    CelTree,
    CelUnary,
    children,
    to_cel_literal,
)
from orchestra.workflows.expressions.type_checker import TypeChecker, value_kinds

_PRECEDENCE = {"==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "in": 4, "+": 5, "-": 5, "*": 6, "/": 6, "%": 6}
_ATOM_PRECEDENCE = 9


class CelVariable(msgspec.Struct, frozen=True):
    """A variable of CEL, `v0`, `v1`, ...: a tree that is evaluated beforehand, and its declared type."""

    tree: CelTree
    schema: Schema
    type: str


@dataclass
class CelWriter:
    """Writes one checked tree. With `hoist`, the outermost `map` and `filter` are slots too: CEL needs quadratic time for them."""

    checker: TypeChecker
    hoist: bool = False
    variables: list[CelVariable] = field(default_factory=list)
    _variable_names: dict[Any, str] = field(default_factory=dict)
    _macro_depth: int = 0

    def write(self, tree: CelTree) -> str:
        """The text of the tree, over the slots."""
        return self._write_tree(tree)[0]

    def _write_part(self, tree: CelTree, precedence: int) -> str:
        text, own = self._write_tree(tree)
        return text if own >= precedence else f"({text})"

    def _schema(self, tree: CelTree) -> Schema:
        return self.checker.schemas[id(tree)]

    def _write_tree(self, tree: CelTree) -> tuple[str, int]:
        match tree:
            case CelLiteral(value):
                return to_cel_literal(value), _ATOM_PRECEDENCE if not isinstance(
                    value, int | float
                ) or value >= 0 else 7
            case CelName() | CelSelect() | CelIndex():
                return self._write_path(tree), _ATOM_PRECEDENCE
            case CelCall(name, of, args):
                return self._write_call(name, of, args), _ATOM_PRECEDENCE
            case CelMacro():
                return self._write_macro(tree), _ATOM_PRECEDENCE
            case CelUnary(op, of):
                return f"{op}{self._write_part(of, _ATOM_PRECEDENCE)}", 7
            case CelBinary(op, left, right):
                rank = _PRECEDENCE[op]
                return f"{self._write_part(left, rank)} {op} {self._write_part(right, rank + 1)}", rank
            case CelLogic(op, items):
                rank = 2 if op == "||" else 3
                return f" {op} ".join(self._write_part(one, rank + 1) for one in items), rank
            case CelConditional(test, then, otherwise):
                first, second = self._write_uniform((then, otherwise))
                return f"{self._write_part(test, 2)} ? {first} : {second}", 1
            case CelList(items):
                return f"[{', '.join(self._write_uniform(items, mixed=True))}]", _ATOM_PRECEDENCE
            case CelMap(pairs):
                values = self._write_uniform(tuple(value for _, value in pairs), mixed=True)
                keys = [self._write_part(key, 1) for key, _ in pairs]
                return "{" + ", ".join(
                    f"{key}: {value}" for key, value in zip(keys, values, strict=True)
                ) + "}", _ATOM_PRECEDENCE

    def _write_uniform(self, trees: tuple[CelTree, ...], *, mixed: bool = False) -> list[str]:
        """Values of one place: integers become floats beside floats, and what still differs is `dyn` where CEL wants one type."""
        found: set[str] = set()
        for tree in trees:
            found |= value_kinds(self._schema(tree))
        texts = []
        for tree in trees:
            text = self._write_part(tree, 2)
            texts.append(f"double({text})" if "float" in found and value_kinds(self._schema(tree)) == {"int"} else text)
        if mixed or len({self._declared_type(tree) for tree in trees}) == 1:
            return texts
        if found == {"float"} or found == {"float", "int"}:
            return texts
        return [f"dyn({text})" for text in texts]

    def _declared_type(self, tree: CelTree) -> str:
        return cel_type(self._schema(tree))

    def _write_path(self, tree: CelTree) -> str:
        steps: list[CelSelect | CelIndex] = []
        here: CelTree = tree
        while isinstance(here, CelSelect | CelIndex):
            steps.append(here)
            here = here.operand
        if not isinstance(here, CelName):
            text = self._write_part(here, _ATOM_PRECEDENCE)
        elif here.name in self.checker.types or not self._macro_depth:
            text = self._path_variable(here, steps)
        else:
            text = f"x_{here.name}"
        for step in reversed(steps):
            text += self._write_step(step)
        return text

    def _write_step(self, step: CelSelect | CelIndex) -> str:
        match step:
            case CelSelect(_, name):
                return f'["{name}"]' if name in KEYWORDS else f".{name}"
            case CelIndex(_, key):
                return f"[{self._write_part(key, 1)}]"

    def _path_variable(self, root: CelName, steps: list[CelSelect | CelIndex]) -> str:
        """The variable for the longest beginning of a path that cannot fail; what is left stays in `steps`."""
        here: CelTree = root
        while steps and id(here) not in self.checker.narrowed and _is_required_field(self._schema(here), steps[-1]):
            here = steps.pop()
        return self._variable_for(here, self.checker.source(here))

    def _variable_for(self, tree: CelTree, key: Any) -> str:
        schema = self._schema(tree)
        kind = (
            cel_type(schema) if "null" not in value_kinds(schema) and id(tree) not in self.checker.narrowed else "dyn"
        )
        if (key, kind) not in self._variable_names:
            self._variable_names[key, kind] = f"v{len(self.variables)}"
            self.variables.append(CelVariable(tree, schema, kind))
        return self._variable_names[key, kind]

    def _write_call(self, name: str, of: CelTree | None, args: tuple[CelTree, ...]) -> str:
        if name == "has" and isinstance(args[0], CelSelect):
            return f"has({self._write_part(args[0].operand, _ATOM_PRECEDENCE)}.{args[0].name})"
        inner = ", ".join(self._write_part(one, 1) for one in args)
        return f"{name}({inner})" if of is None else f"{self._write_part(of, _ATOM_PRECEDENCE)}.{name}({inner})"

    def _write_macro(self, tree: CelMacro) -> str:
        if self.hoist and not self._macro_depth and is_hoistable(tree, self.checker):
            return self._variable_for(tree, id(tree))
        over = self._write_part(tree.items, _ATOM_PRECEDENCE)
        self._macro_depth += 1
        bodies = ", ".join(self._write_part(body, 1) for body in tree.bodies)
        self._macro_depth -= 1
        return f"{over}.{tree.kind}(x_{tree.variable.name}, {bodies})"


def is_hoistable(tree: CelTree, checker: TypeChecker) -> bool:
    """Whether a tree is a `map` or `filter` of a list that can be run element by element."""
    return (
        isinstance(tree, CelMacro)
        and tree.kind in ("map", "filter")
        and value_kinds(checker.schemas[id(tree.items)]) == {"list"}
        and not any(_has_macro(body) for body in tree.bodies)
    )


def _has_macro(tree: CelTree) -> bool:
    return isinstance(tree, CelMacro) or any(_has_macro(part) for part in children(tree))


def _is_required_field(schema: Schema, step: CelSelect | CelIndex) -> bool:
    """Whether a step to a field always finds it."""
    match step:
        case CelSelect(_, name) | CelIndex(_, CelLiteral(str(name))):
            return all(
                name in part.get("required", ()) and name in part.get("properties", {})
                for part in union_members(schema)
            )
        case _:
            return False
