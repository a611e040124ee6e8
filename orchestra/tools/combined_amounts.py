"""Combined amounts: what several numbers of the sources give together, without a rate and a quantity.

The forms are: what remains of an amount after a part of it; the sum of the items of an offer or an estimate; the
difference between two versions of a document; and the percentage that one number is of another. The words of the
question decide which amounts are meant. If several fit equally well, there is no result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from orchestra.documents.passages import split_passages
from orchestra.schema.builtin_models import Citation, Document, Passage
from orchestra.text.arithmetic import format_fraction
from orchestra.text.keywords import singular
from orchestra.text.numbers.currencies import DEFAULT_CODES, currency_code
from orchestra.tools.answer_checks import clause_of, is_record, shared_words, weigh_stems, word_stems
from orchestra.tools.answers import split_sentences
from orchestra.tools.table_answers import CURRENCY_SIGNS

ABOUT = 0.25
"""The share of a question's words from which sentences are about it."""
_MONEY = re.compile(
    r"(?P<sign>[£€$])\s?(?P<one>\d+(?:,\d{3})*(?:\.\d+)?)|"
    r"(?P<two>\d+(?:,\d{3})*(?:\.\d+)?)\s?(?P<word>euros?|eur|pounds?|pfund|gbp|libras?|dollars?|usd|francs?|chf)\b",
    re.IGNORECASE,
)
_ASKS_REST = re.compile(
    r"\b(?:still (?:unpaid|owe[ds]?|to pay|to be paid|have to pay|due|open)|unpaid|left to pay|remain(?:s|ing|"
    r"der)?|the rest|"
    r"outstanding|comes? out of|after the (?:deposit|down payment)|reste|encore payer|après l'acompte|"
    r"noch (?:zu )?(?:be)?zahl\w*|restbetrag|queda\w* por pagar|falta\w* por pagar)\b",
    re.IGNORECASE,
)
_IS_PART = re.compile(
    r"\b(?:of which|of (?:it|that|this)|thereof|deposit|down payment|in advance|the rest|acompte|dont|le reste|"
    r"anzahlung|"
    r"davon|der rest|anticipo|el resto)\b",
    re.IGNORECASE,
)
_ASKS_SUM = re.compile(
    r"\b(?:altogether|in total|total|come to|comes to|sum|overall|insgesamt|zusammen|au total|en total)\b",
    re.IGNORECASE,
)
_HAS_ITEMS = re.compile(
    r"\b(?:offer|estimate|quote|quotation|invoice|bill|angebot|kostenvoranschlag|rechnung|devis|facture|presupuesto|"
    r"factura)\w*\b",
    re.IGNORECASE,
)
_TIMES = re.compile(r"(?P<number>\d+)\s+[^\W\d_]+\s+(?:at|à|zu|a)\s+$", re.IGNORECASE)
_ASKS_DIFFERENCE = re.compile(
    r"\bhow (?:much|many) (?:\w+ )?(?:more|less|fewer|higher|lower|cheaper|dearer)\b|"  # prose: ok
    r"\bby how much\b|\bdifference\b",
    re.IGNORECASE,
)
_ASKS_PERCENTAGE = re.compile(
    r"\b(?:what|which) (?:percentage|per ?cent|share|proportion)\b|\bhow many per ?cent\b|\bin per ?cent\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_RATIO = re.compile(
    r"\bof (?P<all>\d+) (?P<after>[^.,;]{3,40}), (?P<part>\d+) (?P<verb>[^.;]+)|"
    r"\b(?P<part2>\d+) (?:out )?of (?:the |all )?(?P<all2>\d+) (?P<rest>[^.;]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CombinedAmount:
    """A value with the expression that gives it, its unit, and the sentences with its numbers."""

    value: Fraction
    expression: str
    unit: str
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class _Amount:
    value: Fraction
    sign: str
    start: int
    end: int


def combine_amounts(
    question: str, sentences: Sequence[Passage], documents: Sequence[Document], older: frozenset[str]
) -> CombinedAmount | None:
    """Returns what several numbers of the sources give together; None if the question has no such form.

    Args:
        question: The question.
        sentences: The sentences nearest to it, in the order of their documents.
        documents: All documents, for a difference between two versions.
        older: The sources that a later version replaces.
    """
    if _ASKS_DIFFERENCE.search(question):
        return _difference(question, documents, older)
    current = [one for one in sentences if one.source not in older and not is_record(one.text)]
    if _ASKS_PERCENTAGE.search(question):
        return _percentage(question, current)
    if _ASKS_REST.search(question):
        return _rest(question, current)
    if _ASKS_SUM.search(question):
        return _sum_of_items(question, current)
    return None


def amounts_of(text: str) -> list[_Amount]:
    """The amounts of money in a text, with their places."""
    return [
        _Amount(
            Fraction((match["one"] or match["two"]).replace(",", "")), money_sign(match), match.start(), match.end()
        )
        for match in _MONEY.finditer(text)
    ]


def money_sign(match: re.Match[str]) -> str:
    """The sign of an amount's currency, or its word."""
    if match["sign"]:
        return match["sign"]
    word = {"pfund": "pounds", "libra": "pounds", "libras": "pounds"}.get(match["word"].casefold(), match["word"])
    code = currency_code(word)
    return CURRENCY_SIGNS.get(DEFAULT_CODES.get(code, code), word.casefold())


def best_amount(question: str, sentences: Sequence[Passage]) -> tuple[_Amount, Passage] | None:
    """The amount of money whose clause and sentence share most words with a question; None if several do."""
    asked = word_stems(question)
    weighed = []
    for sentence in sentences:
        amounts = amounts_of(sentence.text)
        spans = [(one.start, one.end) for one in amounts]
        for at, amount in enumerate(amounts):
            clause = weigh_stems(asked & word_stems(clause_of(sentence.text, spans, at)))
            whole = len(asked & word_stems(sentence.text))
            if clause:
                weighed.append((2 * clause + whole, amount, sentence))
    most = max((weight for weight, _, _ in weighed), default=0)
    best = [(amount, sentence) for weight, amount, sentence in weighed if weight == most]
    return best[0] if len({amount.value for amount, _ in best}) == 1 else None


def _difference(question: str, documents: Sequence[Document], older: frozenset[str]) -> CombinedAmount | None:
    """The difference between the amounts of two versions of a document."""
    parts = {True: list[Passage](), False: list[Passage]()}
    named = [one.source for one in documents if set(_YEAR.findall(one.source)) & set(_YEAR.findall(question))]
    names = {name: _name_words(name) for name in older or named}
    for document in documents:
        is_old = document.source in names
        if is_old or not older or any(_name_words(document.source) & words for words in names.values()):
            parts[is_old] += [one for passage in split_passages([document]) for one in split_sentences(passage)]
    new, old = best_amount(question, parts[False]), best_amount(question, parts[True])
    if new is None or old is None or new[0].sign != old[0].sign:
        return None
    first, second = sorted((new[0].value, old[0].value), reverse=True)
    expression = f"{format_fraction(first)} - {format_fraction(second)}"
    return CombinedAmount(first - second, expression, new[0].sign, (_cite(new[1]), _cite(old[1])))


def _name_words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]{4,}", name.rpartition("/")[2].casefold().rpartition(".")[0]))


def _windows(sentences: Sequence[Passage]) -> Iterator[tuple[Sequence[Passage], str]]:
    """Yields single sentences and pairs of neighbours, with the text that contains them."""
    ordered = sorted(sentences, key=lambda one: (one.source, one.start))
    for size in (1, 2):
        for at in range(len(ordered) - size + 1):
            window = ordered[at : at + size]
            before = ordered[max(0, at - 1) : at]
            if len({one.source for one in window}) == 1:
                around = [one for one in before if one.source == window[0].source]
                yield window, " ".join(one.text for one in [*around, *window])


def _rest(question: str, sentences: Sequence[Passage]) -> CombinedAmount | None:
    """What remains of an amount of which a part is named beside it."""
    best: tuple[float, int, Sequence[Passage], list[_Amount]] | None = None
    for window, around in _windows(sentences):
        text = " ".join(one.text for one in window)
        amounts = amounts_of(text)
        if len(amounts) != 2 or len({one.sign for one in amounts}) > 1 or not _IS_PART.search(text):
            continue
        rank = (shared_words(question, around), -len(window))
        if rank[0] >= ABOUT and amounts[0].value > amounts[1].value and (best is None or rank > best[:2]):
            best = (*rank, window, amounts)
    if best is None:
        return None
    _, _, window, (whole, part) = best
    expression = f"{format_fraction(whole.value)} - {format_fraction(part.value)}"
    return CombinedAmount(whole.value - part.value, expression, whole.sign, tuple(map(_cite, window)))


def _sum_of_items(question: str, sentences: Sequence[Passage]) -> CombinedAmount | None:
    """The sum of the items of an offer or an estimate that one sentence names."""
    fit = [
        (shared, -at, one)
        for at, one in enumerate(sentences)
        if _HAS_ITEMS.search(one.text)
        and len({amount.sign for amount in amounts_of(one.text)}) == 1
        and len(amounts_of(one.text)) > 1
        and (shared := shared_words(question, one.text)) >= ABOUT
    ]
    if not fit:
        return None
    sentence = max(fit, key=lambda one: one[:2])[2]
    terms, total = [], Fraction(0)
    amounts = amounts_of(sentence.text)
    for amount in amounts:
        times = _TIMES.search(sentence.text[: amount.start])
        number = Fraction(times["number"]) if times else Fraction(1)
        total += number * amount.value
        shown = format_fraction(amount.value)
        terms.append(f"{format_fraction(number)} * {shown}" if times else shown)
    return CombinedAmount(total, " + ".join(terms), amounts[0].sign, (_cite(sentence),))


def _percentage(question: str, sentences: Sequence[Passage]) -> CombinedAmount | None:
    """The percentage that one number of a sentence is of another, such as `12 of 80 samples failed`."""
    found = [
        (shared, -at, one, match)
        for at, one in enumerate(sentences)
        if (match := _RATIO.search(one.text)) and (shared := shared_words(question, one.text)) >= 2 * ABOUT
    ]
    if not found:
        return None
    _, _, sentence, match = max(found, key=lambda one: one[:2])
    part, whole = Fraction(match["part"] or match["part2"]), Fraction(match["all"] or match["all2"])
    if not whole or part > whole:
        return None
    expression = f"{format_fraction(part)} / {format_fraction(whole)} * 100"
    return CombinedAmount(part / whole * 100, expression, "%", (_cite(sentence),))


def _cite(sentence: Passage) -> Citation:
    return Citation(quote=sentence.text, source=sentence.source, start=sentence.start, end=sentence.end)


_GROUP_PERCENT: Final = re.compile(
    r"(?P<who>[^.;]*?)\b(?:pay|pays|get|gets|receive|receives|pagan|paga|zahlen|zahlt|erhalten|paient|paie)\s+"
    r"(?:an?\s+|ein\w*\s+|une?\s+)?(?:(?:discount|reduction|rabatt|réduction|descuento)\s+(?:of|von|de|del)\s+)?"
    r"(?:(?P<percent>\d[\d.]*)\s?%|(?P<sign>[£€$])?(?P<amount>\d[\d.]*)\s?(?:euros?|eur|pounds?|pfund)?)"
    r"\s*(?P<kind>less|off|discount|reduction|menos|weniger|de moins|rabatt|ermäßigung|(?=on\b))(?P<scope>[^.;]*)",
    re.IGNORECASE,
)
_SCOPE = re.compile(r"^\s*(?:the\s+)?(?:on|for|auf|für|sur|pour|en)\b(?P<what>.+)$", re.IGNORECASE | re.DOTALL)
_BELOW_AGE = re.compile(r"\b(?:under|younger than|below|unter|moins de|menores de)\s+(?P<age>\d{1,3})\b", re.IGNORECASE)
_ABOVE_AGE = re.compile(r"\b(?:over|older than|above|über|plus de|mayores de)\s+(?P<age>\d{1,3})\b", re.IGNORECASE)
_OWN_AGE = re.compile(
    r"\b(?:i(?:'|’)?m|i am|aged?|he is|she is|who is|ich bin|j'ai|tengo)\s+(?P<one>\d{1,3})\b(?!\s*(?:km|miles|%))|"
    r"\b(?P<two>\d{1,3})[- ]years?[- ]old\b|"
    r"\b(?:client|customer|person|man|woman|member|patient|visitor|student|someone)"  # prose: ok
    r" of (?P<three>\d{1,3})\b",
    re.IGNORECASE,
)
_OR_MORE = re.compile(r"\b(?P<number>\w+) or more\b|\bat least (?P<other>\w+)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction for a group of persons: a percentage, or an amount of money."""

    percent: Fraction | None
    amount: Fraction | None
    sentence: Passage

    def apply(self, price: Fraction) -> tuple[Fraction, str]:
        """Returns the reduced price and the expression, which begins after the price."""
        if self.percent is not None:
            return price * (100 - self.percent) / 100, f" * (100 - {format_fraction(self.percent)}) / 100"
        amount = self.amount or Fraction(0)
        return price - amount, f" - {format_fraction(amount)}"


def reduction_for(
    question: str, sentences: Sequence[Passage], persons: Fraction | None, numbers: dict[str, int]
) -> Reduction | None:
    """Returns the reduction of the group of persons that a question names, by its age, its size or its name.

    Args:
        question: The question.
        sentences: The sentences to search, the nearest one first.
        persons: The number of persons in the question.
        numbers: The values of number words.
    """
    asked = word_stems(question)
    match = _OWN_AGE.search(question)
    age = int(match["one"] or match["two"] or match["three"]) if match else None
    for sentence in sentences:
        text = " ".join(sentence.text.split())
        for found in _GROUP_PERCENT.finditer(text):
            if not _is_of_group(found["who"], asked, age, persons, numbers):
                continue
            scope = _SCOPE.match(found["scope"])
            if scope and not re.search(r"\ball\b", scope["what"]) and not _words(scope["what"]) & _words(question):
                continue
            if re.search(r"\bexcept\b", text) and word_stems(text.partition("except")[2]) & asked:
                continue
            percent = Fraction(found["percent"]) if found["percent"] else None
            amount = Fraction(found["amount"]) if found["amount"] else None
            return Reduction(percent, amount, sentence)
    return None


def _words(text: str) -> frozenset[str]:
    """The words of more than two letters of a text, in the singular."""
    return frozenset(singular(word.casefold()) for word in re.findall(r"[^\W\d_]{3,}", text)) - {"the", "and", "for"}


def _is_of_group(
    who: str, asked: frozenset[str], age: int | None, persons: Fraction | None, numbers: dict[str, int]
) -> bool:
    below, above = _BELOW_AGE.search(who), _ABOVE_AGE.search(who)
    if below or above:
        return age is not None and (
            (below is not None and age < int(below["age"])) or (above is not None and age > int(above["age"]))
        )
    if least := _OR_MORE.search(who):
        word = (least["number"] or least["other"]).casefold()
        number = int(word) if word.isdigit() else numbers.get(word)
        return persons is not None and number is not None and persons >= number
    head = re.split(r"\b(?:of|who|that|which|with|from|de|von|der|du|des)\b", who, maxsplit=1, flags=re.IGNORECASE)[0]
    return bool(word_stems(head) & asked)
