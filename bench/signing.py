"""Headers with the key of a fleet, for benchmarks that call its server without Orchestra."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.core.settings import Settings
from orchestra.fleet import config
from orchestra.fleet.secrets import auth_headers
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders


async def headers(settings: Settings) -> Mapping[str, str]:
    """Returns the headers for the running fleet of these settings. Raises `FleetError` if it is not running."""
    fleet = config.read_config(settings.find_resource("configs", settings.fleet))
    return auth_headers(await SupervisorClient(fleet, Folders.from_environment()).key())
