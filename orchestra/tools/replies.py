"""Replies: what a general skill returns to a person, as a sentence with its evidence and typed values.

A sentence is composed from the words of the question and a value that was found or computed. It states nothing else,
so its check is that the value is in it. The words of its own are in the language of the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from orchestra.schema.builtin_models import Answer, Cell, Citation, StrictModel
from orchestra.text.keywords import WORD, content_words
from orchestra.workflows.python.steps import tool


class Finding(StrictModel):
    """A question, or the name of a value, with what was found; null if nothing was."""

    question: str
    answer: str | None


class Reply(StrictModel):
    """A reply: its text in sentences, null if there is none, with the typed values and the evidence."""

    text: str | None
    findings: list[Finding] = Field(default=[])
    citations: list[Citation] = Field(default=[])
    cells: list[Cell] = Field(default=[])
    computation: str | None = None
    """An expression and its value, such as `250 * 0.32 = 80`."""
    missing: list[str] = Field(default=[])
    """What was not found or not done."""


LANGUAGE_WORDS: Final = {
    "de": frozenset(
        WORD.findall(
            "der die das den dem ein eine einen ist sind war waren wie was wer wo wann welche welcher welches "
            "wieviel viel viele kostet für und nicht mit von bei auf im zum zur ich wir muss darf kann gibt "
            "es bitte dürfen können müssen soll dass mein meine meinen noch auch"
        )
    ),
    "fr": frozenset(
        WORD.findall(
            "le la les un une des du est sont était quel quelle quels quelles qui quand où combien comment "
            "pour et ne pas avec de dans je nous faut peut il elle sur au aux"
        )
    ),
    "es": frozenset(
        WORD.findall(
            "el la los las un una es son era qué quién cuándo dónde cuánto cuántos cuántas cuál cómo para y "
            "no con de en se puede hay debe por del al"
        )
    ),
}
_NEAREST: Final = {
    "en": "The sources do not say this directly. Nearest: {}",
    "de": "Das ist in den Quellen nicht direkt angegeben. Am nächsten: {}",
    "fr": "Ce n'est pas indiqué directement dans les sources. Le plus proche : {}",
    "es": "No se indica directamente en las fuentes. Lo más cercano: {}",
}
_NOT_FOUND: Final = {
    "en": "The sources do not say: {}",
    "de": "In den Quellen ist nicht angegeben: {}",
    "fr": "Ce n'est pas indiqué dans les sources : {}",
    "es": "No se indica en las fuentes: {}",
}
_WORD = re.compile(r"\w+")
_WHO = re.compile(
    r"^\s*who\s+(?P<rest>(?!(?:is|are|was|were|do|does|did|else|has to|have to)\b)\w+.*)\?\s*$", re.IGNORECASE
)
_WHAT_IS = re.compile(
    r"^\s*(?:what|who|how much|how high|how long|how old|which)\s+(?P<verb>is|are|was|"
    r"were)\s+(?P<rest>(?:the|our|my|your|his|her|its|their)\s.+?)\?\s*$",
    re.IGNORECASE,
)
MAX_SENTENCE_ANSWER = 80
"""Characters of an answer that is put into a sentence of the question's words."""


def language_of(text: str) -> str:
    """The language of a text by its small words: `de`, `fr`, `es`, or else `en`."""
    if "¿" in text or "¡" in text:
        return "es"
    words = [word.casefold() for word in _WORD.findall(text)]
    counts = {language: sum(word in known for word in words) for language, known in LANGUAGE_WORDS.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] >= 2 and counts[best] * 3 >= len(words) else "en"


def not_found_sentence(question: str) -> str:
    """The sentence that the sources do not answer a question."""
    return _NOT_FOUND[language_of(question)].format(question)


def nearest_sentence(question: str, sentence: str) -> str:
    """What the sources say that is nearest to a question without a direct answer."""
    return _NEAREST[language_of(question)].format(" ".join(sentence.lstrip("-*• ").split()))


def answer_sentence(question: str, answer: str) -> str:
    """A sentence of the question's words with the answer, if the question has a simple form; else the answer alone."""
    text = answer.strip().rstrip(".")
    if len(text) <= MAX_SENTENCE_ANSWER and language_of(question) == "en":
        if match := _WHO.match(question):
            return f"{capitalize(text)} {match['rest']}."
        if match := _WHAT_IS.match(question):
            return f"{capitalize(_second_person(match['rest']))} {match['verb']} {text}."
    return f"{capitalize(text)}."


def _second_person(text: str) -> str:
    return re.sub(r"^my\b", "your", re.sub(r"^our\b", "our", text, flags=re.IGNORECASE), flags=re.IGNORECASE)


def capitalize(text: str) -> str:
    """A text with a capital as its first letter."""
    return text[:1].upper() + text[1:]


@tool(effect="pure", label="restricted")
def join_answers(questions: Sequence[str], answers: Sequence[Answer], computed: Reply | None = None) -> Reply:
    """One reply from the answers to the parts of a question. Parts without an answer are named first. A computed amount
    replaces the answer to a single question.
    """
    if computed is not None and computed.text is not None and len(questions) == 1:
        return computed
    findings = [Finding(question=asked, answer=answer.text) for asked, answer in zip(questions, answers, strict=True)]
    findings = [
        one.model_copy(update={"answer": None}) if one.answer in [other.answer for other in findings[:at]] else one
        for at, one in enumerate(findings)
    ]
    sentences = [answer_sentence(one.question, one.answer) for one in findings if one.answer is not None]
    if not sentences and (near := [citation for answer in answers for citation in answer.citations]):
        sentences = [nearest_sentence(questions[0], near[0].quote)]
    missing = [one.question for one in findings if one.answer is None]
    if len(missing) < len(findings):
        sentences = [*map(not_found_sentence, missing), *sentences]
    return Reply(
        text=" ".join(sentences) or None,
        findings=findings,
        citations=list(dict.fromkeys(citation for answer in answers for citation in answer.citations)),
        missing=missing,
    )


_BEFORE = r"(?:(?:from|until|till|by|at|on|in|for|since|to|with|bis|seit|ab|mit|von|jusqu'à|à|de|avec|hasta|con|a)\s+)?"
_ASKED = (
    r"(?:who|whom|whose|what|which|when|where|why|how|wer|wen|wem|was|wann|wo|wie|welche[rsn]?|warum|qui|quel\w*|quand|où|"
    r"combien|comment|pourquoi|quién|qué|cuándo|dónde|cuánt\w+|cuál|cómo)\b"
)
_PART = re.compile(
    rf"\s*(?:,|;|\band\b|,\s*and\b|\bund\b|\bet\b|\by\b)\s+(?={_BEFORE}{_ASKED})",
    re.IGNORECASE,
)
_QUESTION = re.compile(rf"^\W*(?:{_BEFORE}{_ASKED}|(?:is|are|do|does|can)\b)", re.IGNORECASE)
_FIRST_WORDS = re.compile(rf"^\W*{_BEFORE}{_ASKED}\s*", re.IGNORECASE)
MAX_PARTS = 4


class QuestionPart(StrictModel):
    """A question in a sentence with several, and the words by which passages are compared with it."""

    question: str
    context: str


@tool(effect="pure", label="restricted")
def question_parts(question: str) -> list[QuestionPart]:
    """The questions in one sentence with several question words, such as `Who is it, and when did it start?`.

    A part with few words of its own is compared by the whole sentence.
    """
    parts = split_questions(question)
    return [QuestionPart(question=part, context=part if len(content_words(part)) > 2 else question) for part in parts]


def split_questions(question: str) -> list[str]:
    """Splits a sentence before its further question words; the question itself if it has one."""
    parts = [part.strip(" ,;") for part in _PART.split(question)]
    if len(parts) > 1:
        parts = [_completed(part, parts[1] if not at else parts[0]) for at, part in enumerate(parts)]
    complete = [part if part.endswith("?") else f"{part}?" for part in parts if len(part.split()) >= 2]
    if len(complete) < 2 or len(complete) != len(parts) or len(complete) > MAX_PARTS or not _QUESTION.match(question):
        return [question]
    return complete


def _completed(part: str, other: str) -> str:
    """A part that is only a question word, such as `and when?`, with the words of another part."""
    word = part.strip(" ?")
    if len(word.split()) > 1:
        return part
    rest = _FIRST_WORDS.sub("", other).strip(" ?")
    return f"{word} {rest}?"
