"""A run moved from a file to a Postgres database: it is equal there, and can be replayed and forked."""

from __future__ import annotations

from pathlib import Path

from orchestra import Orchestra, tool, workflow
from orchestra.cli.runs import export
from orchestra.cli.runs import export as import_
from orchestra.core.settings import Settings
from orchestra.journal.postgres.journal import PostgresJournal
from tests.journal.postgres_server import PostgresServer


@tool(effect="pure", version="1")
def shout(text: str) -> str:
    """Says it louder."""
    return text.upper()


@workflow
def loud(text: str) -> str:
    """A text in capitals."""
    return shout(text=text)


async def test_import_moves_run_from_sqlite_to_postgres(postgres: PostgresServer, schema: str, tmp_path: Path) -> None:
    (tmp_path / "orchestra.toml").write_text('journal = "runs.db"\n')
    settings = Settings.load({}, start=tmp_path)
    async with Orchestra.open(settings, fleet="none") as orchestra:
        run = (await orchestra.options(tags={"customer": "42"}).run(loud, text="tea" * 100_000)).run
        events = await orchestra.journal.read(run)
        with (tmp_path / "run.jsonl").open("wb") as file:
            await export.write_run(orchestra.journal, run, file)
    [exported] = import_.read_runs([("run.jsonl", tmp_path / "run.jsonl")])
    import_.check_run(exported)
    async with PostgresJournal.open(postgres.dsn, schema=schema) as journal:
        await import_.put_run(journal, exported)
        async with Orchestra.open(settings, fleet="none", journal=journal) as orchestra:
            assert await journal.read(run) == events
            assert (await orchestra.view(run)).tags == {"customer": "42"}
            assert (await orchestra.replay(run)).first_difference is None
            fork = await orchestra.fork(run, loud)
            assert ((await fork.run).output, fork.changes) == ("TEA" * 100_000, ())
