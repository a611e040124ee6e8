"""Evaluation of an agent through the served model, with its baselines, its untuned base, and a candidate.

All arms answer the same rows. A withheld row counts as a row without an answer, which is correct if none is expected. A
failed row is never correct.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

from orchestra.agents.card import Card
from orchestra.agents.card_file import KINDS_WITH_ARRAYS
from orchestra.app.result import Result
from orchestra.core.outcomes import FailedOutcome
from orchestra.learn import run_agent
from orchestra.learn.evaluation.baselines import fit_baselines
from orchestra.learn.evaluation.bootstrap import IntervalEstimate, estimate_interval
from orchestra.learn.evaluation.metrics import Case, Metric
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet, as_record
from orchestra.learn.run_agent import RunStarter
from orchestra.workflows.python.steps import Step

ProgressCallback: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of the arm, the number of answered rows, and the number of all rows."""
INCUMBENT, UNTUNED, CANDIDATE = "as it is", "its untuned base", "the candidate"
ANSWERED = "answered"
"""The column with the share of answered rows."""
EVALUATION_PURPOSE = "evaluation"
"""The purpose recorded in the runs of an evaluation: their rows are excluded from training."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to answer, with its answers in the order of the rows."""

    name: str
    cases: Sequence[Case]
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    failed: int = 0
    reason: str = ""
    """The reason of the first failure."""

    @property
    def answer_rate(self) -> float:
        """Returns the share of rows with an answer."""
        return sum(case.output is not None for case in self.cases) / max(1, len(self.cases))


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """The results of an evaluation."""

    agent: str
    test: str
    rows: int
    metrics: Sequence[str]
    arms: Sequence[tuple[Arm, Sequence[IntervalEstimate]]]
    groups: int = 0
    """Number of groups of rows; 0 if not counted."""

    def estimates(self, arm: str) -> Mapping[str, IntervalEstimate]:
        """Returns the results of an arm by metric name."""
        return next(
            dict(zip(self.metrics, figures, strict=True)) for scored_arm, figures in self.arms if scored_arm.name == arm
        )

    def markdown(self) -> str:
        """Returns the results as a Markdown table, with 95 % intervals and their method."""
        head = ["", *self.metrics, ANSWERED, "tokens in, out a row"]
        lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for arm, figures in self.arms:
            rows = max(1, len(arm.cases))
            token_text = f"{arm.prompt_tokens / rows:.0f}, {arm.output_tokens / rows:.0f}" if arm.prompt_tokens else "-"
            name = arm.name if len(arm.cases) == self.rows else f"{arm.name}, {len(arm.cases)} rows"
            lines.append(f"| {' | '.join([name, *map(str, figures), f'{arm.answer_rate:.3f}', token_text])} |")
        return "\n".join([*lines, "", caption(self.rows, self.groups)])

    def as_data(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "agent": self.agent,
            "test": self.test,
            "rows": self.rows,
            "groups": self.groups,
            "arms": [
                {
                    "arm": arm.name,
                    "rows": len(arm.cases),
                    "metrics": {
                        name: {"value": figure.value, "low": figure.low, "high": figure.high}
                        if figure.value == figure.value
                        else None
                        for name, figure in zip(self.metrics, figures, strict=True)
                    },
                    ANSWERED: arm.answer_rate,
                    "failed": arm.failed,
                    "prompt_tokens": arm.prompt_tokens,
                    "output_tokens": arm.output_tokens,
                    "seconds": round(arm.seconds, 3),
                }
                for arm, figures in self.arms
            ],
        }


def caption(rows: int, groups: int) -> str:
    """Returns how the intervals of a table were computed."""
    together = f", those of each of {groups:,} groups together" if 0 < groups < rows else ""
    return (
        f"95 % intervals: by drawing the rows anew{together}; "
        "exact (Clopper and Pearson) for shares whose draws reach 0 or 1."
    )


def build_report(
    name: str, test: EvaluationSet, metrics: Sequence[Metric], arms: Sequence[Arm], seed: int = 0
) -> EvaluationReport:
    """Computes the results of some arms on a test of an agent or workflow."""
    estimates_by_arm = [(arm, [estimate_interval(metric, arm.cases, seed=seed) for metric in metrics]) for arm in arms]
    return EvaluationReport(
        name, test.name, len(test.rows), [metric.name for metric in metrics], estimates_by_arm, test.group_count
    )


def answer_rate_interval(arm: Arm, seed: int = 0) -> IntervalEstimate:
    """Returns the share of an arm's rows with an answer, with its interval."""
    metric = Metric(
        ANSWERED,
        lambda case: (float(case.output is not None), 1.0),
        lambda parts: fmean(part[0] for part in parts),
        is_proportion=True,
    )
    return estimate_interval(metric, arm.cases, seed=seed)


def sample_rows(test: EvaluationSet, rows: int, seed: int) -> EvaluationSet:
    """Returns a sample of at most that many rows, drawn by the seed, in the order of the file."""
    if not rows or rows >= len(test.rows):
        return test
    row_indexes = sorted(random.Random(seed).sample(range(len(test.rows)), rows))  # noqa: S311 - a draw, not a secret
    name = f"{test.name}, {rows} of {len(test.rows)} rows, seed {seed}"
    return replace(test, name=name, rows=[test.rows[at] for at in row_indexes])


def card_without_adapter(card: Card) -> Card:
    """Returns the card without its adapter and without its calibration. Its prompt is that of training, so that the
    difference is that of the adapter alone.
    """
    return card.with_settings(name=f"{card.name}_untuned", adapter=None, calibration=None, untuned=None)


def candidate_card(card: Card, folder: Path) -> Card:
    """Returns the card with the adapter, or the arrays, of a candidate's folder. A calibration is dropped with the
    adapter that it was fitted for.

    Raises:
        InputError: A004 if the folder cannot be read.
    """
    if card.kind in KINDS_WITH_ARRAYS:
        return card.with_settings(name=f"{card.name}_candidate", folder=folder.resolve())
    return card.with_settings(
        name=f"{card.name}_candidate",
        adapter=folder.name,
        elsewhere=None,
        untuned=None,
        calibration=None,
        folder=folder.resolve().parent,
    )


def baseline_arms(test: EvaluationSet) -> list[Arm]:
    """Returns the answers of the baselines."""
    return [
        Arm(floor.name, [Case(row.expected, as_record(floor(row.input)), group=row.group) for row in test.rows])
        for floor in fit_baselines(test.reference_rows)
    ]


async def evaluate_arm(
    runs: RunStarter,
    name: str,
    step: Step[..., Any],
    test: EvaluationSet,
    concurrency: int,
    on_progress: ProgressCallback = lambda *_: None,
) -> Arm:
    """Returns the answers of an agent or workflow, with a limit on concurrent runs.

    Raises:
        FleetError: No server is available.
    """
    done_count, start_time = 0, time.monotonic()

    def count_row() -> None:
        nonlocal done_count
        done_count += 1
        on_progress(name, done_count, len(test.rows))

    results = await run_agent.run_all(runs, step, [question.input for question in test.rows], concurrency, count_row)
    cases = [_case(question, result) for question, result in zip(test.rows, results, strict=True)]
    reasons = [result.outcome.reason for result in results if isinstance(result.outcome, FailedOutcome)]
    return Arm(
        name,
        cases,
        sum(result.usage.prompt_tokens for result in results),
        sum(result.usage.output_tokens for result in results),
        time.monotonic() - start_time,
        len(reasons),
        next(iter(reasons), ""),
    )


def _case(question: EvaluationRow, result: Result[Any]) -> Case:
    output = None if result.status != "done" else as_record(result.value)
    return Case(question.expected, output, result.confidence, isinstance(result.outcome, FailedOutcome), question.group)
