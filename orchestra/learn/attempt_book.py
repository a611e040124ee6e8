"""The book of attempts: the log beside a certificate, on disk. Each test stands there before anybody sees what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestra.errors import InputError, Place
from orchestra.learn.appended import locked, read, write
from orchestra.values.json import canonical, digest
from orchestra.verify import attempts
from orchestra.verify.attempts import Attempt, Log
from orchestra.verify.certificate import Certification, Item, Terms, certify, checked
from orchestra.verify.row_marks import SKETCH, Marks, Rows


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
        one = _digest(items, terms)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path) as file:
                log = Log.read(read(file, attempts.MAX_BYTES), self._place)
                before = log.same(one)
                number = before.number if before is not None else log.number(rows)
                found = certify(items, replace(terms, attempt=number), between=between)
                if before is None:
                    line = Attempt(
                        at=datetime.now(UTC).isoformat(timespec="seconds"),
                        data=name,
                        marks=Marks.of(rows.marks, SKETCH),
                        tested=one,
                        alpha=terms.alpha,
                        delta=terms.delta,
                        number=number,
                        came=attempts.came(found),
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
