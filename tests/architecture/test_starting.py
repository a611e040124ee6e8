"""Modules loaded at start-up. A module added here delays every start."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.main import get_command

from bench.engine import FIRST_RUN
from orchestra.cli.main import COMMAND_MODULES, build_app
from tests.architecture.test_architecture import HEAVY, loaded_by

ONE_TOOL = {
    "agents": (
        "card card_file card_types code_digest computed_fields contract ensemble ensemble_voting"
        " evidence_grammar fast_validation function_calls inference registry template tool_prompt tools tracebacks"
    ),
    "agents.inference": "calibration logprob_confidence overlap_features",
    "engine.kinds": "acceptance ask call checks escalation first_of subworkflow",
    "fleet": "card_versions ensemble_calls local_workers",
    "journal": "encoding errors hash_chain sqlite summary usage",
    "journal.sqlite": (
        "commit_loss commit_mark database errors journal liveness operations queries reader store wal writer"
    ),
    "router": "tools",
    "tools": "cells cite search",
    "schema": "assignability builtin_models decoding fields json_schema strict_json strict_yaml types validator",
    "verification": "check_budget",
}
"""The modules for the first run of one tool, in packages that grow: no check, no plan and no table reader."""
MOST = 155
"""The maximum number of Orchestra modules. A run of one tool had 191 when starting took twice as long as necessary."""
NOT_TO_LIST = {
    "orchestra.agents.card",
    "orchestra.app.claims.claims",
    "orchestra.engine",
    "orchestra.fleet",
    "orchestra.app.project",
    "orchestra.router",
}
NOT_TO_RUN = {
    "orchestra.cli.run.explain",
    "orchestra.fleet.config",
    "orchestra.router.planner",
    "orchestra.verification.acceptance",
}
CALC = """
schema: orchestra/v1
name: calc
input: {a: int}
output: ${twice}
nodes:
  twice:
    tool: double
    with: {a: "${input.a}"}
"""
DOUBLE = """
from orchestra import tool

@tool(effect="pure")
def double(a: int) -> int:
    return a * 2
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one tool and one workflow, isolated from user state."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    (tmp_path / "orchestra.toml").write_text('modules = ["tools_here"]\n')
    (tmp_path / "tools_here.py").write_text(DOUBLE)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "calc.yaml").write_text(CALC)
    return tmp_path


def loaded_at_the_prompt(folder: Path, *words: str) -> set[str]:
    """The modules loaded by a successful command."""
    start = (
        "import os, sys\n"
        f"os.chdir({str(folder)!r})\n"
        f"sys.argv = {['orchestra', *words]!r}\n"
        "from orchestra.cli.main import main"
    )
    return loaded_by(f"{start}\ntry:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code")


@pytest.mark.usefixtures("elsewhere")
def test_first_run_of_one_tool_loads_only_required_modules() -> None:
    loaded = loaded_by(FIRST_RUN)
    ours = {name for name in loaded if name.startswith("orchestra.")}
    known = {f"orchestra.{room}.{name}" for room, names in ONE_TOOL.items() for name in names.split()}
    rooms = tuple(f"orchestra.{room}." for room in ONE_TOOL)
    packages = {"orchestra.engine.kinds"}
    assert sorted(name for name in ours - known - packages if name.startswith(rooms)) == []
    assert loaded & HEAVY == set()
    assert len(ours) <= MOST


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (("--version",), {"asyncio", "pydantic", "orchestra.core.settings", "orchestra.schema"}),
        (("runs", "list"), NOT_TO_LIST),
        (("run", "calc", "-i", "a=2"), NOT_TO_RUN),
        (("validate", "calc"), NOT_TO_RUN | {"asyncio", "orchestra.engine", "orchestra.journal"}),
    ],
)
def test_command_loads_no_other_commands_or_unused_modules(
    elsewhere: Path, words: tuple[str, ...], idle: set[str]
) -> None:
    loaded = loaded_at_the_prompt(elsewhere, *words)
    others = {f"orchestra.cli.{module}" for module in COMMAND_MODULES.values()} - {
        f"orchestra.cli.{COMMAND_MODULES.get(words[0])}"
    }
    assert loaded & (idle | others | HEAVY) == set()


def test_command_modules_match_the_registered_commands() -> None:
    def verbs(app: typer.Typer) -> set[str]:
        return set(getattr(get_command(app), "commands", {}))

    assert verbs(build_app()) == set(COMMAND_MODULES)
    for verb, room in COMMAND_MODULES.items():
        assert verbs(build_app(first=verb)) == {name for name, other in COMMAND_MODULES.items() if other == room}
    assert verbs(build_app(first="no_such_verb")) == set(COMMAND_MODULES)
    assert verbs(build_app(first="--help")) == set(COMMAND_MODULES)


def test_completion_loads_every_command() -> None:
    """The shell calls it without arguments; the words are in the environment."""
    asked = (
        "import os, sys\n"
        "os.environ.update(_ORCHESTRA_COMPLETE='complete_bash', COMP_WORDS='orchestra fle', COMP_CWORD='1')"
    )
    script = (
        f"{asked}\n"
        "sys.argv = ['orchestra']\n"
        "from orchestra.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass"
    )
    assert "orchestra.cli.fleet" in loaded_by(script)
