"""Document choice: which documents a request is about, and what it asks of them: labels, fields, or sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from orchestra.documents.passages import split_passages
from orchestra.schema.builtin_models import Answer, Citation, Document, Passage, StrictModel
from orchestra.text.keywords import content_words
from orchestra.text.numbers.words import SMALL_NUMBERS
from orchestra.tools.answer_checks import nearest_amount, shared_words, word_stems
from orchestra.tools.answers import document_title, split_sentences
from orchestra.tools.question_kinds import AnswerKind, spans_of_kind
from orchestra.tools.replies import Finding, Reply, capitalize
from orchestra.workflows.python.steps import tool

_SUBJECT_OF = re.compile(
    r"\b(?:summar\w+|sum up|recap|condense|overview|gist)\b(?P<subject>.+?)(?:\s+in \w+ (?:sentences?|lines?)\b.*)?$",
    re.IGNORECASE | re.DOTALL,
)
_HEADER = re.compile(
    r"(?:From|To|Cc|Date|Subject|MIME-Version|Content-[\w-]+|Von|An|Betreff|Message-ID)\s*:", re.IGNORECASE
)
"""A line of a mail's header."""
MIN_CLOSENESS = 0.24
"""The closeness from which a document is what a request is about."""
MAX_QUERY = 1_500
"""Characters of a document that represent all of it."""
DEFAULT_SENTENCES = 3
_SENTENCE_COUNT = re.compile(
    r"\b(?P<count>\d|one|two|three|four|five|six|zwei|drei|deux|trois|dos|tres)\b(?:\s+(?:or|to|bis|ou|o)\s+(?P<most>\w+))?\s+"
    r"(?:short |brief |complete )?(?:sentences?|lines?|sätzen?|phrases?|frases?)\b",
    re.IGNORECASE,
)
_COUNT_WORDS = {**SMALL_NUMBERS, "zwei": 2, "drei": 3, "deux": 2, "trois": 3, "dos": 2, "tres": 3}
_LABELS = re.compile(r"(?:\b(?:an?|the)\s+)?(?P<label>[\w-]+(?:\s+(?:of|for)\s+[\w-]+)?)", re.IGNORECASE)
_FIELDS = re.compile(
    r"(?:extract|pull out|read out|fill (?:in|out)|get|list)\s+(?:the\s+|all\s+)?(?P<fields>.+?)\s+(?:from|"
    r"out of|of|in|for)\s+(?P<rest>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_TRAILING_FIELDS = re.compile(r":\s*(?P<fields>[^:]+?)\.?\s*$", re.DOTALL)
_SEPARATOR = re.compile(r"\s*(?:,\s*(?:and\s+)?|;\s*|\band\b\s*)(?:the\s+)?", re.IGNORECASE)


class ChosenDocuments(StrictModel):
    """The documents that a request is about, the nearest one first."""

    documents: list[Document]
    scores: list[float]


@tool(effect="pure", label="restricted")
def choose_documents(
    request: str, documents: Sequence[Document], passages: Sequence[Passage], scores: Sequence[float], top: int = 1
) -> ChosenDocuments:
    """The documents nearest to a request by their passages, and by the words of their names and titles."""
    asked = content_words(request)
    weighed = []
    for number, document in enumerate(documents):
        near = sorted(
            (score for passage, score in zip(passages, scores, strict=True) if passage.source == document.source),
            reverse=True,
        )
        if not near:
            continue
        name = content_words(re.sub(r"[_.-]+", " ", document.source)) | content_words(document_title(document))
        shared = len({word for word in asked if any(_same(word, other) for other in name)})
        weight = 0.65 * near[0] + 0.35 * (near[1] if len(near) > 1 else near[0]) + 0.12 * min(3, shared)
        weighed.append((weight, -number, document))
    best = [
        (weight, document)
        for weight, _, document in sorted(weighed, key=lambda one: (-one[0], -one[1]))
        if weight >= MIN_CLOSENESS
    ]
    best = [(weight, document) for weight, document in best if _is_of_named_kind(request, document)]
    best = [(weight, document) for weight, document in best if not _lacks_subject(request, document)]
    if top == 2 and best:
        best = [best[0], *sorted(best[1:], key=lambda one: -(one[0] + 0.25 * _share_name(best[0][1], one[1])))]
    if len(documents) == 1:
        best = [(1.0, documents[0])]
    return ChosenDocuments(
        documents=[document for _, document in best[:top]], scores=[round(weight, 6) for weight, _ in best[:top]]
    )


_GENERIC = word_stems(
    "summary summarise summarize recap overview condense gist give make write provide sentence sentences line lines "
    "short brief letter mail email message document minutes report note notice text page file main point points "
    "key please extract list fields compare difference changed order complaint enquiry invoice résumé résume fasse "
    "zusammen satz phrases frases one two three four five zwei drei deux trois dos tres"
)
"""Words of a request that are not about the matter of a document."""


def _lacks_subject(request: str, document: Document) -> bool:
    """Whether a summary is about something that a document does not mention: it has none of the words after `of`,
    `about` or `from`.
    """
    match = _SUBJECT_OF.search(request)
    if match is None:
        return False
    stems = word_stems(match["subject"]) - _GENERIC
    return bool(stems) and not stems & word_stems(f"{document.source.replace('_', ' ')} {document.text}")


def _share_name(one: Document, other: Document) -> bool:
    """Whether the names of two documents share a word, as those of two versions do."""
    first, second = (
        content_words(re.sub(r"[\W_\d]+", " ", document.source.rpartition(".")[0])) for document in (one, other)
    )
    return bool(first & second)


_KINDS = (
    (r"\b(?:letters?|brief|lettre|carta)\b", r"\bletter\b|\bdear\b|\bbrief\b"),
    (r"\b(?:e-?mails?|mails?|messages?)\b", r"\be?-?mail\b|^from:|\.eml|\bdear\b|\bhello\b|\bregards\b"),
    (r"\b(?:minutes|protokoll\w*|compte rendu|acta)\b", r"\bminutes\b|\bmeeting\b|\bprotokoll|\bpresent:"),
    (r"\b(?:contract|agreement)\b", r"\bcontract\b|\bagreement\b|\bterms\b"),
    (r"\b(?:incident|accident) report\b", r"\breport\b"),
)
"""Kinds of documents that a request may name, and how such documents show themselves."""


def _is_of_named_kind(request: str, document: Document) -> bool:
    """Whether a document is of the kind that the request names, such as a letter; true if it names none."""
    shown = f"{document.source.replace('_', ' ')}\n{document.text[:600]}\n{document.text[-200:]}"
    return all(
        re.search(signs, shown, re.IGNORECASE | re.MULTILINE) is not None
        for named, signs in _KINDS
        if re.search(named, request, re.IGNORECASE)
    )


def _same(one: str, other: str) -> bool:
    return one == other or (len(one) > 4 and len(other) > 4 and one[:5] == other[:5])


class Sentences(StrictModel):
    """The sentences of documents, and a text that represents the documents."""

    sentences: list[Passage]
    texts: list[str]
    whole: str


@tool(effect="pure", label="restricted")
def document_sentences(documents: Sequence[Document]) -> Sentences:
    """The sentences of documents in order, without headings, and the beginning of their text."""
    sentences = [
        sentence
        for passage in split_passages(documents)
        for sentence in split_sentences(passage)
        if not _HEADER.match(sentence.text) and len(sentence.text.split()) > 3
    ]
    whole = "\n".join(document.text for document in documents)[:MAX_QUERY]
    return Sentences(sentences=sentences, texts=[sentence.text for sentence in sentences], whole=whole)


@tool(effect="pure", label="restricted")
def compose_summary(
    request: str, sentences: Sequence[Passage], central: Sequence[float], topical: Sequence[float]
) -> Reply:
    """The most central sentences of a document that fit a request, in their order, without repetition."""
    if not sentences:
        return Reply(text=None, findings=[Finding(question=request, answer=None)], missing=[request])
    most = sentence_count(request)
    words = [content_words(sentence.text) for sentence in sentences]
    chosen: list[int] = []
    left = set(range(len(sentences)))
    while left and len(chosen) < most:
        best = max(
            left,
            key=lambda at: (
                0.6 * central[at]
                + 0.5 * topical[at]
                + _figures(sentences[at].text)
                + _topic(request, sentences[at].text)
                + 0.1 * (1 - at / len(sentences))
                - _overlap(words, at, chosen),
                -at,
            ),
        )
        chosen.append(best)
        left.remove(best)
    kept = [sentences[at] for at in sorted(chosen)]
    return Reply(
        text=capitalize(" ".join(_clean(sentence.text) for sentence in kept)),
        findings=[Finding(question=request, answer=_clean(sentence.text)) for sentence in kept],
        citations=[_cite(sentence) for sentence in kept],
    )


def _figures(text: str) -> float:
    """A small weight for sentences with figures and names, which summaries need."""
    return 0.04 * min(3, len(re.findall(r"\d+", text)))


_ABOUT_MONEY = re.compile(
    r"\b(?:payments?|pay|prices?|costs?|fees?|paiement|prix|tarifs?|zahlung\w*|preise?|kosten|gebühren|pago|precios?)\b",
    re.IGNORECASE,
)
_HAS_MONEY = re.compile(r"[£€$]\s?\d|\d\s?(?:euros?|pounds?|pfund|eur|gbp)\b", re.IGNORECASE)


def _topic(request: str, text: str) -> float:
    """A weight for sentences with words of the request, and for those with amounts if it is about payments."""
    about_money = _ABOUT_MONEY.search(request) is not None and _HAS_MONEY.search(text) is not None
    return 0.2 * shared_words(request, text) + (0.4 if about_money else 0.0)


def _overlap(words: Sequence[frozenset[str]], at: int, chosen: Sequence[int]) -> float:
    own = words[at]
    return 0.6 * max((len(own & words[other]) / max(1, len(own)) for other in chosen), default=0.0)


def sentence_count(request: str) -> int:
    """The number of sentences that a request wants; a default without one."""
    match = _SENTENCE_COUNT.search(request)
    if match is None:
        return DEFAULT_SENTENCES
    word = (match["most"] or match["count"]).casefold()
    word = word if word.isdigit() or word in _COUNT_WORDS else match["count"].casefold()
    return int(word) if word.isdigit() else _COUNT_WORDS.get(word, DEFAULT_SENTENCES)


def _clean(text: str) -> str:
    return " ".join(re.sub(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+", "", text).split())


def _cite(passage: Passage) -> Citation:
    return Citation(quote=passage.text, source=passage.source, start=passage.start, end=passage.end)


# Labels


class Labels(StrictModel):
    """The labels that a request names, and a sentence for each by which it is compared."""

    labels: list[str]
    texts: list[str]


@tool(effect="pure", label="restricted")
def stated_labels(request: str) -> Labels:
    """The labels that a request offers, such as `an order, a complaint or a booking`."""
    found = [label for label in _labels_of(request) if label.casefold() not in ("both", "either", "else", "other")]
    return Labels(
        labels=found,
        texts=[f"This is {_article(label)} {label}: a message with {_article(label)} {label}." for label in found],
    )


_LABEL_LIST = re.compile(
    r"(?P<list>(?:an?|the)\s+[\w-]+(?:\s+of\s+[\w-]+)?(?:\s*,\s*(?:an?\s+|the\s+)?[\w-]+(?:\s+of\s+[\w-]+)?)*\s*,?\s+or\s+(?:an?\s+|the\s+)?[\w-]+(?:\s+of\s+[\w-]+)?)",
    re.IGNORECASE,
)
_LABEL_AFTER = re.compile(
    r"(?:into|as|between|one of|among|labels?|categories|classes)\s*:?\s*(?P<list>[^.?!]+)", re.IGNORECASE
)


def _labels_of(request: str) -> list[str]:
    match = _LABEL_LIST.search(request) or _LABEL_AFTER.search(request)
    if match is None:
        return []
    parts = re.split(r"\s*,\s*(?:or\s+|and\s+)?|\s+(?:or|and)\s+", match["list"])
    return [re.sub(r"^(?:an?|the)\s+", "", part.strip(), flags=re.IGNORECASE) for part in parts if part.strip()]


def _article(label: str) -> str:
    return "an" if label[:1].casefold() in "aeiou" else "a"


@tool(effect="pure", label="restricted")
def choose_label(request: str, labels: Sequence[str], scores: Sequence[float], documents: Sequence[Document]) -> Reply:
    """The label nearest to a document; no text without labels or a document."""
    if not labels or not documents:
        return Reply(text=None, findings=[Finding(question=request, answer=None)], missing=[request])
    best = max(range(len(labels)), key=lambda at: (scores[at] + _mentions(labels[at], documents[0].text), -at))
    return Reply(
        text=f"{_article(labels[best]).capitalize()} {labels[best]} ({documents[0].source}).",
        findings=[Finding(question=documents[0].source, answer=labels[best])],
    )


_CUES = {
    "complaint": r"\b(?:complain\w*|not correct|incorrect|wrong|mistake|unhappy|disappointed|unacceptable|broken|"
    r"faulty|refund|late|delay\w*|waited|damaged|overcharged|sorry)\b",
    "order": r"\b(?:order|please (?:send|deliver|supply)|we need|quantity|deliver)\b",
    "enquiry": r"\b(?:would like|could you|do you|is it possible|interested|offer|quote|available|how much|\?)",
    "inquiry": r"\b(?:would like|could you|do you|is it possible|interested|offer|quote|available|how much|\?)",
    "application": r"\b(?:apply|applying|position|cv|curriculum|vacancy|job)\b",
    "invoice": r"\b(?:invoice no|amount due|payable|vat|total due)\b",
    "cancellation": r"\b(?:cancel\w*|withdraw|no longer need)\b",
    "booking": r"\b(?:book|booking|reserve|reservation)\b",
}
"""Words that are typical of kinds of messages."""


def _mentions(label: str, text: str) -> float:
    """A weight for words in a text that are typical of a label."""
    pattern = next((cues for name, cues in _CUES.items() if name in label.casefold()), None)
    if pattern is None:
        return 0.1 if re.search(rf"\b{re.escape(label)}\b", text, re.IGNORECASE) else 0.0
    return 0.08 * min(6, len(re.findall(pattern, text, re.IGNORECASE)))


# Fields


@tool(effect="pure", label="restricted")
def stated_fields(request: str) -> list[str]:
    """The names of the fields that a request asks to extract; none if it names none."""
    match = _FIELDS.search(request)
    after = _TRAILING_FIELDS.search(request)
    text = (
        after["fields"]
        if after is not None and len(after["fields"].split()) <= 24
        else match["fields"]
        if match
        else ""
    )
    parts = [part.strip(" .") for part in _SEPARATOR.split(text)]
    return [re.sub(r"^(?:the|a|an)\s+", "", part) for part in parts if part and len(part.split()) <= 6][:10]


@tool(effect="pure", label="restricted")
def field_questions(request: str, fields: Sequence[str]) -> list[str]:
    """A question for each field, with what the request says that they are of."""
    match = _FIELDS.search(request)
    of = re.split(r"\s+(?:from|in|out of)\s+", match["rest"].strip(" ."))[0] if match else ""
    after = f" of {of}" if of and len(of.split()) <= 6 and " of " in (match[0] if match else "") else ""
    return [
        f"What is the {field}{after}?" if not re.match(r"(?i)(?:who|what|when|where|how)\b", field) else f"{field}?"
        for field in fields
    ]


@tool(effect="pure", label="restricted")
def join_fields(
    request: str, fields: Sequence[str], answers: Sequence[Answer], documents: Sequence[Document] = ()
) -> Reply:
    """One reply with a line for each field that was found; the others are named first. Sender, recipient and subject of
    a mail are those of its header.
    """
    answers = [
        _header_field(field, documents) or typed_field(field, answer, documents)
        for field, answer in zip(fields, answers, strict=True)
    ]
    findings = [Finding(question=field, answer=answer.text) for field, answer in zip(fields, answers, strict=True)]
    lines = [f"{capitalize(one.question)}: {one.answer}" for one in findings if one.answer is not None]
    missing = [one.question for one in findings if one.answer is None]
    if lines and missing:
        lines.insert(0, f"Not found: {', '.join(missing)}.")
    return Reply(
        text="\n".join(lines) or None,
        findings=findings or [Finding(question=request, answer=None)],
        citations=list(dict.fromkeys(citation for answer in answers for citation in answer.citations)),
        missing=[one.question for one in findings if one.answer is None] or ([] if findings else [request]),
    )


_HEADER_END = re.compile(r"\A(?:[A-Z][\w-]*:.*\n(?:[ \t]+.*\n)*)+\s*\n")
"""The header of a mail."""
_TYPED_FIELDS: Final[tuple[tuple[AnswerKind, re.Pattern[str]], ...]] = (
    ("phone", re.compile(r"\b(?:tele)?phone\b|\bmobile\b|\btelefon|\btéléphone|\bteléfono", re.IGNORECASE)),
    ("date", re.compile(r"^(?:the )?(?:date|datum|fecha)\b|\b(?:day|date)$", re.IGNORECASE)),
    ("time", re.compile(r"\b(?:time|uhrzeit|heure|hora)$", re.IGNORECASE)),
    ("money", re.compile(r"\b(?:rent|price|fee|cost|amount|total|salary|deposit|miete|preis|prix|precio)$", re.I)),
)
_NUMBER_OF = re.compile(r"^number of (?P<what>[^\W\d_]+)", re.IGNORECASE)


def typed_field(field: str, answer: Answer, documents: Sequence[Document]) -> Answer:
    """The answer for a field, if it has the form that the name of the field requires: a telephone number, a date, a
    time, an amount of money or a number of things.

    Else the value of that form in the document whose words are nearest to the field; the last telephone number, which
    is below the name; or the first date after the header of a mail.
    """
    counted = _NUMBER_OF.match(field)
    kind: AnswerKind = next((kind for kind, pattern in _TYPED_FIELDS if pattern.search(field)), "")
    if not documents or not (kind or counted):
        return answer
    document = documents[0]
    header = _HEADER_END.match(document.text)
    start = header.end() if header else 0
    body = document.text[start:]
    if counted:
        stem = re.escape(counted["what"].casefold()[:5])
        counts = re.finditer(rf"(?P<number>\d+)\s+(?:\w+\s+)?{stem}", body, re.IGNORECASE)
        spans = [match.span("number") for match in counts]
    else:
        if answer.text is not None and spans_of_kind(answer.text, kind):
            return answer
        spans = spans_of_kind(body, kind)
    if not spans:
        return answer if counted else Answer(text=None)
    if kind == "phone":
        chosen = spans[-1]
    elif kind == "date" or counted:
        chosen = spans[0]
    else:
        named = nearest_amount(field, body, spans)
        if named is None:
            return answer
        chosen = named
    quote = Citation(quote=body[slice(*chosen)], source=document.source, start=start + chosen[0], end=start + chosen[1])
    return Answer(text=quote.quote, citations=[quote])


_HEADER_FIELDS = {
    "From": re.compile(r"sender|from|author|writer|who wrote.*|absender|expéditeur|remitente", re.IGNORECASE),
    "To": re.compile(r"recipient|addressee|empfänger", re.IGNORECASE),
    "Subject": re.compile(r"subject|betreff|objet|asunto", re.IGNORECASE),
}


def _header_field(field: str, documents: Sequence[Document]) -> Answer | None:
    """The value of a mail's header that a field names; None for other fields and documents."""
    name = next((name for name, pattern in _HEADER_FIELDS.items() if pattern.fullmatch(field)), None)
    if name is None or not documents:
        return None
    match = re.search(rf"^{name}:\s*(?P<value>.+?)(?:\s*<[^>]*>)?\s*$", documents[0].text[:1000], re.MULTILINE)
    if match is None:
        return None
    quote = Citation(quote=match[0], source=documents[0].source, start=match.start(), end=match.end())
    return Answer(text=match["value"], citations=[quote])


# Comparisons

_ABOUT_ITSELF = re.compile(
    r"\b(?:replaces?|replaced by|supersedes?|superseded|valid from|in force|version)\b", re.IGNORECASE
)
"""A sentence about the document, and not about its matter."""


@tool(effect="pure", label="restricted")
def compare_passages(
    request: str, documents: Sequence[Document], sentences: Sequence[Passage], scores: Sequence[float], each: int = 3
) -> Reply:
    """The sentences of two documents that are nearest to a request, one document after the other."""
    lines, citations, findings = [], list[Citation](), []
    for document in documents[:2]:
        own = sorted(
            (
                (score, -at, sentence)
                for at, (sentence, score) in enumerate(zip(sentences, scores, strict=True))
                if sentence.source == document.source and not _ABOUT_ITSELF.search(sentence.text)
            ),
            key=lambda one: (-one[0], -one[1]),
        )
        best = [sentence for score, _, sentence in own[:each] if score >= max(0.3, own[0][0] - 0.2)]
        if best:
            text = " ".join(_clean(sentence.text) for sentence in sorted(best, key=lambda sentence: sentence.start))
            lines.append(f"{document.source}: {text}")
            findings.append(Finding(question=document.source, answer=text))
            citations += [_cite(sentence) for sentence in best]
    if len(lines) < 2:
        return Reply(text=None, findings=[Finding(question=request, answer=None)], missing=[request])
    return Reply(text="\n".join(lines), findings=findings, citations=citations)
