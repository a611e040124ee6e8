"""Collection of rows from files and from the journal, with their sources, and of inputs without an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import get_args

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.inference.linear import predicts_number
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, is_allowed, join
from orchestra.learn.data.dataset import DatasetRow, DatasetSource, fingerprint
from orchestra.learn.data.sources import ColumnMapping, group_of, read_numbered_rows
from orchestra.learn.data.traces import AgentTrace, AnswerSource, CollectedTraces
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Validator

ANSWER_SOURCE_PRIORITY: tuple[AnswerSource, ...] = get_args(AnswerSource)
"""Trust order for conflicting answers to the same inputs, most trusted first."""
FAILED = "without an accepted answer"
ANSWERED_ELSEWHERE = "withheld or failed, and answered elsewhere"


@dataclass(frozen=True, slots=True)
class UnansweredRow:
    """Inputs without an output, and their confidentiality label."""

    row: DatasetRow
    label: Label = "internal"


@dataclass(frozen=True, slots=True)
class CollectedRows:
    """Rows, most trusted first; inputs that a teacher could answer; and what was left out."""

    rows: Sequence[DatasetRow] = ()
    origins: Sequence[DatasetSource] = ()
    unanswered: Sequence[UnansweredRow] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    locations: Mapping[str, str] = field(default_factory=dict)
    """Locations of rows from files by row id: `FILE:LINE`."""
    left_out_locations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Locations or ids of what was left out, by reason."""

    def __add__(self, other: CollectedRows) -> CollectedRows:
        return CollectedRows(
            [*self.rows, *other.rows],
            [*self.origins, *other.origins],
            [*self.unanswered, *other.unanswered],
            self.left_out + other.left_out,
            {**self.locations, **other.locations},
            {**self.left_out_locations, **other.left_out_locations},
        )

    def location_of(self, row: DatasetRow) -> str:
        """Returns the location of a row; its id if it is not from a file."""
        return self.locations.get(row.id, row.id)

    def exclude(self, unwanted: Callable[[DatasetRow], bool], reason: str) -> CollectedRows:
        """Returns a copy without some rows and unanswered inputs, which are counted and located by reason."""
        out = [
            row for row in (*self.rows, *(unanswered_row.row for unanswered_row in self.unanswered)) if unwanted(row)
        ]
        if not out:
            return self
        return replace(
            self,
            rows=[row for row in self.rows if not unwanted(row)],
            unanswered=[unanswered_row for unanswered_row in self.unanswered if not unwanted(unanswered_row.row)],
            left_out=self.left_out + Counter({reason: len(out)}),
            left_out_locations={**self.left_out_locations, reason: [self.location_of(row) for row in out]},
        )

    def drop_answered(self) -> CollectedRows:
        """Returns a copy with each unanswered input once, and without those that a row answers."""
        fingerprints = {fingerprint(row.input) for row in self.rows}
        once: dict[str, UnansweredRow] = {}
        for unanswered_row in self.unanswered:
            once.setdefault(fingerprint(unanswered_row.row.input), unanswered_row)
        still = [unanswered_row for key, unanswered_row in once.items() if key not in fingerprints]
        answered_count = sum(key in fingerprints for key in once)
        return replace(
            self,
            unanswered=still,
            left_out=self.left_out
            + Counter({ANSWERED_ELSEWHERE: answered_count, "the same": len(self.unanswered) - len(once)}),
        )

    def drop_unanswered(self) -> CollectedRows:
        """Returns a copy without unanswered inputs, which are counted."""
        return replace(self, unanswered=(), left_out=self.left_out + Counter({FAILED: len(self.unanswered)}))


def collect_from_files(
    files: Iterable[Path], card: Card, columns: ColumnMapping, licence: str, *, answered: bool
) -> CollectedRows:
    """Collects the rows of files; if a teacher is to answer them, only their inputs.

    Raises:
        InputError: As `read_source`.
    """
    collected_rows, known_ids = CollectedRows(), set[str]()
    for path in files:
        lines = read_numbered_rows(path, card, columns, answered=answered)
        rows = _with_unique_ids([row for _, row in lines], path.stem, known_ids)
        places = {row.id: f"{path}:{number}" for row, (number, _) in zip(rows, lines, strict=True)}
        known_ids |= {row.id for row in rows}
        means = f", values {dict(columns.value_mapping)}" if columns.value_mapping else ""
        description = f"{'' if answered else 'inputs, '}columns {dict(columns.columns)}{means}"
        origin = DatasetSource(path.name, licence, digest(path.read_bytes()), description, len(rows))
        collected_rows += (
            CollectedRows(rows, [origin], locations=places)
            if answered
            else CollectedRows((), [origin], [UnansweredRow(row) for row in rows], locations=places)
        )
    return collected_rows


def _with_unique_ids(rows: Sequence[DatasetRow], stem: str, known_ids: Collection[str]) -> list[DatasetRow]:
    """Makes row ids unique across files: with the file's name as prefix if several files count from 1, and a number if
    the name occurs twice.
    """
    for prefix in chain(("", f"{stem}-"), (f"{stem}-{number}-" for number in count(2))):
        if not any(f"{prefix}{row.id}" in known_ids for row in rows):
            break
    return [msgspec.structs.replace(row, id=f"{prefix}{row.id}") for row in rows]


def collect_from_runs(found: CollectedTraces, card: Card, journal: str, licence: str, group: str) -> CollectedRows:
    """Collects rows from the traces of an agent. Only rows that fit the agent's current types are taken, only from runs
    that it may see, and without computed fields.

    Raises:
        InputError: N008 if there is neither an answer nor an input for a teacher; N011 if the group is not an input.
    """
    inputs, outputs, form = Validator(card.input_schema), Validator(card.output_form.schema), card.output_form
    left_out: Counter[str] = Counter({"after the last event that replay can read": found.unreached_calls})
    rows: list[tuple[AgentTrace, DatasetRow]] = []
    for trace in found.traces:
        output = form.select_written(trace.output)
        if not is_allowed(trace.label, card.label):
            left_out[f"with a stricter label than {card.label}"] += 1
        elif not _inputs_fit(card, inputs, trace) or (trace.answered_by != "nobody" and outputs.check(output)):
            left_out["of other types than the agent has now"] += 1
        else:
            row = DatasetRow(
                f"{trace.run}/{trace.node}", trace.inputs, output, group_of(card, trace.inputs, group, trace.inputs)
            )
            rows.append((trace, row))
    if not rows:
        omission_text = ", ".join(
            f"{count} {reason}" for reason, count in (left_out + found.skipped_runs).items() if count
        )
        raise InputError(
            "N008",
            f"no call of {card.name} in {found.run_count} runs gives a "
            f"row{f': {omission_text}' if omission_text else ''}",
            hint="orchestra explain N008",
        )
    rows.sort(key=lambda pair: ANSWER_SOURCE_PRIORITY.index(pair[0].answered_by))
    origins = [
        _trace_source([trace for trace, _ in rows if trace.answered_by == by], by, journal, licence, found)
        for by in ANSWER_SOURCE_PRIORITY
        if any(trace.answered_by == by for trace, _ in rows)
    ]
    answered_rows = [row for trace, row in rows if trace.answered_by != "nobody"]
    return CollectedRows(
        answered_rows,
        origins,
        [UnansweredRow(row, trace.label) for trace, row in rows if trace.answered_by == "nobody"],
        +left_out,
    )


def collect_from_escalations(
    found: CollectedTraces, agent: str, card: Card, columns: ColumnMapping, journal: str, licence: str
) -> CollectedRows:
    """Collects rows for an agent that estimates how much a call of another agent (`agent`) needs the larger model.

    The target is 1 if the larger model's answer was accepted and the agent's own answer was not. It is 0 if the agent's
    own answer was accepted, or neither. Calls that no check judged, and calls that the agent's own model did not
    answer, are left out and counted.

    Raises:
        InputError: N105 if the output of the card is not one number; N008 if no call gives a row; N011 if the calls
        have no such input, or if the group is not an input.
    """
    if not predicts_number(card):
        raise InputError(
            "N105", f"{card.name} has no number as output, which --escalated needs", hint="output: {need: float}"
        )
    (field,) = card.output_schema["properties"]
    inputs, left_out, rows = Validator(card.input_schema), Counter[str](), []
    column_names = {name: columns.columns.get(name, name) for name in card.input_schema.get("properties", {})}
    _check_columns(found, agent, column_names)
    agent_traces: list[AgentTrace] = []
    for trace in found.traces:
        row_inputs = {name: trace.inputs.get(column) for name, column in column_names.items()}
        if not is_allowed(trace.label, card.label):
            left_out[f"with a stricter label than {card.label}"] += 1
        elif inputs.check(row_inputs):
            left_out["of other types than the agent has now"] += 1
        elif trace.escalated_directly or not (trace.is_accepted or trace.answered_by in ("the larger model", "nobody")):
            left_out["sent to the larger model directly, or not judged by a check"] += 1
        else:
            agent_traces.append(trace)
            need = {field: float(trace.answered_by == "the larger model")}
            rows.append(
                DatasetRow(
                    f"{trace.run}/{trace.node}", row_inputs, need, group_of(card, row_inputs, columns.group, row_inputs)
                )
            )
    if not rows:
        omission_text = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            "N008",
            f"no call of {agent} in {found.run_count} runs gives a row{f': {omission_text}' if omission_text else ''}",
            hint="orchestra explain N008",
        )
    runs = tuple(dict.fromkeys(trace.run for trace in agent_traces))
    description = (
        f"calls of {agent}, {sum(trace.answered_by == 'the larger model' for trace in agent_traces)} "
        f"that needed the larger model; in {len(runs)} runs"
    )
    label = join(trace.label for trace in agent_traces)
    return CollectedRows(
        rows,
        [DatasetSource(journal, licence, digest(canonical(sorted(runs))), description, len(rows), runs, label)],
        (),
        left_out,
    )


def _check_columns(collected_traces: CollectedTraces, agent: str, column_names: Mapping[str, str]) -> None:
    """Checks that at least one call has each input; an input that only some calls have is null in the others.

    Raises:
        InputError: N011 if an input occurs in no call.
    """
    trace_inputs = dict.fromkeys(name for trace in collected_traces.traces for name in trace.inputs)
    for name, column in column_names.items():
        if trace_inputs and column not in trace_inputs:
            hint = f"--column {name}=INPUT; inputs: {', '.join(trace_inputs)}"
            raise InputError("N011", f"calls of {agent} have no input {column!r}", hint=hint)


def _inputs_fit(card: Card, inputs: Validator, trace: AgentTrace) -> bool:
    input_names = card.input_schema.get("properties", {}).keys()
    return trace.inputs.keys() <= input_names and not inputs.check(trace.inputs)


def _trace_source(
    traces: Sequence[AgentTrace], by: AnswerSource, journal: str, licence: str, collected_traces: CollectedTraces
) -> DatasetSource:
    """Returns the source of rows of one kind, with the ids of the runs and the filter that selected them."""
    match by:
        case "itself":
            accepted_count = sum(trace.is_accepted for trace in traces)
            description = (
                f"answers of its own, {accepted_count} accepted by checks and {len(traces) - accepted_count} not "
                "judged by a check"
            )
        case "nobody":
            description = "inputs of calls that were withheld or failed"
        case _:
            description = f"answers of {by} in its place"
    skip_text = ", ".join(f"{count} {reason}" for reason, count in collected_traces.skipped_runs.items())
    runs = tuple(dict.fromkeys(trace.run for trace in traces))
    trace_text = (
        f"{description}; in {len(runs)} of {collected_traces.run_count} runs{f' ({skip_text})' if skip_text else ''}"
    )
    return DatasetSource(
        journal,
        licence,
        digest(canonical(sorted(runs))),
        trace_text,
        len(traces),
        runs,
        join(trace.label for trace in traces),
    )
