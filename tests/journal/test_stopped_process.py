"""A process stopped by Ctrl-Z or SIGSTOP, and other processes that use its journal."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite import liveness
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.liveness import LockHolder, find_lock_holder

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGTSTP"), reason="no signals of a terminal")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="no /proc/locks")


@contextmanager
def inside_a_transaction(file: Path, how: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process inside a transaction, in its own process group, as started by a shell."""
    script = str(Path(__file__).with_name("stopped_child.py"))
    process = subprocess.Popen(
        [sys.executable, script, str(file), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    try:
        assert said(process) == "inside"
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def wait_until_stopped(process: subprocess.Popen[bytes]) -> None:
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def may_be_written(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as sql:
        try:
            sql.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_ctrl_z_waits_for_transaction(file: Path) -> None:
    with inside_a_transaction(file, "handled") as process:
        assert not may_be_written(file)
        os.killpg(process.pid, signal.SIGTSTP)
        tell(process)
        wait_until_stopped(process)
        assert may_be_written(file)
        process.send_signal(signal.SIGCONT)
        assert said(process) == "committed"
        os.killpg(process.pid, signal.SIGTSTP)  # and again, between two transactions
        wait_until_stopped(process)
        assert may_be_written(file)
        process.send_signal(signal.SIGCONT)
        tell(process)
        assert process.wait() == 0


@LINUX
async def test_stopped_lock_holder_is_named(file: Path) -> None:
    with inside_a_transaction(file, "plain") as process:
        process.send_signal(signal.SIGSTOP)
        wait_until_stopped(process)
        async with SqliteJournal.open(file, busy_timeout=0.05) as journal:
            with pytest.raises(JournalError) as caught:
                await journal.check_writable()
            assert caught.value.code == "J012"
            assert f"process {process.pid} " in caught.value.message
            assert "is stopped" in caught.value.message
            assert f"kill -CONT {process.pid}" in (caught.value.hint or "")
            process.send_signal(signal.SIGCONT)
            tell(process)
            assert said(process) == "committed"


@LINUX
def test_lock_holder_is_writing_process(file: Path) -> None:
    assert find_lock_holder(file) is None
    with inside_a_transaction(file, "plain") as process:
        found = find_lock_holder(file)
        assert found is not None
        assert (found.pid, found.is_stopped) == (process.pid, False)
        assert found.name.startswith("python")
        tell(process)
        assert said(process) == "committed"
        assert find_lock_holder(file) is None


def test_lock_holder_without_proc_locks_is_unknown(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(liveness, "_LOCKS", tmp_path / "none")
    with inside_a_transaction(file, "plain"):
        assert find_lock_holder(file) is None


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1: POSIX  ADVISORY  WRITE {pid} fe:00:{inode} 120 120", True),
        ("1: POSIX  ADVISORY  READ {pid} fe:00:{inode} 120 120", False),
        ("1: POSIX  ADVISORY  WRITE {pid} fe:00:{inode} 124 124", False),
        ("1: POSIX  ADVISORY  WRITE {pid} fe:00:1{inode} 120 120", False),
        ("1: POSIX  ADVISORY  WRITE 0 fe:00:{inode} 120 120", False),
        ("1: -> POSIX  ADVISORY  WRITE {pid} fe:00:{inode} 120 120", False),
        ("1: FLOCK", False),
    ],
)
@LINUX
def test_lock_holder_parses_proc_locks(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, found: bool
) -> None:
    index = file.with_name(file.name + "-shm")
    index.touch()
    locks = tmp_path / "locks"
    locks.write_text(line.format(pid=os.getpid(), inode=index.stat().st_ino) + "\n\n")
    monkeypatch.setattr(liveness, "_LOCKS", locks)
    assert isinstance(find_lock_holder(file), LockHolder) is found
