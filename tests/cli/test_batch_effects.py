"""`orchestra batch` with lasting effects: no interruption repeats an effect."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallError, CallRequest
from tests.cli.paying import BATCH, BUY, Starter, paid, results, rows, shop, start, statuses, until
from tests.cli.processes import PATIENCE, environment
from tests.cli.shell import Said, Shell
from tests.cli.stage import FILES, GOOD, TEXT, Simulated

__all__ = ["shop", "start"]
pytestmark = pytest.mark.slow


def cut_off(shop: Shell, start: Starter, how: int) -> subprocess.Popen[str]:
    """A batch stopped while two rows have ended and wait for a slow one before they are written."""
    rows("slow", "a", "b")
    process = start(*BATCH)
    until(lambda: statuses(shop) == ["done", "done", "running"])
    process.send_signal(how)
    process.wait(PATIENCE)
    assert Path("out.jsonl").read_text() == ""
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_batch_writes_ended_unwritten_rows_without_running_them_again(shop: Shell, start: Starter, how: int) -> None:
    cut_off(shop, start, how)
    Path("go").touch()
    said = shop(*BATCH)
    assert said.code == 0
    assert "2 of them are results of earlier runs that had not been written" in said.err
    assert [one["output"] for one in results()] == ["sent receipt slow", "sent receipt a", "sent receipt b"]
    assert (paid(), statuses(shop)) == (["a", "b", "slow"], ["done"] * 3)


def test_batch_does_not_repeat_rows_resumed_elsewhere(shop: Shell, start: Starter) -> None:
    cut_off(shop, start, signal.SIGKILL)
    Path("go").touch()
    assert shop("runs", "resume", "--all").code == 0
    assert shop(*BATCH).err.splitlines()[-1] == "out.jsonl: 3 rows: 3 done"
    assert paid() == ["a", "b", "slow"]


def test_batch_waits_for_a_run_held_by_another_process(shop: Shell, start: Starter) -> None:
    cut_off(shop, start, signal.SIGKILL)
    start("runs", "resume", "--all")
    until(lambda: "running" in statuses(shop))
    batch = start(*BATCH)
    assert batch.stderr is not None
    assert batch.stderr.readline().startswith("row slow waits: run ")
    Path("go").touch()
    batch.communicate(timeout=PATIENCE)
    assert (batch.returncode, paid(), statuses(shop)) == (0, ["a", "b", "slow"], ["done"] * 3)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_call_interrupted_by_a_signal_asks_a_person(shop: Shell, start: Starter, how: int) -> None:
    rows("doubtful", "a")
    process = start(*BATCH)
    until(lambda: paid() == ["a", "doubtful"] and statuses(shop) == ["done", "running"])
    process.send_signal(how)
    process.communicate(timeout=PATIENCE)
    assert statuses(shop) == ["done", "interrupted"]
    assert "1 waiting for a person" in shop(*BATCH).err
    assert paid() == ["a", "doubtful"]
    assert shop("runs", "answer", results()[0]["waiting"], "--gave", "receipt 7").code == 0
    assert shop(*BATCH).err.splitlines()[-1] == "out.jsonl: 2 rows: 1 done, 1 from before"
    assert (results()[0]["output"], paid()) == ("sent receipt 7", ["a", "doubtful"])


def test_batch_reruns_rows_whose_lines_or_file_were_removed(shop: Shell) -> None:
    rows("a", "b")
    shop(*BATCH)
    Path("out.jsonl").write_text(Path("out.jsonl").read_text().splitlines(True)[0])
    shop(*BATCH)
    assert paid() == ["a", "b", "b"]
    Path("out.jsonl").unlink()
    shop(*BATCH)
    assert paid() == ["a", "a", "b", "b", "b"]


def test_retry_failed_repeats_no_effects(shop: Shell) -> None:
    rows("unsent", "a")
    assert "1 done, 1 failed" in shop(*BATCH).err
    Path("up").touch()
    assert shop(*BATCH, "--retry-failed").err.splitlines()[-1] == "out.jsonl: 2 rows: 1 done, 1 from before"
    assert (results()[0]["output"], paid()) == ("sent receipt unsent", ["a", "unsent"])


def test_retry_failed_retries_a_row_that_failed_twice(shop: Shell) -> None:
    rows("unsent")
    shop(*BATCH)
    shop(*BATCH, "--retry-failed")
    assert results()[0]["error"]["code"] == "T003"
    Path("up").touch()
    shop(*BATCH, "--retry-failed")
    assert (results()[0]["output"], paid()) == ("sent receipt unsent", ["unsent"])


def test_retry_after_a_workflow_fix_repeats_no_payment(shop: Shell, start: Starter) -> None:
    cut_off(shop, start, signal.SIGKILL)
    Path("go").touch()
    Path("workflows/buy.yaml").write_text(BUY.replace("attempts: 1", "attempts: 2"))
    assert shop(*BATCH).err.splitlines()[-1] == "out.jsonl: 3 rows: 3 done"
    assert paid() == ["a", "b", "slow"]


def test_batch_repeats_no_effects_after_a_missing_fleet(shop: Shell) -> None:
    ask = (
        FILES["workflows/ask.yaml"]
        .replace("name: ask", "name: bought")
        .replace("nodes:", "nodes:\n  paid: {tool: pay, with: {item: a}}")
    )
    Path("workflows/bought.yaml").write_text(ask.replace("  reading:\n", "  reading:\n    after: [paid]\n"))
    Path("rows.jsonl").write_text(json.dumps({"id": "a", "input": {"question": "When?", "text": TEXT}}) + "\n")

    def called(up: bool) -> tuple[Said, list[str]]:
        def script(call: CallRequest) -> Any:
            absent = CallError(code="F001", reason="vLLM is not installed", hint="pip install it")
            return "receipt" if call.kind == "tool" else GOOD if up else absent

        shop.opener = simulated = Simulated(script)
        said = shop("batch", "bought", "-i", "rows.jsonl", "-o", "out.jsonl")
        assert simulated.workers is not None
        return said, [call.name for call in simulated.workers.calls]

    said, calls = called(up=False)
    assert (said.code, said.err[:4], calls[0], os.path.getsize("out.jsonl")) == (1, "F001", "pay", 0)
    said, calls = called(up=True)
    assert (said.code, calls, results()[0]["output"]) == (0, ["answerer"], GOOD)


PATIENT = "import orchestra.cli.signals as s; s.GRACE_SECONDS = {grace}; from orchestra.cli.main import main; main()"


@pytest.mark.parametrize(("grace", "signals"), [(0.2, 1), (600.0, 2)])
def test_sigterm_ends_a_process_with_a_hanging_function(shop: Shell, grace: float, signals: int) -> None:
    command = [sys.executable, "-c", PATIENT.format(grace=grace), "run", "ship", "-i", "item=a"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        until(lambda: paid() == ["a"])
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("stopped; resume with: orchestra runs resume ")
        assert process.stderr.readline().startswith("waiting for 1 plain function, at most ")
        if signals == 2:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    finally:
        process.kill()
        process.communicate()
    found = shop("runs", "resume", "last", "--json")
    assert (found.code, found.json["asked"][0]["about"], paid()) == (5, "effect", ["a"])


def test_row_of_an_earlier_version_repeats_no_payment(
    shop: Shell,
) -> None:
    rows("a")
    shop(*BATCH)
    with closing(sqlite3.connect(".orchestra/journal.db")) as journal, journal:
        journal.execute("DELETE FROM memo")  # earlier versions had no marks
    Path("out.jsonl").unlink()
    said = shop(*BATCH).err
    assert "had ended before" not in said
    assert "1 of them may have been written before" in said
    assert (results()[0]["output"], paid()) == ("sent receipt a", ["a"])
    Path("out.jsonl").unlink()
    shop(*BATCH)  # now it is known to be written
    assert paid() == ["a", "a"]
