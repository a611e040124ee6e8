"""Tests that loading untrusted files has no side effects and ends in a value or a coded error, in bounded time and
memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FACTOR = float(os.environ.get("ORCHESTRA_FUZZ", "1"))
"""The multiple of 10,000 loads; `scripts/fuzz.py` runs without a limit."""


def test_load_of_10_000_fuzzed_inputs_has_no_side_effects(tmp_path: Path) -> None:
    program = Path(__file__).with_name("loads.py")
    arguments = [sys.executable, str(program), str(tmp_path), str(FACTOR)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600 * max(1.0, FACTOR), check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert sum(count for codes in told.values() for count in codes.values()) >= int(10_000 * FACTOR)
    # A fuzzer tests nothing if all of its files are accepted, or all are refused for the same reason.
    for kind, codes in told.items():
        assert codes.get("accepted", 0) > 0, kind
        assert len(codes) >= 2, kind
