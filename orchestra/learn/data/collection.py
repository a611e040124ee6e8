"""Gathering: rows of files and of the journal, with where they come from, and the inputs that nobody answered yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import get_args

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.inference.linear import gives_number
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, join, may_go
from orchestra.learn.data.dataset import Origin, Row
from orchestra.learn.data.deduplication import mark
from orchestra.learn.data.sources import Columns, group_of, numbered
from orchestra.learn.data.traces import By, Trace, Traces
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Validator

SURE: tuple[By, ...] = get_args(By)
"""Who is believed where two answers to the same inputs differ, the surest first."""
FAILED = "nobody's answer was accepted"
ELSEWHERE = "withheld or failed, and answered elsewhere"


@dataclass(frozen=True, slots=True)
class Open:
    """Inputs without an output, and where they may go."""

    row: Row
    label: Label = "internal"


@dataclass(frozen=True, slots=True)
class Gathered:
    """Rows, the surest first; what a teacher could still answer; and what was left out."""

    rows: Sequence[Row] = ()
    origins: Sequence[Origin] = ()
    open: Sequence[Open] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    places: Mapping[str, str] = field(default_factory=dict)
    """Where rows of files stand, by their ids: `FILE:LINE`."""
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The places of what was left out, or the ids, by reason."""

    def __add__(self, other: Gathered) -> Gathered:
        return Gathered(
            [*self.rows, *other.rows],
            [*self.origins, *other.origins],
            [*self.open, *other.open],
            self.left_out + other.left_out,
            {**self.places, **other.places},
            {**self.named, **other.named},
        )

    def place(self, row: Row) -> str:
        """Where a row stands; its id where it is of no file."""
        return self.places.get(row.id, row.id)

    def without(self, unwanted: Callable[[Row], bool], reason: str) -> Gathered:
        """The same without some rows and open inputs, which are counted and named."""
        out = [row for row in (*self.rows, *(one.row for one in self.open)) if unwanted(row)]
        if not out:
            return self
        return replace(
            self,
            rows=[row for row in self.rows if not unwanted(row)],
            open=[one for one in self.open if not unwanted(one.row)],
            left_out=self.left_out + Counter({reason: len(out)}),
            named={**self.named, reason: [self.place(row) for row in out]},
        )

    def asked(self) -> Gathered:
        """The same, with each of the open inputs once, and without those that a row answers."""
        known = {mark(row.input) for row in self.rows}
        once: dict[str, Open] = {}
        for one in self.open:
            once.setdefault(mark(one.row.input), one)
        still = [one for key, one in once.items() if key not in known]
        answered = sum(key in known for key in once)
        return replace(self, open=still, left_out=self.left_out + Counter({ELSEWHERE: answered, "the same": len(self.open) - len(once)}))

    def closed(self) -> Gathered:
        """The same without what is open, which is counted."""
        return replace(self, open=(), left_out=self.left_out + Counter({FAILED: len(self.open)}))


def of_files(files: Iterable[Path], card: Card, columns: Columns, licence: str, *, answered: bool) -> Gathered:
    """The rows of files; where a teacher is to answer them, their inputs alone. Raises what `sources.read` raises."""
    gathered, known = Gathered(), set[str]()
    for path in files:
        lines = numbered(path, card, columns, answered=answered)
        rows = _apart([row for _, row in lines], path.stem, known)
        places = {row.id: f"{path}:{number}" for row, (number, _) in zip(rows, lines, strict=True)}
        known |= {row.id for row in rows}
        means = f", values {dict(columns.means)}" if columns.means else ""
        made = f"{'' if answered else 'inputs, '}columns {dict(columns.named)}{means}"
        origin = Origin(path.name, licence, digest(path.read_bytes()), made, len(rows))
        gathered += (
            Gathered(rows, [origin], places=places) if answered else Gathered((), [origin], [Open(row) for row in rows], places=places)
        )
    return gathered


def _apart(rows: Sequence[Row], stem: str, known: Collection[str]) -> list[Row]:
    """Rows by ids that no other file has: where files each count from 1, with the file's name before them, and a number where another file
    of that name was there."""
    for prefix in chain(("", f"{stem}-"), (f"{stem}-{number}-" for number in count(2))):
        if not any(f"{prefix}{row.id}" in known for row in rows):
            break
    return [msgspec.structs.replace(row, id=f"{prefix}{row.id}") for row in rows]


def of_runs(found: Traces, card: Card, journal: str, licence: str, group: str) -> Gathered:
    """The rows of an agent's traces: those alone that fit its types as they are now, of runs that it may see; without computed fields.

    Raises `InputError` N008 where there is neither an answer nor an input that a teacher could be asked about, N011 for a group by
    what is no input.
    """
    inputs, outputs, form = Validator(card.input_schema), Validator(card.form.schema), card.form
    left_out: Counter[str] = Counter({"after a point that today's engine does not follow": found.lost})
    rows: list[tuple[Trace, Row]] = []
    for trace in found.found:
        output = form.left(trace.output)
        if not may_go(trace.label, card.label):
            left_out[f"labelled stricter than {card.label}"] += 1
        elif not _fits(card, inputs, trace) or (trace.by != "nobody" and outputs.check(output)):
            left_out["of other types than the agent has now"] += 1
        else:
            row = Row(f"{trace.run}/{trace.node}", trace.inputs, output, group_of(card, trace.inputs, group, trace.inputs))
            rows.append((trace, row))
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in (left_out + found.passed).items() if count)
        raise InputError(
            "N008", f"no call of {card.name} in {found.runs} runs gives a row{f': {why}' if why else ''}", hint="orchestra explain N008"
        )
    rows.sort(key=lambda pair: SURE.index(pair[0].by))
    origins = [
        _origin([trace for trace, _ in rows if trace.by == by], by, journal, licence, found)
        for by in SURE
        if any(trace.by == by for trace, _ in rows)
    ]
    taken = [row for trace, row in rows if trace.by != "nobody"]
    return Gathered(taken, origins, [Open(row, trace.label) for trace, row in rows if trace.by == "nobody"], +left_out)


def of_escalations(found: Traces, agent: str, card: Card, columns: Columns, journal: str, licence: str) -> Gathered:
    """Rows for an agent that tells how much a call of another one (`agent`) needs the larger model: 1 where that was accepted and the
    agent's own answer was not, 0 where its own was accepted, or neither. What nothing judged, or was never asked of its own model, is
    left out and counted.

    Raises `InputError` N105 where the card's output is no one number, N008 where no call gives a row, N011 for an input that calls of
    that agent do not have, and for a group by what is no input.
    """
    if not gives_number(card):
        raise InputError("N105", f"{card.name} gives no number, which --escalated learns", hint="output: {need: float}")
    (field,) = card.output_schema["properties"]
    inputs, left_out, rows = Validator(card.input_schema), Counter[str](), []
    named = {name: columns.named.get(name, name) for name in card.input_schema.get("properties", {})}
    _known(found, agent, named)
    used: list[Trace] = []
    for trace in found.found:
        given = {name: trace.inputs.get(column) for name, column in named.items()}
        if not may_go(trace.label, card.label):
            left_out[f"labelled stricter than {card.label}"] += 1
        elif inputs.check(given):
            left_out["of other types than the agent has now"] += 1
        elif trace.at_once or not (trace.judged or trace.by in ("the larger model", "nobody")):
            left_out["asked of the larger model at once, or judged by nothing"] += 1
        else:
            used.append(trace)
            need = {field: float(trace.by == "the larger model")}
            rows.append(Row(f"{trace.run}/{trace.node}", given, need, group_of(card, given, columns.group, given)))
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            "N008", f"no call of {agent} in {found.runs} runs gives a row{f': {why}' if why else ''}", hint="orchestra explain N008"
        )
    runs = tuple(dict.fromkeys(trace.run for trace in used))
    made = f"calls of {agent}, {sum(trace.by == 'the larger model' for trace in used)} that needed the larger model; in {len(runs)} runs"
    label = join(trace.label for trace in used)
    return Gathered(rows, [Origin(journal, licence, digest(canonical(sorted(runs))), made, len(rows), runs, label)], (), left_out)


def _known(found: Traces, agent: str, named: Mapping[str, str]) -> None:
    """Raises `InputError` N011 for an input that none of the calls has; one that some leave out is null in these."""
    known = dict.fromkeys(name for trace in found.found for name in trace.inputs)
    for name, column in named.items():
        if known and column not in known:
            hint = f"--column {name}=INPUT; inputs: {', '.join(known)}"
            raise InputError("N011", f"calls of {agent} have no input {column!r}", hint=hint)


def _fits(card: Card, inputs: Validator, trace: Trace) -> bool:
    known = card.input_schema.get("properties", {}).keys()
    return trace.inputs.keys() <= known and not inputs.check(trace.inputs)


def _origin(traces: Sequence[Trace], by: By, journal: str, licence: str, found: Traces) -> Origin:
    """Where the rows of one kind come from; the runs' ids, and what was read to find them."""
    match by:
        case "itself":
            judged = sum(trace.judged for trace in traces)
            said = f"answers of its own, {judged} accepted by checks and {len(traces) - judged} that nothing judged"
        case "nobody":
            said = "inputs of calls that were withheld or failed"
        case _:
            said = f"answers of {by} in its place"
    passed = ", ".join(f"{count} {reason}" for reason, count in found.passed.items())
    runs = tuple(dict.fromkeys(trace.run for trace in traces))
    made = f"{said}; in {len(runs)} of {found.runs} runs{f' ({passed})' if passed else ''}"
    return Origin(journal, licence, digest(canonical(sorted(runs))), made, len(traces), runs, join(trace.label for trace in traces))
