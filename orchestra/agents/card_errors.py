"""Card errors: converts pydantic's validation errors to coded errors with locations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestra.core.errors import InputError, InputErrors
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_yaml import YamlDocument


def to_input_error(error: ValidationError, model: type[BaseModel], marked: YamlDocument) -> InputError:
    """Converts a validation error of a file to one error with a location for each fault."""
    found = [_located_error(entry, model, marked) for entry in error.errors(include_url=False)]
    return merge_errors(found)


def merge_errors(found: Sequence[InputError]) -> InputError:
    """Returns a single error, or all errors sorted by location."""
    ordered = sorted(found, key=lambda one: (one.location.line, one.location.column) if one.location else (0, 0))
    return ordered[0] if len(ordered) == 1 else InputErrors(list(ordered))


def _located_error(entry: ErrorDetails, model: type[BaseModel], marked: YamlDocument) -> InputError:
    path = marked.path(entry["loc"], missing=entry["type"] == "missing")
    name = ".".join(str(step) for step in path) or "the card"
    if entry["type"] == "extra_forbidden":
        known = _known_keys(model, path[:-1])
        near, holder = closest_match(str(path[-1]), known), parent_key(str(path[-1]), model) if len(path) == 1 else ""
        hint = f"did you mean {near!r}?" if near else f"keys here: {', '.join(known)}" if known else ""
        hint = f"it belongs in another key: `{holder}: {{{name}: …}}`" if holder else hint
        return InputError("A002", f"a card has no key {name!r}", location=marked.location(path, key=True), hint=hint)
    if entry["type"] == "missing":
        return InputError(
            "A002", f"the key {name!r} is missing", location=marked.location(path[:-1]), hint=f"add `{path[-1]}:`"
        )
    reason = str(entry["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return InputError(
        "A002",
        f"{name}: expected {reason}" if "should be" in entry["msg"] else f"{name}: {reason}",
        location=marked.location(path),
    )


def parent_key(name: str, model: type[BaseModel]) -> str:
    """Returns the top-level key whose record has this key, such as `sampling` for `temperature`; empty if none has."""
    return next((key for key in model.model_fields if name in _known_keys(model, (key,))), "")


def _known_keys(model: type[BaseModel], path: Iterable[Any]) -> list[str]:
    for step in path:
        info = model.model_fields.get(str(step))
        inner = info.annotation if info else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]
