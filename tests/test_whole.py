"""Files and folders are there whole, before and after, also where their writer is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.whole import standing, swap_folder, write_file

KILLED = """
import os, sys
from pathlib import Path
from orchestra.whole import swap_folder

replace, place = os.replace, Path(sys.argv[2])
os.replace = lambda source, target: os._exit(9) if Path(target) == place else replace(source, target)
swap_folder(Path(sys.argv[1]), place)
"""


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "weights").write_text(text)
    return path


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for text in (b"one", b"two"):
        write_file(path, text)
        assert path.read_bytes() == text
    with pytest.raises(OSError, match="directory"):
        write_file(folder(tmp_path / "b", ""), b"three")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    place = tmp_path / "place"
    for text in ("one", "two"):
        swap_folder(folder(tmp_path / "new", text), place)
        assert [(one.name, (one / "weights").read_text()) for one in tmp_path.iterdir()] == [("place", text)]


def test_a_writer_that_is_killed_in_the_middle_leaves_the_old_folder(tmp_path: Path) -> None:
    place, new = folder(tmp_path / "place", "one"), folder(tmp_path / "new", "two")
    assert subprocess.run([sys.executable, "-c", KILLED, str(new), str(place)], check=False).returncode == 9
    assert (standing(place) / "weights").read_text() == "one"
    assert subprocess.run([sys.executable, "-c", KILLED, str(new), str(place)], check=False).returncode == 9
    swap_folder(new, place)
    assert [(one.name, (one / "weights").read_text()) for one in tmp_path.iterdir()] == [("place", "two")]
