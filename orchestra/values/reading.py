"""JSON values read as the Python types that they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def reread(adapter: TypeAdapter[T], value: Any) -> T:
    """A JSON value as its type. Raises pydantic's `ValidationError` for one of another type.

    Read as Python first, which is faster and leaves a text a text in `Decimal | str`; a strict model, which takes a date from JSON as a
    text and from Python as a date alone, is read as JSON.
    """
    from pydantic import ValidationError
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        try:
            return adapter.validate_json(to_json(value))
        except (ValidationError, PydanticSerializationError):
            raise error from None
