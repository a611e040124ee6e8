"""Verdicts of all checks of a combination on answers outside of a workflow, including checks that call agents.

The answer is produced first, without checks. Then the checks run, and their calls are concurrent runs of the ordinary
engine.
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

NOT_ASKED_REASON = "no agent was called"


class SamplingRunStarter(RunStarter, Protocol):
    """Starts runs, and runs with samples: an `Orchestra`."""

    def options(self, *, sample: int | None = None) -> RunStarter:
        """Returns the same starter with this sample number for its runs."""


def build_situation(
    card: Card,
    checks: tuple[str, ...],
    inputs: Mapping[str, Any],
    output: Any,
    confidence: float | None,
    combination: Combination | None = None,
) -> VerificationRequest:
    """Returns the situation that the engine would verify an agent's answer in, for rows without other evidence."""
    has_evidence = card.evidence and not (EVIDENCE_CHECKS | {TOOL}).isdisjoint(check_names(checks))
    evidence = collect_sources(inputs.get(card.evidence or "")) if has_evidence else ()
    return VerificationRequest(
        value=output,
        schema=card.output_schema,
        evidence=evidence or collect_sources(inputs),
        checks=checks,
        confidence=confidence,
        combination=combination,
    )


def without_checks(card: Card) -> Card:
    """Returns the card without checks, to produce answers only."""
    return card.with_settings(checks=(), accept=None, otherwise=())


def plain_output(card: Card, output: Mapping[str, Any]) -> Any:
    """Returns the plain output of an agent from a record; the inverse of `evaluation.rows.as_record`."""
    return (
        output
        if card.output_schema.get("type") == "object" or "properties" in card.output_schema
        else output.get(WHOLE_OUTPUT, output)
    )


async def run_checks(
    runs: SamplingRunStarter | None,
    card: Card,
    situations: Sequence[tuple[VerificationRequest, Mapping[str, Any]]],
    steps: Mapping[str, Step[..., Any]],
    judges: Mapping[str, Contract],
    concurrency: int,
    on_run_end: Callable[[], None] = lambda: None,
) -> list[VerificationResult]:
    """Runs all checks on answers at any score and returns the verdicts.

    A failed call leaves its check `unknown`; without `runs` every check that needs a call is `unknown`.

    Args:
        steps: The agents for the contracts in `judges`.

    Raises:
        FleetError: No server is available.
    """
    verification_requests = [
        msgspec.structs.replace(request, accept=0.0, producer=card.contract, inputs=inputs, judges=judges)
        for request, inputs in situations
    ]
    sessions = [session.start(request) for request in verification_requests]
    while open_ := {at: state for at, state in enumerate(sessions) if isinstance(state, ChecksPending)}:
        if runs is None:
            sessions = [
                session.finish_without_asking(verification_requests[at], state, NOT_ASKED_REASON)
                if isinstance(state, ChecksPending)
                else state
                for at, state in enumerate(sessions)
            ]
            continue
        replies = await _ask_questions(
            runs, card, {at: pending.questions for at, pending in open_.items()}, steps, concurrency, on_run_end
        )
        for at, pending in open_.items():
            sessions[at] = session.advance(verification_requests[at], pending, replies[at])
    return [state for state in sessions if isinstance(state, VerificationResult)]


async def _ask_questions(
    runs: SamplingRunStarter,
    card: Card,
    questions: Mapping[int, Sequence[CheckQuestion]],
    steps: Mapping[str, Step[..., Any]],
    concurrency: int,
    on_run_end: Callable[[], None],
) -> dict[int, list[JudgeReply]]:
    """Returns the results of the check calls of each row."""
    groups: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for row, row_questions in questions.items():
        for place, question in enumerate(row_questions):
            groups[question.agent, question.sample].append((row, place))
    replies: dict[int, list[JudgeReply]] = {
        row: [JudgeReply()] * len(row_questions) for row, row_questions in questions.items()
    }
    checkless_agent = Agent.from_card(without_checks(card))
    for (agent, sample), places in groups.items():
        step = checkless_agent if sample else steps[agent]
        inputs = [questions[row][place].inputs for row, place in places]
        sample_runs = runs.options(sample=sample) if sample else runs
        for (row, place), result in zip(
            places, await run_agent.run_all(sample_runs, step, inputs, concurrency, on_run_end), strict=True
        ):
            replies[row][place] = _reply(result)
    return replies


def _reply(result: Result[Any]) -> JudgeReply:
    error = result.error
    return JudgeReply(result.value) if error is None else JudgeReply(error=f"{error.code} {error.message}")
