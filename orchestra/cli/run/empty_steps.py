"""What the steps of a request's plan made nothing of, though they ended well: said, so that nobody takes it for done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.agents.registry import builtin_folder
from orchestra.app.planning import NODE, Draft
from orchestra.core.outcomes import Value
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import shortened
from orchestra.journal.history import History
from orchestra.router.plan_syntax import ELEMENT, INPUT, Argument, Literal, Reference, Step
from orchestra.workflows.model import REQUEST

DESK = "support_desk"
"""The packaged workflow that takes any message."""
SHOWN = 80
"""Characters of a part of the request that are shown."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A step that did nothing about what it was given."""

    said: str
    skill: str
    words: str
    """Of the request, which it was given; all of them where it was given no others."""


def idle(draft: Draft, history: History, chosen: Settings) -> Iterator[Idle]:
    """The steps that did nothing about what they were given, in their order.

    The packaged desk may only have sorted a message: its reply is meant for a house in which somebody reads what it hands over, and here
    nobody does. Of another skill that was given nothing but words of the request the value may be empty, as of one that extracts from words
    in which there is nothing of the kind. One that reads documents or a table may find nothing there, and has done its work.
    """
    if draft.plan is None:
        return
    packaged = chosen.resources("workflows").get(DESK) == builtin_folder("workflows") / f"{DESK}.yaml"
    for step in draft.plan.steps:
        row = history.row(f"{NODE}@{draft.version}/{step.name}")
        if row is None or not isinstance(row.outcome, Value):
            continue
        skill = draft.offer.skills.get(step.skill)  # a plan from the cache, or a later one, may have been made of others
        returned = [() if step.each is not None else value.path for value in draft.plan.answer.values if value.root == step.name]
        for words, value in _calls(step, row.outcome.value, draft.request):
            if step.skill == DESK and packaged:
                if said := _sorted(value):
                    yield Idle(said, DESK, words or draft.request)
            elif words and skill is not None and not skill.acts and any(_empty(_at(value, path)) for path in returned):
                yield Idle(f'{step.name} is empty: {step.skill} found nothing in "{shortened(words, SHOWN)}"', step.skill, words)


def _calls(step: Step, value: Any, request: str) -> Iterator[tuple[str, Any]]:
    """The words of the request that each call of a step was given, if it was given nothing else of what is at hand, and its value."""
    if step.each is None:
        yield _words(step.arguments.values(), request), value
    elif isinstance(value, list):
        stated = step.each.value if isinstance(step.each, Literal) else []
        for number, one in enumerate(value):
            element = Literal(stated[number]) if len(stated) == len(value) else Reference(ELEMENT)  # a call that failed has no value there
            given = [element if said == Reference(ELEMENT) else said for said in step.arguments.values()]
            yield _words(given, request), one


def _words(given: Iterable[Argument], request: str) -> str:
    """The shortest text of the request among some arguments; empty where there is none, or where another value is read."""
    found: list[str] = []
    for value in given:
        match value:
            case Literal(str() as text) if text and text in request:
                found.append(text)
            case Reference() if (value.root, *value.path) == (INPUT, REQUEST):
                found.append(request)
            case Reference():
                return ""
            case _:
                pass
    return min(found, key=len, default="")


def _at(value: Any, path: Sequence[str | int]) -> Any:
    """The part of a value that is returned; the value itself where it has no such part."""
    for one in path:
        try:
            value = value[one]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _sorted(value: Any) -> str:
    """How the desk only sorted a message; empty where it did something with it."""
    match value:
        case {"branch": "person" | "assistant" as branch, "intent": str(intent), "matter": None}:
            return f"{DESK} only sorted it (branch {branch}, intent {intent}): nothing was done, and nobody was told"
        case _:
            return ""


def _empty(value: Any) -> bool:
    """Whether a value holds nothing; no and zero are something."""
    if isinstance(value, Mapping):
        return all(map(_empty, value.values()))
    return value is None or (isinstance(value, str | Sequence) and not value)
