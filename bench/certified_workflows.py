"""Certificates of complete workflows on real rows: made on two thirds of the rows, tested on the others.

    python -m bench.certified_workflows --data FOLDER [NAME ...] [--rows 200] [--out FOLDER] [--offline] [--docs FOLDER]

FOLDER has one folder for each set. `answer_from_documents` gets the questions of xquad_en and of written passages
(bench/evaluations/passages.jsonl), each with its own passage among seven of the other set, so it has to be retrieved
first. A third of the questions has no answer; passages of their own set might answer these. `financial_question` gets
the questions of tatqa. The answers are stored in files for `orchestra certify NAME --data NAME.rows.jsonl --predictions
NAME.answers.jsonl`; stored rows are not run again, and with `--offline` none is. No passage and no table is in both
parts. It needs the fleet.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.evaluate import running, stop
from bench.verification import write
from orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.app.workflow_certificates import WorkflowTarget
from orchestra.cli.output import ProgressMeter, StatusLine, print_note
from orchestra.core.settings import Settings
from orchestra.learn.certification.labelled_answers import Correctness, certification_items, correctness_of
from orchestra.learn.evaluation.evaluation import EVALUATION_PURPOSE, evaluate_arm, sample_rows
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet, as_record, read_evaluation_set
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates.certify import (
    CertificationTerms,
    Certified,
    Infeasible,
    RankedAnswers,
    ScoredAnswer,
    certify,
    confidence_interval,
    format_percent,
)

ALPHAS = (0.3, 0.2, 0.1, 0.05)
TUNING, CALIBRATION = 0.2, 0.75
"""Shares of the rows of a certificate: larger than a command's, because separate rows test it."""
WRITTEN = machine.ROOT / "bench" / "evaluations" / "passages.jsonl"
POOL = 8
"""Number of passages to retrieve from."""
AT_ONCE = 16
HEAD = (
    "workflow, rows of",
    "alpha",
    "rows, withheld at least",
    "certificate",
    "on the other rows",
    "wrong of accepted",
    "unanswerable, withheld",
)


@dataclass(frozen=True)
class Asked:
    """A workflow and a set of inputs."""

    name: str
    set: str
    more: Path | None
    """Additional rows."""
    evaluation: str
    common: str
    """The input that defines groups; all rows of a group are in one part."""
    made: Callable[[Sequence[EvaluationRow], int], list[EvaluationRow]]
    unanswerable: Callable[[Mapping[str, Any]], bool]
    """Returns whether the expected record has no answer."""


def pooled(rows: Sequence[EvaluationRow], seed: int = 0) -> list[EvaluationRow]:
    """Returns questions with a pool of passages: its own, and others of the other set and the same part, in random
    order.
    """
    found = []
    for row in rows:
        own, draw = row.input["context"], random.Random(f"{seed} {row.id}")
        kind = (later(_group(own)), not written(row))
        others = sorted(
            {one.input["context"] for one in rows if (later(_group(one.input["context"])), written(one)) == kind}
        )
        pool = [own, *draw.sample(others, min(POOL - 1, len(others)))]
        draw.shuffle(pool)
        documents = [{"source": digest(text.encode())[:8], "text": text} for text in pool]
        found.append(
            EvaluationRow(
                row.id, {"question": row.input["question"], "documents": documents}, row.expected, _group(own)
            )
        )
    return found


def written(row: EvaluationRow) -> bool:
    """Returns whether a row is from the written passages."""
    return row.id.startswith("written-")


def as_they_are(rows: Sequence[EvaluationRow], seed: int = 0) -> list[EvaluationRow]:
    """Returns rows with the workflow's inputs, grouped by table."""
    return [EvaluationRow(row.id, row.input, row.expected, _group(row.input["table"])) for row in rows]


WORKFLOWS = (
    Asked(
        "answer_from_documents",
        "xquad_en",
        WRITTEN,
        "answers",
        "context",
        pooled,
        lambda expected: not expected["answers"],
    ),
    Asked("financial_question", "tatqa", None, "", "table", as_they_are, lambda expected: False),
)


def _group(common: Any) -> str:
    return digest(canonical(common))


def later(group: str) -> bool:
    """Returns whether the rows of a group are in the testing third."""
    return int(group[:8], 16) % 3 == 0


def rows_of(one: Asked, data: Path, most: int) -> EvaluationSet:
    """Returns the rows for a workflow."""
    test = sample_rows(read_evaluation_set(data / one.set / "dev.jsonl"), most, 0)
    rows = [*test.rows, *(sample_rows(read_evaluation_set(one.more), most, 0).rows if one.more else [])]
    return EvaluationSet(f"{one.set}, {len(rows)} rows", test.digest, one.made(rows, 0))


def kept(path: Path) -> dict[str, tuple[Any, float | None]]:
    """Reads the answers of a file by row."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return {line["id"]: (line.get("output"), line.get("score")) for line in lines}


async def collect(asked: Sequence[Asked], tests: Mapping[str, EvaluationSet], out: Path, fleet: str | None) -> None:
    """Collects missing answers. Raises `FleetError` if no server is available."""
    waiting = StatusLine()
    settings = Settings.load({"fleet": fleet}, start=machine.ROOT)
    async with Orchestra.open(settings, fleet="start", progress=waiting) as orchestra:
        for one in asked:
            path, test = out / f"{one.name}.answers.jsonl", tests[one.name]
            found = kept(path)
            open_ = EvaluationSet(test.name, test.digest, [row for row in test.rows if row.id not in found])
            print_note(f"{one.name}: {len(open_.rows):,} rows to ask")
            runs = orchestra.options(purpose=EVALUATION_PURPOSE, accept=0.0)
            with ProgressMeter(len(open_.rows), 0) as meter:
                arm = await evaluate_arm(
                    runs, one.name, orchestra.find(one.name), open_, AT_ONCE, lambda *_: meter.advance()
                )
            told = [
                {"id": row.id, "abstained": True}
                if case.output is None
                else {"id": row.id, "output": case.output, "score": case.score}
                for row, case in zip(open_.rows, arm.cases, strict=True)
            ]
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in told)
            print_note(f"{one.name}: {arm.seconds:.0f} s, {arm.failed} failed {arm.reason}")
    waiting.close()


def right_of(project: Project, one: Asked) -> Correctness:
    """Returns the criterion of correctness of a workflow."""
    return correctness_of(WorkflowTarget.of(project, project.graph(one.name)).card, one.evaluation)


def judged(
    one: Asked, test: EvaluationSet, answers: Mapping[str, tuple[Any, float | None]], right: Correctness
) -> list[tuple[str, ...]]:
    """Returns the lines of the table for one workflow."""
    there = EvaluationSet(test.name, test.digest, [row for row in test.rows if row.id in answers])
    cases = [_case(row, *answers[row.id]) for row in there.rows]
    found = dict(zip((row.id for row in there.rows), certification_items(there, cases, right), strict=True))
    judge = {row.id for row in there.rows if later(row.group)}
    nowhere = {row.id for row in there.rows if one.unanswerable(row.expected)}
    making = [item for key, item in found.items() if key not in judge]
    rest = [item for key, item in found.items() if key in judge]
    return [
        _line(f"{one.name}, {one.set}{' and written' if one.more else ''}", alpha, making, rest, nowhere)
        for alpha in ALPHAS
    ]


def unanswered(one: Asked, test: EvaluationSet, answers: Mapping[str, tuple[Any, float | None]]) -> str:
    """Returns the number of unanswerable rows with an answer if nothing is withheld, and the highest confidence among
    them.
    """
    asked = [row for row in test.rows if row.id in answers and one.unanswerable(row.expected)]
    scores = [score for output, score in (answers[row.id] for row in asked) if output is not None and score is not None]
    surest = f", the surest at {max(scores):.2f}" if scores else ""
    return (
        f"{one.name}: of {len(asked)} questions that are answered nowhere {len(scores)} get an answer where nothing "
        f"is withheld{surest}."
    )


def _case(row: EvaluationRow, output: Any, score: float | None) -> Case:
    return Case(row.expected, None if output is None or score is None else as_record(output), score)


def _line(
    name: str, alpha: float, making: Sequence[ScoredAnswer], rest: Sequence[ScoredAnswer], nowhere: set[str]
) -> tuple[str, ...]:
    made = certify(making, CertificationTerms(alpha, 0.05, TUNING, CALIBRATION), rounds=0)
    rows = f"{len(making)}, {format_percent(made.bound.min_withheld)}"
    outcome = made.outcome
    if not isinstance(outcome, Certified):
        said = (
            f"none: {outcome.reason}"
            if isinstance(outcome, Infeasible)
            else f"none, too little data: about {outcome.rows_needed:,} rows are needed"
        )
        return name, format_percent(alpha), rows, said, "", "", ""
    seen = RankedAnswers(rest).result_at(outcome.threshold_test.threshold)
    low, high = confidence_interval(seen.errors, seen.accepted)
    asked = [item for item in rest if item.id in nowhere]
    withheld = sum(item.score is None or item.score < outcome.threshold_test.threshold for item in asked)
    return (
        name,
        format_percent(alpha),
        rows,
        f"{outcome.threshold_test.threshold:.4g}, covers {format_percent(outcome.coverage)}",
        f"{seen.accepted} of {len(rest)} accepted, {format_percent(seen.coverage)}",
        f"{seen.errors}, {format_percent(seen.risk or 0)} [{format_percent(low)}, {format_percent(high)}]",
        f"{withheld} of {len(asked)}, {format_percent(withheld / len(asked))}" if asked else "-",
    )


def table(lines: Sequence[tuple[str, ...]]) -> str:
    """Returns the Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (HEAD, ("---",) * len(HEAD), *lines))


def main() -> int:
    """Collects, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*(one.name for one in WORKFLOWS), []], help="names; default: all")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=0, help="maximal number of rows of each set; 0 for all")
    parser.add_argument("--fleet", help="a name in configs/, or a path")
    parser.add_argument("--out", type=Path, help="the folder of the answers; default: in the user's cache")
    parser.add_argument("--offline", action="store_true", help="use only stored answers")
    parser.add_argument("--docs", type=Path, help="write the table into the pages of this folder")
    given = parser.parse_args()
    asked = [one for one in WORKFLOWS if not given.names or one.name in given.names]
    out = given.out or machine.folder() / "certified_workflows"
    out.mkdir(parents=True, exist_ok=True)
    tests = {one.name: rows_of(one, given.data, given.rows) for one in asked}
    for one in asked:
        lines = [
            {"id": row.id, "input": row.input, "expected": row.expected, "group": row.group}
            for row in tests[one.name].rows
        ]
        (out / f"{one.name}.rows.jsonl").write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8"
        )
    if not given.offline:
        adopted = running(given.fleet)
        try:
            asyncio.run(collect(asked, tests, out, given.fleet))
        finally:
            if not adopted and running(given.fleet):
                stop(given.fleet)
    project = Project.load(Settings.load({"fleet": given.fleet}, start=machine.ROOT))
    told = [
        judged(one, tests[one.name], kept(out / f"{one.name}.answers.jsonl"), right_of(project, one)) for one in asked
    ]
    said = table([line for lines in told for line in lines])
    asides = [unanswered(one, tests[one.name], kept(out / f"{one.name}.answers.jsonl")) for one in asked if one.more]
    said = "\n\n".join([said, *asides])
    print(said)
    if given.docs:
        write(given.docs / "concepts" / "certificates.md", "workflows", said, "bench.certified_workflows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
