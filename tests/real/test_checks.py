"""Checks that ask agents, as nodes of runs on the real fleet: what they ask is answered, recorded, counted, and decides the same again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bench.scoring import Ways, document
from orchestra import Orchestra, Reading, accepted, agent, agree, by_model, quote, rederive, workflow
from orchestra.agent.card import Card
from orchestra.events import AttemptFinished, ChecksStarted, Event, Judged, Verdict
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet
from orchestra.result import Result
from orchestra.workflow.reader import read
from orchestra.workflow.steps import Step, Workflow
from tests.real.test_workflows import opened

pytestmark = pytest.mark.real
TOWER = "The iron tower beside the river was completed in 1889, and it was the tallest building of the world until 1930."
STATED = """
schema: orchestra/v1
name: stated
input: {statement: str, text: str}
output: ${checked}
nodes:
  checked: {verify: "${input.statement}", checks: [entailment], against: "${input.text}", otherwise: [abstain]}
"""


class ReaderInput(BaseModel):
    question: str
    context: str


reader = agent("reader", ReaderInput, Reading)


@agent(prompt="{{ context }}\n\n{{ question }} Answer with a few words.", max_output=16)
def second(question: str, context: str) -> str:
    """Answers by the untuned base, in words of its own."""
    return by_model()


@workflow()
def twice(question: str, context: str) -> Reading:
    return accepted(reader(question=question, context=context), checks=quote & (rederive(second) | agree(3)), against=context)


def verdict(events: Sequence[Event]) -> Verdict:
    """The last that was said of a value."""
    return [event for event in events if isinstance(event, Judged)][-1].verdicts[-1]


def asked(events: Sequence[Event]) -> list[AttemptFinished]:
    """The calls that checks made."""
    return [event for event in events if isinstance(event, AttemptFinished) and "?" in event.node]


async def told(orchestra: Orchestra, step: Step[..., Any], **inputs: Any) -> tuple[Result[Any], list[Event]]:
    """What a run came to, and its record, which decides the same today."""
    result = await (await orchestra.start(step, **inputs)).wait()
    replayed = await orchestra.replay(result.run)
    assert (replayed.different, replayed.reason) == (None, "")
    return result, list(await orchestra.journal.read(result.run))


async def test_a_claim_is_judged_by_the_shipped_agent(laptop: FleetConfig, tmp_path: Path) -> None:
    stated = Workflow.of(read(STATED, "stated.yaml").graph)
    said = {}
    async with opened(laptop, tmp_path) as orchestra:
        for statement in ("The tower was completed in 1889.", "The tower was completed in 1925."):
            result, events = await told(orchestra, stated, statement=statement, text=TOWER)
            (question,) = asked(events)
            assert question.usage.prompt_tokens > 0
            assert result.usage.output_tokens == question.usage.output_tokens > 0
            said[statement] = (result.status, verdict(events))
    true, false = said.values()
    assert (true[0], true[1].outcome) == ("done", "pass")
    assert (false[0], false[1].outcome) == ("abstained", "fail")
    assert true[1].score > 0.5 > false[1].score


async def test_a_reading_is_derived_again_and_where_that_differs_drawn_again(laptop: FleetConfig, tmp_path: Path) -> None:
    async with opened(laptop, tmp_path) as orchestra:
        result, events = await told(orchestra, twice, question="When was the tower completed?", context=TOWER)
    said = verdict(events)
    assert [part.check for part in said.parts][:1] == ["rederive(second)"]
    derived = said.parts[0]
    assert derived.outcome in ("pass", "fail")
    rounds = [event for event in events if isinstance(event, ChecksStarted)]
    assert len(rounds) == (1 if derived.outcome == "pass" else 2)
    assert len(asked(events)) == (1 if derived.outcome == "pass" else 4)
    assert all(event.error == "" for event in asked(events))
    if derived.outcome == "fail":
        assert said.parts[1].check == "agree(3)"
    assert result.status == ("done" if said.outcome == "pass" else "abstained")


BACKED = """
schema: orchestra/v1
name: backed
input: {statement: str, text: str}
output: ${checked}
nodes:
  checked: {verify: "${input.statement}", checks: [entailment], against: "${input.text}", otherwise: [back_off, abstain]}
"""


async def test_sentences_that_the_evidence_does_not_bear_out_are_dropped(laptop: FleetConfig, tmp_path: Path) -> None:
    flow = Workflow.of(read(BACKED, "backed.yaml").graph)
    statement = "The tower was completed in 1889. The tower was painted by four thousand elephants. It was the tallest building until 1930."
    async with opened(laptop, tmp_path) as orchestra:
        result = await orchestra.run(flow, statement=statement, text=TOWER)
    assert result.output == "The tower was completed in 1889. It was the tallest building until 1930."
    assert [claim.value for claim in result.dropped] == ["The tower was painted by four thousand elephants."]
    assert result.unsupported[-1:] == result.dropped


async def test_one_token_tells_what_the_whole_label_did(laptop: FleetConfig) -> None:
    """20 claims beside one document, cut after the first token and written to their end: the same labels, and probabilities within the
    noise of bfloat16 in batches of other sizes, which `python -m bench.scoring` puts at 0.07."""
    chance = random.Random(5)
    text, claims = document(chance, 350, 20)
    card = Card.load(Path(__file__).parents[2] / "agents" / "entailment").varied(calibration=None)
    async with Fleet.open(laptop, cards={card.name: card}) as fleet:
        ways = Ways(fleet, card)
        await ways.prepare()
        cut, whole = await ways.one_by_one(text, claims), await ways.to_the_end(text, claims)
    assert (cut.output, cut.prompt) == (20, whole.prompt)
    assert whole.output > 40
    for one, other in zip(cut.chances, whole.chances, strict=True):
        assert one == pytest.approx(other, abs=0.1)
