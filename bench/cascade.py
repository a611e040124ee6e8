"""A live cascade: untuned base, shipped adapter, several samples of it with a vote, and the ensemble that it belongs
to; each tier is called only if an earlier one may be wrong.

    python -m bench.cascade --data FOLDER [--rows 200] [--only SET ...] [--minutes 20] [--out FOLDER]
                            [--collect | --offline] [--page]

Collects the answers of each tier to dev rows on the real fleet, which it starts or adopts, into files in `--out` that a
later call continues. `--collect` ends there, and `--offline` uses only the files. The results of routing are computed
from the answers. `--page` writes the tables into docs/concepts/routing.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import machine
from bench.answer_sheets import WARM, Arm, Collector, Set, Sheet, plain, read, rows_of
from bench.machine import now
from bench.page import renewed
from bench.risk import spread
from bench.routing import figures
from bench.verification import cards_of, tell
from orchestra import Orchestra
from orchestra.agents.card import Card
from orchestra.agents.inference.linear import LinearRegressor
from orchestra.core.settings import Settings
from orchestra.learn.certification.labelled_answers import correctness_of
from orchestra.learn.evaluation.bootstrap import IntervalEstimate
from orchestra.learn.evaluation.evaluation import card_without_adapter
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet, as_record
from orchestra.verification.equivalence import answer_content, cluster_equivalent

SETS = (
    Set("svamp", "generative_calculator", "svamp"),
    Set("xquad_en", "generative_reader"),
    Set("bfcl", "caller"),
)
VOTES = 5
"""Samples of the most expensive tier."""
LEAST = 50
"""Minimal number of rows of a set for a table."""
BASE, ADAPTER, VOTE = "base without the adapter", "adapter", f"vote of {VOTES} samples of the adapter"
ALONE = ("untuned", "adapter", "sample1", "ensemble")
"""The arms of which a few rows are run one after the other."""
AFTER = "after the cheaper one has answered: 1 - its confidence"
HEADS = (
    "selection for the more expensive tier",
    "APGR",
    "CPT 50 %",
    "CPT 80 %",
    "CPT 95 %",
    "tokens in, out a row at CPT 80 %",
)
PAGE = machine.ROOT / "docs" / "evaluation" / "routing.md"


def ensemble_of(card: Card, cards: Mapping[str, Card]) -> Card | None:
    """Returns the ensemble that an agent is a member of."""
    return next((one for one in cards.values() if card.name in one.members), None)


def arms_of(one: Set, card: Card, test: EvaluationSet, ensemble: Card | None) -> Iterable[Arm]:
    """Returns the arms of a set: the adapter, the base without it, the ensemble, then the samples of the adapter."""
    inputs = {row.id: row.input for row in test.rows}
    yield Arm(one, "adapter", plain(card), inputs)
    yield Arm(one, "untuned", plain(card_without_adapter(card)), inputs)
    if ensemble is not None:
        yield Arm(one, "ensemble", plain(ensemble), inputs)
    for number in range(1, VOTES + 1):
        yield Arm(one, f"sample{number}", plain(card, sampling={"temperature": WARM, "seed": number}), inputs)


async def collect(given: argparse.Namespace, sets: Sequence[Set], out: Path) -> None:
    """Collects the missing answers."""
    cards = cards_of()
    until = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"journal": str(Path(folder) / "journal.db"), "concurrency": 64}, start=machine.ROOT)
        async with Orchestra.open(settings, progress=None) as orchestra:
            many, alone = Collector(orchestra, out, until, tell), Collector(orchestra, out, until, tell, at_once=1)
            for one in sets:
                card = cards[one.agent]
                arms = list(arms_of(one, card, rows_of(one, card, given.data, given.rows), ensemble_of(card, cards)))
                for arm in arms:
                    await many.collect(arm)
                for arm in (arm.alone for arm in arms if arm.name in ALONE):
                    await alone.collect(arm)


@dataclass(frozen=True)
class Tier:
    """The answers of one tier: correctness and confidence of each row, and cost of a row."""

    name: str
    right: Sequence[bool]
    doubt: Sequence[float]
    """1 minus the confidence of the answer; 1 if there is none."""
    tokens: tuple[float, float]
    """Input and output tokens per row."""
    seconds: float
    """Median latency of a single call; for several samples the sum."""

    @property
    def share(self) -> float:
        """Returns the share of correct rows."""
        return sum(self.right) / len(self.right)


@dataclass(frozen=True)
class Gain:
    """A row in the form of `bench.routing`."""

    gain: float


def voted(card: Card, sheets: Sequence[Sheet]) -> Any:
    """Returns the most frequent answer of the samples by value, the earliest of equally frequent ones; None if there is
    no answer.
    """
    outputs = [sheet.output for sheet in sheets if sheet.output is not None]
    if not outputs:
        return None
    groups = cluster_equivalent([answer_content(output, card.output_schema) for output in outputs])
    return outputs[max(groups, key=len)[0]]


def tiers_of(
    one: Set, card: Card, test: EvaluationSet, out: Path, ensemble: Card | None = None
) -> tuple[Sequence[EvaluationRow], list[Tier]]:
    """Returns the rows that all tiers have answered, with the results of each tier."""
    votes = [f"sample{number}" for number in range(1, VOTES + 1)]
    titles = {"untuned": BASE, "adapter": ADAPTER}
    if ensemble is not None:
        titles["ensemble"] = f"`{ensemble.name}`, which asks it and another"
    files = {name: read(out / f"{one.name}.{name}.jsonl") for name in (*titles, *votes)}
    alone = {name: read(out / f"{one.name}.{name}.alone.jsonl") for name in ALONE}
    judge = correctness_of(card, one.evaluation)
    rows = [row for row in test.rows if all(row.id in sheets for sheets in files.values())]

    def right(row: EvaluationRow, output: Any) -> bool:
        return output is not None and bool(judge.is_correct(Case(row.expected, as_record(output))))

    found = []
    for name, title in titles.items():
        sheets = [files[name][row.id] for row in rows]
        doubt = [1.0 if sheet.score is None or sheet.output is None else 1.0 - sheet.score for sheet in sheets]
        answers = [right(row, sheet.output) for row, sheet in zip(rows, sheets, strict=True)]
        found.append(Tier(title, answers, doubt, _tokens([sheets]), _seconds(alone[name])))
    samples = [[files[name][row.id] for row in rows] for name in votes]
    answers = [right(row, voted(card, several)) for row, several in zip(rows, zip(*samples, strict=True), strict=True)]
    found.insert(2, Tier(VOTE, answers, [0.0] * len(rows), _tokens(samples), VOTES * _seconds(alone["sample1"])))
    return rows, found


def _tokens(arms: Sequence[Sequence[Sheet]]) -> tuple[float, float]:
    rows = max(1, len(arms[0]))
    given, written = (
        sum(getattr(sheet, key) for sheets in arms for sheet in sheets) for key in ("prompt_tokens", "output_tokens")
    )
    return given / rows, written / rows


def _seconds(sheets: Mapping[str, Sheet]) -> float:
    return median(sheet.seconds for sheet in sheets.values()) if sheets else float("nan")


def scores_of(rows: Sequence[EvaluationRow], weak: Tier, regressor: LinearRegressor) -> dict[str, Sequence[float]]:
    """Returns scores that select rows for the more expensive tier: after the cheaper one has answered, or before any
    call.
    """
    texts = [str(row.input["question"]) for row in rows]
    return {
        AFTER: weak.doubt,
        "before it: the length of what is asked": [len(json.dumps(row.input)) for row in rows],
        "before it: the agent `difficulty`": [regressor.predict_number(text) for text in texts],
    }


def gap(weak: Tier, strong: Tier, draws: int) -> IntervalEstimate:
    """Returns the accuracy gain of the more expensive tier, with a 95 % bootstrap interval."""
    gains = np.array(strong.right, dtype=float) - np.array(weak.right, dtype=float)
    alone = [str(number) for number in range(len(gains))]
    low, high = spread(alone, lambda weights: float((weights * gains).sum() / weights.sum()), draws)
    return IntervalEstimate(float(gains.mean()), low, high)


def pair(rows: Sequence[EvaluationRow], weak: Tier, strong: Tier, regressor: LinearRegressor, draws: int) -> list[str]:
    """Returns the table of one pair of tiers."""
    between = gap(weak, strong, draws)
    said = f"{weak.name} {weak.share:.1%} right, {strong.name} {strong.share:.1%}; the gap is {between}"
    judged = [Gain(float(two) - float(one)) for one, two in zip(weak.right, strong.right, strict=True)]
    if between.value <= 0 or between.low <= 0:
        return [f"{said}: no gap that is surely there, and so nothing to close.", ""]
    lines = [
        f"{said}.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
        "| chance | 0.5 | 0.5 | 0.8 | 0.95 | |",
    ]
    for name, scores in scores_of(rows, weak, regressor).items():
        found = figures(judged, scores, draws)
        share = found[2].value
        first = weak.tokens if name == AFTER else tuple(count * (1 - share) for count in weak.tokens)
        spent = [one + share * two for one, two in zip(first, strong.tokens, strict=True)]
        lines.append(f"| {name} | {' | '.join(map(str, found))} | {spent[0]:.0f}, {spent[1]:.0f} |")
    return [*lines, ""]


def section(one: Set, cards: Mapping[str, Card], given: argparse.Namespace, regressor: LinearRegressor) -> list[str]:
    """Returns the section of a set."""
    card = cards[one.agent]
    rows, tiers = tiers_of(one, card, rows_of(one, card, given.data, given.rows), given.out, ensemble_of(card, cards))
    if len(rows) < LEAST:
        tell(f"{one.name}: {len(rows)} rows were answered by all tiers, and it is left out")
        return []
    lines = [f"**{one.name}**, `{card.name}`: {len(rows)} rows that all tiers have answered.", ""]
    lines += ["| tier | right | tokens in, out a row | seconds of a call alone |", "|---|---|---|---|"]
    for tier in tiers:
        took = f"{tier.seconds:.2f}" if tier.seconds == tier.seconds else "not measured"
        lines.append(f"| {tier.name} | {tier.share:.1%} | {tier.tokens[0]:.0f}, {tier.tokens[1]:.0f} | {took} |")
    for weak, strong in [(0, 1), (1, 2), (0, 2), *((1, last) for last in range(3, len(tiers)))]:
        lines += ["", *pair(rows, tiers[weak], tiers[strong], regressor, given.draws)]
    return [line for at, line in enumerate(lines) if line or lines[at - 1]]


def main() -> None:
    """Collects, computes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with one folder for each set")
    parser.add_argument("--rows", type=int, default=200, help="rows of each set")
    parser.add_argument("--only", nargs="*", default=[], help="only these sets")
    parser.add_argument("--minutes", type=float, default=20, help="time limit for collecting")
    parser.add_argument("--out", type=Path, default=machine.folder() / "cascade", help="the folder of the answers")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    parser.add_argument("--collect", action="store_true", help="only collect answers")
    parser.add_argument("--offline", action="store_true", help="use only stored answers")
    parser.add_argument("--page", action="store_true", help="write the tables into docs/concepts/routing.md")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sets = [one for one in SETS if not given.only or one.name in given.only]
    if not given.offline:
        asyncio.run(collect(given, sets, given.out))
    if given.collect:
        return
    cards = cards_of()
    regressor = LinearRegressor.load(cards["difficulty"])
    said = [now()]
    for one in sets:
        said += ["", *section(one, cards, given, regressor)]
    text = "\n".join(said).strip() + "\n"
    print(text)
    if given.page:
        PAGE.write_text(renewed(PAGE.read_text("utf-8"), {"cascade": text}), "utf-8")


if __name__ == "__main__":
    main()
