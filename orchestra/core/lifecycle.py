"""Async contexts that users open, such as `Orchestra.open`, with clear errors for wrong use and for use on another
event loop.
"""

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
    """A context that is not open yet."""

    def __init__(self, inner: AbstractAsyncContextManager[T], name: str) -> None:
        self._inner, self._name = inner, name

    async def __aenter__(self) -> T:
        return await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)

    if not TYPE_CHECKING:  # static type checkers must not see these methods

        def __await__(self) -> NoReturn:
            raise InputError("E029", f"{self._name}() must not be awaited", hint=self._hint())

        def __enter__(self) -> NoReturn:
            raise InputError("E029", f"{self._name}() must be opened with `async with`, not `with`", hint=self._hint())

        def __exit__(self, *_: object) -> None:
            """Python requires it beside `__enter__`."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # Python looks these up itself, also on copies that have no attributes yet
            raise AttributeError(name)
        raise AttributeError(f"{self._name}() is not open, so it has no {name!r}: {self._hint()}", name=name, obj=self)

    def _hint(self) -> str:
        return f"write `async with {self._name}() as orchestra:`, or without asyncio `with blocking() as orchestra:`"


class LoopAffinity:
    """The event loop on which an object was opened. Only this loop may use the object."""

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raises `InputError` E030 on another event loop, where awaiting would never end."""
        if asyncio.get_running_loop() is self._loop:
            return
        if self._loop.is_closed():
            raise self._loop_closed_error()
        hint = (
            "open one here, or run the call on its loop: asyncio.run_coroutine_threadsafe(orchestra.run(...), its_loop)"
        )
        raise InputError("E030", "this Orchestra was opened on another event loop", hint=hint)

    def call_on_loop(self, callback: Callable[[str], None], argument: str) -> None:
        """Runs a function on the event loop: at once on this loop, or scheduled from another thread. Raises
        `InputError` E030 if the loop has ended.
        """
        try:
            is_own_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:  # no event loop runs in this thread
            is_own_loop = False
        if is_own_loop:
            callback(argument)
        elif self._loop.is_closed():
            raise self._loop_closed_error()
        else:
            self._loop.call_soon_threadsafe(callback, argument)

    @staticmethod
    def _loop_closed_error() -> InputError:
        hint = (
            "each `asyncio.run` has its own event loop: open an Orchestra inside it, "
            "or use `with blocking() as orchestra:`"
        )
        return InputError("E030", "this Orchestra was opened on an event loop that has ended", hint=hint)


def opening_context(function: Callable[P, AsyncIterator[T]]) -> Callable[P, UnopenedContext[T]]:
    """Like `asynccontextmanager`, for contexts that users open. An attribute access before opening raises
    `AttributeError` with a hint.
    """
    manager = asynccontextmanager(function)

    @wraps(function)
    def open_context(*args: P.args, **kwargs: P.kwargs) -> UnopenedContext[T]:
        return UnopenedContext(manager(*args, **kwargs), function.__qualname__)

    return open_context
