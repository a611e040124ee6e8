"""Regression limits of the engine's ratio to the baseline. `python -m bench.engine --record` writes `limits.toml`."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("limits.toml")
FACTOR = 2.0
"""The limit is this multiple of the measured ratio: only a real slowdown exceeds it."""
HEAD = """\
# Ratios of our processor time for an empty node to that of one asyncio task, and the limits that tests/bench holds.
# Written by: python -m bench.engine --record
"""


def write(ratios: Mapping[str, float]) -> None:
    """Records the measured ratios."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    tables = (
        f"\n[{name}]\ndate = {today}\nmeasured = {ratio:.2f}\nlimit = {FACTOR * ratio:.2f}\n"
        for name, ratio in ratios.items()
    )
    FILE.write_text(HEAD + "".join(tables), "utf-8")


def limit(name: str) -> float:
    """Returns the maximal ratio of a workload."""
    with FILE.open("rb") as file:
        return float(tomllib.load(file)[name]["limit"])
