"""A journal whose folder cannot be written, such as a mounted backup: it is read as it is, and no file is created."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.core.protocols import InboxMessage
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.queries import ReadOnlyJournal
from tests.journal.files import holder
from tests.journal.stories import begun, whole

READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    path = tmp_path / "kept" / "journal.db"
    async with SqliteJournal.open(path) as journal:
        journal.append("ended", whole("ended"))
        journal.append("waits", [begun("waits")])
        blob = journal.put_blob(b"graph")
        journal.put_memo("memo", "ended", {"answer": blob})
        await journal.release("waits")
        await journal.send("waits", InboxMessage(kind="cancel"))
    return path


async def test_read_only_journal_equals_journal_and_writes_nothing(file: Path) -> None:
    shutil.copytree(file.parent, file.parent.parent / "copy")
    async with (
        SqliteJournal.open(file.parent.parent / "copy" / file.name) as journal,
        ReadOnlyJournal.open(file) as frozen,
    ):
        assert await frozen.list_runs() == await journal.list_runs()
        assert await frozen.read("ended") == await journal.read("ended") == list(whole("ended"))
        assert await frozen.inbox("waits") == await journal.inbox("waits")
        assert await frozen.get_memo("memo") == await journal.get_memo("memo") is not None
        assert [found async for found in frozen.scan()] == [found async for found in journal.scan()]
        assert await frozen.outbox() == await journal.outbox()
        assert (await frozen.find_runs("e"), await frozen.summary("none")) == (["ended"], None)
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "journal.db",
        "journal.db-mark",
        "journal.db-writers",
    ]


async def test_read_only_journal_refuses_writes(file: Path) -> None:
    async with ReadOnlyJournal.open(file) as frozen:
        for write in (
            frozen.check_writable(),
            frozen.lease("waits"),
            frozen.send("waits", InboxMessage(kind="cancel")),
            frozen.delete("ended"),
        ):
            with pytest.raises(JournalError) as caught:
                await write
            assert (caught.value.code, str(file.parent) in caught.value.message) == ("J011", True)
        with pytest.raises(JournalError, match="J011"):
            frozen.append("new", [begun("new")])


async def test_read_only_journal_reads_log_of_other_process(file: Path) -> None:
    with holder(file, "held") as other:
        assert other.ask() == "1"
        async with ReadOnlyJournal.open(file) as frozen:
            assert {run.run: run.status for run in await frozen.list_runs()} == {
                "ended": "done",
                "waits": "interrupted",
                "held": "running",
            }
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(file.with_name(name), file.parent.parent)
    with pytest.raises(JournalError) as caught:
        async with ReadOnlyJournal.open(file.parent.parent / file.name):
            pass
    assert (caught.value.code, "-wal" in caught.value.hint) == ("J011", True)


def test_read_only_folder_commands_print_note(file: Path) -> None:
    if subprocess.run(
        ["unshare", "-m", "sh", "-c", READ_ONLY, str(file.parent), "true"], capture_output=True
    ).returncode:
        pytest.skip("nothing can be mounted here")
    (file.parent / "orchestra.toml").write_text('journal = "journal.db"\n')

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        verb = [sys.executable, "-m", "orchestra.cli", "runs", *words]
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", READ_ONLY, str(file.parent), *verb], capture_output=True, text=True
        )

    told = said("list", "--json")
    assert (told.returncode, {run["run"] for run in json.loads(told.stdout)}) == (0, {"ended", "waits"})
    assert told.stderr == f"{file.parent} is not writable: the journal is opened read-only\n"
    assert json.loads(said("export", "ended").stdout.splitlines()[0])["run"] == "ended"
    gone = said("delete", "ended", "--yes")
    assert (gone.returncode, "J011" in gone.stderr) == (1, True)
