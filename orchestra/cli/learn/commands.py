"""Registers and runs the commands `orchestra learn` and `orchestra certify`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orchestra.cli.context import get_opener, given_parameters, load_settings
from orchestra.cli.learn.arguments import (
    AgentArgument,
    CalibrateArguments,
    CertifyArguments,
    CombineArguments,
    DatasetArguments,
    EvaluateArguments,
    MeasurementArguments,
    PromoteArguments,
    ServingArguments,
    TrainArguments,
)
from orchestra.cli.options import (
    FleetOption,
    JsonOption,
)
from orchestra.cli.output import (
    check_writable,
    print_json,
    print_note,
    print_table,
    print_text,
    writing_output,
)
from orchestra.cli.typer_adapter import OrchestraGroup, add_command, exit_with
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import escape_invisible, pluralize

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestra.cli.learn.evaluate import ComparisonResult
    from orchestra.core.settings import Settings
    from orchestra.learn.evaluation.classification import ClassificationReport


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    learn = typer.Typer(
        cls=OrchestraGroup, no_args_is_help=True, help="Build datasets, and train, evaluate and promote agents."
    )
    add_command(learn, data)
    add_command(learn, train)
    add_command(learn, evaluate)
    add_command(learn, promote)
    add_command(learn, rollback)
    add_command(learn, calibrate)
    add_command(learn, combine)
    app.add_typer(learn, name="learn", rich_help_panel="Improve")
    add_command(app, certify, panel="Improve")


def data(context: typer.Context, arguments: DatasetArguments) -> None:
    """Build a versioned dataset: types are checked, duplicates removed, and each group is kept in one split.

    Rows come from files. With --runs, they come from accepted answers of the agent in your runs, and from answers of
    persons, the larger model or another agent where its own answer was withheld or failed. A --teacher labels the rest:
    the inputs of files, whose outputs are ignored then, and those of failed calls. Its answers are kept if the checks
    accept them.
    """
    from orchestra.cli.learn.data import build_dataset, report_dataset
    from orchestra.cli.signals import run_with_signals

    spec = arguments.spec
    check_writable(arguments.out, "--out", folder=True)
    settings = load_settings(fleet=arguments.fleet, concurrency=arguments.concurrency)
    built_dataset = run_with_signals(lambda _: build_dataset(get_opener(context), settings, spec))
    with writing_output(arguments.out, "--out"):
        built_dataset.data.write(arguments.out)
    report_dataset(arguments.out, built_dataset)


def train(context: typer.Context, arguments: TrainArguments) -> None:
    """Train an agent on a dataset: the adapter of a language model, a sentence encoder that predicts labels or selects
    words or table cells, or the arrays of a tagger or a classifier, which takes seconds.

    The same command resumes an interrupted training of an adapter or encoder. With --teacher, an adapter also learns
    from the probabilities of a larger model. With --start, training continues from an existing adapter or encoder.
    Encoders take --minutes or --epochs, --rate, --seed, --start and --fresh; the other options are for adapters.
    """
    from orchestra.cli.learn import train as train_module

    train_module.train(arguments, given_parameters(context))


def evaluate(
    context: typer.Context, arguments: EvaluateArguments, measurement: MeasurementArguments, serving: ServingArguments
) -> None:
    """Evaluate an agent on the served model, beside baselines without a model and its base model.

    Exits with 0, with 1 if a requirement is missed or no server is available, 2 for bad input.
    """
    from orchestra.cli.learn.evaluate import compare
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.errors import OrchestraError
    from orchestra.learn.evaluation.gates import junit_error_report

    settings = serving.settings
    for file, option in ((arguments.junit, "--junit"), (arguments.predictions, "--predictions")):
        if file is not None:
            check_writable(file, option)
    try:
        comparison = run_with_signals(lambda _: compare(get_opener(context), settings, arguments.to_spec(measurement)))
    except OrchestraError as error:
        _write_file(arguments.junit, "--junit", partial(junit_error_report, arguments.agent, error))
        raise
    _write_file(arguments.predictions, "--predictions", comparison.to_json_lines)
    if serving.as_json:
        print_json(comparison.as_data())
    else:
        _show_comparison(comparison)
    _write_file(arguments.junit, "--junit", comparison.to_junit)
    for missed_requirement in comparison.missed_requirements:
        print_note(f"missed: {missed_requirement}, and it is {comparison.judged_figures[missed_requirement.metric]}")
    if comparison.missed_requirements:
        raise typer.Exit(1)


def _write_file(file: Path | None, option: str, content: Callable[[], bytes]) -> None:
    if file is not None:
        with writing_output(file, option):
            file.write_bytes(content())


def _show_comparison(comparison: ComparisonResult) -> None:
    report = comparison.report
    print_text(f"{report.agent} on {report.test}: {report.rows} rows\n")
    print_text(report.markdown())
    if comparison.classes is not None:
        _show_classes(comparison.classes)
    for training_overlap in comparison.training_overlap:
        print_text(f"\n{training_overlap}: these figures do not generalise to other rows")


def _show_classes(report: ClassificationReport) -> None:
    def format_figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [
        (
            escape_invisible(label.label),
            format_figure(label.precision),
            format_figure(label.recall),
            f"{label.f1:.3f}",
            f"{label.support:,}",
        )
        for label in report.labels
    ]
    print_text()
    print_table((report.field, "precision", "recall", "F1", "support"), rows, right=(1, 2, 3, 4))
    for expected, predicted_label, count in report.confusions:
        print_text(escape_invisible(f"{expected} predicted as {predicted_label}: {pluralize(count, 'row')}"))


def promote(
    context: typer.Context, arguments: PromoteArguments, measurement: MeasurementArguments, serving: ServingArguments
) -> None:
    """Promote an adapter if it is significantly better than the current one, on rows used to train neither.

    A paired test on the first metric of evaluation.yaml decides; its significance level falls with the number of
    candidates tested on these rows. A running fleet loads the adapter at once; active calls end with the old one. Exits
    with 0 if it was promoted, 1 if not, 2 for bad input.
    """
    from orchestra.cli.learn.evaluate import run_promotion
    from orchestra.cli.signals import run_with_signals

    settings = serving.settings
    result = run_with_signals(
        lambda _: run_promotion(get_opener(context), settings, arguments.to_spec(measurement), force=arguments.force)
    )
    if serving.as_json:
        print_json(result.as_data())
    else:
        print_text(f"{arguments.agent} on {result.report.test}: {result.report.rows} rows\n")
        print_text(f"{result.report.markdown()}\n")
        print_text(f"The candidate is {result.judgement}.")
        print_text(result.message)
    if not result.promoted:
        raise typer.Exit(1)


def rollback(
    context: typer.Context, agent: AgentArgument, fleet: FleetOption = None, as_json: JsonOption = False
) -> None:
    """Restore the adapter that an agent had before its last promotion."""
    from orchestra.cli.learn.evaluate import run_rollback
    from orchestra.cli.signals import run_with_signals

    line = run_with_signals(lambda _: run_rollback(get_opener(context), load_settings(fleet=fleet), agent))
    if as_json:
        print_json(line)
    else:
        adapter_text = f"the adapter {line.new_digest[:12]}" if line.new_digest else "no adapter"
        print_text(f"{agent} has {adapter_text} again, instead of {line.previous_digest[:12] or 'none'}")


def calibrate(context: typer.Context, arguments: CalibrateArguments, serving: ServingArguments) -> None:
    """Calibrate the probabilities of an agent's choices on rows it was not trained on."""
    from orchestra.cli.learn.evaluate import run_calibration
    from orchestra.cli.signals import run_with_signals

    settings = serving.settings
    result = run_with_signals(lambda _: run_calibration(get_opener(context), settings, arguments))
    calibration = result.calibration
    if serving.as_json:
        print_json(
            {
                "file": str(result.file),
                "rows": calibration.rows,
                "asked": result.rows_asked,
                "model": calibration.trust.model,
                "words": calibration.trust.wording,
            }
        )
    else:
        print_text(f"{result.file}: fitted on {calibration.rows:,} of {result.rows_asked:,} rows")
        print_text(
            f"  the weight of the model is {calibration.trust.model:.2f}"
            + (f", that of the words {calibration.trust.wording:.2f}" if arguments.overlap_inputs else "")
        )


def combine(context: typer.Context, arguments: CombineArguments, serving: ServingArguments) -> None:
    """Fit one score from several checks, each weighted by its value on rows of the agent, for `score: combined`.

    It needs 300 rows with labels; with --unlabelled, 300 rows and three checks. The weight of each check is printed.
    """
    from orchestra.cli.learn.evaluate import run_combination, show_combination, show_combination_data
    from orchestra.cli.signals import run_with_signals

    settings = serving.settings
    result = run_with_signals(lambda _: run_combination(get_opener(context), settings, arguments))
    (show_combination_data if serving.as_json else show_combination)(arguments, result)


MODES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "certifying answers": (
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
    "certifying parts of answers": (
        "--claims --data FILE",
        ("claims", "data", "alpha", "checks", "seed", "out", "group"),
    ),
    "showing a certificate": ("--data FILE", ("claims",)),
    "watching a guarantee": (
        "--watch",
        ("watch", "audit", "labels", "since", "until", "by", "seed", "metric", "evaluation", "claims"),
    ),
}
"""The modes of the command: an example command, and the options of each."""
COMMON_OPTIONS = ("agent", "concurrency", "fleet", "as_json")


def certify(context: typer.Context, arguments: CertifyArguments) -> None:
    """Certify an agent or a workflow: find the score from which answers are accepted, with a guaranteed maximum share
    of wrong ones.

    --watch, --audit and --labels compare the guarantee with audits of accepted outputs, and void it if it is broken.

    Exits with 0 with a certificate, and with 3 without one: too little data, too many wrong answers, or a guarantee
    that audits have refuted.
    """
    settings = load_settings(fleet=arguments.fleet, concurrency=arguments.concurrency)
    if arguments.watch or arguments.audit or arguments.labels is not None:
        _check_options(context, "watching a guarantee", arguments.agent)
        _refuse_workflows(settings, arguments)
        exit_with(_run_watch(settings, arguments))
        return
    if not arguments.agent:
        raise InputError(
            "C010", "which agent?", hint="orchestra certify AGENT --data FILE, or orchestra certify --watch"
        )
    if arguments.claims:
        _refuse_workflows(settings, arguments)
    if arguments.data is None:
        from orchestra.cli.learn import audit as show

        _check_options(context, "showing a certificate", arguments.agent)
        show.show_certificate(settings, arguments.agent, claims=arguments.claims, as_json=arguments.as_json)
        return
    _check_options(
        context, "certifying parts of answers" if arguments.claims else "certifying answers", arguments.agent
    )
    exit_with((_run_certify_claims if arguments.claims else _run_certify)(context, settings, arguments, arguments.data))


def _refuse_workflows(settings: Settings, arguments: CertifyArguments) -> None:
    """Raises `InputError` V032 for a workflow: only its whole output is certified, and it cannot be watched."""
    from orchestra.app.project import Project
    from orchestra.cli.learn import certify as target

    if arguments.agent and target.find_workflow(Project.load(settings), arguments.agent) is not None:
        option_text = "--claims are" if arguments.claims else "a watch is"
        rows = "FILE" if arguments.claims else "ROWS_OF_TODAY --out ANOTHER_FILE tests its guarantee again"
        raise InputError(
            "V032",
            f"{option_text} only possible for agents, and {arguments.agent} is a workflow",
            hint=f"orchestra certify {arguments.agent} --data {rows}",
        )


def _run_watch(settings: Settings, arguments: CertifyArguments) -> int:
    from orchestra.cli.learn import audit as audit_module
    from orchestra.cli.signals import run_with_signals

    during = audit_module.parse_period(arguments.since, arguments.until)
    return run_with_signals(lambda _: audit_module.watch_certificate(settings, arguments, during))


def _run_certify(context: typer.Context, settings: Settings, arguments: CertifyArguments, data: Path) -> int:
    from orchestra.cli.learn import certify as certify_module
    from orchestra.cli.signals import run_with_signals

    result = run_with_signals(
        lambda stop: certify_module.certify_outputs(get_opener(context), settings, arguments, data, stop)
    )
    (certify_module.show_data if arguments.as_json else certify_module.show)(arguments, result)
    return result.exit_code


def _run_certify_claims(context: typer.Context, settings: Settings, arguments: CertifyArguments, data: Path) -> int:
    from orchestra.cli.learn import certify as certify_module
    from orchestra.cli.signals import run_with_signals

    result = run_with_signals(lambda _: certify_module.certify_claims(get_opener(context), settings, arguments, data))
    (certify_module.show_claims_certification_data if arguments.as_json else certify_module.show_claims_certification)(
        arguments, result
    )
    return result.exit_code


def _check_options(context: typer.Context, mode: str, agent: str) -> None:
    """Raises `InputError` C010 for an option without an effect in this mode; the hint names its mode."""
    options = MODES[mode][1]
    option_names = {name for name in given_parameters(context) if name not in COMMON_OPTIONS}
    strange = next((name for name in given_parameters(context) if name in option_names.difference(options)), None)
    if strange is None:
        return
    text = ", ".join(f"--{name}" for name in options)
    modes = [option_mode for option_mode in MODES.values() if strange in option_mode[1]]
    command, takes = next((option_mode for option_mode in modes if option_names.issubset(option_mode[1])), modes[0])
    claims = "--claims" if "claims" in option_names.intersection(takes) and "--claims" not in command else ""
    hint = " ".join(filter(None, ("orchestra certify", agent, command, claims)))
    raise InputError("C010", f"--{strange} has no effect when {mode}; its options are {text}", hint=hint)
