"""Answers: from ranked passages and the spans that a reader found in them to one answer with its quotes.

A span counts by the reader's score, by how near its sentence is in meaning to the question, by whether it is of the
kind that the question asks for (`orchestra.tools.question_kinds`), and by whether the names of the question stand
around it. Below a threshold there is no answer. All scores are computed here from the outputs of encoders; nothing is
generated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestra.documents.passages import split_passages
from orchestra.schema.builtin_models import Answer, Citation, Document, Passage, StrictModel
from orchestra.text.keywords import content_words, singular
from orchestra.text.numbers.words import SMALL_NUMBERS
from orchestra.tools.answer_checks import is_record, nearest_amount, shared_words, unknown_names
from orchestra.tools.question_kinds import (
    STRICT_KINDS,
    AnswerKind,
    answer_kind,
    is_of_kind,
    spans_of_kind,
    whole_amount,
)
from orchestra.tools.replies import language_of
from orchestra.tools.sentences import sentence_spans, surrounding_span, unwrapped
from orchestra.workflows.python.steps import tool

MAX_CANDIDATES = 240
"""Passages that an encoder compares with a question. Of more, those that share words with it."""
TOP_PASSAGES = 5
TOP_SENTENCES = 5
TOP_WINDOWS = 3
"""Nearest sentences that are read with their neighbours."""
MIN_SENTENCE = 12
"""Characters of a sentence that is read on its own."""
FOREIGN_NEAREST = 0.65
"""The same for other languages than English, which the encoders do not know."""
OTHER_AMOUNT = 10.0
"""What an amount loses whose clause shares fewer words with the question than another one of the sentence."""
RECORD_WORDS = 0.5
"""The share of a question's words that a row of a table must have to answer it."""
KNOWN_WORDS = 0.5
"""The closeness that all words of a question in a sentence add, in languages that the encoders do not know."""
STATED_SUM = 9.0
"""The weight from which a number answers a question for a sum or a difference."""
_COMPUTED = re.compile(
    r"\b(?:difference|the total of|how (?:many|much) (?:\w+ )?(?:more|less|fewer)|(?:lost|gained) between|"
    r"altogether|in total|"
    r"after the (?:discount|rebate)|"
    r"unpaid|comes? out of|instal?lments?|after the deposit|left over|remain(?:s|ing)?|still (?:owe|have to pay|"
    r"due)|together)\b",
    re.IGNORECASE,
)
NEAREST = 0.5
"""The closeness from which a sentence is shown though it does not answer the question."""
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_PAST = re.compile(
    r"\b(?:(?:19|20)\d\d|old|former\w*|previous\w*|used to|before|earlier|alte[nrs]?|früher\w*|ancien\w*|antigu\w+)\b",
    re.IGNORECASE,
)
ACCEPTED = 0.8
"""The weight from which a candidate is the answer. With -1.2 two sets of requests by authors who had not read the
product had 18 right and 17 wrong answers from documents; with 0.8, 17 and 11."""
NUMBER_WORD = rf"(?:{'|'.join(word for word, value in SMALL_NUMBERS.items() if value > 1)})"
_NAME = re.compile(r"\b[A-ZÀ-ÝŠŽ][\w'’-]*\w|\b\w*\d[\w-]*")
_WORD = re.compile(r"\w+")


class RankedSpan(StrictModel):
    """Words of a text that may answer a question. Above a score of 0 the text answers it."""

    text: int
    start: int
    end: int
    answer: str
    score: float


class Candidates(StrictModel):
    """Passages to compare with a question, and the texts by which they are compared: with the title of the document."""

    passages: list[Passage]
    texts: list[str]


@tool(effect="pure", label="restricted")
def find_passages(question: str, documents: Sequence[Document], most: int = MAX_CANDIDATES) -> Candidates:
    """The passages of documents that may answer a question; of many, those that share words with it."""
    from orchestra.documents.ranking import bm25_scores

    passages = split_passages(documents)
    if len(passages) > most:
        scores = bm25_scores([passage.text for passage in passages], question)
        best = sorted(range(len(passages)), key=lambda at: (-scores[at], at))[:most]
        passages = [passages[at] for at in sorted(best)]
    titles = {document.source: document_title(document) for document in documents}
    return Candidates(passages=passages, texts=[titled_text(passage, titles[passage.source]) for passage in passages])


def document_title(document: Document) -> str:
    """The first line of a document, if it is short; else the name of its source."""
    first = document.text.lstrip().partition("\n")[0].strip("# \t")
    return first if 0 < len(first) <= 100 else document.source


def titled_text(passage: Passage, title: str) -> str:
    """The text of a passage, with the title of its document unless it begins with it."""
    return passage.text if passage.text.lstrip("# ").startswith(title) else f"{title}\n{passage.text}"


class ReadingList(StrictModel):
    """The passages nearest to a question, the best one first, and their sentences."""

    passages: list[Passage]
    sentences: list[Passage]
    texts: list[str]
    """The sentences as texts."""


@tool(effect="pure", label="restricted")
def nearest_passages(
    question: str, passages: Sequence[Passage], scores: Sequence[float], top: int = TOP_PASSAGES
) -> ReadingList:
    """The passages nearest to a question by meaning and by shared words, and their sentences."""
    from orchestra.documents.ranking import bm25_scores

    words = bm25_scores([passage.text for passage in passages], question)
    most = max(words, default=0.0)
    weighed = [
        (near + (0.25 * shared / most if most else 0.0), number)
        for number, (near, shared) in enumerate(zip(scores, words, strict=True))
    ]
    best = [
        passages[number].model_copy(update={"score": round(weight, 6)})
        for weight, number in sorted(weighed, key=lambda one: (-one[0], one[1]))[:top]
    ]
    sentences = [sentence for passage in best for sentence in split_sentences(passage)]
    return ReadingList(passages=best, sentences=sentences, texts=[unwrapped(sentence.text) for sentence in sentences])


def split_sentences(passage: Passage) -> list[Passage]:
    """The sentences of a passage, with their positions in the document; headings are left out."""
    return [
        passage.model_copy(
            update={"text": passage.text[start:end], "start": passage.start + start, "end": passage.start + end}
        )
        for start, end in sentence_spans(passage.text)
        if end - start >= MIN_SENTENCE and not passage.text[start:end].startswith("#")
    ]


class ReadingTexts(StrictModel):
    """What a reader reads: single sentences, and sentences with their neighbours, as passages and as texts."""

    sources: list[Passage]
    texts: list[str]


@tool(effect="pure", label="restricted")
def reading_texts(
    passages: Sequence[Passage], sentences: Sequence[Passage], scores: Sequence[float], top: int = TOP_SENTENCES
) -> ReadingTexts:
    """The nearest sentences by score, and the nearest of them with the sentences before and after it.

    A whole passage takes a reader several times as long, and its other sentences distract it.
    """
    ranked = sorted(range(len(sentences)), key=lambda at: (-scores[at], at))[:top]
    best = [sentences[at].model_copy(update={"score": round(scores[at], 6)}) for at in ranked]
    around = [_with_neighbours(sentence, passages) for sentence in best[:TOP_WINDOWS]]
    sources = list({(source.source, source.start, source.end): source for source in [*around, *best]}.values())
    return ReadingTexts(sources=sources, texts=[source.text for source in sources])


def _with_neighbours(sentence: Passage, passages: Sequence[Passage]) -> Passage:
    """A sentence with those before and after it in its passage."""
    for passage in passages:
        if passage.source != sentence.source or not passage.start <= sentence.start < passage.end:
            continue
        spans = sentence_spans(passage.text)
        at = next((number for number, span in enumerate(spans) if passage.start + span[1] > sentence.start), 0)
        start, end = spans[max(0, at - 1)][0], spans[min(len(spans) - 1, at + 1)][1]
        return passage.model_copy(
            update={"text": passage.text[start:end], "start": passage.start + start, "end": passage.start + end}
        )
    return sentence


@dataclass(frozen=True, slots=True)
class _Candidate:
    answer: str
    weight: float
    citation: Citation


@tool(effect="pure", label="restricted")
def choose_answer(
    question: str,
    sources: Sequence[Passage],
    spans: Sequence[RankedSpan],
    sentences: Sequence[Passage] = (),
    scores: Sequence[float] = (),
    documents: Sequence[Document] = (),
    accept: float = ACCEPTED,
    context: str = "",
) -> Answer:
    """The answer that a reader's spans, their sentences and the kind of the question support most; null if none does.

    The citation is the sentence around the answer, located in the document; without an answer, the nearest sentence. If
    documents of several years answer, the latest one counts, unless the question names a year. The context is the
    sentence that the question is a part of: its proper names must be in the document of the answer.
    """
    kind = answer_kind(question)
    language = language_of(context or question)
    if language != "en":
        scores = [
            max(score, KNOWN_WORDS * shared_words(context or question, sentence.text) + 0.3)
            for sentence, score in zip(sentences, scores, strict=True)
        ]
    near = {(sentence.source, sentence.start): score for sentence, score in zip(sentences, scores, strict=True)}
    candidates = [
        *(_read_candidate(question, kind, sources[span.text], span, near) for span in spans),
        *_typed_candidates(question, kind, sentences, scores),
    ]
    texts = {document.source: f"{document.source}\n{document.text}" for document in documents}
    candidates = [one for one in candidates if _may_answer(context or question, kind, one, texts)]
    best = max(candidates, key=lambda one: one.weight, default=None)
    accept += 0.0 if language == "en" or accept >= ACCEPTED else 2.0  # the encoders know English
    if best is not None and _COMPUTED.search(question) and not _COMPUTED.search(best.citation.quote):
        accept = max(accept, STATED_SUM)  # a number of the text is a part of the sum, and not the sum
    if best is None or best.weight < accept:
        return Answer(text=None, citations=_nearest_citation(question, sentences, scores))
    best = _latest(question, best, candidates, documents, accept)
    same = [one.citation for one in candidates if one.answer == best.answer and one.weight >= accept]
    return Answer(text=best.answer, citations=list(dict.fromkeys([best.citation, *same]))[:2])


def _may_answer(question: str, kind: AnswerKind, one: _Candidate, texts: Mapping[str, str]) -> bool:
    """Whether a candidate has the form that its kind requires, is no cell of a row that others resemble, and is in
    a document that has the proper names of the question.
    """
    if kind in STRICT_KINDS and not is_of_kind(one.answer, kind):
        return False
    quote = one.citation.quote
    if is_record(quote) and (
        _RANKS.search(question)
        or unknown_names(question, quote)
        or shared_words(question, quote) < RECORD_WORDS
        or _has_twin(question, quote, texts.get(one.citation.source, ""))
    ):
        return False
    if _CLOSED.search(question) and _OPEN.search(quote) and not _CLOSED.search(quote):
        return False
    if kind == "reason" and len(one.answer.split()) < 3:
        return False
    if kind == "money" and _other_numbers(question, quote):
        return False
    text = texts.get(one.citation.source)
    return text is None or not unknown_names(question, text)


_CLOSED = re.compile(r"\b(?:closed|shut|geschlossen|fermée?s?|cerrad[oa]s?)\b", re.IGNORECASE)
_OPEN = re.compile(r"\b(?:open|opens|geöffnet|ouverte?s?|abiert[oa]s?)\b", re.IGNORECASE)


def _has_twin(question: str, record: str, text: str) -> bool:
    """Whether another row of a table has the names of the question that a row has."""
    names = [name for name in _names(question) if name in record]
    rows = [line for line in text.split("\n") if is_record(line)]
    return bool(names) and sum(all(name in row for name in names) for row in rows) > 1


_RANKS = re.compile(r"\b(?:most|least|highest|lowest|best|worst|first|last|total|average|\w{3,}est)\b", re.IGNORECASE)
"""A question that only all rows of a table answer."""
_QUANTITY = re.compile(rf"(?<![\w.,£€$-])(?:\d{{1,3}}|{NUMBER_WORD})(?![\w.,:-]*\d)\s+[^\W\d_]{{3,}}", re.IGNORECASE)
_FIGURE = re.compile(rf"(?<![£€$.,\d])\d+|\b{NUMBER_WORD}\b", re.IGNORECASE)


def _other_numbers(question: str, quote: str) -> bool:
    """Whether a question about an amount has a quantity that the sentence with the amount does not have. Then the
    amount is a part of a computation.
    """
    known = {_number_value(match[0]) for match in _FIGURE.finditer(quote)}
    return any(
        _number_value(figure[0]) not in known
        for match in _QUANTITY.finditer(question)
        for figure in _FIGURE.finditer(match[0])
    )


def _number_value(text: str) -> int:
    return int(text) if text.isdigit() else SMALL_NUMBERS[text.casefold()]


def _nearest_citation(question: str, sentences: Sequence[Passage], scores: Sequence[float]) -> list[Citation]:
    """The sentence nearest to a question, if it is near."""
    prose = [number for number, sentence in enumerate(sentences) if not is_record(sentence.text)]
    at = max(prose, key=lambda number: scores[number], default=-1)
    least = NEAREST if language_of(question) == "en" else FOREIGN_NEAREST
    return [] if at < 0 or scores[at] < least else [_cite(sentences[at], 0, len(sentences[at].text))]


def _latest(
    question: str,
    best: _Candidate,
    candidates: Sequence[_Candidate],
    documents: Sequence[Document],
    accept: float,
) -> _Candidate:
    """The best candidate, or one of a later document that answers as well."""
    if _PAST.search(question):
        return best
    years = {document.source: document_year(document) for document in documents}
    own = years.get(best.citation.source, 0)
    others = set(years.values()) - {0}
    # A document without a year is the current one if others have years in their names.
    if any(_is_dated_by_name(document) for document in documents) and others:
        years = {source: year or max(others) + 1 for source, year in years.items()}
    later = [
        one
        for one in candidates
        if own and years.get(one.citation.source, 0) > own and one.weight >= accept and one.weight >= best.weight - 8.0
    ]
    return max(later, key=lambda one: one.weight, default=best)


def _is_dated_by_name(document: Document) -> bool:
    return _YEAR.search(document.source.replace("_", " ")) is not None


def document_year(document: Document) -> int:
    """The year in the name of a document, else the latest year in its beginning; 0 without one."""
    name = document.source.replace("_", " ")
    years = _YEAR.findall(name) or _YEAR.findall(document.text[:400])
    return max(map(int, years), default=0)


def _read_candidate(
    question: str, kind: AnswerKind, source: Passage, span: RankedSpan, near: dict[tuple[str, int], float]
) -> _Candidate:
    start, end = surrounding_span(sentence_spans(source.text), span.start, span.end)
    quote = source.text[start:end]
    place = (source.source, source.start + start)
    closeness = near.get(place, max((near[key] for key in near if key[0] == source.source), default=0.3) - 0.1)
    weight = max(-12.0, min(12.0, span.score)) + _fit(question, kind, span.answer, quote, source.text, closeness)
    if language_of(question) != "en" and (amounts := spans_of_kind(quote, kind)):
        nearest = nearest_amount(question, quote, amounts)
        if nearest is not None and quote[slice(*nearest)] not in span.answer:
            weight -= OTHER_AMOUNT
    nouns = frozenset(singular(word.casefold()) for word in _WORD.findall(question))
    first, last = whole_amount(quote, max(0, span.start - start), span.end - start, nouns)
    answer = unwrapped(quote[first:last]).strip(" .,;:*")
    if answer.casefold() == "ever" and source.text[: span.start].endswith("for "):
        answer = f"for {answer}"
    return _Candidate(answer, weight, _cite(source, start, end))


def _typed_candidates(
    question: str, kind: AnswerKind, sentences: Sequence[Passage], scores: Sequence[float]
) -> Iterable[_Candidate]:
    """Amounts of the kind that the question asks for, in sentences that are near to it in meaning."""
    names = _names(question)
    for sentence, score in zip(sentences, scores, strict=True):
        if score < 0.5:
            continue
        spans = spans_of_kind(sentence.text, kind)
        nearest = nearest_amount(question, sentence.text, spans) or (
            _nearest_amount(sentence.text, spans, names) if names and spans else None
        )
        for start, end in spans:
            alone = len(spans) == 1
            beside = nearest == (start, end)
            if not alone and not beside:
                continue
            answer = sentence.text[start:end]
            weight = -5.5 + _fit(question, kind, answer, sentence.text, sentence.text, score) + (2.0 if beside else 0.0)
            yield _Candidate(answer, weight, _cite(sentence, 0, len(sentence.text)))


def _nearest_amount(text: str, spans: Sequence[tuple[int, int]], names: Sequence[str]) -> tuple[int, int] | None:
    """The amount that stands next to a name of the question, before others."""
    places = [match.start() for name in names for match in re.finditer(re.escape(name), text)]
    if not places:
        return None
    return min(spans, key=lambda span: min(abs(place - span[1]) for place in places))


def _fit(question: str, kind: AnswerKind, answer: str, sentence: str, around: str, closeness: float) -> float:
    """How well an answer fits the question, apart from the reader's score."""
    weight = 7.0 * (closeness - 0.45)
    if kind:
        weight += 1.5 if is_of_kind(answer, kind) else -7.0
    names = _names(question)
    here = sum(name.casefold() in sentence.casefold() for name in names)
    there = sum(name.casefold() in around.casefold() for name in names)
    if names:
        weight += 2.0 * here / len(names) + 0.5 * there / len(names) - 0.5
    if not _WORD.search(answer) or _repeats(question, answer):
        weight -= 8.0
    if "|" in sentence and not _shares_word(question, sentence):
        weight -= 7.0  # a row of a table is about what its first cell names
    if not kind:
        weight -= 4.0
    return weight


def _shares_word(question: str, row: str) -> bool:
    """Whether a row of a table has a content word of the question in its first cell."""
    first = row.strip().strip("|").partition("|")[0]
    return bool(content_words(question) & content_words(first)) or any(
        one[:5] == other[:5]
        for one in content_words(question)
        for other in content_words(first)
        if min(len(one), len(other)) > 4
    )


def _names(question: str) -> list[str]:
    """Names and codes in a question: capitalised words after the first one, and words with digits."""
    first = re.match(r"\W*\w+", question)
    return [
        match[0]
        for match in _NAME.finditer(question, first.end() if first else 0)
        if len(match[0]) > 1 and match[0] not in ("I'm", "I've", "I'd", "I'll")
    ]


def _repeats(question: str, answer: str) -> bool:
    """Whether an answer has only words of the question."""
    words = set(_WORD.findall(answer.casefold()))
    return words <= set(_WORD.findall(question.casefold()))


def _cite(source: Passage, start: int, end: int) -> Citation:
    return Citation(
        quote=source.text[start:end], source=source.source, start=source.start + start, end=source.start + end
    )
