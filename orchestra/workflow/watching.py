"""Watching: while a workflow function is traced, the functions that it hands placeholders to are looked at as it is itself.

`x is None` in a helper would be decided while the workflow is described, and Python says nothing of it. A helper that is handed no
placeholder may say what it likes, so what counts is the call: Python tells of each one through a hook of this thread. That makes tracing
two or three times as slow, so it is done only where a function that may be reached has such a test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CellType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from orchestra.workflow.bytecode import blind_spots, looked_past
from orchestra.workflow.mistakes import Spot
from orchestra.workflow.placeholders import Guarded, Placeholder
from orchestra.workflow.scopes import looked_past as mistake


@contextmanager
def watched(function: Callable[..., Any]) -> Iterator[None]:
    """Refuses blind spots of functions that are handed a placeholder inside (W013); `function` is what is traced.

    Where a debugger has the hook for traces, the one for profiles is taken, which costs more; where both are taken nothing is watched.
    """
    hooks = ((sys.gettrace, sys.settrace), (sys.getprofile, sys.setprofile))
    found = next((hook for hook in hooks if hook[0]() is None), None)
    if found is None or not any(True for code in _reached(function) for _ in blind_spots(code)):
        yield
        return
    (get, put), watch = found, _Watch()
    put(watch)
    try:
        yield
    finally:
        if get() is watch:  # else a breakpoint has taken it
            put(None)


class _Watch:
    """What Python calls at each call."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[CodeType, bool]] = {}
        """By the `id` of a code object, which is held so that no other gets it: whether calls of it are looked at."""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if (known := self.seen.get(id(code))) is None:
            users = _is_users(code, frame.f_globals.get("__name__"))
            known = self.seen[id(code)] = code, users and any(True for _ in blind_spots(code))
        waiting = [name for name, value in frame.f_locals.items() if _waits(value)] if known[1] else []
        if waiting and (blind := looked_past(code, waiting)):
            raise mistake(*blind)


def _is_users(code: CodeType, module: object) -> bool:
    return not str(module).startswith("orchestra.") and not Spot(code, -1).foreign


def _waits(value: Any) -> bool:
    """Whether a value is a placeholder, or a list or mapping of some."""
    kind = type(value)
    if kind in (Placeholder, Guarded):
        return True
    parts = value.values() if kind is dict else value if kind in (list, tuple) else ()
    return any(type(part) in (Placeholder, Guarded) for part in parts)


def _reached(function: Callable[..., Any]) -> Iterator[CodeType]:
    """The code of the user's functions that a function may call, as far as names lead; its own, which is looked at anyway, is left out."""
    line: list[Any] = [function]
    seen: dict[int, Any] = {}
    while line:
        one = line.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        kind = type(one)  # `isinstance` would ask a placeholder for its class
        if kind is FunctionType and _is_users(one.__code__, one.__module__):
            if one is not function:
                yield one.__code__
            line += _named(one)
        elif kind is partial:
            line += [one.func, *one.args, *one.keywords.values()]
        elif kind in (MethodType, staticmethod, classmethod):
            line.append(one.__func__)
        elif kind is property:
            line.append(one.fget)
        elif kind in (list, tuple, dict):
            line += one.values() if kind is dict else one


def _named(function: FunctionType) -> Iterator[Any]:
    """What the names in a function's code stand for: globals, what it closes over, attributes of modules, and the methods of classes."""
    names = _names(function.__code__)
    bound = [function.__globals__[name] for name in names & function.__globals__.keys()]
    for value in (*bound, *map(_content, function.__closure__ or ()), *(function.__defaults__ or ())):
        yield value
        kind = type(value)
        if kind is ModuleType:
            yield from (vars(value)[name] for name in names & vars(value).keys())
        for owner in value.__mro__ if issubclass(kind, type) else kind.__mro__:
            if not str(owner.__module__).startswith(("orchestra.", "builtins")):
                yield from vars(owner).values()  # a method may call any other


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the name is bound later
        return None


def _names(code: CodeType) -> set[str]:
    """The global names and attributes in a function's code, and in functions that stand inside it."""
    inner = [_names(one) for one in code.co_consts if isinstance(one, CodeType)]
    return {*code.co_names}.union(*inner)
