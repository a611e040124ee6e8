"""Names of fields as a model writes them, and as it reads them: a value that passes between nodes is written, and read again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo


def unread(kind: Any) -> tuple[str, str, str] | None:
    """A field inside a type that is written under a name that is not read: the model, the field, and that name. None where all are read."""
    line, seen = [kind], set[int]()
    while line:
        one = line.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        line += get_args(one)
        if isinstance(one, type) and issubclass(one, BaseModel):
            for name, field in one.model_fields.items():
                line.append(field.annotation)
                written = field.serialization_alias or name
                if not field.exclude and written not in _read(one, name, field):
                    return one.__name__, name, written
    return None


def _read(model: type[BaseModel], name: str, field: FieldInfo) -> Iterator[str]:
    """The names under which a field is read."""
    by_name = model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
    alias = field.validation_alias
    if alias is None or by_name:
        yield name
    for one in alias.choices if isinstance(alias, AliasChoices) else [alias]:
        if isinstance(one, str):
            yield one
        elif isinstance(one, AliasPath) and len(one.path) == 1:
            yield str(one.path[0])
