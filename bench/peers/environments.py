"""A separate environment for each peer, installed with pip in the user's cache folder, so that imports and memory are
independent.

    python -m bench.peers.environments [NAME ...] [--again]

Failed installations are reported, and the others continue. `versions.json` beside the environments has their contents.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import folder

ROOT = Path(__file__).resolve().parents[2]
COMMON = ("networkx", "aiohttp", "uvloop")
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "asyncio": (),
    "orchestra": (str(ROOT),),
    "langgraph": ("langgraph", "langgraph-checkpoint-sqlite", "aiosqlite", "openai"),
    "haystack": ("haystack-ai", "openai"),
    "burr": ("burr", "openai"),
    "llamaindex": ("llama-index-workflows", "openai"),
    "pydantic": ("pydantic-graph", "openai"),
    "dbos": ("dbos", "openai"),
    "llamaserver": ("llama-index-workflows", "llama-agents-server"),
    "hayhooks": ("hayhooks",),
}
"""The environments and their packages beside `COMMON`; ours is built from this checkout like a user's
installation.
"""
LIMIT_S = 900


def python(name: str) -> Path:
    """Returns the interpreter of an environment, which may not exist."""
    return folder() / "envs" / name / "bin" / "python"


def ready(name: str) -> bool:
    """Returns whether an environment is complete."""
    return (folder() / "envs" / name / ".complete").exists()


def make(name: str) -> str:
    """Creates an environment; returns "" or the reason of the failure."""
    home = folder() / "envs" / name
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    steps = (
        [sys.executable, "-m", "venv", str(home)],
        [str(python(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *COMMON, *PACKAGES[name]],
    )
    for step in steps:
        fault = _fault(step)
        if fault:
            return fault
    (home / ".complete").touch()
    return ""


def renew_ours() -> str:
    """Installs the current checkout into our environment; returns "" or the reason of the failure."""
    install = [str(python("orchestra")), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT)]
    # Twice: requirements may have grown, and the version alone does not show that the code has changed.
    return _fault(install) or _fault([*install, "--force-reinstall", "--no-deps"])


def _fault(step: Sequence[str]) -> str:
    try:
        done = subprocess.run(step, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"not done within {LIMIT_S} s"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if "ERROR" in line or "error" in line]
    return (lines or done.stderr.splitlines() or [f"exit {done.returncode}"])[0][:200]


def versions(name: str) -> dict[str, str]:
    """Returns the installed packages of an environment with their versions."""
    listed = subprocess.run(
        [str(python(name)), "-m", "pip", "list", "--format=json"], stdout=subprocess.PIPE, text=True, check=True
    )
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return {one["name"]: one["version"] for one in found}


def prepare(names: Sequence[str], *, again: bool = False) -> dict[str, str]:
    """Creates missing environments, and records the contents of all; returns the reasons of failures."""
    faults = {}
    for name in names:
        if again or not ready(name):
            print(f"# making the environment {name}", file=sys.stderr, flush=True)
            fault = make(name)
        else:
            fault = renew_ours() if name == "orchestra" else ""
        if fault:
            faults[name] = fault
            print(f"# {name} could not be installed: {fault}", file=sys.stderr, flush=True)
    known = {name: versions(name) for name in PACKAGES if ready(name)}
    (folder() / "versions.json").write_text(json.dumps(known, indent=1, sort_keys=True), "utf-8")
    return faults


def main() -> None:
    """Creates environments."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", help=f"of {', '.join(PACKAGES)}; all by default")
    options.add_argument("--again", action="store_true", help="reinstall")
    given = options.parse_args()
    faults = prepare(given.names or list(PACKAGES), again=given.again)
    print(f"{folder()}: {len(PACKAGES) - len(faults)} of {len(PACKAGES)} environments")


if __name__ == "__main__":
    main()
