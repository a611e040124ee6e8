"""Evaluation rows: inputs with expected outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.core.labels import Label
from orchestra.learn.data.dataset import MANIFEST_FILE, Dataset, Split, dataset_label_of
from orchestra.learn.data.jsonl import JsonLinesFormat
from orchestra.learn.data.sources import ColumnMapping, is_table, read_source
from orchestra.learn.evaluation.config import FILE, RowSelection, find_evaluation
from orchestra.learn.evaluation.metrics import WHOLE_OUTPUT, Metric, MetricConfig, build_metric, matches_any
from orchestra.schema.fields import QUOTE_FORMAT
from orchestra.schema.strict_json import canonical, digest


class EvaluationRow(msgspec.Struct, frozen=True):
    """A row of an evaluation."""

    id: str
    input: dict[str, Any]
    expected: dict[str, Any]
    group: str = ""
    """The group of dependent rows, such as questions about one passage; groups are resampled as a whole. Empty if
    unknown.
    """


class ReferenceRow(msgspec.Struct, frozen=True):
    """An example of the task, for baselines."""

    input: dict[str, Any]
    output: Any


class _EvaluationLine(msgspec.Struct, frozen=True):
    id: str
    input: dict[str, Any]
    expected: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    output: Any = msgspec.UNSET
    group: Any = ""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The rows of an evaluation."""

    name: str
    digest: str
    """Digest of the rows."""
    rows: Sequence[EvaluationRow]
    reference_rows: Sequence[ReferenceRow] = ()
    """Training rows for the baselines; none if the data has no training split."""
    label: Label | None = None
    """The confidentiality label; None if unknown."""

    @property
    def group_count(self) -> int:
        """Returns the number of groups; a row without a group is its own group."""
        return len({row.group or at for at, row in enumerate(self.rows)})


def metrics_for(card: Card, name: str = "", questions: Sequence[EvaluationRow] = ()) -> tuple[Metric, ...]:
    """Returns the metrics of an agent: those of an evaluation in its `evaluation.yaml` (by name, or the first), else
    defaults for its output type, for the fields with expected values.

    Raises:
        InputError: N201 if the file is invalid; N204 if the evaluation does not exist.
    """
    return tuple(build_metric(name, measure) for name, measure in metric_configs_for(card, name, questions)[0].items())


def metric_configs_for(
    card: Card, name: str = "", questions: Sequence[EvaluationRow] = ()
) -> tuple[Mapping[str, MetricConfig], bool]:
    """Returns the configurations of `metrics_for`, and whether they are from a file instead of defaults."""
    path = card.folder / FILE if card.folder is not None else None
    has_file = path is not None and path.is_file()
    return (
        (find_evaluation(path, name)[1].metrics, True)
        if path is not None and has_file
        else (_default_metric_configs(card, questions), False)
    )


def _default_metric_configs(card: Card, questions: Sequence[EvaluationRow]) -> dict[str, MetricConfig]:
    """Returns the default metrics for the fields of an output type: equal spelling and F1 for texts, SQuAD's exact
    match and F1 for quotes, equality for others. An output that may be a record without declared fields is compared as
    a whole. Probabilities, and fields without expected values, have no metric.
    """
    metric_configs: dict[str, MetricConfig] = {}
    fields: Mapping[str, Any] = card.output_schema.get("properties", {}) or {WHOLE_OUTPUT: card.output_schema}
    fields = {name: schema for name, schema in fields.items() if not _is_probability(card, name, schema)} or fields
    expected = {name for question in questions for name in question.expected}
    fields = {name: schema for name, schema in fields.items() if name in expected} or fields
    if fields.get(WHOLE_OUTPUT) is card.output_schema and _may_be_record(
        card.output_schema, card.output_schema.get("$defs", {})
    ):
        return {f"{WHOLE_OUTPUT} right": MetricConfig(of="accuracy")}
    for name, schema in fields.items():
        options = schema.get("anyOf", [schema])
        if any(option.get("type") == "string" and "enum" not in option for option in options):
            has_quotes_only = all(
                option.get("format") == QUOTE_FORMAT for option in options if option.get("type") == "string"
            )
            metric_configs[f"{name} exact" if has_quotes_only else f"{name} same"] = MetricConfig(
                of="exact" if has_quotes_only else "text", field=name
            )
            metric_configs[f"{name} F1"] = MetricConfig(of="token_f1", field=name)
        elif any(option.get("type") == "number" for option in options):
            metric_configs[f"{name} right"] = MetricConfig(of="number", field=name)
        else:
            metric_configs[f"{name} right"] = MetricConfig(of="accuracy", field=name)
    return metric_configs


def _is_probability(card: Card, name: str, schema: Mapping[str, Any]) -> bool:
    """Returns whether a field is a probability: that of a choice, or the number beside an encoder's label."""
    rule = card.output_form.rules.get(name)
    if rule is not None:
        return rule.probability is not None
    beside = card.kind == "encoder" and len(card.output_schema.get("properties", {})) > 1
    return beside and any(option.get("type") == "number" for option in schema.get("anyOf", [schema]))


def _may_be_record(schema: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Returns whether a schema allows an object; a schema without a type does."""
    if "$ref" in schema:
        schema = fields.get(str(schema["$ref"]).rpartition("/")[2], {})
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return any(_may_be_record(option, fields) for option in options)
    return schema.get("type") == "object" or not schema.keys() & {"type", "enum", "const"}


def read_evaluation_set(
    path: Path, part: Split = "test", train: Path | None = None, card: Card | None = None
) -> EvaluationSet:
    """Reads the rows of an evaluation: a split of a data set, a file of rows with `expected` or `output`, or, with
    `card`, a table whose columns are the agent's fields.

    Args:
        train: A file of training rows for the baselines; a data set has its own.

    Raises:
        InputError: N001 if a file cannot be read; N010 to N012 if a table is invalid; N202 if there is no row.
    """
    if os.path.isfile(path / MANIFEST_FILE):
        data = Dataset.load(path)
        questions = [EvaluationRow(row.id, row.input, as_record(row.output), row.group) for row in data.rows[part]]
        reference_rows = [ReferenceRow(row.input, as_record(row.output)) for row in data.rows["train"]]
        name, mark, label = f"{data.manifest.name}, {part} part", data.manifest.splits[part].digest, data.manifest.label
    else:
        lines, mark = _read_lines(path, card)
        questions = [
            EvaluationRow(line.id, line.input, _expected_record(line, path), _group_name(line.group)) for line in lines
        ]
        reference_rows, name, label = [], path.name, dataset_label_of(path)
    if train is not None:
        reference_rows = [
            ReferenceRow(line.input, _expected_record(line, train)) for line in _read_lines(train, card)[0]
        ]
    if not questions:
        raise InputError("N202", f"{path} has no rows", hint="orchestra learn data")
    return EvaluationSet(name, mark, questions, reference_rows, label)


def read_selected_rows(folder: Path, rows: RowSelection) -> EvaluationSet:
    """Reads the rows that an evaluation file selects, from a folder with one folder for each set, without sampling.

    Raises:
        InputError: As `read_evaluation_set`; N201 if the `group` is not an input of a row.
    """
    test = read_evaluation_set(folder / rows.file, train=folder / rows.train if rows.train else None)
    if rows.group:
        test = replace(test, rows=[msgspec.structs.replace(row, group=_group_digest(row, rows)) for row in test.rows])
    if rows.inputs:
        questions = [msgspec.structs.replace(row, input=_rename_inputs(row.input, rows.inputs)) for row in test.rows]
        test = replace(
            test,
            rows=questions,
            reference_rows=[
                ReferenceRow(_rename_inputs(reference_row.input, rows.inputs), reference_row.output)
                for reference_row in test.reference_rows
            ],
        )
    selected_rows = [
        row
        for row in test.rows
        if all(matches_any(row.expected.get(key), values) for key, values in rows.where.items())
    ]
    if not selected_rows:
        raise InputError("N202", f"{rows.file} has no row where {dict(rows.where)}", hint="orchestra explain N201")
    return replace(test, name=rows.file, rows=selected_rows)


def _group_digest(row: EvaluationRow, rows: RowSelection) -> str:
    """Returns the group of a row as a digest. Raises `InputError` N201 if the row has no such input."""
    if rows.group not in row.input:
        raise InputError(
            "N201",
            f"the row {row.id!r} of {rows.file} has no input {rows.group!r} to group it by",
            hint="orchestra explain N201",
        )
    return digest(canonical(row.input[rows.group]))


def _rename_inputs(inputs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {name: inputs[key] for name, key in names.items() if key in inputs}


def as_record(output: Any) -> dict[str, Any]:
    """Returns an output as a record; an output that is not a record is its field `output`."""
    return output if isinstance(output, dict) else {WHOLE_OUTPUT: output}


def _expected_record(line: _EvaluationLine, path: Path) -> dict[str, Any]:
    if not isinstance(line.expected, msgspec.UnsetType):
        return line.expected
    if line.output is msgspec.UNSET:
        reason = f"the row {line.id!r} of {path.name} has neither `expected` nor `output`"
        raise InputError("N001", reason, hint='{"id": "1", "input": {...}, "output": {...}}')
    return as_record(line.output)


def _group_name(value: Any) -> str:
    """Returns the name of a group, which may be a number."""
    return value if isinstance(value, str) else "" if value is None else canonical(value).decode()


def _read_lines(path: Path, card: Card | None) -> tuple[list[_EvaluationLine], str]:
    if card is not None and is_table(path):
        rows = read_source(path, card, ColumnMapping({}))
        return [_EvaluationLine(row.id, row.input, output=row.output) for row in rows], digest(path.read_bytes())
    hint = (
        "orchestra learn data makes rows from a table: orchestra explain N001"
        if is_table(path)
        else '{"id", "input", "expected"}'
    )
    lines = JsonLinesFormat(_EvaluationLine, "N001", "row", hint)
    data = lines.read_bytes(path)
    return [row for _, row in lines.parse_lines(path, data)], digest(data)
