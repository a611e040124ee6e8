"""What an ensemble would be worth: its members' recorded answers, pooled, and pooled only where the first was not sure enough.

    orchestra batch MEMBER -i ROWS -o FILE      # for each member
    python -m bench.ensembles AGENT ROWS FILE FILE ...

AGENT is an ensemble, and the files are in the order of its members. Right is what the first metric of its `evaluation.yaml` says. The
answers are pooled by the product's own code. Asks nobody.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.risk import Curve
from orchestra.agent.pooling import Answer, pooled
from orchestra.agent.registry import Registry
from orchestra.learn.certifying import Predictions
from orchestra.learn.metrics import Case, Metric
from orchestra.learn.questions import Test, as_record, metrics_of, read_test

ENOUGH = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
HEAD = "| answers | {metric} | wrong of the surer half | AURC | members asked a row |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Way:
    """One way to answer all rows."""

    name: str
    answers: Sequence[Answer]
    asked: float
    """Members a row, on average."""


def ways(members: Sequence[str], rows: Sequence[Sequence[Answer]]) -> list[Way]:
    """Each member alone; all of them pooled; and in order until one is sure enough. `rows` has the members' answers by row."""
    found = [Way(name, [row[at] for row in rows], 1.0) for at, name in enumerate(members)]
    found.append(Way("pooled", [pooled(row) for row in rows], float(len(members))))
    for enough in ENOUGH:
        taken = [until(row, enough) for row in rows]
        found.append(Way(f"pooled, enough: {enough:g}", [pooled(row) for row in taken], sum(map(len, taken)) / len(taken)))
    return found


def until(row: Sequence[Answer], enough: float) -> Sequence[Answer]:
    """The answers that are asked for, in order, until those so far are sure enough."""
    for count in range(1, len(row)):
        if (pooled(row[:count]).confidence or 0.0) >= enough:
            return row[:count]
    return row


def line(way: Way, test: Test, metric: Metric) -> str:
    """A row of the table."""
    cases = [Case(one.expected, as_record(answer.value)) for one, answer in zip(test.questions, way.answers, strict=True)]
    right = [metric.of([case]) >= 1 for case in cases]
    curve = Curve.of(right, [answer.confidence for answer in way.answers])
    return f"| {way.name} | {metric.of(cases):.3f} | {2 * curve.errors(0.5):.3f} | {curve.area():.3f} | {way.asked:.2f} |"


def oracle(rows: Sequence[Sequence[Answer]], test: Test, metric: Metric) -> float:
    """The share of rows that some member gets right."""
    some = [
        any(metric.of([Case(question.expected, as_record(answer.value))]) >= 1 for answer in row)
        for question, row in zip(test.questions, rows, strict=True)
    ]
    return sum(some) / len(some)


def read(test: Test, files: Sequence[Path]) -> list[list[Answer]]:
    """The members' answers by row; one that is missing is no answer, of no probability."""
    columns: list[list[tuple[Any, float | None] | None]] = [Predictions.read(file).given(test) for file in files]
    return [[Answer(*one) if one is not None else Answer(None, 0.0) for one in row] for row in zip(*columns, strict=True)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agent")
    parser.add_argument("rows", type=Path)
    parser.add_argument("answers", type=Path, nargs="+")
    given = parser.parse_args()
    card = Registry.load().card(given.agent)
    if len(given.answers) != len(card.members):
        parser.error(f"{given.agent} has {len(card.members)} members: {', '.join(card.members)}")
    test, metric = read_test(given.rows), metrics_of(card)[0]
    rows = read(test, given.answers)
    print(HEAD.format(metric=metric.name))
    for way in ways(card.members, rows):
        print(line(way, test, metric))
    print(f"\n{len(rows)} rows; some member is right in {oracle(rows, test, metric):.3f}")


if __name__ == "__main__":
    main()
