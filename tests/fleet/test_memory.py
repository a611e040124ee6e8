"""Whether a model fits in memory: what is available, what a server needs, and the error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra.core.errors import FleetError
from orchestra.fleet.config import LocalServer
from orchestra.fleet.memory import AvailableMemory, available_memory, check_memory
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.messages import ServerReport, SupervisorReport
from orchestra.fleet.weights.weights import ModelStore

from .conftest import local_config

GIB = 1 << 30
HUB = {"licence": "none", "sources": [{"hub": "a/b", "download_bytes": 4 * GIB}]}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8 * GIB),
        ({"memory.max": "max", "memory.current": "5"}, 8 * GIB),
        ({"a/b/memory.max": f"{3 * GIB}", "a/b/memory.current": f"{GIB}"}, 2 * GIB),
        ({"a/memory.max": f"{2 * GIB}", "a/memory.current": f"{GIB}"}, GIB),
        (
            {
                "a/b/memory.max": f"{3 * GIB}",
                "a/b/memory.current": f"{2 * GIB}",
                "a/b/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            },
            2 * GIB,
        ),
    ],
)
def test_available_memory_is_least_of_machine_and_limits(files: dict[str, str], free: int, tmp_path: Path) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroups"
    write(proc, {"meminfo": f"MemTotal: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n", "self/cgroup": "0::/a/b\n"})
    write(cgroups, files)
    found = available_memory(proc, cgroups)
    assert found is not None
    assert found.bytes == free
    assert ("cgroup" in found.limit) == (free < 8 * GIB)


def test_available_memory_unknown_is_none(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path) is None


def server(**settings: Any) -> LocalServer:
    given: dict[str, Any] = {"device": "cpu", "kv_cache_gib": 1, "weights": HUB, **settings}
    return local_config("m", **given).local_servers["m"]


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, 5),
        ({"dtype": "float32"}, 9),
        ({"quantization": "int8"}, 3),
        ({"kv_cache_gib": 3}, 7),
    ],
)
def test_check_memory_refuses_one_byte_too_few(settings: dict[str, Any], needed: int, tmp_path: Path) -> None:
    store = ModelStore(Folders(tmp_path, tmp_path, tmp_path), hub=True)
    wanted = server(**settings)
    check_memory("servers.m", wanted, store, AvailableMemory(needed * GIB, "the memory of the machine"))
    check_memory("servers.m", wanted, store, None)
    with pytest.raises(FleetError) as caught:
        check_memory("servers.m", wanted, store, AvailableMemory(needed * GIB - 1, "the memory of the machine"))
    assert caught.value.code == "F224"
    assert caught.value.message.startswith(f"servers.m needs at least {needed * GIB / 1e9:.1f} GB: ")
    assert "kv_cache_gib" in caught.value.hint


def test_check_memory_counts_installed_files(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"0" * 100)
    wanted = server(weights={"licence": "none", "sources": [{"folder": str(folder)}]})
    store = ModelStore(Folders(tmp_path, tmp_path, tmp_path))
    check_memory("servers.m", wanted, store, AvailableMemory(GIB + 100, "the memory of the machine"))
    with pytest.raises(FleetError, match="F224"):
        check_memory("servers.m", wanted, store, AvailableMemory(GIB + 99, "the memory of the machine"))


def test_check_memory_gpu_is_not_checked(tmp_path: Path) -> None:
    store = ModelStore(Folders(tmp_path, tmp_path, tmp_path), hub=True)
    check_memory("servers.m", server(device="gpu"), store, AvailableMemory(1, "the memory of the machine"))


async def test_start_without_memory_downloads_nothing(
    faked: Any, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is before the download."""
    fetched: list[str] = []

    async def ensure(target: Any, *_: Any) -> None:
        fetched.append(target.licence)

    monkeypatch.setattr("orchestra.fleet.weights.weights.ensure_weights", ensure)
    tight = AvailableMemory(GIB, "the memory of the machine")
    monkeypatch.setattr("orchestra.fleet.http.addresses.available_memory", lambda: tight)
    package = {"package": "p==1", "member": "m.gguf", "sha256": "0" * 64, "bytes": 4 * GIB, "download_bytes": GIB}
    source = {"licence": "none", "sources": [package]}
    async with faked(local_config("m", device="cpu", weights=source)) as fleet:
        with pytest.raises(FleetError, match=r"servers\.m needs at least") as caught:
            await fleet.wait_until_ready()
    assert (caught.value.code, fetched) == ("F224", [])


async def test_install_on_demand_counts_servers_that_can_be_stopped(
    faked: Any, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = local_config("m", "n", on_demand=True, memory="4GiB", device="cpu", weights=HUB)
    free = AvailableMemory(GIB, "the memory of the machine")
    monkeypatch.setattr("orchestra.fleet.http.addresses.available_memory", lambda: free)
    async with faked(config) as fleet:
        usable = await fleet._addresses._usable_memory()
        assert usable == free
        held = ServerReport(name="m", phase="ready", model="m", memory_bytes=2 * GIB)
        report = SupervisorReport(
            protocol=0, fleet="", digest="", pid=0, uptime=0.0, idle_stop=0.0, logs="", servers=[held, held]
        )

        async def status() -> SupervisorReport:
            return report

        monkeypatch.setattr(fleet._addresses.supervisor, "status", status)
        usable = await fleet._addresses._usable_memory()
    assert usable == AvailableMemory(4 * GIB, "`memory:` of the fleet file"), "5 GiB could be free"
