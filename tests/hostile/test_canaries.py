"""Tests I9 and I11 end to end: data stays within its label, and no file, log, error or answer contains a key."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from orchestra.testing.fake_vllm.faults import EndpointFaults
from tests.cli.shell import Shell
from tests.hostile.scene import FLEET, Setting, play

CANARY = "canary-5f3a91c07b"
KEYED = FLEET.replace("model: m,", "model: m, api_key: 'env:CANARY_KEY',")
FAULTS = [field.name for field in fields(EndpointFaults) if field.name not in ("repeats", "stall", "slow_first_token")]


def written(*folders: Path) -> bytes:
    """Returns the bytes of all files."""
    return b"".join(path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_api_key_is_sent_and_stored_nowhere(
    fault: str, shell: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    chances: dict[str, Any] = {fault: 1.0} if fault else {}
    faults = EndpointFaults(**chances, repeats=1)
    played = play(shell.project, "echoing", "said", on=Setting(KEYED, faults, log="debug"), text="x")
    assert played.requests
    assert all(request.key == CANARY for request in played.requests), "the server got it"
    commands = (
        ("show", "last"),
        ("show", "last", "said", "--prompt"),
        ("show", "last", "--json"),
        ("export", "last"),
        ("tail", "last"),
    )
    told = [said.out + said.err for said in (shell("runs", *command) for command in commands)]
    log = capfd.readouterr()
    assert "run started" in log.err, "the log is on"
    everything = (
        written(shell.project, shell.home).decode("latin-1") + "".join(told) + log.out + log.err + repr(played.events)
    )
    assert CANARY not in everything


def test_api_key_echoed_by_server_is_redacted(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debugging proxies and malicious servers echo keys; without redaction, readers of answers or journals would see
    the key.
    """
    monkeypatch.setenv("CANARY_KEY", CANARY)
    played = play(
        shell.project,
        "echoing",
        lambda request: json.dumps({"answer": f"it was {request.key}"}),
        on=Setting(KEYED),
        text="x",
    )
    told = [
        said.out + said.err
        for said in (shell("runs", *command) for command in (("show", "last", "said", "--prompt"), ("export", "last")))
    ]
    assert played.requests[0].key == CANARY
    assert "it was [the key]" in repr(played.output)
    assert CANARY not in written(shell.project, shell.home).decode("latin-1") + "".join(told) + repr(
        (played.events, played.blobs)
    )


@pytest.mark.parametrize(("label", "comes"), [("internal", True), ("restricted", False)])
def test_restricted_data_reaches_only_cleared_servers(label: str, comes: bool, shell: Shell) -> None:
    fleet = FLEET.replace("label: restricted", "label: internal")
    played = play(shell.project, "echoing", "said", on=Setting(fleet, label=label), text="x")  # type: ignore[arg-type]  # one of the labels
    assert bool(played.requests) is comes
    assert (played.status, played.code) == (("done", "") if comes else ("failed", "F202"))
