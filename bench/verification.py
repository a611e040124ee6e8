"""Accepted and wrong, with verification and without it: risk by coverage on the dev parts of public sets, and
certificates.

    python -m bench.verification --data FOLDER [--rows 200] [--only SET ...] [--minutes 20] [--out FOLDER] [--docs
    FOLDER]

Collects the answers of the shipped agents on the real fleet, which it starts or adopts, into files that it goes on with
the next time; `--collect` ends there, and `--offline` takes what is in the files; `--docs` writes the tables into its
pages, of `--only` some sets their lines alone, and no picture. `--cost` measures what log-probabilities cost.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bench import machine, risk, signing, weighing
from bench import verification_tables as tables
from bench.answer_sheets import SETS, Arm, Collector, Set, Sheet, arms_of, read, rows_of
from bench.opinions import Answered, accepted, combined, opinions, probability, verdicts, weighed
from bench.sentence_rule import SentenceRule
from bench.verification_tables import ALL, ALONE, CARD, NODE, RANKINGS, Measured
from orchestra import Orchestra
from orchestra.agents.card import Card
from orchestra.agents.ensemble import join_members
from orchestra.core.settings import Settings
from orchestra.learn.certification.independent import group_key, select_independent
from orchestra.learn.certification.labelled_answers import Correctness, correctness_of
from orchestra.learn.evaluation.baselines import fit_baselines
from orchestra.learn.evaluation.metrics import Case, build_metric
from orchestra.learn.evaluation.rows import EvaluationSet, as_record
from orchestra.verification.acceptance import CONFIDENCE
from orchestra.verification.certificates.certify import Certification, CertificationTerms, ScoredAnswer, certify

AGENTS = machine.ROOT / "agents"
COSTLY = {"generative_reader": 96, "generative_calculator": 96, "caller": 32}
"""Requests of each agent by which the cost of log-probabilities is measured."""


ALONE_ARMS = ("base", "blind1", "blind2", "claim", "sample1")
"""The arms of which a few rows are asked one after the other, too."""


def tell(line: str) -> None:
    """Says it where no table is."""
    print(line, file=sys.stderr, flush=True)


def cards_of() -> dict[str, Card]:
    """The shipped agents."""
    alone = {path.parent.name: Card.load(path.parent) for path in sorted(AGENTS.glob("*/agent.yaml"))}
    return {name: join_members(card, alone) for name, card in alone.items()}


async def collect(given: argparse.Namespace, sets: list[Set], out: Path) -> None:
    """Asks what is not in the files: the agents' own answers first, then what checks would ask."""
    cards = cards_of()
    until = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"journal": str(Path(folder) / "journal.db"), "concurrency": 64}, start=machine.ROOT)
        async with Orchestra.open(settings, progress=None) as orchestra:
            many, single = Collector(orchestra, out, until, tell), Collector(orchestra, out, until, tell, at_once=1)
            for base in (True, False):
                for one in sets:
                    test = rows_of(one, cards[one.agent], given.data, given.rows)
                    for arm in arms_of(one, cards, test, out):
                        if base == (arm.name == "base"):
                            await many.collect(arm)
            for one in sets:
                for arm in arms_of(one, cards, rows_of(one, cards[one.agent], given.data, given.rows), out):
                    if arm.name in ALONE_ARMS:
                        await single.collect(arm.alone)


async def cost(given: argparse.Namespace, sets: list[Set]) -> None:
    """Prints the cost of requesting the log-probabilities of tokens."""
    cards = cards_of()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"journal": str(Path(folder) / "journal.db"), "concurrency": 64}, start=machine.ROOT)
        async with Orchestra.open(settings, progress=None) as orchestra:
            collector = Collector(orchestra, Path(folder), say=tell)
            print(weighing.HEAD)
            for agent, requests in COSTLY.items():
                one = next(one for one in sets if one.agent == agent)
                test = rows_of(one, cards[agent], given.data, requests)
                base = next(iter(arms_of(one, cards, test, Path(folder))))
                await collector.collect(base)
                address = (await orchestra.fleet_status()).servers[0].address
                line = await weighing.weighed(
                    address, await signing.headers(settings), collector.bodies[agent], given.rounds
                )
                print(f"| {agent} | {len(test.rows)} | {line} |", flush=True)


SUM, MEAN, LEAST = "sum", "mean", "least"
SHORT = {SUM: "of all tokens together", MEAN: "of the mean token", LEAST: "of the least token"}
COLOURS = {"no verification": "#999999", ALONE: "#b5762a", CARD: "#3a8a4d", NODE: "#2a6fb5", ALL: "#8a5fb5"}
ALPHAS = (0.1, 0.05, 0.02)
RISK = Path("evaluation", "risk.md")
PAGES = {"certificates": Path("concepts", "certificates.md")}
"""Pages of the tables that are not on the page `RISK`."""
ENOUGH = 0.95
"""The share of its rows that an arm must have answered to be counted in."""


def right_of(one: Set, card: Card) -> Correctness:
    """What tells right answers of a set from wrong ones."""
    if one.measure is None:
        judge = correctness_of(card, one.evaluation)
        return Correctness(judge.metrics, lambda case: None if judge.is_excluded(case) else judge.is_correct(case))
    found = build_metric("right", one.measure)

    def of(case: Case) -> bool | None:
        part = found.case_score(case)
        return None if part is None else part[0] >= 1

    return Correctness(("right",), of)


def answered(one: Set, cards: dict[str, Card], test: EvaluationSet, data: Path, out: Path) -> list[Answered]:
    """The rows that were answered, with what others said of them."""
    arms = {arm.name: (arm, read(arm.file(out))) for arm in arms_of(one, cards, test, out)}
    base = arms.pop("base")[1]
    whole = {name: sheets for name, (arm, sheets) in arms.items() if _enough(arm, sheets)}
    for name in arms.keys() - whole.keys():
        tell(f"{one.title}: {name} was not asked for enough rows, and is left out")
    train = data / one.name / "train.jsonl"
    rule = SentenceRule([msgspec.json.decode(line) for line in train.open("rb")]) if one.kind == "reading" else None
    rules = (
        [lambda given: rule.answer({"input": given})]
        if rule is not None
        else list(fit_baselines(test.reference_rows)[1:])
    )
    told = [ruled(out / f"{one.title}.rule{number}.jsonl", one_rule, test) for number, one_rule in enumerate(rules)]
    found = []
    for row in test.rows:
        if row.id in base:
            others = {name: sheets[row.id] for name, sheets in whole.items() if row.id in sheets}
            found.append(Answered(row, base[row.id], others, tuple(sheets[row.id].output for sheets in told)))
    return found


def ruled(file: Path, rule: Callable[[Any], Any], test: EvaluationSet) -> dict[str, Sheet]:
    """The answers of a rule without a model, made once."""
    known = read(file)
    with file.open("ab") as sheets:
        for row in test.rows:
            if row.id not in known:
                known[row.id] = Sheet(row.id, rule(row.input))
                sheets.write(msgspec.json.encode(known[row.id]) + b"\n")
    return known


def _enough(arm: Arm, sheets: dict[str, Sheet]) -> bool:
    return bool(arm.inputs) and sum(name in sheets for name in arm.inputs) >= ENOUGH * len(arm.inputs)


def measured(one: Set, cards: Mapping[str, Card], test: EvaluationSet, rows: list[Answered], out: Path) -> Measured:
    """What the rankings make of the answers of a set."""
    card = cards[one.agent]
    judge = right_of(one, card)
    cases = [
        Case(row.question.expected, as_record(row.sheet.output) if row.sheet.output is not None else None)
        for row in rows
    ]
    kept = [(row, good) for row, case in zip(rows, cases, strict=True) if (good := judge.is_correct(case)) is not None]
    rows, right = [row for row, _ in kept], [good and row.sheet.output is not None for row, good in kept]
    asked = tuple(dict.fromkeys((*card.checks, CONFIDENCE)))
    said, groups = [opinions(row, one, card) for row in rows], [group_key(row.question, card) for row in rows]
    scores: dict[str, risk.Scores] = {
        ALONE: [probability(row.sheet) if row.sheet.output is not None else None for row in rows],
        CARD: [accepted(row, card, asked) for row in rows],
        NODE: weighed([verdicts(row, one, cards, asked) for row in rows], right, groups),
        ALL: combined(said, right, groups),
    }
    if any(row.sheet.logprobs for row in rows):
        tokens = [row.sheet.logprobs or (-99.0,) for row in rows]
        scores |= {
            SUM: [sum(few) for few in tokens],
            MEAN: [sum(few) / len(few) for few in tokens],
            LEAST: [min(few) for few in tokens],
        }
    without = {check: combined(said, right, groups, check) for check in said[0]}
    alone = select_independent(replace(test, rows=[row.question for row in rows]), card, seed=0).test.rows
    ids = [row.question.id for row in rows]
    return Measured(
        one, ids, groups, frozenset(row.id for row in alone), right, scores, without, _costs(one, rows, out)
    )


ASKED = {"blind": "rederive", "claim": "entailment", "sample": "agree"}
"""Which check asks an arm, by its name without a number."""


def _costs(one: Set, rows: list[Answered], out: Path) -> dict[str, dict[str, float]]:
    arms: dict[str, list[Sheet]] = {"the agent": [row.sheet for row in rows]}
    alone = {"the agent": list(read(out / f"{one.title}.base.alone.jsonl").values())}
    for row in rows:
        for name, sheet in row.others.items():
            arms.setdefault(_asked(name), []).append(sheet)
    for name in ALONE_ARMS[1:]:
        alone.setdefault(_asked(name), []).extend(read(out / f"{one.title}.{name}.alone.jsonl").values())
    count = len(rows)
    return {
        name: {
            "calls": len(sheets) / count,
            "prompt": sum(sheet.prompt_tokens for sheet in sheets) / count,
            "output": sum(sheet.output_tokens for sheet in sheets) / count,
            "seconds": statistics.median([sheet.seconds for sheet in alone.get(name, ())] or [math.nan]),
        }
        for name, sheets in arms.items()
    }


def _asked(arm: str) -> str:
    return ASKED[arm.rstrip("0123456789")]


def certified(found: Measured) -> dict[float, Certification]:
    """Returns the first certification of a set's agent at each alpha, with its card's checks and its confidence."""
    rows = zip(found.ids, found.scores[CARD], found.right, strict=True)
    items = [ScoredAnswer(name, score, not good) for name, score, good in rows if name in found.independent]
    return {alpha: certify(items, CertificationTerms(alpha, attempt=1)) for alpha in ALPHAS}


def report(given: argparse.Namespace, sets: list[Set], out: Path) -> dict[str, str]:
    """The tables, by name; and the picture, as `picture`."""
    cards, found = cards_of(), []
    for one in sets:
        test = rows_of(one, cards[one.agent], given.data, given.rows)
        rows = answered(one, cards, test, given.data, out)
        if rows:
            found.append(measured(one, cards, test, rows, out))
            tell(f"{one.title}: {len(found[-1].right)} rows judged")
    curves = {
        one.of.title: {"no verification": risk.Curve.of(one.right, [0.0] * len(one.right))}
        | {name: one.curve(name) for name in RANKINGS}
        for one in found
    }
    return {
        "accepted": tables.accepted_and_wrong(found),
        "areas": tables.areas(found),
        "ablation": tables.ablation(found),
        "tokens": tables.reductions(found, SHORT),
        "costs": tables.costs(found),
        "certificates": tables.certificates({f"{one.of.agent}, {one.of.name}": certified(one) for one in found}),
        "picture": risk.picture(curves, COLOURS, {one.of.title: one.coverage for one in found}),
    }


def write(page: Path, name: str, text: str, bench: str = "bench.verification", *, merge: bool = False) -> None:
    """Puts a text between the marks of its name on a page; with `merge` into the table that is there."""
    begin, end = f"<!-- {bench}: {name} -->\n", f"<!-- /{bench}: {name} -->"
    before, _, rest = page.read_text("utf-8").partition(begin)
    old, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{page} has no place for {name}")
    page.write_text(f"{before}{begin}{merged(old, text) if merge else text}\n{mark}{after}", "utf-8")


def merged(old: str, new: str) -> str:
    """A table with the lines of another one in the place of those that begin alike. Raises SystemExit where the columns
    differ.
    """
    head = old.splitlines()[:2]
    if new.splitlines()[:2] != head:
        raise SystemExit("the table has other columns than the one on the page: measure all sets")
    found: dict[str, list[str]] = {}
    for table in (old, new):
        lines: dict[str, list[str]] = {}
        for line in table.splitlines()[2:]:
            lines.setdefault(line.split(" | ")[0], []).append(line)
        found |= lines  # what is there already keeps its place
    return "\n".join([*head, *(line for lines in found.values() for line in lines)])


def main() -> int:
    """Collects, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with one folder for each set")
    parser.add_argument(
        "--rows", type=int, default=200, help="maximal number of rows of a set with a language model; 0 for all"
    )
    parser.add_argument("--only", nargs="*", default=[], help="only these sets")
    parser.add_argument(
        "--minutes",
        type=float,
        default=20,
        help="time limit for collecting; rows that are not run by then are left out",
    )
    parser.add_argument("--out", type=Path, help="the folder of the answers; default: in the user's cache")
    parser.add_argument("--collect", action="store_true", help="only collect answers")
    parser.add_argument("--offline", action="store_true", help="use only stored answers")
    parser.add_argument("--docs", type=Path, help="write the tables into the pages of this folder")
    parser.add_argument("--cost", action="store_true", help="measure the cost of log-probabilities")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of --cost")
    given = parser.parse_args()
    sets = [one for one in SETS if not given.only or one.name in given.only]
    out = given.out or machine.folder() / "verification"
    out.mkdir(parents=True, exist_ok=True)
    if given.cost:
        asyncio.run(cost(given, list(SETS)))
        return 0
    if not given.offline:
        asyncio.run(collect(given, sets, out))
    if not given.collect:
        told = report(given, sets, out)
        picture = (given.docs / RISK.parent if given.docs and not given.only else out) / "risk.svg"
        picture.write_text(told.pop("picture"), "utf-8")
        for name, table in told.items():
            print(f"{name}\n\n{table}\n")
            if given.docs:
                write(given.docs / PAGES.get(name, RISK), name, table, merge=bool(given.only))
        tell(f"{picture}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
