"""What a request may be planned with: what is harmless, and each skill once."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.app import Orchestra
from orchestra.config import Settings
from orchestra.planning import offer_of

CARD = """\
schema: orchestra/v1
name: {name}
description: Answers from a text.
input: {{question: str, context: str}}
output: {{answer: str}}
{more}
"""


@pytest.mark.parametrize(
    ("named", "offered"), [("", {"first", "second"}), ("alternative_to: first", {"first"}), ("alternative_to: gone", {"first", "second"})]
)
async def test_a_router_is_not_offered_an_agent_beside_the_one_that_it_is_an_alternative_to(
    tmp_path: Path, named: str, offered: set[str]
) -> None:
    (tmp_path / "orchestra.toml").write_text("")
    for name, more in (("first", ""), ("second", named)):
        folder = tmp_path / "agents" / name
        folder.mkdir(parents=True)
        (folder / "agent.yaml").write_text(CARD.format(name=name, more=more))
        (folder / "prompt.md").write_text("{{ question }} {{ context }}")
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path, environ={}), fleet="off") as orchestra:
        found = offer_of(orchestra, "When was it built?", {"context": "In 1889."}).skills
        assert found.keys() & {"first", "second"} == offered
        assert orchestra.find("second").name == "second"
