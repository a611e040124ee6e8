"""What `Orchestra.open` gives: it opens under `async with`, and says so where it is used without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import Generic, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Opening(AbstractAsyncContextManager[T], Generic[T]):
    """Something that is not open yet."""

    def __init__(self, inner: AbstractAsyncContextManager[T], name: str) -> None:
        self._inner, self._name = inner, name

    async def __aenter__(self) -> T:
        return await self._inner.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what Python asks for itself, of a copy too, which has nothing yet
            raise AttributeError(name)
        hint = f"write `async with {self._name}() as orchestra:`, or without asyncio `with blocking() as orchestra:`"
        raise AttributeError(f"{self._name}() is not open yet, and has no {name!r}: {hint}", name=name, obj=self)


def opening(function: Callable[P, AsyncIterator[T]]) -> Callable[P, Opening[T]]:
    """As `asynccontextmanager`, for what users open themselves: an attribute of what is not open raises `AttributeError` with what to
    write."""
    manager = asynccontextmanager(function)

    @wraps(function)
    def begin(*args: P.args, **named: P.kwargs) -> Opening[T]:
        return Opening(manager(*args, **named), function.__qualname__)

    return begin
