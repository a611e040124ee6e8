"""Word overlap of a claim and its evidence as numeric features. No model; takes microseconds to a millisecond.

On BEGIN's replies these features predict support better than a language model of 135 million parameters alone. They do
not represent the meaning of a sentence, so they are only combined with a model
(`orchestra.agents.inference.calibration`) and never decide alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

MAX_SUBSEQUENCE_WORDS = 400
"""Maximum words of evidence for the longest common subsequence."""
NEGATIONS = frozenset(("not", "no", "never", "none", "without", "cannot", "t", "nor"))
"""`t` is the remainder of “isn’t”."""
PERSONAL_PRONOUNS = frozenset(("i", "you", "my", "me", "we", "your", "our", "us"))
"""Pronouns of a claim about the speakers, which evidence about the world cannot support."""
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
"""Names of the features that `wording_features` returns, in order."""


def wording_features(claim: str, evidence: str) -> tuple[float, ...]:
    """Returns the features `FEATURE_NAMES` of a claim and its evidence. Shares are in [0, 1], the others are counts."""
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
    """Returns words in lower case without the most common endings."""
    from orchestra.text.keywords import WORD

    return [_stem(word) for word in WORD.findall(text.lower())]


def _stem(word: str) -> str:
    return next((word[: -len(end)] for end in _SUFFIXES if word.endswith(end) and len(word) > len(end) + 3), word)


def _mean(found: Sequence[bool]) -> float:
    return sum(found) / max(1, len(found))


def _ngram_overlap(mine: Sequence[str], theirs: Sequence[str], length: int) -> float:
    """Returns the share of n-grams that also occur in the evidence."""
    known = set(zip(*(theirs[at:] for at in range(length)), strict=False))
    return _mean([run in known for run in zip(*(mine[at:] for at in range(length)), strict=False)])


def _common_subsequence(mine: Sequence[str], theirs: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence of words."""
    last = [0] * (len(theirs) + 1)
    for word in mine:
        line = [0]
        for at, other in enumerate(theirs):
            line.append(last[at] + 1 if word == other else max(last[at + 1], line[-1]))
        last = line
    return last[-1]
