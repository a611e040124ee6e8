"""Latency and fault draws shared by the mock server and the benchmark clients.

Every draw depends only on (seed, key, salt), never on arrival order, so a client can compute
the critical path of a DAG from exactly the latencies that the server will inject.
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b
from statistics import NormalDist

_N = NormalDist()


def uniform(seed: int, key: str, salt: str = "") -> float:
    h = blake2b(f"{seed}|{key}|{salt}".encode(), digest_size=8).digest()
    return (int.from_bytes(h, "big") + 0.5) / 2**64


@lru_cache(maxsize=1 << 17)
def lognormal(seed: int, key: str, mean: float, sigma: float = 0.6) -> float:
    """Lognormal with the given arithmetic mean (same unit as mean)."""
    return math.exp(math.log(mean) - sigma * sigma / 2 + sigma * _N.inv_cdf(uniform(seed, key, "lat")))


def latency_s(spec: str, seed: int, key: str) -> float:
    """spec: 'fixed:20' or 'lognormal:50' or 'lognormal:50:0.6' (milliseconds)."""
    kind, *a = spec.split(":")
    if kind == "fixed":
        return float(a[0]) / 1e3
    if kind == "lognormal":
        return lognormal(seed, key, float(a[0]), float(a[1]) if len(a) > 1 else 0.6) / 1e3
    raise ValueError(spec)
