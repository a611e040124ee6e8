"""Metrics of the benchmarks: SQuAD's exact match and token F1 (https://arxiv.org/abs/1606.05250, section 5; its official script)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.learn.metrics import normal as squad_normalize
from orchestra.learn.metrics import token_f1

__all__ = ["squad_normalize", "squad_scores", "token_f1"]


def squad_scores(gold: Sequence[str], given: str | None) -> tuple[float, float]:
    """Exact match and F1 against the best gold answer. No gold answer: only None or an empty text is right."""
    answer = given or ""
    if not gold or not squad_normalize(answer):
        same = float(not gold and not squad_normalize(answer))
        return same, same
    return max(float(squad_normalize(one) == squad_normalize(answer)) for one in gold), max(token_f1(one, answer) for one in gold)
