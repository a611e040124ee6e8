"""Accuracy of an evidence verifier where word overlap is misleading: supported claims with few words of their evidence,
and others with many.

    orchestra batch entailment -i FOLDER/begin/dev.jsonl -o answers.jsonl
    python -m bench.quarters FOLDER/begin/dev.jsonl answers.jsonl [--positive supported --negative unsupported]

Overlap is the share of a claim's content words that are in its evidence. The quarter of positive claims with the least
overlap is used, and the quarter of negative claims with the most; a verifier that has only learnt overlap fails on
both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.learn.evaluation.metrics import auroc
from orchestra.text.keywords import content_words


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its label and the verifier's answer."""

    positive: bool
    overlap: float
    probability: float
    supported: bool


def overlap(claim: str, evidence: str) -> float:
    """Returns the share of a claim's content words in the evidence, in [0, 1]."""
    words = set(content_words(claim))
    return len(words & set(content_words(evidence))) / len(words) if words else 1.0


def judged(rows: Sequence[dict[str, Any]], answers: dict[str, Any], positive: str, negative: str) -> list[Judged]:
    """Returns the rows of the two labels with the verifier's answers."""
    found = []
    for row in rows:
        label, answer = row["expected"]["label"], answers.get(row["id"]) or {}
        if label in (positive, negative) and row["expected"].get("original") != "Generic":
            words = overlap(row["input"]["claim"], row["input"]["evidence"])
            found.append(
                Judged(
                    label == positive,
                    words,
                    float(answer.get("p_supported") or 0.0),
                    answer.get("label") == "supported",
                )
            )
    return found


def quarters(every: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """Returns the quarter of positives with the least overlap, and that of negatives with the most."""
    ordered = sorted(every, key=lambda one: one.overlap)
    positives, negatives = [one for one in ordered if one.positive], [one for one in ordered if not one.positive]
    return positives[: max(1, len(positives) // 4)], negatives[-max(1, len(negatives) // 4) :]


def line(name: str, some: Sequence[Judged]) -> str:
    """Returns a row of the table."""
    right = [one.supported == one.positive for one in some]
    sides = [[hit for hit, one in zip(right, some, strict=True) if one.positive is side] for side in (True, False)]
    recalls = [sum(side) / len(side) for side in sides if side]
    both = len(recalls) == 2
    ours, words = (
        auroc([(read(one), one.positive) for one in some]) if both else float("nan")
        for read in (_probability, _overlap)
    )
    return f"| {name} | {len(some)} | {sum(recalls) / len(recalls):.3f} | {ours:.3f} | {words:.3f} |"


def _probability(one: Judged) -> float:
    return one.probability


def _overlap(one: Judged) -> float:
    return one.overlap


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--positive", default="supported")
    parser.add_argument("--negative", default="unsupported")
    given = parser.parse_args()
    rows = [json.loads(text) for text in given.rows.read_text("utf-8").splitlines()]
    answers = {one["id"]: one.get("output") for one in map(json.loads, given.answers.read_text("utf-8").splitlines())}
    every = judged(rows, answers, given.positive, given.negative)
    low, high = quarters(every)
    print("| claims | n | balanced accuracy | AUROC | AUROC of word overlap |\n|---|---:|---:|---:|---:|")
    for name, some in (
        ("all", every),
        (f"{given.positive}, quarter of least overlap", low),
        (f"{given.negative}, quarter of most overlap", high),
        ("both quarters", [*low, *high]),
    ):
        print(line(name, some))


if __name__ == "__main__":
    main()
