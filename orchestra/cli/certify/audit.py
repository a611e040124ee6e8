"""What `orchestra certify --watch`, `--audit` and `--labels` do: accepted outputs drawn and judged, and what that says of the promise."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.registry import Registry
from orchestra.app import certificates
from orchestra.app.project import Project
from orchestra.cli.certify.show import absent
from orchestra.cli.exit_codes import STATUS_CODES
from orchestra.cli.output import console, note, print_json, say, table
from orchestra.cli.run import questions
from orchestra.cli.run.result_view import as_text
from orchestra.cli.runs.find import opened_journal
from orchestra.cli.timestamps import moment_of
from orchestra.core.errors import InputError
from orchestra.core.protocols import Journal
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import counted, visible
from orchestra.learn.certification import audit as audit_module
from orchestra.learn.certification.audit import Shown, Wanted
from orchestra.learn.certification.audit_log import Book
from orchestra.learn.certification.labelled_answers import Rightness, rightness
from orchestra.verification.certificates import audits
from orchestra.verification.certificates.audits import Said, Watch, Watched
from orchestra.verification.certificates.certify import percent
from orchestra.verification.certificates.claims_file import FILE as CLAIMS
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.drift import OFTEN, found_within
from orchestra.verification.certificates.file import FILE

if TYPE_CHECKING:
    from orchestra.cli.certify.commands import Certifying

STEPS = 10
"""Audits that are printed."""
WORDS: dict[str, Said] = {"y": "right", "yes": "right", "n": "wrong", "no": "wrong", "u": "unclear", "unclear": "unclear"}
QUIT = ("q", "quit")


@dataclass(frozen=True, slots=True)
class Period:
    """Which runs are drawn from, and the words for it."""

    wanted: Wanted
    said: tuple[str, str]


def period(since: str | None, until: str | None) -> Period:
    """The time that `--since` and `--until` say. Raises `InputError` C010."""
    wanted = Wanted(moment_of(since, "--since") if since else 0.0, moment_of(until, "--until") if until else float("inf"))
    if wanted.since >= wanted.until:
        raise InputError("C010", f"no run began since {since} and before {until}", hint="--since yesterday --until today")
    return Period(wanted, (since or "", until or ""))


class Uncertified(InputError):
    """Of an agent whose promise is to be watched, and that has none: the exit code is that of one whose promise is broken."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class _Case:
    """A certificate under watch."""

    project: Project
    card: Card
    certificate: Watched
    file: Path
    """Where it is written when it is voided."""
    book: Book

    @classmethod
    def of(cls, chosen: Settings, project: Project, agent: str, *, claims: bool = False) -> _Case:
        """Of an agent. Raises `InputError` L119 where it has no certificate, V002 where it is void for another reason than audits."""
        registry = project.registry
        card, name = registry.card(agent), CLAIMS if claims else FILE
        found = certificates.found(chosen, registry, agent, name)
        if found is None:
            missing = absent(agent, claims=claims)
            raise Uncertified(missing.code, missing.message, hint=missing.hint)
        certificate: Watched = certificates.read_claims(found, agent) if claims else certificates.read(found, agent)
        if not certificate.void:
            held = certificates.Claims if claims else certificates.Certificates
            held(chosen, lambda: registry)[agent]
        file = certificates.kept(chosen, registry, agent, name)
        return cls(project, card, certificate, file, Book(file.with_name(audits.FILE), certificate))

    @property
    def verb(self) -> str:
        """The command that watches over it."""
        option = " --claims" if isinstance(self.certificate, ClaimsCertificate) else ""
        return f"orchestra certify {self.certificate.agent}{option}"


async def watch(chosen: Settings, asked: Certifying, during: Period) -> int:
    """Does what is wanted, and says how the promise stands; gives the exit code. Raises `InputError` before anything is recorded."""
    project = Project.load(chosen)
    if not asked.agent:
        if asked.audit or asked.labels is not None:
            raise InputError("C010", "which agent?", hint="orchestra certify AGENT --watch --audit 20")
        return _all(chosen, project, as_json=asked.as_json)
    case = _Case.of(chosen, project, asked.agent, claims=asked.claims)
    printed = False
    if (asked.audit or asked.labels is not None) and not case.certificate.void:
        async with opened_journal() as journal:
            if journal is None:
                raise InputError("V022", "nothing has been recorded yet, so nothing was accepted", hint="begin with: orchestra run NAME")
            if asked.labels is not None:
                await _label(case, asked, journal, asked.labels)
            if asked.audit:
                printed = await _audit(case, asked, during, journal)
    why = case.book.void(case.file)
    if why and case.book.replaced(case.file):
        note(f"another certificate has taken its place meanwhile, and stands; of the one that was audited: {why}")
    if not printed:
        _show(_Case.of(chosen, project, asked.agent, claims=asked.claims) if why else case, as_json=asked.as_json)
    return STATUS_CODES["abstained"] if why or case.certificate.void else 0


async def _label(case: _Case, asked: Certifying, journal: Journal, path: Path) -> None:
    """Records a file's verdicts."""

    def right() -> Rightness:
        if asked.claims:
            raise InputError("V021", "whether all that was kept is right, no metric tells", hint='"verdict": "right", "wrong" or "unclear"')
        return rightness(case.card, asked.evaluation, asked.metric)

    said, again = await audit_module.labelled(path, case.book.watch(), journal, case.project, right)
    case.book.said(said, asked.by)
    known = f", {again:,} of before" if again else ""
    note(f"{path.name}: {counted(len(said), 'verdict')} recorded{known}")


async def _audit(case: _Case, asked: Certifying, during: Period, journal: Journal) -> bool:
    """Draws outputs, and asks about them at the terminal, or prints them as lines of JSON; whether it did the latter."""
    shown = await _drawn(case, asked, during, journal)
    if asked.as_json or not questions.somebody_is_here():
        for one in shown:
            print_json(_line(one))
        note(f'write "verdict": "right", "wrong" or "unclear" into each line; then: {case.verb} --labels FILE')
        return True
    for number, one in enumerate(shown, 1):
        verdict = await _asked(case, one, f"{number} of {len(shown)}")
        if verdict is None:
            break
        if case.book.said([(one.output, verdict)], asked.by).broken:
            break
    say()
    return False


async def _drawn(case: _Case, asked: Certifying, during: Period, journal: Journal) -> list[Shown]:
    """Outputs to audit: those that were drawn before and are still open, then others. Raises `InputError` V022 where there is none."""
    before = case.book.watch()
    waiting = [output for output in before.open if not output.withheld]
    shown = [one for output in waiting if (one := await audit_module.shown(case.project, journal, output)) is not None]
    if gone := len(waiting) - len(shown):
        note(f"{counted(gone, 'output')} drawn before cannot be shown any more: the journal has lost their runs")
    if len(shown) < asked.audit:
        found = await audit_module.accepted(case.project, journal, case.certificate, during.wanted)
        draw = audit_module.draw(found, before, asked.audit - len(shown), asked.seed)
        fresh = draw.outputs
        case.book.drew(fresh, draw.population, asked.seed, during.said)
        case.book.said((), asked.by)  # where all of them were withheld, nobody need say anything
        withheld = sum(bool(output.withheld) for output in fresh)
        shown += [one for output in fresh if not output.withheld and (one := await audit_module.shown(case.project, journal, output))]
        _tell(found, draw)
        if withheld:
            note(f"of {counted(withheld, 'drawn answer')} nothing was kept, and so nothing wrong")
        if len(fresh) + len(waiting) < asked.audit:
            what = "judged" if asked.claims else "accepted"
            note(f"{len(shown):,} outputs to audit, not {asked.audit:,}: more were not {what} in that time")
        if not shown and withheld:
            return []
    if not shown:
        raise InputError("V022", f"no accepted output of {asked.agent} is left to audit", hint="orchestra explain V022")
    return shown[: asked.audit]


def _tell(found: audit_module.Accepted, draw: audit_module.Draw) -> None:
    copies = f"; {draw.copies:,} more with an input or of a group that counts already" if draw.copies else ""
    passed = "".join(f"; {count:,} {reason} passed over" for reason, count in found.passed.items())
    kind = "judged answers" if any(output.withheld for output in found.found) else "accepted outputs"
    note(f"{draw.population:,} {kind} in {counted(found.runs, 'run')} to draw from{copies}{passed}")


def _line(one: Shown) -> dict[str, Any]:
    output = one.output
    line = {"run": output.run, "node": output.node, "score": output.score, "input": one.inputs, "output": one.value, "verdict": None}
    return line | ({"dropped": one.dropped} if one.dropped else {})


async def _asked(case: _Case, one: Shown, count: str) -> Said | None:
    """What the person at the terminal says of an output; None who leaves. What was said so far stands."""
    output = one.output
    score = "" if output.score is None else f", score {output.score:.3g}"
    say(visible(f"\n{count}  {output.node} of run {output.run}{score}", keep=""), style="bold")
    if one.inputs is None:
        say("its inputs cannot be told: today's engine does not follow the run so far", style="dim")
    for name, value in (one.inputs or {}).items():
        say(visible(f"{name}: {as_text(value)}"), style="dim")
    say(visible(as_text(one.value)), style="cyan")
    if one.dropped:
        say(f"{counted(one.dropped, 'part')} of it dropped", style="dim")
    while True:
        sys.stderr.write(f"{'all of it ' * isinstance(case.certificate, ClaimsCertificate)}right? [y]es, [n]o, [u]nclear, [q]uit: ")
        sys.stderr.flush()
        line = await questions.line_from_terminal()
        word = "q" if line is None else line.strip().lower()
        if word in QUIT:
            return None
        if word in WORDS:
            return WORDS[word]


def _show(case: _Case, *, as_json: bool) -> None:
    """Prints how a watch stands."""
    watch, certificate = case.book.watch(), case.certificate
    drift = watch.drift
    doubled = min(1.0, 2 * drift.bound)
    within = found_within(drift.bound, 1 / drift.limit, doubled)
    if as_json:
        print_json(_data(case, watch, doubled, within))
        return
    say(visible(f"{certificate.agent}: {certificate.promise}"), style="yellow" if certificate.void else "green")
    unclear = f"; {watch.unclear:,} unclear" if watch.unclear else ""
    say(f"\n  audited   {drift.told}{unclear}; {len(watch.open):,} drawn and still open")
    against = "the promise" if drift.bound == drift.promised else f"{percent(drift.bound)}, the most that this very threshold may have"
    voids = f"above 1 the audits speak against it, at {drift.limit:.3g} they void it; {drift.highest:.3g} was the most"
    say(f"  evidence  {drift.evidence:.3g} against {against}: {voids}")
    say(f"  alpha     working at {drift.alpha:.4g} of {drift.promised:g}: lower where more was wrong of late; nothing is accepted by it")
    finds = f"within {within:,} audits" if within is not None else "not within any number of audits that one would make"
    alarms = f"{percent(OFTEN)} of the time; a false alarm at most {percent(drift.delta)}"
    say(f"  finds     an error rate of {percent(doubled)} {finds}, {alarms}")
    rows = [_row(audit) for audit in list(watch.audits.values())[-STEPS:]]
    if rows:
        say()
        console().print(table(("audited", "run", "node", "said", "working alpha", "evidence", "by"), rows, right=(4, 5)))
    say()
    if certificate.void:
        say(visible(f"The certificate is void: {certificate.void}."), style="bold red")
        say(f"a new one, on other rows, which are like those of today: {certificate.command}", style="dim")
    elif not drift.audited:
        say(f"Nothing was audited yet: {case.verb} --watch --audit 20", style="dim")
    elif drift.evidence > 1:
        say("The promise is not refuted yet, but the audits speak against it.", style="bold yellow")
    else:
        say("The promise is not refuted by these audits.", style="green")


def _row(audit: audits.Audited) -> tuple[str, ...]:
    return audit.at, audit.run, audit.node, audit.said, f"{audit.alpha:.4g}", f"{audit.evidence:.3g}", audit.by


def _data(case: _Case, watch: Watch, doubled: float, within: int | None) -> dict[str, Any]:
    drift, certificate = watch.drift, case.certificate
    return {
        "agent": certificate.agent,
        "promise": certificate.promise,
        "void": certificate.void or None,
        "audited": drift.audited,
        "wrong": drift.wrong,
        "unclear": watch.unclear,
        "open": [output.unit for output in watch.open],
        "evidence": min(drift.evidence, sys.float_info.max),
        "highest": min(drift.highest, sys.float_info.max),
        "limit": drift.limit,
        "standing": drift.standing,
        "alpha": drift.alpha,
        "promised": drift.promised,
        "bound": drift.bound,
        "delta": drift.delta,
        "finds": {"rate": doubled, "audits": within, "often": OFTEN},
        "steps": [msgspec.to_builtins(audit) for audit in watch.audits.values()],
        "certificate": str(case.file),
        "log": str(case.book.path),
    }


def _all(chosen: Settings, project: Project, *, as_json: bool) -> int:
    """One line for each agent with a certificate; gives the exit code."""
    registry: Registry = project.registry
    held = [(agent, False) for agent in certificates.Certificates(chosen, lambda: registry)]
    held += [(agent, True) for agent in certificates.Claims(chosen, lambda: registry)]
    rows, told, code = list[tuple[str, ...]](), list[dict[str, Any]](), 0
    for agent, claims in sorted(held):
        try:
            case = _Case.of(chosen, project, agent, claims=claims)
            case.book.void(case.file)
            case = _Case.of(chosen, project, agent, claims=claims)
            drift, void = case.book.watch().drift, case.certificate.void or ""
        except InputError as error:
            drift, void = None, error.message
        code = STATUS_CODES["abstained"] if void else code
        about = {"claims": True} if claims else {}
        told.append(
            {"agent": agent, **about, "audited": drift and drift.audited, "wrong": drift and drift.wrong, "void": void or None}
            | {"evidence": drift and min(drift.evidence, sys.float_info.max), "standing": drift.standing if drift else None}
        )
        figures, standing = ("", "", "", ""), ""
        if drift is not None:
            figures = (f"{drift.audited}", f"{drift.wrong}", f"{drift.evidence:.3g}", f"{drift.alpha:.4g} of {drift.promised:g}")
            standing = drift.standing
        rows.append((f"{agent}, claims" if claims else agent, *figures, f"void: {void}" if void else standing))
    if as_json:
        print_json(told)
    elif rows:
        console().print(table(("agent", "audited", "wrong", "evidence", "working alpha", "its promise"), rows, right=(1, 2, 3, 4)))
    else:
        say("no agent has a certificate: orchestra certify AGENT --data FILE")
    return code
