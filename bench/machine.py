"""Where results lie, and what is said beside them: when, on what, of which code."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

from orchestra.fleet import cpu

ROOT = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """Where environments and results lie: `$XDG_CACHE_HOME/orchestra/bench`, made where it is missing."""
    found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestra" / "bench"
    found.mkdir(parents=True, exist_ok=True)
    return found


def now() -> str:
    """The day, the CPU and its vector instructions, the Python, and how busy the machine is."""
    found = cpu.read_cpu()
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{day}, {os.cpu_count()} processors ({found.model}; {found.instructions}), Python {platform.python_version()}{load}"


def code() -> str:
    """The commit, and whether the library was changed since; empty outside of a checkout."""
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "orchestra"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    commit = told.stdout.strip()
    return f"commit {commit}{' and changes' if changed.stdout.strip() else ''}" if commit else ""
