"""Examples: training uses the prompts that serving sends, and the outputs that serving accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.card import Card
from orchestra.agents.evidence_grammar import chunks, evidence_grammar
from orchestra.agents.output_parser import OutputParser, ParsedOutput
from orchestra.agents.prompt import CompiledPrompt
from orchestra.core.errors import InputError
from orchestra.learn.lora.base_model import load_tokenizer
from orchestra.learn.lora.examples import ExampleEncoder, serialize_output
from tests.agents.test_evidence_grammar import accepts

PASSAGE = 'Ada Lovelace wrote "notes" in 1843.\nThey were read by few: by two, or three.'
READER = Card.load(Path(__file__).resolve().parents[3] / "agents" / "generative_reader")
CALLER = Card.load(Path(__file__).resolve().parents[3] / "agents" / "caller")
ADD = {
    "name": "add",
    "parameters": {"type": "dict", "properties": {"a": {"type": "int"}, "b": {"type": "int"}}, "required": ["a", "b"]},
}


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return load_tokenizer(tiny)


def test_example_prompt_equals_server_prompt(card: Card, tokenizer: Any) -> None:
    inputs = {"question": "who wrote notes?", "context": PASSAGE}
    messages = [{"role": said.role, "content": said.content} for said in CompiledPrompt(card).render(inputs).messages]
    served = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)["input_ids"]
    assert list(ExampleEncoder(card, tokenizer).encode_prompt(inputs)) == served


def test_example_escapes_chat_marks_in_data(card: Card, tokenizer: Any) -> None:
    prompt = ExampleEncoder(card, tokenizer).encode_prompt(
        {"question": "<|im_end|>", "context": "a <|im_start|>system"}
    )
    ends, starts = (tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_end|>", "<|im_start|>"))
    assert (prompt.count(ends), prompt.count(starts)) == (1, 2)


def test_example_label_is_output_and_end_of_turn(card: Card, tokenizer: Any) -> None:
    label = ExampleEncoder(card, tokenizer).encode_label({"answer": "Ada Lovelace"})
    assert label[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(label[:-1]) == '{"answer": "Ada Lovelace"}'


@pytest.mark.parametrize("output", [{"answer": 3}, {"reply": "x"}, {}, "Ada", {"answer": "x", "more": 1}])
def test_example_invalid_output_refused(card: Card, tokenizer: Any, output: Any) -> None:
    with pytest.raises(InputError) as caught:
        ExampleEncoder(card, tokenizer).encode_label(output)
    assert caught.value.code == "N110"


def test_example_grammar_lines_start_with_break(card: Card, tokenizer: Any) -> None:
    router = Card.load(Path(__file__).resolve().parents[3] / "agents" / "router")
    inputs = {
        "request": "What is 2 and 2?",
        "skills": "calculator(question: str)",
        "values": "input.request: str",
        "grammar": "",
    }
    stands = 's1 = calculator(question="What is 2 and 2?")'
    whole = ExampleEncoder(router, tokenizer).encode_row({**inputs, "plan": ""}, f"{stands}\nreturn s1")
    rest = ExampleEncoder(router, tokenizer).encode_row({**inputs, "plan": stands}, "\nreturn s1")
    assert tokenizer.decode(rest.prompt + rest.label) == tokenizer.decode(whole.prompt + whole.label)
    with pytest.raises(InputError):
        ExampleEncoder(card, tokenizer).encode_label("\nAda")


PIECES = chunks(PASSAGE)
SPANS = st.tuples(st.integers(0, len(PIECES) - 1), st.integers(1, 12)).map(
    lambda at: "".join(PIECES[at[0] : at[0] + at[1]]).strip()
)


@given(st.none() | SPANS.filter(lambda text: text[:1].isalnum() or text[:1] == '"'))
def test_example_spans_and_null_pass_grammar(answer: str | None) -> None:
    text = serialize_output({"answer": answer}, READER.output_schema)
    assert accepts(evidence_grammar(READER.output_schema, [PASSAGE], 168), text)
    assert OutputParser(READER).parse(text) == ParsedOutput({"answer": answer})


def test_serialize_output_orders_fields_by_type() -> None:
    record = {"type": "object", "properties": {"b": {}, "a": {}}}
    schema = {"type": "object", "properties": {"rows": {"type": "array", "items": record}, "first": record}}
    value = {"first": {"a": 1, "b": "é"}, "rows": [{"a": 2, "b": None}]}
    assert serialize_output(value, schema) == '{"rows": [{"b": null, "a": 2}], "first": {"b": "é", "a": 1}}'
    assert serialize_output("plain, no quotes", {"type": "string"}) == "plain, no quotes"


def test_serialize_output_orders_arguments_by_function(tokenizer: Any) -> None:
    inputs = {"question": "1 + 2?", "functions": [{"name": "sub", "parameters": ADD["parameters"]}, ADD]}
    example = ExampleEncoder(CALLER, tokenizer).encode_row(
        inputs, {"calls": [{"arguments": {"b": 2, "a": 1}, "name": "add"}]}
    )
    text = tokenizer.decode(example.label[:-1])
    assert text == '{"calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}'
    constraint = CompiledPrompt(CALLER).render(inputs).constraint
    assert constraint is not None
    assert accepts(constraint.value, text)


@pytest.mark.parametrize(
    "call", [{"name": "mul", "arguments": {"a": 1, "b": 2}}, {"name": "add", "arguments": {"a": 1}}]
)
def test_example_call_of_unknown_function_refused(tokenizer: Any, call: Any) -> None:
    with pytest.raises(InputError) as caught:
        ExampleEncoder(CALLER, tokenizer).encode_row({"question": "1 + 2?", "functions": [ADD]}, {"calls": [call]})
    assert caught.value.code == "N110"


def test_example_prompt_shows_functions_as_lines() -> None:
    weather = {
        "name": "weather",
        "description": "The weather of a city. It is asked for every hour.",
        "parameters": {
            "type": "dict",
            "required": ["city", "at"],
            "properties": {
                "city": {"type": "string", "description": "The city, e.g. Bern"},
                "at": {"type": "dict", "properties": {"day": {"type": "integer"}}, "required": []},
                "units": {"type": "array", "items": {"type": "string", "enum": ["C", "F"]}, "default": ["C"]},
                "more": {"type": "array", "description": "What else is wanted."},
            },
        },
    }
    (_, said) = CompiledPrompt(CALLER).render({"question": "Rain?", "functions": [weather, {"name": "now"}]}).messages
    lines = said.content.splitlines()
    city, unit = "city: string (The city, e.g. Bern)", "units?: [C|F] = "
    assert lines[1].startswith(f"weather({city}, at: (day?: integer), {unit}")
    assert lines[1].endswith(", more?: [any]) - The weather of a city")
    assert lines[2:] == ["now() - ", "", "Rain?"]
