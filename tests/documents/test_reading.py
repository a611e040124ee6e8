"""Reading of files and folders: names, failures beside other files, limits of time and memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from orchestra.core.errors import InputError
from orchestra.documents.reader_process import ProcessLimits, ReaderProcess
from orchestra.documents.reading import read_files
from tests.documents import office_files


def test_folder_is_read_in_order_and_failures_are_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hidden.txt").write_text("x")
    (tmp_path / "deep" / "b.html").write_text("<p>page</p>")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "bad.docx").write_bytes(b"nonsense")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\x00")
    office_files.write_lines(tmp_path / "c.pdf", ["words"])
    result = read_files([tmp_path])
    assert [document.source for document in result.documents] == ["a.txt", "c.pdf", "deep/b.html"]
    assert [(failure.source, failure.code) for failure in result.failures] == [
        ("bad.docx", "D003"),
        ("picture.png", "D001"),
    ]


def test_tables_alone_are_no_documents(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    alone = read_files([tmp_path])
    assert (alone.documents, [table.name for table in alone.tables]) == ([], ["a.csv"])
    (tmp_path / "b.txt").write_text("text")
    assert [document.source for document in read_files([tmp_path]).documents] == ["a.csv", "b.txt"]


def test_files_of_equal_name_have_different_sources(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(folder)
    result = read_files([tmp_path / "x", tmp_path / "y"])
    assert [document.source for document in result.documents] == ["a.txt", str(tmp_path / "y" / "a.txt")]


@pytest.mark.parametrize(("name", "code"), [("absent.txt", "C014"), ("absent.pdf", "C014"), ("bad.pdf", "D003")])
def test_only_file_that_cannot_be_read_raises(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "bad.pdf").write_bytes(b"nonsense")
    with pytest.raises(InputError) as caught:
        read_files([tmp_path / name])
    assert caught.value.code == code


def test_folder_without_readable_file_raises(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x00")
    with pytest.raises(InputError) as caught:
        read_files([tmp_path])
    assert caught.value.code == "C014"


def test_link_out_of_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InputError) as caught:
        read_files([tmp_path / "folder"])
    assert caught.value.code == "C014"


def test_file_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    pipe = tmp_path / "endless.html"
    os.mkfifo(pipe)
    (tmp_path / "next.html").write_text("<p>words</p>")
    writer = os.open(pipe, os.O_RDWR)  # holds the pipe open, so that its reader waits for ever
    try:
        with ReaderProcess(ProcessLimits(seconds=0.2)) as process:
            with pytest.raises(InputError) as caught:
                process.read(pipe, "endless.html")
            assert caught.value.code == "D007"
    finally:
        os.close(writer)
    with ReaderProcess() as process:
        assert process.read(tmp_path / "next.html", "next.html").document.text == "words"


def test_file_that_needs_too_much_memory_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>" + "words " * 2_500_000)
    (tmp_path / "b.html").write_text("<p>words</p>")
    with ReaderProcess(ProcessLimits(memory=150 << 20)) as process:
        with pytest.raises(InputError) as caught:
            process.read(tmp_path / "a.html", "a.html")
        assert (caught.value.code, "memory" in caught.value.message) == ("D007", True)
        assert process.read(tmp_path / "b.html", "b.html").document.text == "words"


def child_processes() -> set[int]:
    """The processes that this one has started and that have not ended."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def test_process_has_a_time_and_cannot_write_files(tmp_path: Path) -> None:
    path = office_files.write_sqlite(tmp_path / "a.db", "CREATE TABLE t (x)")
    before, others = path.read_bytes(), child_processes()
    with ReaderProcess() as process:
        process.read(path, "a.db")
        (child,) = child_processes() - others
        assert resource.prlimit(child, resource.RLIMIT_FSIZE) == (0, 0)
        assert resource.prlimit(child, resource.RLIMIT_CPU)[0] != resource.RLIM_INFINITY
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db"]
