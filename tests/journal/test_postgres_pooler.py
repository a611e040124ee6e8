"""The journal behind PgBouncer: supported in session mode, refused in transaction mode. Skipped without PgBouncer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra.journal.errors import JournalError
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.testing.conformance.suite import CONFORMANCE_TESTS
from tests.journal.postgres_server import PostgresServer

BOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = pytest.mark.skipif(BOUNCER is None, reason="no pgbouncer")


@contextmanager
def pooler(server: PostgresServer, mode: str) -> Iterator[str]:
    """Starts a pooler in front of the server and returns its address."""
    assert BOUNCER is not None
    folder = Path(tempfile.mkdtemp(prefix="orchestra-pb-"))
    folder.chmod(0o777)
    file = folder / "pgbouncer.ini"
    file.write_text(
        f"[databases]\npostgres = host={server.folder} user=orchestra\n[pgbouncer]\nlisten_addr =\n"
        f"unix_socket_dir = {folder}\n"
        f"auth_type = any\npool_mode = {mode}\nmax_prepared_statements = 100\nlisten_port = 5432\n"
    )
    user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    process = subprocess.Popen([BOUNCER, "-q", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user)
    try:
        end = time.monotonic() + 20
        with socket.socket(socket.AF_UNIX) as probe:
            while probe.connect_ex(str(folder / ".s.PGSQL.5432")):
                assert process.poll() is None, "pgbouncer did not start"
                assert time.monotonic() < end, "pgbouncer does not answer"
                time.sleep(0.05)
        yield f"postgresql://orchestra@/postgres?host={folder}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


async def test_pooler_transaction_mode_is_refused(postgres: PostgresServer, schema: str) -> None:
    with pooler(postgres, "transaction") as dsn, pytest.raises(JournalError, match="J034"):
        async with PostgresJournal.open(dsn, schema=schema):
            pass


@pytest.mark.parametrize(
    "name", ["a_deleted_run_is_gone", "a_run_under_way_is_not_deleted", "a_lease_is_not_taken_from_the_living"]
)
async def test_pooler_session_mode_obeys_laws(name: str, postgres: PostgresServer, schema: str) -> None:
    (law,) = (law for law in CONFORMANCE_TESTS if law.name == name)
    with pooler(postgres, "session") as dsn:
        await law.run(lambda: PostgresJournal.open(dsn, schema=schema))
