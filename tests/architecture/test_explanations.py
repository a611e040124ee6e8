"""Every error code of the library has an explanation, and every explanation has a code."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"[A-Z]\d{3}")
EXPLANATIONS = sorted((ROOT / "orchestra" / "core" / "error_texts").glob("*.toml"))


def codes_used() -> dict[str, str]:
    """Each code that is a string of its own in the library, with one location."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "orchestra").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                found.setdefault(node.value, f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def codes_explained() -> dict[str, Path]:
    return {code: path for path in EXPLANATIONS for code in tomllib.loads(path.read_text("utf-8"))}


def test_every_code_is_explained() -> None:
    explained = codes_explained()
    assert {code: place for code, place in codes_used().items() if code not in explained} == {}


def test_every_explanation_has_a_code() -> None:
    used = codes_used()
    assert {code: path.name for code, path in codes_explained().items() if code not in used} == {}


def test_no_code_is_explained_twice() -> None:
    seen = [code for path in EXPLANATIONS for code in tomllib.loads(path.read_text("utf-8"))]
    assert sorted(seen) == sorted(set(seen))


@pytest.mark.parametrize("path", EXPLANATIONS, ids=lambda path: path.stem)
def test_explanation_has_a_title_and_enough_text(path: Path) -> None:
    for code, entry in tomllib.loads(path.read_text("utf-8")).items():
        assert CODE.fullmatch(code), code
        assert set(entry) == {"title", "text"}, code
        assert len(entry["title"]) <= 100, code
        assert not entry["title"].endswith("."), code
        assert len(entry["text"].strip()) >= 60, code
