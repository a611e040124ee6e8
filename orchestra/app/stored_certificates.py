"""The certificates that a run started with, and the guarantees that they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from orchestra.app.snapshot_store import CERTIFICATE, CLAIMS, WORKFLOW_CERTIFICATE
from orchestra.core.errors import InputError
from orchestra.core.events import Event, RunStarted
from orchestra.core.protocols import Journal
from orchestra.journal.history import History
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.file import Certificate

StoredCertificate: TypeAlias = Certificate | ClaimsCertificate


async def read_certificates(journal: Journal, events: Sequence[Event]) -> list[StoredCertificate]:
    """The certificates that a run started with. Missing or unreadable ones are left out."""
    start_event = events[0] if events else None
    certificates: list[StoredCertificate] = []
    for name, mark in start_event.versions.items() if isinstance(start_event, RunStarted) else ():
        kind = name.partition("/")[0]
        data = await journal.get_blob(mark) if kind in (CERTIFICATE, CLAIMS, WORKFLOW_CERTIFICATE) else None
        if data is not None:
            try:
                certificates.append((ClaimsCertificate if kind == CLAIMS else Certificate).from_bytes(data))
            except InputError:
                continue
    return certificates


def iter_guarantees(
    history: History, certificates: Sequence[StoredCertificate]
) -> Iterator[tuple[str, str, StoredCertificate | None]]:
    """The nodes with a guarantee, its sentence, and its certificate; None if that is unknown."""
    for row in history.rows:
        guarantee = next((attempt.guarantee for attempt in reversed(row.attempts) if attempt.guarantee), "")
        candidates = [certificate for certificate in certificates if certificate.guarantee == guarantee]
        if guarantee:
            yield (
                row.path,
                guarantee,
                next(
                    (certificate for certificate in candidates if certificate.agent == row.name),
                    candidates[0] if len(candidates) == 1 else None,
                ),
            )


def certificates_by_node(
    history: History, certificates: Sequence[StoredCertificate]
) -> Mapping[str, Mapping[str, Any]]:
    """The certificates behind guarantees, by the path of their node."""
    return {
        path: certificate.summary
        for path, _, certificate in iter_guarantees(history, certificates)
        if certificate is not None
    }
