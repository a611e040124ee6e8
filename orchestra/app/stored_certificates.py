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
    started = events[0] if events else None
    found: list[StoredCertificate] = []
    for name, mark in started.versions.items() if isinstance(started, RunStarted) else ():
        kind = name.partition("/")[0]
        data = await journal.get_blob(mark) if kind in (CERTIFICATE, CLAIMS, WORKFLOW_CERTIFICATE) else None
        if data is not None:
            try:
                found.append((ClaimsCertificate if kind == CLAIMS else Certificate).from_bytes(data))
            except InputError:
                continue
    return found


def iter_guarantees(
    history: History, certificates: Sequence[StoredCertificate]
) -> Iterator[tuple[str, str, StoredCertificate | None]]:
    """The nodes with a guarantee, its sentence, and its certificate; None if that is unknown."""
    for row in history.rows:
        said = next((tried.guarantee for tried in reversed(row.attempts) if tried.guarantee), "")
        same = [one for one in certificates if one.guarantee == said]
        if said:
            yield (
                row.path,
                said,
                next((one for one in same if one.agent == row.name), same[0] if len(same) == 1 else None),
            )


def certificates_by_node(
    history: History, certificates: Sequence[StoredCertificate]
) -> Mapping[str, Mapping[str, Any]]:
    """The certificates behind guarantees, by the path of their node."""
    return {path: one.summary for path, _, one in iter_guarantees(history, certificates) if one is not None}
