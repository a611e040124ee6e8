"""Comparison of answers by the official metrics of two benchmarks.

TAT-QA, answers with a scale: 1.5 million is 1,500 thousand, and 17.7 percent is 0.177. After `tatqa_metric.py` of
https://github.com/NExTplusplus/TAT-QA (Zhu, Lei, Huang, Wang, Zhang, Lv, Feng, Chua 2021, *TAT-QA: A Question
Answering Benchmark on a Hybrid of Tabular and Textual Content in Finance*, section 5.2).

Berkeley Function Calling Leaderboard, function calls by name and arguments in any order. After its AST check,
`bfcl_eval/eval_checker/ast_eval/ast_checker.py` of https://github.com/ShishirPatil/gorilla (Patil, Mao, Yan, Ji,
Suresh, Stoica, Gonzalez 2025, *The Berkeley Function Calling Leaderboard*). The expected value is a list of possible
answers, `{function: {argument: [accepted values]}}`; "" among the values means that the argument may be left out. One
thing is simpler here: numbers are compared by their value, while BFCL also compares their types.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SCALES = {"": 1.0, "percent": 0.01, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_NUMBER = re.compile(r"(\()?\s*(-)?\s*[$€£]?\s*(-)?\s*((?:\d[\d,]*)?\.?\d+|\d[\d,]*\.?)\s*(\))?\s*(%)?\s*(\))?")


def parse_amount(value: Any) -> float | None:
    """Returns the number of a financial text: `$1,452.4` is 1452.4, `(3.1)` is -3.1, `17.7%` is 0.177. None if the text
    is not a number, or the number is too large for a float.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    match = _NUMBER.fullmatch(str(value).strip())
    if match is None:
        return None
    opening, before, after, digits, closing, percent, closed_late = match.groups()
    negative = bool(before or after) or bool(opening and (closing or closed_late))
    return (-1.0 if negative else 1.0) * float(digits.replace(",", "")) * (0.01 if percent else 1.0)


def scaled_answers_match(
    wanted: Any, wanted_scale: str, given: Any, given_scale: str, normal: Callable[[str], str]
) -> bool:
    """Returns whether two answers, each a value or a list of values, are equal with their scales.

    Lists are compared without order. A number is rounded to two places and multiplied by its scale; a number with a `%`
    has that as its scale. Texts are compared in normal form, with their scale. A number without a scale is also correct
    if it is the complete product.
    """
    if given in (None, "", []):
        return False
    bare = (
        parse_amount(given[0] if isinstance(given, list | tuple) else given)
        if _is_single(given) and not given_scale
        else None
    )
    counts = None if bare is None else Counter([f"{bare:.4f}"])
    return _canonical_forms(wanted, wanted_scale, normal) in (_canonical_forms(given, given_scale, normal), counts)


def _is_single(value: Any) -> bool:
    return not isinstance(value, list | tuple) or len(value) == 1


def _canonical_forms(answer: Any, scale: str, normal: Callable[[str], str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for item in answer if isinstance(answer, list | tuple) else [answer]:
        value = parse_amount(item)
        if value is None:
            counts[f"{normal(str(item))} {scale}".strip()] += 1
        else:
            counts[f"{value if '%' in str(item) else round(value, 2) * SCALES.get(scale, 1.0):.4f}"] += 1
    return counts


OMITTED_ARGUMENT = ""
"""In the accepted values of an argument: the argument may be left out."""
_IGNORED_CHARACTERS = re.compile(r"[ ,./\-_*^]")
"""Characters that are ignored in texts."""


def calls_match(wanted: Any, given: Any) -> bool:
    """Returns whether calls `{"name", "arguments"}` match the possible answers one to one. If no call is expected, none
    may be given.
    """
    if not isinstance(wanted, list | tuple) or not isinstance(given, list | tuple) or len(wanted) != len(given):
        return False
    fits = [[at for at, call in enumerate(given) if call_matches(possible, call)] for possible in wanted]
    matching: dict[int, int] = {}
    return all(_augment_matching(number, fits, matching, set()) for number in range(len(wanted)))


def call_matches(possible: Any, call: Any) -> bool:
    """Returns whether a call matches a possible answer."""
    if not isinstance(call, Mapping) or not isinstance(possible, Mapping) or len(possible) != 1:
        return False
    (name, arguments), *_ = possible.items()
    return call.get("name") == name and _arguments_match(arguments, call.get("arguments") or {})


def _augment_matching(number: int, fits: Sequence[Sequence[int]], matching: dict[int, int], visited: set[int]) -> bool:
    """Assigns a call to a possible answer, reassigning others if needed (augmenting paths, Kuhn 1955)."""
    for at in fits[number]:
        if at not in visited:
            visited.add(at)
            if at not in matching or _augment_matching(matching[at], fits, matching, visited):
                matching[at] = number
                return True
    return False


def _arguments_match(arguments: Mapping[str, Any], actual: Any) -> bool:
    """Returns whether arguments have only accepted names and values, and all required ones."""
    if not isinstance(actual, Mapping) or actual.keys() - arguments.keys():
        return False
    for name, values in arguments.items():
        options = values if isinstance(values, list | tuple) else [values]
        if not (
            any(_value_matches(option, actual[name]) for option in options)
            if name in actual
            else OMITTED_ARGUMENT in options
        ):
            return False
    return True


def _value_matches(option: Any, actual: Any) -> bool:
    if isinstance(option, bool) or isinstance(actual, bool):
        return option is actual
    match option, actual:
        case int() | float(), int() | float():
            return option == actual or math.isclose(_clamp(option), _clamp(actual), rel_tol=1e-9)
        case str(), str():
            return _normalize(option) == _normalize(actual)
        case list() | tuple(), list() | tuple():
            return len(option) == len(actual) and all(map(_value_matches, option, actual))
        case Mapping(), Mapping():
            return _arguments_match(option, actual)
        case _:
            return bool(option == actual)


def _clamp(value: float) -> float:
    """Returns a number as a float; a number that is too large becomes the largest float."""
    return float(max(-sys.float_info.max, min(sys.float_info.max, value)))


def _normalize(text: str) -> str:
    return _IGNORED_CHARACTERS.sub("", text).lower().replace("'", '"')
