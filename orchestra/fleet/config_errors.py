"""Errors of fleet files: translates pydantic's errors into coded errors with a location, and a hint where a misplaced
key belongs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_yaml import YamlDocument

ModelType: TypeAlias = type[BaseModel]
_LOCATED = "located"


def located_error(message: str, *path: str | int, hint: str = "") -> PydanticCustomError:
    """Returns an error with its path. A list index behind a single name that is no list is ignored."""
    return PydanticCustomError(_LOCATED, "{message}", {"message": message, "at": path, "hint": hint})


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?`, or an empty string."""
    return f"; did you mean {near!r}?" if (near := closest_match(name, known)) else ""


def validation_errors(
    error: ValidationError, marked: YamlDocument, root: ModelType, key_locations: Mapping[ModelType, str]
) -> list[InputError]:
    """Returns pydantic's errors of a file as located errors.

    Args:
        error: The error of pydantic.
        marked: The document with its locations.
        root: The type of the file.
        key_locations: Descriptions of where the keys of nested types belong.
    """
    homes = _key_locations(root, key_locations)
    faults = error.errors(include_url=False)
    return [_to_input_error(fault, marked, homes) for fault in faults if not _is_consequence(fault, faults)]


def _is_consequence(fault: ErrorDetails, faults: Sequence[ErrorDetails]) -> bool:
    """Returns whether a list is too short only because pydantic does not count its invalid elements."""
    place = fault["loc"]
    return fault["type"] == "too_short" and any(
        other_fault["loc"][: len(place)] == place and other_fault is not fault for other_fault in faults
    )


def _to_input_error(
    fault: ErrorDetails, yaml_document: YamlDocument, key_locations: Mapping[str, Sequence[str]]
) -> InputError:
    path = yaml_document.path(fault["loc"], missing=fault["type"] == "missing")
    key = ".".join(str(part) for part in path) or "the file"
    hint = ""
    if fault["type"] == "extra_forbidden":
        message = f"unknown key {path[-1]!r} in {'.'.join(str(part) for part in path[:-1]) or 'the file'}"
        name = str(path[-1])
        hint = (
            f"`{name}:` stands {' or '.join(key_locations[name])}"
            if name in key_locations
            else suggestion(name, key_locations).removeprefix("; ")
        )
    elif fault["type"] == "missing":
        message, path = f"{key} is missing", path[:-1]
    elif fault["type"] == _LOCATED:
        message, path, hint = fault["msg"], fault["ctx"]["at"], fault["ctx"]["hint"]
    else:
        message = f"{key}: {fault['msg'].removeprefix('Value error, ')}"
        if path and path[-1] == "api_key":
            hint = "write api_key: env:NAME or api_key: file:PATH; a configuration file never contains a secret"
    return InputError(
        "F100", message, location=yaml_document.location(path, key=fault["type"] == "extra_forbidden"), hint=hint
    )


def _key_locations(root: ModelType, key_locations: Mapping[ModelType, str]) -> dict[str, list[str]]:
    """Returns the keys of all models, each with the places where it may be."""
    locations: dict[str, list[str]] = {}
    for model, place in _iter_models(root, key_locations, "at the top level of the file"):
        for name, field in model.model_fields.items():
            places = locations.setdefault(field.alias or name, [])
            if place not in places:
                places.append(place)
    return locations


def _iter_models(
    model: ModelType, key_locations: Mapping[ModelType, str], place: str
) -> Iterator[tuple[ModelType, str]]:
    """Yields a model and its nested models, each with the description of its place in the file."""
    yield model, place
    for name, field in model.model_fields.items():
        for inner in _nested_models(field.annotation):
            below = place if place.startswith("under") else f"under `{name}:`, {place}"
            yield from _iter_models(inner, key_locations, key_locations.get(inner, below))


def _nested_models(kind: Any) -> Iterator[ModelType]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _nested_models(part)
