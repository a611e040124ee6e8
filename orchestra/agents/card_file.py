"""What `agent.yaml` says, and whether its keys fit one another."""

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
"""The kinds whose folder has a data file and arrays."""

MEMBER_KEYS = (
    "prompt",
    "system",
    "model",
    "adapter",
    "elsewhere",
    "calibration",
    "sampling",
    "max_output",
    "min_output",
    "data",
)
"""Keys that say how an agent is asked: an ensemble is not."""
MIN_MEMBERS = 2
"""Members of an ensemble."""

LATER_KEYS = frozenset(
    {"computed", "calls", "calibration", "grammar", "tools", "agents", "limits", "members", "weights", "enough"}
)
"""Keys that cards did not always have."""
ELSEWHERE_KEY = "elsewhere"

NAME_PATTERN = re.compile(r"^[a-z][a-z0-9_]*$")
Name: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN.pattern, max_length=64)]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, defer_build=True)


class SamplingParameters(_FrozenModel):
    """How tokens are drawn. At temperature 0 the likeliest is taken."""

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
    """An input that a call may leave out: its type as text, and the value that it has then."""

    type: str
    default: Any


def _input_form(given: Any) -> str:
    """Which of the two forms of an input is meant, so that faults are told of that one alone."""
    return "optional" if isinstance(given, dict | OptionalInput) else "needed"


InputDeclaration: TypeAlias = Annotated[
    Annotated[str, Tag("needed")] | Annotated[OptionalInput, Tag("optional")], Discriminator(_input_form)
]


class CardFile(_FrozenModel):
    """What `agent.yaml` says."""

    schema_: Literal["orchestra/v1"] = Field(default="orchestra/v1", alias="schema")
    name: Name
    description: str = ""
    kind: Literal["model", "sklearn", "tagger", "encoder", "ensemble", "python"] = "model"
    members: tuple[Name, ...] = Field(default=(), strict=False)
    """Of kind `ensemble`: the agents of the same types that answer each call together."""
    weights: tuple[Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)], ...] = Field(default=(), strict=False)
    """Of an ensemble: what each member's probability counts, in their order; alike where they are not stated."""
    enough: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of an ensemble: how probable an answer must be for the members behind those that were asked not to be asked; all
    side by side where it is not stated.
    """
    input: Mapping[Name, InputDeclaration] = {}
    """Types as texts, or `{type, default}` for an input that may be left out."""
    output: str | Mapping[Name, str]
    types: Mapping[str, Mapping[str, Any]] = {}
    computed: Mapping[Name, ComputedField] = {}
    """Fields of the output that code fills once a model has written the others."""
    calls: Mapping[Name, Name] = {}
    """Fields of the output that list calls, each with the input that lists the functions which may be called."""
    grammar: Name | None = None
    """An input that holds the grammar of the output, which is a text: Lark, as llguidance reads it. Code makes it, for
    each call.
    """
    tools: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), strict=False)
    """Tools that its model may call, one after the other, before it answers."""
    agents: tuple[Name, ...] = Field(default=(), strict=False)
    """Other agents that it may ask in the same way."""
    limits: ToolLimits | None = None
    calibration: str | None = None
    """A file of the folder that sets the probabilities of choices right, made by `orchestra learn calibrate`; it may
    come
    later.
    """
    prompt: str = "prompt.md"
    """A file of the folder."""
    system: str = ""
    """What comes before the messages of the prompt: one message, a template over the inputs as the prompt is."""
    model: str = "base"
    """A name in the fleet; of kind `encoder`, the encoder that it stands on."""
    adapter: str | None = None
    elsewhere: Literal["prompt"] | None = None
    """What is asked of a server whose base is not the one that the adapter was trained on: the prompt alone; nothing
    where
    it is not stated.
    """
    sampling: SamplingParameters = SamplingParameters.model_construct()
    max_output: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    min_output: Annotated[int, Field(ge=1, le=1 << 20)] = 16
    """Output tokens, at most and at least, that a budget must leave."""
    checks: tuple[str, ...] = Field(default=(), strict=False)
    accept: Literal["certified"] | Annotated[float, Field(ge=0, le=1)] | None = None
    otherwise: tuple[Literal["retry", "escalate", "back_off", "abstain"], ...] = Field(default=(), strict=False)
    label: Label = "restricted"
    """The strictest label of data that it may see."""
    evidence: str | None = None
    """The input that fields of type `Quote` quote from."""
    data: str = "model.json"
    """Of a classical agent and of an encoder: a file of the folder that says how its arrays are used."""


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
    """Refuses a card whose keys, types and prompt do not fit one another; `at` gives the place of a key, and `source`
    is
    the prompt's. One that a run has `stored` goes on with defaults and lengths that new ones are refused for: it was
    asked so before.

    Raises `InputError` A002, A005, A006, A008, A013, A015, A017, A018, A020 or A024, and what a schema is refused with.
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
    if file.kind == "model":
        template.check(prompt, names, source)
        template.check_system(file.system, names, at("system"))


def _check_schema(schema: Schema, place: SourceLocation) -> None:
    """Refuses JSON Schema under `types:` that is no good one, before a call meets it."""
    try:
        Validator(schema)
    except InputError as error:
        raise InputError(error.code, error.message, location=place, hint=error.hint) from error


def _check_names(file: CardFile, names: Iterable[str], at: Callable[..., SourceLocation]) -> None:
    """Refuses inputs that no prompt could read (A002)."""
    if file.kind == "model" and (taken := next((name for name in names if name in RESERVED_NAMES), None)):
        hint = f"call it {taken.lower()}_: in a prompt {taken} is a word of templates"
        raise InputError(
            "A002", f"the input {taken!r} has a name that is taken", location=at("input", taken), hint=hint
        )


def _check_defaults(file: CardFile, inputs: Schema, at: Callable[..., SourceLocation]) -> None:
    """Refuses a default where code reads an input, and not the prompt of a model alone (A002)."""
    read: dict[str | None, str] = {file.evidence: "evidence", file.grammar: "grammar"}
    read |= dict.fromkeys(file.calls.values(), "calls")
    for name, field in inputs.get("properties", {}).items():
        if not isinstance(field, Mapping) or "default" not in field:
            continue
        if file.kind != "model":
            why = f"an agent of kind {file.kind} is always given {name!r}"
        elif name in read:
            why = f"{name!r} is what `{read[name]}:` names, and always given"
        else:
            continue
        raise InputError(
            "A002",
            f"{why}: it has no default",
            location=at("input", name),
            hint=f"{name}: {format_type(subschema(inputs, field))}",
        )


def _check_evidence(file: CardFile, given: Mapping[str, Schema], outputs: Schema, place: SourceLocation) -> None:
    """Refuses evidence that is no input, and quotes that nothing could be quoted from (A008)."""
    names = list(given)
    if file.evidence is not None and file.evidence not in names:
        near = closest_match(file.evidence, names)
        hint = f"did you mean {near!r}?" if near else f"inputs: {', '.join(names)}"
        raise InputError("A008", f"evidence: there is no input {file.evidence!r}", location=place, hint=hint)
    if schema_has_format(outputs, QUOTE_FORMAT) and not names:
        raise InputError(
            "A008", "an output of type Quote needs an input to quote from", location=place, hint="input: {context: str}"
        )


def _check_computed(file: CardFile, inputs: Schema, outputs: Schema, place: SourceLocation) -> None:
    """Refuses fields that code cannot fill (A013)."""
    of_labels = all(rule.probability is not None for rule in file.computed.values())
    of_tables = set(TABLE_ANSWER_FIELDS) <= set(outputs.get("properties", {}))
    sums = len(file.computed) == 1 and is_word_problem(inputs, OutputForm.build(outputs, file.computed, place))
    if file.computed and file.kind != "model" and not (file.kind == "encoder" and (of_labels or of_tables or sums)):
        missing = [name for name in TABLE_ANSWER_FIELDS if name not in outputs.get("properties", {})]
        nearly = file.kind == "encoder" and len(missing) < len(TABLE_ANSWER_FIELDS) / 2
        hint = (
            f"to read tables its output lacks {', '.join(missing)}: orchestra explain N147" if nearly else "kind: model"
        )
        raise InputError(
            "A013", f"computed: an agent of kind {file.kind} fills its whole output", location=place, hint=hint
        )
    OutputForm.build(outputs, file.computed, place)


def _check_calls(file: CardFile, inputs: Schema, outputs: Schema, place: SourceLocation) -> None:
    """Refuses lists of calls that cannot be typed (A015)."""
    if file.calls and file.kind != "model":
        raise InputError(
            "A015", f"calls: an agent of kind {file.kind} decodes nothing", location=place, hint="kind: model"
        )
    function_calls.check_call_fields(file.calls, inputs, OutputForm.build(outputs, file.computed).schema, place)


def _check_grammar(file: CardFile, given: Mapping[str, Schema], outputs: Schema, place: SourceLocation) -> None:
    """Refuses a grammar that is no input, and an output that none can hold (A017)."""
    if file.grammar is None:
        return
    if file.kind != "model":
        raise InputError(
            "A017", f"grammar: an agent of kind {file.kind} decodes nothing", location=place, hint="kind: model"
        )
    if given.get(file.grammar, {}).get("type") != "string":
        near = closest_match(file.grammar, given)
        hint = f"did you mean {near!r}?" if near and near != file.grammar else f"input: {{{file.grammar}: str}}"
        raise InputError(
            "A017", f"grammar: there is no input {file.grammar!r} that is a text", location=place, hint=hint
        )
    if not is_plain_text(outputs):
        raise InputError(
            "A017",
            f"grammar: the output is {format_type(outputs)}, and a grammar makes a text",
            location=place,
            hint="output: str",
        )


def _check_lengths(file: CardFile, outputs: Schema, place: SourceLocation) -> None:
    """Refuses texts that must be longer than `max_output` lets them be (A002)."""
    form = OutputForm.build(outputs, file.computed)
    written = form.text_schema
    if file.kind != "model" or form.single_field or is_plain_text(written):
        return
    length = longest_min_length(strip_unknown_formats(written))
    if length > (most := free_text_limit(written, file.max_output)):
        reason = (
            f"a text of at least {length:,} characters does not fit into max_output: {file.max_output}, which leaves it"
            f" {most:,}"
        )
        raise InputError("A002", reason, location=place, hint=f"max_output: {required_max_output(written, length)}")


def _check_tool_use(file: CardFile, names: Iterable[str], place: SourceLocation) -> None:
    """Refuses tools and agents that cannot be used as the card says (A018, A020)."""
    if not file.tools and not file.agents:
        if file.limits is not None:
            raise InputError(
                "A018", "limits: an agent without tools takes no steps", location=place, hint="tools: [search]"
            )
        return
    key = "tools" if file.tools else "agents"
    if file.kind != "model":
        raise InputError(
            "A018", f"{key}: an agent of kind {file.kind} calls nothing", location=place, hint="kind: model"
        )
    if file.grammar is not None:
        hint = "leave `grammar:` out; it is made of the tools"
        raise InputError(
            "A018", f"{key}: the grammar of this agent's output comes with each call", location=place, hint=hint
        )
    if file.name in file.agents:
        raise InputError(
            "A020",
            f"{file.name} may ask itself",
            location=place,
            hint="an agent with tools is bounded: name other agents",
        )
    if twice := sorted({*file.tools} & {*file.agents}):
        raise InputError(
            "A018", f"{twice[0]!r} is named as a tool and as an agent", location=place, hint="leave one of them out"
        )
    if taken := next((name for name in names if tool_prompt.is_reserved(name)), None):
        hint = (
            f"call it {taken}_; {', '.join(tool_prompt.INJECTED_NAMES)} and s1, s2, ... are what the loop itself"
            " puts in"
        )
        raise InputError(
            "A018", f"the input {taken!r} of an agent with tools has a name that is taken", location=place, hint=hint
        )


def _check_members(file: CardFile, place: SourceLocation) -> None:
    """Refuses members of a card of another kind, an ensemble without two of them, and what only its members can have
    (A024).
    """
    if file.kind != "ensemble":
        if key := next((key for key in ("members", "weights", "enough") if getattr(file, key)), None):
            raise InputError(
                "A024", f"{key}: an agent of kind {file.kind} answers by itself", location=place, hint="kind: ensemble"
            )
        return
    if len(file.members) < MIN_MEMBERS or len(set(file.members)) < len(file.members) or file.name in file.members:
        hint = "members: [first_reader, second_reader]"
        raise InputError("A024", "members: an ensemble is two other agents or more", location=place, hint=hint)
    if file.weights and len(file.weights) != len(file.members):
        reason = f"weights: there are {len(file.weights)} of them for {len(file.members)} members"
        raise InputError("A024", reason, location=place, hint="one for each member, in their order; or leave them out")
    stated = next((key for key in MEMBER_KEYS if getattr(file, key) != CardFile.model_fields[key].get_default()), None)
    if stated:
        raise InputError(
            "A024", f"{stated}: an ensemble has what its members have", location=place, hint=f"leave `{stated}:` out"
        )
