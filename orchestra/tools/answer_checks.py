"""Answer checks: whether a source has what a question names, which of several amounts its words belong to, and whether
a sentence is a record of a table.

They compare words by their beginnings, so that forms of a word, and words that several languages share, are equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from orchestra.text.keywords import STOP_WORDS, singular
from orchestra.tools.periods import MONTH_NAMES
from orchestra.tools.replies import LANGUAGE_WORDS, language_of

STEM: Final = 5
"""Letters of a word that are compared."""
_QUESTION_WORDS: Final = frozenset(
    [
        "qué",
        "que",
        "cuál",
        "cual",
        "cuánto",
        "cuanto",
        "cuántos",
        "cuantos",
        "cuánta",
        "cuántas",
        "cuándo",
        "cuando",
        "dónde",
        "donde",
        "quién",
        "quien",
        "hasta",
        "desde",
        "tengo",
        "tiene",
        "tienen",
        "puedo",
        "puede",
        "cómo",
        "como",
        "combien",
        "quand",
        "quel",
        "quelle",
        "quels",
        "quelles",
        "comment",
        "pourquoi",
        "jusqu",
        "faut",
        "cette",
        "avoir",
        "welche",
        "welcher",
        "welches",
        "wieviel",
        "viele",
        "lange",
        "hoch",
        "wann",
        "wohin",
        "woher",
        "bitte",
        "kann",
        "darf",
        "muss",
        "mein",
        "meine",
        "meinen",
        "dass",
        "wenn",
        "much",
        "many",
        "does",
        "what",
        "when",
        "where",
        "which",
        "whom",
        "whose",
        "long",
        "often",
        "high",
        "more",
        "less",
        "now",
        "than",
        "altogether",
        "total",
        "cost",
        "costs",
        "price",
        "prices",
        "pay",
        "paid",
        "charge",
        "charged",
        "euro",
        "euros",
        "pound",
        "pounds",
        "money",
        "amount",
    ]
)
_WORD = re.compile(r"[^\W_]+")
_NAME = re.compile(r"(?<=[^.?!:\s]\s)[A-ZÀ-ÝŠŽ][\w'’-]*[a-zà-ÿ]\b")
"""A capitalised word within a sentence."""
_NO_NAME: Final = frozenset(
    (
        *(names.split()[0] for names in MONTH_NAMES),
        *["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
        *["mr", "mrs", "ms", "miss", "dr", "sir", "madam", "company", "please", "gbp", "eur", "usd", "vat"],
    )
)
_CLAUSE_END = re.compile(r"[,;.()]|\b(?:and|und|et|y)\b", re.IGNORECASE)
_RECORD = re.compile(r"^[^:;|]{1,40}: ?[^:;]*(?:; [^:;]{1,40}: ?[^;]*){2,}$")


def word_stems(text: str) -> frozenset[str]:
    """The beginnings of the content words of a text, without accents and letter case."""
    return frozenset(stem for word in _WORD.findall(text) if (stem := _stem(word)))


def _stem(word: str) -> str:
    forms = {word.casefold(), plain := singular(word.casefold())}
    if any(forms & words for words in (STOP_WORDS, _QUESTION_WORDS, *LANGUAGE_WORDS.values())):
        return ""
    letters = "".join(one for one in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(one))
    is_code = not letters.isdigit() and any(one.isdigit() for one in letters)
    return letters[:STEM] if is_code or (len(letters) > 2 and not letters.isdigit()) else ""


def shared_words(question: str, text: str) -> float:
    """The share of the content words of a question that a text has, from 0 to 1."""
    asked = word_stems(question)
    return len(asked & word_stems(text)) / len(asked) if asked else 0.0


def unknown_names(question: str, text: str) -> list[str]:
    """The proper names of an English question that a text does not have. Other languages are not checked, because
    German writes each noun with a capital.
    """
    if language_of(question) != "en":
        return []
    known = text.casefold()
    names = (match[0].removesuffix("'s").removesuffix("’s") for match in _NAME.finditer(question))
    return [name for name in names if name.casefold() not in _NO_NAME and name.casefold()[:STEM] not in known]


def is_record(sentence: str) -> bool:
    """Whether a sentence is a row of a table as text: `Tank: 1; Beer: Pale Ale; Gyle: 421`."""
    return _RECORD.match(" ".join(sentence.split())) is not None


def clause_of(text: str, spans: Sequence[tuple[int, int]], at: int) -> str:
    """The words that belong to one of several amounts of a sentence: those since the one before, and those up to the
    next punctuation mark or conjunction.
    """
    start = spans[at - 1][1] if at else 0
    end = spans[at + 1][0] if at + 1 < len(spans) else len(text)
    after = _CLAUSE_END.split(text[spans[at][1] : end])[0]
    return text[start : spans[at][0]] + after


def weigh_stems(stems: Iterable[str]) -> int:
    """The number of words; a code such as `B2` counts as three."""
    return sum(3 if any(one.isdigit() for one in stem) else 1 for stem in stems)


def nearest_amount(question: str, text: str, spans: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The amount of a sentence whose clause shares most words with a question; None if none, or several, share most."""
    if not spans:
        return None
    asked = word_stems(question)
    shared = [weigh_stems(asked & word_stems(clause_of(text, spans, at))) for at in range(len(spans))]
    most = max(shared)
    return spans[shared.index(most)] if most and shared.count(most) == 1 else None
