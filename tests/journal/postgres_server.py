"""A Postgres server for tests: on a socket in a temporary folder or on a port, with fsync, removed at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Maximum seconds for the server to start or stop."""


class PostgresServer:
    """A cluster in a folder, and its server process."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Creates the cluster. Its programs refuse to run as root, so root runs them as `nobody`. With a `port` it
        listens on 127.0.0.1.
        """
        self.folder, self.log, self.port = folder, folder / "server.log", port
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run(
            [
                program("initdb"),
                "-D",
                str(folder / "data"),
                "-U",
                "orchestra",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--locale=C",
            ]
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The database's address."""
        if self.port:
            return f"postgresql://orchestra@127.0.0.1:{self.port}/postgres"
        return f"postgresql://orchestra@/postgres?host={self.folder}"

    def start(self) -> None:
        """Starts the server and waits until it accepts connections."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "on",
            "max_connections": "200",
        }
        if self.port:
            settings |= {"listen_addresses": "127.0.0.1", "port": str(self.port)}
        command = [
            program("postgres"),
            "-D",
            str(self.folder / "data"),
            *(f"--{name}={value}" for name, value in settings.items()),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **self._identity()
            )
        end = time.monotonic() + PATIENCE
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Postgres did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server: SIGINT closes the sessions and files, SIGQUIT stops at once and leaves recovery to the next
        start.
        """
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def _ready(self) -> bool:
        """Returns whether the eighth line of its status file is `ready`."""
        file = self.folder / "data" / "postmaster.pid"
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.folder / f".s.PGSQL.{self.port or 5432}")) == 0

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **self._identity())
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")

    def _identity(self) -> dict[str, Any]:
        user = self._user
        return (
            {"cwd": "/"}
            if user is None
            else {"cwd": "/", "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        )


def missing() -> str:
    """Returns the missing programs of Postgres; empty if all exist."""
    return ", ".join(name for name in ("initdb", "postgres") if _found(name) is None)


def program(name: str) -> str:
    """Returns the path of a program of Postgres: on PATH, or where Debian installs it."""
    if (found := _found(name)) is None:
        raise RuntimeError(f"no {name}: apt-get install postgresql")
    return found


def _found(name: str) -> str | None:
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next((str(path) for path in debian), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(*, tcp: bool = False) -> Iterator[PostgresServer]:
    """Runs a server on a socket, or on a free port. Its log is shown after a failure; its folder is removed."""
    folder = Path(tempfile.mkdtemp(prefix="orchestra-pg-"))  # a short path: a socket's name has 107 bytes
    try:
        server = PostgresServer(folder, _free_port() if tcp else 0)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
