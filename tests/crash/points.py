"""Kill points: before, inside and after every write of the journal and every call of a protocol, counted in order."""

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
"""SQLite virtual-machine instructions between two points inside one statement."""
PAGES = 60
"""Pages of the write-ahead log after which SQLite checkpoints, so that some points fall into checkpoints."""


class Kill(msgspec.Struct, frozen=True):
    """Time at which a process ends: at the `point`-th point that it reaches, counted from 1, and killed by its parent
    `delay` seconds later; with `point` 0, `delay` seconds after its start.
    """

    point: int = 0
    delay: float = 0.0


class Points:
    """Counts the points that this process reaches, and ends the process at one of them. Several threads may reach
    points concurrently.
    """

    def __init__(self, kill: Kill | None, note: Callable[[str], None], tell: Callable[[], None]) -> None:
        """`note` stores the name of the point; `tell` asks the parent to kill this process a little later."""
        self._kill, self._note, self._tell = kill, note, tell
        self._count = itertools.count(1)
        self.passed: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        """Records that this process reached a point."""
        number = next(self._count)
        self.passed[name] += 1
        if self._kill is not None and number == self._kill.point:
            self._note(name)
            if self._kill.delay:
                self._tell()
            else:
                os.kill(os.getpid(), signal.SIGKILL)


class WatchedConnection:
    """A SQLite connection with a point before, inside and after each statement."""

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
    """A proxy for an object, with a point before and after each call."""

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
    """Returns the journal with points at its protocol."""
    return cast(Journal, _Door(journal, reach))
