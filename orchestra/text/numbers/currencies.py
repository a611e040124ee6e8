"""Currencies in text: `$`, `A$`, `CAD`, `Swiss francs`, `kr`; and whether two of them may be the same.

A currency is represented by its ISO 4217 code. A name that several countries use is represented by a word;
`CANDIDATE_CODES` has its candidates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

CANDIDATE_CODES: Final[Mapping[str, tuple[str, ...]]] = {
    "$": ("USD", "AUD", "CAD", "NZD", "HKD", "SGD", "TWD"),
    "¥": ("JPY", "CNY"),
    "krone": ("SEK", "NOK", "DKK", "ISK"),
    "peso": ("MXN", "ARS", "CLP", "COP", "PHP", "CUP", "UYU", "DOP"),
    "franc": ("CHF", "FRF", "BEF", "XAF", "XOF", "LUF", "RWF"),
    "rupee": ("INR", "PKR", "LKR", "NPR", "MUR"),
    "lira": ("TRY", "ITL", "SYP", "LBP"),
    "dinar": ("KWD", "BHD", "JOD", "RSD", "DZD", "TND", "IQD", "LYD"),
    "rial": ("SAR", "QAR", "OMR", "YER", "IRR"),
    "shilling": ("KES", "TZS", "UGX", "SOS", "ATS", "GBP"),
    "cent": ("$", "USD", "AUD", "CAD", "NZD", "HKD", "SGD", "TWD", "EUR", "ZAR"),
    "pound": ("GBP", "EGP", "LBP", "SYP"),
    "penny": ("GBP",),
}
"""Candidates for names that are used by several currencies, or for subunits."""
DEFAULT_CODES: Final = {"$": "USD", "¥": "JPY", "pound": "GBP"}
"""Default meaning of ambiguous names; other ambiguous names have none."""
SUBUNITS: Final = frozenset({"cent", "penny"})
"""Names of hundredths."""
_SIGNS = {
    "$": "$", "€": "EUR", "£": "GBP", "¥": "¥", "₹": "INR", "₽": "RUB", "₩": "KRW", "₺": "TRY", "₪": "ILS", "₴": "UAH",
    "₫": "VND", "฿": "THB", "₦": "NGN", "₱": "PHP", "₸": "KZT", "₡": "CRC", "₲": "PYG", "₵": "GHS", "₼": "AZN",
    "₾": "GEL", "₭": "LAK", "₿": "BTC", "us$": "USD", "a$": "AUD", "au$": "AUD", "c$": "CAD", "ca$": "CAD",
    "nz$": "NZD", "hk$": "HKD", "s$": "SGD", "nt$": "TWD", "mx$": "MXN", "r$": "BRL", "¢": "cent", "kr": "krone",
    "kč": "CZK", "zł": "PLN", "rs": "rupee",
}  # fmt: skip
_CODES = (
    "USD EUR GBP CHF JPY CNY RMB INR AUD CAD NZD HKD SGD SEK NOK DKK ISK PLN CZK HUF RON BGN KRW RUB UAH TRY ILS AED "
    "SAR QAR KWD EGP ZAR NGN KES BRL MXN ARS CLP COP PHP THB VND IDR MYR TWD PKR BDT LKR BTC"
)
CODES: Final = tuple(_CODES.split())
"""Codes that are not also words, as TOP and ALL are."""
_NAMES = {
    "dollar": "$", "euro": "EUR", "pound": "pound", "pounds sterling": "GBP", "pound sterling": "GBP", "quid": "GBP",
    "yen": "JPY", "yuan": "CNY", "renminbi": "CNY", "franc": "franc", "rupee": "rupee", "ruble": "RUB", "rouble": "RUB",
    "peso": "peso", "krona": "krone", "krone": "krone", "kronor": "krone", "kroner": "krone", "koruna": "CZK",
    "zloty": "PLN", "złoty": "PLN", "forint": "HUF", "lira": "lira", "shekel": "ILS", "baht": "THB", "dong": "VND",
    "rupiah": "IDR", "ringgit": "MYR", "rand": "ZAR", "dirham": "AED", "rial": "rial", "riyal": "rial",
    "dinar": "dinar", "naira": "NGN", "shilling": "shilling", "hryvnia": "UAH", "bitcoin": "BTC", "cent": "cent",
    "pence": "penny", "penny": "penny",
}  # fmt: skip
_CODES_BY_COUNTRY = {
    "dollar": {
        "us": "USD", "u.s.": "USD", "american": "USD", "australian": "AUD", "canadian": "CAD", "new zealand": "NZD",
        "hong kong": "HKD", "singapore": "SGD", "taiwan": "TWD",
    },
    "franc": {"swiss": "CHF", "french": "FRF", "belgian": "BEF"},
    "peso": {"mexican": "MXN", "argentine": "ARS", "chilean": "CLP", "colombian": "COP", "philippine": "PHP"},
    "krone": {"swedish": "SEK", "norwegian": "NOK", "danish": "DKK", "icelandic": "ISK"},
    "rupee": {"indian": "INR", "pakistani": "PKR", "sri lankan": "LKR", "nepalese": "NPR"},
    "lira": {"turkish": "TRY", "italian": "ITL"},
    "pound": {"british": "GBP", "egyptian": "EGP", "lebanese": "LBP", "syrian": "SYP"},
    "won": {"korean": "KRW", "south korean": "KRW"},
}  # fmt: skip
_ADJECTIVE = "|".join(
    re.escape(one) for one in sorted({name for of in _CODES_BY_COUNTRY.values() for name in of}, key=len, reverse=True)
)
_NAME = "|".join(sorted(_NAMES, key=len, reverse=True))
_SIGN = r"(?:(?<![^\W\d_])(?:US|AU|CA|NZ|HK|MX|NT|[ACRS]))?\$|[€£¥₹₽₩₺₪₴₫฿₦₱₸₡₲₵₼₾₭₿]"
PREFIX_PATTERN: Final = (
    rf"{_SIGN}|(?<![^\W\d_])(?:usd|eur|gbp|chf|jpy|inr|cny|rmb|(?-i:{'|'.join(CODES)}|[Rr]s\.?|[Kk]r\.?))"
)
"""A currency before a number, as a case-insensitive pattern."""
SUFFIX_PATTERN: Final = (
    rf"{_SIGN}|¢|(?:{'|'.join(CODES)})(?!\w)|(?-i:[Kk]r|Kč|zł)(?!\w)|(?:(?:{_ADJECTIVE})\s)?(?:{_NAME})(?:e?s)?(?!\w)"
    r"|(?:south\s)?korean\swon(?!\w)"
)
"""A currency after a number, as a case-insensitive pattern."""


def currency_code(text: str) -> str:
    """Returns the code or name of a currency that a pattern has matched; empty if it is unknown."""
    plain = " ".join(text.lower().split()).rstrip(".")
    if plain in _SIGNS:
        return _SIGNS[plain]
    if plain.upper() in CODES:
        return "CNY" if plain == "rmb" else plain.upper()
    adjective, _, noun = plain.rpartition(" ")
    for one in (plain, noun, plain.removesuffix("s"), noun.removesuffix("s"), noun.removesuffix("es")):
        if (name := _NAMES.get(one)) is not None:
            return _country_code(adjective, name)
    return _CODES_BY_COUNTRY["won"].get(adjective, "") if noun == "won" else ""


def _country_code(adjective: str, name: str) -> str:
    countries = _CODES_BY_COUNTRY.get("dollar" if name == "$" else name, {})
    return countries.get(adjective, name)


def are_different(answer: str, evidence: str) -> bool | None:
    """Returns whether the currency of an answer differs from that of the evidence; None if it is unknown."""
    if answer == evidence or DEFAULT_CODES.get(answer) == evidence or DEFAULT_CODES.get(evidence) == answer:
        return False
    mine, theirs = CANDIDATE_CODES.get(answer, (answer,)), CANDIDATE_CODES.get(evidence, (evidence,))
    if not set(mine) & {*theirs, evidence} and answer not in theirs:
        return True
    less = answer if evidence in mine else evidence if answer in theirs else ""  # the name that is ambiguous
    return False if less and less not in DEFAULT_CODES and less not in SUBUNITS else None
