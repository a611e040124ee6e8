"""Output: unchanged text, no control characters on a terminal, and the width of the terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from orchestra.app.claims.claims import OutputClaim
from orchestra.app.claims.locations import TextSpan
from orchestra.cli import output
from orchestra.cli.output import StatusLine, json_line, print_text, terminal_width, truncate
from orchestra.cli.run.result_view import show_claims
from orchestra.core.errors import InputError, SourceLocation, display_width
from tests.cli.processes import ROOT
from tests.cli.shell import Shell

TABBED = "name\tvalue  \n\x0b\x0cé\t\r\n"


class Terminal(io.StringIO):
    """Receives output as a terminal."""

    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 12 columns instead of stdout and stderr."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "12")
    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.setattr("sys.stderr", shown)
    return shown


@pytest.mark.parametrize("style", ["", "yellow"])
def test_text_is_unchanged_without_a_terminal(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    print_text(TABBED, style=style)
    assert out.getvalue() == f"{TABBED}\n"


def test_the_words_of_a_quote_keep_their_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    claim = OutputClaim(path="", value="b", nodes=("a",), evidence=(TextSpan("x\tb", source="t.txt", start=0, end=3),))
    show_claims([claim], "b")
    assert "  “x\tb”  t.txt [0:3]\n" in capsys.readouterr().out


@pytest.mark.parametrize("style", ["", "yellow"])
def test_terminal_receives_no_control_characters(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    print_text("a\x1b[2Jb\x07c\rd\u202ee", style=style)
    shown = terminal.getvalue()
    assert "a\\x1b[2Jb\\x07c\\x0dd\\u202ee" in shown
    assert ("\x1b[33m" in shown) == bool(style)


def test_a_tab_of_a_text_without_style_reaches_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    print_text("a\tb")
    assert terminal.getvalue() == "a\tb\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("twelve signs", "twelve sign"),
        ("日本語日本語日本語", "日本語日本"),
        ("a日本語日本語", "a日本語日本"),
        ("e\u0301" * 12, "e\u0301" * 11),
        ("short", "short"),
    ],
)
def test_status_line_fits_the_terminal(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    StatusLine().show_line(text)
    assert terminal.getvalue() == f"\r\x1b[2K{shown}"
    assert display_width(shown) <= 11


def test_truncate_keeps_the_given_columns() -> None:
    assert [truncate("日本", width) for width in range(5)] == ["", "", "日", "日", "日本"]


def test_the_columns_are_those_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    assert terminal_width(terminal, 100) == 12
    assert terminal_width(io.StringIO(), 100) == 100
    monkeypatch.setenv("COLUMNS", "wide")
    assert terminal_width(terminal, 100) == 100


@pytest.mark.parametrize(
    ("text", "column", "width", "caret"),
    [
        ("a: ${x}", 4, 4, "   ^^^^"),
        ("日本: ${x}", 5, 4, "      ^^^^"),
        ("a: 日本", 4, 2, "   ^^^^"),
        ("e\u0301: ${x}", 5, 4, "   ^^^^"),
        ("🙂: x", 4, 1, "    ^"),
        ("short", 9, 3, "        ^"),
    ],
)
def test_the_caret_stands_under_the_fault_in_wide_texts_too(text: str, column: int, width: int, caret: str) -> None:
    said = str(InputError("L050", "no", location=SourceLocation("f.yaml", 7, column, text, width)))
    assert said.splitlines()[-1] == f"  | {caret}"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_is_json_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"a": "é日🙂\x9b\u2028"}
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", out)
    line = json_line(json.dumps(given, ensure_ascii=False).encode())
    assert json.loads(line.encode(encoding).decode(encoding)) == given
    assert "\x9b" not in line
    assert ("日" in line) == (encoding == "utf-8")


@pytest.mark.parametrize(("encoding", "shown"), [("cp1252", "\\u2502"), ("utf-8", "│")])
def test_unencodable_characters_do_not_fail(encoding: str, shown: str, shell: Shell) -> None:
    assert shell("init", "begun").code == 0
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "orchestra.cli", "graph", "hello"],
        cwd="begun",
        env=environment,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout.decode(encoding)


def test_a_long_table_is_that_of_rich(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        (f"r{number}", "wörkflow 日本" * (number % 3), "\x1b[1m", str(number))
        for number in range(output.MAX_RICH_ROWS + 1)
    ]
    output.print_table(("run", "workflow", "status", "nodes"), rows, right=[3])
    quick = capsys.readouterr().out.splitlines()
    monkeypatch.setattr(output, "MAX_RICH_ROWS", len(rows))
    output.print_table(("run", "workflow", "status", "nodes"), rows, right=[3])
    assert quick == [line.rstrip() for line in capsys.readouterr().out.splitlines()]
