"""What `Orchestra.open` gives: it opens under `async with`, and says so where it is used without, or on another event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NoReturn, ParamSpec, TypeVar

from orchestra.core.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")


class UnopenedContext(AbstractAsyncContextManager[T], Generic[T]):
    """Something that is not open yet."""

    def __init__(self, inner: AbstractAsyncContextManager[T], name: str) -> None:
        self._inner, self._name = inner, name

    async def __aenter__(self) -> T:
        return await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)

    if not TYPE_CHECKING:  # checkers of types shall go on saying that it has none of these

        def __await__(self) -> NoReturn:
            raise InputError("E029", f"{self._name}() is not awaited", hint=self._hint())

        def __enter__(self) -> NoReturn:
            raise InputError("E029", f"{self._name}() opens under `async with`, not under `with`", hint=self._hint())

        def __exit__(self, *_: object) -> None:
            """Python wants it beside `__enter__`."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what Python asks for itself, of a copy too, which has nothing yet
            raise AttributeError(name)
        raise AttributeError(
            f"{self._name}() is not open yet, and has no {name!r}: {self._hint()}", name=name, obj=self
        )

    def _hint(self) -> str:
        return f"write `async with {self._name}() as orchestra:`, or without asyncio `with blocking() as orchestra:`"


class LoopAffinity:
    """The event loop that something was opened on, and that alone may use it."""

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raises `InputError` E030 on another loop, where what is waited for would never come."""
        if asyncio.get_running_loop() is self._loop:
            return
        if self._loop.is_closed():
            raise self._loop_closed_error()
        hint = "open one here, or have it done there: asyncio.run_coroutine_threadsafe(orchestra.run(...), its_loop)"
        raise InputError("E030", "this Orchestra was opened on another event loop", hint=hint)

    def call_on_loop(self, callback: Callable[[str], None], argument: str) -> None:
        """Has something done on the loop: at once where this is it, and from another thread as soon as the loop comes to it. Raises
        `InputError` E030 where it has ended."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:  # no loop runs in this thread
            here = False
        if here:
            callback(argument)
        elif self._loop.is_closed():
            raise self._loop_closed_error()
        else:
            self._loop.call_soon_threadsafe(callback, argument)

    @staticmethod
    def _loop_closed_error() -> InputError:
        hint = "each `asyncio.run` has a loop of its own: open one inside of it, or use `with blocking() as orchestra:`"
        return InputError("E030", "this Orchestra was opened on an event loop that has ended", hint=hint)


def opening_context(function: Callable[P, AsyncIterator[T]]) -> Callable[P, UnopenedContext[T]]:
    """As `asynccontextmanager`, for what users open themselves: an attribute of what is not open raises `AttributeError` with what to
    write."""
    manager = asynccontextmanager(function)

    @wraps(function)
    def begin(*args: P.args, **named: P.kwargs) -> UnopenedContext[T]:
        return UnopenedContext(manager(*args, **named), function.__qualname__)

    return begin
