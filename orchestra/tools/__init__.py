"""Tools that come with the package: `search` finds passages, `cite` answers from their readings, `cells` finds numbers
in
a table.

They compute in this process and give what they find to their caller alone, so they are cleared for all data
(`label="restricted"`).
"""

from orchestra.tools.cells import cells
from orchestra.tools.cite import cite
from orchestra.tools.search import search

BUILTIN_TOOLS = (search, cite, cells)
"""All of them; every project can name them."""

__all__ = ["BUILTIN_TOOLS", "cells", "cite", "search"]
