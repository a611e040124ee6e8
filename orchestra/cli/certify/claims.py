"""`orchestra certify AGENT --claims`: from which score parts of an agent's answers are kept, made on answers that somebody has judged."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.exit_codes import STATUS_CODES
from orchestra.cli.output import json_line, print_json, print_note, print_text
from orchestra.cli.output_files import check_replaceable
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import escape_invisible

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.cli.certify.commands import CertifyArguments
    from orchestra.core.settings import Settings
    from orchestra.learn.certification.claims import JudgedAnswerFile
    from orchestra.learn.certification.independent import IndependentRows
    from orchestra.verification.certificates.claims_file import ClaimsCertificate, ClaimsData
    from orchestra.verification.certificates.conformal import CalibrationAnswer, FactualityResult, RetentionResult
    from orchestra.verification.certificates.row_fingerprints import RowSet


@dataclass(frozen=True, slots=True)
class ClaimsCertificationResult:
    """What came of it; nothing where rows are to be judged first, and no certificate where none could be made."""

    calibration: FactualityResult | None
    certificate: ClaimsCertificate | None = None
    file: Path | None = None
    attempt: int = 1
    """Which one on these answers it is."""
    sample: IndependentRows | None = None

    @property
    def exit_code(self) -> int:
        """The exit code."""
        return STATUS_CODES["abstained"] if self.calibration is not None and self.certificate is None else 0


async def certify_claims(
    open_: Opener, settings: Settings, arguments: CertifyArguments, data: Path
) -> ClaimsCertificationResult:
    """Reads the answers, asks the judge where they have no scores, calibrates, and writes the file. Raises `OrchestraError` C023 where
    it cannot be written, before anybody is asked."""
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
    marked = _unrefuted_rows(settings, project, arguments.agent, rows)
    bound, theirs = (dependency_digests(settings, project.registry, name) for name in (arguments.agent, judge))
    file = arguments.out or default_path(settings, project.registry, arguments.agent).with_name(FILE_NAME)
    check_replaceable(file, "--out")
    rows, drawn = rows.select_independent(card, arguments.seed, arguments.group)
    book = AttemptLogFile(
        writable_path(settings, project.registry, arguments.agent, FILE_NAME).with_name(attempts.CLAIMS_FILE_NAME)
    )
    book.check_writable()
    if not arguments.as_json:
        _report_rows(arguments.agent, rows, check, drawn)
    answers = await _calibration_answers(open_, settings, project, judge, rows, arguments.alpha)
    found = conformal.calibrate(answers, arguments.alpha, arguments.seed, DECISION_THRESHOLD)
    attempt = (
        book.record_claims_calibration(rows.name, marked, answers, found)
        if found.calibration >= found.min_answers
        else 1
    )  # fewer test nothing
    if found.threshold is None or found.held_out is None:
        return ClaimsCertificationResult(found, attempt=attempt, sample=drawn)
    sketch = RowFingerprints.of(marked.fingerprints, SAMPLE_SIZE)
    source = ClaimsData(
        rows.name, rows.digest, found.calibration, found.held_out.answers, arguments.seed, rows.is_scored, sketch
    )
    origin = _with_left_out(source, drawn)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = build_claims_certificate(
        arguments.agent, bound, ClaimScorer(check, judge, theirs), found, origin, now, attempt=attempt
    )
    replace_file(file, made.to_bytes())
    return ClaimsCertificationResult(found, made, file, attempt, drawn)


def _print_unlabelled(rows: JudgedAnswerFile, agent: str) -> ClaimsCertificationResult:
    """Prints the rows for somebody to judge."""
    for line in rows.label_template():
        sys.stdout.write(json_line(line))
    print_note(
        f'write true or false for each "right": null, and name the file: orchestra certify {agent} --claims --data FILE'
    )
    return ClaimsCertificationResult(None)


def _report_rows(agent: str, rows: JudgedAnswerFile, check: str, sample: IndependentRows) -> None:
    """Says on which answers the promise will rest."""
    from orchestra.cli.certify.outputs import describe_left_out

    parts = sum(len(row.parts) for row in rows.rows)
    print_text(
        escape_invisible(f"{agent} on {rows.name}: {len(rows.rows):,} answers of {parts:,} parts, scored by {check}")
    )
    for said in (*describe_left_out(sample), ""):
        print_text(escape_invisible(said))


def _with_left_out(origin: ClaimsData, sample: IndependentRows) -> ClaimsData:
    """Where the answers are from, with what was left out of them."""
    import msgspec

    group = (sample.group_input if sample.group_duplicates else "") or msgspec.UNSET
    return msgspec.structs.replace(
        origin,
        duplicates=sample.duplicates or msgspec.UNSET,
        grouped=sample.group_duplicates or msgspec.UNSET,
        group=group,
    )


def _find_judge(project: Project, arguments: CertifyArguments, checks: tuple[str, ...]) -> tuple[str, str]:
    """The check that scores claims, and the agent that it asks. Raises `InputError` V006 for others, V011 where that agent is not there."""
    from orchestra.verification.acceptance import parse_checks
    from orchestra.verification.check_expression import CheckCall
    from orchestra.verification.entailment import ENTAILMENT
    from orchestra.verification.model_checks import judge_name

    named = [
        one
        for one in parse_checks(arguments.check_names or checks)
        if isinstance(one, CheckCall) and one.check == ENTAILMENT
    ]
    if arguments.check_names and not named:
        said = f"claims are scored by the check {ENTAILMENT!r}, not by {', '.join(arguments.check_names)}"
        raise InputError("V006", said, hint="--checks entailment, or --checks 'entailment(NAME)'")
    check = named[0] if named else CheckCall(ENTAILMENT)
    judge = judge_name(check)
    if judge not in project.registry.agents:
        hint = f"there are: {', '.join(sorted(project.registry.agents)) or 'none'}"
        raise InputError("V011", f"the check {check} asks the agent {judge!r}, and there is none", hint=hint)
    return str(check), judge


def _unrefuted_rows(settings: Settings, project: Project, agent: str, rows: JudgedAnswerFile) -> RowSet:
    """Returns the fingerprints of the rows. Raises `InputError` if an audit refuted a certificate that was made on them."""
    from orchestra.learn.certification.audit_log import refuse_refuted_rows
    from orchestra.learn.data.dataset import fingerprint
    from orchestra.verification.certificates.row_fingerprints import FINGERPRINT_LENGTH, RowSet

    fingerprints = frozenset(fingerprint([row.input, row.output])[:FINGERPRINT_LENGTH] for row in rows.rows)
    marked = RowSet(frozenset({rows.digest}), fingerprints)
    refuse_refuted_rows(settings, project.registry, agent, marked, claims=True)
    return marked


async def _calibration_answers(
    open_: Opener, settings: Settings, project: Project, judge: str, rows: JudgedAnswerFile, alpha: float
) -> list[CalibrationAnswer]:
    """Returns the answers with their scores. Asks the judge for missing scores, unless there are too few answers."""
    from orchestra.verification.certificates import conformal

    if rows.is_scored:
        return rows.scored_answers([])
    if round(conformal.CALIBRATION_SHARE * len(rows.rows)) < conformal.min_answers(alpha):
        print_note("too few answers for any scores to help: nobody is asked")
        return [conformal.CalibrationAnswer(row.id, ()) for row in rows.rows]
    return rows.scored_answers(await _ask_judge(open_, settings, project, judge, rows))


async def _ask_judge(
    open_: Opener, settings: Settings, project: Project, judge: str, rows: JudgedAnswerFile
) -> list[Any]:
    """What the judge says to each question."""
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
        what = "questions failed, and what they are about is never kept"
        arm = await ask_arm(orchestra, judge, step, rows.judge_inputs(), settings.concurrency, what)
    return [
        JudgeReply(case.output) if case.output is not None else JudgeReply(error=arm.reason or "it was withheld")
        for case in arm.cases
    ]


def show(_: CertifyArguments, result: ClaimsCertificationResult) -> None:
    """Prints what was found out."""
    from orchestra.verification.certificates.certify import confidence_interval, format_percent

    found = result.calibration
    if found is None:
        return
    promise = f"All that is kept shall be right in at least {format_percent(1 - found.alpha)} of answers"
    print_text(
        f"{promise}: that takes {found.min_answers:,} answers at the very least; {found.calibration:,} calibrate here."
    )
    whole = found.unfiltered
    if whole.parts:
        said = f"{whole.wrong_kept:,} of {whole.parts:,} parts {'is' if whole.wrong_kept == 1 else 'are'} wrong"
        print_text(
            f"Before anything is dropped, {said}; something wrong stands in {format_percent(whole.violation_rate)} of the answers.\n"
        )
    if result.attempt > 1:
        said = f"CAREFUL: attempt {result.attempt:,} on these answers, or on many of them. The promise is that of one test, without a delta that"
        print_text(
            f"{said} attempts could share: of the best of several the shares of wrong answers add up. Other answers carry it.",
            style="yellow",
        )
    if found.threshold is None or found.calibrated is None or found.held_out is None:
        print_text(f"No certificate: {found.reason}.", style="yellow")
        return
    print_text(
        f"Certified: parts with a score of at least {found.threshold:.6g} are kept, {_format_kept(found.calibrated)} that calibrated.",
        style="green",
    )
    low, high = confidence_interval(found.held_out.violations, found.held_out.answers)
    wrong = f"something wrong was kept in {found.held_out.violations:,}, {format_percent(found.held_out.violation_rate)} [{format_percent(low)}, {format_percent(high)}]"
    print_text(
        f"On the {found.held_out.answers:,} answers that had no part in it: {_format_kept(found.held_out)}; {wrong}."
    )
    if (splits := found.resplits) is not None:
        mean = f"something wrong was kept in {format_percent(splits.violation_rate)} of the rest on average"
        print_text(
            f"{splits.rounds} resplits: {mean}, {format_percent(found.alpha)} at most are promised; {format_percent(splits.kept_share)} of the parts were kept."
        )
    if result.file is not None:
        print_text(
            escape_invisible(
                f"\n{result.file}: written; a node keeps parts by it with `accept: certified` and `otherwise: [back_off, abstain]`"
            ),
            style="bold",
        )


def _format_kept(found: RetentionResult) -> str:
    from orchestra.verification.certificates.certify import format_percent

    empty = f", and {found.empty:,} answers are left with none" if found.empty else ""
    return f"{format_percent(found.kept_share)} of the parts of the {found.answers:,}{empty}"


def show_data(arguments: CertifyArguments, result: ClaimsCertificationResult) -> None:
    """Prints it as JSON."""
    import msgspec

    if result.calibration is None:
        return
    promise = result.certificate.guarantee if result.certificate is not None else None
    file = str(result.file) if result.file is not None else None
    left_out = (
        {"duplicates": result.sample.duplicates, "grouped": result.sample.group_duplicates}
        if result.sample is not None
        else {}
    )
    more = {"attempt": result.attempt, "left_out": left_out, "guarantee": promise, "file": file}
    print_json({"agent": arguments.agent, **msgspec.to_builtins(result.calibration), **more})
