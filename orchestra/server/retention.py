"""Retention: runs of the server are deleted when they are old enough, with everything that was sent and received."""

from __future__ import annotations

import asyncio
import time

from orchestra.app.run_status import started_events
from orchestra.core.errors import OrchestraError
from orchestra.core.protocols import NO_LIMIT
from orchestra.server.principals import SERVER_TAG
from orchestra.server.run_deletion import delete_server_runs
from orchestra.server.services import Services

TTL_TAG = "orchestra.ttl"
"""The tag with the seconds that a run is kept after its end."""
SWEEP_SECONDS = 600.0
BATCH_SIZE = 200
"""Runs deleted in one transaction."""


async def sweep_forever(services: Services) -> None:
    """Deletes expired runs from time to time."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await sweep(services, time.time())
        except OrchestraError as error:
            services.log("expired runs not deleted", code=error.code)


async def sweep(services: Services, now: float) -> int:
    """Deletes the runs of servers that have expired at a time; returns their number. Runs with undelivered messages
    stay.
    """
    orchestra = services.orchestra
    runs = [run for run in await orchestra.runs(limit=NO_LIMIT, tags={SERVER_TAG: "1"}) if run.finished is not None]
    ages = {run.run: now - run.finished for run in runs if run.finished is not None}
    expired = list[str]()
    async for run, start_event in started_events(orchestra.journal, runs):
        own = start_event.tags.get(TTL_TAG, "")
        limits = [float(own)] if own.isdecimal() else []
        limits += [services.settings.retention] if services.settings.retention is not None else []
        if limits and ages[run] > min(limits):
            expired.append(run)
    deleted = 0
    for start in range(0, len(expired), BATCH_SIZE):
        errors = await delete_server_runs(services, expired[start : start + BATCH_SIZE])
        deleted += sum(error is None for error in errors)
    return deleted
