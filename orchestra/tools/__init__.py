"""Tools that come with the package: `search` finds passages, `cite` answers from their readings."""

from orchestra.tools.cite import cite
from orchestra.tools.search import search

TOOLS = (search, cite)
"""All of them; every project can name them."""

__all__ = ["TOOLS", "cite", "search"]
