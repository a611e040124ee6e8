"""What a server does besides answering requests: it continues the work of servers that have died, starts the runs of
schedules, sends webhooks, and deletes expired runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec

from orchestra.app.orchestra import Orchestra
from orchestra.core.errors import OrchestraError
from orchestra.server.agent_protocols.a2a_push import recover_push
from orchestra.server.batches import DEAD_SECONDS, batches_of, start_batch, work_name
from orchestra.server.principals import SERVER_TAG
from orchestra.server.retention import sweep_forever
from orchestra.server.schedules import fire_forever
from orchestra.server.services import Services
from orchestra.server.settings import ServerSettings
from orchestra.server.threads import continue_thread, threads_of
from orchestra.server.webhooks import Reporter, deliver_forever

RECOVERY_SECONDS = 15.0
"""Seconds between two searches for runs whose server has died."""
RECOVERY_LIMIT = 10_000
"""Interrupted runs that one search resumes at most."""
SERVER = "the server"
"""Who resumes runs."""


@asynccontextmanager
async def open_services(orchestra: Orchestra, settings: ServerSettings) -> AsyncIterator[Services]:
    """Opens what the routes share, and starts the work in the background; stops it at the end."""
    async with Services.open(orchestra, settings) as services:
        reporter = Reporter(services)
        services.on_start.append(reporter.watch)
        services.spawn(_recover_forever(services, reporter))
        services.spawn(fire_forever(services))
        services.spawn(deliver_forever(services))
        services.spawn(sweep_forever(services))
        yield services


async def _recover_forever(services: Services, reporter: Reporter) -> None:
    """Continues the work of servers that have died, now and later."""
    while True:
        with suppress(OrchestraError):  # The journal cannot be read now.
            await recover_runs(services)
            await _recover_work(services, reporter)
        await asyncio.sleep(RECOVERY_SECONDS)


async def recover_runs(services: Services) -> int:
    """Resumes the interrupted runs of servers; returns their number."""
    run_summaries = await services.orchestra.runs(limit=RECOVERY_LIMIT, status="interrupted", tags={SERVER_TAG: "1"})
    for summary in reversed(run_summaries):
        if services.draining.is_set():
            break
        await services.resume(summary.run, SERVER)
    return len(run_summaries)


async def _recover_work(services: Services, reporter: Reporter) -> None:
    for thread in await threads_of(services).all():
        if thread.value.queue:
            continue_thread(services, thread.value.id)
    await recover_batches(services)
    await reporter.recover()
    await recover_push(services)


async def recover_batches(services: Services) -> None:
    """Continues the batches whose process has died."""
    for batch in await batches_of(services).all():
        name, now = batch.value.id, time.time()
        if batch.value.status != "running" or work_name(name) in services.work:
            continue
        if now - batch.value.alive > DEAD_SECONDS:
            live_batch = msgspec.structs.replace(batch.value, alive=now)
            if await batches_of(services).replace(batch, live_batch):
                start_batch(services, batch)
