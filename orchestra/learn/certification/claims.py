"""Claims that somebody has judged: recorded answers, part by part right or wrong, as what a back-off threshold is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from orchestra.agents.card import Card
from orchestra.core import labels
from orchestra.core.errors import InputError, Place
from orchestra.core.protocols import Source, sources
from orchestra.learn.certification.independent import Independent, independent
from orchestra.learn.data.dataset import label_beside
from orchestra.learn.data.jsonl import Lines
from orchestra.learn.evaluation.rows import Question, Test
from orchestra.schema.strict_json import digest
from orchestra.verification import entailment, partial_answers
from orchestra.verification.answer_parts import Part, parts
from orchestra.verification.certificates.conformal import Answer
from orchestra.verification.certificates.conformal import Part as Scored
from orchestra.verification.entailment import CLAIM, EVIDENCE, Reply

HINT = '{"id": "1", "input": {...}, "output": ..., "claims": [{"claim": "It was built in 1889.", "right": true}]}'


class Label(msgspec.Struct, frozen=True):
    """What somebody said of a part of an answer."""

    claim: str
    right: bool | None = None
    score: float | msgspec.UnsetType | None = msgspec.UNSET
    """What the check said of it, in [0, 1], null where it does not pass; left out where the check is to be asked."""


class _Line(msgspec.Struct, frozen=True):
    id: str
    input: dict[str, Any]
    output: Any
    claims: tuple[Label, ...] | None = None
    group: str = ""


_LINES = Lines(_Line, "V006", "judged answer", HINT)


@dataclass(frozen=True, slots=True)
class Row:
    """An answer, the parts of it, and what was said of each."""

    id: str
    input: dict[str, Any]
    output: Any
    evidence: tuple[Source, ...]
    parts: tuple[Part, ...]
    labels: tuple[Label, ...]
    group: str = ""
    """What it has in common with others, where the row says that."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The rows of a file."""

    name: str
    digest: str
    rows: tuple[Row, ...]
    labelled: bool
    """Whether they have labels; else somebody is to write them first."""
    scored: bool
    """Whether every label has its score, so that nobody need be asked."""
    may_go: labels.Label | None = None
    """The label of the data set that the file is a part of, where it is of one."""

    def independent(self, card: Card, seed: int, field: str = "") -> tuple[Labelled, Independent]:
        """Those of one answer to each input, and of each text or other group. Raises `InputError` V026 for a `field` that is no input."""
        test = Test(self.name, self.digest, [Question(row.id, row.input, {}, row.group) for row in self.rows])
        drawn = independent(test, card, seed, field)
        kept = {question.id for question in drawn.test.questions}
        return replace(self, rows=tuple(row for row in self.rows if row.id in kept)), drawn

    def questions(self) -> Test:
        """What the judge is asked: each claim of each part beside each piece of the evidence."""
        questions = [Question(str(at), given, {}) for at, given in enumerate(self._asked())]
        return Test(self.name, self.digest, questions, label=self.may_go)

    def _asked(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            texts = [row.evidence[one.source].text[one.start : one.end] for one in entailment.pieces(row.evidence)]
            yield from ({CLAIM: claim.text, EVIDENCE: text} for part in row.parts for claim in part.claims for text in texts)

    def answers(self, replies: Sequence[Reply] = ()) -> list[Answer]:
        """The answers with their scores: those of the file, or what the judge's replies to `questions` say."""
        line, found = iter(replies), []
        for row in self.rows:
            scores = [label.score if isinstance(label.score, float | int) else None for label in row.labels]
            if not self.scored:
                claims, count = [claim for part in row.parts for claim in part.claims], len(entailment.pieces(row.evidence))
                verdicts = entailment.each(claims, row.evidence, [next(line) for _ in range(len(claims) * count)])
                scores = [partial_answers.score(one) for one in partial_answers.weighed(row.parts, verdicts)]
            rated = zip(scores, row.labels, strict=True)
            found.append(Answer(row.id, tuple(Scored(score, not label.right) for score, label in rated)))
        return found

    def to_label(self) -> Iterator[bytes]:
        """The rows as lines in which somebody writes what is right."""
        for row in self.rows:
            claims = [{"claim": part.text, "right": None} for part in row.parts]
            group = {"group": row.group} if row.group else {}
            yield msgspec.json.encode({"id": row.id, **group, "input": row.input, "output": row.output, "claims": claims})


def read(path: Path, card: Card) -> Labelled:
    """The rows of a file. Raises `InputError` V006 with the place of what is wrong."""
    data, rows, bare, known = _LINES.bytes_of(path), list[Row](), 0, set[str]()
    for place, line in _LINES.rows(path, data):
        if line.id in known:
            raise InputError("V006", f"two rows have the id {line.id!r}", place=place, hint="count each answer once")
        known.add(line.id)
        rows.append(_row(card, line, place))
        bare += line.claims is None
    if not rows:
        raise InputError("V006", f"{path} has no row", hint=HINT)
    if bare not in (0, len(rows)):
        raise InputError("V006", f"{bare} of {len(rows)} rows of {path.name} have no `claims`", hint=HINT)
    scored = {isinstance(label.score, msgspec.UnsetType) for row in rows for label in row.labels}
    if len(scored) > 1:
        raise InputError("V006", f"some claims of {path.name} have a score, and some have none", hint="all of them, or none")
    return Labelled(path.name, digest(data), tuple(rows), not bare, scored == {False}, label_beside(path))


def _row(card: Card, line: _Line, place: Place) -> Row:
    evidence = sources(line.input.get(card.evidence or "")) or sources(line.input)
    found = tuple(parts(line.output, card.output_schema))
    labels = line.claims or ()
    if line.claims is None:
        return Row(line.id, line.input, line.output, evidence, found, (), line.group)
    if len(labels) != len(found):
        raise InputError(
            "V006", f"the output of row {line.id!r} has {len(found)} parts, and {len(labels)} are judged", place=place, hint=HINT
        )
    for part, label in zip(found, labels, strict=True):
        if " ".join(label.claim.split()) != " ".join(part.text.split()):
            reason = f"row {line.id!r} judges {label.claim!r}, where its output says {part.text!r}"
            raise InputError("V006", reason, place=place, hint="the parts of the output, in their order")
        if label.right is None:
            raise InputError("V006", f"nobody has said whether {label.claim!r} of row {line.id!r} is right", place=place, hint=HINT)
        if isinstance(label.score, float | int) and not 0 <= label.score <= 1:
            raise InputError("V006", f"the score is {label.score}, and must be in [0, 1]", place=place, hint=HINT)
    return Row(line.id, line.input, line.output, evidence, found, labels, line.group)
