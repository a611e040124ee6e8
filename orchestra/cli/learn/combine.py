"""What `orchestra learn combine` does: answers of an agent, what its checks say of each, and how much each check counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.app import certificates
from orchestra.app.orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.learn import evaluate
from orchestra.cli.output import make_console, make_table, print_json, print_text
from orchestra.cli.output_files import check_replaceable
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import escape_invisible
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
from orchestra.learn.data.provenance import fingerprints_of
from orchestra.learn.evaluation.evaluation import EVALUATION_PURPOSE
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import EvaluationSet, as_record
from orchestra.learn.lora.model import check_packages
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.acceptance import VerificationResult, check_names, parse_checks
from orchestra.verification.certificates.combination import FILE_NAME, Combination, CombinationData
from orchestra.verification.certificates.row_fingerprints import SAMPLE_SIZE, RowFingerprints
from orchestra.verification.model_checks import MODEL_CHECKS
from orchestra.verification.session import validate_checks
from orchestra.workflows.python.steps import Agent, Step

if TYPE_CHECKING:
    from orchestra.cli.learn.evaluate_commands import CombineArguments


@dataclass(frozen=True, slots=True)
class CombinationResult:
    """What came of it."""

    fit: CombinationFit
    combination: Combination
    file: Path


async def run_combination(open_: Opener, settings: Settings, arguments: CombineArguments) -> CombinationResult:
    """Asks or reads the answers, has the checks speak, fits, and writes the file. Raises `InputError` before anything starts, and
    `OrchestraError` C023 where the file cannot be written."""
    check_packages(PACKAGES)
    project = Project.load(settings)
    card = project.registry.card(arguments.agent)
    file = arguments.out or certificates.default_path(settings, project.registry, arguments.agent, FILE_NAME)
    check_replaceable(file, "--out")
    test = evaluate.load_unseen_rows(card, arguments.data, arguments.rows, arguments.seed, arguments.evaluation)
    checks = resolve_checks(project, card, arguments.check_names)
    right = None if arguments.unlabelled else correctness_of(card, arguments.evaluation, arguments.metric)
    bound = certificates.dependency_digests(settings, project.registry, arguments.agent)
    judges = {
        name: certificates.judge_dependency_digests(settings, project.registry, name)
        for name in _judge_contracts(project, checks)
    }
    recorded = Predictions.read(arguments.predictions) if arguments.predictions is not None else None
    said = await answer_and_rule(open_, settings, project, card, empty_combination(card.name, checks), test, recorded)
    rows = [
        CombinationRow(question.id, ruling.verdicts, right.is_correct(case) if right is not None else None)
        for question, (case, ruling) in zip(test.rows, said, strict=True)
        if ruling is not None
    ]
    fit = fit_combination(rows, checks, unlabelled=arguments.unlabelled, seed=arguments.seed)
    mark = digest(canonical([test.digest, recorded.digest])) if recorded is not None else test.digest
    marks = RowFingerprints.of(fingerprints_of(test), SAMPLE_SIZE)
    made = Combination(
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
    replace_file(file, made.to_bytes())
    return CombinationResult(fit, made, file)


def resolve_checks(project: Project, card: Card, wanted: Sequence[str]) -> tuple[str, ...]:
    """The checks that are put together, as rules are written. Raises `InputError` V010, V011, L111 for those that there are not."""
    checks = certified_checks(card, wanted)
    _judge_contracts(project, checks)
    known = project.catalog().checks
    for name in check_names(checks):
        if name not in known:
            raise InputError("L111", f"there is no check {name!r}", hint=f"there are: {', '.join(sorted(known))}")
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
    """Answers to rows, asked for or recorded, and the rulings on them under a combination; no ruling where there is no answer."""
    checks = tuple(map(str, parse_checks(combination.checks)))
    asking = any(name in MODEL_CHECKS for name in check_names(checks))
    if recorded is not None and not asking:
        return await _run_checks(None, settings, project, card, combination, test, recorded.outputs_for(test))
    async with open_orchestra(open_, settings) as orchestra:
        runs = orchestra.options(purpose=EVALUATION_PURPOSE, label=test.label)
        if recorded is not None:
            return await _run_checks(runs, settings, project, card, combination, test, recorded.outputs_for(test))
        step = Agent.from_card(rulings.without_checks(card))
        arm = await evaluate.ask_arm(orchestra, card.name, step, test, settings.concurrency)
        given = [
            (rulings.plain_output(card, one.output), one.score) if one.output is not None else None for one in arm.cases
        ]
        return await _run_checks(runs, settings, project, card, combination, test, given)


async def _run_checks(
    runs: Orchestra | None,
    settings: Settings,
    project: Project,
    card: Card,
    combination: Combination,
    test: EvaluationSet,
    given: Sequence[tuple[Any, float | None] | None],
) -> list[tuple[Case, VerificationResult | None]]:
    """What the checks say of answers, each with how sure the agent was of it; None where a row has none."""
    checks = tuple(map(str, parse_checks(combination.checks)))
    judges = _judge_contracts(project, checks)
    steps = {name: _judge_step(project, name) for name in judges}
    situations = [
        (rulings.build_situation(card, checks, row.input, *said, combination), row.input)
        for row, said in zip(test.rows, given, strict=True)
        if said is not None
    ]
    found = iter(await rulings.run_checks(runs, card, situations, steps, judges, settings.concurrency))
    made: list[tuple[Case, VerificationResult | None]] = []
    for row, said in zip(test.rows, given, strict=True):
        ruling = next(found) if said is not None else None
        output = as_record(said[0]) if said is not None else None
        made.append(
            (Case(row.expected, output, ruling.score if ruling is not None and ruling.accepted else None), ruling)
        )
    return made


def _judge_contracts(project: Project, checks: tuple[str, ...]) -> dict[str, Contract]:
    """Whom checks ask. Raises `InputError` V010, V011 for checks and judges that there are not."""
    return validate_checks(checks, project.registry.agents, project.catalog().tools)[1]


def _judge_step(project: Project, name: str) -> Step[..., Any]:
    """An agent that a check asks, without checks of its own; or a tool."""
    card = project.registry.cards.get(name)
    return Agent.from_card(rulings.without_checks(card)) if card is not None else project.judge_step(name)


def show(arguments: CombineArguments, result: CombinationResult) -> None:
    """Prints what was found out."""
    fit = result.fit
    told = (
        f", {fit.correct_count:,} of them right"
        if result.combination.data.metrics
        else ", by each other: nobody said what is right"
    )
    print_text(
        escape_invisible(
            f"{arguments.agent}: checks {', '.join(result.combination.checks)}, combined on {fit.row_count:,} rows{told}"
        )
    )
    for why, count in fit.left_out.items():
        print_text(escape_invisible(f"  {count:,} rows left out: {why}"), style="dim")
    print_text()
    if fit.method == "regression":
        make_console().print(
            make_table(
                ("check", "weight"),
                [(escape_invisible(one.check), f"{one.weight:+.3f}") for one in fit.weights],
                right=(1,),
            )
        )
    else:
        rows = [(escape_invisible(one.check), f"{one.passed:+.3f}", f"{one.failed:+.3f}") for one in fit.weights]
        make_console().print(make_table(("check", "passes", "fails"), rows, right=(1, 2)))
    for check, why in fit.excluded_checks.items():
        print_text(escape_invisible(f"{check} counts nothing: {why}"), style="dim")
    if fit.score_rankings:
        print_text()
        places = [(escape_invisible(one.name), f"{one.aurc:.4f}", f"{one.auroc:.3f}") for one in fit.score_rankings]
        make_console().print(make_table(("rows that a score has not seen", "AURC", "AUROC"), places, right=(1, 2)))
    print_text(escape_invisible(f"\n{result.file}: written; a node takes it with `score: combined`"), style="bold")


def show_data(arguments: CombineArguments, result: CombinationResult) -> None:
    """Prints it as JSON."""
    fit: Mapping[str, Any] = msgspec.to_builtins(result.fit)
    print_json({"agent": arguments.agent, **fit, "file": str(result.file)})
