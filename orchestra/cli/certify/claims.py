"""`orchestra certify AGENT --claims`: from which score parts of an agent's answers are kept, made on answers that somebody has judged."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.cli.context import Opener, serving
from orchestra.cli.exit_codes import STATUS_CODES
from orchestra.cli.output import json_line, note, print_json, say
from orchestra.cli.output_files import check_replaceable
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import visible

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.cli.certify.commands import Certifying
    from orchestra.core.settings import Settings
    from orchestra.learn.certification.claims import Labelled
    from orchestra.learn.certification.independent import Independent
    from orchestra.verification.certificates.claims_file import ClaimsCertificate, Data
    from orchestra.verification.certificates.conformal import Factuality, Kept


@dataclass(frozen=True, slots=True)
class ClaimsAttempt:
    """What came of it; nothing where rows are to be judged first, and no certificate where none could be made."""

    found: Factuality | None
    certificate: ClaimsCertificate | None = None
    file: Path | None = None
    attempt: int = 1
    """Which one on these answers it is."""
    drawn: Independent | None = None

    @property
    def code(self) -> int:
        """The exit code."""
        return STATUS_CODES["abstained"] if self.found is not None and self.certificate is None else 0


async def certified(open_: Opener, chosen: Settings, asked: Certifying, data: Path) -> ClaimsAttempt:
    """Reads the answers, asks the judge where they have no scores, calibrates, and writes the file. Raises `OrchestraError` C023 where
    it cannot be written, before anybody is asked."""
    from datetime import UTC, datetime

    from orchestra.app.certificates import bonds, home, kept
    from orchestra.app.project import Project
    from orchestra.learn.certification.attempt_log import AttemptBook
    from orchestra.learn.certification.audit_log import refuse, replaced
    from orchestra.learn.certification.claims import read
    from orchestra.learn.data.deduplication import mark
    from orchestra.verification.certificates import attempts, conformal
    from orchestra.verification.certificates.claims_file import FILE, Data, Scorer, certificate
    from orchestra.verification.certificates.row_fingerprints import LENGTH, SKETCH, Marks, Rows
    from orchestra.verification.entailment import LIKELY

    project = Project.load(chosen)
    card = project.registry.card(asked.agent)
    check, judge = _judge(project, asked, card.checks)
    rows = read(data, card)
    if not rows.labelled:
        return _unlabelled(rows, asked.agent)
    marked = Rows(frozenset({rows.digest}), frozenset(mark([row.input, row.output])[:LENGTH] for row in rows.rows))
    refuse(chosen, project.registry, asked.agent, marked, claims=True)
    bound, theirs = bonds(chosen, project.registry, asked.agent), bonds(chosen, project.registry, judge)
    file = asked.out or home(chosen, project.registry, asked.agent).with_name(FILE)
    check_replaceable(file, "--out")
    rows, drawn = rows.independent(card, asked.seed, asked.group)
    book = AttemptBook(kept(chosen, project.registry, asked.agent, FILE).with_name(attempts.OF_CLAIMS))
    book.check()
    count = len(rows.rows)
    if not asked.as_json:
        _tell(asked.agent, rows, check, drawn)
    few = not rows.scored and round(conformal.CALIBRATION * count) < conformal.needed(asked.alpha)
    if few:
        note("too few answers for any scores to help: nobody is asked")
    replies = [] if rows.scored or few else await _replies(open_, chosen, project, judge, rows)
    answers = [conformal.Answer(row.id, ()) for row in rows.rows] if few else rows.answers(replies)
    found = conformal.calibrate(answers, asked.alpha, asked.seed, LIKELY)
    attempt = book.counted(rows.name, marked, answers, found) if found.calibration >= found.needed else 1  # fewer test nothing
    if found.threshold is None or found.judged is None:
        return ClaimsAttempt(found, attempt=attempt, drawn=drawn)
    sketch = Marks.of(marked.marks, SKETCH)
    origin = _origin(Data(rows.name, rows.digest, found.calibration, found.judged.answers, asked.seed, rows.scored, sketch), drawn)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = certificate(asked.agent, bound, Scorer(check, judge, theirs), found, origin, now, attempt=attempt)
    replaced(file, made.written())
    return ClaimsAttempt(found, made, file, attempt, drawn)


def _unlabelled(rows: Labelled, agent: str) -> ClaimsAttempt:
    """Prints the rows for somebody to judge."""
    for line in rows.to_label():
        sys.stdout.write(json_line(line))
    note(f'write true or false for each "right": null, and name the file: orchestra certify {agent} --claims --data FILE')
    return ClaimsAttempt(None)


def _tell(agent: str, rows: Labelled, check: str, drawn: Independent) -> None:
    """Says on which answers the promise will rest."""
    from orchestra.cli.certify.outputs import left_out

    parts = sum(len(row.parts) for row in rows.rows)
    say(visible(f"{agent} on {rows.name}: {len(rows.rows):,} answers of {parts:,} parts, scored by {check}"))
    for said in (*left_out(drawn), ""):
        say(visible(said))


def _origin(origin: Data, drawn: Independent) -> Data:
    """Where the answers are from, with what was left out of them."""
    import msgspec

    group = (drawn.group if drawn.grouped else "") or msgspec.UNSET
    return msgspec.structs.replace(origin, copies=drawn.copies or msgspec.UNSET, grouped=drawn.grouped or msgspec.UNSET, group=group)


def _judge(project: Project, asked: Certifying, checks: tuple[str, ...]) -> tuple[str, str]:
    """The check that scores claims, and the agent that it asks. Raises `InputError` V006 for others, V011 where that agent is not there."""
    from orchestra.verification.acceptance import rules_of
    from orchestra.verification.check_expression import Named
    from orchestra.verification.entailment import ENTAILMENT
    from orchestra.verification.model_checks import judge_of

    named = [one for one in rules_of(asked.named or checks) if isinstance(one, Named) and one.check == ENTAILMENT]
    if asked.named and not named:
        said = f"claims are scored by the check {ENTAILMENT!r}, not by {', '.join(asked.named)}"
        raise InputError("V006", said, hint="--checks entailment, or --checks 'entailment(NAME)'")
    check = named[0] if named else Named(ENTAILMENT)
    judge = judge_of(check)
    if judge not in project.registry.agents:
        hint = f"there are: {', '.join(sorted(project.registry.agents)) or 'none'}"
        raise InputError("V011", f"the check {check} asks the agent {judge!r}, and there is none", hint=hint)
    return str(check), judge


async def _replies(open_: Opener, chosen: Settings, project: Project, judge: str, rows: Labelled) -> list[Any]:
    """What the judge says to each question."""
    from orchestra.cli.learn.evaluate import metered_arm
    from orchestra.verification.entailment import Reply
    from orchestra.workflows.python.steps import Agent

    card = project.registry.cards.get(judge)
    step = Agent.carded(card.varied(checks=(), accept=None, otherwise=())) if card is not None else project.agent(judge)
    async with serving(open_, chosen) as orchestra:
        what = "questions failed, and what they are about is never kept"
        arm = await metered_arm(orchestra, judge, step, rows.questions(), chosen.concurrency, what)
    return [Reply(case.output) if case.output is not None else Reply(fault=arm.reason or "it was withheld") for case in arm.cases]


def show(_: Certifying, made: ClaimsAttempt) -> None:
    """Prints what was found out."""
    from orchestra.verification.certificates.certify import interval, percent

    found = made.found
    if found is None:
        return
    promise = f"All that is kept shall be right in at least {percent(1 - found.alpha)} of answers"
    say(f"{promise}: that takes {found.needed:,} answers at the very least; {found.calibration:,} calibrate here.")
    whole = found.everything
    if whole.parts:
        said = f"{whole.wrong:,} of {whole.parts:,} parts {'is' if whole.wrong == 1 else 'are'} wrong"
        say(f"Before anything is dropped, {said}; something wrong stands in {percent(whole.violated)} of the answers.\n")
    if made.attempt > 1:
        said = (
            f"CAREFUL: attempt {made.attempt:,} on these answers, or on many of them. The promise is that of one test, without a delta that"
        )
        say(
            f"{said} attempts could share: of the best of several the shares of wrong answers add up. Other answers carry it.",
            style="yellow",
        )
    if found.threshold is None or found.calibrated is None or found.judged is None:
        say(f"No certificate: {found.reason}.", style="yellow")
        return
    say(
        f"Certified: parts with a score of at least {found.threshold:.6g} are kept, {_kept(found.calibrated)} that calibrated.",
        style="green",
    )
    low, high = interval(found.judged.broken, found.judged.answers)
    wrong = f"something wrong was kept in {found.judged.broken:,}, {percent(found.judged.violated)} [{percent(low)}, {percent(high)}]"
    say(f"On the {found.judged.answers:,} answers that had no part in it: {_kept(found.judged)}; {wrong}.")
    if (splits := found.resplits) is not None:
        mean = f"something wrong was kept in {percent(splits.violated)} of the rest on average"
        say(
            f"{splits.rounds} resplits: {mean}, {percent(found.alpha)} at most are promised; {percent(splits.kept)} of the parts were kept."
        )
    if made.file is not None:
        say(
            visible(f"\n{made.file}: written; a node keeps parts by it with `accept: certified` and `otherwise: [back_off, abstain]`"),
            style="bold",
        )


def _kept(found: Kept) -> str:
    from orchestra.verification.certificates.certify import percent

    empty = f", and {found.empty:,} answers are left with none" if found.empty else ""
    return f"{percent(found.share)} of the parts of the {found.answers:,}{empty}"


def show_data(asked: Certifying, made: ClaimsAttempt) -> None:
    """Prints it as JSON."""
    import msgspec

    if made.found is None:
        return
    promise = made.certificate.promise if made.certificate is not None else None
    file = str(made.file) if made.file is not None else None
    left_out = {"copies": made.drawn.copies, "grouped": made.drawn.grouped} if made.drawn is not None else {}
    more = {"attempt": made.attempt, "left_out": left_out, "promise": promise, "file": file}
    print_json({"agent": asked.agent, **msgspec.to_builtins(made.found), **more})
