"""The arguments and options of `orchestra learn` and `orchestra certify`, one dataclass for each command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestra.cli.context import load_settings
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

if TYPE_CHECKING:
    from orchestra.cli.learn.data import DatasetSpec
    from orchestra.core.settings import Settings
    from orchestra.learn.data.dataset import Split
    from orchestra.verification.certificates.certify import CertificationTerms

AgentArgument = Annotated[str, typer.Argument(help="The name of an agent.", show_default=False)]
DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        "-d",
        help="A dataset folder; rows {id, input, expected} as .jsonl, .jsonl.gz or .csv; or the folder of "
        "the files in evaluation.yaml.",
        show_default=False,
    ),
]
WhenOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="Limit to runs by their start: 12h, 30d, today, yesterday, 2026-11-24.", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class DatasetArguments:
    """The arguments of `orchestra learn data`."""

    agent: AgentArgument
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the dataset.", show_default=False)]
    files: Annotated[
        list[Path] | None, typer.Argument(help="JSON lines or CSV files with inputs and outputs.", show_default=False)
    ] = None
    licence: Annotated[str, typer.Option(help="The licence of the rows. Required.", show_default=False)] = ""
    name: Annotated[str, typer.Option(help="The name of the dataset.", show_default="the folder's name")] = ""
    column: Annotated[
        list[str] | None, typer.Option("--column", help="FIELD=COLUMN, if the names differ.", show_default=False)
    ] = None
    means: Annotated[
        list[str] | None,
        typer.Option(
            "--means",
            metavar="FIELD:VALUE=VALUE",
            help="Map a value of the rows to a value of the field; * means all other values.",
            show_default=False,
        ),
    ] = None
    group: Annotated[
        str,
        typer.Option(
            help="The column or input that identifies rows of one group.", show_default="the agent's evidence"
        ),
    ] = ""
    tune: Annotated[float, typer.Option(help="The share of groups in the tune split, for early stopping.")] = 0.1
    test: Annotated[float, typer.Option(help="The share of groups in the test split.")] = 0.1
    runs: Annotated[bool, typer.Option("--runs", help="Collect rows from the calls of the agent in your journal.")] = (
        False
    )
    since: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="With --runs: only runs of the last 12h, 30d, 2w.", show_default=False),
    ] = None
    workflow: Annotated[
        str, typer.Option(metavar="NAME", help="With --runs: only runs of this workflow or agent.", show_default=False)
    ] = ""
    escalated: Annotated[
        str,
        typer.Option(
            metavar="AGENT",
            help="With --runs: collect which calls of this agent needed the larger model.",
            show_default=False,
        ),
    ] = ""
    teacher: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="An agent, or a model of the fleet, that labels rows without an output.",
            show_default=False,
        ),
    ] = ""
    without: Annotated[
        list[Path] | None,
        typer.Option(
            "--without", metavar="SET", help="Exclude rows of the test split of this dataset.", show_default=False
        ),
    ] = None
    replace: Annotated[bool, typer.Option("--replace", help="Replace a different dataset in the folder.")] = False
    concurrency: ConcurrencyOption = None
    fleet: FleetOption = None

    @property
    def spec(self) -> DatasetSpec:
        """The dataset to build. Raises `InputError` for invalid columns, shares and ages."""
        from orchestra.cli.learn.data import DatasetSpec
        from orchestra.cli.options import parse_age
        from orchestra.learn.data.dataset import SplitShares
        from orchestra.learn.data.sources import ColumnMapping

        return DatasetSpec(
            self.agent,
            tuple(self.files or ()),
            self.out,
            self.licence,
            self.name or self.out.name,
            ColumnMapping.parse(self.column or (), self.group, self.means or ()),
            SplitShares(self.tune, self.test),
            runs=self.runs,
            max_age=parse_age(self.since, "--since") if self.since is not None else None,
            workflow=self.workflow,
            teacher=self.teacher,
            escalated=self.escalated,
            excluded_sets=tuple(self.without or ()),
            replace=self.replace,
        )


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """The arguments of `orchestra learn train`."""

    agent: AgentArgument
    data: Annotated[Path, typer.Option("--data", help="The folder of a dataset.", show_default=False)]
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder for the adapter.", show_default="in DATA")
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="The training time in minutes. The step at that time is the last one.", show_default=False
        ),
    ] = None
    epochs: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="The number of passes over the rows.", show_default="3 (encoders: 6 or 3) without --minutes"
        ),
    ] = None
    rank: Annotated[int, typer.Option(min=1, max=256, help="The LoRA rank.")] = 16
    targets: Annotated[str, typer.Option(help="The adapted layers: all-linear, attention or query-value.")] = (
        "all-linear"
    )
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-7, max=1, help="The highest learning rate.", show_default="0.0006; encoders have their own"
        ),
    ] = None
    decay: Annotated[str, typer.Option(help="The decay of the learning rate: linear, cosine or none.")] = "linear"
    seed: Annotated[int, typer.Option(help="The seed of the initial weights and of the order of rows.")] = 0
    patience: Annotated[
        int, typer.Option(min=1, help="Evaluations on the tune split without improvement after which training stops.")
    ] = 4
    tune_every: Annotated[float, typer.Option(min=0.01, help="Epochs between two evaluations.")] = 0.5
    batch: Annotated[int, typer.Option(min=64, help="Tokens per batch.")] = 1400
    longest: Annotated[
        int, typer.Option(min=16, help="The maximum number of tokens of a row; longer rows are left out.")
    ] = 2048
    device: Annotated[str, typer.Option(help="The device: cpu, cuda or auto.")] = "auto"
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="An adapter or encoder from which training continues.", show_default="the base model"
        ),
    ] = None
    teacher: Annotated[
        str,
        typer.Option(
            metavar="MODEL|FOLDER",
            help="A model with the same tokenizer, whose probabilities are learnt too.",
            show_default=False,
        ),
    ] = ""
    teacher_adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The adapter of the teacher.", show_default=False)
    ] = None
    temperature: Annotated[
        float, typer.Option(min=0.1, max=100, help="The softmax temperature of teacher and student.")
    ] = 2.0
    share: Annotated[
        float, typer.Option(min=0, max=1, help="The weight of the teacher's loss; the labels have the rest.")
    ] = 0.5
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard the checkpoint of an interrupted training.")] = False
    fleet: FleetOption = None


class HeldOutPart(StrEnum):
    """Splits that are not used for training. An enum, because Typer does not accept a list of literals."""

    TUNE = "tune"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class ComparisonSpec:
    """Which agents are compared, and on which rows."""

    agent: str
    data: Path
    part: Split
    train: Path | None
    candidate: Path | None
    untuned: bool
    rows: int | None
    """The maximum number of rows; None for that of the evaluation, or all."""
    seed: int | None
    no_checks: bool
    require: Sequence[str] = ()
    evaluation: str = ""
    """The name of an evaluation in `evaluation.yaml`; the first one by default."""
    classes: bool = False
    """Also computes figures for each label."""
    predictions: bool = False
    """Also returns the answers, as `orchestra certify --predictions` reads them."""
    members: bool = True
    """Also evaluates the members of an ensemble alone."""


@dataclass(frozen=True, slots=True)
class MeasurementArguments:
    """The rows of a measurement."""

    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=0,
            help="The maximum number of rows, sampled by the seed; 0 for all.",
            show_default="as evaluation.yaml, or all",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="The seed of the sampled rows and of the intervals.", show_default="as evaluation.yaml, or 0"
        ),
    ] = None
    evaluation: EvaluationOption = ""
    no_checks: Annotated[
        bool, typer.Option("--no-checks", help="Evaluate the raw outputs, without the checks of the card.")
    ] = False


@dataclass(frozen=True, slots=True)
class ServingArguments:
    """The fleet of the agent, and the output format."""

    concurrency: ConcurrencyOption = None
    fleet: FleetOption = None
    as_json: JsonOption = False

    @property
    def settings(self) -> Settings:
        """The settings with these options."""
        return load_settings(fleet=self.fleet, concurrency=self.concurrency)


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """The arguments of `orchestra learn evaluate`."""

    agent: AgentArgument
    data: DataOption
    part: Annotated[Literal["train", "tune", "test"], typer.Option(help="The split of a dataset.")] = "test"
    train: Annotated[
        Path | None, typer.Option(help="Rows for the baselines; a dataset has its own.", show_default=False)
    ] = None
    candidate: Annotated[
        Path | None, typer.Option(help="An adapter to compare with that of the agent.", show_default=False)
    ] = None
    untuned: Annotated[bool, typer.Option(help="Also evaluate the base model without an adapter.")] = True
    members: Annotated[bool, typer.Option(help="Also evaluate the members of an ensemble alone.")] = True
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A requirement such as 'EM >= 0.65'; the command exits with 1 if it is missed.",
            show_default=False,
        ),
    ] = None
    junit: Annotated[
        Path | None,
        typer.Option(help="Write the requirements and results as JUnit XML, for a CI service.", show_default=False),
    ] = None
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write each answer, and whether it is correct, as a line of JSON.",
            show_default=False,
        ),
    ] = None
    classes: Annotated[bool, typer.Option("--classes", help="Show precision, recall and F1 of each label.")] = False

    def to_spec(self, measurement: MeasurementArguments) -> ComparisonSpec:
        """The comparison to make."""

        return ComparisonSpec(
            self.agent,
            self.data,
            self.part,
            self.train,
            self.candidate,
            self.untuned,
            measurement.rows,
            measurement.seed,
            measurement.no_checks,
            tuple(self.require or ()),
            measurement.evaluation,
            self.classes,
            self.predictions is not None,
            self.members,
        )


@dataclass(frozen=True, slots=True)
class PromoteArguments:
    """The arguments of `orchestra learn promote`."""

    agent: AgentArgument
    candidate: Annotated[
        Path, typer.Argument(help="The adapter folder written by orchestra learn train.", show_default=False)
    ]
    data: DataOption
    part: Annotated[Literal["tune", "test"], typer.Option(help="The split of a dataset.")] = "test"
    force: Annotated[
        bool,
        typer.Option("--force", help="Promote it even if it is not significantly better, or was trained on the rows."),
    ] = False

    def to_spec(self, measurement: MeasurementArguments) -> ComparisonSpec:
        """The comparison to make."""

        return ComparisonSpec(
            self.agent,
            self.data,
            self.part,
            None,
            self.candidate,
            untuned=False,
            rows=measurement.rows,
            seed=measurement.seed,
            no_checks=measurement.no_checks,
            evaluation=measurement.evaluation,
        )


@dataclass(frozen=True, slots=True)
class CalibrateArguments:
    """The arguments of `orchestra learn calibrate`."""

    agent: AgentArgument
    data: Annotated[Path, typer.Option("--data", "-d", help="The folder of a dataset.", show_default=False)]
    part: Annotated[
        list[HeldOutPart] | None, typer.Option(help="The split to use; may be given twice.", show_default="tune")
    ] = None
    words: Annotated[
        str,
        typer.Option(
            metavar="CLAIM,EVIDENCE",
            help="Two inputs whose word overlap is a feature beside the model's probability.",
            show_default=False,
        ),
    ] = ""
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The output file.", show_default="that of the card")
    ] = None

    @property
    def parts(self) -> list[Split]:
        """The splits to use."""
        return ["test" if part is HeldOutPart.TEST else "tune" for part in self.part or [HeldOutPart.TUNE]]

    @property
    def overlap_inputs(self) -> tuple[str, str] | None:
        """The two inputs whose word overlap is a feature."""
        claim, _, evidence = self.words.partition(",")
        return (claim.strip(), evidence.strip()) if self.words else None


@dataclass(frozen=True, slots=True)
class CombineArguments:
    """The arguments of `orchestra learn combine`."""

    agent: AgentArgument
    data: DataOption
    checks: ChecksOption = ""
    unlabelled: Annotated[
        bool,
        typer.Option("--unlabelled", help="Estimate the weights from the agreement of the checks, without labels."),
    ] = False
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Recorded answers {"id", "output", "score"}, used instead of calling the agent.',
            show_default=False,
        ),
    ] = None
    metric: MetricOption = ""
    evaluation: EvaluationOption = ""
    rows: MaxRowsOption = 0
    seed: Annotated[int, typer.Option("--seed", help="The seed of the sampled rows and of the folds.")] = 0
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The output file.", show_default="combination.json in the agent's folder"),
    ] = None

    @property
    def check_names(self) -> tuple[str, ...]:
        """The checks of the node."""
        return split_names(self.checks)


@dataclass(frozen=True, slots=True)
class CertifyArguments:
    """The arguments of `orchestra certify`."""

    agent: Annotated[
        str,
        typer.Argument(
            help="An agent with a card, or a workflow; with --watch, all certified agents by default.",
            show_default=False,
        ),
    ] = ""
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="Rows {id, input, expected} as .jsonl, .jsonl.gz, .csv or a dataset folder. Without it, the "
            "certificate is shown.",
            show_default=False,
        ),
    ] = None
    alpha: Annotated[float, typer.Option(help="The maximum share of wrong answers among accepted answers.")] = 0.05
    delta: Annotated[
        float, typer.Option(help="The probability that the guarantee fails, over all attempts on these rows.")
    ] = 0.05
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Recorded answers {"id", "output", "score"}, used instead of calls.',
            show_default=False,
        ),
    ] = None
    checks: ChecksOption = ""
    metric: MetricOption = ""
    evaluation: EvaluationOption = ""
    rows: MaxRowsOption = 0
    seed: Annotated[
        int, typer.Option("--seed", help="The seed of the split of the rows; another seed counts as another attempt.")
    ] = 0
    group: Annotated[
        str,
        typer.Option(
            metavar="INPUT",
            help="The input that groups rows; rows of one group count as one.",
            show_default="the rows' `group`, or the evidence",
        ),
    ] = ""
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The output file.", show_default="certificate.json in the agent's folder"),
    ] = None
    combined: Annotated[
        bool,
        typer.Option("--combined", help="Use the score of the agent's combination of checks (`score: combined`)."),
    ] = False
    claims: Annotated[
        bool,
        typer.Option("--claims", help="Certify parts of answers, judged in --data, instead of whole answers."),
    ] = False
    watch: Annotated[bool, typer.Option("--watch", help="Compare the guarantee with the audits so far.")] = False
    audit: Annotated[
        int,
        typer.Option(
            "--audit",
            min=0,
            metavar="N",
            help="Sample N accepted outputs of the journal, and ask whether they are correct.",
        ),
    ] = 0
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='Verdicts on sampled outputs: {"run", "node", "verdict"}.', show_default=False
        ),
    ] = None
    since: WhenOption = None
    until: WhenOption = None
    by: Annotated[
        str, typer.Option(metavar="NAME", help="The name of the auditor, for the audit log.", show_default=False)
    ] = ""
    concurrency: ConcurrencyOption = None
    fleet: FleetOption = None
    as_json: JsonOption = False

    @property
    def check_names(self) -> tuple[str, ...]:
        """The checks of the node."""
        return split_names(self.checks)

    @property
    def terms(self) -> CertificationTerms:
        """The guarantee for whole answers. Raises `InputError` V006."""
        from orchestra.verification.certificates.certify import CertificationTerms

        return CertificationTerms(self.alpha, self.delta, seed=self.seed)
