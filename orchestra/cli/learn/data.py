"""`orchestra learn data`: builds a dataset from rows of files, of the journal and of a teacher."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestra.agents.card import Card
from orchestra.app.project import Project
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.output import ProgressMeter, print_note, print_text
from orchestra.cli.runs.find import open_existing_journal
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.collection import (
    CollectedRows,
    collect_from_escalations,
    collect_from_files,
    collect_from_runs,
)
from orchestra.learn.data.dataset import (
    Dataset,
    DatasetRow,
    SplitShares,
    check_overwrite,
    check_unique_ids,
    deduplicate,
    fingerprint,
    is_empty,
    split,
)
from orchestra.learn.data.sources import ColumnMapping
from orchestra.learn.data.teacher import Teacher, ask_teacher, find_teacher
from orchestra.learn.data.traces import TraceFilter, collect_traces
from orchestra.schema.strict_json import canonical

MAX_LISTED = 5
"""The maximum number of named omitted rows for each reason."""
CONTRADICTION_REASON = "equal inputs with another output"


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """How a dataset is built."""

    agent: str
    files: tuple[Path, ...]
    out: Path
    licence: str
    name: str
    columns: ColumnMapping
    shares: SplitShares
    runs: bool = False
    max_age: float | None = None
    """The maximum age of runs in seconds; None for any."""
    workflow: str = ""
    teacher: str = ""
    escalated: str = ""
    """An agent: rows are its calls, with whether they needed the larger model."""
    excluded_sets: tuple[Path, ...] = ()
    """Datasets whose test rows are excluded."""
    replace: bool = False
    """Replaces a different dataset in the folder."""


@dataclass(frozen=True, slots=True)
class BuiltDataset:
    """A dataset, and some omitted rows by reason."""

    data: Dataset
    left_out_places: Mapping[str, Sequence[str]]


async def build_dataset(open_: Opener, settings: Settings, spec: DatasetSpec) -> BuiltDataset:
    """Builds a dataset. Raises `InputError` before a teacher is called, the errors of `ask_teacher`, and N016 for
    another dataset in the folder.
    """
    project = Project.load(settings)
    card = project.registry.card(spec.agent)
    if not spec.licence.strip():
        Dataset.build(spec.name, spec.agent, "", spec.licence, (), {})
    if not (spec.files or spec.runs):
        raise InputError("N015", "no source of rows is given", hint="pass files, or --runs for rows of the journal")
    if not spec.runs and (spec.workflow or spec.max_age is not None or spec.escalated):
        raise InputError("N015", "--since, --workflow and --escalated require --runs", hint="--runs")
    teacher = find_teacher(project.registry, settings, card, spec.teacher) if spec.teacher else None
    pool = await _rows_of_runs(project, card, spec) if spec.runs else CollectedRows()
    pool += collect_from_files(spec.files, card, spec.columns, spec.licence, answered=teacher is None)
    pool = pool.exclude(lambda row: is_empty(row.input), "with empty inputs")
    for folder in spec.excluded_sets:
        pool = _exclude_test_rows(pool, Dataset.load(folder))
    pool = pool.drop_answered()
    if teacher is not None and not spec.replace:
        check_overwrite(spec.out)
    if teacher is not None and pool.unanswered:
        check_unique_ids(
            spec.name, (*deduplicate(pool.rows).rows, *(unanswered_row.row for unanswered_row in pool.unanswered))
        )
        pool += await _ask_teacher(open_, settings, card, teacher, pool, spec.licence)
        pool = replace(pool, unanswered=())
    pool = pool.drop_unanswered()
    if not pool.rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in pool.left_out.items())
        raise InputError(
            "N008",
            f"no answer of {card.name} can be used: {reasons}",
            hint="--teacher NAME labels failed calls",
        )
    unique = deduplicate(pool.rows)
    duplicate_counts = {
        "the same": unique.exact_duplicates,
        "the same in another spelling": unique.near_duplicates,
        CONTRADICTION_REASON: len(unique.contradictions),
    }
    counts = {reason: count + pool.left_out.pop(reason, 0) for reason, count in duplicate_counts.items()}
    parts = split(unique.rows, spec.shares)
    dataset = Dataset.build(
        spec.name,
        spec.agent,
        contract_digest(card),
        spec.licence,
        pool.origins,
        parts,
        {**counts, **pool.left_out},
    )
    if not spec.replace:
        check_overwrite(spec.out, dataset.manifest.digest)
    pairs = [
        (f"{pool.location_of(row)} says {_short_output(row)}, and {pool.location_of(first)} {_short_output(first)}")
        for first, row in unique.contradictions
    ]
    return BuiltDataset(dataset, {**pool.left_out_locations, CONTRADICTION_REASON: pairs})


def _short_output(row: DatasetRow) -> str:
    return shorten(canonical(row.output).decode(), 60)


def _exclude_test_rows(pool: CollectedRows, data: Dataset) -> CollectedRows:
    """Removes rows of the test split of a dataset, and their groups."""
    test_inputs = data.rows["test"]
    marks, groups = {fingerprint(row.input) for row in test_inputs}, {row.group for row in test_inputs}
    return pool.exclude(
        lambda row: row.group in groups or fingerprint(row.input) in marks, f"of the test part of {data.manifest.name}"
    )


async def _rows_of_runs(project: Project, card: Card, spec: DatasetSpec) -> CollectedRows:
    """The rows of the journal. Raises `InputError` N006 to N008, C018 if the journal is off."""
    selection = TraceFilter(time.time() - spec.max_age if spec.max_age is not None else 0.0, spec.workflow)
    async with open_existing_journal() as journal:
        if journal is None:
            raise InputError("N006", "nothing is recorded yet", hint=f"start one with: orchestra run {card.name}")
        traces = await collect_traces(project, journal, spec.escalated or card.name, selection)
    for reason, count in traces.skipped_runs.items():
        print_note(f"skipped {pluralize(count, 'run')} {reason}")
    place = project.settings.journal
    name = place.name if isinstance(place, Path) else place
    if spec.escalated:
        return collect_from_escalations(traces, spec.escalated, card, spec.columns, name, spec.licence)
    return collect_from_runs(traces, card, name, spec.licence, spec.columns.group)


async def _ask_teacher(
    open_: Opener, settings: Settings, card: Card, teacher: Teacher, pool: CollectedRows, licence: str
) -> CollectedRows:
    async with open_orchestra(open_, settings) as orchestra:
        with ProgressMeter(len(pool.unanswered), 0) as meter:
            answered_rows = await ask_teacher(
                orchestra, teacher, card, pool.unanswered, licence, settings.concurrency, meter.advance
            )
    count, answer_count = len(pool.unanswered), len(answered_rows.rows)
    print_text(
        f"{teacher.description} was called for {count:,} inputs: {answer_count:,} accepted, "
        f"{count - answer_count:,} ({1 - answer_count / count:.1%}) not"
    )
    return answered_rows


def report_dataset(out: Path, dataset: BuiltDataset) -> None:
    """Prints what was built and what was omitted."""
    manifest = dataset.data.manifest
    print_text(f"{out}: {manifest.name} {manifest.digest}, {manifest.licence}")
    for part, record in manifest.splits.items():
        print_text(f"  {part:<5}  {record.rows:,} rows in {record.groups:,} groups")
    for origin in manifest.sources:
        if not origin.description.startswith(("columns", "inputs")):
            print_text(f"  {origin.rows:,} {origin.description}")
    for reason, count in manifest.left_out.items():
        if count:
            print_text(f"  left out: {count:,} rows, {reason}")
            places = dataset.left_out_places.get(reason, ())
            for place in places[:MAX_LISTED]:
                print_text(escape_invisible(f"    {place}"))
            if len(places) > MAX_LISTED:
                print_text(f"    and {len(places) - MAX_LISTED:,} more")
