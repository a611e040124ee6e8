"""Faults of fleet files: pydantic's findings as located, coded errors, with where a key belongs that stands elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from orchestra.core.errors import InputError
from orchestra.core.suggestions import nearest
from orchestra.schema.strict_yaml import Marked

Model: TypeAlias = type[BaseModel]
_MISNAMED = "misnamed"


def misnamed(said: str, *at: str | int) -> PydanticCustomError:
    """A name that means nothing, with where it stands; a number behind a single name that is no list is passed over."""
    return PydanticCustomError(_MISNAMED, "{said}", {"said": said, "at": at})


def meant(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    return f"; did you mean {near!r}?" if (near := nearest(name, known)) else ""


def faults(error: ValidationError, marked: Marked, root: Model, holders: Mapping[Model, str]) -> list[InputError]:
    """What pydantic found in a file of the type `root`, each fault at its place. Keys stand at the top level, or at one of `holders`."""
    homes = _homes(root, holders)
    return [_located(fault, marked, homes) for fault in error.errors(include_url=False)]


def _located(fault: ErrorDetails, marked: Marked, homes: Mapping[str, Sequence[str]]) -> InputError:
    path = marked.path(fault["loc"], missing=fault["type"] == "missing")
    key = ".".join(str(part) for part in path) or "the file"
    hint = ""
    if fault["type"] == "extra_forbidden":
        message = f"unknown key {path[-1]!r} in {'.'.join(str(part) for part in path[:-1]) or 'the file'}"
        name = str(path[-1])
        hint = f"`{name}:` stands {' or '.join(homes[name])}" if name in homes else meant(name, homes).removeprefix("; ")
    elif fault["type"] == "missing":
        message, path = f"{key} is missing", path[:-1]
    elif fault["type"] == _MISNAMED:
        message, path = fault["msg"], fault["ctx"]["at"]
    else:
        message = f"{key}: {fault['msg'].removeprefix('Value error, ')}"
        if path and path[-1] == "api_key":
            hint = "write api_key: env:NAME or api_key: file:PATH; a secret itself never stands in a file of configuration"
    return InputError("F100", message, place=marked.place(path, key=fault["type"] == "extra_forbidden"), hint=hint)


def _homes(root: Model, holders: Mapping[Model, str]) -> dict[str, list[str]]:
    """The keys of all models, each with the places where it may stand."""
    found: dict[str, list[str]] = {}
    for model, place in _models(root, holders, "at the top level of the file"):
        for name, field in model.model_fields.items():
            places = found.setdefault(field.alias or name, [])
            if place not in places:
                places.append(place)
    return found


def _models(model: Model, holders: Mapping[Model, str], place: str) -> Iterator[tuple[Model, str]]:
    """A model and those inside it, each with where it stands: under the key of the file, or of a server, that holds it."""
    yield model, place
    for name, field in model.model_fields.items():
        for inner in _inside(field.annotation):
            below = place if place.startswith("under") else f"under `{name}:`, {place}"
            yield from _models(inner, holders, holders.get(inner, below))


def _inside(kind: Any) -> Iterator[Model]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _inside(part)
