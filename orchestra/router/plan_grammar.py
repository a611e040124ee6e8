"""The grammar of the next step of a plan: Lark, as llguidance reads it, compiled from the types of what is at hand.

A step can only name a skill of the offer, only give it arguments that it has, and each of them only a value that its type takes: a
part of an input or of an earlier step whose type is assignable, or a constant. So no plan that is decoded under it has a phantom
skill, a cycle or an ill-typed reference. Nor is a call that stands already written again. Constants are texts, numbers, truth values,
choices and lists of them, each of a bounded length, so that a line ends within the token limit of the one who writes it; a plan invents
no records, and no tables, least of all documents. A list to go over, `for x in ["…", "…"]`, has constants that the arguments which are
given `x` could have had themselves.

`step_grammar` knows the types of all earlier steps. `plan_grammar` is for the whole plan at once, when these are not known yet: there a
reference to a step may still be of the wrong type, which the gates find.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from orchestra.agents.evidence_grammar import bounded, decodable, json_text, literal, quoted
from orchestra.router.capabilities import Offer, PossibleScope, Scope, Skill, free, parts, statable
from orchestra.router.constants import Occurrences
from orchestra.router.effects import constants, further, unasked
from orchestra.router.grounding import is_ground, is_whole, read_by_going_over
from orchestra.router.plan_syntax import COMPACT, ELEMENT, Answer, Argument, Literal, Reference, Step
from orchestra.schema.json_schema import NOTES, choices
from orchestra.schema.strict_json import canonical
from orchestra.schema.types import Schema, elements, under

MAX_TEXT = 200
"""Characters of a text that a plan states, where its type sets no limit."""
MAX_ANSWERS = 4
"""Values of an answer."""
MAX_ITEMS = 8
"""Elements of a list that a plan states."""
MAX_LISTED = 50
"""Characters of a text in a list that a plan states: a whole list is then no longer than two texts. Of a list to go over, whose length the
limits set, the elements share as many characters."""
_NUMBERS = {"integer": "-?(0|[1-9][0-9]{0,14})", "number": r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,8})?"}
"""Numbers as a plan states them: JSON would allow those that no machine holds."""
_OF_LISTS = NOTES | {"type", "items", "minItems", "maxItems"}
"""Keys of a type of lists that is written out here; any other is left to the server's own JSON."""

FEWEST = 2
"""Elements of a list to go over that a plan states: of one, it would be a plain call."""

BEGUN = "s"
"""What stands at the end of a reply where another step follows: the first letter of its name."""

Twins: TypeAlias = tuple[str, ...]
"""Names of earlier calls that a line is the same as so far. It must differ from each of them before it ends."""
Values: TypeAlias = Callable[[Schema, frozenset[str]], str | None]
"""What gives the rule of all values of a type but some; None where there are none."""
_ALL: frozenset[str] = frozenset()


class NoStep(ValueError):
    """Nothing of the offer can stand next: no skill whose arguments are at hand, and no value of the type wanted."""


def step_grammar(offer: Offer, steps: Sequence[Step] = (), *, begun: bool = False) -> str:
    """What may follow these steps: another step, or the answer where one is at hand. Raises `NoStep` where no step may.

    Behind a step may stand what comes next: the answer, which so needs no question of its own, or `s`, the beginning of another step, and
    all of it that is asked for now. With `begun` that `s` stands already. The last step that the limits leave room for is one that brings
    the answer about.
    """
    writer = _Writer(offer, steps)
    scope = Scope(offer, steps)
    choices = []
    answers = _answers(offer, scope)
    if answers and not begun:
        choices.append(writer.answer(answers))
    left = offer.limits.steps - len(steps)
    if left > 0:
        name = f"s{len(steps) + 1}"
        demands = writer.grounds(scope) if not steps else []
        skills = [skill for skill in offer.skills if left > 1 or answers or offer.brings(skill, each=False)]
        listed = [skill for skill in offer.skills if left > 1 or answers or offer.brings(skill, each=True)]
        calls = [f"{call} {writer.after(answers, name, skill, False, left > 1)}" for skill, call in writer.calls(scope, skills, demands)]
        over = [f"{call} {writer.after(answers, name, skill, True, left > 1)}" for skill, call in writer.mapped(scope, listed, demands)]
        calls += writer.bracketed(over)
        if calls:
            choices.append(
                writer.rule(f"{literal(name.removeprefix(BEGUN) if begun else name)} {literal(' = ')} {writer.rule(' | '.join(calls))}")
            )
    if not choices:
        raise NoStep("no skill of the offer can be called with the values at hand")
    if offer.declines and not steps:
        choices.append(literal(str(Answer(()))))
    begin = literal("\n") + " " if steps and not begun else ""
    return writer.text(begin + writer.rule(" | ".join(choices)))


def turn_grammar(offer: Offer, steps: Sequence[Step] = ()) -> str:
    """What an agent with tools may write next: another call, as long as the limits leave room for one, or the word `return`."""
    writer = _Writer(offer, steps)
    scope = Scope(offer, steps)
    choices = [literal("return")]
    if len(steps) < offer.limits.steps and (calls := writer.any_call(scope, offer.skills)):
        choices.append(writer.rule(f"{literal(f's{len(steps) + 1} = ')} {writer.rule(' | '.join(calls))}"))
    return writer.text(writer.rule(" | ".join(choices)))


def plan_grammar(offer: Offer) -> str:
    """A whole plan. Raises `NoStep` where no first step is possible."""
    writer = _Writer(offer)
    rest = ""
    for number in range(offer.limits.steps, 0, -1):
        before = [f"s{index}" for index in range(1, number)]
        scope = PossibleScope(offer, before)
        calls = writer.any_call(scope, offer.skills, writer.grounds(scope) if not before else [])
        here = f"{literal(f's{number} = ')} {writer.rule(' | '.join(calls))}" if calls else ""
        choices = [f"{here} {literal(chr(10))} {rest}"] if here and rest else []
        if before and (answers := _answers(offer, scope)):
            choices.append(writer.answer(answers))
        if here and not rest:  # the last step there is room for
            last = PossibleScope(offer, [*before, f"s{number}"])
            choices.append(f"{here} {literal(chr(10))} {writer.answer(_answers(offer, last))}")
        if not choices:
            raise NoStep("no skill of the offer can be called with the values at hand")
        if offer.declines and not before:
            choices.append(literal(str(Answer(()))))
        rest = writer.rule(" | ".join(choices))
    return writer.text(rest)


def _answers(offer: Offer, scope: Scope) -> list[Reference]:
    return [found for found, kind in scope.of_steps() if offer.proof.misfit(kind, offer.returns) is None]


class _Writer:
    """Rules, as they are asked for; equal ones are written once."""

    def __init__(self, offer: Offer, steps: Sequence[Step] = ()) -> None:
        self.offer = offer
        self.before = {step.name: step for step in steps}
        self.rules: dict[str, str] = {}
        self.terminals: dict[str, str] = {}
        self.known: set[str] = set()
        self.ends: dict[bytes, str] = {}
        self.sources: list[str] = []
        self.sorts: dict[bytes, Mapping[bytes, Schema]] = {}
        self.stated: dict[tuple[bytes, frozenset[str]], str | None] = {}

    def rule(self, body: str) -> str:
        return self.rules.setdefault(body, f"r{len(self.rules)}")

    def text(self, start: str) -> str:
        rules = [f"{name}: {body}" for body, name in self.rules.items()]
        terminals = [f"{name}: {body}" for body, name in self.terminals.items()]
        return "\n".join(["%llguidance {}", f"start: {start}", *rules, *terminals, *self.sources, ""])

    def answer(self, answers: Sequence[Reference]) -> str:
        """The last line: one value, or several where anything is wanted."""
        one = self.rule(_any(answers))
        more = f" ({literal(', ')} {one}){{0,{MAX_ANSWERS - 1}}}" if not self.offer.returns else ""
        return self.rule(f"{literal('return ')} {one}{more}")

    def grounds(self, scope: Scope) -> list[Values]:
        """What a first step is held to: that it reads one of the inputs that the offer says."""
        read = [(found, kind) for found, kind in scope.at_hand() if is_ground(self.offer, found)]
        return [self._values(read, stated=False)] if read else []

    def any_call(self, scope: Scope, skills: Iterable[str], demands: Sequence[Values] = ()) -> list[str]:
        """Calls, and calls of each element of a list."""
        chosen = list(skills)
        over = [rule for _, rule in self.mapped(scope, chosen, demands)]
        return [*(rule for _, rule in self.calls(scope, chosen, demands)), *self.bracketed(over)]

    def after(self, answers: Sequence[Reference], name: str, skill: str, each: bool, more: bool) -> str:
        """What comes behind a step of this name: the answer, of it or of those before it, or, where there may be `more`, another step."""
        kind = Scope(self.offer, [Step(name, skill, each=Reference(ELEMENT) if each else None)]).steps[name]
        mark = self.offer.proof.mark(kind)
        if mark not in self.ends:
            proof, wanted = self.offer.proof, self.offer.returns
            own = [found for found, inner in parts(Reference(name), kind) if proof.misfit(inner, wanted) is None]
            ways = [self.answer([*answers, *own])] if answers or own else []
            ways += [literal(BEGUN)] if more else []
            self.ends[mark] = f"({literal(chr(10))} {self.rule(' | '.join(ways))})?"
        return self.ends[mark]

    def calls(self, scope: Scope, skills: Iterable[str], demands: Sequence[Values] = ()) -> list[tuple[str, str]]:
        """One rule a skill that can be called with the values at hand, one of them of each of the `demands`, and not as an earlier step
        calls it."""
        values = {acts: self._given(scope, acts=acts) for acts in _EITHER}
        found = []
        for skill in skills:
            twins, one = self._calling(skill, each=False), self.offer.skills[skill]
            if one.acts and self.offer.occurrences is not None and (before := self._before(skill)):
                calls = [literal(str(call).partition(" = ")[2]) for call in further(before, one, self.offer.occurrences)]
                found += [(skill, self.rule(" | ".join(calls)))] if calls else []
            elif not self._barred(skill) and (body := self._arguments(one, values[one.acts], demands, twins, _closed)) is not None:
                found.append((skill, self.rule(f"{literal(skill + '(')} {body}")))
        return found

    def _given(self, scope: Scope, *, acts: bool) -> Values:
        """What a call may be given: one with effects what is at hand and no hearsay, and of constants those of the request."""
        return self._values(_sure(scope), constant=self._effect_constant) if acts else self._values(scope.at_hand())

    def _before(self, skill: str) -> list[Step]:
        return [step for step in self.before.values() if step.skill == skill]

    def _barred(self, skill: str) -> bool:
        """Whether the request asks for no call of a skill with effects."""
        return unasked(self.offer.skills[skill], self.offer) is not None

    def _bounded(self, skill: str) -> bool:
        """Whether it has effects that the request bounds."""
        return self.offer.skills[skill].acts and self.offer.occurrences is not None

    def bracketed(self, mapped: Sequence[str]) -> list[str]:
        """Calls of each element, behind their bracket: one choice among the plain ones, so that of a thousand skills none stands twice."""
        return [self.rule(f"{literal('[')} {self.rule(' | '.join(mapped))}")] if mapped else []

    def mapped(self, scope: Scope, skills: Iterable[str], demands: Sequence[Values] = ()) -> list[tuple[str, str]]:
        """One rule a skill, for what stands in the bracket of a call of each element of a list: of one at hand, or one that is stated."""
        chosen = list(skills)
        found: dict[str, list[str]] = {}
        for skill, body in (*self._over_those_at_hand(scope, chosen, demands), *self._over_stated(scope, chosen, demands)):
            found.setdefault(skill, []).append(body)
        return [(skill, self.rule(f"{literal(skill + '(')} {self.rule(' | '.join(bodies))}")) for skill, bodies in found.items()]

    def _over_those_at_hand(self, scope: Scope, chosen: Sequence[str], demands: Sequence[Values]) -> list[tuple[str, str]]:
        """The arguments of such calls, and their ends, by skill. Whoever goes over a ground and is given its elements has read it."""
        found = []
        for acts in _EITHER:
            skills = [one for one in chosen if self.offer.skills[one].acts is acts]
            skills = [one for one in skills if not self._bounded(one) or not (self._before(one) or self._barred(one))]
            found += self._over_lists(scope, skills, demands, acts=acts) if skills else []
        return found

    def _over_lists(self, scope: Scope, chosen: Sequence[str], demands: Sequence[Values], *, acts: bool) -> list[tuple[str, str]]:
        at_hand = _sure(scope) if acts else scope.at_hand()
        sorts: dict[tuple[bytes, bool, int], tuple[list[_Typed], list[Reference]]] = {}
        over = [one for one, _ in read_by_going_over(self.offer, self.offer.grounds)] if demands else []
        for reference, inner in scope.lists():
            every = [one for one in parts(Reference(ELEMENT), inner) if not (acts and scope.hearsay(*one, reference))]
            if every:  # of one type of elements it leaves the more out, the fewer there are
                sorts.setdefault((self.offer.proof.mark(inner), reference in over, len(every)), (every, []))[1].append(reference)
        found = []
        for (_, read, _), (every, lists) in sorts.items():
            ends = self._over(lists)
            stated = self._effect_constant if acts else self._constant
            ways = [(self._values(at_hand, constant=stated), [self._values(every, stated=False), *demands])]
            if read:
                whole = [one for one in every if is_whole(one[0])]
                ways.append((self._values([*at_hand, *every], constant=stated), [self._values(whole, stated=False)]))
            for skill in chosen:
                twins = tuple(twin for twin in self._calling(skill, each=True) if self.before[twin].each in lists)
                bodies = (self._arguments(self.offer.skills[skill], values, wanted, twins, ends) for values, wanted in ways)
                found += [(skill, body) for body in bodies if body is not None]
        return found

    def _over_stated(self, scope: Scope, chosen: Sequence[str], demands: Sequence[Values]) -> list[tuple[str, str]]:
        given = {acts: self._given(scope, acts=acts) for acts in _EITHER}
        found = []
        for skill in [one for one in chosen if not self._bounded(one)] if self.offer.limits.width >= FEWEST else ():
            one = self.offer.skills[skill]
            values = given[one.acts]
            for mark, sort in {mark: sort for field in one.fields.values() for mark, sort in self._sorts(field).items()}.items():
                twins = tuple(twin for twin in self._calling(skill, each=True) if self._goes_over(self.before[twin], mark))
                wanted = [self._element(mark), *demands]
                if (body := self._arguments(one, values, wanted, twins, self._of_stated(mark, sort))) is not None:
                    found.append((skill, body))
        return found

    def _sorts(self, kind: Schema) -> Mapping[bytes, Schema]:
        """Of the constants of a type, by their marks, those that a plan may state a list of to go over."""
        mark = self.offer.proof.mark(kind)
        if mark not in self.sorts:
            self.sorts[mark] = {canonical(sort): sort for sort in _sorts(kind)}
        return self.sorts[mark]

    def _goes_over(self, twin: Step, mark: bytes) -> bool:
        """Whether an earlier call goes over a list that was stated, and could have such constants in it."""
        given = [name for name, value in twin.arguments.items() if _of_element(value)]
        fields = self.offer.skills[twin.skill].fields
        return isinstance(twin.each, Literal) and all(mark in self._sorts(fields[name]) for name in given)

    def _element(self, mark: bytes) -> Values:
        """What gives the element of such a list to the arguments that could state it themselves, and to no others."""

        def values(kind: Schema, but: frozenset[str] = _ALL) -> str | None:
            return literal(ELEMENT) if mark in self._sorts(kind) and ELEMENT not in but else None

        return values

    def _of_stated(self, mark: bytes, sort: Schema) -> Callable[[Twins], str | None]:
        """How a call of each element of a list of such constants ends."""
        most = min(MAX_ITEMS, self.offer.limits.width)
        kind = {"type": "array", "items": sort, "minItems": FEWEST, "maxItems": most}

        def ends(twins: Twins) -> str | None:
            said = frozenset(str(self.before[twin].each) for twin in twins)
            if (mark, said) not in self.stated:
                lists = self._list(kind, said, min(MAX_TEXT, MAX_ITEMS * MAX_LISTED // most))
                over = literal(f") for {ELEMENT} in ")
                self.stated[mark, said] = f"{over} {self.rule(' | '.join(lists))} {literal(']')}" if lists else None
            return self.stated[mark, said]

        return ends

    def _calling(self, skill: str, *, each: bool) -> Twins:
        """The earlier calls of a skill, of each element or plain."""
        return tuple(name for name, one in self.before.items() if one.skill == skill and (one.each is not None) is each and not one.after)

    def _over(self, lists: Sequence[Reference]) -> Callable[[Twins], str | None]:
        """How a call of each element of one of these lists ends."""

        def ends(twins: Twins) -> str | None:
            left = [one for one in lists if all(one != self.before[twin].each for twin in twins)]
            return f"{literal(f') for {ELEMENT} in ')} {self.rule(_any(left))} {literal(']')}" if left else None

        return ends

    def _values(self, at_hand: Sequence[tuple[Reference, Schema]], *, stated: bool = True, constant: Values | None = None) -> Values:
        """What gives the rule of all values of a type: those at hand that fit, and constants where they may be `stated`."""
        known: dict[tuple[bytes, frozenset[str]], str | None] = {}
        proof = self.offer.proof

        def values(kind: Schema, but: frozenset[str] = _ALL) -> str | None:
            mark = proof.mark(kind), but
            if mark not in known:
                said = [str(reference) for reference, have in at_hand if proof.misfit(have, kind) is None]
                fitting = [literal(one) for one in said if one not in but]
                said_of = (constant or self._constant)(kind, but) if stated else None
                choices = list(dict.fromkeys([*fitting, *([said_of] if said_of else [])]))
                known[mark] = self.rule(" | ".join(choices)) if choices else None
            return known[mark]

        return values

    def _arguments(
        self, skill: Skill, values: Values, demands: Sequence[Values], twins: Twins, ends: Callable[[Twins], str | None]
    ) -> str | None:
        """The arguments of a call and what `ends` it; None where one that it needs cannot be given.

        Of each of the `demands`, such as parts of the element, at least one argument is a value. Written from the end: `rest` is what may
        follow, by whether no argument stands before it, by which demands are met (a bit each, that of elements the first), and by which of
        the `twins` has had the same arguments.
        """
        every = range(2 ** len(demands))
        fields = list(skill.fields.items())
        reached = [list(dict.fromkeys([twins, ()]))]  # no sets: a grammar is spelt the same in every process
        for name, _ in fields:
            after = [one for before in reached[-1] for one in (*self._same(before, name).values(), self._without(before, name))]
            reached.append(list(dict.fromkeys([(), *after])))
        rest = {(first, met, same): ends(same) if met == every[-1] else None for first in _EITHER for met in every for same in reached[-1]}
        for at in range(len(fields) - 1, -1, -1):
            name, kind = fields[at]
            here: dict[tuple[bool, int, Twins], str | None] = {}
            for first, met, same in ((first, met, same) for first in _EITHER for met in every for same in reached[at]):
                key = literal(f"{'' if first else ', '}{name}=")
                alike = self._same(same, name)
                others = frozenset(alike)
                ways = [(values(kind, others), rest[False, met, ()])]
                ways += [(demand(kind, others), rest[False, met | 1 << bit, ()]) for bit, demand in enumerate(demands)]
                for text, those in alike.items():
                    ways.append((literal(text), rest[False, met | _of_element(self.before[those[0]].arguments[name]), those]))
                options = [f"{key} {value} {tail}" for value, tail in ways if value and tail]
                if name not in skill.required and (without := rest[first, met, self._without(same, name)]):
                    options.append(without)
                here[first, met, same] = self.rule(" | ".join(options)) if options else None
            rest = here
        return rest[True, 0, twins]

    def _same(self, twins: Twins, name: str) -> Mapping[str, Twins]:
        """Twins by what they have for an argument, as it is spelt."""
        found: dict[str, Twins] = {}
        for twin in twins:
            if (value := self.before[twin].arguments.get(name)) is not None:
                found[str(value)] = (*found.get(str(value), ()), twin)
        return found

    def _without(self, twins: Twins, name: str) -> Twins:
        """Twins that leave an argument out."""
        return tuple(twin for twin in twins if name not in self.before[twin].arguments)

    def _constant(self, kind: Schema, but: frozenset[str] = _ALL, longest: int = MAX_TEXT) -> str | None:
        """The constants of a type that a plan may state, but these; None where there are none."""
        found: list[str] = []
        others: list[Schema] = []
        for one in statable(kind):
            plain = not one.keys() - NOTES - {"type"}
            if self.offer.words and free(one):
                found.append(self._but(self._words(longest), but))
            elif plain and one.get("type") in _NUMBERS:
                found.append(self._but(self._terminal(f"/{_NUMBERS[str(one['type'])]}/"), but))
            elif (values := choices(one)) is not None or (plain and one.get("type") == "boolean"):
                values = [True, False] if values is None else values
                found += [literal(text) for text in map(str, map(Literal, values)) if text not in but]
            elif one.get("type") == "array" and not one.keys() - _OF_LISTS - {"$defs"}:
                found += self._list(one, but)
            else:
                others.append(one)
        found += [self._json(others, longest)] if others else []
        return self.rule(" | ".join(dict.fromkeys(found))) if found else None

    def _effect_constant(self, kind: Schema, but: frozenset[str] = _ALL) -> str | None:
        """The constants of a type that a call with effects may be given, but these."""
        given = self.offer.occurrences
        if given is None:
            return self._constant(kind, but)
        found: list[str] = []
        for one in statable(kind):
            if free(one):
                found += [self._but(words, but)] if (words := self._of_request(given)) else []
            elif one.get("type") == "array" and not one.keys() & {"enum", "const"}:
                found += self._list_of_one(one, but)
            else:
                found += [literal(text) for text in map(str, map(Literal, constants(one, given))) if text not in but]
        return self.rule(" | ".join(dict.fromkeys(found))) if found else None

    def _list_of_one(self, kind: Schema, but: frozenset[str]) -> list[str]:
        """Lists of one constant of the request at most."""
        low, high, inner = int(kind.get("minItems", 0)), int(kind.get("maxItems", 1)), elements(kind)
        found = [literal("[]")] if not low and "[]" not in but else []
        item = self._effect_constant(under(kind, inner), _beginnings(but)) if isinstance(inner, dict) and low <= 1 <= high else None
        return [*found, *([f"{literal('[')} {item} {literal(']')}"] if item else [])]

    def _of_request(self, given: Occurrences) -> str:
        """A piece of the request for a call with effects, as JSON spells it; empty where it has none."""
        if (name := "PIECE") not in self.known:
            self.known.add(name)
            self.sources += given.rules(name, MAX_TEXT)
        return name if given.usable else ""

    def _list(self, kind: Schema, but: frozenset[str], longest: int = MAX_LISTED) -> list[str]:
        """Lists of constants, but these. A list begins otherwise than those that are left out: a grammar has no other words for it."""
        low = int(kind.get("minItems", 0))
        high = min(int(kind.get("maxItems", MAX_ITEMS)), max(low, MAX_ITEMS))
        inner = elements(kind)
        found = [literal("[]")] if not low and "[]" not in but else []
        if not isinstance(inner, dict) or not high:
            return found
        first, item = (self._constant(under(kind, inner), left_out, longest) for left_out in (_beginnings(but), _ALL))
        if first is not None:
            found.append(f"{literal('[')} {first} ({literal(', ')} {item}){{{max(low - 1, 0)},{high - 1}}} {literal(']')}")
        return found

    def _words(self, longest: int) -> str:
        """A piece of the request, as JSON spells it."""
        name = f"WORDS_{longest}"
        if name not in self.known:
            self.known.add(name)
            self.sources += [one for one in quoted(name, [self.offer.words], longest) if one not in self.sources]
        return name

    def _terminal(self, body: str) -> str:
        return self.terminals.setdefault(body, f"T{len(self.terminals)}")

    def _but(self, terminal: str, but: frozenset[str]) -> str:
        """A terminal without some texts."""
        if not but:
            return terminal
        return self._terminal(f"{terminal} & ~({' | '.join(literal(text) for text in sorted(but))})")

    def _json(self, stated: Sequence[Schema], longest: int) -> str:
        body: dict[str, Any] = dict(stated[0]) if len(stated) == 1 else {"anyOf": list(stated)}
        return self.rule(f"%json {json_text({**bounded(decodable(_limited(body)), longest), 'x-guidance': COMPACT})}")


def _beginnings(lists: Iterable[str]) -> frozenset[str]:
    """The first items of lists, as a plan spells them."""
    whole = (json.loads(one) for one in lists if one.startswith("["))
    return frozenset(str(Literal(one[0])) for one in whole if one)


def _sorts(kind: Schema) -> list[Schema]:
    """Of the constants of a type, those that a plan may state a list of to go over: neither truth values, of which there are two, nor what
    can have one value only."""
    bare = [{key: value for key, value in one.items() if key == "$defs" or key not in NOTES} for one in statable(kind)]
    return [one for one in bare if one.get("type") not in ("array", "boolean") and "const" not in one and len(one.get("enum", "..")) > 1]


_EITHER = (True, False)
_Typed: TypeAlias = tuple[Reference, Schema]


def _sure(scope: Scope) -> list[_Typed]:
    """What a call that acts may be given of what is at hand."""
    return [one for one in scope.at_hand() if not scope.hearsay(*one)]


def _closed(twins: Twins) -> str | None:
    """How a call ends: not as one that stands already."""
    return None if twins else literal(")")


def _of_element(value: Argument) -> bool:
    return isinstance(value, Reference) and value.root == ELEMENT


def _limited(kind: dict[str, Any]) -> dict[str, Any]:
    return {**kind, "maxItems": min(kind.get("maxItems", MAX_ITEMS), MAX_ITEMS)} if kind.get("type") == "array" else kind


def _any(references: Iterable[Reference]) -> str:
    return " | ".join(dict.fromkeys(literal(str(reference)) for reference in references))
