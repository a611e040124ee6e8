"""`doctor` names servers whose internal ports are open to other users."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestra.cli.doctor import run_checks
from orchestra.core.settings import Settings
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.vllm_cpu import plugin

FLEET = """\
schema: orchestra/fleet/v1
name: it
servers:
  one: {model: m, device: DEVICE, max_model_len: 1024, weights: {licence: MIT, sources: [{folder: models/m}]}}
models: {base: one}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="local servers run only on Linux")
@pytest.mark.parametrize(
    ("device", "version", "open_"),
    [("cpu", "0.32.0", False), ("cpu", "0.99.0", True), ("gpu", "0.32.0", True), ("gpu", "", False)],
)
def test_a_server_with_open_internal_ports_is_named(
    device: str, version: str, open_: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "installed_version", lambda: version)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "it.yaml").write_text(FLEET.replace("DEVICE", device))
    found = run_checks(
        Settings.load({"fleet": str(tmp_path / "it.yaml"), "journal": "off"}, start=tmp_path, environ={})
    )
    said = [(one.state, one.message) for one in found if one.subject == "ports"]
    assert [state for state, _ in said] == (["warning"] if open_ else [])
    assert all("internal ports of one" in text for _, text in said)


def test_gloo_listens_on_the_loopback_alone() -> None:
    from orchestra.fleet.config import parse_config

    for device in ("cpu", "gpu"):
        server = parse_config(FLEET.replace("DEVICE", device), "it.yaml").local_servers["one"]
        assert vllm_launch._environment(server, {})["GLOO_SOCKET_IFNAME"] == "lo"
