"""Derivations: any order of correct steps gives the value of the expression in the same number of steps; wrong steps
are not offered.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import pytest

from orchestra.agents.inference.word_problems.solver import OPERATIONS, Term
from orchestra.learn.encoders.word_problems import Derivation, DerivationStep
from orchestra.text.arithmetic import ArithmeticParseError, evaluate


def derivation(expression: str, numbers: Sequence[str]) -> Derivation:
    places: dict[Fraction, list[int]] = defaultdict(list)
    for at, number in enumerate(numbers):
        places[Fraction(number)].append(at)
    return Derivation(expression, places)


def derived(expression: str, numbers: Sequence[str], seed: int) -> tuple[Fraction, int]:
    """The value and the number of steps if correct steps are chosen at random."""
    chance, one = random.Random(seed), derivation(expression, numbers)
    board: list[Term | None] = [Term(Fraction(number), number) for number in numbers]
    steps, last = 0, False
    while not one.is_done:
        assert not last
        moves = one.correct_steps()
        step = chance.choice(sorted(moves))
        left, right = board[step.left], board[step.right]
        assert left is not None
        assert right is not None
        board.append(Term.combine(left, OPERATIONS[step.operation], right))
        one.apply(moves[step], len(board) - 1)
        steps, last = steps + 1, step.is_last
    found = board[-1]
    assert last
    assert found is not None
    assert evaluate(found.text) == found.value
    return found.value, steps


@pytest.mark.parametrize(
    ("expression", "numbers", "steps"),
    [
        ("5*4+9", ["5", "4", "9"], 2),
        ("48-5*4-9", ["48", "5", "4", "9"], 3),
        ("48-(5+4)-(9-3)", ["48", "5", "4", "9", "3"], 4),
        ("15*1000/(350+250)", ["350", "250", "15", "1000"], 3),
        ("42/(15*1000/(350+250))", ["350", "250", "15", "42", "1000"], 4),
        ("74-(74-27-2)/3", ["74", "27", "3", "2"], 4),
        ("(74-27)/3+(74-27)*2", ["74", "27", "3", "2"], 4),
        ("74+74-27", ["74", "27"], 2),
        ("8+8", ["8"], 1),
        ("6/6", ["6", "6"], 1),
        ("2*(8+3)-1", ["8", "3", "2", "1"], 3),
        ("10-5-5", ["10", "5"], 2),
        ("3.50*2", ["3.5", "2"], 1),
    ],
)
def test_derivation_any_correct_steps_give_value(expression: str, numbers: list[str], steps: int) -> None:
    assert derivation(expression, numbers).step_count == steps
    assert {derived(expression, numbers, seed) for seed in range(40)} == {(evaluate(expression), steps)}


def test_derivation_single_number_answers_at_each_position() -> None:
    one = derivation("12", ["7", "12", "12"])
    assert one.direct_answers == (1, 2)
    assert one.step_count == 0
    assert derivation("7+12", ["7", "12"]).direct_answers == ()


def test_derivation_allows_equal_numbers_and_either_order() -> None:
    found = derivation("4+4-9", ["9", "4", "4"]).correct_steps()
    plus, minus = OPERATIONS.index("+"), OPERATIONS.index("-")
    assert set(found) == {
        DerivationStep(1, 1, plus, False),
        DerivationStep(1, 2, plus, False),
        DerivationStep(2, 2, plus, False),
        *(
            step for at in (1, 2) for step in (DerivationStep(at, 0, minus, False), DerivationStep(0, at, minus, False))
        ),  # 4-(9-4) as well
    }


def test_derivation_subtracted_parts_first_or_last() -> None:
    plus, minus = OPERATIONS.index("+"), OPERATIONS.index("-")
    found = derivation("48-5-9", ["48", "5", "9"]).correct_steps()
    assert set(found) == {
        DerivationStep(0, 1, minus, False),
        DerivationStep(0, 2, minus, False),
        DerivationStep(1, 2, plus, False),
    }


@pytest.mark.parametrize(
    ("expression", "inner", "sign"), [("9-(5-2)", (1, 2), "-"), ("9/(5/2)", (1, 2), "/"), ("9+5-2", (1, 2), "-")]
)
def test_derivation_brackets_may_come_first(expression: str, inner: tuple[int, int], sign: str) -> None:
    assert (
        DerivationStep(*inner, OPERATIONS.index(sign), False) in derivation(expression, ["9", "5", "2"]).correct_steps()
    )
    assert {derived(expression, ["9", "5", "2"], seed)[0] for seed in range(40)} == {evaluate(expression)}


@pytest.mark.parametrize(
    "expression",
    [
        "(5+4)*(5+4)*(5+4)*(5+4)*(5+4)*(5+4)",
        "+".join(["5"] * 3000),
        "5+6",
        "-5+4",
        "5**4",
        "max(5,4)",
        "(5+4)/(5+4)",
        "5-5",
        "5+4+5+4+5+4+5+4+5+4+5",
    ],
)
def test_derivation_impossible_expression_refused(expression: str) -> None:
    with pytest.raises(ArithmeticParseError):
        derivation(expression, ["5", "4"])
