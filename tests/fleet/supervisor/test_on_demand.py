"""Servers that start on demand, with small scripts instead of vLLM: started, stopped when idle or for memory, and
started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from orchestra.core.child_process import ProcessSpec
from orchestra.core.errors import FleetError
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.memory import AvailableMemory
from orchestra.fleet.progress import Progress
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.main import Supervisor, memory_estimate
from orchestra.fleet.supervisor.memory_budget import MemoryBudget, Need
from orchestra.fleet.supervisor.messages import ServerReport, StartRequest, SuspectRequest
from orchestra.fleet.supervisor.server import OnDemand, ServerSupervisor
from tests.fleet.conftest import FakeSupervision, eventually, local_config, post
from tests.fleet.fake_supervisor import ENOUGH, TIMING, launcher

from .test_main import assert_process_ends

pytestmark = pytest.mark.slow

Supervisions = list[FakeSupervision]
LONG = 600.0


def on_demand(*models: str, memory: str | None = None) -> FleetConfig:
    """Returns a fleet of CPU servers that start on demand. Each one is expected to take 3.7 GB."""
    return local_config(*models, on_demand=True, memory=memory, idle_stop=LONG, device="cpu")


def with_idle_stop(config: FleetConfig, **seconds: float) -> FleetConfig:
    servers = {
        name: server.model_copy(update={"idle_stop": seconds.get(name, LONG)})
        for name, server in config.local_servers.items()
    }
    return config.model_copy(update={"servers": servers})


async def opened(config: FleetConfig, folders: Folders, made: Supervisions, server: str) -> FakeSupervision:
    """Starts a supervisor with one server."""
    made.append(FakeSupervision(config, folders))
    await made[-1].start(server)
    await made[-1].wait_until_ready(timeout=30, only=server)
    return made[-1]


async def bring_up(supervision: FakeSupervision, server: str) -> ServerReport:
    await supervision.notify(StartRequest(server))
    status = await supervision.wait_until_ready(timeout=30, only=server)
    return next(report for report in status.servers if report.name == server)


async def phases(supervision: FakeSupervision) -> dict[str, str]:
    return {report.name: report.phase for report in (await supervision.require_status()).servers}


async def until(supervision: FakeSupervision, **wanted: str) -> None:
    async def look() -> bool:
        found = await phases(supervision)
        return all(found[name] == phase for name, phase in wanted.items())

    await eventually(look)


async def test_start_starts_only_the_requested_server(folders: Folders, supervisions: Supervisions) -> None:
    supervision = await opened(on_demand("m", "n"), folders, supervisions, "m")
    assert await phases(supervision) == {"m": "ready", "n": "stopped"}
    await supervision.start()
    await supervision.wait_until_ready(timeout=30)
    assert await phases(supervision) == {"m": "ready", "n": "ready"}


async def test_idle_server_stops_while_the_other_stays(folders: Folders, supervisions: Supervisions) -> None:
    config = with_idle_stop(on_demand("m", "n"), m=0.5)
    supervision = await opened(config, folders, supervisions, "m")
    pid = (await bring_up(supervision, "n")).pid
    await until(supervision, m="stopped")
    stopped, other = (await supervision.require_status()).servers
    assert (stopped.error, stopped.last_failure, stopped.restarts) == (None, None, 0)
    assert (other.phase, other.pid) == ("ready", pid)
    assert (await bring_up(supervision, "m")).restarts == 0


async def test_server_with_requests_is_not_stopped(folders: Folders, supervisions: Supervisions) -> None:
    supervision = await opened(with_idle_stop(on_demand("m", "n"), m=0.5, n=0.5), folders, supervisions, "m")
    report = await bring_up(supervision, "m")
    await post(str(report.url), "/test/busy")
    await bring_up(supervision, "n")
    await until(supervision, n="stopped")
    assert (await phases(supervision))["m"] == "ready"
    await post(str(report.url), "/test/idle")
    await until(supervision, m="stopped")


NO_LOAD = b"vllm:num_requests_running 0\n"


@pytest.mark.parametrize(
    ("idle", "used", "metrics", "stops"),
    [
        (99.0, False, NO_LOAD, False),
        (101.0, False, NO_LOAD, True),
        (101.0, True, NO_LOAD, False),
        (101.0, False, b"vllm:num_requests_running 1\n", False),
        (101.0, False, b"vllm:generation_tokens_total 1\n", False),
        (101.0, False, None, False),
    ],
)
async def test_idle_server_is_stopped_after_its_load_was_read_again(
    idle: float, used: bool, metrics: bytes | None, stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays if a client announces a request, if it has one, or if it answers no request for its load."""
    server = on_demand("m").local_servers["m"]
    settings = OnDemand(100.0, MemoryBudget(None, lambda: None, 0.0, 0.0), lambda _: Need(0, 0))
    keeper = ServerSupervisor("m", server, lambda *_: ProcessSpec((), {}), tmp_path, TIMING, asyncio.Lock(), settings)
    keeper.phase, keeper._is_wanted = "ready", True

    async def get(session: Any, path: str) -> bytes | None:
        return metrics

    monkeypatch.setattr(keeper, "_get", get)
    keeper._last_used -= idle
    if used:
        keeper.use()
    async with aiohttp.ClientSession() as session:
        assert await keeper._becomes_idle(session, settings.idle_stop) is stops
    assert keeper.phase == ("stopping" if stops else "ready")


async def test_server_needed_while_it_stops_starts_again(folders: Folders, supervisions: Supervisions) -> None:
    config = with_idle_stop(on_demand("slow_stop"), slow_stop=0.5)
    supervision = await opened(config, folders, supervisions, "slow_stop")
    pid = (await supervision.require_status()).servers[0].pid
    await until(supervision, slow_stop="stopping")
    assert await supervision.use("slow_stop") == "", "the client must not use its address any more"
    told: list[Progress] = []
    await supervision.notify(StartRequest("slow_stop"))
    status = await supervision.wait_until_ready(told.append, timeout=30, only="slow_stop")
    assert status.servers[0].pid != pid
    assert any(progress.message == "vLLM is stopping, then starting with slow_stop" for progress in told)


async def test_start_stops_longest_idle_server_for_memory(folders: Folders, supervisions: Supervisions) -> None:
    supervision = await opened(on_demand("m", "n", "o", memory="8GB"), folders, supervisions, "m")
    await bring_up(supervision, "n")
    assert await phases(supervision) == {"m": "ready", "n": "ready", "o": "stopped"}, "8 GB are enough for two"
    await asyncio.sleep(TIMING.least_idle)
    await supervision.use("m")
    await asyncio.sleep(TIMING.least_idle)  # both may be stopped now
    await bring_up(supervision, "o")
    assert await phases(supervision) == {"m": "ready", "n": "stopped", "o": "ready"}


async def test_starts_at_once_share_memory_in_turn(folders: Folders, supervisions: Supervisions) -> None:
    """There is memory for one of two servers. Each is ready once."""
    supervision = await opened(on_demand("m", "n", "o", memory="4GB"), folders, supervisions, "o")
    both = await asyncio.gather(bring_up(supervision, "m"), bring_up(supervision, "n"))
    assert [report.phase for report in both] == ["ready", "ready"]
    assert list((await phases(supervision)).values()).count("ready") == 1


async def test_start_without_memory_names_busy_server(folders: Folders, supervisions: Supervisions) -> None:
    supervision = await opened(on_demand("m", "n", memory="4GB"), folders, supervisions, "m")
    report = await bring_up(supervision, "m")
    await post(str(report.url), "/test/busy")
    told: list[Progress] = []
    await supervision.notify(StartRequest("n"))
    with pytest.raises(
        FleetError, match=r"n: there is no memory to start n: .* hold m 3\.7 GB \(has requests\)"
    ) as caught:
        await supervision.wait_until_ready(told.append, timeout=30, only="n")
    assert caught.value.code == "F226"
    assert "waiting for memory that m has" in {progress.phase for progress in told}
    await post(str(report.url), "/test/idle")
    started = await bring_up(supervision, "n")
    assert (started.phase, started.restarts) == ("ready", 1), "only the next request tries again"
    assert await phases(supervision) == {"m": "stopped", "n": "ready"}


async def test_start_all_stops_no_server_for_another(folders: Folders, supervisions: Supervisions) -> None:
    supervision = await opened(on_demand("m", "n", memory="4GB"), folders, supervisions, "m")
    await asyncio.sleep(2 * TIMING.least_idle)
    await supervision.start()
    with pytest.raises(FleetError, match="there is no memory to start n"):
        await supervision.wait_until_ready(timeout=30)
    assert await phases(supervision) == {"m": "ready", "n": "failed"}


async def test_server_killed_by_kernel_is_admitted_again(folders: Folders, supervisions: Supervisions) -> None:
    supervision = await opened(on_demand("m", "n", memory="8GB"), folders, supervisions, "m")
    pid = (await bring_up(supervision, "n")).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async def restarted() -> ServerReport | None:
        report = (await supervision.require_status()).servers[1]
        return report if report.phase == "ready" and report.pid != pid else None

    report: ServerReport = await eventually(restarted)
    assert report.last_failure is not None
    assert report.last_failure.code == "F223"
    assert (await phases(supervision))["m"] == "ready"


async def test_start_after_killed_supervisor_starts_requested_server(
    folders: Folders, supervisions: Supervisions
) -> None:
    supervision = await opened(on_demand("m", "n"), folders, supervisions, "m")
    await bring_up(supervision, "n")
    status = await supervision.require_status()
    os.kill(status.pid, signal.SIGKILL)
    await assert_process_ends(status.pid)
    for report in status.servers:
        await assert_process_ends(report.pid or 0)
    assert await supervision.use("n") == ""
    await supervision.start("n")
    await supervision.wait_until_ready(timeout=30, only="n")
    assert await phases(supervision) == {"m": "stopped", "n": "ready"}


async def test_suspected_server_is_restarted_instead_of_stopped(folders: Folders, supervisions: Supervisions) -> None:
    """A client's request timed out, but the load of the server that hangs shows no request."""
    config = with_idle_stop(on_demand("m"), m=0.5)
    supervision = await opened(config, folders, supervisions, "m")
    report = await bring_up(supervision, "m")
    await post(str(report.url), "/test/stuck")
    await supervision.use("m")
    await supervision.notify(SuspectRequest("m"))

    async def found_dead() -> ServerReport | None:
        server = (await supervision.require_status()).servers[0]
        assert (server.phase, server.last_failure) != ("stopped", None), "it was taken for idle"
        return server if server.last_failure is not None else None

    dead: ServerReport = await eventually(found_dead)
    assert dead.last_failure is not None
    assert dead.last_failure.code == "F216"


@contextlib.asynccontextmanager
async def in_this_process(
    config: FleetConfig, folders: Folders, available: AvailableMemory
) -> AsyncIterator[FakeSupervision]:
    """Runs a supervisor on a machine with this memory."""
    supervisor = Supervisor(config, folders, launcher, TIMING, lambda: available)
    running = asyncio.create_task(supervisor.run())
    supervision = FakeSupervision(config, folders)

    async def answers() -> bool:
        return await supervision.status() is not None

    await eventually(answers)
    try:
        yield supervision
    finally:
        supervisor.stop("the test ends")
        await running


async def test_start_checks_free_memory_of_machine(folders: Folders) -> None:
    tight = AvailableMemory((1 << 30) - 1, "the memory of the machine")
    async with in_this_process(on_demand("m"), folders, tight) as supervision:
        await supervision.notify(StartRequest("m"))
        with pytest.raises(FleetError, match=r"1\.1 GB are available \(the memory of the machine\)") as caught:
            await supervision.wait_until_ready(timeout=30, only="m")
    assert caught.value.code == "F226"


async def test_memory_measured_is_expected_at_next_start(folders: Folders) -> None:
    """The script holds less memory than vLLM, so less is expected after its first run, but never below the minimum."""
    config = on_demand("m", "n")
    assert memory_estimate(folders)(config.local_servers["m"]).expected > 1 << 30
    async with in_this_process(config, folders, ENOUGH) as supervision:
        await bring_up(supervision, "m")
        await bring_up(supervision, "n")  # what m holds is measured before another start

    def need() -> Need:
        return Supervisor(config, folders, launcher, TIMING, lambda: ENOUGH)._servers["m"].need()

    assert need() == Need(1 << 30, 1 << 30)
    (folders.logs(config.digest) / "m.memory.json").write_text(str(5 << 30))
    assert need() == Need(1 << 30, 5 << 30)
