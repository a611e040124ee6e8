"""Journals: append-only logs of events, with values stored once by digest. `sqlite` keeps them in a file, `postgres` in
a database, `memory` in this process; the other modules derive data from events.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = [
    "Durability",
    "costs",
    "errors",
    "hash_chain",
    "history",
    "memory",
    "postgres",
    "scan",
    "sqlite",
    "summary",
    "usage",
]

Durability: TypeAlias = Literal["strict", "group", "off"]
"""When a commit is durable: `strict` and `group` wait for the disk, `off` does not."""

# Limits shared by the SQLite and the Postgres journal. They are in this module because every further module costs time
# at start-up.
GROUP_COMMIT_DELAY = 0.005
"""Maximum delay in seconds of a group commit if no caller waits."""
MAX_BATCH_ENTRIES = 8_192
"""Maximum number of entries in one commit, so that waiting callers are served evenly."""
SCAN_BATCH_EVENTS = 2000
"""Approximate number of events in memory while all runs are scanned."""
MAX_FOUND_RUNS = 100
"""Maximum number of ids that `find_runs` returns."""
RETRY_INTERVAL = 1.0
"""Seconds between two attempts to write again after a transient fault."""
MAX_BODY_BYTES = 64 << 20
"""Maximum size in bytes of one event, inbox message or memoized answer."""
