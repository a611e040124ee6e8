"""Opens the configured journal: a file, a Postgres database, or memory if it is off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from orchestra.core.errors import InputError
from orchestra.core.event_logging import create_fault_logger
from orchestra.core.protocols import Journal
from orchestra.core.settings import Settings

MEMORY_JOURNAL_RUNS = 64
"""Finished runs that are kept in memory if the journal is off."""
CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a database when only its presence is checked."""
SECRET_PREFIXES = ("env:", "file:")


@asynccontextmanager
async def open_journal(settings: Settings) -> AsyncIterator[Journal]:
    """Opens the journal.

    Raises:
        JournalError: It cannot be opened.
        InputError: C040: asyncpg is not installed; C060: the journal is outside of an untrusted project.
    """
    settings.require_trust("journal")
    journal_setting, fault_logger = settings.journal, create_fault_logger(settings.log, form=settings.log_as)
    if journal_setting == "off":
        from orchestra.journal.memory import MemoryJournal

        yield MemoryJournal(max_ended_runs=MEMORY_JOURNAL_RUNS)
    elif isinstance(journal_setting, Path):
        from orchestra.journal.sqlite.journal import SqliteJournal

        async with SqliteJournal.open(journal_setting, durability=settings.durability, alarm=fault_logger) as journal:
            yield journal
    else:
        address = database_address(journal_setting)
        from orchestra.journal.postgres.journal import PostgresJournal

        async with PostgresJournal.open(address, durability=settings.durability, alarm=fault_logger) as database:
            yield database


async def probe_database(journal_setting: str) -> str:
    """Returns the address of a journal's database once it accepts a connection; creates and writes nothing there.

    Raises:
        JournalError: J030: it accepts none.
        FleetError: F105: its address is missing.
        InputError: C040: asyncpg is not installed.
    """
    address = database_address(journal_setting)
    import asyncpg

    from orchestra.journal.postgres import connections, errors

    redacted_address = connections.redact_dsn(address)
    try:
        connection = await asyncpg.connect(connections.split_dsn(address)[0], timeout=CONNECT_TIMEOUT)
        await connection.close(timeout=CONNECT_TIMEOUT)
    except (*errors.POSTGRES_ERRORS, ValueError) as error:
        raise errors.unreachable_error(error, redacted_address) from error
    return redacted_address


def database_address(address: str) -> str:
    """Returns the address of a journal's database, with its secrets. Raises `FleetError` F105, and `InputError` C040
    without asyncpg.
    """
    if find_spec("asyncpg") is None:
        raise InputError("C040", "a journal in Postgres needs asyncpg", hint="pip install 'orchestra-slm[postgres]'")
    from orchestra.fleet.secrets import read_secret

    return read_secret(address) if address.startswith(SECRET_PREFIXES) else address


def journal_exists(settings: Settings) -> bool:
    """Whether there may be runs: a missing journal file has none.

    Raises:
        InputError: C018: the journal is off; C051: its configured folder is missing; C060: it is outside of an
        untrusted project.
    """
    settings.require_trust("journal")
    address = settings.journal
    if address == "off":
        raise InputError(
            "C018", "the journal is off, so no runs are recorded", hint="orchestra config show says what turned it off"
        )
    if (missing_path := missing_folder(settings)) is not None:
        hint = f"mount its disk; or say where the journal is: orchestra config show. A new one: mkdir -p {missing_path}"
        raise InputError(
            "C051",
            f"the journal's folder is not there: {missing_path}",
            why=f"set by {settings.sources['journal']}",
            hint=hint,
        )
    # A marker without the file: the file is lost, which opening it reports.
    return not isinstance(address, Path) or address.exists() or address.with_name(address.name + "-mark").exists()


def missing_folder(settings: Settings) -> Path | None:
    """Returns the configured folder of a journal if it is missing: its disk may not be mounted. A folder inside the
    project is created by the first run.
    """
    journal_setting, project = settings.journal, settings.project
    if (
        not isinstance(journal_setting, Path)
        or settings.sources.get("journal", "default") == "default"
        or journal_setting.parent.is_dir()
    ):
        return None
    return None if project is not None and journal_setting.is_relative_to(project) else journal_setting.parent
