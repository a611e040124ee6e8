"""Labelled claims: recorded answers whose parts are labelled correct or wrong. They calibrate the threshold of partial
answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from orchestra.agents.card import Card
from orchestra.core import labels
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.protocols import EvidenceSource, collect_sources
from orchestra.learn.certification.independent import IndependentRows, select_independent
from orchestra.learn.data.dataset import dataset_label_of
from orchestra.learn.data.jsonl import JsonLinesFormat
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet
from orchestra.schema.strict_json import digest
from orchestra.verification import entailment, partial_answers
from orchestra.verification.answer_parts import AnswerPart, split_answer
from orchestra.verification.certificates.conformal import CalibrationAnswer
from orchestra.verification.certificates.conformal import ScoredPart as Scored
from orchestra.verification.entailment import CLAIM, EVIDENCE, JudgeReply

HINT = '{"id": "1", "input": {...}, "output": ..., "claims": [{"claim": "It was built in 1889.", "right": true}]}'


class ClaimLabel(msgspec.Struct, frozen=True):
    """The label of a part of an answer."""

    claim: str
    right: bool | None = None
    score: float | msgspec.UnsetType | None = msgspec.UNSET
    """The check's score in [0, 1]; null if the check does not pass; left out if the check has to be run."""


class _JudgedAnswerLine(msgspec.Struct, frozen=True):
    id: str
    input: dict[str, Any]
    output: Any
    claims: tuple[ClaimLabel, ...] | None = None
    group: str = ""


_LINE_FORMAT = JsonLinesFormat(_JudgedAnswerLine, "V006", "judged answer", HINT)


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """An answer, its parts, and a label for each part."""

    id: str
    input: dict[str, Any]
    output: Any
    evidence: tuple[EvidenceSource, ...]
    parts: tuple[AnswerPart, ...]
    labels: tuple[ClaimLabel, ...]
    group: str = ""
    """The group of the row; rows of a group are not independent."""


@dataclass(frozen=True, slots=True)
class JudgedAnswerFile:
    """The rows of a file."""

    name: str
    digest: str
    rows: tuple[JudgedAnswer, ...]
    is_labelled: bool
    """Whether the rows have labels; if not, a person has to add them."""
    is_scored: bool
    """Whether every label has a score, so no judge has to be called."""
    label: labels.Label | None = None
    """The confidentiality label of the data set that the file belongs to; None if it belongs to none."""

    def select_independent(self, card: Card, seed: int, field: str = "") -> tuple[JudgedAnswerFile, IndependentRows]:
        """Selects one answer for each input, and for each text or other group.

        Raises:
            InputError: V026 if `field` is not an input.
        """
        test = EvaluationSet(
            self.name, self.digest, [EvaluationRow(row.id, row.input, {}, row.group) for row in self.rows]
        )
        independent_rows = select_independent(test, card, seed, field)
        ids = {question.id for question in independent_rows.test.rows}
        return replace(self, rows=tuple(row for row in self.rows if row.id in ids)), independent_rows

    def judge_inputs(self) -> EvaluationSet:
        """Returns the inputs for the judge: each claim of each part with each piece of evidence."""
        questions = [EvaluationRow(str(at), question, {}) for at, question in enumerate(self._judge_questions())]
        return EvaluationSet(self.name, self.digest, questions, label=self.label)

    def _judge_questions(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            texts = [
                row.evidence[chunk.source].text[chunk.start : chunk.end]
                for chunk in entailment.split_evidence(row.evidence)
            ]
            yield from (
                {CLAIM: claim.text, EVIDENCE: text} for part in row.parts for claim in part.claims for text in texts
            )

    def scored_answers(self, replies: Sequence[JudgeReply] = ()) -> list[CalibrationAnswer]:
        """Returns the answers with their scores, from the file or from the replies to `judge_inputs`."""
        line, calibration_answers = iter(replies), []
        for row in self.rows:
            scores = [label.score if isinstance(label.score, float | int) else None for label in row.labels]
            if not self.is_scored:
                claims, count = (
                    [claim for part in row.parts for claim in part.claims],
                    len(entailment.split_evidence(row.evidence)),
                )
                verdicts = entailment.claim_verdicts(
                    claims, row.evidence, [next(line) for _ in range(len(claims) * count)]
                )
                scores = [
                    partial_answers.part_score(verdict)
                    for verdict in partial_answers.weakest_verdicts(row.parts, verdicts)
                ]
            rated_labels = zip(scores, row.labels, strict=True)
            calibration_answers.append(
                CalibrationAnswer(row.id, tuple(Scored(score, not label.right) for score, label in rated_labels))
            )
        return calibration_answers

    def label_template(self) -> Iterator[bytes]:
        """Returns the rows as lines of a file to be labelled."""
        for row in self.rows:
            claims = [{"claim": part.text, "right": None} for part in row.parts]
            group = {"group": row.group} if row.group else {}
            yield msgspec.json.encode(
                {"id": row.id, **group, "input": row.input, "output": row.output, "claims": claims}
            )


def read(path: Path, card: Card) -> JudgedAnswerFile:
    """Reads the rows of a file.

    Raises:
        InputError: V006 with the location of the error.
    """
    data, rows, bare, known_keys = _LINE_FORMAT.read_bytes(path), list[JudgedAnswer](), 0, set[str]()
    for location, line in _LINE_FORMAT.parse_lines(path, data):
        if line.id in known_keys:
            raise InputError(
                "V006", f"two rows have the id {line.id!r}", location=location, hint="count each answer once"
            )
        known_keys.add(line.id)
        rows.append(_judged_answer(card, line, location))
        bare += line.claims is None
    if not rows:
        raise InputError("V006", f"{path} has no row", hint=HINT)
    if bare not in (0, len(rows)):
        raise InputError("V006", f"{bare} of {len(rows)} rows of {path.name} have no `claims`", hint=HINT)
    score_kinds = {isinstance(label.score, msgspec.UnsetType) for row in rows for label in row.labels}
    if len(score_kinds) > 1:
        raise InputError(
            "V006", f"some claims of {path.name} have a score, and some have none", hint="score all claims, or none"
        )
    return JudgedAnswerFile(
        path.name, digest(data), tuple(rows), not bare, score_kinds == {False}, dataset_label_of(path)
    )


def _judged_answer(card: Card, line: _JudgedAnswerLine, location: SourceLocation) -> JudgedAnswer:
    evidence = collect_sources(line.input.get(card.evidence or "")) or collect_sources(line.input)
    answer_parts = tuple(split_answer(line.output, card.output_schema))
    labels = line.claims or ()
    if line.claims is None:
        return JudgedAnswer(line.id, line.input, line.output, evidence, answer_parts, (), line.group)
    if len(labels) != len(answer_parts):
        raise InputError(
            "V006",
            f"the output of row {line.id!r} has {len(answer_parts)} parts, and {len(labels)} are labelled",
            location=location,
            hint=HINT,
        )
    for part, label in zip(answer_parts, labels, strict=True):
        if " ".join(label.claim.split()) != " ".join(part.text.split()):
            reason = f"row {line.id!r} labels {label.claim!r}, and its output has {part.text!r}"
            raise InputError("V006", reason, location=location, hint="label the parts of the output in order")
        if label.right is None:
            raise InputError(
                "V006",
                f"the claim {label.claim!r} of row {line.id!r} has no label",
                location=location,
                hint=HINT,
            )
        if isinstance(label.score, float | int) and not 0 <= label.score <= 1:
            raise InputError("V006", f"the score is {label.score}, and must be in [0, 1]", location=location, hint=HINT)
    return JudgedAnswer(line.id, line.input, line.output, evidence, answer_parts, labels, line.group)
