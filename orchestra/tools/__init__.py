"""Built-in tools: `search` finds passages, `cite` selects an answer from readings, `cells` locates numbers in a table.

They run in this process and return their results only to the caller, so they may process all data
(`label="restricted"`).
"""

from orchestra.tools.answers import choose_answer, find_passages, nearest_passages, reading_texts
from orchestra.tools.cells import cells
from orchestra.tools.cite import cite
from orchestra.tools.claims import claim_evidence, decide_claim
from orchestra.tools.computation import compute_amount
from orchestra.tools.document_choice import (
    choose_documents,
    choose_label,
    compare_passages,
    compose_summary,
    document_sentences,
    field_questions,
    join_fields,
    stated_fields,
    stated_labels,
)
from orchestra.tools.lists import choose_list, find_lists
from orchestra.tools.plain_arithmetic import calculate
from orchestra.tools.replies import join_answers, question_parts
from orchestra.tools.search import search
from orchestra.tools.table_answers import query_table, query_tables

# The first paragraph of a tool's docstring is its description in the router's requests. A change of it changes plans.
STEP_TOOLS = (
    *(choose_answer, choose_documents, choose_label, choose_list, claim_evidence, compare_passages, compose_summary),
    compute_amount,
    *(decide_claim, document_sentences, field_questions, find_lists, find_passages, join_answers, join_fields),
    *(nearest_passages, question_parts, reading_texts, stated_fields, stated_labels),
)
"""Steps of the packaged workflows. They are not offered to a router by themselves."""
BUILTIN_TOOLS = (search, cite, cells, calculate, query_table, query_tables, *STEP_TOOLS)
"""All built-in tools. Every project can use them."""

__all__ = ["BUILTIN_TOOLS", "STEP_TOOLS", "calculate", "cells", "cite", "query_table", "query_tables", "search"]
