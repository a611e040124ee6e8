"""The pages of the documentation are up to date, and their commands, links, file names and error codes exist."""

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
from scripts import api_reference, build_docs
from tests.docs.blocks import PAGES, ROOT, blocks

GUIDES = [page for page in PAGES[1:] if page.parent.name != "decisions"]


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
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "build_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "cli.md"], ids=lambda page: str(page.relative_to(ROOT))
)
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
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "-h",
    }
    return all(word.split("=")[0] in known for word in words if re.match(r"--?[a-z]", word))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text("utf-8"))
    made = {path.resolve() for path in build_docs.built_pages()}
    files = {link: (page.parent / link).resolve() for link in links}
    assert [link for link, file in files.items() if not file.exists() and file not in made] == []


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as Markdown makes them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        given = re.search(r"\{ #(\S+) \}$", title)
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", title)).strip().lower()
        found.add(given[1] if given else re.sub(r"[-\s]+", "-", plain))
    return found


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "agents").glob("*/card.md"))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_to_a_heading_leads_to_one(page: Path) -> None:
    made = {path.resolve(): text for path, text in build_docs.built_pages().items()}
    wrong = []
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", page.read_text("utf-8")):
        file = (page.parent / name).resolve() if name else page
        if anchor not in anchors(made[file] if file in made else file.read_text("utf-8")):
            wrong.append(f"{name}#{anchor}")
    assert wrong == []


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in [*PAGES[1:], *build_docs.built_pages()]}
    records = {name for name in there if re.match(r"decisions/\d", name)}
    assert (listed - there, there - listed - records) == (set(), set())


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_states_its_purpose_in_its_first_lines(page: Path) -> None:
    title, empty, purpose = page.read_text("utf-8").splitlines()[:3]
    assert title.startswith("# ")
    assert empty == ""
    assert re.match(r"[A-Z`][^|!<]{30,}", purpose), purpose


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`((?:orchestra|tests|bench|scripts|examples)/[\w./-]+\.\w+)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_api_reference_has_every_public_name_with_a_signature() -> None:
    for module, text in ((module, api_reference.page(module)) for module in api_reference.MODULES):
        names = api_reference.public_names(module)
        assert names, module
        assert [name for name in names if f"{{ #{module}.{name} }}\n\n```python\n" not in text] == []


def test_a_signature_is_shown_as_it_is_written() -> None:
    text = api_reference.page("orchestra")
    shown = text.partition("#### Orchestra.open ")[2].partition("####")[0]
    assert "@classmethod\nasync def open(\n    config: str | Path | Settings | None = None,\n    *,\n" in shown
    assert "-> AsyncIterator[Orchestra]" in shown


def test_sections_of_a_docstring_become_lists() -> None:
    text = "Sends it.\n\nArgs:\n    to: The address,\n        without a name.\n\nReturns:\n    A number.\n\n    x = 1"
    assert api_reference.markdown(text).startswith(
        "Sends it.\n\n**Parameters**\n\n- `to`: The address, without a name.\n\n**Returns**\n\n- A number."
    )


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
    script = [sys.executable, str(ROOT / "scripts" / "build_docs.py"), "--docs", str(tmp_path / "docs")]
    subprocess.run(script, check=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "site" / "index.html").exists()) == (0, True), done.stdout + done.stderr
