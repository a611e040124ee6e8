"""What `orchestra certify` does with whole answers: asked for or read, held against each other, and a threshold written."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.app import certificates
from orchestra.app.project import Project
from orchestra.cli.certify import target
from orchestra.cli.certify.target import Subject
from orchestra.cli.context import Opener, serving
from orchestra.cli.exit_codes import STATUS_CODES
from orchestra.cli.learn import evaluate
from orchestra.cli.output import console, note, print_json, say, table
from orchestra.cli.output_files import check_replaceable
from orchestra.cli.signals import Stop
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.suggestions import nearest
from orchestra.core.untrusted_text import counted, visible
from orchestra.learn.certification import audit_log
from orchestra.learn.certification.attempt_log import AttemptBook
from orchestra.learn.certification.independent import Independent, independent
from orchestra.learn.certification.labelled_answers import Predictions, Rightness, checks_of, items, rightness
from orchestra.learn.data.provenance import marks_of
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import Test
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification import check_expression
from orchestra.verification.acceptance import names_of, rules_of
from orchestra.verification.certificates import attempts
from orchestra.verification.certificates.certify import (
    SURE,
    Accepted,
    Certification,
    Certified,
    Terms,
    TooLittle,
    certify,
    checked,
    interval,
    percent,
    too_few,
)
from orchestra.verification.certificates.combination import Combination
from orchestra.verification.certificates.file import Bonds, Certificate, Origin, as_data, as_outcome, certificate
from orchestra.verification.certificates.row_fingerprints import SKETCH, Marks, Rows
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.model_checks import ASKING

if TYPE_CHECKING:
    from orchestra.cli.certify.commands import Certifying


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of it; no certificate where none could be made."""

    certification: Certification | TooLittle
    """Too little where nobody was asked: so few rows that no answers to them could carry the promise."""
    certificate: Certificate | None
    file: Path | None
    terms: Terms
    drawn: Independent
    right: Rightness
    tested: bool = True
    """Whether it counts: rows so few that no answers to them could carry the promise are not tested."""
    before: str = ""
    """What was promised by the certificate that stood there."""

    @property
    def code(self) -> int:
        """The exit code."""
        return STATUS_CODES["abstained"] if self.certificate is None else 0


@dataclass(frozen=True, slots=True)
class _Matter:
    """All that is found and looked at before anybody is asked."""

    project: Project
    subject: Subject
    marked: Rows
    """All rows that there are, of which some are drawn."""
    drawn: Independent
    right: Rightness
    checks: tuple[str, ...]
    combination: Combination | None
    bonds: Bonds
    file: Path
    recorded: Predictions | None
    book: AttemptBook
    terms: Terms
    """Those of the next attempt on these rows."""

    @classmethod
    def of(cls, chosen: Settings, asked: Certifying, data: Path) -> _Matter:
        """Raises `InputError` for what cannot be certified, and `OrchestraError` C023 where the file cannot be written."""
        terms, project = asked.terms, Project.load(chosen)
        subject = target.of(project, asked.agent)
        card, agent = subject.card, subject.card.name
        subject.refuse(named=bool(asked.named), combined=asked.combined, recorded=asked.predictions is not None)
        whole = evaluate.unlearnt(card, data, asked.rows, asked.seed, asked.evaluation)
        right = rightness(card, asked.evaluation, asked.metric, whole.questions if subject.whole is not None else ())
        checks = checks_of(card, asked.named)
        combination = _combination(project, asked) if asked.combined else None
        marked = Rows(frozenset({whole.digest}), frozenset(marks_of(whole)))
        if combination is None:
            _known(project, checks)
        else:
            checks = combination.checks
            _refuse_fitted(combination, marked)
        settings, registry = subject.settings, subject.registry
        bonds, file = subject.bonds(), asked.out or certificates.home(settings, registry, agent)
        check_replaceable(file, "--out")
        audit_log.refuse(settings, registry, agent, marked)
        checked(items(whole, _unanswered(whole), right))
        drawn = independent(whole, card, asked.seed, asked.group)
        recorded = Predictions.read(asked.predictions).among(whole, drawn.test) if asked.predictions is not None else None
        book = AttemptBook(certificates.kept(settings, registry, agent).with_name(attempts.FILE))
        terms = book.terms(marked, terms)
        return cls(project, subject, marked, drawn, right, checks, combination, bonds, file, recorded, book, terms)

    @property
    def test(self) -> Test:
        """The rows that are drawn."""
        return self.drawn.test

    @property
    def origin(self) -> Origin:
        """What the certificate says of its rows."""
        test, recorded = self.test, self.recorded
        return Origin(
            name=test.name,
            digest=digest(canonical([test.digest, recorded.digest])) if recorded is not None else test.digest,
            right=self.right.metrics,
            predictions=recorded is not None,
            rows=test.digest if recorded is not None else "",
            marks=Marks.of(self.marked.marks, SKETCH),
            copies=self.drawn.copies,
            grouped=self.drawn.grouped,
            group=self.drawn.group if self.drawn.grouped else "",
        )

    @property
    def left_out(self) -> list[str]:
        """What is to be said of rows that are not taken, and of those that are taken although figures leave them out."""
        drawn, said = self.drawn, left_out(self.drawn)
        if aside := sum(map(self.right.aside, _unanswered(drawn.test))):
            said.append(
                f"{counted(aside, 'row')} that the metric leaves out of its figure are in: the promise is about all that is accepted"
            )
        return said

    async def cases(self, open_: Opener, chosen: Settings) -> list[Case]:
        """The answers, asked for or recorded; each row once."""
        if self.combination is not None:
            from orchestra.cli.learn import combine

            card = self.subject.card
            said = await combine.answered(open_, chosen, self.project, card, self.combination, self.test, self.recorded)
            return [case for case, _ in said]
        if self.recorded is not None:
            return self.subject.recorded(self.recorded, self.checks, self.test)
        async with serving(open_, chosen) as orchestra:
            return await self.subject.cases(orchestra, self.checks, self.test, chosen.concurrency)


async def certified(open_: Opener, chosen: Settings, asked: Certifying, data: Path, stop: Stop) -> Attempt:
    """Asks or reads the answers, certifies, and writes the file, unless it is told to stop. Raises `InputError` before anything starts, and
    `OrchestraError` C023 where the file cannot be written."""
    matter = _Matter.of(chosen, asked, data)
    test, drawn, right, terms = matter.test, matter.drawn, matter.right, matter.terms
    size, answers = len(test.questions), None
    if not asked.as_json:
        what = (
            f"checks {', '.join(matter.checks)}"
            if matter.subject.whole is None
            else "scored by the least sure that the output follows from"
        )
        say(visible(f"{matter.subject.card.name} on {test.name}: {size:,} rows, {what}"))
        say(visible(f"right: {right.said}"))
        for line in matter.left_out:
            say(line)
    if (few := too_few(size, terms)) is None:
        matter.book.check()
    if matter.recorded is not None:
        answers = items(test, await matter.cases(open_, chosen), right)
        terms = matter.book.terms(matter.marked, asked.terms, answers)
        few = too_few(size, terms)
    if not asked.as_json:
        say(f"\n{_needed(terms, size)}")
    if answers is None:
        if few is not None:
            return Attempt(few, None, None, terms, drawn, right, tested=False)
        answers = items(test, await matter.cases(open_, chosen), right)

    def go_on() -> None:
        if stop.told:
            raise asyncio.CancelledError  # nothing waits from here on, where it would come by itself

    if few is None:
        found = matter.book.tested(test.name, matter.marked, answers, asked.terms, go_on)
    else:
        found = certify(answers, terms, between=go_on)
    if found.terms.attempt < terms.attempt and not asked.as_json:
        say(f"These are the answers of an attempt before. {_which(found.terms)}")
    if not isinstance(found.outcome, Certified):
        return Attempt(found, None, None, found.terms, drawn, right, tested=few is None)
    mark, now = matter.combination.digest if matter.combination is not None else "", datetime.now(UTC).isoformat(timespec="seconds")
    made = certificate(matter.subject.card.name, matter.checks, found, matter.origin, matter.bonds, now, mark)
    before = _promised(matter.file, made)
    go_on()
    audit_log.replaced(matter.file, made.written())
    return Attempt(found, made, matter.file, found.terms, drawn, right, before=before)


def left_out(drawn: Independent) -> list[str]:
    """What is to be said of rows that are not taken, for others like them are."""
    said = []
    if drawn.copies:
        said.append(f"{counted(drawn.copies, 'row')} left out: each input counts once, however often it is written down")
    if drawn.grouped:
        said.append(f"{counted(drawn.grouped, 'row')} left out: rows of one group are not independent, and one of each is drawn")
    if (again := drawn.recurring) is not None:
        said.append(
            f"CAREFUL: {again.rows:,} rows have {again.values:,} different values of `{again.name}`, and are taken as independent:"
            f" rows about one are right and wrong together; --group {again.name} takes one of each"
        )
    return said


def _unanswered(test: Test) -> list[Case]:
    return [Case(question.expected, None) for question in test.questions]


def _refuse_fitted(combination: Combination, rows: Rows) -> None:
    """Raises `InputError` V028 where many of the rows are among those that the combination was fitted to; a few are told."""
    data = combination.data
    if rows.share(() if data.marks else (data.digest,), data.marks):
        said = f"the combination of {combination.agent!r} was fitted to many of these rows ({data.name})"
        raise InputError("V028", said, hint="rows that had no part in it: orchestra certify NAME --combined --data OTHER_ROWS")
    if data.marks and (few := data.marks.held(rows.marks)[1]):
        note(f"the combination was fitted to {few:,} of these rows and more; up to a tenth may be there by chance")


def _promised(file: Path, made: Certificate) -> str:
    """What the certificate promises that a new one takes the place of, and who cannot accept by the new one; empty where there is no
    file."""
    if not file.exists():
        return ""
    try:
        old = certificates.read(file, made.agent)
    except InputError as error:
        return f"one that does not hold: {error.message}"
    of = f"one of {old.made[:10]} on {old.data.name}"
    said = f"{of}, which audits have voided: {old.void}" if old.void else f"{of}: {old.promise}"
    if (then := _accepting(old)) == _accepting(made):
        return said
    return f"{said}. An agent has one certificate: nodes with {then} accept by this one no more (V005); those with {_accepting(made)} do"


def _accepting(certificate: Certificate) -> str:
    """Which nodes accept by a certificate."""
    return f"`checks: [{', '.join(certificate.checks)}]`{' and `score: combined`' if certificate.combination else ''}"


def _combination(project: Project, asked: Certifying) -> Combination:
    """The agent's combination. Raises `InputError` L076 where there is none, V005 for one of other checks, V002 to V007 where it does not
    hold."""
    found: Combination | None = project.catalog().combinations.get(asked.agent)
    if found is None:
        hint = f"orchestra learn combine {asked.agent} --data FILE"
        raise InputError("L076", f"there is no combination of checks for {asked.agent!r}", hint=hint)
    if asked.named and frozenset(map(str, rules_of(asked.named))) != frozenset(found.checks):
        said = f"the combination of {asked.agent!r} is of the checks {', '.join(found.checks)}, and not of {', '.join(asked.named)}"
        raise InputError("V005", said, hint="leave --checks out, or orchestra learn combine")
    return found


def _known(project: Project, checks: tuple[str, ...]) -> None:
    """Raises `InputError` L072 for a text that is no check, L111 for a check that nobody knows, V006 for one that asks agents."""
    known = project.catalog().checks
    for text in checks:
        try:
            check_expression.read(text)
        except check_expression.NotARule as error:
            raise InputError("L072", f"{text!r} is no check: {error.why}", hint="--checks quote,numbers") from error
    for check in names_of(checks):
        if check in ASKING:
            whom = "a tool" if check == TOOL else "agents"
            said = f"the check {check!r} asks {whom}, and a certificate is bound to nothing but the agent that it is of"
            raise InputError("V006", said, hint="--checks quote,confidence")
        if check not in known:
            near = nearest(check, known)
            hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(sorted(known))}"
            raise InputError("L111", f"there is no check {check!r}", hint=hint)


def _needed(terms: Terms, rows: int) -> str:
    promise = f"At most {percent(terms.alpha)} wrong with {percent(1 - terms.delta)} confidence"
    least = f"{promise} takes {terms.least:,} accepted answers at the very least, none of them wrong"
    tuning, calibrating = round(terms.tuning * rows), terms.calibrating(rows)
    parts = f"here {tuning:,} rows tune, {calibrating:,} calibrate and {rows - tuning - calibrating:,} judge."
    return f"{least}; {parts}\n{_which(terms)}"


def _which(terms: Terms) -> str:
    which = "the first attempt" if terms.attempt == 1 else f"attempt {terms.attempt:,}"
    return f"It is {which} on these rows, tested at {percent(terms.spent)} of the {percent(terms.delta)}."


def show(asked: Certifying, made: Attempt) -> None:
    """Prints what was found out."""
    found = made.certification
    if isinstance(found, TooLittle):
        _show_too_little(found, made, "; the agent was not asked")
        return
    bound, splits = found.bound, found.resplits
    say(f"{percent(bound.base_error)} of all answers are wrong: whatever the score, {percent(bound.withheld)} must be withheld at least.\n")
    rows = [(f"{one.threshold:.6g}", f"{one.accepted:,}", f"{one.errors:,}", f"{one.p:.4f}") for one in found.steps]
    if rows:
        console().print(table(("threshold", "accepted", "wrong", "p"), rows, right=(0, 1, 2, 3)))
        say()
    match found.outcome:
        case Certified(step, coverage):
            said = f"{step.accepted:,} of {found.calibration:,} calibration rows, {step.errors:,} of them wrong"
            say(f"Certified: a score of {step.threshold:.6g} accepts {said}; it covers {percent(coverage)}.", style="green")
        case TooLittle():
            _show_too_little(found.outcome, made)
        case other:
            say(f"No certificate: {other.reason}. More rows would not mend that: {other.mends}.", style="yellow")
    if found.judged is not None:
        say(f"On the {found.judged.rows:,} rows that had no part in it: {_judged(found.judged)}.")
    if found.naive is not None:
        naive = found.naive
        say(f"The naive threshold, {naive.threshold:.6g}, promises nothing: {_judged(naive.judged)} of the same rows.")
    over = f"more than {percent(asked.alpha)} of the rest was wrong in {splits.broken} of {splits.certified} that came to a certificate"
    say(
        f"{splits.rounds} resplits: {over} (in {splits.refuted} a test at {percent(1 - SURE)} rejects chance),"
        f" and with the naive threshold in {splits.naive_broken} of {splits.naive} (in {splits.naive_refuted})."
    )
    if made.file is not None:
        by = "a node accepts by it with `accept: certified`"
        if made.certificate is not None and made.certificate.of:
            by = f"orchestra run {asked.agent} --accept certified accepts by it"
        say(visible(f"\n{made.file}: written; {by}"), style="bold")
    if made.before:
        say(visible(f"It replaces {made.before}"), style="yellow")


def _show_too_little(found: TooLittle, made: Attempt, more: str = "") -> None:
    say(f"No certificate, too little data: {found.reason}. About {found.rows:,} rows would be needed{more}.", style="yellow")
    if made.tested:
        terms = made.terms
        left = f"{percent(terms.next.spent)} of the {percent(terms.delta)}, and takes {terms.next.least:,} accepted answers at the least"
        say(f"Who tests these rows again, among others or not, has another chance to be lucky: the next attempt has {left}.")


def _judged(found: Accepted) -> str:
    low, high = interval(found.errors, found.accepted)
    share = "" if found.risk is None else f", {percent(found.risk)} [{percent(low)}, {percent(high)}]"
    return f"{found.accepted:,} accepted, {found.errors:,} wrong{share}"


def show_data(asked: Certifying, made: Attempt) -> None:
    """Prints it as JSON."""
    found, terms = made.certification, made.terms
    print_json(
        {
            "agent": asked.agent,
            "least_accepted": terms.least,
            "attempt": terms.attempt,
            "tested_at": terms.spent,
            "right": made.right.said,
            "left_out": {"copies": made.drawn.copies, "grouped": made.drawn.grouped},
            **({"outcome": as_outcome(found)} if isinstance(found, TooLittle) else as_data(found)),
            "promise": made.certificate.promise if made.certificate is not None else None,
            "file": str(made.file) if made.file is not None else None,
            "replaced": made.before or None,
        }
    )
