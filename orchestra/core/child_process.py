"""Child processes of the supervisor: each leads a process group of its own, dies with the supervisor, and is reaped."""

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
"""Bytes of a server's log at most; then its last part becomes `NAME.log.1` and it starts anew."""
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
KEY_VARIABLE = "ORCHESTRA_SERVER_KEY"
"""The environment variable with the key of a server. vLLM's own variable is not used: vLLM can copy its own variables into caches."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What a server is started with: an absolute program and its arguments, and all that its environment has."""

    command: Sequence[str]
    environment: Mapping[str, str]
    weights_fingerprint: str = ""
    """What the weights looked like when it was started (`orchestra.fleet.weights.weights.quick_digest`); empty where nobody looked."""
    free_adapter_slots: int = 0
    """Slots for adapters that must stay free (`orchestra.fleet.vllm_cpu.plugin`)."""
    precision: str = ""
    """What it computes in: a data type, or a quantization."""
    key: str = field(default="", repr=False)
    """What it wants with each request; it finds it in its environment, for command lines are read by all."""


class ChildProcess:
    """A running server and whatever it started itself."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; negative for a signal; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Waits for the leader's end, ends what it left of its group, and gives its exit status."""
        status = await self._process.wait()
        kill_group(self.pid)
        return status

    async def stop(self, grace: float) -> None:
        """Asks politely, waits for `grace` seconds, then kills the group."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        await self.kill()

    async def kill(self) -> None:
        """Kills the group at once."""
        kill_group(self.pid)
        await self._process.wait()


async def start_process(launch: ProcessSpec, log: Path) -> ChildProcess:
    """Starts a server whose output goes to `log`; an earlier log becomes `NAME.log.1`."""
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
    """Kills every process of a group; nothing where there is none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def resident_bytes(group: int) -> int:
    """Memory of a process group: proportional set sizes, so that shared pages count once. 0 where /proc does not tell."""
    return sum(_process_memory(pid) for pid in _group_members(group))


def _group_members(group: int) -> Iterator[int]:
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.name.isdigit() and (found := _read_stat(int(entry.name))) and found.group == group:
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
    """Fields of /proc/PID/stat (proc(5)), read after the command's name, which may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _ProcessStat(fields[0], int(fields[2]), int(fields[19]))


class ProcessRecord(msgspec.Struct, frozen=True):
    """A server that was started: its pid, and when (in clock ticks since boot), so that a pid used again is not mistaken."""

    pid: int
    started: int


def record_processes(children: Sequence[int], file: Path) -> None:
    """Notes the servers that run, for a supervisor that comes after a sudden end of this one."""
    traces = [ProcessRecord(pid, found.started) for pid in children if (found := _read_stat(pid))]
    write_file(file, msgspec.json.encode(traces))


def kill_leftovers(file: Path) -> int:
    """Kills the servers that an earlier supervisor noted and could not end; gives how many there were."""
    try:
        traces = msgspec.json.decode(file.read_bytes(), type=list[ProcessRecord])
    except (OSError, msgspec.MsgspecError):
        return 0
    alive = [
        trace
        for trace in traces
        if (found := _read_stat(trace.pid)) and found.started == trace.started and found.state != "Z"
    ]
    for trace in alive:
        kill_group(trace.pid)
    file.unlink(missing_ok=True)
    return len(alive)


def rotate_log(log: Path) -> None:
    """Keeps a log that grew too large from filling the disk."""
    try:
        if log.stat().st_size <= MAX_LOG_BYTES:
            return
        log.with_name(log.name + ".1").write_bytes(read_tail(log, MAX_LOG_BYTES // 16))
        os.truncate(log, 0)
    except OSError:
        return  # a log is never worth more than the server that writes it


def read_tail(log: Path, size: int) -> bytes:
    """The last `size` bytes of a file; nothing where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size)
    except OSError:
        return b""


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log, printable: control characters become spaces, and long lines are cut."""
    text = read_tail(log, 65_536).decode("utf-8", "replace")
    lines = ["".join(char if char.isprintable() else " " for char in line)[:400].rstrip() for line in text.splitlines()]
    return [line for line in lines if line.strip()][-count:]


def last_write_time(log: Path) -> float:
    """When somebody last wrote into a log, in seconds since the epoch; 0 where there is none."""
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0
