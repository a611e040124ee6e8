"""What goes wrong with a journal in Postgres: which errors pass by themselves, and the codes of the others."""

from __future__ import annotations

import asyncpg

from orchestra.journal.errors import JournalError

POSTGRES_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""Everything that a question to Postgres may raise."""

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
        "free some space on the database's machine (df -h), then run again",
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
        "restore it from a copy; other runs may be whole: `orchestra runs list`",
    ),
    "XX002": ("J013", "an index of the database is damaged", "REINDEX SCHEMA, after a look into the server's log"),
    "58030": ("J014", "the database's disk failed", "look into the server's log, then run again on a healthy disk"),
}


def is_transient(error: Exception) -> bool:
    """Whether another try, over a new connection, may go well: the connection is gone, or two transactions were in each other's way."""
    # A plain InterfaceError says that the connection is closed; its subclasses say that the question was wrong.
    return isinstance(error, _TRANSIENT_ERRORS) or type(error) is asyncpg.InterfaceError


def from_postgres(error: Exception, where: str) -> JournalError:
    """A question's error, with a code and what to type."""
    if is_transient(error):
        return JournalError(
            "J032",
            f"the connection to the journal's database was lost and did not come back: {where}",
            why=str(error) or type(error).__name__,
            hint="look after the server, then go on from what is on disk: orchestra runs resume",
        )
    state = getattr(error, "sqlstate", None) or ""
    code, message, hint = _SQLSTATE_CODES.get(
        state, ("J033", "the journal's database failed", "look into the server's log, then run again")
    )
    return JournalError(code, f"{message}: {where}", why=f"{error} ({state or type(error).__name__})", hint=hint)


def unreachable_error(error: Exception, where: str) -> JournalError:
    """The error of a database that cannot be opened at all."""
    return JournalError(
        "J030",
        f"the journal's database cannot be reached: {where}",
        why=str(error) or type(error).__name__,
        hint="try the same address with `psql`; it looks like postgresql://USER:PASSWORD@HOST:5432/DATABASE",
    )


def pooler_error(where: str) -> JournalError:
    """The error of a pooler that lends a session to others between two transactions: leases and deletions could not tell who is alive."""
    return JournalError(
        "J034",
        f"the journal's database is reached through a pooler in transaction mode: {where}",
        hint="pool_mode = session for this database, or the server's own address in `journal:`",
    )


def presence_lost_error(where: str, why: str) -> JournalError:
    """The error of a journal whose presence broke, and did not come back: others may take its runs over, so it writes no more."""
    return JournalError(
        "J031",
        f"the connection that shows others that this journal is alive was lost and did not come back: {where}",
        why=why,
        hint="look after the server, then go on with the runs: orchestra runs resume",
    )


def not_leased_error(run: str) -> JournalError:
    """The error of appending to a run that this journal neither began nor took over."""
    return JournalError(
        "J005",
        f"this journal does not hold the lease of run {run}, so it may not append to it",
        hint=f"take it over first (`lease`), or see who writes it: orchestra runs show {run}",
    )


def no_create_error(schema: str, database: str, role: str, where: str) -> JournalError:
    """The error of a schema that is not there, and that the role may not make."""
    return JournalError(
        "J011",
        f"the role may not make the journal's schema {schema!r}: {where}",
        why=f"schema {schema!r} is not there, and role {role!r} has no CREATE on database {database!r}",
        hint=f'as the owner of the database: GRANT CREATE ON DATABASE "{database}" TO "{role}"; '
        f'or make it for the role: CREATE SCHEMA "{schema}" AUTHORIZATION "{role}"',
    )


def foreign_schema_error(schema: str, where: str) -> JournalError:
    """The error of a schema that holds something else."""
    return JournalError(
        "J018",
        f"the schema {schema!r} holds tables, but no journal: {where}",
        hint="name another schema, or none: a journal makes its own",
    )


def schema_version_error(found: int, known: int, where: str) -> JournalError:
    """The error of tables of another version, older or newer."""
    older = "name another schema or database; read this one with the version of Orchestra that wrote it"
    newer = "pip install --upgrade orchestra-slm, or name another schema or database"
    return JournalError(
        "J020",
        f"the journal has schema version {found}, this Orchestra reads version {known}: {where}",
        hint=older if found < known else newer,
    )
