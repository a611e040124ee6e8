"""An agent with tools on the real vLLM: the base model, constrained by the grammar, reaches a typed end within its
limits.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from orchestra import Orchestra, agent, answered_by_model, tool
from orchestra.agents.card_file import ToolLimits
from orchestra.core.events import AttemptFinished
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.settings import Settings
from orchestra.engine.replay import replay
from orchestra.fleet.config import FleetConfig

pytestmark = pytest.mark.real
HEIGHTS = {"Eiffel Tower": 330, "Tokyo Tower": 333}
LIMITS = ToolLimits(steps=2, width=2, repairs=1)


class Height(BaseModel):
    tower: str
    metres: int


@tool(effect="pure")
def height_of(tower: str) -> int:
    """Returns the height of a tower in metres; 0 for an unknown one."""
    return HEIGHTS.get(tower, 0)


@agent(prompt="{{ question }}", tools=[height_of], limits=LIMITS, max_output=80)
def guide(question: str) -> Height:
    """Answers questions about towers."""
    return answered_by_model()


@pytest.mark.parametrize(
    "question", ["How high is the Eiffel Tower?", "Which tower is higher, the Eiffel Tower or the Tokyo Tower?"]
)
async def test_tool_agent_ends_within_limits(laptop: FleetConfig, question: str, tmp_path: Path) -> None:
    settings = Settings.load({"fleet": laptop.name, "journal": str(tmp_path / "journal.db")}, start=tmp_path)
    async with Orchestra.open(settings, fleet="adopt") as orchestra:
        run = await orchestra.start(guide, question=question)
        result = await run.wait()
        events = await orchestra.journal.read(run.id)
        found = replay(orchestra.program(guide), events)
    ended = [event for event in events if isinstance(event, AttemptFinished)]
    asked = [event for event in ended if event.server and not event.error]
    used = [event for event in ended if not event.server and not event.error]
    assert len(used) <= LIMITS.steps * LIMITS.width
    assert 1 <= len(asked) <= LIMITS.steps + LIMITS.repairs + 2  # lines, rejected lines, and the answer
    assert (found.first_difference, found.reason) == (None, "")
    match result.outcome:
        case ValueOutcome(value):
            assert Height.model_validate(value)
        case FailedOutcome(code, reason):
            assert code == "A022", reason
        case other:
            raise AssertionError(other)
