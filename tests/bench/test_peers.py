"""The harness for other libraries: adapters run every node, the server answers after the drawn latency, tables have
ratios.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.peers.tables import ARMS, FLOOR, report

pytestmark = pytest.mark.slow

PEERS = Path(__file__).resolve().parents[2] / "bench" / "peers"


def measured(script: str, *arguments: str) -> list[dict[str, Any]]:
    """The output of an adapter in the harness. It asserts that every node ran once."""
    done = subprocess.run(
        [sys.executable, str(PEERS / script), *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=PEERS.parents[1],
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def faults(rows: list[dict[str, Any]]) -> list[str]:
    return [row["error"] for row in rows if "error" in row]


@pytest.mark.parametrize("variant", ["", "durable", "values", "sync"])
def test_orchestra_adapter_runs_all_shapes(variant: str) -> None:
    rows = measured("bench_orchestra.py", "--workload", "abcgi", "--n", "60", "--inner", "1", "--variant", variant)
    assert faults(rows) == []
    assert [row["workload"] for row in rows] == list("abcgi")


@pytest.mark.parametrize("script", ["bench_orchestra.py", "bench_asyncio.py"])
def test_adapter_calls_server_once_per_node(script: str) -> None:
    rows = measured(script, "--workload", "ef", "--n", "30")
    assert faults(rows) == []
    assert rows[0]["makespan_over_cp"] >= 0.99, "no engine is faster than the critical path"


def test_orchestra_adapter_accepts_harness_client() -> None:
    rows = measured("bench_orchestra.py", "--workload", "f", "--n", "10", "--client", "aiohttp")
    assert faults(rows) == []


def row(label: str, value: float, **more: Any) -> dict[str, Any]:
    return {
        "workload": "a",
        "n": 100,
        "label": label,
        "us_per_node": value,
        "cpu_us_per_node": value,
        "build_ms": 1.0,
        **more,
    }


def test_peers_table_has_medians_and_ratios(tmp_path: Path) -> None:
    peer = ARMS[-1].label
    text = report([row(FLOOR, 2.0), row(peer, 9.0), row(peer, 10.0), row(peer, 50.0)], tmp_path)
    assert f"| {peer} | 10 | 10 | 1 | 5 | 9 to 50 | 3 |" in text


def test_peers_table_reports_failed_peer(tmp_path: Path) -> None:
    broken = {"workload": "a", "n": 0, "label": ARMS[-1].label, "error": "it fell over"}
    assert "it fell over" in report([row(FLOOR, 2.0), broken], tmp_path)


def test_peers_uninstallable_peer_reported(tmp_path: Path) -> None:
    (tmp_path / "faults.json").write_text('{"haystack": "no such package"}')
    assert "Not installed: haystack (no such package)." in report([row(FLOOR, 2.0)], tmp_path)
