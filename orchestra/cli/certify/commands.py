"""`orchestra certify`: a threshold of acceptance with a statistical promise, made on rows whose right answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.context import given, opener, settings
from orchestra.cli.options import AsJson, Checks, Concurrency, Drawn, Evaluation, Fleet, Metric, named
from orchestra.cli.typer_adapter import add, leave
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.core.settings import Settings
    from orchestra.verification.certificates.certify import Terms

When = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Of runs that began then: 12h, 30d, today, yesterday, 2026-11-24.", show_default=False)
]
MODES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "answers are certified": (
        "--data FILE",
        ("data", "alpha", "delta", "predictions", "checks", "metric", "evaluation", "rows", "seed", "out", "combined", "group"),
    ),
    "parts of answers are certified": ("--claims --data FILE", ("claims", "data", "alpha", "checks", "seed", "out", "group")),
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
    """What is to be certified, and on what; or which promise is to be held against audits."""

    agent: Annotated[
        str,
        typer.Argument(help="An agent with a card, or a workflow; with --watch all agents that have a certificate.", show_default=False),
    ] = ""
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="Rows {id, input, expected}: .jsonl, .jsonl.gz, .csv, a data set's folder. Without it the certificate is shown.",
            show_default=False,
        ),
    ] = None
    alpha: Annotated[float, typer.Option(help="At most this share of what is accepted is wrong.")] = 0.05
    delta: Annotated[float, typer.Option(help="The chance that this is not kept, however often these rows are tested.")] = 0.05
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Recorded answers {"id", "output", "score"}: nobody is asked.', show_default=False),
    ] = None
    checks: Checks = ""
    metric: Metric = ""
    evaluation: Evaluation = ""
    rows: Drawn = 0
    seed: Annotated[int, typer.Option("--seed", help="Of how rows are divided; another one is another attempt.")] = 0
    group: Annotated[
        str, typer.Option(metavar="INPUT", help="Rows alike in this input are one.", show_default="the rows' `group`, or the evidence")
    ] = ""
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file.", show_default="certificate.json in the agent's folder")] = None
    combined: Annotated[
        bool, typer.Option("--combined", help="The score is what the agent's combination makes of its checks: `score: combined`.")
    ] = False
    claims: Annotated[
        bool,
        typer.Option("--claims", help="Certify parts of answers, which somebody has judged in --data, and not whole ones."),
    ] = False
    watch: Annotated[bool, typer.Option("--watch", help="Say how the promise stands by the audits so far.")] = False
    audit: Annotated[
        int,
        typer.Option("--audit", min=0, metavar="N", help="Draw N accepted outputs of the journal; are they right?"),
    ] = 0
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help='Verdicts on drawn outputs: {"run", "node", "verdict"}.', show_default=False)
    ] = None
    since: When = None
    until: When = None
    by: Annotated[str, typer.Option(metavar="NAME", help="Who audits; the log of audits keeps it.", show_default=False)] = ""
    concurrency: Concurrency = None
    fleet: Fleet = None
    as_json: AsJson = False

    @property
    def named(self) -> tuple[str, ...]:
        """The node's checks."""
        return named(self.checks)

    @property
    def terms(self) -> Terms:
        """What is promised of whole answers. Raises `InputError` V006."""
        from orchestra.verification.certificates.certify import Terms

        return Terms(self.alpha, self.delta, seed=self.seed)


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add(app, certify, panel="Make it better")


def certify(context: typer.Context, asked: Certifying) -> None:
    """Find the score from which an agent's answers, or a workflow's, can be accepted, with a promise: so many of them at most are wrong.

    With --watch, --audit or --labels the promise is held against accepted outputs that somebody audits, and voided where it is broken.

    Exits with 0 where there is a certificate, 3 where there is none: too little data, an agent that is wrong too often, or a promise
    that audits found broken.
    """
    chosen = settings(fleet=asked.fleet, concurrency=asked.concurrency)
    if asked.watch or asked.audit or asked.labels is not None:
        _only(context, "a promise is watched", asked.agent)
        _refuse_workflows(chosen, asked)
        leave(_watched(chosen, asked))
        return
    if not asked.agent:
        raise InputError("C010", "which agent?", hint="orchestra certify AGENT --data FILE, or orchestra certify --watch")
    if asked.claims:
        _refuse_workflows(chosen, asked)
    if asked.data is None:
        from orchestra.cli.certify import show

        _only(context, "a certificate is shown", asked.agent)
        show.show(chosen, asked.agent, claims=asked.claims, as_json=asked.as_json)
        return
    _only(context, "parts of answers are certified" if asked.claims else "answers are certified", asked.agent)
    leave((_certified_claims if asked.claims else _certified)(context, chosen, asked, asked.data))


def _refuse_workflows(chosen: Settings, asked: Certifying) -> None:
    """Raises `InputError` V032 for a workflow, of which only the output as a whole is certified, and not watched."""
    from orchestra.app.project import Project
    from orchestra.cli.certify import target

    if asked.agent and target.whole(Project.load(chosen), asked.agent) is not None:
        what = "--claims are" if asked.claims else "a watch is"
        rows = "FILE" if asked.claims else "ROWS_OF_TODAY --out ANOTHER_FILE tells whether its promise is still kept"
        raise InputError(
            "V032", f"{what} of agents, and {asked.agent} is a workflow", hint=f"orchestra certify {asked.agent} --data {rows}"
        )


def _watched(chosen: Settings, asked: Certifying) -> int:
    from orchestra.cli.certify import audit as audit_module
    from orchestra.cli.signals import carry_out

    during = audit_module.period(asked.since, asked.until)
    return carry_out(lambda _: audit_module.watch(chosen, asked, during))


def _certified(context: typer.Context, chosen: Settings, asked: Certifying, data: Path) -> int:
    from orchestra.cli.certify import outputs
    from orchestra.cli.signals import carry_out

    made = carry_out(lambda stop: outputs.certified(opener(context), chosen, asked, data, stop))
    (outputs.show_data if asked.as_json else outputs.show)(asked, made)
    return made.code


def _certified_claims(context: typer.Context, chosen: Settings, asked: Certifying, data: Path) -> int:
    from orchestra.cli.certify import claims as claims_module
    from orchestra.cli.signals import carry_out

    made = carry_out(lambda _: claims_module.certified(opener(context), chosen, asked, data))
    (claims_module.show_data if asked.as_json else claims_module.show)(asked, made)
    return made.code


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
