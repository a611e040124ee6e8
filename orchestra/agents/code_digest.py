"""Digests of functions: of their bytecode, and of the code of the same folder that they use."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from inspect import unwrap
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from orchestra.schema.strict_json import digest

SCALAR_TYPES: Final = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    Decimal,
    Fraction,
    date,
    datetime,
    timedelta,
    re.Pattern,
)
CONTAINER_TYPES: Final = (tuple, list, set, frozenset, dict)
MAX_DEPTH, MAX_ITEMS = 8, 1_000
"""Maximum depth of a constant and maximum number of elements per level. Larger values are data that a module loaded."""
FUNCTION_TYPES: Final = (FunctionType, type(lru_cache(print)))


def code_digest(function: Callable[..., Any]) -> str:
    """Returns a digest of a function and of the functions, classes and constants of its folder that it uses.

    Comments and the order of definitions do not change the digest. Bytecode differs between Python versions, and so
    does the digest. Empty for a function that is not written in Python.
    """
    inner = unwrap(function)
    if not isinstance(inner, FunctionType):
        return ""
    walker = _CodeWalker(os.path.dirname(inner.__code__.co_filename), inner.__module__)
    return digest("\n".join(walker.walk_function(inner)).encode("utf-8", "surrogatepass"))


class _CodeWalker:
    """Describes functions, each of them once."""

    def __init__(self, folder: str, module: str) -> None:
        self._folder, self._module = folder, module
        self._visited: set[Any] = set()

    def walk_function(self, function: FunctionType) -> Iterator[str]:
        """Describes a function and what it uses."""
        if function in self._visited:
            return
        self._visited.add(function)
        code = function.__code__
        names = sorted(set(_global_names(code)))
        yield from _code_lines(code)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield from self._walk_value("default", default)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield from self._walk_value(name, cell.cell_contents)
            except ValueError:
                continue  # not bound yet
        yield from self._walk_globals(function.__globals__, names)

    def _walk_globals(self, namespace: Mapping[str, Any], names: list[str]) -> Iterator[str]:
        for name in names:
            value = namespace.get(name)
            if issubclass(type(value), ModuleType) and self._is_local(vars(value).get("__file__")):
                yield from self._walk_module(vars(value), names)
            elif name in namespace and (id(namespace), name) not in self._visited:
                self._visited.add((id(namespace), name))
                yield from self._walk_value(name, value)

    def _walk_module(self, namespace: Mapping[str, Any], names: list[str]) -> Iterator[str]:
        """Describes the names of a module that a function uses. Other functions may use other names."""
        if (key := (id(namespace), *names)) not in self._visited:
            self._visited.add(key)
            yield from self._walk_globals(namespace, names)

    def _walk_value(self, name: str, value: Any) -> Iterator[str]:
        """Describes a value by its type. Attributes of proxies are not accessed, because that may run code."""
        kind = type(value)
        if kind.__module__.partition(".")[0] == "orchestra":
            # the function of a tool
            value = vars(value).get("function", value) if hasattr(value, "__dict__") else value
            kind = type(value)
        if issubclass(kind, type):
            yield from self._walk_class(value)
        elif kind in FUNCTION_TYPES:
            inner = unwrap(value)
            if isinstance(inner, FunctionType) and self._is_local(inner.__code__.co_filename):
                yield f"uses {name}"
                yield from self.walk_function(inner)
        elif (constant_text := _constant_text(value)) is not None:
            yield f"{name} is {constant_text}"

    def _walk_class(self, class_value: type) -> Iterator[str]:
        if class_value in self._visited:
            return
        self._visited.add(class_value)
        for base in class_value.__mro__:
            if base.__module__ == self._module or self._is_local(
                vars(sys.modules.get(base.__module__, math)).get("__file__")
            ):
                for name, value in vars(base).items():
                    if not name.startswith("__"):
                        yield from self._walk_value(f"{base.__qualname__}.{name}", _unwrap_attribute(value))

    def _is_local(self, file: str | None) -> bool:
        """Whether a file is in the folder and not in an installed library."""
        if not file or not self._folder:
            return False
        folder, below = self._folder + os.sep, os.path.dirname(file) + os.sep
        return below.startswith(folder) and "site-packages" not in below[len(folder) :].split(os.sep)


def _unwrap_attribute(value: Any) -> Any:
    """Returns a class attribute without its Python wrapper, such as `property` or `staticmethod`."""
    kind = type(value)
    if kind in (staticmethod, classmethod):
        return value.__func__
    if kind is property:
        return value.fget
    return value._value_ if issubclass(kind, Enum) else value


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _global_names(const)


def _code_lines(code: CodeType) -> Iterator[str]:
    yield f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars}"
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _code_lines(const)
        else:
            yield _constant_text(const) or type(const).__name__


def _constant_text(value: Any, depth: int = 0) -> str | None:
    """Returns the text of a constant, with sets sorted; None if the value is not a constant or is too large."""
    kind = type(value)
    if kind in SCALAR_TYPES:
        return f"{kind.__name__} {value!r}"
    if kind not in CONTAINER_TYPES or depth > MAX_DEPTH or len(value) > MAX_ITEMS:
        return None
    parts = [_constant_text(item, depth + 1) for item in value]
    if kind is dict:
        values = [_constant_text(item, depth + 1) for item in value.values()]
        parts = [key and value_text and f"{key}: {value_text}" for key, value_text in zip(parts, values, strict=True)]
    if None in parts:
        return None
    text = ", ".join(sorted(map(str, parts)) if kind in (set, frozenset) else map(str, parts))
    return f"({text})" if kind in (tuple, list) else f"{{{text}}}"
