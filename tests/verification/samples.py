"""Certificates for tests: sound in themselves, of made-up answers."""

from __future__ import annotations

import msgspec

from orchestra.verification.certificates.certify import CertificationTerms, ScoredAnswer, certify
from orchestra.verification.certificates.file import (
    Certificate,
    CertificationOrigin,
    DependencyDigests,
    build_certificate,
)

BONDS = DependencyDigests("card", "model", "adapter", "checks")
ITEMS = [ScoredAnswer(f"{at}", at / 1200, at < 400) for at in range(1200)]
FOUND = certify(ITEMS, CertificationTerms(), rounds=5)
_ORIGIN = CertificationOrigin("rows.jsonl", "d" * 32, ("EM",), False)


def certified(agent: str = "reader", checks: tuple[str, ...] = ("quote", "confidence"), threshold: float | None = None) -> Certificate:
    """A certificate of an agent, with a threshold of its own where one is wanted."""
    made = build_certificate(agent, checks, FOUND, _ORIGIN, BONDS, "2026-11-25T12:00:00+00:00")
    return made if threshold is None else msgspec.structs.replace(made, threshold=threshold).with_digest()
