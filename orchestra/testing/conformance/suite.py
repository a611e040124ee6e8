"""Conformance tests of journals, for authors of a journal with a storage of their own.

    from orchestra.testing.conformance.suite import CONFORMANCE_TESTS, ConformanceTest

    @pytest.mark.parametrize("test", CONFORMANCE_TESTS, ids=lambda test: test.name)
    def test_my_journal(test: ConformanceTest, tmp_path: Path) -> None:
        asyncio.run(test.run(lambda: MyJournal.open(tmp_path / "journal")))

Each test needs an empty store and opens it several times; each opening represents a process. A failing test raises
`AssertionError` with the actual and the expected result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from orchestra.testing.conformance import inbox, log
from orchestra.testing.conformance.model import ConformanceStep, random_steps, run_steps
from orchestra.testing.conformance.scenarios import OpenJournal

__all__ = ["CONFORMANCE_TESTS", "ConformanceStep", "ConformanceTest", "OpenJournal", "random_steps", "run_steps"]

TIMEOUT_SECONDS = 60.0
"""Timeout of a test in seconds."""


@dataclass(frozen=True)
class ConformanceTest:
    """A statement about journals and its test."""

    name: str
    body: Callable[[OpenJournal], Coroutine[Any, Any, None]]

    async def run(self, open_journal: OpenJournal) -> None:
        """Runs the test on the journal that `open_journal` opens. Raises `AssertionError` if it fails."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self.body(open_journal)
        except TimeoutError as error:
            raise AssertionError(f"{self.name}: no result within {TIMEOUT_SECONDS:g} seconds") from error


CONFORMANCE_TESTS = tuple(ConformanceTest(proof.__name__, proof) for proof in (*log.LOG_TESTS, *inbox.INBOX_TESTS))
"""All conformance tests."""
