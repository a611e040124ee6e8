"""The planners' harness: lenient parsing of free text, and all arms on one simulated server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.machine import ROOT
from bench.plan_baselines import MAX_STEPS, Planned, acted, narrowed, read_calls, read_steps, sound
from bench.plan_floors import Clauses, NearestPlan, Overlap
from bench.plan_sets import KINDS, PlanSet, Task, case_of
from bench.plan_ways import WRITER
from bench.planners import ARMS, PAGE, Arm, answering, carried_out, main, marks, measured, placed, section
from orchestra.app.orchestra import Orchestra
from orchestra.core.events import Usage
from orchestra.core.settings import Settings
from orchestra.testing.fake_vllm.faults import SimulatedRequest
from orchestra.testing.fake_vllm.server import SimulatedServer

TOOLS: Sequence[dict[str, Any]] = [
    {"name": "find_song", "description": "Finds a song by its words"},
    {"name": "play_song", "description": "Plays a song"},
    {"name": "set_alarm", "description": "Sets an alarm for a time", "parameters": {"time": {"type": "str"}}},
]
NAMES = [tool["name"] for tool in TOOLS]
CHAIN = {"nodes": [{"tool": "find_song"}, {"tool": "play_song"}], "edges": [[0, 1]]}
ALARM = {"nodes": [{"tool": "set_alarm", "arguments": {"time": "7"}}], "edges": []}
ROWS: Sequence[tuple[str, dict[str, Any]]] = [
    ("Find the song with the moon and play it", CHAIN),
    ("Wake me: set an alarm for 7", ALARM),
]
FLEET = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {endpoint: "URL/v1", model: m, dialect: vllm, structured_outputs: guidance, label: restricted, revision: "1"}
models: {base: s}
"""


def write_set(folder: Path, name: str, train: bool) -> Path:
    (folder / name).mkdir()
    rows = [
        {"id": f"{name}-{number}", "input": {"task": task, "tools": NAMES}, "expected": plan}
        for number, (task, plan) in enumerate(ROWS)
    ]
    for part in ("dev", "train")[: 1 + train]:
        (folder / name / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    (folder / name / "tools.json").write_text(json.dumps({"tools": TOOLS}), "utf-8")
    return folder


def task(text: str, gold: dict[str, Any] | None = None) -> Task:
    return Task("t", text, (), gold or {})


# Model outputs


def test_read_calls_links_from_arguments() -> None:
    text = 'Here is the plan:\n1. find_song(words="moon")\n2) play_song(song=$1)\n\n3. join()\nDone.'
    found = read_calls(text, chains=False)
    assert found == {
        "nodes": [{"tool": "find_song", "arguments": {"words": "moon"}}, {"tool": "play_song", "arguments": {}}],
        "edges": [[0, 1]],
    }


def test_read_calls_chain_of_bare_names() -> None:
    found = read_calls("1. find_song\n2. `play_song`\n2. play_song\n", chains=True)
    assert found is not None
    assert [node["tool"] for node in found["nodes"]] == ["find_song", "play_song"]
    assert found["edges"] == [[0, 1]]


def test_read_calls_ignores_invalid_references() -> None:
    found = read_calls("1. a(x=$2)\n2. b(y=$9)\n", chains=False)
    assert found is not None
    assert found["edges"] == []


@pytest.mark.parametrize("text", ["", "I cannot do that.", "1.", "1. \n2. "])
def test_read_calls_without_lines_is_none(text: str) -> None:
    assert read_calls(text, chains=False) is None
    assert read_steps(text) is None


def test_read_steps_links_from_line_ends() -> None:
    found = read_steps("1. Find a flight ()\n2. Find a hotel (near Rome)\n3. Compare them ($1, $2)\n4. Pay (3)")
    assert found == {
        "nodes": [
            {"step": "Find a flight"},
            {"step": "Find a hotel (near Rome)"},
            {"step": "Compare them"},
            {"step": "Pay"},
        ],
        "edges": [[0, 2], [1, 2], [2, 3]],
    }


def test_acted_words_are_a_chain() -> None:
    assert acted(["look", "leap"], steps=True, chains=False) == {
        "nodes": [{"step": "look"}, {"step": "leap"}],
        "edges": [[0, 1]],
    }
    assert acted([], steps=True, chains=False) is None


def test_sound_refuses_non_plans_drops_dangling_edges() -> None:
    assert sound({"nodes": [{"tool": "a"}], "edges": [[0, 1], [0, 0], ["0", 0], 3]}) == {
        "nodes": [{"tool": "a"}],
        "edges": [],
    }
    assert sound({"nodes": []}) is None
    assert sound("a plan") is None
    assert sound({"nodes": "abc"}) is None


# Baselines


def test_catalogue_offers_every_tool(tmp_path: Path) -> None:
    write_set(tmp_path, "sealtools", train=False)
    (tmp_path / "sealtools" / "tools.json").write_text(json.dumps({"tools": [*TOOLS, {"name": "dance"}]}), "utf-8")
    known = PlanSet.load(tmp_path, "sealtools_catalogue")
    assert [row.names for row in known.rows] == [frozenset([*NAMES, "dance"])] * 2
    assert PlanSet.load(tmp_path, "sealtools").rows[0].names == frozenset(NAMES)


def test_nearest_plan_uses_offered_tools_only(tmp_path: Path) -> None:
    known = PlanSet.load(write_set(tmp_path, "ultratool", train=True), "ultratool")
    floor = NearestPlan(known)
    assert floor(known.rows[0]) == known.rows[0].gold
    narrowed = Task("t", ROWS[0][0], tuple(tool for tool in known.rows[0].tools if tool.name != "find_song"), CHAIN)
    assert floor(narrowed) == {"nodes": [{"tool": "play_song"}], "edges": []}


def test_overlap_baseline_in_request_order(tmp_path: Path) -> None:
    known = PlanSet.load(write_set(tmp_path, "tmdb", train=False), "tmdb")
    assert {row.text: [node["tool"] for node in Overlap(known)(row)["nodes"]] for row in known.rows} == {
        ROWS[0][0]: ["find_song", "play_song"],
        ROWS[1][0]: ["set_alarm"],
    }


def test_clauses_baseline_makes_steps() -> None:
    known = PlanSet("worfbench", KINDS["worfbench"], ())
    assert Clauses(known)(task("Find a hotel, book the hotel and then send an email.")) == {
        "nodes": [{"step": "Find a hotel"}, {"step": "book the hotel"}, {"step": "send an email."}],
        "edges": [[0, 1], [1, 2]],
    }


def test_row_without_plan_scores_zero(tmp_path: Path) -> None:
    known = PlanSet.load(write_set(tmp_path, "sealtools", train=False), "sealtools")
    cases = [case_of(row, None) for row in known.rows]
    assert {
        metric.name: metric.compute(cases) for metric in known.metrics if metric.name != "unseen tools, node-F1"
    } == {
        "node-F1": 0.0,
        "argument-F1": 0.0,
        "link-F1, linked": 0.0,
        "exact": 0.0,
        "hallucination": 0.0,
    }


# The harness


def says(request: SimulatedRequest) -> Any:
    """A model that plays the song in all forms, and never sets the alarm."""
    system = str(request.body["messages"][0]["content"])
    alarm = "alarm for 7" in request.prompt
    if "Do what is requested" in system:
        done = (
            request.prompt.count("Observation: done, the result is $1\n")
            - 1
            + request.prompt.endswith("the result is $1")
        )
        calls = ["find_song(words=moon)", "play_song(song=$1)", "finish()"] if not alarm else ["dance()"]
        return f"Thought: Well.\nAction: {calls[min(done, len(calls) - 1)]}\n"
    if "Write a plan" in system:
        return "I will not." if alarm else "1. find_song(words=moon)\n2. play_song(song=$1)"
    assert system == "Plan."
    if request.body["messages"][-1]["role"] == "assistant":  # line by line
        return "2 = play_song(s1)"
    held = request.body.get("structured_outputs", {}).get("grammar", "")
    if alarm and not held:
        return (
            's1 = set_alarm(time="7")'
            if "This was refused: there is no tool 'dance'" in request.prompt
            else "s1 = dance()"
        )
    if 'start: "s1 ' in held:
        return "s1 = find_song()\ns"
    return "s1 = find_song()\ns2 = play_song(s1)"


async def arms_of(folder: Path, name: str, arms: Sequence[str]) -> tuple[PlanSet, list[Arm]]:
    (folder / "orchestra.toml").write_text("", "utf-8")
    known = PlanSet.load(write_set(folder, name, train=False), name)
    async with SimulatedServer("m", answer=says) as server:
        (folder / "fleet.yaml").write_text(FLEET.replace("URL", server.url), "utf-8")
        settings = Settings.load({"fleet": str(folder / "fleet.yaml"), "journal": "off"}, start=folder, environ={})
        return known, await measured(known, arms, settings, at_once=2)


async def test_planners_same_rows_failures_score_zero(tmp_path: Path) -> None:
    known, found = await arms_of(tmp_path, "tmdb", ARMS)
    by_name = {arm.name: arm for arm in found}
    assert list(by_name) == [
        "floor: word overlap",
        "ReAct",
        "plan in free text, at once",
        "ours: `planner`",
        "ours, line by line",
        "ours, style not given",
        "ours, without its grammar",
        "ours, without its grammar, one repair",
    ]
    node_f1 = known.metrics[0]
    scores = {
        name: node_f1.compute([case_of(row, one.plan) for row, one in zip(known.rows, arm.planned, strict=True)])
        for name, arm in by_name.items()
    }
    assert scores == dict.fromkeys(by_name, 0.5) | {
        "floor: word overlap": 1.0,
        "ours, without its grammar, one repair": 1.0,
    }
    assert [arm.failed for arm in found] == [0, 0, 1, 0, 0, 0, 1, 0]
    calls = {name: sum(one.usage.calls for one in arm.planned) for name, arm in by_name.items()}
    assert calls["ours, line by line"] == 4  # two lines of each
    assert calls["ours, without its grammar, one repair"] == 3
    assert by_name["plan in free text, at once"].planned[0].usage.calls == 1
    text = section(known, found, "python -m bench.planners", "today")
    assert "### tmdb, all of dev\n\nAll 2 rows of dev; today." in text
    assert "### tmdb\n\n1 of the 2 rows of dev, seed 0; today." in section(
        replace(known, rows=known.rows[:1]), [], "", "today"
    )
    assert "| floor of DATA/README.md, all of dev: tool retrieval, chain | 0.337 | 0.059 | 0.059 |  | | | | |" in text
    assert text.count("\n| ") == 2 + len(found)


async def test_react_ends_on_repeated_action(tmp_path: Path) -> None:
    known, (react,) = await arms_of(tmp_path, "tmdb", ("react",))
    plans = {row.text: one.plan for row, one in zip(known.rows, react.planned, strict=True)}
    calls = {row.text: one.usage.calls for row, one in zip(known.rows, react.planned, strict=True)}
    assert plans[ROWS[1][0]] == {"nodes": [{"tool": "dance", "arguments": {}}], "edges": []}
    played = plans[ROWS[0][0]]
    assert played is not None
    assert [node["tool"] for node in played["nodes"]] == ["find_song", "play_song"]
    assert calls == {ROWS[0][0]: 3, ROWS[1][0]: 2}
    assert MAX_STEPS >= 3


def test_catalogue_planners_get_same_shortlist(tmp_path: Path) -> None:
    write_set(tmp_path, "sealtools", train=False)
    many = [
        {"name": f"tool_{number}", "description": "Something else entirely", "parameters": {"thing": "str"}}
        for number in range(400)
    ]
    (tmp_path / "sealtools" / "tools.json").write_text(json.dumps({"tools": [*many, *TOOLS]}), "utf-8")
    known = PlanSet.load(tmp_path, "sealtools_catalogue")
    shown = {row.text: [tool.name for tool in narrowed(row, known).tools] for row in known.rows}
    assert {*shown[ROWS[0][0]][:2]} == {"find_song", "play_song"}
    assert shown[ROWS[1][0]][0] == "set_alarm"
    assert max(map(len, shown.values())) < 60
    assert narrowed(known.rows[0], replace(known, kind=KINDS["sealtools"])) is known.rows[0]


async def test_stored_rows_depend_on_fleet_and_weights(tmp_path: Path) -> None:
    async def who(**settings: Any) -> str:
        async with Orchestra.open(Settings.load({"journal": "off", **settings}), fleet="none") as orchestra:
            return answering(orchestra)

    here = await who(fleet="laptop")
    assert len(here) == 8
    assert here == await who(fleet="laptop")
    assert here != await who(fleet="gpu-24g")
    own = shutil.copytree(ROOT / "agents" / WRITER, tmp_path / "agents" / WRITER)
    (own / "prompt.md").write_bytes((own / "prompt.md").read_bytes() + b"Be quick.")
    assert here != await who(fleet="laptop", agents=[str(tmp_path / "agents")])


async def test_stored_rows_not_run_again(tmp_path: Path) -> None:
    known = PlanSet.load(write_set(tmp_path, "tmdb", train=False), "tmdb")
    asked = list[str]()

    class Planning:
        name = "one"

        async def __call__(self, task: Task) -> Planned:
            asked.append(task.text)
            return Planned(CHAIN, Usage(calls=2), fault="slow")

    kept = tmp_path / "tmdb.one.jsonl"
    first = await carried_out(Planning(), known.rows[:1], kept=kept)
    kept.write_bytes(kept.read_bytes() + b'{"id": "to')
    again = await carried_out(Planning(), known.rows, kept=kept)
    assert asked == [row.text for row in known.rows]
    assert again.planned[0] == first.planned[0]
    assert again.planned[0].usage.calls == 2
    assert again.seconds >= first.planned[0].seconds / 4
    assert (await carried_out(Planning(), known.rows, kept=kept)).planned == again.planned
    assert len(asked) == 2


def test_larger_sample_has_separate_table(tmp_path: Path) -> None:
    known = PlanSet("tmdb", KINDS["tmdb"], (task("Play it", CHAIN),) * 30, whole=90)
    text = placed(PAGE.read_text("utf-8"), known, section(known, [], "python", "today"))
    begin, end = marks("tmdb", "more")
    assert "### tmdb, 30 rows\n\n30 of the 90 rows of dev" in text.partition(begin)[2].partition(end)[0]
    assert text.index(marks("tmdb")[1]) < text.index(begin)
    assert placed(text, known, section(known, [], "python", "today")) == text


@pytest.mark.parametrize("rows", [0, 1, 2, 300])
def test_planning_page_keeps_unmeasured_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    data, page = write_set(tmp_path, "tmdb", train=False), tmp_path / "page.md"
    before = (
        "# Page\n\n"
        + "\n".join(
            f"{begin}\nold\n{end}" for begin, end in (marks(name, which) for name in KINDS for which in ("", "all"))
        )
        + "\n"
    )
    page.write_text(before, "utf-8")
    monkeypatch.setattr(
        "sys.argv", ["planners", "--data", str(data), "--sets", "tmdb", "--arms", "floor", "--rows", str(rows)]
    )
    assert main(page) == 0
    after = page.read_text("utf-8")
    begin, end = marks("tmdb", "" if rows == 1 else "all")
    written = after.partition(begin)[2].partition(end)[0]
    assert f"    $ python -m bench.planners --data DATA --sets tmdb --rows {rows} --seed 0 --arms floor\n" in written
    assert after.replace(written, "\nold\n") == before


def test_planning_page_has_marker_for_each_set() -> None:
    text = PAGE.read_text("utf-8")
    assert all(text.count(mark) == 1 for name in KINDS for mark in marks(name))
