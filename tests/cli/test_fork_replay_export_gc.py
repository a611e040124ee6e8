"""`orchestra runs` fork, replay, diff, export and gc, and `run --memo`."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import msgspec
import pytest

from orchestra.cli.options import parse_age
from orchestra.core.errors import InputError
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.schema.strict_json import digest
from tests.cli.shell import Shell
from tests.cli.stage import GOOD, TEXT, Simulated, calls, furnish

TWICE = """\
schema: orchestra/v1
name: twice
input: {question: str, text: str}
output: {one: "${first.answer}", two: "${second.answer}"}
nodes:
  first: {agent: answerer, with: {question: "${input.question}", context: "${input.text}"}}
  second: {agent: critic, with: {question: "${input.question}", context: "${input.text}"}}
"""
OTHER = {"answer": "later", "quote": "in 1889"}


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    critic = Path("agents/critic")
    critic.mkdir()
    (critic / "agent.yaml").write_text(Path("agents/answerer/agent.yaml").read_text().replace("answerer", "critic"))
    (critic / "prompt.md").write_text(Path("agents/answerer/prompt.md").read_text())
    Path("workflows/twice.yaml").write_text(TWICE)
    shell.opener = Simulated({"answerer": GOOD, "critic": GOOD})
    return shell


def ran(shell: Shell, question: str = "When?", *more: str) -> str:
    said = shell("run", "twice", "-i", f"question={question}", "-i", f"text={TEXT}", "--json", *more)
    assert said.code == 0, said.err
    run: str = said.json["run"]
    return run


def test_fork_without_changes_makes_no_call(shell: Shell) -> None:
    run = ran(shell)
    said = shell("runs", "fork", run)
    assert said.code == 0
    assert said.out.startswith("nothing has changed\n")
    assert said.out.endswith(f"2 calls recalled from run {run}, 0 made\n")
    assert calls(shell) == []


def test_fork_after_a_prompt_edit_calls_only_its_agent(shell: Shell) -> None:
    run = ran(shell)
    Path("agents/critic/prompt.md").write_text("{{ context }}\nBe brief.\n{{ question }}\n")
    said = shell("runs", "fork", run)
    assert said.out.startswith("second: its agent critic has changed\n")
    assert said.out.endswith(f"1 call recalled from run {run}, 1 made\n")
    assert calls(shell) == ["critic"]
    assert f"1 answer recalled from run {run}" in shell("runs", "show").out
    assert f"recalled from run {run}" in shell("runs", "show", "last", "first").out


def test_a_fork_is_json_with_its_changes_and_calls(shell: Shell) -> None:
    run = ran(shell)
    found = shell("runs", "fork", run, "-i", "question=Where?", "--json").json
    assert (found["parent"], found["changes"], found["recalled"], found["anew"]) == (run, [], 0, 2)


def test_fork_with_another_file_lists_the_changes(shell: Shell) -> None:
    run = ran(shell)
    Path("other.yaml").write_text(TWICE.replace("  second:", "  third:").replace("second.answer", "third.answer"))
    out = shell("runs", "fork", run, "--workflow", "other.yaml").out
    assert out.startswith("second: is gone\nthird: is new\noutput: is written otherwise\n")


def test_fork_of_an_unknown_workflow_requires_its_file(shell: Shell) -> None:
    run = ran(shell)
    Path("workflows/twice.yaml").rename("elsewhere.yaml")
    said = shell("runs", "fork", run)
    assert (said.code, said.err[:4]) == (2, "C004")
    assert f"orchestra runs fork {run} --workflow FILE" in said.err
    assert shell("runs", "fork", run, "--workflow", "elsewhere.yaml").code == 0


def test_a_run_with_the_memo_says_so_in_its_journal(shell: Shell) -> None:
    options = [
        shell("runs", "show", ran(shell, "When?", *more), "--json").json["events"][0].get("options", {})
        for more in ((), ("--memo",))
    ]
    assert options == [{}, {"memo": True}]


def test_replay_reports_equal_decisions(shell: Shell) -> None:
    run = ran(shell)
    count = len(shell("runs", "show", run, "--json").json["events"])
    said = shell("runs", "replay", run)
    assert (said.code, said.out) == (0, f"{count} events, same decisions of the engine\n")
    assert shell("runs", "replay", run, "--json").json["different"] is None


def test_replay_shows_the_first_difference_with_exit_code_1(shell: Shell) -> None:
    run = ran(shell)

    async def copy() -> None:
        async with SqliteJournal.open(".orchestra/journal.db") as journal:
            events = await journal.read(run)
            made = [event for event in events if getattr(event, "node", "") != "second"]
            for seq, event in enumerate(made, 1):
                changed = {"run": "changed"} if seq == 1 else {}
                journal.append("changed", [msgspec.structs.replace(event, seq=seq, **changed)])
            await journal.wait_durable("changed", len(made))

    asyncio.run(copy())
    said = shell("runs", "replay", "changed")
    assert said.code == 1
    assert "differs: the engine would" in said.out
    assert "the run has ended: done" in said.out.splitlines()[-1]


def test_diff_of_equal_runs_is_empty(shell: Shell) -> None:
    said = shell("runs", "diff", ran(shell), ran(shell))
    assert (said.code, said.out) == (0, "the same: 2 nodes have equal outcomes\n")


def test_diff_shows_changed_nodes_with_exit_code_1(shell: Shell) -> None:
    one = ran(shell)
    shell.opener = Simulated({"answerer": GOOD, "critic": OTHER})
    two = ran(shell)
    said = shell("runs", "diff", one, two)
    assert said.code == 1
    assert [line.split()[0] for line in said.out.splitlines()] == ["node", "the", "second"]
    assert said.out.splitlines()[0].split() == ["node", one, two]
    assert [row["node"] for row in shell("runs", "diff", one, two, "--json").json] == ["", "second"]


def test_export_contains_all_events_and_blobs(shell: Shell) -> None:
    run = ran(shell)
    assert shell("runs", "export", run, "-o", "run.jsonl").code == 0
    head, *lines = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    events = [line["event"] for line in lines if "event" in line]
    blobs = {line["blob"]: base64.b64decode(line["base64"]) for line in lines if "blob" in line}
    assert (head["run"], head["events"], head["blobs"]) == (run, len(events), len(blobs))
    assert events == shell("runs", "show", run, "--json").json["events"]
    assert blobs
    assert all(digest(data) == name for name, data in blobs.items())


def test_an_export_without_blobs_has_events_alone(shell: Shell) -> None:
    run = ran(shell)
    lines = shell("runs", "export", run, "--no-blobs").out.splitlines()
    assert all("event" in json.loads(line) for line in lines[1:])


def test_export_to_an_unwritable_file_is_refused(shell: Shell) -> None:
    said = shell("runs", "export", ran(shell), "-o", "absent/run.jsonl")
    assert (said.code, said.err[:4]) == (1, "C023")


def test_export_prints_a_json_summary(shell: Shell) -> None:
    run = ran(shell)
    said = shell("runs", "export", run, "-o", "run.jsonl", "--json")
    lines = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    assert said.json == {"file": "run.jsonl", "run": run, "events": lines[0]["events"], "blobs": lines[0]["blobs"]}
    assert [json.loads(line) for line in shell("runs", "export", run, "--json").out.splitlines()] == lines


def test_gc_without_an_age_deletes_nothing(shell: Shell) -> None:
    ran(shell)
    said = shell("runs", "gc", "--yes")
    assert (said.code, said.err[:4]) == (2, "C010")
    assert "orchestra runs gc --older 30d" in said.err


def test_gc_without_a_terminal_requires_yes(shell: Shell) -> None:
    ran(shell)
    said = shell("runs", "gc", "--older", "0d")
    assert (said.code, "--yes" in said.err) == (2, True)
    assert len(shell("runs", "list", "--json").json) == 1


def test_gc_lists_and_deletes_all_but_the_newest(shell: Shell) -> None:
    runs = [ran(shell) for _ in range(3)]
    out = shell("runs", "gc", "--older", "0d", "--keep", "1", "--dry-run").out
    assert [line.split()[0] for line in out.splitlines()[:2]] == runs[:2]
    said = shell("runs", "gc", "--older", "0d", "--keep", "1", "--yes")
    assert said.out.startswith("2 runs deleted, ")
    assert [row["run"] for row in shell("runs", "list", "--json").json] == runs[2:]


def test_gc_keeps_waiting_runs(shell: Shell) -> None:
    Path("workflows/wait.yaml").write_text(
        'schema: orchestra/v1\nname: wait\noutput: ${a}\nnodes: {a: {ask: "Well?"}}\n'
    )
    assert shell("run", "wait").code == 5
    ran(shell)
    shell("runs", "gc", "--older", "0d", "--yes")
    assert [row["status"] for row in shell("runs", "list", "--json").json] == ["waiting"]


def test_gc_uses_the_retention_setting(shell: Shell) -> None:
    Path("orchestra.toml").write_text('fleet = "nowhere"\nretention = "0h"\n')
    ran(shell)
    assert shell("runs", "gc", "--yes", "--json").json["deleted"] == 1


@pytest.mark.parametrize("setting", ["soon", "30", "-1d", "30 d"])
def test_invalid_retention_is_refused(shell: Shell, setting: str) -> None:
    Path("orchestra.toml").write_text(f'retention = "{setting}"\n')
    assert shell("runs", "list").err.startswith("C002")


@pytest.mark.parametrize(("text", "found"), [("1h", 3600.0), ("30d", 2_592_000.0), ("2w", 1_209_600.0)])
def test_ages_are_hours_days_and_weeks(text: str, found: float) -> None:
    assert parse_age(text) == found


@pytest.mark.parametrize("text", ["", "d", "1", "1m", "-1d", "1d2h", "１d"])
def test_other_ages_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_age(text)


@pytest.mark.parametrize(
    "verb",
    [
        ("tail",),
        ("answer", "x"),
        ("resume", "x"),
        ("cancel", "x"),
        ("fork", "x"),
        ("replay",),
        ("diff", "x", "y"),
        ("export",),
    ],
    ids=lambda verb: verb[0],
)
def test_commands_without_a_journal_report_it_and_create_no_file(shell: Shell, verb: tuple[str, ...]) -> None:
    said = shell("runs", *verb)
    assert (said.code, said.err[:4]) == (2, "C018")
    assert not Path(".orchestra").exists()


@pytest.mark.parametrize("arguments", [("resume",), ("resume", "last", "--all")])
def test_resume_requires_one_run_or_all(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert shell("runs", *arguments).err.startswith("C010")


def test_unknown_status_is_refused_with_a_suggestion(shell: Shell) -> None:
    assert "did you mean 'waiting'?" in shell("runs", "list", "--status", "waitng").err


def test_runs_of_one_workflow_are_listed(shell: Shell) -> None:
    run = ran(shell)
    shell("run", "answerer", "-i", "question=x", "-i", f"context={TEXT}")
    assert [row["run"] for row in shell("runs", "list", "--workflow", "twice", "--json").json] == [run]
