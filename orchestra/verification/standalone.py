"""Checks alone: an answer held against evidence, without a workflow that says of which type it is. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchestra.core.protocols import Source
from orchestra.schema.fields import QUOTE
from orchestra.verification.acceptance import Ruling, Situation, names_of, ruled_unasked

ACCEPT = 0.5
"""The score in [0, 1] from which an answer is accepted, where nobody says another one."""
QUOTES = frozenset({"quote", "quotes"})
"""Names of fields whose texts are quotes, in an answer that comes without a type."""
_VERBATIM = frozenset({"quote", "support"})
"""Checks that want to know which texts are quotes. The others would pass over the numbers of what they take for a quote."""


def judge(
    answer: Any, evidence: tuple[Source, ...], checks: Sequence[str], accept: float = ACCEPT, confidence: float | None = None
) -> Ruling:
    """What the checks that ask nobody say of an answer as JSON. `accept` is the score in [0, 1] that it must reach, `confidence` how sure
    its producer was, in [0, 1]."""
    schema = type_of(answer, names_of(tuple(checks)))
    situation = Situation(value=answer, schema=schema, evidence=evidence, checks=tuple(checks), accept=accept, confidence=confidence)
    return ruled_unasked(situation)


def type_of(answer: Any, checks: Collection[str]) -> dict[str, Any]:
    """The type of an answer that comes without one, as the checks need it.

    A text is a quote as a whole where a check compares words; in a record the fields `quote` and `quotes` are quotes.
    """
    if isinstance(answer, str):
        return {"type": "string", "format": QUOTE} if _VERBATIM & set(checks) else {"type": "string"}
    return _type(answer, quoted=False)


def _type(value: Any, *, quoted: bool) -> dict[str, Any]:
    match value:
        case str():
            return {"type": "string", "format": QUOTE} if quoted else {"type": "string"}
        case Mapping():
            return {"type": "object", "properties": {str(key): _type(part, quoted=key in QUOTES) for key, part in value.items()}}
        case Sequence():
            return {"type": "array", "prefixItems": [_type(part, quoted=quoted) for part in value]}
        case _:
            return {}
