"""How many cases the long property tests take: all of them by `make attacks`, a part of them in CI's slow suite."""

from __future__ import annotations

import os

FULL = bool(os.environ.get("ORCHESTRA_TEST_FULL"))


def sample_size(number: int, part: int = 5) -> int:
    """All cases where `ORCHESTRA_TEST_FULL` is set, and one in `part` elsewhere."""
    return number if FULL else number // part
