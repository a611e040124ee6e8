"""Reading by a larger model: when it is asked, what it reads, and which of its answers are accepted.

The model copies words of the passages and writes a short answer, or the calculation of an amount. None of it is
trusted. Code finds the quotes in the passages, finds each number of a calculation in the quoted sentences, in
sentences about the question or in the question itself, and computes the value. A written answer needs its words in the
quote, a quote that is about the question, and a second reading of fewer passages that agrees. What fails a check is
dropped, and the answer without the larger model stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from orchestra.schema.builtin_models import Citation, Document, Passage, StrictModel
from orchestra.text.arithmetic import ArithmeticParseError, evaluate, format_fraction, operands
from orchestra.text.keywords import WORD, content_words
from orchestra.text.numbers.numbers import find_numbers
from orchestra.tools.answers import RankedSpan
from orchestra.tools.computation import older_versions
from orchestra.tools.question_kinds import answer_kind, is_of_kind
from orchestra.tools.replies import Finding, Reply, answer_sentence, language_of
from orchestra.tools.sentences import sentence_spans, surrounding_span, unwrapped
from orchestra.workflows.python.steps import tool

MAX_READ = 4_000
"""Characters that a larger model reads: about a thousand tokens, some seconds on two processors."""
MAX_READ_AGAIN = 1_500
"""Characters of the second reading."""
CONFIRMED = 0.0
"""The score of an encoder's answer, above which its sentence answers the question."""
STEM = 5
"""Letters by which words are compared, so that endings do not count."""
_ASKS_AMOUNT = re.compile(
    r"\bhow much\b|\bhow many\b.{0,60}\b(?:more|less|fewer|left|lost|remain\w*|altogether|total)\b|"
    r"\b(?:what|which)\b.*\b(?:costs?|pay|paid|price|charged?|fees?|owes?|get|due|total|refund\w*|rent|amount|"
    r"difference|carriage|bill)\b|\bcombien\b|\bcu[aá]nt[oa]s?\b|\bwie ?viel\b|\bwas (?:kostet|kosten|zahl\w*)\b",
    re.IGNORECASE | re.DOTALL,
)
_DIFFERENCE = re.compile(
    r"\b(?:more|less|fewer|difference|between|cheaper|longer|shorter|mehr|weniger|unterschied|de plus|de moins|"
    r"différence|más|menos|diferencia)\b",
    re.IGNORECASE,
)
_PAST = re.compile(
    r"\b(?:(?:19|20)\d\d|old|former\w*|previous\w*|used to|alte[nrs]?|früher\w*|ancien\w*|antigu\w+|"
    r"changed?)\b",
    re.IGNORECASE,
)
_SUPERSEDED = re.compile(
    r"\b(?:superseded|out of force|no longer (?:valid|in force)|was replaced by|außer kraft|ersetzt durch|"
    r"n'est plus en vigueur|remplacée? par|ya no está en vigor|sustituid[oa] por)\b",
    re.IGNORECASE,
)
_HALF = re.compile(r"\b(?:half|twice|double|halb\w*|hälfte|doppelt\w*|moitié|mitad|doble)\b", re.IGNORECASE)
_DISCOUNT = re.compile(r"\b(?:discount\w*|rebate|reduc\w+|rabatt\w*|remise|réduc\w+|descuento|rebaja)\b", re.IGNORECASE)
_CURRENCY = re.compile(r"(?P<sign>[£€$])\s?\d|\d\s?(?P<word>euros?|pounds?|dollars?|EUR|GBP|USD|CHF)\b")
_FREE_OPERANDS = frozenset({Fraction(1), Fraction(100)})
"""Numbers of a calculation with percentages, which no source states."""
_SMALL_WORDS = frozenset(
    WORD.findall(
        "a an the of to in on at by for and or is are was it its they be le la les un une des du de et el los las una "
        "der die das ein eine und im am zum zur mit auf per not no pas nicht y que se more than after before "
        "i my me we our us you your he she his her much many get gets must should can may there here please any some "
        "wie wo wer was wann welche welcher welches wird werden ist sind man ich wir "
        "qui quoi quel quelle quels quelles quand où combien comment est sont faut il je nous sur dans pour "
        "quién qué cuándo dónde cuánto cuánta cuántos cuál cómo es son para por en mi"
    )
)


class DocumentReading(StrictModel):
    """What a model read: the words of the passages, and its answer; null if they do not tell."""

    quote: str | None = None
    answer: str | None = None


class AmountReading(StrictModel):
    """The words of the passages with the numbers of an amount, and its calculation, empty if there is none."""

    price: str | None = None
    rule: str | None = None
    expression: str = ""
    value: float | None = None


class ReadingRequest(StrictModel):
    """What a larger model is asked, and the passages that it reads."""

    question: str
    passages: str
    fewer: str
    """The passages of the second reading."""
    sources: list[Passage]
    open: bool
    """Whether to read for an answer: none was found, or the language is not that of the encoders."""
    amount: bool
    """Whether to read for a calculation: an amount is asked for, and none was computed."""


@tool(effect="pure", label="restricted")
def reading_request(
    question: str, reply: Reply, passages: Sequence[Passage], documents: Sequence[Document] = ()
) -> ReadingRequest:
    """What a larger model is asked after a reply that may not suffice, and the passages that it reads.

    Documents that call themselves superseded, or have a later version, are left out unless the question is about the
    past. Of a question with one open part only this part is asked.
    """
    kept = list(passages) if _PAST.search(question) else current_passages(passages, documents)
    given = [one.answer for one in reply.findings if one.answer is not None]
    open_part = reply.missing[0] if given and len(reply.missing) == 1 else question
    amount = reply.computation is None and _ASKS_AMOUNT.search(question) is not None and not (given and reply.missing)
    return ReadingRequest(
        question=open_part,
        passages=passages_text(kept, MAX_READ),
        fewer=passages_text(kept, MAX_READ_AGAIN),
        sources=list(kept),
        open=bool(reply.missing) or not reply.text or language_of(question) != "en",
        amount=amount,
    )


def current_passages(passages: Sequence[Passage], documents: Sequence[Document]) -> list[Passage]:
    """The passages without those of documents that are superseded; all of them if nothing else is left."""
    names = [one.source for one in documents] or [one.source for one in passages]
    old = older_versions(names) | {one.source for one in documents if _SUPERSEDED.search(one.text[:400])}
    return [one for one in passages if one.source not in old] or list(passages)


def passages_text(passages: Sequence[Passage], most: int) -> str:
    """Passages as a model reads them: those of a document together below its name, in the order of the document."""
    chosen: list[Passage] = []
    size = 0
    for passage in passages:
        size += len(passage.text)
        if chosen and size > most:
            break
        chosen.append(passage)
    lines = []
    for source in dict.fromkeys(one.source for one in chosen):
        lines.append(f"[{_spoken(source)}]")
        own = sorted((one for one in chosen if one.source == source), key=lambda one: one.start)
        lines += [one.text.strip() if "|" in one.text else unwrapped(one.text) for one in own]
    return "\n".join(lines)[: most + 500]


def _spoken(source: str) -> str:
    """The name of a file as words."""
    return source.rpartition("/")[2].rpartition(".")[0].replace("_", " ") or source


class QuotedSentences(StrictModel):
    """The sentences around the quotes of readings, which an encoder reads once more."""

    texts: list[str]


@tool(effect="pure", label="restricted")
def quoted_sentences(request: ReadingRequest, readings: Sequence[DocumentReading]) -> QuotedSentences:
    """The sentences around the quotes of readings that agree."""
    if not _all_agree(readings):
        return QuotedSentences(texts=[])
    cited = [found for one in readings if one.quote and (found := locate(one.quote, request.sources)) is not None]
    return QuotedSentences(texts=list(dict.fromkeys(one.quote for one in cited)))


@tool(effect="pure", label="restricted")
def accept_reading(
    question: str,
    reply: Reply,
    request: ReadingRequest,
    readings: Sequence[DocumentReading] = (),
    amount: AmountReading | None = None,
    spans: Sequence[RankedSpan] = (),
) -> Reply:
    """The reply with what a larger model read, if it passes all checks; else the reply as it was. `spans` are what an
    encoder found in the quoted sentences.
    """
    if amount is not None and (computed := _checked_amount(question, request, amount)) is not None:
        return computed
    if not _all_agree(readings):
        return reply
    made = (_checked_answer(reply, request, one, spans) for one in readings)
    return next((one for one in made if one is not None), reply)


def _all_agree(readings: Sequence[DocumentReading]) -> bool:
    """Whether there are two readings with the same answer."""
    return len(readings) > 1 and _agree(readings[0].answer, readings[1].answer)


def _checked_amount(question: str, request: ReadingRequest, amount: AmountReading) -> Reply | None:
    """The amount of a calculation whose numbers the sources and the question state; None if one is not stated."""
    if amount.price is None:
        return None
    price = locate(amount.price, request.sources)
    if price is None or not _is_about(question, price, request.sources):
        return None
    rule = locate(amount.rule, request.sources) if amount.rule else None
    if rule is not None and not shared_stems(question, rule.quote):
        return None
    quotes = [price] if rule is None else [price, rule]
    # Another sentence counts if it is about something of the question that the price is not about.
    more = shared_stems(question, price.quote)
    about = [one for one in _sentences(request.sources) if shared_stems(question, one) - more]
    stated = _numbers([*(one.quote for one in quotes), *about, question])
    if any(_HALF.search(text) for text in [*(one.quote for one in quotes), *about]):
        stated |= {Fraction(2)}
    try:
        value, used = evaluate(amount.expression), set(operands(amount.expression))
    except (ArithmeticParseError, ZeroDivisionError):
        return None
    if not used & _numbers([price.quote]) or not used <= _with_shares(stated) | _FREE_OPERANDS:
        return None
    discounts = _numbers(text for text in [*(one.quote for one in quotes), *about] if _DISCOUNT.search(text))
    if _DISCOUNT.search(question) and not used & _with_shares(discounts):
        return None
    if value < 0 and _DIFFERENCE.search(question):
        value = -value
    if value <= 0 or len(used) < 2:
        return None
    rounded = format_fraction(Fraction(round(value * 100), 100))
    text = _with_currency(rounded, [one.quote for one in quotes])
    return Reply(
        text=f"{text}.",
        findings=[Finding(question=question, answer=text)],
        citations=list(dict.fromkeys(quotes)),
        computation=f"{amount.expression} = {rounded}",
    )


def _with_shares(numbers: set[Fraction]) -> set[Fraction]:
    """Numbers, and as percentages what they are of one and of a hundred, and what is left."""
    shares = {one / 100 for one in numbers if one <= 100}
    return numbers | shares | {1 - one for one in shares} | {100 - 100 * one for one in shares}


def _with_currency(value: str, quotes: Iterable[str]) -> str:
    """A value with the currency of the first quote that has one."""
    for quote in quotes:
        match = _CURRENCY.search(quote)
        if match is not None:
            whole, point, part = value.partition(".")
            padded = f"{whole}.{part:0<2}" if point else whole
            return f"{match['sign']}{padded}" if match["sign"] else f"{padded} {match['word']}"
    return value


def _checked_answer(
    reply: Reply, request: ReadingRequest, reading: DocumentReading, spans: Sequence[RankedSpan]
) -> Reply | None:
    """The reply with an answer whose words are in its quote, and whose quote is about the question; else None.

    The quote is about the question if it has half of its words, or if the encoder finds the same answer in it.
    """
    answer, question = reading.answer, request.question
    if not answer or not reading.quote or (citation := locate(reading.quote, request.sources)) is None:
        return None
    kind = answer_kind(question) if language_of(question) == "en" else ""
    if not is_of_kind(answer, kind) or not _words(answer) <= _words(citation.quote):
        return None
    if _words(answer) <= _words(question) or not _is_about(question, citation, request.sources):
        return None
    if not _covers_half(question, citation) and not _is_confirmed(question, answer, spans):
        return None
    answer = _with_noun(answer, question, citation.quote)
    if _ASKS_AMOUNT.search(question) and _DIFFERENCE.search(question):
        return None
    findings = [
        Finding(question=one.question, answer=answer) if one.question == question else one for one in reply.findings
    ]
    partial = any(one.answer is not None and one.question != question for one in reply.findings)
    if not partial:
        findings = [Finding(question=question, answer=answer)]
    texts = [answer_sentence(one.question, one.answer) for one in findings if one.answer is not None]
    return Reply(
        text=" ".join(texts),
        findings=findings,
        citations=list(dict.fromkeys([citation, *(reply.citations if partial else [])])),
    )


def _covers_half(question: str, citation: Citation) -> bool:
    """Whether a sentence, with the name of its document, has half of the words of a question, and one by itself."""
    asked = _stems(question)
    own, name = _stems(citation.quote), _stems(_spoken(citation.source))
    return bool(asked & own - name) and 2 * len(asked & (own | name)) >= len(asked)


def _is_confirmed(question: str, answer: str, spans: Sequence[RankedSpan]) -> bool:
    """Whether the encoder, which knows English, finds the answer in a quoted sentence too."""
    return language_of(question) == "en" and any(one.score >= CONFIRMED and _agree(one.answer, answer) for one in spans)


def _with_noun(answer: str, question: str, quote: str) -> str:
    """A bare number with the word before it in the quote, if the question has that word: `tank 3`, not `3`."""
    match = re.search(rf"\b([^\W\d_]+):?\s+{re.escape(answer)}\b", quote) if answer.isdigit() else None
    return f"{match[1]} {answer}" if match is not None and _stems(match[1]) & _stems(question) else answer


def _agree(first: str | None, second: str | None) -> bool:
    """Whether one of two answers has all words of the other."""
    if not first or not second:
        return False
    one, other = _words(first), _words(second)
    return bool(one) and bool(other) and (one <= other or other <= one)


def locate(quote: str, sources: Sequence[Passage]) -> Citation | None:
    """The sentence of the sources around words that may have other white space; None if they are nowhere."""
    words = quote.split()
    if not words:
        return None
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    for source in sources:
        match = pattern.search(source.text)
        if match is not None:
            start, end = surrounding_span(sentence_spans(source.text), *match.span())
            return Citation(
                quote=source.text[start:end], source=source.source, start=source.start + start, end=source.start + end
            )
    return None


def _is_about(question: str, citation: Citation, sources: Sequence[Passage]) -> bool:
    """Whether a sentence, or the name of its document, shares a word with a question, and has the codes in it."""
    codes = [word for word in re.findall(r"\b(?=\w*\d)[\w-]*[^\W\d_][\w-]*", question) if len(word) > 1]
    around = next((one.text for one in sources if one.source == citation.source and citation.quote in one.text), "")
    known = " ".join(one.text for one in sources)
    if any(code in known and code not in around for code in codes):
        return False
    return bool(shared_stems(question, f"{citation.quote} {_spoken(citation.source)}"))


def shared_stems(question: str, text: str) -> set[str]:
    """The beginnings of content words that two texts have in common."""
    return _stems(question) & _stems(text)


def _stems(text: str) -> set[str]:
    return {word[:STEM] for word in content_words(text) - _SMALL_WORDS if len(word) > 2 and not word.isdigit()}


def _words(text: str) -> set[str]:
    """Words and numbers of a text, without small words."""
    return {word for word in content_words(text) if word not in _SMALL_WORDS}


def _sentences(sources: Iterable[Passage]) -> Iterable[str]:
    for source in sources:
        yield from (source.text[start:end] for start, end in sentence_spans(source.text))


def _numbers(texts: Iterable[str]) -> set[Fraction]:
    """The numbers of texts: `12 %` is both 12 and 0.12."""
    found = [number for text in texts for number in find_numbers(text, words=True)]
    return {abs(value) for number in found for value in (number.value, number.plain)}
