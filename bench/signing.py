"""What benches send that ask a local server without Orchestra: the headers with the key of its fleet."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.core.settings import Settings
from orchestra.fleet import config
from orchestra.fleet.secrets import signed
from orchestra.fleet.supervisor.client import Supervision
from orchestra.fleet.supervisor.folders import Folders


async def headers(settings: Settings) -> Mapping[str, str]:
    """For the fleet of these settings, which runs. Raises `FleetError` where it does not."""
    fleet = config.read(settings.find_resource("configs", settings.fleet))
    return signed(await Supervision(fleet, Folders.of()).key())
