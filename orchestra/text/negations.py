"""Negations: whether the words before a place in a text turn what follows into its contrary. English and other common languages."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_WORDS: Final = (
    "not no never without neither nor none cannot hardly scarcely barely "  # English
    "nicht kein keine keiner keinen keinem keines nie niemals ohne weder "  # German
    "ne pas jamais sans aucun aucune ni non nunca jamás sin ningún ninguna tampoco "  # French, Spanish
    "senza né nessun nessuno nessuna não sem nem nenhum nenhuma "  # Italian, Portuguese
    "niet geen nooit zonder inte ej aldrig utan ikke aldri uten uden nie bez "  # Dutch, Swedish, Danish, Norwegian, Polish
    "не нет ни без никогда нельзя δεν μη μην όχι χωρίς ليس لا لم لن غير بدون לא אין בלי नहीं "  # Russian, Greek, Arabic, Hebrew, Hindi
)
_FILLER_WORDS = "a|an|the|any|really|even|yet|actually|only just|at all|been|be|being|necessarily|always|entirely"
_NEGATED = re.compile(
    rf"(?:(?<![^\W_])(?:{'|'.join(sorted(set(_WORDS.split()), key=len, reverse=True))})|n['’]t|(?<![^\W_])(?:non|un|anti)(?=-\Z))"
    rf"(?:\s+(?:{_FILLER_WORDS}))*[\s\-\u2010\u2011\"'“”‘’«»„*_(\[]*\Z"
)
_CJK_NEGATION = re.compile(r"[不没沒無无未非別别勿莫]\s*\Z")
"""Characters of Chinese and Japanese that negate what follows them without a blank."""
_BEFORE = 60
"""Characters before a place that are looked at."""


def is_negated(text: str, start: int) -> bool:
    """Whether what begins at a place of a text stands directly behind a negation: `made of wood` in `not made of wood`."""
    before = unicodedata.normalize("NFKC", text[max(0, start - _BEFORE) : start]).casefold()
    before = "".join(char for char in before if unicodedata.category(char) != "Cf")
    return _NEGATED.search(before) is not None or _CJK_NEGATION.search(before) is not None


def is_cut_negation(text: str, end: int) -> bool:
    """Whether a text that ends at a place has lost the rest of a negation: `He can` of `He can't`."""
    return re.match(r"n?['’]t(?![^\W_])", text[end : end + 4], re.IGNORECASE) is not None
