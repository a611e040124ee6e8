"""Progress of runs in a notebook cell: one line of text that is updated in place.

It exists only in a kernel of IPython, which is found among the loaded modules: nothing is imported for it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol, Self

from typing_extensions import TypeVar

from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    NodeFinished,
    QuestionAsked,
    RunFinished,
    RunStarted,
)
from orchestra.core.quantities import format_duration, format_money
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.fleet.progress import Progress

if TYPE_CHECKING:
    from orchestra.app.result import Result
    from orchestra.app.run import Run

R = TypeVar("R", default=Any)

MAX_LENGTH = 200
"""Characters of the line."""
DELAY_SECONDS = 0.3
"""Seconds after which a run shows the line. A faster one shows nothing."""


class Publisher(Protocol):
    """The part of IPython's `DisplayPublisher` that is used."""

    def publish(
        self, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None, *, transient: Any, update: bool
    ) -> None:
        """Shows data, or updates what has the same `display_id`."""


class NotebookProgress:
    """The line of a notebook. All runs of one execution of a cell share a line.

    Events arrive on the loop's thread. The line is written on the thread of the cell.
    """

    def __init__(
        self, publisher: Publisher, execution: Callable[[], Any], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._publisher, self._execution, self._monotonic = publisher, execution, monotonic
        self._shown_in: Any = None
        """The execution whose output has the line."""
        self._display_id = self._shown = ""
        self._began = 0.0
        self._workflow = self._doing = self._fleet = ""
        self._finished = 0
        self._question: QuestionAsked | None = None
        self._end: RunFinished | None = None

    @classmethod
    def find(cls) -> NotebookProgress | None:
        """Returns the progress of this process's notebook; None without a kernel, or at a terminal."""
        get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
        shell: Any = None if get_shell is None else get_shell()  # IPython has types only where it is installed
        if not hasattr(shell, "kernel") or sys.stdout.isatty():
            return None
        return cls(shell.display_pub, lambda: shell.execution_count)

    @property
    def is_usable(self) -> bool:
        """Whether this thread may show the line: the one on which cells run."""
        return threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        """Begins the next run."""
        self._began = self._monotonic()
        self._workflow = self._doing = self._fleet = ""
        self._finished = 0
        self._question = self._end = None
        return self

    def __exit__(self, *_: object) -> None:
        """Shows the end of the run, if it took long enough, or if an earlier run of the cell did."""
        if self._shown_in == self._execution():
            self._publish(self.line())
        else:
            self.show()

    async def follow(self, run: Run[R], *, has_key: bool) -> Result[R]:
        """Notes the events of a run to its end, and returns its result. Raises as awaiting the run does, and as
        `Run.abandon` says.
        """
        try:
            async with aclosing(run.events()) as events:
                async for event in events:
                    self.on_event(event)
            return await run
        except (asyncio.CancelledError, OrchestraError) as error:
            raise run.abandon(error, has_key=has_key)  # noqa: B904 - it has its cause

    def on_fleet(self, progress: Progress) -> None:
        """Notes what the fleet prepares."""
        self._fleet = "" if progress.stage == "ready" else f"{progress.message}{progress.format_amount()}"

    def on_event(self, event: Event) -> None:
        """Notes an event of the run."""
        match event:
            case RunStarted():
                self._workflow = event.workflow
            case AttemptStarted():
                self._doing = f"{event.node} calls {event.name}"
                self._fleet = ""
            case NodeFinished():
                self._finish_node(event.node)
            case AttemptFinished(final=True):
                self._finish_node(event.node)
            case QuestionAsked():
                self._question = event
            case RunFinished():
                self._end = event
            case _:
                pass

    def _finish_node(self, node: str) -> None:
        self._finished += 1
        if self._question is not None and self._question.node == node:
            self._question = None

    def show(self) -> None:
        """Shows the line, if it has changed and the run takes long enough."""
        if self._monotonic() - self._began >= DELAY_SECONDS:
            self._publish(self.line())

    def line(self) -> str:
        """Returns the line."""
        duration = format_duration(self._monotonic() - self._began)
        if self._end is not None:
            usage = self._end.usage
            cost_text = f", {format_money(usage.money)} of money" if usage.money > 0 else ""
            parts = [f"{self._end.status} in {duration}", f"{pluralize(usage.calls, 'call')}{cost_text}"]
        else:
            parts = [duration, f"{pluralize(self._finished, 'node')} finished"]
            if self._question is not None:
                parts.append(f"{self._question.node} waits for a person: {self._question.question}")
            else:
                parts += filter(None, [self._fleet or self._doing])
        text = f"{self._workflow or 'starting'}: {' · '.join(parts)}"
        return shorten(escape_invisible(" ".join(text.split()), keep=""), MAX_LENGTH)

    def _publish(self, line: str) -> None:
        execution = self._execution()
        update = execution == self._shown_in
        if update and line == self._shown:
            return
        if not update:
            self._shown_in, self._display_id = execution, f"orchestra-{token_hex(8)}"
        self._shown = line
        transient = {"display_id": self._display_id}
        self._publisher.publish({"text/plain": line}, {}, transient=transient, update=update)
