"""Baseline planners without a language model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.metrics import Plan
from bench.plan_sets import PlanSet, Task
from orchestra.learn.evaluation.baselines import NearestRowBaseline

MOST = 3
"""Maximal number of tools of a retrieval."""
ENOUGH = 0.5
"""Minimal share of the best tool's score for another tool."""
_CLAUSE = re.compile(r"(?<=[.!?;])\s+|,?\s+(?:and then|then|and)\s+|,\s+", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_COMMON = frozenset(
    re.findall(
        r"\w+", "a an and are at by for from get i in is it me my of on or please that the this to what which with you"
    )
)


def chained(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the nodes as a chain."""
    return {"nodes": list(nodes), "edges": [[at, at + 1] for at in range(len(nodes) - 1)]}


@dataclass(frozen=True)
class _Row:
    """A training request and its plan."""

    input: Mapping[str, Any]
    output: Any


class NearestPlan:
    """The plan of the most similar training request, without tools that are not offered: cosine of TF-IDF vectors over
    words (Salton and Buckley 1988). What is left of a chain is a chain again.
    """

    name = "floor: plan of the nearest training request"

    def __init__(self, known: PlanSet) -> None:
        self._chains, self._steps = known.kind.chains, known.kind.steps
        self._nearest = NearestRowBaseline([_Row({"task": task.text}, task.gold) for task in known.train])

    def __call__(self, task: Task) -> Plan:
        plan: Plan = self._nearest({"task": task.text})
        kept = [at for at, node in enumerate(plan["nodes"]) if self._steps or node["tool"] in task.names]
        nodes = [plan["nodes"][at] for at in kept]
        if self._chains:
            return chained(nodes)
        place = {at: number for number, at in enumerate(kept)}
        return {"nodes": nodes, "edges": [[place[i], place[j]] for i, j in plan["edges"] if i in place and j in place]}


class Overlap:
    """The tools whose names and descriptions share most words with the request, weighted by rarity: those with at least
    half of the best score, three at most, in the order in which the request first names them. A chain if the set has
    chains.
    """

    name = "floor: word overlap"

    def __init__(self, known: PlanSet) -> None:
        self._chains = known.kind.chains

    def __call__(self, task: Task) -> Plan:
        asked = _words(task.text)
        said = {tool.name: set(_words(f"{tool.name} {tool.description}")) for tool in task.tools}
        seen = Counter(word for words in said.values() for word in words)
        weight = {word: math.log(1 + len(said) / count) for word, count in seen.items()}
        scores = {
            name: sum(weight[word] for word in words & set(asked))
            / math.sqrt(sum(weight[word] ** 2 for word in words) or 1.0)
            for name, words in said.items()
        }
        best = max(scores.values(), default=0.0)
        taken = [
            name for name in sorted(scores, key=lambda name: -scores[name]) if scores[name] >= max(1e-9, ENOUGH * best)
        ][:MOST]
        taken.sort(key=lambda name: min(asked.index(word) for word in said[name] & set(asked)))
        nodes = [{"tool": name} for name in taken]
        return chained(nodes) if self._chains else {"nodes": nodes, "edges": []}


class Clauses:
    """One step for each clause of the request, in sequence."""

    name = "floor: one step per clause"

    def __init__(self, known: PlanSet) -> None:
        pass

    def __call__(self, task: Task) -> Plan:
        return chained([{"step": clause.strip()} for clause in _CLAUSE.split(task.text) if len(clause.split()) > 1])


def floors(known: PlanSet) -> list[NearestPlan | Overlap | Clauses]:
    """Returns the baselines that a set allows."""
    found: list[NearestPlan | Overlap | Clauses] = [NearestPlan(known)] if known.train else []
    return [*found, Clauses(known) if known.kind.steps else Overlap(known)]


def _words(text: str) -> list[str]:
    """Returns words in lower case, split where their case changes, without a plural's end."""
    found = (word.lower() for word in _WORD.findall(text))
    return [word.rstrip("s") for word in found if word not in _COMMON]
