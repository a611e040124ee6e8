"""What `orchestra runs import` does: runs that were exported, put into this journal as they were."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from orchestra.app.open_journal import recorder
from orchestra.cli.batch.rows import lasting
from orchestra.cli.context import settings_to_inspect
from orchestra.cli.output import note, print_json, say
from orchestra.cli.runs.batch_marks import Marks
from orchestra.cli.runs.export import FORMAT, chain
from orchestra.cli.runs.find import status_of
from orchestra.cli.signals import between_commits
from orchestra.core.error_codes import HELD
from orchestra.core.errors import InputError, Place
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted, decode
from orchestra.core.protocols import Journal, Letter
from orchestra.core.untrusted_text import counted, visible
from orchestra.journal.errors import JournalError
from orchestra.journal.summary import Line, named, unheld
from orchestra.schema.strict_json import digest

HINT = "export it once more: orchestra runs export RUN -o run.jsonl"
_ID = re.compile(r"(?!last\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of an export; earlier versions wrote less."""

    run: str
    events: int
    status: str = ""
    chain: str | None = None
    undelivered: tuple[str, ...] = ()
    unwritten: bool = False
    """Whether its batch had still to write what it came to."""
    followed: bool = False
    """Whether it was followed by another try."""


@dataclass(slots=True)
class Exported:
    """A run as its export has it."""

    place: Place
    """Where it begins."""
    head: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    """Blobs that the journal of before did not have either."""
    letters: list[Letter] = field(default_factory=list)

    @property
    def run(self) -> str:
        """Its id."""
        return str(self.head.get("run", ""))


async def take(files: Sequence[Path], *, as_json: bool) -> None:
    """Puts exported runs into the journal: all of the files are looked through first, and where one is faulty, none is taken.

    Raises `InputError` C057 for what is no whole export, C058 for a run that is here with other events, or goes on elsewhere.
    """
    with ExitStack() as stack:
        sources = [(str(path), stack.enter_context(lasting(path))) for path in files]
        chains: dict[str, str] = {}
        for run in runs_of(sources):
            check(run)
            if chains.setdefault(run.run, found := chain(run.run, run.events)) != found:
                said = f"run {run.run} is in these files twice, with other events"
                raise InputError("C058", said, place=run.place, hint="name the file that was written last, and not the other")
        await _take(sources, as_json=as_json)


async def _take(sources: Sequence[tuple[str, Path]], *, as_json: bool) -> None:
    with ExitStack() as signals:  # which outlasts the closing: it commits too
        await _put_all(sources, signals, as_json=as_json)


async def _put_all(sources: Sequence[tuple[str, Path]], signals: ExitStack, *, as_json: bool) -> None:
    async with recorder(settings_to_inspect()) as journal:
        signals.enter_context(between_commits(journal))
        for run in runs_of(sources):
            await _refuse_other(journal, run)
        for run in runs_of(sources):
            if new := not await journal.read(run.run):
                await put(journal, run)
            lacked = not new and await complete(journal, run)
            status = await status_of(journal, run.run)
            if as_json:
                print_json({"run": run.run, "workflow": getattr(run.events[0], "workflow", ""), "status": status, "new": new})
                continue
            here = "" if new else ": what was missing of it is here now" if lacked else ": it is here already"
            say(f"{run.run}  {status}{here}")
            if (new or lacked) and status in ("waiting", "interrupted"):
                note("it may go on here: do not resume or answer it where it came from, or what it does is done twice")


def check(run: Exported) -> None:
    """Raises `InputError` C057 for an export that is not whole, C058 for a run that was under way."""
    events = run.events
    try:
        head = msgspec.convert(run.head, _Head)
    except msgspec.ValidationError as error:
        raise _fault(run.place, f"this is no first line of an export: {error}") from error
    if not _ID.fullmatch(run.run):
        raise _fault(run.place, f"{run.run!r} is no id of a run")
    try:
        Line(run.run).extend(events)
    except JournalError as error:
        raise _fault(run.place, error.message) from error
    if not events or not isinstance(first := events[0], RunStarted) or first.run != run.run or len(events) != head.events:
        raise _fault(run.place, f"the events of run {run.run!r} are not all there")
    if head.chain is not None and head.chain != chain(run.run, events):
        raise _fault(run.place, f"the events of run {run.run} are not those that were exported")
    if lacking := set(named(events)) - run.blobs.keys() - run.lost:
        raise _fault(run.place, f"{counted(len(lacking), 'blob')} of run {run.run} are not there", "export it without --no-blobs")
    if head.status == "running" and not isinstance(events[-1], RunFinished):
        hint = f"let it end, or stop its process, and export it once more: orchestra runs export {run.run}"
        raise InputError("C058", f"run {run.run} was under way when it was exported, and goes on there", place=run.place, hint=hint)


async def put(journal: Journal, run: Exported) -> None:
    """Puts a run that is not there into a journal. One without an end is let go of: it waits, or is interrupted."""
    for data in run.blobs.values():
        journal.put(data)
    _mark(journal, run)
    # Messages were delivered where the run came from, but for those that the export names.
    open_ = set(run.head.get("undelivered", ()))
    journal.append(run.run, run.events, {one.node for one in run.events if isinstance(one, AttemptFinished) and one.node not in open_})
    await journal.durable(run.run, len(run.events))
    if not isinstance(run.events[-1], RunFinished):
        await _post(journal, run)
        await journal.release(run.run)


async def complete(journal: Journal, run: Exported) -> bool:
    """Adds what a journal lacks of a run whose events it has, for its import was cut off, and lets go of one without an end; gives whether
    it lacked anything."""
    _mark(journal, run)
    lacked = "undelivered" in run.head and await _deliver(journal, run)
    if isinstance(run.events[-1], RunFinished):
        return lacked
    posted = await _post(journal, run)
    return await _let_go(journal, run) or posted or lacked


async def _let_go(journal: Journal, run: Exported) -> bool:
    """Gives back the lease of an import that is gone, where the run waits for persons alone. Gives whether it did."""
    found = await journal.summary(run.run)
    if found is None or found.status != "interrupted":
        return False
    if unheld(found, run.events, len(await journal.letters(run.run))).status != "waiting":
        return False
    try:
        await journal.lease(run.run)
    except JournalError as error:
        if error.code != HELD:
            raise
        return False  # somebody goes on with it
    await journal.release(run.run)
    return True


def _mark(journal: Journal, run: Exported) -> None:
    told = run.head.get
    Marks(journal).bring(run.run, unwritten=told("unwritten") is True, followed=told("followed") is True)


async def _deliver(journal: Journal, run: Exported) -> bool:
    """Marks the messages that were delivered where the run came from. Gives whether any were open."""
    after, open_, found = 0, set(run.head.get("undelivered", ())), False
    while messages := await journal.outbox(after):
        if numbers := [one.number for one in messages if one.run == run.run and one.node not in open_]:
            await journal.delivered(numbers)
            found = True
        after = messages[-1].number
    return found


async def _post(journal: Journal, run: Exported) -> bool:
    """Posts the letters that come behind those that are there; none where others are there. Gives whether there were any."""
    here, letters = ([msgspec.structs.replace(one, number=0) for one in some] for some in (await journal.letters(run.run), run.letters))
    missing = letters[len(here) :] if letters[: len(here)] == here else []
    for letter in missing:
        await journal.post(run.run, letter)
    return bool(missing)


async def _refuse_other(journal: Journal, run: Exported) -> None:
    there = await journal.read(run.run)
    if there and there != run.events:
        raise InputError(
            "C058", f"run {run.run} is in this journal, with other events", place=run.place, hint=f"orchestra runs show {run.run}"
        )


def runs_of(files: Iterable[tuple[str, Path]]) -> Iterator[Exported]:
    """The runs of some files, which are named, one at a time. Raises `InputError` C057."""
    for name, path in files:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
                yield from _read(name, file)
            except OSError as error:
                raise InputError("C057", f"{name} cannot be read: {error.strerror}", hint="name a file of orchestra runs export") from error


def _read(name: str, file: BinaryIO) -> Iterator[Exported]:
    run: Exported | None = None
    for number, text in enumerate(file, 1):
        place = Place(name, number)
        try:
            line = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            match line:
                case {"schema": schema}:
                    if run is not None:
                        yield run
                    run = Exported(place, msgspec.json.decode(text))
                    if msgspec.json.decode(schema) != FORMAT:
                        raise _fault(place, f"this is no {FORMAT}")
                case {"event": event} if run is not None:
                    run.events.append(decode(event))
                case {"letter": letter} if run is not None:
                    run.letters.append(msgspec.json.decode(letter, type=Letter))
                case {"blob": blob, "base64": data} if run is not None:
                    _keep(run, place, msgspec.json.decode(blob, type=str), msgspec.json.decode(data, type=str | None))
                case _:
                    raise _fault(place, "this is no line of an export")
        except msgspec.ValidationError as error:
            said = f"it is of a kind that this version does not know: {error}"
            raise _fault(place, said, "a newer Orchestra may have written it: pip install --upgrade orchestra-slm") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _fault(place, f"this is no line of an export: {error}") from error
    if run is None:
        raise _fault(Place(name, 1), "there is no run in it")
    yield run


def _keep(run: Exported, place: Place, name: str, text: str | None) -> None:
    if text is None:
        run.lost.add(name)
        return
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _fault(place, f"blob {name} is no base64") from error
    if digest(data) != name:
        raise _fault(place, f"blob {name} is not what was exported")
    run.blobs[name] = data


def _fault(place: Place, said: str, hint: str = HINT) -> InputError:
    return InputError("C057", visible(said), place=place, hint=hint)
