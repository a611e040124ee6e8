"""Setup with make: the lock files match pyproject.toml and each other, and errors name a command."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {name: ROOT / "requirements" / f"{name}.lock" for name in ("base", "cpu")}


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["bootstrap"] = module
    specification.loader.exec_module(module)
    return module


def pins(bootstrap: ModuleType, name: str) -> dict[str, str]:
    return {pin.name: pin.version for pin in bootstrap.read_lock(LOCKS[name])}


def test_the_locks_agree_where_they_overlap(bootstrap: ModuleType) -> None:
    base, cpu = pins(bootstrap, "base"), pins(bootstrap, "cpu")
    assert {name: (base[name], cpu[name]) for name in base.keys() & cpu.keys() if base[name] != cpu[name]} == {}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_core_dependency_in_its_range(bootstrap: ModuleType, name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    held = pins(bootstrap, name)
    wanted = [Requirement(line) for line in project["dependencies"]]
    assert [str(one) for one in wanted if held.get(canonicalize_name(one.name), "0") not in one.specifier] == []


def test_every_tool_of_the_development_groups_is_pinned(bootstrap: ModuleType) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    wanted = [Requirement(line) for group in groups.values() for line in group if isinstance(line, str)]
    held = pins(bootstrap, "base")
    assert [str(one) for one in wanted if held.get(canonicalize_name(one.name), "0") not in one.specifier] == []


def test_the_fleet_comes_without_what_breaks_it(bootstrap: ModuleType) -> None:
    """torchaudio and torchcodec would be CUDA builds, with which transformers cannot be imported."""
    assert {"torchaudio", "torchcodec"} & pins(bootstrap, "cpu").keys() == set()


def test_the_weights_of_the_laptop_fleet_come_with_the_setup(bootstrap: ModuleType) -> None:
    stated = re.findall(r"package: ([\w-]+)==(\S+)", (ROOT / "configs" / "laptop.yaml").read_text("utf-8"))
    assert stated
    assert set(stated) <= set(pins(bootstrap, "cpu").items())


def test_every_wheel_has_a_digest_but_pytorchs_own(bootstrap: ModuleType) -> None:
    bare = {pin.name for name in LOCKS for pin in bootstrap.read_lock(LOCKS[name]) if not pin.sha256}
    assert bare == {"torch", "torchvision"}


def test_the_makefile_says_how_much_each_set_fetches(bootstrap: ModuleType) -> None:
    stated = {
        name: int(size)
        for size, name in re.findall(
            r"\((?:Linux; )?(\d+) MB to fetch\)\n\t@\$\(PYTHON\) scripts/bootstrap.py (\w+)",
            (ROOT / "Makefile").read_text("utf-8"),
        )
    }
    real = {name: sum(pin.download for pin in bootstrap.read_lock(path)) / 1e6 for name, path in LOCKS.items()}
    assert {name: abs(stated[name] - size) <= 0.1 * size for name, size in real.items()} == {"base": True, "cpu": True}


def test_a_line_that_is_no_pin_is_refused_with_its_number(bootstrap: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text("# fine\naiohttp>=3\n")
    with pytest.raises(bootstrap.Trouble, match=r"x\.lock:2 is not a pin"):
        bootstrap.read_lock(lock)


def test_batches_keep_every_pin_once_and_the_bare_ones_apart(bootstrap: ModuleType) -> None:
    everything = bootstrap.read_lock(LOCKS["cpu"])
    batches = list(bootstrap.batches(everything))
    assert sorted(pin.name for batch in batches for pin in batch) == sorted(pin.name for pin in everything)
    assert all(len({bool(pin.sha256) for pin in batch}) == 1 for batch in batches)


def test_another_system_is_told_to_use_an_endpoint(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Darwin")
    with pytest.raises(bootstrap.Trouble, match=r"configs/endpoint\.yaml"):
        bootstrap.check_machine(["cpu"])
    bootstrap.check_machine(["base"])


def test_a_full_disk_is_noticed_before_anything_is_fetched(bootstrap: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(bootstrap.Trouble, match="free; this needs"):
        bootstrap.check_room(bootstrap.Venv(tmp_path), 10**18)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "not the one that the lock pins"),
        ("NameResolutionError: Failed to resolve\nERROR: No matching distribution found for x", "cannot be reached"),
        ("ERROR: No matching distribution found for numba==1", "has no wheel for Python"),
        ("something else", "goes on where it stopped"),
    ],
)
def test_a_failure_of_pip_is_told_in_plain_words(bootstrap: ModuleType, said: str, told: str) -> None:
    assert told in bootstrap.explain(said, [])


def test_without_a_network_the_setup_says_so_and_ends_with_2(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "bootstrap.py"), "base", "--venv", str(tmp_path / "venv")]
    environment = {**os.environ, "PIP_RETRIES": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot be reached" in done.stderr) == (2, True), done.stdout + done.stderr


def test_when_nothing_changed_the_setup_is_silent(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv = bootstrap.Venv(tmp_path)
    venv.python.parent.mkdir()
    venv.python.symlink_to(sys.executable)
    venv.stamp.write_text(json.dumps({"ready:base": bootstrap.digest(venv, "base")}))
    assert bootstrap.main(["base", "--venv", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
