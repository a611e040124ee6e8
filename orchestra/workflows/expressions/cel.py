"""Programs of CEL: compiled once for a text and the types of its variables, and run many times.

cel-expr-python gives errors of evaluation as values, takes at most 32 levels, and stops after 10,000 iterations.
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
class Program:
    """One compiled text; `refusal` says why there is none."""

    compiled: Any
    schema: Schema
    refusal: str = ""

    def run(self, data: Mapping[str, Any], source: str) -> Any:
        """The value for these variables. Raises `OrchestraError` L061 where the evaluation fails; `source` names it in the message."""
        try:
            value = self.compiled.eval(data=data)
            plain = value.plain_value()
        except (RuntimeError, UnicodeEncodeError) as error:
            raise _failed(source, str(error)) from None
        if value.type().name() == _ERROR:
            raise _failed(source, str(plain))
        if isinstance(plain, float | list | dict) and not _finite(plain):
            raise _failed(source, "the result is not a finite number")
        return plain


_ERROR = "ERROR"


def _finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case list():
            return all(_finite(one) for one in value)
        case dict():
            return all(_finite(one) for one in value.values())
        case _:
            return True


_SAID = (
    (re.compile(r'Key not found in map : "?([^"]*)"?'), "there is no field {0!r}"),
    (re.compile(r"Index error: index=(-?\d+) size=(\d+)"), "there is no element {0} in a list of {1}"),
    (re.compile(r"No matching overloads? found : (\S+)\((.*)\)"), "{0} does not take ({1})"),
    (re.compile(r"Iteration budget exceeded"), "more than 10,000 iterations"),
    (re.compile(r"invalid regular expression: (.*)"), "a pattern that RE2 does not take: {0}"),
    (re.compile(r"found no matching overload for '(\S+)' applied to '\((.*)\)'"), "{0} does not take ({1})"),
    (re.compile(r"Exceeded max recursion depth|recursion limit exceeded"), "too many levels or operators (CEL's recursion limit)"),
)
_OPERATOR = re.compile(r"^[_@](\W{1,2}|\?_:|in)_?$")
_CODE = re.compile(r"^[A-Z_]+: (?:ERROR: <input>:-?\d+:-?\d+: )?| \[[A-Z_]+\]$")


def _said(text: str) -> str:
    """A message of CEL in words."""
    first = text.partition("\n")[0]
    for pattern, words in _SAID:
        if match := pattern.search(first):
            return words.format(*(_OPERATOR.sub(r"\1", group).replace("int64", "int") for group in match.groups()))
    return _CODE.sub("", first)


def _failed(source: str, reason: str) -> OrchestraError:
    return OrchestraError("L061", f"${{{source}}}: {_said(reason)}", hint="guard it with a condition, as in ${size(xs) > 0 ? xs[0] : ...}")


@lru_cache(maxsize=256)
def _environment(types: tuple[str, ...]) -> Any:
    from cel_expr_python import cel

    return cel.NewEnv(variables={f"v{number}": cel.Type(name) for number, name in enumerate(types)})


@lru_cache(maxsize=4096)
def program(text: str, types: tuple[str, ...]) -> Program:
    """The program of a text over the variables `v0`, `v1`, ... of these types."""
    try:
        compiled = _environment(types).compile(text)
    except RuntimeError as error:
        return Program(None, ANY, _said(str(error)))
    return Program(compiled, _schema(compiled.return_type().name()))


_NAMES = {"STRING": "string", "INT": "integer", "DOUBLE": "number", "BOOL": "boolean", "NULL": "null"}


def _schema(name: str) -> Schema:
    return {"type": _NAMES[name]} if name in _NAMES else ANY
