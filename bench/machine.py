"""The folder of results, and their metadata: date, machine and code version."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

from orchestra.fleet import cpu

ROOT = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """Returns the folder of environments and results, `$XDG_CACHE_HOME/orchestra/bench`; it is created if missing."""
    found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestra" / "bench"
    found.mkdir(parents=True, exist_ok=True)
    return found


def now() -> str:
    """Returns the date, the CPU and its vector instructions, the Python version, and the load of the machine."""
    found = cpu.read_cpu()
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{day}, {os.cpu_count()} processors ({found.model}; {found.instructions}), Python "
        f"{platform.python_version()}{load}"
    )


def code() -> str:
    """Returns the commit, and whether the library has changed since; empty outside of a checkout."""
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "orchestra"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    commit = told.stdout.strip()
    return f"commit {commit}{' and changes' if changed.stdout.strip() else ''}" if commit else ""
