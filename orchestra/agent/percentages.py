"""Percentages that a question gives: so many percent of a figure, off it or on top of it, by the words around them.

Of 13,603 rows that `table_reader` was trained on 66 have one, and it found the two figures and not the way: words tell that, as they tell
units (`orchestra.agent.units`) and bounds (`orchestra.agent.bounds`). Of these and of the rows to tune on, 71 in all, they tell 46 rightly
and one wrongly, and one of 14,394 others; the rest has its percentage in the table or the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestra.agent.table_ways import WAYS

if TYPE_CHECKING:
    from orchestra.agent.sheet import Sheet
    from orchestra.agent.tables import Logits

TOLD: Final = 10.0
"""The logit that is added to the way that words tell, and to its figure; the encoder's own are a few units apart. Only where a table is
read: what is learnt goes without."""
_GIVEN: Final = r"(?P<figure>\d+(?:[.,]\d+)?)\s*(?:%|per ?cent\b)"
_SELECTS = re.compile(r"^\W*(?:in )?(?:which|who|whose|where|when|why|how many|name|list)\b", re.IGNORECASE)
"""Such questions ask for what has a percentage, and not for what it comes to."""
_BOUNDED = re.compile(r"\b(?:than|over|under|above|below|least|most|exactly|got|have|has)\s*$", re.IGNORECASE)
"""Behind these words so do others."""
_WAYS: Final = (
    ("discount", rf"{_GIVEN}(?:\s+\w+){{0,2}}?\s+(?:off|discount|reduction|rebate|cheaper|less|lower)\b"),
    (
        "discount",
        rf"\b(?:discount of|reduc\w+ (?:of|by)|rebate of|minus|less(?! than)|lower\w* by|cut\w* by|taking off)(?:\s+\w+)?\s+{_GIVEN}",
    ),
    ("surcharge", rf"{_GIVEN}(?:\s+\w+){{0,2}}?\s+(?:on top|more|extra|added|surcharge|dearer|higher|increase)\b"),
    (
        "surcharge",
        rf"\b(?:plus|add(?:ing)?|surcharge of|increas\w+ (?:of|by)|rais\w+ (?:of|by)|(?:goes?|went|put|puts) up by)(?:\s+\w+)?\s+{_GIVEN}",
    ),
    ("portion", rf"{_GIVEN}\s+of\b"),
)
_PATTERNS: Final = tuple((way, re.compile(pattern, re.IGNORECASE)) for way, pattern in _WAYS)


class Percentage(NamedTuple):
    """What a question does with a percentage of its own."""

    way: str
    figure: str
    """As the question has it, without its sign."""


def percentage(question: str) -> Percentage | None:
    """The first that words tell; None where none is told, or where it only says which rows are meant."""
    if _SELECTS.search(question):
        return None
    found = ((way, pattern.search(question)) for way, pattern in _PATTERNS)
    here = ((way, match) for way, match in found if match is not None and not _BOUNDED.search(question[: match.start("figure")]))
    return next((Percentage(way, match["figure"]) for way, match in here), None)


def weighed(sheet: Sheet, logits: Logits[Any]) -> Logits[Any]:
    """The logits of a sheet, with those of the way and of the figure that words tell."""
    told = percentage(sheet.question)
    if told is None:
        return logits
    ways, second = logits.ways.copy(), logits.second.copy()
    ways[WAYS.index(told.way)] += TOLD
    for at, spot in enumerate(sheet.spots):
        if spot.given is not None and spot.given.figure == told.figure.replace(",", "."):
            second[at] += TOLD
    return logits._replace(ways=ways, second=second)
