"""Percentages of a question: a percentage of a figure, off it or on top of it, by the words around it.

Of 13,603 training rows of `table_reader`, 66 have one. The reader found the two figures but not the operation, so words
determine it, as for units (`orchestra.agents.inference.tables.scales`) and bounds
(`orchestra.agents.inference.tables.bounds`). Ambiguous questions are left to the encoder.
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
"""Added to the logits of the operation and the figure that the words determine. The encoder's own logits are a few
units apart. Used for inference only, not for training.
"""
_PERCENT: Final = r"[\s-]*(?:%|per ?cent\b)"
_FIGURE: Final = rf"(?<![\w.,])(?P<figure>\d{{1,9}}(?:\.\d{{1,9}})?){_PERCENT}"
_WORDS_BETWEEN: Final = r"(?:\s+(?!or\b|and\b|of\b|than\b)\w+){0,2}?\s+"
"""Words between a percentage and its base. After `or` there is a bound, “60% or more”."""
_SELECTING_QUESTION = re.compile(
    r"(?:^|[:.!?,;] *)\W*(?:in |at |to |for |of )?(?:which|who|whose|why|name|list|how many"
    r" (?!(?:euros?|dollars?|pounds?|cents?)\b)"
    r"|(?:where|when) (?:is|are|was|were|do|does|did)"
    r"|what (?:kinds?|sorts?|part(?:y|ies)|customers?|items?|products?)|(?:is|are) there|show me)\b",
    re.IGNORECASE,
)
"""Questions that select what has a percentage, and do not compute with it."""
_BOUND_BEFORE = re.compile(
    r"\b(?:th[ae]n|over|under|above|below|least|most|exactly|got|have|has|had|took|won|up"
    r" to|(?:effect|impact)\b.{0,60}\ban?)\s*$",
    re.IGNORECASE,
)
"""The same, for words before the percentage."""
_OPERATION_WORDS: Final = (
    ("discount", rf"{_FIGURE}{_WORDS_BETWEEN}(?:off|discount|reduction|rebate|cheaper|less|lower)\b"),
    (
        "discount",
        (
            r"\b(?:discount of|reduc\w+ (?:of|by)|rebate of|minus|less(?! th[ae]n)|lower\w* by|cut\w* by|taking off)"
            rf" {_FIGURE}"
        ),
    ),
    ("surcharge", rf"{_FIGURE}{_WORDS_BETWEEN}(?:on top|more|extra|added|surcharge|dearer|higher)\b"),  # prose: ok
    (
        "surcharge",
        rf"\b(?:plus|add(?:s|ing)?|surcharge of|rais\w+ (?:of|by)|(?:go(?:es)?|went|puts?|putting) up by) {_FIGURE}",
    ),
    ("portion", rf"{_FIGURE}\s+of\b"),
)
_PATTERNS: Final = tuple((way, re.compile(pattern, re.IGNORECASE)) for way, pattern in _OPERATION_WORDS)


class Percentage(NamedTuple):
    """A percentage of a question, and its operation."""

    operation: str
    figure: str
    """As in the question, without the percent sign."""


def find_percentage(question: str) -> Percentage | None:
    """Returns the first percentage whose operation the words determine; None if there is none, or if it only selects
    rows.
    """
    question = question[:MAX_CHARACTERS]
    if _SELECTING_QUESTION.search(question):
        return None
    all_matches = ((operation, match) for operation, pattern in _PATTERNS for match in pattern.finditer(question))
    matches = (
        (operation, match)
        for operation, match in all_matches
        if not _BOUND_BEFORE.search(question[max(0, match.start("figure") - 80) : match.start("figure")])
    )
    return next((Percentage(operation, match["figure"]) for operation, match in matches), None)


def add_percentage_logits(encoding: TableEncoding, logits: TableLogits[Any]) -> TableLogits[Any]:
    """Returns the logits with the bonus for the operation and the figure that the words determine. They are unchanged
    if the figure is a bound of rows, or if the table has the percentage itself (“Price with 10% discount”).
    """
    percentage = find_percentage(encoding.question)
    if percentage is None or re.search(
        rf"(?<![\w.,]){re.escape(percentage.figure)}{_PERCENT}",
        " ".join(cell for row in encoding.table for cell in row),
    ):
        return logits
    figures = [
        (at, location.question_figure)
        for at, location in enumerate(encoding.locations)
        if location.question_figure is not None
    ]
    places = [
        at
        for at, question_figure in figures
        if question_figure.figure == percentage.figure and question_figure.bound is None
    ]
    if not places:
        return logits
    operations, second = logits.operations.copy(), logits.second.copy()
    operations[OPERATIONS.index(percentage.operation)] += WORD_BONUS
    second[places] += WORD_BONUS
    return logits._replace(operations=operations, second=second)
