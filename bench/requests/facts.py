"""Facts in the text of an answer: numbers by value and unit, dates and times in several notations, words.

A fact is written as a string: `27 days`, `£1,320`, `12 %`, `17:30`, `8 October 2025`, `Samir Patel`, or a verdict,
`@yes` or `@no`. A number with decimals also matches a more precise one that rounds to it. A number without a unit in
the answer matches any unit; another unit does not. This module uses nothing of `orchestra`, so that the evaluation
does not share errors with the product.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cache

YES, NO = "@yes", "@no"

_MONTHS = {
    "january januar janvier enero jan janv": 1,
    "february februar février fevrier febrero feb févr": 2,
    "march märz maerz mars marzo mar mrz": 3,
    "april avril abril apr avr": 4,
    "may mai mayo": 5,
    "june juni juin junio jun": 6,
    "july juli juillet julio jul juil": 7,
    "august août aout agosto aug": 8,
    "september septembre septiembre setiembre sep sept": 9,
    "october oktober octobre octubre oct okt": 10,
    "november novembre noviembre nov": 11,
    "december dezember décembre decembre diciembre dec dez déc": 12,
}
_MONTH_NUMBER = {name: number for names, number in _MONTHS.items() for name in names.split()}
_MONTH = "|".join(sorted((name for name in _MONTH_NUMBER if name != "may"), key=len, reverse=True))
_MONTH = rf"(?:(?i:{_MONTH})|[Mm]ay(?=\W*\d{{4}}\b)|May|MAY)"
"""`may` in lower case is a verb, unless a year follows."""

_UNITS = {
    "gbp": "£ gbp pound pounds quid",
    "eur": "€ eur euro euros",
    "usd": "$ usd dollar dollars",
    "chf": "chf franc francs franken",
    "cent": "cent cents pence centimes céntimos",
    "percent": "% percent pct prozent",
    "second": "second seconds sec secs sekunde sekunden seconde secondes segundo segundos",
    "minute": "minute minutes min mins minuten minuto minutos",
    "hour": "hour hours hr hrs h stunde stunden heure heures hora horas",
    "day": "day days tag tage tagen jour jours día días dia dias",
    "week": "week weeks woche wochen semaine semaines semana semanas",
    "month": "month months monat monate monaten mois mes meses",
    "year": "year years jahr jahre jahren an ans année années año años",
    "km": "km kilometre kilometres kilometer kilometers kilomètre kilomètres kilómetro kilómetros",
    "mile": "mile miles",
    "m": "m metre metres meter meters mètre mètres metro metros",
    "cm": "cm centimetre centimetres centimeter centimeters",
    "mm": "mm millimetre millimetres millimeter millimeters",
    "m2": "m² m2 sqm",
    "t": "t tonne tonnes ton tons",
    "kg": "kg kilo kilos kilogram kilograms kilogramm kilogrammes",
    "g": "g gram grams gramm grammes gramos",
    "mg": "mg milligram milligrams",
    "ml": "ml millilitre millilitres milliliter milliliters",
    "l": "l litre litres liter liters litro litros",
    "hl": "hl hectolitre hectolitres",
    "gallon": "gallon gallons",
    "celsius": "°c °",
    "kw": "kw kilowatt kilowatts",
    "kwh": "kwh",
    "db": "db decibel decibels",
    "bar": "bar",
}
_UNIT_OF = {name: unit for unit, names in _UNITS.items() for name in names.split()}
_UNIT_NAMES = "|".join(sorted(map(re.escape, _UNIT_OF), key=len, reverse=True))
_UNIT_AFTER = re.compile(
    r"[ -]?(?:(?:working|calendar|business|consecutive|full|net) )?"
    rf"(?P<unit>pour cent|por ciento|per cent|degrees celsius|{_UNIT_NAMES})(?![\w²])",
)
_UNIT_BEFORE = re.compile(r"(?P<unit>£|€|\$|\bgbp|\beur|\busd|\bchf) ?$")
_LONG_UNITS = {"pour cent": "percent", "por ciento": "percent", "per cent": "percent", "degrees celsius": "celsius"}
_MULTIPLIER = re.compile(r" ?(?P<name>million|millions|mio|thousand|k)\b")
_MULTIPLIERS = {"million": 10**6, "millions": 10**6, "mio": 10**6, "thousand": 1000, "k": 1000}

_NUMBER = re.compile(
    r"(?<![a-z_\d])(?<![a-z]-)(?<!\d[.,])(?<!\d-)"
    r"(?P<sign>(?:(?<=[ (:£€$])|^)-)?(?P<digits>\d{1,3}(?:[.,']\d{3})+(?:[.,]\d+)?|\d+(?:[.,]\d+)?)(?![\d_]|-\d)"
)
_RANGE = re.compile(r"(?<![\w.,-])(\d{1,4}(?:[.,]\d{1,2})?)-(?=[1-9]\d{0,3}(?:[.,]\d{1,2})?(?![\w-]))")
"""The first number of a range such as `2-8 °C`; longer digits with a hyphen are an identifier."""
_SPACED = re.compile(r"(?<!\d)(?<!\d[.,])(\d{1,3}(?: \d{3})+)(?!\d)")
"""Thousands in French and Spanish."""

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_WORDS = {name: number for number, name in enumerate(f"{_ONES} eighteen nineteen".split())}
_TENS = {
    name: 10 * number
    for number, name in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
}
_OTHER_WORDS = {
    "de": "null _ zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn",
    "fr": "zéro _ deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze",
    "es": "cero _ dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince",
}
_WORD_NUMBER = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(_TENS)})(?:[- ](?P<one>{'|'.join(list(_WORDS)[1:10])}))?|(?P<word>{'|'.join(_WORDS)}))"
    r"(?P<half> and a half)?\b"
)

_DATES = (
    re.compile(r"\b(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?:T[\d:]+)?\b"),
    re.compile(
        rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th|er|\.)?\s+(?:of |de )?(?P<name>{_MONTH})\b\.?"
        r"(?:,?\s+(?:de |del )?(?P<year>\d{4}))?",
    ),
    re.compile(
        rf"\b(?P<name>{_MONTH})\b\.?\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?![\d:.,]\d|\d)(?:,?\s+(?P<year>\d{{4}}))?"
    ),
    re.compile(r"(?<![\d.])(?P<day>\d{1,2})[./](?P<month>\d{1,2})[./](?P<year>\d{4}|\d{2})?(?![\d])"),
)
_TIMES = (
    re.compile(
        r"\b(?P<hour>[01]?\d|2[0-4])(?::|\s?h\s?)(?P<minute>[0-5]\d)(?::\d\d)?(?!\d|:)(?:\s*(?P<half>[ap]\.?m\b\.?))?",
        re.IGNORECASE,
    ),
    re.compile(r"\b(?P<hour>\d{1,2})\.(?P<minute>[0-5]\d)\s*(?:uhr\b|(?P<half>[ap]\.?m\b\.?))", re.IGNORECASE),
    re.compile(r"\b(?P<hour>\d{1,2})\s*(?:uhr\b|o'clock\b|(?P<half>[ap]\.?m\b\.?))", re.IGNORECASE),
    re.compile(r"\b(?:at )?(?P<noon>noon|midday|midnight)\b", re.IGNORECASE),
)
_FRENCH_HOUR = re.compile(r"\b(?P<hour>\d{1,2})\s?h(?:eures)?\b", re.IGNORECASE)
_LIST_MARK = re.compile(rf"^[ \t]*(?:[-*•]|\d{{1,2}}[.)])[ \t]+(?=\S)(?!{_MONTH}\b)", re.MULTILINE)

_NO_START = r"(?:no|nein|non)(?=[ ]?[,.;:!]|[ ]-|$)"
_NEGATIVE = (
    rf"(?:^|(?<=[.!?:] )){_NO_START}",
    r"\b(?:false|incorrect|wrong|untrue|refuted|contradict\w*|falsch|faux|fausse|falso|falsa|incorrecto)\b",
    r"\b(?:is|are|was|were|does|do|did|may|must|can|could|should|has|have)(?: not\b|n't\b)",
    r"\bcannot\b",
    r"\bnot (?:true|correct|right|accurate|the case|allowed|permitted|the same|identical|supported)\b",
    r"\b(?:stimmt|gilt|trifft|ist|sind|darf|dürfen|kann) (?:so |das |man |es )?nicht\b",
    r"\bn(?:'est|e sont|'ont) pas\b|\bce n'est pas\b",
    r"\bno (?:es|está|se permite|puede|es cierto)\b",
)
_POSITIVE = (
    r"\b(?:yes|true|correct|right|supported|confirmed|confirms|ja|richtig|stimmt|oui|vrai|exact|cierto|verdadero)\b",
    r"(?:^|(?<=[.!?:] ))sí\b",
    r"\bit does\b|\bthey (?:match|agree)\b|\bthe same\b|\bidentical\b",
)
_VERDICT = re.compile("|".join(f"(?P<n{i}>{p})" for i, p in enumerate(_NEGATIVE)) + "|" + "|".join(_POSITIVE))

_STATED = (
    "say|said|state|stated|tell|mention|mentioned|contain|contained|specify|specified|find|found|give|given|provide|"
    "provided|list|listed|know|known|show|shown|available|indicate|answer|answered|determine|determined|record|"
    "recorded|name|described"
)
_ABSENT = "information|mention|answer|data|records?|details?|documents?|entry|entries|such|indication|evidence"
_GENANNT = "angegeben|genannt|erwähnt|gefunden|enthalten|bekannt|angaben|angabe|information|informationen|auskunft"
_INDIQUE = r"mentionn\w*|indiqu\w*|précis\w*|trouv\w*|donn\w*|inform\w*|figur\w*|contien\w*|connu\w*"
_INDICA = r"indica\w*|menciona\w*|dice\w*|encuentra\w*|encontr\w+|figura\w*|consta\w*|aparece\w*|contiene\w*"
NOT_FOUND = re.compile(
    rf"\b(?:do(?:es)?|did|could|can|is|are|was|were|has|have)(?: not|n't)(?: \w+){{0,2}}? (?:{_STATED})\b"
    rf"|\b(?:not|cannot(?: be)?|can't(?: be)?|unable to|neither) (?:{_STATED})\b|\bnot in the documents\b"
    rf"|\b(?:no|any) (?:{_ABSENT})\b|\bnothing (?:is |was |has been )?(?:said|stated|found|about|in the documents)\b"
    r"|\b(?:unknown|unanswerable)\b"
    rf"|\b(?:nicht|keine?n?) (?:\w+ ){{0,3}}?(?:{_GENANNT})\b|\bsteht nicht\b"
    rf"|\bn(?:e |')(?:\w+ ){{0,3}}?(?:pas|aucune?|rien)\b(?: \w+){{0,2}}? ?(?:{_INDIQUE})"
    r"|\baucune (?:information|mention|réponse)\b"
    rf"|\bno (?:se )?(?:{_INDICA})\b|\bningun[ao]? (?:información|dato|mención|documento)"
)
"""Phrases of a text that gives no value, because the documents have none."""
_UNABLE = re.compile(
    r"\b(?:i|we|it|you) (?:cannot|can't|can not|could not|couldn't|am unable|are unable|am not able|was unable)\b"
    r"|\bcannot be (?:\w+ )?(?:sent|done|placed|made|booked|ordered)\b|\bunable to\b|\bnot possible\b|\bnot able to\b"
    r"|\b(?:not|nothing|no (?:\w+ )?)(?: has| was| is| were)?(?: been)? ?(?:sent|done|ordered|booked|called|paid)\b"
    r"|\b(?:there is|there are|there were|there was) no(?:ne)?\b|\bneither (?:\w+ ){1,4}nor\b|\bnone of\b"
    r"|\b(?:ich|wir) (?:kann|können) (?:\w+ ){0,6}?nicht\b|\bnicht möglich\b|\bgibt (?:es )?kein\w*\b"
    r"|\bje ne peux pas\b|\bpas possible\b|\bil n'y a (?:pas|aucun\w*)\b"
    r"|\bno (?:puedo|podemos|hay|es posible)\b|\bning[uú]n[ao]?\b"
)
"""Phrases of a text that says what was not done, or that there is no such thing."""

_EXEMPT_BEFORE = re.compile(
    r"(?:\b(?:not|never|no|without|instead of|rather than|no longer|formerly|previously|old|former|superseded|except|"
    r"excluding|nicht|kein|keine|statt|früher|pas|aucun|aucune|ancien|no|en vez de|antes)\b|n't\b)"
    r"(?:[ ,:(]+[^ .;!?]+){0,3}[ ,:(]*$"
)
"""A forbidden fact after one of these words, in the same sentence, is denied and not stated."""
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|\n")


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text, with each value that its notation can have."""

    values: tuple[Decimal, ...]
    unit: str
    start: int
    in_words: bool = False


@dataclass(frozen=True, slots=True)
class Date:
    """A date in a text; `year` is 0 if there is none."""

    year: int
    month: int
    day: int
    start: int


@dataclass(frozen=True, slots=True)
class Time:
    """A time of the day in a text, in minutes; both readings if morning and afternoon are not distinguished."""

    minutes: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Content:
    """A normalised text, and what it contains."""

    text: str
    numbers: tuple[Number, ...]
    dates: tuple[Date, ...]
    times: tuple[Time, ...]
    folded: str = field(repr=False, default="")
    """The text without accents, with the same positions."""


def normalise(text: str) -> str:
    """Returns a text with plain quotes, dashes and blanks, without Markdown marks and the marks of list elements; the
    case is kept.
    """
    text = re.sub(r"(\d) ?½", r"\1.5", text).replace("½", "0.5").replace("²", "\x01")
    text = unicodedata.normalize("NFKC", text).replace("\x01", "²")
    text = text.translate(str.maketrans("‘’‚′“”„«»‐‑‒–—−", '\'\'\'\'"""""------', "*`#"))
    text = _LIST_MARK.sub("", text)
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip()


def fold(text: str) -> str:
    """Returns a text in lower case without accents, of the same length."""
    return "".join(
        plain if len(plain := unicodedata.normalize("NFD", one)[:1].casefold()) == 1 else one for one in text
    )


@cache
def read(text: str, language: str = "en") -> Content:
    """Returns what a text contains. Dates are not read as times, nor times as numbers."""
    plain = normalise(text)
    rest = plain
    dates, times = [], []
    for pattern in _DATES:
        for match in pattern.finditer(rest):
            if (date := _date(match)) is not None:
                dates.append(date)
                rest = _mask(rest, match)
    patterns = (*_TIMES, _FRENCH_HOUR) if language == "fr" else _TIMES
    for pattern in patterns:
        for match in pattern.finditer(rest):
            if (time := _time(match)) is not None:
                times.append(time)
                rest = _mask(rest, match)
    numbers = tuple(_numbers(_lower(rest), language))
    return Content(_lower(plain), numbers, tuple(dates), tuple(times), fold(plain))


def occurs(fact: str, content: Content, language: str = "en", *, forbidden: bool = False) -> bool:
    """Returns whether a text states a fact. A forbidden fact that the text denies (`not 25 days`) is not stated."""
    if fact in (YES, NO):
        return verdict(content) == fact
    starts = list(_places(fact, content, language, forbidden))
    if forbidden:
        starts = [start for start in starts if not _is_denied(content.text, start)]
    return bool(starts)


def verdict(content: Content) -> str:
    """Returns `@yes` or `@no` if a text confirms or denies, by its first such word; empty if it does neither."""
    if finds_nothing(content):
        return ""
    found = _VERDICT.search(content.text)
    if found is None:
        return ""
    return NO if found.lastgroup and found.lastgroup.startswith("n") else YES


def finds_nothing(content: Content) -> bool:
    """Returns whether the first sentence of a text says that the documents have no answer."""
    end = _SENTENCE_END.search(content.text)
    return NOT_FOUND.search(content.text, 0, end.start() if end else len(content.text)) is not None


def gives_nothing(content: Content) -> bool:
    """Returns whether a text says anywhere that there is no answer, or that something was not done."""
    return NOT_FOUND.search(content.text) is not None or _UNABLE.search(content.text) is not None


def _places(fact: str, content: Content, language: str, forbidden: bool) -> Iterator[int]:
    """Yields the positions at which a text states a fact."""
    wanted = read(fact, language)
    if len(wanted.dates) == 1 and _covers(_DATES, fact):
        date = wanted.dates[0]
        for one in content.dates:
            if (one.month, one.day) == (date.month, date.day) and (
                not one.year or not date.year or one.year == date.year
            ):
                yield one.start
    elif len(wanted.times) == 1 and _covers(_TIMES, fact):
        yield from (one.start for one in content.times if set(one.minutes) & set(wanted.times[0].minutes))
    elif len(wanted.numbers) == 1 and not wanted.numbers[0].in_words and _is_number(fact, wanted.numbers[0], language):
        number = wanted.numbers[0]
        for other in content.numbers:
            if _equal(number, other) and not (forbidden and other.in_words and max(other.values) < 3):
                yield other.start
    elif _is_telephone(fact):
        digits = r"[ /.-]?".join(re.sub(r"\D", "", fact))
        yield from (match.start() for match in re.finditer(rf"(?<!\d){digits}(?!\d)", content.text))
    else:
        words = r"\s+".join(map(re.escape, fold(normalise(fact)).split()))
        yield from (match.start() for match in re.finditer(rf"(?<!\w){words}(?!\w)", content.folded))


def _is_denied(text: str, start: int) -> bool:
    sentence = max((match.end() for match in _SENTENCE_END.finditer(text, 0, start)), default=0)
    return _EXEMPT_BEFORE.search(text, sentence, start) is not None


def _covers(patterns: tuple[re.Pattern[str], ...], fact: str) -> bool:
    return any(pattern.fullmatch(normalise(fact)) for pattern in patterns)


def _is_number(fact: str, number: Number, language: str) -> bool:
    """Returns whether a fact is a number with its unit, and no other words."""
    text = _join_thousands(_lower(normalise(fact)), language)
    left = _UNIT_BEFORE.sub("", text[: number.start]).strip()
    match = _NUMBER.match(text, number.start)
    if match is None:
        return False
    right = _UNIT_AFTER.sub("", text[match.end() :], count=1).strip()
    return not left and right in ("", "th", "st", "nd", "rd", ".")


def _is_telephone(fact: str) -> bool:
    return re.fullmatch(r"\+?\d[\d /-]{6,}", fact) is not None and " " in fact


def _equal(wanted: Number, other: Number) -> bool:
    if wanted.unit and other.unit and wanted.unit != other.unit:
        return False
    value = wanted.values[0]
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent >= 0:
        return any(one == value for one in other.values)
    return any(one.quantize(value, ROUND_HALF_UP) == value for one in other.values)


def _date(match: re.Match[str]) -> Date | None:
    found = match.groupdict()
    name, year = found.get("name"), int(found.get("year") or 0)
    month = _MONTH_NUMBER[name.casefold()] if name else int(found["month"] or 0)
    day = int(found["day"])
    if not name and month > 12 >= day:
        day, month = month, day
    return (
        Date(year + 2000 if 0 < year < 100 else year, month, day, match.start())
        if 1 <= month <= 12 and 1 <= day <= 31
        else None
    )


def _time(match: re.Match[str]) -> Time | None:
    found = match.groupdict()
    if noon := found.get("noon"):
        return Time((0, 24 * 60) if noon.casefold() == "midnight" else (12 * 60,), match.start())
    hour, minute, half = int(found["hour"]), int(found.get("minute") or 0), (found.get("half") or "").casefold()
    if hour > 24:
        return None
    if half:
        hour = hour % 12 + (12 if half.startswith("p") else 0)
    elif "clock" in match[0].casefold() and hour < 12:
        return Time((60 * hour + minute, 60 * (hour + 12) + minute), match.start())
    return Time((60 * hour + minute,), match.start())


def _mask(text: str, match: re.Match[str]) -> str:
    return text[: match.start()] + "\0" * (match.end() - match.start()) + text[match.end() :]


def _lower(text: str) -> str:
    """Returns a text in lower case, of the same length."""
    return "".join(lower if len(lower := one.lower()) == 1 else one for one in text)


def _numbers(text: str, language: str) -> Iterator[Number]:
    text = _RANGE.sub(r"\1~", _join_thousands(text, language))
    for match in _NUMBER.finditer(text):
        values = tuple(dict.fromkeys(_values(match["digits"], language)))
        if match["sign"]:
            values = tuple(-value for value in values)
        end = match.end()
        if larger := _MULTIPLIER.match(text, end):
            values, end = tuple(value * _MULTIPLIERS[larger["name"]] for value in values), larger.end()
        before, after = _UNIT_BEFORE.search(text, 0, match.start()), _UNIT_AFTER.match(text, end)
        unit = before["unit"].strip() if before else after["unit"] if after else ""
        yield Number(values, _LONG_UNITS.get(unit) or _UNIT_OF.get(unit, ""), match.start())
    for match in _WORD_NUMBER.finditer(text):
        value = _TENS[match["tens"]] + _WORDS.get(match["one"] or "", 0) if match["tens"] else _WORDS[match["word"]]
        exact = value + Decimal("0.5") if match["half"] else Decimal(value)
        yield Number((exact,), _unit_after(text, match.end()), match.start(), True)
    names = _OTHER_WORDS.get(language, "").split()
    for value, name in enumerate(names):
        for match in re.finditer(rf"\b{name}\b", text):
            yield Number((Decimal(value),), _unit_after(text, match.end()), match.start(), True)


def _join_thousands(text: str, language: str) -> str:
    """Returns a text of the same length, without the blanks inside of French and Spanish numbers."""
    if language not in ("fr", "es"):
        return text
    return _SPACED.sub(lambda match: match[1].replace(" ", "").rjust(len(match[1])), text)


def _unit_after(text: str, end: int) -> str:
    after = _UNIT_AFTER.match(text, end)
    return _LONG_UNITS.get(after["unit"]) or _UNIT_OF.get(after["unit"], "") if after else ""


def _values(digits: str, language: str) -> Iterator[Decimal]:
    """Yields the values of digits. A dot or comma before exactly three digits separates thousands or decimals; in
    English, a comma separates thousands only.
    """
    digits = digits.replace("'", "")
    separators = [one for one in digits if one in ".,"]
    if not separators:
        yield Decimal(digits)
    elif len(set(separators)) == 2:
        decimal = separators[-1]
        yield Decimal(digits.replace("," if decimal == "." else ".", "").replace(decimal, "."))
    else:
        groups = re.split("[.,]", digits)
        thousands = all(len(group) == 3 for group in groups[1:])
        if thousands and (separators[0] == "," or language != "en" or len(groups) > 2):
            yield Decimal("".join(groups))
        if len(groups) == 2 and not (thousands and separators[0] == "," and language == "en"):
            yield Decimal(".".join(groups))
