"""Computed fields: parts of an output that code computes after the model wrote the others.

Examples: a model writes `(48 + 24) / 2` and code computes the value, or a model answers in one word and code reads its
probability from the token's alternatives. If the model writes only one field and it is a text, the text is written
without JSON: a word then takes one token instead of eight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, model_validator

from orchestra.agents.inference.logprob_confidence import TokenLogprob
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.suggestions import closest_match
from orchestra.schema.fields import expand_schema
from orchestra.schema.strict_json import MAX_DIGITS
from orchestra.schema.types import Schema

MIN_CHOICE_MASS = 0.5
"""Minimum total probability of all choices. Below it, the model most likely meant something else, and the probabilities
of the choices are unknown.
"""
TABLE_ANSWER_FIELDS: Final = ("way", "quotes", "expression", "scale", "cells", "rows", "column", "condition", "also")
"""The fields of an answer about a table.

`way` is the kind of answer; `quotes`, `expression` and `scale` read or compute it. `cells` are the cells used, each as
a row and a column. The others name the rows that are counted, compared or bounded, the column to compare by, the
condition, and a second condition.
"""
LOGPROB_PARAMETERS = {"logprobs": True, "top_logprobs": 20}
"""Request parameters for token probabilities. 20 alternatives are the maximum of OpenAI and vLLM."""


class TokenAlternatives(TokenLogprob, Protocol):
    """A written token and its alternatives: texts and natural log-probabilities."""

    @property
    def top(self) -> Sequence[tuple[str, float]]:
        """The alternatives, each a text and its log-probability."""


class ComputedField(BaseModel):
    """The rule for one computed field: either `value` or `probability`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    value: str | None = None
    """The field with an arithmetic expression. The computed field is its value, or null if it has none."""
    otherwise: str | None = None
    """The field whose text is used if the expression has no value."""
    probability: str | None = None
    """A choice of the only field with choices. The computed field is its probability among the choices, or null if
    unknown.
    """

    @model_validator(mode="after")
    def _check_keys(self) -> ComputedField:
        if (self.value is None) == (self.probability is None):
            raise ValueError("state either `value: FIELD` or `probability: CHOICE`")
        if self.otherwise is not None and self.value is None:
            raise ValueError("`otherwise: FIELD` needs `value: FIELD`")
        return self


@dataclass(frozen=True, slots=True)
class OutputForm:
    """The fields of an output that a model writes, and how code completes them."""

    schema: Schema
    """The schema of the written fields."""
    single_field: str
    """The only written field if it is a text without JSON; empty if the model writes JSON."""
    rules: Mapping[str, ComputedField]
    choices: tuple[str, ...] = ()
    """The choices whose probabilities are read."""
    choice_field: str = ""
    """The field with these choices."""
    field_order: tuple[str, ...] = ()
    """The fields of the output, in order."""

    @classmethod
    def build(
        cls, output: Schema, rules: Mapping[str, ComputedField], location: SourceLocation | None = None
    ) -> OutputForm:
        """Builds the form of an output type.

        Raises:
            InputError: A013 for a rule that cannot be applied.
        """
        if not rules:
            return cls(output, "", rules)
        fields: Mapping[str, Any] = output.get("properties", {})
        written_schemas = {name: schema for name, schema in fields.items() if name not in rules}
        for name, rule in rules.items():
            if name not in fields:
                raise _field_error(f"there is no output {name!r}", name, fields, location)
            for source_field in (rule.value, rule.otherwise):
                if source_field is not None and source_field not in written_schemas:
                    raise _field_error(
                        f"{name} depends on {source_field!r}, which the model does not write",
                        source_field,
                        written_schemas,
                        location,
                    )
        if not written_schemas:
            raise InputError(
                "A013",
                "all output fields are computed, so the model has nothing to write",
                location=location,
                hint="remove a field from `computed:`",
            )
        schema = {
            **output,
            "properties": written_schemas,
            "required": [name for name in output.get("required", written_schemas) if name in written_schemas],
        }
        choice_field, choices = _find_choice_field(written_schemas, output)
        for name, rule in rules.items():
            if rule.probability is not None and rule.probability not in choices:
                raise _field_error(
                    f"{name} is the probability of {rule.probability!r}, which is not a choice",
                    rule.probability,
                    choices,
                    location,
                )
        only = next(iter(written_schemas)) if len(written_schemas) == 1 else ""
        return cls(
            schema,
            only if only and _is_bare_text(written_schemas[only], output) else "",
            rules,
            choices,
            choice_field,
            tuple(fields),
        )

    @property
    def text_schema(self) -> Schema:
        """The schema of the model's text."""
        if not self.single_field:
            return self.schema
        return _dereference(self.schema["properties"][self.single_field], self.schema)

    @property
    def needs_logprobs(self) -> bool:
        """Whether token probabilities are requested."""
        return any(rule.probability is not None for rule in self.rules.values())

    def comparison_key(self, output: Any) -> Any:
        """Returns a key by which outputs are compared. Two expressions with the same value are equal."""
        if not isinstance(output, Mapping):
            return output
        ways = {
            rule.value
            for name, rule in self.rules.items()
            if rule.value is not None and expression_value(output.get(rule.value)) is not None
        }
        return {name: value for name, value in output.items() if name not in ways}

    @property
    def expression_field(self) -> str:
        """The field that is an expression and the only written field; otherwise empty."""
        return self.single_field if self.single_field in [rule.value for rule in self.rules.values()] else ""

    @property
    def one_token(self) -> bool:
        """Whether the first token identifies the output: a single choice with probabilities, and no two choices share a
        first token. Under a constraint the remaining tokens are determined, so they need not be generated.
        """
        return (
            bool(self.single_field)
            and self.needs_logprobs
            and len({choice[:1] for choice in self.choices} - {""}) == len(self.choices)
        )

    def choice_from_prefix(self, text: str) -> str | None:
        """Returns the choice that begins with a text, if one token identifies the choice; otherwise None."""
        return (
            next((choice for choice in self.choices if text and choice.startswith(text)), None)
            if self.one_token
            else None
        )

    def select_written(self, output: Any) -> Any:
        """Returns the written fields of an output."""
        return (
            {name: value for name, value in output.items() if name not in self.rules}
            if isinstance(output, Mapping)
            else output
        )

    def fill(self, written: Any, probabilities: Mapping[str, float] | None) -> Any:
        """Returns the output with written and computed fields in the order of the type.

        Args:
            probabilities: The probability of each choice.
        """
        if not self.rules or not isinstance(written, Mapping):
            return written
        output = dict(written)
        for name, rule in self.rules.items():
            if rule.value is not None:
                value = expression_value(written.get(rule.value))
                output[name] = written.get(rule.otherwise) if value is None and rule.otherwise is not None else value
            else:
                output[name] = None if probabilities is None else probabilities.get(str(rule.probability), 0.0)
        return {name: output[name] for name in (*self.field_order, *output) if name in output}

    def confidence(
        self, value: Any, probabilities: Mapping[str, float] | None, text_probability: float | None
    ) -> float | None:
        """Returns the model's confidence in an output, in [0, 1], or None if it is unknown.

        It is `text_probability`, or the probability of the choice if the choices' probabilities are read. It is the
        lower of the two if the model wrote more than a choice.
        """
        probability = probabilities.get(str(value.get(self.choice_field))) if probabilities is not None else None
        if probability is None:
            return text_probability
        return probability if self.single_field or text_probability is None else min(probability, text_probability)

    def choice_probabilities(self, text: str, tokens: Sequence[TokenAlternatives]) -> Mapping[str, float] | None:
        """Returns the probability of each choice among the choices, from the token at which they begin to differ; None
        if unknown.
        """
        start = self._choice_start(text)
        at = 0
        for token in tokens:
            if at + len(token.text) > start:
                return _choice_shares(self.choices, token.text[: max(0, start - at)], token.top)
            at += len(token.text)
        return None

    def _choice_start(self, text: str) -> int:
        """Returns the offset of the choice field's value in a model's text."""
        if self.single_field:
            return 0 if text in self.choices else len(text) - len(text.lstrip())
        match = re.search(rf'"{re.escape(self.choice_field)}"\s*:\s*"', text)
        return len(text) if match is None else match.end()


def is_word_problem(inputs: Schema, form: OutputForm) -> bool:
    """Whether the agent has one text input and writes a single expression."""
    fields: Mapping[str, Any] = inputs.get("properties", {})
    return [schema.get("type") for schema in fields.values()] == ["string"] and bool(form.expression_field)


def expression_value(expression: Any) -> int | float | None:
    """Returns the value of an expression as a JSON number, or None if it is not arithmetic or too large."""
    from orchestra.text.arithmetic import ArithmeticParseError, evaluate

    if not isinstance(expression, str):
        return None
    try:
        exact = evaluate(expression)
        if exact.denominator != 1:
            return float(exact)
        return int(exact) if abs(exact) < 10**MAX_DIGITS else None
    except (ArithmeticParseError, OverflowError):
        return None


def _choice_shares(choices: Sequence[str], before: str, top: Sequence[tuple[str, float]]) -> Mapping[str, float] | None:
    masses = dict.fromkeys(choices, 0.0)
    for text, logprob in top:
        rest = text.removeprefix(before) if text.startswith(before) else ""
        matching_choices = [
            choice for choice in choices if rest and (choice.startswith(rest) or rest.startswith(choice))
        ]
        if len(matching_choices) == 1:
            masses[matching_choices[0]] += math.exp(min(0.0, logprob))
    mass = sum(masses.values())
    return {choice: share / mass for choice, share in masses.items()} if mass >= MIN_CHOICE_MASS else None


def _find_choice_field(fields: Mapping[str, Any], root: Schema) -> tuple[str, tuple[str, ...]]:
    """Returns the only field with choices, and its choices."""
    choice_fields = [
        (name, choices) for name, schema in fields.items() if (choices := tuple(_enum_texts(schema, root)))
    ]
    return choice_fields[0] if len(choice_fields) == 1 else ("", ())


def _enum_texts(schema: Schema, root: Schema) -> Iterator[str]:
    for part in expand_schema(schema, root):
        yield from (value for value in part.get("enum", ()) if isinstance(value, str))


def _dereference(schema: Schema, root: Schema) -> Schema:
    """Resolves a schema that is only a reference."""
    expansion = expand_schema(schema, root)
    return dict(expansion[0] if len(expansion) == 1 else schema)


def _is_bare_text(schema: Schema, root: Schema) -> bool:
    """Whether a field can be written without JSON: a text, a choice of texts, or a text with a pattern."""
    expanded_schema = _dereference(schema, root)
    texts = expanded_schema.get("type") == "string" or all(
        isinstance(value, str) for value in expanded_schema.get("enum", [None])
    )
    return texts and not expanded_schema.keys() & {"format", "const", "anyOf", "oneOf", "allOf"}


def _field_error(reason: str, name: str, fields: Collection[str], location: SourceLocation | None) -> InputError:
    near = closest_match(name, list(fields))
    hint = f"did you mean {near!r}?" if near else f"known here: {', '.join(fields) or 'none'}"
    return InputError("A013", f"computed: {reason}", location=location, hint=hint)
