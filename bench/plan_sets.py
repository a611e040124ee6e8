"""The sets of tool plans, as described in `DATA/README.md`: requests, available tools, and the correct plan.

A row is `{"id", "input": {"task", "tools", "schema"?}, "expected": {"nodes", "edges", ...}}`; if `tools` are names, a
`tools.json` beside the rows describes them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.metrics import Plan, argument_counts, f1, plan_score, step_plan_scores
from orchestra.learn.evaluation.metrics import Case, Metric

MAX_DESCRIPTION = 160
"""Characters of a tool's description that a model gets."""
MAX_TABLES = 2_000
"""Characters of a database's tables that a model gets."""


@dataclass(frozen=True)
class Face:
    """A tool, as a planner sees it."""

    name: str
    description: str = ""
    parameters: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Face:
        """Returns a tool of the sets; their parameters are JSON Schema or a plain mapping."""
        given = found.get("parameters") or {}
        known = given.get("properties", given) if isinstance(given, Mapping) else {}
        return cls(str(found["name"]), " ".join(str(found.get("description", "")).split()), tuple(map(str, known)))

    def __str__(self) -> str:
        told = (
            self.description
            if len(self.description) <= MAX_DESCRIPTION
            else self.description[: MAX_DESCRIPTION - 1] + "…"
        )
        return f"{self.name}({', '.join(self.parameters)}): {told}"


@dataclass(frozen=True)
class Task:
    """A request, its tools, and the correct plan, which no planner sees."""

    id: str
    text: str
    tools: tuple[Face, ...]
    gold: Plan
    tables: Mapping[str, Any] = field(default_factory=dict)
    """Tables of a database, if the request is about one: names and columns."""
    raw: Sequence[Mapping[str, Any]] = ()
    """The tools with all their data in the set."""

    @cached_property
    def names(self) -> frozenset[str]:
        """Returns the names of the offered tools."""
        return frozenset(tool.name for tool in self.tools)


@dataclass(frozen=True)
class Kind:
    """The kind of plans of a set."""

    steps: bool = False
    """Whether its nodes are steps in words instead of calls of tools."""
    chains: bool = False
    """Whether all plans are chains: then the lines of a planner without links are in sequence."""
    arguments: bool = False
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Published results on the complete dev split: `DATA/README.md`."""
    folder: str = ""
    """Its folder, if not one of its own name."""
    catalogue: bool = False
    """Whether every tool of the set is offered instead of the candidates of the row."""


KINDS: Mapping[str, Kind] = {
    "ultratool": Kind(
        chains=True,
        floors={"plan of the nearest train request": {"node-F1": 0.741, "link-F1": 0.446, "exact": 0.335}},
    ),
    "tmdb": Kind(chains=True, floors={"tool retrieval, chain": {"node-F1": 0.337, "link-F1": 0.059, "exact": 0.059}}),
    "sealtools": Kind(
        arguments=True,
        floors={"word overlap within the candidates": {"node-F1": 0.938, "argument-F1": 0.0, "link-F1, linked": 0.0}},
    ),
    "sealtools_catalogue": Kind(
        arguments=True,
        floors={"word overlap over all 4,076 tools": {"node-F1": 0.735}},
        folder="sealtools",
        catalogue=True,
    ),
    "worfbench": Kind(
        steps=True,
        floors={
            "one step per clause": {
                "node-F1": 0.325,
                "edge-F1": 0.140,
                "branching node-F1": 0.408,
                "branching edge-F1": 0.131,
            },
        },
    ),
}


@dataclass(frozen=True)
class PlanSet:
    """A set: rows to plan, and training plans if available."""

    name: str
    kind: Kind
    rows: tuple[Task, ...]
    train: tuple[Task, ...] = ()
    seed: int = 0
    whole: int = 0
    """Number of rows of the split, of which `rows` are a sample."""

    @classmethod
    def load(cls, data: Path, name: str, rows: int = 0, seed: int = 0) -> PlanSet:
        """Loads a set of `DATA`, with a seeded sample of that many dev rows; 0 for all. Raises `OSError` if it is
        missing.
        """
        kind = KINDS[name]
        folder = data / (kind.folder or name)
        known: dict[str, Mapping[str, Any]] = {}
        if (folder / "tools.json").exists():
            known = {tool["name"]: tool for tool in json.loads((folder / "tools.json").read_text("utf-8"))["tools"]}
        offered = list(known.values()) if kind.catalogue else None
        found = _tasks(folder / "dev.jsonl", known, offered)
        drawn = random.Random(seed).sample(found, min(rows or len(found), len(found)))
        train = _tasks(folder / "train.jsonl", known) if (folder / "train.jsonl").exists() else []
        return cls(name, kind, tuple(drawn), tuple(train), seed, len(found))

    @cached_property
    def metrics(self) -> list[Metric]:
        """Returns the metrics of plans, over cases whose expected record is the task's plan with the names of its
        tools.
        """
        if self.kind.steps:
            return [
                _mean("node-F1", lambda case: _of_steps(case)["node_f1"]),
                _mean("edge-F1", lambda case: _of_steps(case)["edge_f1"]),
                _mean("branching node-F1", lambda case: _of_steps(case)["node_f1"], "branching"),
                _mean("branching edge-F1", lambda case: _of_steps(case)["edge_f1"], "branching"),
            ]
        found = [_mean("node-F1", lambda case: _of_tools(case).node_f1)]
        if self.kind.arguments:
            found += [
                _mean("unseen tools, node-F1", lambda case: _of_tools(case).node_f1, "unseen_tools"),
                Metric("argument-F1", lambda case: argument_counts(case.expected, case.output or {}), _micro),
                _mean("link-F1, linked", lambda case: _of_tools(case).link_f1, "edges"),
            ]
        else:
            found.append(_mean("link-F1", lambda case: _of_tools(case).link_f1))
        return [
            *found,
            _mean("exact", lambda case: _of_tools(case).exact),
            _mean("hallucination", lambda case: _of_tools(case).strange, less=True),
        ]


def case_of(task: Task, plan: Plan | None) -> Case:
    """Returns a plan with the correct one; None, for a planner that failed, is an empty plan."""
    return Case({**task.gold, "names": task.names}, plan)


def _of_tools(case: Case) -> Any:
    return plan_score(case.expected, case.output or {}, case.expected["names"])


def _of_steps(case: Case) -> dict[str, float]:
    return step_plan_scores(case.expected, case.output or {})


def _mean(name: str, part: Any, where: str = "", less: bool = False) -> Metric:
    """Returns a mean over the cases; with `where`, over those whose plan satisfies it."""
    return Metric(name, lambda case: part(case) if not where or case.expected.get(where) else None, _average, less)


def _average(parts: Sequence[float]) -> float:
    return sum(parts) / len(parts) if parts else float("nan")


def _micro(parts: Sequence[tuple[int, int, int]]) -> float:
    return f1(*(sum(column) for column in zip(*parts, strict=True))) if parts else float("nan")


def _tasks(
    path: Path, known: Mapping[str, Mapping[str, Any]], offered: Sequence[Mapping[str, Any]] | None = None
) -> list[Task]:
    faces = tuple(map(Face.of, offered or ()))
    found = [_task(json.loads(line), known) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return found if offered is None else [replace(task, tools=faces, raw=offered) for task in found]


def _task(row: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Task:
    given = row["input"]
    tools = [known.get(tool, {"name": tool}) if isinstance(tool, str) else tool for tool in given["tools"]]
    return Task(row["id"], given["task"], tuple(map(Face.of, tools)), row["expected"], given.get("schema") or {}, tools)
