"""Calls with effects in plans: a plan makes only those that its request asks for, with constants of the request, once
each (decision 056).

Unless literals are allowed, `Capabilities.request_index` indexes the request. Then for every call with effects:

- The request contains a command. If there are several tools with effects, it names the one that is called.
- Each constant occurs in the request (`orchestra.router.constants`). If the request names enum values of the tool, only
  those are allowed. A list has at most one constant, and no call iterates over a list of constants.
- A second call of one tool needs its own mention in the request, in parallel to the first one: the same words between
  the constants, and either the same words before them, or a plain `and` after the mention of the first call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, TypeAlias

from orchestra.core.untrusted_text import shorten
from orchestra.router.capabilities import Capabilities, Capability, statable_types
from orchestra.router.constants import RequestIndex, Span
from orchestra.router.plan_syntax import Argument, PlanLiteral, PlanReference, PlanStep
from orchestra.router.sentences import FILLER, Mood, Sentence
from orchestra.router.suggestions import shares_word
from orchestra.schema.json_schema import enum_values
from orchestra.schema.types import Schema, Validator, bundle_definitions, subschema

UNSTATED_CONSTANT, REPEATED_CALL, EFFECT_NOT_REQUESTED, TOOL_NOT_NAMED = "R026", "R027", "R028", "R029"
"""Error codes: a constant that is not in the request, more calls than requested, a request for no effect, and a tool
that the request does not name.
"""
MAX_CALLS = 8
"""Maximum number of calls of one tool with effects in a plan."""
MAX_MENTIONS = 64
"""Maximum number of mentions of one call that are examined."""
MAX_SHOWN_LENGTH = 80
"""Characters of a constant that a rejection shows."""
MAX_LISTED_TOKENS = 6
"""Maximum tokens of a text that a grammar lists for a further call."""
ALLOW_LITERALS_HINT = "allow literals (--allow-literals, `literals: true`)"
_JOIN = re.compile(
    r"(?:\s*[,;]\s*(?:(?:and|und|et|y|e|og|och|&|\+|plus)\s+)?|\s+(?:and|und|et|y|e|og|och|&|\+|plus|as well as)\s+)"
    r"(?:(?:then|also|dann|auch)\s+)?",
    re.IGNORECASE,
)
_RANGE = re.compile(r"\b(?:between|from|zwischen|von|entre|either)\s*\Z", re.IGNORECASE)
_WORD = re.compile(r"""[^\s,.;:!?()"'“”„«»]+""")
EffectViolation: TypeAlias = tuple[str, str, str, str]
"""Error code, path below the step, reason, and hint."""


def effect_violations(
    step: PlanStep, capability: Capability, capabilities: Capabilities, steps: Sequence[PlanStep]
) -> Iterator[EffectViolation]:
    """Yields what is wrong with a call with effects after these steps."""
    request_index = capabilities.request_index
    if request_index is None or not capability.has_effects:
        return
    if (reason := unrequested_effect(capability, capabilities)) is not None:
        yield reason
        return
    if isinstance(step.each, PlanLiteral):
        yield (
            REPEATED_CALL,
            "/each",
            f"{step.capability} has effects, and cannot iterate over a list of constants",
            "write one call for each",
        )
        return
    has_effect = False
    for name, value in step.arguments.items():
        if isinstance(value, PlanLiteral) and not is_stated(value.value, capability.fields[name], request_index):
            has_effect = True
            message = (
                f"{step.capability} has effects, and {shorten(str(value), MAX_SHOWN_LENGTH)} is not in the request"
            )
            yield (
                UNSTATED_CONSTANT,
                f"/with/{name}",
                message,
                f"a number or whole words of the request; or {ALLOW_LITERALS_HINT}",
            )
    before = [plan_step for plan_step in steps if plan_step.capability == step.capability]
    if not has_effect and before and not are_requested([*before, step], request_index):
        calls = len(before) + 1
        message = f"the request does not ask for {step.capability} {calls} times"
        yield (
            REPEATED_CALL,
            "",
            message,
            f"one call for each sentence that asks for it in the same words; or {ALLOW_LITERALS_HINT}",
        )


def unrequested_effect(capability: Capability, capabilities: Capabilities) -> EffectViolation | None:
    """Returns why the request asks for no call of this capability; None if it may ask for one."""
    request_index = capabilities.request_index
    if request_index is None or not capability.has_effects:
        return None
    if not request_index.has_command:
        hint = f"end a sentence that states what to do, without a question mark or a negation; or {ALLOW_LITERALS_HINT}"
        return EFFECT_NOT_REQUESTED, "", f"{capability.name} has effects, and {request_index.refusal_reason}", hint
    effect_capabilities = [
        other_capability for other_capability in capabilities.by_name.values() if other_capability.has_effects
    ]
    if len(effect_capabilities) > 1 and capability.name not in named_tools(effect_capabilities, request_index):
        names_text = ", ".join(other_capability.name for other_capability in effect_capabilities)
        return (
            TOOL_NOT_NAMED,
            "",
            f"of {names_text} the request does not name {capability.name}",
            f"say so in the request; or {ALLOW_LITERALS_HINT}",
        )
    return None


def named_tools(acting: Sequence[Capability], given: RequestIndex) -> list[str]:
    """Of several tools with effects, those whose name shares a word with the request; if there are none, those whose
    description does.
    """
    text = " ".join(
        given.text[sentence.start : sentence.end] for sentence in given.sentences if sentence.mood is Mood.COMMAND
    )
    by_name = [capability.name for capability in acting if shares_word(text, capability.name)]
    return by_name or [capability.name for capability in acting if shares_word(text, capability.description)]


def is_stated(value: Any, kind: Schema, given: RequestIndex) -> bool:
    """Whether a constant of a type may be passed to a call with effects."""
    return any(
        _is_stated_as(value, statable_type, given)
        for statable_type in statable_types(kind)
        if Validator(bundle_definitions(statable_type)).check(value) is None
    )


def _is_stated_as(value: Any, kind: Schema, request_index: RequestIndex) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if (constants := enum_values(kind)) is not None and isinstance(value, str):
        return value in (request_index.named_choices(constants) or constants)
    if isinstance(value, list):
        return len(value) <= 1 and all(is_stated(item, subschema(kind, kind["items"]), request_index) for item in value)
    return bool(request_index.find(value, kind))


# Several calls of one tool


@dataclass(frozen=True, slots=True)
class CallMention:
    """The spans of the constants of a call in the request, in the order of the text."""

    names: tuple[str, ...]
    spans: tuple[Span, ...]
    sentence: Sentence

    @property
    def start(self) -> int:
        """Start of the first constant."""
        return self.spans[0][0]

    @property
    def end(self) -> int:
        """End of the last constant."""
        return self.spans[-1][1]


def are_requested(calls: Sequence[PlanStep], given: RequestIndex) -> bool:
    """Whether the request asks for each of these calls of one tool."""
    if len(calls) > MAX_CALLS or any(call.each is not None for call in calls) or not _differ_in_constants(calls):
        return False
    mentions = [list(_call_mentions(call, given)) for call in calls]
    return any(_is_parallel(sorted(mention, key=_start), given) for mention in _assign_mentions(mentions, []))


def _start(mention: CallMention) -> int:
    return mention.start


def _differ_in_constants(calls: Sequence[PlanStep]) -> bool:
    """Whether calls have the same arguments and differ only in constants."""

    def argument_pattern(call: PlanStep) -> dict[str, Argument | None]:
        return {
            name: value if isinstance(value, PlanReference) or not _is_mentionable(value) else None
            for name, value in call.arguments.items()
        }

    return (
        all(argument_pattern(call) == argument_pattern(calls[0]) for call in calls)
        and None in argument_pattern(calls[0]).values()
    )


def _is_mentionable(value: PlanLiteral) -> bool:
    """Whether a constant can occur in the request: a text, a number, or a list of one."""
    return value.value not in (None, []) and not isinstance(value.value, bool)


def _call_mentions(call: PlanStep, request_index: RequestIndex) -> Iterator[CallMention]:
    """Mentions of a call: places where its constants are adjacent in a usable sentence."""
    constants = {
        name: value.value
        for name, value in call.arguments.items()
        if isinstance(value, PlanLiteral) and _is_mentionable(value)
    }
    spans = [request_index.find(value[0] if isinstance(value, list) else value, {}) for value in constants.values()]
    for number, combination in enumerate(product(*spans)):
        if number >= MAX_MENTIONS:
            return
        order = sorted(zip(combination, constants, strict=True))
        apart = all(before[0][1] <= after[0][0] for before, after in pairwise(order))
        within = next(
            (
                sentence
                for sentence in request_index.sentences
                if sentence.start <= order[0][0][0] and order[-1][0][1] <= sentence.end
            ),
            None,
        )
        if apart and within is not None and within.mood is Mood.COMMAND:
            yield CallMention(tuple(name for _, name in order), tuple(span for span, _ in order), within)


def _assign_mentions(
    candidates: Sequence[Sequence[CallMention]], mentions: list[CallMention]
) -> Iterator[list[CallMention]]:
    """Yields assignments of a separate mention to each call."""
    if not candidates:
        yield mentions
        return
    for mention in candidates[0]:
        if all(mention.end <= call_mention.start or call_mention.end <= mention.start for call_mention in mentions):
            yield from _assign_mentions(candidates[1:], [*mentions, mention])


def _is_parallel(mentions: Sequence[CallMention], request_index: RequestIndex) -> bool:
    """Whether the mentions of several calls, in order, have parallel wording."""
    first = mentions[0]
    if any(
        mention.names != first.names or _gaps(mention, request_index) != _gaps(first, request_index)
        for mention in mentions
    ):
        return False
    lead = _words(_strip_filler(request_index.text[first.sentence.start : first.start]))
    links = [_link(before, after, lead, request_index) for before, after in pairwise(mentions)]
    if any(link is None for link in links):
        return False
    last = _words(request_index.text[mentions[-1].end : mentions[-1].sentence.end])
    tails = [*(link.tail for link in links if link is not None), last]
    ranged = _RANGE.search(request_index.text, first.sentence.start, first.start) is not None
    plain = [number for number, link in enumerate(links) if link is not None and not link.repeats_lead]
    return all(tails[at] == tails[at + 1] and not ranged and _is_name(mentions[at + 1], request_index) for at in plain)


@dataclass(frozen=True, slots=True)
class _Link:
    """The text between two mentions: the words that belong to the first one, and whether the second begins like the
    first call.
    """

    tail: list[str]
    repeats_lead: bool


def _link(before: CallMention, after: CallMention, lead: list[str], request_index: RequestIndex) -> _Link | None:
    """Returns None if nothing joins the mentions."""
    text = request_index.text
    if before.sentence != after.sentence:
        leads = bool(lead) and _words(_strip_filler(text[after.sentence.start : after.start])) == lead
        return _Link(_words(text[before.end : before.sentence.end]), leads) if leads else None
    between = text[before.end : after.start]
    for join in reversed(list(_JOIN.finditer(between))):
        rest = _words(_strip_filler(between[join.end() :]))
        if not rest or (lead and rest == lead):
            return _Link(_words(between[: join.start()]), bool(rest))
    return None


def _gaps(mention: CallMention, request_index: RequestIndex) -> list[list[str]]:
    return [_words(request_index.text[before[1] : after[0]]) for before, after in pairwise(mention.spans)]


def _is_name(mention: CallMention, request_index: RequestIndex) -> bool:
    """Whether no constant begins like a plain word, which may be a verb: `and book 7`."""
    texts = [request_index.text[start:end] for start, end in mention.spans]
    return all(not text[0].islower() or any(char in "@0123456789" for char in text) for text in texts)


def _strip_filler(text: str) -> str:
    """A text without filler words at its beginning, such as `please`."""
    match = FILLER.match(text)
    return text[match.end() :] if match is not None else text


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


# Values that a grammar lists


def allowed_constants(kind: Schema, given: RequestIndex) -> list[Any]:
    """Constants of a type, except free text, that may be passed to a call with effects."""
    if (constants := enum_values(kind)) is not None:
        return [constant for constant in constants if _is_stated_as(constant, kind, given)]
    if kind.get("type") == "boolean":
        return [True, False]
    if kind.get("type") in ("integer", "number"):
        number_constants: list[Any] = _number_constants(given)
    else:
        dates = [f"{day.year:04}-{day.month:02}-{day.day:02}" for day in given.days if day.year and day.day]
        number_constants = [*dict.fromkeys([*(given.text[start:end] for start, end in _text_spans(given)), *dates])]
    check = Validator(bundle_definitions(kind)).check
    return [
        constant for constant in number_constants if check(constant) is None and _is_stated_as(constant, kind, given)
    ]


def _number_constants(request_index: RequestIndex) -> list[int | float]:
    values = {value: None for amount in request_index.amounts for value in sorted(amount.values)}
    return [
        int(value) if value.denominator == 1 else float(value) for value in values if request_index.find_number(value)
    ]


def _text_spans(request_index: RequestIndex) -> Iterator[Span]:
    """Pieces of the request of a few tokens."""
    for sentence in request_index.usable_sentences:
        stops = sorted(end for end in request_index.end_positions if sentence.start < end <= sentence.end)
        for start in sorted(at for at in request_index.token_ends if sentence.start <= at < sentence.end):
            yield from ((start, end) for end in [end for end in stops if end > start][:MAX_LISTED_TOKENS])


def further_calls(calls: Sequence[PlanStep], capability: Capability, given: RequestIndex) -> list[PlanStep]:
    """Further calls of a tool with effects that the request asks for after these ones."""
    first = calls[0]
    names = [
        name for name, value in first.arguments.items() if isinstance(value, PlanLiteral) and _is_mentionable(value)
    ]
    if len(calls) >= MAX_CALLS or not names or any(plan_step.each is not None for plan_step in calls):
        return []
    plan_steps: dict[str, PlanStep] = {}
    for mention in _call_mentions(first, given):
        for values in _next_values(mention, first, given):
            arguments = {**first.arguments, **{name: PlanLiteral(value) for name, value in values.items()}}
            call = replace(first, arguments=arguments, after=())
            fits = all(is_stated(arguments[name].value, capability.fields[name], given) for name in names)  # type: ignore[union-attr]  # `names` are of constants
            new = str(call) not in plan_steps and all(
                replace(plan_step, name=call.name, after=()) != call for plan_step in calls
            )
            if fits and new and are_requested([*calls, call], given):
                plan_steps[str(call)] = call
    return list(plan_steps.values())


def _next_values(mention: CallMention, first: PlanStep, request_index: RequestIndex) -> Iterator[dict[str, Any]]:
    """Values for the constants of a call at another mention, in positions parallel to those of the first call."""
    gaps = _gaps(mention, request_index)
    for start in sorted(request_index.token_ends):
        if not mention.start <= start < mention.end:
            yield from _values_from(start, mention.names, gaps, first, request_index)


def _values_from(
    start: int, names: Sequence[str], gaps: Sequence[list[str]], first: PlanStep, request_index: RequestIndex
) -> Iterator[dict[str, Any]]:
    value = first.arguments[names[0]].value if isinstance(first.arguments[names[0]], PlanLiteral) else None  # type: ignore[union-attr]  # `names` are of constants
    is_list = isinstance(value, list)
    for stop, linked_values in _values_at(start, value[0] if isinstance(value, list) else value, request_index):
        values_by_name = {names[0]: [linked_values] if is_list else linked_values}
        if len(names) == 1:
            yield values_by_name
            continue
        for at in sorted(token_end for token_end in request_index.token_ends if stop <= token_end <= stop + 80):
            if _words(request_index.text[stop:at]) == gaps[0]:
                yield from (
                    {**values_by_name, **rest} for rest in _values_from(at, names[1:], gaps[1:], first, request_index)
                )


def _values_at(start: int, like: Any, request_index: RequestIndex) -> Iterator[tuple[int, Any]]:
    """Values like this one that begin at a position of the request, each with its end."""
    if isinstance(like, int | float):
        for amount in request_index.amounts:
            if amount.start == start:
                yield from (
                    (amount.end, int(value) if value.denominator == 1 else float(value))
                    for value in sorted(amount.values)
                )
        return
    for end in sorted(end_position for end_position in request_index.end_positions if end_position > start)[
        :MAX_LISTED_TOKENS
    ]:
        if (start, end) in request_index.find_text(request_index.text[start:end]):
            yield end, request_index.text[start:end]
