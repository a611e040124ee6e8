"""Checks of an answer against evidence without a workflow, and so without a declared type. Pure."""

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
"""Default score in [0, 1] from which an answer is accepted."""
QUOTE_FIELDS = frozenset({"quote", "quotes"})
"""Names of fields whose texts are quotes, in an answer without a type."""
_QUOTE_CHECKS = frozenset({"quote", "support"})
"""Checks that need to know which texts are quotes. The other checks would skip the numbers of a quote."""


def verify_answer(
    answer: Any,
    evidence: tuple[EvidenceSource, ...],
    checks: Sequence[str],
    accept: float = DEFAULT_THRESHOLD,
    confidence: float | None = None,
) -> VerificationResult:
    """Verifies an answer without calls.

    Args:
        answer: The answer as JSON.
        accept: Score in [0, 1] that it must reach.
        confidence: Confidence of its producer, in [0, 1].
    """
    schema = infer_schema(answer, check_names(tuple(checks)))
    request = VerificationRequest(
        value=answer, schema=schema, evidence=evidence, checks=tuple(checks), accept=accept, confidence=confidence
    )
    return verify_without_models(request)


def infer_schema(answer: Any, checks: Collection[str]) -> dict[str, Any]:
    """Infers a schema for an answer, as the checks need it.

    A text is a quote if a check compares words. In a record the fields `quote` and `quotes` are quotes.
    """
    if isinstance(answer, str):
        return {"type": "string", "format": QUOTE_FORMAT} if _QUOTE_CHECKS & set(checks) else {"type": "string"}
    return _infer_schema(answer, is_quote=False)


def _infer_schema(value: Any, *, is_quote: bool) -> dict[str, Any]:
    match value:
        case str():
            return {"type": "string", "format": QUOTE_FORMAT} if is_quote else {"type": "string"}
        case Mapping():
            return {
                "type": "object",
                "properties": {
                    str(key): _infer_schema(part, is_quote=key in QUOTE_FIELDS) for key, part in value.items()
                },
            }
        case Sequence():
            return {"type": "array", "prefixItems": [_infer_schema(part, is_quote=is_quote) for part in value]}
        case _:
            return {}
