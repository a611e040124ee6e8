"""Built-in tools: `search` finds passages, `cite` selects an answer from readings, `cells` locates numbers in a table.

They run in this process and return their results only to the caller, so they may process all data
(`label="restricted"`).
"""

from orchestra.tools.cells import cells
from orchestra.tools.cite import cite
from orchestra.tools.search import search

# The first paragraph of a tool's docstring is its description in the router's requests. A change of it changes plans.
BUILTIN_TOOLS = (search, cite, cells)
"""All built-in tools. Every project can use them."""

__all__ = ["BUILTIN_TOOLS", "cells", "cite", "search"]
