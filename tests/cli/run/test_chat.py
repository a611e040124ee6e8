"""`orchestra chat`: requests and follow-ups over standard input and at a terminal, its commands, and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.cli.run.chat import ChatValues
from tests.cli.processes import PATIENCE, Terminal, environment
from tests.cli.shell import Said, Shell
from tests.cli.stage import furnish

pytestmark = pytest.mark.slow

TABLE = "Quarter,Town,Sales\nQ1,Sligo,120\nQ2,Sligo,150\nQ1,Galway,70\nQ2,Galway,90\n"
SLIGO = "What were the sales of Sligo in Q1?"


@pytest.fixture
def desk(shell: Shell) -> Shell:
    """A project with one table, and no fleet."""
    Path("docs").mkdir()
    Path("docs/sales.csv").write_text(TABLE)
    return shell


def chat(desk: Shell, *lines: str, thread: str = "sales", more: tuple[str, ...] = ()) -> Said:
    arguments = ("chat", "-d", "docs", "--thread", thread, *more)
    return desk(*arguments, stdin="".join(f"{line}\n" for line in lines))


def test_chat_answers_follow_up_and_shows_full_request(desk: Shell) -> None:
    said = chat(desk, SLIGO, "and in Q2?")
    assert said.code == 0, said.err
    assert "Understood as: What were the sales of Sligo in Q2?\n" in said.err
    assert said.out.index("120") < said.out.index("150")
    assert "  150  Q2, Sales  table row 3\n" in said.out


def test_chat_continues_a_thread_by_its_id(desk: Shell) -> None:
    first = chat(desk, SLIGO)
    assert first.err.endswith("continue with: orchestra chat --thread sales\n")
    said = chat(desk, "and Galway?", "/history")
    assert "Understood as: What were the sales of Galway in Q1?" in said.err
    history = said.out[said.out.index(f"1  {SLIGO}") :]
    assert "2  and Galway?\n   understood as: What were the sales of Galway in Q1?\n   70.\n" in history
    runs = desk("runs", "list", "--tag", "orchestra.thread=sales", "--json").json
    assert [run["status"] for run in runs] == ["done", "done"]


def test_chat_new_thread_has_an_id_of_its_own(desk: Shell) -> None:
    said = desk("chat", "-d", "docs", stdin=f"{SLIGO}\n/new other\nand in Q2?\n")
    assert said.code == 3
    assert "thread other\nNot asked: “in Q2” is no full request, and there is no earlier request." in said.err
    assert said.err.endswith("continue with: orchestra chat --thread other\n")


def test_chat_number_chooses_a_reading(desk: Shell) -> None:
    said = chat(desk, "How did the sales of Sligo change from Q1 to Q1?", "and Q2?", "2", "/history")
    assert "Which one is meant?\n  1  How did" in said.err
    option = said.err.partition("  2  ")[2].partition("\n")[0]
    assert f"Understood as: {option}\n" not in said.err.partition("  2  ")[0]
    assert f"2  and Q2?\n   understood as: {option}\n" in said.out
    assert len(desk("runs", "list", "--json").json) == 2


def test_chat_unclear_last_turn_exits_with_3(desk: Shell) -> None:
    said = chat(desk, SLIGO, "And the other one?")
    assert said.code == 3
    assert "Not asked: “the other one”" in said.err


def test_chat_delete_deletes_runs_of_the_thread(desk: Shell) -> None:
    chat(desk, SLIGO, thread="other")
    said = chat(desk, SLIGO, "and in Q2?", "/delete")
    assert "deleted 2 turns; thread " in said.err
    assert len(desk("runs", "list", "--json").json) == 1


def test_chat_commands_help_and_unknown(desk: Shell) -> None:
    said = chat(desk, "/help", "/what", "", "/quit", SLIGO)
    assert "/history   the turns so far" in said.out
    assert "/what is no command" in said.err
    assert desk("runs", "list", "--json").json == []


def test_chat_budget_ends_turns_and_not_the_conversation(desk: Shell) -> None:
    said = chat(desk, SLIGO, "and in Q2?", "/history", more=("--budget", "calls=1"))
    assert "E042: the thread sales has used 1 of 1 calls" in said.err
    assert f"1  {SLIGO}" in said.out
    assert chat(desk, "and in Q2?", more=("--budget", "calls=1")).code == 4


def test_chat_values_are_read_again_if_a_file_changed(desk: Shell) -> None:
    values = ChatValues([Path("docs")], ())
    first = values.read("a")
    assert values.read("b") is first
    Path("docs/sales.csv").write_text(TABLE + "Q3,Sligo,1500\n")
    assert values.read("c").values["table"][-1] == ["Q3", "Sligo", "1500"]


def test_chat_reads_lines_of_a_pipe(desk: Shell) -> None:
    command = [sys.executable, "-m", "orchestra.cli", "chat", "-d", "docs", "--thread", "sales"]
    lines = f"{SLIGO}\nand in Q2?"  # the last line without its end
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, env=environment(), timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Understood as: What were the sales of Sligo in Q2?" in done.stderr
    assert "150" in done.stdout


def test_chat_ctrl_c_cancels_the_turn_only(desk: Shell) -> None:
    furnish()
    arguments = ("chat", "-i", "text=It was opened in 1889.", "--only", "answerer", "--thread", "tower")
    with Terminal(*arguments, script="forever") as terminal:
        terminal.until("> ")
        terminal.press("When was it opened?\n")
        terminal.until("called")
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("> ")
        terminal.press("/history\n")
        assert "cancelled" in terminal.until("> ")
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("/quit or Ctrl-D leaves")
        terminal.press("\x04")
        code, text = terminal.ended()
    assert (code, "continue with: orchestra chat --thread tower" in text) == (0, True)
    assert [run["status"] for run in desk("runs", "list", "--json").json] == ["cancelled"]
