"""Question kinds: what kind of words answers a question, such as a person, a date or an amount of money, and whether a
candidate answer is of that kind.

The kind is read from the words of the question. It is unknown for most questions; then every candidate fits.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from orchestra.text.keywords import STOP_WORDS, singular
from orchestra.text.numbers.times import MONTH_PATTERN
from orchestra.text.numbers.words import POWER_WORDS, SMALL_NUMBERS

AnswerKind: TypeAlias = Literal[
    "person",
    "place",
    "phone",
    "code",
    "date",
    "weekday",
    "reason",
    "time",
    "money",
    "percent",
    "count",
    "duration",
    "length",
    "weight",
    "temperature",
    "",
]

_CURRENCY = (
    r"[$€£¥]|\b(?:euros?|eur|usd|dollars?|cents?|pounds?|pfund|libras?|gbp|pence|chf|francs?|yen|crowns?|kronor|kroner|zloty|"
    r"rupees?|rubles?)\b"
)
_WEEKDAY = (
    r"(?:(?:mon|tues?|wednes|thurs?|fri|satur|sun)days?|(?:mon|diens|donners|frei|sams|sonn)tags?|mittwochs?|"
    r"lundis?|mardis?|mercredis?|jeudis?|vendredis?|samedis?|dimanches?|lunes|martes|miércoles|jueves|viernes|sábados?|"
    r"domingos?)"
)
_FOREIGN_MONTH = (
    r"januar|februar|märz|mai|juni|juli|oktober|dezember|janvier|février|mars|avril|juin|juillet|août|septembre|octobre|"
    r"novembre|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre"
)
_MONTH = rf"(?:{_FOREIGN_MONTH}|{MONTH_PATTERN})"
_FOREIGN_NUMBERS = (
    "zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|fünfzehn|zwanzig|deux|trois|quatre|cinq|sept|huit|neuf|dix|"
    "onze|douze|quinze|vingt|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|doce|veinte"
)
_DURATION = (
    r"(?:seconds?|minutes?|mins?|hours?|hrs?|days?|nights?|weeks?|fortnights?|months?|quarters?|years?|decades?|"
    r"centur(?:y|ies)|semesters?|sekunden?|minuten?|stunden?|tagen?|wochen?|monaten?|jahren?|secondes?|heures?|jours?|"
    r"semaines?|mois|ans?|segundos?|minutos?|horas?|días?|semanas?|mes(?:es)?|años?)"
)
NUMBER_WORDS: Final = (
    rf"(?:no|none|{'|'.join((*SMALL_NUMBERS, *POWER_WORDS))}|{_FOREIGN_NUMBERS}|dozen|half|once|twice|thrice|both|"
    r"single)"
)
_NUMBER = rf"(?:\d|\b{NUMBER_WORDS}\b)"
_ANSWER_PATTERNS: Final = {
    "money": re.compile(rf"{_NUMBER}.*(?:{_CURRENCY})|(?:{_CURRENCY})\s*\d|\bfree\b", re.IGNORECASE | re.DOTALL),
    "percent": re.compile(
        rf"{_NUMBER}.*(?:%|\bper ?cent\b|\bpercentage\b)|\b(?:half|third|quarter)s?\b", re.IGNORECASE
    ),
    "weekday": re.compile(rf"\b{_WEEKDAY}\b", re.IGNORECASE),
    "reason": re.compile(r"\w\W+\w"),
    "date": re.compile(
        rf"\b{_MONTH}\b|\b{_WEEKDAY}\b|\b(?:19|20)\d\d\b|\b\d{{1,4}}[./-]\d{{1,2}}[./-]\d{{1,4}}\b|\b{_DURATION}\b|"
        r"\b(?:today|tomorrow|yesterday|immediately|spring|summer|autumn|winter|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last)\b|\d(?:st|nd|rd|th)\b",
        re.IGNORECASE,
    ),
    "time": re.compile(
        r"\d{1,2}[:.]\d\d|\b\d{1,2}\s?(?:am|pm|a\.m|p\.m|h|uhr|o'clock)|\b(?:noon|midnight)\b", re.IGNORECASE
    ),
    "count": re.compile(_NUMBER, re.IGNORECASE),
    "duration": re.compile(
        rf"{_NUMBER}.*\b{_DURATION}\b|\b(?:daily|weekly|monthly|yearly|annually|quarterly|every|indefinite\w*)\b",
        re.IGNORECASE | re.DOTALL,
    ),
    "length": re.compile(
        rf"{_NUMBER}.*?(?:\b(?:mm|cm|dm|m|km|in|ft)\b|\b(?:\w*met(?:re|er)s?|inch(?:es)?|feet|foot|miles?|yards?)\b|[\"″′])",
        re.IGNORECASE,
    ),
    "weight": re.compile(
        rf"{_NUMBER}.*?(?:\b(?:mg|g|kg|t|lbs?|oz)\b|\b(?:\w*grams?|\w*grammes?|tonn?es?|tons?|pounds?|ounces?|stone)\b)",
        re.IGNORECASE,
    ),
    "temperature": re.compile(rf"{_NUMBER}.*(?:°|\bdegrees?\b|\bcelsius\b|\bfahrenheit\b)", re.IGNORECASE),
    "code": re.compile(r"\d"),
    "phone": re.compile(r"\d(?:[\s()/-]?\d){2,}"),
    "person": re.compile(r"\b[A-ZÀ-ÝŠŽ][\w'’.-]*|\b(?:the|an?|our|your|their|its|his|her) \w+", re.UNICODE),
    "place": re.compile(r"[^\W\d_]{2}"),
}
_KIND_PATTERNS: Final[tuple[tuple[AnswerKind, str], ...]] = (
    (
        "phone",
        r"\b(?:which|what) number\b.*\b(?:ring|call|dial|phone|reach)\b|\b(?:tele)?phone number\b|"
        r"\bextension\b.*\?",
    ),
    ("reason", r"^\W*(?:why|warum|pourquoi|por qué)\b"),
    ("weekday", r"\b(?:what|which) (?:week)?days? of the week\b|\b(?:what|which) weekdays?\b|\bwelche\w* wochentag"),
    (
        "money",
        r"\bwas kostet\b|\bwie ?viel (?:kostet|zahl|muss ich zahlen)|\bwie teuer\b|\bcombien (?:coûte|"
        r"faut-il (?:encore )?payer|"
        r"reste-t-il à payer|paie)|\bcuánto (?:me |nos )?(?:cuesta|pag|cobra)|\b(?:quel est le prix|"
        r"cuál es el precio)\b|"
        r"\bwhat(?:'s| is) the (?:most|least|maximum|minimum)\b.*\b(?:pay|spend|charge|cough up|cost)\w*\b|"
        r"\bhow much\b.*\b(?:costs?|pay|paid|charged?|price|fees?|euros?|dollars?|pounds?|rent|budget|salary|earn|"
        r"spent|spend|money|worth|refund\w*|reimburse\w*|claim|owe|get back|fine)\b|\bwhat (?:is|are|"
        r"was|were|does|did|"
        r"do|would|will)\b.*\b(?:costs?|price|fees?|salary|budget|fine|rent|deposit|allowance|"
        r"pay(?! for| attention)|owe)\b|"
        r"\bat what price\b|\bhow expensive\b",
    ),
    ("percent", r"\b(?:what|which|how many) (?:percentage|per ?cent|share|proportion)\b|\bpercentage\b.*\?"),
    (
        "time",
        r"\b(?:à|a) (?:quelle heure|qué hora)\b|\bquelle heure\b|\bum wie ?viel uhr\b|\bwie spät\b|"
        r"\b(?:at|by|from|until|till) what time\b|\bwhat time\b|\bwhen\b.*\b(?:open|clos|start|"
        r"begin)\w*\b.*\bon (?:a |the )?\w+day",
    ),
    (
        "duration",
        r"\bwie (?:lange|oft)\b|\bcombien de (?:temps|jours|semaines|mois)\b|\bcuánto (?:tiempo|dura)\b|"
        r"\bcuánt[oa]s (?:días|semanas|meses|horas)\b|\bhow (?:long|often|frequently|soon|old)\b|\bwhat (?:is|"
        r"was|are) the (?:notice period|deadline|duration|"
        r"warranty period|guarantee period|term|retention period)\b",
    ),
    (
        "count",
        r"\bwie ?viele?n?\b|\bcombien d['e]|\bcuánt[oa]s\b|\bhow many\b|\bwhat (?:is|was) the (?:number|"
        r"total number)\b",
    ),
    ("code", r"\b(?:which|what)\b.{0,30}\b(?:number|code|reference|invoice|serial|account)\b"),
    ("weight", r"\bhow heavy\b|\bweigh(?:s|t)?\b"),
    (
        "length",
        r"\bhow (?:tall|high|wide|deep|far|thick)\b|\bwhat (?:is|are) the (?:height|width|depth|length|distance)\b",
    ),
    ("temperature", r"\bhow (?:hot|cold|warm)\b|\bwhat temperature\b|\btemperature\b.*\?"),
    (
        "date",
        r"\b(?:bis |seit |ab )?wann\b|\bquand\b|\b(?:hasta |desde )?cuándo\b|\b(?:since |from |until |till |"
        r"by )?when\b|\b(?:on )?(?:what|which) (?:day|date|year|month|weekday)\b|"
        r"\bwhat (?:is|was) the (?:date|deadline)\b",
    ),
    ("person", r"\b(?:wer|wem|wen|quién|qui)\b|\bwho(?:m|se)?\b|\bwhat (?:is|was) the name of\b"),
    ("place", r"\bwhere\b"),
)
_KIND_RULES: Final = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _KIND_PATTERNS)


def answer_kind(question: str) -> AnswerKind:
    """Returns the kind of words that answer a question; empty if its words do not tell."""
    return next((kind for kind, pattern in _KIND_RULES if pattern.search(question)), "")


def is_of_kind(answer: str, kind: AnswerKind) -> bool:
    """Whether an answer may be of a kind. A date may be a time of day, and a time a date."""
    if not kind:
        return True
    if kind == "date" and re.search(r"\bquarters? (?:full|past|to|of an)\b", answer, re.IGNORECASE):
        return False
    patterns = {"date": ("date", "time"), "time": ("time",), "money": ("money",)}.get(kind, (kind,))
    return any(_ANSWER_PATTERNS[name].search(answer) is not None for name in patterns)


STRICT_KINDS: Final = frozenset({"money", "phone", "time", "weekday", "percent", "weight", "temperature", "count"})
"""Kinds that every right answer has the form of."""


def spans_of_kind(sentence: str, kind: AnswerKind) -> list[tuple[int, int]]:
    """Returns the amounts of a kind in a sentence: money, percentages, durations, lengths, weights, temperatures and
    times. Other kinds have no form of their own.
    """
    if (pattern := _AMOUNTS.get(kind)) is None:
        return []
    return [match.span() for match in pattern.finditer(sentence)]


def whole_amount(text: str, start: int, end: int, question_nouns: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Returns the position of an amount with its unit, of which a reader took a part: `28 days` for `28`.

    Args:
        text: The sentence of the part.
        start: The first character of the part.
        end: The first character after it.
        question_nouns: The nouns of the question in the singular. A number is completed by the noun after it if it is
            one of them, or a unit of measure.

    Returns:
        The position of the whole amount; that of the part itself if it has no figure or is complete.
    """
    if not _HAS_FIGURE.search(text[start:end]):
        return start, end
    if not (_ENDS_IN_FIGURE.search(text[start:end]) or _STARTS_WITH_FIGURE.match(text[start:end])):
        return start, end
    for kind, pattern in _AMOUNTS.items():
        for match in pattern.finditer(text):
            first, last = match.span()
            is_cut = first < start < last or first < end < last
            if is_cut and not (kind == "duration" and _GAP.search(match[0])):
                start, end = min(start, first), max(end, last)
    if _ENDS_IN_FIGURE.search(text[start:end]):
        last = end
        for _ in range(MAX_ADJECTIVES + 1):
            after = _WORD_AFTER.match(text, last)
            if after is None or (word := after["word"].casefold()) in STOP_WORDS:
                break
            last = after.end()
            if singular(word) in question_nouns or _UNIT.fullmatch(word):
                return start, last
    return start, end


_FIGURE = rf"(?:\d[\d.,]*(?:\s(?:thousand|million|billion))?|\b{NUMBER_WORDS}(?:[ -]{NUMBER_WORDS})*)"
_AMOUNTS: Final = {
    "phone": re.compile(r"\+?\d(?:[\s()/-]?\d){4,}"),
    "money": re.compile(
        rf"[$€£¥]\s?\d[\d.,]*\d|[$€£¥]\s?\d|{_FIGURE}\s?(?:{_CURRENCY})|\bfree(?: of charge)?\b", re.IGNORECASE
    ),
    "percent": re.compile(rf"{_FIGURE}\s?(?:%|per ?cent\b)", re.IGNORECASE),
    "duration": re.compile(rf"(?:\bevery )?{_FIGURE}[\s-](?:\w+ )?{_DURATION}\b", re.IGNORECASE),
    "length": re.compile(
        rf"{_FIGURE}\s?(?:(?:mm|cm|dm|m|km|in|ft)\b|\w*met(?:re|er)s?\b|inch(?:es)?\b|feet\b|miles?\b)", re.IGNORECASE
    ),
    "weight": re.compile(
        rf"{_FIGURE}\s?(?:(?:mg|g|kg|t|lbs?|oz)\b|\w*grams?\b|tonn?es?\b|pounds?\b|ounces?\b)", re.IGNORECASE
    ),
    "temperature": re.compile(rf"{_FIGURE}\s?(?:°\s?[CF]?|degrees?(?: celsius| fahrenheit)?)", re.IGNORECASE),
    "date": re.compile(
        rf"\b\d{{1,2}}(?:\.|er|st|nd|rd|th)?\s(?:de\s|of\s)?{_MONTH}\b(?:\s(?:de\s|del\s)?(?:19|20)\d\d)?|"
        r"\b(?:19|20)\d\d-\d\d-\d\d\b",
        re.IGNORECASE,
    ),
    "weekday": re.compile(
        rf"\b{_WEEKDAY}\b(?:(?:,? (?:and|or|to|until|und|bis|et|à|y|a) |, ){_WEEKDAY}\b)*", re.IGNORECASE
    ),
    "time": re.compile(
        r"\b\d{1,2}\s?h(?:\s?[0-5]\d)?\b|\b\d{1,2}(?:[:.]\d\d)? uhr\b|\b\d{1,2}[:.]\d\d(?:\s?[ap]\.?m\b\.?)?|"
        r"\b\d{1,2}\s?[ap]\.?m\b\.?|\bnoon\b|\bmidnight\b",
        re.IGNORECASE,
    ),
}
_HAS_FIGURE = re.compile(_FIGURE, re.IGNORECASE)
_ENDS_IN_FIGURE = re.compile(rf"(?:^|[^\w-]){_FIGURE}$", re.IGNORECASE)
_STARTS_WITH_FIGURE = re.compile(_FIGURE, re.IGNORECASE)
_GAP = re.compile(rf"[\s-](?:{'|'.join(sorted(map(re.escape, STOP_WORDS)))})\s", re.IGNORECASE)
"""A small word between a number and a unit, which belong to different things: `6 of the days`."""
_WORD_AFTER = re.compile(r"[\s-](?P<word>[^\W\d_]{2,})(?![\w'’])")
MAX_ADJECTIVES: Final = 2
"""Words between a number and its noun."""
_UNIT = re.compile(
    rf"{_DURATION}|litres?|liters?|millilitres?|ml|kw|kwh|watts?|volts?|km/h|mph|points?|pages?|pieces?|copies|times",
    re.IGNORECASE,
)
"""A unit of measure, or of counting, that no pattern of amounts has."""
