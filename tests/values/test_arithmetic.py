"""Arithmetic done again, exactly."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.values.arithmetic import NotArithmetic, close, evaluate, operands


def trees() -> st.SearchStrategy[tuple[str, Fraction | None]]:
    """Expressions with their values; None where they divide by zero."""
    numbers = st.decimals(0, 1000, places=2).map(lambda number: (f"{number:f}", Fraction(number)))

    def joined(parts: st.SearchStrategy[tuple[str, Fraction | None]]) -> st.SearchStrategy[tuple[str, Fraction | None]]:
        return st.tuples(parts, st.sampled_from("+-*/"), parts).map(_apply)

    return st.recursive(numbers, joined, max_leaves=12)


def _apply(parts: tuple[tuple[str, Fraction | None], str, tuple[str, Fraction | None]]) -> tuple[str, Fraction | None]:
    (left, a), sign, (right, b) = parts
    text = f"({left} {sign} {right})"
    if a is None or b is None or (sign == "/" and b == 0):
        return text, None
    return text, {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[sign]


@given(trees())
def test_the_evaluator_agrees_with_fractions(tree: tuple[str, Fraction | None]) -> None:
    text, value = tree
    if value is None:
        with pytest.raises(NotArithmetic):
            evaluate(text)
    else:
        assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(1,200 - 900) / 900", "1/3"), ("12% * 50", "6"), ("$1,000 × 2", "2000"), ("2^10", "1024"), ("max(1, 2, 3) - min(1,2)", "2"),
        ("mean(1, 2)", "3/2"), ("round(2.345, 2)", "2.34"), ("sum(1, 2, 3)", "6"), ("-5 + 3", "-2"), ("7 // 2 + 7 % 2", "4"),
        ("0.1 + 0.2", "0.3"), ("abs(3 - 5)", "2"), ("100 ÷ 8", "12.5"),
    ],
)  # fmt: skip
def test_arithmetic_is_exact(text: str, value: str) -> None:
    assert evaluate(text) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "x + 1", "__import__('os').system('true')", "().__class__", "open('a')", "[1, 2]", "1 if 2 else 3", "'a' * 3", "1 + True",
        "9 ** 9 ** 9", "2 ** 0.5", "1 / 0", "1 % 0", "0 ** -1", "1e999", "1j", "lambda: 1", "(" * 200 + "1" + ")" * 200, "1 +" * 2000 + "1",
        "9" * 300, "round(1, 2, 3)", "abs(1, 2)", "max()", "sum(*[1])", "f'{1}'", "1; 2", "a := 1", "1 < 2", "~1", "1 @ 2", "\x00",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(NotArithmetic):
        evaluate(text)


@given(st.text(max_size=60))
def test_no_text_makes_it_stumble(text: str) -> None:
    with contextlib.suppress(NotArithmetic):
        evaluate(text)


def test_the_operands_are_the_numbers_that_stand_there() -> None:
    assert operands("(5,000 - 1891) / 2") == [Fraction(2), Fraction(5000), Fraction(1891)]


@given(st.fractions(-1000, 1000), st.integers(0, 4))
def test_a_number_rounded_as_it_is_shown_is_close(exact: Fraction, places: int) -> None:
    step = Fraction(1, 10**places)
    shown = round(exact / step) * step
    assert close(shown, step, exact)
    assert not close(shown + step * 2, step, exact)
