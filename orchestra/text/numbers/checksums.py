"""Numbers that say of themselves whether they are right: accounts (ISO 13616) and cards (ISO/IEC 7812), each with its check digits."""

from __future__ import annotations

import re

from orchestra.text.numbers.iso_codes import IBAN_LENGTHS

_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", re.ASCII)
_CARD = re.compile(r"\d{12,19}", re.ASCII)
_BLANKS = re.compile(r"[\s\u00a0\u202f-]")


def compact(text: str) -> str:
    """A number without the blanks and hyphens that it is shown with."""
    return _BLANKS.sub("", text)


def iban_error(text: str) -> str | None:
    """Why a text is no IBAN; empty where it is one, None where nobody can tell, for its country has none in the registry."""
    plain = compact(text).upper()
    if not _IBAN.fullmatch(plain):
        return "an IBAN has two letters, two digits and 11 to 30 letters or digits more"
    if (wanted := IBAN_LENGTHS.get(plain[:2])) is None:
        return None
    if len(plain) != wanted:
        return f"an IBAN of {plain[:2]} has {wanted} characters, not {len(plain)}"
    digits = "".join(str(int(char, 36)) for char in plain[4:] + plain[:4])
    right = int(digits) % 97 == 1 and 2 <= int(plain[2:4]) <= 98
    return "" if right else "its check digits are those of another one"


def card_number_error(text: str) -> str:
    """Why a text is no number of a card; empty where it is one, as far as its last digit (Luhn) tells."""
    plain = compact(text)
    if not _CARD.fullmatch(plain):
        return "the number of a card has 12 to 19 digits"
    total = sum(sum(divmod(int(char) * (1 + at % 2), 10)) for at, char in enumerate(reversed(plain)))
    return "" if total % 10 == 0 else "its last digit is that of another one"
