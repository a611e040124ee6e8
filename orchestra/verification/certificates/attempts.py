"""The attempt log beside a certificate: the rows an agent was tested on, and the outcome. Pure.

A further test on the same rows is another chance to pass by luck. So all tests of the same rows share delta, and the
log determines the number of the next one. The log has JSON lines with a chain of digests, like the audit log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates.certify import Certification, Certified, InsufficientData
from orchestra.verification.certificates.row_fingerprints import RowFingerprints, RowSet

FILE_NAME, CLAIMS_FILE_NAME = "attempts.jsonl", "claims_attempts.jsonl"
MAX_BYTES = 64 << 20
FORMAT = "orchestra/attempts/v2"
"""Start of the chain of digests."""
AttemptOutcome: TypeAlias = Literal["certified", "insufficient data", "infeasible"]


class CertificationAttempt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A test of rows for a guarantee."""

    at: str
    """UTC, ISO 8601."""
    data: str
    """Name of the data. The fingerprints identify its rows."""
    fingerprints: RowFingerprints
    test_digest: str
    """Digest of the answers, their scores and the terms. A repeated test is no new attempt."""
    alpha: float
    delta: float
    number: int
    """Number of the attempt on these rows, from 1."""
    outcome: AttemptOutcome
    digest: str = ""
    """Digest of the previous line's digest and everything else in this line."""


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """The lines of a log, and their size in bytes. A last line without a line end (a torn write) is ignored."""

    lines: tuple[CertificationAttempt, ...] = ()
    size: int = 0

    @classmethod
    def from_bytes(cls, data: bytes, location: SourceLocation) -> AttemptLog:
        """Decodes a file. Raises `InputError` V025 for an invalid or modified line."""
        size, lines = data.rfind(b"\n") + 1, list[CertificationAttempt]()
        if len(data) > MAX_BYTES:
            raise _log_error(f"it has more than {MAX_BYTES >> 20} MiB", location)
        for number, text in enumerate(data[:size].split(b"\n")[:-1], 1):
            line_location = SourceLocation(location.file, number)
            try:
                line = msgspec.json.decode(text, type=CertificationAttempt)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise _log_error(f"line {number} is not an attempt: {error}", line_location) from error
            if line != _with_digest(lines, line):
                raise _log_error(
                    f"line {number}, or the one before it, was changed after it was written", line_location
                )
            lines.append(line)
        return cls(tuple(lines), size)

    def next_number(self, rows: RowSet) -> int:
        """Number of the next attempt on these rows."""
        return 1 + sum(rows.overlaps((), line.fingerprints) for line in self.lines)

    def find_test(self, test_digest: str) -> CertificationAttempt | None:
        """Returns the attempt with this test digest, or None."""
        return next((line for line in self.lines if line.test_digest == test_digest), None)

    def encode_next(self, line: CertificationAttempt) -> bytes:
        """Encodes a line that follows these lines."""
        return msgspec.json.encode(_with_digest(self.lines, line)) + b"\n"


def attempt_outcome(found: Certification) -> AttemptOutcome:
    """Returns the outcome of a certification, as the log stores it."""
    outcome = found.outcome
    return (
        "certified"
        if isinstance(outcome, Certified)
        else "insufficient data"
        if isinstance(outcome, InsufficientData)
        else "infeasible"
    )


def _with_digest(
    before: list[CertificationAttempt] | tuple[CertificationAttempt, ...], line: CertificationAttempt
) -> CertificationAttempt:
    bare = {**msgspec.to_builtins(line), "digest": ""}
    return msgspec.structs.replace(line, digest=digest(canonical([before[-1].digest if before else FORMAT, bare])))


def _log_error(reason: str, location: SourceLocation) -> InputError:
    return InputError(
        "V025", f"the attempt log is invalid: {reason}", location=location, hint="restore the file from a copy"
    )
