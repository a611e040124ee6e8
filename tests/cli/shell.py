"""The command line in a temporary folder, in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestra.cli.context import Opener
from orchestra.cli.main import build_app


@dataclass(frozen=True)
class Said:
    """The output and exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The only line of JSON."""
        return json.loads(self.out)


class Shell:
    """`shell("runs", "list")` runs `orchestra runs list`."""

    def __init__(self, home: Path, project: Path, opener: Opener | None = None) -> None:
        self.home, self.project = home, project
        self.opener = opener

    def __call__(self, *arguments: str, stdin: str | None = None) -> Said:
        done = CliRunner().invoke(build_app(self.opener), list(arguments), input=stdin, prog_name="orchestra")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in an empty project."""
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    (project / "orchestra.toml").write_text("")
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("HOME", str(home))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(project)
    return Shell(home, project)
