"""Exact recomputation of arithmetic."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.text.arithmetic import MAX_SUM, ArithmeticParseError, evaluate, is_close, operands, possible_values


def trees() -> st.SearchStrategy[tuple[str, Fraction | None]]:
    """Draws expressions with their values; None for a division by zero."""
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
def test_evaluate_equals_fractions(tree: tuple[str, Fraction | None]) -> None:
    text, value = tree
    if value is None:
        with pytest.raises(ArithmeticParseError):
            evaluate(text)
    else:
        assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(1,200 - 900) / 900", "1/3"), ("12% * 50", "6"), ("$1,000 × 2", "2000"), ("2^10", "1024"),
        ("max(1, 2, 3) - min(1,2)", "2"), ("mean(1, 2)", "3/2"), ("round(2.345, 2)", "2.35"), ("sum(1, 2, 3)", "6"),
        ("-5 + 3", "-2"), ("7 // 2 + 7 % 2", "4"), ("0.1 + 0.2", "0.3"), ("abs(3 - 5)", "2"), ("100 ÷ 8", "12.5"),
        ("5 − 3", "2"), ("5 – 3", "2"), ("5 ‐ 3", "2"), ("5‑3", "2"), ("5－3", "2"), ("2 ⋅ 3", "6"), ("6 ∕ 4", "3/2"),
        ("２＋３", "5"), ("١٢ + 1", "13"), ("１，２００ × ２", "2400"), ("sum(1,200, 300)", "1500"),
        ("max(1,200, 900)", "1200"),
        ("round(1,234.56, 1)", "1234.6"), ("sum($1,200,300.50, 3)", "1200303.5"), ("max(-1,200, (1,300))", "1300"),
        ("sum(1,200 , 5)", "1205"), ("sum(1,200,300)", "501"), ("max(1, 2,3)", "3"), ("sum(1, 234, 567)", "802"),
        ("max(1,200,5, 7)", "200"), ("max(1.5,200, 3)", "200"), ("sum(1,2000, 3)", "2004"), ("round(2.5)", "3"),
        ("round(-2.5)", "-3"), ("round(3.5)", "4"), ("round(0.125, 2)", "0.13"), ("round(1250, -2)", "1300"),
        ("round(2.4)", "2"), ("round(-2.6)", "-3"), ("round(1 / 3, 2)", "0.33"), ("(1 +\n 2)", "3"),
        ("(1,500\r\n* 2)", "3000"),
    ],
)  # fmt: skip
def test_evaluate_is_exact(text: str, value: str) -> None:
    assert evaluate(text) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "x + 1", "__import__('os').system('true')", "().__class__", "open('a')", "[1, 2]", "1 if 2 else 3",
        "'a' * 3", "1 + True", "9 ** 9 ** 9", "2 ** 0.5", "1 / 0", "1 % 0", "0 ** -1", "1e999", "1j", "lambda: 1",
        "(" * 200 + "1" + ")" * 200, "1 +" * 2000 + "1", "9" * 300, "round(1, 2, 3)", "round(2.345, 0.5)",
        "round(1, 41)", "(" * 65 + "1" + ")" * 65, "1 % + " * 200 + "1", "1 * " * 300 + "1", "-" * 1500 + "1",
        "9" * (MAX_SUM + 1), "round to even(1)", "abs(1, 2)", "max()", "sum(*[1])", "f'{1}'", "1; 2", "a := 1", "1 < 2",
        "~1", "1 @ 2", "\x00",
    ],
)  # fmt: skip
def test_evaluate_refuses_other_syntax(text: str) -> None:
    with pytest.raises(ArithmeticParseError):
        evaluate(text)


@given(st.text(max_size=60))
def test_evaluate_any_text_evaluates_or_is_refused(text: str) -> None:
    try:
        value = evaluate(text)
    except ArithmeticParseError:
        return
    assert isinstance(value, Fraction)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max(100,200, 300)", "100,200 may be one number or several: write 100200, or 100, 200"),
        ("max(1, 200,300)", "write 200300, or 200, 300"), ("sum(100,200,300 , 5)", "write 100200300, or 100, 200, 300"),
        ("max(100,200.5, 300)", "100,200 may be"), ("max(1,000,2,000)", "000 is not a separate number"),
        ("mean(1,000)", "without a comma"),
    ],
)  # fmt: skip
def test_evaluate_ambiguous_comma_is_refused(text: str, says: str) -> None:
    for read in (evaluate, possible_values, operands):
        with pytest.raises(ArithmeticParseError, match=re.escape(says)):
            read(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("sum(150,000, 200,000)", 350_000), ("max($100,200, $300)", 100_200), ("sum(100,050, 5)", 100_055)],
)
def test_evaluate_comma_before_zero_or_after_currency(text: str, value: int) -> None:
    assert evaluate(text) == value


def test_operands_are_numbers_of_expression() -> None:
    assert operands("(5,000 - 1891) / 2") == [Fraction(2), Fraction(5000), Fraction(1891)]


@given(st.fractions(-1000, 1000), st.integers(0, 4))
def test_is_close_within_displayed_precision(exact: Fraction, places: int) -> None:
    step = Fraction(1, 10**places)
    shown = round(exact / step) * step
    assert is_close(shown, step, exact)
    assert not is_close(shown + step * 2, step, exact)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("round(2.5)", (3, 2)),
        ("round(-0.125, 2) * 100", (-13, -12)),
        ("round(3.5)", (4,)),
        ("round(2.4) + 1", (3,)),
        ("5 / 2", (Fraction(5, 2),)),
    ],
)
def test_possible_values_of_half(text: str, values: tuple[Fraction, ...]) -> None:
    assert possible_values(text) == values
    assert evaluate(text) == values[0]


@given(st.fractions(-1000, 1000), st.integers(0, 4))
def test_round_is_nearest(exact: Fraction, places: int) -> None:
    text = f"round({exact.numerator} / {exact.denominator}, {places})"
    assert all(is_close(one, Fraction(1, 10**places), exact) for one in possible_values(text))


@pytest.mark.parametrize("text", ["1 + 2", "-1,234.50 + .5", "(9 * 60 + 15) + 1", "((1 + 2) + (3 + 4))", "1 * 2 * 3"])
def test_evaluate_long_sum_is_accepted(text: str) -> None:
    long = f"({' + '.join(['7'] * 25)})"
    many = f"({' + '.join([long] * 25)})"
    assert len(many) > 2_000
    assert evaluate(f"{many} + {text}") == 4_375 + evaluate(text)
    assert len(operands(many)) == 625
    with pytest.raises(ArithmeticParseError, match="at most 1000"):
        evaluate(f"{many} - {text}")
