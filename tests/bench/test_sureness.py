"""`bench.sureness`: counts by confidence threshold."""

from __future__ import annotations

import json
from pathlib import Path

from bench.sureness import asked, line, tuned_on


def test_sureness_counts_by_threshold() -> None:
    found = [(0.1, True), (0.3, False), (0.4, True), (0.5, False), (0.9, True)]
    assert line("these", found) == "| these | 5 | 3, 2 | 2, 2 | 2, 1 | 1, 1 |"


def test_sureness_runs_table_questions_only() -> None:
    cases = asked("last")
    assert len(cases) == 40
    assert all(case.question.keys() == {"question", "table", "paragraphs"} for case in cases)
    assert not any(case.right({"answer": ["nothing of the kind"], "cells": []}) for case in cases)


def test_sureness_separates_written_rows(tmp_path: Path) -> None:
    output = {"way": "cells", "quotes": ["5"], "expression": None, "scale": "million"}
    other = output | {"quotes": ["6"]}
    rows = [
        {"id": f"{name}-1", "input": {}, "output": said}
        for name, said in (("tatqa", output), ("written", other), ("asked", other))
    ]
    path = tmp_path / "tune.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert [(case.right(output), case.right(other)) for case in tuned_on(path)] == [(True, False), (False, True)]


def test_sureness_separates_rows_with_condition(tmp_path: Path) -> None:
    output = {"way": "cells", "quotes": ["5"], "expression": None, "scale": "", "condition": None, "also": None}
    bounded = output | {"condition": {"column": 1, "bound": "above", "limit": "4"}}
    rows = [
        {"id": f"written-{at}", "input": {"question": str(at)}, "output": said}
        for at, said in enumerate((output, bounded))
    ]
    path = tmp_path / "tune.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert [case.question for case in tuned_on(path, bounded=True)] == [{"question": "1"}]
