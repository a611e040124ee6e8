"""The supervisor with small scripts instead of vLLM: there is one, it manages its servers, and no process remains."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core import child_process
from orchestra.core.child_process import ProcessSpec
from orchestra.core.errors import FleetError
from orchestra.fleet.config import FleetConfig, LocalServer
from orchestra.fleet.progress import Progress
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.client import TYPICAL_START_SECONDS, SupervisorClient
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.main import Supervisor
from orchestra.fleet.supervisor.messages import (
    HeartbeatRequest,
    LogsRequest,
    ServerReport,
    StartRequest,
    StatusRequest,
    StopRequest,
    SupervisorReport,
    SupervisorRequest,
    SuspectRequest,
)
from orchestra.fleet.supervisor.server import ServerSupervisor, Timing
from tests.fleet.conftest import FakeSupervision, eventually, local_config, post

pytestmark = pytest.mark.slow

Supervisions = list[FakeSupervision]
SERVER = str(Path(__file__).parents[1] / "fake_vllm.py")


async def started(
    config: FleetConfig, folders: Folders, made: Supervisions
) -> tuple[FakeSupervision, SupervisorReport]:
    supervision = FakeSupervision(config, folders)
    made.append(supervision)
    await supervision.start()
    return supervision, await supervision.wait_until_ready(timeout=10)


async def until(supervision: SupervisorClient, wanted: Any) -> ServerReport:
    """Returns the first status whose first server is as wanted."""

    async def look() -> ServerReport | None:
        status = await supervision.status()
        server = status.servers[0] if status else None
        return server if server and wanted(server) else None

    found: ServerReport = await eventually(look)
    return found


def pid_of(status: SupervisorReport) -> int:
    """Returns the process id of the first server."""
    pid = status.servers[0].pid
    assert pid is not None
    return pid


async def assert_process_ends(pid: int, seconds: float = 10) -> None:
    """Waits until a process has ended (or is a zombie of its parent)."""

    async def look() -> bool:
        found = child_process._read_stat(pid)
        return found is None or found.state == "Z"

    await eventually(look, seconds)


async def test_status_reports_each_server(folders: Folders, supervisions: Supervisions) -> None:
    _, status = await started(local_config("m"), folders, supervisions)
    server = status.servers[0]
    assert (server.phase, server.model, server.version) == ("ready", "m", {"version": "0.0-fake"})
    assert server.pid != os.getpid()
    assert server.memory_bytes > 1 << 20
    assert (server.running, server.waiting, server.adapters, server.restarts) == (0, 0, [], 0)
    assert server.url == f"http://127.0.0.1:{server.port}"


async def test_start_concurrent_clients_share_supervisor(folders: Folders, supervisions: Supervisions) -> None:
    config = local_config("m")
    statuses = [
        status for _, status in await asyncio.gather(*(started(config, folders, supervisions) for _ in range(4)))
    ]
    assert len({status.pid for status in statuses}) == 1
    assert len({pid_of(status) for status in statuses}) == 1


async def test_start_different_fleets_have_own_supervisors(folders: Folders, supervisions: Supervisions) -> None:
    _, one = await started(local_config("m"), folders, supervisions)
    _, two = await started(local_config("n"), folders, supervisions)
    assert one.pid != two.pid


async def test_start_several_servers_start_in_turn(folders: Folders, supervisions: Supervisions) -> None:
    _, status = await started(local_config("m", "n", "o"), folders, supervisions)
    assert [server.phase for server in status.servers] == ["ready"] * 3


async def test_server_killed_is_restarted(folders: Folders, supervisions: Supervisions) -> None:
    supervision, status = await started(local_config("m"), folders, supervisions)
    pid = pid_of(status)
    os.kill(pid, signal.SIGKILL)
    server = await until(supervision, lambda server: server.phase == "ready" and server.pid != pid)
    assert server.restarts == 1


@pytest.mark.parametrize("how", ["/test/freeze", "/test/hang", "/test/sick"])
async def test_server_stalled_is_killed_and_restarted(how: str, folders: Folders, supervisions: Supervisions) -> None:
    supervision, status = await started(local_config("m"), folders, supervisions)
    first = status.servers[0]
    await post(str(first.url), how)
    if how == "/test/freeze":  # it has no requests as far as its load shows, until one of a client times out
        await supervision.notify(SuspectRequest("m"))
    server = await until(supervision, lambda server: server.phase == "ready" and server.pid != first.pid)
    assert server.restarts == 1
    assert server.last_failure is not None
    assert server.last_failure.code == "F216"


async def test_server_slow_is_not_restarted(folders: Folders, supervisions: Supervisions) -> None:
    """`tardy` answers each probe late, and then later than the limit of a stall. It has no requests."""
    supervision, status = await started(local_config("tardy"), folders, supervisions)
    url, pid = str(status.servers[0].url), pid_of(status)
    await post(url, "/test/slow")
    before = await probe_count(url)

    async def probed_often() -> bool:
        return await probe_count(url) > before + 3

    await eventually(probed_often)
    (server,) = (await supervision.require_status()).servers
    assert (server.pid, server.restarts, server.last_failure, server.error) == (pid, 0, None, None)


async def probe_count(url: str) -> int:
    """Returns the number of health requests that a server has received."""
    async with aiohttp.ClientSession() as session, session.post(url + "/test/refused", json={}) as response:
        return int(msgspec.json.decode(await response.read())["probes"])


async def test_server_killed_by_kernel_reports_why(folders: Folders, supervisions: Supervisions) -> None:
    supervision, status = await started(local_config("m"), folders, supervisions)
    pid = pid_of(status)
    os.kill(pid, signal.SIGKILL)
    server = await until(supervision, lambda server: server.phase == "ready" and server.pid != pid)
    assert server.error is None
    assert server.last_failure is not None
    assert (server.last_failure.code, server.last_failure.message) == (
        "F223",
        "the kernel ended the server (signal 9, out of memory?)",
    )
    assert "kv_cache_gib" in server.last_failure.hint


@pytest.mark.parametrize(
    ("lines", "status", "message"),
    [
        (["vllm.v1.engine.exceptions.EngineDeadError: x"], 1, "vLLM's engine process died (out of memory?)"),
        (["bye"], 3, "the server ended with status 3"),
        ([], -15, "the server ended with signal 15"),
    ],
)
def test_diagnose_end_states_cause(lines: list[str], status: int, message: str) -> None:
    error = vllm_launch.diagnose_end(lines, status)
    assert error.code == "F223"
    assert error.message.startswith(message)
    assert error.hint


@pytest.mark.parametrize(("works", "killed"), [(False, True), (True, False)])
async def test_server_busy_probe_timeout_is_not_killed(
    works: bool, killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, probes = 7, 0

    async def get(session: Any, path: str) -> bytes:
        return (
            f'vllm:num_requests_running{{engine="0"}} 3\nvllm:generation_tokens_total{{engine="0"}} {tokens}\n'.encode()
        )

    async def healthy(session: Any) -> str:
        return "ok"

    async def thinks(session: Any) -> bool:
        nonlocal tokens, probes
        tokens, probes = tokens + works, probes + 1
        return False

    keeper = ServerSupervisor(
        "m",
        local_config("m").local_servers["m"],
        lambda *_: ProcessSpec((), {}, "", 0),
        tmp_path,
        Timing(poll_interval=0.01, stall_timeout=60 if works else 0.1),
        asyncio.Lock(),
    )
    monkeypatch.setattr(keeper, "_get", get)
    monkeypatch.setattr(keeper, "_probe_health", healthy)
    monkeypatch.setattr(keeper, "_can_generate", thinks)
    ended: asyncio.Task[int] = asyncio.create_task(asyncio.sleep(60, 0))
    async with aiohttp.ClientSession() as session:
        watching = asyncio.create_task(keeper._watch(session, ended))
        await asyncio.sleep(0)
        keeper.check_liveness()

        async def decided() -> bool:
            return watching.done() or (works and probes > 0 and not keeper._liveness.suspected)

        await eventually(decided)
        assert (watching.done(), keeper.error is not None) == (killed, killed)
        keeper.stop()
        await watching
    ended.cancel()


async def test_server_failed_start_reports_log_tail(folders: Folders, supervisions: Supervisions) -> None:
    with pytest.raises(FleetError) as caught:
        await started(local_config("broken"), folders, supervisions)
    assert caught.value.code == "F005"
    assert "this model cannot be started" in caught.value.why
    assert caught.value.hint


async def test_server_failed_is_retried_on_start(folders: Folders, supervisions: Supervisions) -> None:
    supervision = FakeSupervision(local_config("broken"), folders)
    supervisions.append(supervision)
    await supervision.start()
    await until(supervision, lambda server: server.phase == "failed")
    before = (await until(supervision, lambda server: True)).restarts
    await supervision.start()
    after = await until(supervision, lambda server: server.restarts > before)
    assert after.restarts > before


async def test_server_port_in_use_is_reported(folders: Folders, supervisions: Supervisions) -> None:
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        with pytest.raises(FleetError) as caught:
            await started(local_config("m", port=port), folders, supervisions)
    assert caught.value.code == "F002"
    assert str(port) in caught.value.message


async def test_supervisor_idle_stops_with_servers(folders: Folders, supervisions: Supervisions) -> None:
    supervision, status = await started(local_config("m", idle_stop=0.5), folders, supervisions)
    await assert_process_ends(status.pid)
    await assert_process_ends(pid_of(status))
    assert await supervision.status() is None


async def test_supervisor_heartbeat_keeps_it_running(folders: Folders, supervisions: Supervisions) -> None:
    supervision, status = await started(local_config("m", idle_stop=0.5), folders, supervisions)
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert await supervision.notify(HeartbeatRequest())
    assert (await supervision.require_status()).pid == status.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_supervisor_exit_ends_servers(
    number: signal.Signals, folders: Folders, supervisions: Supervisions
) -> None:
    _, status = await started(local_config("m"), folders, supervisions)
    os.kill(status.pid, number)
    await assert_process_ends(status.pid)
    await assert_process_ends(pid_of(status))


async def test_start_after_killed_supervisor_creates_new_one(folders: Folders, supervisions: Supervisions) -> None:
    config = local_config("m")
    _, before = await started(config, folders, supervisions)
    os.kill(before.pid, signal.SIGKILL)
    await assert_process_ends(before.pid)
    _, after = await started(config, folders, supervisions)
    assert after.pid != before.pid


async def test_supervisor_ends_servers_of_killed_predecessor(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec("/bin/sleep", "600", start_new_session=True)
    child_process.record_processes([child.pid], tmp_path / "children.json")
    assert child_process.kill_leftovers(tmp_path / "children.json") == 1
    assert await child.wait() == -signal.SIGKILL


async def test_supervisor_reused_pid_is_not_killed(tmp_path: Path) -> None:
    (tmp_path / "children.json").write_text(f'[{{"pid": {os.getpid()}, "started": 1}}]')
    assert child_process.kill_leftovers(tmp_path / "children.json") == 0


async def test_stop_ends_all_and_returns_whether_it_ran(folders: Folders, supervisions: Supervisions) -> None:
    supervision, status = await started(local_config("m"), folders, supervisions)
    assert await supervision.stop()
    await assert_process_ends(pid_of(status), 0.5)
    assert not await supervision.stop()


async def test_adopt_without_supervisor_has_hint(folders: Folders) -> None:
    with pytest.raises(FleetError) as caught:
        await SupervisorClient(local_config("m"), folders).require_status()
    assert (caught.value.code, caught.value.hint) == ("F008", "orchestra fleet start")


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, "F011"), (errno.ENOSPC, "F004"), (errno.EFBIG, "F004")])
async def test_start_unwritable_config_is_coded_error(
    number: int, code: str, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(FleetError, match="the fleet's supervisor cannot be started") as caught:
        await FakeSupervision(local_config("m"), folders).start()
    assert caught.value.code == code


async def test_server_launch_error_keeps_supervisor_alive(tmp_path: Path) -> None:
    def launcher(server: LocalServer, port: int) -> ProcessSpec:
        return ProcessSpec(("/bin/true\0",), {})

    keeper = ServerSupervisor(
        "m", local_config("m").local_servers["m"], launcher, tmp_path, Timing(initial_backoff=0.01), asyncio.Lock()
    )
    keeping = asyncio.create_task(keeper.run())

    async def failed() -> bool:
        return keeper.phase == "failed"

    await eventually(failed)
    keeper.stop()
    await keeping
    assert keeper.error is not None
    assert keeper.error.code == "F005"


@pytest.mark.parametrize("silence", [0.2, 60])
async def test_server_hanging_start_releases_start_lock(silence: float, tmp_path: Path) -> None:
    def launcher(server: LocalServer, port: int) -> ProcessSpec:
        return ProcessSpec(
            (sys.executable, "-I", SERVER, server.model, str(port)), {"PATH": os.environ.get("PATH", "")}
        )

    turn, timing = (
        asyncio.Lock(),
        Timing(start_timeout=60 if silence < 1 else 0.5, silence_timeout=silence, poll_interval=0.1, grace_period=2),
    )
    servers = local_config("sleepy", "m").local_servers
    keepers = [ServerSupervisor(name, server, launcher, tmp_path, timing, turn) for name, server in servers.items()]
    keeping = [asyncio.create_task(keeper.run()) for keeper in keepers]

    async def ready() -> bool:
        return keepers[1].phase == "ready"

    await eventually(ready)
    assert (keepers[0].phase == "starting") is (silence < 1), "it goes on with its start"
    for keeper in keepers:
        keeper.stop()
    await asyncio.gather(*keeping)
    assert not turn.locked()


async def test_logs_return_last_lines(folders: Folders, supervisions: Supervisions) -> None:
    supervision, _ = await started(local_config("m"), folders, supervisions)
    assert await supervision.logs(5) == {"m": ["listening"]}
    assert supervision._socket.parent.stat().st_mode & 0o077 == 0, (
        "other users have no access to the folder of the socket"
    )


QUESTIONS = (b"no json\n", b"[]\n", b"{}\n", b'{"op": "fly"}\n', b"\xff\n", b"x" * (1 << 17))


async def test_supervisor_invalid_request_is_ignored(folders: Folders, supervisions: Supervisions) -> None:
    supervision, _ = await started(local_config("m"), folders, supervisions)
    for question in QUESTIONS:
        reader, writer = await asyncio.open_unix_connection(supervision._socket)
        writer.write(question)
        writer.write_eof()
        await reader.read()
        writer.close()
        assert await supervision.notify(HeartbeatRequest()), question


async def test_client_invalid_response_is_coded_error(folders: Folders) -> None:
    """The peer is another version of Orchestra, or another program at this socket."""
    supervision = SupervisorClient(local_config("m"), folders)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"ok": false, "error": "unknown op"}\n')
        writer.close()

    async with await asyncio.start_unix_server(answer, supervision._socket):
        with pytest.raises(FleetError, match=r"sent an invalid response: .*missing required field") as caught:
            await supervision.status()
    assert caught.value.code == "F011"
    assert "supervisor.log" in caught.value.hint


@given(
    st.sampled_from(
        [
            HeartbeatRequest(),
            StatusRequest(),
            StartRequest(),
            StartRequest("m"),
            SuspectRequest("m"),
            StopRequest(),
            LogsRequest(7),
        ]
    )
)
def test_request_messages_round_trip(question: SupervisorRequest) -> None:
    assert msgspec.json.decode(msgspec.json.encode(question), type=SupervisorRequest) == question


async def test_start_reports_progress(folders: Folders, supervisions: Supervisions) -> None:
    """The first start is compared with a typical one, the next with the last one on this machine."""
    told: list[Progress] = []
    config = local_config("tardy")
    supervision = FakeSupervision(config, folders)
    supervisions.append(supervision)
    await supervision.start()
    status = await supervision.wait_until_ready(told.append, timeout=10)
    assert {progress.stage for progress in told} <= {"wait", "ready"}
    assert {progress.total for progress in told if progress.stage == "wait"} == {TYPICAL_START_SECONDS}
    measured = status.servers[0].usual_start
    assert 0 < measured < TYPICAL_START_SECONDS
    assert await supervision.stop()
    told.clear()
    await supervision.start()
    await supervision.wait_until_ready(told.append, timeout=10)
    assert {progress.total for progress in told if progress.stage == "wait"} == {measured}


async def test_report_before_the_process_has_no_phase_of_an_earlier_start(tmp_path: Path) -> None:
    (tmp_path / "m.log").write_text("Starting vLLM server on http://127.0.0.1:1\n")
    server = local_config("m").local_servers["m"]
    supervisor = ServerSupervisor("m", server, lambda *_: ProcessSpec((), {}), tmp_path, Timing(), asyncio.Lock())
    assert (await supervisor.report()).start_phase == ""


@pytest.mark.parametrize(
    ("lines", "phase"),
    [
        ([], ""),
        (["something else"], ""),
        (["Starting to load model /m...", "Initializing model took 0.2 seconds"], "loading weights"),
        (["Loading safetensors checkpoint shards: 100%", "Loading weights took 1.18 seconds"], "preparing the model"),
        (
            ["Resolved architecture: L", "Enforce eager set, disabling torch.compile, CUDAGraphs"],
            "reading the configuration",
        ),
        (["Dynamo bytecode transform time: 3.10 s"], "compiling"),
        (["Loading weights took 1.18 seconds", "CPU KV cache size: 46,592 tokens", "x"], "warming up"),
    ],
)
def test_start_phase_is_that_of_last_known_line(lines: list[str], phase: str) -> None:
    assert vllm_launch.start_phase(lines) == phase


async def test_config_stall_timeout_is_that_of_supervisor(folders: Folders) -> None:
    config = local_config("m").model_copy(update={"stall_timeout": 7.0})
    assert config.digest != local_config("m").digest
    assert Supervisor(config, folders, lambda *_: ProcessSpec((), {}))._timing.stall_timeout == 7.0


async def test_socket_long_path_is_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders.from_environment({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / ("x" * 120))})
    assert len(os.fsencode(folders.runtime_folder("0" * 16) / "socket")) < 104


async def test_socket_shared_folder_link_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the folder in $TMPDIR could replace its contents."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = Folders.from_environment({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / ("x" * 120))})
    shared = tmp_path / f"orchestra-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    folders.runtime_folder("0" * 16)
    assert shared.stat().st_mode & 0o777 == 0o700
    if os.getuid() == 0:
        os.chown(shared, 65534, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: shared.stat().st_uid + 1)
        (tmp_path / f"orchestra-{os.getuid()}").symlink_to(shared)
    with pytest.raises(FleetError, match="belongs to another user"):
        folders.runtime_folder("0" * 16)


def test_log_too_large_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "m.log"
    log.write_bytes(b"a" * child_process.MAX_LOG_BYTES + b"the end")
    child_process.rotate_log(log)
    assert log.stat().st_size == 0
    assert (tmp_path / "m.log.1").read_bytes().endswith(b"the end")


def test_log_lines_are_printable(tmp_path: Path) -> None:
    (tmp_path / "m.log").write_bytes(b"\x1b[31mred\x07\n\n\xffbad\n")
    assert child_process.last_lines(tmp_path / "m.log", 5) == [" [31mred", "\N{REPLACEMENT CHARACTER}bad"]
