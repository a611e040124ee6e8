"""Derivations: in which steps an expression comes about over the numbers of a problem.

Which number is meant where several are equal, which of the steps that can be taken is taken first, and how a sum of three is bracketed, are
not told by an expression, and do not matter. So at each point there is a set of right steps, and one that was taken rules out only what it
has made needless.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

from orchestra.agents.inference.word_problems.solver import NUMBERS, OPERATIONS, STEPS
from orchestra.text.arithmetic import MAX_LENGTH, NotArithmetic, evaluate

_SUM, _PRODUCT = "+-", "*/"


class Step(NamedTuple):
    """Two quantities put together."""

    left: int
    right: int
    operation: int
    last: bool
    """Whether what comes out answers."""


@dataclass(slots=True)
class _Part:
    """A part of a sum or a product: added or taken away; a number, another group, or what was put together of this one."""

    plus: bool
    key: str
    places: tuple[int, ...] = ()
    """Which quantities have its value, once there are some."""


@dataclass(slots=True)
class _Group:
    """A sum or a product, what it is called, and its parts that are left."""

    key: str
    signs: str
    parts: list[_Part]


class _Move(NamedTuple):
    """What a step does to a group."""

    group: _Group
    first: _Part
    second: _Part
    plus: bool


class Derivation:
    """An expression that is being derived."""

    def __init__(self, expression: str, places: Mapping[Fraction, Sequence[int]]) -> None:
        """`places` are the quantities of each value. Raises `NotArithmetic` for an expression that cannot come about over them."""
        self._groups: dict[str, _Group] = {}
        self._places: dict[str, tuple[int, ...]] = {}
        self._leaves = places
        if len(expression) > MAX_LENGTH:
            raise NotArithmetic(f"an expression of {len(expression)} characters")
        tree = ast.parse(expression, mode="eval").body
        if sum(isinstance(node, ast.Constant) for node in ast.walk(tree)) > NUMBERS:
            raise NotArithmetic(f"an expression of more than {NUMBERS} numbers")
        self._root = self._read(tree)
        self.steps = sum(len(group.parts) - 1 for group in self._groups.values())
        if self.steps > STEPS:
            raise NotArithmetic(f"{expression} takes more than {STEPS} steps")

    @property
    def alone(self) -> tuple[int, ...]:
        """The quantities that are the answer as they are; none where steps are needed."""
        return self._places.get(self._root, ()) if not self._groups else ()

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self._root in self._places

    def right(self) -> dict[Step, _Move]:
        """The steps that are right now, and what each does."""
        found: dict[Step, _Move] = {}
        for group in self._groups.values():
            for first, second in combinations(group.parts, 2):
                for step, plus in self._steps(group, first, second):
                    found[step] = _Move(group, first, second, plus)
        return found

    def take(self, move: _Move, place: int) -> None:
        """Goes on after a step, whose result stands at a place."""
        group = move.group
        group.parts = [part for part in group.parts if part is not move.first and part is not move.second]
        if group.parts:
            group.parts.append(_Part(move.plus, "", (place,)))
        else:
            self._places[group.key] = (place,)
            del self._groups[group.key]

    def _steps(self, group: _Group, first: _Part, second: _Part) -> Iterator[tuple[Step, bool]]:
        """The steps that put two parts of a group together, and whether what comes out is added."""
        if not first.plus and second.plus:
            first, second = second, first
        sign = group.signs[0] if first.plus == second.plus else group.signs[1]
        if len(group.parts) == 2 and not first.plus:
            return  # less than nothing: what there is of it is found otherwise
        operation, last = OPERATIONS.index(sign), group.key == self._root and len(group.parts) == 2
        turned = sign != group.signs[0] and sum(part.plus for part in group.parts) > 1
        for left in self._of(first):
            for right in self._of(second):
                if sign == group.signs[0]:
                    yield Step(min(left, right), max(left, right), operation, last), first.plus
                elif left != right:
                    yield Step(left, right, operation, last), first.plus
                    if turned:  # `9-(5-2)`, which is 9, less 5, and 2 more: 5 less 2 is taken away
                        yield Step(right, left, operation, False), False

    def _of(self, part: _Part) -> tuple[int, ...]:
        return part.places or self._places.get(part.key, ())

    def _read(self, node: ast.expr) -> str:
        """The key of a part of the tree, which is known from then on."""
        if isinstance(node, ast.Constant):
            value = evaluate(ast.unparse(node))
            found = tuple(self._leaves.get(value, ()))
            if not found:
                raise NotArithmetic(f"{value} is not told")
            self._places[key := str(value)] = found
            return key
        signs = _signs(node)
        parts = [_Part(plus, self._read(part)) for plus, part in _flat(node, signs, True)]
        if len(parts) == 2 and not parts[1].plus and parts[0].key == parts[1].key and len(self._of(parts[0])) < 2:
            raise NotArithmetic(f"{ast.unparse(node)} is nothing, or one")
        key = f"({signs}{''.join(sorted(f'{signs[not part.plus]}{part.key}' for part in parts))})"
        self._groups.setdefault(key, _Group(key, signs, parts))
        return key


def _signs(node: ast.expr) -> str:
    match node:
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return _SUM
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            return _PRODUCT
        case _:
            raise NotArithmetic(f"{type(node).__name__} is no step")


def _flat(node: ast.expr, signs: str, plus: bool) -> Iterator[tuple[bool, ast.expr]]:
    """The parts of a sum, or a product, with those of sums in it."""
    if isinstance(node, ast.BinOp) and _signs(node) == signs:
        yield from _flat(node.left, signs, plus)
        yield from _flat(node.right, signs, plus == isinstance(node.op, ast.Add | ast.Mult))
    else:
        yield plus, node
