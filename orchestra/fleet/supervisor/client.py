"""The clients' side of the supervisor: find it, start it, ask it."""

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
)
from orchestra.fleet.weights import weights

ResponseT = TypeVar("ResponseT")
RESPONSE_TIMEOUT = 15.0
TYPICAL_START_SECONDS = 40.0
"""Seconds that SmolLM2-135M takes to start on two cores: 31 to 42 (SERVING.md)."""
MAX_RESPONSE_BYTES = 1 << 22


class SupervisorClient:
    """A supervisor that is there, or may come: questions go to its socket."""

    def __init__(self, config: FleetConfig, folders: Folders) -> None:
        self.config = config
        self.folders = folders
        self.log = folders.state / "fleets" / config.digest / "supervisor.log"

    @property
    def _socket(self) -> Path:
        return self.folders.runtime_folder(self.config.digest) / SOCKET_FILE

    async def status(self) -> SupervisorReport | None:
        """How the fleet is; None where no supervisor listens. Raises `FleetError` F011 where it does not answer."""
        return await self._request(StatusRequest(), SupervisorReport)

    async def logs(self, lines: int) -> dict[str, list[str]] | None:
        """The last lines of each server's log. None and `FleetError` as `status`."""
        tails = await self._request(LogsRequest(lines), LogsResponse)
        return tails.logs if tails is not None else None

    async def notify(self, request: HeartbeatRequest | StartRequest | SuspectRequest | StopRequest) -> bool:
        """Whether a supervisor was there to be told. Raises `FleetError` as `status`."""
        return await self._request(request, EmptyResponse) is not None

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
                "F011", f"the fleet's supervisor answered what is no answer: {error}", hint=f"look into {self.log}"
            ) from error

    async def require_status(self) -> SupervisorReport:
        """The status of a supervisor that is there. Raises `FleetError` F008 where there is none."""
        status = await self.status()
        if status is None:
            raise FleetError("F008", f"the fleet {self.config.name!r} is not running", hint="orchestra fleet start")
        return status

    async def key(self, status: SupervisorReport | None = None) -> str:
        """What the servers want with each request (`orchestra.fleet.secrets.auth_headers`); empty where an earlier
        version
        started them.

        `status` is what was just told, if it was. Raises `FleetError` F008 where no supervisor is there, else as
        `status`.
        """
        if not (status or await self.require_status()).requires_key:
            return ""
        told = await self._request(KeyRequest(), KeyResponse)
        if told is None:
            raise FleetError("F008", f"the fleet {self.config.name!r} has stopped", hint="orchestra fleet start")
        return told.key

    async def start(self, command: Sequence[str] | None = None) -> None:
        """Makes sure that a supervisor is there: adopts it, or starts it. Of many at once, one remains.

        `command` stands for `python -m orchestra.fleet.supervisor.main` in tests. Raises `FleetError` F011, or F004 for
        a full disk.
        """
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if await self.notify(StartRequest()):
                return
            try:
                await self._spawn(command or (sys.executable, "-P", "-m", "orchestra.fleet.supervisor.main"))
            except OSError as error:
                raise _start_error(error, self.folders.state) from error
            # Another's supervisor may be ending with the lock in its hand: ours waits for it, so ask for a while.
            for _ in range(100):
                await asyncio.sleep(0.1)
                if await self.notify(HeartbeatRequest()):
                    return
        why = "\n   ".join(child_process.last_lines(self.log, 8))
        raise FleetError("F011", "the fleet's supervisor did not start", why=why, hint=f"look into {self.log}")

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
            why = "\n   ".join(child_process.last_lines(self.log, 8))
            raise FleetError(
                "F011", f"the fleet's supervisor ended with status {status}", why=why, hint=f"look into {self.log}"
            )

    async def wait_until_ready(
        self, progress: ProgressCallback = ignore_progress, timeout: float = 900.0, only: str = ""
    ) -> SupervisorReport:
        """Waits until every server is ready, or `only` this one, and gives the status.

        Raises `FleetError` as the supervisor found it, F216 where one is not ready after `patience` seconds, or F012
        for a server that
        has other weights than this fleet's.
        """
        began = time.monotonic()
        told = False
        while (status := await self.status()) is not None:
            servers = [server for server in status.servers if only in ("", server.name)]
            for server in servers:
                if server.phase == "failed":
                    raise server.to_error
            waiting = [server for server in servers if server.phase != "ready"]
            if not waiting:
                self._check_weights(servers)
                if told:
                    progress(Progress("ready", f"ready after {time.monotonic() - began:.0f} s"))
                return status
            if time.monotonic() - began > timeout:
                raise FleetError(
                    "F216", f"{waiting[0].name} is still not ready after {timeout:.0f} s", hint="orchestra fleet logs"
                )
            told = True
            first = waiting[0]
            verb = "starting" if first.phase == "starting" else "restarting"
            progress(
                Progress(
                    "wait", f"vLLM is {verb} with {first.model}", first.since_start, TYPICAL_START_SECONDS, "seconds"
                )
            )
            await asyncio.sleep(0.2)
        raise FleetError("F008", f"the fleet {self.config.name!r} has stopped", hint="orchestra fleet start")

    def _check_weights(self, servers: Sequence[ServerReport]) -> None:
        """A supervisor that was found may have started its servers long ago, or with another cache. Raises `FleetError`
        F012.
        """
        model_store = weights.ModelStore(self.folders)
        for server in servers:
            own = weights.quick_digests(self.config.local_servers[server.name].weights, model_store)
            if own and server.weights and server.weights not in own:
                message = f"{server.name} of the fleet that runs was started with other weights than are here now"
                raise FleetError("F012", message, hint="orchestra fleet stop, then try again")

    async def stop(self, seconds: float = 30.0) -> bool:
        """Ends the supervisor and its servers, and waits for it; whether there was one."""
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
    """What the supervisor sees of the user's environment: where things are; no secrets."""
    kept = (*vllm_launch.PASSED_VARIABLES, "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TZ")
    found = {
        name: value
        for name, value in user_environment.items()
        if name in kept or name.startswith(vllm_launch.GPU_PREFIXES)
    }
    return found | {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONUNBUFFERED": "1"}
