"""`orchestra certify`: a threshold of acceptance with a statistical promise, made on rows whose right answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.evaluating import AsJson, Concurrency, Evaluation, Fleet
from orchestra.cli.failure import STATUS_CODES, Verb
from orchestra.cli.opening import Opener, given, opener, serving, settings
from orchestra.cli.results import check_replaceable
from orchestra.cli.screen import console, note, print_json, say, table
from orchestra.errors import InputError
from orchestra.values.text import visible

if TYPE_CHECKING:
    from orchestra.agent.card import Card
    from orchestra.cli.signals import Stop
    from orchestra.config import Settings
    from orchestra.learn.questions import Test
    from orchestra.project import Project
    from orchestra.verify.certificate import Accepted, Certification, Terms, TooLittle
    from orchestra.verify.certificate_file import Certificate
    from orchestra.verify.combination import Combination

AgentName = Annotated[str, typer.Argument(help="An agent with a card; with --watch all that have a certificate.", show_default=False)]
When = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Of runs that began then: 12h, 30d, today, yesterday, 2026-11-24.", show_default=False)
]


MODES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "answers are certified": (
        "--data FILE",
        ("data", "alpha", "delta", "predictions", "checks", "metric", "evaluation", "rows", "seed", "out", "combined"),
    ),
    "parts of answers are certified": ("--claims --data FILE", ("claims", "data", "alpha", "checks", "seed", "out")),
    "a certificate is shown": ("--data FILE", ("claims",)),
    "a promise is watched": (
        "--watch",
        ("watch", "audit", "labels", "since", "until", "by", "seed", "metric", "evaluation", "claims"),
    ),
}
"""What the verb does: a command that does it, and the options that say how."""
EVERYWHERE = ("agent", "concurrency", "fleet", "as_json")


@dataclass(frozen=True, slots=True)
class Certifying:
    """What is to be certified, and on what."""

    agent: str
    data: Path
    terms: Terms
    predictions: Path | None
    checks: tuple[str, ...]
    metric: str
    evaluation: str
    rows: int
    out: Path | None
    quiet: bool
    combined: bool = False
    """Whether the score is what the agent's combination makes of its checks."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of it; no certificate where none could be made."""

    certification: Certification | TooLittle
    """Too little where nobody was asked: so few rows that no answers to them could carry the promise."""
    certificate: Certificate | None
    file: Path | None
    before: str = ""
    """What was promised by the certificate that stood there."""


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command("certify", cls=Verb, rich_help_panel="Make it better")
    def certify(
        context: typer.Context,
        agent: AgentName = "",
        data: Annotated[
            Path | None,
            typer.Option(
                "--data",
                "-d",
                help="Rows {id, input, expected}: .jsonl, .jsonl.gz, .csv, a data set's folder. Without it the certificate is shown.",
                show_default=False,
            ),
        ] = None,
        alpha: Annotated[float, typer.Option(help="At most this share of what is accepted is wrong.")] = 0.05,
        delta: Annotated[float, typer.Option(help="The chance that this is not kept.")] = 0.05,
        predictions: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help='Recorded answers {"id", "output", "score"}: nobody is asked.', show_default=False),
        ] = None,
        checks: Annotated[
            str, typer.Option(metavar="A,B", help="The node's checks.", show_default="the card's, or how sure the agent is")
        ] = "",
        metric: Annotated[
            str, typer.Option(help="What tells right from wrong.", show_default="the first of evaluation.yaml that does")
        ] = "",
        evaluation: Evaluation = "",
        rows: Annotated[int, typer.Option("--rows", min=0, help="At most so many rows, drawn by the seed; 0 for all.")] = 0,
        seed: Annotated[int, typer.Option("--seed", help="Of how rows are divided.")] = 0,
        out: Annotated[
            Path | None, typer.Option("--out", "-o", help="The file.", show_default="certificate.json in the agent's folder")
        ] = None,
        combined: Annotated[
            bool, typer.Option("--combined", help="The score is what the agent's combination makes of its checks: `score: combined`.")
        ] = False,
        claims: Annotated[
            bool,
            typer.Option("--claims", help="Certify parts of answers, which somebody has judged in --data, and not whole ones."),
        ] = False,
        watch: Annotated[bool, typer.Option("--watch", help="Say how the promise stands by the audits so far.")] = False,
        audit: Annotated[
            int,
            typer.Option("--audit", min=0, metavar="N", help="Draw N accepted outputs of the journal; are they right?"),
        ] = 0,
        labels: Annotated[
            Path | None, typer.Option(metavar="FILE", help='Verdicts on drawn outputs: {"run", "node", "verdict"}.', show_default=False)
        ] = None,
        since: When = None,
        until: When = None,
        by: Annotated[str, typer.Option(metavar="NAME", help="Who audits; the log of audits keeps it.", show_default=False)] = "",
        concurrency: Concurrency = None,
        fleet: Fleet = None,
        as_json: AsJson = False,
    ) -> None:
        """Find the score from which an agent's answers can be accepted, with a promise: so many of them at most are wrong.

        With --watch, --audit or --labels the promise is held against accepted outputs that somebody audits, and voided where it is broken.

        Exits with 0 where there is a certificate, 3 where there is none: too little data, an agent that is wrong too often, or a promise
        that audits found broken.
        """
        from orchestra.cli.signals import carry_out
        from orchestra.verify.certificate import Terms

        chosen = settings(fleet=fleet, concurrency=concurrency)
        if watch or audit or labels is not None:
            from orchestra.cli import auditing

            _only(context, "a promise is watched", agent)
            look = auditing.Look(agent, audit, labels, auditing.period(since, until), seed, by, metric, evaluation, as_json, claims)
            code = carry_out(lambda _: auditing.watch(chosen, look))
            if code:
                raise typer.Exit(code)
            return
        if not agent:
            raise InputError("C010", "which agent?", hint="orchestra certify AGENT --data FILE, or orchestra certify --watch")
        making = "parts of answers are certified" if claims else "answers are certified"
        _only(context, "a certificate is shown" if data is None else making, agent)
        if claims:
            _certify_claims(context, chosen, agent, data, alpha, checks, seed, out, as_json=as_json)
            return
        if data is None:
            _show_certificate(chosen, agent, as_json=as_json)
            return
        named = tuple(name.strip() for name in checks.split(",") if name.strip())
        asked = Certifying(
            agent, data, Terms(alpha, delta, seed=seed), predictions, named, metric, evaluation, rows, out, as_json, combined
        )
        made = carry_out(lambda stop: certified(opener(context), chosen, asked, stop))
        if as_json:
            print_json(_data(asked, made))
        else:
            _show(asked, made)
        if made.certificate is None:
            raise typer.Exit(STATUS_CODES["abstained"])


def _only(context: typer.Context, mode: str, agent: str) -> None:
    """Raises `InputError` C010 for an option that somebody gave and that says nothing about what is done; the hint does what it is of."""
    options = MODES[mode][1]
    said = {name for name in given(context) if name not in EVERYWHERE}
    strange = next((name for name in given(context) if name in said.difference(options)), None)
    if strange is None:
        return
    told = ", ".join(f"--{name}" for name in options)
    having = [one for one in MODES.values() if strange in one[1]]
    command, takes = next((one for one in having if said.issubset(one[1])), having[0])
    claims = "--claims" if "claims" in said.intersection(takes) and "--claims" not in command else ""
    hint = " ".join(filter(None, ("orchestra certify", agent, command, claims)))
    raise InputError("C010", f"--{strange} says nothing where {mode}; that takes {told}", hint=hint)


def _certify_claims(
    context: typer.Context,
    chosen: Settings,
    agent: str,
    data: Path | None,
    alpha: float,
    checks: str,
    seed: int,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    from orchestra.cli import claiming
    from orchestra.cli.signals import carry_out

    if data is None:
        claiming.show_certificate(chosen, agent, as_json=as_json)
        return
    named = tuple(name.strip() for name in checks.split(",") if name.strip())
    asked = claiming.Claiming(agent, data, alpha, named, seed, out, as_json)
    made = carry_out(lambda _: claiming.certified(opener(context), chosen, asked))
    if as_json:
        claiming.show_data(asked, made)
    else:
        claiming.show(made)
    if made.found is not None and made.certificate is None:
        raise typer.Exit(STATUS_CODES["abstained"])


async def certified(open_: Opener, chosen: Settings, asked: Certifying, stop: Stop) -> Attempt:
    """Asks or reads the answers, certifies, and writes the file, unless it is told to stop. Raises `InputError` before anything starts, and
    `OrchestraError` C023 where the file cannot be written."""
    import asyncio
    from datetime import UTC, datetime

    from orchestra.certificates import bonds, home
    from orchestra.cli import combining, comparison
    from orchestra.learn import audit_book
    from orchestra.learn.certifying import Predictions, checks_of, items, rightness
    from orchestra.learn.learnt_from import known, refuse
    from orchestra.learn.metrics import Case
    from orchestra.project import Project
    from orchestra.values.json import canonical, digest
    from orchestra.verify import certificate as certifying
    from orchestra.verify.certificate_file import Origin, certificate

    project = Project.load(chosen)
    card = project.registry.card(asked.agent)
    test = comparison.rows(card, asked.data, "test", asked.rows, asked.terms.seed, asked.evaluation)
    refuse(learnt := known(card, test, asked.data))
    for one in learnt:
        note(one.said)
    right, checks = rightness(card, asked.evaluation, asked.metric), checks_of(card, asked.checks)
    combination = _combination(project, asked) if asked.combined else None
    if combination is None:
        _known(project, checks)
    else:
        checks = combination.checks
    bound, file = bonds(chosen, project.registry, asked.agent), asked.out or home(chosen, project.registry, asked.agent)
    check_replaceable(file, "--out")
    audit_book.refuse(chosen, project.registry, asked.agent, {test.digest})
    recorded = Predictions.read(asked.predictions) if asked.predictions is not None else None
    unasked = items(test, [Case(question.expected, None) for question in test.questions], right)
    size, terms = len(certifying.checked(unasked)), asked.terms
    if not asked.quiet:
        say(visible(f"{asked.agent} on {test.name}: {size:,} rows, checks {', '.join(checks)}\n"))
        say(_needed(terms, size))
    if recorded is None and (few := certifying.too_few(size, terms)) is not None:
        return Attempt(few, None, None)
    if combination is not None:
        cases = await combining.answered(open_, chosen, project, card, combination, test, recorded)
        answers = items(test, [case for case, _ in cases], right)
    elif recorded is not None:
        answers = items(test, recorded.cases(card, checks, test), right)
    else:
        answers = items(test, await _answers(open_, chosen, asked.agent, card, checks, test), right)

    def go_on() -> None:
        if stop.told:
            raise asyncio.CancelledError  # nothing waits from here on, where it would come by itself

    found = certifying.certify(answers, terms, between=go_on)
    if not isinstance(found.outcome, certifying.Certified):
        return Attempt(found, None, None)
    mark = digest(canonical([test.digest, recorded.digest])) if recorded is not None else test.digest
    origin = Origin(test.name, mark, right.metrics, recorded is not None, test.digest if recorded is not None else "")
    mark_of = combination.digest if combination is not None else ""
    made = certificate(asked.agent, checks, found, origin, bound, datetime.now(UTC).isoformat(timespec="seconds"), mark_of)
    before = _promised(file, made)
    go_on()
    audit_book.replaced(file, made.written())
    return Attempt(found, made, file, before)


def _promised(file: Path, made: Certificate) -> str:
    """What the certificate promises that a new one takes the place of, and who cannot accept by the new one; empty where there is no
    file."""
    from orchestra.certificates import read

    if not file.exists():
        return ""
    try:
        old = read(file, made.agent)
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
    from orchestra.verify.acceptance import rules_of

    found: Combination | None = project.catalog().combinations.get(asked.agent)
    if found is None:
        hint = f"orchestra learn combine {asked.agent} --data FILE"
        raise InputError("L076", f"there is no combination of checks for {asked.agent!r}", hint=hint)
    if asked.checks and frozenset(map(str, rules_of(asked.checks))) != frozenset(found.checks):
        said = f"the combination of {asked.agent!r} is of the checks {', '.join(found.checks)}, and not of {', '.join(asked.checks)}"
        raise InputError("V005", said, hint="leave --checks out, or orchestra learn combine")
    return found


def _known(project: Project, checks: tuple[str, ...]) -> None:
    """Raises `InputError` L072 for a text that is no check, L111 for a check that nobody knows, V006 for one that asks agents."""
    from orchestra.errors import InputError
    from orchestra.values.types import nearest
    from orchestra.verify.acceptance import names_of
    from orchestra.verify.asking import ASKING
    from orchestra.verify.rule import NotARule, read
    from orchestra.verify.tools import TOOL

    known = project.catalog().checks
    for text in checks:
        try:
            read(text)
        except NotARule as error:
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


async def _answers(open_: Opener, chosen: Settings, agent: str, card: Card, checks: tuple[str, ...], test: Test) -> Any:
    """What the served agent answers; each row once."""
    from orchestra.cli import comparison
    from orchestra.learn.certifying import asked_once
    from orchestra.workflow.steps import Agent

    async with serving(open_, chosen) as orchestra:
        step, what = Agent.carded(asked_once(card, checks)), "rows failed, and count as wrong and not accepted"
        return (await comparison.metered_arm(orchestra, agent, step, test, chosen.concurrency, what)).cases


def _needed(terms: Terms, rows: int) -> str:
    from orchestra.verify.certificate import percent

    promise = f"At most {percent(terms.alpha)} wrong with {percent(1 - terms.delta)} confidence"
    least = f"{promise} takes {terms.least:,} accepted answers at the very least, none of them wrong"
    tuning, calibrating = round(terms.tuning * rows), terms.calibrating(rows)
    return f"{least}; here {tuning:,} rows tune, {calibrating:,} calibrate and {rows - tuning - calibrating:,} judge."


def _show(asked: Certifying, made: Attempt) -> None:
    from orchestra.verify.certificate import Certified, TooLittle, percent

    found = made.certification
    if isinstance(found, TooLittle):
        _show_too_little(found, "; the agent was not asked")
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
            _show_too_little(found.outcome)
        case other:
            say(
                f"No certificate: {other.reason}. More rows would not mend that: a better agent would, or a larger --alpha.", style="yellow"
            )
    if found.judged is not None:
        say(f"On the {found.judged.rows:,} rows that had no part in it: {_judged(found.judged)}.")
    if found.naive is not None:
        naive = found.naive
        say(f"The naive threshold, {naive.threshold:.6g}, promises nothing: {_judged(naive.judged)} of the same rows.")
    rounds = splits.rounds
    say(
        f"{rounds} resplits: more than {percent(asked.terms.alpha)} of the rest was wrong in {percent(splits.broken / rounds)}"
        f" ({percent(splits.refuted / rounds)} beyond chance), with the naive threshold in {percent(splits.naive_broken / rounds)}"
        f" ({percent(splits.naive_refuted / rounds)}); {splits.certified} came to a certificate."
    )
    if made.file is not None:
        say(visible(f"\n{made.file}: written; a node accepts by it with `accept: certified`"), style="bold")
    if made.before:
        say(visible(f"It replaces {made.before}"), style="yellow")


def _show_too_little(found: TooLittle, more: str = "") -> None:
    say(f"No certificate, too little data: {found.reason}. About {found.rows:,} rows would be needed{more}.", style="yellow")


def _judged(found: Accepted) -> str:
    from orchestra.verify.certificate import interval, percent

    low, high = interval(found.errors, found.accepted)
    share = "" if found.risk is None else f", {percent(found.risk)} [{percent(low)}, {percent(high)}]"
    return f"{found.accepted:,} accepted, {found.errors:,} wrong{share}"


def _data(asked: Certifying, made: Attempt) -> dict[str, Any]:
    from orchestra.verify.certificate import TooLittle
    from orchestra.verify.certificate_file import as_data, as_outcome

    found = made.certification
    return {
        "agent": asked.agent,
        "least_accepted": asked.terms.least,
        **({"outcome": as_outcome(found)} if isinstance(found, TooLittle) else as_data(found)),
        "promise": made.certificate.promise if made.certificate is not None else None,
        "file": str(made.file) if made.file is not None else None,
        "replaced": made.before or None,
    }


def _show_certificate(chosen: Settings, agent: str, *, as_json: bool) -> None:
    """Shows the certificate that there is. Raises `InputError` where it does not hold, L119 where there is none."""
    from orchestra.certificates import Certificates, found
    from orchestra.project import Project
    from orchestra.verify.certificate import percent

    registry = Project.load(chosen).registry
    registry.card(agent)
    one = Certificates(chosen, lambda: registry).get(agent)
    if one is None:
        raise InputError("L119", f"there is no certificate for {agent!r}", hint=f"orchestra certify {agent} --data FILE")
    if as_json:
        print_json({"file": str(found(chosen, registry, agent)), "promise": one.promise, "certificate": one})
        return
    say(f"{agent}: {one.promise}", style="green")
    data, judged = one.data, one.judged
    say(f"\n  threshold  {one.threshold:.6g}, {one.score}")
    say(visible(f"  checks     {', '.join(one.checks)}"))
    say(visible(f"  data       {data.name}, digest {data.digest}; right by {', '.join(data.right)}"))
    say(f"  rows       {data.tuning:,} tuned, {data.calibration:,} calibrated, {data.judged:,} judged; seed {data.seed}")
    say(f"  accepted   {one.accepted:,} of those that calibrated, {one.errors:,} of them wrong")
    share = f"[{percent(judged.low)}, {percent(judged.high)}]"
    say(f"  judged     {judged.accepted:,} of {judged.rows:,} accepted, {judged.errors:,} wrong, {share}")
    say(visible(f"  made       {one.made}\n  file       {found(chosen, registry, agent)}, digest {one.digest}"))
