"""`orchestra batch`: results in the order of rows, resumed after any interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallError, CallRequest
from tests.cli.shell import Said, Shell
from tests.cli.stage import BAD, GOOD, TEXT, Simulated, furnish

ROOT = Path(__file__).parents[3]


COUNTED = """\
schema: orchestra/v1
name: counted
input: {count: int, words: {type: "list[str]", default: []}}
output: {n: "${input.count}", w: "${input.words}", found: "${found}"}
nodes:
  found: {tool: search, with: {query: a, documents: []}}
"""


def answer(call: CallRequest) -> Any:
    match call.inputs["question"]:
        case "bad":
            return BAD
        case "broken":
            return CallError(code="M001", reason="not JSON")
        case "no fleet":
            return CallError(code="F001", reason="vLLM is not installed", hint="pip install it")
        case _:
            return GOOD


def rows(*questions: str, key: str = "text") -> None:
    lines = [
        {"id": f"r{n}", "input": {"question": question, key: TEXT}, "expected": "secret"}
        for n, question in enumerate(questions)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    shell.opener = Simulated(answer)
    return shell


def batch(shell: Shell, *more: str, name: str = "ask") -> Said:
    return shell("batch", name, "--input", "rows.jsonl", "--output", "out.jsonl", *more)


def simulated(shell: Shell) -> Simulated:
    assert isinstance(shell.opener, Simulated)
    return shell.opener


@pytest.mark.parametrize(
    ("source", "target", "code"), [("rows.jsonl", "agents", "C023"), ("absent.jsonl", "out.jsonl", "C014")]
)
def test_files_that_cannot_be_used_are_told_before_a_fleet_is_started(
    shell: Shell, source: str, target: str, code: str
) -> None:
    rows("good")
    said = shell("batch", "ask", "--input", source, "--output", target)
    assert said.err.startswith(f"{code}: ")
    assert simulated(shell).opened == []


def test_a_table_has_an_input_a_column_and_its_ids_or_numbers_are_the_rows(shell: Shell) -> None:
    Path("rows.csv").write_text(f"\ufeffquestion;text;expected\ngood;{TEXT};secret\nbad;{TEXT};\n", "utf-8")
    assert shell("batch", "ask", "-i", "rows.csv", "-o", "out.jsonl").code == 0
    assert [(one["id"], one["abstained"]) for one in results()] == [("1", False), ("2", True)]
    Path("rows.tsv").write_text(f"id\tquestion\ttext\na\tgood\t{TEXT}\n")
    assert shell("batch", "ask", "-i", "rows.tsv", "-o", "out.jsonl").err.startswith("C022")
    assert shell("batch", "ask", "-i", "rows.tsv", "-o", "other.jsonl").code == 0
    assert json.loads(Path("other.jsonl").read_text())["id"] == "a"


def test_cells_are_parsed_by_type_and_empty_ones_omit_optional_inputs(shell: Shell) -> None:
    shell.opener = Simulated(lambda call: [])
    Path("workflows/counted.yaml").write_text(COUNTED)
    Path("rows.csv").write_text('count,words\n3,"[""a""]"\n4,\n')
    said = shell("batch", "counted", "-i", "rows.csv", "-o", "out.jsonl")
    assert said.code == 0, said.err
    assert [one["output"] for one in results()] == [{"n": 3, "w": ["a"], "found": []}, {"n": 4, "w": [], "found": []}]
    Path("rows.csv").write_text("count\nthree\n")
    refused = shell("batch", "counted", "-i", "rows.csv", "-o", "more.jsonl").err
    assert "C020: row '1': count: " in refused
    assert "the inputs are count, words (optional)" in refused


def test_a_column_that_is_not_there_is_refused(shell: Shell) -> None:
    Path("rows.csv").write_text("qestion,text\ngood,a\n")
    said = shell("batch", "ask", "-i", "rows.csv", "-o", "out.jsonl")
    assert said.err.startswith("C020: there is no column 'question' for the input 'question'")
    assert "did you mean 'qestion'?" in said.err


def test_invalid_table_is_reported_like_invalid_lines(shell: Shell) -> None:
    for name in ("missing.csv", "missing.jsonl"):
        assert shell("batch", "ask", "-i", name, "-o", "out.jsonl").err.startswith(
            f"C014: {name} cannot be read: No such file"
        )
    Path("folder.csv").mkdir()
    assert shell("batch", "ask", "-i", "folder.csv", "-o", "out.jsonl").err.startswith(
        "C014: folder.csv cannot be read"
    )
    Path("rows.csv").write_text("qestion,text\n")
    assert shell("batch", "ask", "-i", "rows.csv", "-o", "out.jsonl").err.startswith(
        "C020: there is no column 'question'"
    )


def test_a_column_that_is_called_nearly_as_an_input_is_told_once(shell: Shell) -> None:
    shell.opener = Simulated(lambda call: [])
    Path("workflows/counted.yaml").write_text(COUNTED)
    Path("rows.csv").write_text("id,count,word\na,3,b\n")
    said = shell("batch", "counted", "-i", "rows.csv", "-o", "out.jsonl")
    assert (
        said.code,
        said.err.count("rows.csv: the column 'word' is ignored; rename it for the input 'words'"),
    ) == (0, 1)


@pytest.mark.parametrize("text", ["qestion,text\ngood,a\n", "question,text\ngood\n"])
def test_a_table_out_of_a_pipe_is_told_by_its_name(shell: Shell, text: str) -> None:
    os.mkfifo("rows.csv")
    feeding = threading.Thread(target=Path("rows.csv").write_text, args=(text,), daemon=True)
    feeding.start()
    said = shell("batch", "ask", "-i", "rows.csv", "-o", "out.jsonl")
    feeding.join(5)
    assert (said.code, "--> rows.csv:" in said.err) == (2, True)


def test_each_row_gets_a_result_in_order(shell: Shell) -> None:
    rows("good", "bad", "good")
    said = batch(shell, "--concurrency", "2")
    assert said.code == 0
    assert said.err.splitlines()[-1] == "out.jsonl: 3 rows: 2 done, 1 abstained"
    found = results()
    assert [result["id"] for result in found] == ["r0", "r1", "r2"]
    assert [result["abstained"] for result in found] == [False, True, False]
    assert (found[0]["output"], found[0]["error"]) == (GOOD, None)
    assert TEXT[found[0]["evidence"][0]["start"] :].startswith("in 1889")
    assert (found[1]["output"], found[1]["error"]["code"]) == (None, "E010")
    assert found[0]["usage"]["calls"] == 1


@pytest.fixture
def pipe() -> Iterator[Callable[[str], str]]:
    """The path of a pipe that returns a text once."""
    read, write = os.pipe()

    def filled(text: str) -> str:
        os.write(write, text.encode())
        os.close(write)
        return f"/dev/fd/{read}"

    yield filled
    os.close(read)


def test_rows_may_come_through_a_pipe(shell: Shell, pipe: Callable[[str], str]) -> None:
    rows("good", "bad")
    said = shell("batch", "ask", "--input", pipe(Path("rows.jsonl").read_text()), "--output", "out.jsonl")
    assert said.err.splitlines()[-1] == "out.jsonl: 2 rows: 1 done, 1 abstained"
    assert [result["id"] for result in results()] == ["r0", "r1"]


def test_a_bad_row_of_a_pipe_is_told_by_the_name_of_the_pipe(shell: Shell, pipe: Callable[[str], str]) -> None:
    name = pipe('{"id": "a", "input": {}}\n')
    said = shell("batch", "ask", "--input", name, "--output", "out.jsonl")
    assert said.code == 2
    assert f"{name}:1" in said.err


def test_rows_that_change_on_the_way_end_the_batch(shell: Shell) -> None:
    def changing(call: CallRequest) -> Any:
        rows("good")
        return GOOD

    rows(*["good"] * 6)
    last = json.dumps({"id": "r6", "input": {"question": "good", "text": TEXT}})
    with Path("rows.jsonl").open("a") as file:
        file.write(f"{' ' * (1 << 17)}\n{last}\n")  # more than is read ahead
    shell.opener = Simulated(changing)
    said = batch(shell, "-c", "1")
    assert said.code == 2
    assert said.err.startswith("C014: rows.jsonl has changed since the start")


def test_what_is_expected_never_reaches_a_model(shell: Shell) -> None:
    rows("good")
    batch(shell)
    workers = simulated(shell).workers
    assert workers is not None
    assert "secret" not in str(workers.calls)


def test_a_failed_row_is_told_and_the_others_go_on(shell: Shell) -> None:
    rows("broken", "good")
    assert batch(shell).code == 0
    assert [result["error"] and result["error"]["code"] for result in results()] == ["M001", None]


def test_a_batch_of_which_nothing_succeeded_is_one(shell: Shell) -> None:
    rows("broken", "broken")
    assert batch(shell).code == 1


def test_no_more_rows_run_at_once_than_allowed(shell: Shell) -> None:
    rows(*["good"] * 20)
    shell.opener = Simulated(answer, latency=0.001)
    batch(shell, "-c", "3")
    workers = simulated(shell).workers
    assert workers is not None
    assert workers.max_in_flight == 3


def test_it_goes_on_by_the_ids_that_are_written(shell: Shell) -> None:
    rows("good", "good", "good")
    batch(shell)
    whole = Path("out.jsonl").read_bytes().splitlines(keepends=True)
    Path("out.jsonl").write_bytes(whole[0] + whole[1][:20])
    said = batch(shell)
    assert said.code == 0
    assert "the last line was incomplete" in said.err
    assert said.err.splitlines()[-1] == "out.jsonl: 3 rows: 2 done, 1 from before"
    assert [result["id"] for result in results()] == ["r0", "r1", "r2"]
    workers = simulated(shell).workers
    assert workers is not None
    assert len(workers.calls) == 2


def test_a_finished_batch_asks_nothing_again(shell: Shell) -> None:
    rows("good", "bad")
    batch(shell)
    before = Path("out.jsonl").read_bytes()
    assert batch(shell).code == 0
    assert Path("out.jsonl").read_bytes() == before


def test_bad_rows_are_two_with_their_lines_and_nothing_starts(shell: Shell) -> None:
    rows("good", "good")
    Path("rows.jsonl").write_text(
        Path("rows.jsonl").read_text()
        + '{"id": "r1", "input": {"question": "x", "text": "y"}}\n{"id": "r2", "input": {"question": 3}}\n'
    )
    said = batch(shell)
    assert said.code == 2
    assert "C021" in said.err
    assert "rows.jsonl:3" in said.err
    assert "question: expected str, got 3" in said.err
    assert "rows.jsonl:4" in said.err
    assert not Path("out.jsonl").exists()


def test_the_output_of_another_batch_is_never_touched(shell: Shell) -> None:
    rows("good", "good")
    batch(shell)
    before = Path("out.jsonl").read_bytes()
    rows("good")
    said = batch(shell)
    assert (said.code, said.err[:4]) == (2, "C022")
    assert Path("out.jsonl").read_bytes() == before


def test_input_and_output_may_not_be_one_file(shell: Shell) -> None:
    rows("good")
    before = Path("rows.jsonl").read_bytes()
    assert shell("batch", "ask", "--input", "rows.jsonl", "--output", "rows.jsonl").code == 2
    assert Path("rows.jsonl").read_bytes() == before


def test_without_a_fleet_the_batch_ends_and_the_row_is_done_later(shell: Shell) -> None:
    rows("good", "no fleet", "good")
    said = batch(shell, "-c", "1")
    assert said.code == 1
    assert "pip install it" in said.err
    assert [result["id"] for result in results()] == ["r0"]


def test_an_agent_is_run_on_rows_by_its_own_name(shell: Shell) -> None:
    rows("good", key="context")
    assert batch(shell, name="answerer").code == 0
    assert results()[0]["output"] == GOOD


@pytest.mark.parametrize(("option", "abstained"), [(("--checks", "quote"), True), (("--no-checks",), False)])
def test_an_agent_s_checks_can_be_chosen(shell: Shell, option: tuple[str, ...], abstained: bool) -> None:
    rows("bad", key="context")
    assert batch(shell, *option, name="answerer").code == 0
    assert [result["abstained"] for result in results()] == [abstained]


@pytest.mark.parametrize(
    "options",
    [
        ("--checks", "qoute"),
        ("--checks", "quote", "--no-checks"),
        ("--constraint", "some"),
        ("-c", "0"),
        ("--budget", "x=1"),
    ],
)
def test_wrong_options_are_two(shell: Shell, options: tuple[str, ...]) -> None:
    rows("good", key="context")
    assert batch(shell, *options, name="answerer").code == 2
    assert not Path("out.jsonl").exists()


def test_checks_of_a_workflow_are_its_own(shell: Shell) -> None:
    rows("good")
    said = batch(shell, "--no-checks")
    assert (said.code, said.err[:4]) == (2, "C010")


def test_what_models_decode_over_is_a_setting(shell: Shell) -> None:
    rows("good", key="context")
    batch(shell, "--constraint", "none", name="answerer")
    assert simulated(shell).opened[0].constraint == "none"


def test_the_summary_is_json_where_it_is_asked(shell: Shell) -> None:
    rows("good", "bad", "broken")
    assert batch(shell, "--json").json == {
        "rows": 3,
        "earlier": 0,
        "done": 1,
        "abstained": 1,
        "waiting": 0,
        "failed": 1,
    }


def test_retry_failed_replaces_results_in_place(shell: Shell) -> None:
    rows("good", "broken", "bad")
    batch(shell)
    before = results()
    assert batch(shell, "--json").json["earlier"] == 3
    assert results() == before
    shell.opener = Simulated({"answerer": GOOD})
    said = batch(shell, "--retry-failed", "--json").json
    assert (said["earlier"], said["done"], said["failed"]) == (2, 1, 0)
    after = results()
    assert [one["id"] for one in after] == [one["id"] for one in before]
    assert (after[0], after[2]) == (before[0], before[2])
    assert (before[1]["error"] is None, after[1]["error"] is None) == (False, True)
    assert [path.name for path in Path().glob(".out.jsonl*")] == []


SLOW = """
import asyncio, sys
from orchestra.cli.main import build_app
from tests.cli.stage import GOOD, Simulated

async def answer(call):
    if call.inputs["question"] == "slow":
        print("called", flush=True, file=sys.stderr)
        await asyncio.sleep(3600)
    return GOOD

build_app(Simulated(answer))(prog_name="orchestra")
"""


def test_an_interrupted_batch_leaves_whole_lines_and_says_how_to_go_on(shell: Shell) -> None:
    rows("good", "good", "slow", "good")
    command = [sys.executable, "-c", SLOW, "batch", "ask", "--input", "rows.jsonl", "--output", "out.jsonl", "-c", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stderr is not None
    assert process.stderr.readline() == "called\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "4 rows: 2 done; to continue, repeat the command\ninterrupted\n"
    assert [result["id"] for result in results()] == ["r0", "r1"]
    rows("good", "good", "good", "good")
    assert batch(shell).code == 0
    assert [result["id"] for result in results()] == ["r0", "r1", "r2", "r3"]


def test_a_batch_takes_up_the_runs_that_a_kill_cut_off(shell: Shell) -> None:
    rows("good", "slow", "slow")
    command = [sys.executable, "-c", SLOW, "batch", "ask", "--input", "rows.jsonl", "--output", "out.jsonl", "-c", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stderr is not None
    assert [process.stderr.readline() for _ in range(2)] == ["called\n", "called\n"]
    until = time.monotonic() + 30
    while (
        sum(run["status"] == "running" for run in shell("runs", "list", "--json").json) < 2 and time.monotonic() < until
    ):
        time.sleep(0.05)  # what it started may not be on disk yet
    process.kill()
    process.communicate(timeout=60)
    cut = {run["run"] for run in shell("runs", "list", "--json").json if run["status"] == "interrupted"}
    assert len(cut) == 2
    rows("good", "slow", "good")  # the last one has another input, so its run cannot be its result
    assert batch(shell).code == 0
    runs = shell("runs", "list", "--json").json
    assert sorted(run["status"] for run in runs) == ["cancelled", "done", "done", "done"]
    assert cut < {run["run"] for run in runs}


def test_a_row_is_asked_anew_when_its_line_was_taken_out(shell: Shell) -> None:
    rows("good", "good")
    batch(shell)
    Path("out.jsonl").write_text(Path("out.jsonl").read_text().splitlines(True)[0])
    assert batch(shell).code == 0
    assert len(shell("runs", "list", "--json").json) == 3


def test_a_row_with_another_input_than_its_result_is_refused(shell: Shell) -> None:
    rows("good", "good", "good")
    batch(shell)
    before = Path("out.jsonl").read_bytes()
    rows("bad", "good", "bad")
    said = batch(shell)
    assert said.code == 2
    assert "out.jsonl:1" in said.err
    assert "out.jsonl:3" in said.err
    assert "C022: the result of 'r0' belongs to another input of the row" in said.err
    assert Path("out.jsonl").read_bytes() == before
    Path("out.jsonl").write_bytes(before.splitlines(True)[1])
    assert batch(shell).code == 0


def test_results_that_do_not_say_of_which_input_they_are_go_on_as_before(shell: Shell) -> None:
    rows("good", "good")
    batch(shell)
    Path("out.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in one.items() if k != "inputs"}) + "\n" for one in results())
    )
    rows("bad", "bad")
    assert "2 rows: 2 from before" in batch(shell).err
