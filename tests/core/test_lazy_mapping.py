"""Mappings whose values are made when they are first read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestra.core.lazy_mapping import LazyMapping


def upper_into(loaded: list[str]) -> Callable[[str], str]:
    def load(name: str) -> str:
        loaded.append(name)
        return name.upper()

    return load


def test_names_and_membership_load_no_value() -> None:
    loaded: list[str] = []
    found = LazyMapping(("a", "b"), upper_into(loaded))
    assert (list(found), len(found), "a" in found, "c" in found, found.get("c")) == (["a", "b"], 2, True, False, None)
    assert loaded == []


def test_value_is_loaded_once() -> None:
    loaded: list[str] = []
    found = LazyMapping(("a", "b"), upper_into(loaded))
    assert (found["a"], found["a"], loaded) == ("A", "A", ["a"])


def test_extended_mapping_has_further_and_replaced_values() -> None:
    found = LazyMapping(("a", "b"), str.upper, {"c": "c"}).extend({"b": "new", "d": "d"})
    assert dict(found) == {"a": "A", "b": "new", "c": "c", "d": "d"}


def test_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="c"):
        LazyMapping(("a",), str.upper)["c"]
