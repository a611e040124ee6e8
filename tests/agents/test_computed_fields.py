"""Tests computed fields: the value of an expression, the probability of a choice, and the remaining output format."""

import math
from dataclasses import dataclass
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.output_parser import InvalidOutput, OutputParser, ParsedOutput
from orchestra.agents.prompt import CompiledPrompt, Constraint
from orchestra.core.errors import InputError

TEXT = {"type": "string"}
LABEL = {"type": "string", "enum": ["supported", "contradicted", "not stated"]}
CLAIM = {"type": "object", "properties": {"claim": TEXT}, "required": ["claim"], "additionalProperties": False}
MAYBE = {"type": ["number", "null"]}


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def card(output: dict[str, Any], **computed: Any) -> Card:
    return Card.declare("judge", input=CLAIM, output=output, prompt="{{ claim }}", computed=computed)


JUDGE = card(record(label=LABEL, p=MAYBE), p={"probability": "supported"})
SUM = card(record(expression={**TEXT, "pattern": "[0-9+*/. -]+"}, answer=MAYBE), answer={"value": "expression"})
BOTH = card(record(why=TEXT, label=LABEL, p=MAYBE), p={"probability": "contradicted"})


@dataclass(frozen=True)
class Word:
    text: str
    top: tuple[tuple[str, float], ...] = ()
    logprob: float = -0.5


def odds(**shares: float) -> tuple[tuple[str, float], ...]:
    return tuple((text, math.log(share)) for text, share in shares.items())


def value(found: ParsedOutput | InvalidOutput) -> Any:
    assert isinstance(found, ParsedOutput), found
    return found.value


def test_computed_single_choice_is_decoded_without_json() -> None:
    prompt = CompiledPrompt(JUDGE).render({"claim": "x"})

    assert prompt.constraint == Constraint("choice", ["supported", "contradicted", "not stated"])
    assert prompt.response_schema is None
    assert value(OutputParser(JUDGE).parse(" not stated\n")) == {"label": "not stated", "p": None}


def test_computed_choice_probability_is_normalized_over_choices() -> None:
    word = Word("contrad", odds(contrad=0.5, supported=0.2, The=0.2, no=0.1))

    assert value(OutputParser(JUDGE).parse("contradicted", tokens=[word, Word("icted")]))["p"] == pytest.approx(0.25)


def test_computed_choice_with_likelier_other_token_has_no_probability() -> None:
    assert (
        value(OutputParser(JUDGE).parse("supported", tokens=[Word("supported", odds(The=0.6, supported=0.3))]))["p"]
        is None
    )


def test_computed_ambiguous_token_counts_for_no_choice() -> None:
    alike = card(record(label={**LABEL, "enum": ["not stated", "not true"]}, p=MAYBE), p={"probability": "not true"})

    assert (
        value(
            OutputParser(alike).parse(
                "not true", tokens=[Word("not", (*odds(no=0.2, nothing=0.1), ("not", math.log(0.7))))]
            )
        )["p"]
        is None
    )


def test_computed_choice_in_json_uses_its_first_token() -> None:
    text = '{"why": "no", "label": "contradicted"}'
    other = Word(' "contra', ((' "contra', math.log(0.75)), (' "supp', math.log(0.25))))
    words = [Word('{"why": "no"', odds(supported=1.0)), Word(', "label":'), other, Word('dicted"}')]

    assert value(OutputParser(BOTH).parse(text, tokens=words)) == {
        "why": "no",
        "label": "contradicted",
        "p": pytest.approx(0.75),
    }


def test_computed_sum_is_evaluated_by_code() -> None:
    assert CompiledPrompt(SUM).render({"claim": "x"}).constraint == Constraint("regex", "[0-9+*/. -]+")
    assert value(OutputParser(SUM).parse("(48 + 24) / 2 ".replace("(", "").replace(")", ""))) == {
        "expression": "48 + 24 / 2",
        "answer": 60,
    }
    assert value(OutputParser(SUM).parse("1 / 3"))["answer"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("pattern", "sent"),
    [
        ("^[0-9+]+$", "[0-9+]+"),
        (r"^[0-9+]+ \$", r"[0-9+]+ \$"),
        (r"[0-9+]+\\$", r"[0-9+]+\\"),
        (r"^[0-9+]+\\\$", r"[0-9+]+\\\$"),
    ],
)
def test_computed_pattern_drops_end_anchor_and_keeps_dollar(pattern: str, sent: str) -> None:
    made = card(record(expression={**TEXT, "pattern": pattern}, answer=MAYBE), answer={"value": "expression"})
    assert CompiledPrompt(made).render({"claim": "x"}).constraint == Constraint("regex", sent)


def test_computed_choice_keeps_surrounding_spaces() -> None:
    spaced = card(record(label={**LABEL, "enum": [" a", "b ", "c"]}, p=MAYBE), p={"probability": " a"})
    for text, label in ((" a", " a"), ("b ", "b "), (" c\n", "c"), ("c", "c")):
        assert value(OutputParser(spaced).parse(text)) == {"label": label, "p": None}
    word = Word(" a", ((" a", math.log(0.75)), ("c", math.log(0.25))))
    assert value(OutputParser(spaced).parse(" a", tokens=[word]))["p"] == pytest.approx(0.75)


def test_computed_null_choice_is_accepted() -> None:
    either = card(record(label={**LABEL, "enum": ["", "b"]}, p=MAYBE), p={"probability": "b"})
    assert value(OutputParser(either).parse("")) == {"label": "", "p": None}


@pytest.mark.parametrize("text", ["1 / 0", "7 +", "9" * 400 + "*" + "9" * 400, "9" * 20 + "*" + "9" * 21])
def test_computed_invalid_expression_has_no_value(text: str) -> None:
    assert value(OutputParser(SUM).parse(text))["answer"] is None


def test_computed_without_expression_uses_the_other_field() -> None:
    either = record(expression={"type": ["string", "null"]}, words={"type": "array", "items": TEXT}, answer={})
    reader = OutputParser(card(either, answer={"value": "expression", "otherwise": "words"}))

    assert value(reader.parse('{"expression": "2 * 3", "words": []}'))["answer"] == 6
    assert value(reader.parse('{"expression": null, "words": ["a", "b"]}'))["answer"] == ["a", "b"]


def test_computed_truncated_expression_has_no_value() -> None:
    assert OutputParser(SUM).parse("48 + 2", finish_reason="length").code == "M003"  # type: ignore[union-attr]


def test_computed_required_output_without_value_is_refused() -> None:
    strict = card(record(expression=TEXT, answer={"type": "number"}), answer={"value": "expression"})

    assert OutputParser(strict).parse("seven").code == "M002"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("computed", "said"),
    [
        ({"q": {"probability": "supported"}}, "no output 'q'"),
        ({"p": {"probability": "suported"}}, "not a choice"),
        ({"p": {"value": "p"}}, "the model does not write"),
        ({"p": {"probability": "supported"}, "label": {"value": "p"}}, "the model does not write"),
        ({"p": {}}, "state either"),
        ({"p": {"probability": "supported", "otherwise": "label"}}, "needs `value: FIELD`"),
        ({"p": {"value": "label", "probability": "supported"}}, "state either"),
    ],
)
def test_computed_unsatisfiable_rule_is_refused(computed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Card.declare("judge", input=CLAIM, output=record(label=LABEL, p=MAYBE), prompt="{{ claim }}", computed=computed)


def test_card_without_computed_fields_keeps_its_digest() -> None:
    plain = Card.declare("judge", input=CLAIM, output=record(label=LABEL), prompt="{{ claim }}")

    assert plain.output_form.schema == plain.output_schema
    assert plain.digest == "acc75c6465f6f58c9fbecd9dbcfd1bd6"
    assert Card.restore(JUDGE.dump()).digest == JUDGE.digest
