"""Grammar of the next step of a plan, in Lark notation for llguidance, compiled from the types of the available values.

A step can only name an available capability, only give arguments that it has, and each argument only a value that its
type accepts: a part of an input or of an earlier step whose type is assignable, or a constant. So a plan that is
decoded under it has no unknown capability, no cycle and no ill-typed reference. It also does not repeat an earlier
call. Constants are texts, numbers, booleans, enums and lists of them, each of bounded length, so that a line fits into
the token limit of the planner. A plan cannot state records or tables, and so no documents. A list to iterate over, `for
x in ["…", "…"]`, has constants that the arguments which receive `x` could have had themselves.

`step_grammar` knows the types of all earlier steps. `plan_grammar` is for the whole plan at once, when these types are
unknown. There a reference to a step may still have the wrong type, which validation detects.
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
"""Maximum characters of a text that a plan states, if its type sets no limit."""
MAX_ANSWERS = 4
"""Maximum number of values of an answer."""
MAX_ITEMS = 8
"""Maximum number of elements of a list that a plan states."""
MAX_ITEM_LENGTH = 50
"""Maximum characters of a text in such a list, so that a list is at most as long as two texts. The elements of a list
to iterate over, whose length the limits set, share the same number of characters.
"""
_NUMBERS = {"integer": "-?(0|[1-9][0-9]{0,14})", "number": r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,8})?"}
"""Numbers in a plan. JSON also allows numbers that no machine type holds."""
_LIST_KEYS = ANNOTATION_KEYWORDS | {"type", "items", "minItems", "maxItems"}
"""Keys of list types that this module compiles itself. Other types are left to the JSON grammar of the server."""

MIN_EACH_ITEMS = 2
"""Minimum number of elements of a stated list to iterate over. One element would be a plain call."""

STEP_PREFIX = "s"
"""End of a reply after which another step follows: the first letter of its name."""

MatchingCalls: TypeAlias = tuple[str, ...]
"""Names of earlier calls that equal the line so far. The line must differ from each of them before it ends."""
ValueRule: TypeAlias = Callable[[Schema, frozenset[str]], str | None]
"""Function that returns the rule of all values of a type except some; None if there are none."""
_NONE_EXCLUDED: frozenset[str] = frozenset()


class NoValidStepError(ValueError):
    """No step is possible: no capability whose arguments are available, and no value of the output type."""


def step_grammar(capabilities: Capabilities, steps: Sequence[PlanStep] = (), *, step_started: bool = False) -> str:
    """Returns the grammar of another step after these ones, or of the answer if one is available. Raises
    `NoValidStepError`.

    The answer may follow a step in the same reply, or `s`, the beginning of the next step. With `step_started` that `s`
    is already written. The last step within the limits must produce the answer.
    """
    writer = _GrammarWriter(capabilities, steps)
    scope = PlanScope(capabilities, steps)
    choices = []
    answers = _answer_references(capabilities, scope)
    if answers and not step_started:
        choices.append(writer.answer(answers))
    remaining_steps = capabilities.limits.steps - len(steps)
    if remaining_steps > 0:
        name = f"s{len(steps) + 1}"
        demands = writer.ground_demands(scope) if not steps else []
        names = [
            capability
            for capability in capabilities.by_name
            if remaining_steps > 1 or answers or capabilities.produces_output(capability, each=False)
        ]
        callable_names = [
            capability
            for capability in capabilities.by_name
            if remaining_steps > 1 or answers or capabilities.produces_output(capability, each=True)
        ]
        calls = [
            f"{call} {writer.step_end(answers, name, capability, False, remaining_steps > 1)}"
            for capability, call in writer.call_rules(scope, names, demands)
        ]
        over = [
            f"{call} {writer.step_end(answers, name, capability, True, remaining_steps > 1)}"
            for capability, call in writer.map_call_rules(scope, callable_names, demands)
        ]
        calls += writer.bracket_rules(over)
        if calls:
            choices.append(
                writer.rule(
                    f"{grammar_literal(name.removeprefix(STEP_PREFIX) if step_started else name)} "
                    f"{grammar_literal(' = ')} "
                    f"{writer.rule(' | '.join(calls))}"
                )
            )
    if not choices:
        raise NoValidStepError("no capability can be called with the available values")
    if capabilities.may_decline and not steps:
        choices.append(grammar_literal(str(PlanAnswer(()))))
    begin = grammar_literal("\n") + " " if steps and not step_started else ""
    return writer.render(begin + writer.rule(" | ".join(choices)))


def turn_grammar(capabilities: Capabilities, steps: Sequence[PlanStep] = ()) -> str:
    """Returns the grammar of the next line of an agent with tools: another call within the limits, or the word
    `return`.
    """
    writer = _GrammarWriter(capabilities, steps)
    scope = PlanScope(capabilities, steps)
    choices = [grammar_literal("return")]
    if len(steps) < capabilities.limits.steps and (calls := writer.all_calls(scope, capabilities.by_name)):
        choices.append(writer.rule(f"{grammar_literal(f's{len(steps) + 1} = ')} {writer.rule(' | '.join(calls))}"))
    return writer.render(writer.rule(" | ".join(choices)))


def plan_grammar(capabilities: Capabilities) -> str:
    """Returns the grammar of a whole plan. Raises `NoValidStepError` if no first step is possible."""
    writer = _GrammarWriter(capabilities)
    rest = ""
    for number in range(capabilities.limits.steps, 0, -1):
        before = [f"s{index}" for index in range(1, number)]
        scope = PossiblePlanScope(capabilities, before)
        calls = writer.all_calls(scope, capabilities.by_name, writer.ground_demands(scope) if not before else [])
        call_line = f"{grammar_literal(f's{number} = ')} {writer.rule(' | '.join(calls))}" if calls else ""
        choices = [f"{call_line} {grammar_literal(chr(10))} {rest}"] if call_line and rest else []
        if before and (answers := _answer_references(capabilities, scope)):
            choices.append(writer.answer(answers))
        if call_line and not rest:  # the last step within the limits
            last = PossiblePlanScope(capabilities, [*before, f"s{number}"])
            choices.append(
                f"{call_line} {grammar_literal(chr(10))} {writer.answer(_answer_references(capabilities, last))}"
            )
        if not choices:
            raise NoValidStepError("no capability can be called with the available values")
        if capabilities.may_decline and not before:
            choices.append(grammar_literal(str(PlanAnswer(()))))
        rest = writer.rule(" | ".join(choices))
    return writer.render(rest)


def _answer_references(capabilities: Capabilities, scope: PlanScope) -> list[PlanReference]:
    return [
        plan_reference
        for plan_reference, kind in scope.step_values()
        if capabilities.assignability.mismatch(kind, capabilities.output_type) is None
    ]


class _GrammarWriter:
    """Collects grammar rules on demand. Equal rules are written once."""

    def __init__(self, capabilities: Capabilities, steps: Sequence[PlanStep] = ()) -> None:
        self.capabilities = capabilities
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
        """The last line: one value, or several if any output is allowed."""
        rule = self.rule(_alternatives(answers))
        repetition = (
            f" ({grammar_literal(', ')} {rule}){{0,{MAX_ANSWERS - 1}}}" if not self.capabilities.output_type else ""
        )
        return self.rule(f"{grammar_literal('return ')} {rule}{repetition}")

    def ground_demands(self, scope: PlanScope) -> list[ValueRule]:
        """Demands on a first step: it must read one of the required inputs."""
        ground_values = [
            (plan_reference, kind)
            for plan_reference, kind in scope.available_values()
            if is_ground(self.capabilities, plan_reference)
        ]
        return [self._value_rule(ground_values, with_constants=False)] if ground_values else []

    def all_calls(self, scope: PlanScope, names: Iterable[str], demands: Sequence[ValueRule] = ()) -> list[str]:
        """Plain calls, and calls for each element of a list."""
        capability_names = list(names)
        over = [rule for _, rule in self.map_call_rules(scope, capability_names, demands)]
        return [*(rule for _, rule in self.call_rules(scope, capability_names, demands)), *self.bracket_rules(over)]

    def step_end(self, answers: Sequence[PlanReference], name: str, capability: str, each: bool, more: bool) -> str:
        """The text after this step: the answer from it or earlier steps, or another step if `more` is set."""
        kind = PlanScope(
            self.capabilities, [PlanStep(name, capability, each=PlanReference(ELEMENT) if each else None)]
        ).steps[name]
        type_key = self.capabilities.assignability.schema_key(kind)
        if type_key not in self.step_ends:
            proof, output_type = self.capabilities.assignability, self.capabilities.output_type
            plan_references = [
                plan_reference
                for plan_reference, inner in reachable_parts(PlanReference(name), kind)
                if proof.mismatch(inner, output_type) is None
            ]
            ways = [self.answer([*answers, *plan_references])] if answers or plan_references else []
            ways += [grammar_literal(STEP_PREFIX)] if more else []
            self.step_ends[type_key] = f"({grammar_literal(chr(10))} {self.rule(' | '.join(ways))})?"
        return self.step_ends[type_key]

    def call_rules(
        self, scope: PlanScope, names: Iterable[str], demands: Sequence[ValueRule] = ()
    ) -> list[tuple[str, str]]:
        """One rule per capability that can be called with the available values, with one value for each of the
        `demands`, and unlike earlier calls.
        """
        values = {acts: self._allowed_values(scope, acts=acts) for acts in _BOOLEANS}
        rules = []
        for capability in names:
            twins, called_capability = (
                self._matching_calls(capability, is_mapped=False),
                self.capabilities.by_name[capability],
            )
            if (
                called_capability.has_effects
                and self.capabilities.request_index is not None
                and (before := self._earlier_calls(capability))
            ):
                calls = [
                    grammar_literal(str(call).partition(" = ")[2])
                    for call in further_calls(before, called_capability, self.capabilities.request_index)
                ]
                rules += [(capability, self.rule(" | ".join(calls)))] if calls else []
            elif (
                not self._is_unrequested(capability)
                and (
                    body := self._argument_rule(
                        called_capability, values[called_capability.has_effects], demands, twins, _call_end
                    )
                )
                is not None
            ):
                rules.append((capability, self.rule(f"{grammar_literal(capability + '(')} {body}")))
        return rules

    def _allowed_values(self, scope: PlanScope, *, acts: bool) -> ValueRule:
        """Values that a call may receive. A call with effects receives no untrusted values, and only constants of the
        request.
        """
        return (
            self._value_rule(_trusted_values(scope), constant=self._effect_constant_rule)
            if acts
            else self._value_rule(scope.available_values())
        )

    def _earlier_calls(self, capability: str) -> list[PlanStep]:
        return [step for step in self.earlier_steps.values() if step.capability == capability]

    def _is_unrequested(self, capability: str) -> bool:
        """Whether the request asks for no call of a capability with effects."""
        return unrequested_effect(self.capabilities.by_name[capability], self.capabilities) is not None

    def _is_request_bound(self, capability: str) -> bool:
        """Whether it has effects that the request must ask for."""
        return self.capabilities.by_name[capability].has_effects and self.capabilities.request_index is not None

    def bracket_rules(self, mapped: Sequence[str]) -> list[str]:
        """Calls for each element, after their bracket: one alternative beside the plain ones, so that each of a
        thousand capabilities occurs once.
        """
        return [self.rule(f"{grammar_literal('[')} {self.rule(' | '.join(mapped))}")] if mapped else []

    def map_call_rules(
        self, scope: PlanScope, names: Iterable[str], demands: Sequence[ValueRule] = ()
    ) -> list[tuple[str, str]]:
        """One rule per capability for a call for each element of a list, inside its bracket."""
        capability_names = list(names)
        grouped_names: dict[str, list[str]] = {}
        for capability, body in (
            *self._over_available_lists(scope, capability_names, demands),
            *self._over_literal_lists(scope, capability_names, demands),
        ):
            grouped_names.setdefault(capability, []).append(body)
        return [
            (capability, self.rule(f"{grammar_literal(capability + '(')} {self.rule(' | '.join(bodies))}"))
            for capability, bodies in grouped_names.items()
        ]

    def _over_available_lists(
        self, scope: PlanScope, capability_names: Sequence[str], demands: Sequence[ValueRule]
    ) -> list[tuple[str, str]]:
        """Arguments and ends of calls over available lists, by capability. Iterating over a required input and taking
        its elements reads it.
        """
        rules = []
        for acts in _BOOLEANS:
            matching_names = [
                capability_name
                for capability_name in capability_names
                if self.capabilities.by_name[capability_name].has_effects is acts
            ]
            matching_names = [
                capability_name
                for capability_name in matching_names
                if not self._is_request_bound(capability_name)
                or not (self._earlier_calls(capability_name) or self._is_unrequested(capability_name))
            ]
            rules += self._over_lists(scope, matching_names, demands, acts=acts) if matching_names else []
        return rules

    def _over_lists(
        self, scope: PlanScope, capability_names: Sequence[str], demands: Sequence[ValueRule], *, acts: bool
    ) -> list[tuple[str, str]]:
        at_hand = _trusted_values(scope) if acts else scope.available_values()
        sorts: dict[tuple[bytes, bool, int], tuple[list[_TypedReference], list[PlanReference]]] = {}
        over = (
            [plan_reference for plan_reference, _ in iterable_grounds(self.capabilities, self.capabilities.grounds)]
            if demands
            else []
        )
        for reference, inner in scope.lists():
            element_parts = [
                reachable_part
                for reachable_part in reachable_parts(PlanReference(ELEMENT), inner)
                if not (acts and scope.is_untrusted(*reachable_part, reference))
            ]
            if element_parts:  # with one element type, fewer elements leave out more alternatives
                sorts.setdefault(
                    (self.capabilities.assignability.schema_key(inner), reference in over, len(element_parts)),
                    (element_parts, []),
                )[1].append(reference)
        rules = []
        for (_, is_grounded, _), (element_parts, lists) in sorts.items():
            ends = self._list_end(lists)
            constant_rule = self._effect_constant_rule if acts else self._constant_rule
            ways = [
                (
                    self._value_rule(at_hand, constant=constant_rule),
                    [self._value_rule(element_parts, with_constants=False), *demands],
                )
            ]
            if is_grounded:
                whole_lists = [pair for pair in element_parts if is_whole(pair[0])]
                ways.append(
                    (
                        self._value_rule([*at_hand, *element_parts], constant=constant_rule),
                        [self._value_rule(whole_lists, with_constants=False)],
                    )
                )
            for capability in capability_names:
                twins = tuple(
                    twin
                    for twin in self._matching_calls(capability, is_mapped=True)
                    if self.earlier_steps[twin].each in lists
                )
                bodies = (
                    self._argument_rule(self.capabilities.by_name[capability], values, demand, twins, ends)
                    for values, demand in ways
                )
                rules += [(capability, body) for body in bodies if body is not None]
        return rules

    def _over_literal_lists(
        self, scope: PlanScope, capability_names: Sequence[str], demands: Sequence[ValueRule]
    ) -> list[tuple[str, str]]:
        allowed_values = {acts: self._allowed_values(scope, acts=acts) for acts in _BOOLEANS}
        rules = []
        for capability in (
            [capability_name for capability_name in capability_names if not self._is_request_bound(capability_name)]
            if self.capabilities.limits.width >= MIN_EACH_ITEMS
            else ()
        ):
            called_capability = self.capabilities.by_name[capability]
            values = allowed_values[called_capability.has_effects]
            for type_key, sort in {
                type_key: sort
                for field in called_capability.fields.values()
                for type_key, sort in self._element_types(field).items()
            }.items():
                twins = tuple(
                    twin
                    for twin in self._matching_calls(capability, is_mapped=True)
                    if self._could_iterate(self.earlier_steps[twin], type_key)
                )
                demanded_values = [self._element_values(type_key), *demands]
                if (
                    body := self._argument_rule(
                        called_capability, values, demanded_values, twins, self._literal_list_end(type_key, sort)
                    )
                ) is not None:
                    rules.append((capability, body))
        return rules

    def _element_types(self, kind: Schema) -> Mapping[bytes, Schema]:
        """Constant types that a stated list may have, by key."""
        type_key = self.capabilities.assignability.schema_key(kind)
        if type_key not in self.element_types:
            self.element_types[type_key] = {canonical(sort): sort for sort in _literal_element_types(kind)}
        return self.element_types[type_key]

    def _could_iterate(self, twin: PlanStep, type_key: bytes) -> bool:
        """Whether an earlier call iterates over a stated list that may have such constants."""
        element_arguments = [name for name, value in twin.arguments.items() if _is_element(value)]
        fields = self.capabilities.by_name[twin.capability].fields
        return isinstance(twin.each, PlanLiteral) and all(
            type_key in self._element_types(fields[name]) for name in element_arguments
        )

    def _element_values(self, type_key: bytes) -> ValueRule:
        """Value rule that gives the element of such a list to arguments that could state it themselves, and to no
        others.
        """

        def values(kind: Schema, but: frozenset[str] = _NONE_EXCLUDED) -> str | None:
            return grammar_literal(ELEMENT) if type_key in self._element_types(kind) and ELEMENT not in but else None

        return values

    def _literal_list_end(self, type_key: bytes, sort: Schema) -> Callable[[MatchingCalls], str | None]:
        """The end of a call for each element of a list of such constants."""
        max_items = min(MAX_ITEMS, self.capabilities.limits.width)
        kind = {"type": "array", "items": sort, "minItems": MIN_EACH_ITEMS, "maxItems": max_items}

        def ends(twins: MatchingCalls) -> str | None:
            used_lists = frozenset(str(self.earlier_steps[twin].each) for twin in twins)
            if (type_key, used_lists) not in self.list_endings:
                lists = self._list_rules(
                    kind, used_lists, min(MAX_TEXT_LENGTH, MAX_ITEMS * MAX_ITEM_LENGTH // max_items)
                )
                over = grammar_literal(f") for {ELEMENT} in ")
                self.list_endings[type_key, used_lists] = (
                    f"{over} {self.rule(' | '.join(lists))} {grammar_literal(']')}" if lists else None
                )
            return self.list_endings[type_key, used_lists]

        return ends

    def _matching_calls(self, capability: str, *, is_mapped: bool) -> MatchingCalls:
        """Earlier calls of a capability, for each element or plain."""
        return tuple(
            name
            for name, earlier_step in self.earlier_steps.items()
            if earlier_step.capability == capability
            and (earlier_step.each is not None) is is_mapped
            and not earlier_step.after
        )

    def _list_end(self, lists: Sequence[PlanReference]) -> Callable[[MatchingCalls], str | None]:
        """The end of a call for each element of one of these lists."""

        def ends(twins: MatchingCalls) -> str | None:
            free_lists = [
                plan_reference
                for plan_reference in lists
                if all(plan_reference != self.earlier_steps[twin].each for twin in twins)
            ]
            return (
                f"{grammar_literal(f') for {ELEMENT} in ')} {self.rule(_alternatives(free_lists))} "
                f"{grammar_literal(']')}"
                if free_lists
                else None
            )

        return ends

    def _value_rule(
        self,
        at_hand: Sequence[tuple[PlanReference, Schema]],
        *,
        with_constants: bool = True,
        constant: ValueRule | None = None,
    ) -> ValueRule:
        """Value rule of a type: available values that fit, and constants if `with_constants` is set."""
        cached_rules: dict[tuple[bytes, frozenset[str]], str | None] = {}
        proof = self.capabilities.assignability

        def values(kind: Schema, but: frozenset[str] = _NONE_EXCLUDED) -> str | None:
            cache_key = proof.schema_key(kind), but
            if cache_key not in cached_rules:
                references = [
                    str(reference) for reference, value_kind in at_hand if proof.mismatch(value_kind, kind) is None
                ]
                fitting = [grammar_literal(reference) for reference in references if reference not in but]
                said_of = (constant or self._constant_rule)(kind, but) if with_constants else None
                choices = list(dict.fromkeys([*fitting, *([said_of] if said_of else [])]))
                cached_rules[cache_key] = self.rule(" | ".join(choices)) if choices else None
            return cached_rules[cache_key]

        return values

    def _argument_rule(
        self,
        capability: Capability,
        values: ValueRule,
        demands: Sequence[ValueRule],
        twins: MatchingCalls,
        ends: Callable[[MatchingCalls], str | None],
    ) -> str | None:
        """The arguments of a call and the text that `ends` it; None if a required argument has no value.

        For each of the `demands`, such as parts of the element, at least one argument has a value. Built from the end:
        `rest` is the continuation, keyed by whether no argument precedes it, by which demands are met (one bit each,
        elements first), and by which of the `twins` have equal arguments so far.
        """
        masks = range(2 ** len(demands))
        fields = list(capability.fields.items())
        subsets = [list(dict.fromkeys([twins, ()]))]  # no sets, so that a grammar is the same text in every process
        for name, _ in fields:
            after = [
                group
                for before in subsets[-1]
                for group in (*self._group_by_argument(before, name).values(), self._omitting(before, name))
            ]
            subsets.append(list(dict.fromkeys([(), *after])))
        rest = {
            (first, met, subset): ends(subset) if met == masks[-1] else None
            for first in _BOOLEANS
            for met in masks
            for subset in subsets[-1]
        }
        for at in range(len(fields) - 1, -1, -1):
            name, kind = fields[at]
            cache: dict[tuple[bool, int, MatchingCalls], str | None] = {}
            for first, met, subset in (
                (first, met, part) for first in _BOOLEANS for met in masks for part in subsets[at]
            ):
                key = grammar_literal(f"{'' if first else ', '}{name}=")
                alike = self._group_by_argument(subset, name)
                texts = frozenset(alike)
                ways = [(values(kind, texts), rest[False, met, ()])]
                ways += [(demand(kind, texts), rest[False, met | 1 << bit, ()]) for bit, demand in enumerate(demands)]
                for text, equal in alike.items():
                    ways.append(
                        (
                            grammar_literal(text),
                            rest[False, met | _is_element(self.earlier_steps[equal[0]].arguments[name]), equal],
                        )
                    )
                options = [f"{key} {value} {tail}" for value, tail in ways if value and tail]
                if name not in capability.required and (without := rest[first, met, self._omitting(subset, name)]):
                    options.append(without)
                cache[first, met, subset] = self.rule(" | ".join(options)) if options else None
            rest = cache
        return rest[True, 0, twins]

    def _group_by_argument(self, twins: MatchingCalls, name: str) -> Mapping[str, MatchingCalls]:
        """Groups twins by the text of an argument."""
        groups: dict[str, MatchingCalls] = {}
        for twin in twins:
            if (value := self.earlier_steps[twin].arguments.get(name)) is not None:
                groups[str(value)] = (*groups.get(str(value), ()), twin)
        return groups

    def _omitting(self, twins: MatchingCalls, name: str) -> MatchingCalls:
        """Twins without this argument."""
        return tuple(twin for twin in twins if name not in self.earlier_steps[twin].arguments)

    def _constant_rule(
        self, kind: Schema, but: frozenset[str] = _NONE_EXCLUDED, max_length: int = MAX_TEXT_LENGTH
    ) -> str | None:
        """The constants of a type that a plan may state, except these; None if there are none."""
        rules: list[str] = []
        other_types: list[Schema] = []
        for statable_type in statable_types(kind):
            plain = not statable_type.keys() - ANNOTATION_KEYWORDS - {"type"}
            if self.capabilities.request_text and is_free_text(statable_type):
                rules.append(self._excluding(self._request_words(max_length), but))
            elif plain and statable_type.get("type") in _NUMBERS:
                rules.append(self._excluding(self._terminal(f"/{_NUMBERS[str(statable_type['type'])]}/"), but))
            elif (values := enum_values(statable_type)) is not None or (
                plain and statable_type.get("type") == "boolean"
            ):
                values = [True, False] if values is None else values
                rules += [grammar_literal(text) for text in map(str, map(PlanLiteral, values)) if text not in but]
            elif statable_type.get("type") == "array" and not statable_type.keys() - _LIST_KEYS - {"$defs"}:
                rules += self._list_rules(statable_type, but)
            else:
                other_types.append(statable_type)
        rules += [self._json_rule(other_types, max_length)] if other_types else []
        return self.rule(" | ".join(dict.fromkeys(rules))) if rules else None

    def _effect_constant_rule(self, kind: Schema, but: frozenset[str] = _NONE_EXCLUDED) -> str | None:
        """The constants of a type that a call with effects may receive, except these."""
        request_index = self.capabilities.request_index
        if request_index is None:
            return self._constant_rule(kind, but)
        rules: list[str] = []
        for statable_type in statable_types(kind):
            if is_free_text(statable_type):
                rules += [self._excluding(words, but)] if (words := self._request_piece(request_index)) else []
            elif statable_type.get("type") == "array" and not statable_type.keys() & {"enum", "const"}:
                rules += self._single_item_list(statable_type, but)
            else:
                rules += [
                    grammar_literal(text)
                    for text in map(str, map(PlanLiteral, allowed_constants(statable_type, request_index)))
                    if text not in but
                ]
        return self.rule(" | ".join(dict.fromkeys(rules))) if rules else None

    def _single_item_list(self, kind: Schema, but: frozenset[str]) -> list[str]:
        """Lists of at most one constant of the request."""
        low, high, inner = int(kind.get("minItems", 0)), int(kind.get("maxItems", 1)), element_type(kind)
        rules = [grammar_literal("[]")] if not low and "[]" not in but else []
        item = (
            self._effect_constant_rule(subschema(kind, inner), _first_items(but))
            if isinstance(inner, dict) and low <= 1 <= high
            else None
        )
        return [*rules, *([f"{grammar_literal('[')} {item} {grammar_literal(']')}"] if item else [])]

    def _request_piece(self, request_index: RequestIndex) -> str:
        """A piece of the request for a call with effects, in JSON notation; empty if there is none."""
        if (name := "PIECE") not in self.defined_terminals:
            self.defined_terminals.add(name)
            self.extra_rules += request_index.grammar_rules(name, MAX_TEXT_LENGTH)
        return name if request_index.usable_sentences else ""

    def _list_rules(self, kind: Schema, but: frozenset[str], max_length: int = MAX_ITEM_LENGTH) -> list[str]:
        """Lists of constants, except these. Excluded lists are avoided by another first item, because the grammar has
        no other way.
        """
        low = int(kind.get("minItems", 0))
        high = min(int(kind.get("maxItems", MAX_ITEMS)), max(low, MAX_ITEMS))
        inner = element_type(kind)
        rules = [grammar_literal("[]")] if not low and "[]" not in but else []
        if not isinstance(inner, dict) or not high:
            return rules
        first, item = (
            self._constant_rule(subschema(kind, inner), left_out, max_length)
            for left_out in (_first_items(but), _NONE_EXCLUDED)
        )
        if first is not None:
            rules.append(
                f"{grammar_literal('[')} {first} ({grammar_literal(', ')} {item}){{{max(low - 1, 0)},{high - 1}}} "
                f"{grammar_literal(']')}"
            )
        return rules

    def _request_words(self, max_length: int) -> str:
        """A substring of the request in JSON notation."""
        name = f"WORDS_{max_length}"
        if name not in self.defined_terminals:
            self.defined_terminals.add(name)
            self.extra_rules += [
                quote_rule
                for quote_rule in quote_rules(name, [self.capabilities.request_text], max_length)
                if quote_rule not in self.extra_rules
            ]
        return name

    def _terminal(self, body: str) -> str:
        return self.terminals.setdefault(body, f"T{len(self.terminals)}")

    def _excluding(self, terminal: str, but: frozenset[str]) -> str:
        """A terminal without some texts."""
        if not but:
            return terminal
        return self._terminal(f"{terminal} & ~({' | '.join(grammar_literal(text) for text in sorted(but))})")

    def _json_rule(self, types: Sequence[Schema], max_length: int) -> str:
        body: dict[str, Any] = dict(types[0]) if len(types) == 1 else {"anyOf": list(types)}
        return self.rule(
            "%json "
            + ascii_json(
                {**limit_texts(strip_unknown_formats(_limit_items(body)), max_length), "x-guidance": JSON_SPACING}
            )
        )


def _first_items(lists: Iterable[str]) -> frozenset[str]:
    """First items of lists, in plan notation."""
    parsed_lists = (json.loads(text) for text in lists if text.startswith("["))
    return frozenset(str(PlanLiteral(array[0])) for array in parsed_lists if array)


def _literal_element_types(kind: Schema) -> list[Schema]:
    """The constant types that a stated list to iterate over may have: no booleans, which have two values, and no type
    with one value only.
    """
    bare = [
        {key: value for key, value in statable_type.items() if key == "$defs" or key not in ANNOTATION_KEYWORDS}
        for statable_type in statable_types(kind)
    ]
    return [
        bare_type
        for bare_type in bare
        if bare_type.get("type") not in ("array", "boolean")
        and "const" not in bare_type
        and len(bare_type.get("enum", "..")) > 1
    ]


_BOOLEANS = (True, False)
_TypedReference: TypeAlias = tuple[PlanReference, Schema]


def _trusted_values(scope: PlanScope) -> list[_TypedReference]:
    """Available values that may be passed to a call with effects."""
    return [available_value for available_value in scope.available_values() if not scope.is_untrusted(*available_value)]


def _call_end(twins: MatchingCalls) -> str | None:
    """The end of a call, unless it equals an earlier one."""
    return None if twins else grammar_literal(")")


def _is_element(value: Argument) -> bool:
    return isinstance(value, PlanReference) and value.root == ELEMENT


def _limit_items(kind: dict[str, Any]) -> dict[str, Any]:
    return (
        {**kind, "maxItems": min(kind.get("maxItems", MAX_ITEMS), MAX_ITEMS)} if kind.get("type") == "array" else kind
    )


def _alternatives(references: Iterable[PlanReference]) -> str:
    return " | ".join(dict.fromkeys(grammar_literal(str(reference)) for reference in references))
