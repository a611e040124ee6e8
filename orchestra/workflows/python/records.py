"""Records: models made of values that are not known yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

from orchestra.core.errors import InputError
from orchestra.core.suggestions import nearest
from orchestra.schema.types import Mode, Schema, resolve, schema_of, under
from orchestra.workflows.python.calls import misfit
from orchestra.workflows.python.pending import unfit
from orchestra.workflows.python.placeholders import Placeholder, holds, lift, template
from orchestra.workflows.python.scopes import fault

P = ParamSpec("P")
T = TypeVar("T")


def new(model: Callable[P, T], /, *args: P.args, **fields: P.kwargs) -> T:
    """A pydantic model, dataclass or typed dict made of values that are not known yet; checked as its constructor is.

    Raises `InputError` W010 for fields that do not fit together, W011 for one of another type.
    """
    if not holds(dict(fields)) and not holds(args):
        return model(*args, **fields)
    if args:
        raise fault("W010", "new() takes the fields by name", hint="new(Answer, text=..., citations=[])")
    name = getattr(model, "__name__", str(model))
    written, output = _schema(model, name, "validation"), _schema(model, name, "serialization")
    known = written.get("properties", {})
    for key in fields:
        if key not in known:
            near = nearest(key, known)
            raise fault("W010", f"{name} has no field {key!r}", hint=f"did you mean {near!r}?" if near else f"fields: {', '.join(known)}")
    if absent := [key for key in written.get("required", ()) if key not in fields]:
        raise fault("W010", f"{name} needs the field {absent[0]!r}", hint=f"new({name}, {absent[0]}=...)")
    given: dict[str, Any] = {key: part["default"] for key, part in known.items() if "default" in part and key not in fields}
    for key, value in fields.items():
        have = template(value)[1]
        want = under(written, known[key])
        if reason := unfit(have, want):
            raise misfit(f"new({name}, {key}=...)", value, have, want, reason)
        given[key] = value
    needed = output.get("required", ())
    there = {key: part for key, part in output["properties"].items() if key in given or key in needed}
    return cast(T, Placeholder(replace(lift(given), schema={**output, "properties": there})))


def _schema(model: Any, name: str, mode: Mode) -> Schema:
    try:
        schema = resolve(schema_of(model, mode))
    except InputError as error:
        raise fault("W010", f"new() takes a model: {error.message}", hint="new(Answer, text=..., citations=[])") from error
    if "properties" not in schema:
        raise fault("W010", f"new() takes a model, and {name} is none", hint="new(Answer, text=..., citations=[])")
    return schema
