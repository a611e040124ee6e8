"""Questions to persons as elicitations of MCP: a form with one field, or with the fields of a flat record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from mcp_types import ClientCapabilities, ElicitRequestFormParams

from orchestra.app.run_detail import Question
from orchestra.schema.json_schema import resolve
from orchestra.schema.types import Schema
from orchestra.server.agent_protocols.questions import INVALID_CODE, takes_text, value_of_text
from orchestra.server.problems import RequestError

FIELD: Final = "answer"
"""The name of the only field of a form."""
_KEYWORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("minLength", "maxLength", "enum", "default"),
    "integer": ("minimum", "maximum", "default"),
    "number": ("minimum", "maximum", "default"),
    "boolean": ("default",),
}
"""The keywords of a form's fields: MCP allows no others."""


def can_elicit(capabilities: ClientCapabilities | None) -> bool:
    """Whether a client shows forms. One that names no mode does, as before there were modes."""
    elicitation = capabilities.elicitation if capabilities is not None else None
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def form_of(question: Question, note: str = "") -> ElicitRequestFormParams:
    """Returns the form for a question. `note` says what was wrong with the last answer."""
    parts = [note] if note else []
    parts.append(question.question)
    if question.withheld is not None:
        parts.append(f"The value that was not accepted: {_json(question.withheld.value)}")
    return ElicitRequestFormParams(message="\n\n".join(parts), requested_schema=_form_schema(question))


def _form_schema(question: Question) -> Schema:
    if question.options:
        return _single_field({"type": "string", "enum": list(question.options)})
    schema = resolve(question.schema)
    if (field := _form_field(schema)) is not None:
        return _single_field(field)
    if takes_text(question):
        return _single_field({"type": "string"})
    if (fields := _record_fields(schema)) is not None:
        return {"type": "object", "properties": fields, "required": list(schema.get("required", ()))}
    return _single_field({"type": "string", "description": f"JSON of this type: {_json(question.schema)}"})


def _single_field(field: Schema) -> Schema:
    return {"type": "object", "properties": {FIELD: field}, "required": [FIELD]}


def _form_field(schema: Schema) -> Schema | None:
    """Returns a type as the field of a form; None if no field has it."""
    kind = schema.get("type")
    if not isinstance(kind, str) or (keywords := _KEYWORDS.get(kind)) is None:
        return None
    return {"type": kind, **{name: schema[name] for name in keywords if name in schema}}


def _record_fields(schema: Schema) -> dict[str, Schema] | None:
    """Returns the fields of a flat record; None for another type."""
    properties = schema.get("properties")
    if schema.get("type") != "object" or not properties:
        return None
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    fields = {name: _form_field(resolve({**part, **definitions})) for name, part in properties.items()}
    present_fields = {name: field for name, field in fields.items() if field is not None}
    return present_fields if len(present_fields) == len(fields) else None


def answer_in(question: Question, content: Mapping[str, Any] | None) -> Any:
    """Returns the value that a submitted form states. Raises `RequestError` E022 for a form that states none."""
    answer, schema = dict(content or {}), resolve(question.schema)
    is_plain = takes_text(question) or _form_field(schema) is not None
    if not is_plain and _record_fields(schema) is not None:
        return answer
    if FIELD not in answer:
        raise RequestError(INVALID_CODE, f"the form has no field {FIELD!r}", hint="submit the form")
    return answer[FIELD] if is_plain else value_of_text(question, str(answer[FIELD]))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
