"""`--live`: model output on stderr, never mixed with the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.cli.output import StatusLine, print_note
from orchestra.cli.run.watch import LiveText
from orchestra.engine.streaming import TextPiece
from orchestra.testing import answer_sequence
from tests.cli.run.test_ask import PLAN, WHEN, desk
from tests.cli.shell import Shell
from tests.cli.stage import ASK, BAD, GOOD, TEXT, Simulated, furnish

__all__ = ["desk"]

INPUTS = ("-i", "question=When?", "-i", f"text={TEXT}")
MAY = """nodes:
  may: {ask: "Read it?", options: ["yes", "no"]}
  reading:
    after: [may]
"""


def piece(node: str, text: str, attempt: int = 1) -> TextPiece:
    return TextPiece(run="r", node=node, agent="writer", attempt=attempt, start=0, text=text)


def test_live_shows_attempts_on_stderr_and_the_answer_on_stdout(shell: Shell) -> None:
    furnish()
    shell.opener = Simulated({"answerer": answer_sequence(BAD, GOOD)}, chunks=3)
    plain, live = shell("run", "ask", *INPUTS), shell("run", "ask", *INPUTS, "--live")
    assert (plain.code, live.code, plain.err) == (0, 0, "")
    assert live.err.splitlines() == [
        "reading (answerer), unverified:",
        '{"answer":"1890","quote":"in 1890"}',
        "reading (answerer, attempt 2), unverified:",
        '{"answer":"1889","quote":"in 1889"}',
    ]
    assert live.out.splitlines()[:4] == plain.out.splitlines()[:4]
    assert "unverified" not in live.out


@pytest.mark.parametrize("other", ["--json", "--stream"])
def test_it_is_for_people(shell: Shell, other: str) -> None:
    furnish()
    said = shell("run", "ask", *INPUTS, "--live", other)
    assert (said.code, f"--live is for people, and {other} for programs" in said.out + said.err) == (2, True)
    said = shell("runs", "resume", "--all", "--live")
    assert (said.code, "--live requires a single run" in said.err) == (2, True)


def test_live_shows_step_texts_but_not_router_texts(desk: Shell) -> None:
    desk.opener.options["chunks"] = 3  # type: ignore[union-attr]
    said = desk("ask", WHEN, "--no-rules", "--documents", "docs", "--live")
    assert (said.code, said.out.partition("\n")[0]) == (0, "1889")
    assert sorted(said.err.split("\n")) == sorted([*PLAN, "s2[0] (reader), unverified:", '{"answer":"1889"}', "", ""])
    assert "unverified" not in desk("ask", WHEN, "--no-rules", "--documents", "docs", "--no-cache").err
    refused = desk("ask", WHEN, "--no-rules", "--live", "--json")
    assert (refused.code, "--live is for people" in refused.err) == (2, True)


def test_a_run_that_is_answered_or_forked_is_read_live_too(shell: Shell) -> None:
    furnish()
    Path("workflows/ask.yaml").write_text(ASK.replace("nodes:\n  reading:\n", MAY))
    shell.opener = Simulated({"answerer": GOOD}, chunks=3)
    wrote = "reading (answerer), unverified:\n" + '{"answer":"1889","quote":"in 1889"}\n'
    assert shell("run", "ask", *INPUTS).code == 5
    said = shell("runs", "answer", "last", "yes", "--live")
    assert (said.code, said.err) == (0, wrote)
    Path("agents/answerer/prompt.md").write_text("Otherwise. {{ question }} {{ context }}")
    said = shell("runs", "fork", "last", "--live")
    assert (said.code, said.err) == (0, wrote), "a fork reuses the answer of the person"
    for verb in (("fork", "last"), ("answer", "last", "yes")):
        refused = shell("runs", *verb, "--live", "--stream")
        assert (refused.code, "--live is for people, and --stream for programs" in refused.err) == (2, True)
    later = shell("runs", "answer", "last", "yes", "--live", "--later")
    assert (later.code, "--live follows the run, but --later does not" in later.err) == (2, True)


def test_what_else_is_told_does_not_stand_in_the_middle_of_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    writing = LiveText(StatusLine(), lambda node: node.upper() if node != "router" else "")
    writing.defer(lambda: print_note("first"))
    writing.add(piece("router", "s1 = "))
    writing.add(piece("a", "one "))
    writing.defer(lambda: print_note("second"))
    writing.add(piece("b", "three"))
    writing.add(piece("a", "two"))
    writing.end("a")
    assert capsys.readouterr().err == "first\nA (writer), unverified:\none two\nsecond\nB (writer), unverified:\nthree"


def test_texts_that_are_written_at_once_are_shown_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    writing = LiveText(StatusLine())
    for node, text in (("a", "one "), ("b", "three "), ("a", "two\x1b[31m"), ("b", "four")):
        writing.add(piece(node, text))
    writing.end("a2")
    assert capsys.readouterr().err == "a (writer), unverified:\none two\\x1b[31m"
    writing.end("a", 1)
    assert capsys.readouterr().err == "\nb (writer), unverified:\nthree four"
    writing.paused = True
    writing.add(piece("b", "!"))
    writing.add(piece("c", "last\n"))
    writing.end("b")
    assert (capsys.readouterr().err, writing.is_busy) == ("", True)
    writing.paused = False
    writing.end()
    assert (capsys.readouterr().err, writing.is_busy) == ("!\nc (writer), unverified:\nlast\n", False)
