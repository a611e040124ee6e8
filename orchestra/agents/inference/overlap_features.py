"""Wording: what the words of a claim and of its evidence tell by themselves, as numbers. No model; microseconds to a
millisecond.

On BEGIN's replies these say more about support than a language model of 135 million parameters does alone, and they
know nothing of what a sentence means; so they are one voice beside it (`agent.calibration`), never the judge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

MAX_SUBSEQUENCE_WORDS = 400
"""Words of evidence that the longest common subsequence looks at."""
NEGATIONS = frozenset(("not", "no", "never", "none", "without", "cannot", "t", "nor"))
"""`t` is what is left of “isn’t”."""
PERSONAL_PRONOUNS = frozenset(("i", "you", "my", "me", "we", "your", "our", "us"))
"""Who says such a word says more than any evidence of the world can hold."""
REPLY_OPENERS = frozenset(("yes", "no", "well", "oh", "yeah", "sure"))
_SUFFIXES = ("ing", "ed", "es", "s", "ly")
_NUMBER = re.compile(r"\d[\d,.]*")
_PROPER_NAME = re.compile(r"\b[A-Z]\w+")

FEATURE_NAMES = (
    "content words found",
    "pairs of words found",
    "triples of words found",
    "longest common subsequence",
    "numbers not found",
    "numbers",
    "names not found",
    "names",
    "content words not found",
    "words",
    "log of the evidence's words",
    "claim denies",
    "evidence denies",
    "one denies, the other not",
    "speakers",
    "speakers not found",
    "question mark",
    "exclamation mark",
    "opens as a reply does",
)
"""Names of the numbers that `wording_features` returns, in their order."""


def wording_features(claim: str, evidence: str) -> tuple[float, ...]:
    """The numbers of `FEATURE_NAMES` for a claim and its evidence; shares are in [0, 1], the others are counts."""
    from orchestra.text.keywords import STOP_WORDS

    mine, theirs = _stems(claim), _stems(evidence)
    known, content = set(theirs), [word for word in mine if word not in STOP_WORDS]
    denies, denied = not NEGATIONS.isdisjoint(mine), not NEGATIONS.isdisjoint(known)
    numbers = [found.strip(".,") for found in _NUMBER.findall(claim)]
    names = _PROPER_NAME.findall(claim[1:])
    speakers = [word for word in mine if word in PERSONAL_PRONOUNS]
    numbered = (
        _mean([word in known for word in content]),
        _ngram_overlap(mine, theirs, 2),
        _ngram_overlap(mine, theirs, 3),
        _common_subsequence(mine, theirs[:MAX_SUBSEQUENCE_WORDS]) / max(1, len(mine)),
        sum(number not in evidence for number in numbers),
        len(numbers),
        sum(name not in evidence for name in names),
        len(names),
        sum(word not in known for word in content),
        len(mine),
        math.log1p(len(theirs)),
        denies,
        denied,
        denies != denied,
        len(speakers),
        sum(word not in known for word in speakers),
        "?" in claim,
        "!" in claim,
        bool(mine) and mine[0] in REPLY_OPENERS,
    )
    return tuple(map(float, numbered))


def _stems(text: str) -> list[str]:
    """Words in lower case, without the commonest endings."""
    from orchestra.text.keywords import WORD

    return [_stem(word) for word in WORD.findall(text.lower())]


def _stem(word: str) -> str:
    return next((word[: -len(end)] for end in _SUFFIXES if word.endswith(end) and len(word) > len(end) + 3), word)


def _mean(found: Sequence[bool]) -> float:
    return sum(found) / max(1, len(found))


def _ngram_overlap(mine: Sequence[str], theirs: Sequence[str], length: int) -> float:
    """The share of runs of so many words that the evidence has too."""
    known = set(zip(*(theirs[at:] for at in range(length)), strict=False))
    return _mean([run in known for run in zip(*(mine[at:] for at in range(length)), strict=False)])


def _common_subsequence(mine: Sequence[str], theirs: Sequence[str]) -> int:
    """The length of the longest common subsequence of words."""
    last = [0] * (len(theirs) + 1)
    for word in mine:
        line = [0]
        for at, other in enumerate(theirs):
            line.append(last[at] + 1 if word == other else max(last[at + 1], line[-1]))
        last = line
    return last[-1]
