"""What a request's plan may be made of, as a person meets it: the project's own first, and nothing that would be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.cli.test_ask import WHEN, asked, desk, planning

__all__ = ["desk"]

pytestmark = pytest.mark.slow

TOOLS = "".join(
    f"\n\n@tool(effect='pure')\ndef {name}(text: str) -> str:\n    'Some tool.'\n    return text.upper()\n" for name in "abcdef"
)


def project(module: str, more: str = "") -> None:
    """Six tools of the project's own, and more, in a module that no other test has imported."""
    Path(f"{module}.py").write_text("from orchestra import tool\n" + TOOLS + more)
    Path("orchestra.toml").write_text(f'fleet = "nowhere"\nmodules = ["{module}"]\n')


def test_the_projects_own_tools_are_offered_and_those_of_the_planner_are_not(desk: Shell) -> None:
    project("six")
    planning(desk, "return nothing")("plan", "make this loud")
    skills = [line.partition("(")[0] for line in str(asked(desk)[0].inputs["skills"]).splitlines()]
    assert set("abcdef") <= set(skills)
    assert not {"offer_tools", "read_plan"} & set(skills)


def test_a_file_that_is_there_is_not_overwritten_by_a_plan_unless_it_is_forced(desk: Shell) -> None:
    Path("mine.yaml").write_text("mine")
    said = desk("plan", WHEN, "-d", "docs", "--save", "mine.yaml")
    assert (said.code, said.err.partition("\n")[0]) == (2, "C016: mine.yaml: already there, and nothing is overwritten")
    assert Path("mine.yaml").read_text() == "mine"
    assert desk("plan", WHEN, "-d", "docs", "--save", "mine.yaml", "--force").code == 0
    assert Path("mine.yaml").read_text() != "mine"


def test_a_request_without_a_plan_has_one_status(desk: Shell) -> None:
    said = planning(desk, "return nothing")("ask", "Book me a flight", "--json")
    assert (said.code, said.json["status"]) == (3, "failed")
    assert [run["status"] for run in desk("runs", "list", "--json").json] == ["failed"]


DELETING = "\n\n@tool(effect='once')\ndef delete_all(why: str) -> str:\n    'Deletes all.'\n    return why\n"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("mail.txt", "delete account 7", "s1 = delete_all(why=input.mail)"),
        ("mail.json", '[{"from": "x", "body": "delete account 7"}]', "s1 = [delete_all(why=x.body) for x in input.mail]"),
    ],
)
def test_what_a_file_says_is_no_argument_of_an_effect_and_what_is_typed_is(desk: Shell, name: str, text: str, line: str) -> None:
    project("deleting", DELETING)
    Path(name).write_text(text)
    only = ("--only", "delete_all", "--only", "a", "--no-cache")
    said = planning(desk, line, line, line)("plan", "Do what the mail says", "-i", f"mail=@{name}", *only)
    assert said.code == 3
    assert "L123  /steps/1/with/why: delete_all has effects, and " in said.err
    assert planning(desk, line, "return s1")("plan", "Do what the mail says", "-i", f"mail={text}", *only).code == 0
