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
from orchestra.cli.context import Opener, serving
from orchestra.cli.learn import evaluate
from orchestra.cli.output import console, print_json, say, table
from orchestra.cli.output_files import check_replaceable
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import visible
from orchestra.learn.certification import rulings
from orchestra.learn.certification.audit_log import replaced
from orchestra.learn.certification.combination import PACKAGES, Fit, Row, blank, fitted
from orchestra.learn.certification.labelled_answers import Predictions, checks_of, rightness
from orchestra.learn.data.provenance import marks_of
from orchestra.learn.evaluation.evaluation import EVALUATION
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import Test, as_record
from orchestra.learn.lora.model import available
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.acceptance import Ruling, names_of, rules_of
from orchestra.verification.certificates.combination import FILE, Combination, Data
from orchestra.verification.certificates.row_fingerprints import SKETCH, Marks
from orchestra.verification.model_checks import ASKING
from orchestra.verification.session import stated
from orchestra.workflows.python.steps import Agent, Step

if TYPE_CHECKING:
    from orchestra.cli.learn.evaluate_commands import Combining


@dataclass(frozen=True, slots=True)
class Combined:
    """What came of it."""

    fit: Fit
    combination: Combination
    file: Path


async def combined(open_: Opener, chosen: Settings, asked: Combining) -> Combined:
    """Asks or reads the answers, has the checks speak, fits, and writes the file. Raises `InputError` before anything starts, and
    `OrchestraError` C023 where the file cannot be written."""
    available(PACKAGES)
    project = Project.load(chosen)
    card = project.registry.card(asked.agent)
    file = asked.out or certificates.home(chosen, project.registry, asked.agent, FILE)
    check_replaceable(file, "--out")
    test = evaluate.unlearnt(card, asked.data, asked.rows, asked.seed, asked.evaluation)
    checks = ruled_by(project, card, asked.named)
    right = None if asked.unlabelled else rightness(card, asked.evaluation, asked.metric)
    bound = certificates.bonds(chosen, project.registry, asked.agent)
    judges = {name: certificates.judge_bonds(chosen, project.registry, name) for name in _judges(project, checks)}
    recorded = Predictions.read(asked.predictions) if asked.predictions is not None else None
    said = await answered(open_, chosen, project, card, blank(card.name, checks), test, recorded)
    rows = [
        Row(question.id, ruling.verdicts, right.of(case) if right is not None else None)
        for question, (case, ruling) in zip(test.questions, said, strict=True)
        if ruling is not None
    ]
    fit = fitted(rows, checks, unlabelled=asked.unlabelled, seed=asked.seed)
    mark = digest(canonical([test.digest, recorded.digest])) if recorded is not None else test.digest
    marks = Marks.of(marks_of(test), SKETCH)
    made = Combination(
        agent=card.name,
        method="dawid-skene" if asked.unlabelled else "regression",
        checks=tuple(sorted(checks)),
        bias=fit.bias,
        voices=fit.voices,
        steps=fit.steps,
        data=Data(test.name, mark, fit.rows, fit.right, asked.seed, right.metrics if right is not None else (), marks),
        bonds=bound,
        judges=judges,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    ).sealed()
    replaced(file, made.written())
    return Combined(fit, made, file)


def ruled_by(project: Project, card: Card, wanted: Sequence[str]) -> tuple[str, ...]:
    """The checks that are put together, as rules are written. Raises `InputError` V010, V011, L111 for those that there are not."""
    checks = checks_of(card, wanted)
    _judges(project, checks)
    known = project.catalog().checks
    for name in names_of(checks):
        if name not in known:
            raise InputError("L111", f"there is no check {name!r}", hint=f"there are: {', '.join(sorted(known))}")
    return tuple(map(str, rules_of(checks)))


async def answered(
    open_: Opener,
    chosen: Settings,
    project: Project,
    card: Card,
    combination: Combination,
    test: Test,
    recorded: Predictions | None = None,
) -> list[tuple[Case, Ruling | None]]:
    """Answers to rows, asked for or recorded, and the rulings on them under a combination; no ruling where there is no answer."""
    checks = tuple(map(str, rules_of(combination.checks)))
    asking = any(name in ASKING for name in names_of(checks))
    if recorded is not None and not asking:
        return await _examined(None, chosen, project, card, combination, test, recorded.given(test))
    async with serving(open_, chosen) as orchestra:
        runs = orchestra.options(purpose=EVALUATION, label=test.label)
        if recorded is not None:
            return await _examined(runs, chosen, project, card, combination, test, recorded.given(test))
        step = Agent.carded(rulings.without_checks(card))
        arm = await evaluate.metered_arm(orchestra, card.name, step, test, chosen.concurrency)
        given = [(rulings.plain(card, one.output), one.score) if one.output is not None else None for one in arm.cases]
        return await _examined(runs, chosen, project, card, combination, test, given)


async def _examined(
    runs: Orchestra | None,
    chosen: Settings,
    project: Project,
    card: Card,
    combination: Combination,
    test: Test,
    given: Sequence[tuple[Any, float | None] | None],
) -> list[tuple[Case, Ruling | None]]:
    """What the checks say of answers, each with how sure the agent was of it; None where a row has none."""
    checks = tuple(map(str, rules_of(combination.checks)))
    judges = _judges(project, checks)
    steps = {name: _step(project, name) for name in judges}
    situations = [
        (rulings.situation(card, checks, row.input, *said, combination), row.input)
        for row, said in zip(test.questions, given, strict=True)
        if said is not None
    ]
    found = iter(await rulings.ruled(runs, card, situations, steps, judges, chosen.concurrency))
    made: list[tuple[Case, Ruling | None]] = []
    for row, said in zip(test.questions, given, strict=True):
        ruling = next(found) if said is not None else None
        output = as_record(said[0]) if said is not None else None
        made.append((Case(row.expected, output, ruling.score if ruling is not None and ruling.accepted else None), ruling))
    return made


def _judges(project: Project, checks: tuple[str, ...]) -> dict[str, Contract]:
    """Whom checks ask. Raises `InputError` V010, V011 for checks and judges that there are not."""
    return stated(checks, project.registry.agents, project.catalog().tools)[1]


def _step(project: Project, name: str) -> Step[..., Any]:
    """An agent that a check asks, without checks of its own; or a tool."""
    card = project.registry.cards.get(name)
    return Agent.carded(rulings.without_checks(card)) if card is not None else project.asked(name)


def show(asked: Combining, made: Combined) -> None:
    """Prints what was found out."""
    fit = made.fit
    told = f", {fit.right:,} of them right" if made.combination.data.metrics else ", by each other: nobody said what is right"
    say(visible(f"{asked.agent}: checks {', '.join(made.combination.checks)}, combined on {fit.rows:,} rows{told}"))
    for why, count in fit.left_out.items():
        say(visible(f"  {count:,} rows left out: {why}"), style="dim")
    say()
    if fit.method == "regression":
        console().print(table(("check", "weight"), [(visible(one.check), f"{one.weight:+.3f}") for one in fit.voices], right=(1,)))
    else:
        rows = [(visible(one.check), f"{one.passed:+.3f}", f"{one.failed:+.3f}") for one in fit.voices]
        console().print(table(("check", "passes", "fails"), rows, right=(1, 2)))
    for check, why in fit.silent.items():
        say(visible(f"{check} counts nothing: {why}"), style="dim")
    if fit.ranked:
        say()
        places = [(visible(one.name), f"{one.aurc:.4f}", f"{one.auroc:.3f}") for one in fit.ranked]
        console().print(table(("rows that a score has not seen", "AURC", "AUROC"), places, right=(1, 2)))
    say(visible(f"\n{made.file}: written; a node takes it with `score: combined`"), style="bold")


def show_data(asked: Combining, made: Combined) -> None:
    """Prints it as JSON."""
    fit: Mapping[str, Any] = msgspec.to_builtins(made.fit)
    print_json({"agent": asked.agent, **fit, "file": str(made.file)})
