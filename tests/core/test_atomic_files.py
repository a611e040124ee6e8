"""Atomic replacement of files and folders, also if the writer is killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.core.atomic_files import open_private_file, recover_folder, replace_folder, write_file

KILLED = """
import os, sys
from pathlib import Path
from orchestra.core.atomic_files import replace_folder

replace, place = os.replace, Path(sys.argv[2])
os.replace = lambda source, target: os._exit(9) if Path(target) == place else replace(source, target)
replace_folder(Path(sys.argv[1]), place)
"""


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "weights").write_text(text)
    return path


def test_write_file_shows_old_content_until_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for text in (b"one", b"two"):
        write_file(path, text)
        assert path.read_bytes() == text
    with pytest.raises(OSError, match="directory"):
        write_file(folder(tmp_path / "b", ""), b"three")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]


def test_replace_folder_replaces_content(tmp_path: Path) -> None:
    place = tmp_path / "place"
    for text in ("one", "two"):
        replace_folder(folder(tmp_path / "new", text), place)
        assert [(one.name, (one / "weights").read_text()) for one in tmp_path.iterdir()] == [("place", text)]


def test_replace_folder_killed_writer_keeps_old_folder(tmp_path: Path) -> None:
    place, new = folder(tmp_path / "place", "one"), folder(tmp_path / "new", "two")
    assert subprocess.run([sys.executable, "-c", KILLED, str(new), str(place)], check=False).returncode == 9
    assert (recover_folder(place) / "weights").read_text() == "one"
    assert subprocess.run([sys.executable, "-c", KILLED, str(new), str(place)], check=False).returncode == 9
    replace_folder(new, place)
    assert [(one.name, (one / "weights").read_text()) for one in tmp_path.iterdir()] == [("place", "two")]


def test_private_file_is_owner_only_and_replaces_link(tmp_path: Path) -> None:
    path, victim = tmp_path / "run.jsonl", tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with open_private_file(path) as file:
        file.write(b"mine")
    assert (path.read_text(), victim.read_text(), path.is_symlink()) == ("mine", "precious", False)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ZeroDivisionError), open_private_file(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["run.jsonl", "victim"]


def test_private_file_device_is_written_directly() -> None:
    with open_private_file(Path(os.devnull)) as file:
        file.write(b"gone")
    assert not Path(os.devnull).is_file()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are files on Linux only")
def test_private_file_stdout_link_is_kept(tmp_path: Path) -> None:
    link, target = tmp_path / "stdout", tmp_path / "out"
    link.symlink_to("/proc/self/fd/1")  # the target of /dev/stdout
    write = "import sys; from pathlib import Path; from orchestra.core.atomic_files import open_private_file\n"
    write += "with open_private_file(Path(sys.argv[1])) as file: file.write(b'run')"
    target.write_text("before ")
    with target.open("ab") as file:
        subprocess.run([sys.executable, "-c", write, str(link)], stdout=file, check=True)
    assert (target.read_text(), link.is_symlink()) == ("before run", True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "stdout"]


def test_private_file_irreplaceable_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("of before")
    path.chmod(0o640)

    def busy(source: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")  # for a single mounted file

    monkeypatch.setattr(os, "replace", busy)
    with open_private_file(path) as file:
        file.write(b"new")
    assert (path.read_text(), path.stat().st_mode & 0o777, os.listdir(tmp_path)) == ("new", 0o640, ["run.jsonl"])


def test_private_file_foreign_folder_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "run.jsonl").write_text("of before")
    path.chmod(0o666)
    (tmp_path / "link").symlink_to("run.jsonl")
    tmp_path.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root ignores permissions
    try:
        with open_private_file(Path("run.jsonl")) as file:
            file.write(b"new")
        for name in ("link", "other"):
            with pytest.raises(PermissionError), open_private_file(Path(name)):
                raise AssertionError
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)
    assert path.read_text() == "new"
