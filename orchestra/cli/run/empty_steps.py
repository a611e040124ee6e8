"""What the steps of a request's plan made nothing of, though they ended well: said, so that nobody takes it for done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.agents.registry import builtin_folder
from orchestra.app.planning import NODE, PlanResult
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import shorten
from orchestra.journal.history import History
from orchestra.router.plan_syntax import ELEMENT, INPUT, Argument, PlanLiteral, PlanReference, PlanStep
from orchestra.workflows.model import REQUEST

DESK_WORKFLOW = "support_desk"
"""The packaged workflow that takes any message."""
MAX_WORDS_LENGTH = 80
"""Characters of a part of the request that are shown."""


@dataclass(frozen=True, slots=True)
class EmptyStep:
    """A step that did nothing about what it was given."""

    message: str
    capability: str
    request_text: str
    """Of the request, which it was given; all of them where it was given no others."""


def find_empty_steps(draft: PlanResult, history: History, settings: Settings) -> Iterator[EmptyStep]:
    """The steps that did nothing about what they were given, in their order.

    The packaged desk may only have sorted a message: its reply is meant for a house in which somebody reads what it hands over, and here
    nobody does. Of another skill that was given nothing but words of the request the value may be empty, as of one that extracts from words
    in which there is nothing of the kind. One that reads documents or a table may find nothing there, and has done its work.
    """
    if draft.plan is None:
        return
    packaged = (
        settings.resources("workflows").get(DESK_WORKFLOW) == builtin_folder("workflows") / f"{DESK_WORKFLOW}.yaml"
    )
    for step in draft.plan.steps:
        row = history.row(f"{NODE}@{draft.version}/{step.name}")
        if row is None or not isinstance(row.outcome, ValueOutcome):
            continue
        skill = draft.capabilities.by_name.get(
            step.capability
        )  # a plan from the cache, or a later one, may have been made of others
        returned = [
            () if step.each is not None else value.path for value in draft.plan.answer.values if value.root == step.name
        ]
        for words, value in _step_calls(step, row.outcome.value, draft.request):
            if step.capability == DESK_WORKFLOW and packaged:
                if said := _describe_sorting(value):
                    yield EmptyStep(said, DESK_WORKFLOW, words or draft.request)
            elif (
                words
                and skill is not None
                and not skill.has_effects
                and any(_is_empty(_value_at(value, path)) for path in returned)
            ):
                yield EmptyStep(
                    f'{step.name} is empty: {step.capability} found nothing in "{shorten(words, MAX_WORDS_LENGTH)}"',
                    step.capability,
                    words,
                )


def _step_calls(step: PlanStep, value: Any, request: str) -> Iterator[tuple[str, Any]]:
    """The words of the request that each call of a step was given, if it was given nothing else of what is at hand, and its value."""
    if step.each is None:
        yield _request_text(step.arguments.values(), request), value
    elif isinstance(value, list):
        stated = step.each.value if isinstance(step.each, PlanLiteral) else []
        for number, one in enumerate(value):
            element = (
                PlanLiteral(stated[number]) if len(stated) == len(value) else PlanReference(ELEMENT)
            )  # a call that failed has no value there
            given = [element if said == PlanReference(ELEMENT) else said for said in step.arguments.values()]
            yield _request_text(given, request), one


def _request_text(given: Iterable[Argument], request: str) -> str:
    """The shortest text of the request among some arguments; empty where there is none, or where another value is read."""
    found: list[str] = []
    for value in given:
        match value:
            case PlanLiteral(str() as text) if text and text in request:
                found.append(text)
            case PlanReference() if (value.root, *value.path) == (INPUT, REQUEST):
                found.append(request)
            case PlanReference():
                return ""
            case _:
                pass
    return min(found, key=len, default="")


def _value_at(value: Any, path: Sequence[str | int]) -> Any:
    """The part of a value that is returned; the value itself where it has no such part."""
    for one in path:
        try:
            value = value[one]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _describe_sorting(value: Any) -> str:
    """How the desk only sorted a message; empty where it did something with it."""
    match value:
        case {"branch": "person" | "assistant" as branch, "intent": str(intent), "matter": None}:
            return f"{DESK_WORKFLOW} only sorted it (branch {branch}, intent {intent}): nothing was done, and nobody was told"
        case _:
            return ""


def _is_empty(value: Any) -> bool:
    """Whether a value holds nothing; no and zero are something."""
    if isinstance(value, Mapping):
        return all(map(_is_empty, value.values()))
    return value is None or (isinstance(value, str | Sequence) and not value)
