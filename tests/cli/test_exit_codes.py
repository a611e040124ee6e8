"""Errors for a full disk and for invalid keys."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import environment
from tests.cli.shell import Shell
from tests.cli.stage import GOOD, Simulated, furnish

FULL = Path("/dev/full")
VERBS = [("explain", "C023"), ("agents", "list", "--json"), ("agents", "list"), ("agents", "show", "nobody", "--json")]


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_full_disk_behind_stdout_is_reported(shell: Shell, verb: tuple[str, ...]) -> None:
    with FULL.open("wb") as full:
        command = [sys.executable, "-m", "orchestra.cli", *verb]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment())
    assert done.returncode == 1
    assert "C023: the output cannot be written: No space left on device\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_invalid_text_key_is_refused(shell: Shell, options: tuple[str, ...]) -> None:
    furnish()
    shell.opener = Simulated({"answerer": GOOD})
    said = shell("run", "ask", "-i", "question=When?", "-i", "text=In 1889.", "--key", "\udcff", *options)
    assert (said.code, said.err[:5]) == (2, "E013:")
    assert not options or json.loads(said.out)["error"]["code"] == "E013"
