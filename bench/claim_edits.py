"""Deterministic edits of a claim: another number, another name, the opposite. Each makes a true claim false and keeps
its wording.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

OPPOSITES = (
    "increase/decrease", "increased/decreased", "increases/decreases", "more/less", "more/fewer", "most/least",
    "before/after", "first/last", "first/second", "largest/smallest", "larger/smaller", "north/south",
    "northern/southern", "east/west", "eastern/western", "male/female", "men/women", "man/woman", "he/she", "his/her",
    "high/low", "higher/lower", "highest/lowest", "hot/cold", "early/late", "always/never", "all/none", "begin/end",
    "began/ended", "wins/loses", "won/lost", "positive/negative", "left/right", "above/below", "old/new", "up/down",
    "oldest/youngest", "rich/poor", "major/minor", "public/private", "single/double", "father/mother", "son/daughter",
    "brother/sister", "husband/wife", "king/queen", "summer/winter", "day/night", "war/peace", "alive/dead",
    "born/died", "long/short", "same/different", "common/rare", "strong/weak", "best/worst", "better/worse",
    "modern/ancient", "natural/artificial", "inside/outside", "local/international", "fast/slow", "upper/lower",
    "heavy/light", "safe/dangerous", "legal/illegal", "possible/impossible", "can/cannot", "with/without",
    "including/excluding", "red/blue", "black/white", "american/british", "english/french", "german/italian",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
DENIALS = 0.2
"""Share of deniable claims that are denied."""
DENIED = ("is", "are", "was", "were", "can", "will", "has been", "have been", "could", "would", "should", "may")

_SWAP: dict[str, str] = {}
for _pair in OPPOSITES:
    _one, _other = _pair.split("/")
    _SWAP.setdefault(_one, _other)
    _SWAP.setdefault(_other, _one)
_WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?!\w)")
_NAME = re.compile(r"\b[A-Z][\w'’-]+(?:\s+(?:of\s+|the\s+)?[A-Z][\w'’-]+)*")
_DENIAL = re.compile(rf"\b({'|'.join(DENIED)})\b(?!\s+(?:not|n't))")


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of a text and its replacement."""

    kind: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """Replaces every occurrence of the piece as a whole word."""
        return re.sub(rf"(?<!\w){re.escape(self.old)}(?!\w)", lambda _: self.new, text)

    def stands_in(self, text: str) -> bool:
        """Returns whether the piece occurs."""
        return re.search(rf"(?<!\w){re.escape(self.old)}(?!\w)", text) is not None


def edits(claim: str, evidence: str, names: Sequence[str], chance: random.Random) -> list[Edit]:
    """Returns edits that change the meaning of a claim: of numbers, months, names, opposites, and a denial; one of each
    kind.
    """
    found = (
        _number(claim, chance),
        _month(claim, chance),
        _name(claim, evidence, names, chance),
        _opposite(claim, chance),
        _denial(claim, chance),
    )
    return [edit for edit in found if edit is not None and edit.applied(claim) != claim]


def names_in(text: str) -> list[str]:
    """Returns the capitalised names of a text, without words that only begin a sentence."""
    return [
        found[0]
        for found in _NAME.finditer(text)
        if found.start() and text[found.start() - 2 : found.start()] not in (". ", "? ", "! ")
    ]


def _number(claim: str, chance: random.Random) -> Edit | None:
    found = _NUMBER.findall(claim)
    if not found:
        return None
    old = chance.choice(found)
    plain = old.replace(",", "")
    if "." in plain:
        places = len(plain.partition(".")[2])
        new = f"{float(plain) * chance.choice((0.5, 0.8, 1.25, 1.5, 2.0)) + 0.1:.{places}f}"
    else:
        value = int(plain)
        year = 1000 <= value <= 2100 and "," not in old
        moved = (
            value + chance.choice((-31, -12, -5, -3, -2, -1, 1, 2, 3, 5, 12, 31))
            if year or value > 40
            else chance.randint(0, 2 * value + 3)
        )
        moved = moved if moved != value and moved >= 0 else value + 1
        new = f"{moved:,}" if "," in old else str(moved)
    return Edit("number", old, new)


def _month(claim: str, chance: random.Random) -> Edit | None:
    found = [month for month in MONTHS if month != "May" and re.search(rf"\b{month}\b", claim)]
    if not found:
        return None
    old = chance.choice(found)
    return Edit("month", old, chance.choice([month for month in MONTHS if month not in (old, "May")]))


def _name(claim: str, evidence: str, names: Sequence[str], chance: random.Random) -> Edit | None:
    """Returns a name of the claim that is in the evidence too, and another name: of the evidence, so that all words are
    known, or of elsewhere.
    """
    mine = [name for name in _NAME.findall(claim) if name in evidence and name not in MONTHS and len(name) > 3]
    if not mine:
        return None
    old = chance.choice(mine)
    near = [name for name in names_in(evidence) if name not in claim and old not in name and name not in MONTHS]
    pool = near if near and chance.random() < 0.6 else [name for name in names if name not in claim and old not in name]
    return Edit("name", old, chance.choice(pool)) if pool else None


def _opposite(claim: str, chance: random.Random) -> Edit | None:
    found = [word for word in _WORD.findall(claim) if word.lower() in _SWAP]
    if not found:
        return None
    old = chance.choice(found)
    new = _SWAP[old.lower()]
    return Edit("opposite", old, new.capitalize() if old[0].isupper() else new)


def _denial(claim: str, chance: random.Random) -> Edit | None:
    """Denies some claims. A “not” in the claim alone carries no information about the evidence."""
    found = _DENIAL.search(claim)
    return None if found is None or chance.random() > DENIALS else Edit("denial", found[0], f"{found[0]} not")
