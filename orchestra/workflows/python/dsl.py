"""Words of the workflow language in Python. Each describes a part of the graph, and is typed as the value that it will have."""

from orchestra.workflows.python.acceptance import (
    Abstain,
    Accept,
    Again,
    Check,
    abstain,
    accepted,
    agree,
    back_off,
    certified,
    combined,
    entailment,
    escalate,
    format_,
    numbers,
    quote,
    recompute,
    rederive,
    retry,
    support,
    verify,
)
from orchestra.workflows.python.agent_by import agent_by
from orchestra.workflows.python.ask import ask
from orchestra.workflows.python.branches import first_of, needed, when
from orchestra.workflows.python.conditions import all_of, any_of, as_text, choose, contains, length, not_, or_else, present
from orchestra.workflows.python.loop import loop
from orchestra.workflows.python.map import filter_, map_, values
from orchestra.workflows.python.placeholders import Guarded
from orchestra.workflows.python.plan import plan
from orchestra.workflows.python.records import new

__all__ = [
    "Abstain",
    "Accept",
    "Again",
    "Check",
    "Guarded",
    "abstain",
    "accepted",
    "agent_by",
    "agree",
    "all_of",
    "any_of",
    "as_text",
    "ask",
    "back_off",
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
    "values",
    "verify",
    "when",
]
