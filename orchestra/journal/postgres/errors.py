"""Errors of the Postgres journal: which ones are transient, and the codes of the others."""

from __future__ import annotations

import asyncpg

from orchestra.journal.errors import JournalError

POSTGRES_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""All exceptions that a statement may raise."""

_TRANSIENT_ERRORS = (
    OSError,  # refused, reset, timed out
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InternalClientError,
)
_SQLSTATE_CODES: dict[str, tuple[str, str, str]] = {
    "53100": (
        "J010",
        "the database's disk is full",
        "free some space on the database server (df -h), then run again",
    ),
    "42501": (
        "J011",
        "the role may not write the journal",
        "grant it: GRANT USAGE ON SCHEMA … TO …; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA … TO …",
    ),
    "25006": ("J011", "the database is read-only", "name the primary server in `journal:`, not a standby"),
    "XX001": (
        "J013",
        "the database is damaged",
        "restore it from a backup; other runs may be intact: `orchestra runs list`",
    ),
    "XX002": ("J013", "an index of the database is damaged", "check the server's log, then REINDEX SCHEMA"),
    "58030": ("J014", "the database's disk failed", "check the server's log, then run again on a healthy disk"),
}


def is_transient(error: Exception) -> bool:
    """Returns whether a retry over a new connection may succeed: the connection was lost, or two transactions
    conflicted.
    """
    # A plain InterfaceError means that the connection is closed; its subclasses mean that the statement was wrong.
    return isinstance(error, _TRANSIENT_ERRORS) or type(error) is asyncpg.InterfaceError


def from_postgres(error: Exception, where: str) -> JournalError:
    """Converts an error of a statement to a coded error with a hint."""
    if is_transient(error):
        return JournalError(
            "J032",
            f"the connection to the journal's database was lost and could not be restored: {where}",
            why=str(error) or type(error).__name__,
            hint="check the server, then resume the runs from what is on disk: orchestra runs resume",
        )
    state = getattr(error, "sqlstate", None) or ""
    code, message, hint = _SQLSTATE_CODES.get(
        state, ("J033", "the journal's database failed", "check the server's log, then run again")
    )
    return JournalError(code, f"{message}: {where}", why=f"{error} ({state or type(error).__name__})", hint=hint)


def unreachable_error(error: Exception, where: str) -> JournalError:
    """Returns the error of a database that cannot be opened."""
    return JournalError(
        "J030",
        f"the journal's database cannot be reached: {where}",
        why=str(error) or type(error).__name__,
        hint="try the same address with `psql`; it looks like postgresql://USER:PASSWORD@HOST:5432/DATABASE",
    )


def pooler_error(where: str) -> JournalError:
    """Returns the error of a pooler in transaction mode, which shares sessions: leases and deletions could not detect
    live journals.
    """
    return JournalError(
        "J034",
        f"the journal's database is reached through a pooler in transaction mode: {where}",
        hint="set pool_mode = session for this database, or use the server's own address in `journal:`",
    )


def presence_lost_error(where: str, why: str) -> JournalError:
    """Returns the error of a journal whose presence was lost for good. Others may take over its runs, so it writes no
    more.
    """
    return JournalError(
        "J031",
        f"the connection that keeps this journal's leases was lost and could not be restored: {where}",
        why=why,
        hint="check the server, then resume the runs: orchestra runs resume",
    )


def not_leased_error(run: str) -> JournalError:
    """Returns the error of appending to a run that this journal neither started nor took over."""
    return JournalError(
        "J005",
        f"this journal does not hold the lease of run {run}, so it may not append to it",
        hint=f"take it over first (`lease`), or see who writes it: orchestra runs show {run}",
    )


def no_create_error(schema: str, database: str, role: str, where: str) -> JournalError:
    """Returns the error of a missing schema that the role may not create."""
    return JournalError(
        "J011",
        f"the role may not create the journal's schema {schema!r}: {where}",
        why=f"schema {schema!r} does not exist, and role {role!r} has no CREATE on database {database!r}",
        hint=f'as the owner of the database: GRANT CREATE ON DATABASE "{database}" TO "{role}"; '
        f'or create it for the role: CREATE SCHEMA "{schema}" AUTHORIZATION "{role}"',
    )


def foreign_schema_error(schema: str, where: str) -> JournalError:
    """Returns the error of a schema with other content."""
    return JournalError(
        "J018",
        f"the schema {schema!r} has tables that are not a journal: {where}",
        hint="name another schema, or none: a journal creates its own",
    )


def schema_version_error(found: int, known: int, where: str) -> JournalError:
    """Returns the error of tables with an older or newer version."""
    older = "name another schema or database, or read this one with the version of Orchestra that wrote it"
    newer = "pip install --upgrade orchestra-slm, or name another schema or database"
    return JournalError(
        "J020",
        f"the journal has schema version {found}, this Orchestra reads version {known}: {where}",
        hint=older if found < known else newer,
    )
