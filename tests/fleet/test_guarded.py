"""The key of local servers: which requests have it, who can read it, and where it must not appear."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from orchestra.agents.card import Card
from orchestra.core.child_process import KEY_VARIABLE, ProcessSpec
from orchestra.core.errors import FleetError
from orchestra.core.protocols import CallResult
from orchestra.fleet import dispatch
from orchestra.fleet.config import FleetConfig, FleetLimits
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http.client import HttpClient, HttpRequest
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.secrets import auth_headers
from orchestra.fleet.supervisor import port_owner, vllm_launch
from orchestra.fleet.supervisor.auth_middleware import UNAUTHORIZED_MESSAGE
from orchestra.fleet.supervisor.folders import SOCKET_FILE, Folders
from orchestra.fleet.supervisor.messages import KeyResponse, SupervisorReport
from orchestra.fleet.supervisor.server import ServerSupervisor, Timing
from orchestra.fleet.weights.weights import ModelStore

from .calling import TEXT, call, only, says
from .conftest import FakeSupervision, eventually, local_config, raw_server

pytestmark = pytest.mark.slow


@pytest.fixture
def config(folders: Folders) -> FleetConfig:
    """Returns a local fleet of one server with adapter slots."""
    folder = folders.cache / "weights"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    skill = folders.cache / "skill"
    skill.mkdir()
    (skill / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (skill / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    weights = {"licence": "none", "sources": [{"folder": str(folder)}]}
    return local_config("m", weights=weights, device="cpu", max_loras=2, adapters={"skill": str(skill)})


@pytest.fixture
def faked(
    folders: Folders, supervisions: list[FakeSupervision], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., contextlib.AbstractAsyncContextManager[Fleet]]:
    """Opens fleets whose supervisor runs scripts that require the key."""

    def make(config: FleetConfig, model_folders: Folders) -> FakeSupervision:
        supervisions.append(FakeSupervision(config, model_folders))
        return supervisions[-1]

    monkeypatch.setattr(dispatch, "SupervisorClient", make)
    monkeypatch.setattr("orchestra.fleet.supervisor.vllm_launch.vllm_version", lambda: "0.0-fake")

    def open_(config: FleetConfig, **more: Any) -> contextlib.AbstractAsyncContextManager[Fleet]:
        cards = {
            name: Card.declare(name, input=TEXT, output={"type": "string"}, prompt="{{ text }}", **given)
            for name, given in {"writer": {}, "adapted": {"adapter": "skill"}}.items()
        }
        return Fleet.open(config, cards=cards, model_store=ModelStore(folders), **more)

    return open_


async def started(
    config: FleetConfig, folders: Folders, made: list[FakeSupervision]
) -> tuple[FakeSupervision, SupervisorReport]:
    supervision = FakeSupervision(config, folders)
    made.append(supervision)
    await supervision.start()
    return supervision, await supervision.wait_until_ready(timeout=10)


async def told(url: str, path: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path, headers=headers) as answer:
        return answer.status, await answer.text()


async def heard(url: str) -> dict[str, Any]:
    """Returns the requests that the script refused and those that it accepted."""
    async with aiohttp.ClientSession() as session, session.post(url + "/test/refused", json={}) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        return found


async def test_requests_to_own_servers_have_key(faked: Any, config: FleetConfig) -> None:
    async with faked(config) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
        assert isinstance(await only(fleet, call("adapted")), CallResult)
        assert await fleet.client.count_tokens("m", [{"role": "user", "content": "hi"}]) == 3
        assert not isinstance(await fleet.client.read_load("m"), RequestError)
        assert not isinstance(await fleet.client.adapters("m"), RequestError)
        assert await fleet.client.load_adapter("m", "other", "/nowhere") is None
        assert await fleet.client.unload_adapter("m", "other") is None
        for path in ("/generative_scoring", "/v1/completions"):
            assert not isinstance(
                (await fleet._sender.send("m", HttpRequest(path, b'{"prompt": "ours"}'))).result, RequestError
            )
        server = (await fleet.health()).servers[0]
        await fleet._addresses.report_stall("m")

        async def probed() -> bool:
            return "a" in (await heard(server.address))["thought"]

        await eventually(probed)
        assert (await heard(server.address))["refused"] == []
        assert (server.state, server.supervisor_report["version"]) == ("ready", {"version": "0.0-fake"})


async def test_request_without_key_is_refused(
    folders: Folders, supervisions: list[FakeSupervision], config: FleetConfig
) -> None:
    supervision, status = await started(config, folders, supervisions)
    url = str(status.servers[0].url)
    for headers in ({}, dict(auth_headers("another")), {"Authorization": await supervision.key()}):
        assert (await told(url, "/metrics", **headers))[0] == 401
    assert (await told(url, "/metrics", **auth_headers(await supervision.key())))[0] == 200
    assert (await told(url, "/health"))[0] == 200


def orchestra(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "orchestra.cli", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def started_with(pid: int | None) -> str:
    """Returns a process's command line, which all users can read, after it has set its environment."""
    assert stat.S_IMODE(Path(f"/proc/{pid}/environ").stat().st_mode) == 0o400
    return Path(f"/proc/{pid}/cmdline").read_text()


async def test_key_is_shared_with_user_and_not_shown(
    folders: Folders, supervisions: list[FakeSupervision], config: FleetConfig, tmp_path: Path
) -> None:
    supervision, status = await started(config, folders, supervisions)
    key = await supervision.key()
    file = tmp_path / "fleet.yaml"
    file.write_text(config.model_dump_json(by_alias=True, exclude_defaults=True))
    asked = [("key",), ("key", "--header"), ("key", "--json"), ("status", "--json"), ("status",), ("logs",)]
    said = [await asyncio.to_thread(orchestra, "fleet", *words, "--fleet", str(file)) for words in asked]
    assert [one.returncode for one in said] == [0] * len(said), said
    assert said[0].stdout == f"{key}\n"
    assert said[1].stdout == f"Authorization: Bearer {key}\n"
    assert json.loads(said[2].stdout) == {"fleet": "fakes", "key": key}
    assert json.loads(said[3].stdout)["requires_key"] is True
    shown = "".join(one.stdout for one in said[3:]) + "".join(one.stderr for one in said)
    shown += repr((status, await supervision.status(), KeyResponse(key), ProcessSpec((), {}, key=key)))
    shown += "".join(started_with(pid) for pid in (status.pid, status.servers[0].pid))
    for root in (folders.state, folders.runtime, folders.cache):
        shown += "".join(path.read_text("utf-8", "replace") for path in root.rglob("*") if path.is_file())
    assert key not in shown
    meeting = folders.runtime_folder(config.digest)
    assert stat.S_IMODE(meeting.stat().st_mode) == 0o700
    assert stat.S_IMODE((meeting / SOCKET_FILE).stat().st_mode) == 0o600


async def test_key_survives_restart_of_server_only(
    folders: Folders, supervisions: list[FakeSupervision], config: FleetConfig
) -> None:
    supervision, status = await started(config, folders, supervisions)
    key, pid = await supervision.key(), status.servers[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async def back() -> str | None:
        now = await supervision.require_status()
        return now.servers[0].url if now.servers[0].phase == "ready" and now.servers[0].pid != pid else None

    url = await eventually(back)
    assert (await told(url, "/metrics", **auth_headers(key)))[0] == 200
    await supervision.stop()
    with pytest.raises(FleetError) as caught:
        await supervision.key()
    assert caught.value.code == "F008"
    await started(config, folders, supervisions)
    assert await supervision.key() not in ("", key)


async def test_key_of_new_supervisor_on_same_port_is_used(
    faked: Any, folders: Folders, supervisions: list[FakeSupervision], config: FleetConfig
) -> None:
    local = config.local_servers["m"].model_copy(update={"port": vllm_launch.choose_port(None)})
    config = config.model_copy(update={"servers": {"m": local}})
    async with faked(config) as fleet:
        first = await only(fleet, call("adapted"))
        assert isinstance(first, CallResult)
        await supervisions[0].stop()
        await started(config, folders, supervisions)
        again = await only(fleet, call("adapted"))
    assert isinstance(again, CallResult), again
    assert again.value != first.value, "another process, which had to load the adapter"


@contextlib.asynccontextmanager
async def older(config: FleetConfig, folders: Folders, url: str, *keys: str) -> AsyncIterator[list[bytes]]:
    """Starts a supervisor of an earlier version: it does not know keys, and disconnects. With `keys` it is a current
    one that returns these in order; for an empty one it disconnects.
    """
    asked: list[bytes] = []
    left = list(keys)
    server = {"name": "m", "phase": "ready", "model": "m", "url": url}
    report = {
        "protocol": 4,
        "fleet": "fakes",
        "digest": config.digest,
        "pid": 1,
        "uptime": 1.0,
        "idle_stop": 9.0,
        "logs": "",
    }
    report |= {"requires_key": True} if keys else {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        match json.loads(asked[-1])["op"]:
            case "status":
                writer.write(json.dumps(report | {"servers": [server]}).encode() + b"\n")
            case "key" if left and (key := left.pop(0)):
                writer.write(json.dumps({"key": key}).encode() + b"\n")
            case "touch" | "start" | "suspect":
                writer.write(b"{}\n")
        writer.close()

    listener = await asyncio.start_unix_server(serve, folders.runtime_folder(config.digest) / SOCKET_FILE)
    async with listener:
        yield asked


async def test_fleet_of_earlier_version_needs_no_key(faked: Any, folders: Folders, config: FleetConfig) -> None:
    async with (
        raw_server(says("hi")) as server,
        older(config, folders, server.url) as asked,
        faked(config, mode="adopt") as fleet,
    ):
        done = await only(fleet, call("writer"))
        key = await fleet._addresses.supervisor.key()
    assert isinstance(done, CallResult), done
    assert key == ""
    assert all("authorization" not in visit.head.lower() for visit in server.visits)
    assert not any(b"key" in line for line in asked)


async def test_supervisor_ending_between_requests_is_retried(faked: Any, folders: Folders, config: FleetConfig) -> None:
    key = "k3y-of-the-fleet"
    async with (
        raw_server(says("hi")) as server,
        older(config, folders, server.url, "", key),
        faked(config, mode="adopt") as fleet,
    ):
        done = await only(fleet, call("writer"))
    assert isinstance(done, CallResult), done
    assert all(f"Authorization: Bearer {key}\r\n" in visit.head for visit in server.visits)


async def test_earlier_version_gets_reason_of_refusal(folders: Folders) -> None:
    async def refuse(visit: Any) -> None:
        await visit.answer(
            json.dumps({"error": {"message": UNAUTHORIZED_MESSAGE, "code": 401}}).encode(), "401 Unauthorized"
        )

    async with raw_server(refuse) as server, HttpClient(FleetLimits()) as client:
        fault = await client.exchange(server.url, HttpRequest("/v1/models"), {}, 5)
    assert isinstance(fault, RequestError)
    assert fault.code == "F214"
    assert "older than the one that started it" in fault.reason
    assert UNAUTHORIZED_MESSAGE in fault.reason, "nothing of it is cut off"


async def test_port_of_another_user_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_owner, "ROOT_UID", -1)
    user = os.getuid()
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells whose a socket is")
    async with raw_server(says("hi")) as server, HttpClient(FleetLimits()) as client:

        async def ask(ours: bool) -> Any:
            return await client.exchange(
                server.url, HttpRequest("/v1/models"), auth_headers("k" * 20), 5, own_server=ours
            )

        monkeypatch.setattr("os.getuid", lambda: user + 1)
        fault = await ask(True)
        assert server.visits == []
        monkeypatch.setattr("os.getuid", lambda: user)
        assert not isinstance(await ask(True), RequestError)
        monkeypatch.setattr("os.getuid", lambda: user + 1)
        assert not isinstance(await ask(False), RequestError), "others' endpoints are others' programs"
    assert isinstance(fault, RequestError)
    assert (fault.code, fault.reached_model, fault.unreachable) == ("F203", False, True)
    assert "another user's process listens there" in fault.reason


STRANGER = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
six = ":" in sys.argv[1]
ours = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if six else socket.AF_INET, dualstack_ipv6=six)
print(ours.getsockname()[1], flush=True)
taken, _ = ours.accept()
ours.close()
print("taken", flush=True)
taken.recv(1)
"""


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="only root can become somebody else")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_port_owner_of_listener_and_connection(address: str) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", STRANGER, address], stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        port = int(stranger.stdout.readline())
        assert not port_owner.is_own_port(port)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            stranger.stdout.readline()
            assert port_owner.is_own_port(port), "he has stopped listening"
            assert not port_owner.is_own_port(port, connection.getsockname()[1]), "and holds the connection"
    finally:
        stranger.kill()
        stranger.wait()
        assert stranger.stdout is not None
        stranger.stdout.close()
    assert port_owner.is_own_port(port)


async def test_supervisor_ignores_health_of_foreign_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = ServerSupervisor(
        "m", local_config("m").local_servers["m"], lambda *_: ProcessSpec((), {}), tmp_path, Timing(), asyncio.Lock()
    )
    keeper.launch = ProcessSpec((), {}, key="k" * 20)
    async with raw_server(says("hi")) as server, aiohttp.ClientSession() as session:
        keeper.port = server.port
        monkeypatch.setattr(port_owner, "is_own_port", lambda port: False)
        assert await keeper._get(session, "/health") is None
        assert not await keeper._can_generate(session)
        assert server.visits == []
        monkeypatch.setattr(port_owner, "is_own_port", lambda port: True)
        assert await keeper._get(session, "/health") is not None
        assert await keeper._get(session, "/metrics") is not None
        assert await keeper._can_generate(session)
    assert ["authorization" in visit.head.lower() for visit in server.visits] == [False, True, True]


def test_launch_has_middleware_and_no_key_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "the-users-own-key-1")
    for device in ("cpu", "gpu"):
        server = local_config("m", device=device).local_servers["m"]
        started = vllm_launch.build_launch(server, tmp_path, 1)
        place = started.command.index("--middleware")
        assert started.command[place + 1] == "orchestra.fleet.supervisor.auth_middleware.KeyAuthMiddleware"
        assert "--api-key" not in started.command
        assert KEY_VARIABLE not in started.environment, "it is the fleet's key that its servers want"
        assert Path(
            started.environment["PYTHONPATH"], "orchestra", "fleet", "supervisor", "auth_middleware.py"
        ).is_file()
