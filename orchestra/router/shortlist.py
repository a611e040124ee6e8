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
    ranked, places = bm25_scores([search_text(one) for one in skills], request), _tie_ranks(skills)
    order = [
        skills[index] for index in sorted(range(len(skills)), key=lambda index: (-ranked[index], places[index], index))
    ]
    chosen = order[: max(1, most * 2 // 3)]
    reading = [one for name in capabilities.grounds for one in readers(capabilities, order, name)]
    if reading and not any(one in reading for one in chosen):
        chosen = [*chosen[:-1], min(reading, key=order.index)]
    return _restrict(
        capabilities, [one.name for one in _add_suppliers(capabilities, chosen, order, most)], NOT_SHORTLISTED_REASON
    )


def _restrict(capabilities: Capabilities, names: Sequence[str], why: str) -> Capabilities:
    """Restricts the capabilities, and records why the others are excluded."""
    left_out = {name: ("R002", why) for name in capabilities.by_name if name not in names}
    return replace(capabilities.restricted_to(names), excluded={**capabilities.excluded, **left_out})


def _tie_ranks(skills: Sequence[Capability]) -> list[int]:
    """Ranks of capabilities that share equally many words with the request.

    By list order alone, a tool of the project would rank after all agents of the package. Without such tools the result
    is the list order, which a planner that was trained on the package's capabilities has seen.
    """
    seen: Counter[bool] = Counter()
    found = []
    for one in skills:
        brought = one.kind != "tool" or one.name in PACKAGE_TOOLS
        found.append(2 * seen[brought] + brought)
        seen[brought] += 1
    return found


def best_match(skills: Sequence[Capability], request: str) -> Capability | None:
    """Returns the capability that shares most words with a request; None if none shares any."""
    found = bm25_scores([search_text(one) for one in skills], request)
    best = max(range(len(skills)), key=lambda at: found[at], default=0)
    return skills[best] if skills and found[best] > 0 else None


def reachable(capabilities: Capabilities) -> list[str]:
    """Names of the capabilities that some plan can call, in order."""
    at_hand = [kind for _, kind in PlanScope(capabilities).available_values()]
    found: list[str] = []
    waiting = dict(capabilities.by_name)
    while callable_ := [name for name, one in waiting.items() if _is_callable(capabilities, one, at_hand)]:
        for name in callable_:
            capability = waiting.pop(name)
            for each in (None, PlanReference(ELEMENT)):
                at_hand += [
                    kind
                    for _, kind in PlanScope(capabilities, [PlanStep("s1", capability.name, each=each)]).step_values()
                ]
        found += callable_
    return [name for name in capabilities.by_name if name in found]


def _is_callable(capabilities: Capabilities, capability: Capability, at_hand: Sequence[Schema]) -> bool:
    wanted = [kind for name, kind in capability.fields.items() if name in capability.required]
    return all(
        statable_types(kind) or _is_table(kind) or any(_fits_type(capabilities, have, kind) for have in at_hand)
        for kind in wanted
    )


def _is_table(kind: Schema) -> bool:
    """Whether a type is lists of constants. A plan cannot state one. A capability that needs it is still listed, so
    that a planner sees that it is unavailable, and declines.
    """
    return any(
        isinstance(inner := element_type(one), dict) and statable_types(inner)
        for one in union_members(kind)
        if one.get("type") == "array"
    )


def _fits_type(capabilities: Capabilities, have: Schema, wanted: Schema) -> bool:
    """Whether a value, the elements of a list, or their parts are of a type."""
    if capabilities.assignability.mismatch(have, wanted) is None:
        return True
    inner = (
        element_type(have) if len(union_members(have)) == 1 and union_members(have)[0].get("type") == "array" else ""
    )
    return isinstance(inner, dict) and any(
        capabilities.assignability.mismatch(kind, wanted) is None
        for _, kind in reachable_parts(PlanReference(ELEMENT), inner)
    )


def _add_suppliers(
    capabilities: Capabilities, chosen: Sequence[Capability], order: Sequence[Capability], most: int
) -> list[Capability]:
    """Adds capabilities that produce required arguments which are not available, and fills up the list in order of
    rank.
    """
    found = list(chosen)
    at_hand = PlanScope(capabilities).available_values()
    for one in found:
        for name, kind in one.fields.items():
            if (
                len(found) >= most
                or name not in one.required
                or any(capabilities.assignability.mismatch(have, kind) is None for _, have in at_hand)
            ):
                continue
            giver = next((other for other in order if _produces(capabilities, other, kind)), None)
            if giver is not None and giver not in found:
                found.append(giver)
    found += [one for one in order if one not in found][: most - len(found)]
    return [one for one in order if one in found]


def _produces(capabilities: Capabilities, capability: Capability, wanted: Schema) -> bool:
    """Whether the output of a capability, a part of it, or a list of outputs is of a type."""
    scope = PlanScope(
        Capabilities({capability.name: capability}), [PlanStep("s1", capability.name, each=PlanReference("x"))]
    )
    if capabilities.assignability.mismatch(scope.steps["s1"], wanted) is None:
        return True
    scope = PlanScope(scope.capabilities, [PlanStep("s1", capability.name)])
    return any(capabilities.assignability.mismatch(have, wanted) is None for _, have in scope.step_values())
