"""Quotes: the position of a text in a source, regardless of case, spacing and Unicode form, and negations before it.

Two texts are equal if their foldings are equal: NFKC, casefold, NFKC again (Unicode 16, section 3.13, `NFKC_Casefold`
without the removal of ignorable characters), white space collapsed to one space and stripped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from orchestra.core.protocols import EvidenceSource
from orchestra.text.keywords import UNSPACED_SCRIPTS, WORD, content_words, is_inside_word

_WORDS: Final = (
    "not no never without neither nor none cannot hardly scarcely barely "  # English
    "nicht kein keine keiner keinen keinem keines nie niemals ohne weder "  # German
    "ne pas jamais sans aucun aucune ni non nunca jamás sin ningún ninguna tampoco "  # French, Spanish
    "senza né nessun nessuno nessuna não sem nem nenhum nenhuma "  # Italian, Portuguese
    # Dutch, Swedish, Danish, Norwegian, Polish
    "niet geen nooit zonder inte ej aldrig utan ikke aldri uten uden nie bez "
    # Russian, Greek, Arabic, Hebrew, Hindi
    "не нет ни без никогда нельзя δεν μη μην όχι χωρίς ليس لا لم لن غير بدون לא אין בלי नहीं "
)
_FILLER_WORDS = "a|an|the|any|really|even|yet|actually|only just|at all|been|be|being|necessarily|always|entirely"
_NEGATED = re.compile(
    rf"(?:(?<![^\W_])(?:{'|'.join(sorted(set(_WORDS.split()), key=len, reverse=True))})"
    rf"|n['’]t|(?<![^\W_])(?:non|un|anti)(?=-\Z))"
    rf"(?:\s+(?:{_FILLER_WORDS}))*[\s\-\u2010\u2011\"'“”‘’«»„*_(\[]*\Z"
)
_CJK_NEGATION = re.compile(r"[不没沒無无未非別别勿莫]\s*\Z")
"""Characters of Chinese and Japanese that negate the text after them without a space."""
_BEFORE = 60
"""Characters before a position that are examined."""


def is_negated(text: str, start: int) -> bool:
    """Returns whether the text at a position directly follows a negation: `made of wood` in `not made of wood`."""
    before = unicodedata.normalize("NFKC", text[max(0, start - _BEFORE) : start]).casefold()
    before = "".join(char for char in before if unicodedata.category(char) != "Cf")
    return _NEGATED.search(before) is not None or _CJK_NEGATION.search(before) is not None


def is_cut_negation(text: str, end: int) -> bool:
    """Returns whether a text that ends at a position lacks the rest of a negation: `He can` of `He can't`."""
    return re.match(r"n?['’]t(?![^\W_])", text[end : end + 4], re.IGNORECASE) is not None


NEAR_THRESHOLD = 0.95
"""Share of a quote's words, in order, for a near match (VERIFICATION, V0)."""
MAX_MARKS = 64
"""Maximum number of characters that are folded together: twice the marks of a letter in stream-safe text (UAX #15,
section 13).
"""
_SPACE = re.compile(r"\s")
_DOUBLE_SPACE = re.compile(r"\s\s")
MAX_WORK = 4_000_000
"""Maximum number of cells of the word comparison; beyond it no near match is searched."""
MAX_TRIES = 100
"""Minimum number of positions that are tried for a long quote; for a short one, `MAX_WORK` allows more."""


@dataclass(frozen=True, slots=True)
class QuoteSpan:
    """Position of a quote: `sources[source].text[start:end]`, in characters."""

    source: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FoldedText:
    """A folded text; `starts[i]` and `ends[i]` are the span of the original for its character `i`."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


BoundaryCheck: TypeAlias = Callable[[str, int, int], bool]
"""Returns whether a quote may be at a span of a text."""


def accept_any(text: str, start: int, end: int) -> bool:
    """Accepts every span."""
    return True


def is_word_aligned(text: str, start: int, end: int) -> bool:
    """Returns whether a span begins and ends at word and number boundaries: `5 %` in `15 %` does not."""
    return not (is_inside_word(text, start) or is_inside_word(text, end))


def is_affirmed(text: str, start: int, end: int) -> bool:
    """Like `is_word_aligned`, and the span does not follow a negation: `made of wood` in `not made of wood` does."""
    return is_word_aligned(text, start, end) and not (is_negated(text, start) or is_cut_negation(text, end))


def find_quote(
    quote: str, sources: tuple[EvidenceSource, ...], *, whole: bool = False, affirmed: bool = False
) -> QuoteSpan | None:
    """Returns the first position of a quote: an exact match if there is one, else a match of the folded texts.

    `whole` excludes parts of words and numbers; `affirmed` also excludes text after a negation.
    """
    fits = is_affirmed if affirmed else is_word_aligned if whole else accept_any
    trimmed = quote.strip()
    if not trimmed:
        return None
    for index, source in enumerate(sources):
        if (at := _find_exact(trimmed, source.text, fits)) >= 0:
            return QuoteSpan(index, at, at + len(trimmed))
    wanted = fold(trimmed).text.strip(" ")
    if not wanted:
        return None
    for index, source in enumerate(sources):
        if span := _find_folded(wanted, fold(source.text), source.text, fits):
            return QuoteSpan(index, *span)
    return None


def _occurrences(wanted: str, text: str) -> Iterator[int]:
    """Yields the positions of a text in another one. For a long text the number of tries is limited, because it may
    match partly everywhere.
    """
    at = text.find(wanted)
    for _ in range(max(MAX_TRIES, MAX_WORK // len(wanted))):
        if at < 0:
            return
        yield at
        at = text.find(wanted, at + 1)


def _find_exact(wanted: str, text: str, fits: BoundaryCheck) -> int:
    """Returns the position of a text in another one that is not followed by a combining mark for its last letter; -1 if
    there is none.
    """
    for at in _occurrences(wanted, text):
        end = at + len(wanted)
        if not fits(text, at, end):
            continue
        after = text[end : end + 1]
        if not after or after.isascii() or not _composes(wanted[-1], after):
            return at
    return -1


def _find_folded(wanted: str, folded: FoldedText, text: str, fits: BoundaryCheck) -> tuple[int, int] | None:
    for at in _occurrences(wanted, folded.text):
        start, end = folded.starts[at], folded.ends[at + len(wanted) - 1]
        if not fits(text, start, end):
            continue
        if fold(text[start:end]).text.strip(" ") == wanted:  # false inside a ligature
            return start, end
    return None


def fold(text: str) -> FoldedText:
    """Folds a text, with a mapping to the original."""
    if text.isascii() and _DOUBLE_SPACE.search(text) is None:  # character by character, as most large texts
        return FoldedText(_SPACE.sub(" ", text.lower()), range(len(text)), range(1, len(text) + 1))
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end in _segments(text):
        for char in _fold_segment(text[start:end]):
            if not char.isspace():
                out.append(char)
                starts.append(start)
                ends.append(end)
            elif out and out[-1] == " ":
                ends[-1] = end
            else:
                out.append(" ")
                starts.append(start)
                ends.append(end)
    return FoldedText("".join(out), tuple(starts), tuple(ends))


def _fold_segment(segment: str) -> str:
    if segment.isascii():
        return segment.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", segment).casefold())


def _segments(text: str) -> Iterator[tuple[int, int]]:
    """Yields pieces that normalize separately: a character with all that composes or reorders with it."""
    if text.isascii():
        yield from ((index, index + 1) for index in range(len(text)))
        return
    start = 0
    for index in range(1, len(text)):
        # Only a limited part of the text is examined, because endless marks would be sorted and copied again and again.
        if text[index].isascii() or index - start >= MAX_MARKS or not _composes(text[start:index], text[index]):
            yield start, index
            start = index
    if text:
        yield start, len(text)


def _composes(before: str, char: str) -> bool:
    if unicodedata.combining(unicodedata.normalize("NFKD", char)[0]):
        return True
    together = unicodedata.normalize("NFKC", before + char)
    return together != unicodedata.normalize("NFKC", before) + unicodedata.normalize("NFKC", char)


_WORD = re.compile(r"\w+|[^\w\s]")


def match_ratio(quote: str, sources: tuple[EvidenceSource, ...]) -> float:
    """Returns the share of a quote's words that occur, in their order, in one window of a source 1.5 times as long: 0
    to 1.

    Word-level longest common subsequence over windows; 0 if it cannot reach `NEAR_THRESHOLD`, or if the comparison
    would be too large.
    """
    wanted = _WORD.findall(fold(quote).text)
    if not wanted:
        return 0.0
    width, step = len(wanted) + len(wanted) // 2 + 1, max(1, len(wanted) // 4)
    best = 0
    for source in sources:
        words = _WORD.findall(fold(source.text).text)
        if (len(words) // step + 1) * width * len(wanted) > MAX_WORK:
            continue
        common = set(wanted)
        for at in range(0, max(1, len(words) - width + step), step):
            window = words[at : at + width]
            if sum(word in common for word in window) >= max(
                best + 1, NEAR_THRESHOLD * len(wanted)
            ):  # a cheap upper bound
                best = max(best, _common_length(wanted, window))
    return best / len(wanted)


def _common_length(left: list[str], right: list[str]) -> int:
    """Returns the length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for a in left:
        diagonal = 0
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], diagonal + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]


_FUNCTION_WORDS = frozenset(
    WORD.findall(
        "he she they we you i me him her us them my your our his no not but if so than then there these those been "
        "being can could would should may might must shall about into over under after before also very such some "
        "any each all other more most one la le les des du un une et ou der das ein eine und el los las y lo gli il "
        "di e o os het een van ett och det en og som que qui"
    )
)
"""Words that carry as little content as stop words when a quote must support an answer."""
_MEANINGFUL = re.compile(f"\\d|[^\\W\\d_]{{2,}}|[{UNSPACED_SCRIPTS}]")


def is_informative(quote: str, answers: Sequence[str]) -> bool:
    """Returns whether a quote has a word that can support an answer, or is the answer itself and more than a stop word.

    `answers` are the texts next to it; if there are none, the quote is the answer. A name in capitals, such as `The
    Who`, is an answer.
    """
    words = content_words(quote)
    if any(_MEANINGFUL.search(word) for word in words - _FUNCTION_WORDS):
        return True
    wanted = fold(quote).text.strip(" ")
    if answers and not any(fold(answer).text.strip(" ") == wanted for answer in answers):
        return False
    return bool(words) or _is_name(quote)


def _is_name(quote: str) -> bool:
    """Returns whether stop words are written as a name: all capitalized, with more than one letter or word in total:
    `WHO`, `The Who`.
    """
    words = WORD.findall(quote)
    if len(words) == 1:
        return len(words[0]) > 1 and words[0].isupper()
    return bool(words) and all(word[0].isupper() for word in words)
