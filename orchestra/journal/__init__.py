"""The one record of what happened: an append-only log of events, and values stored once by digest."""

from __future__ import annotations

from typing import Literal, TypeAlias

Durability: TypeAlias = Literal["strict", "group", "off"]
"""When a commit is durable: `strict` and `group` wait for the disk, `off` does not."""

# Limits that the journals of a file and of a database have in common; here, for each module more is waited for at a start.
GROUP_COMMIT_DELAY = 0.005
"""Seconds that events wait for company while nobody waits for them."""
MAX_BATCH_ENTRIES = 8_192
"""Entries in one commit at most, so that those who wait are served steadily."""
SCAN_BATCH_EVENTS = 2000
"""Events that are held at once, or somewhat more, while somebody goes through all runs."""
MAX_FOUND_RUNS = 100
"""Ids that `find_runs` gives at most."""
RETRY_INTERVAL = 1.0
"""Seconds between two tries of a journal that could not write to do so again."""
MAX_BODY_BYTES = 64 << 20
"""Bytes of one event, letter or answer at most."""
