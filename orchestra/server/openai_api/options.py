"""The field `orchestra` of a request, and the parts of a request that runs cannot honour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.tags import is_tag
from orchestra.engine.request import RunOptions
from orchestra.schema.assignability import assignability_error
from orchestra.schema.types import Schema
from orchestra.schema.validator import Validator
from orchestra.server.endpoints import Call
from orchestra.server.openai_api.errors import unsupported
from orchestra.server.openai_api.models import ANY_VALUE, Target, find_target
from orchestra.server.runs import NO_OPTIONS, Options, run_options


class OrchestraOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The field `orchestra` of a request."""

    inputs: dict[str, Any] = {}
    """Inputs that the messages do not state, such as documents. `{"$file": ID}` is an uploaded file."""
    unverified: bool = False
    """Whether a stream also has the text that models write before it is checked, as `reasoning_content`."""
    verified_only: bool = False
    """Whether an answer of which a part has no check that passed is withheld, although the run accepted it."""
    on_disconnect: Literal["continue", "cancel"] = "cancel"
    """What happens to the run if the client disconnects."""
    options: Options = NO_OPTIONS
    """Budget, label, tags and others, as for `/api/runs`."""
    answer_to: str = ""
    """A run that waits for a person: the last message is the answer to its question."""


NO_ORCHESTRA = OrchestraOptions()


class JsonSchemaFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The schema of a structured output."""

    name: str = ""
    schema: dict[str, Any] = {}
    strict: bool | None = None


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The wanted form of the output. The Responses API states the schema in the format itself."""

    type: str = "text"
    json_schema: JsonSchemaFormat | None = None
    schema: dict[str, Any] | None = None

    @property
    def wanted_schema(self) -> Schema | None:
        """The wanted JSON Schema; None without one."""
        return self.json_schema.schema if self.json_schema is not None else self.schema


TEXT_FORMAT = OutputFormat()


@dataclass(frozen=True, slots=True)
class FieldRules:
    """The fields of OpenAI's requests that a run cannot honour."""

    ignored: Sequence[str]
    """Fields without effect."""
    unsupported: Mapping[str, Sequence[Any]]
    """Fields that are refused, unless they have one of these values."""
    format_pointer: str
    """The place of the wanted format in a request."""


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """What a request runs, and the form of the output."""

    target: Target
    returns: Schema | None
    """The schema that a planned request returns; None for other targets."""
    structured: bool
    """Whether the client wants JSON."""
    ignored: tuple[str, ...]
    """Stated fields without effect."""


def find_output_target(
    call: Call[Any, Any], model: str, wanted: OutputFormat | None, rules: FieldRules
) -> OutputTarget:
    """Returns what a request names as its model.

    Raises:
        RequestError: S030 for a field or a form of the output that a run cannot honour; S009 for an unknown model.
    """
    fields = {name: getattr(call.body, name) for name in call.body.__struct_fields__}
    reject_unsupported(fields, rules.unsupported)
    target, wanted = find_target(call, model), wanted or TEXT_FORMAT
    return OutputTarget(
        target,
        require_format(target, wanted, rules.format_pointer),
        wanted.type != "text",
        ignored_fields(fields, rules.ignored),
    )


def require_format(target: Target, wanted: OutputFormat, pointer: str) -> Schema | None:
    """Returns the schema that a planned request shall return; None for other targets.

    Raises:
        RequestError: S030 if the target does not return the wanted form.
    """
    match wanted.type:
        case "text":
            return None
        case "json_object":
            schema: Schema = {"type": "object"}
        case "json_schema" if wanted.wanted_schema:
            schema = wanted.wanted_schema
        case _:
            raise unsupported(f"the format {wanted.type[:50]!r} is not supported", pointer, "json_schema with a schema")
    try:
        Validator(schema)
    except (OrchestraError, ValueError) as error:
        raise unsupported(f"the schema is invalid: {error}", pointer, "a JSON Schema") from error
    if target.output == ANY_VALUE and target.step is None:
        return schema
    if (reason := assignability_error(target.output, schema)) is not None:
        raise unsupported(
            f"{target.name} does not return this schema: {reason}", pointer,
            f"GET /v1/models/{target.name} shows its output_schema",
        )  # fmt: skip
    return None


def reject_unsupported(fields: Mapping[str, Any], rules: Mapping[str, Sequence[Any]]) -> None:
    """Raises `RequestError` S030 for the first field whose value is none of those that a run can honour."""
    for name, allowed_values in rules.items():
        value = fields[name]
        if value is not None and value not in allowed_values:
            if name in ("tools", "functions"):
                raise unsupported(
                    "tools of the client cannot be called: a workflow calls its own tools", f"/{name}",
                    "add them to the project as tools or as an MCP server",
                )  # fmt: skip
            raise unsupported(f"{name} cannot be honoured", f"/{name}", "leave it out")


def ignored_fields(fields: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Returns the stated fields without effect: how a model samples is part of an agent's card."""
    return tuple(name for name in names if fields[name] is not None)


def openai_options(
    call: Call[Any, Any], asked: OrchestraOptions, metadata: Mapping[str, Any] | None, *, keep: bool = True
) -> RunOptions:
    """Returns the options of a run. The metadata of the request become tags, as far as they are valid ones.

    Args:
        call: The request.
        asked: The field `orchestra`.
        metadata: The field `metadata`.
        keep: Whether the run is kept after its end.
    """
    tags = {str(name): str(value) for name, value in (metadata or {}).items()}
    options = msgspec.structs.replace(
        asked.options,
        tags={**{name: value for name, value in tags.items() if is_tag(name, value)}, **asked.options.tags},
        ttl=asked.options.ttl if keep or asked.options.ttl is not None else UNSTORED_SECONDS,
    )
    return run_options(call, options, live=asked.unverified)


UNSTORED_SECONDS = 60
"""Seconds that a run with `store: false` is kept after its end: the reply is made from it."""
