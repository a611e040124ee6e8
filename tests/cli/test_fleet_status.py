"""`orchestra fleet status`: what it prints about servers that ended."""

from __future__ import annotations

import pytest

from orchestra.cli.fleet import _FleetStatus, _show_status
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.messages import ServerFailure, ServerReport, SupervisorReport
from tests.fleet.conftest import local_config


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
