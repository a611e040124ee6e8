"""The check `format`: check digits of accounts and cards, codes of countries, currencies and languages, and dates that
exist.

The `format` of a field's type, or else its name (`iban`, `card_number`, `country_code`, `currency`, `due_date`),
determines what it must be. In other texts, everything that looks like an IBAN, a card number or a date is checked. No
call and no evidence is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, Final, TypeAlias

from orchestra.core.events import Verdict
from orchestra.core.protocols import EvidenceSource
from orchestra.schema.fields import EXPRESSION_FORMAT, QUOTE_FORMAT, ValueField, iter_fields
from orchestra.text.numbers.iso_codes import (
    COUNTRIES,
    COUNTRIES_ALPHA3,
    CURRENCIES,
    FORMER_CURRENCIES,
    IBAN_LENGTHS,
    LANGUAGES,
    RESERVED_COUNTRIES,
    card_number_error,
    iban_error,
)
from orchestra.text.numbers.numbers import find_invalid_dates
from orchestra.verification.verdict import excerpt, failed, passed, unknown

FORMAT: Final = "format"
FormatIssue: TypeAlias = tuple[str, bool]
"""Why a text is malformed, and whether that is certain. An empty reason means a correct part."""
_KIND_BY_FORMAT = {
    "iban": "iban", "card": "card", "card-number": "card", "credit-card": "card", "luhn": "card", "country": "country",
    "country-code": "country", "iso-3166": "country", "currency": "currency",
    "currency-code": "currency", "iso-4217": "currency",
    "language": "language", "language-code": "language", "locale": "language",
    "bcp-47": "language", "date": "date", "date-time": "date",
}  # fmt: skip
"""Kinds by the `format` of a type."""
_KIND_BY_NAME = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"(?:.*_)?iban(?:_(?:no|number|code))?", "iban"),
        (r"(?:.*_)?(?:credit|debit|payment|bank)_?card(?:_?(?:number|no))?|card_?number", "card"),
        (r"(?:.*_)?country(?:_code)?", "country"),
        (r"(?:.*_)?currency(?:_code)?", "currency"),
        (r"(?:(?!.*(?:programming|scripting|markup|query)_).*_)?(?:lang|language|locale)(?:_code)?", "language"),
        (r"(?:.*_)?(?:date|birthday|deadline)(?:_.*)?", "date"),
    )
)
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ISO_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?![\d-])", re.ASCII)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d\d(?:[ \u00a0]?[A-Z0-9])+", re.ASCII)
_CARD = re.compile(
    r"(?<![\w-])(?<!\d )(?:[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -])\d{6}\2\d{5})(?![\w-]| \d)", re.ASCII
)
_MIN_IBAN_LENGTH = 15
"""Characters of the shortest IBAN."""
_MASK = re.compile(r"[*•●#…]|\.\.|[xX]{4}")
"""Marks of an account or card number that is not shown in full."""
_SEPARATOR = re.compile(r"\s*[,;/|]\s*|\s+(?:and|or|&)\s+")
"""Separators between several codes in one text."""
_LAST_DIGITS = 4
"""Digits of a card that are shown if the rest is omitted."""
_YEARS = re.compile(r"(?:(?:19|20)\d\d[ -]?){4}")
_DIALING_CODE = re.compile(r"(?:\+|00)?\d{1,4}")
_LANGUAGE_TAG = re.compile(
    r"(?P<language>[a-zA-Z]{2,3})(?:[-_][A-Za-z]{3}){0,3}(?:[-_][A-Za-z]{4})?(?:[-_](?:(?P<country>[A-Za-z]{2})|\d{3}))?"
    r"(?:[-_](?:[A-Za-z0-9]{5,8}|\d[A-Za-z0-9]{3}))*(?:[-_][A-Za-z0-9](?:[-_][A-Za-z0-9]{2,8})+)*(?:\.[\w-]+)?(?:@\w+)?",
    re.ASCII,
)
"""A BCP 47 tag, or the name of a locale."""


def check_format(value: Any, schema: dict[str, Any], evidence: tuple[EvidenceSource, ...]) -> Verdict:
    """Checks that all numbers with check digits, codes and dates are well-formed."""
    looked, doubt = 0, ""
    for field in iter_fields(value, schema):
        if (text := _checked_text(field)) is None:
            continue
        for fault, sure in _find_issues(field, text):
            if fault and sure:
                return failed(FORMAT, f"{excerpt(text)} in {field.path or 'the answer'}: {fault}")
            looked += 1
            doubt = doubt or (f"{excerpt(text)} in {field.path or 'the answer'}: {fault}" if fault else "")
    if doubt:
        return unknown(FORMAT, doubt)
    return passed(FORMAT, "" if looked else "it has no field with a checked format")


def _checked_text(field: ValueField) -> str | None:
    """The text of a field to check; also of an integer that is a card number."""
    if (
        field.has_format(QUOTE_FORMAT)
        or field.has_format(EXPRESSION_FORMAT)
        or field.name == EXPRESSION_FORMAT
        or field.is_enum()
    ):
        return None
    if isinstance(field.value, int) and not isinstance(field.value, bool):
        return str(field.value) if _field_kind(field)[0] == "card" else None
    return field.value.strip() or None if isinstance(field.value, str) else None


def _field_kind(field: ValueField) -> tuple[str, bool]:
    """The kind of a field, and whether it may contain nothing else."""
    for schema in field.schemas:
        if isinstance(format_name := schema.get("format"), str) and (kind := _KIND_BY_FORMAT.get(format_name.lower())):
            return kind, True
    name = _CAMEL_CASE.sub("_", next((step for step in reversed(field.steps) if isinstance(step, str)), "")).lower()
    if not field.name:  # an element of a list
        name = f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")
    kind = next((kind for pattern, kind in _KIND_BY_NAME if pattern.fullmatch(name)), "")
    return kind, kind == "iban" or name.endswith(("_code", "number", "_no"))


def _find_issues(field: ValueField, text: str) -> Iterator[FormatIssue]:
    """Yields the issues of a text, with an empty reason for each correct part."""
    kind, strict = _field_kind(field)
    named = not any(
        isinstance(schema.get("format"), str) for schema in field.schemas
    )  # it may contain more or less than one
    if kind in _CODE_CHECKS:
        each = [_CODE_CHECKS[kind](part, strict) for part in _SEPARATOR.split(text)] if strict and named else []
        if len(each) > 1 and all(one is not None and not (one[0] and one[1]) for one in each):  # such as `US, CN`
            yield from filter(None, each)
        elif (found := _CODE_CHECKS[kind](text, strict)) is not None:
            yield found
        return
    if kind in ("iban", "card") and _MASK.search(text):
        yield "part of it is not shown", False
    elif kind == "iban":
        fault = iban_error(text)
        yield ("the IBAN format of its country is unknown", False) if fault is None else (fault, True)
    elif kind == "card":
        if named and sum(map(str.isdigit, text)) == _LAST_DIGITS:
            yield "it may be only the last digits", False
        elif strict or any(map(str.isdigit, text)):  # `credit_card` may contain the name of its owner
            yield card_number_error(text), True
    else:
        yield from _embedded_issues(text)
    if kind == "date":
        yield from ((fault, True) for fault in _invalid_dates(text))
    yield from ((f"there is no {day}", sure) for day, sure in find_invalid_dates(text, is_date=kind == "date"))


def _invalid_dates(text: str) -> Iterator[str]:
    for year, month, day in _ISO_DATE.findall(text):
        try:
            date(int(year), int(month), int(day))
            yield ""
        except ValueError:
            yield f"there is no {year}-{month}-{day}"


def _embedded_issues(text: str) -> Iterator[FormatIssue]:
    """Yields the issues of accounts and cards inside a longer text."""
    taken: list[tuple[int, int]] = []
    for match in _IBAN.finditer(text):
        wanted = IBAN_LENGTHS.get(match[0][:2])
        if wanted is None:
            continue
        places = [match.start() + at for at, char in enumerate(match[0]) if char.isalnum()]
        if len(places) < _MIN_IBAN_LENGTH:
            continue
        end = places[wanted - 1] + 1 if len(places) >= wanted else match.end()
        taken.append((match.start(), end))
        if len(places) < wanted or text[end : end + 1].isalnum():
            yield f"an IBAN of {match[0][:2]} has {wanted} characters", False
        else:
            yield iban_error(text[match.start() : end]) or "", True
    for match in _CARD.finditer(text):
        if not (_YEARS.fullmatch(match[0]) or any(start <= match.start() < end for start, end in taken)):
            yield card_number_error(match[0]), False  # it may be four other numbers


def _check_country(text: str, strict: bool) -> FormatIssue | None:
    code = text.upper()
    if code in COUNTRIES or code in COUNTRIES_ALPHA3:
        return ("", True) if code == text else (f"the country code is written {code}", False) if strict else None
    if _DIALING_CODE.fullmatch(text):
        return None
    if code in RESERVED_COUNTRIES:
        return f"{code} is not in ISO 3166-1, but in use", False
    return _unknown_code(text, strict, (2, 3), "country in ISO 3166-1")


def _check_currency(text: str, strict: bool) -> FormatIssue | None:
    code = text.upper()
    if code in CURRENCIES:
        return ("", True) if code == text else (f"the currency code is written {code}", False) if strict else None
    if code in FORMER_CURRENCIES:
        return f"{code} is a former currency", False
    return _unknown_code(text, strict, (3,), "currency in ISO 4217")


def _unknown_code(text: str, strict: bool, lengths: tuple[int, ...], what: str) -> FormatIssue | None:
    """The issue of a code that is not in a list; None if the text need not be a code, such as `Germany`."""
    like_one = text.isascii() and text.isalpha() and text.isupper() and len(text) in lengths
    return (f"there is no such {what}", strict) if strict or like_one else None  # `UAE` and `RMB` are in use


def _check_language(text: str, strict: bool) -> FormatIssue | None:
    match = _LANGUAGE_TAG.fullmatch(text)
    if match is None:
        return ("this is not a language code", True) if strict else None
    language, country = match["language"].lower(), (match["country"] or "").upper()
    if country and country not in COUNTRIES and country not in RESERVED_COUNTRIES:
        return f"there is no country {country}", True
    if len(language) == 3:
        return (f"{language} is not a two-letter code", False) if strict or country else None
    if (
        not strict and not country and language != text and language not in LANGUAGES
    ):  # `Go` and `R` are programming languages
        return None
    return (
        ("", True)
        if language in LANGUAGES
        else (f"there is no language {language} in ISO 639-1", strict or bool(country))
    )


_CODE_CHECKS: Final[dict[str, Callable[[str, bool], FormatIssue | None]]] = {
    "country": _check_country,
    "currency": _check_currency,
    "language": _check_language,
}
