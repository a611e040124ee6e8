"""Questions: rows to test an agent on, with what is expected; and how an agent's folder says what its answers are measured by."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestra.agent.card import Card
from orchestra.errors import InputError, Place
from orchestra.learn.dataset import MANIFEST, DataSet, Part
from orchestra.learn.metrics import Measure, Metric, metric
from orchestra.values.json import digest
from orchestra.values.yaml import load

FILE = "evaluation.yaml"
ALONE = "output"
"""The name under which an output that is no record is measured."""


class Question(msgspec.Struct, frozen=True):
    """A row to test on."""

    id: str
    input: dict[str, Any]
    expected: dict[str, Any]


class Shown(msgspec.Struct, frozen=True):
    """A row that shows how the work is done."""

    input: dict[str, Any]
    output: Any


class _Line(msgspec.Struct, frozen=True):
    id: str
    input: dict[str, Any]
    expected: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    output: Any = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Test:
    """What an agent is tested on."""

    name: str
    digest: str
    """Of the rows."""
    questions: Sequence[Question]
    shown: Sequence[Shown] = ()
    """Rows that floors are made of; none where the data has no training part."""


class EvaluationFile(BaseModel):
    """What `evaluation.yaml` says: metrics by the names that tables give them, the first of them the one that decides; and goals."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    schema_: Literal["orchestra/evaluation/v1"] = Field(default="orchestra/evaluation/v1", alias="schema")
    data: str = ""
    """What the figures of the card were measured on."""
    metrics: Mapping[str, Measure]
    goals: Mapping[str, float] = field(default_factory=dict)


def metrics_of(card: Card) -> tuple[Metric, ...]:
    """What an agent is measured by: its `evaluation.yaml`, or else what fits its type. Raises `InputError` N201 for a faulty file."""
    path = card.folder / FILE if card.folder is not None else None
    measures = read_evaluation(path).metrics if path is not None and path.is_file() else _fitting(card)
    return tuple(metric(name, measure) for name, measure in measures.items())


def read_evaluation(path: Path) -> EvaluationFile:
    """An evaluation file. Raises `InputError` N201, or L-codes for what is no strict YAML."""
    marked = load(path.read_bytes(), str(path))
    try:
        read = EvaluationFile.model_validate(marked.value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"
        raise InputError("N201", said, place=marked.place(first["loc"]), hint="orchestra explain N201") from error
    if not read.metrics:
        raise InputError("N201", "no metric is named", place=marked.place(("metrics",)), hint="orchestra explain N201")
    return read


def _fitting(card: Card) -> dict[str, Measure]:
    """Measures for the fields of an output's type: texts by SQuAD's exact match and F1, everything else by whether it is the same."""
    found: dict[str, Measure] = {}
    fields: Mapping[str, Any] = card.output_schema.get("properties", {}) or {ALONE: card.output_schema}
    for name, schema in fields.items():
        options = schema.get("anyOf", [schema])
        if any(option.get("type") == "string" and "enum" not in option for option in options):
            found[f"{name} exact"] = Measure(of="exact", field=name)
            found[f"{name} F1"] = Measure(of="token_f1", field=name)
        elif any(option.get("type") == "number" for option in options):
            found[f"{name} right"] = Measure(of="number", field=name)
        else:
            found[f"{name} right"] = Measure(of="accuracy", field=name)
    return found


def read_test(path: Path, part: Part = "test", train: Path | None = None) -> Test:
    """What to test on: a part of a data set, or a file of rows with `expected`, or with an `output`.

    `train` names rows that floors are made of; a data set brings its own. Raises `InputError` N001 for what cannot be read,
    N202 where there is no row.
    """
    if (path / MANIFEST).is_file():
        data = DataSet.load(path)
        questions = [Question(row.id, row.input, as_record(row.output)) for row in data.rows[part]]
        shown = [Shown(row.input, as_record(row.output)) for row in data.rows["train"]]
        name, mark = f"{data.manifest.name}, {part} part", data.manifest.parts[part].digest
    else:
        lines, mark = _lines(path)
        questions = [Question(line.id, line.input, _expected(line, path)) for line in lines]
        shown, name = [], path.name
    if train is not None:
        shown = [Shown(line.input, _expected(line, train)) for line in _lines(train)[0]]
    if not questions:
        raise InputError("N202", f"{path} has no row to test on", hint="orchestra learn data")
    return Test(name, mark, questions, shown)


def as_record(output: Any) -> dict[str, Any]:
    """An output by fields; one that has none under the name `output`."""
    return output if isinstance(output, dict) else {ALONE: output}


def _expected(line: _Line, path: Path) -> dict[str, Any]:
    if not isinstance(line.expected, msgspec.UnsetType):
        return line.expected
    if line.output is msgspec.UNSET:
        reason = f"the row {line.id!r} of {path.name} says neither `expected` nor `output`"
        raise InputError("N001", reason, hint='{"id": "1", "input": {...}, "output": {...}}')
    return as_record(line.output)


def _lines(path: Path) -> tuple[list[_Line], str]:
    decoder = msgspec.json.Decoder(_Line)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError("N001", f"{path} cannot be read: {reason}", hint="name a data set's folder, or a file of rows") from error
    lines: list[_Line] = []
    for number, text in enumerate(data.splitlines(), start=1):
        try:
            lines.append(decoder.decode(text))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            place = Place(str(path), number, text=text.decode("utf-8", "replace"))
            raise InputError("N001", f"a line that is no row: {error}", place=place, hint='{"id", "input", "expected"}') from error
    return lines, digest(data)
