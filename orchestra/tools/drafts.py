"""Drafts: a text that a larger model writes from passages and a computed amount, sentence by sentence checked.

A sentence stays if each of its numbers is in the passages, in the request or computed, and each of its names is in the
passages or the request. If the request is for an amount, one of the sentences that stay must have it. What is dropped
is named; if no sentence stays, there is no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from orchestra.schema.builtin_models import StrictModel
from orchestra.text.numbers.numbers import find_numbers
from orchestra.text.numbers.words import SMALL_NUMBERS
from orchestra.tools.reading import AmountReading, ReadingRequest, accept_reading, shared_stems
from orchestra.tools.replies import Finding, Reply
from orchestra.tools.sentences import sentence_spans
from orchestra.workflows.python.steps import tool

_NAME = re.compile(r"\b[A-ZÀ-ÝŠŽ][\w'’-]*\w|\b\w*\d[\w-]*[^\W\d_]\w*")
_WORD = re.compile(r"\w+")
_COMPUTED = re.compile(
    r"\b(?:amount|total|sum|discount|less|minus|Betrag|Summe|Rabatt|montant|remise|total|importe|descuento)\b",
    re.IGNORECASE,
)
"""An amount that must have been computed. Others may be stated by a source."""
_LENGTH = re.compile(
    rf"\b(?P<count>\d|an?|eine?n?|une?|una?|{'|'.join(SMALL_NUMBERS)})\s+(?:short\s+)?"
    r"(?:sentences?|lines?|Sätze|Satz|Sätzen|Zeilen?|phrases?|lignes?|frases?|líneas?)\b",
    re.IGNORECASE,
)
MAX_SENTENCES = 12
"""Sentences of a draft, if the request does not say how many."""
FORMALITIES = 2
"""Sentences beyond those that are asked for: a greeting and an end."""
MIN_WORDS = 4
"""A text of shorter sentences only, such as a greeting, is no draft."""
MIN_SHARED = 2
"""Words that a sentence with an amount shares with a sentence of the passages about the same."""
_AMOUNT = re.compile(
    r"\b(?:amount|total|price|cost|costs|fee|rent|deposit|discount|refund|sum|Preis|Betrag|Kosten|Summe|prix|montant|"
    r"coût|precio|importe|total)\b",
    re.IGNORECASE,
)
_FORMS = frozenset(
    _WORD.findall(
        "dear hello hi kind regards best sincerely yours thank thanks please mr mrs ms dr sir madam we you i our your "
        "the this if as in on at for with from to a an it is are that these those they he she there here after before "
        "when once however also and but or so then since because all any each sehr geehrte geehrter liebe lieber guten "
        "tag mit freundlichen grüßen wir sie ihr ihre der die das bonjour madame monsieur cordialement nous vous le la "
        "les votre estimado estimada hola saludos gracias usted su el los las"
    )
)
"""Words with a capital at the beginning of a sentence or a letter, which are no names."""


class DraftFacts(StrictModel):
    """What a draft may state: passages and the computed amount, as a text for the model."""

    text: str
    computed: str | None
    """The amount, if one was computed and passed the checks."""


@tool(effect="pure", label="restricted")
def draft_facts(request: str, reading: ReadingRequest, amount: AmountReading | None = None) -> DraftFacts:
    """The facts of a draft: the passages, and an amount whose calculation passed the checks."""
    nothing = Reply(text=None, missing=[request])
    checked = accept_reading.function(request, nothing, reading, [], amount)
    computed = checked.text.rstrip(".") if checked.text else None
    line = f"\nComputed: {checked.computation}, that is {computed}" if computed else ""
    return DraftFacts(text=f"{reading.passages}{line}", computed=computed)


@tool(effect="pure", label="restricted")
def check_draft(request: str, facts: DraftFacts, text: str) -> Reply:
    """The sentences of a draft whose numbers and names the facts or the request have; no text if none is left."""
    known = f"{facts.text}\n{request}"
    kept = [sentence for sentence in _sentences(text) if _is_supported(sentence, known)]
    if _AMOUNT.search(request) and not any(_states_amount(request, sentence, facts) for sentence in kept):
        return Reply(text=None, missing=[request])
    if not any(len(_WORD.findall(sentence)) > MIN_WORDS for sentence in kept):
        return Reply(text=None, missing=[request])
    if len(kept) > _length(request) + FORMALITIES:
        return Reply(text=None, missing=[request])
    draft = " ".join(kept)
    dropped = [sentence for sentence in _sentences(text) if sentence not in kept]
    return Reply(text=draft, findings=[Finding(question=request, answer=draft)], missing=dropped)


def _length(request: str) -> int:
    """The number of sentences or lines that a request asks for, the largest one; many if it does not say."""
    match = _LENGTH.search(request)
    if match is None:
        return MAX_SENTENCES
    count = match["count"].casefold()
    return int(count) if count.isdigit() else SMALL_NUMBERS.get(count, 1)


def _sentences(text: str) -> Iterator[str]:
    yield from (" ".join(text[start:end].split()) for start, end in sentence_spans(text))


def _is_supported(sentence: str, known: str) -> bool:
    """Whether the numbers and names of a sentence are known."""
    numbers = _values([known])
    if not all({number.value, number.plain} & numbers for number in find_numbers(sentence)):
        return False
    words = {word.casefold() for word in _WORD.findall(known)}
    names = (part for name in _NAME.findall(sentence) for part in _WORD.findall(name.casefold()))
    return all(part in words or part in _FORMS for part in names)


def _states_amount(request: str, sentence: str, facts: DraftFacts) -> bool:
    """Whether a sentence has the computed amount; without one, a number of a sentence about the same as it."""
    values = _values([sentence])
    if facts.computed is None and _COMPUTED.search(request):
        return False
    if facts.computed is not None:
        return bool(_values([facts.computed]) & values)
    return any(
        values & _values([other]) and len(shared_stems(sentence, other)) >= MIN_SHARED
        for other in _sentences(facts.text)
    )


def _values(texts: Sequence[str]) -> set[Fraction]:
    return {value for text in texts for number in find_numbers(text) for value in (number.value, number.plain)}
