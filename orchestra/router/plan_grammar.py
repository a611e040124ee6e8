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

from orchestra.agents.evidence_grammar import (
    ascii_json,
    grammar_literal,
    limit_texts,
    quote_rules,
    strip_unknown_formats,
)
from orchestra.router.capabilities import (
    Capabilities,
    Capability,
    PlanScope,
    PossiblePlanScope,
    is_free_text,
    reachable_parts,
    statable_types,
)
from orchestra.router.constants import RequestIndex
from orchestra.router.effects import allowed_constants, further_calls, unrequested_effect
from orchestra.router.grounding import is_ground, is_whole, iterable_grounds
from orchestra.router.plan_syntax import (
    ELEMENT,
    JSON_SPACING,
    Argument,
    PlanAnswer,
    PlanLiteral,
    PlanReference,
    PlanStep,
)
from orchestra.schema.json_schema import ANNOTATION_KEYWORDS, enum_values
from orchestra.schema.strict_json import canonical
from orchestra.schema.types import Schema, element_type, subschema

MAX_TEXT_LENGTH = 200
"""Characters of a text that a plan states, where its type sets no limit."""
MAX_ANSWERS = 4
"""Values of an answer."""
MAX_ITEMS = 8
"""Elements of a list that a plan states."""
MAX_ITEM_LENGTH = 50
"""Characters of a text in a list that a plan states: a whole list is then no longer than two texts. Of a list to go over, whose length the
limits set, the elements share as many characters."""
_NUMBERS = {"integer": "-?(0|[1-9][0-9]{0,14})", "number": r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,8})?"}
"""Numbers as a plan states them: JSON would allow those that no machine holds."""
_LIST_KEYS = ANNOTATION_KEYWORDS | {"type", "items", "minItems", "maxItems"}
"""Keys of a type of lists that is written out here; any other is left to the server's own JSON."""

MIN_EACH_ITEMS = 2
"""Elements of a list to go over that a plan states: of one, it would be a plain call."""

STEP_PREFIX = "s"
"""What stands at the end of a reply where another step follows: the first letter of its name."""

MatchingCalls: TypeAlias = tuple[str, ...]
"""Names of earlier calls that a line is the same as so far. It must differ from each of them before it ends."""
ValueRule: TypeAlias = Callable[[Schema, frozenset[str]], str | None]
"""What gives the rule of all values of a type but some; None where there are none."""
_NONE_EXCLUDED: frozenset[str] = frozenset()


class NoValidStepError(ValueError):
    """Nothing of the offer can stand next: no skill whose arguments are at hand, and no value of the type wanted."""


def step_grammar(capabilities: Capabilities, steps: Sequence[PlanStep] = (), *, step_started: bool = False) -> str:
    """What may follow these steps: another step, or the answer where one is at hand. Raises `NoValidStepError` where no step may.

    A step may be followed by the answer, which then needs no request of its own, or by `s`, the beginning of the next
    step. With `step_started` that `s` is already written. The last step within the limits must produce the answer.
    """
    writer = _GrammarWriter(capabilities, steps)
    scope = PlanScope(capabilities, steps)
    choices = []
    answers = _answer_references(capabilities, scope)
    if answers and not step_started:
        choices.append(writer.answer(answers))
    left = capabilities.limits.steps - len(steps)
    if left > 0:
        name = f"s{len(steps) + 1}"
        demands = writer.ground_demands(scope) if not steps else []
        names = [
            capability
            for capability in capabilities.by_name
            if left > 1 or answers or capabilities.produces_output(capability, each=False)
        ]
        listed = [
            capability
            for capability in capabilities.by_name
            if left > 1 or answers or capabilities.produces_output(capability, each=True)
        ]
        calls = [
            f"{call} {writer.step_end(answers, name, capability, False, left > 1)}"
            for capability, call in writer.call_rules(scope, names, demands)
        ]
        over = [
            f"{call} {writer.step_end(answers, name, capability, True, left > 1)}"
            for capability, call in writer.map_call_rules(scope, listed, demands)
        ]
        calls += writer.bracket_rules(over)
        if calls:
            choices.append(
                writer.rule(
                    f"{grammar_literal(name.removeprefix(STEP_PREFIX) if step_started else name)} {grammar_literal(' = ')} "
                    f"{writer.rule(' | '.join(calls))}"
                )
            )
    if not choices:
        raise NoValidStepError("no skill of the offer can be called with the values at hand")
    if capabilities.may_decline and not steps:
        choices.append(grammar_literal(str(PlanAnswer(()))))
    begin = grammar_literal("\n") + " " if steps and not step_started else ""
    return writer.render(begin + writer.rule(" | ".join(choices)))


def turn_grammar(capabilities: Capabilities, steps: Sequence[PlanStep] = ()) -> str:
    """What an agent with tools may write next: another call, as long as the limits leave room for one, or the word `return`."""
    writer = _GrammarWriter(capabilities, steps)
    scope = PlanScope(capabilities, steps)
    choices = [grammar_literal("return")]
    if len(steps) < capabilities.limits.steps and (calls := writer.all_calls(scope, capabilities.by_name)):
        choices.append(writer.rule(f"{grammar_literal(f's{len(steps) + 1} = ')} {writer.rule(' | '.join(calls))}"))
    return writer.render(writer.rule(" | ".join(choices)))


def plan_grammar(capabilities: Capabilities) -> str:
    """A whole plan. Raises `NoValidStepError` where no first step is possible."""
    writer = _GrammarWriter(capabilities)
    rest = ""
    for number in range(capabilities.limits.steps, 0, -1):
        before = [f"s{index}" for index in range(1, number)]
        scope = PossiblePlanScope(capabilities, before)
        calls = writer.all_calls(scope, capabilities.by_name, writer.ground_demands(scope) if not before else [])
        here = f"{grammar_literal(f's{number} = ')} {writer.rule(' | '.join(calls))}" if calls else ""
        choices = [f"{here} {grammar_literal(chr(10))} {rest}"] if here and rest else []
        if before and (answers := _answer_references(capabilities, scope)):
            choices.append(writer.answer(answers))
        if here and not rest:  # the last step there is room for
            last = PossiblePlanScope(capabilities, [*before, f"s{number}"])
            choices.append(f"{here} {grammar_literal(chr(10))} {writer.answer(_answer_references(capabilities, last))}")
        if not choices:
            raise NoValidStepError("no skill of the offer can be called with the values at hand")
        if capabilities.may_decline and not before:
            choices.append(grammar_literal(str(PlanAnswer(()))))
        rest = writer.rule(" | ".join(choices))
    return writer.render(rest)


def _answer_references(capabilities: Capabilities, scope: PlanScope) -> list[PlanReference]:
    return [
        found
        for found, kind in scope.step_values()
        if capabilities.assignability.mismatch(kind, capabilities.output_type) is None
    ]


class _GrammarWriter:
    """Rules, as they are asked for; equal ones are written once."""

    def __init__(self, capabilities: Capabilities, steps: Sequence[PlanStep] = ()) -> None:
        self.offer = capabilities
        self.earlier_steps = {step.name: step for step in steps}
        self.rules: dict[str, str] = {}
        self.terminals: dict[str, str] = {}
        self.defined_terminals: set[str] = set()
        self.step_ends: dict[bytes, str] = {}
        self.extra_rules: list[str] = []
        self.element_types: dict[bytes, Mapping[bytes, Schema]] = {}
        self.list_endings: dict[tuple[bytes, frozenset[str]], str | None] = {}

    def rule(self, body: str) -> str:
        return self.rules.setdefault(body, f"r{len(self.rules)}")

    def render(self, start: str) -> str:
        rules = [f"{name}: {body}" for body, name in self.rules.items()]
        terminals = [f"{name}: {body}" for body, name in self.terminals.items()]
        return "\n".join(["%llguidance {}", f"start: {start}", *rules, *terminals, *self.extra_rules, ""])

    def answer(self, answers: Sequence[PlanReference]) -> str:
        """The last line: one value, or several where anything is wanted."""
        one = self.rule(_alternatives(answers))
        more = f" ({grammar_literal(', ')} {one}){{0,{MAX_ANSWERS - 1}}}" if not self.offer.output_type else ""
        return self.rule(f"{grammar_literal('return ')} {one}{more}")

    def ground_demands(self, scope: PlanScope) -> list[ValueRule]:
        """What a first step is held to: that it reads one of the inputs that the offer says."""
        read = [(found, kind) for found, kind in scope.available_values() if is_ground(self.offer, found)]
        return [self._value_rule(read, stated=False)] if read else []

    def all_calls(self, scope: PlanScope, skills: Iterable[str], demands: Sequence[ValueRule] = ()) -> list[str]:
        """Calls, and calls of each element of a list."""
        chosen = list(skills)
        over = [rule for _, rule in self.map_call_rules(scope, chosen, demands)]
        return [*(rule for _, rule in self.call_rules(scope, chosen, demands)), *self.bracket_rules(over)]

    def step_end(self, answers: Sequence[PlanReference], name: str, capability: str, each: bool, more: bool) -> str:
        """What comes behind a step of this name: the answer, of it or of those before it, or, where there may be `more`, another step."""
        kind = PlanScope(self.offer, [PlanStep(name, capability, each=PlanReference(ELEMENT) if each else None)]).steps[
            name
        ]
        type_key = self.offer.assignability.schema_key(kind)
        if type_key not in self.step_ends:
            proof, wanted = self.offer.assignability, self.offer.output_type
            own = [
                found
                for found, inner in reachable_parts(PlanReference(name), kind)
                if proof.mismatch(inner, wanted) is None
            ]
            ways = [self.answer([*answers, *own])] if answers or own else []
            ways += [grammar_literal(STEP_PREFIX)] if more else []
            self.step_ends[type_key] = f"({grammar_literal(chr(10))} {self.rule(' | '.join(ways))})?"
        return self.step_ends[type_key]

    def call_rules(
        self, scope: PlanScope, skills: Iterable[str], demands: Sequence[ValueRule] = ()
    ) -> list[tuple[str, str]]:
        """One rule a skill that can be called with the values at hand, one of them of each of the `demands`, and not as an earlier step
        calls it."""
        values = {acts: self._allowed_values(scope, acts=acts) for acts in _BOOLEANS}
        found = []
        for capability in skills:
            twins, one = self._matching_calls(capability, each=False), self.offer.by_name[capability]
            if one.has_effects and self.offer.request_index is not None and (before := self._earlier_calls(capability)):
                calls = [
                    grammar_literal(str(call).partition(" = ")[2])
                    for call in further_calls(before, one, self.offer.request_index)
                ]
                found += [(capability, self.rule(" | ".join(calls)))] if calls else []
            elif (
                not self._is_unrequested(capability)
                and (body := self._argument_rule(one, values[one.has_effects], demands, twins, _call_end)) is not None
            ):
                found.append((capability, self.rule(f"{grammar_literal(capability + '(')} {body}")))
        return found

    def _allowed_values(self, scope: PlanScope, *, acts: bool) -> ValueRule:
        """What a call may be given: one with effects what is at hand and no hearsay, and of constants those of the request."""
        return (
            self._value_rule(_trusted_values(scope), constant=self._effect_constant_rule)
            if acts
            else self._value_rule(scope.available_values())
        )

    def _earlier_calls(self, capability: str) -> list[PlanStep]:
        return [step for step in self.earlier_steps.values() if step.capability == capability]

    def _is_unrequested(self, capability: str) -> bool:
        """Whether the request asks for no call of a skill with effects."""
        return unrequested_effect(self.offer.by_name[capability], self.offer) is not None

    def _is_request_bound(self, capability: str) -> bool:
        """Whether it has effects that the request bounds."""
        return self.offer.by_name[capability].has_effects and self.offer.request_index is not None

    def bracket_rules(self, mapped: Sequence[str]) -> list[str]:
        """Calls of each element, behind their bracket: one choice among the plain ones, so that of a thousand skills none stands twice."""
        return [self.rule(f"{grammar_literal('[')} {self.rule(' | '.join(mapped))}")] if mapped else []

    def map_call_rules(
        self, scope: PlanScope, skills: Iterable[str], demands: Sequence[ValueRule] = ()
    ) -> list[tuple[str, str]]:
        """One rule a skill, for what stands in the bracket of a call of each element of a list: of one at hand, or one that is stated."""
        chosen = list(skills)
        found: dict[str, list[str]] = {}
        for capability, body in (
            *self._over_available_lists(scope, chosen, demands),
            *self._over_literal_lists(scope, chosen, demands),
        ):
            found.setdefault(capability, []).append(body)
        return [
            (capability, self.rule(f"{grammar_literal(capability + '(')} {self.rule(' | '.join(bodies))}"))
            for capability, bodies in found.items()
        ]

    def _over_available_lists(
        self, scope: PlanScope, chosen: Sequence[str], demands: Sequence[ValueRule]
    ) -> list[tuple[str, str]]:
        """The arguments of such calls, and their ends, by skill. Whoever goes over a ground and is given its elements has read it."""
        found = []
        for acts in _BOOLEANS:
            skills = [one for one in chosen if self.offer.by_name[one].has_effects is acts]
            skills = [
                one
                for one in skills
                if not self._is_request_bound(one) or not (self._earlier_calls(one) or self._is_unrequested(one))
            ]
            found += self._over_lists(scope, skills, demands, acts=acts) if skills else []
        return found

    def _over_lists(
        self, scope: PlanScope, chosen: Sequence[str], demands: Sequence[ValueRule], *, acts: bool
    ) -> list[tuple[str, str]]:
        at_hand = _trusted_values(scope) if acts else scope.available_values()
        sorts: dict[tuple[bytes, bool, int], tuple[list[_TypedReference], list[PlanReference]]] = {}
        over = [one for one, _ in iterable_grounds(self.offer, self.offer.grounds)] if demands else []
        for reference, inner in scope.lists():
            every = [
                one
                for one in reachable_parts(PlanReference(ELEMENT), inner)
                if not (acts and scope.is_untrusted(*one, reference))
            ]
            if every:  # of one type of elements it leaves the more out, the fewer there are
                sorts.setdefault(
                    (self.offer.assignability.schema_key(inner), reference in over, len(every)), (every, [])
                )[1].append(reference)
        found = []
        for (_, read, _), (every, lists) in sorts.items():
            ends = self._list_end(lists)
            stated = self._effect_constant_rule if acts else self._constant_rule
            ways = [(self._value_rule(at_hand, constant=stated), [self._value_rule(every, stated=False), *demands])]
            if read:
                whole = [one for one in every if is_whole(one[0])]
                ways.append(
                    (self._value_rule([*at_hand, *every], constant=stated), [self._value_rule(whole, stated=False)])
                )
            for capability in chosen:
                twins = tuple(
                    twin
                    for twin in self._matching_calls(capability, each=True)
                    if self.earlier_steps[twin].each in lists
                )
                bodies = (
                    self._argument_rule(self.offer.by_name[capability], values, wanted, twins, ends)
                    for values, wanted in ways
                )
                found += [(capability, body) for body in bodies if body is not None]
        return found

    def _over_literal_lists(
        self, scope: PlanScope, chosen: Sequence[str], demands: Sequence[ValueRule]
    ) -> list[tuple[str, str]]:
        given = {acts: self._allowed_values(scope, acts=acts) for acts in _BOOLEANS}
        found = []
        for capability in (
            [one for one in chosen if not self._is_request_bound(one)]
            if self.offer.limits.width >= MIN_EACH_ITEMS
            else ()
        ):
            one = self.offer.by_name[capability]
            values = given[one.has_effects]
            for type_key, sort in {
                type_key: sort for field in one.fields.values() for type_key, sort in self._element_types(field).items()
            }.items():
                twins = tuple(
                    twin
                    for twin in self._matching_calls(capability, each=True)
                    if self._could_iterate(self.earlier_steps[twin], type_key)
                )
                wanted = [self._element_values(type_key), *demands]
                if (
                    body := self._argument_rule(one, values, wanted, twins, self._literal_list_end(type_key, sort))
                ) is not None:
                    found.append((capability, body))
        return found

    def _element_types(self, kind: Schema) -> Mapping[bytes, Schema]:
        """Of the constants of a type, by their marks, those that a plan may state a list of to go over."""
        type_key = self.offer.assignability.schema_key(kind)
        if type_key not in self.element_types:
            self.element_types[type_key] = {canonical(sort): sort for sort in _literal_element_types(kind)}
        return self.element_types[type_key]

    def _could_iterate(self, twin: PlanStep, type_key: bytes) -> bool:
        """Whether an earlier call goes over a list that was stated, and could have such constants in it."""
        given = [name for name, value in twin.arguments.items() if _is_element(value)]
        fields = self.offer.by_name[twin.capability].fields
        return isinstance(twin.each, PlanLiteral) and all(
            type_key in self._element_types(fields[name]) for name in given
        )

    def _element_values(self, type_key: bytes) -> ValueRule:
        """What gives the element of such a list to the arguments that could state it themselves, and to no others."""

        def values(kind: Schema, but: frozenset[str] = _NONE_EXCLUDED) -> str | None:
            return grammar_literal(ELEMENT) if type_key in self._element_types(kind) and ELEMENT not in but else None

        return values

    def _literal_list_end(self, type_key: bytes, sort: Schema) -> Callable[[MatchingCalls], str | None]:
        """How a call of each element of a list of such constants ends."""
        most = min(MAX_ITEMS, self.offer.limits.width)
        kind = {"type": "array", "items": sort, "minItems": MIN_EACH_ITEMS, "maxItems": most}

        def ends(twins: MatchingCalls) -> str | None:
            used = frozenset(str(self.earlier_steps[twin].each) for twin in twins)
            if (type_key, used) not in self.list_endings:
                lists = self._list_rules(kind, used, min(MAX_TEXT_LENGTH, MAX_ITEMS * MAX_ITEM_LENGTH // most))
                over = grammar_literal(f") for {ELEMENT} in ")
                self.list_endings[type_key, used] = (
                    f"{over} {self.rule(' | '.join(lists))} {grammar_literal(']')}" if lists else None
                )
            return self.list_endings[type_key, used]

        return ends

    def _matching_calls(self, capability: str, *, each: bool) -> MatchingCalls:
        """The earlier calls of a skill, of each element or plain."""
        return tuple(
            name
            for name, one in self.earlier_steps.items()
            if one.capability == capability and (one.each is not None) is each and not one.after
        )

    def _list_end(self, lists: Sequence[PlanReference]) -> Callable[[MatchingCalls], str | None]:
        """How a call of each element of one of these lists ends."""

        def ends(twins: MatchingCalls) -> str | None:
            left = [one for one in lists if all(one != self.earlier_steps[twin].each for twin in twins)]
            return (
                f"{grammar_literal(f') for {ELEMENT} in ')} {self.rule(_alternatives(left))} {grammar_literal(']')}"
                if left
                else None
            )

        return ends

    def _value_rule(
        self, at_hand: Sequence[tuple[PlanReference, Schema]], *, stated: bool = True, constant: ValueRule | None = None
    ) -> ValueRule:
        """What gives the rule of all values of a type: those at hand that fit, and constants where they may be `stated`."""
        known: dict[tuple[bytes, frozenset[str]], str | None] = {}
        proof = self.offer.assignability

        def values(kind: Schema, but: frozenset[str] = _NONE_EXCLUDED) -> str | None:
            cache_key = proof.schema_key(kind), but
            if cache_key not in known:
                references = [str(reference) for reference, have in at_hand if proof.mismatch(have, kind) is None]
                fitting = [grammar_literal(one) for one in references if one not in but]
                said_of = (constant or self._constant_rule)(kind, but) if stated else None
                choices = list(dict.fromkeys([*fitting, *([said_of] if said_of else [])]))
                known[cache_key] = self.rule(" | ".join(choices)) if choices else None
            return known[cache_key]

        return values

    def _argument_rule(
        self,
        capability: Capability,
        values: ValueRule,
        demands: Sequence[ValueRule],
        twins: MatchingCalls,
        ends: Callable[[MatchingCalls], str | None],
    ) -> str | None:
        """The arguments of a call and what `ends` it; None where one that it needs cannot be given.

        Of each of the `demands`, such as parts of the element, at least one argument is a value. Written from the end: `rest` is what may
        follow, by whether no argument stands before it, by which demands are met (a bit each, that of elements the first), and by which of
        the `twins` has had the same arguments.
        """
        every = range(2 ** len(demands))
        fields = list(capability.fields.items())
        reached = [list(dict.fromkeys([twins, ()]))]  # no sets: a grammar is spelt the same in every process
        for name, _ in fields:
            after = [
                one
                for before in reached[-1]
                for one in (*self._group_by_argument(before, name).values(), self._omitting(before, name))
            ]
            reached.append(list(dict.fromkeys([(), *after])))
        rest = {
            (first, met, same): ends(same) if met == every[-1] else None
            for first in _BOOLEANS
            for met in every
            for same in reached[-1]
        }
        for at in range(len(fields) - 1, -1, -1):
            name, kind = fields[at]
            here: dict[tuple[bool, int, MatchingCalls], str | None] = {}
            for first, met, same in (
                (first, met, same) for first in _BOOLEANS for met in every for same in reached[at]
            ):
                key = grammar_literal(f"{'' if first else ', '}{name}=")
                alike = self._group_by_argument(same, name)
                others = frozenset(alike)
                ways = [(values(kind, others), rest[False, met, ()])]
                ways += [(demand(kind, others), rest[False, met | 1 << bit, ()]) for bit, demand in enumerate(demands)]
                for text, those in alike.items():
                    ways.append(
                        (
                            grammar_literal(text),
                            rest[False, met | _is_element(self.earlier_steps[those[0]].arguments[name]), those],
                        )
                    )
                options = [f"{key} {value} {tail}" for value, tail in ways if value and tail]
                if name not in capability.required and (without := rest[first, met, self._omitting(same, name)]):
                    options.append(without)
                here[first, met, same] = self.rule(" | ".join(options)) if options else None
            rest = here
        return rest[True, 0, twins]

    def _group_by_argument(self, twins: MatchingCalls, name: str) -> Mapping[str, MatchingCalls]:
        """Twins by what they have for an argument, as it is spelt."""
        found: dict[str, MatchingCalls] = {}
        for twin in twins:
            if (value := self.earlier_steps[twin].arguments.get(name)) is not None:
                found[str(value)] = (*found.get(str(value), ()), twin)
        return found

    def _omitting(self, twins: MatchingCalls, name: str) -> MatchingCalls:
        """Twins that leave an argument out."""
        return tuple(twin for twin in twins if name not in self.earlier_steps[twin].arguments)

    def _constant_rule(
        self, kind: Schema, but: frozenset[str] = _NONE_EXCLUDED, max_length: int = MAX_TEXT_LENGTH
    ) -> str | None:
        """The constants of a type that a plan may state, but these; None where there are none."""
        found: list[str] = []
        others: list[Schema] = []
        for one in statable_types(kind):
            plain = not one.keys() - ANNOTATION_KEYWORDS - {"type"}
            if self.offer.request_text and is_free_text(one):
                found.append(self._excluding(self._request_words(max_length), but))
            elif plain and one.get("type") in _NUMBERS:
                found.append(self._excluding(self._terminal(f"/{_NUMBERS[str(one['type'])]}/"), but))
            elif (values := enum_values(one)) is not None or (plain and one.get("type") == "boolean"):
                values = [True, False] if values is None else values
                found += [grammar_literal(text) for text in map(str, map(PlanLiteral, values)) if text not in but]
            elif one.get("type") == "array" and not one.keys() - _LIST_KEYS - {"$defs"}:
                found += self._list_rules(one, but)
            else:
                others.append(one)
        found += [self._json_rule(others, max_length)] if others else []
        return self.rule(" | ".join(dict.fromkeys(found))) if found else None

    def _effect_constant_rule(self, kind: Schema, but: frozenset[str] = _NONE_EXCLUDED) -> str | None:
        """The constants of a type that a call with effects may be given, but these."""
        given = self.offer.request_index
        if given is None:
            return self._constant_rule(kind, but)
        found: list[str] = []
        for one in statable_types(kind):
            if is_free_text(one):
                found += [self._excluding(words, but)] if (words := self._request_piece(given)) else []
            elif one.get("type") == "array" and not one.keys() & {"enum", "const"}:
                found += self._single_item_list(one, but)
            else:
                found += [
                    grammar_literal(text)
                    for text in map(str, map(PlanLiteral, allowed_constants(one, given)))
                    if text not in but
                ]
        return self.rule(" | ".join(dict.fromkeys(found))) if found else None

    def _single_item_list(self, kind: Schema, but: frozenset[str]) -> list[str]:
        """Lists of one constant of the request at most."""
        low, high, inner = int(kind.get("minItems", 0)), int(kind.get("maxItems", 1)), element_type(kind)
        found = [grammar_literal("[]")] if not low and "[]" not in but else []
        item = (
            self._effect_constant_rule(subschema(kind, inner), _first_items(but))
            if isinstance(inner, dict) and low <= 1 <= high
            else None
        )
        return [*found, *([f"{grammar_literal('[')} {item} {grammar_literal(']')}"] if item else [])]

    def _request_piece(self, given: RequestIndex) -> str:
        """A piece of the request for a call with effects, as JSON spells it; empty where it has none."""
        if (name := "PIECE") not in self.defined_terminals:
            self.defined_terminals.add(name)
            self.extra_rules += given.grammar_rules(name, MAX_TEXT_LENGTH)
        return name if given.usable_sentences else ""

    def _list_rules(self, kind: Schema, but: frozenset[str], max_length: int = MAX_ITEM_LENGTH) -> list[str]:
        """Lists of constants, but these. A list begins otherwise than those that are left out: a grammar has no other words for it."""
        low = int(kind.get("minItems", 0))
        high = min(int(kind.get("maxItems", MAX_ITEMS)), max(low, MAX_ITEMS))
        inner = element_type(kind)
        found = [grammar_literal("[]")] if not low and "[]" not in but else []
        if not isinstance(inner, dict) or not high:
            return found
        first, item = (
            self._constant_rule(subschema(kind, inner), left_out, max_length)
            for left_out in (_first_items(but), _NONE_EXCLUDED)
        )
        if first is not None:
            found.append(
                f"{grammar_literal('[')} {first} ({grammar_literal(', ')} {item}){{{max(low - 1, 0)},{high - 1}}} {grammar_literal(']')}"
            )
        return found

    def _request_words(self, max_length: int) -> str:
        """A piece of the request, as JSON spells it."""
        name = f"WORDS_{max_length}"
        if name not in self.defined_terminals:
            self.defined_terminals.add(name)
            self.extra_rules += [
                one for one in quote_rules(name, [self.offer.request_text], max_length) if one not in self.extra_rules
            ]
        return name

    def _terminal(self, body: str) -> str:
        return self.terminals.setdefault(body, f"T{len(self.terminals)}")

    def _excluding(self, terminal: str, but: frozenset[str]) -> str:
        """A terminal without some texts."""
        if not but:
            return terminal
        return self._terminal(f"{terminal} & ~({' | '.join(grammar_literal(text) for text in sorted(but))})")

    def _json_rule(self, stated: Sequence[Schema], max_length: int) -> str:
        body: dict[str, Any] = dict(stated[0]) if len(stated) == 1 else {"anyOf": list(stated)}
        return self.rule(
            f"%json {ascii_json({**limit_texts(strip_unknown_formats(_limit_items(body)), max_length), 'x-guidance': JSON_SPACING})}"
        )


def _first_items(lists: Iterable[str]) -> frozenset[str]:
    """The first items of lists, as a plan spells them."""
    whole = (json.loads(one) for one in lists if one.startswith("["))
    return frozenset(str(PlanLiteral(one[0])) for one in whole if one)


def _literal_element_types(kind: Schema) -> list[Schema]:
    """Of the constants of a type, those that a plan may state a list of to go over: neither truth values, of which there are two, nor what
    can have one value only."""
    bare = [
        {key: value for key, value in one.items() if key == "$defs" or key not in ANNOTATION_KEYWORDS}
        for one in statable_types(kind)
    ]
    return [
        one
        for one in bare
        if one.get("type") not in ("array", "boolean") and "const" not in one and len(one.get("enum", "..")) > 1
    ]


_BOOLEANS = (True, False)
_TypedReference: TypeAlias = tuple[PlanReference, Schema]


def _trusted_values(scope: PlanScope) -> list[_TypedReference]:
    """What a call that acts may be given of what is at hand."""
    return [one for one in scope.available_values() if not scope.is_untrusted(*one)]


def _call_end(twins: MatchingCalls) -> str | None:
    """How a call ends: not as one that stands already."""
    return None if twins else grammar_literal(")")


def _is_element(value: Argument) -> bool:
    return isinstance(value, PlanReference) and value.root == ELEMENT


def _limit_items(kind: dict[str, Any]) -> dict[str, Any]:
    return (
        {**kind, "maxItems": min(kind.get("maxItems", MAX_ITEMS), MAX_ITEMS)} if kind.get("type") == "array" else kind
    )


def _alternatives(references: Iterable[PlanReference]) -> str:
    return " | ".join(dict.fromkeys(grammar_literal(str(reference)) for reference in references))
