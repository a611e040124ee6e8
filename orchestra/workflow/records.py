"""Records: models made of values that are not known yet."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

from pydantic import BaseModel

from orchestra.values.types import nearest, schema_of, under
from orchestra.workflow.calls import misfit
from orchestra.workflow.pending import unfit
from orchestra.workflow.placeholders import Placeholder, holds, lift, template
from orchestra.workflow.scopes import fault

P = ParamSpec("P")
T = TypeVar("T")


def new(model: Callable[P, T], /, *args: P.args, **fields: P.kwargs) -> T:
    """A pydantic model made of values that are not known yet. Checked as its constructor is. Raises `InputError` W010 or W011."""
    if not holds(dict(fields)) and not holds(args):
        return model(*args, **fields)
    if args or not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise fault("W010", "new() takes a pydantic model and its fields by name", hint="new(Answer, text=..., citations=[])")
    name = model.__name__
    written, output = schema_of(model, "validation"), schema_of(model, "serialization")
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
    wired = lift(given)
    return cast(T, Placeholder(replace(wired, schema=output)))
