"""Orchestra: orchestrates small specialised language models into one dependable system.

The names in `__all__` are the public API. They are imported at first use, so that `import orchestra` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra.app.blocking import blocking
    from orchestra.app.disconnection import run_until_disconnected
    from orchestra.app.orchestra import BlockingOrchestra, Orchestra
    from orchestra.app.result import Result
    from orchestra.app.run import Run
    from orchestra.app.run_status import RunView
    from orchestra.app.workflow_view import WorkflowView
    from orchestra.core.errors import (
        Abstained,
        BudgetExceeded,
        FleetError,
        InputError,
        InputErrors,
        OrchestraError,
        RunFailed,
    )
    from orchestra.core.events import Event as RunEvent
    from orchestra.engine.streaming import TextPiece
    from orchestra.fleet.status import FleetStatus, ServerStatus
    from orchestra.journal.errors import JournalError
    from orchestra.schema.builtin_models import Answer, Citation, Document, Judgement, Passage, Quote, Reading
    from orchestra.workflows.model import Budget, Defaults, Graph, PlanLimits, Retry
    from orchestra.workflows.python.dsl import (
        Check,
        Maybe,
        abstain,
        accepted,
        agent_by,
        agree,
        all_of,
        any_of,
        as_text,
        ask,
        back_off,
        build,
        certified,
        choose,
        combined,
        contains,
        entailment,
        escalate,
        filter_,
        first_of,
        format_,
        has_value,
        length,
        loop,
        map_,
        not_,
        numbers,
        or_else,
        plan,
        quote,
        recompute,
        rederive,
        require,
        retry,
        support,
        values,
        verify,
        when,
    )
    from orchestra.workflows.python.steps import Agent, Step, Tool, Workflow, agent, answered_by_model, tool, workflow

__all__ = [
    "Abstained",
    "Agent",
    "Answer",
    "BlockingOrchestra",
    "Budget",
    "BudgetExceeded",
    "Check",
    "Citation",
    "Defaults",
    "Document",
    "FleetError",
    "FleetStatus",
    "Graph",
    "InputError",
    "InputErrors",
    "JournalError",
    "Judgement",
    "Maybe",
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
    "RunView",
    "ServerStatus",
    "Step",
    "TextPiece",
    "Tool",
    "Workflow",
    "WorkflowView",
    "abstain",
    "accepted",
    "agent",
    "agent_by",
    "agree",
    "all_of",
    "answered_by_model",
    "any_of",
    "as_text",
    "ask",
    "back_off",
    "blocking",
    "build",
    "certified",
    "choose",
    "combined",
    "contains",
    "entailment",
    "escalate",
    "filter_",
    "first_of",
    "format_",
    "has_value",
    "length",
    "loop",
    "map_",
    "not_",
    "numbers",
    "or_else",
    "plan",
    "quote",
    "recompute",
    "rederive",
    "require",
    "retry",
    "run_until_disconnected",
    "support",
    "tool",
    "values",
    "verify",
    "when",
    "workflow",
]

_NAMES_BY_MODULE = {
    "app.blocking": "blocking",
    "app.disconnection": "run_until_disconnected",
    "app.orchestra": "BlockingOrchestra Orchestra",
    "app.result": "Result",
    "app.run": "Run",
    "app.run_status": "RunView",
    "app.workflow_view": "WorkflowView",
    "core.errors": "Abstained BudgetExceeded FleetError InputError InputErrors OrchestraError RunFailed",
    "engine.streaming": "TextPiece",
    "fleet.status": "FleetStatus ServerStatus",
    "journal.errors": "JournalError",
    "schema.builtin_models": "Answer Citation Document Judgement Passage Quote Reading",
    "workflows.model": "Budget Defaults Graph PlanLimits Retry",
    "workflows.python.steps": "Agent Step Tool Workflow agent answered_by_model tool workflow",
}
"""The public names of each module. The functions of the DSL are in `workflows.python.dsl`, and `RunEvent` is
`core.events.Event`.
"""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "RunEvent":
        value = importlib.import_module("orchestra.core.events").Event
    else:
        module = next(
            (module for module, names in _NAMES_BY_MODULE.items() if name in names.split()), "workflows.python.dsl"
        )
        value = getattr(importlib.import_module(f"orchestra.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
