"""`orchestra serve`: a real process, its end by a signal, and its recovery after a kill; and its keys."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestra.cli.serve import KEY_NOTICE, NO_AUTH_NOTICE, PROVIDER_NOTICE, UNUSABLE_NOTICE, start_notices
from orchestra.core.settings import Settings
from orchestra.server import ServerSettings
from orchestra.server.settings import JwtSettings
from tests.cli.shell import Shell
from tests.cli.shell import shell as shell
from tests.server.servers import frames, project

PROVIDER = JwtSettings(jwks_url="https://id.example/keys", issuer="https://id.example", audience="orchestra")


@contextmanager
def served(folder: Path, *arguments: str, journal: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-m", "orchestra.cli", "serve", "--port", "0", "--drain", "1", *arguments]
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(folder / "state"),
        "ORCHESTRA_JOURNAL": journal or str(folder / "runs.db"),
    }
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        text = ""
        while (found := re.search(r"^API +(\S+)/docs$", text, re.MULTILINE)) is None:
            line = process.stdout.readline()
            assert line, text
            text += line
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def start_waiting(url: str) -> str:
    """Starts a run that waits for a person; returns its id."""
    reply = httpx.post(f"{url}/api/runs", json={"workflow": "approve", "inputs": {"draft": "a"}}, timeout=60)
    found: str = reply.json()["id"]
    return found


def test_server_that_is_killed_continues_its_streams(tmp_path: Path) -> None:
    project(tmp_path)
    with served(tmp_path) as (process, url):
        runs = [start_waiting(url) for _ in range(5)]
        heads = [first_events(url, run, 2) for run in runs]
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(tmp_path) as (_, url):
        for run, head in zip(runs, heads, strict=True):
            httpx.post(f"{url}/api/runs/{run}/answers", json={"value": "yes"}, timeout=60)
            last = {"Last-Event-ID": head[-1]["id"]}
            rest = frames(httpx.get(f"{url}/api/runs/{run}/events", headers=last, timeout=60).text)
            numbers = [int(one["id"]) for one in [*head, *rest]]
            assert numbers == list(range(1, len(numbers) + 1))
            assert rest[-1]["event"] == "run_finished"


def first_events(url: str, run: str, count: int) -> list[Any]:
    """Reads the first events of a stream, and leaves it."""
    text = ""
    with httpx.stream("GET", f"{url}/api/runs/{run}/events", timeout=60) as reply:
        for part in reply.iter_text():
            text += part
            if text.count("\n\n") >= count:
                break
    return list(frames(text[: text.rindex("\n\n") + 2]))[:count]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_ends_in_order_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    project(tmp_path)
    with served(tmp_path) as (process, url):
        run = start_waiting(url)
        with httpx.stream("GET", f"{url}/api/runs/{run}/events", timeout=60) as reply:
            lines = reply.iter_lines()
            next(lines)
            process.send_signal(number)
            rest = list(lines)
        assert process.wait() == 0
    assert any("question_asked" in line for line in rest)
    last = frames("\n".join(rest))[-1]
    assert (last["event"], json.loads(last["data"])["code"]) == ("error", "S010")


def test_server_for_other_machines_needs_credentials(shell: Shell) -> None:
    said = shell("serve", "--host", "0.0.0.0", "--no-auth")
    assert said.code == 2
    assert "S016" in said.err


def test_incomplete_identity_provider_is_refused(shell: Shell) -> None:
    said = shell("serve", "--jwks", "https://id.example/keys")
    assert said.code == 2
    assert "C010" in said.err


def test_key_is_made_listed_used_and_revoked(shell: Shell) -> None:
    project(shell.project)
    made = shell("serve", "keys", "create", "app", "--tenant", "acme", "--scopes", "read,run", "--json").json
    listed = shell("serve", "keys", "list", "--json").json
    assert [(one["id"], one["tenant"], one["scopes"]) for one in listed] == [(made["id"], "acme", ["read", "run"])]
    assert "key" not in listed[0]
    assert shell("serve", "keys", "revoke", made["id"]).code == 0
    assert shell("serve", "keys", "list", "--json").json == []
    assert shell("serve", "keys", "revoke", made["id"]).code == 2
    assert shell("serve", "keys", "create", "app", "--scopes", "write").code == 2


@pytest.mark.parametrize("command", [("create", "app"), ("list",), ("revoke", "ok_1")])
def test_keys_without_a_journal_are_refused(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ORCHESTRA_JOURNAL", "off")
    refused = shell("serve", "keys", *command)
    assert (refused.code, refused.out) == (2, "")
    assert "S020" in refused.err
    assert "the journal is off" in refused.err
    assert "--jwks" in refused.err


@pytest.mark.parametrize(
    ("journal", "server", "notices"),
    [
        ("runs.db", ServerSettings(auth=False), [NO_AUTH_NOTICE]),
        ("runs.db", ServerSettings(), [KEY_NOTICE]),
        ("off", ServerSettings(auth=False), [NO_AUTH_NOTICE, "the journal is off"]),
        ("off", ServerSettings(), [UNUSABLE_NOTICE, "the journal is off"]),
        ("off", ServerSettings(jwt=PROVIDER), [PROVIDER_NOTICE, "the journal is off"]),
        ("postgresql://db/runs", ServerSettings(), [KEY_NOTICE]),
        ("env:DATABASE", ServerSettings(auth=False), [NO_AUTH_NOTICE]),
    ],
)
def test_start_notices_state_credentials_and_what_is_not_kept(
    tmp_path: Path, journal: str, server: ServerSettings, notices: list[str]
) -> None:
    settings = Settings.load({"journal": journal}, start=tmp_path, environ={"HOME": str(tmp_path), "DATABASE": "x"})
    printed = list(start_notices(settings, server))
    assert [notice.partition(": keys, files")[0] for notice in printed] == notices


def test_server_without_a_journal_says_what_ends_with_it(tmp_path: Path) -> None:
    project(tmp_path)
    with served(tmp_path, journal="off") as (process, _):
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        printed = process.stdout.read()
    assert "in memory, and end with this process" in printed


def test_server_with_a_key_requires_one(tmp_path: Path) -> None:
    project(tmp_path)
    environment = {**os.environ, "ORCHESTRA_JOURNAL": str(tmp_path / "runs.db")}
    command = [sys.executable, "-m", "orchestra.cli", "serve", "keys", "create", "app", "--json"]
    made = json.loads(subprocess.check_output(command, cwd=tmp_path, env=environment))
    with served(tmp_path) as (_, url):
        refused = httpx.get(f"{url}/api/runs")
        allowed = httpx.get(f"{url}/api/runs", headers={"Authorization": f"Bearer {made['key']}"})
        info = httpx.get(f"{url}/api", headers={"Authorization": f"Bearer {made['key']}"})
    assert (refused.status_code, allowed.status_code) == (401, 200)
    assert info.json()["tenant"] == "default"


def test_keys_of_an_unreachable_database_are_an_error(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_JOURNAL", "postgresql://127.0.0.1:9/runs")
    refused = shell("serve", "keys", "list")
    assert "J030" in refused.err


def test_server_with_invalid_limits_of_tenants_does_not_start(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text("[tenants.acme]\nday = 3\n")
    reply = shell("serve", "--tenants", str(tmp_path / "tenants.toml"))
    assert reply.code == 2
    assert "S023" in reply.err
