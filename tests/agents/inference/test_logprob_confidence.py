"""Tests the confidence of a model in its text: the product of the token probabilities, if all are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.card import Card
from orchestra.agents.inference.logprob_confidence import text_probability
from orchestra.agents.output_parser import OutputParser, ParsedOutput

TEXT: dict[str, Any] = {"type": "string"}
CLAIM = {"type": "object", "properties": {"claim": TEXT}, "required": ["claim"]}
LABEL: dict[str, Any] = {"type": "string", "enum": ["yes", "no"]}


@dataclass(frozen=True)
class Token:
    text: str
    logprob: float = math.log(0.5)
    top: tuple[tuple[str, float], ...] = ()


def card(output: dict[str, Any], **more: Any) -> Card:
    return Card.declare("judge", input=CLAIM, output=output, prompt="{{ claim }}", **more)


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def sure(of: Card, text: str, *tokens: Token) -> float | None:
    found = OutputParser(of).parse(text, tokens=tokens)
    assert isinstance(found, ParsedOutput), found
    return found.confidence


@given(st.lists(st.floats(-9999, 0), min_size=1))
def test_confidence_is_product_of_token_probabilities(logprobs: list[float]) -> None:
    found = text_probability("x" * len(logprobs), [Token("x", one) for one in logprobs])
    assert found == pytest.approx(math.exp(sum(logprobs)))
    assert found is not None
    assert 0 <= found <= 1


def test_confidence_with_missing_token_is_none() -> None:
    assert text_probability("yes", []) is None
    assert text_probability("yes no", [Token("yes")]) is None
    assert text_probability("yes no", [Token("yes"), Token("no")]) == pytest.approx(0.25), (
        "a space that a token lost is no token"
    )
    assert text_probability("yes", [Token("yes"), Token("<|im_end|>")]) == pytest.approx(0.25), "the end is part of it"


def test_confidence_is_at_most_one() -> None:
    assert text_probability("yes", [Token("yes", 3.0)]) == 1.0


def test_confidence_needs_json_choice_or_grammar_output() -> None:
    assert sure(card(record(claim=TEXT)), '{"claim": "a"}', *map(Token, ('{"claim": "', 'a"}'))) == pytest.approx(0.25)
    assert sure(card(LABEL), '"yes"', Token('"yes"')) == pytest.approx(0.5)
    assert sure(card(TEXT, grammar="claim"), "yes", Token("yes")) == pytest.approx(0.5)
    assert sure(card(TEXT), "yes", Token("yes")) is None
    assert [card(one).has_confidence for one in (LABEL, TEXT)] == [True, False]


def test_confidence_prefers_choice_over_token_probability() -> None:
    top = (("yes", math.log(0.6)), ("no", math.log(0.2)))
    judge = card(record(label=LABEL, p={"type": ["number", "null"]}), computed={"p": {"probability": "yes"}})
    assert sure(judge, "yes", Token("yes", math.log(0.6), top)) == pytest.approx(0.75)
    both = card(record(why=TEXT, label=LABEL, p={"type": ["number", "null"]}), computed={"p": {"probability": "yes"}})
    tokens = (
        Token('{"why": "a"', math.log(0.5)),
        Token(', "label": "'),
        Token("yes", math.log(0.6), top),
        Token('"}', 0.0),
    )
    assert sure(both, '{"why": "a", "label": "yes"}', *tokens) == pytest.approx(0.5 * 0.5 * 0.6), (
        "it is no surer than of all it wrote"
    )
