"""Computed fields: parts of an output that code fills once the model has written the rest.

A model that writes `(48 + 24) / 2` and leaves the sum to code does not err in the sum; one that answers in one word has
already said, by what else it might have written, how sure it is. Where one field is left to write, and it is a text, it
is written as it is, without JSON around it: a word then costs a token and not eight.
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
"""Of the probability that a model gave to all choices together: with less it had something else in mind, and nothing is
known.
"""
TABLE_ANSWER_FIELDS: Final = ("way", "quotes", "expression", "scale", "cells", "rows", "column", "condition", "also")
"""The fields of an answer about a table: the way; what is read off, or what computes it; the cells that it rests on,
each
its row and its column; the rows that are counted, compared or bounded, by which column they are compared, the condition
that bounds them, and another one that they hold as well.
"""
LOGPROB_PARAMETERS = {"logprobs": True, "top_logprobs": 20}
"""What a server is asked for where probabilities are read; twenty are the most that OpenAI and vLLM give."""


class TokenAlternatives(TokenLogprob, Protocol):
    """A token that a model wrote, with what else could have stood there: texts and natural log-probabilities."""

    @property
    def top(self) -> Sequence[tuple[str, float]]: ...


class ComputedField(BaseModel):
    """How one field is filled: one of the two keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    value: str | None = None
    """The field whose text is an expression: its value, or null where it has none."""
    otherwise: str | None = None
    """The field that stands for a value where there is none."""
    probability: str | None = None
    """A choice of the only field with choices: the probability that the model gave it among them, or null where that is
    not known.
    """

    @model_validator(mode="after")
    def _check_keys(self) -> ComputedField:
        if (self.value is None) == (self.probability is None):
            raise ValueError("give one of `value: FIELD` and `probability: CHOICE`")
        if self.otherwise is not None and self.value is None:
            raise ValueError("`otherwise: FIELD` goes with `value: FIELD`")
        return self


@dataclass(frozen=True, slots=True)
class OutputForm:
    """What of an output a model writes, and how the output is made of it."""

    schema: Schema
    """Of what it writes."""
    single_field: str
    """The one field that it writes, as a text without JSON around it; empty where it writes the whole schema."""
    rules: Mapping[str, ComputedField]
    choices: tuple[str, ...] = ()
    """Of the field whose probabilities are read."""
    choice_field: str = ""
    """That field."""
    field_order: tuple[str, ...] = ()
    """The fields of the output."""

    @classmethod
    def build(
        cls, output: Schema, rules: Mapping[str, ComputedField], place: SourceLocation | None = None
    ) -> OutputForm:
        """The form of an output's type. Raises `InputError` A013 for a rule that cannot be kept."""
        if not rules:
            return cls(output, "", rules)
        fields: Mapping[str, Any] = output.get("properties", {})
        left = {name: schema for name, schema in fields.items() if name not in rules}
        for name, rule in rules.items():
            if name not in fields:
                raise _field_error(f"there is no output {name!r}", name, fields, place)
            for read in (rule.value, rule.otherwise):
                if read is not None and read not in left:
                    raise _field_error(f"{name} is made of {read!r}, which no model writes", read, left, place)
        if not left:
            raise InputError(
                "A013",
                "every output is computed, and nothing is left to write",
                location=place,
                hint="leave a field out",
            )
        schema = {
            **output,
            "properties": left,
            "required": [name for name in output.get("required", left) if name in left],
        }
        chosen, choices = _find_choice_field(left, output)
        for name, rule in rules.items():
            if rule.probability is not None and rule.probability not in choices:
                raise _field_error(
                    f"{name} is the probability of {rule.probability!r}, which is no choice",
                    rule.probability,
                    choices,
                    place,
                )
        only = next(iter(left)) if len(left) == 1 else ""
        return cls(
            schema, only if only and _is_bare_text(left[only], output) else "", rules, choices, chosen, tuple(fields)
        )

    @property
    def text_schema(self) -> Schema:
        """The type of what stands in the model's text."""
        if not self.single_field:
            return self.schema
        return _dereference(self.schema["properties"][self.single_field], self.schema)

    @property
    def needs_logprobs(self) -> bool:
        """Whether probabilities are read."""
        return any(rule.probability is not None for rule in self.rules.values())

    def comparison_key(self, output: Any) -> Any:
        """What tells two outputs apart: not the expression where it has a value, for another one of that value says the
        same.
        """
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
        """The field that is an expression, and all that is written; empty where more is, or none is."""
        return self.single_field if self.single_field in [rule.value for rule in self.rules.values()] else ""

    @property
    def one_token(self) -> bool:
        """Whether the first token of what a model writes tells all: a choice alone, whose probabilities are read, and
        no
        two begin alike. Under a constraint the rest of it is forced, and need not be written.
        """
        return (
            bool(self.single_field)
            and self.needs_logprobs
            and len({choice[:1] for choice in self.choices} - {""}) == len(self.choices)
        )

    def choice_from_prefix(self, text: str) -> str | None:
        """The choice that a text is the beginning of, where one token tells it; None for any other text."""
        return (
            next((choice for choice in self.choices if text and choice.startswith(text)), None)
            if self.one_token
            else None
        )

    def select_written(self, output: Any) -> Any:
        """What of an output a model writes."""
        return (
            {name: value for name, value in output.items() if name not in self.rules}
            if isinstance(output, Mapping)
            else output
        )

    def fill(self, written: Any, probabilities: Mapping[str, float] | None) -> Any:
        """Returns the output: the written and the computed fields in the order of the type. `probabilities` are those
        of
        the choices.
        """
        if not self.rules or not isinstance(written, Mapping):
            return written
        made = dict(written)
        for name, rule in self.rules.items():
            if rule.value is not None:
                value = expression_value(written.get(rule.value))
                made[name] = written.get(rule.otherwise) if value is None and rule.otherwise is not None else value
            else:
                made[name] = None if probabilities is None else probabilities.get(str(rule.probability), 0.0)
        return {name: made[name] for name in (*self.field_order, *made) if name in made}

    def confidence(
        self, value: Any, probabilities: Mapping[str, float] | None, text_probability: float | None
    ) -> float | None:
        """Returns the model's confidence in an output, in [0, 1], or None if it is unknown.

        It is `text_probability`, or the probability of the choice if the choices' probabilities are read. It is the
        lower of the two if the model wrote more than a choice.
        """
        chosen = probabilities.get(str(value.get(self.choice_field))) if probabilities is not None else None
        if chosen is None:
            return text_probability
        return chosen if self.single_field or text_probability is None else min(chosen, text_probability)

    def choice_probabilities(self, text: str, tokens: Sequence[TokenAlternatives]) -> Mapping[str, float] | None:
        """The probability of each choice among them, as the token tells with which it begins; None where they cannot be
        told apart.
        """
        start = self._choice_start(text)
        at = 0
        for token in tokens:
            if at + len(token.text) > start:
                return _choice_shares(self.choices, token.text[: max(0, start - at)], token.top)
            at += len(token.text)
        return None

    def _choice_start(self, text: str) -> int:
        """Where in a model's text the chosen field's value begins."""
        if self.single_field:
            return 0 if text in self.choices else len(text) - len(text.lstrip())
        found = re.search(rf'"{re.escape(self.choice_field)}"\s*:\s*"', text)
        return len(text) if found is None else found.end()


def is_word_problem(inputs: Schema, form: OutputForm) -> bool:
    """Whether one text is read, and an expression is all that is written."""
    fields: Mapping[str, Any] = inputs.get("properties", {})
    return [schema.get("type") for schema in fields.values()] == ["string"] and bool(form.expression_field)


def expression_value(expression: Any) -> int | float | None:
    """The value of an expression as JSON has it, or None where it has none: no arithmetic, or too large."""
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
        meant = [choice for choice in choices if rest and (choice.startswith(rest) or rest.startswith(choice))]
        if len(meant) == 1:
            masses[meant[0]] += math.exp(min(0.0, logprob))
    mass = sum(masses.values())
    return {choice: share / mass for choice, share in masses.items()} if mass >= MIN_CHOICE_MASS else None


def _find_choice_field(fields: Mapping[str, Any], root: Schema) -> tuple[str, tuple[str, ...]]:
    """The only field with choices, and them."""
    found = [(name, choices) for name, schema in fields.items() if (choices := tuple(_enum_texts(schema, root)))]
    return found[0] if len(found) == 1 else ("", ())


def _enum_texts(schema: Schema, root: Schema) -> Iterator[str]:
    for part in expand_schema(schema, root):
        yield from (value for value in part.get("enum", ()) if isinstance(value, str))


def _dereference(schema: Schema, root: Schema) -> Schema:
    """The schema that a reference stands for, where it is no more than that."""
    found = expand_schema(schema, root)
    return dict(found[0] if len(found) == 1 else schema)


def _is_bare_text(schema: Schema, root: Schema) -> bool:
    """Whether a field can be written without JSON: a text, a choice of texts, or a text of a pattern."""
    found = _dereference(schema, root)
    texts = found.get("type") == "string" or all(isinstance(value, str) for value in found.get("enum", [None]))
    return texts and not found.keys() & {"format", "const", "anyOf", "oneOf", "allOf"}


def _field_error(why: str, name: str, known: Collection[str], place: SourceLocation | None) -> InputError:
    near = closest_match(name, list(known))
    hint = f"did you mean {near!r}?" if near else f"known here: {', '.join(known) or 'none'}"
    return InputError("A013", f"computed: {why}", location=place, hint=hint)
