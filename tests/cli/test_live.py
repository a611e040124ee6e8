"""`--live`: what models write while they do, on stderr, and never in the way of what a program reads."""

from __future__ import annotations

import pytest

from orchestra.cli.live import Writing
from orchestra.cli.progress import Waiting
from orchestra.engine.live import TextPiece
from orchestra.testing import in_turn
from tests.cli.shell import Shell
from tests.cli.stage import BAD, GOOD, TEXT, Simulated, furnish

INPUTS = ("-i", "question=When?", "-i", f"text={TEXT}")


def piece(node: str, text: str, attempt: int = 1) -> TextPiece:
    return TextPiece(run="r", node=node, agent="writer", attempt=attempt, start=0, text=text)


def test_every_attempt_is_shown_on_stderr_as_what_it_is_and_the_answer_stays_alone_on_stdout(shell: Shell) -> None:
    furnish()
    shell.opener = Simulated({"answerer": in_turn(BAD, GOOD)}, chunks=3)
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
    assert (said.code, "--live is for one run" in said.err) == (2, True)


def test_texts_that_are_written_at_once_are_shown_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    writing = Writing(Waiting())
    for node, text in (("a", "one "), ("b", "three "), ("a", "two\x1b[31m"), ("b", "four")):
        writing.add(piece(node, text))
    writing.end("a2")
    assert capsys.readouterr().err == "a (writer), unverified:\none two\\x1b[31m"
    writing.end("a", 1)
    assert capsys.readouterr().err == "\nb (writer), unverified:\nthree four"
    writing.still = True
    writing.add(piece("b", "!"))
    writing.add(piece("c", "last\n"))
    writing.end("b")
    assert (capsys.readouterr().err, writing.busy) == ("", True)
    writing.still = False
    writing.end()
    assert (capsys.readouterr().err, writing.busy) == ("!\nc (writer), unverified:\nlast\n", False)
