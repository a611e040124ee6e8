"""The plan cache: adapts a stored plan to another request with the same intent in the same context.

The *context* is what a plan may use: names and types of the available values, the output type, the capabilities with
the digests of their contracts, the planner, and the limits. It is one digest. The *intent* is the wording of the
request. Two requests have the same intent if they are equal except for case, spaces, punctuation and Unicode form, or
if they are so without their literals: numbers, quoted texts, dates, and names. In the second case the constants of the
plan are replaced by those at the same positions of the new request, and only if this is certain: each changed literal
must be one that the plan copied, or (except for names) one that it passes on with the whole request; each constant must
occur in the old request; and all occurrences of one constant must have changed alike. The result is validated again. A
plan with a call with effects is reused only for the identical request: equal except for Unicode form and spaces. There
a question mark, a sign or the case of a letter makes another request.

Pure: nothing is read or stored here. Stored plans are untrusted data: they are parsed and validated, and never
executed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from orchestra.core.events import NO_USAGE, Usage
from orchestra.router.capabilities import Capabilities, Capability
from orchestra.router.constants import RequestIndex
from orchestra.router.intents import AlignedToken, Intent, align
from orchestra.router.plan import Plan, build_plan
from orchestra.router.plan_syntax import (
    ELEMENT,
    INPUT,
    Argument,
    PlanAnswer,
    PlanLine,
    PlanLiteral,
    PlanReference,
    PlanStep,
    PlanSyntaxError,
    parse_line,
)
from orchestra.router.prompt import MAX_REQUEST_LENGTH
from orchestra.router.validation import PART_NOT_COVERED, validate_line
from orchestra.router.voting import VoteResult
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import union_members
from orchestra.text.quotes import fold

FORMAT = "orchestra/plan/v3"
"""Version of the stored format. It is part of every key, so entries of other versions are never found."""
MAX_LINES = 128
IGNORED_CODE = "R011"
"""Error code of a stored entry that is invalid or unreadable. It never ends a run."""


def ignored_message(why: str) -> str:
    """Message for an ignored entry."""
    return f"{IGNORED_CODE}: a stored plan is ignored: {why}"


class PlanCacheEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stored plan: its lines, the request that it was made for, and the cost of making it."""

    format: str = FORMAT
    context_digest: str
    request: str
    lines: tuple[str, ...]
    cost: Usage = NO_USAGE
    votes: int = 0
    """Number of `samples` that agreed on it; 0 of 0 without voting."""
    samples: int = 0

    @property
    def vote(self) -> VoteResult | None:
        """Result of the vote, if there was one."""
        return VoteResult(0, self.votes, self.samples) if self.samples else None


class CachedPlanError(ValueError):
    """Why a stored plan does not fit. `is_corrupt` is true if it should not have been stored at all."""

    def __init__(self, reason: str, *, is_corrupt: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.is_corrupt = reason, is_corrupt


def context_digest(capabilities: Capabilities, router: str, *more: str) -> str:
    """Digest of what a plan may use and of its planner. `more` separates plans further, such as by label."""
    keys = sorted(
        (_capability_key(capability) for capability in capabilities.by_name.values()), key=lambda key: str(key[0])
    )
    limits = [capabilities.limits.steps, capabilities.limits.width]
    switches = [
        bool(capabilities.request_text),
        capabilities.may_decline,
        *(["grounded"] if capabilities.grounds else []),
        *(["each_part"] if capabilities.request_parts else []),
    ]
    switches += (
        ["literals"]
        if capabilities.request_index is None
        and any(capability.has_effects for capability in capabilities.by_name.values())
        else []
    )
    return digest(
        canonical([FORMAT, dict(capabilities.inputs), capabilities.output_type, keys, limits, *switches, router, *more])
    )


def _capability_key(capability: Capability) -> list[Any]:
    return [
        capability.name,
        capability.kind,
        capability.digest,
        capability.description,
        dict(capability.fields),
        sorted(capability.required),
        capability.output,
    ]


def cache_keys(request: str, context: str) -> tuple[str, ...]:
    """Keys of a request's plan in this context, the most specific first; empty for a request that is too long."""
    if len(request) > MAX_REQUEST_LENGTH:
        return ()
    intent = Intent.of(request)
    return tuple(
        digest(canonical([FORMAT, context, kind, key]))
        for kind, key in (("same", intent.exact_key), ("alike", intent.template_key))
    )


def build_entry(plan: Plan, request: str, context: str, cost: Usage, won: VoteResult | None = None) -> dict[str, Any]:
    """Encodes a plan for storage, as JSON."""
    lines = tuple(map(str, (*plan.steps, plan.answer)))
    votes, samples = (won.votes, won.samples) if won is not None else (0, 0)
    entry = PlanCacheEntry(
        context_digest=context, request=request, lines=lines, cost=cost, votes=votes, samples=samples
    )
    data: dict[str, Any] = msgspec.to_builtins(entry)
    return data


def fit_cached_plan(
    stored: Any, request: str, capabilities: Capabilities, context: str, request_inputs: Collection[str] = ("request",)
) -> tuple[Plan, PlanCacheEntry]:
    """Adapts a stored plan to a request.

    Args:
        request_inputs: Names of the inputs that are the request itself.

    Raises:
        CachedPlanError: It does not fit, or the stored data is invalid.
    """
    try:
        entry = msgspec.convert(stored, PlanCacheEntry)
    except msgspec.ValidationError as error:
        raise CachedPlanError(f"it is not a stored plan: {error}", is_corrupt=True) from error
    if (
        entry.format != FORMAT
        or entry.context_digest != context
        or len(entry.lines) > MAX_LINES
        or len(entry.request) > MAX_REQUEST_LENGTH
    ):
        raise CachedPlanError("it has another version or context", is_corrupt=True)
    if min(entry.cost.calls, entry.cost.prompt_tokens, entry.cost.output_tokens) < 0:
        raise CachedPlanError("its cost is negative", is_corrupt=True)
    if not 0 <= entry.votes <= entry.samples or (entry.samples and not entry.votes):
        raise CachedPlanError("more samples agreed than were drawn", is_corrupt=True)
    plan = _parse_plan(entry.lines)
    request_index = None if capabilities.request_index is None else RequestIndex(entry.request)
    of_old = replace(
        capabilities,
        request_text=capabilities.request_text and entry.request,
        request_parts=None,
        request_index=request_index,
    )
    _validate(plan, of_old, is_corrupt=True)  # its texts are substrings of its own request
    if normalize_request(entry.request) != normalize_request(request) and any(
        capabilities.by_name[step.capability].has_effects for step in plan.steps
    ):
        raise CachedPlanError("it has effects, and the request is not identical")
    fitted_plan = _fit(plan, entry.request, request, capabilities, request_inputs)
    _validate(fitted_plan, capabilities)
    return fitted_plan, entry


def normalize_request(request: str) -> str:
    """Normalizes a request as key of plans with effects: Unicode form, and runs of white space as single spaces."""
    return " ".join(unicodedata.normalize("NFC", request).split())


def _parse_plan(lines: Sequence[str]) -> Plan:
    try:
        plan = build_plan([parse_line(line) for line in lines])
    except PlanSyntaxError as error:
        raise CachedPlanError(f"it is no plan: {error.reason}", is_corrupt=True) from error
    if plan is None:
        raise CachedPlanError("it is no plan: it does not end with an answer", is_corrupt=True)
    if not plan.answer.values:
        raise CachedPlanError("it is not a plan: it returns nothing", is_corrupt=True)
    return plan


def _validate(plan: Plan, capabilities: Capabilities, *, is_corrupt: bool = False) -> None:
    steps: tuple[PlanStep, ...] = ()
    lines: tuple[PlanLine, ...] = (*plan.steps, plan.answer)
    for line in lines:
        # The planner was asked for a step for each part, and the plan was accepted with the parts it leaves out.
        if faults := [
            rejection for rejection in validate_line(line, capabilities, steps) if rejection.code != PART_NOT_COVERED
        ]:
            raise CachedPlanError(str(faults[0]), is_corrupt=is_corrupt)
        if isinstance(line, PlanStep):
            steps = (*steps, line)


def _fit(plan: Plan, old: str, new: str, capabilities: Capabilities, request_inputs: Collection[str]) -> Plan:
    """Returns the plan with its constants taken from the new request."""
    before, after = Intent.of(old), Intent.of(new)
    if before.exact_key == after.exact_key:
        filling = _ConstantFiller(before, after, align(before.word_tokens, after.word_tokens, before.text, after.text))
    elif before.template_key == after.template_key:
        filling = _ConstantFiller(
            before, after, align(before.named_tokens, after.named_tokens, before.text, after.text)
        )
    else:
        raise CachedPlanError("the requests differ in their words")
    steps = tuple(filling.fill_step(step, capabilities.by_name[step.capability]) for step in plan.steps)
    filling.require_accounted(plan, request_inputs)
    return replace(plan, steps=steps)


class _ConstantFiller:
    """Finds the constants of a plan in its request, and reads them at the same positions of another one."""

    def __init__(self, before: Intent, after: Intent, pairs: tuple[AlignedToken, ...]) -> None:
        self.before, self.after, self.pairs = before, after, pairs
        self.changed = tuple(pair for pair in pairs if pair.is_changed)
        self.has_changed_number = any(pair.old.kind[0] in ("number", "date") for pair in self.changed)
        self.used_starts: set[int] = set()
        """Start positions of the literals that the plan copied."""

    def fill_step(self, step: PlanStep, capability: Capability) -> PlanStep:
        arguments = {name: self.fill_argument(value, capability, name) for name, value in step.arguments.items()}
        if not isinstance(step.each, PlanLiteral):
            return replace(step, arguments=arguments)
        choice = any(
            _is_choice(capability, name) for name, value in step.arguments.items() if value == PlanReference(ELEMENT)
        )
        return replace(step, arguments=arguments, each=PlanLiteral(self.fill_constant(step.each.value, choice=choice)))

    def fill_argument(self, value: Argument, capability: Capability, name: str) -> Argument:
        if isinstance(value, PlanReference):
            return value
        return PlanLiteral(self.fill_constant(value.value, choice=_is_choice(capability, name)))

    def fill_constant(self, value: Any, *, choice: bool) -> Any:
        match value:
            case bool() | None:
                return value
            case int() | float():
                return self.fill_number(value)
            case str():
                return self.fill_text(value, choice=choice)
            case list():
                return [self.fill_constant(item, choice=choice) for item in value]
            case _:
                raise CachedPlanError("it states a record")

    def fill_number(self, value: int | float) -> int | float:
        numbers: set[int | float] = set()
        for pair in self.pairs:
            if (read_as := pair.map_number(value)) is not None:
                numbers.add(read_as)
                self.used_starts.add(pair.old.start)
        if len(numbers) > 1:
            raise CachedPlanError(f"{value} occurs in the request more than once, with different changes")
        if not numbers and self.has_changed_number and value not in self.before.spelled_numbers:
            raise CachedPlanError(f"{value} is not a number of the request, and may depend on one that changed")
        return next(iter(numbers), value)

    def fill_text(self, value: str, *, choice: bool) -> str:
        places = self.before.find(value)
        texts = set()
        for start, end in places:
            begin, stop = self.map_position(start), self.map_position(end)
            if begin is None or stop is None or begin > stop:
                raise CachedPlanError(f"{value!r} is part of a changed text")
            text = self.after.text[begin:stop]
            texts.add(value if choice and fold(text).text == fold(value).text else text)
            self.used_starts |= {
                pair.old.start for pair in self.changed if start <= pair.old.inner_start and pair.old.inner_end <= end
            }
        if len(texts) > 1:
            raise CachedPlanError(f"{value!r} occurs in the request more than once, with different changes")
        if not texts and self.changed and not choice:
            raise CachedPlanError(f"{value!r} does not occur in the request, and may depend on a change")
        return next(iter(texts), value)

    def map_position(self, place: int) -> int | None:
        """Maps a position of the old request to the new one; None inside changed text."""
        return next((position for pair in self.pairs if (position := pair.map_position(place)) is not None), None)

    def require_accounted(self, plan: Plan, request_inputs: Collection[str]) -> None:
        """Rejects a plan that may depend on a changed literal without copying it."""
        reads_inputs = any(
            PlanReference(INPUT, (name,)) in step.references for name in request_inputs for step in plan.used_steps
        )
        structure = set(_structural_numbers(plan))
        for pair in self.changed:
            if pair.old.start in self.used_starts:
                continue
            text = self.before.text[pair.old.start : pair.old.end]
            if pair.old.kind[0] == "name" or not reads_inputs:
                raise CachedPlanError(f"the plan does not contain {text!r}")
            if pair.old.integers & structure:
                raise CachedPlanError(f"{text!r} may determine the structure of the plan")


def _structural_numbers(plan: Plan) -> Iterator[int]:
    """Numbers that the structure of a plan may depend on: list indices from 0 and from 1, lengths of stated lists, and
    counts of steps of a kind.
    """
    lines: Iterable[PlanStep | PlanAnswer] = (*plan.steps, plan.answer)
    for line in lines:
        for reference in (
            line.values if isinstance(line, PlanAnswer) else [*line.references, *_argument_references(line.arguments)]
        ):
            for part in reference.path:
                if isinstance(part, int):
                    yield from (part, part + 1)
    yield from (len(step.each.value) for step in plan.steps if isinstance(step.each, PlanLiteral))
    skills = [step.capability for step in plan.steps]
    yield from {len(skills), *map(skills.count, skills)} - {1}


def _is_choice(capability: Capability, name: str) -> bool:
    """Whether an argument is an enum."""
    return any("enum" in branch or "const" in branch for branch in union_members(capability.fields[name]))


def _argument_references(arguments: Mapping[str, Argument]) -> list[PlanReference]:
    return [value for value in arguments.values() if isinstance(value, PlanReference)]
