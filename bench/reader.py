"""`generative_reader` on extractive question answering: baselines without a model, the untuned base, and the reader
with its adapter.

    python -m bench.reader DATA/xquad_en/dev.jsonl [--adapter FOLDER] [--rows 263] [--keep FOLDER]

DATA has rows {"id", "input": {"question", "context"}, "expected": {"answers": [{"text"}]}}; without answers the passage
has none. Each arm is one `orchestra batch generative_reader`; null and withheld answers count as abstentions. Intervals
are 95 % bootstrap intervals over the rows. Needs the fleet, which it starts or adopts.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.metrics import squad_scores
from bench.sentence_rule import SentenceRule

ROOT = Path(__file__).resolve().parents[1]
NAME = "generative_reader"
READER = ROOT / "agents" / NAME
RESAMPLES = 2000
HEAD = (
    "| reader, SmolLM2-135M | EM | F1 | no-answer accuracy | abstained | accepted and wrong | EM, 95 % |\n"
    "|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Arm:
    """One way to read the rows."""

    name: str
    tuned: bool
    flags: tuple[str, ...]


ARMS = (
    Arm("untuned base, evidence-compiled", False, ("--constraint", "evidence")),
    Arm("generative_reader, evidence-compiled", True, ("--constraint", "evidence")),
    Arm("generative_reader, JSON schema, then checks", True, ("--constraint", "schema")),
)


@dataclass(frozen=True)
class Score:
    """Shares in [0, 1] of all rows; `timeout_error` of the rows without an answer."""

    exact: float
    f1: float
    no_answer: float
    abstained: float
    wrong: float
    """Accepted and wrong."""
    spread: tuple[float, float] = (0.0, 0.0)
    """The interval of `exact`."""

    def row(self, name: str) -> str:
        """Returns a line of the table."""
        shares = " | ".join(
            f"{share:.3f}" for share in (self.exact, self.f1, self.no_answer, self.abstained, self.wrong)
        )
        return f"| {name} | {shares} | {self.spread[0]:.3f}–{self.spread[1]:.3f} |"


def score(rows: Sequence[dict[str, Any]], answers: Sequence[str | None]) -> Score:
    """Scores the answers; None is an abstention."""
    gold = [[answer["text"] for answer in row["expected"]["answers"]] for row in rows]
    scores = [squad_scores(wanted, given) for wanted, given in zip(gold, answers, strict=True)]
    silent = [given is None for wanted, given in zip(gold, answers, strict=True) if not wanted]
    return Score(
        exact=sum(exact for exact, _ in scores) / len(rows),
        f1=sum(f1 for _, f1 in scores) / len(rows),
        no_answer=sum(silent) / max(1, len(silent)),
        abstained=sum(given is None for given in answers) / len(rows),
        wrong=sum(given is not None and not exact for given, (exact, _) in zip(answers, scores, strict=True))
        / len(rows),
        spread=interval([exact for exact, _ in scores]),
    )


def interval(values: Sequence[float], seed: int = 5) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of a mean."""
    chance = random.Random(seed)
    means = sorted(sum(chance.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    return means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES) - 1]


def furnish(place: Path, adapter: Path | None) -> None:
    """Creates a project whose reader has this adapter, or none."""
    folder = place / "agents" / NAME
    folder.mkdir(parents=True)
    text = re.sub(r"^adapter:.*\n", "", (READER / "agent.yaml").read_text("utf-8"), flags=re.MULTILINE)
    if adapter is not None:
        shutil.copytree(adapter, folder / "adapter")
        text += "adapter: adapter\n"
    (folder / "agent.yaml").write_text(text, "utf-8")
    shutil.copy(READER / "prompt.md", folder)
    (place / "orchestra.toml").write_text("", "utf-8")


def answers_of(path: Path) -> dict[str, str | None]:
    """Returns the answers in a batch's results by row id; None for missing and empty ones."""
    found: dict[str, str | None] = {}
    for line in path.read_text("utf-8").splitlines():
        result = json.loads(line)
        output = result["output"] or {}
        found[result["id"]] = None if result["abstained"] else output.get("answer") or None
    return found


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--train", type=Path, help="training rows of the baseline; default: train.jsonl beside DATA, if it exists"
    )
    parser.add_argument("--adapter", type=Path, help="another adapter than the reader's own")
    parser.add_argument("--rows", type=int, default=0, help="only the first rows; 0 for all")
    parser.add_argument("--keep", type=Path, help="a folder in which the results are stored; default: a temporary one")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.data.read_text("utf-8").splitlines()]
    rows = rows[: given.rows or len(rows)]
    with tempfile.TemporaryDirectory() as folder:
        place = given.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        source = place / "rows.jsonl"
        source.write_text("".join(json.dumps({"id": row["id"], "input": row["input"]}) + "\n" for row in rows), "utf-8")
        print(f"{len(rows)} rows of {given.data.parent.name}/{given.data.name}\n")
        print(HEAD)
        print(score(rows, [None] * len(rows)).row("floor: always “not found”"))
        fitted = given.train or given.data.with_name("train.jsonl")
        if fitted.exists():
            rule = SentenceRule([json.loads(line) for line in fitted.read_text("utf-8").splitlines()])
            print(score(rows, [rule.answer(row) for row in rows]).row("floor: sentence rule, no model"), flush=True)
        adapter = given.adapter or READER / "adapter"
        projects = {False: Path(folder) / "untuned", True: Path(folder) / "tuned"}
        furnish(projects[False], None)
        if adapter.is_dir():
            furnish(projects[True], adapter.resolve())
        for number, arm in enumerate(arm for arm in ARMS if projects[arm.tuned].exists()):
            output = place.resolve() / f"arm{number}.jsonl"
            command = [
                sys.executable,
                "-m",
                "orchestra.cli",
                "batch",
                NAME,
                "-i",
                str(source.resolve()),
                "-o",
                str(output),
                *arm.flags,
            ]
            subprocess.run(command, check=True, stdout=sys.stderr, cwd=projects[arm.tuned])
            found = answers_of(output)
            print(score(rows, [found[row["id"]] for row in rows]).row(arm.name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
