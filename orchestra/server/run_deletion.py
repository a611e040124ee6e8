"""Deletion of runs of the server, with what the server has stored about them."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.app.run_queries import delete_runs
from orchestra.core.errors import OrchestraError
from orchestra.server.push_records import push_configs_of
from orchestra.server.services import Services
from orchestra.server.webhooks import deliveries_of


async def delete_server_runs(services: Services, runs: Sequence[str]) -> list[OrchestraError | None]:
    """Deletes runs, the messages about them, which contain their answers, and their push configurations, which contain
    credentials.

    Args:
        services: The state of the server.
        runs: The ids of the runs, of any tenant.

    Returns:
        For each run why it was not deleted; None if it was. A run that was not deleted keeps its messages.
    """
    errors = await delete_runs(services.orchestra.journal, runs)
    deleted = {run for run, error in zip(runs, errors, strict=True) if error is None}
    for run in deleted:
        await push_configs_of(services).delete(run)
    if deleted:
        async for stored_delivery in deliveries_of(services).scan():
            if stored_delivery.value.run in deleted:
                await deliveries_of(services).delete(stored_delivery.value.id)
    return errors
