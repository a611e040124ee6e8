"""A run under way, as Python sees it."""

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
    """A run under way: await it for its result, iterate it for its events, cancel it.

    Leaving it alone does not end it; closing the `Orchestra` does.
    """

    __slots__ = ("_by", "_decode", "_execution", "_snapshot")

    def __init__(
        self, execution: Execution, decode: Callable[[Any], Any], snapshot: WorkflowSnapshot | None = None, by: str = ""
    ) -> None:
        self._execution, self._decode, self._snapshot, self._by = execution, decode, snapshot, by

    @property
    def id(self) -> str:
        """What `orchestra runs show` takes."""
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

        A cancelled caller cancels the run, unless the run has an idempotency key: other callers may still want it. A lost lease (J005)
        under a key means that another process began the same run first: J022.
        """
        if isinstance(error, asyncio.CancelledError) and not has_key:
            self._execution.cancel("its caller")
        if not isinstance(error, OrchestraError) or error.code != LEASE_LOST or not has_key:
            return error
        from orchestra.journal.errors import lease_held_error

        other = lease_held_error(self.id)
        other.__cause__ = error
        return other

    async def _wait_for_success(self) -> Result[R]:
        result = await self._result(await self._execution.wait())
        if result.status in ("failed", "budget", "cancelled") and result.error is not None:
            raise result.error
        return result

    async def wait(self) -> Result[R]:
        """The result, however the run ended. Raises only what broke the engine or the journal. Cancelling the wait leaves the run.

        A run that asks a person waits here too, at no cost, until somebody answers: `pause` comes back instead.
        """
        return await self._result(await self._execution.wait())

    async def wait_until_blocked(self) -> Result[R] | None:
        """The result; or None as soon as the run waits for persons and for nothing else: `asked` says what they are asked."""
        finished = await self._execution.wait_until_blocked()
        return None if finished is None else await self._result(finished)

    @property
    def questions(self) -> tuple[QuestionAsked, ...]:
        """What persons are asked, while the run waits for nothing else; answer with `Orchestra.answer`."""
        return self._execution.questions

    async def _result(self, finished: RunFinished) -> Result[R]:
        events = await self._execution.history()
        if self._snapshot is not None:
            found = self._snapshot.workflows
        else:
            found = (
                await stored_workflows(self._execution.journal, events[0])
                if events and isinstance(events[0], RunStarted)
                else {}
            )
        return build_result(finished, events, self.id, self._decode, found)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events with `seq > after` as they get durable, to the last one. Raises what broke the engine or the journal, and
        `OrchestraError` E017 where the `Orchestra` was closed before that."""
        return self._execution.events(after)

    def text(self, *, nodes: Collection[str] = (), agents: Collection[str] = ()) -> AsyncGenerator[TextPiece, None]:
        """What language models write in this run, piece by piece while they do, to its end; with `nodes` or `agents` only of these.

        It is unverified and kept nowhere: events and result are what counts. Every reader sees the same; a slow one gets joined pieces,
        a late one the text so far of the calls that are under way. Of what another process does with the run there is nothing.
        Raises `InputError` E032 for a run that was not begun, or resumed, with `options(live=True)`; and as `events` does.
        """
        if (live := self._execution.text_stream) is None:
            hint = f"orchestra.options(live=True).start(...); of a run that is there already: .resume({self.id!r})"
            raise InputError("E032", f"the text of run {self.id} is not read live", hint=hint)
        return self._execution.text(live, nodes, agents)

    def cancel(self, by: str = "") -> None:
        """Asks the run to end: requests in flight are closed, what has finished stays. Idempotent. Without a name it is asked by whoever
        the options named under which it was begun, or resumed."""
        self._execution.cancel(by or self._by)


@dataclasses.dataclass(frozen=True, slots=True)
class Fork:
    """A run that goes over an old one again, and what has changed since."""

    run: Run[Any]
    changes: tuple[NodeChange, ...]
    overrides: Mapping[str, Override] = dataclasses.field(default_factory=dict)
    """By path: what persons gave, so that it is not made anew."""
