"""Checks alone: an answer held against evidence, without a workflow that says of which type it is. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchestra.core.protocols import EvidenceSource
from orchestra.schema.fields import QUOTE_FORMAT
from orchestra.verification.acceptance import (
    VerificationRequest,
    VerificationResult,
    check_names,
    verify_without_models,
)

DEFAULT_THRESHOLD = 0.5
"""The score in [0, 1] from which an answer is accepted, where nobody says another one."""
QUOTE_FIELDS = frozenset({"quote", "quotes"})
"""Names of fields whose texts are quotes, in an answer that comes without a type."""
_QUOTE_CHECKS = frozenset({"quote", "support"})
"""Checks that want to know which texts are quotes. The others would pass over the numbers of what they take for a quote."""


def verify_answer(
    answer: Any,
    evidence: tuple[EvidenceSource, ...],
    checks: Sequence[str],
    accept: float = DEFAULT_THRESHOLD,
    confidence: float | None = None,
) -> VerificationResult:
    """What the checks that ask nobody say of an answer as JSON. `accept` is the score in [0, 1] that it must reach, `confidence` how sure
    its producer was, in [0, 1]."""
    schema = infer_schema(answer, check_names(tuple(checks)))
    request = VerificationRequest(
        value=answer, schema=schema, evidence=evidence, checks=tuple(checks), accept=accept, confidence=confidence
    )
    return verify_without_models(request)


def infer_schema(answer: Any, checks: Collection[str]) -> dict[str, Any]:
    """The type of an answer that comes without one, as the checks need it.

    A text is a quote as a whole where a check compares words; in a record the fields `quote` and `quotes` are quotes.
    """
    if isinstance(answer, str):
        return {"type": "string", "format": QUOTE_FORMAT} if _QUOTE_CHECKS & set(checks) else {"type": "string"}
    return _infer_schema(answer, quoted=False)


def _infer_schema(value: Any, *, quoted: bool) -> dict[str, Any]:
    match value:
        case str():
            return {"type": "string", "format": QUOTE_FORMAT} if quoted else {"type": "string"}
        case Mapping():
            return {
                "type": "object",
                "properties": {
                    str(key): _infer_schema(part, quoted=key in QUOTE_FIELDS) for key, part in value.items()
                },
            }
        case Sequence():
            return {"type": "array", "prefixItems": [_infer_schema(part, quoted=quoted) for part in value]}
        case _:
            return {}
