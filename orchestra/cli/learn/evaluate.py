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
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.output import print_note
from orchestra.cli.progress import ProgressMeter
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.fleet.config import read_config
from orchestra.fleet.weights.weights import ModelStore
from orchestra.learn.certification import rulings
from orchestra.learn.certification.labelled_answers import correctness_of
from orchestra.learn.compatibility import check_trainable
from orchestra.learn.data.dataset import MANIFEST_FILE, Split
from orchestra.learn.data.provenance import (
    TRAINING_SPLITS,
    TrainingSplit,
    find_training_overlap,
    refuse_training_overlap,
)
from orchestra.learn.evaluation import evaluation
from orchestra.learn.evaluation.bootstrap import IntervalEstimate
from orchestra.learn.evaluation.classification import ClassificationReport, classification_report, label_field
from orchestra.learn.evaluation.config import FILE, RowSelection, find_evaluation
from orchestra.learn.evaluation.evaluation import (
    ANSWERED,
    CANDIDATE,
    EVALUATION_PURPOSE,
    INCUMBENT,
    UNTUNED,
    Arm,
    EvaluationReport,
    answer_rate_interval,
)
from orchestra.learn.evaluation.gates import Requirement, junit_report, parse_requirement
from orchestra.learn.evaluation.metrics import Metric
from orchestra.learn.evaluation.rows import EvaluationSet, metrics_for, read_evaluation_set, read_selected_rows
from orchestra.learn.promotion.candidates import check_compatible, check_servable
from orchestra.workflows.python.steps import Agent, Step


@dataclass(frozen=True, slots=True)
class ComparisonSpec:
    """What is to be compared, and on what."""

    agent: str
    data: Path
    part: Split
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
class ComparisonResult:
    """What came of it."""

    report: EvaluationReport
    judged_figures: Mapping[str, IntervalEstimate]
    """The figures of the arm that requirements are about: the candidate, where there is one."""
    requirements: Sequence[Requirement]
    training_overlap: Sequence[str] = ()
    """What is to be said of rows that the agent or the candidate was trained on."""
    predictions: Sequence[Mapping[str, Any]] = ()
    """By row: the answer of the arm that requirements are about, whether it is right, and how sure it was."""
    classes: ClassificationReport | None = None

    @property
    def missed_requirements(self) -> list[Requirement]:
        """The requirements that are not met."""
        return [one for one in self.requirements if not one.is_met(self.judged_figures)]

    def to_junit(self) -> bytes:
        """As JUnit's XML."""
        return junit_report(self.report.agent, self.report.test, self.requirements, self.judged_figures)

    def to_json_lines(self) -> bytes:
        """The predictions as lines of JSON; `orchestra certify --predictions` reads them, too."""
        return b"".join(msgspec.json.encode(one) + b"\n" for one in self.predictions)

    def as_data(self) -> dict[str, Any]:
        """As plain JSON."""
        by_class = {"by_class": self.classes.as_data()} if self.classes is not None else {}
        required = [{"require": str(one), "met": one.is_met(self.judged_figures)} for one in self.requirements]
        return {**self.report.as_data(), "requirements": required, "known": list(self.training_overlap), **by_class}


async def compare(open_: Opener, settings: Settings, spec: ComparisonSpec) -> ComparisonResult:
    """Asks every arm. Raises `InputError` before anything starts, `FleetError` where no server can be had."""
    async with open_orchestra(open_, settings) as orchestra:
        card = find_card(orchestra, spec)
        if spec.candidate is not None:
            check_compatible(check_trainable(card), spec.candidate)
            for odd in adapter_warnings(settings, card, spec.candidate):
                print_note(f"the candidate: {odd}")
        metrics, test = prepare(card, spec)
        if spec.classes:
            label_field(card)
        if spec.predictions:
            _refuse_checked(card)
        requirements = [parse_requirement(text, [*(one.name for one in metrics), ANSWERED]) for text in spec.require]
        arms = await ask_arms(orchestra, card, test, spec, settings.concurrency)
    report = evaluation.build_report(card.name, test, metrics, arms, spec.seed or 0)
    learnt = find_training_overlap(card, test, spec.data)
    if spec.candidate is not None:
        other = evaluation.candidate_card(check_trainable(card), spec.candidate).with_settings(name=card.name)
        learnt += find_training_overlap(other, test, spec.data, display_name=CANDIDATE)
    judged = {
        ANSWERED: answer_rate_interval(arms[-1], spec.seed or 0),
        **report.estimates(CANDIDATE if spec.candidate else INCUMBENT),
    }
    labels = classification_report(card, spec.evaluation, arms[-1].cases) if spec.classes else None
    said = [one.message for one in learnt]
    predictions = _prediction_rows(card, spec.evaluation, test, arms[-1]) if spec.predictions else []
    return ComparisonResult(report, judged, requirements, said, predictions, labels)


def adapter_warnings(settings: Settings, card: Card, folder: Path) -> list[str]:
    """What an adapter says of itself and is not so here, and may be meant. Raises `FleetError` F222 for one that no server could apply."""
    if card.kind != "model":
        return []
    return check_servable(
        card, folder, read_config(settings.find_resource("configs", settings.fleet)), ModelStore.from_environment()
    )


def _refuse_checked(card: Card) -> None:
    """Raises `InputError` C010 for an agent whose answers checks judge: a certificate is made of what it answers before them, and of how
    sure it is itself, and not of what they have withheld and of their score."""
    if card.checks or card.accept is not None:
        said = f"--predictions are an agent's answers as it gives them, and {card.name} says them only after its checks"
        raise InputError(
            "C010", said, hint="--no-checks, and `orchestra certify --predictions` has them judge each answer"
        )


def _prediction_rows(card: Card, evaluation: str, test: EvaluationSet, arm: Arm) -> list[Mapping[str, Any]]:
    """The answers of an arm; whether they are right is null where no metric tells it of one answer."""
    try:
        right = correctness_of(card, evaluation).is_correct
    except InputError:
        right = lambda case: None  # noqa: E731
    plain = [None if case.output is None else rulings.plain_output(card, case.output) for case in arm.cases]
    return [
        {
            "id": row.id,
            "input": row.input,
            "expected": row.expected,
            "output": output,
            "right": right(case),
            "score": case.score,
        }
        for row, case, output in zip(test.rows, arm.cases, plain, strict=True)
    ]


def find_card(orchestra: Orchestra, spec: ComparisonSpec) -> Card:
    """The card of the agent. Raises `InputError` A001 for one that is not there or has no card."""
    card = orchestra.registry.card(spec.agent)
    if spec.no_checks:
        return card.with_settings(checks=(), otherwise=(), accept=None)
    return card if card.accept != "certified" else card.with_settings(accept=_certified_threshold(orchestra, card))


def _certified_threshold(orchestra: Orchestra, card: Card) -> float | None:
    """The threshold that all arms are accepted by, where a card says `certified`: that of its certificate, void or not, for they are
    compared and promise nothing; None where there is none."""
    path = certificates.find_certificate(orchestra.settings, orchestra.registry, card.name)
    if path is None:
        print_note(f"{card.name} accepts by a certificate, and has none: its arms accept from a score of 0.5")
        return None
    return certificates.read_certificate(path, card.name).threshold


def prepare(card: Card, spec: ComparisonSpec) -> tuple[Sequence[Metric], EvaluationSet]:
    """What to measure, and on what. A candidate may stand in for an agent that is not trained."""
    trained = spec.candidate is None
    test = load_rows(card, spec.data, spec.part, spec.rows, spec.seed, spec.evaluation, spec.train, trained=trained)
    return metrics_for(card, spec.evaluation, test.rows), test


def load_rows(
    card: Card,
    data: Path,
    part: Split,
    max_rows: int | None,
    seed: int | None,
    name: str,
    train: Path | None = None,
    *,
    trained: bool = True,
) -> EvaluationSet:
    """The rows, at most so many, 0 for all: of a data set or a file, or those that the evaluation of this name has under a folder with one
    folder a set, which says how many and by which seed, too. Raises `InputError` N001 for rows that the agent does not take, N305 for an
    agent that is not trained, where it must be."""
    named = _evaluation_rows(card, name)
    if named is None or not os.path.isdir(data) or os.path.isfile(data / MANIFEST_FILE):
        test = evaluation.sample_rows(read_evaluation_set(data, part, train, card), max_rows or 0, seed or 0)
    else:
        count = named.sample if max_rows is None else max_rows
        test = evaluation.sample_rows(read_selected_rows(data, named), count, named.seed if seed is None else seed)
    if trained and not card.is_trained:
        raise InputError(
            "N305", f"{card.name} is not trained yet", hint=f"orchestra learn train {card.name} --data DATA"
        )
    known = set(card.input_schema.get("properties", {}))
    strange = next((key for question in test.rows for key in question.input if key not in known), None)
    if strange is not None:
        raise InputError("N001", f"{data} has the input {strange!r}, and {card.name} takes {', '.join(known)}")
    return test


def load_unseen_rows(card: Card, data: Path, max_rows: int, seed: int, name: str) -> EvaluationSet:
    """The rows of a test part, at most so many. Raises as `load_rows` does, and N205 for those that the agent was trained on; says of which the
    agent knows some."""
    test = load_rows(card, data, "test", max_rows, seed, name)
    refuse_training_rows(card, test, data)
    return test


def refuse_training_rows(
    card: Card, test: EvaluationSet, data: Path, parts: tuple[TrainingSplit, ...] = TRAINING_SPLITS
) -> None:
    """Says of which rows the agent knows some. Raises `InputError` N205 where it was trained on them."""
    refuse_training_overlap(learnt := find_training_overlap(card, test, data, parts))
    for one in learnt:
        print_note(one.message)


def _evaluation_rows(card: Card, evaluation: str) -> RowSelection | None:
    """The rows that the agent's `evaluation.yaml` names."""
    file = card.folder / FILE if card.folder is not None else None
    return find_evaluation(file, evaluation)[1].rows if file is not None and file.is_file() else None


async def ask_arms(
    orchestra: Orchestra, card: Card, test: EvaluationSet, spec: ComparisonSpec, concurrency: int
) -> list[Arm]:
    """The answers of all arms: floors, the untuned base, an ensemble's members, the agent, a candidate."""
    cards = {INCUMBENT: card} if card.is_trained else {}
    if card.is_trained and spec.members:
        cards = {
            **{part.name: part.with_settings(checks=(), otherwise=(), accept=None) for part in card.member_cards},
            **cards,
        }
    if spec.untuned and card.adapter is not None:
        cards = {UNTUNED: evaluation.untuned_card(card), **cards}
    if spec.candidate is not None:
        cards[CANDIDATE] = evaluation.candidate_card(check_trainable(card), spec.candidate)
    arms = evaluation.baseline_arms(test)
    named = _evaluation_rows(card, spec.evaluation)
    few = evaluation.sample_rows(test, named.untuned, named.seed) if named is not None else test
    for name, one in cards.items():
        questions = few if name == UNTUNED else test
        arms.append(await ask_arm(orchestra, name, Agent.from_card(one), questions, concurrency))
    return arms


async def ask_arm(
    runs: Orchestra, name: str, step: Step[..., Any], test: EvaluationSet, concurrency: int, what: str = "rows failed"
) -> Arm:
    """The answers of an agent, while stderr tells how far it is, and how many rows failed: `what` says what that comes to. The runs have
    the label of the rows."""
    with ProgressMeter(len(test.rows), 0) as meter:
        labelled = runs.options(purpose=EVALUATION_PURPOSE, label=test.label)
        arm = await evaluation.evaluate_arm(labelled, name, step, test, concurrency, lambda *_: meter.advance())
    if arm.failed:
        print_note(f"{name}: {arm.failed} {what}; the first: {arm.reason}")
    return arm
