"""Paths of nodes, and of parts of a value."""

from __future__ import annotations

import pytest

from orchestra.core.paths import format_path, is_inside, parent, root_name, without_turn, workflow_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", ""),
        ("a[3]", "a"),
        ("a#2", "a"),
        ("a/b", "a"),
        ("a[1]/b#2/c", "a[1]/b#2"),
        ("a[1]/b#2", "a[1]/b"),
        ("solve@2/s1", "solve@2"),
    ],
)
def test_parent_returns_enclosing_path(path: str, expected: str) -> None:
    assert parent(path) == expected


@pytest.mark.parametrize("path", ["a[3]", "a#2", "a/b", "a@1/s2", "a?1/entailment_0"])
def test_is_inside_checks_path_prefix(path: str) -> None:
    assert is_inside(path, "a")
    assert not is_inside(path, path)
    assert not is_inside(f"a{path}", "a")
    assert root_name(path) == "a"


def test_workflow_path_drops_elements_and_turns() -> None:
    assert workflow_path("a[1]/b#2/c") == "a/b/c"
    assert workflow_path("solve@1/s2[0]") == "solve/s2"


@pytest.mark.parametrize(
    ("path", "node"),
    [
        ("a", "a"),
        ("a1", "a1"),
        ("a#2", "a"),
        ("a[1]@2", "a[1]"),
        ("a[1]", "a[1]"),
        ("a#2/b?1", "a#2/b"),
        ("a#2/b", "a#2/b"),
    ],
)
def test_without_turn_drops_turn(path: str, node: str) -> None:
    assert without_turn(path) == node


def test_format_path_formats_steps() -> None:
    assert format_path(("items", 0, "quote")) == "items[0].quote"
    assert format_path((1, "text")) == "[1].text"
    assert format_path(()) == ""
