"""Short arithmetic stories from the templates in `templates/`.

A template is a story with several questions, so the question, and not the story, determines the expression. Random
parts: names, things, kinds, words, numbers, irrelevant sentences, whether the last sentence becomes an *if* clause, and
number words.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from orchestra.text.arithmetic import ArithmeticParseError, evaluate

TEMPLATES = tuple(sorted(Path(__file__).with_name("templates").glob("*.txt")))


def _words(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Returns the words of template files by kind."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (line for path in paths for line in path.read_text("utf-8").splitlines()):
        if line.startswith(": "):
            _, kind, *words = line.split(" ")
            found[kind] += words
    return found


_WORDS = _words(TEMPLATES)
QUESTIONS = 3
"""Maximal number of questions of one story."""
TRIES = 300
"""Maximal number of draws of numbers for a template."""
SCALES = (9, 12, 20, 40, 100, 100, 400, 999)
"""Upper bounds of the numbers of a story; one is drawn for each."""
_PLACES = ("the park", "school", "the beach", "home", "the market", "the library", "the zoo", "a fair", "the shop")
_IDLE = (
    "{A} also has {v} {q}.",
    "{A} is {v} years old.",
    "{B} has {v} {q}.",
    "There are {v} {q} on a table.",
    "{A} [bought|found|saw] {v} {q} [too|as well|yesterday].",
    "{A} lives {v} [miles|blocks] from {place}.",
    "{A} has {v} [brothers|cousins|friends].",
    "It was the {v}th day of the [month|holidays].",
    "{B} paid {v} dollars for a {q1}.",
    "It took {A} {v} [minutes|hours|days].",
    "{A} has {v} {q} and {w} {r}.",
)
"""Sentences that are unrelated to the question."""
_BOUND = re.compile(r"(One|Each|Every|Of|That|It|They|Then|The|In)\b|\{[y-z]\} ")
"""Starts of sentences that refer to the previous sentence."""
_CHOICE = re.compile(r"\[([^][]*)\]")
_LETTER = re.compile(r"(?<![A-Za-z'’])[mnu-z](?![A-Za-z'’])")
"""A variable of a template: in braces in its text, bare in its conditions and arithmetic."""
_SLOT = re.compile(r"\{([A-Za-z]+[123]?)\}")
_CONDITION = re.compile(r"([a-z])~small|([a-z])=([^<>=!]+)|([^<>=!]+)([<>]|!=)([^<>=!]+)")


@dataclass(frozen=True, slots=True)
class Template:
    """A story with questions, each with its expression."""

    conditions: tuple[str, ...]
    body: str
    asks: tuple[tuple[str, str], ...]

    @property
    def letters(self) -> list[str]:
        """Returns its variables in the order of the text."""
        text = " ".join((self.body, *(part for ask in self.asks for part in ask), *self.conditions))
        return list(dict.fromkeys(_LETTER.findall(text)))


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and the expression of its answer."""

    question: str
    expression: str


def templates(paths: Iterable[Path] = TEMPLATES) -> list[Template]:
    """Reads the templates of files. Raises `ValueError` for an invalid line."""
    return [template for path in paths for template in _templates(path)]


def _templates(path: Path) -> list[Template]:
    found: list[Template] = []
    conditions: tuple[str, ...] = ()
    body, asks = "", list[tuple[str, str]]()
    for line in [*path.read_text("utf-8").splitlines(), "#"]:
        mark, _, rest = line.partition(" ")
        if mark == "#":
            if asks:
                found.append(Template(conditions, body, tuple(asks)))
            conditions, body, asks = tuple(part.strip() for part in rest.split(",")) if rest else (), "", []
        elif mark == "?":
            question, _, expression = rest.rpartition(" = ")
            asks.append((question, expression.strip()))
        elif line.strip() and mark not in (";", ":"):
            if body:
                raise ValueError(f"two stories without a line of # between them: {line[:60]}")
            body = line.strip()
    return found


def problems(template: Template, chance: random.Random) -> list[Problem]:
    """Returns one instance of a template, a story with some questions; empty if no numbers meet its conditions."""
    asks = [ask for ask in template.asks if re.search(r"[-+*/]", ask[1]) or chance.random() < 0.15]
    asks = chance.sample(asks, min(len(asks), QUESTIONS))
    values = _numbers(template, asks, chance)
    if not asks or values is None:
        return []
    slots = _slots(chance)
    idle = chance.random() < 0.35 and all(
        re.search(r"\{[op]\}", question) and "things" not in question for question, _ in asks
    )
    sentences = re.split(r"(?<=\.) (?=[A-Z{\[])", _chosen(template.body, chance))
    shown = {name: _shown(value, chance) for name, value in values.items()}
    if idle:
        more = chance.choice(_IDLE)
        for name in ("v", "w"):
            shown["idle" + name] = str(chance.randint(2, chance.choice((12, 40, 100))))
        more = _chosen(more, chance).replace("{v}", "{idlev}").replace("{w}", "{idlew}")
        places = [at for at in range(1, len(sentences) + 1) if at == len(sentences) or not _BOUND.match(sentences[at])]
        sentences.insert(chance.choice(places), more)
    sentences = [_filled(sentence, slots, shown, chance) for sentence in sentences]
    made = [(_filled(_chosen(question, chance), slots, shown, chance), expression) for question, expression in asks]
    mergeable = len(sentences) > 1 and not idle and not re.match(r"When|After|If|Then|Now|Out|\[", sentences[-1])
    condition = sentences.pop() if mergeable and chance.random() < 0.22 else ""
    story = " ".join(sentences)
    return [
        Problem(f"{story} {_asked(condition, question)}", _with(expression, values)) for question, expression in made
    ]


def _asked(condition: str, question: str) -> str:
    """Returns the question, with the last sentence of the story as an *if* clause."""
    if not condition:
        return question
    lower = question[0].lower() + question[1:]
    named = condition.split()[0].removesuffix("'s") in {
        *_WORDS["she"],
        *_WORDS["he"],
        *_WORDS["day"],
    } or condition.startswith("Mr")
    begin = condition if named else condition[0].lower() + condition[1:]
    return f"If {begin.rstrip('.')}, {lower}"


def _numbers(template: Template, asks: Sequence[tuple[str, str]], chance: random.Random) -> dict[str, int] | None:
    """Draws numbers that meet the conditions and give positive whole answers."""
    letters = template.letters
    for _ in range(TRIES):
        scale = chance.choice(SCALES)
        values = {name: chance.randint(2, scale) for name in letters}
        free = set(letters)
        for condition in template.conditions:
            if condition.endswith("~small"):
                values[condition[0]] = chance.randint(2, chance.choice((5, 9, 12, 20)))
        if not all(_meets(condition, values, free) for condition in template.conditions):
            continue
        results = [_value(expression, values) for _, expression in asks]
        if len({values[name] for name in free}) == len(free) and all(
            r is not None and r > 0 and r.denominator == 1 for r in results
        ):
            return values
    return None


def _meets(condition: str, values: dict[str, int], free: set[str]) -> bool:
    """Returns whether a condition holds; a condition that derives a number sets it."""
    if condition.endswith("~small"):
        return True
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ValueError(f"no condition: {condition}")
    if match[2]:
        found = _value(match[3], values)
        if found is None or found < 1 or found > 5000:
            return False
        values[match[2]] = int(found)
        return True
    left, right = _value(match[4], values), _value(match[6], values)
    if left is None or right is None:
        return False
    return left < right if match[5] == "<" else left > right if match[5] == ">" else left != right


def _with(expression: str, values: Mapping[str, int]) -> str:
    return re.sub(r"[a-z]", lambda name: str(values[name[0]]), expression)


def _value(expression: str, values: Mapping[str, int]) -> Fraction | None:
    try:
        return evaluate(_with(expression, values))
    except ArithmeticParseError:
        return None


def _shown(value: int, chance: random.Random) -> str:
    """Returns the text of a number; small ones are sometimes words."""
    return _WORDS["number"][value] if value < len(_WORDS["number"]) and chance.random() < 0.12 else str(value)


def _chosen(text: str, chance: random.Random) -> str:
    """Returns a text with one option of each choice."""
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda match: chance.choice(match[1].split("|")), text)
    return re.sub(r"\s+(?=[.,?])|\s+(?=\s)", "", text)


def _slots(chance: random.Random) -> dict[str, str]:
    """Draws the persons and things of a story."""
    she = chance.random() < 0.5
    first = chance.choice(_WORDS["she"] if she else _WORDS["he"])
    others = chance.sample([name for name in (*_WORDS["she"], *_WORDS["he"]) if name != first], 2)
    made = {"A": first, "B": others[0], "C": others[1], "place": chance.choice(_PLACES)}
    made |= dict(zip(("he", "his", "him"), ("she", "her", "her") if she else ("he", "his", "him"), strict=True))
    made |= dict(zip(("day", "day2", "day3"), chance.sample(_WORDS["day"], 3), strict=True))
    for names, pool in (("opqr", _WORDS["thing"]), ("kl", _WORDS["holder"])):
        for name, word in zip(names, chance.sample(pool, len(names)), strict=True):
            made[name], made[name + "1"] = _plural(word), word.partition("/")[0]
    kinds = _WORDS["look" if chance.random() < 0.7 else chance.choice(("look", "taste", "country"))]
    made |= dict(zip("cde", chance.sample(kinds, 3), strict=True))
    return {name: word.replace("~", " ") for name, word in made.items()}


def _plural(word: str) -> str:
    one, _, many = word.partition("/")
    if many:
        return many
    head, mark, rest = one.partition("~of~")
    return f"{head}{'es' if head.endswith(('ch', 'sh', 's', 'x')) else 's'}{mark}{rest}"


def _filled(text: str, slots: Mapping[str, str], numbers: Mapping[str, str], chance: random.Random) -> str:
    """Fills the slots of a sentence."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in numbers:
            before = text[: match.start()]
            return numbers[name] if not before.endswith("$") else str(_digits(numbers[name]))
        if name == "S":
            return slots["A"] if chance.random() < 0.3 else slots["he"].capitalize()
        return slots[name] if name in slots else slots[name.lower()].capitalize()

    made = re.sub(r"\ba (?=[aeiou])", "an ", _SLOT.sub(fill, text))
    return made[0].upper() + made[1:]


def _digits(shown: str) -> int:
    return _WORDS["number"].index(shown) if shown in _WORDS["number"] else int(shown)


def stories(count: int, seed: int) -> Iterator[tuple[str, Problem]]:
    """Returns that many problems, each with the name of its template; the templates take turns."""
    chance = random.Random(seed)
    known = templates()
    made = 0
    while made < count:
        for number, template in enumerate(known):
            for problem in problems(template, chance):
                yield f"story-{number:03}", problem
                made += 1
                if made >= count:
                    return
