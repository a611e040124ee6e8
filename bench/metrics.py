"""Metrics of the benchmarks: SQuAD's exact match and token F1 (https://arxiv.org/abs/1606.05250, section 5; its official script)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence


def squad_normalize(text: str) -> str:
    """SQuAD's normal form: lower case, without punctuation and articles, single spaces."""
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def token_f1(gold: str, given: str) -> float:
    """F1 of the bags of normalised tokens, in [0, 1]; 1 where both are empty."""
    wanted, found = squad_normalize(gold).split(), squad_normalize(given).split()
    if not wanted and not found:
        return 1.0
    return 2 * sum((Counter(wanted) & Counter(found)).values()) / (len(wanted) + len(found))


def squad_scores(gold: Sequence[str], given: str | None) -> tuple[float, float]:
    """Exact match and F1 against the best gold answer. No gold answer: only None or an empty text is right."""
    answer = given or ""
    if not gold or not squad_normalize(answer):
        same = float(not gold and not squad_normalize(answer))
        return same, same
    return max(float(squad_normalize(one) == squad_normalize(answer)) for one in gold), max(token_f1(one, answer) for one in gold)
