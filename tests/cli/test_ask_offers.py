"""What a request's plan may be made of, as a person meets it: the project's own first, and nothing that would be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.cli.test_ask import WHEN, asked, desk, planning

__all__ = ["desk"]

pytestmark = pytest.mark.slow

TOOLS = "".join(f"\n\n@tool(effect='pure')\ndef {name}(text: str) -> str:\n    'Some tool.'\n    return text.upper()\n" for name in "abcdef")


def project(*more: str) -> None:
    """Six tools of the project's own."""
    Path("mine.py").write_text("from orchestra import tool\n" + TOOLS + "".join(more))
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["mine"]\n')


def test_the_projects_own_tools_are_offered_and_those_of_the_planner_are_not(desk: Shell) -> None:
    project()
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
