"""What a request's plan may be made of, as a person meets it: the project's own first, and nothing that would be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.cli.test_ask import asked, desk, planning

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
