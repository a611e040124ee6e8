"""`orchestra trust`: what an untrusted project may not do, and how trust is given, changed and revoked."""

from __future__ import annotations

import ast
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orchestra
from orchestra import Orchestra
from orchestra.cli.init import create_project
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.trust import MAX_ENTRIES, TrustStore, create_guard, find_outside_links
from tests.cli.processes import Terminal
from tests.cli.shell import Shell

TOOL = """\
from pathlib import Path
from orchestra import tool
Path(__file__).with_name("imported").touch()

@tool(effect="pure")
def double(a: int) -> int:
    return a * 2
"""
CALC = """\
schema: orchestra/v1
name: calc
input: {a: int}
output: ${twice}
nodes:
  twice: {tool: double, with: {a: "${input.a}"}}
"""
SERVER = '[mcp.files]\ncommand = ["python3", "-m", "files_server"]\ntools = {}\n'


@pytest.fixture
def shell(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A shell in an untrusted project with a module and a workflow."""
    monkeypatch.delenv("ORCHESTRA_TRUST")
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("orchestra.toml").write_text('modules = ["canary_tools"]\n')
    Path("canary_tools.py").write_text(TOOL)
    Path("workflows").mkdir()
    Path("workflows/calc.yaml").write_text(CALC)
    yield shell
    sys.modules.pop("canary_tools", None)


def imported(shell: Shell) -> bool:
    return (shell.project / "imported").exists()


def test_a_run_of_an_untrusted_project_is_refused_with_what_it_asks_for(shell: Shell) -> None:
    said = shell("run", "calc", "-i", "a=2")
    assert said.code == 2
    assert said.err.startswith(f"C060: the project {shell.project} is not trusted")
    assert "import the modules canary_tools" in said.err
    assert f"orchestra trust {shell.project}" in said.err
    assert not imported(shell)


def test_a_trusted_project_runs(shell: Shell) -> None:
    told = shell("trust")
    assert (told.code, told.err) == (0, "")
    assert "import the modules canary_tools" in told.out
    assert not imported(shell), "to trust a project imports nothing"
    assert shell("run", "calc", "-i", "a=2").code == 0
    assert imported(shell)


@pytest.mark.parametrize("value", ["1", "0", "", "yes"])
def test_the_variable_trusts_every_project(value: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_TRUST", value)
    said = shell("run", "calc", "-i", "a=2")
    assert (said.code, said.err[:4]) == ((0, "") if value == "1" else (2, "C002") if value == "yes" else (2, "C060"))


def test_validate_says_what_it_does_not_know_and_why(shell: Shell) -> None:
    said = shell("validate", "--json")
    first, calc = said.json
    assert (said.code, first["errors"][0]["code"]) == (2, "C060")
    assert "double" in calc["errors"][0]["message"]
    Path("workflows/calc.yaml").write_text(
        CALC.replace("tool: double, with: {a", "tool: search, with: {documents: [], query").replace("int", "str")
    )
    assert [one["valid"] for one in shell("validate", "--json").json] == [False, True]


@pytest.mark.parametrize("command", [("agents", "list"), ("tools", "list"), ("graph", "router")], ids=" ".join)
def test_what_is_left_out_of_a_list_is_said_on_stderr(command: tuple[str, ...], shell: Shell) -> None:
    said = shell(*command)
    assert said.code == 0
    assert said.err.startswith("C060: ")
    assert said.out
    assert not imported(shell)


CHANGES: dict[str, Callable[[], object]] = {
    "a module": lambda: Path("orchestra.toml").write_text('modules = ["canary_tools", "os"]\n'),
    "a server": lambda: Path("orchestra.toml").write_text(f'modules = ["canary_tools"]\n{SERVER}'),
    "a harmless setting": lambda: Path("orchestra.toml").write_text('modules = ["canary_tools"]\nthreads = 5\n'),
    "a link": lambda: Path("workflows/other.yaml").symlink_to("/etc/hostname"),
    "the target of a link": lambda: os.replace(Path("workflows/other_target"), Path("workflows/first.yaml")),
    "the file": lambda: (
        Path("orchestra.toml").rename("x"),
        Path("pyproject.toml").write_text('[tool.orchestra]\nmodules = ["x"]\n'),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_trust_ends_when_the_settings_or_the_links_change(change: str, shell: Shell) -> None:
    Path("workflows/first.yaml").symlink_to("/etc/hostname")
    Path("workflows/other_target").symlink_to("/etc/hosts")
    assert shell("trust").code == 0
    assert Settings.load(trusted="recorded").guard is None
    CHANGES[change]()
    assert shell("run", "calc", "-i", "a=2").err.startswith("C060")
    assert "changed since" in shell("trust", "--list").out
    assert shell("trust").code == 0
    assert Settings.load(trusted="recorded").guard is None


def test_a_comment_is_no_change(shell: Shell) -> None:
    shell("trust")
    Path("orchestra.toml").write_text('# a comment\nmodules = [ "canary_tools" ]\n')
    assert Settings.load(trusted="recorded").guard is None


def test_trust_belongs_to_a_folder(shell: Shell) -> None:
    shell("trust")
    copy = shell.project.with_name("copy")
    copy.mkdir()
    (copy / "orchestra.toml").write_bytes(Path("orchestra.toml").read_bytes())
    with pytest.raises(InputError, match="C060"):
        Settings.load(project=copy, trusted="recorded").require_trust()


def test_trust_is_listed_and_taken_away(shell: Shell) -> None:
    assert shell("trust", "--list").out == "no project is trusted\n"
    shell("trust")
    assert shell("trust", "--list", "--json").json == [{"folder": str(shell.project), "state": "trusted"}]
    assert shell("trust", "--revoke").code == 0
    assert shell("trust", "--revoke").err.startswith("C062")
    assert shell("run", "calc", "-i", "a=2").err.startswith("C060")


def test_a_folder_is_trusted_and_revoked_by_its_path(shell: Shell, tmp_path: Path) -> None:
    os.chdir(tmp_path)
    assert shell("trust", "project", "--json").json["allowed"] == [
        {"kind": "modules", "text": "import the modules canary_tools"}
    ]
    assert shell("trust", "--list", "--json").json[0]["folder"] == str(shell.project)
    assert shell("trust", "project", "--revoke").code == 0
    assert shell("trust", "absent").err.startswith("C045")


def test_a_record_is_for_its_owner_alone_and_a_damaged_one_gives_no_trust(shell: Shell) -> None:
    shell("trust")
    (record,) = TrustStore.from_environment(os.environ).folder.iterdir()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    good = json.loads(record.read_text())
    for text in (
        "",
        "{",
        "[]",
        "7",
        "[" * 50_000,
        "{}",
        '{"folder": 1}',
        json.dumps({**good, "folder": "/other"}),
        json.dumps({**good, "digest": ""}),
    ):
        record.write_text(text)
        assert Settings.load(trusted="recorded").guard is not None, text[:30]
        assert shell("trust", "--list").code == 0


def test_a_new_project_is_trusted(shell: Shell, tmp_path: Path) -> None:
    assert shell("init", "new").code == 0
    assert Settings.load(project=shell.project / "new", trusted="recorded").guard is None
    create_project(tmp_path / "other")
    assert Settings.load(project=tmp_path / "other", trusted="recorded").guard is not None


async def test_a_program_trusts_the_project_that_it_opens_unless_it_asks(shell: Shell) -> None:
    async with Orchestra.open("sim", fleet="none") as opened:
        assert "double" in opened.registry.tools
    for policy in ("recorded", "never"):
        with pytest.raises(InputError, match="C060"):
            async with Orchestra.open(Settings.load({"fleet": "sim"}, trusted=policy)):
                pass


def test_a_person_at_the_terminal_is_asked_once(shell: Shell) -> None:
    with Terminal("run", "calc", "-i", "a=2", "--dry-run") as terminal:
        assert "import the modules canary_tools" in terminal.until("Trust it? [y/N] ")
        terminal.press("n\n")
        code, said = terminal.ended()
        assert code == 2
        assert "C060" in said
    assert not imported(shell)
    with Terminal("run", "calc", "-i", "a=2", "--dry-run") as terminal:
        terminal.until("Trust it? [y/N] ")
        terminal.press("y\n")
        code, said = terminal.ended()
        assert code == 0, said
    assert imported(shell)
    with Terminal("run", "calc", "-i", "a=3", "--dry-run") as terminal:
        code, said = terminal.ended()
        assert (code, "Trust it?" in said) == (0, False)


@pytest.mark.parametrize(
    "journal",
    ["../x.db", "/x/y.db", "postgresql://elsewhere/x", "env:DATABASE", "file:/etc/passwd", "a/../../x.db", "out/x.db"],
)
def test_a_journal_outside_of_the_project_needs_trust(journal: str, shell: Shell) -> None:
    Path("out").symlink_to(shell.home)
    Path("orchestra.toml").write_text(f'journal = "{journal}"\n')
    said = shell("runs", "list")
    assert (said.code, said.err[:4]) == (2, "C060")
    assert "keep the journal at " in said.err
    assert shell("doctor").out.count("is not trusted: its settings would keep the journal at") == 1


@pytest.mark.parametrize("link", [".orchestra", ".orchestra/journal.db", ".orchestra/journal.db-wal"])
def test_default_journal_behind_an_outside_link_needs_trust(link: str, shell: Shell) -> None:
    Path("orchestra.toml").write_text("")
    Path(link).parent.mkdir(exist_ok=True)
    Path(link).symlink_to(shell.home)
    assert shell("runs", "list").err.startswith("C060")


def test_a_journal_that_the_user_names_himself_needs_no_trust(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("orchestra.toml").write_text("")
    for journal in ("../x.db", "inside/x.db"):
        monkeypatch.setenv("ORCHESTRA_JOURNAL", journal)
        assert Settings.load(trusted="recorded").trust_error() is None
    monkeypatch.delenv("ORCHESTRA_JOURNAL")
    Path("orchestra.toml").write_text('journal = "inside/x.db"')
    assert Settings.load(trusted="recorded").trust_error() is None


def test_a_file_behind_a_link_out_of_the_project_is_not_read(shell: Shell) -> None:
    Path("orchestra.toml").write_text("")
    secret = shell.home / "secret"
    secret.write_text("password: hunter2: x")
    Path("workflows/x.yaml").symlink_to(secret)
    Path("docs").mkdir()
    Path("docs/y.yaml").symlink_to(secret)
    for name in ("x", "workflows/x.yaml", "docs/y.yaml"):
        said = shell("validate", name)
        assert (said.code, said.err[:4], "hunter2" in said.err) == (2, "C061", False), name
    assert shell("trust").code == 0
    assert "hunter2" in shell("validate", "docs/y.yaml").err, "a trusted one is read"


def test_a_settings_file_behind_a_link_is_not_shown(shell: Shell) -> None:
    secret = shell.home / "secret"
    secret.write_text("password = [hunter2")
    Path("orchestra.toml").unlink()
    Path("orchestra.toml").symlink_to(secret)
    said = shell("runs", "list")
    assert (said.code, said.err[:4], "hunter2" in said.err) == (2, "C061", False)


def test_links_inside_the_project_need_no_trust(shell: Shell) -> None:
    Path("orchestra.toml").write_text("")
    Path("shared").mkdir()
    Path("shared/flow.yaml").write_text(CALC)
    Path("workflows/flow.yaml").symlink_to("../shared/flow.yaml")
    Path("agents").mkdir()
    Path("agents/inner").symlink_to("../shared")
    assert Settings.load(trusted="recorded").trust_error() is None
    Path("shared/away").symlink_to("/etc/hostname")
    assert Settings.load(trusted="recorded").trust_error("link") is not None, "a link may lead to another one"


def test_a_project_with_too_many_files_to_search_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ENTRIES >= 10_000
    monkeypatch.setattr("orchestra.core.trust.MAX_ENTRIES", 5)
    (tmp_path / "agents").mkdir()
    for number in range(5):
        (tmp_path / "agents" / str(number)).touch()
    assert [*find_outside_links(tmp_path, [tmp_path / "agents"])] == []
    (tmp_path / "agents" / "more").touch()
    found = [*find_outside_links(tmp_path, [tmp_path / "agents"])]
    assert [need.kind for need in found] == ["link"]
    assert create_guard(tmp_path, {}, [], found).error("link") is not None


def test_modules_that_the_user_names_need_trust_in_a_project(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python searches the project folder first, so another module of the same name would be imported."""
    Path("orchestra.toml").write_text("")
    monkeypatch.setenv("ORCHESTRA_MODULES", "canary_tools")
    assert shell("run", "calc", "-i", "a=2").err.startswith("C060")
    assert not imported(shell)


def test_no_child_process_of_python_imports_from_the_current_folder() -> None:
    """Without `-P` or `-I`, `python -m` and `python -c` search the current folder first: `vllm.py` of a project would
    run.
    """
    library = Path(orchestra.__file__).parent
    commands = [
        (str(path.relative_to(library)), node.elts[1])
        for path in sorted(library.rglob("*.py"))
        if "sys.executable" in (text := path.read_text("utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Tuple | ast.List)
        and len(node.elts) > 1
        and ast.unparse(node.elts[0]) == "sys.executable"
    ]
    assert len(commands) >= 6
    assert [
        name for name, flag in commands if not (isinstance(flag, ast.Constant) and flag.value in ("-P", "-I"))
    ] == []
