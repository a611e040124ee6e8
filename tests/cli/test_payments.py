"""No sequence of commands repeats a payment; an unknown state is reported."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.paying import BATCH, Starter, paid, results, rows, shop, start, statuses, until
from tests.cli.processes import PATIENCE
from tests.cli.shell import Shell

__all__ = ["shop", "start"]
pytestmark = pytest.mark.slow

FORK = ("runs", "fork", "--failed")
JUST = """
schema: orchestra/v1
name: just
input: {item: str}
output: ${ready}
nodes:
  ready: {tool: ready, with: {item: "${input.item}"}, retry: {attempts: 1}}
"""


def last(said: str) -> str:
    return said.splitlines()[-1]


def test_row_gets_the_result_of_its_fork(shop: Shell) -> None:
    rows("bad", "a")
    shop(*BATCH)
    Path("up").touch()
    assert shop(*FORK).code == 0
    assert last(shop(*BATCH, "--retry-failed").err) == "out.jsonl: 2 rows: 1 done, 1 from before"
    assert (results()[0]["output"], paid(), len(statuses(shop))) == ("sent receipt bad", ["a", "bad"], 3)


def test_row_continues_from_its_newest_fork(shop: Shell) -> None:
    rows("unsent")
    shop(*BATCH)
    for _ in range(2):
        assert shop(*FORK).code == 1
    shop(*BATCH, "--retry-failed")
    Path("up").touch()
    assert shop(*BATCH, "--retry-failed").code == 0
    assert (paid(), statuses(shop)) == (["unsent"], ["done"] + ["failed"] * 4)
    assert shop(*FORK).out == "no failed run is left to repeat\n"


def test_repeated_row_is_not_forked_again(shop: Shell) -> None:
    Path("workflows/just.yaml").write_text(JUST)
    rows("bad")
    batch = ("batch", "just", *BATCH[2:])
    shop(*batch)
    Path("up").touch()
    assert shop(*batch, "--retry-failed").code == 0
    assert shop(*FORK).out == "no failed run is left to repeat\n"


def test_row_with_two_paying_forks_keeps_its_line_with_c059(shop: Shell) -> None:
    rows("badunsent")
    shop(*BATCH)
    run = shop("runs", "list", "--json").json[0]["run"]
    before = results()
    Path("half up").touch()
    for _ in range(2):
        shop("runs", "fork", run)
    assert paid() == ["badunsent"] * 2
    said = shop(*BATCH, "--retry-failed")
    assert "C059" in said.err
    assert (results(), paid()) == (before, ["badunsent"] * 2)


def moved(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run["run"] for run in shop("runs", "list", "--json").json]
    shop("runs", "export", *runs, "-o", "runs.jsonl")
    monkeypatch.setenv("ORCHESTRA_JOURNAL", "moved.db")
    assert shop("runs", "import", "runs.jsonl").code == 0


def test_rows_of_a_moved_journal_repeat_no_payment(
    shop: Shell, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(shop, start)
    moved(shop, monkeypatch)
    Path("go").touch()
    assert "2 of them may have been written before: their calls were recalled" in shop(*BATCH).err
    assert [one["output"] for one in results()] == [f"sent receipt {item}" for item in ("slow", "a", "b")]
    assert paid() == ["a", "b", "slow"]


def cut_off(shop: Shell, start: Starter) -> None:
    """A batch killed while two rows have ended and wait for a slow one before they are written."""
    rows("slow", "a", "b")
    process = start(*BATCH)
    until(lambda: statuses(shop) == ["done", "done", "running"])
    process.kill()
    process.wait(PATIENCE)


def test_imported_run_keeps_its_forked_and_followed_marks(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("workflows/just.yaml").write_text(JUST)
    rows("bad")
    batch = ("batch", "just", *BATCH[2:])
    shop(*batch)
    Path("up").touch()
    shop(*batch, "--retry-failed")
    moved(shop, monkeypatch)
    assert shop(*FORK).out == "no failed run is left to repeat\n"


def test_gc_keeps_unwritten_batch_runs(shop: Shell, start: Starter) -> None:
    cut_off(shop, start)
    assert shop("runs", "gc", "--older", "0d", "--yes").out.startswith(
        "2 kept: their batch has not written their results: "
    )
    Path("go").touch()
    assert shop(*BATCH).code == 0
    assert paid() == ["a", "b", "slow"]
    assert shop("runs", "gc", "--older", "0d", "--yes").out.startswith("3 runs deleted")


def test_row_with_a_deleted_unwritten_run_gets_c059(shop: Shell, start: Starter) -> None:
    cut_off(shop, start)
    done = [run["run"] for run in shop("runs", "list", "--json").json if run["status"] == "done"]
    shop("runs", "delete", done[0], "--yes")
    Path("go").touch()
    assert last(shop(*BATCH).err) == "out.jsonl: 3 rows: 2 done, 1 failed"
    assert [one["error"]["code"] for one in results() if one["error"]] == ["C059"]
    assert paid() == ["a", "b", "slow"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_forks_are_continued(shop: Shell, start: Starter, how: int) -> None:
    rows("badly", "worse", "bad")
    shop(*BATCH)
    Path("up").touch()
    Path("hang").touch()
    process = start(*FORK)
    until(lambda: statuses(shop).count("running") == 2)
    process.send_signal(how)
    said = process.communicate(timeout=PATIENCE)[1]
    if how != signal.SIGKILL:
        assert said.count("stopped; resume with: orchestra runs resume ") == 2
        assert "to continue all of them, repeat the command" in said
    assert "cancelled" not in statuses(shop)
    Path("hang").unlink()
    assert shop(*FORK).code == 0
    assert (paid(), statuses(shop).count("done")) == (["bad", "badly", "worse"], 3)
    assert shop(*FORK).out == "no failed run is left to repeat\n"
    assert last(shop(*BATCH, "--retry-failed").err) == "out.jsonl: 3 rows: 2 done, 1 from before"
    assert paid() == ["bad", "badly", "worse"]


@pytest.mark.parametrize("how", ["gc", "another file"])
def test_failed_row_with_a_missing_run_keeps_its_line(shop: Shell, how: str) -> None:
    rows("unsent")
    shop(*BATCH)
    Path("up").touch()
    target = "out.jsonl"
    if how == "gc":
        shop("runs", "gc", "--older", "0d", "--yes")
    else:
        shutil.copy("out.jsonl", target := "other.jsonl")
    before = Path(target).read_bytes()
    said = shop(*BATCH[:-1], target, "--retry-failed")
    assert "row unsent keeps its result: C059: " in said.err
    assert last(said.err) == f"{target}: 1 rows: 1 failed"
    assert (Path(target).read_bytes(), paid()) == (before, ["unsent"])


def test_concurrent_fork_failed_commands_create_one_fork(shop: Shell, start: Starter) -> None:
    rows("bad1", "bad2", "bad3")
    shop(*BATCH)
    Path("up").touch()
    Path("hang").touch()
    processes = [start(*FORK) for _ in range(2)]
    until(lambda: statuses(shop).count("running") == 3)
    Path("hang").unlink()
    for process in processes:
        process.communicate(timeout=PATIENCE)
    shop(*FORK)
    assert (paid(), statuses(shop)) == (["bad1", "bad2", "bad3"], ["done"] * 3 + ["failed"] * 3)


def test_gc_keeps_a_fork_until_its_batch_has_written_it(shop: Shell, start: Starter) -> None:
    rows("slow", "unsent")
    process = start(*BATCH)
    until(lambda: statuses(shop) == ["failed", "running"])
    process.kill()
    process.wait(PATIENCE)
    Path("up").touch()
    assert shop(*FORK).code == 0
    runs = {run["status"]: run["run"] for run in shop("runs", "list", "--json").json}
    assert shop("runs", "delete", runs["failed"], "--yes").code == 0
    assert shop("runs", "gc", "--older", "0d", "--yes").out.startswith(
        "1 kept: their batch has not written their results: "
    )
    shop("runs", "delete", runs["done"], "--yes")
    Path("go").touch()
    assert last(shop(*BATCH).err) == "out.jsonl: 2 rows: 1 done, 1 failed"
    assert [one["error"]["code"] for one in results() if one["error"]] == ["C059"]
    assert paid() == ["slow", "unsent"]
