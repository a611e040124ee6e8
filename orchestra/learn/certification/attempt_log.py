"""The book of attempts: the log beside a certificate, on disk. Each test stands there before anybody sees what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from orchestra.core.errors import InputError, Place
from orchestra.learn.append_only import locked, read, write
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates import attempts
from orchestra.verification.certificates.attempts import Attempt, Came, Log
from orchestra.verification.certificates.certify import Certification, Item, Terms, certify, checked
from orchestra.verification.certificates.conformal import Answer, Factuality
from orchestra.verification.certificates.row_fingerprints import SKETCH, Marks, Rows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Test:
    """A test of some rows: their name, the digest of what is tested, and the terms."""

    name: str
    rows: Rows
    tested: str
    alpha: float
    delta: float


@dataclass(frozen=True, slots=True)
class AttemptBook:
    """The log of attempts of one agent, on disk."""

    path: Path

    def terms(self, rows: Rows, terms: Terms, items: Sequence[Item] | None = None) -> Terms:
        """The terms of the next attempt on these rows; where the answers are there already, of the attempt that they were. Raises
        `InputError` V025, and V006 for items that are none."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise self._unusable(error) from error
        log = Log.read(data, self._place)
        before = log.same(_digest(items, terms)) if items is not None else None
        return replace(terms, attempt=before.number if before is not None else log.number(rows))

    def check(self) -> None:
        """Refuses a log that nothing could be added to, before anybody is asked for answers to test. Raises `InputError` V025."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise self._unusable(error) from error

    def tested(self, name: str, rows: Rows, items: Sequence[Item], terms: Terms, between: Callable[[], None]) -> Certification:
        """The certification of some answers, written down as an attempt on these rows, on disk when it returns.

        The same answers under the same terms are the attempt that they were. Raises `InputError` V025, and V006 for items that are none.
        """

        def made(number: int) -> tuple[Certification, Came]:
            found = certify(items, replace(terms, attempt=number), between=between)
            return found, attempts.came(found)

        return self._noted(_Test(name, rows, _digest(items, terms), terms.alpha, terms.delta), made)

    def counted(self, name: str, rows: Rows, answers: Sequence[Answer], found: Factuality) -> int:
        """Which attempt on these rows a calibration of claims is, which has no delta that attempts could share; written down as above.
        Raises `InputError` V025."""
        tested = digest(canonical([[[one.id, [list(part) for part in one.parts]] for one in answers], found.alpha, found.seed]))
        came: Came = "infeasible" if found.threshold is None else "certified"
        return self._noted(_Test(name, rows, tested, found.alpha, 0.0), lambda number: (number, came))

    def _noted(self, test: _Test, made: Callable[[int], tuple[T, Came]]) -> T:
        """What comes of a test, given which attempt it is, with its line on disk."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path) as file:
                log = Log.read(read(file, attempts.MAX_BYTES), self._place)
                before = log.same(test.tested)
                number = before.number if before is not None else log.number(test.rows)
                found, came = made(number)
                if before is None:
                    line = Attempt(
                        at=datetime.now(UTC).isoformat(timespec="seconds"),
                        data=test.name,
                        marks=Marks.of(test.rows.marks, SKETCH),
                        tested=test.tested,
                        alpha=test.alpha,
                        delta=test.delta,
                        number=number,
                        came=came,
                    )
                    write(file, log.following(line), log.size)
        except OSError as error:
            raise self._unusable(error) from error
        return found

    @property
    def _place(self) -> Place:
        return Place(str(self.path), 1)

    def _unusable(self, error: OSError) -> InputError:
        why = error.strerror or str(error)
        return InputError("V025", f"the log of attempts cannot be used: {self.path}: {why}", hint="it must be a file that can be written")


def _digest(items: Sequence[Item], terms: Terms) -> str:
    """Of answers, their scores, and the terms that they are tested by."""
    return digest(canonical([[list(item) for item in checked(items)], terms.alpha, terms.delta, terms.seed]))
