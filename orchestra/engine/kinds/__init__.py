"""Node kinds: for each, a small state machine from a unit of work to the next proposal.

Plans and agents with tools need the router; their modules are loaded at first use, as attributes of this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from orchestra.engine.kinds import plan, plan_cache, plan_voting, tool_use

    __all__ = ["plan", "plan_cache", "plan_voting", "tool_use"]
else:

    def __getattr__(name: str) -> ModuleType:
        if name in ("plan", "plan_cache", "plan_voting", "tool_use"):
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
