"""Tests of the workflow `headlines` without a model. Run `pytest` in the folder of this example."""

from __future__ import annotations

import pytest

from orchestra.core.protocols import CallRequest
from orchestra.testing import CassetteOrchestra, Faults, SimulatedOrchestra, answer_sequence

MESSAGES = ["The lift is out of order again. I live on the fifth floor.", "Thank you for the quick repair!"]


def honest(call: CallRequest) -> dict[str, str]:
    """A headline agent that quotes the first sentence of its message."""
    return {"headline": "A headline", "quote": call.inputs["message"].split(". ")[0]}


async def test_every_message_gets_a_headline(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers({"headline": honest}, latency=2.0)
    result = await simulated.run(simulated.find("headlines"), messages=MESSAGES)
    assert [found["quote"] for found in result.output] == [
        "The lift is out of order again",
        "Thank you for the quick repair!",
    ]
    assert simulated.workers.max_in_flight == len(MESSAGES)  # concurrent calls of two simulated seconds


async def test_an_invented_quote_is_asked_for_again(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers(
        {"headline": answer_sequence({"headline": "No lift", "quote": "The stairs are closed"}, honest)}
    )
    result = await simulated.run(simulated.find("headlines"), messages=MESSAGES[:1])
    assert len(result.output) == 1
    assert [call.attempt for call in simulated.workers.calls] == [1, 2]


@pytest.mark.seeds(50)
async def test_whatever_the_fleet_does_a_headline_has_a_true_quote(simulated: SimulatedOrchestra) -> None:
    simulated.set_random_answers(latency=(0.1, 30), faults=Faults(refused=0.2, stall=0.1, invalid=0.1))
    result = await (await simulated.start(simulated.find("headlines"), messages=MESSAGES)).wait()
    assert result.status in ("done", "failed", "budget")
    assert all(any(found["quote"] in message for message in MESSAGES) for found in result.value or [])


async def test_what_the_model_made_of_these_messages(cassette: CassetteOrchestra) -> None:
    result = await cassette.run(cassette.find("headlines"), messages=MESSAGES)
    assert "lift" in result.output[0]["headline"].lower()
