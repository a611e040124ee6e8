"""`orchestra certify`: a threshold of acceptance with a statistical promise, made on rows whose right answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.context import get_opener, given_parameters, load_settings
from orchestra.cli.options import (
    ChecksOption,
    ConcurrencyOption,
    EvaluationOption,
    FleetOption,
    JsonOption,
    MaxRowsOption,
    MetricOption,
    split_names,
)
from orchestra.cli.typer_adapter import add_command, exit_with
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.core.settings import Settings
    from orchestra.verification.certificates.certify import CertificationTerms

WhenOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="Of runs that began then: 12h, 30d, today, yesterday, 2026-11-24.", show_default=False
    ),
]
MODES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "answers are certified": (
        "--data FILE",
        (
            "data",
            "alpha",
            "delta",
            "predictions",
            "checks",
            "metric",
            "evaluation",
            "rows",
            "seed",
            "out",
            "combined",
            "group",
        ),
    ),
    "parts of answers are certified": (
        "--claims --data FILE",
        ("claims", "data", "alpha", "checks", "seed", "out", "group"),
    ),
    "a certificate is shown": ("--data FILE", ("claims",)),
    "a promise is watched": (
        "--watch",
        ("watch", "audit", "labels", "since", "until", "by", "seed", "metric", "evaluation", "claims"),
    ),
}
"""What the verb does: a command that does it, and the options that say how."""
COMMON_OPTIONS = ("agent", "concurrency", "fleet", "as_json")


@dataclass(frozen=True, slots=True)
class CertifyArguments:
    """What is to be certified, and on what; or which promise is to be held against audits."""

    agent: Annotated[
        str,
        typer.Argument(
            help="An agent with a card, or a workflow; with --watch all agents that have a certificate.",
            show_default=False,
        ),
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
    delta: Annotated[
        float, typer.Option(help="The chance that this is not kept, however often these rows are tested.")
    ] = 0.05
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='Recorded answers {"id", "output", "score"}: nobody is asked.', show_default=False
        ),
    ] = None
    checks: ChecksOption = ""
    metric: MetricOption = ""
    evaluation: EvaluationOption = ""
    rows: MaxRowsOption = 0
    seed: Annotated[int, typer.Option("--seed", help="Of how rows are divided; another one is another attempt.")] = 0
    group: Annotated[
        str,
        typer.Option(
            metavar="INPUT", help="Rows alike in this input are one.", show_default="the rows' `group`, or the evidence"
        ),
    ] = ""
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file.", show_default="certificate.json in the agent's folder"),
    ] = None
    combined: Annotated[
        bool,
        typer.Option(
            "--combined", help="The score is what the agent's combination makes of its checks: `score: combined`."
        ),
    ] = False
    claims: Annotated[
        bool,
        typer.Option(
            "--claims", help="Certify parts of answers, which somebody has judged in --data, and not whole ones."
        ),
    ] = False
    watch: Annotated[bool, typer.Option("--watch", help="Say how the promise stands by the audits so far.")] = False
    audit: Annotated[
        int,
        typer.Option("--audit", min=0, metavar="N", help="Draw N accepted outputs of the journal; are they right?"),
    ] = 0
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Verdicts on drawn outputs: {"run", "node", "verdict"}.', show_default=False),
    ] = None
    since: WhenOption = None
    until: WhenOption = None
    by: Annotated[
        str, typer.Option(metavar="NAME", help="Who audits; the log of audits keeps it.", show_default=False)
    ] = ""
    concurrency: ConcurrencyOption = None
    fleet: FleetOption = None
    as_json: JsonOption = False

    @property
    def check_names(self) -> tuple[str, ...]:
        """The node's checks."""
        return split_names(self.checks)

    @property
    def terms(self) -> CertificationTerms:
        """What is promised of whole answers. Raises `InputError` V006."""
        from orchestra.verification.certificates.certify import CertificationTerms

        return CertificationTerms(self.alpha, self.delta, seed=self.seed)


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add_command(app, certify, panel="Make it better")


def certify(context: typer.Context, arguments: CertifyArguments) -> None:
    """Find the score from which an agent's answers, or a workflow's, can be accepted, with a promise: so many of them at most are wrong.

    With --watch, --audit or --labels the promise is held against accepted outputs that somebody audits, and voided where it is broken.

    Exits with 0 where there is a certificate, 3 where there is none: too little data, an agent that is wrong too often, or a promise
    that audits found broken.
    """
    chosen = load_settings(fleet=arguments.fleet, concurrency=arguments.concurrency)
    if arguments.watch or arguments.audit or arguments.labels is not None:
        _check_options(context, "a promise is watched", arguments.agent)
        _refuse_workflows(chosen, arguments)
        exit_with(_run_watch(chosen, arguments))
        return
    if not arguments.agent:
        raise InputError(
            "C010", "which agent?", hint="orchestra certify AGENT --data FILE, or orchestra certify --watch"
        )
    if arguments.claims:
        _refuse_workflows(chosen, arguments)
    if arguments.data is None:
        from orchestra.cli.certify import show

        _check_options(context, "a certificate is shown", arguments.agent)
        show.show_certificate(chosen, arguments.agent, claims=arguments.claims, as_json=arguments.as_json)
        return
    _check_options(
        context, "parts of answers are certified" if arguments.claims else "answers are certified", arguments.agent
    )
    exit_with((_run_certify_claims if arguments.claims else _run_certify)(context, chosen, arguments, arguments.data))


def _refuse_workflows(settings: Settings, arguments: CertifyArguments) -> None:
    """Raises `InputError` V032 for a workflow, of which only the output as a whole is certified, and not watched."""
    from orchestra.app.project import Project
    from orchestra.cli.certify import target

    if arguments.agent and target.find_workflow(Project.load(settings), arguments.agent) is not None:
        what = "--claims are" if arguments.claims else "a watch is"
        rows = (
            "FILE" if arguments.claims else "ROWS_OF_TODAY --out ANOTHER_FILE tells whether its promise is still kept"
        )
        raise InputError(
            "V032",
            f"{what} of agents, and {arguments.agent} is a workflow",
            hint=f"orchestra certify {arguments.agent} --data {rows}",
        )


def _run_watch(settings: Settings, arguments: CertifyArguments) -> int:
    from orchestra.cli.certify import audit as audit_module
    from orchestra.cli.signals import run_with_signals

    during = audit_module.parse_period(arguments.since, arguments.until)
    return run_with_signals(lambda _: audit_module.watch_certificate(settings, arguments, during))


def _run_certify(context: typer.Context, settings: Settings, arguments: CertifyArguments, data: Path) -> int:
    from orchestra.cli.certify import outputs
    from orchestra.cli.signals import run_with_signals

    made = run_with_signals(lambda stop: outputs.certify_outputs(get_opener(context), settings, arguments, data, stop))
    (outputs.show_data if arguments.as_json else outputs.show)(arguments, made)
    return made.exit_code


def _run_certify_claims(context: typer.Context, settings: Settings, arguments: CertifyArguments, data: Path) -> int:
    from orchestra.cli.certify import claims as claims_module
    from orchestra.cli.signals import run_with_signals

    made = run_with_signals(lambda _: claims_module.certify_claims(get_opener(context), settings, arguments, data))
    (claims_module.show_data if arguments.as_json else claims_module.show)(arguments, made)
    return made.exit_code


def _check_options(context: typer.Context, mode: str, agent: str) -> None:
    """Raises `InputError` C010 for an option that somebody gave and that says nothing about what is done; the hint does what it is of."""
    options = MODES[mode][1]
    said = {name for name in given_parameters(context) if name not in COMMON_OPTIONS}
    strange = next((name for name in given_parameters(context) if name in said.difference(options)), None)
    if strange is None:
        return
    told = ", ".join(f"--{name}" for name in options)
    having = [one for one in MODES.values() if strange in one[1]]
    command, takes = next((one for one in having if said.issubset(one[1])), having[0])
    claims = "--claims" if "claims" in said.intersection(takes) and "--claims" not in command else ""
    hint = " ".join(filter(None, ("orchestra certify", agent, command, claims)))
    raise InputError("C010", f"--{strange} says nothing where {mode}; that takes {told}", hint=hint)
