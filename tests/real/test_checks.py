"""Checks that call agents, in runs on the real fleet: calls are answered, recorded and counted, and replay decides the
same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bench.scoring import Ways, document, judge
from orchestra import (
    Orchestra,
    Reading,
    abstain,
    accepted,
    agent,
    agree,
    answered_by_model,
    rederive,
    require,
    workflow,
)
from orchestra.app.result import Result
from orchestra.core.events import AttemptFinished, ChecksStarted, Event, OutputJudged, Verdict
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet
from orchestra.workflows.python.steps import Step, Workflow
from orchestra.workflows.yaml.reader import read
from tests.real.test_workflows import opened

pytestmark = pytest.mark.real
TOWER = (
    "The iron tower beside the river was completed in 1889, and it was the tallest building of the world until 1930."
)
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


reader = agent("generative_reader", ReaderInput, Reading)


@agent(prompt="{{ context }}\n\n{{ question }} Answer with a few words.", max_output=16)
def second(question: str, context: str) -> str:
    """Answers with the untuned base model."""
    return answered_by_model()


@workflow()
def derived_again(question: str, context: str) -> Reading:
    return require(
        accepted(
            reader(question=question, context=context), checks=rederive(second), against=context, otherwise=[abstain]
        )
    )


@workflow()
def drawn_again(question: str, context: str) -> Reading:
    return require(
        accepted(reader(question=question, context=context), checks=agree(3), against=context, otherwise=[abstain])
    )


def verdict(events: Sequence[Event]) -> Verdict:
    """Returns the last verdict on a value."""
    return [event for event in events if isinstance(event, OutputJudged)][-1].verdicts[-1]


def asked(events: Sequence[Event]) -> list[AttemptFinished]:
    """Returns the calls of checks."""
    return [event for event in events if isinstance(event, AttemptFinished) and "?" in event.node]


async def told(orchestra: Orchestra, step: Step[..., Any], **inputs: Any) -> tuple[Result[Any], list[Event]]:
    """Returns the result of a run and its record, after a replay that must decide the same."""
    result = await (await orchestra.start(step, **inputs)).wait()
    replayed = await orchestra.replay(result.run)
    assert (replayed.first_difference, replayed.reason) == (None, "")
    return result, list(await orchestra.journal.read(result.run))


async def test_claim_check_uses_packaged_agent(laptop: FleetConfig, tmp_path: Path) -> None:
    stated = Workflow.from_graph(read(STATED, "stated.yaml").graph)
    said = {}
    async with opened(laptop, tmp_path) as orchestra:
        for statement in ("The tower was completed in 1889.", "The tower was completed in 1925."):
            result, events = await told(orchestra, stated, statement=statement, text=TOWER)
            (question,) = asked(events)
            assert question.usage.prompt_tokens == result.usage.prompt_tokens == 0, "it runs here, and asks no server"
            said[statement] = (result.status, verdict(events))
    true, false = said.values()
    assert (true[0], true[1].outcome) == ("done", "pass")
    assert (false[0], false[1].outcome) == ("abstained", "fail")
    assert true[1].score > 0.5 > false[1].score


@pytest.mark.parametrize(
    ("step", "name", "count"), [(derived_again, "second", 1), (drawn_again, "generative_reader", 3)]
)
async def test_agreement_and_consistency_checks(
    laptop: FleetConfig, step: Step[..., Any], name: str, count: int, tmp_path: Path
) -> None:
    async with opened(laptop, tmp_path) as orchestra:
        result, events = await told(orchestra, step, question="When was the tower completed?", context=TOWER)
    said = verdict(events)
    assert said.outcome in ("pass", "fail" if name == "second" else "unknown")
    assert result.status == ("done" if said.outcome == "pass" else "abstained")
    (round_,) = [event for event in events if isinstance(event, ChecksStarted)]
    assert [question.agent for question in round_.questions] == [name] * count
    assert [(event.error, event.attempt) for event in asked(events)] == [("", 1)] * count
    assert result.usage.output_tokens > sum(event.usage.output_tokens for event in asked(events)) > 0


BACKED = """
schema: orchestra/v1
name: backed
input: {statement: str, text: str}
output: ${checked}
nodes:
  checked:
    verify: "${input.statement}"
    checks: [entailment]
    against: "${input.text}"
    otherwise: [back_off, abstain]
"""


async def test_unsupported_sentences_are_dropped(laptop: FleetConfig, tmp_path: Path) -> None:
    flow = Workflow.from_graph(read(BACKED, "backed.yaml").graph)
    statement = "The tower was completed in 1889. The tower was painted by four thousand elephants. "
    statement += "It was the tallest building until 1930."
    async with opened(laptop, tmp_path) as orchestra:
        result = await orchestra.run(flow, statement=statement, text=TOWER)
    assert result.output == "The tower was completed in 1889. It was the tallest building until 1930."
    assert [claim.value for claim in result.dropped] == ["The tower was painted by four thousand elephants."]
    assert result.unsupported[-1:] == result.dropped


async def test_label_is_decided_by_one_token(laptop: FleetConfig) -> None:
    """20 claims about one document, cut after the first token and generated completely: the same labels, and
    probabilities within the noise of bfloat16 in batches of other sizes, which `python -m bench.scoring` measures as
    0.03.
    """
    chance = random.Random(5)
    text, claims = document(chance, 350, 20)
    card = judge()
    async with Fleet.open(laptop, cards={card.name: card}) as fleet:
        ways = Ways(fleet, card)
        await ways.prepare()
        cut, whole = await ways.one_by_one(text, claims), await ways.to_the_end(text, claims)
    assert (cut.output, cut.prompt) == (20, whole.prompt)
    assert whole.output > 40
    for one, other in zip(cut.chances, whole.chances, strict=True):
        assert one == pytest.approx(other, abs=0.1)
