"""Tools that come with the package: `search` finds passages, `cite` answers from their readings."""

from orchestra.tools.cite import cite
from orchestra.tools.search import search

__all__ = ["cite", "search"]
