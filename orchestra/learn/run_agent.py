"""Concurrent runs of one agent on many inputs, by the ordinary engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from orchestra.app.result import Result
from orchestra.core.errors import FleetError
from orchestra.core.outcomes import FailedOutcome
from orchestra.workflows.python.steps import Step


class RunStarter(Protocol):
    """Starts runs: an `Orchestra`."""

    async def start(self, step: Step[..., Any], /, **inputs: Any) -> _StartedRun:
        """Starts a run of a step."""


class _StartedRun(Protocol):
    def wait(self) -> Awaitable[Result[Any]]:
        """Waits for the end of the run, and returns its result."""


async def run_all(
    runs: RunStarter,
    step: Step[..., Any],
    inputs: Sequence[Mapping[str, Any]],
    concurrency: int,
    on_run_end: Callable[[], None],
) -> list[Result[Any]]:
    """Returns the results in the order of `inputs`; `on_run_end` is called after each run.

    Raises:
        FleetError: No server is available.
        OrchestraError: The first error of `start`.
    """
    slots = asyncio.Semaphore(concurrency)

    async def run_one(row: Mapping[str, Any]) -> Result[Any]:
        async with slots:
            result = await (await runs.start(step, **row)).wait()
        if isinstance(result.outcome, FailedOutcome) and result.outcome.code.startswith("F0"):
            raise FleetError(result.outcome.code, result.outcome.reason, hint=result.outcome.hint)
        on_run_end()
        return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run_one(row)) for row in inputs]
    except ExceptionGroup as several:
        raise several.exceptions[0] from several  # one error is reported, not one for each concurrent run
    return [task.result() for task in tasks]
