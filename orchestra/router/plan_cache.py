"""The plan cache: a plan that answered one request, fitted to another one that wants the same of the same.

Two things must agree. The *shape* is what a plan may be made of: names and types of the values at hand, the type wanted, the skills with
the digests of their contracts, the router's, the limits; it is one digest. The *intent* is what is wanted: the words of the request. Two
requests have one intent where they are equal but for case, spaces, punctuation and Unicode form; or where they are so once their literals
are taken out: numbers, quoted texts, dates, and names. In the second case the constants of the plan are filled anew from the same places
of the new request, and only where that is certain: each literal that changed must be one that the plan copied, or (a name excepted) one
that it passes on with the whole request; each constant must be found in the old request; and what is found twice must have changed alike.
Whatever comes of it passes all gates again. A plan with a call that has effects serves the identical request only: equal but for Unicode
form and spaces. There a question mark, a sign or the case of a letter makes another request.

Pure: nothing is read or kept here. What was stored is data of strangers: it is checked as such, read by the notation, and never executed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from orchestra.core.events import NOTHING, Usage
from orchestra.router.capabilities import Offer, Skill
from orchestra.router.constants import Occurrences
from orchestra.router.intents import Intent, Pair, aligned
from orchestra.router.plan import Plan, plan_of
from orchestra.router.plan_syntax import ELEMENT, INPUT, Answer, Argument, Line, Literal, NotPlan, Reference, Step, read
from orchestra.router.prompt import MAX_REQUEST
from orchestra.router.validation import UNSERVED, judge
from orchestra.router.voting import Vote
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import branches
from orchestra.text.quotes import fold

FORMAT = "orchestra/plan/v2"
"""Of what is stored; part of every key, so that an older one is never met."""
MAX_LINES = 128
IGNORED = "R011"
"""The code of what was stored and is no plan, or cannot be read; it stops nobody."""


def ignored(why: str) -> str:
    """What is said of it."""
    return f"{IGNORED}: a stored plan is ignored: {why}"


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan as it is kept: its lines, the request that it was made for, and what it cost to make."""

    format: str = FORMAT
    shape: str
    request: str
    lines: tuple[str, ...]
    cost: Usage = NOTHING
    agree: int = 0
    """Samples that agreed on it, of `sampled`; 0 of 0 where none were drawn."""
    sampled: int = 0

    @property
    def vote(self) -> Vote | None:
        """How sure the plan is, where it was voted on."""
        return Vote(0, self.agree, self.sampled) if self.sampled else None


class Unfit(ValueError):
    """Why what was stored is no plan for this: `args[0]`. `foreign` says that it should not have been there at all."""

    def __init__(self, reason: str, *, foreign: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.foreign = reason, foreign


def shape(offer: Offer, router: str, *more: str) -> str:
    """The digest of what a plan may be made of, and by whom. `more` is whatever else keeps plans apart, such as a label."""
    skills = sorted((_told(skill) for skill in offer.skills.values()), key=lambda told: str(told[0]))
    limits = [offer.limits.steps, offer.limits.width]
    switches = [bool(offer.words), offer.declines, *(["grounded"] if offer.grounds else []), *(["each_part"] if offer.several else [])]
    switches += ["literals"] if offer.occurrences is None and any(one.acts for one in offer.skills.values()) else []
    return digest(canonical([FORMAT, dict(offer.values), offer.returns, skills, limits, *switches, router, *more]))


def _told(skill: Skill) -> list[Any]:
    return [skill.name, skill.kind, skill.digest, skill.description, dict(skill.fields), sorted(skill.required), skill.output]


def keys(request: str, of: str) -> tuple[str, ...]:
    """Under which keys a plan for a request of this shape is kept and looked for, the closest first; none for one that is too long."""
    if len(request) > MAX_REQUEST:
        return ()
    intent = Intent.of(request)
    return tuple(digest(canonical([FORMAT, of, kind, mark])) for kind, mark in (("same", intent.words), ("alike", intent.skeleton)))


def entry(plan: Plan, request: str, of: str, cost: Usage, won: Vote | None = None) -> dict[str, Any]:
    """What is stored of a plan: JSON."""
    lines = tuple(map(str, (*plan.steps, plan.answer)))
    agree, sampled = (won.votes, won.sampled) if won is not None else (0, 0)
    kept = Entry(shape=of, request=request, lines=lines, cost=cost, agree=agree, sampled=sampled)
    made: dict[str, Any] = msgspec.to_builtins(kept)
    return made


def recalled(stored: Any, request: str, offer: Offer, of: str, whole: Collection[str] = ("request",)) -> tuple[Plan, Entry]:
    """The plan that was stored, fitted to a request. `whole` names the inputs that are the request itself.

    Raises `Unfit` where it does not fit, or where what was stored is none of ours.
    """
    try:
        found = msgspec.convert(stored, Entry)
    except msgspec.ValidationError as error:
        raise Unfit(f"it is no stored plan: {error}", foreign=True) from error
    if found.format != FORMAT or found.shape != of or len(found.lines) > MAX_LINES or len(found.request) > MAX_REQUEST:
        raise Unfit("it is of another version or for something else", foreign=True)
    if min(found.cost.calls, found.cost.prompt_tokens, found.cost.output_tokens) < 0:
        raise Unfit("it says that it cost less than nothing", foreign=True)
    if not 0 <= found.agree <= found.sampled or (found.sampled and not found.agree):
        raise Unfit("it says that more samples agreed than there were", foreign=True)
    plan = _plan(found.lines)
    said = None if offer.occurrences is None else Occurrences(found.request)
    of_old = replace(offer, words=offer.words and found.request, several=None, occurrences=said)
    _gate(plan, of_old, foreign=True)  # its texts are pieces of the request that it was for
    if identical(found.request) != identical(request) and any(offer.skills[step.skill].acts for step in plan.steps):
        raise Unfit("it has effects, and the request is another one")
    fitted = _fitted(plan, found.request, request, offer, whole)
    _gate(fitted, offer)
    return fitted, found


def identical(request: str) -> str:
    """A request as a plan with effects is kept for it: in one Unicode form, its runs of white space as single spaces."""
    return " ".join(unicodedata.normalize("NFC", request).split())


def _plan(lines: Sequence[str]) -> Plan:
    try:
        plan = plan_of([read(line) for line in lines])
    except NotPlan as error:
        raise Unfit(f"it is no plan: {error.reason}", foreign=True) from error
    if plan is None:
        raise Unfit("it is no plan: it does not end with an answer", foreign=True)
    if not plan.answer.values:
        raise Unfit("it is no plan: it returns nothing", foreign=True)
    return plan


def _gate(plan: Plan, offer: Offer, *, foreign: bool = False) -> None:
    steps: tuple[Step, ...] = ()
    lines: tuple[Line, ...] = (*plan.steps, plan.answer)
    for line in lines:
        # Whoever made it was asked for a step for each part, and it was taken with what it leaves out.
        if faults := [one for one in judge(line, offer, steps) if one.code != UNSERVED]:
            raise Unfit(str(faults[0]), foreign=foreign)
        if isinstance(line, Step):
            steps = (*steps, line)


def _fitted(plan: Plan, old: str, new: str, offer: Offer, whole: Collection[str]) -> Plan:
    """The plan with its constants taken from the new request."""
    before, after = Intent.of(old), Intent.of(new)
    if before.words == after.words:
        filling = _Filling(before, after, aligned(before.flat, after.flat, before.text, after.text))
    elif before.skeleton == after.skeleton:
        filling = _Filling(before, after, aligned(before.named, after.named, before.text, after.text))
    else:
        raise Unfit("the requests differ in their words")
    steps = tuple(filling.step(step, offer.skills[step.skill]) for step in plan.steps)
    filling.account(plan, whole)
    return replace(plan, steps=steps)


class _Filling:
    """Constants of a plan, found in the request that it was made for, and read at the same places of another."""

    def __init__(self, before: Intent, after: Intent, pairs: tuple[Pair, ...]) -> None:
        self.before, self.after, self.pairs = before, after, pairs
        self.changed = tuple(pair for pair in pairs if pair.changed)
        self.counted = any(pair.old.kind[0] in ("number", "date") for pair in self.changed)
        self.used: set[int] = set()
        """Of the pairs whose literal the plan copied: where they begin."""

    def step(self, step: Step, skill: Skill) -> Step:
        arguments = {name: self.argument(value, skill, name) for name, value in step.arguments.items()}
        if not isinstance(step.each, Literal):
            return replace(step, arguments=arguments)
        choice = any(_chosen(skill, name) for name, value in step.arguments.items() if value == Reference(ELEMENT))
        return replace(step, arguments=arguments, each=Literal(self.constant(step.each.value, choice=choice)))

    def argument(self, value: Argument, skill: Skill, name: str) -> Argument:
        if isinstance(value, Reference):
            return value
        return Literal(self.constant(value.value, choice=_chosen(skill, name)))

    def constant(self, value: Any, *, choice: bool) -> Any:
        match value:
            case bool() | None:
                return value
            case int() | float():
                return self.number(value)
            case str():
                return self.text_of(value, choice=choice)
            case list():
                return [self.constant(one, choice=choice) for one in value]
            case _:
                raise Unfit("it states a record")

    def number(self, value: int | float) -> int | float:
        found: set[int | float] = set()
        for pair in self.pairs:
            if (read_as := pair.number(value)) is not None:
                found.add(read_as)
                self.used.add(pair.old.start)
        if len(found) > 1:
            raise Unfit(f"{value} stands in the request more than once, and did not change alike")
        if not found and self.counted and value not in self.before.written:
            raise Unfit(f"{value} is no number of the request, and may follow from one that changed")
        return next(iter(found), value)

    def text_of(self, value: str, *, choice: bool) -> str:
        places = self.before.places(value)
        found = set()
        for start, end in places:
            begin, stop = self.at(start), self.at(end)
            if begin is None or stop is None or begin > stop:
                raise Unfit(f"{value!r} is a part of what changed")
            said = self.after.text[begin:stop]
            found.add(value if choice and fold(said).text == fold(value).text else said)
            self.used |= {pair.old.start for pair in self.changed if start <= pair.old.start_inside and pair.old.end_inside <= end}
        if len(found) > 1:
            raise Unfit(f"{value!r} stands in the request more than once, and did not change alike")
        if not found and self.changed and not choice:
            raise Unfit(f"{value!r} does not stand in the request, and may follow from what changed")
        return next(iter(found), value)

    def at(self, place: int) -> int | None:
        """Where a place of the old request is in the new one; None in the midst of what changed."""
        return next((found for pair in self.pairs if (found := pair.at(place)) is not None), None)

    def account(self, plan: Plan, whole: Collection[str]) -> None:
        """Refuses a plan that may rest on a literal that changed without having copied it."""
        passed = any(Reference(INPUT, (name,)) in step.references for name in whole for step in plan.used)
        structure = set(_numbers_of(plan))
        for pair in self.changed:
            if pair.old.start in self.used:
                continue
            said = self.before.text[pair.old.start : pair.old.end]
            if pair.old.kind[0] == "name" or not passed:
                raise Unfit(f"the plan does not carry {said!r}")
            if pair.old.values & structure:
                raise Unfit(f"{said!r} may stand behind how the plan is built")


def _numbers_of(plan: Plan) -> Iterator[int]:
    """Numbers that a plan's build could come from: places in lists, counted from 0 and from 1, how long the lists are that it states to go
    over, and how many steps there are of a kind."""
    lines: Iterable[Step | Answer] = (*plan.steps, plan.answer)
    for line in lines:
        for reference in line.values if isinstance(line, Answer) else [*line.references, *_inside(line.arguments)]:
            for part in reference.path:
                if isinstance(part, int):
                    yield from (part, part + 1)
    yield from (len(step.each.value) for step in plan.steps if isinstance(step.each, Literal))
    skills = [step.skill for step in plan.steps]
    yield from {len(skills), *map(skills.count, skills)} - {1}


def _chosen(skill: Skill, name: str) -> bool:
    """Whether an argument is a choice."""
    return any("enum" in one or "const" in one for one in branches(skill.fields[name]))


def _inside(arguments: Mapping[str, Argument]) -> list[Reference]:
    return [value for value in arguments.values() if isinstance(value, Reference)]
