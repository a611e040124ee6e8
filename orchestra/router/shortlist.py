"""Shortlists: of a registry of thousands, the skills that a request is likely to need, few enough for a prompt.

What can be called at all comes first: skills whose arguments are at hand, may be stated, or are made by others that can be called. Of
these, what shares most words with the request (BM25 over names, descriptions and the names of arguments), and where they share as many a
tool that did not come with the package and another skill in turn, as they were listed; one at least that can read what was brought along,
where that is demanded; then, as long as there is room, what makes the values that those need and nobody has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from orchestra.router.capabilities import Offer, Scope, Skill, parts, statable
from orchestra.router.grounding import readers
from orchestra.router.plan_syntax import CUT, ELEMENT, Reference, Step
from orchestra.schema.types import Schema, branches, elements
from orchestra.tools import TOOLS
from orchestra.tools.search import scores

MOST = 16
"""Skills of a shortlist, where nothing else is said."""
PACKAGED = frozenset(tool.contract.name for tool in TOOLS)
"""Tools that come with the package."""
UNCALLABLE = "needs a value that is not at hand, and that nothing on offer gives"
UNLISTED = "is not on the shortlist"


def words(skill: Skill) -> str:
    """What a skill is found by; names are cut into their words."""
    names = " ".join([skill.name, *skill.fields])
    return f"{' '.join(CUT.findall(names))} {skill.description}"


def shortlist(offer: Offer, request: str, most: int = MOST) -> Offer:
    """The offer with the skills that a request is likely to need; as it is where it has few."""
    offer = _only(offer, reachable(offer), UNCALLABLE)
    if len(offer.skills) <= most:
        return offer
    skills = list(offer.skills.values())
    ranked, places = scores([words(one) for one in skills], request), _places(skills)
    order = [skills[index] for index in sorted(range(len(skills)), key=lambda index: (-ranked[index], places[index], index))]
    chosen = order[: max(1, most * 2 // 3)]
    reading = [one for name in offer.grounds for one in readers(offer, order, name)]
    if reading and not any(one in reading for one in chosen):
        chosen = [*chosen[:-1], min(reading, key=order.index)]
    return _only(offer, [one.name for one in _supplied(offer, chosen, order, most)], UNLISTED)


def _only(offer: Offer, names: Sequence[str], why: str) -> Offer:
    """The offer with these skills alone; of the others it is known why they are left out."""
    left_out = {name: ("R002", why) for name in offer.skills if name not in names}
    return replace(offer.of_only(names), left_out={**offer.left_out, **left_out})


def _places(skills: Sequence[Skill]) -> list[int]:
    """Where each stands of those that share as many words. By the list's order alone a tool of the project would stand behind all agents of
    the package; without such tools it is the list's order, which a router that was trained on the package's skills knows."""
    seen: Counter[bool] = Counter()
    found = []
    for one in skills:
        brought = one.kind != "tool" or one.name in PACKAGED
        found.append(2 * seen[brought] + brought)
        seen[brought] += 1
    return found


def nearest_skill(skills: Sequence[Skill], request: str) -> Skill | None:
    """The skill that shares most words with a request; None where none shares any."""
    found = scores([words(one) for one in skills], request)
    best = max(range(len(skills)), key=lambda at: found[at], default=0)
    return skills[best] if skills and found[best] > 0 else None


def reachable(offer: Offer) -> list[str]:
    """The skills that some plan can call, in their order."""
    at_hand = [kind for _, kind in Scope(offer).at_hand()]
    found: list[str] = []
    waiting = dict(offer.skills)
    while callable_ := [name for name, one in waiting.items() if _can_be_called(offer, one, at_hand)]:
        for name in callable_:
            skill = waiting.pop(name)
            for each in (None, Reference(ELEMENT)):
                at_hand += [kind for _, kind in Scope(offer, [Step("s1", skill.name, each=each)]).of_steps()]
        found += callable_
    return [name for name in offer.skills if name in found]


def _can_be_called(offer: Offer, skill: Skill, at_hand: Sequence[Schema]) -> bool:
    wanted = [kind for name, kind in skill.fields.items() if name in skill.required]
    return all(statable(kind) or _is_table(kind) or any(_suits(offer, have, kind) for have in at_hand) for kind in wanted)


def _is_table(kind: Schema) -> bool:
    """Whether a type is lists of what a plan may state. It states none; but what needs one is told, so that a router which is asked for it
    sees that it is not at hand, and declines."""
    return any(isinstance(inner := elements(one), dict) and statable(inner) for one in branches(kind) if one.get("type") == "array")


def _suits(offer: Offer, have: Schema, wanted: Schema) -> bool:
    """Whether a value is of a type, or the elements of a list are, or their parts."""
    if offer.proof.misfit(have, wanted) is None:
        return True
    inner = elements(have) if len(branches(have)) == 1 and branches(have)[0].get("type") == "array" else ""
    return isinstance(inner, dict) and any(offer.proof.misfit(kind, wanted) is None for _, kind in parts(Reference(ELEMENT), inner))


def _supplied(offer: Offer, chosen: Sequence[Skill], order: Sequence[Skill], most: int) -> list[Skill]:
    """The chosen ones, and those that give what they need and is not at hand; filled up in order of rank."""
    found = list(chosen)
    at_hand = Scope(offer).at_hand()
    for one in found:
        for name, kind in one.fields.items():
            if len(found) >= most or name not in one.required or any(offer.proof.misfit(have, kind) is None for _, have in at_hand):
                continue
            giver = next((other for other in order if _gives(offer, other, kind)), None)
            if giver is not None and giver not in found:
                found.append(giver)
    found += [one for one in order if one not in found][: most - len(found)]
    return [one for one in order if one in found]


def _gives(offer: Offer, skill: Skill, wanted: Schema) -> bool:
    """Whether a part of what a skill gives, or the list of what it gives for each element, is of a type."""
    scope = Scope(Offer({skill.name: skill}), [Step("s1", skill.name, each=Reference("x"))])
    if offer.proof.misfit(scope.steps["s1"], wanted) is None:
        return True
    scope = Scope(scope.offer, [Step("s1", skill.name)])
    return any(offer.proof.misfit(have, wanted) is None for _, have in scope.of_steps())
