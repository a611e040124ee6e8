"""Built-in tools. `search` finds passages, `cite` selects an answer from readings, `cells` locates numbers in a table,
`calculate` computes an expression, `query_table` and `query_tables` answer questions about tables. The others are steps
of the packaged workflows.

They run in this process and return their results only to the caller, so they may process all data
(`label="restricted"`). Most are imported when they are first used: their declarations and patterns take a quarter of a
second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from orchestra.tools.cells import cells
from orchestra.tools.cite import cite
from orchestra.tools.search import search

if TYPE_CHECKING:
    from orchestra.tools.plain_arithmetic import calculate
    from orchestra.tools.table_answers import query_table, query_tables
    from orchestra.workflows.python.steps import Tool

_SKILLS: Final = {
    "search": "search",
    "cite": "cite",
    "cells": "cells",
    "plain_arithmetic": "calculate",
    "table_answers": "query_table query_tables",
}
_STEPS: Final = {
    "answers": "choose_answer find_passages nearest_passages reading_texts",
    "claims": "claim_evidence decide_claim",
    "computation": "compute_amount",
    "document_choice": (
        "choose_documents choose_label compare_passages compose_summary document_sentences field_questions join_fields"
        " stated_fields stated_labels"
    ),
    "drafts": "check_draft draft_facts",
    "lists": "choose_list find_lists",
    "reading": "accept_reading quoted_sentences reading_request",
    "replies": "join_answers question_parts",
}
"""Module to the tools that it declares."""
_MODULES: Final = {name: module for module, names in {**_SKILLS, **_STEPS}.items() for name in names.split()}

STEP_TOOLS: Final = tuple(sorted(name for names in _STEPS.values() for name in names.split()))
"""Names of the steps of packaged workflows. They are not offered to a router by themselves."""
BUILTIN_TOOLS: Final = (*(name for names in _SKILLS.values() for name in names.split()), *STEP_TOOLS)
"""Names of all built-in tools. Every project can use them."""

__all__ = [
    "BUILTIN_TOOLS",
    "STEP_TOOLS",
    "calculate",
    "cells",
    "cite",
    "load_tool",
    "query_table",
    "query_tables",
    "search",
]


def load_tool(name: str) -> Tool[..., Any]:
    """Returns a built-in tool by name. Raises `KeyError` for another name.

    The first paragraph of a tool's docstring is its description in the router's requests. A change of it changes plans.
    """
    found: Tool[..., Any] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load_tool(name)
