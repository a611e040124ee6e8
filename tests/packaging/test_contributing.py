"""What contributors start from is right: workflows of GitHub, the hooks of pre-commit, the paths that pages name."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
PINNED = re.compile(r"[\w-]+/[\w./-]+@(v\d+|release/v\d+|[0-9a-f]{40})")
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/README.md")]
FOLDERS = r"(?:orchestra|tests|docs|scripts|agents|workflows|configs|examples|bench|requirements|\.github|\.ci)"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def targets() -> dict[str, str]:
    """The targets of the Makefile with their help."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def test_there_is_a_workflow_for_each_purpose() -> None:
    assert {path.stem for path in WORKFLOWS} == {"lint", "test", "real", "nightly", "release", "docs"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_has_least_permissions_and_limits(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert True in workflow  # `on`, as YAML 1.1 reads it
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        assert set(job.get("permissions", {})) <= {"id-token", "pages"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_pins_its_actions(path: Path) -> None:
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert [name for name in used if not PINNED.fullmatch(name)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_targets_that_exist(path: Path) -> None:
    named = {word for step in steps(path) for word in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert named <= targets().keys()


def test_nightly_suites_are_those_that_the_makefile_marks() -> None:
    suites = [
        entry["suite"]
        for entry in read(ROOT / ".github/workflows/nightly.yml")["jobs"]["suite"]["strategy"]["matrix"]["include"]
    ]
    assert sorted(suites) == sorted(name for name, text in targets().items() if "(nightly;" in text)


def test_tests_run_on_every_python_of_the_classifiers() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    stated = [text.rpartition(" ")[2] for text in classifiers if "Python :: 3." in text]
    assert read(ROOT / ".github/workflows/test.yml")["jobs"]["quick"]["strategy"]["matrix"]["python"] == stated


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_form_is_complete(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "body"} <= form.keys()
    named = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(named) == len(set(named)) > 0


def test_hooks_run_the_tools_of_make_lint() -> None:
    hooks = [hook for repository in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    local = {hook["entry"].split()[0] for hook in hooks if "entry" in hook}
    assert local == {f".venv/bin/{tool}" for tool in ("ruff", "mypy", "lint-imports")}
    assert {"end-of-file-fixer", "check-yaml", "check-toml"} <= {hook["id"] for hook in hooks}


def test_devcontainer_sets_the_base_environment_up() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert container["postCreateCommand"].startswith("make setup-base")
    assert "3.11" in container["image"]


def test_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert re.search(rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_names_files_and_targets_that_exist(page: Path) -> None:
    """Paths in backticks, links, and targets of make. A path with NAME is a placeholder."""
    text = page.read_text("utf-8")
    paths = re.findall(rf"`({FOLDERS}/[\w./-]+)`", text)
    paths += [
        str((page.parent / link).resolve().relative_to(ROOT))
        for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)
    ]
    assert sorted({path for path in paths if not re.search("NAME|YOUR", path) and not (ROOT / path).exists()}) == []
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets().keys()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CODE_OF_CONDUCT.md"], ids=lambda page: page.name)
def test_page_has_short_lines_outside_of_tables(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    assert [
        number for number, line in enumerate(lines, 1) if len(line) > 120 and not re.search(r"\]\(http|^ *\|", line)
    ] == []
