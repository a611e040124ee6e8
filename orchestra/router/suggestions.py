"""Suggestions: the capability closest to a request that no plan serves, for display to a person.

A shortlist includes every capability that shares a word with the request, which is too little for a suggestion. A
suggestion shares more than a third of the content words, or its whole name occurs in the request. Words are similar if
they share most of their letter trigrams, such as `translate` and `translator`. Names of arguments are left out, because
`text` and `question` do not describe a purpose.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from orchestra.router.capabilities import Capability
from orchestra.router.plan_syntax import NAME_WORDS
from orchestra.text.keywords import STOP_WORDS, WORD

NEAR_THRESHOLD = 0.34
"""Minimum share of a request's content words."""
SIMILARITY_THRESHOLD = 0.6
"""Minimum share of trigrams that similar words have in common."""
_IGNORED_WORDS = STOP_WORDS | frozenset(
    WORD.findall(
        "about after am any been before but can could do get give go he her him his i if into just let me my no "
        "not our out over per "
        "please she should so some than them then there these they those up us want we would you your"
    )
)
"""Words that do not describe a purpose."""


def nearest(skills: Sequence[Capability], request: str) -> Capability | None:
    """Returns the capability closest to a request; None if none is close."""
    request_words = _content_words(request)
    if not request_words:
        return None
    best, best_skill = 0.0, None
    all_told = [_content_words(_split_names(f"{skill.name} {skill.description}")) for skill in skills]
    alike = _similarities(request_words, {word for skill_words in all_told for word in skill_words})
    for skill, skill_words in zip(skills, all_told, strict=True):
        name = _content_words(_split_names(skill.name))
        share = sum(
            max((degree for other_word, degree in alike[word].items() if other_word in skill_words), default=0.0)
            for word in request_words
        ) / len(request_words)
        score = sum(word in request_words for word in name) / len(name) if name else 0.0
        if (share >= NEAR_THRESHOLD or score == 1) and share + score > best:
            best, best_skill = share + score, skill
    return best_skill


def shares_word(request: str, told: str) -> bool:
    """Whether a request shares a content word with a name or a description."""
    request_words, words = _content_words(request), _content_words(_split_names(told))
    return any(_similarities(request_words, words).values())


def _split_names(text: str) -> str:
    """Splits names in a text, such as `book_flight`, into words."""
    return " ".join(" ".join(NAME_WORDS.findall(word)) if word.isascii() else word for word in WORD.findall(text))


def _content_words(text: str) -> Collection[str]:
    """Content words without duplicates."""
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    significant_words = [word for word in words if word not in _IGNORED_WORDS]
    return dict.fromkeys(
        word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word for word in significant_words
    )


def _similarities(request_words: Iterable[str], skill_word_sets: Collection[str]) -> Mapping[str, Mapping[str, float]]:
    """Similarity of each word to these words: 1 for equal ones. Words below the threshold are left out."""
    words_by_run: dict[str, list[str]] = {}
    size: dict[str, int] = {}
    for word in skill_word_sets:
        runs = _trigrams(word)
        size[word] = len(runs)
        for run in runs:
            words_by_run.setdefault(run, []).append(word)
    similarities: dict[str, dict[str, float]] = {}
    for word in request_words:
        runs = _trigrams(word)
        shared_counts = Counter(other_word for run in runs for other_word in words_by_run.get(run, ()))
        degrees = {
            other_word: 2 * count / (len(runs) + size[other_word]) for other_word, count in shared_counts.items()
        }
        similarities[word] = {
            other_word: degree for other_word, degree in degrees.items() if degree >= SIMILARITY_THRESHOLD
        }
    return similarities


def _trigrams(word: str) -> set[str]:
    return {f"^{word}$"[at : at + 3] for at in range(len(word))}
