"""Allocation of a limited check budget: by value, uniformly, or first come first served; on recorded answers.

    python -m bench.check_budget --data FOLDER [--minutes 20] [--offline] [--docs FOLDER]

Runs the language-model reader and calculator on the dev rows of XQuAD (en) and SVAMP. Then it runs others:
`extractive_reader` and `deductive_calculator` on the same inputs, `entailment` on whether the passage supports the
answer, and the calculator three more times. The answers are stored in the user's cache with those of
`bench.verification` and collected once. Then runs are simulated: random rows are assigned to the nodes of a workflow.
The values arrive one after the other, each with its agent's confidence. A check costs the tokens that it took; a check
by an encoder costs the tokens of the texts that it read, as the engine counts them. All rules have the same budget:
`first` checks while budget is left, `uniform` does so in a random order, so that each value has the same chance, and
`worth` checks what `orchestra.verification.check_budget` admits.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.answer_sheets import Collector, Set, Sheet, arms_of, read, rows_of
from bench.opinions import said
from bench.page import renewed
from bench.verification import cards_of, right_of
from orchestra import Orchestra
from orchestra.agents.contract import Catalog, Contract
from orchestra.core.events import CheckPriority
from orchestra.core.settings import Settings
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import as_record
from orchestra.verification.check_budget import DEFAULT_DOUBT, CheckBudget, UpcomingValues
from orchestra.verification.entailment import estimate_input_tokens
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.yaml.reader import read as read_workflow

DERIVED, SUPPORTED, AGREED = "another agent's answer", "entailment", "three more samples"
SETS = {
    Set("xquad_en", "generative_reader", kind="reading", most=0, blind=("extractive_reader",), claims=True): (
        DERIVED,
        SUPPORTED,
    ),
    Set("svamp", "generative_calculator", "svamp", most=200, samples=3, blind=("deductive_calculator",)): (
        DERIVED,
        AGREED,
    ),
}
"""The sets, and the checks that are measured on each."""
ARMS = {DERIVED: ("blind1",), SUPPORTED: ("claim",), AGREED: ("sample1", "sample2", "sample3")}
SHARES = (0.1, 0.2, 0.35, 0.5, 0.75)
"""Budgets as shares of the cost of all checks of a run."""
RESAMPLES, SEED = 400, 0
SLACK = 1.3
"""The upper bound of a check's cost as a multiple of its actual cost: more is reserved than spent."""
FLAT = 24
"""Number of values of a run with equal influence."""
TREE = """
schema: orchestra/v1
name: report
input: {question: str, text: str}
output: ${report}
nodes:
  subject: {agent: reader, with: {question: "${input.question}", context: "${input.text}"}}
  place: {agent: reader, with: {question: "${subject.answer}", context: "${input.text}"}}
  date: {agent: reader, with: {question: "${subject.answer}", context: "${input.text}"}}
  maker: {agent: reader, with: {question: "${subject.answer}", context: "${input.text}"}}
  region: {agent: reader, with: {question: "${place.answer}", context: "${input.text}"}}
  country: {agent: reader, with: {question: "${region.answer}", context: "${input.text}"}}
  era: {agent: reader, with: {question: "${date.answer}", context: "${input.text}"}}
  school: {agent: reader, with: {question: "${maker.answer}", context: "${input.text}"}}
  aside: {agent: reader, with: {question: "${input.question}", context: "${input.text}"}}
  note: {agent: reader, with: {question: "${input.question}", context: "${input.text}"}}
  detail: {agent: reader, with: {question: "${input.question}", context: "${input.text}"}}
  remark: {agent: reader, with: {question: "${input.question}", context: "${input.text}"}}
  report:
    agent: writer
    with:
      text: "${country.answer} ${era.answer} ${school.answer} ${aside.answer} ${note.answer} ${detail.answer} \
${remark.answer}"
"""
"""Twelve readings, on some of which most of the others depend."""


def tell(line: str) -> None:
    """Writes progress to stderr."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Row:
    """An answer: its confidence, its correctness, the result of the check, and the cost of the check."""

    doubt: float
    right: bool
    passes: bool
    tokens: int


async def collect(given: argparse.Namespace, out: Path) -> None:
    """Collects missing answers."""
    cards, until = cards_of(), time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"journal": str(Path(folder) / "journal.db"), "concurrency": 64}, start=machine.ROOT)
        async with Orchestra.open(settings, progress=None) as orchestra:
            collector = Collector(orchestra, out, until, tell)
            for one in SETS:
                for arm in arms_of(one, cards, rows_of(one, cards[one.agent], given.data, 0), out):
                    await collector.collect(arm)


def rows(given: argparse.Namespace, out: Path) -> Iterator[tuple[Set, str, list[Row]]]:
    """Returns the recorded rows by set and check; only those that the check is applied to."""
    cards = cards_of()
    for one, checks in SETS.items():
        test, judge = rows_of(one, cards[one.agent], given.data, 0), right_of(one, cards[one.agent])
        base = read(out / f"{one.title}.base.jsonl")
        asked = {arm.name: arm.inputs for arm in arms_of(one, cards, test, out)}
        for check in checks:
            others = [read(out / f"{one.title}.{arm}.jsonl") for arm in ARMS[check]]
            found = []
            for question in test.rows:
                sheet, said_by = base.get(question.id), [other[question.id] for other in others if question.id in other]
                if sheet is None or len(said_by) < len(others):
                    continue
                right = judge.is_correct(
                    Case(question.expected, as_record(sheet.output) if sheet.output is not None else None)
                )
                if right is not None:
                    doubt = DEFAULT_DOUBT if sheet.score is None else 1.0 - sheet.score
                    tokens = sum(
                        other.prompt_tokens + other.output_tokens or estimate_input_tokens(asked[arm][question.id])
                        for arm, other in zip(ARMS[check], said_by, strict=True)
                    )
                    found.append(Row(doubt, right and sheet.output is not None, _passes(check, sheet, said_by), tokens))
            if found:
                yield one, check, found


def _passes(check: str, sheet: Sheet, others: Sequence[Sheet]) -> bool:
    """Returns whether the check passes an answer: more than half of the others agree, or the evidence supports it with
    0.5.
    """
    if check == SUPPORTED:
        output = others[0].output if isinstance(others[0].output, dict) else {}
        return (output.get("p_supported") or 0.0) >= 0.5
    return 2 * sum(other.output is not None and said(other.output) == said(sheet.output) for other in others) > len(
        others
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """The influence of each value of a run."""

    name: str
    influence: tuple[float, ...]


def shapes() -> list[Shape]:
    """Returns a list with elements of equal influence, and a workflow with unequal ones."""
    text = {"type": "string"}
    record = {"type": "object", "properties": {"answer": text}, "required": ["answer"]}
    asked = {"type": "object", "properties": {"question": text, "context": text}, "required": ["question", "context"]}
    written = {"type": "object", "properties": {"text": text}, "required": ["text"]}
    agents = {
        "reader": Contract("reader", "agent", asked, record),
        "writer": Contract("writer", "agent", written, text),
    }
    program = compile_graph(read_workflow(TREE, "report.yaml").graph, Catalog(agents=agents))
    tree = tuple(share for node, share in zip(program.nodes, program.influence, strict=True) if node.name != "report")
    return [Shape(f"a list of {FLAT} values", (1 / FLAT,) * FLAT), Shape(f"a workflow of {len(tree)} readings", tree)]


Rule = Callable[[Sequence[Row], Sequence[float], int], list[bool]]
"""Selects the values of a run to check, in order of arrival, under a budget of tokens."""


def first(run: Sequence[Row], influence: Sequence[float], budget: int) -> list[bool]:
    """Checks values in order of arrival while they fit."""
    left, chosen = budget, []
    for row in run:
        chosen.append(_bound(row) <= left)
        left -= row.tokens * chosen[-1]
    return chosen


def uniform(seed: int) -> Rule:
    """Checks values in random order while they fit: each has the same chance."""
    chance = random.Random(seed)  # reproducible randomness

    def rule(run: Sequence[Row], influence: Sequence[float], budget: int) -> list[bool]:
        left, chosen = budget, [False] * len(run)
        for at in chance.sample(range(len(run)), len(run)):
            chosen[at] = _bound(run[at]) <= left
            left -= run[at].tokens * chosen[at]
        return chosen

    return rule


def worth(run: Sequence[Row], influence: Sequence[float], budget: int) -> list[bool]:
    """Checks what the budget allotment admits, as in the engine; each check ends before the next value arrives."""
    allotment, chosen = CheckBudget(budget), []
    for number, (row, share) in enumerate(zip(run, influence, strict=True)):
        bound = _bound(row)
        stake = CheckPriority(row.doubt, share, allotment.expected_tokens(bound), bound)
        coming = [UpcomingValues(one, 1) for one in influence[number + 1 :]]
        chosen.append(bound <= allotment.available and allotment.fits(stake, coming))
        allotment.record(stake, first=True)
        if chosen[-1]:
            allotment.spent += row.tokens
            allotment.finished_bound += bound
            allotment.finished_tokens += row.tokens
    return chosen


def known(run: Sequence[Row], influence: Sequence[float], budget: int) -> list[bool]:
    """Checks the most valuable values with knowledge of all of them: an unattainable upper bound."""
    order = sorted(range(len(run)), key=lambda at: run[at].doubt * influence[at] / run[at].tokens, reverse=True)
    chosen, left = [False] * len(run), budget
    for at in order:
        if _bound(run[at]) <= left:
            chosen[at], left = True, left - run[at].tokens
    return chosen


def _bound(row: Row) -> int:
    return round(SLACK * row.tokens)


def rules() -> Mapping[str, Rule]:
    """Returns the rules by name in the table."""
    return {"first": first, "uniform": uniform(SEED), "worth": worth, "known": known}


@dataclass(frozen=True, slots=True)
class Came:
    """Results of a rule over all runs of a sample; shares of all values, weighted by influence."""

    wrong_left: float
    """Wrong values that no check has stopped: not checked, or passed."""
    spent: float
    """Spent share of the cost of all checks."""
    accepted: float
    """Checked and passed."""
    accepted_wrong: float
    """Checked, passed and wrong."""


def came(runs: Sequence[tuple[Sequence[Row], Sequence[float]]], rule: Rule, share: float) -> Came:
    """Returns the result of a rule with a budget that is a share of the mean cost of all checks of a run."""
    weight = wrong = passed = passed_wrong = 0.0
    tokens = spent = 0
    mean = sum(row.tokens for run, _ in runs for row in run) / len(runs)
    for run, influence in runs:
        for row, part, checked in zip(run, influence, rule(run, influence, round(share * mean)), strict=True):
            weight += part
            wrong += part * (not row.right and not (checked and not row.passes))
            passed += part * (checked and row.passes)
            passed_wrong += part * (checked and row.passes and not row.right)
            tokens += row.tokens
            spent += row.tokens * checked
    return Came(wrong / weight, spent / tokens, passed / weight, passed_wrong / weight)


def drawn(found: Sequence[Row], shape: Shape, chance: random.Random) -> list[tuple[list[Row], tuple[float, ...]]]:
    """Draws runs: random rows with replacement on the nodes. The order of a list is random too."""
    sample = chance.choices(found, k=len(found))
    size = len(shape.influence)
    return [(sample[at : at + size], shape.influence) for at in range(0, len(sample) - size + 1, size)]


def measured(found: Sequence[Row], shape: Shape) -> dict[tuple[str, float], list[Came]]:
    """Returns the results by rule and budget in each resample of the rows; all rules have the same runs."""
    chance = random.Random(SEED)  # reproducible randomness
    results: dict[tuple[str, float], list[Came]] = {}
    by = rules()
    for _ in range(RESAMPLES):
        runs = drawn(found, shape, chance)
        for name, rule in by.items():
            for share in SHARES:
                results.setdefault((name, share), []).append(came(runs, rule, share))
    return results


def _interval(values: Sequence[float]) -> str:
    """Returns the mean and the 95 % interval over the resamples, in per cent."""
    ordered = sorted(values)
    low, high = ordered[round(0.025 * (len(ordered) - 1))], ordered[round(0.975 * (len(ordered) - 1))]
    return f"{100 * sum(values) / len(values):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(name: str, found: Sequence[Row], shape: Shape) -> Iterator[str]:
    """Returns the Markdown table of a set, a check and a shape."""
    results = measured(found, shape)
    wrong = [not row.right for row in found]
    stopped = sum(not row.right and not row.passes for row in found) / max(1, sum(wrong))
    alarms = sum(row.right and not row.passes for row in found) / max(1, len(found) - sum(wrong))
    told = f"{sum(wrong) / len(found):.1%} wrong; it stops {stopped:.0%} of these, and {alarms:.0%} of the others"
    yield f"{name}, {shape.name}; {len(found)} rows, {told}"
    yield ""
    yield (
        "| budget | spent: first | uniform | worth | wrong left: first | uniform | worth | worth − first | worth "
        "− uniform "
        "| all known before | accepted: first | uniform | worth |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for share in SHARES:
        *ways, best = (results[name, share] for name in rules())
        *others, mine = ways
        cells = [
            f"{share:.0%}",
            *(f"{sum(one.spent for one in way) / len(way):.1%}" for way in ways),
            *(_interval([one.wrong_left for one in way]) for way in ways),
            *(_interval([b.wrong_left - a.wrong_left for a, b in zip(way, mine, strict=True)]) for way in others),
            f"{100 * sum(one.wrong_left for one in best) / len(best):.1f}",
            *(
                (
                    f"{100 * sum(w.accepted for w in way) / len(way):.1f}, "
                    f"{100 * sum(w.accepted_wrong for w in way) / len(way):.1f} wrong"
                )
                for way in ways
            ),
        ]
        yield f"| {' | '.join(cells)} |"


def report(given: argparse.Namespace, out: Path) -> str:
    """Returns all tables."""
    lines = [f"{machine.now()}, {machine.code()}", ""]
    for one, check, found in rows(given, out):
        for shape in shapes():
            lines += [*table(f"{one.name}, {check}", found, shape), ""]
    return "\n".join(lines)


def main() -> int:
    """Collects answers and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with one folder for each set")
    parser.add_argument("--minutes", type=float, default=20, help="time limit for collecting")
    parser.add_argument("--out", type=Path, help="the folder of the answers; default: in the user's cache")
    parser.add_argument("--offline", action="store_true", help="use only stored answers")
    parser.add_argument("--docs", type=Path, help="write the tables into verification.md of this folder")
    given = parser.parse_args()
    out = given.out or machine.folder() / "verification"
    out.mkdir(parents=True, exist_ok=True)
    if not given.offline:
        asyncio.run(collect(given, out))
    text = report(given, out)
    print(text)
    if given.docs is not None:
        page = given.docs / "evaluation" / "check_budget.md"
        page.write_text(renewed(page.read_text("utf-8"), {"budget": text}), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
