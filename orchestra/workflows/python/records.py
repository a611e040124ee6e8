"""Records: models made of values that are not known yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.schema.types import Schema, SchemaMode, resolve, schema_of, subschema
from orchestra.workflows.python.calls import argument_type_error
from orchestra.workflows.python.pending import type_mismatch
from orchestra.workflows.python.placeholders import Placeholder, contains_placeholder, lift, template_with_type
from orchestra.workflows.python.scopes import trace_error

P = ParamSpec("P")
T = TypeVar("T")


def build(model: Callable[P, T], /, *args: P.args, **fields: P.kwargs) -> T:
    """A pydantic model, dataclass or typed dict made of values that are not known yet; checked as its constructor is.

    Raises `InputError` W010 for fields that do not fit together, W011 for one of another type.
    """
    if not contains_placeholder(dict(fields)) and not contains_placeholder(args):
        return model(*args, **fields)
    if args:
        raise trace_error("W010", "build() takes the fields by name", hint="build(Answer, text=..., citations=[])")
    name = getattr(model, "__name__", str(model))
    written, output = _schema(model, name, "validation"), _schema(model, name, "serialization")
    known = written.get("properties", {})
    for key in fields:
        if key not in known:
            near = closest_match(key, known)
            raise trace_error(
                "W010",
                f"{name} has no field {key!r}",
                hint=f"did you mean {near!r}?" if near else f"fields: {', '.join(known)}",
            )
    if absent := [key for key in written.get("required", ()) if key not in fields]:
        raise trace_error("W010", f"{name} needs the field {absent[0]!r}", hint=f"build({name}, {absent[0]}=...)")
    given: dict[str, Any] = {
        key: part["default"] for key, part in known.items() if "default" in part and key not in fields
    }
    for key, value in fields.items():
        have = template_with_type(value)[1]
        want = subschema(written, known[key])
        if reason := type_mismatch(have, want):
            raise argument_type_error(f"build({name}, {key}=...)", value, have, want, reason)
        given[key] = value
    needed = output.get("required", ())
    there = {key: part for key, part in output["properties"].items() if key in given or key in needed}
    return cast(T, Placeholder(replace(lift(given), schema={**output, "properties": there})))


def _schema(model: Any, name: str, mode: SchemaMode) -> Schema:
    try:
        schema = resolve(schema_of(model, mode))
    except InputError as error:
        raise trace_error(
            "W010", f"build() takes a model: {error.message}", hint="build(Answer, text=..., citations=[])"
        ) from error
    if "properties" not in schema:
        raise trace_error(
            "W010", f"build() takes a model, and {name} is none", hint="build(Answer, text=..., citations=[])"
        )
    return schema
