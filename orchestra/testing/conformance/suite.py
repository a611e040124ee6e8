"""The laws of a journal: what whoever keeps runs in a store of his own lets his tests prove.

    from orchestra.testing.conformance.suite import LAWS, Law

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
    def test_my_journal(law: Law, tmp_path: Path) -> None:
        asyncio.run(law.check(lambda: MyJournal.open(tmp_path / "journal")))

Each law wants a fresh store, and opens it as often as it likes: each opening stands for a process. A law that does not
hold
raises `AssertionError` with what was seen and what should have been.
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
"""Seconds that a law may take; one that waits for ever does not hold."""


@dataclass(frozen=True)
class ConformanceTest:
    """One sentence about journals, and its proof."""

    name: str
    body: Callable[[OpenJournal], Coroutine[Any, Any, None]]

    async def run(self, open_journal: OpenJournal) -> None:
        """Raises `AssertionError` where the law does not hold for the store that `open_journal` opens."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self.body(open_journal)
        except TimeoutError as error:
            raise AssertionError(f"{self.name}: nothing came within {TIMEOUT_SECONDS:g} seconds") from error


CONFORMANCE_TESTS = tuple(ConformanceTest(proof.__name__, proof) for proof in (*log.LOG_TESTS, *inbox.INBOX_TESTS))
"""All laws, to be proven one by one."""
