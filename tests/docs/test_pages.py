"""The pages of the documentation are fresh, name only commands that there are, and keep the marks of their generated parts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestra.cli.main import build_app
from tests.docs.blocks import PAGES, ROOT, blocks


@cache
def command_line() -> Any:
    """The command line as click has it. (typer brings a click of its own, so its classes are not click's.)"""
    return typer.main.get_command(build_app())


def commands(page: Path) -> list[tuple[int, str]]:
    """Lines of the page's code, fenced or in backticks, that begin with `orchestra` or `make`, with their numbers."""
    found: list[tuple[int, str]] = []
    for block in blocks(page):
        for offset, line in enumerate(block.text.splitlines(), 1):
            if match := re.match(r"(?:\$ )?((?:orchestra|make) .*)", line):
                found.append((block.line + offset, match[1]))
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        found += [(number, code) for code in re.findall(r"`((?:orchestra|make) [^`]+)`", line)]
    return found


def test_the_generated_pages_are_fresh() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "build_docs.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    wrong = []
    for line, text in commands(page):
        words = text.split()
        if words[0] == "make":
            known = all(word in targets for word in words[1:2] if re.fullmatch(r"[a-z-]+", word))
        else:
            known = knows(command_line(), words[1:])
        if not known:
            wrong.append(f"{line}: {text}")
    assert wrong == []


def knows(command: Any, words: list[str]) -> bool:
    """Whether the words begin with verbs, and every `--option` after them is one of the last verb's."""
    verbs: dict[str, Any] = getattr(command, "commands", {})
    if verbs and words and not words[0].startswith("-"):
        return all(verb in verbs and knows(verbs[verb], words[1:]) for verb in words[0].split("|"))
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "-h"}
    return all(word.split("=")[0] in known for word in words if re.match(r"--?[a-z]", word))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_that_a_page_names_is_explained(page: Path) -> None:
    texts = (ROOT / "orchestra" / "core" / "error_texts").glob("*.toml")
    explained = {code for path in texts for code in tomllib.loads(path.read_text("utf-8"))}
    assert set(re.findall(r"\b[ACEFJLMNTVW]\d{3}\b", page.read_text("utf-8"))) - explained == set()


def test_generated_blocks_open_and_close() -> None:
    marks = re.findall(r"<!-- (begin|end):([a-z-]+) -->", (ROOT / "README.md").read_text("utf-8"))
    assert marks
    assert [kind for kind, _ in marks] == ["begin", "end"] * (len(marks) // 2)
    assert [name for kind, name in marks if kind == "begin"] == [name for kind, name in marks if kind == "end"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "site" / "index.html").exists()) == (0, True), done.stdout + done.stderr
