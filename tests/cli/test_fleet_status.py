"""`orchestra fleet status`: what it prints about servers that ended, and about endpoints."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestra.cli.fleet import _fetch_status, _FleetStatus, _show_status
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.messages import ServerFailure, ServerReport, SupervisorReport
from tests.cli.shell import Shell, shell
from tests.e2e.model_servers import ModelServer, serve_in_thread
from tests.fleet.conftest import Visit, endpoints, local_config, raw_server

__all__ = ["shell"]


def test_status_restarted_server_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    killed = ServerFailure.from_error(vllm_launch.diagnose_end([], -9))
    server = ServerReport(name="m", phase="ready", model="m", restarts=1, last_failure=killed, since_failure=30.0)
    report = SupervisorReport(
        protocol=1, fleet="fakes", digest="", pid=1, uptime=60.0, idle_stop=900.0, logs="", servers=[server]
    )
    _show_status(_FleetStatus(local_config("m"), report, []), as_json=False)
    printed = capsys.readouterr().out
    assert "m: restarted; 30 s ago: F223: the kernel ended the server (signal 9, out of memory?)\n" in printed
    assert vllm_launch.MEMORY_HINT in printed


@pytest.mark.parametrize(("models", "model"), [(("qwen3:4b",), "qwen3:4b"), (("small", "large"), "auto")])
def test_status_endpoint_has_the_model_that_it_lists(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, models: tuple[str, ...], model: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    server = ModelServer("ollama", models=models)
    with serve_in_thread(server) as address:
        monkeypatch.setenv("ORCHESTRA_ENDPOINT", address)
        assert shell("fleet", "status", "--json").json["endpoints"][0]["model"] == model
    assert server.paths == ["/v1/models"]
    assert "authorization" not in server.headers[0], "a project that is only inspected gets no key"


async def test_status_asks_all_endpoints_at_once(tmp_path: Path) -> None:
    """None of them answers before all are asked."""
    both = asyncio.Event()

    async def play(visit: Visit) -> None:
        if len(server.visits) == 2:
            both.set()
        await both.wait()
        await visit.answer(b'{"data": [{"id": "found"}]}')

    async with raw_server(play) as server:
        config = endpoints(server.url, server.url, model="auto", dialect="auto")
        found = await _fetch_status(config, SupervisorClient(config, Folders(tmp_path, tmp_path, tmp_path)))
    assert [endpoint.model for endpoint in found.endpoints] == ["found", "found"]
