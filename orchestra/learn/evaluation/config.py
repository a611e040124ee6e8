"""The file `evaluation.yaml` in an agent's folder: evaluation rows, metrics and goals.

It has one evaluation, or several by name under `evaluations:`. The first metric of the first evaluation decides about
promotions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.learn.evaluation.metrics import MetricConfig, is_lower_better
from orchestra.schema.strict_yaml import YamlDocument, load_yaml

FILE = "evaluation.yaml"
HINT = "orchestra explain N201"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class RowSelection(_Frozen):
    """The rows of an evaluation, in a folder with one folder for each set."""

    file: str
    """The file, such as `xquad_en/dev.jsonl`: rows `{"id", "input", "expected"}`, gzip if it ends in `.gz`."""
    train: str = ""
    """A file of the same form with training rows for the baselines."""
    where: Mapping[str, Any] = {}
    """Only rows whose expected record has these values; a list allows several."""
    sample: Annotated[int, Field(ge=0)] = 0
    """Maximal number of rows, sampled by `seed`; 0 for all."""
    seed: int = 0
    untuned: Annotated[int, Field(ge=0)] = 0
    """Maximal number of rows for the untuned base, sampled by `seed`, because it is often slow; 0 for all."""
    group: str = ""
    """The input key whose value defines groups of dependent rows, such as the passage of a question. Groups are
    resampled as a whole for the intervals.
    """
    inputs: Mapping[str, str] = {}
    """The agent's inputs by input key of the rows, if the names differ; keys without an entry are left out."""

    @model_validator(mode="after")
    def _check_paths(self) -> Self:
        for name in (self.file, self.train):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{name!r} is outside of the data folder")
        return self

    @property
    def set(self) -> str:
        """The folder of the set."""
        return PurePosixPath(self.file).parts[0]


class Evaluation(_Frozen):
    """One evaluation: metrics by display name, and their goals."""

    data: str = ""
    """The data that the figures of the card were measured on, in words."""
    source: str = ""
    """The origin and the licence of the set."""
    rows: RowSelection | None = None
    metrics: Annotated[Mapping[str, MetricConfig], Field(min_length=1)]
    goals: Mapping[str, float] = {}
    """Goals: minimal values, or maximal ones for metrics that are better if lower."""
    floors: Mapping[str, Mapping[str, float]] = {}
    """Published figures of baselines without a language model, by name. They are not measured again."""

    @model_validator(mode="after")
    def _check_metric_names(self) -> Self:
        for name in (*self.goals, *(name for figures in self.floors.values() for name in figures)):
            if name not in self.metrics:
                near = closest_match(name, self.metrics)
                raise ValueError(
                    f"{name!r} is not a metric of this evaluation{f'; did you mean {near!r}?' if near else ''}"
                )
        return self

    def meets_goal(self, metric: str, value: float) -> bool:
        """Returns whether a value reaches its goal."""
        goal = self.goals[metric]
        return value <= goal if is_lower_better(self.metrics[metric]) else value >= goal


class _SingleEvaluationFile(Evaluation):
    schema_: Literal["orchestra/evaluation/v1"] = Field(default="orchestra/evaluation/v1", alias="schema")


class _MultipleEvaluationsFile(_Frozen):
    schema_: Literal["orchestra/evaluation/v1"] = Field(default="orchestra/evaluation/v1", alias="schema")
    evaluations: Annotated[
        Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Evaluation], Field(min_length=1)
    ]


def read_evaluations(path: Path) -> dict[str, Evaluation]:
    """Reads the evaluations of a file by name; a single one is named after its set, or else `rows`.

    Raises:
        InputError: N201 if the file is invalid; L-codes if it is not strict YAML.
    """
    yaml_document = load_yaml(path.read_bytes(), str(path))
    has_several = isinstance(yaml_document.value, dict) and "evaluations" in yaml_document.value
    try:
        if has_several:
            return dict(_MultipleEvaluationsFile.model_validate(yaml_document.value).evaluations)
        evaluation_file = _SingleEvaluationFile.model_validate(yaml_document.value)
    except ValidationError as error:
        raise _file_error(error, yaml_document) from error
    return {evaluation_file.rows.set if evaluation_file.rows else "rows": evaluation_file}


def find_evaluation(path: Path, name: str = "") -> tuple[str, Evaluation]:
    """Returns the evaluation of a name, or the first one, with its name.

    Raises:
        InputError: N204 if there is none of that name.
    """
    evaluations = read_evaluations(path)
    chosen_name = name or next(iter(evaluations))
    if chosen_name not in evaluations:
        near = closest_match(chosen_name, evaluations)
        hint = f"did you mean {near!r}?" if near else f"it has {', '.join(evaluations)}"
        raise InputError("N204", f"{path.parent.name} has no evaluation {chosen_name!r}", hint=hint)
    return chosen_name, evaluations[chosen_name]


def _file_error(error: ValidationError, yaml_document: YamlDocument) -> InputError:
    first = error.errors(include_url=False)[0]
    reason = f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}".removeprefix(": ").replace(
        "Value error, ", ""
    )
    return InputError("N201", reason, location=yaml_document.location(first["loc"]), hint=HINT)
