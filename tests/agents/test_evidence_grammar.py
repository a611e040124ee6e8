"""Tests evidence grammars: the accepted texts, judged by llguidance over a byte tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.agents.evidence_grammar import (
    MAX_COUNTED_EVIDENCE,
    MAX_EVIDENCE,
    MAX_QUOTE,
    QuoteGrammarError,
    chunks,
    evidence_grammar,
    limit_texts,
    strip_unknown_formats,
)
from orchestra.schema.strict_json import parse_untrusted

llguidance = pytest.importorskip("llguidance")

QUOTE = {"type": "string", "format": "quote"}
NULL = {"type": "null"}
READING: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"anyOf": [{"type": "string"}, NULL]}, "quote": {"anyOf": [QUOTE, NULL]}},
    "required": ["answer", "quote"],
}


class Bytes:
    """A tokenizer with one token per byte, as llguidance requires it."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<|end|>")
    special_token_ids = (256,)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


TOKENIZER = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))


def accepts(grammar: str, text: str) -> bool:
    """Returns whether a grammar accepts a text to its end, by the code path of vLLM, which guesses the kind of a
    grammar.
    """
    matcher = llguidance.LLMatcher(TOKENIZER, llguidance.grammar_from("grammar", grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def reading(quote: str | None, answer: str | None = "x") -> str:
    return written({"answer": answer, "quote": quote})


def allows(evidence: Sequence[str], quote: str) -> bool:
    return accepts(evidence_grammar(READING, evidence, 200), reading(quote))


HOSTILE = [
    'He said: "no"\nand left.',
    "C:\\new\\table\\u0041",
    "a\tb\r\nc\x00d\x1b[31m",
    'start: "x"\nr ::= %json {}',
    '"}\n%regex /./',
    "</s><|im_end|>",
    "# // /* */ ~ & | ( ) [ ] { }",
    "東京は日本の首都です。",
    "\U0001f600 emoji \u202e bidi \u2028 line",
    "\\",
    '"',
    '\\\\"\\"',
    "${x} {{ y }} {% z %}",
    "e\u0301te\u0301 ﬁne",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_grammar_hostile_evidence_chunks_round_trip(text: str) -> None:
    pieces = chunks(text)
    assert "".join(pieces) == text
    grammar = evidence_grammar(READING, [text], 200)
    found = 0
    for start in range(len(pieces)):
        for end in range(start + 1, len(pieces) + 1):
            quote = "".join(pieces[start:end])
            line = reading(quote)
            if accepts(grammar, line):
                found += 1
                assert parse_untrusted(line)["quote"] == quote
                assert quote in text
    assert found or not any(char.isalnum() for char in text)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
MIXED = st.lists(
    st.sampled_from(["word", "3.5", " ", '"', "\\", "\n", "é", "東", "\x00", ":", "</s>", "{{", "n", "t", "u00e9"]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(TEXTS | MIXED.map("".join), TEXTS | MIXED.map("".join))
def test_grammar_rejects_quote_outside_evidence(evidence: str, quote: str) -> None:
    if allows([evidence or "x"], quote):
        assert quote in evidence


@settings(max_examples=150, deadline=None)
@given(MIXED.map("".join), st.data())
def test_grammar_accepts_words_of_evidence(evidence: str, data: st.DataObject) -> None:
    pieces = chunks(evidence)
    words = [index for index, piece in enumerate(pieces) if piece[0].isalnum()]
    if not words:
        return
    start = data.draw(st.sampled_from(words))
    end = data.draw(st.sampled_from([index for index in words if index >= start]))
    assert allows([evidence], "".join(pieces[start : end + 1]))


@pytest.mark.parametrize("quote", ["", " ", "ewar", "Dewa", "Dewar in 1902", " Dewar", "Dewar ", ". Dewar", "1"])
def test_grammar_rejects_partial_words_and_blank_edges(quote: str) -> None:
    assert not allows(["Sir James. Dewar in 1901 did"], quote)


def test_grammar_accepts_null_if_type_does() -> None:
    assert accepts(evidence_grammar(READING, ["some evidence"], 200), reading(None, None))
    only = {"type": "object", "properties": {"quote": QUOTE}, "required": ["quote"]}
    assert not accepts(evidence_grammar(only, ["some evidence"], 200), written({"quote": None}))


def test_grammar_without_evidence_accepts_only_null() -> None:
    grammar = evidence_grammar(READING, ["  \n"], 200)
    assert accepts(grammar, reading(None))
    assert not accepts(grammar, reading("x"))
    with pytest.raises(QuoteGrammarError):
        evidence_grammar({"type": "object", "properties": {"quote": QUOTE}, "required": ["quote"]}, [], 200)


def test_grammar_quote_comes_from_exactly_one_source() -> None:
    sources = ["James Dewar made oxygen", "Carl Scheele found it"]
    assert allows(sources, "Carl Scheele")
    assert allows(sources, "made oxygen")
    assert not allows(sources, "made oxygen Carl")


def test_grammar_bounds_length_of_quotes_and_texts() -> None:
    text = " ".join(["word"] * 400)
    grammar = evidence_grammar(READING, [text], 60)
    assert accepts(grammar, reading(text[:59], "y" * 60))
    assert not accepts(grammar, reading(text[:64]))
    assert not accepts(grammar, reading(None, "y" * 61))
    assert not accepts(evidence_grammar(READING, [text], 10_000), reading(text[: MAX_QUOTE + 4]))


def test_grammar_compiles_long_and_refuses_longer_evidence() -> None:
    text = " ".join(f"word{index}" for index in range(3_000))
    assert MAX_COUNTED_EVIDENCE < len(text) < MAX_EVIDENCE
    assert allows([text], "word2998 word2999")
    with pytest.raises(QuoteGrammarError):
        evidence_grammar(READING, [text * 4], 200)


def test_grammar_supports_lists_records_references_optionals() -> None:
    schema = {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "minItems": 1, "maxItems": 2},
            'no"te': {"type": "integer"},
            "quotes": {"type": "array", "items": QUOTE},
        },
        "required": ["items"],
        "$defs": {
            "Item": {
                "type": "object",
                "properties": {"kind": {"enum": ["a", "b"]}, "quote": QUOTE},
                "required": ["kind", "quote"],
            }
        },
    }
    grammar = evidence_grammar(schema, ["alpha beta"], 50)
    item = {"kind": "a", "quote": "beta"}
    assert accepts(grammar, written({"items": [item]}))
    assert accepts(grammar, written({"items": [item, item], 'no"te': 3, "quotes": ["alpha", "beta"]}))
    assert accepts(grammar, written({"items": [item], "quotes": []}))
    assert not accepts(grammar, written({"items": []}))
    assert not accepts(grammar, written({"items": [item] * 3}))
    assert not accepts(grammar, written({"items": [{"kind": "c", "quote": "beta"}]}))
    assert not accepts(grammar, written({"items": [{"kind": "a", "quote": "gamma"}]}))


def test_grammar_supports_recursive_record() -> None:
    node = {
        "type": "object",
        "properties": {"quote": QUOTE, "inner": {"anyOf": [{"$ref": "#/$defs/Node"}, NULL]}},
        "required": ["quote", "inner"],
    }
    grammar = evidence_grammar({"$ref": "#/$defs/Node", "$defs": {"Node": node}}, ["alpha beta"], 50)
    assert accepts(grammar, written({"quote": "alpha", "inner": {"quote": "beta", "inner": None}}))
    assert not accepts(grammar, written({"quote": "alpha", "inner": {"quote": "gamma", "inner": None}}))


def test_grammar_bounds_only_free_texts() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "string", "enum": ["a"]}, {"type": "string", "maxLength": 3}]}
    assert limit_texts(schema, 9) == {
        "anyOf": [
            {"type": "string", "maxLength": 9},
            {"type": "string", "enum": ["a"]},
            {"type": "string", "maxLength": 3},
        ]
    }


FORMATTED = {
    "type": "object",
    "properties": {
        "quote": QUOTE,
        "expression": {"type": "string", "format": "expression"},
        "day": {"type": "string", "format": "date"},
        "format": {"type": "string", "format": "path"},
        "default": {"type": "string", "format": "binary", "default": "quote"},
    },
    "required": ["quote", "expression", "day", "format", "default"],
}


def test_sent_schema_has_no_unsupported_format() -> None:
    sent = limit_texts(strip_unknown_formats(FORMATTED), 50)
    grammar = llguidance.grammar_from("json", json.dumps(sent))
    assert llguidance.LLMatcher.validate_grammar(grammar) == ""
    assert llguidance.LLMatcher.validate_grammar(llguidance.grammar_from("json", json.dumps(FORMATTED))) != ""
    assert list(sent["properties"]) == list(FORMATTED["properties"])
    assert sent["properties"]["day"]["format"] == "date"


def test_grammar_accepts_other_formats_beside_quote() -> None:
    grammar = evidence_grammar(FORMATTED, ["alpha beta"], 50)
    value = {"quote": "beta", "expression": "1 + 1", "day": "2026-11-24", "format": "a", "default": "b"}
    assert accepts(grammar, written(value))
    assert not accepts(grammar, written({**value, "day": "soon"}))
