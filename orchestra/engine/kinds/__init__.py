"""Node kinds: one small machine each, from a unit of work to the next proposal.

Plans, and agents with tools, take the router; their machines are loaded at first use, as attributes of this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from orchestra.engine.kinds import planning, recalling, using, voting

    __all__ = ["planning", "recalling", "using", "voting"]
else:

    def __getattr__(name: str) -> ModuleType:
        if name in ("planning", "recalling", "using", "voting"):
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
