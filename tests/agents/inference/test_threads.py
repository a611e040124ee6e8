"""Tests the number of numpy threads while encoders run."""

from __future__ import annotations

import threading

import pytest

np = pytest.importorskip("numpy")
threadpoolctl = pytest.importorskip("threadpoolctl")

from orchestra.agents.inference.threads import BlasThreads  # noqa: E402


def blas() -> set[int]:
    return {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}


def test_single_thread_context_limits_threads_and_restores_them() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    before, threads = blas(), BlasThreads()
    seen: list[set[int]] = []

    def work() -> None:
        with threads.limit_to_one():
            seen.append(blas())

    with threads.limit_to_one():
        for other in [threading.Thread(target=work) for _ in range(3)]:
            other.start()
            other.join()
        assert blas() == {1}, "others have left, and one is still at it"
    assert seen == [{1}] * 3
    assert blas() == before


def test_single_thread_context_restores_threads_after_error() -> None:
    before, threads = blas(), BlasThreads()
    with pytest.raises(ZeroDivisionError), threads.limit_to_one():
        assert 1 / 0
    assert blas() == before
