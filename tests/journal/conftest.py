"""The Postgres server of these tests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.journal.postgres_server import PostgresServer, missing, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server shared by all tests. Without Postgres the tests are skipped, except in CI."""
    if (lacking := missing()) and not os.environ.get("CI"):
        pytest.skip(f"no Postgres: {lacking}")
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_over_tcp() -> Iterator[PostgresServer]:
    """The same on a TCP port, where addresses, timeouts and lost connections differ."""
    if (lacking := missing()) and not os.environ.get("CI"):
        pytest.skip(f"no Postgres: {lacking}")
    with running(tcp=True) as server:
        yield server


@pytest.fixture
def schema() -> str:
    """A separate schema for the test."""
    return f"s{secrets.token_hex(8)}"
