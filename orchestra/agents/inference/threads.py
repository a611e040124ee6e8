"""Threads: limits numpy's matrix products to one thread while encoders run, so that several predictions run in
parallel.

A product split over threads waits for the slowest one. On a machine whose processors also serve models, each of a
hundred products then waits for a processor: 60 rows of `reader` take 32 s on two processors beside a vLLM that way, and
16 s with one thread a product.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class BlasThreads:
    """The thread limit of numpy's libraries: one while a context is active, the previous number afterwards."""

    def __init__(self) -> None:
        import numpy  # noqa: F401 - the controller knows the libraries that are loaded
        from threadpoolctl import ThreadpoolController

        self._controller = ThreadpoolController()
        self._lock = threading.Lock()
        self._active = 0
        self._limit: Any = None
        self._sharing = 0

    @contextmanager
    def limit_to_one(self) -> Iterator[None]:
        """Limits products to one thread until the last active context exits.

        The first and the last context should belong to one thread, because threadpoolctl restores the limit only there.
        """
        with self._lock:
            if not self._active:
                self._limit = self._controller.limit(limits=1, user_api="blas")
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                if not self._active:
                    self._limit.restore_original_limits()

    @contextmanager
    def share_processors(self) -> Iterator[int]:
        """Yields the number of processors that a batch may use: all of them, divided by the batches that are active."""
        with self._lock:
            self._sharing += 1
            share = max(1, processor_count() // self._sharing)
        try:
            yield share
        finally:
            with self._lock:
                self._sharing -= 1


def processor_count() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
