"""Parts of a run as text for people: values, and who or what decided."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from orchestra.core.events import OverrideSource
from orchestra.journal.history import NodeAttempt, NodeRow


def format_value(value: Any) -> str:
    """Formats a value: a text as it is, an answer by its text, other values as indented JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"text", "citations"}:
        return value["text"] if isinstance(value["text"], str) else "The documents do not contain the answer."
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except RecursionError:  # Orchestra writes no such value, but a journal's may be nested that deep
        return "(nested too deep to be shown; see --json)"


def describe_given(given: OverrideSource) -> str:
    """Describes the override of a step: its author and its run."""
    return f"given by {given.by or 'a person'}{f', in run {given.run}' if given.run else ''}"


def describe_model_choice(tried: NodeAttempt) -> str:
    """The model selected by a condition, and why."""
    return f"{'the larger model at once' if tried.escalated else 'its own model'}, for {tried.escalation_reason}"


def describe_choices(rows: Iterable[NodeRow]) -> Iterator[str]:
    """The selected agents and models, and why."""
    for row in rows:
        if row.choice_reason:
            yield f"{row.path}: chose {row.choice_reason}"
        yield from (
            f"{row.path}: {describe_model_choice(attempt)}" for attempt in row.attempts if attempt.escalation_reason
        )
