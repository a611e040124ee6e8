"""Sentences of a request: those that ask for an effect, and those whose constants a call with effects may not use.

A call with effects needs a sentence that asks for it. A question, a negated sentence and a conditional sentence ask for
nothing, and a plain statement only adds facts (`My name is Ann.`). The rules are lists of words, most of them English,
and they are conservative: a sentence that only looks like a question or a negation is treated as one. Quoted words are
content and are not examined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

QUOTED = re.compile(r"""(?<![^\s(:])"(?!\s)[^"]+(?<!\s)"(?!\w)|“[^“”]+”|„[^“”„]+[“”]|»[^«»]+«|«[^«»]+»""")
"""Words in quotation marks."""
_SENTENCE_END = re.compile(r"""(?:[.!?…؟]+["'”’»)\]]*(?=\s|\Z)|[。！？]+["'”’»)\]]*)""")
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|no|nr|vs|jr|sr|inc|ltd|co|e\.g|i\.e|approx|ca|z\.b|d\.h)|\b[A-Z])\.\Z", re.IGNORECASE
)
_QUESTION_MARK = re.compile(r"[?？؟]\W*\Z|¿")
_QUOTE_RESIDUE = ' .!_"“”„»«'
"""Characters left of a sentence that consists of quoted words."""
_NEGATION = re.compile(
    r"\b(?:not|no(?!\.\s?\d)|nope|never|none|nothing|nobody|nowhere|neither|nor|without|cannot|\w+n['’]t|(?:do|"
    r"ca|wo|does|did|should|is|was)nt"
    r"|except|instead|rather|avoid|refrain|(?:stop|quit|cease|skip|hold off|forget about)\s\w+ing|forbid"
    r"|forbidden|prohibited|cancell?ed|withdrawn|rejected|refused"
    r"|nicht|kein\w*|nie|niemals|nein|ohne|weder|statt|ne|pas|jamais|non|sans|aucune?|nunca|jamás|sin|ningun\w*|"
    r"senza|nessun\w*"
    r"|não|sem|niet|geen|nooit|inte|ikke|ingen|не|нет|никогда|без)\b|\bn['’](?=\w)|[不没別别]|ない",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|whether|in case|provided|suppos(?:e|ing)|assum(?:e|ing)|imagine|pretend|hypothetical\w*|"
    r"wenn|falls|sofern|si)\b",
    re.IGNORECASE,
)
_INTERROGATIVE = re.compile(
    r"(?:who|whom|whose|what|which|when|where|why|how|is|are|am|was|were|do(?=\s+(?:i|you|we|they|people|the|"
    r"these|those|my|our|any)\b)|does|did|has|have|had|can|could|will|would|shall|should|may"
    r"|might|must|wer|wen|wem|was|wann|wo|warum|wieso|weshalb|wie|welche\w*|ist|sind|hat|habe|soll\w*|kann\w*|"
    r"könn\w*|darf|wird|wirst"
    r"|est-ce|qui|que|quoi|quand|où|pourquoi|comment|combien|cuándo|cuánto|quién|qué|cómo|dónde|chi|cosa|quando|"
    r"dove|perché|come)\b",
    re.IGNORECASE,
)
_INDIRECT_QUESTION = re.compile(
    r"\b(?:tell|know|explain|show|see|ask|say|check|find out|work out|calculate|sure|question)\b.*\b(?:what|why|"
    r"how|who|when|where|which)\b"
    r"|\b(?:wonder\w*|whether)\b",
    re.IGNORECASE | re.DOTALL,
)
FILLER = re.compile(
    r"(?:\W|\b(?:please|kindly|hi|hey|hello|ok|okay|so|and|but|then|also|now|well|thanks|bitte|und|dann|et|puis|y)\b)*",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"(?:i|we|he|she|they|it|there|my|his|her|their|our|your|the|this|that|these|those|an?|some(?:body|one)|"
    r"every(?:body|one)|ich|wir|er|sie"
    r"|je|il|elle|nous|yo|io)\b(?!(?:\s+(?:really|just|also|now|urgently))*\s*(?:want|need|wish|would like|"
    r"['’]d like|ask|request|order"
    r"|möchte|will|brauche)\b)(?!['’]d like\b)",
    re.IGNORECASE,
)
_BACK_REFERENCE = re.compile(
    r"\b(?:it|that|this|so|them|those|these|anymore|any more|after all|das|es|cela|ça|eso|esto)\b", re.IGNORECASE
)
_FORWARD_REFERENCE = re.compile(r"\b(?:following|below|next|these|folgende\w*)\b|:\s*\Z", re.IGNORECASE)
_RETRACTION = re.compile(
    r"(?:cancel|forget|ignore|stop|wait|undo|abort|scratch|disregard|skip|never mind|nevermind|vergiss|stopp?|"
    r"halt|warte)\b"
    r"(?:\W|\b(?:it|that|this|them|all|of|the|last|above|everything|please|das|es)\b)*\Z",
    re.IGNORECASE,
)


class Mood(Enum):
    """The kind of a sentence, for calls with effects."""

    COMMAND = "command"
    STATEMENT = "statement"
    QUESTION = "a question"
    NEGATION = "a negation"
    CONDITION = "a condition"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and its span in the request."""

    start: int
    end: int
    mood: Mood


def split_sentences(text: str) -> list[Sentence]:
    """Splits a request into sentences. Sentences that a later one retracts are negations."""
    plain = _mask_quotes(text)
    sentences = [Sentence(start, end, _mood(plain[start:end])) for start, end in _sentence_spans(plain)]
    if _is_retracted(plain, sentences):
        return [Sentence(sentence.start, sentence.end, Mood.NEGATION) for sentence in sentences]
    return sentences


def _mask_quotes(text: str) -> str:
    """The text with quoted words blanked out, unless the whole text is one quote."""

    def mask(match: re.Match[str]) -> str:
        if not (text[: match.start()] + text[match.end() :]).strip(" .!?"):
            return match[0]
        return match[0][0] + "_" * (len(match[0]) - 2) + match[0][-1]

    return QUOTED.sub(mask, text)


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for match in _SENTENCE_END.finditer(text):
        if match[0] == "." and _ABBREVIATION.search(text, max(at, match.end() - 8), match.end()):
            continue
        yield from _trim_span(text, at, match.end())
        at = match.end()
    yield from _trim_span(text, at, len(text))


def _trim_span(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if piece.strip():
        yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _mood(plain: str) -> Mood:
    head = FILLER.match(plain)
    first = head.end() if head else 0
    if _NEGATION.search(plain):
        return Mood.NEGATION
    if _QUESTION_MARK.search(plain) or _INTERROGATIVE.match(plain, first) or _INDIRECT_QUESTION.search(plain):
        return Mood.QUESTION
    if _CONDITION.search(plain):
        return Mood.CONDITION
    return Mood.STATEMENT if _SUBJECT.match(plain, first) or not plain[first:].strip(_QUOTE_RESIDUE) else Mood.COMMAND


def _is_retracted(text: str, sentences: list[Sentence]) -> bool:
    """Whether a sentence retracts the others."""
    has_request = False
    for number, sentence in enumerate(sentences):
        piece = text[sentence.start : sentence.end]
        head = FILLER.match(piece)
        first = head.end() if head else 0
        if _RETRACTION.match(piece, first) and len(sentences) > 1:
            return True
        if (
            sentence.mood is Mood.NEGATION
            and has_request
            and (_NEGATION.match(piece, first) or _BACK_REFERENCE.search(piece))
        ):
            return True
        if sentence.mood is Mood.NEGATION and number + 1 < len(sentences) and _FORWARD_REFERENCE.search(piece):
            return True
        has_request = has_request or sentence.mood is Mood.COMMAND
    return False
