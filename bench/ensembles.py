"""The value of an ensemble: its members, their pooled answers, and pooling only if the first is not confident enough.

    python -m bench.ensembles AGENT ROWS [--keep FOLDER] [--fleet NAME]

AGENT is an ensemble; the first metric of its `evaluation.yaml` decides about correctness. The members are called
without checks, by ordinary runs, and pooled by the product's code; answers in FOLDER are reused. Uses the fleet, which
it starts or adopts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.risk import Curve
from orchestra import Orchestra
from orchestra.agents.card import Card
from orchestra.agents.ensemble_voting import AnswerKey, EnsembleAnswer, identity, pool_answers
from orchestra.app.project import Project
from orchestra.core.settings import Settings
from orchestra.learn import run_agent
from orchestra.learn.evaluation.metrics import Case, Metric
from orchestra.learn.evaluation.rows import EvaluationSet, as_record, metrics_for, read_evaluation_set
from orchestra.workflows.python.steps import Agent

ENOUGH = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
LAST = (0.5, 0.7, 1.0, 1.3, 1.5, 2.0)
HEAD = "| answers | {metric} | wrong of the surer half | AURC | members asked a row |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Way:
    """One way to answer all rows."""

    name: str
    answers: Sequence[EnsembleAnswer]
    asked: float
    """Mean number of called members per row."""


def ways(
    members: Sequence[str],
    rows: Sequence[Sequence[EnsembleAnswer]],
    weights: Sequence[float] = (),
    told: AnswerKey = identity,
) -> list[Way]:
    """Returns each member alone; all of them pooled, with a weight of the last one; and sequentially with the card's
    own weights until an answer is probable enough.

    Args:
        rows: The members' answers by row.
        told: The part of an answer that is compared.  # prose: ok
    """
    found = [Way(name, [row[at] for row in rows], 1.0) for at, name in enumerate(members)]
    for last in LAST:
        counts = [1.0] * (len(members) - 1) + [last]
        found.append(
            Way(
                f"pooled, the last counts {last:g}",
                [pool_answers(row, counts, told) for row in rows],
                float(len(members)),
            )
        )
    for enough in ENOUGH:
        taken = [until(row, enough, weights, told) for row in rows]
        asked = sum(map(len, taken)) / len(taken)
        found.append(Way(f"pooled, enough: {enough:g}", [pool_answers(row, weights, told) for row in taken], asked))
    return found


def until(
    row: Sequence[EnsembleAnswer], enough: float, weights: Sequence[float] = (), told: AnswerKey = identity
) -> Sequence[EnsembleAnswer]:
    """Returns the answers that are needed, in order, until the pooled answer is confident enough."""
    for count in range(1, len(row)):
        if (pool_answers(row[:count], weights, told).confidence or 0.0) >= enough:
            return row[:count]
    return row


def line(way: Way, test: EvaluationSet, metric: Metric) -> str:
    """Returns a row of the table."""
    cases = [
        Case(one.expected, as_record(answer.value), group=one.group)
        for one, answer in zip(test.rows, way.answers, strict=True)
    ]
    right = [metric.compute([case]) >= 1 for case in cases]
    curve = Curve.of(right, [answer.confidence for answer in way.answers])
    return (
        f"| {way.name} | {metric.compute(cases):.3f} | {2 * curve.errors(0.5):.3f} | {curve.area():.3f} | "
        f"{way.asked:.2f} |"
    )


def oracle(rows: Sequence[Sequence[EnsembleAnswer]], test: EvaluationSet, metric: Metric) -> float:
    """Returns the share of rows that at least one member answers correctly."""
    some = [
        any(metric.compute([Case(question.expected, as_record(answer.value))]) >= 1 for answer in row)
        for question, row in zip(test.rows, rows, strict=True)
    ]
    return sum(some) / len(some)


async def answers(card: Card, test: EvaluationSet, keep: Path | None, fleet: str | None) -> list[list[EnsembleAnswer]]:
    """Returns the members' answers by row; a failed one is no answer with probability 0."""
    columns: list[list[EnsembleAnswer]] = []
    settings = Settings.load({"journal": "off", **({"fleet": fleet} if fleet else {})})
    async with Orchestra.open(settings) as orchestra:
        for part in card.member_cards:
            file = keep / f"{part.name}-{part.digest[:8]}-{test.digest[:8]}.json" if keep is not None else None
            if file is None or not file.is_file():
                step = Agent.from_card(part.with_settings(checks=(), otherwise=(), accept=None))
                inputs = [question.input for question in test.rows]
                found = await run_agent.run_all(orchestra, step, inputs, settings.concurrency, lambda: None)
                column = [
                    EnsembleAnswer(result.value, result.confidence if result.value is not None else 0.0)
                    for result in found
                ]
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(json.dumps([[answer.value, answer.confidence] for answer in column]), "utf-8")
            else:
                column = [EnsembleAnswer(*one) for one in json.loads(file.read_text("utf-8"))]
            columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder in which the members' answers are stored")
    parser.add_argument("--fleet")
    given = parser.parse_args()
    card = Project.load(Settings.load()).registry.card(given.agent)
    if not card.member_cards:
        parser.error(f"{given.agent} is no ensemble")
    test, metric = read_evaluation_set(given.rows), metrics_for(card)[0]
    rows = asyncio.run(answers(card, test, given.keep, given.fleet))
    print(HEAD.format(metric=metric.name))
    for way in ways(card.members, rows, card.weights, card.member_cards[0].output_form.comparison_key):
        print(line(way, test, metric))
    print(f"\n{len(rows)} rows; some member is right in {oracle(rows, test, metric):.3f}")


if __name__ == "__main__":
    main()
