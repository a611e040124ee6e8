"""Measures agents on held-out rows: `orchestra learn evaluate`, `promote`, `rollback`, `combine` and `calibrate`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.agents.inference.calibration import Calibration
from orchestra.app import certificates
from orchestra.app.orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.output import (
    ProgressMeter,
    check_replaceable,
    check_writable,
    print_json,
    print_note,
    print_table,
    print_text,
    writing_output,
)
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import escape_invisible
from orchestra.fleet.config import configured_fleet
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.adapter_checks import mismatch_error
from orchestra.fleet.weights.weights import ModelStore
from orchestra.learn.calibration import calibration_rows, encode_calibration, fit_calibration, without_calibration
from orchestra.learn.certification import rulings
from orchestra.learn.certification.audit_log import replace_file
from orchestra.learn.certification.combination import (
    PACKAGES,
    CombinationFit,
    CombinationRow,
    empty_combination,
    fit_combination,
)
from orchestra.learn.certification.labelled_answers import Predictions, certified_checks, correctness_of
from orchestra.learn.compatibility import check_contract, check_trainable
from orchestra.learn.data.dataset import MANIFEST_FILE, Dataset, Split
from orchestra.learn.data.provenance import (
    TRAINING_SPLITS,
    TrainingSplit,
    find_training_overlap,
    fingerprints_of,
    refuse_training_overlap,
    row_set_of,
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
from orchestra.learn.evaluation.metrics import Case, Metric
from orchestra.learn.evaluation.rows import (
    EvaluationRow,
    EvaluationSet,
    as_record,
    metrics_for,
    read_evaluation_set,
    read_selected_rows,
)
from orchestra.learn.lora.model import check_packages
from orchestra.learn.promotion.candidates import check_candidate, check_compatible, check_servable
from orchestra.learn.promotion.promotion import (
    TRY,
    AdapterStore,
    CandidateComparison,
    PromotionRecord,
    compare_candidate,
    promotion_record,
    significance_level,
)
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.acceptance import VerificationResult, check_names, parse_checks
from orchestra.verification.certificates.combination import FILE_NAME, Combination, CombinationData
from orchestra.verification.certificates.row_fingerprints import SAMPLE_SIZE, RowFingerprints
from orchestra.verification.model_checks import MODEL_CHECKS
from orchestra.verification.session import validate_checks
from orchestra.workflows.python.steps import Agent, Step

if TYPE_CHECKING:
    from orchestra.cli.learn.arguments import CalibrateArguments, CombineArguments, ComparisonSpec


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """The result of a comparison."""

    report: EvaluationReport
    judged_figures: Mapping[str, IntervalEstimate]
    """The figures of the arm that requirements refer to: the candidate, if there is one."""
    requirements: Sequence[Requirement]
    training_overlap: Sequence[str] = ()
    """Notes on rows used to train the agent or the candidate."""
    predictions: Sequence[Mapping[str, Any]] = ()
    """By row: the answer of the arm that requirements refer to, its correctness and its confidence."""
    classes: ClassificationReport | None = None

    @property
    def missed_requirements(self) -> list[Requirement]:
        """The missed requirements."""
        return [requirement for requirement in self.requirements if not requirement.is_met(self.judged_figures)]

    def to_junit(self) -> bytes:
        """The requirements as JUnit XML."""
        return junit_report(self.report.agent, self.report.test, self.requirements, self.judged_figures)

    def to_json_lines(self) -> bytes:
        """The predictions as lines of JSON, which `orchestra certify --predictions` reads."""
        return b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in self.predictions)

    def as_data(self) -> dict[str, Any]:
        """The result as JSON values."""
        by_class = {"by_class": self.classes.as_data()} if self.classes is not None else {}
        required = [
            {"require": str(requirement), "met": requirement.is_met(self.judged_figures)}
            for requirement in self.requirements
        ]
        return {**self.report.as_data(), "requirements": required, "known": list(self.training_overlap), **by_class}


async def compare(open_: Opener, settings: Settings, spec: ComparisonSpec) -> ComparisonResult:
    """Runs every arm. Raises `InputError` before anything starts, `FleetError` if no server is available."""
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
        requirements = [
            parse_requirement(text, [*(metric.name for metric in metrics), ANSWERED]) for text in spec.require
        ]
        arms = await ask_arms(orchestra, card, test, spec, settings.concurrency)
    report = evaluation.build_report(card.name, test, metrics, arms, spec.seed or 0)
    overlaps = find_training_overlap(card, test, spec.data)
    if spec.candidate is not None:
        other_card = evaluation.candidate_card(check_trainable(card), spec.candidate).with_settings(name=card.name)
        overlaps += find_training_overlap(other_card, test, spec.data, display_name=CANDIDATE)
    estimates = {
        ANSWERED: answer_rate_interval(arms[-1], spec.seed or 0),
        **report.estimates(CANDIDATE if spec.candidate else INCUMBENT),
    }
    labels = classification_report(card, spec.evaluation, arms[-1].cases) if spec.classes else None
    messages = [overlap.message for overlap in overlaps]
    predictions = _prediction_rows(card, spec.evaluation, test, arms[-1]) if spec.predictions else []
    return ComparisonResult(report, estimates, requirements, messages, predictions, labels)


def adapter_warnings(settings: Settings, card: Card, folder: Path) -> list[str]:
    """Differences between the manifest of an adapter and the base here. Raises `FleetError` F222 if no server could
    apply it.
    """
    if card.kind != "model":
        return []
    return check_servable(card, folder, configured_fleet(settings), ModelStore.from_environment())


def _refuse_checked(card: Card) -> None:
    """Raises `InputError` C010 for an agent with checks: a certificate needs its raw answers and its own confidence,
    not those that checks have withheld or scored.
    """
    if card.checks or card.accept is not None:
        message = f"--predictions require raw answers, but {card.name} returns them only after its checks"
        raise InputError(
            "C010", message, hint="--no-checks; `orchestra certify --predictions` runs the checks on each answer"
        )


def _prediction_rows(card: Card, evaluation: str, test: EvaluationSet, arm: Arm) -> list[Mapping[str, Any]]:
    """The answers of an arm; correctness is null if no metric decides it for one answer."""
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
    """The card of the agent. Raises `InputError` A001 without one."""
    card = orchestra.registry.card(spec.agent)
    if spec.no_checks:
        return card.with_settings(checks=(), otherwise=(), accept=None)
    return card if card.accept != "certified" else card.with_settings(accept=_certified_threshold(orchestra, card))


def _certified_threshold(orchestra: Orchestra, card: Card) -> float | None:
    """Returns the threshold of all arms if the card has `accept: certified`: that of its certificate, even a void one,
    because a comparison guarantees nothing. None without a certificate.
    """
    path = certificates.find_certificate(orchestra.settings, orchestra.registry, card.name)
    if path is None:
        print_note(f"{card.name} accepts by a certificate but has none: its arms accept from a score of 0.5")
        return None
    return certificates.read_certificate(path, card.name).threshold


def prepare(card: Card, spec: ComparisonSpec) -> tuple[Sequence[Metric], EvaluationSet]:
    """The metrics and the rows. A candidate may replace an untrained agent."""
    is_training = spec.candidate is None
    test = load_rows(card, spec.data, spec.part, spec.rows, spec.seed, spec.evaluation, spec.train, trained=is_training)
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
    """Loads the rows, at most `max_rows`, 0 for all: of a dataset or a file, or of the named evaluation below a folder
    with one folder for each set, which also defines number and seed. Raises `InputError` N001 for rows of a wrong type,
    N305 for an untrained agent that must be trained.
    """
    selection = _evaluation_rows(card, name)
    if selection is None or not os.path.isdir(data) or os.path.isfile(data / MANIFEST_FILE):
        test = evaluation.sample_rows(read_evaluation_set(data, part, train, card), max_rows or 0, seed or 0)
    else:
        count = selection.sample if max_rows is None else max_rows
        test = evaluation.sample_rows(
            read_selected_rows(data, selection), count, selection.seed if seed is None else seed
        )
    if trained and not card.is_trained:
        raise InputError(
            "N305", f"{card.name} is not trained yet", hint=f"orchestra learn train {card.name} --data DATA"
        )
    known_fields = set(card.input_schema.get("properties", {}))
    strange = next((key for question in test.rows for key in question.input if key not in known_fields), None)
    if strange is not None:
        raise InputError("N001", f"{data} has the input {strange!r}, but {card.name} takes {', '.join(known_fields)}")
    return test


def load_unseen_rows(card: Card, data: Path, max_rows: int, seed: int, name: str) -> EvaluationSet:
    """Loads rows of a test split. Raises the errors of `load_rows`, and N205 for training rows of the agent; prints a
    note if it was trained on a few.
    """
    test = load_rows(card, data, "test", max_rows, seed, name)
    refuse_training_rows(card, test, data)
    return test


def refuse_training_rows(
    card: Card, test: EvaluationSet, data: Path, parts: tuple[TrainingSplit, ...] = TRAINING_SPLITS
) -> None:
    """Prints a note if the agent was trained on a few of the rows. Raises `InputError` N205 if on more."""
    refuse_training_overlap(overlaps := find_training_overlap(card, test, data, parts))
    for overlap in overlaps:
        print_note(overlap.message)


def _evaluation_rows(card: Card, evaluation: str) -> RowSelection | None:
    """The rows named by `evaluation.yaml` of the agent."""
    file = card.folder / FILE if card.folder is not None else None
    return find_evaluation(file, evaluation)[1].rows if file is not None and file.is_file() else None


async def ask_arms(
    orchestra: Orchestra, card: Card, test: EvaluationSet, spec: ComparisonSpec, concurrency: int
) -> list[Arm]:
    """Runs all arms: baselines, the base model, members of an ensemble, the agent, a candidate."""
    cards = {INCUMBENT: card} if card.is_trained else {}
    if card.is_trained and spec.members:
        cards = {
            **{part.name: part.with_settings(checks=(), otherwise=(), accept=None) for part in card.member_cards},
            **cards,
        }
    if spec.untuned and card.adapter is not None:
        cards = {UNTUNED: evaluation.card_without_adapter(card), **cards}
    if spec.candidate is not None:
        cards[CANDIDATE] = evaluation.candidate_card(check_trainable(card), spec.candidate)
    arms = evaluation.baseline_arms(test)
    selection = _evaluation_rows(card, spec.evaluation)
    sample = evaluation.sample_rows(test, selection.untuned, selection.seed) if selection is not None else test
    for name, arm_card in cards.items():
        questions = sample if name == UNTUNED else test
        arms.append(await ask_arm(orchestra, name, Agent.from_card(arm_card), questions, concurrency))
    return arms


async def ask_arm(
    runs: Orchestra, name: str, step: Step[..., Any], test: EvaluationSet, concurrency: int, what: str = "rows failed"
) -> Arm:
    """Runs an agent on rows, with progress on stderr and the number of failed rows; `what` states how they count. The
    runs have the label of the rows.
    """
    with ProgressMeter(len(test.rows), 0) as meter:
        labelled_runs = runs.options(purpose=EVALUATION_PURPOSE, label=test.label)
        arm = await evaluation.evaluate_arm(labelled_runs, name, step, test, concurrency, lambda *_: meter.advance())
    if arm.failed:
        print_note(f"{name}: {arm.failed} {what}; the first: {arm.reason}")
    return arm


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """The result for a candidate."""

    report: EvaluationReport
    judgement: CandidateComparison
    promoted: bool
    message: str

    def as_data(self) -> dict[str, Any]:
        """The result as JSON values."""
        differences = {
            name: {
                "value": difference.value,
                "low": difference.low,
                "high": difference.high,
                "chance": difference.p_value,
            }
            for name, difference in self.judgement.differences
        }
        judgement_fields = {
            "better": self.judgement.is_better,
            "tries": self.judgement.tries,
            "level": significance_level(self.judgement.tries),
        }
        return {**self.report.as_data(), **judgement_fields, "promoted": self.promoted, "differences": differences}


async def run_promotion(open_: Opener, settings: Settings, spec: ComparisonSpec, *, force: bool) -> PromotionResult:
    """Compares a candidate, and promotes it if it is better or forced."""
    assert spec.candidate is not None, "the verb demands one"
    own_card = check_trainable(Project.load(settings).registry.card(spec.agent))
    mark, shelf = (
        check_candidate(own_card, spec.candidate),
        AdapterStore.for_agent(own_card, Folders.from_environment().adapters),
    )
    for warning in adapter_warnings(settings, own_card, spec.candidate):
        if not force:
            raise mismatch_error(spec.candidate, warning, "--force promotes it nevertheless")
        print_note(f"the candidate: {warning}")
    if mark == shelf.current_digest:
        raise InputError("N304", f"{spec.agent} already has {mark[:12]}", hint="orchestra learn train")
    metrics, test = prepare(own_card, spec)
    row_set = row_set_of(test)
    overlap_messages = _training_overlap(own_card, spec, test, force=force)
    async with open_orchestra(open_, settings) as orchestra:
        card = find_card(orchestra, spec)
        arms = await ask_arms(orchestra, card, test, spec, settings.concurrency)
        report = evaluation.build_report(card.name, test, metrics, arms, spec.seed or 0)
        new, old = arms[-1], current_arm(arms)
        if new.failed == len(new.cases):
            hint = f"{spec.agent} is unchanged, and this does not count as an attempt"
            raise InputError("N306", f"{CANDIDATE} failed on every row: {new.reason}", hint=hint)
        figures = [(arm.name, report.estimates(arm.name)[metrics[0].name].value) for arm in (old, new)]

        def told(tries: int) -> tuple[CandidateComparison, PromotionRecord]:
            judgement = compare_candidate(metrics, old, new, spec.seed or 0, tries)
            return judgement, promotion_record(
                shelf, mark, _timestamp(), judgement, figures, test, row_set, training_overlap=overlap_messages
            )

        judgement, record = told(shelf.count_candidates(row_set) + 1)
        if again := shelf.earlier_number(record, row_set):
            judgement, record = told(again)
        if not (judgement.is_better or force):
            shelf.record_try(msgspec.structs.replace(record, verb=TRY))
            return PromotionResult(
                report, judgement, False, f"{spec.agent} is unchanged; --force promotes the candidate nevertheless."
            )
        is_calibrated = own_card.current_calibration is not None
        shelf.promote(spec.candidate, record)
        reload_text = await _reload_servers(open_, settings, spec.agent)
    message = f"{spec.agent} has {mark[:12]} now{reload_text}. orchestra learn rollback {spec.agent}"
    if is_calibrated:
        message += (
            f"\nIts calibration was made for the previous adapter, and is void: orchestra learn calibrate {spec.agent}"
        )
    return PromotionResult(report, judgement, True, message + _certificate_note(settings, spec.agent))


def _certificate_note(settings: Settings, agent: str) -> str:
    """Returns why the agent's certificate does not apply to its current weights; empty without a certificate, or with
    one that applies: it may have been made for weights that were promoted again.
    """
    registry = Project.load(settings).registry
    try:
        certificates.AgentCertificates(settings, lambda: registry).get(agent)
    except InputError as error:
        return f"\n{error.code}: {error.message}: {error.hint}"
    return ""


def _training_overlap(own_card: Card, spec: ComparisonSpec, test: EvaluationSet, *, force: bool) -> tuple[str, ...]:
    """Notes on rows used to train the agent or the candidate, if they are few, if the tune split was chosen, or if
    forced. Raises `InputError` N205 otherwise.
    """
    assert spec.candidate is not None, "the verb demands one"
    arm_cards = (
        (own_card, ""),
        (evaluation.candidate_card(own_card, spec.candidate).with_settings(name=own_card.name), CANDIDATE),
    )
    parts: tuple[TrainingSplit, ...] = ("train",) if spec.part == "tune" and spec.data.is_dir() else TRAINING_SPLITS
    for card, card_title in () if force else arm_cards:
        refuse_training_overlap(find_training_overlap(card, test, spec.data, parts, card_title))
    messages = tuple(
        overlap.message
        for card, title in arm_cards
        for overlap in find_training_overlap(card, test, spec.data, display_name=title)
    )
    for message in messages:
        print_note(message)
    return messages


def current_arm(arms: Sequence[Arm]) -> Arm:
    """The arm that a candidate must beat: the agent; the first baseline if it was never trained.

    Raises `InputError` N305 without either.
    """
    incumbent = next((arm for arm in arms if arm.name == INCUMBENT), arms[0])
    if incumbent.name == CANDIDATE:
        raise InputError(
            "N305", "there is nothing to compare the candidate with", hint="a dataset has rows for baselines"
        )
    return incumbent


async def run_rollback(open_: Opener, settings: Settings, agent: str) -> PromotionRecord:
    """Restores the previous adapter, also in the running fleet."""
    async with open_(settings, fleet="adopt") as orchestra:
        line = AdapterStore.for_agent(
            check_trainable(orchestra.registry.card(agent)), Folders.from_environment().adapters
        ).roll_back(_timestamp())
    await _reload_servers(open_, settings, agent)
    return line


async def _reload_servers(open_: Opener, settings: Settings, agent: str) -> str:
    """Lets running servers load the adapter, so that the first call does not wait; returns them in words."""
    async with open_(settings, fleet="adopt") as orchestra:
        names = await orchestra.load(agent)
    return f", loaded by {', '.join(names)}" if names else ""


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class CombinationResult:
    """The result of fitting a combination."""

    fit: CombinationFit
    combination: Combination
    file: Path


async def run_combination(open_: Opener, settings: Settings, arguments: CombineArguments) -> CombinationResult:
    """Collects answers, runs the checks, fits the combination and writes the file. Raises `InputError` before anything
    starts, and `OrchestraError` C023 if the file cannot be written.
    """
    check_packages(PACKAGES)
    project = Project.load(settings)
    card = project.registry.card(arguments.agent)
    file = arguments.out or certificates.default_path(settings, project.registry, arguments.agent, FILE_NAME)
    check_replaceable(file, "--out")
    test = load_unseen_rows(card, arguments.data, arguments.rows, arguments.seed, arguments.evaluation)
    checks = resolve_checks(project, card, arguments.check_names)
    right = None if arguments.unlabelled else correctness_of(card, arguments.evaluation, arguments.metric)
    bound = certificates.dependency_digests(settings, project.registry, arguments.agent)
    judges = {
        name: certificates.judge_dependency_digests(settings, project.registry, name)
        for name in _judge_contracts(project, checks)
    }
    predictions = Predictions.read(arguments.predictions) if arguments.predictions is not None else None
    case_rulings = await answer_and_rule(
        open_, settings, project, card, empty_combination(card.name, checks), test, predictions
    )
    rows = [
        CombinationRow(question.id, ruling.verdicts, right.is_correct(case) if right is not None else None)
        for question, (case, ruling) in zip(test.rows, case_rulings, strict=True)
        if ruling is not None
    ]
    fit = fit_combination(rows, checks, unlabelled=arguments.unlabelled, seed=arguments.seed)
    mark = digest(canonical([test.digest, predictions.digest])) if predictions is not None else test.digest
    marks = RowFingerprints.of(fingerprints_of(test), SAMPLE_SIZE)
    combination = Combination(
        agent=card.name,
        method="dawid-skene" if arguments.unlabelled else "regression",
        checks=tuple(sorted(checks)),
        bias=fit.bias,
        weights=fit.weights,
        isotonic_points=fit.isotonic_points,
        data=CombinationData(
            test.name,
            mark,
            fit.row_count,
            fit.correct_count,
            arguments.seed,
            right.metrics if right is not None else (),
            marks,
        ),
        dependencies=bound,
        judge_dependencies=judges,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    ).with_digest()
    replace_file(file, combination.to_bytes())
    return CombinationResult(fit, combination, file)


def resolve_checks(project: Project, card: Card, wanted: Sequence[str]) -> tuple[str, ...]:
    """The checks to combine, in canonical form. Raises `InputError` V010, V011, L111 for unknown ones."""
    checks = certified_checks(card, wanted)
    _judge_contracts(project, checks)
    known_checks = project.catalog().checks
    for name in check_names(checks):
        if name not in known_checks:
            raise InputError(
                "L111", f"there is no check {name!r}", hint=f"there are: {', '.join(sorted(known_checks))}"
            )
    return tuple(map(str, parse_checks(checks)))


async def answer_and_rule(
    open_: Opener,
    settings: Settings,
    project: Project,
    card: Card,
    combination: Combination,
    test: EvaluationSet,
    recorded: Predictions | None = None,
) -> list[tuple[Case, VerificationResult | None]]:
    """Answers to rows, generated or recorded, and their verification under a combination; None without an answer."""
    checks = tuple(map(str, parse_checks(combination.checks)))
    asks_models = any(name in MODEL_CHECKS for name in check_names(checks))
    if recorded is not None and not asks_models:
        return await _run_checks(None, settings, project, card, combination, test, recorded.outputs_for(test))
    async with open_orchestra(open_, settings) as orchestra:
        runs = orchestra.options(purpose=EVALUATION_PURPOSE, label=test.label)
        if recorded is not None:
            return await _run_checks(runs, settings, project, card, combination, test, recorded.outputs_for(test))
        step = Agent.from_card(rulings.without_checks(card))
        arm = await ask_arm(orchestra, card.name, step, test, settings.concurrency)
        answers = [
            (rulings.plain_output(card, case.output), case.score) if case.output is not None else None
            for case in arm.cases
        ]
        return await _run_checks(runs, settings, project, card, combination, test, answers)


async def _run_checks(
    runs: Orchestra | None,
    settings: Settings,
    project: Project,
    card: Card,
    combination: Combination,
    test: EvaluationSet,
    answers: Sequence[tuple[Any, float | None] | None],
) -> list[tuple[Case, VerificationResult | None]]:
    """Runs the checks on answers, each with the confidence of the agent; None for rows without an answer."""
    checks = tuple(map(str, parse_checks(combination.checks)))
    judges = _judge_contracts(project, checks)
    steps = {name: _judge_step(project, name) for name in judges}
    situations = [
        (rulings.build_situation(card, checks, row.input, *answer, combination), row.input)
        for row, answer in zip(test.rows, answers, strict=True)
        if answer is not None
    ]
    results = iter(await rulings.run_checks(runs, card, situations, steps, judges, settings.concurrency))
    case_rulings: list[tuple[Case, VerificationResult | None]] = []
    for row, answer in zip(test.rows, answers, strict=True):
        ruling = next(results) if answer is not None else None
        output = as_record(answer[0]) if answer is not None else None
        case_rulings.append(
            (Case(row.expected, output, ruling.score if ruling is not None and ruling.accepted else None), ruling)
        )
    return case_rulings


def _judge_contracts(project: Project, checks: tuple[str, ...]) -> dict[str, Contract]:
    """The contracts of the agents that checks call. Raises `InputError` V010, V011 for unknown checks and agents."""
    return validate_checks(checks, project.registry.agents, project.catalog().tools)[1]


def _judge_step(project: Project, name: str) -> Step[..., Any]:
    """An agent that a check calls, without its own checks; or a tool."""
    card = project.registry.cards.get(name)
    return Agent.from_card(rulings.without_checks(card)) if card is not None else project.judge_step(name)


def show_combination(arguments: CombineArguments, result: CombinationResult) -> None:
    """Prints the combination."""
    fit = result.fit
    labels_text = (
        f", {fit.correct_count:,} of them right" if result.combination.data.metrics else ", estimated without labels"
    )
    print_text(
        escape_invisible(
            f"{arguments.agent}: checks {', '.join(result.combination.checks)}, combined on "
            f"{fit.row_count:,} rows{labels_text}"
        )
    )
    for reason, count in fit.left_out.items():
        print_text(escape_invisible(f"  {count:,} rows left out: {reason}"), style="dim")
    print_text()
    if fit.method == "regression":
        print_table(
            ("check", "weight"),
            [(escape_invisible(weight.check), f"{weight.weight:+.3f}") for weight in fit.weights],
            right=(1,),
        )
    else:
        rows = [
            (escape_invisible(weight.check), f"{weight.passed:+.3f}", f"{weight.failed:+.3f}") for weight in fit.weights
        ]
        print_table(("check", "passes", "fails"), rows, right=(1, 2))
    for check, reason in fit.excluded_checks.items():
        print_text(escape_invisible(f"{check} has no weight: {reason}"), style="dim")
    if fit.score_rankings:
        print_text()
        places = [
            (escape_invisible(ranking.name), f"{ranking.aurc:.4f}", f"{ranking.auroc:.3f}")
            for ranking in fit.score_rankings
        ]
        print_table(("held-out rows", "AURC", "AUROC"), places, right=(1, 2))
    print_text(escape_invisible(f"\n{result.file}: written; a node uses it with `score: combined`"), style="bold")


def show_combination_data(arguments: CombineArguments, result: CombinationResult) -> None:
    """Prints the combination as JSON."""
    fit: Mapping[str, Any] = msgspec.to_builtins(result.fit)
    print_json({"agent": arguments.agent, **fit, "file": str(result.file)})


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """The result of a calibration."""

    file: Path
    calibration: Calibration
    rows_asked: int


async def run_calibration(open_: Opener, settings: Settings, arguments: CalibrateArguments) -> CalibrationResult:
    """Runs the agent, fits the calibration, and writes the file of the card. Raises `InputError` N101, N160, N161,
    N008, N205.
    """
    check_packages(PACKAGES)
    agent, words, out = arguments.agent, arguments.overlap_inputs, arguments.out
    if out is not None:
        check_writable(out, "--out")
    held_back = Dataset.load(arguments.data)
    rows = [row for part in arguments.parts for row in held_back.rows[part]]
    async with open_orchestra(open_, settings) as orchestra:
        card = check_trainable(orchestra.registry.card(agent))
        calibration_rows(card, [], [])
        check_contract(card, held_back.manifest)
        strange = next((name for name in words or () if name not in card.input_schema.get("properties", {})), None)
        if strange is not None:
            raise InputError(
                "N011",
                f"{agent} has no input {strange!r}",
                hint=f"inputs: {', '.join(card.input_schema['properties'])}",
            )
        questions = [EvaluationRow(row.id, row.input, as_record(row.output)) for row in rows]
        test = EvaluationSet(
            held_back.manifest.name, held_back.manifest.digest, questions, label=held_back.manifest.label
        )
        refuse_training_rows(card, test, arguments.data, ("train",))
        arm = await ask_arm(orchestra, agent, Agent.from_card(without_calibration(card)), test, settings.concurrency)
    calibration = fit_calibration(card, held_back, calibration_rows(card, rows, arm.cases), words)
    if out is None and card.folder is None:
        raise InputError("A004", f"the agent {agent!r} has no folder", hint="--out FILE")
    file = out if out is not None else Path(str(card.folder)) / str(card.calibration)
    with writing_output(file, "--out"):
        file.write_bytes(encode_calibration(calibration))
    return CalibrationResult(file, calibration, len(rows))
