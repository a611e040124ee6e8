"""`init`, `config show`, `explain`, `schema`, `doctor`, and errors of every command."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from orchestra.cli import init as init_module
from orchestra.core.error_help import load_explanations
from orchestra.fleet import endpoints
from orchestra.schema import strict_yaml
from orchestra.schema.validator import Validator
from tests.cli.shell import Shell
from tests.e2e.model_servers import ModelServer, serve_in_thread

LOCAL_ENDPOINT = """\
schema: orchestra/fleet/v1
name: elsewhere
servers:
  it: {endpoint: "http://127.0.0.1:9/v1", model: m}
models: {base: it}
"""


def test_init_writes_a_project_and_says_what_to_type(shell: Shell) -> None:
    said = shell("init", "hello")
    assert said.code == 0
    assert "orchestra run hello" in said.out
    made = {str(path.relative_to("hello")) for path in Path("hello").rglob("*") if path.is_file()}
    assert {"orchestra.toml", ".gitignore", "hello.py", "workflows/hello.yaml", "agents/title/agent.yaml"} <= made


def test_init_overwrites_nothing_and_then_writes_nothing(shell: Shell) -> None:
    Path("there/workflows").mkdir(parents=True)
    Path("there/workflows/hello.yaml").write_text("mine")
    said = shell("init", "there")
    assert (said.code, "C016" in said.err) == (2, True)
    assert [path.name for path in Path("there").rglob("*") if path.is_file()] == ["hello.yaml"]
    assert Path("there/workflows/hello.yaml").read_text() == "mine"


def test_config_show_says_where_each_value_came_from(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("orchestra.toml").write_text("concurrency = 3\n")
    monkeypatch.setenv("ORCHESTRA_LOG", "debug")
    found = shell("config", "show", "--json").json["settings"]
    assert found["concurrency"] == {"value": 3, "source": "orchestra.toml:1"}
    assert found["log"] == {"value": "debug", "source": "ORCHESTRA_LOG"}
    assert found["fleet"]["source"] == "default"
    table = shell("config", "show").out
    assert "orchestra.toml:1" in table
    assert "ORCHESTRA_LOG" in table


def test_a_project_may_be_named_from_anywhere(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("orchestra.toml").write_text("concurrency = 7\n")
    monkeypatch.setenv("ORCHESTRA_PROJECT", str(shell.project))
    monkeypatch.chdir(tmp_path)
    shown = shell("config", "show", "--json").json
    assert (shown["project"], shown["settings"]["concurrency"]["value"]) == (str(shell.project), 7)


def test_invalid_setting_ends_every_command_with_its_location(shell: Shell) -> None:
    Path("orchestra.toml").write_text("concurency = 3\n")
    said = shell("config", "show")
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith(
        "C001: no setting named 'concurency'\n --> orchestra.toml:1:1\n  |\n1 | concurency = 3\n  | ^^^^^^^^^^\n"
        "  = help: did you mean 'concurrency'?"
    )
    assert "orchestra explain C001" in said.err


def test_an_error_is_json_where_json_was_asked(shell: Shell) -> None:
    Path("orchestra.toml").write_text("concurency = 3\nhub = 1\n")
    said = shell("config", "show", "--json")
    error = said.json["error"]
    assert (said.code, error["code"], error["place"]["line"]) == (2, "C001", 1)
    assert [part["code"] for part in error["errors"]] == ["C001", "C002"]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["explain", "--nonsense"], ["runs", "show", "a", "b", "c"], ["schema", "cake"]]
)
def test_wrong_usage_exits_with_2(shell: Shell, arguments: list[str]) -> None:
    assert shell(*arguments).code == 2


def test_version_option_prints_the_version(shell: Shell) -> None:
    said = shell("--version")
    assert (said.code, said.out.startswith("orchestra ")) == (0, True)


def test_help_lists_every_command(shell: Shell) -> None:
    out = shell("--help").out
    verbs = (
        "init",
        "run",
        "batch",
        "validate",
        "graph",
        "fleet",
        "agents",
        "runs",
        "config",
        "doctor",
        "schema",
        "explain",
    )
    assert [verb for verb in verbs if f" {verb} " not in out] == []


def test_explain_tells_what_a_code_means_in_either_case(shell: Shell) -> None:
    assert shell("explain", "c001").out.startswith("C001: an unknown setting\n\n")


def test_explain_lists_all_codes(shell: Shell) -> None:
    assert [line[:4] for line in shell("explain").out.splitlines()] == list(load_explanations())


@pytest.mark.parametrize("code", ["C999", "Q001", "hello"])
def test_explain_refuses_an_unknown_code(shell: Shell, code: str) -> None:
    said = shell("explain", code)
    assert (said.code, said.err[:4]) == (2, "C007")


def test_starter_files_are_valid_by_the_schemas_that_they_name(shell: Shell) -> None:
    shell("init", "hello")
    for what, name in (("workflow", "workflows/hello.yaml"), ("agent", "agents/title/agent.yaml")):
        file = Path("hello") / name
        text = file.read_text()
        named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
        assert named is not None
        schema = json.loads((file.parent / named[1]).read_text())
        assert schema == json.loads(shell("schema", what).out)
        content = strict_yaml.load_yaml(text, name).value
        assert Validator(schema).check(content) is None
        assert Validator(schema).check({**content, "descripton": "x"}) is not None


@pytest.mark.parametrize("what", ["workflow", "agent", "fleet"])
def test_schema_has_a_stable_id(shell: Shell, what: str) -> None:
    schema = json.loads(shell("schema", what).out)
    assert schema["$id"] == f"https://orchestra-slm.github.io/orchestra/reference/schemas/{what}.v1.json"


def test_schema_write_renews_the_copies_of_the_project(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shell.project / ".orchestra" / "schemas"
    (shell.project / "workflows").mkdir()
    monkeypatch.chdir("workflows")
    for _ in range(2):
        assert shell("schema", "--write").code == 0
        assert sorted(path.name for path in folder.iterdir()) == ["agent.v1.json", "fleet.v1.json", "workflow.v1.json"]
        assert (folder / "fleet.v1.json").read_text() == shell("schema", "fleet").out
        (folder / "fleet.v1.json").write_text("of an earlier version")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("")
    assert shell("schema", "--write").err.startswith("C023: ")


def test_the_schema_of_a_fleet_takes_a_fleet_and_refuses_a_typing_error(shell: Shell) -> None:
    schema = json.loads(shell("schema", "fleet").out)
    validator = Validator(schema)
    assert validator.check(strict_yaml.load_yaml(LOCAL_ENDPOINT, "x").value) is None
    assert validator.check(strict_yaml.load_yaml(LOCAL_ENDPOINT.replace("models:", "modles:"), "x").value) is not None


def test_doctor_says_what_to_type_for_each_problem(shell: Shell) -> None:
    Path("elsewhere.yaml").write_text(LOCAL_ENDPOINT)
    Path("orchestra.toml").write_text('modules = ["absent_module"]\nfleet = "./elsewhere.yaml"\n')
    said = shell("doctor", "--json")
    found = {finding["subject"]: finding for finding in said.json["findings"]}
    assert said.code == 1
    assert found["Python"]["state"] == "ok"
    assert found["journal"]["state"] == "ok"
    assert found["it"]["state"] == "problem"
    assert found["it"]["remedy"] == "curl http://127.0.0.1:9/v1/models"
    assert found["modules"]["state"] == "problem"
    assert "absent_module" in found["modules"]["message"]
    assert "vLLM" not in found


def test_doctor_prints_a_prompt_before_commands_only(shell: Shell) -> None:
    Path("elsewhere.yaml").write_text(LOCAL_ENDPOINT)
    Path("orchestra.toml").write_text('modules = ["absent_module"]\nfleet = "./elsewhere.yaml"\n')
    remedies = {finding["subject"]: finding["remedy"] for finding in shell("doctor", "--json").json["findings"]}
    lines = [line.strip() for line in shell("doctor").out.splitlines()]
    assert remedies["modules"].startswith("# ")
    assert remedies["modules"].removeprefix("# ") in lines
    assert f"$ {remedies['it']}" in lines


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "x" * 70])
def test_doctor_reports_an_invalid_address(address: str, shell: Shell) -> None:
    Path("elsewhere.yaml").write_text(LOCAL_ENDPOINT.replace("127.0.0.1:9", address))
    Path("orchestra.toml").write_text('fleet = "./elsewhere.yaml"\n')
    said = shell("doctor", "--json")
    (found,) = (finding for finding in said.json["findings"] if finding["subject"] == "fleet file")
    assert (said.code, found["state"]) == (1, "problem")
    assert "servers.it.endpoint" in found["message"]


def test_doctor_reports_a_journal_that_cannot_be_created(shell: Shell) -> None:
    Path("elsewhere.yaml").write_text(LOCAL_ENDPOINT)
    Path("file").write_text("")
    Path("orchestra.toml").write_text('journal = "file/journal.db"\nfleet = "./elsewhere.yaml"\n')
    found = {finding["subject"]: finding for finding in shell("doctor", "--json").json["findings"]}
    assert found["journal"]["state"] == "problem"


@pytest.mark.parametrize(
    "verb", ["runs list", "runs resume --all", "runs gc --older 1d", "runs costs", "runs show last", "doctor"]
)
def test_a_journal_whose_disk_is_not_mounted_is_not_an_empty_one(
    verb: str, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "not mounted" / "orchestra"
    monkeypatch.setenv("ORCHESTRA_JOURNAL", str(folder / "journal.db"))
    said = shell(*verb.split())
    assert said.code == (1 if verb == "doctor" else 2)
    assert str(folder) in " ".join((said.out + said.err).split()).replace("/ ", "/")
    folder.mkdir(parents=True)
    assert "C051" not in shell(*verb.split()).err


def test_a_journal_of_the_projects_own_is_empty_before_the_first_run(shell: Shell) -> None:
    Path("orchestra.toml").write_text('journal = "state/journal.db"\n')
    assert shell("runs", "list").code == 0


def test_a_fleet_that_is_not_there_is_found_by_validate(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("init", "hello")
    monkeypatch.chdir("hello")
    assert shell("validate").code == 0
    monkeypatch.setenv("ORCHESTRA_FLEET", "laptpo")
    said = shell("validate")
    assert (said.code, "did you mean 'laptop'?" in said.err) == (2, True)


@contextmanager
def somebody(fleet: str = LOCAL_ENDPOINT) -> Iterator[None]:
    """An endpoint that accepts connections, in the fleet file of the project."""
    Path("orchestra.toml").write_text('fleet = "./fleet.yaml"\n')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Path("fleet.yaml").write_text(fleet.replace(":9/", f":{listener.getsockname()[1]}/"))
        yield


def test_a_key_that_is_not_there_is_a_problem_before_the_first_call(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    with somebody(LOCAL_ENDPOINT.replace("model: m", "model: m, api_key: env:THE_KEY")):
        lacking = {said: shell(*said.split(), "--json") for said in ("doctor", "fleet status")}
        valid = shell("validate", "./fleet.yaml")
        shown = shell("fleet", "status").out
        monkeypatch.setenv("THE_KEY", "k")
        there = [shell("doctor").code, shell("fleet", "status").code]
    (found,) = (finding for finding in lacking["doctor"].json["findings"] if finding["state"] == "problem")
    assert (found["subject"], found["message"], found["remedy"]) == (
        "it",
        "the secret env:THE_KEY is empty",
        "export THE_KEY=…",
    )
    assert lacking["fleet status"].json["endpoints"][0]["key"] == "the secret env:THE_KEY is empty"
    assert "the secret env:THE_KEY is empty" in " ".join(shown.split())
    assert [said.code for said in lacking.values()] == [1, 1]
    assert (valid.code, "warning: fleet.yaml: it: the secret env:THE_KEY is empty" in valid.err) == (0, True)
    assert there == [0, 0]


def test_an_endpoint_that_takes_no_connection_makes_status_fail(shell: Shell) -> None:
    with somebody():
        assert shell("fleet", "status").code == 0
    assert shell("fleet", "status").code == 1


@pytest.mark.parametrize(
    ("address", "says", "wanted"),
    [
        (
            "postgresql://127.0.0.1:9/runs",
            "the journal's database cannot be reached: postgresql://127.0.0.1:9/runs",
            "# try the same",
        ),
        ("env:THE_DATABASE", "the secret env:THE_DATABASE is empty", "export THE_DATABASE=…"),
        ("file:nowhere", "the secret file:nowhere cannot be read", "# put it into nowhere"),
    ],
)
def test_doctor_reports_a_missing_database(address: str, says: str, wanted: str, shell: Shell) -> None:
    with somebody():
        Path("orchestra.toml").write_text(f'fleet = "./fleet.yaml"\njournal = "{address}"\n')
        said = shell("doctor", "--json")
    (found,) = (finding for finding in said.json["findings"] if finding["subject"] == "journal")
    assert (said.code, found["state"]) == (1, "problem")
    assert says in found["message"]
    assert found["remedy"].startswith(wanted)


def test_doctor_reports_no_problem_if_nothing_is_missing(shell: Shell) -> None:
    Path("orchestra.toml").write_text('fleet = "./fleet.yaml"\n')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Path("fleet.yaml").write_text(LOCAL_ENDPOINT.replace(":9/", f":{listener.getsockname()[1]}/"))
        said = shell("doctor")
    assert said.code == 0
    assert "Everything required is available." in said.out


def test_closed_stdout_is_not_an_error() -> None:
    command = f"{sys.executable} -m orchestra.cli explain | head -n 1; exit ${{PIPESTATUS[0]}}"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}, check=False
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)
    assert done.returncode in (0, 141)


def test_init_endpoint_is_written_into_the_settings(shell: Shell) -> None:
    said = shell("init", "hello", "--endpoint", "http://127.0.0.1:9/v1", "--model", "qwen3:4b")
    assert said.code == 0, said.err
    os.chdir("hello")
    found = shell("config", "show", "--json").json["settings"]
    assert (found["endpoint"]["value"], found["model"]["value"]) == ("http://127.0.0.1:9/v1", "qwen3:4b")


def test_init_invalid_endpoint_writes_nothing(shell: Shell) -> None:
    for options in (("--endpoint", "http://u:p@host/v1"), ("--model", "m")):
        said = shell("init", "hello", *options)
        assert (said.code, "C002" in said.err) == (2, True)
        assert not Path("hello").exists()


def test_init_uses_a_server_that_runs_without_vllm(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_in_thread(ModelServer("ollama", models=("qwen3:4b", "llama3.2:3b"))) as address:
        monkeypatch.setattr(endpoints, "LOCAL_PORTS", {int(address.split(":")[2].split("/")[0]): "Ollama"})
        installed = shell("init", "first")
        monkeypatch.setattr(init_module, "find_spec", lambda _: None)
        chosen = shell("init", "second")
        report = shell("doctor", "--json")
        monkeypatch.setattr(endpoints, "LOCAL_PORTS", {9: "Ollama"})
        none = shell("init", "third")
    assert (f"To use it: --endpoint {address}" in installed.out) == (find_spec("vllm") is not None)
    assert f"Ollama answers at {address} with qwen3:4b, llama3.2:3b. The project uses qwen3:4b" in chosen.out
    assert f'endpoint = "{address}"\nmodel = "qwen3:4b"\n' in Path("second/orchestra.toml").read_text()
    assert "No model server was found on this machine" in none.out
    found = [finding for finding in report.json["findings"] if finding["subject"] == "Ollama"]
    assert [address in finding["message"] for finding in found] == [True]
