"""Forks and what-if replays after a change of tool code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.shell import Shell

MODULE = '''
from orchestra import tool

@tool(effect="pure")
def double(number: int) -> int:
    """Doubles."""
    return helper(number)

@tool(effect="pure", version="1")
def counted(number: int) -> int:
    """Has a version."""
    return number + 1

def helper(number):
    return number * 2
'''
WORKFLOW = """
schema: orchestra/v1
name: sums
input: {number: int}
output: ${more}
nodes:
  twice: {tool: double, with: {number: "${input.number}"}}
  more: {tool: counted, with: {number: "${twice}"}}
"""


@pytest.fixture
def run(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run with the result 7."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (shell.project / "workflows").mkdir()
    (shell.project / "workflows" / "sums.yaml").write_text(WORKFLOW)
    (shell.project / "orchestra.toml").write_text('modules = ["sum_tools"]\njournal = "runs.db"\n')
    written(MODULE)
    said = shell("run", "sums", "-i", "number=3", "--json").json
    assert said["output"] == 7
    made: str = said["run"]
    return made


def written(module: str) -> None:
    """Writes the tools, and imports them again."""
    Path("sum_tools.py").write_text(module)
    sys.modules.pop("sum_tools", None)


def test_a_fork_calls_a_tool_anew_whose_code_has_changed(run: str, shell: Shell) -> None:
    written("# a comment\n" + MODULE)
    assert shell("runs", "fork", run).out.startswith("nothing has changed\n")
    written(MODULE.replace("number * 2", "number * 3"))
    said = shell("runs", "fork", run, "--json").json
    assert (said["output"], said["recalled"], said["anew"]) == (10, 0, 2)
    assert said["changes"] == [{"node": "twice", "why": "the code of its tool double has changed"}]


def test_a_version_that_is_stated_says_whether_the_code_has_changed(run: str, shell: Shell) -> None:
    written(MODULE.replace("number + 1", "number + 2"))
    said = shell("runs", "fork", run, "--json").json
    assert (said["output"], said["recalled"], said["changes"]) == (7, 2, [])
    written(MODULE.replace("number + 1", "number + 2").replace('"1"', '"2"'))
    said = shell("runs", "fork", run, "--json").json
    assert (said["output"], said["recalled"]) == (8, 1)


def test_what_if_calls_it_anew_and_says_so(run: str, shell: Shell) -> None:
    assert shell("whatif", run).code == 0
    written(MODULE.replace("number * 2", "number * 3"))
    said = shell("whatif", run)
    assert said.code == 1
    assert f"{run}: the code of double has changed: called again" in said.out
    assert "the code of double has changed" in shell("whatif", run, "--markdown").out
    assert shell("whatif", run, "--json").json["runs"][0]["altered"] == ["double"]


def test_a_run_that_does_not_know_its_code_is_recalled_and_that_is_said(
    run: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(
            "orchestra.app.snapshot_store.is_unversioned_tool", lambda contract: False
        )  # as old runs were stored, without such digests
        sys.modules.pop("sum_tools", None)
        old = shell("run", "sums", "-i", "number=3", "--json").json["run"]
    written(MODULE.replace("number * 2", "number * 3"))
    said = shell("runs", "fork", old, "--json").json
    assert (said["output"], said["recalled"]) == (7, 2)
    assert said["changes"] == [
        {"node": "twice", "why": "whether the code of its tool double has changed is not on record"}
    ]
    assert "it is not recorded whether the code of double has changed" in shell("whatif", old).out
