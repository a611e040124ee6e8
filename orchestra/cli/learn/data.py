"""What `orchestra learn data` does: rows of files and of the journal, a teacher's answers, and the data set that they make."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestra.agents.card import Card
from orchestra.app.project import Project
from orchestra.cli.context import Opener, serving
from orchestra.cli.output import note, say
from orchestra.cli.progress import Meter
from orchestra.cli.runs.find import opened_journal
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import counted, shortened, visible
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.collection import Gathered, of_escalations, of_files, of_runs
from orchestra.learn.data.dataset import DataSet, Row, check_ids, check_vacant
from orchestra.learn.data.deduplication import distinct, mark, says_nothing
from orchestra.learn.data.sources import Columns
from orchestra.learn.data.splits import Shares, split
from orchestra.learn.data.teacher import Teacher, taught, teacher_of
from orchestra.learn.data.traces import Wanted, traces
from orchestra.schema.strict_json import canonical

MOST_NAMED = 5
"""Rows that were left out which are named, of each reason."""
CONTRADICTING = "the same with another output"


@dataclass(frozen=True, slots=True)
class Collecting:
    """What a data set is to be made of."""

    agent: str
    files: tuple[Path, ...]
    out: Path
    licence: str
    name: str
    columns: Columns
    shares: Shares
    runs: bool = False
    seconds: float | None = None
    """Of the journal, how far back; None for all of it."""
    workflow: str = ""
    teacher: str = ""
    escalated: str = ""
    """An agent: rows are what its calls in the runs needed of the larger model."""
    without: tuple[Path, ...] = ()
    """Data sets whose test parts are not to be learnt from."""
    replace: bool = False
    """Whether another data set may stand where this one goes."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A data set, and where some of the rows that were left out stand, by reason."""

    data: DataSet
    named: Mapping[str, Sequence[str]]


async def collect(open_: Opener, chosen: Settings, asked: Collecting) -> Collected:
    """Makes a data set. Raises `InputError` before a teacher is asked, and what `teaching.taught` raises; N016 where another data set
    stands."""
    project = Project.load(chosen)
    card = project.registry.card(asked.agent)
    if not asked.licence.strip():
        DataSet.made(asked.name, asked.agent, "", asked.licence, (), {})
    if not (asked.files or asked.runs):
        raise InputError("N015", "what is the data set made of?", hint="name files, or --runs for what the journal has")
    if not asked.runs and (asked.workflow or asked.seconds is not None or asked.escalated):
        raise InputError("N015", "--since, --workflow and --escalated are about runs", hint="--runs")
    teacher = teacher_of(project.registry, chosen, card, asked.teacher) if asked.teacher else None
    gathered = await _of_runs(project, card, asked) if asked.runs else Gathered()
    gathered += of_files(asked.files, card, asked.columns, asked.licence, answered=teacher is None)
    gathered = gathered.without(lambda row: says_nothing(row.input), "with nothing in their inputs")
    for folder in asked.without:
        gathered = _without(gathered, DataSet.load(folder))
    gathered = gathered.asked()
    if teacher is not None and not asked.replace:
        check_vacant(asked.out)
    if teacher is not None and gathered.open:
        check_ids(asked.name, (*distinct(gathered.rows).rows, *(one.row for one in gathered.open)))
        gathered += await _taught(open_, chosen, card, teacher, gathered, asked.licence)
        gathered = replace(gathered, open=())
    gathered = gathered.closed()
    if not gathered.rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in gathered.left_out.items())
        raise InputError("N008", f"no answer of {card.name} is there to learn from: {reasons}", hint="--teacher NAME answers what failed")
    kept = distinct(gathered.rows)
    same = {"the same": kept.same, "the same in another spelling": kept.near, CONTRADICTING: len(kept.contradicting)}
    left = {reason: count + gathered.left_out.pop(reason, 0) for reason, count in same.items()}
    parts = split(kept.rows, asked.shares)
    made = DataSet.made(
        asked.name, asked.agent, contract_digest(card), asked.licence, gathered.origins, parts, {**left, **gathered.left_out}
    )
    if not asked.replace:
        check_vacant(asked.out, made.manifest.digest)
    pairs = [f"{gathered.place(row)} says {_short(row)}, and {gathered.place(first)} {_short(first)}" for first, row in kept.contradicting]
    return Collected(made, {**gathered.named, CONTRADICTING: pairs})


def _short(row: Row) -> str:
    return shortened(canonical(row.output).decode(), 60)


def _without(gathered: Gathered, data: DataSet) -> Gathered:
    """The same without what the test part of a data set asks, and without what belongs together with that."""
    tested = data.rows["test"]
    marks, groups = {mark(row.input) for row in tested}, {row.group for row in tested}
    return gathered.without(lambda row: row.group in groups or mark(row.input) in marks, f"of the test part of {data.manifest.name}")


async def _of_runs(project: Project, card: Card, asked: Collecting) -> Gathered:
    """The rows of the journal. Raises `InputError` N006 to N008, C018 where it is off."""
    wanted = Wanted(time.time() - asked.seconds if asked.seconds is not None else 0.0, asked.workflow)
    async with opened_journal() as journal:
        if journal is None:
            raise InputError("N006", "nothing has been recorded yet", hint=f"begin with: orchestra run {card.name}")
        found = await traces(project, journal, asked.escalated or card.name, wanted)
    for reason, count in found.passed.items():
        note(f"passed over {counted(count, 'run')} {reason}")
    place = project.settings.journal
    named = place.name if isinstance(place, Path) else place
    if asked.escalated:
        return of_escalations(found, asked.escalated, card, asked.columns, named, asked.licence)
    return of_runs(found, card, named, asked.licence, asked.columns.group)


async def _taught(open_: Opener, chosen: Settings, card: Card, teacher: Teacher, gathered: Gathered, licence: str) -> Gathered:
    async with serving(open_, chosen) as orchestra:
        with Meter(len(gathered.open), 0) as meter:
            made = await taught(orchestra, teacher, card, gathered.open, licence, chosen.concurrency, meter.advance)
    count, answered = len(gathered.open), len(made.rows)
    say(f"{teacher.what} was asked {count:,} inputs: {answered:,} accepted, {count - answered:,} ({1 - answered / count:.1%}) not")
    return made


def told(out: Path, made: Collected) -> None:
    """Says what was made, and what was left out."""
    manifest = made.data.manifest
    say(f"{out}: {manifest.name} {manifest.digest}, {manifest.licence}")
    for part, record in manifest.parts.items():
        say(f"  {part:<5}  {record.rows:,} rows in {record.groups:,} groups")
    for origin in manifest.sources:
        if not origin.made.startswith(("columns", "inputs")):
            say(f"  {origin.rows:,} {origin.made}")
    for reason, count in manifest.left_out.items():
        if count:
            say(f"  left out: {count:,} rows, {reason}")
            places = made.named.get(reason, ())
            for place in places[:MOST_NAMED]:
                say(visible(f"    {place}"))
            if len(places) > MOST_NAMED:
                say(f"    and {len(places) - MOST_NAMED:,} more")
