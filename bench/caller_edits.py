"""Rows for the agent `caller` that deterministic edits make of answered questions: other values, several of them, several questions.

A value of a call is edited where it stands in the question, once, and nowhere else in the calls; then question and call can say another
value together. Items of which a call has what does not stand in the question are left alone, for it may follow from the value; dates,
booleans, choices and defaults, which seldom do, are let through. So what an edit gives is right but for these, if not always how people
speak.

- `retold`: the question with other values.
- `listed`: one value becomes two to four, and the one call as many ("the area of a circle with a radius of 5, 8 and 13").
- `respectively`: two values become two each, which belong together in their order.
- `are_requested`: the question again, with other values, behind itself.
- `chained`: several people's questions, one after the other.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.caller_items import Function, Item, fits

LONGEST = 2_400
"""Characters of functions and question together at most."""
MOST = 400
"""Characters of a question at most that is one of several."""
BETWEEN = (" Also, ", " And ", " Then, ", " ", " After that, ", " Next, ", " Finally, ", "; ")
_DATE = re.compile(r"\d{4}-\d{2}|\d+/\d+")
_TIME = re.compile("year|date|season|from|to|start|end")
_SPELLED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_LISTED = (
    re.compile(r"^\W*(and|or|to|through)\b|^,\s*[\dA-Z]|^['\"”’]"),
    re.compile(r"\b(and|or|to|between|from)\s*$|[\dA-Z]\w*,\s*$|['\"“‘]$"),
)
"""What stands behind and before a value that is one of several already, or quoted: two of them would be read as something else."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A value of a call that stands in the question: the call's number, the way to the value, the text, and its parameter's name."""

    call: int
    path: tuple[str | int, ...]
    text: str
    value: Any
    percent: bool = False

    @property
    def name(self) -> str:
        """The parameter's name, by which values are alike."""
        return next((str(step) for step in reversed(self.path) if isinstance(step, str)), "").lower()


class Values:
    """Texts by the name of the parameter that had them, from all questions in which they stand."""

    def __init__(self, items: Sequence[Item]) -> None:
        found: dict[str, dict[str, None]] = {}
        for item in items:
            for slot in slots(item):
                if isinstance(slot.value, str):
                    found.setdefault(slot.name, {})[slot.value] = None
        self._texts = {name: list(texts) for name, texts in found.items() if len(texts) > 2}

    def other(self, slot: Slot, taken: Sequence[str], chance: random.Random) -> tuple[str, Any] | None:
        """Another text for a slot, and its value; None where none is known. `taken` stand in the question already."""
        if isinstance(slot.value, str):
            left = [text for text in self._texts.get(slot.name, ()) if not any(text in one or one in text for one in (slot.text, *taken))]
            return None if not left else ((text := chance.choice(left)), text)
        for _ in range(8):
            text, value = _number(slot, chance)
            if text not in (slot.text, *taken):
                return text, value
        return None


def _number(slot: Slot, chance: random.Random) -> tuple[str, Any]:
    """A number of the same kind, and how it is written."""
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
    """The values of an item that can be told otherwise."""
    known = {function["name"]: function["parameters"].get("properties", {}) for function in item.functions}
    leaves = [(known.get(call["name"], {}), path, value) for call in item.calls for path, value in _leaves(call["arguments"], ())]
    if not all(_stands(value, item.question) or _chosen(declared, path, value) for declared, path, value in leaves):
        return []
    texts = [str(value) for _, _, value in leaves if not isinstance(value, bool)]
    found = [slot for number, call in enumerate(item.calls) for slot in _slots(number, call["arguments"], (), item.question)]
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
    """Whether a value is one of the question's own, so that no other value of the question says what it must be."""
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, str):
        return value.lower() in question.lower() or bool(_DATE.search(value))
    numbers = {float(text.replace(",", "")) for text in re.findall(r"\d[\d,]*(?:\.\d+)?", question)}
    spelled = {float(number) for number, word in enumerate(_SPELLED) if re.search(rf"\b{word}\b", question.lower())}
    return not {float(value), round(100 * float(value), 6)}.isdisjoint(numbers | spelled)


def _chosen(declared: Mapping[str, Any], path: tuple[str | int, ...], value: Any) -> bool:
    """Whether a value is one of a few that the function declares, or what it takes where none is said."""
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
        if text := next((text for text in sorted(texts) if re.fullmatch(r"\d+(\.\d+)?", text) and _once(text, question)), None):
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
    """The item with other values in question and calls."""
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
    """The item with other values; None where it has none that can be told otherwise."""
    chance = random.Random(f"{item.id} retold {mark}")
    known, taken, changes = slots(item), list[str](), list[tuple[Slot, str, Any]]()
    for slot in known:
        if (len(known) == 1 or chance.random() < 0.8) and (other := values.other(slot, [*taken, *(one.text for one in known)], chance)):
            taken.append(other[0])
            changes.append((slot, *other))
    return _good(_told(item, changes, f"{item.id}-{mark}")) if changes else None


def _alone(slot: Slot, question: str) -> bool:
    """Whether several values may stand where this one does."""
    at, (behind, before) = _at(slot.text, question), _LISTED
    if at is None or not all(isinstance(step, str) for step in slot.path):
        return False
    return not behind.search(question[at.end() :]) and not before.search(question[: at.start()])


def listed(item: Item, values: Values, mark: str) -> Item | None:
    """The item asked for two to four values at once: as many calls. None where it does not lend itself to that."""
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
    return _good(Item(f"{item.id}-{mark}", _replaced(item.question, slot.text, told), item.functions, tuple(calls), item.system))


def respectively(item: Item, values: Values, mark: str) -> Item | None:
    """Two values become two each, and the one call two."""
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
        Item(f"{item.id}-{mark}", f"{question[:at]}, respectively{question[at:]}", item.functions, (*item.calls, second), item.system)
    )


def repeated(item: Item, values: Values, mark: str) -> Item | None:
    """The item and the same again with other values, once to three times."""
    chance = random.Random(f"{item.id} repeated {mark}")
    if len(item.calls) != 1:
        return None
    again = [retold(item, values, f"{mark}{number}") for number in range(chance.choice((1, 1, 2, 3)))]
    made = [item, *(one for one in again if one is not None)]
    return chained(made, chance, f"{item.id}-{mark}") if len(made) > 1 and len({one.question for one in made}) == len(made) else None


def chained(items: Sequence[Item], chance: random.Random, id: str) -> Item | None:
    """Questions one after the other; None where two functions have one name, what is said of all is not the same, or it grows too long."""
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
    return _good(Item(id, question, tuple(order), tuple(call for item in items for call in item.calls), items[0].system))


def _after(item: Item, between: str) -> str:
    """A question as it goes on behind another; a value of its calls, and a word in capitals, stays as it is."""
    question = item.question.strip()
    first = re.split(r"[^\w]", question, maxsplit=1)[0]
    values = (str(value) for call in item.calls for _, value in _leaves(call["arguments"], ()))
    keeps = between == " " or not (first[:1].isupper() and first[1:].islower()) or any(question.startswith(value) for value in values)
    return question if keeps else question[:1].lower() + question[1:]


def _good(item: Item) -> Item | None:
    """The item, where its calls are of their types and it is not too long."""
    short = len(json.dumps(item.functions)) + len(item.question) <= LONGEST
    return item if short and fits(item.functions, item.calls) else None


def chains(items: Sequence[Item], lengths: Mapping[int, int]) -> Iterator[Item]:
    """So many chains of questions of one call, by how many questions each has."""
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
