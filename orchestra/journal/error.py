"""What goes wrong with a journal."""

from __future__ import annotations

from orchestra.errors import OrchestraError


class JournalError(OrchestraError):
    """A store that cannot be opened, read or written, or a log that is not what was written."""
