"""End-to-end evaluation of workflows on the rows that `bench/evaluations/NAME.yaml` names.

    python -m bench.workflows --data FOLDER [NAME ...] [--part train] [--rows 200] [--fleet NAME] [--dry]

FOLDER has one folder for each set, as for `bench.evaluate`. A file names the workflow, and has evaluations like an
agent's `evaluation.yaml`. `expect` derives further correct values from those of the rows; with `untuned: true` the same
workflow is also run with agents without adapters. The tables are written into docs/evaluation/workflows.md, and a line
for each metric into the README; with `--part`, `--rows` or `--dry` they are only printed. It needs the fleet if a
workflow calls a language model.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from bench.evaluate import LIMIT, minutes, running, stop
from bench.evaluation_tables import Marks, Measured, between, card_section, page_lines, page_with
from bench.machine import ROOT, now
from orchestra import Orchestra
from orchestra.cli.output import ProgressMeter, StatusLine, print_note
from orchestra.core.settings import Settings
from orchestra.learn.evaluation.config import Evaluation
from orchestra.learn.evaluation.evaluation import (
    EVALUATION_PURPOSE,
    INCUMBENT,
    UNTUNED,
    Arm,
    build_report,
    evaluate_arm,
    sample_rows,
)
from orchestra.learn.evaluation.metrics import Case, build_metric
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet, read_selected_rows
from orchestra.schema.strict_yaml import load_yaml

FOLDER, DOCS, PAGE = ROOT / "bench" / "evaluations", ROOT / "docs" / "evaluation" / "workflows.md", ROOT / "README.md"
Key: TypeAlias = tuple[str, str]
"""A workflow and the name of its evaluation."""
README_MARKS: Marks = "<!-- begin:workflow-evaluations -->", "<!-- end:workflow-evaluations -->"


class Expected(BaseModel):
    """A correct value, derived from a value of the rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    of: str
    """The key of the expected record that it is derived from."""
    values: Mapping[str, Annotated[tuple[str, ...], Field(strict=False)]] = {}
    """Correct values by value of that key."""
    otherwise: str
    """The correct value for all others."""

    def made(self, expected: Mapping[str, Any]) -> str:
        """Returns the correct value of a row."""
        value = expected.get(self.of)
        return next(
            (right for right, values in self.values.items() if isinstance(value, str) and value in values),
            self.otherwise,
        )


class Asked(Evaluation):
    """An evaluation of a workflow."""

    expect: Mapping[str, Expected] = {}


class File(BaseModel):
    """A file of `bench/evaluations`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    workflow: str
    untuned: bool = False
    """Whether the workflow is also run with agents without adapters."""
    evaluations: Mapping[str, Asked]


def read(path: Path) -> File:
    """Reads a file. Raises pydantic's `ValidationError` if it is invalid."""
    return File.model_validate(load_yaml(path.read_bytes(), str(path)).value)


def test_of(asked: Asked, data: Path, part: str, rows: int | None) -> EvaluationSet:
    """Returns the rows with derived correct values. Raises `InputError` if they are missing."""
    assert asked.rows is not None, "an evaluation of a workflow names its rows"
    where = asked.rows.model_copy(update={"file": asked.rows.file.replace("dev.", f"{part}."), "train": ""})
    test = sample_rows(read_selected_rows(data, where), where.sample if rows is None else rows, where.seed)
    questions = [
        replaced(one, {key: value.made(one.expected) for key, value in asked.expect.items()}) for one in test.rows
    ]
    return replace(test, rows=questions)


def replaced(question: EvaluationRow, more: Mapping[str, str]) -> EvaluationRow:
    """Returns a row with additional correct values."""
    return EvaluationRow(question.id, question.input, {**question.expected, **more})


def floors(asked: Asked, test: EvaluationSet) -> list[Arm]:
    """Returns a constant baseline: the most frequent correct answer of this set, which a workflow does not know."""
    often = {
        key: Counter(question.expected[key] for question in test.rows).most_common(1)[0][0] for key in asked.expect
    }
    cases = [Case(question.expected, often) for question in test.rows]
    return [Arm("floor: what is right most often in this set", cases)] if often else []


def bare(folder: Path) -> Path:
    """Creates a project in a folder with the same workflows and agents without adapters."""
    for path in sorted((ROOT / "agents").iterdir()):
        own = (path / "agent.yaml").read_text("utf-8") if (path / "agent.yaml").is_file() else ""
        if "\nadapter:" in own:
            (folder / "agents" / path.name).mkdir(parents=True)
            (folder / "agents" / path.name / "agent.yaml").write_text(re.sub(r"(?m)^adapter:.*\n?", "", own), "utf-8")
            shutil.copy(path / "prompt.md", folder / "agents" / path.name)
    shutil.copytree(ROOT / "workflows", folder / "workflows")
    (folder / "orchestra.toml").write_text("", "utf-8")
    return folder


async def answers(
    name: str, files: Sequence[File], tests: Mapping[Key, EvaluationSet], settings: Settings
) -> dict[Key, Arm]:
    """Returns the answers of these workflows to all rows. Raises `FleetError` if no server is available."""
    found: dict[Key, Arm] = {}
    waiting = StatusLine()
    async with Orchestra.open(settings, fleet="start", progress=waiting) as orchestra:
        for file in files:
            for key in file.evaluations:
                test = tests[file.workflow, key]
                print_note(f"{file.workflow}, {key}, {name}: {len(test.rows):,} rows")
                runs, step = orchestra.options(purpose=EVALUATION_PURPOSE), orchestra.find(file.workflow)
                try:
                    async with asyncio.timeout(LIMIT):
                        with ProgressMeter(len(test.rows), 0) as meter:
                            arm = await evaluate_arm(
                                runs, name, step, test, settings.concurrency, lambda *_: meter.advance()
                            )
                except TimeoutError:
                    print_note(f"failed: {file.workflow}, {key}, {name}: not done after {LIMIT} s")
                    continue
                if arm.failed:
                    print_note(f"{file.workflow}, {key}, {name}: {arm.failed} rows failed; the first: {arm.reason}")
                found[file.workflow, key] = arm
    waiting.close()
    return found


async def measured(
    files: Sequence[File], tests: Mapping[Key, EvaluationSet], fleet: str | None, folder: Path
) -> list[Measured]:
    """Returns the results of workflows that finished in time. Raises `FleetError` if no server is available."""
    untuned = [file for file in files if file.untuned]
    before = (
        await answers(UNTUNED, untuned, tests, Settings.load({"fleet": fleet}, start=bare(folder))) if untuned else {}
    )
    own = await answers(INCUMBENT, files, tests, Settings.load({"fleet": fleet}, start=ROOT))
    found = []
    for file in files:
        for key, asked in file.evaluations.items():
            if (file.workflow, key) not in own:
                continue
            test = tests[file.workflow, key]
            arms = [
                *floors(asked, test),
                *(arms[file.workflow, key] for arms in (before, own) if (file.workflow, key) in arms),
            ]
            metrics = [build_metric(title, measure) for title, measure in asked.metrics.items()]
            said = build_report(file.workflow, test, metrics, arms, asked.rows.seed if asked.rows else 0).as_data()
            again = f"python -m bench.workflows {file.workflow} --data DATA"
            found.append(Measured(file.workflow, key, asked, said, now().partition(", load")[0], again))
    return found


def section(text: str, name: str, found: Sequence[Measured]) -> str:
    """Returns the page with the tables of a workflow between its markers."""
    marks = f"<!-- evaluation:{name} -->", f"<!-- end:evaluation:{name} -->"
    return between(text, marks, "\n" + "\n".join(map(card_section, found)) + "\n", heading=f"## `{name}`\n\n")


def main() -> int:
    """Measures and writes."""
    known = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*known, []], help="names; default: all")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", default="dev", help="the split of the sets")
    parser.add_argument("--rows", type=int, help="another number of rows; 0 for all")
    parser.add_argument("--fleet", help="a name in configs/, or a path")
    parser.add_argument("--dry", action="store_true", help="print only")
    given = parser.parse_args()
    files = [read(known[name]) for name in given.names or known]
    tests = {
        (file.workflow, key): test_of(one, given.data, given.part, given.rows)
        for file in files
        for key, one in file.evaluations.items()
    }
    adopted = running(given.fleet)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(measured(files, tests, given.fleet, Path(folder)))
    finally:
        if not adopted and running(given.fleet):
            stop(given.fleet)
    if given.dry or given.part != "dev" or given.rows is not None:
        print("\n".join(map(card_section, found)))
        return 0
    text = DOCS.read_text("utf-8")
    done = [
        file
        for file in files
        if all((file.workflow, key) in {(one.agent, one.name) for one in found} for key in file.evaluations)
    ]
    found = [one for one in found if one.agent in {file.workflow for file in done}]
    for file in done:
        text = section(text, file.workflow, [one for one in found if one.agent == file.workflow])
    DOCS.write_text(text, "utf-8")
    PAGE.write_text(page_with(PAGE.read_text("utf-8"), found, known, README_MARKS), "utf-8")
    print("\n".join(line for one in found for line in page_lines(one)))
    print(f"{minutes(sum(one.arms[INCUMBENT]['seconds'] for one in found))} of asking", file=sys.stderr)
    return 0 if len(done) == len(files) else 1


if __name__ == "__main__":
    sys.exit(main())
