"""Tests that commands in an untrusted project run no code of it and open nothing outside it, for any settings and
files. Each refusal has a code.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestra.cli.main import build_app
from tests.cli.shell import Said, Shell
from tests.hostile.projects import SECRET, Scene
from tests.sizes import sample_size

INSPECTING = (
    ("validate",),
    ("validate", "workflows/flow.yaml"),
    ("validate", "agents/helper"),
    ("validate", "configs/own.yaml"),
    ("agents", "list"),
    ("agents", "show", "helper"),
    ("agents", "bind"),
    ("tools", "list"),
    ("graph", "flow"),
    ("graph", "workflows/flow.yaml"),
    ("runs", "list"),
    ("runs", "show", "last"),
    ("runs", "costs"),
    ("config", "show"),
    ("doctor",),
)
RUNNING = (
    ("run", "flow", "-i", "text=x"),
    ("run", "flow", "-i", "text=x", "--dry-run"),
    ("ask", "what?"),
    ("plan", "what?"),
    ("whatif", "last"),
    ("tools", "pin", "evil"),
)
CODE = re.compile(r"^[A-Z]\d{3}: ", re.MULTILINE)
FEW, MANY = 40, 3_000


class VerbShell(Shell):
    """A shell that builds only the parser of one command, like `orchestra` itself."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> Said:
        done = CliRunner().invoke(
            build_app(self.opener, arguments[0]), list(arguments), input=stdin, prog_name="orchestra"
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)


class NeverOpened:
    """Replaces `Orchestra.open` and fails if called."""

    def __call__(self, *_: Any, **__: Any) -> AbstractAsyncContextManager[Any]:
        raise AssertionError("a project without trust was opened")


def attacked(shell: Shell, root: Path, seed: int) -> list[Said]:
    """Returns the results of commands in the project of a seed. Fails if a command ran code of the project or reached a
    forbidden file.
    """
    scene = Scene.draw(root, seed)
    outside = scene.outside_files()
    os.chdir(scene.project)
    words = [*scene.chance.sample(INSPECTING[:-1] if seed % 20 else INSPECTING, 3)]
    words += [scene.chance.choice(RUNNING)] if scene.needs_trust else []
    said = [shell(*command) for command in words]
    for command, one in zip(words, said, strict=True):
        assert SECRET not in one.out + one.err, (seed, command, one)
        assert one.code == 0 or CODE.search(one.err) or command == ("doctor",), (seed, command, one)
        assert "Traceback" not in one.err, (seed, command, one)
        assert command not in RUNNING or one.code == 2, (seed, command, one)
    assert [*scene.marks.iterdir()] == [], seed
    assert "canary" not in sys.modules, seed
    assert scene.outside_files() == outside, seed
    return said


@pytest.fixture
def untrusting(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell without trusted projects; it fails if a project or a journal is opened."""

    def reached(place: str) -> str:
        raise AssertionError(f"the journal {place} was asked for")

    monkeypatch.delenv("ORCHESTRA_TRUST")
    monkeypatch.setattr("orchestra.app.open_journal.database_address", reached)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return VerbShell(shell.home, shell.project, NeverOpened())


def assert_no_side_effects(shell: Shell, root: Path, seeds: range) -> None:
    refused = 0
    for seed in seeds:
        here = root / str(seed)
        said = attacked(shell, here, seed)
        refused += sum(one.code == 2 for one in said)
        os.chdir(root)
        shutil.rmtree(here)
    assert refused > len(seeds), "most projects ask for something"


def test_command_in_untrusted_project_has_no_side_effects(untrusting: Shell, tmp_path: Path) -> None:
    assert_no_side_effects(untrusting, tmp_path, range(FEW))


@pytest.mark.slow
def test_command_in_thousands_of_projects_has_no_side_effects(untrusting: Shell, tmp_path: Path) -> None:
    assert_no_side_effects(untrusting, tmp_path, range(FEW, sample_size(MANY)))
