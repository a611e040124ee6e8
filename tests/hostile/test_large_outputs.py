"""Tests that a run fails with a code and ends if values of models or tools make its output impossible."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra import tool
from tests.cli.shell import Shell
from tests.hostile import scene
from tests.hostile.scene import play

HEAD = "schema: orchestra/v1\nname: "


@pytest.fixture(autouse=True)
def workflows(shell: Shell) -> None:
    folder = shell.project / "workflows"
    folder.mkdir()
    (folder / "twice.yaml").write_text(
        f"{HEAD}twice\ninput: {{text: str}}\noutput: {{both: '${{said + said}}'}}\nnodes:\n"
        "  said: {agent: echo, with: {text: '${input.text}', more: '${null}'}}\n"
    )
    (folder / "both.yaml").write_text(
        f"{HEAD}both\ninput: {{}}\noutput: {{one: '${{one}}', two: '${{two}}'}}\nnodes:\n"
        "  one: {tool: poisoned, with: {}}\n  two: {tool: poisoned, with: {}}\n"
    )


@tool(effect="pure")
def poisoned() -> Any:
    """Returns 40 MiB: one such value fits into an event, two do not."""
    return "x" * (40 << 20)


def test_output_that_cannot_be_evaluated_fails_the_run(shell: Shell) -> None:
    played = play(shell.project, "twice", "y" * 200_000, text="hi")
    assert (played.status, played.code) == ("failed", "L062")


def test_output_that_no_journal_stores_fails_the_run(shell: Shell) -> None:
    played = play(shell.project, "both", tool=poisoned)
    assert (played.status, played.code) == ("failed", "E026")
    assert scene.obeyed(shell("runs", "show", "last").out) == set()
