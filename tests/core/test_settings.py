"""Settings: precedence of sources, origin of values, and errors for invalid input."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError, InputErrors
from orchestra.core.resources import ResourceKind, builtin_folder
from orchestra.core.settings import Settings, load_modules
from orchestra.fleet.supervisor.folders import Folders

PROGRAM = """
import asyncio
from orchestra import Orchestra, tool, workflow

@tool(effect="pure")
def loud(text: str) -> str:
    return text.upper()

@workflow
def shouted(text: str) -> str:
    return loud(text=text)

async def main() -> None:
    async with Orchestra.open(fleet="none") as orchestra:
        output = (await orchestra.run(shouted, text="tea")).output
        import app
        print(output, orchestra.find("shouted") is shouted, app.loud is loud)

if __name__ == "__main__":
    asyncio.run(main())
"""


class World:
    """A home, a project and a working folder in it."""

    def __init__(self, root: Path) -> None:
        self.home, self.project = root / "home", root / "project"
        self.here = self.project / "deep" / "er"
        self.here.mkdir(parents=True)
        (self.home / ".config" / "orchestra").mkdir(parents=True)
        self.environ = {"HOME": str(self.home)}

    def user(self, text: str) -> None:
        (self.home / ".config" / "orchestra" / "config.toml").write_text(text)

    def file(self, text: str, name: str = "orchestra.toml") -> None:
        (self.project / name).write_text(text)

    def load(self, overrides: Mapping[str, Any] | None = None, **environ: str) -> Settings:
        return Settings.load(overrides, start=self.here, environ={**self.environ, **environ})

    def error(self, overrides: Mapping[str, Any] | None = None, **environ: str) -> InputError:
        with pytest.raises(InputError) as caught:
            self.load(overrides, **environ)
        return caught.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_settings_layers_have_precedence(world: World) -> None:
    assert (world.load().concurrency, world.load().sources["concurrency"]) == (32, "default")
    world.user("concurrency = 1\n")
    assert (world.load().concurrency, world.load().sources["concurrency"]) == (
        1,
        f"{world.home}/.config/orchestra/config.toml:1",
    )
    world.file("# ours\nconcurrency = 2\n")
    assert (world.load().concurrency, world.load().sources["concurrency"]) == (2, f"{world.project}/orchestra.toml:2")
    found = world.load(ORCHESTRA_CONCURRENCY="3")
    assert (found.concurrency, found.sources["concurrency"]) == (3, "ORCHESTRA_CONCURRENCY")
    found = world.load({"concurrency": 4}, ORCHESTRA_CONCURRENCY="3")
    assert (found.concurrency, found.sources["concurrency"]) == (4, "flag")


def test_settings_none_override_is_ignored(world: World) -> None:
    world.file('durability = "strict"\n')
    assert world.load({"durability": None}).durability == "strict"


def test_settings_nearest_project_has_journal(world: World) -> None:
    world.file('[tool.orchestra]\nfleet = "endpoint"\n', "pyproject.toml")
    (world.project / "deep" / "pyproject.toml").write_text("[project]\nname = 'not ours'\n")
    found = world.load()
    assert (found.project, found.fleet) == (world.project, "endpoint")
    assert found.journal == world.project / ".orchestra" / "journal.db"
    assert found.workflows == (world.project / "workflows",)


def test_settings_named_project_is_used_from_anywhere(world: World, tmp_path: Path) -> None:
    world.file('fleet = "near"\n')
    named, other = tmp_path / "named", tmp_path / "other"
    for folder in (named, other):
        folder.mkdir()
        (folder / "orchestra.toml").write_text(f'fleet = "{folder.name}"\n')
    by_variable = world.load(ORCHESTRA_PROJECT=str(named))
    by_word = Settings.load(project=other, start=world.here, environ={**world.environ, "ORCHESTRA_PROJECT": str(named)})
    relative = world.load(ORCHESTRA_PROJECT="../../../named")
    assert [found.fleet for found in (world.load(), by_variable, by_word, relative)] == [
        "near",
        "named",
        "other",
        "named",
    ]
    assert [found.project for found in (by_variable, by_word, relative)] == [named, other, named]
    assert by_variable.journal == named / ".orchestra" / "journal.db"
    assert by_variable.configs == (named / "configs",)


@pytest.mark.parametrize(
    ("folder", "says"), [("nowhere", "there is no such folder"), ("..", "there is no orchestra.toml in it")]
)
def test_settings_named_folder_without_project_is_error(world: World, folder: str, says: str) -> None:
    world.file('fleet = "near"\n')
    error = world.error(ORCHESTRA_PROJECT=folder)
    assert (error.code, "ORCHESTRA_PROJECT is not a project" in error.message, says in error.message) == (
        "C045",
        True,
        True,
    )
    with pytest.raises(InputError, match="project= is not a project"):
        Settings.load(project=folder, start=world.here, environ=world.environ)


def test_settings_journal_without_project_in_state_folder(world: World) -> None:
    assert world.load().journal == world.home / ".local" / "state" / "orchestra" / "journal.db"
    assert world.load(XDG_STATE_HOME="/var/s").journal == Path("/var/s/orchestra/journal.db")
    assert world.load(XDG_STATE_HOME="relative").journal == world.home / ".local" / "state" / "orchestra" / "journal.db"


def test_settings_relative_path_is_relative_to_file(world: World) -> None:
    world.file('journal = "runs.db"\nfleet = "fleets/mine.yaml"\nagents = ["a", "b"]\n')
    found = world.load()
    assert found.journal == world.project / "runs.db"
    assert found.fleet == str(world.project / "fleets/mine.yaml")
    assert found.agents == (world.project / "a", world.project / "b")
    assert world.load({"journal": "x.db"}).journal == world.here / "x.db"
    assert world.load(ORCHESTRA_JOURNAL="off").journal == "off"


def test_settings_variables_are_converted(world: World) -> None:
    found = world.load(ORCHESTRA_HUB="true", ORCHESTRA_MODULES="one, two.three", ORCHESTRA_AGENTS="/a,/b")
    assert (found.hub, found.modules, found.agents) == (True, ("one", "two.three"), (Path("/a"), Path("/b")))


def test_settings_single_name_is_accepted_as_list(world: World) -> None:
    world.file('modules = "my_tools"\n')
    assert world.load().modules == ("my_tools",)


def test_settings_unknown_key_has_location_and_suggestion(world: World) -> None:
    world.file('fleet = "laptop"\n  concurency = 3\n')
    error = world.error()
    assert (error.code, error.hint) == ("C001", "did you mean 'concurrency'?")
    assert error.location is not None
    assert (error.location.line, error.location.column, error.location.text) == (2, 3, "  concurency = 3")


def test_settings_key_location_is_in_its_table(world: World) -> None:
    world.file(
        "[tool.other]\nconcurrency = 1\n[tool.orchestra]\nconcurrency = 0\n[x]\nconcurrency = 2\n", "pyproject.toml"
    )
    error = world.error()
    assert error.code == "C002"
    assert error.location is not None
    assert error.location.line == 4


def test_settings_reports_all_errors(world: World) -> None:
    world.file('fleeet = "x"\nconcurrency = "many"\nhub = 1\n')
    error = world.error()
    assert isinstance(error, InputErrors)
    assert [(e.code, e.location and e.location.line) for e in error.errors] == [("C001", 1), ("C002", 2), ("C002", 3)]


@pytest.mark.parametrize(
    "text", ["concurrency = true", 'concurrency = "3"', "concurrency = 0", "fleet = 3", 'log = "loud"', "modules = [1]"]
)
def test_settings_file_value_of_wrong_type_is_error(world: World, text: str) -> None:
    world.file(text)
    error = world.error()
    assert error.code == "C002"
    assert error.location is not None


def test_settings_invalid_variable_is_named(world: World) -> None:
    assert "ORCHESTRA_CONCURRENCY" in world.error(ORCHESTRA_CONCURRENCY="few").message
    assert world.error(ORCHESTRA_CONCURENCY="3").hint == "did you mean ORCHESTRA_CONCURRENCY?"


def test_settings_misspelled_variable_is_error(world: World) -> None:
    assert "ORCHESTRA_PROJECT" in world.error(ORCHESTRA_PROJCT="/srv").hint


def test_settings_dissimilar_variable_is_ignored(world: World) -> None:
    assert world.load(ORCHESTRA_ENDPOINT_API_KEY="secret").sources["fleet"] == "default"


def test_settings_invalid_toml_has_location(world: World) -> None:
    world.file('fleet = "laptop"\nlog = off\n')
    error = world.error()
    assert error.code == "C003"
    assert error.location is not None
    assert (error.location.line, error.location.text) == (2, "log = off")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * (1 << 20) + b"\n"], ids=["not UTF-8", "over 1 MiB"])
def test_settings_unreadable_file_is_error(world: World, data: bytes) -> None:
    (world.project / "orchestra.toml").write_bytes(data)
    assert world.error().code == "C003"


@pytest.mark.parametrize("folder", ["/etc", "..", "deep/../../other"])
def test_settings_project_folders_must_be_inside(world: World, folder: str) -> None:
    world.file(f'workflows = ["{folder}"]\n')
    assert world.error().code == "C006"
    world.file("")
    assert world.load({"workflows": [folder]}).sources["workflows"] == "flag"


@given(text=st.text(max_size=200))
def test_settings_any_file_loads_or_raises_input_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("p")
    (folder / "orchestra.toml").write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        Settings.load(start=folder, environ={"HOME": str(folder)})
    except InputError as error:
        assert error.code in {"C001", "C002", "C003"}  # noqa: PT017 - either outcome is right


def test_resources_own_before_packaged(world: World) -> None:
    world.file("")
    mine = world.project / "workflows" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("")
    assert world.load().find_resource("workflows", "mine") == mine
    assert builtin_folder("configs").name == "configs"


def test_resources_agent_is_folder_with_card(world: World) -> None:
    world.file("")
    for name in ("reader", "empty"):
        (world.project / "agents" / name).mkdir(parents=True)
    (world.project / "agents" / "reader" / "agent.yaml").write_text("")
    found = world.load()
    assert found.find_resource("agents", "reader") == world.project / "agents" / "reader"
    with pytest.raises(InputError, match="no agent named 'empty'"):
        found.find_resource("agents", "empty")


def test_resources_only_fleets_may_have_a_dot(world: World) -> None:
    world.file("")
    for kind in ("workflows", "configs"):
        (world.project / kind).mkdir()
        (world.project / kind / "model-0.5b.yaml").write_text("")
    found = world.load()
    assert found.find_resource("configs", "model-0.5b") == world.project / "configs" / "model-0.5b.yaml"
    assert found.find_resource("configs", "qwen-0.5b") == builtin_folder("configs") / "qwen-0.5b.yaml"
    with pytest.raises(InputError, match=r"no workflow named 'model-0\.5b'"):
        found.find_resource("workflows", "model-0.5b")


def test_find_resource_misspelled_name_has_suggestion(world: World) -> None:
    world.file("")
    (world.project / "workflows").mkdir()
    (world.project / "workflows" / "greet.yaml").write_text("")
    with pytest.raises(InputError) as caught:
        world.load().find_resource("workflows", "gret")
    assert (caught.value.code, caught.value.hint) == ("C004", "did you mean 'greet'?")


@pytest.mark.usefixtures("modules")
def test_load_modules_imports_from_project(world: World) -> None:
    world.file('modules = ["own_tools_of_a_test"]\n')
    (world.project / "own_tools_of_a_test.py").write_text("ANSWER = 42\n")
    assert [module.ANSWER for module in load_modules(world.load())] == [42]


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("absent_module", None, "there is no module 'absent_module'"),
        ("needs_more", "import absent_module", "needs_more imports 'absent_module'"),
        ("raises", "def f():\n    return 1 / 0\nf()", "importing raises failed: ZeroDivisionError"),
        ("broken", "x = = 1", "importing broken failed: SyntaxError"),
        ("program", "def main():\n    return 0\nraise SystemExit(main())", "importing program failed: SystemExit: 0"),
        (
            "mute",
            "class Mute(Exception):\n    def __str__(self):\n        raise self\nraise Mute",
            "importing mute failed: Mute: ",
        ),
        ("../evil", None, "'../evil' is not a module name"),
    ],
)
def test_load_modules_import_error_is_coded(world: World, name: str, text: str | None, says: str) -> None:
    world.file(f'modules = ["{name}"]\n')
    if text is not None:
        (world.project / f"{name}.py").write_text(text)
    with pytest.raises(InputError) as caught:
        load_modules(world.load())
    assert caught.value.code == "C005"
    assert says in caught.value.message
    assert "orchestra.toml:1" in caught.value.why


@pytest.mark.parametrize("command", [["app.py"], ["-m", "app"], ["deep/../app.py"]])
def test_load_modules_running_program_is_reused(world: World, command: list[str]) -> None:
    world.file('modules = ["app"]\njournal = "off"\n')
    (world.project / "app.py").write_text(PROGRAM)
    environ = {**os.environ, **world.environ}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=world.project,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("TEA True True\n", "")


def test_load_modules_running_package_module_is_reused(world: World) -> None:
    world.file('modules = ["pack.app"]\njournal = "off"\n')
    (world.project / "pack").mkdir()
    (world.project / "pack" / "__init__.py").write_text("")
    (world.project / "pack" / "app.py").write_text(
        PROGRAM.replace("import app", "import pack.app as app; from pack import app")
    )
    command = [sys.executable, "-m", "pack.app"]
    environ = {**os.environ, **world.environ}
    done = subprocess.run(
        command, cwd=world.project, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("TEA True True\n", "")


@pytest.mark.usefixtures("modules")
def test_load_modules_error_has_location(world: World) -> None:
    world.file('modules = ["falls"]\n')
    (world.project / "falls.py").write_text("def f():\n    return 1 / 0\nf()")
    with pytest.raises(InputError) as caught:
        load_modules(world.load())
    assert caught.value.location is not None
    assert (Path(caught.value.location.file).name, caught.value.location.line) == ("falls.py", 2)


# Missing home and empty values


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user unknown to the system, as in a container."""

    def unknown(_user: int) -> NoReturn:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_settings_without_home_is_error_with_hint(world: World, tmp_path: Path) -> None:
    world.environ = {}
    error = world.error()
    assert error.code == "C050"
    assert "XDG_STATE_HOME, or ORCHESTRA_JOURNAL" in error.hint
    assert world.load(XDG_STATE_HOME="/state").journal == Path("/state/orchestra/journal.db")
    assert world.load(ORCHESTRA_JOURNAL="/a/j.db").journal == Path("/a/j.db")
    assert world.error(ORCHESTRA_JOURNAL="~/j.db").code == "C050"
    world.file("")
    assert world.load().journal == world.project / ".orchestra" / "journal.db"
    with pytest.raises(InputError, match="C050"):
        Folders.from_environment({"XDG_STATE_HOME": "/state"})
    assert Folders.from_environment({"XDG_STATE_HOME": "/state", "XDG_CACHE_HOME": "/cache"}).runtime == Path(
        "/state/orchestra"
    )


def test_settings_empty_variable_is_ignored(world: World) -> None:
    world.file('fleet = "gpu-24g"\nmodules = ["a"]')
    loaded = world.load(ORCHESTRA_JOURNAL="", ORCHESTRA_FLEET="", ORCHESTRA_MODULES="", ORCHESTRA_LOG="")
    assert (loaded.fleet, loaded.modules, loaded.log, loaded.sources["log"]) == ("gpu-24g", ("a",), "off", "default")
    assert loaded.journal == world.project / ".orchestra" / "journal.db"


@pytest.mark.parametrize("key", ["journal", "fleet"])
def test_settings_empty_value_is_error(key: str, world: World) -> None:
    world.file(f'{key} = ""')
    assert world.error().code == "C002"


@pytest.mark.parametrize("of", ["file", "folder"])
def test_settings_foreign_project_must_be_named(of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that all users may write, another user can add a project file above the working folder."""
    work = tmp_path / "shared" / "mine"
    work.mkdir(parents=True)
    file = tmp_path / "shared" / "orchestra.toml"
    file.write_text('fleet = "sim"\n')
    assert Settings.load(start=work, environ={}).fleet == "sim"
    if os.geteuid() == 0:
        os.chown(file if of == "file" else file.parent, 65534, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InputError) as refused:
        Settings.load(start=work, environ={})
    assert (refused.value.code, refused.value.hint) == (
        "C052",
        f"if you trust its content: export ORCHESTRA_PROJECT={file.parent}",
    )
    assert Settings.load(start=work, environ={"ORCHESTRA_PROJECT": str(file.parent)}).fleet == "sim"
    assert Settings.load(project=file.parent, start=work, environ={}).fleet == "sim"


def test_settings_foreign_folder_uses_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root in a container, in a mounted folder."""
    (tmp_path / "orchestra.toml").write_text('fleet = "sim"\n')
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert Settings.load(start=tmp_path, environ={}).fleet == "sim"


def test_settings_sudo_accepts_project_of_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "orchestra.toml").write_text('fleet = "sim"\n')
    if os.getuid() == 0:
        os.chown(tmp_path / "orchestra.toml", 65534, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    caller = {"SUDO_UID": str((tmp_path / "orchestra.toml").stat().st_uid)}
    assert Settings.load(start=tmp_path, environ=caller).fleet == "sim"
    with pytest.raises(InputError, match="belongs to another user"):
        Settings.load(start=tmp_path, environ={"SUDO_UID": "4242"})


ENDPOINT, OTHER = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"


@pytest.mark.parametrize(
    ("flags", "environ", "file", "fleet", "endpoint"),
    [
        ({}, {}, "", "laptop", ""),
        ({}, {"OPENAI_BASE_URL": OTHER}, "", "laptop", OTHER),
        ({}, {"OPENAI_BASE_URL": OTHER}, 'fleet = "mine"', "mine", ""),
        ({}, {"OPENAI_BASE_URL": OTHER}, f'endpoint = "{ENDPOINT}"', "laptop", ENDPOINT),
        ({}, {"ORCHESTRA_ENDPOINT": ENDPOINT}, 'fleet = "mine"', "laptop", ENDPOINT),
        ({"fleet": "mine"}, {"ORCHESTRA_ENDPOINT": ENDPOINT}, "", "mine", ""),
        ({"endpoint": ENDPOINT}, {"ORCHESTRA_FLEET": "mine"}, f'endpoint = "{OTHER}"', "laptop", ENDPOINT),
    ],
)
def test_settings_strongest_of_fleet_and_endpoint_wins(
    tmp_path: Path, flags: dict[str, str], environ: dict[str, str], file: str, fleet: str, endpoint: str
) -> None:
    (tmp_path / "orchestra.toml").write_text(file)
    settings = Settings.load(flags, start=tmp_path, environ={"HOME": str(tmp_path), **environ})
    assert (settings.fleet, settings.endpoint) == (fleet, endpoint)


def test_settings_fleet_and_endpoint_of_one_source_are_refused(tmp_path: Path) -> None:
    (tmp_path / "orchestra.toml").write_text(f'fleet = "mine"\nendpoint = "{ENDPOINT}"\n')
    with pytest.raises(InputError, match="exclude each other") as caught:
        Settings.load({}, start=tmp_path, environ={"HOME": str(tmp_path)})
    assert caught.value.code == "C002"
    assert caught.value.location is not None
    assert caught.value.location.line == 2


def test_settings_model_without_an_endpoint_is_refused(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    with pytest.raises(InputError, match="there is none") as caught:
        Settings.load({"model": "m"}, start=tmp_path, environ=environ)
    assert caught.value.code == "C002"
    settings = Settings.load({}, start=tmp_path, environ={**environ, "OPENAI_MODEL": "m"})
    assert settings.model == "", "the variable of another program is no error"


@pytest.mark.parametrize(
    ("address", "kinds"), [("https://api.example.com/v1", ["endpoint"]), (ENDPOINT, []), ("http://[", ["endpoint"])]
)
def test_settings_endpoint_of_a_project_elsewhere_needs_trust(tmp_path: Path, address: str, kinds: list[str]) -> None:
    (tmp_path / "orchestra.toml").write_text(f'endpoint = "{address}"\n')
    environ = {"HOME": str(tmp_path)}
    guard = Settings.load({}, start=tmp_path, environ=environ, trusted="never").guard
    assert guard is not None
    assert [need.kind for need in guard.requirements] == kinds
    given = Settings.load({"endpoint": address}, start=tmp_path, environ=environ, trusted="never").guard
    assert given is not None
    assert given.requirements == (), "a flag is the user's own choice"


@pytest.mark.parametrize("kind", ["agents", "workflows", "configs"])
def test_resource_by_name_is_that_of_the_list(tmp_path: Path, kind: ResourceKind) -> None:
    for name in ("mine.yaml", "both.yml", "both.yaml", "no-name.yaml", "other.txt"):
        (tmp_path / "workflows").mkdir(exist_ok=True)
        (tmp_path / "workflows" / name).write_text("")
    (tmp_path / "orchestra.toml").write_text("")
    settings = Settings.load(start=tmp_path, environ={"HOME": str(tmp_path)})
    listed = settings.resources(kind)
    assert listed
    assert {name: settings.resource(kind, name) for name in listed} == listed
    for name in ("nothing", "no-name", "other", "..", "mine.yaml", ""):
        assert settings.resource(kind, name) == listed.get(name)
