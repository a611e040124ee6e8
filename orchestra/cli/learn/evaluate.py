"""What `orchestra learn evaluate` does: all arms asked, figures made, requirements judged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orchestra.agents.card import Card
from orchestra.app import certificates
from orchestra.app.orchestra import Orchestra
from orchestra.cli.context import Opener, serving
from orchestra.cli.output import note
from orchestra.cli.progress import Meter
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.fleet.config import read
from orchestra.fleet.weights.weights import Pantry
from orchestra.learn.certification import rulings
from orchestra.learn.certification.labelled_answers import rightness
from orchestra.learn.compatibility import learning
from orchestra.learn.data.dataset import MANIFEST, Part
from orchestra.learn.data.provenance import BOTH, LearntPart, known, refuse
from orchestra.learn.evaluation import evaluation
from orchestra.learn.evaluation.bootstrap import Figure
from orchestra.learn.evaluation.classification import Classes, classes, label_of
from orchestra.learn.evaluation.config import FILE, Rows, evaluation_of
from orchestra.learn.evaluation.evaluation import ANSWERED, CANDIDATE, EVALUATION, INCUMBENT, UNTUNED, Arm, Report, answered_of
from orchestra.learn.evaluation.gates import Requirement, junit, read_requirement
from orchestra.learn.evaluation.metrics import Metric
from orchestra.learn.evaluation.rows import Test, metrics_of, read_rows, read_test
from orchestra.learn.promotion.candidates import check_fits, check_served
from orchestra.workflows.python.steps import Agent, Step


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be compared, and on what."""

    agent: str
    data: Path
    part: Part
    train: Path | None
    candidate: Path | None
    untuned: bool
    rows: int | None
    """At most so many; None for what the evaluation says, or else all."""
    seed: int | None
    no_checks: bool
    require: Sequence[str] = ()
    evaluation: str = ""
    """Of `evaluation.yaml`; the first where none is named."""
    classes: bool = False
    """Whether figures are wanted for each label, too."""
    predictions: bool = False
    """Whether the answers themselves are wanted, as `orchestra certify --predictions` reads them."""
    members: bool = True
    """Whether an ensemble's members are asked alone, too."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of it."""

    report: Report
    judged: Mapping[str, Figure]
    """The figures of the arm that requirements are about: the candidate, where there is one."""
    requirements: Sequence[Requirement]
    known: Sequence[str] = ()
    """What is to be said of rows that the agent or the candidate was trained on."""
    predictions: Sequence[Mapping[str, Any]] = ()
    """By row: the answer of the arm that requirements are about, whether it is right, and how sure it was."""
    classes: Classes | None = None

    @property
    def missed(self) -> list[Requirement]:
        """The requirements that are not met."""
        return [one for one in self.requirements if not one.met(self.judged)]

    def junit(self) -> bytes:
        """As JUnit's XML."""
        return junit(self.report.agent, self.report.test, self.requirements, self.judged)

    def lines(self) -> bytes:
        """The predictions as lines of JSON; `orchestra certify --predictions` reads them, too."""
        return b"".join(msgspec.json.encode(one) + b"\n" for one in self.predictions)

    def data(self) -> dict[str, Any]:
        """As plain JSON."""
        by_class = {"by_class": self.classes.data()} if self.classes is not None else {}
        required = [{"require": str(one), "met": one.met(self.judged)} for one in self.requirements]
        return {**self.report.data(), "requirements": required, "known": list(self.known), **by_class}


async def compare(open_: Opener, chosen: Settings, asked: Comparison) -> Compared:
    """Asks every arm. Raises `InputError` before anything starts, `FleetError` where no server can be had."""
    async with serving(open_, chosen) as orchestra:
        card = carded(orchestra, asked)
        if asked.candidate is not None:
            check_fits(learning(card), asked.candidate)
            for odd in strange(chosen, card, asked.candidate):
                note(f"the candidate: {odd}")
        metrics, test = prepared(card, asked)
        if asked.classes:
            label_of(card)
        if asked.predictions:
            _unchecked(card)
        requirements = [read_requirement(text, [*(one.name for one in metrics), ANSWERED]) for text in asked.require]
        arms = await answered(orchestra, card, test, asked, chosen.concurrency)
    report = evaluation.report(card.name, test, metrics, arms, asked.seed or 0)
    learnt = known(card, test, asked.data)
    if asked.candidate is not None:
        other = evaluation.candidate(learning(card), asked.candidate).varied(name=card.name)
        learnt += known(other, test, asked.data, who=CANDIDATE)
    judged = {ANSWERED: answered_of(arms[-1], asked.seed or 0), **report.figures(CANDIDATE if asked.candidate else INCUMBENT)}
    labels = classes(card, asked.evaluation, arms[-1].cases) if asked.classes else None
    said = [one.said for one in learnt]
    predictions = _predictions(card, asked.evaluation, test, arms[-1]) if asked.predictions else []
    return Compared(report, judged, requirements, said, predictions, labels)


def strange(chosen: Settings, card: Card, folder: Path) -> list[str]:
    """What an adapter says of itself and is not so here, and may be meant. Raises `FleetError` F222 for one that no server could apply."""
    if card.kind != "model":
        return []
    return check_served(card, folder, read(chosen.find_resource("configs", chosen.fleet)), Pantry.of())


def _unchecked(card: Card) -> None:
    """Raises `InputError` C010 for an agent whose answers checks judge: a certificate is made of what it answers before them, and of how
    sure it is itself, and not of what they have withheld and of their score."""
    if card.checks or card.accept is not None:
        said = f"--predictions are an agent's answers as it gives them, and {card.name} says them only after its checks"
        raise InputError("C010", said, hint="--no-checks, and `orchestra certify --predictions` has them judge each answer")


def _predictions(card: Card, evaluation: str, test: Test, arm: Arm) -> list[Mapping[str, Any]]:
    """The answers of an arm; whether they are right is null where no metric tells it of one answer."""
    try:
        right = rightness(card, evaluation).of
    except InputError:
        right = lambda case: None  # noqa: E731
    plain = [None if case.output is None else rulings.plain(card, case.output) for case in arm.cases]
    return [
        {"id": row.id, "input": row.input, "expected": row.expected, "output": output, "right": right(case), "score": case.score}
        for row, case, output in zip(test.questions, arm.cases, plain, strict=True)
    ]


def carded(orchestra: Orchestra, asked: Comparison) -> Card:
    """The card of the agent. Raises `InputError` A001 for one that is not there or has no card."""
    card = orchestra.registry.card(asked.agent)
    if asked.no_checks:
        return card.varied(checks=(), otherwise=(), accept=None)
    return card if card.accept != "certified" else card.varied(accept=_certified(orchestra, card))


def _certified(orchestra: Orchestra, card: Card) -> float | None:
    """The threshold that all arms are accepted by, where a card says `certified`: that of its certificate, void or not, for they are
    compared and promise nothing; None where there is none."""
    path = certificates.found(orchestra.settings, orchestra.registry, card.name)
    if path is None:
        note(f"{card.name} accepts by a certificate, and has none: its arms accept from a score of 0.5")
        return None
    return certificates.read(path, card.name).threshold


def prepared(card: Card, asked: Comparison) -> tuple[Sequence[Metric], Test]:
    """What to measure, and on what. A candidate may stand in for an agent that is not trained."""
    trained = asked.candidate is None
    test = rows(card, asked.data, asked.part, asked.rows, asked.seed, asked.evaluation, asked.train, trained=trained)
    return metrics_of(card, asked.evaluation, test.questions), test


def rows(
    card: Card, data: Path, part: Part, most: int | None, seed: int | None, name: str, train: Path | None = None, *, trained: bool = True
) -> Test:
    """The rows, at most so many, 0 for all: of a data set or a file, or those that the evaluation of this name has under a folder with one
    folder a set, which says how many and by which seed, too. Raises `InputError` N001 for rows that the agent does not take, N305 for an
    agent that is not trained, where it must be."""
    named = _named(card, name)
    if named is None or not os.path.isdir(data) or os.path.isfile(data / MANIFEST):
        test = evaluation.sampled(read_test(data, part, train, card), most or 0, seed or 0)
    else:
        count = named.sample if most is None else most
        test = evaluation.sampled(read_rows(data, named), count, named.seed if seed is None else seed)
    if trained and not card.trained:
        raise InputError("N305", f"{card.name} is not trained yet", hint=f"orchestra learn train {card.name} --data DATA")
    known = set(card.input_schema.get("properties", {}))
    strange = next((key for question in test.questions for key in question.input if key not in known), None)
    if strange is not None:
        raise InputError("N001", f"{data} has the input {strange!r}, and {card.name} takes {', '.join(known)}")
    return test


def unlearnt(card: Card, data: Path, most: int, seed: int, name: str) -> Test:
    """The rows of a test part, at most so many. Raises as `rows` does, and N205 for those that the agent was trained on; says of which the
    agent knows some."""
    test = rows(card, data, "test", most, seed, name)
    refuse_learnt(card, test, data)
    return test


def refuse_learnt(card: Card, test: Test, data: Path, parts: tuple[LearntPart, ...] = BOTH) -> None:
    """Says of which rows the agent knows some. Raises `InputError` N205 where it was trained on them."""
    refuse(learnt := known(card, test, data, parts))
    for one in learnt:
        note(one.said)


def _named(card: Card, evaluation: str) -> Rows | None:
    """The rows that the agent's `evaluation.yaml` names."""
    file = card.folder / FILE if card.folder is not None else None
    return evaluation_of(file, evaluation)[1].rows if file is not None and file.is_file() else None


async def answered(orchestra: Orchestra, card: Card, test: Test, asked: Comparison, at_once: int) -> list[Arm]:
    """The answers of all arms: floors, the untuned base, an ensemble's members, the agent, a candidate."""
    cards = {INCUMBENT: card} if card.trained else {}
    if card.trained and asked.members:
        cards = {**{part.name: part.varied(checks=(), otherwise=(), accept=None) for part in card.parts}, **cards}
    if asked.untuned and card.adapter is not None:
        cards = {UNTUNED: evaluation.untuned(card), **cards}
    if asked.candidate is not None:
        cards[CANDIDATE] = evaluation.candidate(learning(card), asked.candidate)
    arms = evaluation.floor_arms(test)
    named = _named(card, asked.evaluation)
    few = evaluation.sampled(test, named.untuned, named.seed) if named is not None else test
    for name, one in cards.items():
        questions = few if name == UNTUNED else test
        arms.append(await metered_arm(orchestra, name, Agent.carded(one), questions, at_once))
    return arms


async def metered_arm(runs: Orchestra, name: str, step: Step[..., Any], test: Test, at_once: int, what: str = "rows failed") -> Arm:
    """The answers of an agent, while stderr tells how far it is, and how many rows failed: `what` says what that comes to. The runs have
    the label of the rows."""
    with Meter(len(test.questions), 0) as meter:
        labelled = runs.options(purpose=EVALUATION, label=test.label)
        arm = await evaluation.arm_of(labelled, name, step, test, at_once, lambda *_: meter.advance())
    if arm.failed:
        note(f"{name}: {arm.failed} {what}; the first: {arm.reason}")
    return arm
