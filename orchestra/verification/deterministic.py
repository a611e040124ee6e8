"""V0, the deterministic checks: schema, quote, support, numbers, recompute, format. No model and no clock;
microseconds.

Every check is a function of a value, its JSON Schema and its evidence. A null answer (an agent that abstains) passes.
An answer without the quote that its type provides for fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Protocol

from orchestra.core.events import Verdict
from orchestra.core.outcomes import Evidence
from orchestra.core.protocols import EvidenceSource
from orchestra.schema.fields import (
    EXPRESSION_FORMAT,
    INDEX_FORMAT,
    QUOTE_FORMAT,
    SCORE_FIELDS,
    ValueField,
    fields_with_format,
    is_probability,
    iter_fields,
    schema_has_format,
)
from orchestra.schema.types import Validator
from orchestra.text import arithmetic, quotes
from orchestra.text.keywords import content_words
from orchestra.text.numbers import numbers as figures
from orchestra.text.numbers.currencies import are_different
from orchestra.text.numbers.times import TimeOfDay, find_times
from orchestra.text.numbers.unparsed import TextWords, UnparsedNumeral, find_unparsed, strip_ignorable
from orchestra.verification import number_match
from orchestra.verification.evidence_numbers import EvidenceIndex, SpanCursor
from orchestra.verification.formats import check_format
from orchestra.verification.verdict import PASS, excerpt, failed, passed, unknown

MIN_SUPPORT = 0.5
"""Minimum share of an answer's words that must occur in the quotes beside it."""
_CONVERSION = re.compile(r"[*/×÷·∕∗⋅]")
"""Operators that may convert one currency to another."""
MAX_EVIDENCE = 1_000
"""Maximum number of evidence locations in one verdict."""
MAX_DIGITS = 4_000
"""Maximum digits of an integer that is formatted. Python itself refuses slightly more."""
_CONSTANTS = (Fraction(0), Fraction(1), Fraction(2), Fraction(100), Fraction(12), Fraction(60))
"""Operands that need no evidence: shares, doubles, per cent, months, minutes."""


class CheckFunction(Protocol):
    """A check of a value against its type and its evidence."""

    def __call__(self, value: Any, schema: dict[str, Any], evidence: tuple[EvidenceSource, ...], /) -> Verdict: ...


def check_schema(value: Any, schema: dict[str, Any], evidence: tuple[EvidenceSource, ...]) -> Verdict:
    """Checks that the value is of its type."""
    fault = Validator(schema).check(value)
    return passed("schema") if fault is None else failed("schema", fault)


def check_quote(value: Any, schema: dict[str, Any], evidence: tuple[EvidenceSource, ...]) -> Verdict:
    """Checks that every `Quote` occurs in the evidence. Returns the location of each in the original text.

    Texts are compared without regard to Unicode form, case and spacing, at word and number boundaries. A near match (95
    % of the words in order) is `unknown`. So are a quote without a content word, and one that occurs only directly
    after a negation. The check shows that the words are in the evidence, not that an answer beside them is right.
    """
    if not schema_has_format(schema, QUOTE_FORMAT):
        return unknown("quote", "the type has no field of type Quote", 0.0)
    found: list[Evidence] = []
    near: tuple[float, str] | None = None
    empty = ""
    every = list(iter_fields(value, schema))
    within = _group_by_parent(every)
    for field in every:
        if not (isinstance(field.value, str) and field.has_format(QUOTE_FORMAT)):
            continue
        affirmed = quotes.find_quote(field.value, evidence, affirmed=True)
        if span := affirmed or quotes.find_quote(field.value, evidence, whole=True):
            source = evidence[span.source]
            text = source.text[span.start : span.end]
            found.append(Evidence("quote", text, source.name, span.start, span.end, field.path))
            if affirmed is None:
                empty = empty or f"{excerpt(field.value)} occurs in the evidence only directly after a negation"
            elif not quotes.is_informative(text, _sibling_answers(field, every, within)):
                empty = empty or f"{excerpt(field.value)} has no content word"
            continue
        share = quotes.match_ratio(field.value, evidence)
        if share < quotes.NEAR_THRESHOLD:
            return failed(
                "quote",
                f"{excerpt(field.value)} does not occur in the evidence" if field.value.strip() else "a quote is empty",
            )
        near = near or (share, f"{excerpt(field.value)} is similar to the evidence, but not in it")
    for field in every:
        if lacking := _missing_quote(field, every, within, schema):
            return failed("quote", lacking)
    if near or empty:
        return unknown("quote", near[1], near[0]) if near else unknown("quote", empty)
    return passed("quote", evidence=tuple(found))


def _sibling_answers(
    quote: ValueField, every: Sequence[ValueField], within: Mapping[str | None, list[ValueField]]
) -> list[str]:
    """Texts beside a quote in its record, also through lists between them; other values as JSON."""
    by_path = {
        field.path: field for field in every if isinstance(field.value, Sequence) and not isinstance(field.value, str)
    }
    parent = quote.parent
    while parent in by_path:
        parent = by_path[parent].parent
    beside = [field for field in within.get(parent, []) if parent is not None and not field.has_format(QUOTE_FORMAT)]
    return [str(one.value) for one in beside if isinstance(one.value, str | int | float) and one.value != ""]


def check_support(value: Any, schema: dict[str, Any], evidence: tuple[EvidenceSource, ...]) -> Verdict:
    """Checks that the words of each answer occur in the quotes beside it, for outputs in the words of the evidence.

    A quote that was decoded under a grammar of the evidence always occurs there, but may be unrelated to the answer.
    Content words are counted. A text without one and a record without a text need no support.
    """
    if not schema_has_format(schema, QUOTE_FORMAT):
        return unknown("support", "the type has no field of type Quote", 0.0)
    every = list(iter_fields(value, schema))
    least = 1.0
    quotable = {
        parent: [one for one in found if one.has_format(QUOTE_FORMAT)]
        for parent, found in _group_by_parent(every).items()
    }
    quoting = {parent: _content_words(found) for parent, found in quotable.items()}
    for field in every:
        words = (
            content_words(field.value)
            if isinstance(field.value, str) and not field.has_format(QUOTE_FORMAT)
            else frozenset()
        )
        if not words or not quotable.get(field.parent):  # the record has no field for a quote
            continue
        quoted = quoting[field.parent]
        share = len(words & quoted) / len(words)
        if share < MIN_SUPPORT:
            return failed(
                "support", f"the quote has {len(words & quoted)} of the {len(words)} words of {excerpt(field.value)}"
            )
        least = min(least, share)
    return Verdict("support", PASS, least)


def _content_words(found: Sequence[ValueField]) -> frozenset[str]:
    return frozenset().union(*(content_words(one.value) for one in found if isinstance(one.value, str)))


def _group_by_parent(every: Sequence[ValueField]) -> dict[str | None, list[ValueField]]:
    """Groups fields by the path of their parent."""
    found: dict[str | None, list[ValueField]] = {}
    for field in every:
        found.setdefault(field.parent, []).append(field)
    return found


def _missing_quote(
    record: ValueField,
    every: Sequence[ValueField],
    within: Mapping[str | None, list[ValueField]],
    schema: dict[str, Any],
) -> str:
    """Returns why a record needs a quote and has none, or only an empty one.

    It needs one if a field beside its quotes has a value: a nullable field, or without nullable fields any text. The
    whole value needs at least one quote. Expressions and the numbers beside them need none, because `numbers` and
    `recompute` judge them. Neither does an enum beside an expression, such as the scale of a sum, because no words of
    the evidence could support it.
    """
    if record.parent is None:
        if any(field.value and field.has_format(QUOTE_FORMAT) for field in every):
            return ""
        if isinstance(record.value, str) and record.value.strip():
            return f"{excerpt(record.value)} has no quote"
    beside = within.get(record.path, []) if isinstance(record.value, Mapping) else []
    names = fields_with_format(record, schema, QUOTE_FORMAT)
    if (not names and record.parent is not None) or any(field.value for field in beside if field.name in names):
        return ""
    summed = any(field.value and _is_expression(field) for field in beside)
    others = [
        field
        for field in beside
        if field.name not in names and not (summed and (_is_computed(field) or field.is_enum()))
    ]
    silent = [field for field in others if field.allows_null()]
    for field in silent or others:
        if (isinstance(field.value, str) and field.value.strip()) or (
            silent and field.value is not None and not isinstance(field.value, str)
        ):
            return f"{field.path} is {excerpt(field.value)}, without a quote"
    return ""


def _is_computed(field: ValueField) -> bool:
    return _is_expression(field) or (isinstance(field.value, int | float) and not isinstance(field.value, bool))


def check_numbers(value: Any, schema: dict[str, Any], evidence: tuple[EvidenceSource, ...]) -> Verdict:
    """Checks that every number, date and time of the answer occurs in the evidence, or is computed beside it from such
    numbers.

    Returns the first location of each number, and of each operand, under the path of its field. A numeral that cannot
    be parsed, such as one in another language, is `unknown` unless it occurs literally in the evidence.
    """
    index, wording = EvidenceIndex(evidence), TextWords([source.text for source in evidence])
    every = [_strip_invisible(field) for field in iter_fields(value, schema)]
    expressions = [field.value for field in every if _is_expression(field)]
    computed, perhaps = (_computed_values(expressions, index, parts=parts) for parts in (False, True))
    doubt = ""
    found: list[Evidence] = []
    for field in every:
        if _is_expression(field):
            found += _operand_evidence(field, index)
        if field.has_format(QUOTE_FORMAT) or _is_expression(field):
            continue
        for text, sure in figures.find_invalid_dates(field.value) if isinstance(field.value, str) else ():
            if sure:
                return failed("numbers", f"there is no {text}, stated in {field.path or 'the answer'}")
            doubt = doubt or f"there is no {text}, if {field.path or 'the answer'} states a date"
        for time in _times_of(field):
            if (at := index.find_time(time)) is not None:
                found.append(Evidence("numbers", at[0].text, at[1].name, at[0].start, at[0].end, field.path))
            elif why := index.time_doubt(time):
                doubt = doubt or why
            else:
                return failed("numbers", f"{time.text} in {field.path or 'the answer'} is not in the evidence")
        for number in _numbers_of(field, index):
            if (there := index.find(number)) is not None:
                found.append(_number_evidence(*there, field))
            elif not any(arithmetic.is_close(number.value, number.step, v) for v in computed):
                why = index.number_doubt(number)
                if any(arithmetic.is_close(number.value, number.step, v) for v in perhaps):
                    why = why or f"{number.text} is computed from an ambiguous number of the evidence"
                if not why:
                    return failed("numbers", f"{number.text} in {field.path or 'the answer'} is not in the evidence")
                doubt = doubt or why
        for day in _days_of(field):
            if (on := index.find_day(day)) is not None:
                found.append(
                    Evidence("numbers", on[0].text, on[1].name, on[0].start, on[0].start + len(on[0].text), field.path)
                )
            else:
                doubt = doubt or f"the date {day.text} is not in the evidence, though its numbers are"
        if (numeral := _unparsed_numeral(field, index, wording)) is not None:
            doubt = (
                doubt
                or f"{excerpt(numeral.text)} in {field.path or 'the answer'} may be a number that cannot be parsed"
            )
        if _is_factual_number(field) and not _is_finite(field.value):
            doubt = doubt or f"{field.path or 'the answer'} is not a finite number"
    return unknown("numbers", doubt) if doubt else passed("numbers", evidence=tuple(found[:MAX_EVIDENCE]))


def _strip_invisible(field: ValueField) -> ValueField:
    """The field without invisible characters, which may occur inside a number."""
    return replace(field, value=strip_ignorable(field.value)) if isinstance(field.value, str) else field


def _unparsed_numeral(field: ValueField, index: EvidenceIndex, wording: TextWords) -> UnparsedNumeral | None:
    """The first numeral of a field that cannot be parsed and does not occur in the evidence; of an enum, only one with
    a numeric character.
    """
    if not isinstance(field.value, str):
        return None
    text = field.value
    read = [
        (one.begin, one.begin + len(one.text))
        for one in (*figures.find_numbers(text), *number_match.stated_numbers(text))
    ]
    read += [(one.start, one.end) for one in find_times(text)] + [
        (one.start, one.start + len(one.text)) for one in figures.find_dates(text)
    ]
    for one in find_unparsed(text, [*read, *number_match.non_numeric_spans(text)]):
        if field.is_enum() and not any(char.isnumeric() for char in one.text):
            continue
        if not (
            wording.contains(one)
            or any(index.find(figures.Number(v, v, Fraction(0), text=one.text)) for v in one.values)
        ):
            return one
    return None


def _number_evidence(number: figures.Number, source: EvidenceSource, field: ValueField) -> Evidence:
    return Evidence("numbers", number.text, source.name, number.begin, number.begin + len(number.text), field.path)


def _operand_evidence(field: ValueField, index: EvidenceIndex) -> list[Evidence]:
    """Locations of the numbers of an expression that occur in the evidence."""
    try:
        wanted = arithmetic.operands(field.value)
    except arithmetic.ArithmeticParseError:
        return []
    return [_number_evidence(*one, field) for one in map(index.find_operand, wanted) if one is not None]


def _numbers_of(field: ValueField, index: EvidenceIndex | None = None) -> list[figures.Number]:
    """Numbers that a field states, without those of times and of dates that the evidence has; of an enum, also without
    numbers in words.
    """
    if not isinstance(field.value, str):
        return [figures.from_json_number(field.value)] if _is_factual_number(field) and _is_finite(field.value) else []
    text = field.value
    every = figures.find_numbers(text) if field.is_enum() else number_match.stated_numbers(text)
    if index is None:
        return [number for number in every if not number.is_uncertain]
    clock = SpanCursor((time.start, time.end) for time in find_times(text))
    known = [
        (day.start, day.start + len(day.text)) for day in figures.find_dates(text) if index.find_day(day) is not None
    ]
    slashed = [one for one in every if number_match.has_slash(one)]
    borne = [one for one in slashed if index.find(one) is not None]
    known += [(one.start, one.start + len(one.text)) for one in borne]
    loose = [one for one in slashed if one not in borne and one.value < 1]  # `24/7` is not a fraction
    plain = (one for one in every if not number_match.has_slash(one) and not clock.contains(one.start))
    return [*borne, *(one for one in plain if not any(a <= one.start < b for a, b in known)), *loose]


def _is_factual_number(field: ValueField) -> bool:
    """Whether a number is a fact, and neither about the answer, as a confidence is, nor a table position."""
    if isinstance(field.value, bool) or not isinstance(field.value, int | float) or field.has_format(INDEX_FORMAT):
        return False
    return not (field.name in SCORE_FIELDS and is_probability(field.value))


def _is_finite(value: int | float) -> bool:
    """Whether a number can be formatted: not infinity, not NaN, and not an integer of thousands of digits."""
    return abs(value) < 10**MAX_DIGITS if isinstance(value, int) else math.isfinite(value)


def _times_of(field: ValueField) -> list[TimeOfDay]:
    return find_times(field.value) if isinstance(field.value, str) else []


def _days_of(field: ValueField) -> list[figures.CalendarDate]:
    return figures.find_dates(field.value) if isinstance(field.value, str) else []


def _is_expression(field: ValueField) -> bool:
    return isinstance(field.value, str) and (field.has_format(EXPRESSION_FORMAT) or field.name == EXPRESSION_FORMAT)


def _computed_values(expressions: Sequence[str], index: EvidenceIndex, *, parts: bool) -> list[Fraction]:
    """Results of the attached expressions whose operands occur in the evidence. With `parts`, also alternative readings
    of their digits.
    """
    if not expressions:
        return []
    known = [number for number, _ in index.numbers]
    plain = {form for one in known for number in (one.value, one.plain) for form in (number, abs(number))} | set(
        _CONSTANTS
    )
    if parts:
        plain |= {form for one in known if not one.identifier for form in one.other_readings}
    results: list[Fraction] = []
    for expression in expressions:
        try:
            if all(operand in plain for operand in arithmetic.operands(expression)):
                results += arithmetic.possible_values(expression)
        except arithmetic.ArithmeticParseError:
            continue
    return results + [result * 100 for result in results]


def check_recompute(value: Any, schema: dict[str, Any], evidence: tuple[EvidenceSource, ...]) -> Verdict:
    """Checks that every result beside an expression equals the value of the expression, to the digits shown."""
    every = list(iter_fields(value, schema))
    expressions = [field for field in every if _is_expression(field)]
    if not expressions:
        absent = schema_has_format(schema, EXPRESSION_FORMAT) or any(field.name == EXPRESSION_FORMAT for field in every)
        return (
            passed("recompute", "nothing was computed")
            if absent
            else unknown("recompute", "the type has no expression", 0.0)
        )
    within = _group_by_parent(every)
    results_of: dict[str | None, list[figures.Number]] = {}
    for field in expressions:
        if (results := results_of.get(field.parent)) is None:
            beside = [
                other
                for other in within[field.parent]
                if not _is_expression(other) and not other.has_format(QUOTE_FORMAT)
            ]
            results = results_of[field.parent] = [number for other in beside for number in _numbers_of(other)]
        if not results:
            return unknown("recompute", f"there is no number beside {field.path}")
        try:
            values = arithmetic.possible_values(field.value)
        except arithmetic.ArithmeticParseError as error:
            return failed("recompute", f"{field.path}: {error.args[0]}")
        right = [number for number in results if any(_matches_result(number, exact) for exact in values)]
        if not right:
            return failed(
                "recompute",
                f"{excerpt(field.value)} gives {arithmetic.format_fraction(values[0])}, not {results[0].text}",
            )
        clashes = [_has_currency_conflict(number, field.value) for number in right]
        if all(clashes):
            other = f"is in another currency than {right[0].text}" if right[0].currency else "adds two currencies"
            return failed("recompute", f"{excerpt(field.value)} {other}")
        if all(clash is not False for clash in clashes):
            return unknown("recompute", f"{right[0].text} may be in another currency than {excerpt(field.value)}")
    return passed("recompute")


def _has_currency_conflict(result: figures.Number, expression: str) -> bool | None:
    """Whether a result has another currency than its expression; None if undetermined, as for a product that may be an
    exchange.
    """
    money = {number.currency for number in figures.find_numbers(expression) if number.currency}
    if not money or not result.currency:
        return any(are_different(one, other) for one in money for other in money) and not _CONVERSION.search(expression)
    clashes = [are_different(result.currency, one) for one in money]
    if not _CONVERSION.search(expression):  # a sum of dollars and euros is in neither currency
        return True if any(clashes) else None if None in clashes else False
    return False if False in clashes else None


def _matches_result(number: figures.Number, exact: Fraction) -> bool:
    """Whether a number is a result. With `%`, the expression may give the fraction or the percentage."""
    scale = 100 if number.percent else 1
    return arithmetic.is_close(number.value, number.step, exact) or arithmetic.is_close(
        number.value * scale, number.step * scale, exact
    )


DETERMINISTIC_CHECKS: dict[str, CheckFunction] = {
    "schema": check_schema,
    "quote": check_quote,
    "support": check_support,
    "numbers": check_numbers,
    "recompute": check_recompute,
    "format": check_format,
}
"""Checks by name, the cheapest first."""
