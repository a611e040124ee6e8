"""Tools that come with the package: `search` finds passages, `cite` answers from their readings, `cells` finds numbers in a table."""

from orchestra.tools.cells import cells
from orchestra.tools.cite import cite
from orchestra.tools.search import search

TOOLS = (search, cite, cells)
"""All of them; every project can name them."""

__all__ = ["TOOLS", "cells", "cite", "search"]
