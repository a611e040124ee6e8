"""Paths of cassettes: each test has its own, and cassettes of earlier versions are found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestra.testing.cassette_file import missing_cassette_error
from orchestra.testing.pytest_plugin import cassette_path, former_path


def named(name: str, path: Path = Path("/t/test_m.py")) -> Any:
    return SimpleNamespace(cls=None, name=name, path=path)


@pytest.mark.parametrize("pair", ["<= >=", "What? What!", "a/b a:b", "a[b a.b", "[ .", "x]] x"], ids=range(6))
def test_cassette_path_unsafe_characters_are_distinct(pair: str) -> None:
    for long in ("", "y" * 200):
        one, other = (cassette_path(named(f"test_x[{case}{long}]")).name for case in pair.split())
        assert one != other
        assert max(len(one), len(other)) < 130


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("test_x", "test_x"),
        ("test_x[a-b]", "test_x.a-b"),
        ("test_x[0.5,n=+1]", "test_x.0.5,n=+1"),
        ("test_ü", "test_ü"),
    ],
)
def test_cassette_path_safe_name_is_unchanged(name: str, file: str) -> None:
    assert cassette_path(named(name)) == former_path(named(name)) == Path(f"/t/cassettes/test_m/{file}.jsonl")


def test_cassette_path_unsafe_name_has_digest() -> None:
    assert cassette_path(named("test_x[<=]")).name == "test_x.-=-72fed960.jsonl"
    assert former_path(named("test_x[<=]")).name == "test_x.-=.jsonl"


def test_cassette_former_path_has_move_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    item = named("test_x[a b]", tmp_path / "test_m.py")
    path, former = cassette_path(item), former_path(item)
    assert missing_cassette_error(path, "record it", former).hint == "record it"
    former.parent.mkdir(parents=True)
    former.touch()
    error = missing_cassette_error(path, "record it", former)
    assert "cassettes/test_m/test_x.a-b.jsonl may be this test's" in error.why
    move = f"mv cassettes/test_m/test_x.a-b.jsonl {path.relative_to(tmp_path)}"
    assert error.hint == f"record it; or, if it is this test's only: {move}"
