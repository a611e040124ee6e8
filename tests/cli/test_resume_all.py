"""`orchestra runs resume --all`: runs that cannot continue are unchanged, and runs of other processes are left
alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.paying import until
from tests.cli.processes import PATIENCE, environment
from tests.cli.shell import Shell
from tests.cli.stage import FILES, FLEET, TEXT, furnish

MODULE = '''
import asyncio
from pathlib import Path

from orchestra import tool

HERE = Path(__file__).parent

@tool(effect="pure")
async def held(text: str) -> str:
    """Waits."""
    (HERE / "begun").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return text
'''
READ = """
schema: orchestra/v1
name: read
input: {question: str, text: str}
output: ${reading}
nodes:
  ready: {tool: held, with: {text: "${input.text}"}}
  reading: {agent: answerer, with: {question: "${input.question}", context: "${ready}"}, retry: {attempts: 1}}
"""
COMMAND = (sys.executable, "-m", "orchestra.cli")
INPUTS = ("-i", "question=When?", "-i", f"text={TEXT}")


class Server(BaseHTTPRequestHandler):
    """Has a model, and refuses every request."""

    def do_GET(self) -> None:
        self._say(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._say(400, {"error": {"message": "no"}})

    def _say(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join(PATIENCE)
    server.server_close()


@pytest.fixture
def cut(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run that was killed before it called its model."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("held_tools", None)
    furnish(files={**FILES, "held_tools.py": MODULE, "workflows/read.yaml": READ})
    Path("orchestra.toml").write_text('modules = ["held_tools"]\nfleet = "nowhere"\n')
    process = subprocess.Popen([*COMMAND, "run", "read", *INPUTS], stderr=subprocess.DEVNULL, env=environment())
    until(lambda: Path("begun").exists() and bool(shell("runs", "list", "--json").json))
    process.kill()
    process.wait(PATIENCE)
    run: str = shell("runs", "list", "--json").json[0]["run"]
    yield run
    sys.modules.pop("held_tools", None)


@pytest.mark.parametrize(("more", "code"), [("", "F203"), (", api_key: file:/nowhere/key", "F105")])
def test_a_run_whose_endpoint_cannot_be_had_stays_interrupted(
    shell: Shell, cut: str, port: int, more: str, code: str
) -> None:
    Path("go").touch()
    Path("configs/nowhere.yaml").write_text(FLEET.replace("max_model_len: 1000", f"max_model_len: 1000{more}"))
    said = shell("runs", "resume", "--all", "--json")
    assert (said.code, said.json["status"], said.json["reason"][:4]) == (1, "not resumed", code)
    assert [run["status"] for run in shell("runs", "list", "--json").json] == ["interrupted"]
    Path("configs/nowhere.yaml").write_text(FLEET.replace(":9/", f":{port}/"))
    assert shell("runs", "resume", "--all", "--json").json["status"] == "failed"


def test_who_has_a_run_in_hand_is_told(shell: Shell, cut: str, port: int) -> None:
    Path("configs/nowhere.yaml").write_text(FLEET.replace(":9/", f":{port}/"))
    found = subprocess.Popen(
        [*COMMAND, "runs", "resume", cut], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    try:
        until(lambda: shell("runs", "list", "--json").json[0]["status"] == "running")
        said = shell("runs", "resume", cut)
        assert (said.code, f"J022: run {cut} is running in process {found.pid} on " in said.err) == (1, True)
        assert f"active in process {found.pid} on " in shell("runs", "show", cut).out
    finally:
        found.kill()
        found.wait(PATIENCE)


def test_where_nothing_is_to_be_resumed_json_has_no_line(shell: Shell) -> None:
    said = [shell("runs", "resume", "--all", *more) for more in ((), ("--json",))]
    assert [(one.code, one.out) for one in said] == [(0, "no interrupted runs\n"), (0, "")]
