"""Computation: sums over numbers of a question and of the sources, such as a rate times a quantity.

Every factor is a number of the question, or is part of a sentence or a cell that is cited. The forms are: a rate per
unit times a quantity of that unit, also above a quantity that is free or has one price; a percentage of an amount per
unit, with its limit; the price of a named article with a discount, or in instalments; and quantities of named articles
at their prices. Other requests have no computation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from orchestra.documents.passages import split_passages
from orchestra.schema.builtin_models import Cell, Citation, Document, Passage, Table
from orchestra.text.arithmetic import format_fraction
from orchestra.text.keywords import singular
from orchestra.text.numbers.currencies import DEFAULT_CODES, currency_code
from orchestra.text.numbers.words import SMALL_NUMBERS
from orchestra.tools.answer_checks import shared_words
from orchestra.tools.answers import split_sentences
from orchestra.tools.combined_amounts import best_amount, combine_amounts, reduction_for
from orchestra.tools.date_arithmetic import compute_deadline
from orchestra.tools.replies import Finding, Reply, language_of
from orchestra.tools.table_answers import CURRENCY_SIGNS, all_tables, two_decimals, with_unit
from orchestra.workflows.python.steps import tool

NEAR = 0.33
"""The closeness from which a sentence with a rate is about a question."""
_NUMBER_WORDS: Final = {**SMALL_NUMBERS, "dozen": 12}
_NUM = rf"(?:\d[\d,]*(?:\.\d+)?|\b(?:{'|'.join(_NUMBER_WORDS)})\b)"
_CURRENCY_WORD = r"euros?|eur|pounds?|gbp|dollars?|usd|francs?|chf|pence|cents?|p"
_QUANTITY = re.compile(
    rf"(?<![£€$\d.,])(?P<number>{_NUM})[\s-]+(?:(?:more|full|whole|extra|of)\s+)?(?P<unit>[^\W\d_]+)", re.IGNORECASE
)
_MONEY = re.compile(
    rf"(?P<sign>[£€$])\s?(?P<one>\d[\d,]*(?:\.\d+)?)|(?P<two>\d[\d,]*(?:\.\d+)?)\s?(?P<word>{_CURRENCY_WORD})\b",
    re.IGNORECASE,
)
_PER = r"(?:per|for (?:each|every)|each|a|an|/|every|pro|par|por)"
_RATE = re.compile(
    rf"(?:(?P<sign>[£€$])\s?(?P<one>\d[\d,]*(?:\.\d+)?)|(?P<two>\d[\d,]*(?:\.\d+)?)\s?(?P<word>{_CURRENCY_WORD}))"
    rf"(?:\s*{_PER}|(?:\s+[^\W\d]+){{1,3}}\s+(?:per|for (?:each|every)))\s+"
    r"(?:(?:started|additional|further|full|working|calendar|driven|extra|single|other)\s+)*(?P<unit>[^\W\d_]+)",
    re.IGNORECASE,
)
_SUM = r"(?P<{0}>\d[\d,]*(?:\.\d+)?)"
_BASE_AND_FURTHER = re.compile(
    rf"(?:within|up to|"
    rf"(?:for )?the first)\s+(?P<limit>{_NUM})\s*(?P<unit>[^\W\d_]+)[^.;]{{0,40}}?[£€$]\s?{_SUM.format('base')}"
    rf"[^.]{{0,60}}?(?:each|every|per)\s+(?:further|additional|extra)\s+[^\W\d_]+[^.£€$]{{0,30}}?(?P<sign>[£€$])\s?{_SUM.format('further')}",
    re.IGNORECASE,
)
_BEYOND = re.compile(
    rf"(?P<sign>[£€$])\s?{_SUM.format('further')}\s+(?:per|for each|for every|a)\s+[^\W\d_]+\s+(?:beyond|"
    rf"above|over|after|from)\s+"
    rf"(?:the first\s+)?(?P<limit>{_NUM})\s*(?P<unit>[^\W\d_]+)",
    re.IGNORECASE,
)
_GROUP = re.compile(
    rf"[£€$]\s?(?P<price>\d[\d,]*(?:\.\d+)?)\s+(?:\w+\s+)?for groups of\s+(?:at least\s+)?(?P<least>{_NUM})",
    re.IGNORECASE,
)
_PARTY = re.compile(rf"\b(?:party|group|team|family|class) of (?P<number>{_NUM})", re.IGNORECASE)
_PERCENT_RATE = re.compile(
    rf"(?P<percent>\d[\d.]*)\s?(?:%|"
    rf"per ?cent)\s+of\s+(?:the\s+)?(?P<base>[\w ]{{3,30}}?)\s+{_PER}\s+(?:(?:started|full)\s+)?(?P<unit>[^\W\d_]+)",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"at most (?P<percent>\d[\d.]*)\s?(?:%|per ?cent)|(?:maximum|"
    r"up to a maximum) of (?P<other>\d[\d.]*)\s?(?:%|per ?cent)",
    re.IGNORECASE,
)
_ASKS_AMOUNT = re.compile(
    r"\b(?:how much|how many|what)\b.*\b(?:costs?|pay|paid|charged?|price|fees?|owe|get|due|penalty|fine|"
    r"bill|money|back|total|"
    r"refund\w*|reimburse\w*|rent|amount|worth|take|be)\b|\bhow much\b|\bcombien\b|\bcuánto\b|\bwie ?viel\b|"
    r"\bwas kostet\b|\bper ?cent(?:age)?\b",
    re.IGNORECASE | re.DOTALL,
)
_DISCOUNT = re.compile(r"\b(?:discount\w*|reduction|reduced|rebate|off|less|after)\b", re.IGNORECASE)
_ASKS_DISCOUNT = re.compile(
    r"\b(?:what|which|how much|how high|how big)\b[^?]{0,20}\b(?:discount|reduction|rebate)\b", re.IGNORECASE
)
_PERCENT_OF_PRICE = re.compile(
    r"\bcosts\s+(?P<percent>\d[\d.]*)\s?(?:%|per ?cent)\s+of\s+(?:the\s+)?(?:rent|price|fee)\b", re.IGNORECASE
)
_PERCENT = re.compile(r"(?P<percent>\d[\d.]*)\s?(?:%|per ?cent)", re.IGNORECASE)
_INSTALMENTS = re.compile(
    rf"\b(?:in|of)\s+(?P<count>{_NUM})\s+(?:\w+\s+){{0,2}}(?:instalments?|installments?)\b", re.IGNORECASE
)
_UNIT_FORMS: Final = {
    **dict.fromkeys(("km", "kilometre", "kilometer", "kms"), "km"),
    **dict.fromkeys(("h", "hr", "hrs", "hour"), "hour"),
    **dict.fromkeys(("person", "people", "head", "visitor", "guest", "participant"), "person"),
    **dict.fromkeys(("litre", "liter", "l"), "litre"),
    **dict.fromkeys(("min", "minute"), "minute"),
}


@dataclass(frozen=True, slots=True)
class _Computed:
    value: Fraction
    expression: str
    sign: str
    citations: tuple[Citation, ...] = ()
    cells: tuple[Cell, ...] = ()


@tool(effect="pure", label="restricted")
def compute_amount(
    question: str,
    sentences: Sequence[Passage],
    scores: Sequence[float],
    documents: Sequence[Document] = (),
    tables: Sequence[Table] = (),
) -> Reply:
    """An amount computed from numbers of the question and of the sources, with a citation for each; no text if the
    question has no such form.
    """
    names = [one.source for one in documents]
    dated = set() if _YEAR.search(question) else older_versions(names)
    weighed = [score - (0.3 if one.source in dated else 0.0) for one, score in zip(sentences, scores, strict=True)]
    if language_of(question) != "en":
        weighed = [max(score, shared_words(question, one.text)) for one, score in zip(sentences, weighed, strict=True)]
    found = _compute(question, sentences, weighed, list(all_tables(tables, documents)), documents)
    if found is None and (
        combined := combine_amounts(question, sentences, documents, frozenset(older_versions(names)))
    ):
        found = _Computed(combined.value, combined.expression, combined.unit, combined.citations)
    if found is None:
        return _deadline(question, sentences, weighed)
    value = format_fraction(Fraction(round(found.value * 100), 100))
    money = found.sign in CURRENCY_SIGNS.values()
    amount = f"{found.sign}{two_decimals(value)}" if money else with_unit(value, found.sign)
    return Reply(
        text=f"{amount}.",
        findings=[Finding(question=question, answer=amount)],
        citations=list(found.citations),
        cells=list(found.cells),
        computation=f"{found.expression} = {value}",
    )


def _deadline(question: str, sentences: Sequence[Passage], scores: Sequence[float]) -> Reply:
    """The day that a duration of the sources makes of a day of the question; no text if there is none."""
    deadline = compute_deadline(question, sentences, scores, NEAR)
    if deadline is None:
        return Reply(text=None)
    return Reply(
        text=f"{deadline.day}.",
        findings=[Finding(question=question, answer=deadline.day)],
        citations=[_cite(deadline.sentence)],
        computation=f"{deadline.expression} = {deadline.day}",
    )


def older_versions(names: Sequence[str]) -> set[str]:
    """The names with a year that share a word with one of a later year, or without a year."""

    def words(name: str) -> set[str]:
        return set(re.findall(r"[^\W\d_]{4,}", name.rpartition("/")[2].casefold().rpartition(".")[0]))

    def year(name: str) -> int:
        found = _YEAR.search(name.rpartition("/")[2])
        return int(found[0]) if found else 9999

    return {name for name in names if any(year(other) > year(name) and words(other) & words(name) for other in names)}


def _compute(
    question: str,
    sentences: Sequence[Passage],
    scores: Sequence[float],
    tables: Sequence[Table],
    documents: Sequence[Document] = (),
) -> _Computed | None:
    if not _ASKS_AMOUNT.search(question):
        return None
    near = [
        sentence
        for score, _, sentence in sorted(
            ((score, -at, sentence) for at, (sentence, score) in enumerate(zip(sentences, scores, strict=True))),
            key=lambda one: (-one[0], -one[1]),
        )
        if score >= NEAR
    ]
    return (
        _articles(question, tables)
        or _percent_of_amount(question, near)
        or _reduced(question, near, documents, tables)
        or _priced(question, near, tables)
        or _stepped_rate(question, near)
        or _rate_times_quantity(question, near)
        or _table_rate(question, tables)
    )


def _quantities(question: str) -> Iterator[tuple[Fraction, str, str]]:
    """Yields the quantities of a question: number, unit, and the number as written."""
    for match in _PARTY.finditer(question):
        yield _value(match["number"]), "person", match["number"]
    for match in _QUANTITY.finditer(question):
        unit = _unit(match["unit"])
        if re.fullmatch(_CURRENCY_WORD, match["unit"], re.IGNORECASE) or unit in ("", "the", "of", "and", "or"):
            continue
        yield _value(match["number"]), unit, match["number"]


def _unit(word: str) -> str:
    text = singular(word.casefold())
    return _UNIT_FORMS.get(text, text)


def _value(text: str) -> Fraction:
    known = _NUMBER_WORDS.get(text.casefold())
    return Fraction(known) if known is not None else Fraction(text.replace(",", ""))


def _sign(match: re.Match[str]) -> str:
    if match["sign"]:
        return match["sign"]
    code = currency_code(match["word"])
    return CURRENCY_SIGNS.get(DEFAULT_CODES.get(code, code), match["word"].casefold())


def _cite(sentence: Passage) -> Citation:
    return Citation(quote=sentence.text, source=sentence.source, start=sentence.start, end=sentence.end)


def _stepped_rate(question: str, near: Sequence[Passage]) -> _Computed | None:
    """A price up to a quantity and a rate for each further unit, or a rate beyond a quantity that is free."""
    quantities = list(_quantities(question))
    for sentence in near:
        text = sentence.text
        for first, price, rate in (
            *((one, one, one) for one in _BASE_AND_FURTHER.finditer(text)),
            *((one, None, one) for one in _BEYOND.finditer(text)),
        ):
            for number, unit, _ in quantities:
                limit = _value(first["limit"])
                if unit != _unit(first["unit"]):
                    continue
                base = _value(price["base"]) if price is not None else Fraction(0)
                further = max(Fraction(0), number - limit)
                step = _value(rate["further"])
                parts = [format_fraction(base)] if price is not None else []
                if further or not parts:
                    parts.append(
                        f"({format_fraction(number)} - {format_fraction(limit)}) * {format_fraction(step)}"
                        if further
                        else "0"
                    )
                return _Computed(base + further * step, " + ".join(parts), rate["sign"], (_cite(sentence),))
    return None


def _rate_times_quantity(question: str, near: Sequence[Passage]) -> _Computed | None:
    quantities = list(_quantities(question))
    for sentence in near:
        for pays in _PAYS.finditer(sentence.text):
            for number, unit, _ in quantities:
                if unit == _unit(pays["unit"]):
                    price = _value(pays["one"])
                    expression = f"{format_fraction(number)} * {format_fraction(price)}"
                    return _Computed(number * price, expression, pays["sign"], (_cite(sentence),))
        for rate in _RATE.finditer(sentence.text):
            for number, unit, _ in quantities:
                if _unit(rate["unit"]) == "half" and unit == "hour":
                    number, unit = number * 2, "half"
                if unit == _unit(rate["unit"]):
                    price = _value(rate["one"] or rate["two"])
                    group = _GROUP.search(sentence.text)
                    if unit == "person" and group and number >= _value(group["least"]):
                        price = _value(group["price"])
                    sign = _sign(rate)
                    if sign in ("p", "pence"):
                        price, sign = price / 100, "£"
                    expression = f"{format_fraction(number)} * {format_fraction(price)}"
                    return _Computed(number * price, expression, sign, (_cite(sentence),))
    return None


_PAYS = re.compile(r"\b(?P<unit>[^\W\d_]+) pays? (?P<sign>[£€$])(?P<one>\d[\d,]*(?:\.\d+)?)", re.IGNORECASE)


def _reduced(
    question: str, near: Sequence[Passage], documents: Sequence[Document], tables: Sequence[Table]
) -> _Computed | None:
    """The price of an article, or of one for each person, less the reduction of a group that the question names. Both
    are in the same document.
    """
    quantities = list(_quantities(question))
    persons = max((number for number, unit, _ in quantities if unit not in _NOT_PERSONS), default=None)
    older = older_versions([one.source for one in documents])
    current = [one for one in documents if one.source not in older]
    for document in sorted(current, key=lambda one: _place(one.source, near)):
        sentences = [one for passage in split_passages([document]) for one in split_sentences(passage)]
        reduction = reduction_for(question, sentences, persons, _NUMBER_WORDS)
        if reduction is None:
            continue
        own = [table for table in tables if table.name.startswith(document.source)]
        price, sign, citations, cells = _price(question, sentences, own)
        if price is not None:
            break
    else:
        return None
    number, unit = next(((number, unit) for number, unit, _ in quantities if unit == price[1]), (Fraction(1), ""))
    value, after = reduction.apply(price[0] * number)
    before = f"{format_fraction(number)} * {format_fraction(price[0])}" if unit else format_fraction(price[0])
    return _Computed(value, f"{before}{after}", sign, (*citations, _cite(reduction.sentence)), cells)


_NOT_PERSONS: Final = frozenset(
    {
        *("day", "night", "week", "month", "year", "hour", "minute", "second"),
        *("km", "mile", "litre", "kg", "metre", "euro", "pound"),
    }
)
"""Units of quantities that are no numbers of persons."""


def _place(source: str, near: Sequence[Passage]) -> int:
    """The place of the first sentence of a source, or the number of the sentences."""
    return next((at for at, sentence in enumerate(near) if sentence.source == source), len(near))


def _price(
    question: str, near: Sequence[Passage], tables: Sequence[Table]
) -> tuple[tuple[Fraction, str] | None, str, tuple[Citation, ...], tuple[Cell, ...]]:
    """The price that a question asks about, with its unit if it is for one, and its currency and places."""
    article = _article(question, tables)
    if article is not None:
        price, sign, cells = article
        return (price, _rate_unit(cells[0].column_heading)), sign, (), cells
    units = {unit for _, unit, _ in _quantities(question)}
    for sentence in near:
        for match in _PAYS.finditer(sentence.text):
            if _unit(match["unit"]) in units:
                return (_value(match["one"]), _unit(match["unit"])), match["sign"], (_cite(sentence),), ()
    found = best_amount(question, [one for one in near if not _PERCENT.search(one.text)])
    if found is None:
        return None, "", (), ()
    amount, sentence = found
    return (amount.value, ""), amount.sign, (_cite(sentence),), ()


def _rate_unit(heading: str) -> str:
    match = re.search(rf"\b{_PER}\s+(?P<unit>[^\W\d_]+)", heading, re.IGNORECASE)
    return _unit(match["unit"]) if match else ""


def _percent_of_amount(question: str, near: Sequence[Passage]) -> _Computed | None:
    amounts = [(_value(match["one"] or match["two"]), _sign(match)) for match in _MONEY.finditer(question)]
    if not amounts:
        return None
    base, sign = amounts[0]
    quantities = {unit: number for number, unit, _ in _quantities(question)}
    for sentence in near:
        for rate in _PERCENT_RATE.finditer(sentence.text):
            number = quantities.get(_unit(rate["unit"]))
            if number is None:
                continue
            percent = _value(rate["percent"])
            limit = _LIMIT.search(sentence.text)
            most = _value(limit["percent"] or limit["other"]) if limit else None
            if most is not None and percent * number > most:
                return _Computed(
                    base * most / 100,
                    f"{format_fraction(base)} * {format_fraction(most)} / 100",
                    sign,
                    (_cite(sentence),),
                )
            expression = f"{format_fraction(base)} * {format_fraction(percent)} / 100 * {format_fraction(number)}"
            return _Computed(base * percent / 100 * number, expression, sign, (_cite(sentence),))
    return None


def _priced(question: str, near: Sequence[Passage], tables: Sequence[Table]) -> _Computed | None:
    """The price of an article of a table with a discount, or in instalments."""
    discount = _DISCOUNT.search(question) is not None and not _ASKS_DISCOUNT.search(question)
    instalments = re.search(r"\binstal?lments?\b", question, re.IGNORECASE) is not None
    share = any(_PERCENT_OF_PRICE.search(sentence.text) for sentence in near[:2])
    if not discount and not instalments and not share:
        return None
    article = _article(question, tables)
    if article is None:
        return None
    price, sign, cells = article
    for sentence in near:
        if instalments and (match := _INSTALMENTS.search(sentence.text)):
            count = _value(match["count"])
            expression = f"{format_fraction(price)} / {format_fraction(count)}"
            return _Computed(price / count, expression, sign, (_cite(sentence),), cells)
        if match := _PERCENT_OF_PRICE.search(sentence.text):
            percent = _value(match["percent"])
            expression = f"{format_fraction(price)} * {format_fraction(percent)} / 100"
            return _Computed(price * percent / 100, expression, sign, (_cite(sentence),), cells)
        if (
            discount
            and not instalments
            and _DISCOUNT.search(sentence.text)
            and (match := _PERCENT.search(sentence.text))
        ):
            percent = _value(match["percent"])
            expression = f"{format_fraction(price)} * (100 - {format_fraction(percent)}) / 100"
            return _Computed(price * (100 - percent) / 100, expression, sign, (_cite(sentence),), cells)
    return None


def _table_rate(question: str, tables: Sequence[Table]) -> _Computed | None:
    """The rate of an article in a column such as `Rate per hour`, times the quantity of the question."""
    article = _article(question, tables)
    if article is None:
        return None
    price, sign, cells = article
    unit = _rate_unit(cells[0].column_heading)
    number = next((number for number, own, _ in _quantities(question) if unit and own == unit), None)
    if number is None:
        return None
    expression = f"{format_fraction(number)} * {format_fraction(price)}"
    return _Computed(number * price, expression, sign, (), cells)


_YEAR = re.compile(r"(?:19|20)\d\d")
_CODE = re.compile(r"\b[A-Z]{1,4}-?\d{2,}\b")
"""A code of an article, such as `PC-140`."""


def _with_currency(cell: str, heading: str) -> str:
    """A number of a column whose heading has a currency, such as `Fee (GBP)`, with that currency."""
    match = re.search(r"\((?P<code>GBP|EUR|USD|CHF|[£€$])\)", heading)
    return f"{cell} {match['code']}" if match and re.fullmatch(r"\d[\d,]*(?:\.\d+)?", cell) else cell


def _article(question: str, tables: Sequence[Table]) -> tuple[Fraction, str, tuple[Cell, ...]] | None:
    """The price of the article of a table that the question names by all words of its name."""
    asked = {_unit(word) for word in re.findall(r"[^\W_]+", question)}
    best: tuple[int, Fraction, str, tuple[Cell, ...]] | None = None
    for table in tables:
        for number, row in enumerate(table.cells[1:], start=1):
            name = {_unit(word) for word in re.findall(r"[^\W_]+", row[0]) if len(word) > 1} - {"the", "and", "of"}
            prices = [
                (at, match)
                for at, cell in enumerate(row)
                if at and (match := _MONEY.fullmatch(_with_currency(cell.strip(), table.cells[0][at])))
            ]
            if len(prices) > 1:
                prices = [
                    (at, match)
                    for at, match in prices
                    if asked & {_unit(word) for word in re.findall(r"[^\W_]+", table.cells[0][at])}
                ]
            code = _CODE.search(row[0])
            named = name <= asked or (code is not None and code[0] in question)
            named = named or (len(name & asked) > 1 and 3 * len(name & asked) >= 2 * len(name))
            if not name or not named or len(prices) != 1:
                continue
            at, match = prices[0]
            cell = Cell(
                row=number,
                column=at,
                text=row[at],
                row_heading=row[0],
                column_heading=table.cells[0][at],
                location=table.name,
            )
            found = (len(name & asked), _value(match["one"] or match["two"]), _sign(match), (cell,))
            if best is None or found[0] > best[0]:
                best = found
    return None if best is None else best[1:]


_ARTICLE = re.compile(rf"(?P<number>{_NUM})\s+(?P<unit>[^\W\d_]+)\s+of\s+(?P<name>[A-Z][\w'’-]*(?:\s+[A-Z][\w'’-]*)*)")


def _price_cell(table: Table, heads: Sequence[set[str]], name: str, unit: str) -> tuple[int | None, int | None]:
    """The row and the column of an article's price per unit: articles are rows and units columns, or the reverse."""
    row = next((at for at, row in enumerate(table.cells) if row[0].casefold() == name.casefold()), None)
    column = next((at for at, head in enumerate(heads) if unit in head and at), None)
    if row is not None or column is not None:
        return row, column
    row = next(
        (at for at, row in enumerate(table.cells) if at and unit in {_unit(w) for w in re.findall(r"[^\W_]+", row[0])}),
        None,
    )
    column = next((at for at, head in enumerate(table.cells[0]) if head.casefold() == name.casefold()), None)
    return row, column


def _articles(question: str, tables: Sequence[Table]) -> _Computed | None:
    """Quantities of articles, such as `6 casks of Pale Ale`, at the prices of a table with a column for the unit."""
    wanted = [(_value(match["number"]), _unit(match["unit"]), match["name"]) for match in _ARTICLE.finditer(question)]
    if not wanted:
        return None
    for table in tables:
        heads = [{_unit(word) for word in re.findall(r"[^\W_]+", head)} for head in table.cells[0]]
        parts, cells, sign = [], [], ""
        for number, unit, name in wanted:
            row, column = _price_cell(table, heads, name, unit)
            if row is None or column is None:
                break
            text = table.cells[row][column]
            money = _MONEY.search(text)
            figure = money["one"] or money["two"] if money else text
            if not re.fullmatch(r"\d[\d,]*(?:\.\d+)?", figure.strip()):
                break
            sign = _sign(money) if money else sign
            parts.append((number, _value(figure.strip())))
            cells.append(
                Cell(
                    row=row,
                    column=column,
                    text=text,
                    row_heading=table.cells[row][0],
                    column_heading=table.cells[0][column],
                    location=table.name,
                )
            )
        else:
            total = sum((number * price for number, price in parts), Fraction(0))
            expression = " + ".join(f"{format_fraction(number)} * {format_fraction(price)}" for number, price in parts)
            return _Computed(total, expression, sign, (), tuple(cells))
    return None
