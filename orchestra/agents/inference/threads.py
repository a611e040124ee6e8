"""Threads: while encoders work in this process, a product of numpy's takes one of them, and several predictions go side
by
side.

A product that is cut into pieces is done when the last of them is, and on a machine whose processors also serve models
that piece waits for its turn at each of a hundred products: of `reader` 60 rows take 32 s so on two processors beside a
vLLM, and 16 s in this way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class BlasThreads:
    """How many threads the libraries behind numpy take: one while anybody is inside, whatever was set before again once
    nobody is.
    """

    def __init__(self) -> None:
        import numpy  # noqa: F401 - the controller knows the libraries that are loaded
        from threadpoolctl import ThreadpoolController

        self._controller = ThreadpoolController()
        self._lock = threading.Lock()
        self._active = 0
        self._limit: Any = None

    @contextmanager
    def limit_to_one(self) -> Iterator[None]:
        """One thread a product, until the last who asked for it is done. Whoever is first and last should be of one
        thread: threadpoolctl lets no other put back what was.
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
