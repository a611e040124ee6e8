"""Binomial tails: the probability of few errors, the number of answers that a guarantee needs, and the share of delta
of each test.
"""

from __future__ import annotations

import math
from collections.abc import Callable

FIRST_TEST_SHARE = 0.8
"""Share of delta of the first of several tests of the same rows."""


def binomial_tail(errors: int, accepted: int, alpha: float) -> float:
    """P(Bin(accepted, alpha) <= errors), to about twelve digits.

    Sums terms from `errors` away from the mean until they no longer count, which takes about the square root of
    `accepted` terms.
    """
    if errors < 0:
        return 0.0
    if errors >= accepted:
        return 1.0
    odds = alpha / (1 - alpha)
    if errors < accepted * alpha:
        return min(1.0, _sum_terms(errors, accepted, alpha, lambda k: k / (accepted - k + 1) / odds, -1))
    return max(0.0, 1 - _sum_terms(errors + 1, accepted, alpha, lambda k: (accepted - k) / (k + 1) * odds, 1))


def _sum_terms(first: int, n: int, p: float, ratio: Callable[[int], float], step: int) -> float:
    """Sum of binomial probabilities from `first` on, each `ratio` times the previous one."""
    log = (
        math.lgamma(n + 1)
        - math.lgamma(first + 1)
        - math.lgamma(n - first + 1)
        + first * math.log(p)
        + (n - first) * math.log1p(-p)
    )
    term = total = math.exp(log)
    k = first
    while 0 <= k <= n and term > 1e-17 * total:
        term *= ratio(k)
        total += term
        k += step
    return total


def min_accepted(rate: float, alpha: float, delta: float) -> int:
    """Minimum number of accepted answers that supports the guarantee if this share of them is wrong. `rate` is below
    alpha.
    """

    def supports_guarantee(accepted_count: int) -> bool:
        return binomial_tail(math.ceil(rate * accepted_count), accepted_count, alpha) <= delta

    high = 1
    while not supports_guarantee(high):
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if supports_guarantee(middle) else (middle, high)
    return high


def delta_share(attempt: int) -> float:
    """Share of delta of one test of the same rows: 0.8 for the first, 0.2 / (k (k - 1)) for the k-th.

    The shares sum to 1 for any number of tests. So the probability that one of them yields a false guarantee is at most
    delta (union bound).
    """
    if attempt < 1:
        return 1.0
    return FIRST_TEST_SHARE if attempt == 1 else (1 - FIRST_TEST_SHARE) / (attempt * (attempt - 1))
