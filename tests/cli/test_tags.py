"""`--tag`: runs and batches are listed, summed and deleted by tag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallError
from tests.cli.shell import Shell
from tests.cli.stage import GOOD, TEXT, Simulated, furnish


def answered(call: Any) -> Any:
    return CallError(code="F203", reason="no server answers") if call.inputs["question"] == "bad" else GOOD


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    shell.opener = Simulated({"answerer": answered})
    return shell


def ran(shell: Shell, *more: str, question: str = "When?") -> str:
    shell("run", "ask", "-i", f"question={question}", "-i", f"text={TEXT}", *more)
    run: str = shell("runs", "list", "-n", "1", "--json").json[0]["run"]
    return run


def names(shell: Shell, *options: str) -> list[str]:
    return [run["run"] for run in shell("runs", "list", "--json", *options).json]


def test_runs_are_listed_summed_up_and_shown_by_their_tags(shell: Shell) -> None:
    first, second, third = (
        ran(shell, "--tag", "customer=42", "--tag", "kind=mail"),
        ran(shell, "--tag", "customer=7"),
        ran(shell),
    )
    assert names(shell, "--tag", "customer=42") == [first]
    assert names(shell, "--tag", "customer=7", "--tag", "kind=mail") == []
    assert names(shell) == [third, second, first]
    assert shell("runs", "list", "--json").json[2]["tags"] == {"customer": "42", "kind": "mail"}
    table = shell("runs", "list").out.splitlines()
    assert [row.split()[-1] for row in table] == ["tags", table[1].split()[-1], "customer=7", "kind=mail"]
    assert "customer=42 kind=mail" in shell("runs", "show", first).out.splitlines()[0]
    assert shell("runs", "show", first, "--json").json["tags"] == {"customer": "42", "kind": "mail"}
    costs = shell("runs", "costs", "--by", "tag:customer", "--json").json
    assert {row["tag:customer"]: row["runs"] for row in costs["rows"]} == {"42": 1, "7": 1, "": 1}
    text = shell("runs", "costs", "--by", "tag:customer").out
    assert (text.split()[0], "no customer" in text) == ("customer", True)
    assert shell("runs", "costs", "--tag", "customer=7", "--json").json["total"]["runs"] == 1


def test_all_runs_of_a_customer_are_deleted(shell: Shell) -> None:
    ran(shell, "--tag", "customer=42")
    other = ran(shell, "--tag", "customer=7")
    shell("runs", "fork", ran(shell, "--tag", "customer=42"))
    assert shell("runs", "delete", "--tag", "customer=42", "--yes", "--json").json["deleted"] == 3
    assert names(shell) == [other]
    assert shell("runs", "delete", "--tag", "customer=42", "--yes").err.startswith("C018")
    assert shell("runs", "delete", "--yes").err.startswith("C010")


def test_the_rows_of_a_batch_have_its_tags(shell: Shell) -> None:
    rows = [{"id": str(number), "input": {"question": "When?", "text": TEXT}} for number in range(2)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert shell("batch", "ask", "-i", "rows.jsonl", "-o", "out.jsonl", "--tag", "customer=42").code == 0
    assert len(names(shell, "--tag", "customer=42")) == 2


def test_last_nights_failures_are_listed_with_their_code_and_node(shell: Shell) -> None:
    bad, good = ran(shell, question="bad"), ran(shell)
    found = shell(
        "runs", "list", "--status", "failed,waiting", "--status", "interrupted", "--since", "1h", "--json"
    ).json
    assert [(run["run"], run["error"]["code"], run["error"]["node"]) for run in found] == [(bad, "F203", "reading")]
    assert "no server answers" in found[0]["error"]["message"]
    assert shell("runs", "list", "--json").json[0]["error"] is None
    assert names(shell, "--until", "1h") == []
    assert names(shell, "--before", good) == [bad]
    assert names(shell, "-n", "20000") == [good, bad]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--status", "failed,hapy"), "C010"),
        (("--since", "soon"), "C010"),
        (("--since", "1h", "--until", "2h"), "C010"),
        (("--before", "zz"), "C018"),
        (("--tag", "customer"), "E040"),
    ],
)
def test_list_with_invalid_filters_is_refused(shell: Shell, options: tuple[str, ...], code: str) -> None:
    ran(shell)
    said = shell("runs", "list", *options)
    assert (said.code, said.err[:4]) == (2, code)


@pytest.mark.parametrize(
    "command", [("run", "ask"), ("ask", "When?"), ("batch", "ask", "-i", "rows.jsonl", "-o", "out.jsonl")]
)
def test_invalid_tag_starts_no_run(shell: Shell, command: tuple[str, ...]) -> None:
    Path("rows.jsonl").write_text('{"id": "1", "input": {}}\n')
    said = shell(*command, "--tag", "customer")
    assert (said.code, said.err[:4]) == (2, "E040")
    assert names(shell) == []
