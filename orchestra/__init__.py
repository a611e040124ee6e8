"""Orchestra: a fleet of small specialised language models that works as one dependable system.

Names are loaded at first use, so that `import orchestra` costs nothing. Five of them, `agent`, `blocking`, `values`, `verify` and
`workflow`, are also names of modules: as attributes of this package they are the functions; `from orchestra.workflow.nodes import ...`
works as ever.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra.app import Orchestra
    from orchestra.blocking import blocking
    from orchestra.engine.live import TextPiece
    from orchestra.errors import (
        Abstained,
        BudgetExceeded,
        FleetError,
        InputError,
        InputErrors,
        OrchestraError,
        RunFailed,
    )
    from orchestra.events import Event as RunEvent
    from orchestra.fleet.status import FleetStatus, ServerStatus
    from orchestra.journal.error import JournalError
    from orchestra.result import Result
    from orchestra.run import Run
    from orchestra.seen import Seen
    from orchestra.values.models import Answer, Citation, Document, Judgement, Passage, Quote, Reading
    from orchestra.workflow.nodes import Budget, Defaults, Graph, PlanLimits, Retry
    from orchestra.workflow.steps import Agent, Step, Tool, Workflow, agent, by_model, tool, workflow
    from orchestra.workflow.words import (
        Check,
        Guarded,
        abstain,
        accepted,
        agent_by,
        agree,
        all_of,
        any_of,
        as_text,
        ask,
        back_off,
        certified,
        choose,
        combined,
        contains,
        entailment,
        escalate,
        filter_,
        first_of,
        format_,
        length,
        loop,
        map_,
        needed,
        new,
        not_,
        numbers,
        or_else,
        plan,
        present,
        quote,
        recompute,
        rederive,
        retry,
        support,
        values,
        verify,
        when,
    )

__all__ = [
    "Abstained",
    "Agent",
    "Answer",
    "Budget",
    "BudgetExceeded",
    "Check",
    "Citation",
    "Defaults",
    "Document",
    "FleetError",
    "FleetStatus",
    "Graph",
    "Guarded",
    "InputError",
    "InputErrors",
    "JournalError",
    "Judgement",
    "Orchestra",
    "OrchestraError",
    "Passage",
    "PlanLimits",
    "Quote",
    "Reading",
    "Result",
    "Retry",
    "Run",
    "RunEvent",
    "RunFailed",
    "Seen",
    "ServerStatus",
    "Step",
    "TextPiece",
    "Tool",
    "Workflow",
    "abstain",
    "accepted",
    "agent",
    "agent_by",
    "agree",
    "all_of",
    "any_of",
    "as_text",
    "ask",
    "back_off",
    "blocking",
    "by_model",
    "certified",
    "choose",
    "combined",
    "contains",
    "entailment",
    "escalate",
    "filter_",
    "first_of",
    "format_",
    "length",
    "loop",
    "map_",
    "needed",
    "new",
    "not_",
    "numbers",
    "or_else",
    "plan",
    "present",
    "quote",
    "recompute",
    "rederive",
    "retry",
    "support",
    "tool",
    "values",
    "verify",
    "when",
    "workflow",
]

_HOMES = {
    "app": "Orchestra",
    "run": "Run",
    "blocking": "blocking",
    "engine.live": "TextPiece",
    "errors": "Abstained BudgetExceeded FleetError InputError InputErrors OrchestraError RunFailed",
    "fleet.status": "FleetStatus ServerStatus",
    "journal.error": "JournalError",
    "result": "Result",
    "seen": "Seen",
    "values.models": "Answer Citation Document Judgement Passage Quote Reading",
    "workflow.nodes": "Budget Defaults Graph PlanLimits Retry",
    "workflow.steps": "Agent Step Tool Workflow agent by_model tool workflow",
}
"""The modules that names come from; the words of the language come from `workflow.words`, `RunEvent` is `events.Event`."""


def _load(name: str) -> Any:
    """A public name, from its module."""
    if name == "RunEvent":
        return importlib.import_module("orchestra.events").Event
    home = next((module for module, names in _HOMES.items() if name in names.split()), "workflow.words")
    return getattr(importlib.import_module(f"orchestra.{home}"), name)


class _Package(ModuleType):
    """The package, with public names instead of rooms of the same name."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = _load(name)
        if name not in _SHADOWED:
            setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *__all__})


def _shadowing(name: str) -> property:
    """A name that stays itself when the import system sets the room of that name on the package.

    `import orchestra.workflow.nodes as nodes` asks the function for `nodes`, and then `sys.modules` for what its `__name__` says.
    """

    def get(package: ModuleType) -> Any:
        found = _load(name)
        found.__name__ = f"{package.__name__}.{name}"
        return found

    return property(get, lambda package, room: None)


_SHADOWED = ("agent", "blocking", "values", "verify", "workflow")
for _name in _SHADOWED:
    setattr(_Package, _name, _shadowing(_name))
sys.modules[__name__].__class__ = _Package
