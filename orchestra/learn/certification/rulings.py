"""Rulings on answers outside of a workflow, where a combination weighs the checks: what all of these say, those that ask agents too.

An answer is had first, without checks; then the checks speak, and their questions go out by runs of the ordinary engine, many at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.app.result import Result
from orchestra.core.events import CheckQuestion
from orchestra.core.protocols import collect_sources
from orchestra.learn import run_agent
from orchestra.learn.evaluation.metrics import WHOLE_OUTPUT
from orchestra.learn.run_agent import RunStarter
from orchestra.verification import session
from orchestra.verification.acceptance import VerificationRequest, VerificationResult, check_names
from orchestra.verification.certificates.combination import Combination
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.entailment import JudgeReply
from orchestra.verification.session import ChecksPending
from orchestra.workflows.compile.checks import EVIDENCE_CHECKS
from orchestra.workflows.python.steps import Agent, Step

NOT_ASKED_REASON = "no agent was asked"


class SamplingRunStarter(RunStarter, Protocol):
    """What carries out runs, and samples: an `Orchestra`."""

    def options(self, *, sample: int | None = None) -> RunStarter: ...


def build_situation(
    card: Card,
    checks: tuple[str, ...],
    inputs: Mapping[str, Any],
    output: Any,
    confidence: float | None,
    combination: Combination | None = None,
) -> VerificationRequest:
    """What the engine would hold an answer of an agent against, on rows that name no other evidence."""
    quoted = card.evidence and not (EVIDENCE_CHECKS | {TOOL}).isdisjoint(check_names(checks))
    evidence = collect_sources(inputs.get(card.evidence or "")) if quoted else ()
    return VerificationRequest(
        value=output,
        schema=card.output_schema,
        evidence=evidence or collect_sources(inputs),
        checks=checks,
        confidence=confidence,
        combination=combination,
    )


def without_checks(card: Card) -> Card:
    """The card as it is asked for an answer alone."""
    return card.with_settings(checks=(), accept=None, otherwise=())


def plain_output(card: Card, output: Mapping[str, Any]) -> Any:
    """An output of the agent as it is, of one by fields: see `orchestra.learn.evaluation.rows.as_record`."""
    return output if card.output_schema.get("type") == "object" or "properties" in card.output_schema else output.get(WHOLE_OUTPUT, output)


async def run_checks(
    runs: SamplingRunStarter | None,
    card: Card,
    situations: Sequence[tuple[VerificationRequest, Mapping[str, Any]]],
    steps: Mapping[str, Step[..., Any]],
    judges: Mapping[str, Contract],
    concurrency: int,
    on_run_end: Callable[[], None] = lambda: None,
) -> list[VerificationResult]:
    """The rulings on answers of an agent, each with its inputs, whatever their score. A question that fails leaves its check `unknown`, and
    so does every one where there are no `runs`. `steps` are the agents that `judges` are the contracts of. Raises `FleetError` where no
    server can be had."""
    whole = [msgspec.structs.replace(one, accept=0.0, producer=card.contract, inputs=inputs, judges=judges) for one, inputs in situations]
    stands = [session.start(one) for one in whole]
    while open_ := {at: one for at, one in enumerate(stands) if isinstance(one, ChecksPending)}:
        if runs is None:
            stands = [
                session.finish_without_asking(whole[at], one, NOT_ASKED_REASON) if isinstance(one, ChecksPending) else one
                for at, one in enumerate(stands)
            ]
            continue
        replies = await _ask_questions(runs, card, {at: one.questions for at, one in open_.items()}, steps, concurrency, on_run_end)
        for at, one in open_.items():
            stands[at] = session.advance(whole[at], one, replies[at])
    return [one for one in stands if isinstance(one, VerificationResult)]


async def _ask_questions(
    runs: SamplingRunStarter,
    card: Card,
    questions: Mapping[int, Sequence[CheckQuestion]],
    steps: Mapping[str, Step[..., Any]],
    concurrency: int,
    on_run_end: Callable[[], None],
) -> dict[int, list[JudgeReply]]:
    """What came of the questions of each row."""
    groups: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for row, asked in questions.items():
        for place, one in enumerate(asked):
            groups[one.agent, one.sample].append((row, place))
    found: dict[int, list[JudgeReply]] = {row: [JudgeReply()] * len(asked) for row, asked in questions.items()}
    own = Agent.from_card(without_checks(card))
    for (agent, sample), places in groups.items():
        step = own if sample else steps[agent]
        inputs = [questions[row][place].inputs for row, place in places]
        these = runs.options(sample=sample) if sample else runs
        for (row, place), result in zip(places, await run_agent.run_all(these, step, inputs, concurrency, on_run_end), strict=True):
            found[row][place] = _reply(result)
    return found


def _reply(result: Result[Any]) -> JudgeReply:
    error = result.error
    return JudgeReply(result.value) if error is None else JudgeReply(error=f"{error.code} {error.message}")
