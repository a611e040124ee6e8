"""The server under attack: a process of its own, with simulated workers, two tenants, and a log that is read
afterwards.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import msgspec

from orchestra import Orchestra
from orchestra.server import ServerSettings, create_app, http_server
from orchestra.server.access import create_key
from orchestra.server.open_records import open_records
from orchestra.server.principals import SCOPES
from orchestra.testing.fake_workers import SimulatedWorkers
from tests.server.servers import project, reply

ROOT = Path(__file__).parents[3]
MAX_BODY, MAX_UPLOAD = 1 << 20, 2 << 20
ATTACKER, VICTIM = "alpha", "beta"


class Started(msgspec.Struct, frozen=True):
    """What the server tells its parent."""

    port: int
    keys: dict[str, str]
    """Secrets by tenant."""


@dataclass(frozen=True)
class Target:
    """A running server."""

    process: subprocess.Popen[bytes]
    started: Started
    folder: Path

    @property
    def port(self) -> int:
        """Its port on the loopback address."""
        return self.started.port

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def memory(self, field: str = "VmRSS") -> int:
        """Returns its resident bytes, or with `VmHWM` the most so far; 0 where the system does not say."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0
        line = next((line for line in status.splitlines() if line.startswith(f"{field}:")), "0 0")
        return int(line.split()[1]) * 1024


@contextmanager
def running(folder: Path, head_seconds: float, body_seconds: float) -> Iterator[Target]:
    """Starts the server in a folder, and ends it."""
    project(folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.hostile.target", str(folder), str(head_seconds), str(body_seconds)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()
            yield Target(process, msgspec.json.decode(line, type=Started), folder)
        finally:
            process.terminate()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


async def main(folder: Path, head_seconds: float, body_seconds: float) -> None:
    """Serves until SIGTERM."""
    settings = project(folder)
    assert isinstance(settings.journal, Path)
    async with open_records(settings.journal) as records:
        keys = {name: (await create_key(records, "test", name, SCOPES, None))[1] for name in (ATTACKER, VICTIM)}

    def announce(port: int) -> None:
        print(msgspec.json.encode(Started(port, keys)).decode(), flush=True)

    server = ServerSettings(max_body=MAX_BODY, max_upload=MAX_UPLOAD, body_timeout=body_seconds, drain=1.0)
    with mock.patch.object(http_server, "HEAD_SECONDS", head_seconds):
        async with Orchestra.open(settings, workers=SimulatedWorkers(reply, latency=0.0)) as orchestra:
            await http_server.serve(create_app(orchestra, server), "127.0.0.1", 0, announce)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
