"""Push notifications about tasks, as stored: where they go, and which tasks have messages that are not recorded yet."""

from __future__ import annotations

import msgspec

from orchestra.server.collections import Collection
from orchestra.server.services import Services


class PushConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the messages about a task go."""

    id: str
    url: str
    token: str = ""
    """Sent with each message, so that the receiver knows the sender."""
    scheme: str = ""
    """The scheme of the header `Authorization`."""
    credentials: str = ""
    after: int = 0
    """The number of the last event of the task about which there is no message."""
    is_reported: bool = False
    """Whether all messages are recorded."""


class PushConfigs(msgspec.Struct, frozen=True, kw_only=True):
    """The configurations of one task, in the order of their creation."""

    configs: tuple[PushConfig, ...] = ()

    def find(self, id: str) -> PushConfig | None:
        """Returns the configuration with an id, or None."""
        return next((config for config in self.configs if config.id == id), None)

    def without(self, id: str) -> PushConfigs:
        """Returns the other configurations."""
        return PushConfigs(configs=tuple(config for config in self.configs if config.id != id))


class PushWatch(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose messages are not all recorded yet."""

    task: str


def push_configs_of(services: Services) -> Collection[PushConfigs]:
    """The configurations of the tasks of all tenants, by task."""
    return Collection(services.records, "push", "push", PushConfigs)


def push_watches_of(services: Services) -> Collection[PushWatch]:
    """The tasks of all tenants whose messages are not all recorded yet, by task."""
    return Collection(services.records, "push_watch", "watch", PushWatch)


async def find_push_config(services: Services, task: str, id: str) -> PushConfig | None:
    """Returns a configuration of a task of any tenant, or None."""
    stored_push_configs = await push_configs_of(services).get(task)
    return None if stored_push_configs is None else stored_push_configs.value.find(id)


def push_headers(config: PushConfig) -> dict[str, str]:
    """Returns the headers of the messages of a configuration, as A2A 1.0 names them."""
    headers = {"Content-Type": "application/a2a+json", "A2A-Version": "1.0"}
    if config.token:
        headers["X-A2A-Notification-Token"] = config.token
    if config.scheme and config.credentials:
        headers["Authorization"] = f"{config.scheme} {config.credentials}"
    return headers
