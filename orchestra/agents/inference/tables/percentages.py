"""Percentages that a question gives: so many percent of a figure, off it or on top of it, by the words around them.

Of 13,603 rows that `table_reader` was trained on 66 have one, and it found the two figures and not the way: words tell
that, as they tell units (`orchestra.agents.inference.tables.scales`) and bounds
(`orchestra.agents.inference.tables.bounds`). What is not sure to be such a question is left to the encoder.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestra.agents.inference.tables.operations import OPERATIONS
from orchestra.agents.inference.tables.question import MAX_CHARACTERS

if TYPE_CHECKING:
    from orchestra.agents.inference.tables.encoding import TableEncoding
    from orchestra.agents.inference.tables.head import TableLogits

WORD_BONUS: Final = 10.0
"""The logit that is added to the way that words tell, and to its figure; the encoder's own are a few units apart. Only
where a table is read: what is learnt goes without.
"""
_PERCENT: Final = r"[\s-]*(?:%|per ?cent\b)"
_FIGURE: Final = rf"(?<![\w.,])(?P<figure>\d{{1,9}}(?:\.\d{{1,9}})?){_PERCENT}"
_WORDS_BETWEEN: Final = r"(?:\s+(?!or\b|and\b|of\b|than\b)\w+){0,2}?\s+"
"""Words between a percentage and what is done with it; behind `or` stands a bound, “60% or more”."""
_SELECTING_QUESTION = re.compile(
    r"(?:^|[:.!?,;] *)\W*(?:in |at |to |for |of )?(?:which|who|whose|why|name|list|how many"
    r" (?!(?:euros?|dollars?|pounds?|cents?)\b)"
    r"|(?:where|when) (?:is|are|was|were|do|does|did)"
    r"|what (?:kinds?|sorts?|part(?:y|ies)|customers?|items?|products?)|(?:is|are) there|show me)\b",
    re.IGNORECASE,
)
"""Such questions ask for what has a percentage, and not for what it comes to."""
_BOUND_BEFORE = re.compile(
    r"\b(?:th[ae]n|over|under|above|below|least|most|exactly|got|have|has|had|took|won|up"
    r" to|(?:effect|impact)\b.{0,60}\ban?)\s*$",
    re.IGNORECASE,
)
"""Behind these words so do others."""
_OPERATION_WORDS: Final = (
    ("discount", rf"{_FIGURE}{_WORDS_BETWEEN}(?:off|discount|reduction|rebate|cheaper|less|lower)\b"),
    (
        "discount",
        (
            r"\b(?:discount of|reduc\w+ (?:of|by)|rebate of|minus|less(?! th[ae]n)|lower\w* by|cut\w* by|taking off)"
            rf" {_FIGURE}"
        ),
    ),
    ("surcharge", rf"{_FIGURE}{_WORDS_BETWEEN}(?:on top|more|extra|added|surcharge|dearer|higher)\b"),
    (
        "surcharge",
        rf"\b(?:plus|add(?:s|ing)?|surcharge of|rais\w+ (?:of|by)|(?:go(?:es)?|went|puts?|putting) up by) {_FIGURE}",
    ),
    ("portion", rf"{_FIGURE}\s+of\b"),
)
_PATTERNS: Final = tuple((way, re.compile(pattern, re.IGNORECASE)) for way, pattern in _OPERATION_WORDS)


class Percentage(NamedTuple):
    """What a question does with a percentage of its own."""

    operation: str
    figure: str
    """As the question has it, without its sign."""


def find_percentage(question: str) -> Percentage | None:
    """The first that words tell; None where none is told, or where it only says which rows are meant."""
    question = question[:MAX_CHARACTERS]
    if _SELECTING_QUESTION.search(question):
        return None
    found = ((operation, match) for operation, pattern in _PATTERNS for match in pattern.finditer(question))
    here = (
        (operation, match)
        for operation, match in found
        if not _BOUND_BEFORE.search(question[max(0, match.start("figure") - 80) : match.start("figure")])
    )
    return next((Percentage(operation, match["figure"]) for operation, match in here), None)


def add_percentage_logits(encoding: TableEncoding, logits: TableLogits[Any]) -> TableLogits[Any]:
    """The logits of a sheet, with those of the way and of the figure that words tell; as they were where the figure
    bounds
    rows, or where the table has the percentage itself (“Price with 10% discount”).
    """
    told = find_percentage(encoding.question)
    if told is None or re.search(
        rf"(?<![\w.,]){re.escape(told.figure)}{_PERCENT}", " ".join(cell for row in encoding.table for cell in row)
    ):
        return logits
    given = [
        (at, location.question_figure)
        for at, location in enumerate(encoding.locations)
        if location.question_figure is not None
    ]
    places = [at for at, one in given if one.figure == told.figure and one.bound is None]
    if not places:
        return logits
    operations, second = logits.operations.copy(), logits.second.copy()
    operations[OPERATIONS.index(told.operation)] += WORD_BONUS
    second[places] += WORD_BONUS
    return logits._replace(operations=operations, second=second)
