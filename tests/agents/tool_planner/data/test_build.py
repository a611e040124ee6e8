"""The data set of the tool planner: changed and unchanged rows of a further pass."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agents.tool_planner.data.build import LEFT_OUT, LICENCES, MOVED, disturbed, made
from orchestra.learn.data.dataset import Dataset
from orchestra.router.tool_plans import parse_tools

TOOLS = [
    f"{verb}_{noun}" for verb in ("find", "book", "cancel", "send") for noun in ("flight", "room", "table", "letter")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in LICENCES:
        rows = []
        for number in range(60):
            task = f"Find a flight, book room {number} and send the letter of {name}."
            nodes = [{"tool": "find_flight"}, {"tool": "book_room"}, {"tool": "send_letter"}]
            given: dict[str, Any] = {"task": task, "tools": TOOLS}
            rows.append(
                {"id": f"{name}-{number}", "input": given, "expected": {"nodes": nodes, "edges": [[0, 1], [1, 2]]}}
            )
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return tmp_path


def told(data: Dataset, part: str) -> list[list[str]]:
    return [str(row.input["tools"]).splitlines() for row in data.rows[part]]  # type: ignore[index]


def test_planner_data_again_reorders_tools_keeps_plans(folder: Path) -> None:
    first, again, other = made(folder), made(folder, 7), made(folder, 8)
    assert [(row.id, row.output) for row in again.rows["train"]] == [
        (row.id, row.output) for row in first.rows["train"]
    ]
    assert first.rows["train"][0].output == "s1 = find_flight()\ns2 = book_room(s1)\ns3 = send_letter(s2)"
    assert len({first.manifest.digest, again.manifest.digest, other.manifest.digest}) == 3
    assert made(folder, 7).manifest.digest == again.manifest.digest
    fewer = sum(map(len, told(again, "train"))) / sum(map(len, told(first, "train")))
    assert 1 - LEFT_OUT < fewer < 1 - LEFT_OUT / 2, "what a plan needs is never left out"
    assert all(
        {"find_flight", "book_room", "send_letter"} <= {line.split(":")[0] for line in lines}
        for lines in told(again, "train")
    )


def test_planner_data_again_keeps_held_out_rows(folder: Path) -> None:
    first, again = made(folder), made(folder, 7)
    assert first.rows["tune"] == again.rows["tune"] != []
    assert told(first, "train") != told(again, "train")


def test_disturbed_moves_tools_few_places() -> None:
    tools = parse_tools([f"tool_{number}" for number in range(200)])
    found = disturbed(tools, [one.name for one in tools], random.Random(3))
    moved = [at - tools.index(one) for at, one in enumerate(found)]
    assert found != tools
    assert max(map(abs, moved)) <= MOVED
