"""Deterministic edits of answered questions for the agent `caller`: other values, several values, several questions.

A value of a call is edited if it occurs exactly once in the question and in no other place of the calls; then question
and call can both get another value. Items with call values that are not in the question are skipped, because these may
follow from the edited value. Dates, booleans, enum choices and defaults seldom do and are allowed. So edited rows are
correct up to these, if not always natural.

- `retold`: the question with other values.
- `listed`: one value becomes two to four, and the one call as many ("the area of a circle with a radius of 5, 8 and
  13").
- `respectively`: two values become two each, which correspond in order.
- `repeated`: the question again, with other values, after itself.
- `chained`: independent questions, one after the other.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agents.caller.data.items import Function, Item, fits

LONGEST = 2_400
"""Maximal number of characters of functions and question."""
MOST = 400
"""Maximal number of characters of one question of several."""
BETWEEN = (" Also, ", " And ", " Then, ", " ", " After that, ", " Next, ", " Finally, ", "; ")
_DATE = re.compile(r"\d{4}-\d{2}|\d+/\d+")
_TIME = re.compile("year|date|season|from|to|start|end")
_SPELLED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_LISTED = (
    re.compile(r"^\W*(and|or|to|through)\b|^,\s*[\dA-Z]|^['\"”’]"),
    re.compile(r"\b(and|or|to|between|from)\s*$|[\dA-Z]\w*,\s*$|['\"“‘]$"),
)
"""Text around a value that is already one of several, or quoted: several values there would be misread."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A value of a call in the question: index of the call, path to the value, text, and parameter name."""

    call: int
    path: tuple[str | int, ...]
    text: str
    value: Any
    percent: bool = False

    @property
    def name(self) -> str:
        """The parameter name, by which values are exchanged."""
        return next((str(step) for step in reversed(self.path) if isinstance(step, str)), "").lower()


class Values:
    """Texts by parameter name, from all questions."""

    def __init__(self, items: Sequence[Item]) -> None:
        found: dict[str, dict[str, None]] = {}
        for item in items:
            for slot in slots(item):
                if isinstance(slot.value, str):
                    found.setdefault(slot.name, {})[slot.value] = None
        self._texts = {name: list(texts) for name, texts in found.items() if len(texts) > 2}

    def other(self, slot: Slot, taken: Sequence[str], chance: random.Random) -> tuple[str, Any] | None:
        """Returns another text for a slot with its value; None if there is none. Texts in `taken` are in the question
        already.
        """
        if isinstance(slot.value, str):
            left = [
                text
                for text in self._texts.get(slot.name, ())
                if not any(text in one or one in text for one in (slot.text, *taken))
            ]
            return None if not left else ((text := chance.choice(left)), text)
        for _ in range(8):
            text, value = _number(slot, chance)
            if text not in (slot.text, *taken):
                return text, value
        return None


def _number(slot: Slot, chance: random.Random) -> tuple[str, Any]:
    """Returns a number of the same kind and its notation."""
    number = float(slot.text)
    places = len(slot.text.partition(".")[2])
    if places == 0 and 1500 <= number <= 2100 and _TIME.search(slot.name):
        made = float(chance.randint(1950, 2025))
    elif places == 0:
        made = float(chance.randint(max(2, int(number) // 2), int(number) * 2 + 3))
        made -= made % 10 if number % 10 == 0 and number > 10 and made > 20 else 0
        made -= made % 100 if number % 100 == 0 and made > 200 else 0
    else:
        made = round(number * chance.uniform(0.4, 2.2), places) or number
    made = min(made, 95) if slot.percent else made
    text = f"{made:.{places}f}"
    value = float(text) / 100 if slot.percent else float(text)
    return text, round(value, 6) if slot.percent or not isinstance(slot.value, int) else int(value)


def slots(item: Item) -> list[Slot]:
    """Returns the values of an item that can be replaced."""
    known = {function["name"]: function["parameters"].get("properties", {}) for function in item.functions}
    leaves = [
        (known.get(call["name"], {}), path, value)
        for call in item.calls
        for path, value in _leaves(call["arguments"], ())
    ]
    if not all(_stands(value, item.question) or _chosen(declared, path, value) for declared, path, value in leaves):
        return []
    texts = [str(value) for _, _, value in leaves if not isinstance(value, bool)]
    found = [
        slot for number, call in enumerate(item.calls) for slot in _slots(number, call["arguments"], (), item.question)
    ]
    free = [slot for slot in found if not _chosen(known.get(item.calls[slot.call]["name"], {}), slot.path, slot.value)]
    return [slot for slot in free if sum(_overlap(slot, text) for text in texts) == 1]


def _overlap(slot: Slot, text: str) -> bool:
    return text == str(slot.value) or slot.text in text or text in slot.text


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    match value:
        case Mapping():
            for name, inner in value.items():
                yield from _leaves(inner, (*path, name))
        case list():
            for at, inner in enumerate(value):
                yield from _leaves(inner, (*path, at))
        case _:
            yield path, value


def _stands(value: Any, question: str) -> bool:
    """Returns whether a value occurs independently in the question, so that no other value determines it."""
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, str):
        return value.lower() in question.lower() or bool(_DATE.search(value))
    numbers = {float(text.replace(",", "")) for text in re.findall(r"\d[\d,]*(?:\.\d+)?", question)}
    spelled = {float(number) for number, word in enumerate(_SPELLED) if re.search(rf"\b{word}\b", question.lower())}
    return not {float(value), round(100 * float(value), 6)}.isdisjoint(numbers | spelled)


def _chosen(declared: Mapping[str, Any], path: tuple[str | int, ...], value: Any) -> bool:
    """Returns whether a value is an enum choice or a default of the function."""
    top = declared.get(str(path[0]), {})
    return "enum" in json.dumps(top) or top.get("default") == value or f"'{value}'" in str(top.get("description", ""))


def _slots(call: int, value: Any, path: tuple[str | int, ...], question: str) -> Iterator[Slot]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _slots(call, inner, (*path, name), question)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _slots(call, inner, (*path, at), question)
    elif isinstance(value, str):
        if 2 <= len(value) <= 60 and not _DATE.search(value) and _once(value, question):
            yield Slot(call, path, value, value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value > 1:
        texts = {f"{value:g}", str(value)}
        if text := next(
            (text for text in sorted(texts) if re.fullmatch(r"\d+(\.\d+)?", text) and _once(text, question)), None
        ):
            yield Slot(call, path, text, value)
    elif isinstance(value, float) and 0 < value < 1:
        text = f"{value * 100:g}"
        if re.fullmatch(r"\d+(\.\d+)?", text) and _once(f"{text}%", question) and _once(text, question):
            yield Slot(call, path, text, value, percent=True)
        elif _once(f"{value:g}", question) and "e" not in f"{value:g}":
            yield Slot(call, path, f"{value:g}", value)


def _once(text: str, question: str) -> bool:
    return question.count(text) == 1 and bool(_at(text, question))


def _at(text: str, question: str) -> re.Match[str] | None:
    return re.search(rf"(?<!\d,(?=\d\d\d\b))(?<![\w.]){re.escape(text)}(?!\w|[.,]\d)", question)


def _told(item: Item, changes: Sequence[tuple[Slot, str, Any]], id: str) -> Item:
    """Returns the item with other values in question and calls."""
    question, calls = item.question, copy.deepcopy(list(item.calls))
    for slot, text, value in changes:
        question = _replaced(question, slot.text, text)
        _put(calls, slot, value)
    return Item(id, question, item.functions, tuple(calls), item.system)


def _replaced(question: str, old: str, new: str) -> str:
    at = _at(old, question)
    return question if at is None else question[: at.start()] + new + question[at.end() :]


def _put(calls: Sequence[Mapping[str, Any]], slot: Slot, value: Any) -> None:
    at: Any = calls[slot.call]["arguments"]
    for step in slot.path[:-1]:
        at = at[step]
    at[slot.path[-1]] = value


def retold(item: Item, values: Values, mark: str) -> Item | None:
    """Returns the item with other values; None if no value can be replaced."""
    chance = random.Random(f"{item.id} retold {mark}")
    known, taken, changes = slots(item), list[str](), list[tuple[Slot, str, Any]]()
    for slot in known:
        if (len(known) == 1 or chance.random() < 0.8) and (
            other := values.other(slot, [*taken, *(one.text for one in known)], chance)
        ):
            taken.append(other[0])
            changes.append((slot, *other))
    return _good(_told(item, changes, f"{item.id}-{mark}")) if changes else None


def _alone(slot: Slot, question: str) -> bool:
    """Returns whether several values may replace this one."""
    at, (behind, before) = _at(slot.text, question), _LISTED
    if at is None or not all(isinstance(step, str) for step in slot.path):
        return False
    return not behind.search(question[at.end() :]) and not before.search(question[: at.start()])


def listed(item: Item, values: Values, mark: str) -> Item | None:
    """Returns the item with two to four values and as many calls; None if it is unsuitable."""
    chance = random.Random(f"{item.id} listed {mark}")
    known = [slot for slot in slots(item) if _alone(slot, item.question)]
    if len(item.calls) != 1 or not known:
        return None
    slot = chance.choice(known)
    texts, calls = [slot.text], [dict(item.calls[0])]
    for _ in range(chance.choice((1, 1, 2, 3))):
        if (other := values.other(slot, texts, chance)) is None:
            return None
        texts.append(other[0])
        made = copy.deepcopy(dict(item.calls[0]))
        _put([made], slot, other[1])
        calls.append(made)
    ends = "%" if slot.percent else ""
    told = f"{ends}, ".join(texts[:-1]) + f"{ends} and {texts[-1]}"
    return _good(
        Item(f"{item.id}-{mark}", _replaced(item.question, slot.text, told), item.functions, tuple(calls), item.system)
    )


def respectively(item: Item, values: Values, mark: str) -> Item | None:
    """Two values become two each, and the call becomes two calls."""
    chance = random.Random(f"{item.id} respectively {mark}")
    known = [slot for slot in slots(item) if _alone(slot, item.question) and not slot.percent]
    if len(item.calls) != 1 or len(known) < 2:
        return None
    question, second = item.question, copy.deepcopy(dict(item.calls[0]))
    for slot in sorted(chance.sample(known, 2), key=lambda slot: question.index(slot.text)):
        if (other := values.other(slot, [one.text for one in known], chance)) is None:
            return None
        question = _replaced(question, slot.text, f"{slot.text} and {other[0]}")
        _put([second], slot, other[1])
    end = re.search(r"[.?!]*\s*$", question)
    at = end.start() if end else len(question)
    return _good(
        Item(
            f"{item.id}-{mark}",
            f"{question[:at]}, respectively{question[at:]}",
            item.functions,
            (*item.calls, second),
            item.system,
        )
    )


def repeated(item: Item, values: Values, mark: str) -> Item | None:
    """Returns the item followed by one to three repetitions with other values."""
    chance = random.Random(f"{item.id} repeated {mark}")
    if len(item.calls) != 1:
        return None
    again = [retold(item, values, f"{mark}{number}") for number in range(chance.choice((1, 1, 2, 3)))]
    made = [item, *(one for one in again if one is not None)]
    return (
        chained(made, chance, f"{item.id}-{mark}")
        if len(made) > 1 and len({one.question for one in made}) == len(made)
        else None
    )


def chained(items: Sequence[Item], chance: random.Random, id: str) -> Item | None:
    """Returns questions one after the other; None if function names clash, the system texts differ, or the result is
    too long.
    """
    if len({item.system for item in items}) > 1:
        return None
    functions: dict[str, Function] = {}
    for item in items:
        for function in item.functions:
            if functions.setdefault(function["name"], function) != function:
                return None
    question = items[0].question.strip()
    for item in items[1:]:
        between = chance.choice(BETWEEN)
        ended = question if question[-1:] in ".?!" else f"{question}."
        question = f"{ended[:-1] if between == '; ' else ended}{between}{_after(item, between)}"
    order = list(functions.values())
    chance.shuffle(order)
    return _good(
        Item(id, question, tuple(order), tuple(call for item in items for call in item.calls), items[0].system)
    )


def _after(item: Item, between: str) -> str:
    """Returns a question as it continues after another; values of its calls and words in capitals are kept."""
    question = item.question.strip()
    first = re.split(r"[^\w]", question, maxsplit=1)[0]
    values = (str(value) for call in item.calls for _, value in _leaves(call["arguments"], ()))
    keeps = (
        between == " "
        or not (first[:1].isupper() and first[1:].islower())
        or any(question.startswith(value) for value in values)
    )
    return question if keeps else question[:1].lower() + question[1:]


def _good(item: Item) -> Item | None:
    """Returns the item if its calls have the declared types and it is not too long."""
    short = len(json.dumps(item.functions)) + len(item.question) <= LONGEST
    return item if short and fits(item.functions, item.calls) else None


def chains(items: Sequence[Item], lengths: Mapping[int, int]) -> Iterator[Item]:
    """Returns chains of single-call questions, by number of questions."""
    chance = random.Random("chains")
    alone = [item for item in items if len(item.calls) == 1 and len(item.question) < MOST and not item.system]
    for length, wanted in lengths.items():
        for number in range(wanted):
            picked = [replace(one, functions=_called(one)) for one in chance.sample(alone, length)]
            if (made := chained(picked, chance, f"{picked[0].id}-chain-{length}-{number}")) is not None:
                yield made


def _called(item: Item) -> tuple[Function, ...]:
    names = {call["name"] for call in item.calls}
    return tuple(function for function in item.functions if function["name"] in names)
