"""Shortlists: of thousands of capabilities, the few that a request is likely to need, so that they fit into a prompt.

First come the capabilities that can be called at all: their arguments are available, may be constants, or are outputs
of other callable ones. They are ranked by words in common with the request (BM25 over names, descriptions and argument
names). Ties alternate between tools of the project and other capabilities, in the order of the list. If a first step
must read an input, at least one capability that can read it is included. The remaining places go to capabilities whose
outputs the chosen ones need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from orchestra.documents.ranking import bm25_scores
from orchestra.router.capabilities import Capabilities, Capability, PlanScope, reachable_parts, statable_types
from orchestra.router.grounding import readers
from orchestra.router.plan_syntax import ELEMENT, NAME_WORDS, PlanReference, PlanStep
from orchestra.schema.types import Schema, element_type, union_members
from orchestra.tools import BUILTIN_TOOLS

MAX_SHORTLIST = 16
"""Default size of a shortlist."""
PACKAGE_TOOLS = frozenset(BUILTIN_TOOLS)
"""Names of the tools in this package."""
UNCALLABLE_REASON = "needs a value that is not available, and that no capability produces"
NOT_SHORTLISTED_REASON = "is not on the shortlist"


def search_text(capability: Capability) -> str:
    """Search text of a capability, with names split into words."""
    names = " ".join([capability.name, *capability.fields])
    return f"{' '.join(NAME_WORDS.findall(names))} {capability.description}"


def shortlist(capabilities: Capabilities, request: str, most: int = MAX_SHORTLIST) -> Capabilities:
    """Returns the capabilities that a request is likely to need; unchanged if there are few."""
    capabilities = _restrict(capabilities, reachable(capabilities), UNCALLABLE_REASON)
    if len(capabilities.by_name) <= most:
        return capabilities
    skills = list(capabilities.by_name.values())
    scores, places = bm25_scores([search_text(skill) for skill in skills], request), _tie_ranks(skills)
    order = [
        skills[index] for index in sorted(range(len(skills)), key=lambda index: (-scores[index], places[index], index))
    ]
    candidates = order[: max(1, most * 2 // 3)]
    reading = [reader for name in capabilities.grounds for reader in readers(capabilities, order, name)]
    if reading and not any(capability in reading for capability in candidates):
        candidates = [*candidates[:-1], min(reading, key=order.index)]
    return _restrict(
        capabilities,
        [supplier.name for supplier in _add_suppliers(capabilities, candidates, order, most)],
        NOT_SHORTLISTED_REASON,
    )


def _restrict(capabilities: Capabilities, names: Sequence[str], reason: str) -> Capabilities:
    """Restricts the capabilities, and records why the others are excluded."""
    left_out = {name: ("R002", reason) for name in capabilities.by_name if name not in names}
    return replace(capabilities.restricted_to(names), excluded={**capabilities.excluded, **left_out})


def _tie_ranks(skills: Sequence[Capability]) -> list[int]:
    """Ranks of capabilities that share equally many words with the request.

    By list order alone, a tool of the project would rank after all agents of the package. Without such tools the result
    is the list order, which a planner that was trained on the package's capabilities has seen.
    """
    counts: Counter[bool] = Counter()
    tie_ranks = []
    for skill in skills:
        brought = skill.kind != "tool" or skill.name in PACKAGE_TOOLS
        tie_ranks.append(2 * counts[brought] + brought)
        counts[brought] += 1
    return tie_ranks


def best_match(skills: Sequence[Capability], request: str) -> Capability | None:
    """Returns the capability that shares most words with a request; None if none shares any."""
    scores = bm25_scores([search_text(skill) for skill in skills], request)
    best = max(range(len(skills)), key=lambda at: scores[at], default=0)
    return skills[best] if skills and scores[best] > 0 else None


def reachable(capabilities: Capabilities) -> list[str]:
    """Names of the capabilities that some plan can call, in order."""
    at_hand = [kind for _, kind in PlanScope(capabilities).available_values()]
    reached_names: list[str] = []
    pending = dict(capabilities.by_name)
    while callable_ := [name for name, candidate in pending.items() if _is_callable(capabilities, candidate, at_hand)]:
        for name in callable_:
            capability = pending.pop(name)
            for element in (None, PlanReference(ELEMENT)):
                at_hand += [
                    kind
                    for _, kind in PlanScope(
                        capabilities, [PlanStep("s1", capability.name, each=element)]
                    ).step_values()
                ]
        reached_names += callable_
    return [name for name in capabilities.by_name if name in reached_names]


def _is_callable(capabilities: Capabilities, capability: Capability, at_hand: Sequence[Schema]) -> bool:
    fields = [kind for name, kind in capability.fields.items() if name in capability.required]
    return all(
        statable_types(kind)
        or _is_table(kind)
        or any(_fits_type(capabilities, value_kind, kind) for value_kind in at_hand)
        for kind in fields
    )


def _is_table(kind: Schema) -> bool:
    """Whether a type is lists of constants. A plan cannot state one. A capability that needs it is still listed, so
    that a planner sees that it is unavailable, and declines.
    """
    return any(
        isinstance(inner := element_type(branch), dict) and statable_types(inner)
        for branch in union_members(kind)
        if branch.get("type") == "array"
    )


def _fits_type(capabilities: Capabilities, actual: Schema, expected: Schema) -> bool:
    """Whether a value, the elements of a list, or their parts are of a type."""
    if capabilities.assignability.mismatch(actual, expected) is None:
        return True
    inner = (
        element_type(actual)
        if len(union_members(actual)) == 1 and union_members(actual)[0].get("type") == "array"
        else ""
    )
    return isinstance(inner, dict) and any(
        capabilities.assignability.mismatch(kind, expected) is None
        for _, kind in reachable_parts(PlanReference(ELEMENT), inner)
    )


def _add_suppliers(
    capabilities: Capabilities, selection: Sequence[Capability], order: Sequence[Capability], max_count: int
) -> list[Capability]:
    """Adds capabilities that produce required arguments which are not available, and fills up the list in order of
    rank.
    """
    extended_selection = list(selection)
    at_hand = PlanScope(capabilities).available_values()
    for capability in extended_selection:
        for name, kind in capability.fields.items():
            if (
                len(extended_selection) >= max_count
                or name not in capability.required
                or any(capabilities.assignability.mismatch(value_kind, kind) is None for _, value_kind in at_hand)
            ):
                continue
            giver = next(
                (other_capability for other_capability in order if _produces(capabilities, other_capability, kind)),
                None,
            )
            if giver is not None and giver not in extended_selection:
                extended_selection.append(giver)
    extended_selection += [capability for capability in order if capability not in extended_selection][
        : max_count - len(extended_selection)
    ]
    return [capability for capability in order if capability in extended_selection]


def _produces(capabilities: Capabilities, capability: Capability, kind: Schema) -> bool:
    """Whether the output of a capability, a part of it, or a list of outputs is of a type."""
    scope = PlanScope(
        Capabilities({capability.name: capability}), [PlanStep("s1", capability.name, each=PlanReference("x"))]
    )
    if capabilities.assignability.mismatch(scope.steps["s1"], kind) is None:
        return True
    scope = PlanScope(scope.capabilities, [PlanStep("s1", capability.name)])
    return any(capabilities.assignability.mismatch(value_kind, kind) is None for _, value_kind in scope.step_values())
