"""The journal of the settings, opened: a file, a Postgres database, or memory where it is off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from orchestra.config import Settings
from orchestra.doors import Journal
from orchestra.errors import InputError

KEPT = 64
"""Runs that have ended and are remembered where the journal is off."""
REFERENCES = ("env:", "file:")


@asynccontextmanager
async def recorder(settings: Settings) -> AsyncIterator[Journal]:
    """The open journal. Raises `JournalError` where it cannot be opened, `InputError` C040 where asyncpg is not installed."""
    place = settings.journal
    if place == "off":
        from orchestra.journal.memory import MemoryJournal

        yield MemoryJournal(keep=KEPT)
    elif isinstance(place, Path):
        from orchestra.journal.sqlite import SqliteJournal

        async with SqliteJournal.open(place, durability=settings.durability) as journal:
            yield journal
    else:
        if find_spec("asyncpg") is None:
            raise InputError("C040", "a journal in Postgres needs asyncpg", hint="pip install 'orchestra-slm[postgres]'")
        from orchestra.fleet.secrets import secret
        from orchestra.journal.postgres import PostgresJournal

        address = secret(place) if place.startswith(REFERENCES) else place
        async with PostgresJournal.open(address, durability=settings.durability) as database:
            yield database


def recorded(settings: Settings) -> bool:
    """Whether there may be runs to look at: a journal's file that is not there holds none. Raises `InputError` C018 where it is off."""
    place = settings.journal
    if place == "off":
        raise InputError("C018", "the journal is off, so no runs are recorded", hint="orchestra config show says what turned it off")
    return not isinstance(place, Path) or place.exists()
