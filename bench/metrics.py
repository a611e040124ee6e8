"""Metrics of the benchmarks.

Answers: SQuAD's exact match and token F1 (https://arxiv.org/abs/1606.05250, section 5; its official script), and
ParallelQA's match of short answers (https://arxiv.org/abs/2312.04511, section 5.2; a number may differ by 1 %).

Plans, `{"nodes": [{"tool"} or {"step"}], "edges": [[producer, consumer]]}`: F1 of tools and of links by name as in
TaskBench (https://arxiv.org/abs/2311.18760, section 4) and GNN4TaskPlan (https://arxiv.org/abs/2405.19119), over bags
instead of sets, so that a repeated tool counts twice; F1 of arguments as triples (Seal-Tools,
https://arxiv.org/abs/2405.08355, section 4.2); free-text steps matched one to one as in WorfBench
(https://arxiv.org/abs/2410.07869, section 3.3), here by token F1 instead of sentence embeddings. Written from those
definitions for this repository, Apache-2.0; nothing is copied. All shares are in [0, 1].
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from orchestra.learn.evaluation.metrics import normalize_squad as squad_normalize
from orchestra.learn.evaluation.metrics import token_f1

__all__ = [
    "Plan",
    "PlanScore",
    "argument_counts",
    "argument_f1",
    "f1",
    "number_of",
    "plan_score",
    "plan_scores",
    "short_answer_match",
    "squad_normalize",
    "squad_scores",
    "step_plan_scores",
    "token_f1",
]

Plan: TypeAlias = Mapping[str, Any]
ALIKE = 0.5
"""Minimal token F1 of matching steps."""
NEAR = 0.01
"""Tolerated relative error of a number in ParallelQA."""
_FIGURE = re.compile(r"-?\d+(?:\.\d+)?")
_REFERENCE = "api_call_"
"""Prefix of a Seal-Tools argument that is another call's output."""


def f1(common: float, given: float, wanted: float) -> float:
    """Returns the F1 of counts; 1 if nothing was expected and nothing given."""
    return 2 * common / (given + wanted) if given + wanted else 1.0


def squad_scores(gold: Sequence[str], given: str | None) -> tuple[float, float]:
    """Returns exact match and F1 against the best gold answer. Without a gold answer only None or an empty text is
    correct.
    """
    answer = given or ""
    if not gold or not squad_normalize(answer):
        same = float(not gold and not squad_normalize(answer))
        return same, same
    return max(float(squad_normalize(one) == squad_normalize(answer)) for one in gold), max(
        token_f1(one, answer) for one in gold
    )


def number_of(value: Any) -> float | None:
    """Returns the number of a value or text, with or without digit grouping; None if it is not a number."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip().replace(",", "")
    return float(text) if _FIGURE.fullmatch(text) else None


def short_answer_match(gold: str, given: Any) -> bool:
    """Returns whether an answer is correct: a number within 1 %, a text in SQuAD's normal form."""
    wanted, found = number_of(gold), number_of(given)
    if wanted is not None:
        return found is not None and abs(wanted - found) <= max(1e-6, NEAR * abs(wanted))
    return given is not None and squad_normalize(gold) == squad_normalize(str(given))


# Plans


@dataclass(frozen=True, slots=True)
class PlanScore:
    """The scores of one tool plan. A plan without nodes scores 0."""

    node_f1: float
    link_f1: float
    """1 if neither plan has a link, and a plan was given."""
    links_wanted: bool
    """Whether the correct plan has links; only then the item counts for `link_f1_multi`."""
    exact: float
    """Same tools and same links."""
    strange: float
    """Share of nodes with an unknown tool."""


def plan_score(gold: Plan, given: Plan, tools: Collection[str] = ()) -> PlanScore:
    """Compares a tool plan with the correct one; `tools` are the known tools, to measure hallucination."""
    wanted, found = _names(gold), _names(given)
    wanted_links, found_links = _links(gold), _links(given)
    same = Counter(wanted) == Counter(found) and Counter(wanted_links) == Counter(found_links)
    strange = sum(name not in tools for name in found) / len(found) if found and tools else 0.0
    links = _bags(wanted_links, found_links) if wanted_links or found_links else float(bool(found))
    return PlanScore(_bags(wanted, found), links, bool(wanted_links), float(same), strange)


def plan_scores(gold: Sequence[Plan], given: Sequence[Plan], tools: Collection[str] = ()) -> dict[str, float]:
    """Returns the means over items; `link_f1_multi` over those whose correct plan has links, NaN without such."""
    scores = [plan_score(one, other, tools) for one, other in zip(gold, given, strict=True)]
    linked = [score.link_f1 for score in scores if score.links_wanted]
    return {
        "node_f1": _mean([score.node_f1 for score in scores]),
        "link_f1": _mean([score.link_f1 for score in scores]),
        "link_f1_multi": _mean(linked),
        "exact": _mean([score.exact for score in scores]),
        "hallucination": _mean([score.strange for score in scores]),
    }


def argument_f1(gold: Sequence[Plan], given: Sequence[Plan]) -> float:
    """Returns the micro F1 of (tool, argument, value), without arguments that are another call's output."""
    counts = [argument_counts(one, other) for one, other in zip(gold, given, strict=True)]
    return f1(*(sum(column) for column in zip(*counts, strict=True))) if counts else float("nan")


def argument_counts(gold: Plan, given: Plan) -> tuple[int, int, int]:
    """Returns for one item the number of common, given and expected triples."""
    wanted, found = _triples(gold), _triples(given)
    references = {triple[:2] for triple in wanted if _REFERENCE in triple[2]}
    wanted, found = (
        Counter({one: n for one, n in bag.items() if one[:2] not in references}) for bag in (wanted, found)
    )
    return (wanted & found).total(), found.total(), wanted.total()


def step_plan_scores(gold: Plan, given: Plan) -> dict[str, float]:
    """Returns `node_f1` and `edge_f1` of one plan of steps in words.

    Steps are matched one to one, most similar first, with a token F1 of at least 0.5. As in WorfBench, both plans get
    edges from a start to the steps without predecessors, and from steps without successors to an end; so a plan of
    parallel steps has edges too.
    """
    wanted, found = _names(gold), _names(given)
    pairs = sorted((-token_f1(one, other), i, j) for i, one in enumerate(wanted) for j, other in enumerate(found))
    matched: dict[int, int] = {}
    for unlike, i, j in pairs:
        if -unlike >= ALIKE and j not in matched and i not in matched.values():
            matched[j] = i
    ends = {-1: -1, -2: -2}
    wanted_edges, found_edges = _with_ends(gold), _with_ends(given)
    known = matched | ends
    common = {(known[i], known[j]) for i, j in found_edges if i in known and j in known} & wanted_edges
    return {
        "node_f1": f1(len(matched), len(found), len(wanted)),
        "edge_f1": f1(len(common), len(found_edges), len(wanted_edges)),
    }


def _names(plan: Plan) -> list[str]:
    return [str(node.get("tool", node.get("step", ""))) for node in plan.get("nodes", ())]


def _links(plan: Plan) -> list[tuple[str, str]]:
    names = _names(plan)
    return [(names[i], names[j]) for i, j in plan.get("edges", ()) if 0 <= i < len(names) and 0 <= j < len(names)]


def _bags(wanted: Sequence[Hashable], found: Sequence[Hashable]) -> float:
    return f1((Counter(wanted) & Counter(found)).total(), len(found), len(wanted))


def _triples(plan: Plan) -> Counter[tuple[str, str, str]]:
    """Returns (tool, argument, value in lower case) of all nodes; numbers are equal in any notation."""
    found: Counter[tuple[str, str, str]] = Counter()
    for node in plan.get("nodes", ()):
        for name, value in (node.get("arguments") or {}).items():
            number = number_of(value)
            text = (
                f"{number:.6g}"
                if number is not None
                else json.dumps(value, sort_keys=True, ensure_ascii=False).strip('"')
            )
            found[str(node.get("tool")), str(name), " ".join(text.casefold().split())] += 1
    return found


def _with_ends(plan: Plan) -> set[tuple[int, int]]:
    """Returns the edges with a start, -1, and an end, -2; empty for a plan without nodes."""
    edges = {(int(i), int(j)) for i, j in plan.get("edges", ())}
    nodes = range(len(plan.get("nodes", ())))
    starts = {(-1, node) for node in nodes if all(after != node for _, after in edges)}
    return edges | starts | {(node, -2) for node in nodes if all(before != node for before, _ in edges)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
