"""V0 equivalence: whether two answers are equivalent, by number, date, set or normalized text. No model is called.

Texts are compared as in the SQuAD evaluation (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250): without case,
punctuation and articles; numbers and dates in them compare by value. Lists compare as sets. Records compare field by
field, without the fields that describe the answer itself: quotes beside an answer, expressions, probabilities.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from orchestra.schema.fields import (
    EXPRESSION_FORMAT,
    QUOTE_FORMAT,
    SCORE_FIELDS,
    ValueField,
    is_probability,
    iter_fields,
)
from orchestra.text.numbers import numbers as figures
from orchestra.text.numbers.times import find_times
from orchestra.text.quotes import fold

_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"\w+")


def answer_content(value: Any, schema: Mapping[str, Any]) -> Any:
    """The content of a value: without quotes beside the answer, expressions and probabilities. A record with one
    remaining field becomes that field.
    """
    return _answer_content("", {field.path: field for field in iter_fields(value, schema)})


def _answer_content(path: str, every: Mapping[str, ValueField]) -> Any:
    field = every[path]
    if isinstance(field.value, Mapping):
        inner = {str(name): every[f"{path}.{name}" if path else str(name)] for name in field.value}
        kept = {name: one for name, one in inner.items() if not _is_metadata(one)}
        kept = {name: one for name, one in kept.items() if not _is_quote(one, every)} or kept
        found = {name: _answer_content(one.path, every) for name, one in kept.items()}
        return next(iter(found.values())) if len(found) == 1 else found
    if isinstance(field.value, Sequence) and not isinstance(field.value, str):
        return [_answer_content(f"{path}[{index}]", every) for index in range(len(field.value))]
    return field.value


def _is_metadata(field: ValueField) -> bool:
    if field.name in SCORE_FIELDS and (field.value is None or is_probability(field.value)):
        return True
    return field.name == EXPRESSION_FORMAT or field.has_format(EXPRESSION_FORMAT)


def _is_quote(field: ValueField, every: Mapping[str, ValueField]) -> bool:
    """Whether a field is a quote, or a list of them."""
    if field.has_format(QUOTE_FORMAT):
        return True
    items = (
        [every[f"{field.path}[{index}]"] for index in range(len(field.value))]
        if isinstance(field.value, list | tuple)
        else []
    )
    return bool(items) and all(item.has_format(QUOTE_FORMAT) for item in items)


def is_equivalent(left: Any, right: Any) -> bool:
    """Whether two answers say the same. Symmetric and reflexive."""
    match left, right:
        case None, None:
            return True
        case bool(), bool():
            return left is right
        case bool(), _:
            return False
        case _, bool():
            return False
        case int() | float(), int() | float():
            return left == right or (left != left and right != right)  # NaN equals itself here
        case int() | float(), str():
            return _states_number(left, right)
        case str(), int() | float():
            return _states_number(right, left)
        case str(), str():
            return left == right or _are_equivalent_texts(left, right)
        case Mapping(), Mapping():
            return left.keys() == right.keys() and all(is_equivalent(left[name], right[name]) for name in left)
        case Sequence(), Sequence() if not isinstance(left, str) and not isinstance(right, str):
            return all(any(is_equivalent(one, two) for two in right) for one in left) and all(
                any(is_equivalent(one, two) for one in left) for two in right
            )
        case _:
            return False


def _states_number(number: int | float, text: str) -> bool:
    """Whether a text states exactly one number, and it is this one."""
    found = figures.find_numbers(text, words=True)
    if len(found) != 1 or not math.isfinite(number):
        return False
    exact = Fraction(number) if isinstance(number, int) else Fraction(Decimal(repr(number)))
    return exact == found[0].value or (found[0].uncertain_scale and exact == found[0].plain)


def _are_equivalent_texts(left: str, right: str) -> bool:
    one, two = _NormalizedText(left), _NormalizedText(right)
    return (
        one.words == two.words
        and len(one.times) == len(two.times)
        and all(a.matches(b) and b.matches(a) for a, b in zip(one.times, two.times, strict=True))
        and len(one.days) == len(two.days)
        and len(one.numbers) == len(two.numbers)
        and all(a.matches(b) and b.matches(a) for a, b in zip(one.days, two.days, strict=True))
        and all(
            figures.same_number(a, b) and figures.same_number(b, a)
            for a, b in zip(one.numbers, two.numbers, strict=True)
        )
    )


class _NormalizedText:
    """A text prepared for comparison: its dates, times and numbers, and the remaining words."""

    __slots__ = ("days", "numbers", "times", "words")

    def __init__(self, text: str) -> None:
        self.days = figures.find_dates(text)
        self.times = find_times(text)
        spans = [(day.start, day.start + len(day.text)) for day in self.days] + [
            (time.start, time.end) for time in self.times
        ]
        self.numbers = [
            one
            for one in figures.find_numbers(text, words=True)
            if not any(low <= one.start < high for low, high in spans)
        ]
        spans += [(one.begin, one.begin + len(one.text)) for one in self.numbers]
        rest = list(text)
        for low, high in spans:
            rest[low:high] = " " * (high - low)
        folded = fold("".join(rest)).text
        words = _WORD.findall(folded)
        self.words = (
            tuple(word for word in words if word not in _ARTICLES)
            or tuple(words)
            or ((folded.strip(),) if not spans else ())
        )


def cluster_equivalent(values: Sequence[Any]) -> list[list[int]]:
    """Groups the indices of equivalent values, in the order of the first of each group."""
    found: list[list[int]] = []
    for index, value in enumerate(values):
        for cluster in found:
            if is_equivalent(values[cluster[0]], value):
                cluster.append(index)
                break
        else:
            found.append([index])
    return found
