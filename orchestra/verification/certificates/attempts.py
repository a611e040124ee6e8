"""The log of attempts beside a certificate: which rows an agent was tested on for a promise, and what came of it. Pure.

Who tests again on rows that were tested before has another chance to be lucky. So the tests of the same rows have delta together: the log
tells which one the next is. Lines of JSON with a chain of digests, as the log of audits has.
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
"""Where the chain of digests begins."""
AttemptOutcome: TypeAlias = Literal["certified", "insufficient data", "infeasible"]


class CertificationAttempt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A test of rows for a promise."""

    at: str
    """UTC, ISO 8601."""
    data: str
    """The name of the rows, and the marks that they are known again by."""
    fingerprints: RowFingerprints
    test_digest: str
    """Digest of the answers, their scores, and the terms: the same once more is no other attempt."""
    alpha: float
    delta: float
    number: int
    """Which one of these rows it is."""
    outcome: AttemptOutcome
    digest: str = ""
    """Of the digest of the line before and of everything else in this one."""


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """A log's lines, and how many of the file's bytes they are: a last line without its end was cut off when it was written."""

    lines: tuple[CertificationAttempt, ...] = ()
    size: int = 0

    @classmethod
    def from_bytes(cls, data: bytes, place: SourceLocation) -> AttemptLog:
        """Of a file's bytes. Raises `InputError` V025 for a line that is none, or that was changed."""
        size, lines = data.rfind(b"\n") + 1, list[CertificationAttempt]()
        if len(data) > MAX_BYTES:
            raise _log_error(f"it has more than {MAX_BYTES >> 20} MiB", place)
        for number, text in enumerate(data[:size].split(b"\n")[:-1], 1):
            here = SourceLocation(place.file, number)
            try:
                line = msgspec.json.decode(text, type=CertificationAttempt)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise _log_error(f"line {number} is no attempt: {error}", here) from error
            if line != _with_digest(lines, line):
                raise _log_error(f"line {number}, or the one before it, was changed since it was written", here)
            lines.append(line)
        return cls(tuple(lines), size)

    def next_number(self, rows: RowSet) -> int:
        """Which attempt on these rows the next one is."""
        return 1 + sum(rows.overlaps((), line.fingerprints) for line in self.lines)

    def find_test(self, test_digest: str) -> CertificationAttempt | None:
        """The attempt that was this very test; None where none was."""
        return next((line for line in self.lines if line.test_digest == test_digest), None)

    def encode_next(self, line: CertificationAttempt) -> bytes:
        """A line as it follows on these, as it stands in the file."""
        return msgspec.json.encode(_with_digest(self.lines, line)) + b"\n"


def attempt_outcome(found: Certification) -> AttemptOutcome:
    """What a test came to."""
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


def _log_error(why: str, place: SourceLocation) -> InputError:
    return InputError(
        "V025", f"the log of attempts cannot be relied on: {why}", location=place, hint="restore the file from a copy"
    )
