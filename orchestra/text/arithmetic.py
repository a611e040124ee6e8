"""Exact recomputation of arithmetic over fractions. Text is never executed as Python.

An expression is parsed into Python's syntax tree, which is evaluated by a closed `match`: numbers, `+ - * / // % **`,
brackets, and the functions `abs min max sum mean round`, which rounds half away from zero. Everything else is refused,
as is a comma that may separate thousands or arguments, as in `max(100,200, 300)`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import accumulate
from math import floor

from orchestra.text.numbers.numerals import MINUS_SIGNS, to_ascii_digits

MAX_LENGTH = 1_000
"""Maximum length of an expression in characters, except for sums."""
MAX_SUM = 100_000
"""Maximum length of a sum or a mean of figures in characters; more than a readable table has."""
MAX_DEPTH = 64
MAX_BITS = 4_096
MAX_EXPONENT = 256


_OPERATOR_SIGNS = str.maketrans(
    {**dict.fromkeys(MINUS_SIGNS, "-"), **dict.fromkeys("×·⋅∗", "*"), **dict.fromkeys("÷∕", "/"), "[": "(", "]": ")"}
)


class ArithmeticParseError(ValueError):
    """A text that is not an arithmetic expression, or is too large; `args[0]` is the reason."""


_NUMBER = r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_SUM = re.compile(rf"\(*{_NUMBER}(?:\)* [+*] \(*{_NUMBER})*\)*(?: / \d+)?", re.ASCII)
"""A sum of figures, grouped or not, or a mean; times of the day are minutes in brackets. Only brackets nest."""


def evaluate(expression: str) -> Fraction:
    """Returns the exact value of an expression such as `(1,200 - 900) / 900` or `12% * $50`. Raises
    `ArithmeticParseError`.
    """
    tree, lines = _parse(expression)
    return _evaluate(tree, lines, 0)


def possible_values(expression: str) -> tuple[Fraction, ...]:
    """Returns the values that are accepted for an expression, that of `evaluate` first. Raises `ArithmeticParseError`.

    At a half, `round` may round away from zero, as people do, or to the even neighbour, as Python does.
    """
    tree, lines = _parse(expression)
    first = _evaluate(tree, lines, 0)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "round":
            node.id = _ROUND_HALF_EVEN
    return tuple(dict.fromkeys((first, _evaluate(tree, lines, 0))))


def operands(expression: str) -> list[Fraction]:
    """Returns the numbers in an expression. Raises `ArithmeticParseError`."""
    tree, lines = _parse(expression)
    return [_constant(node, lines) for node in ast.walk(tree) if isinstance(node, ast.Constant)]


def _parse(expression: str) -> tuple[ast.expr, list[bytes]]:
    """Returns the syntax tree of an expression, and the lines that its positions refer to."""
    text = _normalize(expression)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ArithmeticParseError(f"{expression[:80]!r} is not an arithmetic expression") from error
    return tree.body, re.split(rb"\r\n|\r|\n", text.encode())


def _normalize(expression: str) -> str:
    """Converts an expression to Python's syntax: signs, thousands, currencies and per cent."""
    length = len(expression)
    if length > MAX_LENGTH and (length > MAX_SUM or _SUM.fullmatch(expression) is None):
        raise ArithmeticParseError(f"an expression of {length} characters; at most {MAX_LENGTH}")
    text = to_ascii_digits(expression.strip()).translate(_OPERATOR_SIGNS).replace("^", "**")
    if not re.search(r"[A-Za-z]", text):  # without a function, a comma between digits separates thousands
        text = re.sub(r"(?<![\d.])(\d{1,3})((?:,\d{3})+)(?![\d,])", _ungroup, text)
    # if arguments are separated by a comma and a space, a comma without a space separates thousands
    elif re.search(r",\s", text):
        text = re.sub(
            r"(?<![\w.,])(?P<money>[$€£¥₹]\s*)?(?P<first>\d{1,3})(?P<rest>(?:,\d{3})+)(?!\d|,\d)",
            _ungroup_argument,
            text,
        )
    text = re.sub(r"[$€£¥₹]\s*(?=[\d.])", "", text)
    text = re.sub(r"(?<!\d)(\d+(?:\.\d+)?|\.\d+)\s*%(?=\s*(?:[-+*/),]|$))", r"(\1/100)", text)
    if _depth(text) > MAX_DEPTH:
        raise ArithmeticParseError(f"brackets nested deeper than {MAX_DEPTH}")
    return text


def _ungroup(found: re.Match[str]) -> str:
    return found[0].replace(",", "")


def _ungroup_argument(found: re.Match[str]) -> str:
    """Converts a number with thousands among the arguments of a function. `1,200` and `100,000` are numbers; `100,200`
    may be two arguments.
    """
    if len(found["first"]) == 3 and not found["money"] and ",0" not in found["rest"]:
        plain, apart = _ungroup(found), found[0].replace(",", ", ")
        raise ArithmeticParseError(f"{found[0]} may be one number or several: write {plain}, or {apart}")
    return _ungroup(found)


def _depth(text: str) -> int:
    """Returns the maximum nesting of brackets."""
    return max(accumulate(1 if sign == "(" else -1 for sign in text if sign in "()"), default=0)


def _evaluate(node: ast.expr, lines: list[bytes], depth: int) -> Fraction:
    if depth > MAX_DEPTH:
        raise ArithmeticParseError(f"nested deeper than {MAX_DEPTH}")
    match node:
        case ast.Constant():
            return _constant(node, lines)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_evaluate(inner, lines, depth + 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _evaluate(inner, lines, depth + 1)
        case ast.BinOp(left=left, op=operator, right=right):
            return _check_size(_apply(operator, _evaluate(left, lines, depth + 1), _evaluate(right, lines, depth + 1)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS and arguments:
            return _check_size(_FUNCTIONS[name]([_evaluate(item, lines, depth + 1) for item in arguments]))
        case _:
            raise ArithmeticParseError(f"{type(node).__name__} is not allowed in arithmetic")


def _constant(node: ast.Constant, lines: list[bytes]) -> Fraction:
    """Returns the number as written; a float would lose digits."""
    if isinstance(node.value, bool | complex | str | bytes) or node.value is None or node.value is ...:
        raise ArithmeticParseError(f"{str(node.value)[:40]!r} is not a number")
    written = lines[node.lineno - 1][node.col_offset : node.end_col_offset].decode()
    if re.fullmatch(r"0[\d_]+", written):  # in `max(1,000,2,000)`, which has no argument 0
        raise ArithmeticParseError(f"{written[:40]} is not a separate number: write thousands without a comma")
    try:
        number = Decimal(written)
    except InvalidOperation as error:
        raise ArithmeticParseError(f"{written[:40]!r} is not a decimal number") from error
    if not number.is_finite() or abs(number.adjusted()) > MAX_EXPONENT or len(written) > MAX_EXPONENT:
        raise ArithmeticParseError(f"{written[:40]} is out of range")
    return Fraction(number)


def _apply(operator: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div() | ast.FloorDiv() | ast.Mod() if right == 0:
            raise ArithmeticParseError("a division by zero")
        case ast.Div():
            return left / right
        case ast.FloorDiv():
            return Fraction(left // right)
        case ast.Mod():
            return left % right
        case ast.Pow():
            return _power(left, right)
        case _:
            raise ArithmeticParseError(f"{type(operator).__name__} is not allowed in arithmetic")


def _power(left: Fraction, right: Fraction) -> Fraction:
    if right.denominator != 1 or abs(right) > MAX_EXPONENT:
        raise ArithmeticParseError("an exponent must be a whole number of at most 256")
    if left == 0 and right < 0:
        raise ArithmeticParseError("a division by zero")
    if (left.numerator.bit_length() + left.denominator.bit_length()) * abs(right) > 4 * MAX_BITS:
        raise ArithmeticParseError("a power that is too large")
    return left ** int(right)


def _check_size(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
        raise ArithmeticParseError("a number that is too large")
    return number


def _round_half_away(arguments: Sequence[Fraction]) -> Fraction:
    """Rounds to a number of places, half away from zero."""
    number, unit = _rounding_unit(arguments)
    size = floor(abs(number) / unit + Fraction(1, 2)) * unit
    return size if number >= 0 else -size


def _round_half_even(arguments: Sequence[Fraction]) -> Fraction:
    number, unit = _rounding_unit(arguments)
    return round(number / unit) * unit


def _rounding_unit(arguments: Sequence[Fraction]) -> tuple[Fraction, Fraction]:
    """Returns the argument of `round`, and the unit of its last place."""
    number, places = arguments[0], arguments[1] if len(arguments) > 1 else Fraction(0)
    if abs(places) > 40 or places.denominator != 1 or len(arguments) > 2:
        raise ArithmeticParseError("round takes a number and a whole number of at most 40 places")
    return number, Fraction(10) ** -int(places)


def _absolute(arguments: Sequence[Fraction]) -> Fraction:
    if len(arguments) != 1:
        raise ArithmeticParseError("abs takes one number")
    return abs(arguments[0])


_ROUND_HALF_EVEN = "round to even"
"""A function name that cannot occur in an expression."""
_FUNCTIONS: dict[str, Callable[[Sequence[Fraction]], Fraction]] = {
    "abs": _absolute,
    "min": min,
    "max": max,
    "sum": lambda arguments: sum(arguments, Fraction(0)),
    "mean": lambda arguments: sum(arguments, Fraction(0)) / len(arguments),
    "round": _round_half_away,
    _ROUND_HALF_EVEN: _round_half_even,
}


def format_fraction(value: Fraction) -> str:
    """Formats a value with twelve digits, like `%.12g`, for any size."""
    try:
        return f"{float(value):.12g}"
    except OverflowError:
        return f"{Decimal(value.numerator) / Decimal(value.denominator):.12g}"


def is_close(shown: Fraction, step: Fraction, exact: Fraction) -> bool:
    """Returns whether a displayed number equals an exact one within its precision: half a unit (`step`) of its last
    place.
    """
    return abs(shown - exact) <= step / 2
