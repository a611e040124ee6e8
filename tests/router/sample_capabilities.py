"""Capabilities for planner tests: documents, a reader, a calculator; and random plans, as from an untrained model."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from orchestra.agents.contract import Contract
from orchestra.router.capabilities import Capabilities, Capability
from orchestra.schema.builtin_models import Answer, Document, Passage, Reading
from orchestra.schema.types import Schema, schema_of
from orchestra.workflows.model import PlanLimits

STR: Schema = {"type": "string"}
DOCUMENTS = schema_of(list[Document], "serialization")
QUESTION = {"question": STR}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object schema with these fields."""
    fields = {**required, **(optional or {})}
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def contract(
    name: str, kind: str, needs: dict[str, Schema], gives: Schema, may: dict[str, Schema] | None = None, says: str = ""
) -> Contract:
    """A contract of an agent or a tool."""
    return Contract(name, kind, record(needs, may), gives, says)  # type: ignore[arg-type]


SEARCH = contract(
    "search",
    "tool",
    {"query": STR, "documents": DOCUMENTS},
    schema_of(list[Passage], "serialization"),
    {"top": {"type": "integer"}},
    "The passages that answer a query.",
)
READER = contract(
    "reader",
    "agent",
    {"question": STR, "context": STR},
    schema_of(Reading, "serialization"),
    says="Answers a question from one passage.",
)
CITE = contract(
    "cite",
    "tool",
    {
        "question": STR,
        "readings": schema_of(list[Reading], "validation"),
        "passages": schema_of(list[Passage], "validation"),
    },
    schema_of(Answer, "serialization"),
    says="One answer from the readings of several passages.",
)
SUM = contract(
    "calculator",
    "agent",
    {"question": STR},
    record({"expression": STR, "answer": {"type": "number"}}),
    says="Solves a short arithmetic word problem.",
)
COMPARE = contract(
    "compare",
    "tool",
    {"first": {"type": "number"}, "second": {"type": "number"}, "how": {"enum": ["more", "less"]}},
    {"type": "boolean"},
    says="Whether a number is more or less than another.",
)
ALL = (SEARCH, READER, CITE, SUM, COMPARE)


def offer(
    *skills: Contract | Capability,
    values: dict[str, Schema] | None = None,
    returns: Schema | None = None,
    steps: int = 6,
    words: str = "",
) -> Capabilities:
    """These capabilities, or all, over a question and documents."""
    given = {"question": STR, "documents": DOCUMENTS} if values is None else values
    made = Capabilities.of(skills or ALL, given, returns, request_text=words)
    return Capabilities(
        made.by_name, made.inputs, made.output_type, PlanLimits(steps=steps, width=8), made.request_text
    )


def walked(grammar: str, random: Random, most: int = 2000) -> str | None:
    """Random text of a grammar: each byte is drawn from the allowed ones, preferring short texts. None if it does not
    end.
    """
    guidance = pytest.importorskip("llguidance")
    tokenizer: Any = guidance.LLTokenizer("byte")
    matcher = guidance.LLMatcher(tokenizer, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    found = bytearray()
    inside = 0
    while not matcher.is_stopped() and len(found) < most:
        mask = matcher.compute_bitmask()
        allowed = [token for token in range(tokenizer.vocab_size) if mask[token >> 3] >> (token & 7) & 1]
        if tokenizer.eos_token in allowed:
            if len(allowed) == 1 or random.random() < 0.5:
                break
            allowed.remove(tokenizer.eos_token)
        if not allowed:
            break
        inside = inside + 1 if len(allowed) > 60 else 0
        chosen = ord('"') if inside > 12 and ord('"') in allowed else random.choice(allowed)
        matcher.consume_token(chosen)
        found.append(chosen)
    assert not matcher.is_error(), matcher.get_error()
    return found.decode("utf-8", "replace") if len(found) < most else None
