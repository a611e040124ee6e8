"""Units after numbers: length, mass, time, speed, volume, data, energy; with exact conversion factors."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final, NamedTuple


class MeasureUnit(NamedTuple):
    """A unit: dimension, and factor to the first unit of the dimension. Units of two dimensions are never equal."""

    dimension: str
    factor: Fraction


_WORDS = {
    "length": {
        "metre meter": "1", "km kilometre kilometer": "1000", "cm centimetre centimeter": "1/100",
        "mm millimetre millimeter": "1/1000", "foot feet ft": "381/1250", "inch inches": "127/5000",
        "yard yd": "1143/1250", "mile mi": "201168/125",
    },
    "mass": {
        "kg kilo kilogram kilogramme": "1", "g gram gramme": "1/1000", "mg milligram": "1/1000000", "tonne": "1000",
        "lb lbs": "45359237/100000000", "ounce oz": "45359237/1600000000",
    },
    "time": {
        "second sec secs": "1", "ms millisecond": "1/1000", "minute min mins": "60", "hour hr hrs h": "3600",
        "day": "86400", "week": "604800", "fortnight": "1209600",
    },
    "calendar": {
        "month": "1", "year yr yrs": "12", "decade": "120", "century centuries": "1200",
        "millennium millennia": "12000",
    },
    "volume": {"l litre liter": "1", "ml millilitre milliliter": "1/1000", "cl centilitre": "1/100"},
    "gallon": {"gallon": "1"}, "barrel": {"barrel": "1"}, "acre": {"acre": "1"}, "area": {"hectare ha": "10000"},
    "data": {
        "byte": "1", "kilobyte": "1000", "megabyte": "1000000", "gigabyte": "1000000000", "terabyte": "1000000000000",
        "bit": "1/8", "kilobit": "125", "megabit": "125000", "gigabit": "125000000",
    },
}  # fmt: skip
_SYMBOLS: dict[str, dict[str, int | Fraction]] = {
    "data": {
        "kB KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
        "TiB": 2**40, "Mbit Mb": 125_000, "Gbit Gb": 125_000_000,
    },
    "energy": {"kWh": 1, "MWh": 10**3, "GWh": 10**6, "TWh": 10**9},
    "power": {"W": 1, "kW": 10**3, "MW": 10**6, "GW": 10**9},
    "celsius": {"°C": 1}, "fahrenheit": {"°F": 1},
    "speed": {"kph kmh": Fraction(5, 18), "mph": Fraction(1397, 3125)},
}  # fmt: skip
_POWERS = {
    "square": ("area", 2),
    "sq": ("area", 2),
    "cubic": ("volume", 3),
    "cu": ("volume", 3),
    "²": ("area", 2),
    "³": ("volume", 3),
}
UNIT_NAMES: Final = {
    name: MeasureUnit(kind, Fraction(size))
    for kind, of in _WORDS.items()
    for names, size in of.items()
    for name in names.split()
}
"""By name, in lower case and singular."""
UNIT_SYMBOLS: Final = {
    name: MeasureUnit(kind, Fraction(size))
    for kind, of in _SYMBOLS.items()
    for names, size in of.items()
    for name in names.split()
}
"""By symbol, which is case-sensitive."""
POUND: Final = UNIT_NAMES["lb"]
"""For `5 pounds`, which may also be money."""
METRE_LETTERS: Final = {"m": UNIT_NAMES["metre"], "mm": UNIT_NAMES["mm"]}
"""Letters after a number that may be units or scales."""
_NON_UNIT_LETTERS = frozenset({"G", "H"})
"""Letters that are units only in lower case."""
UNIT_PATTERN: Final = "|".join(sorted((re.escape(one) for one in UNIT_NAMES), key=len, reverse=True))
_SYMBOL_PATTERN = "|".join(sorted(map(re.escape, UNIT_SYMBOLS), key=len, reverse=True))
_PER_PATTERN = r"(?:\s?/\s?|\s(?:per|an?)\s)"
_OF_TIME = rf"{_PER_PATTERN}(?:s|sec|second|min|minute|h|hr|hour)\b"
_UNIT = re.compile(
    rf"(?P<blank>[^\S\n]|-)?(?:(?P<power>square|sq|cubic|cu)\.?[\s-])?(?:(?P<mark>{_SYMBOL_PATTERN})"
    rf"|(?i:(?P<word>(?:{UNIT_PATTERN}|m(?=[²³]|(?<=sq m)|(?<=cu m)|{_OF_TIME})))s?))(?P<raised>[²³])?"
    rf"(?:(?i:{_PER_PATTERN}(?P<per>{UNIT_PATTERN}|s)(?!\w))|(?![\w/]|\s(?:per|an?)\s))"
)


def unit_at(text: str, end: int) -> MeasureUnit | None:
    """Returns the unit after a number that ends at a position; None if there is no known one, as for `kg per year`."""
    if (found := _UNIT.match(text, end)) is None:
        return None
    if found["per"]:
        return _speed_unit(found)
    if found["mark"]:
        return UNIT_SYMBOLS[found["mark"]]
    word, power = found["word"], _POWERS.get((found["power"] or found["raised"] or "").lower())
    if word in _NON_UNIT_LETTERS:
        return None
    unit = METRE_LETTERS["m"] if word.lower() == "m" else UNIT_NAMES[word.lower()]
    if power is None:
        return unit
    if unit.dimension != "length":
        return None
    kind, raised = power
    return MeasureUnit(kind, unit.factor**raised * (1000 if kind == "volume" else 1))


def _speed_unit(found: re.Match[str]) -> MeasureUnit | None:
    """Returns a speed per hour, minute or second; other rates are unknown."""
    if found["mark"] or found["power"] or found["raised"]:
        return None
    way = METRE_LETTERS["m"] if found["word"].lower() == "m" else UNIT_NAMES[found["word"].lower()]
    time = UNIT_NAMES["second"] if found["per"].lower() == "s" else UNIT_NAMES[found["per"].lower()]
    return (
        MeasureUnit("speed", way.factor / time.factor)
        if (way.dimension, time.dimension) == ("length", "time") and time.factor <= 3600
        else None
    )
