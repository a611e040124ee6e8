"""The settings of `agent.yaml`, and the checks that they are consistent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from orchestra.agents import function_calls, template, tool_prompt
from orchestra.agents.card_types import is_plain_text
from orchestra.agents.computed_fields import TABLE_ANSWER_FIELDS, ComputedField, OutputForm, is_word_problem
from orchestra.agents.evidence_grammar import (
    free_text_limit,
    longest_min_length,
    required_max_output,
    strip_unknown_formats,
)
from orchestra.agents.template import RESERVED_NAMES
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.labels import Label
from orchestra.core.suggestions import closest_match
from orchestra.schema.fields import QUOTE_FORMAT, schema_has_format
from orchestra.schema.types import Schema, Validator, format_type, subschema

KINDS_WITH_ARRAYS = frozenset({"sklearn", "tagger", "encoder"})
"""Kinds of agents whose folder has a data file and arrays."""

MEMBER_KEYS = (
    "prompt",
    "system",
    "model",
    "adapter",
    "elsewhere",
    "untuned",
    "calibration",
    "sampling",
    "max_output",
    "min_output",
    "data",
)
"""Keys about model calls, which an ensemble cannot have."""
MIN_MEMBERS = 2
"""Minimum number of members of an ensemble."""

LATER_KEYS = frozenset(
    {"computed", "calls", "calibration", "grammar", "tools", "agents", "limits", "members", "weights", "enough"}
)
"""Keys that were added later. A card without them keeps its old digest."""
ELSEWHERE_KEYS = frozenset({"elsewhere", "untuned"})
"""Keys about servers without the adapter. They do not change the agent's own answers, nor its digest."""

NAME_PATTERN = re.compile(r"^[a-z][a-z0-9_]*$")
Name: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN.pattern, max_length=64)]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, defer_build=True)


class SamplingParameters(_FrozenModel):
    """Sampling parameters of a model. At temperature 0 the most probable token is taken."""

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int | None = None


class ToolLimits(_FrozenModel):
    """Limits of an agent's tool use; see `orchestra.agents.contract.ToolUse`."""

    steps: Annotated[int, Field(ge=1, le=50)] = 8
    width: Annotated[int, Field(ge=1, le=100)] = 8
    shown: Annotated[int, Field(ge=100, le=50_000)] = 2_000
    repairs: Annotated[int, Field(ge=0, le=10)] = 2


class OptionalInput(_FrozenModel):
    """An input that a call may omit: its type as text, and its default."""

    type: str
    default: Any


def _input_form(value: Any) -> str:
    """Selects the form of an input declaration, so that errors concern this form only."""
    return "optional" if isinstance(value, dict | OptionalInput) else "needed"


InputDeclaration: TypeAlias = Annotated[
    Annotated[str, Tag("needed")] | Annotated[OptionalInput, Tag("optional")], Discriminator(_input_form)
]


class CardFile(_FrozenModel):
    """The settings of `agent.yaml`."""

    schema_: Literal["orchestra/v1"] = Field(default="orchestra/v1", alias="schema")
    name: Name
    description: str = ""
    kind: Literal["model", "sklearn", "tagger", "encoder", "ensemble", "python"] = "model"
    members: tuple[Name, ...] = Field(default=(), strict=False)
    """Of kind `ensemble`: agents of the same types, which answer each call together."""
    weights: tuple[Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)], ...] = Field(default=(), strict=False)
    """Of kind `ensemble`: one weight per member for its probability, in order. Default: equal weights."""
    enough: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of kind `ensemble`: the probability of an answer at which the remaining members are not called. Default: all
    members are called in parallel.
    """
    input: Mapping[Name, InputDeclaration] = {}
    """Types as texts, or `{type, default}` for an input that may be omitted."""
    output: str | Mapping[Name, str]
    types: Mapping[str, Mapping[str, Any]] = {}
    computed: Mapping[Name, ComputedField] = {}
    """Fields of the output that code computes from the fields that the model wrote."""
    calls: Mapping[Name, Name] = {}
    """Fields of the output that are lists of function calls, each with the input that declares the functions."""
    grammar: Name | None = None
    """The input that holds the grammar of a text output, in llguidance's Lark syntax. Code builds it for each call."""
    tools: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), strict=False)
    """Tools that the model may call, one at a time, before it answers."""
    agents: tuple[Name, ...] = Field(default=(), strict=False)
    """Other agents that the model may call like tools."""
    limits: ToolLimits | None = None
    calibration: str | None = None
    """A file of the folder that calibrates the probabilities of choices. `orchestra learn calibrate` makes it; it may
    not exist yet.
    """
    prompt: str = "prompt.md"
    """The file of the prompt, in the folder."""
    system: str = ""
    """The system message: a template over the inputs, like the prompt."""
    model: str = "base"
    """A model name of the fleet. Of kind `encoder`: the base encoder."""
    adapter: str | None = None
    elsewhere: Literal["prompt"] | None = None
    """Use of a server whose base model is not the one that the adapter was trained on: `prompt` sends the prompt
    without the adapter. Default: such a server is not used.
    """
    untuned: str | None = None
    """A file of the folder with instructions for a model without the adapter. They follow the system message. The
    prompt of a model with the adapter stays as it was in training.
    """
    sampling: SamplingParameters = SamplingParameters.model_construct()
    max_output: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    min_output: Annotated[int, Field(ge=1, le=1 << 20)] = 16
    """Maximum output tokens, and the minimum that a budget must leave."""
    checks: tuple[str, ...] = Field(default=(), strict=False)
    accept: Literal["certified"] | Annotated[float, Field(ge=0, le=1)] | None = None
    otherwise: tuple[Literal["retry", "escalate", "back_off", "abstain"], ...] = Field(default=(), strict=False)
    label: Label = "restricted"
    """The strictest label of data that the agent may process."""
    evidence: str | None = None
    """The input that fields of type `Quote` quote from."""
    data: str = "model.json"
    """Of a classical agent or an encoder: the file of the folder that describes the arrays."""


def check_card(
    file: CardFile,
    inputs: Schema,
    outputs: Schema,
    prompt: str,
    source: Path,
    at: Callable[..., SourceLocation],
    *,
    stored: bool = False,
) -> None:
    """Checks that the keys, types and prompt of a card are consistent.

    Args:
        at: Returns the location of a key.
        source: The file of the prompt, for error locations.
        stored: Whether the card comes from a run. Such a card may have defaults and lengths that new cards may not.

    Raises:
        InputError: A002, A005, A006, A008, A013, A015, A017, A018, A020 or A024, and the codes of invalid schemas.
    """
    for schema, key in ((inputs, "input"), (outputs, "output")):
        _check_schema(schema, at(key))
    names = inputs.get("properties", {})
    _check_names(file, names, at)
    if not stored:
        _check_defaults(file, inputs, at)
    _check_evidence(file, names, outputs, at("evidence"))
    _check_computed(file, inputs, outputs, at("computed"))
    _check_calls(file, inputs, outputs, at("calls"))
    _check_grammar(file, names, outputs, at("grammar"))
    if not stored:
        _check_lengths(file, outputs, at("max_output"))
    _check_tool_use(file, names, at("tools" if file.tools else "agents" if file.agents else "limits"))
    _check_members(file, at("members"))
    if file.untuned is not None and file.adapter is None:
        reason = "untuned: an agent without an adapter has no other prompt"
        raise InputError("A002", reason, location=at("untuned"), hint="write the instructions into the prompt")
    if file.kind == "model":
        template.check(prompt, names, source)
        template.check_system(file.system, names, at("system"))


def _check_schema(schema: Schema, location: SourceLocation) -> None:
    """Rejects invalid JSON Schema under `types:` before the first call."""
    try:
        Validator(schema)
    except InputError as error:
        raise InputError(error.code, error.message, location=location, hint=error.hint) from error


def _check_names(file: CardFile, names: Iterable[str], at: Callable[..., SourceLocation]) -> None:
    """Rejects input names that a prompt cannot read (A002)."""
    if file.kind == "model" and (reserved_name := next((name for name in names if name in RESERVED_NAMES), None)):
        hint = f"rename it to {reserved_name.lower()}_: {reserved_name} is a reserved word of templates"
        raise InputError(
            "A002", f"the input {reserved_name!r} has a reserved name", location=at("input", reserved_name), hint=hint
        )


def _check_defaults(file: CardFile, inputs: Schema, at: Callable[..., SourceLocation]) -> None:
    """Rejects a default of an input that code reads; only inputs of a model's prompt may have one (A002)."""
    read_fields: dict[str | None, str] = {file.evidence: "evidence", file.grammar: "grammar"}
    read_fields |= dict.fromkeys(file.calls.values(), "calls")
    for name, field in inputs.get("properties", {}).items():
        if not isinstance(field, Mapping) or "default" not in field:
            continue
        if file.kind != "model":
            reason = f"an agent of kind {file.kind} always needs {name!r}"
        elif name in read_fields:
            reason = f"`{read_fields[name]}:` names {name!r}, so every call needs it"
        else:
            continue
        raise InputError(
            "A002",
            f"{reason}: it must not have a default",
            location=at("input", name),
            hint=f"{name}: {format_type(subschema(inputs, field))}",
        )


def _check_evidence(file: CardFile, fields: Mapping[str, Schema], outputs: Schema, location: SourceLocation) -> None:
    """Rejects `evidence` that is not an input, and quotes without a text to quote from (A008)."""
    names = list(fields)
    if file.evidence is not None and file.evidence not in names:
        near = closest_match(file.evidence, names)
        hint = f"did you mean {near!r}?" if near else f"inputs: {', '.join(names)}"
        raise InputError("A008", f"evidence: there is no input {file.evidence!r}", location=location, hint=hint)
    if schema_has_format(outputs, QUOTE_FORMAT) and not names:
        raise InputError(
            "A008",
            "an output of type Quote needs an input to quote from",
            location=location,
            hint="input: {context: str}",
        )


def _check_computed(file: CardFile, inputs: Schema, outputs: Schema, location: SourceLocation) -> None:
    """Rejects computed fields that code cannot compute (A013)."""
    of_labels = all(rule.probability is not None for rule in file.computed.values())
    of_tables = set(TABLE_ANSWER_FIELDS) <= set(outputs.get("properties", {}))
    sums = len(file.computed) == 1 and is_word_problem(inputs, OutputForm.build(outputs, file.computed, location))
    if file.computed and file.kind != "model" and not (file.kind == "encoder" and (of_labels or of_tables or sums)):
        missing = [name for name in TABLE_ANSWER_FIELDS if name not in outputs.get("properties", {})]
        nearly = file.kind == "encoder" and len(missing) < len(TABLE_ANSWER_FIELDS) / 2
        hint = (
            f"to read tables its output lacks {', '.join(missing)}: orchestra explain N147" if nearly else "kind: model"
        )
        raise InputError(
            "A013", f"computed: an agent of kind {file.kind} returns its whole output", location=location, hint=hint
        )
    OutputForm.build(outputs, file.computed, location)


def _check_calls(file: CardFile, inputs: Schema, outputs: Schema, location: SourceLocation) -> None:
    """Rejects `calls` that cannot be typed (A015)."""
    if file.calls and file.kind != "model":
        raise InputError(
            "A015", f"calls: an agent of kind {file.kind} does not generate text", location=location, hint="kind: model"
        )
    function_calls.check_call_fields(file.calls, inputs, OutputForm.build(outputs, file.computed).schema, location)


def _check_grammar(file: CardFile, fields: Mapping[str, Schema], outputs: Schema, location: SourceLocation) -> None:
    """Rejects a `grammar` that is not an input, and an output type that does not allow a grammar (A017)."""
    if file.grammar is None:
        return
    if file.kind != "model":
        raise InputError(
            "A017",
            f"grammar: an agent of kind {file.kind} does not generate text",
            location=location,
            hint="kind: model",
        )
    if fields.get(file.grammar, {}).get("type") != "string":
        near = closest_match(file.grammar, fields)
        hint = f"did you mean {near!r}?" if near and near != file.grammar else f"input: {{{file.grammar}: str}}"
        raise InputError(
            "A017", f"grammar: there is no input {file.grammar!r} that is a text", location=location, hint=hint
        )
    if not is_plain_text(outputs):
        raise InputError(
            "A017",
            f"grammar: the output is {format_type(outputs)}, but a grammar needs a text output",
            location=location,
            hint="output: str",
        )


def _check_lengths(file: CardFile, outputs: Schema, location: SourceLocation) -> None:
    """Rejects minimum text lengths that do not fit into `max_output` (A002)."""
    form = OutputForm.build(outputs, file.computed)
    text_schema = form.text_schema
    if file.kind != "model" or form.single_field or is_plain_text(text_schema):
        return
    length = longest_min_length(strip_unknown_formats(text_schema))
    if length > (max_length := free_text_limit(text_schema, file.max_output)):
        reason = (
            f"a text of at least {length:,} characters does not fit into max_output: {file.max_output}, which leaves it"
            f" {max_length:,}"
        )
        raise InputError(
            "A002", reason, location=location, hint=f"max_output: {required_max_output(text_schema, length)}"
        )


def _check_tool_use(file: CardFile, names: Iterable[str], location: SourceLocation) -> None:
    """Rejects tools and agents that the card cannot use (A018, A020)."""
    if not file.tools and not file.agents:
        if file.limits is not None:
            raise InputError(
                "A018", "limits: an agent without tools has no steps", location=location, hint="tools: [search]"
            )
        return
    key = "tools" if file.tools else "agents"
    if file.kind != "model":
        raise InputError(
            "A018", f"{key}: an agent of kind {file.kind} cannot call others", location=location, hint="kind: model"
        )
    if file.grammar is not None:
        hint = "remove `grammar:`; it is generated from the tools"
        raise InputError(
            "A018", f"{key}: an agent whose grammar is an input cannot call others", location=location, hint=hint
        )
    if file.name in file.agents:
        raise InputError(
            "A020",
            f"{file.name} may call itself",
            location=location,
            hint="recursion is not allowed: name other agents",
        )
    if twice := sorted({*file.tools} & {*file.agents}):
        raise InputError(
            "A018", f"{twice[0]!r} is named as a tool and as an agent", location=location, hint="remove one of them"
        )
    if reserved_name := next((name for name in names if tool_prompt.is_reserved(name)), None):
        hint = (
            f"rename it to {reserved_name}_; {', '.join(tool_prompt.INJECTED_NAMES)} and s1, s2, ... are added by "
            "the tool loop"
        )
        raise InputError(
            "A018",
            f"the input {reserved_name!r} of an agent with tools has a reserved name",
            location=location,
            hint=hint,
        )


def _check_members(file: CardFile, location: SourceLocation) -> None:
    """Rejects `members` on other kinds, an ensemble with fewer than two members, and keys that only members can have
    (A024).
    """
    if file.kind != "ensemble":
        if key := next((key for key in ("members", "weights", "enough") if getattr(file, key)), None):
            raise InputError(
                "A024", f"{key}: an agent of kind {file.kind} has no members", location=location, hint="kind: ensemble"
            )
        return
    if len(file.members) < MIN_MEMBERS or len(set(file.members)) < len(file.members) or file.name in file.members:
        hint = "members: [first_reader, second_reader]"
        raise InputError("A024", "members: an ensemble needs at least two other agents", location=location, hint=hint)
    if file.weights and len(file.weights) != len(file.members):
        reason = f"weights: there are {len(file.weights)} of them for {len(file.members)} members"
        raise InputError(
            "A024", reason, location=location, hint="state one per member, in their order, or remove the key"
        )
    member_key = next(
        (key for key in MEMBER_KEYS if getattr(file, key) != CardFile.model_fields[key].get_default()), None
    )
    if member_key:
        raise InputError(
            "A024",
            f"{member_key}: an ensemble has no such key; its members have it",
            location=location,
            hint=f"remove `{member_key}:`",
        )
