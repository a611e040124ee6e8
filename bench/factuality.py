"""Partial answers on real claims with real scores: the share of kept parts, and of answers with a wrong kept part, at
each guarantee.

    python -m bench.factuality --data FOLDER [--docs FOLDER] [--offline] [--wording]

Runs the shipped agent `entailment`, in this process, on the dev rows of BEGIN and Factcheck-GPT; answers are stored in
a file and reused. Neither set has answers with several claims, so they are composed: an answer is all replies of BEGIN
to one text of knowledge (without `generic` ones), or all five passages for a claim of Factcheck-GPT, each of which
supports it or does not.

`--wording` uses only the scores of the agent's linear model over wording
(`orchestra.agents.inference.overlap_features`), and needs no server.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench import machine
from bench.verification import write
from orchestra import Orchestra
from orchestra.agents.card import Card
from orchestra.core.protocols import EvidenceSource
from orchestra.core.settings import Settings
from orchestra.learn.evaluation.evaluation import EVALUATION_PURPOSE, evaluate_arm
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet
from orchestra.verification import entailment, partial_answers
from orchestra.verification.certificates import conformal
from orchestra.verification.certificates.certify import confidence_interval, format_percent
from orchestra.verification.certificates.conformal import CalibrationAnswer, ScoredPart
from orchestra.verification.entailment import CLAIM, DECISION_THRESHOLD, EVIDENCE, AnswerClaim, JudgeReply

ALPHAS = (0.2, 0.1, 0.05, 0.02)
ROUNDS = 2_000
GROUPS = {"begin": EVIDENCE, "factcheckgpt": CLAIM}
"""The input by which pairs are grouped into answers."""


@dataclass(frozen=True)
class Pair:
    """A claim with its evidence, and whether the evidence supports it."""

    id: str
    claim: str
    evidence: str
    right: bool
    group: str

    @property
    def questions(self) -> list[dict[str, str]]:
        """Returns the inputs, one for each piece of the evidence."""
        source = (EvidenceSource(self.evidence),)
        return [
            {CLAIM: self.claim, EVIDENCE: self.evidence[one.start : one.end]}
            for one in entailment.split_evidence(source)
        ]


def pairs(data: Path, name: str) -> Iterator[Pair]:
    """Reads the dev split of a set."""
    for line in (data / name / "dev.jsonl").open("rb"):
        row = msgspec.json.decode(line)
        given, label = row["input"], row["expected"]["label"]
        if row["expected"].get("original") != "Generic":
            yield Pair(row["id"], given[CLAIM], given[EVIDENCE], label in ("supported", "support"), given[GROUPS[name]])


async def asked(found: Sequence[Pair], file: Path) -> None:
    """Runs the missing pairs and stores the answers."""
    known = answers(file)
    open_ = [one for one in found if one.id not in known]
    if not open_:
        return
    card = Card.load(machine.ROOT / "agents" / "entailment").with_settings(checks=(), accept=None, otherwise=())
    from orchestra.workflows.python.steps import Agent

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"journal": str(Path(folder) / "journal.db"), "concurrency": 32}, start=machine.ROOT)
        async with Orchestra.open(settings, progress=None) as orchestra:
            given = [(one.id, inputs) for one in open_ for inputs in one.questions]
            test = EvaluationSet(
                "claims", "", [EvaluationRow(str(at), inputs, {}) for at, (_, inputs) in enumerate(given)]
            )
            arm = await evaluate_arm(
                orchestra.options(purpose=EVALUATION_PURPOSE), "entailment", Agent.from_card(card), test, 32
            )
    said: dict[str, list[Any]] = {}
    for (name, _), case in zip(given, arm.cases, strict=True):
        said.setdefault(name, []).append(case.output)
    with file.open("ab") as lines:
        for name, outputs in said.items():
            lines.write(msgspec.json.encode({"id": name, "outputs": outputs}) + b"\n")
    print(f"{len(given)} questions in {arm.seconds:.0f} s, {arm.failed} failed", file=sys.stderr)


def worded(found: Sequence[Pair]) -> dict[str, list[Any]]:
    """Returns the scores from wording alone, as the agent computes them."""
    calibration = Card.load(machine.ROOT / "agents" / "entailment").current_calibration
    assert calibration is not None, "the shipped agent has one"
    assert calibration.words is not None, "and it has a part about words"
    said: dict[str, list[Any]] = {}
    for one in found:
        told = [
            dict(zip(calibration.choices, calibration.words.probabilities(inputs), strict=True))
            for inputs in one.questions
        ]
        said[one.id] = [{"p_supported": chances["supported"], "p_refute": chances["contradicted"]} for chances in told]
    return said


def answers(file: Path) -> dict[str, list[Any]]:
    """Returns the agent's answers by pair id."""
    return (
        {row["id"]: row["outputs"] for row in map(msgspec.json.decode, file.read_bytes().splitlines())}
        if file.exists()
        else {}
    )


def grouped(found: Sequence[Pair], known: dict[str, list[Any]]) -> list[CalibrationAnswer]:
    """Returns the pairs as answers of several parts, with their scores."""
    groups: dict[str, list[ScoredPart]] = {}
    for one in found:
        replies = [
            JudgeReply(output) if output is not None else JudgeReply(error="no answer") for output in known[one.id]
        ]
        [verdict] = entailment.claim_verdicts([AnswerClaim(one.claim, "")], (EvidenceSource(one.evidence),), replies)
        groups.setdefault(one.group, []).append(ScoredPart(partial_answers.part_score(verdict), not one.right))
    return [CalibrationAnswer(f"{at}", tuple(parts)) for at, parts in enumerate(groups.values())]


HEAD = """\
| set | answers, parts | wrong | guaranteed | calibrated | kept from | kept of the rest | something wrong in | \
resplits: in | kept |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


def table(sets: dict[str, list[CalibrationAnswer]]) -> str:
    """Returns one line for each set and guarantee."""
    lines = [HEAD]
    for name, rows in sets.items():
        for alpha in ALPHAS:
            found = conformal.calibrate(rows, alpha, floor=DECISION_THRESHOLD, rounds=ROUNDS)
            whole = found.unfiltered
            wrong = format_percent(whole.wrong_kept / whole.parts)
            begin = (
                f"| {name} | {whole.answers}, {whole.parts:,} | {wrong} | {format_percent(1 - alpha)} | "
                f"{found.calibration} "
            )
            if found.threshold is None or found.held_out is None or found.resplits is None:
                lines.append(f"{begin}| none: {found.reason} | | | | |")
                continue
            judged, splits = found.held_out, found.resplits
            low, high = confidence_interval(judged.violations, judged.answers)
            broken = (
                f"{judged.violations} of {judged.answers}, {format_percent(judged.violation_rate)} "
                f"[{format_percent(low)}, {format_percent(high)}]"
            )
            kept = f"{format_percent(judged.kept_share)}, {judged.empty} answers withheld"
            lines.append(
                f"{begin}| {found.threshold:.4g} | {kept} | {broken} | {format_percent(splits.violation_rate)} | "
                f"{format_percent(splits.kept_share)} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Runs the agent and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with one folder for each set")
    parser.add_argument("--docs", type=Path, help="write the table into certificates.md of this folder")
    parser.add_argument("--offline", action="store_true", help="use only stored answers; missing ones are an error")
    parser.add_argument("--wording", action="store_true", help="use no server; score by wording alone")
    given = parser.parse_args()
    out = machine.folder() / "factuality"
    out.mkdir(parents=True, exist_ok=True)
    sets = {}
    for name in GROUPS:
        found = list(pairs(given.data, name))
        if given.wording:
            sets[f"{name}, by its words alone"] = grouped(found, worded(found))
            continue
        if not given.offline:
            asyncio.run(asked(found, out / f"{name}.jsonl"))
        sets[name] = grouped(found, answers(out / f"{name}.jsonl"))
    told = table(sets)
    print(told)
    if given.docs:
        write(given.docs / "concepts" / "certificates.md", "factuality", told, "bench.factuality")
    return 0


if __name__ == "__main__":
    sys.exit(main())
