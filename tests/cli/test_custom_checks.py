"""Custom checks on the command line: in workflow files, for single answers, and in forks with changed code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.shell import Shell

MODULE = '''
from orchestra import tool

@tool(effect="pure")
def iban(text: str) -> str | None:
    """The last word."""
    return text.split()[-1] if text else None

@tool(effect="pure")
def valid(value: str) -> bool:
    """Whether the check digits are right."""
    digits = "".join(str(int(char, 36)) for char in value[4:] + value[:4])
    return int(digits) % 97 == 1
'''
WORKFLOW = """
schema: orchestra/v1
name: account
input: {text: str}
output: ${found}
nodes:
  found: {tool: iban, with: {text: "${input.text}"}, checks: ["tool(valid)"]}
"""
GOOD, BAD = "DE02120300000000202051", "DE02120300000000202052"


@pytest.fixture
def desk(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A project with a workflow whose check is a tool."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (shell.project / "workflows").mkdir()
    (shell.project / "workflows" / "account.yaml").write_text(WORKFLOW)
    (shell.project / "orchestra.toml").write_text('modules = ["account_tools"]\njournal = "runs.db"\n')
    written(MODULE)
    return shell


def written(module: str) -> None:
    """Writes the tools, and imports them again."""
    Path("account_tools.py").write_text(module)
    sys.modules.pop("account_tools", None)


def test_a_value_that_the_tool_refuses_is_withheld_and_the_command_says_so(desk: Shell) -> None:
    good = desk("run", "account", "-i", f"text=pay {GOOD}", "--json")
    assert (good.code, good.json["output"]) == (0, GOOD)
    bad = desk("run", "account", "-i", f"text=pay {BAD}")
    assert bad.code == 3
    assert "withheld: found: tool(valid): it returned False" in bad.err + bad.out
    nothing = desk("run", "account", "-i", "text=", "--json")
    assert (nothing.code, nothing.json["output"]) == (0, None)


def test_an_answer_alone_is_put_to_the_tool(desk: Shell) -> None:
    Path("letter.txt").write_text(f"Pay {GOOD}.")
    assert desk("check", GOOD, "-a", "letter.txt", "--checks", "quote & tool(valid)").code == 0
    said = desk("check", BAD, "-a", "letter.txt", "--checks", "tool(valid)", "--json")
    assert (said.code, said.json["verdicts"][0]["outcome"]) == (3, "fail")
    assert desk("check", BAD, "-a", "letter.txt", "--checks", "tool(valids)").err.startswith(
        "V011: a check calls the tool 'valids'"
    )
    assert "it names no tool: tool(NAME)" in desk("check", BAD, "-a", "letter.txt", "--checks", "tool").out


def test_a_run_is_judged_anew_where_the_code_of_its_check_has_changed(desk: Shell) -> None:
    first = desk("run", "account", "-i", f"text=pay {BAD}", "--json")
    assert first.json["status"] == "abstained"
    run = first.json["run"]
    same = desk("runs", "fork", run, "--json")
    assert same.json["status"] == "abstained"
    written(MODULE.replace("% 97 == 1", "% 97 > 0"))
    again = desk("runs", "fork", run, "--json")
    assert (again.json["status"], again.json["output"]) == ("done", BAD)


def test_a_certificate_is_not_bound_to_a_tool_and_says_so(desk: Shell) -> None:
    (desk.project / "agents" / "copier").mkdir(parents=True)
    (desk.project / "agents" / "copier" / "agent.yaml").write_text(
        "name: copier\ninput: {text: str}\noutput: {word: str}\n"
    )
    (desk.project / "agents" / "copier" / "prompt.md").write_text("{{ text }}")
    Path("rows.jsonl").write_text('{"id": "1", "input": {"text": "a"}, "expected": {"word": "a"}}\n')
    said = desk("certify", "copier", "--data", "rows.jsonl", "--checks", "tool(valid)")
    assert said.code == 2
    assert said.err.startswith("V006: the check 'tool' calls a tool")
