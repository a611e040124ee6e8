"""Tags: names with values that a caller gives a run, to find it by: `customer=42`. They stand in the run's first event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from orchestra.core.errors import InputError

Tags: TypeAlias = Mapping[str, str]

TAG_PREFIX: Final = "tag:"
"""What a tag's name has before it where names of other kinds stand beside it."""
MAX_VALUE_LENGTH: Final = 200
"""Characters of a value at most."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_PYTHON_HINT = 'orchestra.options(tags={"customer": "42"})'


def validate_tags(tags: object, hint: str = _PYTHON_HINT) -> dict[str, str]:
    """Tags as they are kept: plain texts, also of subclasses of `str` such as NumPy's. Raises `InputError` E040 for what are none."""
    if not isinstance(tags, Mapping):
        raise InputError("E040", f"tags are a mapping of names to texts, and no {type(tags).__name__}", hint=hint)
    found: dict[str, str] = {}
    for name, value in tags.items():
        if not is_tag_name(name):
            raise InputError("E040", f"{name!r} is no name of a tag", hint=hint)
        if not isinstance(value, str) or not is_tag(name, value):
            said = (
                f"the tag {name!r} is {value!r}"
                if not isinstance(value, str)
                else f"the tag {name!r} is no line of 1 to {MAX_VALUE_LENGTH} characters"
            )
            raise InputError("E040", said, hint=hint)
        found[str.__str__(name)] = str.__str__(
            value
        )  # whatever `str` of the subclass says, as that of an enumeration does
    return found


def is_tag_name(name: object) -> bool:
    """Whether it is a name that a tag may have."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_tag(name: str, value: str) -> bool:
    """Whether a run may have a tag of this name with this value."""
    return is_tag_name(name) and 0 < len(value) <= MAX_VALUE_LENGTH and value.isprintable()


def parse_tags(texts: Iterable[str]) -> dict[str, str]:
    """Tags as they are typed, `customer=42` each. Raises `InputError` E040, also for two values of one name."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or found.get(name, value) != value:
            said = f"the tag {name!r} has two values" if equals else f"{text!r} is no tag"
            raise InputError("E040", said, hint="--tag customer=42")
        found[name] = value
    return validate_tags(found, "--tag customer=42")


def has_tags(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether all that are wanted are there."""
    return wanted.items() <= tags.items()


def format_tags(tags: Mapping[str, str]) -> str:
    """As they are typed, in the order in which they were given."""
    return " ".join(f"{name}={value}" for name, value in tags.items())
