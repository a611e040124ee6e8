"""Tests that hostile inputs of every kind are refused with a code and a position, in bounded time and 64 MiB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Row = tuple[str, str, str, str, float, float]


@pytest.fixture(scope="module")
def measured() -> list[Row]:
    program = Path(__file__).with_name("measured.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows: list[Any] = json.loads(done.stdout)
    return [tuple(row) for row in rows]


def test_corpus_has_more_than_250_cases(measured: list[Row]) -> None:
    names = [row[0] for row in measured]
    assert len(names) == len(set(names)) > 250


def test_corpus_case_is_refused_with_its_code(measured: list[Row]) -> None:
    assert [row[:3] for row in measured if row[1] != row[2]] == []


def test_corpus_refusal_has_a_location(measured: list[Row]) -> None:
    assert [row[:4] for row in measured if not row[3]] == []


def test_corpus_case_costs_below_80_times_reference_work(measured: list[Row]) -> None:
    """Most cases cost less than one, and the most expensive one 15."""
    assert [(row[0], row[4]) for row in measured if row[4] >= 80] == []


def test_corpus_case_uses_below_64_mib(measured: list[Row]) -> None:
    assert [(row[0], row[5]) for row in measured if row[5] >= 64] == []
