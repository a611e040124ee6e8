"""`validate`, `graph` and `agents`: errors found before anything starts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from tests.cli.shell import Shell
from tests.cli.stage import FLEET, Simulated, furnish

FAULTY = """\
schema: orchestra/v1
name: faulty
input: {text: str}
output: ${second}
nodes:
  first: {agent: anserer, with: {question: "${input.text}", context: "${input.text}"}}
  second: {tool: serch, with: {query: "${input.txt}", documents: []}}
"""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    return shell


def test_right_files_are_told_to_be_right(shell: Shell) -> None:
    said = shell("validate", "ask", "workflows/ask.yaml", "configs/nowhere.yaml", "agents/answerer")
    assert (said.code, said.err) == (0, "")
    assert [line.split(": ")[0] for line in said.out.splitlines()] == [
        "ok  ask",
        "ok  workflows/ask.yaml",
        "ok  configs/nowhere.yaml",
        "ok  agents/answerer",
    ]


def test_every_fault_is_told_with_its_place(shell: Shell) -> None:
    Path("faulty.yaml").write_text(FAULTY)
    said = shell("validate", "./faulty.yaml")
    assert said.code == 2
    assert " --> faulty.yaml:6:18\n" in said.err
    assert "did you mean 'answerer'?" in said.err
    assert "faulty.yaml:7:18" in said.err
    assert "did you mean 'search'?" in said.err
    assert said.err.strip().splitlines()[-1].startswith("3 faults; for details: orchestra explain ")


def test_one_faulty_file_does_not_hide_the_next(shell: Shell) -> None:
    Path("faulty.yaml").write_text(FAULTY)
    said = shell("validate", "./faulty.yaml", "ask", "--json")
    first, second = said.json
    assert said.code == 2
    assert (first["valid"], second["valid"]) == (False, True)
    assert {error["place"]["line"] for error in first["errors"]} >= {6, 7}
    assert all("did you mean" in error.get("hint", error["message"]) for error in first["errors"])


def test_what_is_needless_is_a_warning_and_no_fault(shell: Shell) -> None:
    text = Path("workflows/ask.yaml").read_text()
    unused = '  unused: {agent: answerer, with: {question: "${input.question}", context: "${input.text}"}}\n'
    Path("workflows/ask.yaml").write_text(text + unused)
    said = shell("validate", "ask")
    assert said.code == 0
    assert "warning: " in said.err
    assert "unused" in said.err


@pytest.mark.parametrize(("name", "code"), [("aks", "C004"), ("absent.yaml", "C00"), ("workflows", "C004")])
def test_what_is_not_there_is_refused(shell: Shell, name: str, code: str) -> None:
    said = shell("validate", name)
    assert said.code == 2
    assert said.err.startswith(code)


def test_faults_of_a_fleet_and_of_a_card_are_located(shell: Shell) -> None:
    Path("configs/nowhere.yaml").write_text(FLEET.replace("models:", "modles:"))
    assert "configs/nowhere.yaml:4:" in shell("validate", "configs/nowhere.yaml").err
    Path("agents/answerer/agent.yaml").write_text("name: answerer\noutput: str\ninput: {question: str}\n")
    assert "prompt.md:1" in shell("validate", "agents/answerer").err


def test_a_fleet_s_file_may_begin_with_a_mark_of_the_order_of_bytes(shell: Shell) -> None:
    Path("configs/nowhere.yaml").write_text(FLEET, "utf-8-sig")
    said = shell("validate", "configs/nowhere.yaml")
    assert (said.code, said.out) == (0, "ok  configs/nowhere.yaml: the fleet 'nowhere', 1 server\n")


STEPS = """\
from orchestra import tool, workflow


@tool(effect="pure")
def loud(text: str) -> str:
    return text.upper()


@workflow
def told(text: str) -> str:
    return loud(text=text)
"""


MODELS = """\
from pydantic import BaseModel, SecretStr

from orchestra import tool


class Part(BaseModel):
    name: str


class Order(BaseModel):
    id: int
    parts: list[Part] = []


class Login(BaseModel):
    word: SecretStr


@tool(effect="pure", name="first_NUMBER")
def first(orders: list[Order], login: Login | None = None) -> Order | None:
    return next(iter(orders), None)
"""
TYPED = """\
schema: orchestra/v1
name: typed
input: {orders: 'list[Order]', part: Part}
output: ${a}
nodes:
  a: {tool: first_1, with: {orders: "${input.orders}"}}
"""


def test_files_may_name_the_models_of_the_project_s_modules(shell: Shell) -> None:
    Path("models_one.py").write_text(MODELS.replace("NUMBER", "1"))
    Path("models_two.py").write_text(MODELS.replace("NUMBER", "2").replace("id: int", "number: int"))
    Path("typed.yaml").write_text(TYPED)
    Path("agents/answerer/agent.yaml").write_text(
        "name: answerer\ninput: {question: str, context: Order}\noutput: Part\n"
    )
    Path("agents/answerer/prompt.md").write_text("{{ question }}")
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["models_one"]\n')
    said = shell("validate", "typed.yaml", "agents/answerer")
    assert (said.code, said.err) == (0, "")
    Path("typed.yaml").write_text(TYPED.replace("part: Part", "part: Login"))
    assert "there is no type 'Login'" in shell("validate", "typed.yaml").err
    Path("typed.yaml").write_text(TYPED)
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["models_one", "models_two"]\n')
    assert "there is no type 'Order'" in shell("validate", "typed.yaml").err


def test_without_names_the_whole_project_is_checked(shell: Shell) -> None:
    said = shell("validate")
    assert (said.code, said.err) == (0, "")
    assert [line.split(": ")[0] for line in said.out.splitlines()] == [
        "ok  configs/nowhere.yaml",
        "ok  agents/answerer",
        "ok  workflows/ask.yaml",
    ]
    Path("my_steps.py").write_text(STEPS)
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["my_steps"]\n')
    assert "ok  told: the workflow 'told'" in shell("validate").out


def test_a_module_that_cannot_be_imported_is_imported_once_and_told_once(shell: Shell) -> None:
    Path("my_broken_steps.py").write_text("with open('imported', 'a') as file:\n    file.write('x')\n1 / 0\n")
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["my_broken_steps"]\n')
    for names, others in ((), ["agents/second"]), (("workflows/ask.yaml", "agents/answerer", "ask"), ["ask"]):
        shutil.copytree("agents/answerer", "agents/second", dirs_exist_ok=True)
        for name in ("answerer", "second"):
            card = f"name: {name}\ninput: {{question: str, context: str}}\noutput: str\ntools: [shorten]\n"
            Path(f"agents/{name}/agent.yaml").write_text(card)
        Path("imported").unlink(missing_ok=True)
        said = shell("validate", *names)
        assert (said.code, Path("imported").read_text()) == (2, "x")
        assert (said.err.count("C005: "), "1 fault;" in said.err) == (1, True)
        for other in others:
            assert f"{other}: not validated because of the errors above" in said.err


@pytest.mark.parametrize(
    "command", [("validate",), ("graph", "priced"), ("run", "priced")], ids=lambda command: command[0]
)
def test_an_exception_in_a_workflows_function_is_told_at_its_line(shell: Shell, command: tuple[str, ...]) -> None:
    module = f"my_{command[0]}_steps"
    text = "from orchestra import ask, workflow\n\n\n@workflow\ndef priced() -> str:\n    return ask({}['USD'])\n"
    Path(f"{module}.py").write_text(text)
    Path("orchestra.toml").write_text(f'fleet = "nowhere"\nmodules = ["{module}"]\n')
    found = shell(*command)
    assert found.code == 2
    assert found.err.startswith(f"W028: reading the workflow priced failed: KeyError: 'USD'\n --> {module}.py:6:16\n")
    assert "6 |     return ask({}['USD'])\n  |                ^^^^^^^^^\n" in found.err
    assert "Traceback" not in found.err


BROKEN = "name: broken\noutput: str\ninput: {question: str}\n"


@pytest.fixture
def broken(shell: Shell) -> Path:
    folder = Path("agents/broken")
    folder.mkdir()
    (folder / "agent.yaml").write_text(BROKEN)
    (folder / "prompt.md").write_text("{{ txt }}")
    return folder


@pytest.mark.usefixtures("broken")
def test_a_broken_card_is_told_once_however_many_workflows_have_it(shell: Shell) -> None:
    for name in ("one", "two", "three"):
        flow = (
            "schema: orchestra/v1\n"
            f"name: {name}\n"
            "output: ${a}\n"
            "nodes: {a: {agent: broken, with: {question: a}}}\n"
        )
        Path(f"workflows/{name}.yaml").write_text(flow)
    said = shell("validate")
    assert (said.code, said.err.count("A006:")) == (2, 1)
    assert "workflows/two.yaml: not validated because of the errors above" in said.err
    assert "1 fault; for details: orchestra explain A006" in said.err


@pytest.mark.usefixtures("broken")
def test_a_broken_card_is_no_fault_of_workflows_that_do_not_use_it(shell: Shell) -> None:
    assert shell("validate", "ask").code == 0
    listed = shell("agents", "list")
    assert (listed.code, "warning: broken is left out" in listed.err) == (0, True)
    for line in (("agents", "show", "broken"), ("graph", "broken"), ("agents", "bind", "broken")):
        said = shell(*line)
        assert (said.code, said.err.split(":")[0], "broken/prompt.md:1" in said.err) == (2, "A006", True)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    "node",
    [
        "{agent: broken, with: {question: a}}",
        "{agent: {by: '${input.text}', of: {a: answerer, b: broken}}, with: {question: a, context: a}}",
        "{agent: answerer, with: {question: a, context: a}, checks: [entailment(broken)], accept: 0.5}",
        "{agent: researcher, with: {question: a}}",
        "{plan: '${input.text}', with: {question: a}, agents: [broken]}",
    ],
)
def test_a_broken_card_is_a_fault_of_workflows_that_use_it(shell: Shell, node: str) -> None:
    folder = Path("agents/researcher")
    folder.mkdir()
    (folder / "agent.yaml").write_text("name: researcher\noutput: str\ninput: {question: str}\nagents: [broken]\n")
    (folder / "prompt.md").write_text("{{ question }}")
    Path("user.yaml").write_text(
        f"schema: orchestra/v1\nname: user\ninput: {{text: str}}\noutput: ${{a}}\nnodes:\n  a: {node}\n"
    )
    said = shell("validate", "user.yaml")
    assert said.code == 2
    assert "A006: " in said.err
    assert "there is no agent" not in said.err


@pytest.mark.usefixtures("broken")
def test_without_names_every_fault_of_the_project_is_told(shell: Shell) -> None:
    Path("workflows/faulty.yaml").write_text(FAULTY)
    Path("configs/other.yaml").write_text("name: other\n")
    shutil.copytree("agents/answerer", "agents/twin")
    said = shell("validate", "--json")
    assert said.code == 2
    found = {one["name"]: {error["code"] for error in one["errors"]} for one in said.json}
    assert found["agents/broken"] == {"A006"}
    assert found["answerer"] == {"A009"}
    assert "L111" in found["workflows/faulty.yaml"]
    assert found["configs/other.yaml"]
    assert not found["configs/nowhere.yaml"]
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["none_such"]\n')
    said = shell("validate", "--json")
    found = {one["name"]: {error["code"] for error in one["errors"]} for one in said.json}
    assert (found["modules"], found["agents/broken"]) == ({"C005"}, {"A006"})


def test_where_there_is_nothing_to_check_it_says_so(shell: Shell) -> None:
    for folder in ("agents", "configs", "workflows"):
        shutil.rmtree(folder)
    said = shell("validate")
    assert (said.code, said.err.split(":")[0]) == (2, "C004")


LONG = "n" * 300


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("validate", LONG), "C004"),
        (("validate", f"{LONG}.yaml"), "C003"),
        (("graph", LONG), "C004"),
        (("init", LONG), "C023"),
        (("check", "a", "--against", LONG), "C014"),
        (("run", "ask", "--dry-run", "-i", f"question=@{LONG}", "-i", "text=a"), "C014"),
        (("run", "search", "--dry-run", "-i", "query=a", "-i", f"documents=@{LONG}"), "C014"),
        (("run", "ask", "--dry-run", "--fleet", f"./{LONG}.yaml", "-i", "question=a", "-i", "text=a"), "C002"),
    ],
)
def test_a_name_that_is_too_long_for_a_file_is_refused(shell: Shell, line: tuple[str, ...], code: str) -> None:
    said = shell(*line)
    assert said.code != 0
    assert said.err.startswith(f"{code}: ")


def test_a_file_that_cannot_be_read_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def closed(path: Path, *arguments: Any, **named: Any) -> IO[Any]:
        if path.name == "nowhere.yaml":
            raise PermissionError(13, "Permission denied")
        file: IO[Any] = opened(path, *arguments, **named)
        return file

    monkeypatch.setattr(Path, "open", closed)
    said = shell("validate", "configs/nowhere.yaml")
    assert (said.code, said.err.splitlines()[0]) == (2, "C014: configs/nowhere.yaml cannot be read: Permission denied")


def test_a_graph_is_as_wide_as_the_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = shell("graph", "ask").out.splitlines()
    assert 60 < max(map(len, wide)) <= 100
    monkeypatch.setattr("orchestra.cli.validate.terminal_width", lambda stream, otherwise: 50)
    assert max(map(len, shell("graph", "ask").out.splitlines())) <= 50


@pytest.mark.parametrize("size", [(1 << 20) + 1])
def test_a_large_file_is_refused(shell: Shell, size: int) -> None:
    Path("large.yaml").write_text("#" * size)
    assert shell("validate", "large.yaml").code == 2


def test_a_graph_is_drawn_for_the_terminal_and_as_mermaid(shell: Shell) -> None:
    drawn, chart = shell("graph", "ask"), shell("graph", "ask", "--mermaid")
    assert (drawn.code, chart.code) == (0, 0)
    assert "agent answerer" in drawn.out
    assert chart.out.startswith("flowchart")


def test_agents_are_listed_shown_and_bound(shell: Shell) -> None:
    listed = {agent["name"]: agent for agent in shell("agents", "list", "--json").json}
    assert listed["answerer"]["takes"] == "question: str, context: str"
    assert "reader" in listed
    assert "answerer" in shell("agents", "list").out
    shown = shell("agents", "show", "answerer")
    assert "{{ context }}" in shown.out
    assert shell("agents", "show", "answerer", "--json").json["output"]["type"] == "object"
    assert 'answerer = agent("answerer", AnswererInput, AnswererOutput)' in shell("agents", "bind", "answerer").out


@pytest.mark.parametrize("verb", ["show", "bind"])
def test_a_misspelt_agent_gets_the_nearest_name(shell: Shell, verb: str) -> None:
    said = shell("agents", verb, "anserer")
    assert said.code == 2
    assert "did you mean 'answerer'?" in said.err


def test_a_fleet_of_endpoints_needs_no_start(shell: Shell) -> None:
    found = shell("fleet", "status", "--json").json
    assert (found["running"], found["servers"]) == (True, [])
    told = {
        "name": "it",
        "endpoint": "http://127.0.0.1:9/v1",
        "model": "m",
        "external": True,
        "error": "Connection refused",
        "key": "",
    }
    assert found["endpoints"] == [told]
    assert "it: m at http://127.0.0.1:9/v1 (external) cannot be reached: Connection refused" in " ".join(
        shell("fleet", "status").out.split()
    )
    assert shell("fleet", "start").code == 0
    assert shell("fleet", "stop", "--json").json == {"fleet": "nowhere", "stopped": False}
    assert shell("fleet", "logs", "--json").json == {"fleet": "nowhere", "logs": {}}


def test_a_fleet_that_is_not_running_is_one(shell: Shell) -> None:
    said = shell("fleet", "status", "--fleet", "laptop")
    assert said.code == 1
    assert "orchestra fleet start" in said.out
    assert shell("fleet", "status", "--fleet", "laptop", "--json").json["running"] is False


def test_a_misspelt_fleet_gets_the_nearest_name(shell: Shell) -> None:
    said = shell("fleet", "status", "--fleet", "latop")
    assert said.code == 2
    assert "did you mean 'laptop'?" in said.err


def test_the_starter_project_runs_as_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell("init", "hello").code == 0
    monkeypatch.chdir("hello")
    shell.opener = Simulated({"generative_reader": {"answer": "Bernoulli numbers"}, "title": {"title": "Note G"}})
    assert shell("validate", "hello").code == 0
    said = shell("run", "hello", "-i", "question=What?", "-i", "text=@documents/ada.txt", "--json")
    assert said.json["output"] == {"answer": "Bernoulli numbers", "title": "Note G"}


def test_looking_at_files_loads_neither_http_nor_models(shell: Shell) -> None:
    script = (
        "import sys\n"
        "from orchestra.cli.main import build_app\n"
        "try:\n"
        "    build_app()(sys.argv[1:], prog_name='orchestra')\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(sorted({'aiohttp', 'vllm', 'torch', 'numpy', 'bm25s', 'transformers'} & set(sys.modules)), "
        "file=sys.stderr)\n"
    )
    root = str(Path(__file__).parents[2])
    for verb in (
        ["validate", "ask"],
        ["graph", "ask"],
        ["config", "show"],
        ["agents", "list"],
        ["schema"],
        ["explain", "C001"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *verb],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": root, "HOME": str(shell.home)},
        )
        assert done.stderr.splitlines()[-1] == "[]", verb
