"""Answers with a scale, as TAT-QA compares them: 1.5 million is 1,500 thousand, and 17.7 percent is 0.177.

After the official metric, `tatqa_metric.py` of https://github.com/NExTplusplus/TAT-QA (Zhu, Lei, Huang, Wang, Zhang, Lv, Feng, Chua 2021,
*TAT-QA: A Question Answering Benchmark on a Hybrid of Tabular and Textual Content in Finance*, section 5.2).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

SCALES = {"": 1.0, "percent": 0.01, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_NUMBER = re.compile(r"(\()?\s*(-)?\s*[$€£]?\s*(-)?\s*((?:\d[\d,]*)?\.?\d+|\d[\d,]*\.?)\s*(\))?\s*(%)?\s*(\))?")


def parse_amount(value: Any) -> float | None:
    """The number that a financial text is: `$1,452.4` is 1452.4, `(3.1)` is -3.1, `17.7%` is 0.177; None for none and one too large."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    found = _NUMBER.fullmatch(str(value).strip())
    if found is None:
        return None
    opened, before, after, digits, closed, percent, closed_late = found.groups()
    negative = bool(before or after) or bool(opened and (closed or closed_late))
    return (-1.0 if negative else 1.0) * float(digits.replace(",", "")) * (0.01 if percent else 1.0)


def scaled_answers_match(wanted: Any, wanted_scale: str, given: Any, given_scale: str, normal: Callable[[str], str]) -> bool:
    """Whether two answers, each a value or a list of them, say the same with their scales.

    Lists are compared whatever their order. A number counts rounded to two places, times its scale; one with a `%` has that for
    a scale. Texts count in their normal form, with their scale. A bare number without a scale is also right where it is the whole product.
    """
    if given in (None, "", []):
        return False
    bare = parse_amount(given[0] if isinstance(given, list | tuple) else given) if _is_single(given) and not given_scale else None
    whole = None if bare is None else Counter([f"{bare:.4f}"])
    return _canonical_forms(wanted, wanted_scale, normal) in (_canonical_forms(given, given_scale, normal), whole)


def _is_single(value: Any) -> bool:
    return not isinstance(value, list | tuple) or len(value) == 1


def _canonical_forms(answer: Any, scale: str, normal: Callable[[str], str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in answer if isinstance(answer, list | tuple) else [answer]:
        value = parse_amount(one)
        if value is None:
            found[f"{normal(str(one))} {scale}".strip()] += 1
        else:
            found[f"{value if '%' in str(one) else round(value, 2) * SCALES.get(scale, 1.0):.4f}"] += 1
    return found
