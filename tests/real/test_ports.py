"""The ports of a running vLLM: only the port of the API accepts connections, and all are on the loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestra.core import child_process
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders

pytestmark = pytest.mark.real
LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def inodes(group: int) -> set[str]:
    """Returns the sockets of a group of processes."""
    found = set()
    for pid in child_process._group_members(group):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed meanwhile
                if (told := os.readlink(descriptor)).startswith("socket:["):
                    found.add(told[len("socket:[") : -1])
    return found


def listening(group: int) -> Iterator[tuple[str, int]]:
    """Returns the addresses on which a group of processes listens."""
    owned = inodes(group)
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTENS and fields[9] in owned:
            address, _, port = fields[1].partition(":")
            yield socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)


async def test_only_api_port_accepts_connections(laptop: FleetConfig) -> None:
    status = await SupervisorClient(laptop, Folders.from_environment()).status()
    assert status is not None
    for server in status.servers:
        assert server.pid is not None
        open_ = []
        for address, port in listening(server.pid):
            assert address == "127.0.0.1"
            with socket.socket() as caller:
                caller.settimeout(0.5)
                if caller.connect_ex((address, port)) == 0:
                    open_.append(port)
        assert open_ == [server.port]
