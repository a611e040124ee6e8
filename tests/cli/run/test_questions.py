"""Questions to persons: at the terminal, with `runs answer`, and in a batch."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from orchestra.cli.run.questions import format_question
from orchestra.cli.run.watch import update_open_questions
from orchestra.core.events import (
    NO_OPEN_QUESTION,
    EvidenceText,
    InboxMessageRejected,
    QuestionAsked,
    Verdict,
    WithheldOutput,
)
from tests.cli.processes import Terminal, started
from tests.cli.shell import Said, Shell
from tests.cli.stage import Simulated, furnish

pytestmark = pytest.mark.slow

TRIP = """\
schema: orchestra/v1
name: trip
input: {city: str}
output: {sure: "${sure}", nights: "${nights}"}
nodes:
  sure: {ask: "Is ${input.city} right?", options: ["yes", "no"]}
  nights: {ask: "How many nights (you said ${sure})?", returns: int}
"""
BOTH = """\
schema: orchestra/v1
name: both
input: {}
output: {one: "${one}", two: "${two}"}
nodes:
  one: {ask: "One?"}
  two: {ask: "Two?", returns: "list[str]"}
"""
TIMED = """\
schema: orchestra/v1
name: timed
input: {}
output: ${two}
nodes:
  one: {call: {nodes: {sure: {ask: "Sure?"}}, output: "${sure}"}, timeout: 2, fallback: none}
  two: {ask: "And two (${one})?"}
"""
RUN = ("run", "trip", "-i", "city=Rome")


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    Path("workflows/trip.yaml").write_text(TRIP)
    Path("workflows/both.yaml").write_text(BOTH)
    shell.opener = Simulated({})
    return shell


def asked(shell: Shell, *command: str) -> str:
    """The id of a waiting run."""
    said = shell(*(command or RUN), "--json")
    assert said.code == 5
    run: str = said.json["run"]
    return run


def word(shell: Shell, run: str, node: str = "sure") -> str:
    """The token of a question of a run."""
    (found,) = [str(one["to"]) for one in shell("runs", "show", run, "--json").json["asked"] if one["node"] == node]
    return found


def typed(shell: Shell, said: Said) -> Sequence[str]:
    """The command in a text, as words."""
    line = next(line for line in said.out.splitlines() if line.startswith("answer with: orchestra "))
    return line.removeprefix("answer with: orchestra ").split()


def test_question_without_a_terminal_prints_a_command_and_exits_with_5(shell: Shell) -> None:
    said = shell(*RUN)
    assert said.code == 5
    assert "sure: Is Rome right?\n  1  yes\n  2  no\n" in said.out


def test_the_command_that_is_printed_answers(shell: Shell) -> None:
    first = shell(*RUN)
    second = shell(*typed(shell, first))
    assert (second.code, "nights: How many nights (you said yes)?" in second.out) == (5, True)
    last = shell(*typed(shell, second), "--json")
    assert (last.code, last.json["output"]) == (0, {"sure": "yes", "nights": 3})


def test_printed_command_answers_only_its_question(shell: Shell) -> None:
    first = shell(*RUN)
    assert shell(*typed(shell, first)).code == 5
    said = shell(*typed(shell, first))  # answered by a person who has also read the first question
    assert (said.code, said.err[:5]) == (2, "E037:")
    assert f"no longer asks the question {typed(shell, first)[4]}" in said.err
    assert shell("runs", "list", "--json").json[0]["status"] == "waiting"


def test_answer_without_a_token_needs_a_single_question(shell: Shell) -> None:
    run = asked(shell)
    assert shell("runs", "answer", run, "yes").code == 5
    for command in (("3",), ("--decline", "no idea")):
        said = shell("runs", "answer", run, *command)
        assert (said.code, said.err[:5]) == (2, "E037:")
        assert "nights: How many nights (you said yes)?" in said.err
        assert f"orchestra runs answer {run} --to {word(shell, run, 'nights')} {' '.join(command)}".split(" no ")[
            0
        ] in said.err.replace("'", "")
    assert shell("runs", "answer", run, "3", "--node", "nights").code == 0


def test_last_is_a_run_that_somebody_else_may_have_begun(shell: Shell) -> None:
    first, second = asked(shell), asked(shell)
    said = shell("runs", "answer", "last", "yes")
    assert (said.code, f"`last` is the run {second}, but other runs wait too" in said.err) == (2, True)
    shell("runs", "cancel", first)
    assert shell("runs", "answer", "last", "yes").code == 5


def test_ambiguous_answer_is_confirmed_at_the_terminal(shell: Shell) -> None:
    run = asked(shell)
    shell("runs", "answer", run, "yes")
    for key, code in (("n", 2), ("y", 0)):
        with Terminal("runs", "answer", run, "3") as terminal:
            assert "How many nights (you said yes)?" in terminal.until("[y/N] ")
            terminal.press(f"{key}\n")
            assert terminal.ended()[0] == code


FORGED = "Is it?\n  1  yes\n  2  no\nanswer with: orchestra runs answer RUN yes\r\n\nmore: nothing"


def test_a_text_in_a_question_cannot_end_it(shell: Shell) -> None:
    said = shell("run", "trip", "-i", f"city={FORGED}")
    quoted = (
        "  |   1  yes\n  |   2  no\n  | answer with: orchestra runs answer RUN yes\n  | \n  | more: nothing right?\n"
    )
    assert f"sure: Is Is it?\n{quoted}  1  yes" in said.out
    assert len([line for line in said.out.splitlines() if line.startswith(("answer with: ", "  1  "))]) == 2


def test_nor_can_evidence_of_what_was_withheld() -> None:
    withheld = WithheldOutput(
        {"fact": "x"}, "", (Verdict("quote", "fail", 0.0, "says\n  1  yes"),), (EvidenceText(FORGED, "it\n  1  yes"),)
    )
    asked = QuestionAsked(
        seq=1,
        at=0.0,
        node="told",
        question="Right?",
        schema={},
        question_digest="",
        options=("yes",),
        withheld=withheld,
    )
    shown = format_question(asked).splitlines()
    assert [line for line in shown if line.startswith(("  1  ", "answer with"))] == ["  1  yes"]
    assert "  | answer with: orchestra runs answer RUN yes" in shown


def test_a_waiting_run_is_json_with_its_questions(shell: Shell) -> None:
    found = shell(*RUN, "--json").json
    assert (found["status"], found["output"]) == ("waiting", None)
    (question,) = found["asked"]
    assert (question["node"], question["options"], question["about"]) == ("sure", ["yes", "no"], "answer")


def test_a_waiting_run_is_listed_and_shown_as_waiting(shell: Shell) -> None:
    run = asked(shell)
    assert [row["run"] for row in shell("runs", "list", "--status", "waiting", "--json").json] == [run]
    assert shell("runs", "list", "--status", "done", "--json").json == []
    said = shell("runs", "show", run)
    assert said.out.startswith("trip: waiting, started")
    assert typed(shell, said)[:4] == ["runs", "answer", run, "--to"]


def test_tail_ends_where_a_run_waits_and_says_so(shell: Shell) -> None:
    run = asked(shell)
    said = shell("runs", "tail", run)
    assert said.code == 0
    command = f"orchestra runs answer {run} --to {word(shell, run)} yes"
    assert f"waits for a person\nsure: Is Rome right?\n  1  yes\n  2  no\nanswer with: {command}\n" in said.out


def test_an_answer_put_down_for_later_is_taken_when_the_run_is_resumed(shell: Shell) -> None:
    run = asked(shell)
    said = shell("runs", "answer", run, "no", "--later", "--by", "ada")
    assert (said.code, said.out) == (0, "")
    said = shell("runs", "answer", run, "yes", "--later")
    assert (said.code, said.err[:5]) == (2, "E021:")
    assert shell("runs", "resume", run).code == 5
    assert "sure: answered by ada: no" in shell("runs", "show", run).out


@pytest.mark.parametrize(
    ("value", "code"),
    [((), "C024"), (("perhaps",), "E022"), (("yes", "--node", "nights"), "E021")],
    ids=["none", "no option", "no such question"],
)
def test_what_is_no_answer_is_two_and_leaves_the_run_waiting(shell: Shell, value: tuple[str, ...], code: str) -> None:
    run = asked(shell)
    said = shell("runs", "answer", run, *value)
    assert (said.code, said.err[:4]) == (2, code)
    assert shell("runs", "list", "--json").json[0]["status"] == "waiting"


def test_an_answer_of_another_type_is_written_as_json(shell: Shell) -> None:
    run = asked(shell, "run", "both")
    said = shell("runs", "answer", run, "a, b", "--node", "two")
    assert (said.code, said.err[:4]) == (2, "C024")
    assert f"orchestra runs answer {run} --to {word(shell, run, 'two')} " in said.err
    assert shell("runs", "answer", run, '["a", "b"]', "--node", "two").code == 5
    assert shell("runs", "answer", run, "3", "--node", "one", "--json").json["output"] == {
        "one": "3",
        "two": ["a", "b"],
    }


def test_where_two_questions_are_open_the_node_is_named(shell: Shell) -> None:
    run = asked(shell, "run", "both")
    said = shell("runs", "answer", run, "x")
    assert (said.code, said.err[:4]) == (2, "E021")
    assert "one, two" in said.err
    assert f"answer {run} --to {word(shell, run, 'one')} " in shell("runs", "show", run).out


def test_declined_question_withholds_dependent_outputs(shell: Shell) -> None:
    run = asked(shell)
    said = shell("runs", "answer", run, "--decline", "I was never there", "--by", "ada", "--json")
    assert (said.code, said.json["status"]) == (3, "abstained")
    assert "ada declined to answer: I was never there" in said.json["error"]["message"]
    shown = shell("runs", "show", run).out
    assert "sure: declined by ada: I was never there" in shown
    assert "nights" in shown
    assert shell("runs", "replay", run).code == 0
    assert "declined by ada: I was never there" in shell("runs", "tail", run).out


def test_a_decline_for_later_is_taken_when_the_run_is_resumed(shell: Shell) -> None:
    run = asked(shell)
    said = shell("runs", "answer", run, "--decline", "no idea", "--later")
    assert (said.code, "sure is declined; resume it with: orchestra runs resume" in said.err) == (0, True)
    assert shell("runs", "resume", run).code == 3


@pytest.mark.parametrize("value", [("yes", "--decline", "no idea"), ("--decline", " ")], ids=["both", "no reason"])
def test_an_answer_and_a_reason_exclude_each_other_and_a_reason_is_needed(shell: Shell, value: tuple[str, ...]) -> None:
    run = asked(shell)
    said = shell("runs", "answer", run, *value)
    assert (said.code, said.err[:4]) == (2, "C024")
    assert shell("runs", "list", "--json").json[0]["status"] == "waiting"


def test_the_questions_of_a_waiting_run_say_how_to_decline(shell: Shell) -> None:
    found = shell("run", "both", "--json").json
    assert [question["decline"] for question in found["asked"]] == [
        f"orchestra runs answer {found['run']} --to {word(shell, found['run'], node)} --decline 'your reason'"
        for node in ("one", "two")
    ]


def test_at_a_terminal_a_line_declines(shell: Shell) -> None:
    with Terminal(*RUN) as terminal:
        assert "/decline REASON, to decline" in terminal.until("> ")
        terminal.press("/decline\n")
        assert "a reason is required to decline sure" in terminal.until("> ")
        terminal.press("/decline I was never there\n")
        code, shown = terminal.ended()
    assert (code, "declined to answer: I was never there" in shown) == (3, True)


def test_a_run_that_asks_nothing_is_not_answered(shell: Shell) -> None:
    run = asked(shell)
    shell("runs", "cancel", run)
    assert shell("runs", "answer", run, "yes").err.startswith("E021")


def test_a_waiting_run_is_cancelled_and_says_by_whom(shell: Shell) -> None:
    run = asked(shell)
    assert shell("runs", "cancel", run, "--by", "ada").out == f"run {run} is cancelled\n"
    assert "cancelled by ada" in shell("runs", "show", run).out
    assert shell("runs", "cancel", run).out == f"run {run} has already ended: cancelled\n"


def test_rows_of_a_batch_that_ask_end_as_waiting_with_their_run(shell: Shell) -> None:
    Path("rows.jsonl").write_text(
        "".join(json.dumps({"id": name, "input": {"city": name}}) + "\n" for name in ("Rome", "Oslo"))
    )
    said = shell("batch", "trip", "-i", "rows.jsonl", "-o", "out.jsonl", "--json")
    assert (said.code, said.json["waiting"], said.json["failed"]) == (0, 2, 0)
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    waiting = {row["run"] for row in shell("runs", "list", "--status", "waiting", "--json").json}
    assert {row["waiting"] for row in rows} == waiting
    assert shell("runs", "answer", rows[0]["waiting"], "yes").code == 5


def batch(shell: Shell) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """The summary of the batch, and its results in the order of the file."""
    said = shell("batch", "trip", "-i", "rows.jsonl", "-o", "out.jsonl", "--json")
    assert said.code == 0
    return said.json, [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


def test_a_batch_that_is_given_again_takes_up_what_persons_answered(shell: Shell) -> None:
    Path("rows.jsonl").write_text(
        "".join(json.dumps({"id": name, "input": {"city": name}}) + "\n" for name in ("Rome", "Oslo", "Bari"))
    )
    _, rows = batch(shell)
    waiting = [row["waiting"] for row in rows]
    for node, value in (("sure", "yes"), ("nights", "3")):
        shell("runs", "answer", waiting[1], value, "--node", node)
    shell("runs", "answer", waiting[2], "no", "--later")
    Path("out.jsonl").chmod(0o640)
    summary, rows = batch(shell)
    assert (summary["earlier"], summary["done"], summary["waiting"]) == (0, 1, 2)
    assert stat.S_IMODE(Path("out.jsonl").stat().st_mode) == 0o640
    assert [row["id"] for row in rows] == ["Rome", "Oslo", "Bari"]
    assert (rows[1]["output"], rows[1]["waiting"], rows[1]["error"]) == ({"sure": "yes", "nights": 3}, None, None)
    assert [rows[0]["waiting"], rows[2]["waiting"]] == [waiting[0], waiting[2]]
    assert "nights waits" in rows[2]["error"]["message"]
    before = Path("out.jsonl").stat().st_ino
    assert batch(shell)[0]["earlier"] == 1
    assert Path("out.jsonl").stat().st_ino == before, "where all is as it was nothing is written"
    assert len(shell("runs", "list", "--json").json) == 3


def test_batch_writes_new_rows_if_the_file_cannot_be_replaced(shell: Shell) -> None:
    lines = [json.dumps({"id": name, "input": {"city": name}}) + "\n" for name in ("Rome", "Oslo")]
    Path("rows.jsonl").write_text(lines[0])
    _, (row,) = batch(shell)
    for node, value in (("sure", "yes"), ("nights", "3")):
        shell("runs", "answer", row["waiting"], value, "--node", node)
    Path("rows.jsonl").write_text("".join(lines))
    Path(f".out.jsonl.{os.getpid()}").mkdir()
    said = shell("batch", "trip", "-i", "rows.jsonl", "-o", "out.jsonl")
    assert "1 results are unchanged" in said.err
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [one["id"] for one in rows] == ["Rome", "Oslo"]
    assert rows[0] == row


def test_a_run_that_is_gone_leaves_its_row_waiting_and_is_not_begun_anew(shell: Shell) -> None:
    Path("rows.jsonl").write_text(json.dumps({"id": "Rome", "input": {"city": "Rome"}}) + "\n")
    _, (row,) = batch(shell)
    shell("runs", "cancel", row["waiting"])
    assert shell("runs", "delete", row["waiting"], "--yes").code == 0
    _, (again,) = batch(shell)
    assert (again["waiting"], again["error"]["code"]) == (row["waiting"], "E020")
    assert shell("runs", "list", "--json").json == []


def test_a_question_that_waits_for_a_while_is_told_beside_the_output(shell: Shell) -> None:
    Path("workflows/timed.yaml").write_text(
        'schema: orchestra/v1\nname: timed\noutput: ${a}\nnodes: {a: {ask: "Well?", timeout: 1, fallback: "none"}}\n'
    )
    said = shell("run", "timed", "--json")
    assert (said.code, said.json["output"]) == (0, "none")
    assert said.err.startswith("a: Well?\n  until ")


def test_at_a_terminal_the_questions_are_asked_right_there(shell: Shell) -> None:
    with Terminal(*RUN, "--json") as terminal:
        terminal.until("Is Rome right?\n  1  yes\n  2  no\n  /decline REASON, to decline\n> ")
        terminal.press("perhaps\n")
        assert "E022" in terminal.until("> ")
        terminal.press("2\n")
        terminal.until("How many nights (you said no)?")
        terminal.until("> ")
        terminal.press("4\n")
        code, shown = terminal.ended()
    assert code == 0
    assert '"output":{"sure":"no","nights":4}' in shown


def test_whoever_leaves_the_terminal_leaves_the_run_waiting(shell: Shell) -> None:
    with Terminal(*RUN) as terminal:
        terminal.until("> ")
        terminal.press("\x04")
        code, shown = terminal.ended()
    assert (code, "waits for a person" in shown) == (5, True)
    assert shell("runs", "list", "--json").json[0]["status"] == "waiting"


def test_answer_without_a_value_asks_at_the_terminal(shell: Shell) -> None:
    run = asked(shell, "run", "both")
    with Terminal("runs", "answer", run, "--node", "two") as terminal:
        terminal.until("> ")
        terminal.press("a\n")
        terminal.until("> ")
        terminal.press('["a"]\n')
        terminal.until("one: One?")
        terminal.press("1\n")
        assert terminal.ended()[0] == 0


def test_a_question_that_was_answered_elsewhere_is_not_asked_any_more(shell: Shell) -> None:
    with Terminal(*RUN) as terminal:
        terminal.until("> ")
        assert shell("runs", "answer", "last", "yes", "--later").code == 0
        terminal.until("sure was answered elsewhere")
        terminal.until("nights (you said yes)?")
        terminal.press("5\n")
        assert terminal.ended()[0] == 0


def test_a_question_whose_node_ran_out_of_time_is_not_asked_any_more(shell: Shell) -> None:
    Path("workflows/timed.yaml").write_text(TIMED)
    with Terminal("run", "timed") as terminal:
        terminal.until("one/sure: Sure?")
        terminal.until("one/sure was answered elsewhere, or is no longer asked")
        terminal.until("two: And two (none)?")
        said = shell("runs", "answer", "last", "yes", "--node", "one/sure")
        assert (said.code, "E021" in said.err, "these do: two" in said.err) == (2, True, True)
        terminal.press("yes\n")
        code, shown = terminal.ended()
    assert (code, "Sure?" in shown) == (0, False)


def test_a_question_that_the_run_does_not_know_is_not_asked_again() -> None:
    asked = {
        node: QuestionAsked(seq=2, at=1.0, node=node, question="Well?", schema={}, question_digest="d")
        for node in ("one", "two")
    }
    unknown = InboxMessageRejected(seq=4, at=1.0, message_number=1, node="one", reason=NO_OPEN_QUESTION)
    assert update_open_questions(asked, unknown) == {"two": asked["two"]}
    assert update_open_questions(asked, replace(unknown, reason="it is no number")) == asked


def test_who_answers_a_run_that_another_process_has_in_hand_is_told(shell: Shell) -> None:
    Path("workflows/ask.yaml").write_text(
        Path("workflows/ask.yaml").read_text().replace("nodes:\n", 'nodes:\n  sure: {ask: "Sure?"}\n')
    )
    process = started("run", "ask", "-i", "question=x", "-i", "text=y", script="forever")
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "called\n"
        deadline = time.monotonic() + 30
        while not shell("runs", "show", "last", "--json").json[
            "asked"
        ]:  # the call was made, but the question may not be on disk yet
            assert time.monotonic() < deadline
        said = shell("runs", "answer", "last", "yes")
        assert (said.code, "another process holds the run" in said.err) == (0, True)
    finally:
        process.kill()
        process.communicate()
