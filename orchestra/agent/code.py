"""How a function is written, as a digest: of its code, and of what it uses of the code beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from inspect import unwrap
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from orchestra.values.json import digest

PLAIN: Final = (type(None), bool, int, float, str, bytes)


def code_digest(function: Callable[..., Any]) -> str:
    """A digest that stays while the function, and the functions, classes and constants of its folder that it names, say the same; empty
    for what is not written in Python.

    Not of the lines of the file: comments and the order of a module say nothing. Bytecode is another in each version of Python, and so
    is the digest.
    """
    inner = unwrap(function)
    if not isinstance(inner, FunctionType):
        return ""
    told = _Telling(os.path.dirname(inner.__code__.co_filename))
    return digest("\n".join(told.function(inner)).encode("utf-8", "surrogatepass"))


class _Telling:
    """Tells what functions say, each of them once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._told: set[int] = set()

    def function(self, function: FunctionType) -> Iterator[str]:
        """What a function says, and what it uses."""
        if id(function) in self._told:
            return
        self._told.add(id(function))
        code = function.__code__
        names = sorted(set(_names(code)))
        yield from _code(code)
        for given in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield from self._value("default", given)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield from self._value(name, cell.cell_contents)
            except ValueError:
                continue  # not bound yet
        yield from self._used(function.__globals__, names)

    def _used(self, known: Mapping[str, Any], names: list[str]) -> Iterator[str]:
        for name in names:
            if name in known:
                value = known[name]
                if isinstance(value, ModuleType) and self._beside(getattr(value, "__file__", None)) and id(value) not in self._told:
                    self._told.add(id(value))
                    yield from self._used(vars(value), names)
                else:
                    yield from self._value(name, value)

    def _value(self, name: str, value: Any) -> Iterator[str]:
        value = getattr(value, "function", value)  # of a tool
        if isinstance(value, type):
            yield from self._class(value)
        elif callable(value):
            inner = unwrap(value)
            if isinstance(inner, FunctionType) and self._beside(inner.__code__.co_filename):
                yield f"uses {name}"
                yield from self.function(inner)
        elif (said := _plain(value)) is not None:
            yield f"{name} is {said}"

    def _class(self, found: type) -> Iterator[str]:
        methods = [one for one in vars(found).values() if isinstance(one, FunctionType)]
        for method in methods:
            if self._beside(method.__code__.co_filename):
                yield from self.function(method)

    def _beside(self, file: str | None) -> bool:
        return file is not None and f"{os.path.dirname(file)}{os.sep}".startswith(f"{self._folder}{os.sep}")


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)


def _code(code: CodeType) -> Iterator[str]:
    yield f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars}"
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _code(const)
        else:
            yield _plain(const) or type(const).__name__


def _plain(value: Any) -> str | None:
    """A constant as it is written; None for what is none. Sets have no order."""
    if isinstance(value, PLAIN):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, tuple | list):
        parts = [_plain(one) for one in value]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    if isinstance(value, set | frozenset):
        parts = [_plain(one) for one in value]
        return None if None in parts else f"{{{', '.join(sorted(map(str, parts)))}}}"
    if isinstance(value, dict):
        pairs = [(_plain(key), _plain(one)) for key, one in value.items()]
        return None if any(None in pair for pair in pairs) else f"{{{', '.join(f'{key}: {one}' for key, one in pairs)}}}"
    return None
