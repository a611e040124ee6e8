"""Kill points: places before, inside and after every write of the journal and every use of a door, counted as they are
passed.
"""

from __future__ import annotations

import inspect
import itertools
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from orchestra.core.protocols import Journal

INSIDE = 40
"""Instructions of SQLite's machine between two points inside one statement."""
PAGES = 60
"""Pages of the write-ahead log after which SQLite checkpoints, so that points fall into checkpoints as well."""


class Kill(msgspec.Struct, frozen=True):
    """When a process ends: at the `point`-th point that it passes, counted from 1, and `delay` seconds later by its
    parent's hand; with `point` 0, `delay` seconds after it began.
    """

    point: int = 0
    delay: float = 0.0


class Points:
    """Counts the points that this process passes, and ends it at one of them. Several threads may pass points at
    once.
    """

    def __init__(self, kill: Kill | None, note: Callable[[str], None], tell: Callable[[], None]) -> None:
        """`note` keeps the name of the point; `tell` has the parent kill this process a little later."""
        self._kill, self._note, self._tell = kill, note, tell
        self._count = itertools.count(1)
        self.passed: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        """This process is at a point."""
        number = next(self._count)
        self.passed[name] += 1
        if self._kill is not None and number == self._kill.point:
            self._note(name)
            if self._kill.delay:
                self._tell()
            else:
                os.kill(os.getpid(), signal.SIGKILL)


class WatchedConnection:
    """A SQLite connection with a point before and after each statement, and some inside."""

    def __init__(self, sql: sqlite3.Connection, reach: Callable[[str], None]) -> None:
        self._sql, self._reach, self._now = sql, reach, ""
        sql.execute(f"PRAGMA wal_autocheckpoint = {PAGES}")
        sql.set_progress_handler(self._inside, INSIDE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sql, name)

    def execute(self, statement: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """As SQLite's."""
        return self._watched(statement, lambda: self._sql.execute(statement, tuple(values)))

    def executemany(self, statement: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        """As SQLite's."""
        return self._watched(statement, lambda: self._sql.executemany(statement, rows))

    def _watched(self, statement: str, do: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        self._now = " ".join(statement.split("(")[0].split()[:3])
        self._reach(f"before {self._now}")
        found = do()
        self._reach(f"after {self._now}")
        return found

    def _inside(self) -> int:
        self._reach(f"inside {self._now}")
        return 0


class _Door:
    """Whatever it stands before, with a point before and after each use."""

    def __init__(self, door: Any, reach: Callable[[str], None]) -> None:
        self._door, self._reach = door, reach

    def __getattr__(self, name: str) -> Any:
        found, reach = getattr(self._door, name), self._reach
        if name == "wait_for_messages" or not callable(found):
            return found  # the number of calls depends on the speed of the machine, so they are not counted

        async def later(*values: Any, **named: Any) -> Any:
            reach(f"before {name}")
            value = await found(*values, **named)
            reach(f"after {name}")
            return value

        def now(*values: Any, **named: Any) -> Any:
            reach(f"before {name}")
            value = found(*values, **named)
            reach(f"after {name}")
            return value

        return later if inspect.iscoroutinefunction(found) else now


def watched(journal: Journal, reach: Callable[[str], None]) -> Journal:
    """The journal, with points at its door."""
    return cast(Journal, _Door(journal, reach))
