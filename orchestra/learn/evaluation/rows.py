"""Questions: rows to test an agent on, with what is expected."""

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
    """A row to test on."""

    id: str
    input: dict[str, Any]
    expected: dict[str, Any]
    group: str = ""
    """Rows with something in common, such as the passage that they ask about, have the same one: they are drawn together. Empty where the
    row says nothing of it."""


class ReferenceRow(msgspec.Struct, frozen=True):
    """A row that shows how the work is done."""

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
    """What an agent is tested on."""

    name: str
    digest: str
    """Of the rows."""
    rows: Sequence[EvaluationRow]
    reference_rows: Sequence[ReferenceRow] = ()
    """Rows that floors are made of; none where the data has no training part."""
    label: Label | None = None
    """Where the rows may go; None where nothing says it."""

    @property
    def group_count(self) -> int:
        """How many groups its rows are of; a row without one is one by itself."""
        return len({one.group or at for at, one in enumerate(self.rows)})


def metrics_for(card: Card, name: str = "", questions: Sequence[EvaluationRow] = ()) -> tuple[Metric, ...]:
    """What an agent is measured by: an evaluation of its `evaluation.yaml`, the first where none is named; or else what fits its type, of
    fields that the questions expect something of.

    Raises `InputError` N201 for a faulty file, N204 for an evaluation that is not there.
    """
    return tuple(build_metric(name, measure) for name, measure in metric_configs_for(card, name, questions)[0].items())


def metric_configs_for(card: Card, name: str = "", questions: Sequence[EvaluationRow] = ()) -> tuple[Mapping[str, MetricConfig], bool]:
    """The measures behind `metrics_for`, and whether somebody chose them: else they are what fits the output's type."""
    path = card.folder / FILE if card.folder is not None else None
    chosen = path is not None and path.is_file()
    return (
        (find_evaluation(path, name)[1].metrics, True) if path is not None and chosen else (_default_metric_configs(card, questions), False)
    )


def _default_metric_configs(card: Card, questions: Sequence[EvaluationRow]) -> dict[str, MetricConfig]:
    """Measures for the fields of an output's type: texts by whether they are spelt alike and by F1, quotes by SQuAD's exact match and F1,
    everything else by whether it is the same; so is an output that may be a record and has no fields of its own, as a whole. No probability
    is the same as another; of fields that no question expects nothing can be said."""
    found: dict[str, MetricConfig] = {}
    fields: Mapping[str, Any] = card.output_schema.get("properties", {}) or {WHOLE_OUTPUT: card.output_schema}
    fields = {name: schema for name, schema in fields.items() if not _is_probability(card, name, schema)} or fields
    expected = {name for question in questions for name in question.expected}
    fields = {name: schema for name, schema in fields.items() if name in expected} or fields
    if fields.get(WHOLE_OUTPUT) is card.output_schema and _may_be_record(card.output_schema, card.output_schema.get("$defs", {})):
        return {f"{WHOLE_OUTPUT} right": MetricConfig(of="accuracy")}
    for name, schema in fields.items():
        options = schema.get("anyOf", [schema])
        if any(option.get("type") == "string" and "enum" not in option for option in options):
            quoted = all(option.get("format") == QUOTE_FORMAT for option in options if option.get("type") == "string")
            found[f"{name} exact" if quoted else f"{name} same"] = MetricConfig(of="exact" if quoted else "text", field=name)
            found[f"{name} F1"] = MetricConfig(of="token_f1", field=name)
        elif any(option.get("type") == "number" for option in options):
            found[f"{name} right"] = MetricConfig(of="number", field=name)
        else:
            found[f"{name} right"] = MetricConfig(of="accuracy", field=name)
    return found


def _is_probability(card: Card, name: str, schema: Mapping[str, Any]) -> bool:
    """Whether a field tells how sure something is: that of a choice, and an encoder's number beside its label."""
    rule = card.output_form.rules.get(name)
    if rule is not None:
        return rule.probability is not None
    beside = card.kind == "encoder" and len(card.output_schema.get("properties", {})) > 1
    return beside and any(option.get("type") == "number" for option in schema.get("anyOf", [schema]))


def _may_be_record(schema: Mapping[str, Any], named: Mapping[str, Any]) -> bool:
    """Whether an object is among what a schema allows, as it is of one that says no type."""
    if "$ref" in schema:
        schema = named.get(str(schema["$ref"]).rpartition("/")[2], {})
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return any(_may_be_record(option, named) for option in options)
    return schema.get("type") == "object" or not schema.keys() & {"type", "enum", "const"}


def read_evaluation_set(path: Path, part: Split = "test", train: Path | None = None, card: Card | None = None) -> EvaluationSet:
    """What to test on: a part of a data set, or a file of rows with `expected`, or with an `output`; of `card`, a table too, whose columns
    are its fields.

    `train` names rows that floors are made of; a data set brings its own. Raises `InputError` N001 for what cannot be read, N010 to N012
    for a table, N202 where there is no row.
    """
    if os.path.isfile(path / MANIFEST_FILE):
        data = Dataset.load(path)
        questions = [EvaluationRow(row.id, row.input, as_record(row.output), row.group) for row in data.rows[part]]
        shown = [ReferenceRow(row.input, as_record(row.output)) for row in data.rows["train"]]
        name, mark, label = f"{data.manifest.name}, {part} part", data.manifest.splits[part].digest, data.manifest.label
    else:
        lines, mark = _read_lines(path, card)
        questions = [EvaluationRow(line.id, line.input, _expected_record(line, path), _group_name(line.group)) for line in lines]
        shown, name, label = [], path.name, dataset_label_of(path)
    if train is not None:
        shown = [ReferenceRow(line.input, _expected_record(line, train)) for line in _read_lines(train, card)[0]]
    if not questions:
        raise InputError("N202", f"{path} has no row to test on", hint="orchestra learn data")
    return EvaluationSet(name, mark, questions, shown, label)


def read_selected_rows(folder: Path, rows: RowSelection) -> EvaluationSet:
    """The rows that an evaluation file names, under a folder with one folder a set; no sample of them.

    Raises as `read_evaluation_set`, and N201 for a `group` that is no input of a row.
    """
    test = read_evaluation_set(folder / rows.file, train=folder / rows.train if rows.train else None)
    if rows.group:
        test = replace(test, questions=[msgspec.structs.replace(one, group=_group_digest(one, rows)) for one in test.rows])
    if rows.inputs:
        questions = [msgspec.structs.replace(one, input=_rename_inputs(one.input, rows.inputs)) for one in test.rows]
        test = replace(
            test,
            questions=questions,
            shown=[ReferenceRow(_rename_inputs(one.input, rows.inputs), one.output) for one in test.reference_rows],
        )
    kept = [one for one in test.rows if all(matches_any(one.expected.get(key), values) for key, values in rows.where.items())]
    if not kept:
        raise InputError("N202", f"{rows.file} has no row where {dict(rows.where)}", hint="orchestra explain N201")
    return replace(test, name=rows.file, questions=kept)


def _group_digest(row: EvaluationRow, rows: RowSelection) -> str:
    """What a row has in common with others. Raises `InputError` N201 where it has no such input."""
    if rows.group not in row.input:
        raise InputError(
            "N201", f"the row {row.id!r} of {rows.file} has no input {rows.group!r} to group it by", hint="orchestra explain N201"
        )
    return digest(canonical(row.input[rows.group]))


def _rename_inputs(inputs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {name: inputs[key] for name, key in names.items() if key in inputs}


def as_record(output: Any) -> dict[str, Any]:
    """An output by fields; one that has none under the name `output`."""
    return output if isinstance(output, dict) else {WHOLE_OUTPUT: output}


def _expected_record(line: _EvaluationLine, path: Path) -> dict[str, Any]:
    if not isinstance(line.expected, msgspec.UnsetType):
        return line.expected
    if line.output is msgspec.UNSET:
        reason = f"the row {line.id!r} of {path.name} says neither `expected` nor `output`"
        raise InputError("N001", reason, hint='{"id": "1", "input": {...}, "output": {...}}')
    return as_record(line.output)


def _group_name(said: Any) -> str:
    """The name of a group, which may be a number."""
    return said if isinstance(said, str) else "" if said is None else canonical(said).decode()


def _read_lines(path: Path, card: Card | None) -> tuple[list[_EvaluationLine], str]:
    if card is not None and is_table(path):
        rows = read_source(path, card, ColumnMapping({}))
        return [_EvaluationLine(row.id, row.input, output=row.output) for row in rows], digest(path.read_bytes())
    hint = "orchestra learn data makes rows of a table: orchestra explain N001" if is_table(path) else '{"id", "input", "expected"}'
    lines = JsonLinesFormat(_EvaluationLine, "N001", "row", hint)
    data = lines.read_bytes(path)
    return [row for _, row in lines.parse_lines(path, data)], digest(data)
