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

from orchestra.agents.inference.word_problems.solver import MAX_NUMBERS, MAX_STEPS, OPERATIONS
from orchestra.text.arithmetic import MAX_LENGTH, ArithmeticParseError, evaluate

_SUM, _PRODUCT = "+-", "*/"


class DerivationStep(NamedTuple):
    """Two quantities put together."""

    left: int
    right: int
    operation: int
    is_last: bool
    """Whether what comes out answers."""


@dataclass(slots=True)
class _Term:
    """A part of a sum or a product: added or taken away; a number, another group, or what was put together of this one."""

    is_added: bool
    key: str
    quantities: tuple[int, ...] = ()
    """Which quantities have its value, once there are some."""


@dataclass(slots=True)
class _Group:
    """A sum or a product, what it is called, and its parts that are left."""

    key: str
    operators: str
    terms: list[_Term]


class _StepEffect(NamedTuple):
    """What a step does to a group."""

    group: _Group
    first: _Term
    second: _Term
    is_added: bool


class Derivation:
    """An expression that is being derived."""

    def __init__(self, expression: str, places: Mapping[Fraction, Sequence[int]]) -> None:
        """`places` are the quantities of each value. Raises `ArithmeticParseError` for an expression that cannot come about over them."""
        self._groups: dict[str, _Group] = {}
        self._quantities: dict[str, tuple[int, ...]] = {}
        self._given_quantities = places
        if len(expression) > MAX_LENGTH:
            raise ArithmeticParseError(f"an expression of {len(expression)} characters")
        tree = ast.parse(expression, mode="eval").body
        if sum(isinstance(node, ast.Constant) for node in ast.walk(tree)) > MAX_NUMBERS:
            raise ArithmeticParseError(f"an expression of more than {MAX_NUMBERS} numbers")
        self._root = self._add_expression(tree)
        self.step_count = sum(len(group.terms) - 1 for group in self._groups.values())
        if self.step_count > MAX_STEPS:
            raise ArithmeticParseError(f"{expression} takes more than {MAX_STEPS} steps")

    @property
    def direct_answers(self) -> tuple[int, ...]:
        """The quantities that are the answer as they are; none where steps are needed."""
        return self._quantities.get(self._root, ()) if not self._groups else ()

    @property
    def is_done(self) -> bool:
        """Whether the answer is there."""
        return self._root in self._quantities

    def correct_steps(self) -> dict[DerivationStep, _StepEffect]:
        """The steps that are right now, and what each does."""
        found: dict[DerivationStep, _StepEffect] = {}
        for group in self._groups.values():
            for first, second in combinations(group.terms, 2):
                for step, plus in self._combining_steps(group, first, second):
                    found[step] = _StepEffect(group, first, second, plus)
        return found

    def apply(self, effect: _StepEffect, position: int) -> None:
        """Goes on after a step, whose result stands at a place."""
        group = effect.group
        group.terms = [part for part in group.terms if part is not effect.first and part is not effect.second]
        if group.terms:
            group.terms.append(_Term(effect.is_added, "", (position,)))
        else:
            self._quantities[group.key] = (position,)
            del self._groups[group.key]

    def _combining_steps(self, group: _Group, first: _Term, second: _Term) -> Iterator[tuple[DerivationStep, bool]]:
        """The steps that put two parts of a group together, and whether what comes out is added."""
        if not first.is_added and second.is_added:
            first, second = second, first
        sign = group.operators[0] if first.is_added == second.is_added else group.operators[1]
        if len(group.terms) == 2 and not first.is_added:
            return  # less than nothing: what there is of it is found otherwise
        operation, last = OPERATIONS.index(sign), group.key == self._root and len(group.terms) == 2
        turned = sign != group.operators[0] and sum(part.is_added for part in group.terms) > 1
        for left in self._quantities_of(first):
            for right in self._quantities_of(second):
                if sign == group.operators[0]:
                    yield DerivationStep(min(left, right), max(left, right), operation, last), first.is_added
                elif left != right:
                    yield DerivationStep(left, right, operation, last), first.is_added
                    if turned:  # `9-(5-2)`, which is 9, less 5, and 2 more: 5 less 2 is taken away
                        yield DerivationStep(right, left, operation, False), False

    def _quantities_of(self, part: _Term) -> tuple[int, ...]:
        return part.quantities or self._quantities.get(part.key, ())

    def _add_expression(self, node: ast.expr) -> str:
        """The key of a part of the tree, which is known from then on."""
        if isinstance(node, ast.Constant):
            value = evaluate(ast.unparse(node))
            found = tuple(self._given_quantities.get(value, ()))
            if not found:
                raise ArithmeticParseError(f"{value} is not told")
            self._quantities[key := str(value)] = found
            return key
        signs = _operators(node)
        parts = [_Term(plus, self._add_expression(part)) for plus, part in _flatten(node, signs, True)]
        if len(parts) == 2 and not parts[1].is_added and parts[0].key == parts[1].key and len(self._quantities_of(parts[0])) < 2:
            raise ArithmeticParseError(f"{ast.unparse(node)} is nothing, or one")
        key = f"({signs}{''.join(sorted(f'{signs[not part.is_added]}{part.key}' for part in parts))})"
        self._groups.setdefault(key, _Group(key, signs, parts))
        return key


def _operators(node: ast.expr) -> str:
    match node:
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return _SUM
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            return _PRODUCT
        case _:
            raise ArithmeticParseError(f"{type(node).__name__} is no step")


def _flatten(node: ast.expr, signs: str, plus: bool) -> Iterator[tuple[bool, ast.expr]]:
    """The parts of a sum, or a product, with those of sums in it."""
    if isinstance(node, ast.BinOp) and _operators(node) == signs:
        yield from _flatten(node.left, signs, plus)
        yield from _flatten(node.right, signs, plus == isinstance(node.op, ast.Add | ast.Mult))
    else:
        yield plus, node
