"""The log of certification attempts beside a certificate. An attempt is on disk before its result is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from orchestra.core.errors import InputError, SourceLocation
from orchestra.learn.certification.append_only import open_locked, read, write
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates import attempts
from orchestra.verification.certificates.attempts import AttemptLog, AttemptOutcome, CertificationAttempt
from orchestra.verification.certificates.certify import (
    Certification,
    CertificationTerms,
    ScoredAnswer,
    certify,
    validate,
)
from orchestra.verification.certificates.conformal import CalibrationAnswer, FactualityResult
from orchestra.verification.certificates.row_fingerprints import SAMPLE_SIZE, RowFingerprints, RowSet

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _TestedRows:
    """A test of some rows: their name, the digest of the tested items, and the terms."""

    name: str
    rows: RowSet
    tested_digest: str
    alpha: float
    delta: float


@dataclass(frozen=True, slots=True)
class AttemptLogFile:
    """The attempt log of one agent, on disk."""

    path: Path

    def next_terms(
        self, rows: RowSet, terms: CertificationTerms, items: Sequence[ScoredAnswer] | None = None
    ) -> CertificationTerms:
        """Returns the terms of the next attempt on these rows. If the same answers are recorded already, returns the
        terms of that attempt.

        Raises:
            InputError: V025 if the log is invalid; V006 if the items are invalid.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise self._unusable_error(error) from error
        log = AttemptLog.from_bytes(data, self._location)
        before = log.find_test(_items_digest(items, terms)) if items is not None else None
        return replace(terms, attempt=before.number if before is not None else log.next_number(rows))

    def check_writable(self) -> None:
        """Checks that the log can be extended, before answers are computed.

        Raises:
            InputError: V025 if the log is invalid or not writable.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise self._unusable_error(error) from error

    def record_certification(
        self,
        name: str,
        rows: RowSet,
        items: Sequence[ScoredAnswer],
        terms: CertificationTerms,
        between: Callable[[], None],
    ) -> Certification:
        """Certifies answers and records the attempt; it is on disk when the call returns. The same answers under the
        same terms are the same attempt.

        Raises:
            InputError: V025 if the log is invalid; V006 if the items are invalid.
        """

        def made(number: int) -> tuple[Certification, AttemptOutcome]:
            certification = certify(items, replace(terms, attempt=number), on_round=between)
            return certification, attempts.attempt_outcome(certification)

        return self._record(_TestedRows(name, rows, _items_digest(items, terms), terms.alpha, terms.delta), made)

    def record_claims_calibration(
        self, name: str, rows: RowSet, answers: Sequence[CalibrationAnswer], found: FactualityResult
    ) -> int:
        """Records a calibration of claims as an attempt and returns its number. It has no delta that attempts could
        share. It is on disk when the call returns.

        Raises:
            InputError: V025 if the log is invalid.
        """
        answers_digest = digest(
            canonical(
                [[[answer.id, [list(part) for part in answer.parts]] for answer in answers], found.alpha, found.seed]
            )
        )
        status: AttemptOutcome = "infeasible" if found.threshold is None else "certified"
        return self._record(_TestedRows(name, rows, answers_digest, found.alpha, 0.0), lambda number: (number, status))

    def _record(self, test: _TestedRows, compute: Callable[[int], tuple[T, AttemptOutcome]]) -> T:
        """Runs a test as an attempt of the right number and records it on disk."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open_locked(self.path) as file:
                log = AttemptLog.from_bytes(read(file, attempts.MAX_BYTES), self._location)
                before = log.find_test(test.tested_digest)
                number = before.number if before is not None else log.next_number(test.rows)
                result, status = compute(number)
                if before is None:
                    line = CertificationAttempt(
                        at=datetime.now(UTC).isoformat(timespec="seconds"),
                        data=test.name,
                        fingerprints=RowFingerprints.of(test.rows.fingerprints, SAMPLE_SIZE),
                        test_digest=test.tested_digest,
                        alpha=test.alpha,
                        delta=test.delta,
                        number=number,
                        outcome=status,
                    )
                    write(file, log.encode_next(line), log.size)
        except OSError as error:
            raise self._unusable_error(error) from error
        return result

    @property
    def _location(self) -> SourceLocation:
        return SourceLocation(str(self.path), 1)

    def _unusable_error(self, error: OSError) -> InputError:
        reason = error.strerror or str(error)
        return InputError(
            "V025",
            f"the log of attempts cannot be used: {self.path}: {reason}",
            hint="it must be a writable file",
        )


def _items_digest(items: Sequence[ScoredAnswer], terms: CertificationTerms) -> str:
    """Returns the digest of the answers, their scores, and the terms of the test."""
    return digest(canonical([[list(item) for item in validate(items)], terms.alpha, terms.delta, terms.seed]))
