"""The client of the supervisor: finds it, starts it, and sends requests to it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from orchestra.core import child_process
from orchestra.core.atomic_files import write_file
from orchestra.core.errors import FleetError
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.folders import CONFIG_FILE, LOCK_FILE, SOCKET_FILE, Folders, is_disk_full
from orchestra.fleet.supervisor.messages import (
    EmptyResponse,
    HeartbeatRequest,
    KeyRequest,
    KeyResponse,
    LogsRequest,
    LogsResponse,
    ServerReport,
    StartRequest,
    StatusRequest,
    StopRequest,
    SupervisorReport,
    SupervisorRequest,
    SuspectRequest,
    UseRequest,
    UseResponse,
)
from orchestra.fleet.weights import weights

ResponseT = TypeVar("ResponseT")
RESPONSE_TIMEOUT = 15.0
TYPICAL_START_SECONDS = 40.0
"""Seconds that SmolLM2-135M takes to start on two cores: 31 to 42 (SERVING.md). It is used until a start was measured.
"""
MAX_RESPONSE_BYTES = 1 << 22


class SupervisorClient:
    """The client of a supervisor, which need not run yet. Requests go to its socket."""

    def __init__(self, config: FleetConfig, folders: Folders) -> None:
        self.config = config
        self.folders = folders
        self.log = folders.state / "fleets" / config.digest / "supervisor.log"

    @property
    def _socket(self) -> Path:
        return self.folders.runtime_folder(self.config.digest) / SOCKET_FILE

    async def status(self) -> SupervisorReport | None:
        """Returns the status of the fleet; None without a supervisor.

        Raises:
            FleetError: F011, the supervisor does not answer.
        """
        return await self._request(StatusRequest(), SupervisorReport)

    async def logs(self, lines: int) -> dict[str, list[str]] | None:
        """Returns the last lines of each server's log; None without a supervisor.

        Raises:
            FleetError: F011, the supervisor does not answer.
        """
        tails = await self._request(LogsRequest(lines), LogsResponse)
        return tails.logs if tails is not None else None

    async def notify(self, request: HeartbeatRequest | StartRequest | SuspectRequest | StopRequest) -> bool:
        """Sends a notification, and returns whether a supervisor received it.

        Raises:
            FleetError: F011, the supervisor does not answer.
        """
        return await self._request(request, EmptyResponse) is not None

    async def use(self, server: str) -> str:
        """Announces a request to a server, and returns its address; empty if it is not ready.

        Raises:
            FleetError: F011, the supervisor does not answer.
        """
        response = await self._request(UseRequest(server), UseResponse)
        return "" if response is None else response.url

    async def _request(self, request: SupervisorRequest, response_type: type[ResponseT]) -> ResponseT | None:
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(self._socket, limit=MAX_RESPONSE_BYTES)
                try:
                    writer.write(msgspec.json.encode(request) + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
        except (FileNotFoundError, ConnectionError):
            return None
        except (OSError, TimeoutError, ValueError) as error:
            hint = f"look into {self.log}; if it hangs, end its process and try again"
            raise FleetError(
                "F011", f"the fleet's supervisor does not answer: {error or 'timeout'}", hint=hint
            ) from error
        if not line:
            return None
        try:
            return msgspec.json.decode(line, type=response_type)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FleetError(
                "F011", f"the fleet's supervisor sent an invalid response: {error}", hint=f"look into {self.log}"
            ) from error

    async def require_status(self) -> SupervisorReport:
        """Returns the status of a running supervisor. Raises `FleetError` F008 without one."""
        status = await self.status()
        if status is None:
            raise FleetError("F008", f"the fleet {self.config.name!r} is not running", hint="orchestra fleet start")
        return status

    async def key(self, status: SupervisorReport | None = None) -> str:
        """Returns the key of the servers (`orchestra.fleet.secrets.auth_headers`); empty if an earlier version started
        them without one.

        Args:
            status: The current status, if it is known.

        Raises:
            FleetError: F008 without a supervisor, F011 if it does not answer.
        """
        if not (status or await self.require_status()).requires_key:
            return ""
        key_response = await self._request(KeyRequest(), KeyResponse)
        if key_response is None:
            raise FleetError("F008", f"the fleet {self.config.name!r} has stopped", hint="orchestra fleet start")
        return key_response.key

    async def start(self, server: str | None = None, command: Sequence[str] | None = None) -> None:
        """Uses the running supervisor, or starts one. Of several that start at once, one remains.

        Args:
            server: The server to start, if the fleet starts its servers on demand; None starts all.
            command: Replaces `python -m orchestra.fleet.supervisor.main` in tests.

        Raises:
            FleetError: F011, or F004 for a full disk.
        """
        deadline = time.monotonic() + 90
        on_demand = self.config.start == "on_demand"
        request = StartRequest(server if on_demand else None)
        while time.monotonic() < deadline:
            if await self.notify(request):
                return
            try:
                await self._spawn(command or (sys.executable, "-P", "-m", "orchestra.fleet.supervisor.main"))
            except OSError as error:
                raise _start_error(error, self.folders.state) from error
            # An earlier supervisor may hold the lock until it has ended. The new one waits for it, so poll for a while.
            for _ in range(100):
                await asyncio.sleep(0.1)
                if await self.notify(request if on_demand else HeartbeatRequest()):
                    return
        reason = "\n   ".join(child_process.last_lines(self.log, 8))
        raise FleetError("F011", "the fleet's supervisor did not start", why=reason, hint=f"look into {self.log}")

    async def _spawn(self, command: Sequence[str]) -> None:
        file = self.folders.runtime_folder(self.config.digest) / CONFIG_FILE
        local = self.config.model_copy(
            update={
                "servers": dict(self.config.local_servers),
                "models": {"all": tuple(self.config.local_servers)},
                "escalate": None,
            }
        )
        write_file(file, local.model_dump_json(by_alias=True, exclude_defaults=True).encode())
        self.folders.logs(self.config.digest)
        with self.log.open("ab") as output:
            starter = await asyncio.create_subprocess_exec(
                *command, str(file), env=supervisor_environment(os.environ), cwd=self.log.parent,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
            status = await starter.wait()
        if status:
            reason = "\n   ".join(child_process.last_lines(self.log, 8))
            raise FleetError(
                "F011", f"the fleet's supervisor ended with status {status}", why=reason, hint=f"look into {self.log}"
            )

    async def wait_until_ready(
        self, progress: ProgressCallback = ignore_progress, timeout: float = 900.0, only: str = ""
    ) -> SupervisorReport:
        """Waits until every server, or `only` the given one, is ready, and returns the status.

        Raises:
            FleetError: The supervisor's error, F216 if a server is not ready after `patience` seconds, or F012 if a
                server has other weights than this fleet.
        """
        start_time = time.monotonic()
        is_reported = False
        while (status := await self.status()) is not None:
            servers = [server for server in status.servers if only in ("", server.name)]
            for server in servers:
                if server.phase == "failed":
                    raise server.to_error
            pending_servers = [server for server in servers if server.phase != "ready"]
            if not pending_servers:
                self._check_weights(servers)
                if is_reported:
                    progress(Progress("ready", f"ready after {time.monotonic() - start_time:.0f} s"))
                return status
            if time.monotonic() - start_time > timeout:
                raise FleetError(
                    "F216",
                    f"{pending_servers[0].name} is still not ready after {timeout:.0f} s",
                    hint="orchestra fleet logs",
                )
            is_reported = True
            first = pending_servers[0]
            if first.phase == "stopped":  # it was ready, and stopped for another one before this client saw it
                await self.notify(StartRequest(first.name))
            verb = {"starting": "starting", "stopping": "stopping, then starting"}.get(first.phase, "restarting")
            usual = first.usual_start or TYPICAL_START_SECONDS
            message = f"vLLM is {verb} with {first.model}"
            progress(Progress("wait", message, first.since_start, usual, "seconds", first.start_phase))
            await asyncio.sleep(0.2)
        raise FleetError("F008", f"the fleet {self.config.name!r} has stopped", hint="orchestra fleet start")

    def _check_weights(self, servers: Sequence[ServerReport]) -> None:
        """Checks that a running supervisor's servers have the current weights. Raises `FleetError` F012."""
        model_store = weights.ModelStore(self.folders)
        for server in servers:
            quick_digests = weights.quick_digests(self.config.local_servers[server.name].weights, model_store)
            if quick_digests and server.weights and server.weights not in quick_digests:
                message = f"{server.name} of the running fleet was started with other weights than those installed now"
                raise FleetError("F012", message, hint="orchestra fleet stop, then try again")

    async def stop(self, seconds: float = 30.0) -> bool:
        """Stops the supervisor and its servers, and waits for the end. Returns whether there was one."""
        if not await self.notify(StopRequest()):
            return False
        for _ in range(int(seconds * 10)):
            if not _is_locked(self._socket.with_name(LOCK_FILE)):
                break
            await asyncio.sleep(0.1)
        return True


def _start_error(error: OSError, folder: Path) -> FleetError:
    if is_disk_full(error):
        return FleetError(
            "F004", f"the fleet's supervisor cannot be started: {error}", hint="free some space, then try again"
        )
    return FleetError(
        "F011", f"the fleet's supervisor cannot be started: {error}", hint=f"look at the rights of {folder}"
    )


def _is_locked(lock: Path) -> bool:
    try:
        with lock.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def supervisor_environment(user_environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the supervisor's environment: locations, but no secrets."""
    variable_names = (*vllm_launch.PASSED_VARIABLES, "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TZ")
    values = {
        name: value
        for name, value in user_environment.items()
        if name in variable_names or name.startswith(vllm_launch.GPU_PREFIXES)
    }
    return values | {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONUNBUFFERED": "1"}
