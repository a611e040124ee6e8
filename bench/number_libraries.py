"""The own code for numbers in text beside babel, text2num, python-stdnum, pint and quantulum3 (decision 066).

    python -m bench.number_libraries [--data FOLDER] [--show 0] [--seed 1]

Each case is given to a function of Orchestra and to the nearest function of a library, in the same process. The cases
are the tables of the tests, values written out by a rule, and, with `--data`, the sentences and table cells of public
sets (xquad_en, gsm8k, pubmedqa, factcheckgpt, tatqa), where the correct value is not known and only agreement is
counted. The libraries are no dependencies of the project; one that is not installed is reported and left out:

    python -m venv VENV && VENV/bin/pip install -e . pytest hypothesis babel text2num python-stdnum pint quantulum3

`--show` prints that many of the cases of a row whose results differ.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from functools import cache, partial
from importlib import import_module, metadata
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from orchestra.text.numbers.currencies import CODES, currency_code
from orchestra.text.numbers.iso_codes import (
    COUNTRIES,
    CURRENCIES,
    IBAN_LENGTHS,
    LANGUAGES,
    card_number_error,
    iban_error,
)
from orchestra.text.numbers.numbers import find_dates, find_numbers
from orchestra.text.numbers.numerals import NUMERAL, is_single_number, parse_numeral
from orchestra.text.numbers.times import find_times
from orchestra.text.numbers.units import UNIT_NAMES, UNIT_SYMBOLS
from orchestra.text.numbers.unparsed import find_unparsed
from orchestra.text.numbers.words import find_written_numbers
from orchestra.verification.number_match import stated_numbers
from tests.text.numbers import test_numbers, test_numerals, test_times
from tests.text.numbers.spellings import SPELLINGS
from tests.verification.test_number_match import spelled

Result: TypeAlias = object
"""What a function makes of a text; equal results are the same."""
ERRORS = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, AssertionError)
"""What the libraries raise for a text that they do not parse."""
NO_RESULT = "no result"
UNKNOWN = object()
"""The correct result of a case from a public set."""
LIBRARIES = {
    "babel": "babel.numbers",
    "text2num": "text_to_num",
    "python-stdnum": "stdnum.iban",
    "pint": "pint",
    "quantulum3": "quantulum3.parser",
}
"""The module that is imported, by distribution."""
SPELLED_LANGUAGES = {
    "German": "de",
    "Dutch": "nl",
    "French": "fr",
    "Spanish": "es",
    "Portuguese": "pt",
    "Italian": "it",
    "Russian": "ru",
    "Chinese": "zh",
    "Japanese": "ja",
}
"""The codes of the languages of the tests; text2num has the first six."""
CURRENCY_NAMES = {
    "$": "$", "€": "EUR", "£": "GBP", "¥": "¥", "₹": "INR", "₩": "KRW", "₺": "TRY", "₪": "ILS", "₫": "VND", "₦": "NGN",
    "US$": "USD", "A$": "AUD", "C$": "CAD", "NZ$": "NZD", "HK$": "HKD", "R$": "BRL", "kr": "krone", "zł": "PLN",
    "Kč": "CZK", "Rs": "rupee", "dollars": "$", "euros": "EUR", "pounds": "pound", "pounds sterling": "GBP",
    "yen": "JPY", "Swiss francs": "CHF", "francs": "franc", "Canadian dollars": "CAD", "Mexican pesos": "MXN",
    "pesos": "peso", "Swedish kronor": "SEK", "kroner": "krone", "Indian rupees": "INR", "rubles": "RUB",
    "South Korean won": "KRW", "zloty": "PLN", "forint": "HUF", "shekels": "ILS", "cents": "cent", "pence": "penny",
}  # fmt: skip
"""Signs and names with their code, or the name of an ambiguous one."""
IBANS = (
    "DE89370400440532013000 GB29NWBK60161331926819 FR1420041010050500013M02606 ES9121000418450200051332 "
    "NL91ABNA0417164300 BE68539007547034 CH9300762011623852957 IT60X0542811101000000123456 "
    "PL61109010140000071219812874 SE4550000000058398257466 NO9386011117947 DK5000400440116243 FI2112345600000785 "
    "PT50000201231234567890154 AT611904300234573201 IE29AIBK93115212345678 GR1601101250000000012300695 "
    "LU280019400644750000 MT84MALT011000012345MTLCAST001S SA0380000000608010167519 AE070331234567890123456 "
    "BR1800360305000010009795493C1 KW81CBKU0000000000001234560101 TR330006100519786457841326 "
    "IL620108000000099999999 CY17002001280000001200527600 CZ6508000000192000145399 HU42117730161111101800000000 "
    "SM86U0322509800000000270100 LI21088100002324013AA XK051212012345678906 VG96VPVG0000012345678901 "
    "GE29NB0000000101904917"
)
"""Examples of the IBAN registry."""
SETS = ("xquad_en", "gsm8k", "pubmedqa", "factcheckgpt")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Case:
    """A text, and the correct result if it is known."""

    text: str
    correct: Result = UNKNOWN


@dataclass(frozen=True)
class Comparison:
    """A function of Orchestra, the nearest one of a library, and cases of one origin."""

    function: str
    library: str
    origin: str
    cases: Sequence[Case]
    ours: Callable[[str], Result]
    theirs: Callable[[], Callable[[str], Result]]
    """Imports the library, and returns its function."""


@dataclass(frozen=True)
class Outcome:
    """The counts of a comparison, and the microseconds per call."""

    same: int
    library_wrong: int
    ours_wrong: int
    both_wrong: int
    ours_us: float
    library_us: float
    differing: tuple[tuple[str, Result, Result], ...]


def compare(comparison: Comparison) -> Outcome:
    """Gives each case to both functions. Of cases whose results differ and whose correct result is unknown none is
    counted as wrong.
    """
    theirs = partial(result_of, comparison.theirs())
    for function in (comparison.ours, theirs):
        function(comparison.cases[0].text)  # data are loaded at the first call
    ours, ours_us = _timed(comparison.ours, comparison.cases)
    others, library_us = _timed(theirs, comparison.cases)
    same = library_wrong = ours_wrong = both_wrong = 0
    differing = []
    for case, mine, other in zip(comparison.cases, ours, others, strict=True):
        known = case.correct is not UNKNOWN
        wrong = (known and mine != case.correct, known and other != case.correct)
        same += mine == other
        both_wrong += wrong == (True, True)
        ours_wrong += wrong == (True, False)
        library_wrong += wrong == (False, True)
        if mine != other:
            differing.append((case.text, mine, other))
    return Outcome(same, library_wrong, ours_wrong, both_wrong, ours_us, library_us, tuple(differing))


def result_of(function: Callable[[str], Result], text: str) -> Result:
    """Returns the result of a library's function, or `NO_RESULT` if it does not parse the text."""
    try:
        return function(text)
    except ERRORS:
        return NO_RESULT


def _timed(function: Callable[[str], Result], cases: Sequence[Case]) -> tuple[list[Result], float]:
    began = time.perf_counter()
    results = [function(case.text) for case in cases]
    return results, 1e6 * (time.perf_counter() - began) / len(cases)


def parameters_of(test: Any) -> Iterator[tuple[Any, ...]]:
    """Returns the table of a test: the values of its mark `parametrize`."""
    return (row for mark in test.pytestmark if mark.name == "parametrize" for row in mark.args[1])


# --- One figure -----------------------------------------------------------------------------------------------------


def figure(text: str) -> Result:
    """Returns the value of a figure."""
    return parse_numeral(text)[0]


def babel_figure() -> Callable[[str], Result]:
    """Returns babel's parser of figures in English notation."""
    parse = import_module("babel.numbers").parse_decimal
    return lambda text: Fraction(parse(text, locale="en"))


def figure_cases(chance: random.Random) -> Iterator[tuple[str, list[Case]]]:
    """Returns the figures of the tests, and generated ones in English notation."""
    table = [(str(text), str(value)) for text, value in parameters_of(test_numerals.test_parse_numeral_values)]
    yield "tests", [Case(text, Fraction(value)) for text, value in table if is_single_number(text)]
    numbers = ((chance.randrange(10 ** chance.randrange(1, 13)), chance.randrange(5)) for _ in range(2000))
    shown = [f"{whole / 10**places:,.{places}f}" for whole, places in numbers]
    yield "generated, English", [Case(text, Fraction(text.replace(",", ""))) for text in shown]


# --- Numbers in a text ----------------------------------------------------------------------------------------------


def first_number(text: str) -> Result:
    """Returns the value of the first number that a text states, in figures or words."""
    return next((number.value for number in stated_numbers(text)), NO_RESULT)


def quantulum_first_number() -> Callable[[str], Result]:
    """Returns a reader of the first quantity of a text; percentages as shares."""
    classifier: Any = import_module("quantulum3.classifier")
    classifier.USE_CLF = False  # it would load a pickle of another version of scikit-learn
    parse = import_module("quantulum3.parser").parse

    def read(text: str) -> Result:
        quantity = next(iter(parse(text)), None)
        if quantity is None:
            return NO_RESULT
        share = {"percentage": 100, "per mill": 1000}.get(quantity.unit.name, 1)
        return Fraction(str(quantity.value)).limit_denominator(10**6) / share

    return read


# --- Number words ---------------------------------------------------------------------------------------------------


def written(text: str) -> Result:
    """Returns the values of the written-out numbers of a text."""
    return tuple(number.value for number in find_written_numbers(text))


def text2num_written() -> Callable[[str], Result]:
    """Returns a reader of the cardinal numbers in English words."""
    find = import_module("text_to_num").find_numbers
    token = _Token

    def read(text: str) -> Result:
        words = [token(word) for word in re.findall(r"\w+|[^\w\s]", text.replace("-", " "))]
        return tuple(
            Fraction(one.value)
            for one in find(words, "en", 0.0)
            if not one.is_ordinal and not any(word.text().isdigit() for word in words[one.start : one.end])
        )

    return read


class _Token:
    """A word as text2num expects it."""

    def __init__(self, word: str) -> None:
        self._word = word

    def text(self) -> str:
        return self._word

    def text_lowercase(self) -> str:
        return self._word.lower()

    def nt_separated(self, _previous: object) -> bool:
        return False

    def not_a_number_part(self) -> bool:
        return False


def word_cases(chance: random.Random) -> Iterator[tuple[str, list[Case]]]:
    """Returns the texts of the tests, and generated numbers below a million."""
    rows = parameters_of(test_numbers.test_find_numbers_written_numbers_on_request)
    yield "tests", [Case(text, tuple(map(Fraction, values))) for text, values in rows]
    numbers = [*range(2000), *(chance.randrange(2000, 10**6) for _ in range(3000))]
    yield "generated, English", [Case(spelled(number), (Fraction(number),)) for number in numbers]


def recognized(sentence: str) -> Result:
    """Returns whether a sentence has a numeral that is not evaluated, for which the check is `unknown`."""
    return any(True for _ in find_unparsed(sentence, ()))


def language_cases(chance: random.Random) -> Iterator[tuple[str, list[Case]]]:
    """Returns numbers from 0 to 9,999 in words of a language, each in a sentence after its language and value."""
    for language, (spell, sentence) in SPELLINGS.items():
        code = SPELLED_LANGUAGES[language]
        numbers = chance.sample(range(2, 10_000), 500)
        yield language, [Case(f"{code} {n} {spell(n)}|{sentence.format(spell(n))}", True) for n in numbers]


def text2num_language() -> Callable[[str], Result]:
    """Returns whether text2num evaluates the words of a case to its value."""
    text2num = import_module("text_to_num").text2num

    def read(text: str) -> Result:
        code, value, words = text.partition("|")[0].split(" ", 2)
        return bool(text2num(words, code) == int(value))

    return read


# --- Currencies and codes -------------------------------------------------------------------------------------------


def babel_currency() -> Callable[[str], Result]:
    """Returns a reader of signs and names by CLDR's English data; ambiguous ones have no result."""
    numbers = import_module("babel.numbers")
    codes: dict[str, set[str]] = {}
    for code in numbers.list_currencies():
        names = {numbers.get_currency_symbol(code, "en"), numbers.get_currency_name(code, locale="en"), code}
        names |= {numbers.get_currency_name(code, count=count, locale="en") for count in (1, 2)}
        for name in names:
            codes.setdefault(name.lower(), set()).add(code)

    def read(text: str) -> Result:
        (code,) = codes[text.lower()]
        return code

    return read


def listed(code: str) -> Result:
    """Returns whether a code, after its kind, is in our lists."""
    kind, _, name = code.partition(" ")
    return name in {"country": COUNTRIES, "currency": CURRENCIES, "language": LANGUAGES}[kind]


def babel_listed() -> Callable[[str], Result]:
    """Returns whether a code is in CLDR's English lists."""
    locale = import_module("babel").Locale("en")
    lists = {"country": locale.territories, "currency": locale.currencies, "language": locale.languages}

    def read(code: str) -> Result:
        kind, _, name = code.partition(" ")
        return name in lists[kind]

    return read


def code_cases() -> Iterator[tuple[str, list[Case]]]:
    """Returns all codes of two letters (of three for currencies); correct is what ISO lists, as the tests count it."""
    for kind, size in (("country", 2), ("currency", 3), ("language", 2)):
        letters = string.ascii_lowercase if kind == "language" else string.ascii_uppercase
        codes = ("".join(letters) for letters in product(letters, repeat=size))
        yield kind, [Case(f"{kind} {code}", listed(f"{kind} {code}")) for code in codes]


def valid_iban(text: str) -> Result:
    """Returns whether a text is an IBAN."""
    return iban_error(text) == ""


def valid_card(text: str) -> Result:
    """Returns whether a text is a card number."""
    return card_number_error(text) == ""


def stdnum_iban() -> Callable[[str], Result]:
    """Returns python-stdnum's check of an IBAN by length, structure and check digits."""
    module = import_module("stdnum.iban")
    return lambda text: bool(module.is_valid(text, check_country=False))


def stdnum_card() -> Callable[[str], Result]:
    """Returns python-stdnum's check of a card number by its check digit."""
    module = import_module("stdnum.luhn")
    return lambda text: bool(module.is_valid(text))


def iban_cases(chance: random.Random) -> Iterator[tuple[str, list[Case]]]:
    """Returns examples of the registry, the same with one other digit, and numbers of all countries that have the right
    length and check digits, but figures in all places: some countries have letters in some places.
    """
    yield "examples of the registry", [Case(iban, True) for iban in IBANS.split()]
    changed = []
    for iban in IBANS.split() * 20:
        at = chance.choice([at for at, char in enumerate(iban) if at > 3 and char.isdigit()])
        changed.append(Case(f"{iban[:at]}{(int(iban[at]) + chance.randrange(1, 10)) % 10}{iban[at + 1 :]}", False))
    yield "examples, one digit changed", changed
    plain = []
    for country, length in IBAN_LENGTHS.items():
        for _ in range(20):
            account = "".join(chance.choices(string.digits, k=length - 4))
            digits = "".join(str(int(char, 36)) for char in f"{account}{country}00")
            plain.append(Case(f"{country}{98 - int(digits) % 97:02}{account}"))
    yield "figures in all places", plain


def card_cases(chance: random.Random) -> Iterator[tuple[str, list[Case]]]:
    """Returns numbers of 12 to 19 digits, of which each tenth has a valid check digit by Luhn's rule."""
    cases = []
    for _ in range(300):
        digits = [chance.randrange(10) for _ in range(chance.randrange(11, 19))]
        total = sum(sum(divmod(2 * digit, 10)) if at % 2 == 0 else digit for at, digit in enumerate(reversed(digits)))
        for last in range(10):
            number = "".join(map(str, [*digits, last]))
            cases.append(Case(number, (total + last) % 10 == 0))
    yield "generated", cases


# --- Units, dates, times --------------------------------------------------------------------------------------------

_REFERENCES = {
    "length": "metre", "mass": "kilogram", "time": "second", "calendar": "month", "volume": "metre ** 3",
    "gallon": "gallon", "barrel": "barrel", "acre": "acre", "area": "metre ** 2", "data": "byte",
    "energy": "kilowatt_hour", "power": "watt", "celsius": "degC", "fahrenheit": "degF", "speed": "metre / second",
}  # fmt: skip
"""The unit with the factor 1, by dimension."""


def unit_factor(name: str) -> Result:
    """Returns the factor of a unit to the first one of its dimension."""
    return (UNIT_NAMES | UNIT_SYMBOLS)[name].factor * (Fraction(1, 1000) if _dimension(name) == "volume" else 1)


def _dimension(name: str) -> str:
    return (UNIT_NAMES | UNIT_SYMBOLS)[name].dimension


def pint_factor() -> Callable[[str], Result]:
    """Returns pint's exact factor for the same name."""
    registry = import_module("pint").UnitRegistry(non_int_type=Fraction)
    return lambda name: Fraction(registry.Quantity(Fraction(1), name).to(_REFERENCES[_dimension(name)]).magnitude)


def calendar_date(text: str) -> Result:
    """Returns the date of a text."""
    return next(((day.year, day.month, day.day) for day in find_dates(text)), NO_RESULT)


def babel_date() -> Callable[[str], Result]:
    """Returns babel's parser of dates in British notation."""
    parse = import_module("babel.dates").parse_date

    def read(text: str) -> Result:
        day = parse(text, locale="en_GB")
        return (day.year, day.month, day.day)

    return read


def date_cases(chance: random.Random) -> Iterator[tuple[str, list[Case]]]:
    """Returns dates in the notations of the tests; the day comes first where both are figures."""
    days = [date(1900, 1, 1) + timedelta(days=chance.randrange(60_000)) for _ in range(200)]
    for form in ("%Y-%m-%d", "%d/%m/%Y", "%d.%m.%Y", "%-d %B %Y", "%B %-d, %Y", "%-d %b %Y"):
        distinct = [day for day in days if day.day > 12 or "%m/" not in form]  # else two readings
        yield form, [Case(day.strftime(form), (day.year, day.month, day.day)) for day in distinct]


def time_of_day(text: str) -> Result:
    """Returns hour and minute of a text, on a clock of 24 hours if it shows."""
    return next(
        ((time.hour if time.hour_of_day is None else time.hour_of_day, time.minute or 0) for time in find_times(text)),
        NO_RESULT,
    )


def babel_time() -> Callable[[str], Result]:
    """Returns babel's parser of times."""
    parse = import_module("babel.dates").parse_time

    def read(text: str) -> Result:
        time = parse(text, locale="en")
        return (time.hour, time.minute)

    return read


def time_cases() -> Iterator[tuple[str, list[Case]]]:
    """Returns the times of the tests, and texts that have none."""
    rows = parameters_of(test_times.test_find_times_values)
    yield (
        "tests",
        [
            Case(text, (hour % 12 + 12 if half == "pm" else hour % 24, minute or 0))
            for text, (hour, minute, _, half) in rows
        ],
    )
    texts = [
        row if isinstance(row, str) else row[0] for row in parameters_of(test_times.test_find_times_ignores_non_times)
    ]
    yield "tests, no time", [Case(text, NO_RESULT) for text in texts]


# --- All ------------------------------------------------------------------------------------------------------------


@cache
def sentences(data: Path) -> tuple[str, ...]:
    """Returns the different sentences of the public sets."""
    texts: dict[str, None] = {}
    for name in SETS:
        for line in (data / name / "dev.jsonl").read_text("utf-8").splitlines():
            for value in json.loads(line)["input"].values():
                for text in value if isinstance(value, list) else [value]:
                    texts |= dict.fromkeys(_SENTENCE.split(str(text)))
    return tuple(texts)


def figures(data: Path) -> list[Case]:
    """Returns the different figures in the table cells of TAT-QA."""
    cells = (
        str(cell)
        for line in (data / "tatqa" / "dev.jsonl").read_text("utf-8").splitlines()
        for row in json.loads(line)["input"]["table"]
        for cell in row
    )
    found = dict.fromkeys(match[0] for cell in cells for match in re.finditer(NUMERAL, cell))
    return [Case(run) for run in found if is_single_number(run)]


def comparisons(data: Path | None, seed: int) -> Iterator[Comparison]:
    """Returns all comparisons."""
    chance = random.Random(seed)
    for origin, cases in figure_cases(chance):
        yield Comparison("numerals.parse_numeral", "babel", origin, cases, figure, babel_figure)
    if data is not None:
        yield Comparison("numerals.parse_numeral", "babel", "tatqa, cells", figures(data), figure, babel_figure)
    table = [Case(str(text), Fraction(value)) for text, value in parameters_of(test_numbers.test_find_numbers_values)]
    yield Comparison("number_match.stated_numbers", "quantulum3", "tests", table, first_number, quantulum_first_number)
    for origin, cases in word_cases(chance):
        ours = _all_numbers if origin == "tests" else written
        yield Comparison("words.find_written_numbers", "text2num", origin, cases, ours, text2num_written)
    if data is not None:
        texts = [Case(text) for text in sentences(data)]
        yield Comparison("words.find_written_numbers", "text2num", "sentences", texts, written, text2num_written)
        few = [Case(text) for text in chance.sample(sentences(data), 300)]
        yield Comparison(
            "number_match.stated_numbers", "quantulum3", "sentences", few, first_number, quantulum_first_number
        )
    for origin, cases in language_cases(chance):
        yield Comparison("unparsed.find_unparsed", "text2num", origin, cases, _recognized_case, text2num_language)
    names = [Case(name, code) for name, code in CURRENCY_NAMES.items()] + [Case(code, code) for code in CODES]
    names = [case if case.text != "RMB" else Case("RMB", "CNY") for case in names]
    yield Comparison("currencies.currency_code", "babel", "names and signs", names, currency_code, babel_currency)
    for origin, cases in code_cases():
        yield Comparison("iso_codes lists", "babel", origin, cases, listed, babel_listed)
    for origin, cases in iban_cases(chance):
        yield Comparison("iso_codes.iban_error", "python-stdnum", origin, cases, valid_iban, stdnum_iban)
    for origin, cases in card_cases(chance):
        yield Comparison("iso_codes.card_number_error", "python-stdnum", origin, cases, valid_card, stdnum_card)
    units = [Case(name, unit_factor(name)) for name in UNIT_NAMES | UNIT_SYMBOLS]
    yield Comparison("units", "pint", "names and symbols", units, unit_factor, pint_factor)
    for origin, cases in date_cases(chance):
        yield Comparison("numbers.find_dates", "babel", origin, cases, calendar_date, babel_date)
    for origin, cases in time_cases():
        yield Comparison("times.find_times", "babel", origin, cases, time_of_day, babel_time)


def _all_numbers(text: str) -> Result:
    return tuple(number.value for number in find_numbers(text, words=True))


def _recognized_case(text: str) -> Result:
    return recognized(text.partition("|")[2])


def table_head(*cells: str) -> str:
    """Returns the first two lines of a table."""
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def row(comparison: Comparison, outcome: Outcome) -> str:
    """Returns a line of the table."""
    unknown = comparison.cases[0].correct is UNKNOWN
    counts = ["-"] * 3 if unknown else [outcome.library_wrong, outcome.ours_wrong, outcome.both_wrong]
    cells = [
        f"`{comparison.function}`", comparison.library, comparison.origin, f"{len(comparison.cases):,}",
        f"{outcome.same:,}", *map(str, counts), f"{outcome.ours_us:.1f}", f"{outcome.library_us:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def cost(library: str) -> str:
    """Returns a line with the version of a library, the bytes of it and of what only it brings, and its import."""
    distributions = [library, *_requirements(library)]
    size = sum(
        Path(str(file.locate())).stat().st_size
        for name in distributions
        for file in metadata.files(name) or ()
        if Path(str(file.locate())).is_file() and file.suffix != ".pyc"
    )
    program = f"import time; a = time.perf_counter(); import {LIBRARIES[library]}; print(time.perf_counter() - a)"
    command = [sys.executable, "-W", "ignore", "-c", program]
    seconds = min(float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(5))
    beside = ", ".join(distributions[1:]) or "none"
    return f"| {library} {metadata.version(library)} | {beside} | {size / 1e6:.1f} | {1e3 * seconds:.0f} |"


def _requirements(library: str) -> list[str]:
    names = (re.match(r"[\w.-]+", line) for line in metadata.requires(library) or () if "extra ==" not in line)
    direct = [name[0] for name in names if name is not None]
    return list(dict.fromkeys(one for name in direct for one in (name, *_requirements(name))))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the public sets")
    parser.add_argument("--show", type=int, default=0, help="print that many differing cases of a row")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    installed = [library for library, module in LIBRARIES.items() if find_spec(module.partition(".")[0])]
    for library in LIBRARIES:
        if library not in installed:
            print(f"{library} is not installed, and is left out")
    head = "own code", "library", "cases", "number", "same", *(f"{one} wrong" for one in ("library", "ours", "both"))
    print(table_head(*head, "ours, µs", "library, µs"))
    for comparison in comparisons(given.data, given.seed):
        if comparison.library not in installed:
            continue
        outcome = compare(comparison)
        print(row(comparison, outcome), flush=True)
        for text, ours, theirs in random.Random(given.seed).sample(
            outcome.differing, min(given.show, len(outcome.differing))
        ):
            print(f"    {text[:200]!r}: {ours} | {theirs}")
    print("\n" + table_head("library", "brings", "MB", "import, ms"))
    for library in installed:
        print(cost(library))


if __name__ == "__main__":
    main()
