"""CEL programs, compiled once for a text and the types of its variables, and run many times.

cel-expr-python returns evaluation errors as values, supports at most 32 levels, and stops after 10,000 iterations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestra.core.errors import OrchestraError
from orchestra.schema.json_schema import ANY, Schema


@dataclass(frozen=True, slots=True)
class CelProgram:
    """A compiled expression; `compile_error` is the reason if compilation failed."""

    compiled: Any
    schema: Schema
    compile_error: str = ""

    def run(self, data: Mapping[str, Any], source: str) -> Any:
        """Runs the program with these variables. Raises `OrchestraError` L061 if the evaluation fails; `source` is
        shown in the message.
        """
        try:
            value = self.compiled.eval(data=data)
            plain = value.plain_value()
        except (RuntimeError, UnicodeEncodeError) as error:
            raise _evaluation_error(source, str(error)) from None
        if value.type().name() == _ERROR_TYPE:
            raise _evaluation_error(source, str(plain))
        if isinstance(plain, float | list | dict) and not _is_finite(plain):
            raise _evaluation_error(source, "the result is not a finite number")
        return plain


_ERROR_TYPE = "ERROR"


def _is_finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case list():
            return all(_is_finite(item) for item in value)
        case dict():
            return all(_is_finite(item) for item in value.values())
        case _:
            return True


_MESSAGES = (
    (re.compile(r'Key not found in map : "?([^"]*)"?'), "there is no field {0!r}"),
    (re.compile(r"Index error: index=(-?\d+) size=(\d+)"), "there is no element {0} in a list of {1}"),
    (re.compile(r"No matching overloads? found : (\S+)\((.*)\)"), "{0} does not take ({1})"),
    (re.compile(r"Iteration budget exceeded"), "more than 10,000 iterations"),
    (re.compile(r"invalid regular expression: (.*)"), "a pattern that RE2 does not take: {0}"),
    (re.compile(r"found no matching overload for '(\S+)' applied to '\((.*)\)'"), "{0} does not take ({1})"),
    (
        re.compile(r"Exceeded max recursion depth|recursion limit exceeded"),
        "too many levels or operators (CEL's recursion limit)",
    ),
)
_OPERATOR = re.compile(r"^[_@](\W{1,2}|\?_:|in)_?$")
_ERROR_CODE = re.compile(r"^[A-Z_]+: (?:ERROR: <input>:-?\d+:-?\d+: )?| \[[A-Z_]+\]$")


def _readable_message(text: str) -> str:
    """Rewrites a message of CEL in plain words."""
    first = text.partition("\n")[0]
    for pattern, words in _MESSAGES:
        if match := pattern.search(first):
            return words.format(*(_OPERATOR.sub(r"\1", group).replace("int64", "int") for group in match.groups()))
    return _ERROR_CODE.sub("", first)


def _evaluation_error(source: str, reason: str) -> OrchestraError:
    return OrchestraError(
        "L061",
        f"${{{source}}}: {_readable_message(reason)}",
        hint="guard it with a condition, as in ${size(xs) > 0 ? xs[0] : ...}",
    )


@lru_cache(maxsize=256)
def _environment(types: tuple[str, ...]) -> Any:
    from cel_expr_python import cel

    return cel.NewEnv(variables={f"v{number}": cel.Type(name) for number, name in enumerate(types)})


@lru_cache(maxsize=4096)
def compile_program(text: str, types: tuple[str, ...]) -> CelProgram:
    """Compiles a text with the variables `v0`, `v1`, ... of these types."""
    try:
        compilation = _environment(types).compile(text)
    except RuntimeError as error:
        return CelProgram(None, ANY, _readable_message(str(error)))
    return CelProgram(compilation, _result_schema(compilation.return_type().name()))


_JSON_TYPES = {"STRING": "string", "INT": "integer", "DOUBLE": "number", "BOOL": "boolean", "NULL": "null"}


def _result_schema(name: str) -> Schema:
    return {"type": _JSON_TYPES[name]} if name in _JSON_TYPES else ANY
