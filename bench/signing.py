"""What benches send that ask a local server without Orchestra: the headers with the key of its fleet."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.core.settings import Settings
from orchestra.fleet import config
from orchestra.fleet.secrets import auth_headers
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders


async def headers(settings: Settings) -> Mapping[str, str]:
    """For the fleet of these settings, which runs. Raises `FleetError` where it does not."""
    fleet = config.read_config(settings.find_resource("configs", settings.fleet))
    return auth_headers(await SupervisorClient(fleet, Folders.from_environment()).key())
