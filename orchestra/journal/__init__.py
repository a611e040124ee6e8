"""The one record of what happened: an append-only log of events, and values stored once by digest."""

from __future__ import annotations

# Limits that the journals of a file and of a database have in common; here, for each module more is waited for at a start.
GATHER = 0.005
"""Seconds that events wait for company while nobody waits for them."""
MOST = 8_192
"""Entries in one commit at most, so that those who wait are served steadily."""
AT_ONCE = 2000
"""Events that are held at once, or somewhat more, while somebody goes through all runs."""
FOUND = 100
"""Ids that `find` gives at most."""
AGAIN = 1.0
"""Seconds between two tries of a journal that could not write to do so again."""
MAX_BODY = 64 << 20
"""Bytes of one event, letter or answer at most."""
