"""Tags of runs: names with values for searching, such as `customer=42`. They are recorded in the run's first event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from orchestra.core.errors import InputError

Tags: TypeAlias = Mapping[str, str]

TAG_PREFIX: Final = "tag:"
"""Prefix of a tag's name in lists that also contain other names."""
MAX_VALUE_LENGTH: Final = 200
"""Maximum length of a value in characters."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_PYTHON_HINT = 'orchestra.options(tags={"customer": "42"})'


def validate_tags(tags: object, hint: str = _PYTHON_HINT) -> dict[str, str]:
    """Returns tags as plain strings; subclasses of `str`, such as NumPy's, are converted. Raises `InputError` E040 for
    invalid tags.
    """
    if not isinstance(tags, Mapping):
        raise InputError("E040", f"tags must be a mapping of names to strings, not {type(tags).__name__}", hint=hint)
    valid_tags: dict[str, str] = {}
    for name, value in tags.items():
        if not is_tag_name(name):
            raise InputError("E040", f"{name!r} is not a valid tag name", hint=hint)
        if not isinstance(value, str) or not is_tag(name, value):
            message = (
                f"the tag {name!r} is {value!r}"
                if not isinstance(value, str)
                else f"the value of tag {name!r} must be one line of 1 to {MAX_VALUE_LENGTH} characters"
            )
            raise InputError("E040", message, hint=hint)
        valid_tags[str.__str__(name)] = str.__str__(
            value
        )  # not `str(value)`, which a subclass such as an enumeration may override
    return valid_tags


def is_tag_name(name: object) -> bool:
    """Returns whether a name is a valid tag name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_tag(name: str, value: str) -> bool:
    """Returns whether name and value form a valid tag."""
    return is_tag_name(name) and 0 < len(value) <= MAX_VALUE_LENGTH and value.isprintable()


def parse_tags(texts: Iterable[str]) -> dict[str, str]:
    """Parses tags in the form `customer=42`. Raises `InputError` E040, also for two values of one name."""
    parsed_tags: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or parsed_tags.get(name, value) != value:
            message = f"the tag {name!r} has two values" if equals else f"{text!r} is not a tag"
            raise InputError("E040", message, hint="--tag customer=42")
        parsed_tags[name] = value
    return validate_tags(parsed_tags, "--tag customer=42")


def has_tags(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Returns whether all wanted tags are present."""
    return wanted.items() <= tags.items()


def format_tags(tags: Mapping[str, str]) -> str:
    """Formats tags in the form in which they are typed, in their given order."""
    return " ".join(f"{name}={value}" for name, value in tags.items())
