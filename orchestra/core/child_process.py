"""Child processes of the supervisor. Each one leads its own process group, ends with the supervisor, and is reaped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from orchestra.core.atomic_files import write_file

GUARD_SCRIPT = Path(__file__).with_name("die_with_parent.py")
MAX_LOG_BYTES = 16 << 20
"""Maximum size of a server's log in bytes. A larger log is renamed to `NAME.log.1`, cut to its last part, and a new one
is started.
"""
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
KEY_VARIABLE = "ORCHESTRA_SERVER_KEY"
"""The environment variable with the key of a server. vLLM's own variable is not used: vLLM can copy its own variables
into caches.
"""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to start a server: an absolute program path, its arguments, and its complete environment."""

    command: Sequence[str]
    environment: Mapping[str, str]
    weights_fingerprint: str = ""
    """Fingerprint of the weights at the start (`orchestra.fleet.weights.weights.quick_digest`); empty if it was not
    computed.
    """
    free_adapter_slots: int = 0
    """Slots for adapters that must stay free (`orchestra.fleet.vllm_cpu.plugin`)."""
    precision: str = ""
    """Data type of the computation, or a quantization."""
    key: str = field(default="", repr=False)
    """API key of the server. It is passed in the environment, because command lines are readable by all users."""


class ChildProcess:
    """A running server and the processes that it started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; negative for a signal; None while the process runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Waits for the end of the leader, kills the rest of its process group, and returns the exit status."""
        status = await self._process.wait()
        kill_group(self.pid)
        return status

    async def stop(self, grace: float) -> None:
        """Sends SIGTERM, waits for `grace` seconds, then kills the process group."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        await self.kill()

    async def kill(self) -> None:
        """Kills the process group at once."""
        kill_group(self.pid)
        await self._process.wait()


async def start_process(launch: ProcessSpec, log: Path) -> ChildProcess:
    """Starts a server that writes its output to `log`. An earlier log is renamed to `NAME.log.1`."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(log, log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(GUARD_SCRIPT),
            str(os.getpid()),
            *launch.command,
            env={**launch.environment, KEY_VARIABLE: launch.key} if launch.key else dict(launch.environment),
            cwd=log.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return ChildProcess(process)


def kill_group(group: int) -> None:
    """Kills all processes of a group. Does nothing if there is none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def resident_bytes(group: int) -> int:
    """Returns the memory of a process group in bytes: the sum of proportional set sizes, which count shared pages once.
    0 without /proc.
    """
    return sum(_process_memory(pid) for pid in _group_members(group))


def _group_members(group: int) -> Iterator[int]:
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.name.isdigit() and (process_stat := _read_stat(int(entry.name))) and process_stat.group == group:
            yield int(entry.name)


def _process_memory(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return 0
    return 0


@dataclass(frozen=True, slots=True)
class _ProcessStat:
    state: str
    group: int
    started: int


def _read_stat(pid: int) -> _ProcessStat | None:
    """Returns the fields of /proc/PID/stat (proc(5)) after the command name, which may contain any character."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _ProcessStat(fields[0], int(fields[2]), int(fields[19]))


class ProcessRecord(msgspec.Struct, frozen=True):
    """A started server: pid and start time (clock ticks since boot), so that a reused pid is recognized."""

    pid: int
    started: int


def record_processes(children: Sequence[int], file: Path) -> None:
    """Records the running servers, for the next supervisor if this one is killed."""
    traces = [ProcessRecord(pid, process_stat.started) for pid in children if (process_stat := _read_stat(pid))]
    write_file(file, msgspec.json.encode(traces))


def kill_leftovers(file: Path) -> int:
    """Kills recorded servers of an earlier supervisor and returns their number."""
    try:
        traces = msgspec.json.decode(file.read_bytes(), type=list[ProcessRecord])
    except (OSError, msgspec.MsgspecError):
        return 0
    alive = [
        trace
        for trace in traces
        if (process_stat := _read_stat(trace.pid))
        and process_stat.started == trace.started
        and process_stat.state != "Z"
    ]
    for trace in alive:
        kill_group(trace.pid)
    file.unlink(missing_ok=True)
    return len(alive)


def rotate_log(log: Path) -> None:
    """Rotates a log that is too large."""
    try:
        if log.stat().st_size <= MAX_LOG_BYTES:
            return
        log.with_name(log.name + ".1").write_bytes(read_tail(log, MAX_LOG_BYTES // 16))
        os.truncate(log, 0)
    except OSError:
        return  # a full log must not stop the server


def read_tail(log: Path, size: int) -> bytes:
    """Returns the last `size` bytes of a file; empty if the file does not exist."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size)
    except OSError:
        return b""


def last_lines(log: Path, count: int) -> list[str]:
    """Returns the last lines of a log in printable form: control characters become spaces, long lines are cut."""
    text = read_tail(log, 65_536).decode("utf-8", "replace")
    lines = ["".join(char if char.isprintable() else " " for char in line)[:400].rstrip() for line in text.splitlines()]
    return [line for line in lines if line.strip()][-count:]


class LogReader:
    """Reads what is appended to a log, which may be rotated."""

    def __init__(self, log: Path) -> None:
        self._log, self._size = log, 0

    def new_lines(self) -> list[str]:
        """Returns the lines that were appended since the last call; of many the last ones. A part of a line counts."""
        try:
            size = self._log.stat().st_size
        except OSError:
            return []
        new_bytes = size - self._size if size >= self._size else size
        self._size = size
        return read_tail(self._log, min(new_bytes, 65_536)).decode("utf-8", "replace").splitlines() if new_bytes else []


def last_write_time(log: Path) -> float:
    """Returns the time of the last write to a log, in seconds since the epoch; 0 if it does not exist."""
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0
