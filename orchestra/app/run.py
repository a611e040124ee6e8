"""The handle of a run in the Python API."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Generator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self

from typing_extensions import TypeVar

from orchestra.app.result import Result, build_result
from orchestra.app.snapshot_store import stored_workflows
from orchestra.core.error_codes import LEASE_LOST
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import QuestionAsked, RunFinished, RunStarted
from orchestra.engine.run import Execution

if TYPE_CHECKING:
    from orchestra.app.reuse import NodeChange
    from orchestra.app.snapshot import WorkflowSnapshot
    from orchestra.core.events import Event, Override
    from orchestra.engine.streaming import TextPiece

R = TypeVar("R", default=Any)


class Run(Generic[R]):
    """A run: await it for its result, iterate it for its events, cancel it.

    A run continues if its handle is dropped. Closing the `Orchestra` stops it.
    """

    __slots__ = ("_by", "_decode", "_execution", "_snapshot")

    def __init__(
        self, execution: Execution, decode: Callable[[Any], Any], snapshot: WorkflowSnapshot | None = None, by: str = ""
    ) -> None:
        self._execution, self._decode, self._snapshot, self._by = execution, decode, snapshot, by

    @property
    def id(self) -> str:
        """The id of the run, as `orchestra runs show` takes it."""
        return self._execution.id

    def __await__(self) -> Generator[Any, None, Result[R]]:
        return self._wait_for_success().__await__()

    async def wait_started(self, *, has_key: bool = False) -> Self:
        """Waits until the first event is on disk, and returns the run. Raises as `abandon` says."""
        try:
            await self._execution.wait_started()
        except (asyncio.CancelledError, OrchestraError) as error:
            raise self.abandon(error, has_key=has_key)  # noqa: B904 - it has its cause
        return self

    def abandon(self, error: BaseException, *, has_key: bool) -> BaseException:
        """Returns what to raise after a wait for the run failed.

        A cancelled caller cancels the run, unless the run has an idempotency key: other callers may still want it. A
        lost lease (J005) under a key means that another process began the same run first: J022.
        """
        if isinstance(error, asyncio.CancelledError) and not has_key:
            self._execution.cancel("its caller")
        if not isinstance(error, OrchestraError) or error.code != LEASE_LOST or not has_key:
            return error
        from orchestra.journal.errors import lease_held_error

        lease_error = lease_held_error(self.id)
        lease_error.__cause__ = error
        return lease_error

    async def _wait_for_success(self) -> Result[R]:
        result = await self._result(await self._execution.wait())
        if result.status in ("failed", "budget", "cancelled") and result.error is not None:
            raise result.error
        return result

    async def wait(self) -> Result[R]:
        """Returns the result, however the run ended. Raises only errors of the engine or the journal. Cancelling the
        wait does not cancel the run.

        If the run asks a person, this waits for the answer: `wait_until_blocked` returns then.
        """
        return await self._result(await self._execution.wait())

    async def wait_until_blocked(self) -> Result[R] | None:
        """Returns the result; or None as soon as the run only waits for persons. `questions` are then the open ones."""
        finish_event = await self._execution.wait_until_blocked()
        return None if finish_event is None else await self._result(finish_event)

    @property
    def questions(self) -> tuple[QuestionAsked, ...]:
        """The open questions to persons, while the run waits for nothing else. `Orchestra.answer` answers them."""
        return self._execution.questions

    async def _result(self, finish_event: RunFinished) -> Result[R]:
        events = await self._execution.history()
        if self._snapshot is not None:
            workflows = self._snapshot.workflows
        else:
            workflows = (
                await stored_workflows(self._execution.journal, events[0])
                if events and isinstance(events[0], RunStarted)
                else {}
            )
        return build_result(finish_event, events, self.id, self._decode, workflows)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yields the events with `seq > after` once they are on disk, to the last one.

        Raises:
            OrchestraError: E017: the `Orchestra` was closed before the end; or an error of the engine or the journal.
        """
        return self._execution.events(after)

    def text(self, *, nodes: Collection[str] = (), agents: Collection[str] = ()) -> AsyncGenerator[TextPiece, None]:
        """Yields the text that language models write in this run, while they write it, to its end; with `nodes` or
        `agents` only theirs.

        The text is not verified and not stored. Every reader gets the same text; a slow reader gets joined pieces, a
        late one the text so far of current calls. Text that another process receives is not included.

        Raises:
            InputError: E032: the run was not started or resumed with `options(live=True)`.
            OrchestraError: As `events`.
        """
        if (live := self._execution.text_stream) is None:
            hint = f"orchestra.options(live=True).start(...); of a run that is there already: .resume({self.id!r})"
            raise InputError("E032", f"the text of run {self.id} is not read live", hint=hint)
        return self._execution.text(live, nodes, agents)

    def cancel(self, by: str = "") -> None:
        """Cancels the run: requests in flight are closed, finished nodes keep their values. Idempotent. Without a name,
        the option `by` names who cancels.
        """
        self._execution.cancel(by or self._by)


@dataclasses.dataclass(frozen=True, slots=True)
class Fork:
    """A run that repeats an earlier run, and what has changed since."""

    run: Run[Any]
    changes: tuple[NodeChange, ...]
    overrides: Mapping[str, Override] = dataclasses.field(default_factory=dict)
    """Values that persons gave for nodes, by path."""
