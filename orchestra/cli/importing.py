"""What `orchestra runs import` does: runs that were exported, put into this journal as they were."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from orchestra.cli.finding import status_of
from orchestra.cli.keeping import FORMAT, chain
from orchestra.cli.opening import settings
from orchestra.cli.screen import note, print_json, say
from orchestra.doors import Journal, Letter
from orchestra.errors import InputError, Place
from orchestra.events import Event, RunFinished, RunStarted, decode
from orchestra.journal.error import JournalError
from orchestra.journal.summary import Line, named
from orchestra.recording import recorder
from orchestra.values.json import digest
from orchestra.values.text import counted

HINT = "export it once more: orchestra runs export RUN -o run.jsonl"


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
    for run in runs_of(files):
        check(run)
    async with recorder(settings()) as journal:
        for run in runs_of(files):
            await _refuse_other(journal, run)
        for run in runs_of(files):
            new = not await journal.read(run.run)
            if new:
                await put(journal, run)
            status = await status_of(journal, run.run)
            if as_json:
                print_json({"run": run.run, "workflow": getattr(run.events[0], "workflow", ""), "status": status, "new": new})
                continue
            say(f"{run.run}  {status}" if new else f"{run.run}  {status}: it is here already")
            if new and status in ("waiting", "interrupted"):
                note("it may go on here: do not resume or answer it where it came from, or what it does is done twice")


def check(run: Exported) -> None:
    """Raises `InputError` C057 for an export that is not whole, C058 for a run that was under way."""
    events, head = run.events, run.head
    try:
        Line(run.run).extend(events)
    except JournalError as error:
        raise _fault(run.place, error.message) from error
    if not events or not isinstance(first := events[0], RunStarted) or first.run != run.run or len(events) != head.get("events"):
        raise _fault(run.place, f"the events of run {run.run!r} are not all there")
    if (stated := head.get("chain")) is not None and stated != chain(run.run, events):
        raise _fault(run.place, f"the events of run {run.run} are not those that were exported")
    if lacking := set(named(events)) - run.blobs.keys() - run.lost:
        raise _fault(run.place, f"{counted(len(lacking), 'blob')} of run {run.run} are not there", "export it without --no-blobs")
    if head.get("status") == "running" and not isinstance(events[-1], RunFinished):
        hint = f"let it end, or stop its process, and export it once more: orchestra runs export {run.run}"
        raise InputError("C058", f"run {run.run} was under way when it was exported, and goes on there", place=run.place, hint=hint)


async def put(journal: Journal, run: Exported) -> None:
    """Puts a run that is not there into a journal. One without an end is let go of: it waits, or is interrupted."""
    for data in run.blobs.values():
        journal.put(data)
    journal.append(run.run, run.events)
    await journal.durable(run.run, len(run.events))
    # Messages were delivered where the run came from, but for those that the export names.
    after, open_ = 0, set(run.head.get("undelivered", ()))
    while messages := await journal.outbox(after):
        await journal.delivered([one.number for one in messages if one.run == run.run and one.node not in open_])
        after = messages[-1].number
    if not isinstance(run.events[-1], RunFinished):
        for letter in run.letters:
            await journal.post(run.run, letter)
        await journal.release(run.run)


async def _refuse_other(journal: Journal, run: Exported) -> None:
    there = await journal.read(run.run)
    if there and there != run.events:
        raise InputError(
            "C058", f"run {run.run} is in this journal, with other events", place=run.place, hint=f"orchestra runs show {run.run}"
        )


def runs_of(files: Iterable[Path]) -> Iterator[Exported]:
    """The runs of some files, one at a time. Raises `InputError` C057."""
    for path in files:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
                yield from _read(str(path), file)
            except OSError as error:
                raise InputError("C057", f"{path} cannot be read: {error.strerror}", hint="name a file of orchestra runs export") from error


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
    return InputError("C057", said, place=place, hint=hint)
