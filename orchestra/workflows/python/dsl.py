"""Words of the workflow language in Python. Each describes a part of the graph, and is typed as the value that it will have."""

from orchestra.workflows.python.acceptance import (
    AbstainAction,
    AcceptThreshold,
    Check,
    RecoveryAction,
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
from orchestra.workflows.python.branches import first_of, require, when
from orchestra.workflows.python.conditions import (
    all_of,
    any_of,
    as_text,
    choose,
    contains,
    has_value,
    length,
    not_,
    or_else,
)
from orchestra.workflows.python.loop import loop
from orchestra.workflows.python.map import filter_, map_, values
from orchestra.workflows.python.placeholders import Maybe
from orchestra.workflows.python.plan import plan
from orchestra.workflows.python.records import build

__all__ = [
    "AbstainAction",
    "AcceptThreshold",
    "Check",
    "Maybe",
    "RecoveryAction",
    "abstain",
    "accepted",
    "agent_by",
    "agree",
    "all_of",
    "any_of",
    "as_text",
    "ask",
    "back_off",
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
    "support",
    "values",
    "verify",
    "when",
]
