"""Certificates in use: samples and audits accepted outputs (`orchestra certify --watch`, `--audit`, `--labels`), and
shows certificates.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.registry import Registry
from orchestra.app import certificates
from orchestra.app.certificates import AgentCertificates, ClaimsCertificates, find_certificate
from orchestra.app.project import Project
from orchestra.app.run_text import format_value
from orchestra.cli.options import parse_time
from orchestra.cli.output import is_interactive, print_json, print_note, print_table, print_text
from orchestra.cli.run import questions
from orchestra.cli.runs.find import open_existing_journal
from orchestra.cli.typer_adapter import STATUS_CODES
from orchestra.core.errors import InputError
from orchestra.core.protocols import Journal
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import escape_invisible, pluralize
from orchestra.learn.certification import audit as audit_module
from orchestra.learn.certification.audit import AuditPeriod, AuditView
from orchestra.learn.certification.audit_log import AuditLogFile
from orchestra.learn.certification.labelled_answers import Correctness, correctness_of
from orchestra.verification.certificates import audits
from orchestra.verification.certificates.audits import AuditedCertificate, AuditState, AuditVerdict
from orchestra.verification.certificates.certify import format_percent
from orchestra.verification.certificates.claims_file import FILE_NAME as CLAIMS_FILE
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.drift import DETECTION_POWER, audits_to_detect
from orchestra.verification.certificates.file import FILE_NAME, Certificate

if TYPE_CHECKING:
    from orchestra.cli.learn.arguments import CertifyArguments

MAX_AUDITS_SHOWN = 10
"""The maximum number of printed audits."""
VERDICT_BY_WORD: dict[str, AuditVerdict] = {
    "y": "right",
    "yes": "right",
    "n": "wrong",
    "no": "wrong",
    "u": "unclear",
    "unclear": "unclear",
}
QUIT_WORDS = ("q", "quit")


@dataclass(frozen=True, slots=True)
class AuditRange:
    """The period of sampled runs, and its description."""

    run_filter: AuditPeriod
    option_texts: tuple[str, str]


def parse_period(since: str | None, until: str | None) -> AuditRange:
    """Parses `--since` and `--until`. Raises `InputError` C010."""
    period = AuditPeriod(
        parse_time(since, "--since") if since else 0.0, parse_time(until, "--until") if until else float("inf")
    )
    if period.since >= period.until:
        raise InputError(
            "C010", f"no run can start both since {since} and before {until}", hint="--since yesterday --until today"
        )
    return AuditRange(period, (since or "", until or ""))


class NotCertifiedError(InputError):
    """The agent has no certificate to watch. The exit code is that of a broken guarantee."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class _AuditedCertificate:
    """A watched certificate."""

    project: Project
    card: Card
    certificate: AuditedCertificate
    file: Path
    """The file, rewritten when the certificate is voided."""
    log: AuditLogFile

    @classmethod
    def load(cls, settings: Settings, project: Project, agent: str, *, claims: bool = False) -> _AuditedCertificate:
        """Loads it. Raises `InputError` L119 without a certificate, V002 if it is void for other reasons than
        audits.
        """
        registry = project.registry
        card, name = registry.card(agent), CLAIMS_FILE if claims else FILE_NAME
        path = certificates.find_certificate(settings, registry, agent, name)
        if path is None:
            missing = missing_certificate(agent, claims=claims)
            raise NotCertifiedError(missing.code, missing.message, hint=missing.hint)
        certificate: AuditedCertificate = (
            certificates.read_claims_certificate(path, agent) if claims else certificates.read_certificate(path, agent)
        )
        if not certificate.void_reason:
            certificates_type = certificates.ClaimsCertificates if claims else certificates.AgentCertificates
            certificates_type(settings, lambda: registry)[agent]
        file = certificates.writable_path(settings, registry, agent, name)
        return cls(project, card, certificate, file, AuditLogFile(file.with_name(audits.FILE_NAME), certificate))

    @property
    def command(self) -> str:
        """The command that watches it."""
        option = " --claims" if isinstance(self.certificate, ClaimsCertificate) else ""
        return f"orchestra certify {self.certificate.agent}{option}"


async def watch_certificate(settings: Settings, arguments: CertifyArguments, period: AuditRange) -> int:
    """Records verdicts or samples outputs as requested, and shows the state of the guarantee. Returns the exit code.
    Raises `InputError` before anything is recorded.
    """
    project = Project.load(settings)
    if not arguments.agent:
        if arguments.audit or arguments.labels is not None:
            raise InputError("C010", "which agent?", hint="orchestra certify AGENT --watch --audit 20")
        return _show_all(settings, project, as_json=arguments.as_json)
    case = _AuditedCertificate.load(settings, project, arguments.agent, claims=arguments.claims)
    is_printed = False
    if (arguments.audit or arguments.labels is not None) and not case.certificate.void_reason:
        async with open_existing_journal() as journal:
            if journal is None:
                raise InputError(
                    "V022",
                    "nothing is recorded yet, so no output was accepted",
                    hint="start one with: orchestra run NAME",
                )
            if arguments.labels is not None:
                await _record_verdicts(case, arguments, journal, arguments.labels)
            if arguments.audit:
                is_printed = await _draw_and_ask(case, arguments, period, journal)
    reason = case.log.void_certificate(case.file)
    if reason and case.log.is_replaced(case.file):
        print_note(f"another certificate has replaced it meanwhile and is unchanged; the audited one: {reason}")
    if not is_printed:
        _show_watch(
            _AuditedCertificate.load(settings, project, arguments.agent, claims=arguments.claims) if reason else case,
            as_json=arguments.as_json,
        )
    return STATUS_CODES["abstained"] if reason or case.certificate.void_reason else 0


async def _record_verdicts(
    case: _AuditedCertificate, arguments: CertifyArguments, journal: Journal, path: Path
) -> None:
    """Records the verdicts of a file."""

    def correctness() -> Correctness:
        if arguments.claims:
            raise InputError(
                "V021",
                "no metric decides whether all kept parts are right",
                hint='"verdict": "right", "wrong" or "unclear"',
            )
        return correctness_of(case.card, arguments.evaluation, arguments.metric)

    verdicts, again = await audit_module.read_verdicts(path, case.log.audit_state(), journal, case.project, correctness)
    case.log.record_verdicts(verdicts, arguments.by)
    repeat_text = f", {again:,} of before" if again else ""
    print_note(f"{path.name}: {pluralize(len(verdicts), 'verdict')} recorded{repeat_text}")


async def _draw_and_ask(
    case: _AuditedCertificate, arguments: CertifyArguments, period: AuditRange, journal: Journal
) -> bool:
    """Samples outputs, and asks for verdicts at the terminal, or prints them as lines of JSON; returns whether it did
    the latter.
    """
    views = await _draw_outputs(case, arguments, period, journal)
    if arguments.as_json or not is_interactive():
        for view in views:
            print_json(_output_data(view))
        print_note(f'write "verdict": "right", "wrong" or "unclear" into each line; then: {case.command} --labels FILE')
        return True
    for number, view in enumerate(views, 1):
        verdict = await _ask_person(case, view, f"{number} of {len(views)}")
        if verdict is None:
            break
        if case.log.record_verdicts([(view.output, verdict)], arguments.by).violation:
            break
    print_text()
    return False


async def _draw_outputs(
    case: _AuditedCertificate, arguments: CertifyArguments, period: AuditRange, journal: Journal
) -> list[AuditView]:
    """Samples outputs to audit: open ones of earlier samples, then new ones. Raises `InputError` V022 without any."""
    before = case.log.audit_state()
    pending_outputs = [output for output in before.pending if not output.withheld]
    views = [
        view
        for output in pending_outputs
        if (view := await audit_module.view_output(case.project, journal, output)) is not None
    ]
    if lost_count := len(pending_outputs) - len(views):
        print_note(
            f"{pluralize(lost_count, 'output')} of an earlier sample cannot be shown: their runs are no longer "
            "in the journal"
        )
    if len(views) < arguments.audit:
        outputs = await audit_module.find_accepted_outputs(case.project, journal, case.certificate, period.run_filter)
        draw = audit_module.draw_sample(outputs, before, arguments.audit - len(views), arguments.seed)
        fresh = draw.outputs
        case.log.record_sample(fresh, draw.population, arguments.seed, period.option_texts)
        case.log.record_verdicts((), arguments.by)  # if all of them were withheld, no verdict is needed
        withheld_count = sum(bool(output.withheld) for output in fresh)
        views += [
            view
            for output in fresh
            if not output.withheld and (view := await audit_module.view_output(case.project, journal, output))
        ]
        _report_draw(outputs, draw)
        if withheld_count:
            print_note(f"of {pluralize(withheld_count, 'drawn answer')} nothing was kept, so nothing wrong")
        if len(fresh) + len(pending_outputs) < arguments.audit:
            output_kind = "judged" if arguments.claims else "accepted"
            print_note(
                f"{len(views):,} outputs to audit, not {arguments.audit:,}: more were not {output_kind} in that time"
            )
        if not views and withheld_count:
            return []
    if not views:
        raise InputError(
            "V022", f"no accepted output of {arguments.agent} is left to audit", hint="orchestra explain V022"
        )
    return views[: arguments.audit]


def _report_draw(outputs: audit_module.AcceptedOutputs, draw: audit_module.AuditSample) -> None:
    copies = f"; {draw.duplicates:,} more with an input or group that is already counted" if draw.duplicates else ""
    skip_text = "".join(f"; {count:,} {reason} skipped" for reason, count in outputs.skipped.items())
    kind = "judged answers" if any(output.withheld for output in outputs.outputs) else "accepted outputs"
    print_note(f"{draw.population:,} {kind} in {pluralize(outputs.run_count, 'run')} to sample from{copies}{skip_text}")


def _output_data(view: AuditView) -> dict[str, Any]:
    output = view.output
    line = {
        "run": output.run,
        "node": output.node,
        "score": output.score,
        "input": view.inputs,
        "output": view.value,
        "verdict": None,
    }
    return line | ({"dropped": view.dropped_parts} if view.dropped_parts else {})


async def _ask_person(case: _AuditedCertificate, view: AuditView, count: str) -> AuditVerdict | None:
    """Asks for a verdict at the terminal; None if the user quits. Earlier verdicts are kept."""
    output = view.output
    score = "" if output.score is None else f", score {output.score:.3g}"
    print_text(escape_invisible(f"\n{count}  {output.node} of run {output.run}{score}", keep=""), style="bold")
    if view.inputs is None:
        print_text("its inputs are unknown: the current engine cannot replay the run up to here", style="dim")
    for name, value in (view.inputs or {}).items():
        print_text(escape_invisible(f"{name}: {format_value(value)}"), style="dim")
    print_text(escape_invisible(format_value(view.value)), style="cyan")
    if view.dropped_parts:
        print_text(f"{pluralize(view.dropped_parts, 'part')} of it dropped", style="dim")
    while True:
        sys.stderr.write(
            f"{'all of it ' * isinstance(case.certificate, ClaimsCertificate)}right? [y]es, [n]o, [u]nclear, [q]uit: "
        )
        sys.stderr.flush()
        line = await questions.read_terminal_line()
        word = "q" if line is None else line.strip().lower()
        if word in QUIT_WORDS:
            return None
        if word in VERDICT_BY_WORD:
            return VERDICT_BY_WORD[word]


def _show_watch(case: _AuditedCertificate, *, as_json: bool) -> None:
    """Prints the state of a watch."""
    watch, certificate = case.log.audit_state(), case.certificate
    drift = watch.drift
    rate_bound = min(1.0, 2 * drift.tested_rate)
    within = audits_to_detect(drift.tested_rate, 1 / drift.evidence_limit, rate_bound)
    if as_json:
        print_json(_watch_data(case, watch, rate_bound, within))
        return
    print_text(
        escape_invisible(f"{certificate.agent}: {certificate.guarantee}"),
        style="yellow" if certificate.void_reason else "green",
    )
    unclear = f"; {watch.unclear_count:,} unclear" if watch.unclear_count else ""
    print_text(f"\n  audited   {drift.summary}{unclear}; {len(watch.pending):,} sampled and still open")
    against = (
        "the guarantee"
        if drift.tested_rate == drift.guaranteed_alpha
        else f"{format_percent(drift.tested_rate)}, the maximum for this threshold"
    )
    voids = (
        f"above 1 the audits contradict it, at {drift.evidence_limit:.3g} they void it; the maximum was "
        f"{drift.max_evidence:.3g}"
    )
    print_text(f"  evidence  {drift.evidence:.3g} against {against}: {voids}")
    print_text(
        f"  alpha     working at {drift.alpha:.4g} of {drift.guaranteed_alpha:g}: lower after recent errors; it accepts"
        " nothing"
    )
    finds = f"within {within:,} audits" if within is not None else "not within a practical number of audits"
    alarms = f"{format_percent(DETECTION_POWER)} of the time; a false alarm at most {format_percent(drift.delta)}"
    print_text(f"  finds     an error rate of {format_percent(rate_bound)} {finds}, {alarms}")
    rows = [_audit_row(audit) for audit in list(watch.audits.values())[-MAX_AUDITS_SHOWN:]]
    if rows:
        print_text()
        print_table(("audited", "run", "node", "said", "working alpha", "evidence", "by"), rows, right=(4, 5))
    print_text()
    if certificate.void_reason:
        print_text(escape_invisible(f"The certificate is void: {certificate.void_reason}."), style="bold red")
        print_text(f"certify again on new, representative rows: {certificate.renew_command}", style="dim")
    elif not drift.audited:
        print_text(f"Nothing was audited yet: {case.command} --watch --audit 20", style="dim")
    elif drift.evidence > 1:
        print_text("The guarantee is not refuted yet, but the audits contradict it.", style="bold yellow")
    else:
        print_text("The guarantee is not refuted by these audits.", style="green")


def _audit_row(audit: audits.OutputAudited) -> tuple[str, ...]:
    return audit.at, audit.run, audit.node, audit.verdict, f"{audit.alpha:.4g}", f"{audit.evidence:.3g}", audit.by


def _watch_data(case: _AuditedCertificate, watch: AuditState, rate_bound: float, within: int | None) -> dict[str, Any]:
    drift, certificate = watch.drift, case.certificate
    return {
        "agent": certificate.agent,
        "guarantee": certificate.guarantee,
        "void": certificate.void_reason or None,
        "audited": drift.audited,
        "wrong": drift.wrong,
        "unclear": watch.unclear_count,
        "open": [output.key for output in watch.pending],
        "evidence": min(drift.evidence, sys.float_info.max),
        "highest": min(drift.max_evidence, sys.float_info.max),
        "limit": drift.evidence_limit,
        "standing": drift.status,
        "alpha": drift.alpha,
        "guaranteed_alpha": drift.guaranteed_alpha,
        "bound": drift.tested_rate,
        "delta": drift.delta,
        "finds": {"rate": rate_bound, "audits": within, "often": DETECTION_POWER},
        "steps": [msgspec.to_builtins(audit) for audit in watch.audits.values()],
        "certificate": str(case.file),
        "log": str(case.log.path),
    }


def _show_all(settings: Settings, project: Project, *, as_json: bool) -> int:
    """Prints one line for each agent with a certificate; returns the exit code."""
    registry: Registry = project.registry
    certified_agents = [(agent, False) for agent in certificates.AgentCertificates(settings, lambda: registry)]
    certified_agents += [(agent, True) for agent in certificates.ClaimsCertificates(settings, lambda: registry)]
    rows, entries, code = list[tuple[str, ...]](), list[dict[str, Any]](), 0
    for agent, claims in sorted(certified_agents):
        try:
            case = _AuditedCertificate.load(settings, project, agent, claims=claims)
            case.log.void_certificate(case.file)
            case = _AuditedCertificate.load(settings, project, agent, claims=claims)
            drift, void = case.log.audit_state().drift, case.certificate.void_reason or ""
        except InputError as error:
            drift, void = None, error.message
        code = STATUS_CODES["abstained"] if void else code
        about = {"claims": True} if claims else {}
        entries.append(
            {
                "agent": agent,
                **about,
                "audited": drift and drift.audited,
                "wrong": drift and drift.wrong,
                "void": void or None,
            }
            | {
                "evidence": drift and min(drift.evidence, sys.float_info.max),
                "standing": drift.status if drift else None,
            }
        )
        figures, summary = ("", "", "", ""), ""
        if drift is not None:
            figures = (
                f"{drift.audited}",
                f"{drift.wrong}",
                f"{drift.evidence:.3g}",
                f"{drift.alpha:.4g} of {drift.guaranteed_alpha:g}",
            )
            summary = drift.status
        rows.append((f"{agent}, claims" if claims else agent, *figures, f"void: {void}" if void else summary))
    if as_json:
        print_json(entries)
    elif rows:
        print_table(
            ("agent", "audited", "wrong", "evidence", "working alpha", "its guarantee"), rows, right=(1, 2, 3, 4)
        )
    else:
        print_text("no agent has a certificate: orchestra certify AGENT --data FILE")
    return code


def show_certificate(settings: Settings, agent: str, *, claims: bool, as_json: bool) -> None:
    """Shows the current certificate. Raises `InputError` if it is invalid, L119 without one."""
    from orchestra.cli.learn import certify as target

    project = Project.load(settings)
    certificate: Certificate | ClaimsCertificate | None
    if (workflow_subject := target.find_workflow(project, agent)) is not None:
        certificate, file = workflow_subject[0].certificate(), workflow_subject[0].certificate_path
    else:
        registry = project.registry
        registry.card(agent)
        certificates_by_agent = (
            ClaimsCertificates(settings, lambda: registry) if claims else AgentCertificates(settings, lambda: registry)
        )
        certificate, file = (
            certificates_by_agent.get(agent),
            find_certificate(settings, registry, agent, CLAIMS_FILE if claims else FILE_NAME),
        )
    if certificate is None:
        raise missing_certificate(agent, claims=claims)
    if as_json:
        print_json({"file": str(file), "guarantee": certificate.guarantee, "certificate": certificate})
        return
    print_text(f"{agent}: {certificate.guarantee}", style="green")
    print_text(f"\n  threshold  {certificate.threshold:.6g}, {certificate.score}")
    for line in (
        _claims_lines(certificate) if isinstance(certificate, ClaimsCertificate) else _answers_lines(certificate)
    ):
        print_text(escape_invisible(line))
    print_text(
        escape_invisible(f"  made       {certificate.created_at}\n  file       {file}, digest {certificate.digest}")
    )


def missing_certificate(agent: str, *, claims: bool) -> InputError:
    """The error for a missing certificate."""
    of, option = (f"of {agent!r} about claims", " --claims") if claims else (f"for {agent!r}", "")
    return InputError("L119", f"there is no certificate {of}", hint=f"orchestra certify {agent}{option} --data FILE")


def _answers_lines(certificate: Certificate) -> Iterator[str]:
    data, held_out = certificate.data, certificate.held_out
    yield f"  checks     {', '.join(certificate.checks)}"
    yield f"  data       {data.name}, digest {data.digest}; right by {', '.join(data.metrics)}"
    yield (
        f"  rows       {data.tuning:,} tuned, {data.calibration:,} calibrated, {data.held_out:,} judged; "
        f"seed {data.seed}"
    )
    yield f"  accepted   {certificate.accepted:,} calibration rows, {certificate.errors:,} of them wrong"
    share = f"[{format_percent(held_out.low)}, {format_percent(held_out.high)}]"
    yield f"  judged     {held_out.accepted:,} of {held_out.rows:,} accepted, {held_out.errors:,} wrong, {share}"
    if certificate.attempt:
        yield (
            f"  attempt    number {certificate.attempt:,} on these rows, tested at "
            f"{format_percent(certificate.spent_delta)} of {format_percent(certificate.delta)}"
        )
    if data.duplicates or data.grouped:
        yield (
            f"  left out   {data.duplicates or 0:,} rows with the input of another, {data.grouped or 0:,} "
            "of one group with another"
        )


def _claims_lines(certificate: ClaimsCertificate) -> Iterator[str]:
    data, held_out = certificate.data, certificate.held_out
    yield f"  check      {certificate.check}"
    yield f"  data       {data.name}, digest {data.digest}"
    yield f"  answers    {data.calibration:,} calibrated, {data.held_out:,} judged; seed {data.seed}"
    wrong = (
        f"something wrong kept in {held_out.violations:,} of {held_out.answers:,}, "
        f"[{format_percent(certificate.low)}, {format_percent(certificate.high)}]"
    )
    yield f"  judged     {wrong}; {held_out.kept:,} of {held_out.parts:,} parts kept"
