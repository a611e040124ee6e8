"""`orchestra certify`: certifies whole answers of agents and workflows, and with --claims parts of answers."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.agents.card import Card
from orchestra.agents.registry import Registry
from orchestra.app import certificates
from orchestra.app.orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.app.workflow_certificates import WorkflowTarget
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.learn import evaluate
from orchestra.cli.output import (
    check_replaceable,
    json_line,
    print_json,
    print_note,
    print_table,
    print_text,
)
from orchestra.cli.signals import StopSignal
from orchestra.cli.typer_adapter import STATUS_CODES
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings, looks_like_path
from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import escape_invisible, pluralize
from orchestra.learn.certification import audit_log
from orchestra.learn.certification.attempt_log import AttemptLogFile
from orchestra.learn.certification.independent import IndependentRows, select_independent
from orchestra.learn.certification.labelled_answers import (
    Correctness,
    Predictions,
    certification_card,
    certification_items,
    certified_checks,
    correctness_of,
)
from orchestra.learn.data.provenance import fingerprints_of
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import EvaluationSet, as_record
from orchestra.schema.content import has_content
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification import check_expression
from orchestra.verification.acceptance import check_names, parse_checks
from orchestra.verification.certificates import attempts
from orchestra.verification.certificates.certify import (
    CONFIDENCE_LEVEL,
    Certification,
    CertificationTerms,
    Certified,
    InsufficientData,
    ThresholdResult,
    certify,
    check_sample_size,
    confidence_interval,
    format_percent,
    validate,
)
from orchestra.verification.certificates.combination import Combination
from orchestra.verification.certificates.file import (
    Certificate,
    CertificationOrigin,
    DependencyDigests,
    build_certificate,
    certification_to_json,
    outcome_to_json,
)
from orchestra.verification.certificates.row_fingerprints import SAMPLE_SIZE, RowFingerprints, RowSet
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.model_checks import MODEL_CHECKS
from orchestra.workflows.python.steps import Agent, Workflow

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.cli.learn.arguments import CertifyArguments
    from orchestra.core.settings import Settings
    from orchestra.learn.certification.claims import JudgedAnswerFile
    from orchestra.learn.certification.independent import IndependentRows
    from orchestra.verification.certificates.claims_file import ClaimsCertificate, ClaimsData
    from orchestra.verification.certificates.conformal import CalibrationAnswer, FactualityResult, RetentionResult
    from orchestra.verification.certificates.row_fingerprints import RowSet


@dataclass(frozen=True, slots=True)
class CertificationResult:
    """The result; without a certificate if none could be made."""

    certification: Certification | InsufficientData
    """`InsufficientData` without calls if no answers to so few rows could support the guarantee."""
    certificate: Certificate | None
    file: Path | None
    terms: CertificationTerms
    sample: IndependentRows
    correctness: Correctness
    tested: bool = True
    """False if no answers to so few rows could support the guarantee; the attempt does not count."""
    replaced_guarantee: str = ""
    """The guarantee of the replaced certificate."""

    @property
    def exit_code(self) -> int:
        """The exit code."""
        return STATUS_CODES["abstained"] if self.certificate is None else 0


@dataclass(frozen=True, slots=True)
class _CertificationJob:
    """All inputs of a certification, checked before any call."""

    project: Project
    subject: CertificationSubject
    all_rows: RowSet
    """All rows, from which some are sampled."""
    sample: IndependentRows
    correctness: Correctness
    checks: tuple[str, ...]
    combination: Combination | None
    bonds: DependencyDigests
    file: Path
    recorded: Predictions | None
    attempt_book: AttemptLogFile
    terms: CertificationTerms
    """The terms of the next attempt on these rows."""

    @classmethod
    def load(cls, project_settings: Settings, arguments: CertifyArguments, data: Path) -> _CertificationJob:
        """Loads and checks everything. Raises `InputError` for what cannot be certified, and `OrchestraError` C023 for
        an unwritable file.
        """
        terms, project = arguments.terms, Project.load(project_settings)
        subject = find_subject(project, arguments.agent)
        card, agent = subject.card, subject.card.name
        subject.check_supported(
            named=bool(arguments.check_names), combined=arguments.combined, recorded=arguments.predictions is not None
        )
        rows = evaluate.load_unseen_rows(card, data, arguments.rows, arguments.seed, arguments.evaluation)
        right = correctness_of(
            card, arguments.evaluation, arguments.metric, rows.rows if subject.workflow is not None else ()
        )
        checks = certified_checks(card, arguments.check_names)
        combination = _load_combination(project, arguments) if arguments.combined else None
        used_rows = RowSet(frozenset({rows.digest}), frozenset(fingerprints_of(rows)))
        if combination is None:
            _check_known(project, checks)
        else:
            checks = combination.checks
            _refuse_fitted(combination, used_rows)
        settings, registry = subject.settings, subject.registry
        bonds, file = subject.bonds(), arguments.out or certificates.default_path(settings, registry, agent)
        check_replaceable(file, "--out")
        audit_log.refuse_refuted_rows(settings, registry, agent, used_rows)
        validate(certification_items(rows, _unanswered_cases(rows), right))
        sample = select_independent(rows, card, arguments.seed, arguments.group)
        predictions = (
            Predictions.read(arguments.predictions).restricted_to(rows, sample.test)
            if arguments.predictions is not None
            else None
        )
        book = AttemptLogFile(certificates.writable_path(settings, registry, agent).with_name(attempts.FILE_NAME))
        terms = book.next_terms(used_rows, terms)
        return cls(
            project, subject, used_rows, sample, right, checks, combination, bonds, file, predictions, book, terms
        )

    @property
    def test(self) -> EvaluationSet:
        """The sampled rows."""
        return self.sample.test

    @property
    def origin(self) -> CertificationOrigin:
        """The origin of the rows, for the certificate."""
        test, predictions = self.test, self.recorded
        return CertificationOrigin(
            name=test.name,
            digest=digest(canonical([test.digest, predictions.digest])) if predictions is not None else test.digest,
            metrics=self.correctness.metrics,
            predictions=predictions is not None,
            rows_digest=test.digest if predictions is not None else "",
            fingerprints=RowFingerprints.of(self.all_rows.fingerprints, SAMPLE_SIZE),
            duplicates=self.sample.duplicates,
            grouped=self.sample.group_duplicates,
            group=self.sample.group_input if self.sample.group_duplicates else "",
        )

    @property
    def row_notes(self) -> list[str]:
        """Notes on omitted rows, and on included rows that are not part of figures."""
        sample, notes = self.sample, describe_left_out(self.sample)
        if aside := sum(map(self.correctness.is_excluded, _unanswered_cases(sample.test))):
            notes.append(
                f"{pluralize(aside, 'row')} that the metric leaves out are included: the guarantee covers all "
                "accepted answers"
            )
        return notes

    async def cases(self, open_: Opener, settings: Settings) -> list[Case]:
        """The answers, generated or recorded, one for each row."""
        if self.combination is not None:
            from orchestra.cli.learn import evaluate as combine

            card = self.subject.card
            case_rulings = await combine.answer_and_rule(
                open_, settings, self.project, card, self.combination, self.test, self.recorded
            )
            return [case for case, _ in case_rulings]
        if self.recorded is not None:
            return self.subject.recorded_cases(self.recorded, self.checks, self.test)
        async with open_orchestra(open_, settings) as orchestra:
            return await self.subject.ask_cases(orchestra, self.checks, self.test, settings.concurrency)


async def certify_outputs(
    open_: Opener, settings: Settings, arguments: CertifyArguments, data: Path, stop: StopSignal
) -> CertificationResult:
    """Collects the answers, certifies, and writes the file unless it is cancelled. Raises `InputError` before anything
    starts, and `OrchestraError` C023 if the file cannot be written.
    """
    matter = _CertificationJob.load(settings, arguments, data)
    test, sample, right, terms = matter.test, matter.sample, matter.correctness, matter.terms
    size, answers = len(test.rows), None
    if not arguments.as_json:
        method = (
            f"checks {', '.join(matter.checks)}"
            if matter.subject.workflow is None
            else "scored by the least confident node that the output depends on"
        )
        print_text(escape_invisible(f"{matter.subject.card.name} on {test.name}: {size:,} rows, {method}"))
        print_text(escape_invisible(f"right: {right.description}"))
        for line in matter.row_notes:
            print_text(line)
    if (gap := check_sample_size(size, terms)) is None:
        matter.attempt_book.check_writable()
    if matter.recorded is not None:
        answers = certification_items(test, await matter.cases(open_, settings), right)
        terms = matter.attempt_book.next_terms(matter.all_rows, arguments.terms, answers)
        gap = check_sample_size(size, terms)
    if not arguments.as_json:
        print_text(f"\n{_describe_requirement(terms, size)}")
    if answers is None:
        if gap is not None:
            return CertificationResult(gap, None, None, terms, sample, right, tested=False)
        answers = certification_items(test, await matter.cases(open_, settings), right)

    def go_on() -> None:
        if stop.requested:
            raise asyncio.CancelledError  # nothing awaits from here on, where a cancellation would be raised

    if gap is None:
        certification = matter.attempt_book.record_certification(
            test.name, matter.all_rows, answers, arguments.terms, go_on
        )
    else:
        certification = certify(answers, terms, on_round=go_on)
    if certification.terms.attempt < terms.attempt and not arguments.as_json:
        print_text(f"These are the answers of an earlier attempt. {_describe_attempt(certification.terms)}")
    if not isinstance(certification.outcome, Certified):
        return CertificationResult(certification, None, None, certification.terms, sample, right, tested=gap is None)
    mark, now = (
        matter.combination.digest if matter.combination is not None else "",
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    certificate = build_certificate(
        matter.subject.card.name, matter.checks, certification, matter.origin, matter.bonds, now, mark
    )
    before = _replaced_guarantee(matter.file, certificate)
    go_on()
    audit_log.replace_file(matter.file, certificate.to_bytes())
    return CertificationResult(
        certification, certificate, matter.file, certification.terms, sample, right, replaced_guarantee=before
    )


def describe_left_out(sample: IndependentRows) -> list[str]:
    """Notes on rows omitted as duplicates."""
    reasons = []
    if sample.duplicates:
        reasons.append(f"{pluralize(sample.duplicates, 'row')} left out: equal inputs count once")
    if sample.group_duplicates:
        reasons.append(
            f"{pluralize(sample.group_duplicates, 'row')} left out: rows of one group are not independent, "
            "so one of each is sampled"
        )
    if (again := sample.repeated_input) is not None:
        reasons.append(
            f"WARNING: {again.rows:,} rows have {again.distinct_values:,} different values of `{again.name}`, "
            f"and are treated as independent: rows with the same value are correlated; "
            f"--group {again.name} takes one of each"
        )
    return reasons


def _unanswered_cases(test: EvaluationSet) -> list[Case]:
    return [Case(question.expected, None) for question in test.rows]


def _refuse_fitted(combination: Combination, rows: RowSet) -> None:
    """Raises `InputError` V028 if many of the rows were used to fit the combination; prints a note for a few."""
    data = combination.data
    if rows.overlaps(() if data.fingerprints else (data.digest,), data.fingerprints):
        message = f"the combination of {combination.agent!r} was fitted on many of these rows ({data.name})"
        raise InputError("V028", message, hint="use other rows: orchestra certify NAME --combined --data OTHER_ROWS")
    if data.fingerprints and (match_count := data.fingerprints.count_matches(rows.fingerprints)[1]):
        print_note(
            f"the combination was fitted on {match_count:,} or more of these rows; up to a tenth may be there by chance"
        )


def _replaced_guarantee(file: Path, certificate_: Certificate) -> str:
    """The guarantee of the certificate to be replaced, and the nodes that cannot use the new one; empty without a
    file.
    """
    if not file.exists():
        return ""
    try:
        old = certificates.read_certificate(file, certificate_.agent)
    except InputError as error:
        return f"an invalid one: {error.message}"
    of = f"one of {old.created_at[:10]} on {old.data.name}"
    replaced_guarantee = (
        f"{of}, which audits have voided: {old.void_reason}" if old.void_reason else f"{of}: {old.guarantee}"
    )
    if (then := _accepting_nodes(old)) == _accepting_nodes(certificate_):
        return replaced_guarantee
    return (
        f"{replaced_guarantee}. An agent has one certificate: nodes with {then} no longer accept by it (V005); those "
        f"with {_accepting_nodes(certificate_)} do"
    )


def _accepting_nodes(certificate: Certificate) -> str:
    """The nodes that accept by a certificate."""
    return f"`checks: [{', '.join(certificate.checks)}]`{' and `score: combined`' if certificate.combination else ''}"


def _load_combination(project: Project, arguments: CertifyArguments) -> Combination:
    """The combination of the agent. Raises `InputError` L076 without one, V005 for other checks, V002 to V007 if it is
    invalid.
    """
    combination: Combination | None = project.catalog().combinations.get(arguments.agent)
    if combination is None:
        hint = f"orchestra learn combine {arguments.agent} --data FILE"
        raise InputError("L076", f"there is no combination of checks for {arguments.agent!r}", hint=hint)
    if arguments.check_names and frozenset(map(str, parse_checks(arguments.check_names))) != frozenset(
        combination.checks
    ):
        message = (
            f"the combination of {arguments.agent!r} uses the checks {', '.join(combination.checks)}, not "
            f"{', '.join(arguments.check_names)}"
        )
        raise InputError("V005", message, hint="leave --checks out, or orchestra learn combine")
    return combination


def _check_known(project: Project, checks: tuple[str, ...]) -> None:
    """Raises `InputError` L072 for an invalid check, L111 for an unknown one, V006 for one that calls agents."""
    known_checks = project.catalog().checks
    for text in checks:
        try:
            check_expression.parse_check(text)
        except check_expression.CheckSyntaxError as error:
            raise InputError(
                "L072", f"{text!r} is not a check: {error.reason}", hint="--checks quote,numbers"
            ) from error
    for check in check_names(checks):
        if check in MODEL_CHECKS:
            whom = "a tool" if check == TOOL else "agents"
            message = f"the check {check!r} calls {whom}, but a certificate is bound only to its own agent"
            raise InputError("V006", message, hint="--checks quote,confidence")
        if check not in known_checks:
            near = closest_match(check, known_checks)
            hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(sorted(known_checks))}"
            raise InputError("L111", f"there is no check {check!r}", hint=hint)


def _describe_requirement(terms: CertificationTerms, rows: int) -> str:
    guarantee = f"At most {format_percent(terms.alpha)} wrong with {format_percent(1 - terms.delta)} confidence"
    least = f"{guarantee} requires at least {terms.min_accepted:,} accepted answers, none of them wrong"
    tuning, calibrating = round(terms.tuning * rows), terms.calibration_size(rows)
    parts = f"here {tuning:,} rows tune, {calibrating:,} calibrate and {rows - tuning - calibrating:,} judge."
    return f"{least}; {parts}\n{_describe_attempt(terms)}"


def _describe_attempt(terms: CertificationTerms) -> str:
    attempt_text = "the first attempt" if terms.attempt == 1 else f"attempt {terms.attempt:,}"
    return (
        f"It is {attempt_text} on these rows, tested at {format_percent(terms.spent_delta)} of the "
        f"{format_percent(terms.delta)}."
    )


def show(arguments: CertifyArguments, result: CertificationResult) -> None:
    """Prints the result."""
    certification = result.certification
    if isinstance(certification, InsufficientData):
        _show_too_little(certification, result, "; the agent was not called")
        return
    bound, splits = certification.bound, certification.resplits
    print_text(
        f"{format_percent(bound.base_error)} of all answers are wrong: with any score, at least "
        f"{format_percent(bound.min_withheld)} must be withheld.\n"
    )
    rows = [
        (f"{test_step.threshold:.6g}", f"{test_step.accepted:,}", f"{test_step.errors:,}", f"{test_step.p_value:.4f}")
        for test_step in certification.threshold_tests
    ]
    if rows:
        print_table(("threshold", "accepted", "wrong", "p"), rows, right=(0, 1, 2, 3))
        print_text()
    match certification.outcome:
        case Certified(step, coverage):
            errors_text = (
                f"{step.accepted:,} of {certification.calibration:,} calibration rows, {step.errors:,} of them wrong"
            )
            print_text(
                f"Certified: a score of {step.threshold:.6g} accepts {errors_text}; it covers "
                f"{format_percent(coverage)}.",
                style="green",
            )
        case InsufficientData():
            _show_too_little(certification.outcome, result)
        case other_result:
            print_text(
                f"No certificate: {other_result.reason}. More rows would not help: {other_result.remedy}.",
                style="yellow",
            )
    if certification.held_out is not None:
        print_text(f"On the {certification.held_out.rows:,} held-out rows: {_format_accepted(certification.held_out)}.")
    if certification.naive is not None:
        naive = certification.naive
        print_text(
            f"The naive threshold, {naive.threshold:.6g}, guarantees nothing: "
            f"{_format_accepted(naive.held_out)} of the same rows."
        )
    over = (
        f"more than {format_percent(arguments.alpha)} of the rest was wrong in {splits.violations} of "
        f"{splits.certified} with a certificate"
    )
    print_text(
        f"{splits.rounds} resplits: {over} (in {splits.significant_violations} "
        f"a test at {format_percent(1 - CONFIDENCE_LEVEL)} rejects chance), and with the naive threshold "
        f"in {splits.naive_violations} of {splits.naive} (in {splits.naive_significant_violations})."
    )
    if result.file is not None:
        by = "a node accepts by it with `accept: certified`"
        if result.certificate is not None and result.certificate.subject_kind:
            by = f"orchestra run {arguments.agent} --accept certified accepts by it"
        print_text(escape_invisible(f"\n{result.file}: written; {by}"), style="bold")
    if result.replaced_guarantee:
        print_text(escape_invisible(f"It replaces {result.replaced_guarantee}"), style="yellow")


def _show_too_little(shortage: InsufficientData, result: CertificationResult, suffix: str = "") -> None:
    print_text(
        f"No certificate, too little data: {shortage.reason}. About {shortage.rows_needed:,} rows would be "
        f"needed{suffix}.",
        style="yellow",
    )
    if result.tested:
        terms = result.terms
        remaining_text = (
            f"{format_percent(terms.next_attempt.spent_delta)} of the {format_percent(terms.delta)}, and "
            f"requires at least {terms.next_attempt.min_accepted:,} accepted answers"
        )
        print_text(
            "Each further test on these rows, alone or with others, may succeed by chance: the next "
            f"attempt has {remaining_text}."
        )


def _format_accepted(result: ThresholdResult) -> str:
    low, high = confidence_interval(result.errors, result.accepted)
    share = (
        ""
        if result.risk is None
        else f", {format_percent(result.risk)} [{format_percent(low)}, {format_percent(high)}]"
    )
    return f"{result.accepted:,} accepted, {result.errors:,} wrong{share}"


def show_data(arguments: CertifyArguments, result: CertificationResult) -> None:
    """Prints the result as JSON."""
    certification, terms = result.certification, result.terms
    print_json(
        {
            "agent": arguments.agent,
            "least_accepted": terms.min_accepted,
            "attempt": terms.attempt,
            "tested_at": terms.spent_delta,
            "metrics": result.correctness.description,
            "left_out": {"duplicates": result.sample.duplicates, "grouped": result.sample.group_duplicates},
            **(
                {"outcome": outcome_to_json(certification)}
                if isinstance(certification, InsufficientData)
                else certification_to_json(certification)
            ),
            "guarantee": result.certificate.guarantee if result.certificate is not None else None,
            "file": str(result.file) if result.file is not None else None,
            "replaced": result.replaced_guarantee or None,
        }
    )


@dataclass(frozen=True, slots=True)
class ClaimsCertificationResult:
    """The result; empty if rows must be judged first, and without a certificate if none could be made."""

    calibration: FactualityResult | None
    certificate: ClaimsCertificate | None = None
    file: Path | None = None
    attempt: int = 1
    """The number of the attempt on these answers."""
    sample: IndependentRows | None = None

    @property
    def exit_code(self) -> int:
        """The exit code."""
        return STATUS_CODES["abstained"] if self.calibration is not None and self.certificate is None else 0


async def certify_claims(
    open_: Opener, settings: Settings, arguments: CertifyArguments, data: Path
) -> ClaimsCertificationResult:
    """Reads answers, calls the judge for missing scores, calibrates, writes the file. Raises `OrchestraError` C023."""
    from datetime import UTC, datetime

    from orchestra.app.certificates import default_path, dependency_digests, writable_path
    from orchestra.app.project import Project
    from orchestra.learn.certification.attempt_log import AttemptLogFile
    from orchestra.learn.certification.audit_log import replace_file
    from orchestra.learn.certification.claims import read
    from orchestra.verification.certificates import attempts, conformal
    from orchestra.verification.certificates.claims_file import (
        FILE_NAME,
        ClaimScorer,
        ClaimsData,
        build_claims_certificate,
    )
    from orchestra.verification.certificates.row_fingerprints import SAMPLE_SIZE, RowFingerprints
    from orchestra.verification.entailment import DECISION_THRESHOLD

    project = Project.load(settings)
    card = project.registry.card(arguments.agent)
    check, judge = _find_judge(project, arguments, card.checks)
    rows = read(data, card)
    if not rows.is_labelled:
        return _print_unlabelled(rows, arguments.agent)
    used_rows = _unrefuted_rows(settings, project, arguments.agent, rows)
    bound, judge_digests = (dependency_digests(settings, project.registry, name) for name in (arguments.agent, judge))
    file = arguments.out or default_path(settings, project.registry, arguments.agent).with_name(FILE_NAME)
    check_replaceable(file, "--out")
    rows, sample = rows.select_independent(card, arguments.seed, arguments.group)
    book = AttemptLogFile(
        writable_path(settings, project.registry, arguments.agent, FILE_NAME).with_name(attempts.CLAIMS_FILE_NAME)
    )
    book.check_writable()
    if not arguments.as_json:
        _report_rows(arguments.agent, rows, check, sample)
    answers = await _calibration_answers(open_, settings, project, judge, rows, arguments.alpha)
    report = conformal.calibrate(answers, arguments.alpha, arguments.seed, DECISION_THRESHOLD)
    attempt = (
        book.record_claims_calibration(rows.name, used_rows, answers, report)
        if report.calibration >= report.min_answers
        else 1
    )  # fewer answers are not tested
    if report.threshold is None or report.held_out is None:
        return ClaimsCertificationResult(report, attempt=attempt, sample=sample)
    sketch = RowFingerprints.of(used_rows.fingerprints, SAMPLE_SIZE)
    source = ClaimsData(
        rows.name, rows.digest, report.calibration, report.held_out.answers, arguments.seed, rows.is_scored, sketch
    )
    origin = _with_left_out(source, sample)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    certificate = build_claims_certificate(
        arguments.agent, bound, ClaimScorer(check, judge, judge_digests), report, origin, now, attempt=attempt
    )
    replace_file(file, certificate.to_bytes())
    return ClaimsCertificationResult(report, certificate, file, attempt, sample)


def _print_unlabelled(rows: JudgedAnswerFile, agent: str) -> ClaimsCertificationResult:
    """Prints the rows for a person to judge."""
    for line in rows.label_template():
        sys.stdout.write(json_line(line))
    print_note(
        f'write true or false for each "right": null, and name the file: orchestra certify {agent} --claims --data FILE'
    )
    return ClaimsCertificationResult(None)


def _report_rows(agent: str, rows: JudgedAnswerFile, check: str, sample: IndependentRows) -> None:
    """Prints which answers the guarantee rests on."""

    parts = sum(len(row.parts) for row in rows.rows)
    print_text(
        escape_invisible(f"{agent} on {rows.name}: {len(rows.rows):,} answers of {parts:,} parts, scored by {check}")
    )
    for note in (*describe_left_out(sample), ""):
        print_text(escape_invisible(note))


def _with_left_out(origin: ClaimsData, sample: IndependentRows) -> ClaimsData:
    """The origin of the answers, with what was omitted."""
    import msgspec

    group = (sample.group_input if sample.group_duplicates else "") or msgspec.UNSET
    return msgspec.structs.replace(
        origin,
        duplicates=sample.duplicates or msgspec.UNSET,
        grouped=sample.group_duplicates or msgspec.UNSET,
        group=group,
    )


def _find_judge(project: Project, arguments: CertifyArguments, checks: tuple[str, ...]) -> tuple[str, str]:
    """The check that scores claims, and the agent that it calls. Raises `InputError` V006 for others, V011 for an
    unknown agent.
    """
    from orchestra.verification.acceptance import parse_checks
    from orchestra.verification.check_expression import CheckCall
    from orchestra.verification.entailment import ENTAILMENT
    from orchestra.verification.model_checks import judge_name

    judge_checks = [
        parsed_check
        for parsed_check in parse_checks(arguments.check_names or checks)
        if isinstance(parsed_check, CheckCall) and parsed_check.check == ENTAILMENT
    ]
    if arguments.check_names and not judge_checks:
        message = f"claims are scored by the check {ENTAILMENT!r}, not by {', '.join(arguments.check_names)}"
        raise InputError("V006", message, hint="--checks entailment, or --checks 'entailment(NAME)'")
    check = judge_checks[0] if judge_checks else CheckCall(ENTAILMENT)
    judge = judge_name(check)
    if judge not in project.registry.agents:
        hint = f"there are: {', '.join(sorted(project.registry.agents)) or 'none'}"
        raise InputError("V011", f"the check {check} asks the agent {judge!r}, and there is none", hint=hint)
    return str(check), judge


def _unrefuted_rows(settings: Settings, project: Project, agent: str, rows: JudgedAnswerFile) -> RowSet:
    """Returns the fingerprints of the rows. Raises `InputError` if an audit refuted a certificate made on them."""
    from orchestra.learn.certification.audit_log import refuse_refuted_rows
    from orchestra.learn.data.dataset import fingerprint
    from orchestra.verification.certificates.row_fingerprints import FINGERPRINT_LENGTH, RowSet

    fingerprints = frozenset(fingerprint([row.input, row.output])[:FINGERPRINT_LENGTH] for row in rows.rows)
    used_rows = RowSet(frozenset({rows.digest}), fingerprints)
    refuse_refuted_rows(settings, project.registry, agent, used_rows, claims=True)
    return used_rows


async def _calibration_answers(
    open_: Opener, settings: Settings, project: Project, judge: str, rows: JudgedAnswerFile, alpha: float
) -> list[CalibrationAnswer]:
    """Returns the answers with their scores. Asks the judge for missing scores, unless there are too few answers."""
    from orchestra.verification.certificates import conformal

    if rows.is_scored:
        return rows.scored_answers([])
    if round(conformal.CALIBRATION_SHARE * len(rows.rows)) < conformal.min_answers(alpha):
        print_note("too few answers for any scores to suffice: no calls are made")
        return [conformal.CalibrationAnswer(row.id, ()) for row in rows.rows]
    return rows.scored_answers(await _ask_judge(open_, settings, project, judge, rows))


async def _ask_judge(
    open_: Opener, settings: Settings, project: Project, judge: str, rows: JudgedAnswerFile
) -> list[Any]:
    """The answers of the judge."""
    from orchestra.cli.learn.evaluate import ask_arm
    from orchestra.verification.entailment import JudgeReply
    from orchestra.workflows.python.steps import Agent

    card = project.registry.cards.get(judge)
    step = (
        Agent.from_card(card.with_settings(checks=(), accept=None, otherwise=()))
        if card is not None
        else project.agent(judge)
    )
    async with open_orchestra(open_, settings) as orchestra:
        explanation = "calls failed; the parts they concern are never kept"
        arm = await ask_arm(orchestra, judge, step, rows.judge_inputs(), settings.concurrency, explanation)
    return [
        JudgeReply(case.output) if case.output is not None else JudgeReply(error=arm.reason or "it was withheld")
        for case in arm.cases
    ]


def show_claims_certification(_: CertifyArguments, result: ClaimsCertificationResult) -> None:
    """Prints the result."""
    from orchestra.verification.certificates.certify import confidence_interval, format_percent

    report = result.calibration
    if report is None:
        return
    guarantee = f"All kept parts must be right in at least {format_percent(1 - report.alpha)} of answers"
    print_text(
        f"{guarantee}: that requires at least {report.min_answers:,} answers; {report.calibration:,} calibrate here."
    )
    before = report.unfiltered
    if before.parts:
        text = f"{before.wrong_kept:,} of {before.parts:,} parts {'is' if before.wrong_kept == 1 else 'are'} wrong"
        print_text(
            f"Before anything is dropped, {text}; something is wrong in "
            f"{format_percent(before.violation_rate)} of the answers.\n"
        )
    if result.attempt > 1:
        text = (
            f"WARNING: attempt {result.attempt:,} on these answers, or on many of them. The guarantee is "
            "that of one test, without a delta that"
        )
        print_text(
            f"{text} attempts could share: of the best of several the shares of wrong answers add up. Other "
            "answers carry it.",
            style="yellow",
        )
    if report.threshold is None or report.calibrated is None or report.held_out is None:
        print_text(f"No certificate: {report.reason}.", style="yellow")
        return
    print_text(
        f"Certified: parts with a score of at least {report.threshold:.6g} are kept, "
        f"{_format_kept(report.calibrated)} of the calibration answers.",
        style="green",
    )
    low, high = confidence_interval(report.held_out.violations, report.held_out.answers)
    wrong = (
        f"something wrong was kept in {report.held_out.violations:,}, "
        f"{format_percent(report.held_out.violation_rate)} [{format_percent(low)}, {format_percent(high)}]"
    )
    print_text(f"On the {report.held_out.answers:,} held-out answers: {_format_kept(report.held_out)}; {wrong}.")
    if (splits := report.resplits) is not None:
        mean = f"something wrong was kept in {format_percent(splits.violation_rate)} of the rest on average"
        print_text(
            f"{splits.rounds} resplits: {mean}, {format_percent(report.alpha)} at most are guaranteed; "
            f"{format_percent(splits.kept_share)} of the parts were kept."
        )
    if result.file is not None:
        print_text(
            escape_invisible(
                f"\n{result.file}: written; a node keeps parts by it with `accept: certified` and `otherwise: "
                "[back_off, abstain]`"
            ),
            style="bold",
        )


def _format_kept(retention: RetentionResult) -> str:
    from orchestra.verification.certificates.certify import format_percent

    empty = f", and {retention.empty:,} answers are left with none" if retention.empty else ""
    return f"{format_percent(retention.kept_share)} of the parts of the {retention.answers:,}{empty}"


def show_claims_certification_data(arguments: CertifyArguments, result: ClaimsCertificationResult) -> None:
    """Prints the result as JSON."""
    import msgspec

    if result.calibration is None:
        return
    guarantee = result.certificate.guarantee if result.certificate is not None else None
    file = str(result.file) if result.file is not None else None
    left_out = (
        {"duplicates": result.sample.duplicates, "grouped": result.sample.group_duplicates}
        if result.sample is not None
        else {}
    )
    extra = {"attempt": result.attempt, "left_out": left_out, "guarantee": guarantee, "file": file}
    print_json({"agent": arguments.agent, **msgspec.to_builtins(result.calibration), **extra})


FAILED_ROWS_NOTE = "rows failed; they count as wrong and not accepted"


@dataclass(frozen=True, slots=True)
class CertificationSubject:
    """What is certified. `settings` and `registry` locate its files."""

    card: Card
    """The card of the agent; for a workflow, its card-like description."""
    settings: Settings
    registry: Registry
    workflow: WorkflowTarget | None = None
    """None for an agent."""
    step: Workflow[..., object] | None = None

    def check_supported(self, *, named: bool, combined: bool, recorded: bool) -> None:
        """Raises `InputError` V030 for a workflow that cannot run row by row, C010 for options on an agent's checks."""
        if self.workflow is None:
            return
        if named or combined:
            message = f"--{'checks' if named else 'combined'} requires an agent, but {self.card.name} is a workflow"
            raise InputError(
                "C010",
                message,
                hint="leave it out: its score is that of the least confident node that the output depends on",
            )
        if not recorded and (acts := self.workflow.effect_reason):
            hint = "run it where that is intended, and pass its outputs: --predictions FILE"
            raise InputError("V030", f"{self.card.name} would act once for each row: {acts}", hint=hint)

    def bonds(self) -> DependencyDigests:
        """The digests of what its answers and scores depend on. Raises `InputError` V007."""
        return (
            certificates.dependency_digests(self.settings, self.registry, self.card.name)
            if self.workflow is None
            else self.workflow.dependency_digests()
        )

    def recorded_cases(self, given: Predictions, checks: tuple[str, ...], test: EvaluationSet) -> list[Case]:
        """Recorded answers. Raises `InputError` V006 for one without a row, and if none of a workflow's has a score."""
        if self.workflow is None:
            return given.cases_for(self.card, checks, test)
        answers = given.outputs_for(test)
        scores = [answer[1] for answer in answers if answer is not None]
        if scores and all(score is None for score in scores):
            hint = f"orchestra batch {self.card.name} --accept 0"
            raise InputError("V006", f"no answer of {given.name} has a confidence", hint=hint)
        return [_recorded_case(question.expected, answer) for question, answer in zip(test.rows, answers, strict=True)]

    async def ask_cases(
        self, orchestra: Orchestra, checks: tuple[str, ...], test: EvaluationSet, concurrency: int
    ) -> list[Case]:
        """Runs it once for each row; returns its answers with confidence. Raises `FleetError` if no server is
        available.
        """
        if self.step is None:
            step = Agent.from_card(certification_card(self.card, checks))
            arm = await evaluate.ask_arm(orchestra, self.card.name, step, test, concurrency, FAILED_ROWS_NOTE)
        else:
            arm = await evaluate.ask_arm(
                orchestra.options(accept=0.0), self.card.name, self.step, test, concurrency, FAILED_ROWS_NOTE
            )
        return list(arm.cases)


def _recorded_case(expected: dict[str, object], answer_score: tuple[object, float | None] | None) -> Case:
    """A recorded output of a workflow. An empty one, or one without confidence, counts as withheld."""
    if answer_score is None or answer_score[1] is None or not has_content(answer_score[0]):
        return Case(expected, None)
    return Case(expected, as_record(answer_score[0]), answer_score[1])


def find_workflow(project: Project, name: str) -> tuple[WorkflowTarget, Workflow[..., object]] | None:
    """The workflow of a name or a file; None for other names."""
    if not looks_like_path(name) and name not in project.workflow_names():
        return None
    step = project.find(name)
    assert isinstance(step, Workflow), "it is the name of one"
    return WorkflowTarget.of(project, step.graph), step


def find_subject(project: Project, name: str) -> CertificationSubject:
    """The agent or workflow of this name. Raises `InputError` A001 for an unknown name, and errors of reading it."""
    if (workflow_subject := find_workflow(project, name)) is None:
        return CertificationSubject(project.registry.card(name), project.settings, project.registry)
    target, step = workflow_subject
    return CertificationSubject(target.card, target.settings, target.registry, target, step)
