"""Threads: conversations whose turns are runs of the journal.

A turn is a run of a request. What the user typed, and how it became a full request, is its input `follow_up`; the tag
`orchestra.thread` finds the runs of a thread. So a thread has no storage of its own: after a crash its turns are read
from the journal, and deleting its runs deletes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from orchestra.app.planning import PlanOptions, request_workflow, require_request
from orchestra.app.run_queries import delete_runs, first_and_last_events
from orchestra.core.errors import BudgetExceeded
from orchestra.core.events import RunFinished, RunStarted, Usage
from orchestra.core.labels import Label, join
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import NO_LIMIT
from orchestra.core.tags import validate_tags
from orchestra.core.untrusted_text import shorten
from orchestra.router.follow_ups import MAX_TURNS, EarlierTurn, Resolution, resolve_follow_up
from orchestra.router.typed_values import Vocabulary
from orchestra.schema.builtin_models import Table
from orchestra.tools.plain_arithmetic import plain_expression
from orchestra.workflows.model import REQUEST, Budget
from orchestra.workflows.python.steps import Workflow

if TYPE_CHECKING:
    from orchestra.app.open_orchestra import OpenOrchestra
    from orchestra.app.result import Result
    from orchestra.app.run import Run
    from orchestra.core.protocols import Journal
    from orchestra.core.tags import Tags

THREAD_TAG: Final = "orchestra.thread"
"""The tag of all runs of a thread."""
FOLLOW_UP: Final = "follow_up"
"""The input of a turn that has what the user typed, and how it was resolved."""
MAX_ANSWER: Final = 2000
"""Characters of an earlier answer that a later turn may refer to."""
MAX_VALUES: Final = 12
MAX_VALUE: Final = 200
"""Characters of an earlier value that a later turn may refer to."""
EXHAUSTED: Final = "E042"
"""The error code of a thread whose budget is used up."""
_VALUE_FIELDS = ("answer", "value", "label", "text")


@dataclass(frozen=True)
class Turn:
    """A turn of a thread: what the user typed, what it means, and its run."""

    number: int
    """From 1; 0 for a turn that was not run."""
    text: str
    """What the user typed."""
    resolution: Resolution
    run: str = ""
    """The id of the run; empty if nothing was run, because the user must say what is meant."""
    status: str = ""
    """The status of the run; `running` if it has no end."""
    output: Any = None
    """The output as JSON; None if there is none."""
    label: Label = "internal"
    """The label of the data that the turn has read."""
    result: Result[Any] | None = field(default=None, repr=False, compare=False)
    """The result; None for a turn that was read from the journal."""

    @property
    def request(self) -> str:
        """The full request."""
        return self.resolution.request

    @property
    def needs_choice(self) -> bool:
        """Whether nothing was run: `resolution.options` are the readings, `resolution.reason` is why."""
        return not self.run

    @property
    def answer(self) -> str:
        """The text of the answer; empty if there is none."""
        return shorten("\n".join(_texts(self.output)), MAX_ANSWER)

    def as_earlier(self) -> EarlierTurn:
        """Returns what a later turn may refer to."""
        return EarlierTurn(self.request, tuple(answer_values(self.output)), self.answer)


@dataclass(frozen=True)
class StartedTurn:
    """A turn whose run has started."""

    turn: Turn
    step: Workflow[..., Any]
    run: Run[Any]


class Thread:
    """A conversation. Its turns go one after the other, and a later turn may refer to what earlier ones answered.

    `Orchestra.thread` returns one; the same id continues the thread, also in another process.
    """

    def __init__(
        self,
        orchestra: OpenOrchestra,
        id: str,
        tags: Tags,
        *,
        budget: Budget | None = None,
        options: PlanOptions | None = None,
    ) -> None:
        """Checks the id.

        Args:
            orchestra: Runs the turns.
            id: The id, which is the value of a tag: one line of 1 to 200 characters.
            tags: Further tags of the runs.
            budget: The limits of all turns together.
            options: How the requests are planned.

        Raises:
            InputError: E040: an invalid id.
        """
        self._tags = validate_tags({**tags, THREAD_TAG: id}, 'orchestra.thread("invoices")')
        self.id, self._orchestra, self._budget = id, orchestra, budget
        self._options = options or PlanOptions()
        self._lock = asyncio.Lock()

    async def turns(self, limit: int = 50) -> list[Turn]:
        """Returns the latest turns from the journal, the oldest first."""
        run_summaries = await self._orchestra.runs(tags={THREAD_TAG: self.id}, limit=limit)
        status = {run_summary.run: run_summary.status for run_summary in run_summaries}
        events = await first_and_last_events(self._orchestra.journal, list(status))
        turns = [
            read_turn(first, last, status[run])
            for run, (first, last) in events.items()
            if isinstance(first, RunStarted)
        ]
        return sorted((turn for turn in turns if turn is not None), key=lambda turn: turn.number)

    async def resolve(self, text: str, values: Mapping[str, Any]) -> Resolution:
        """Returns what a text means after the turns so far. Nothing is run. Raises `InputError` R022 if it is empty."""
        return _resolve(text, await self.turns(MAX_TURNS), values)

    async def ask(self, text: str, /, **values: Any) -> Turn:
        """Answers a request, after the turns before it.

        A follow-up such as `and in Q2?` becomes a full request (`Turn.request`). If nothing decides what it means,
        nothing is run, and `Turn.needs_choice` is true.

        Args:
            text: What the user types.
            values: The values of the request, such as `documents` and `table`.

        Raises:
            BudgetExceeded: E042: the budget of the thread is used up.
            InputError: R022: the text is empty; and as `Orchestra.start`.
        """
        async with self._lock:
            earlier = await self.turns(MAX_TURNS)
            resolution = _resolve(text, earlier, values)
            if not resolution.can_run:
                return Turn(0, text, resolution)
            started_turn = await self._start(text, resolution, earlier, values)
            try:
                result = await started_turn.run.wait()
            except asyncio.CancelledError:
                started_turn.run.cancel("the caller of the thread")
                raise
            return _ended(started_turn.turn, result)

    async def start(
        self, text: str, values: Mapping[str, Any], resolution: Resolution | None = None
    ) -> StartedTurn | Turn:
        """Starts the run of a turn and returns it; the turn alone if the user must say what is meant.

        Args:
            text: What the user typed.
            values: The values of the request, by name.
            resolution: What it means; None to resolve it.
        """
        async with self._lock:
            earlier = await self.turns(MAX_TURNS)
            resolution = resolution or _resolve(text, earlier, values)
            if not resolution.can_run:
                return Turn(0, text, resolution)
            return await self._start(text, resolution, earlier, values)

    async def _start(
        self, text: str, resolution: Resolution, earlier: Sequence[Turn], values: Mapping[str, Any]
    ) -> StartedTurn:
        number = max((turn.number for turn in earlier), default=0) + 1
        # A computation of stated numbers reads no document.
        used_values = {} if plain_expression(resolution.request) is not None else dict(values)
        record = {FOLLOW_UP: follow_up_record(text, number, resolution)}
        step = request_workflow(self._orchestra, resolution.request, used_values, self._options, record)
        label = join((self._orchestra.label, *(turn.label for turn in earlier)))
        view = self._orchestra.options(tags=self._tags, label=label, budget=await self._remaining())
        run = await view.start(step, **{REQUEST: resolution.request, **record, **used_values})
        turn = Turn(number, text, resolution, run.id, "running", label=label)
        return StartedTurn(turn, step, run)

    async def _remaining(self) -> Budget | None:
        """The budget of the next turn. Raises `BudgetExceeded` E042 if nothing is left."""
        if self._budget is None:
            return None
        usage = (await self._orchestra.costs(tags={THREAD_TAG: self.id})).total.usage
        return remaining_budget(self._budget, usage, self.id)

    async def delete(self) -> int:
        """Deletes the thread: its runs, with what they read and answered. Returns their number.

        Raises:
            OrchestraError: The first error of a run that cannot be deleted, such as one that goes on.
        """
        runs = [run.run for run in await self._orchestra.runs(tags={THREAD_TAG: self.id}, limit=NO_LIMIT)]
        for error in await delete_runs(self._orchestra.journal, runs):
            if error is not None:
                raise error
        return len(runs)


def read_turn(first: RunStarted, last: object, status: str) -> Turn | None:
    """Returns the turn of a run from its first and last event; None for a run of another workflow."""
    inputs = first.inputs if isinstance(first.inputs, Mapping) else {}
    request = inputs.get(REQUEST)
    if not isinstance(request, str):
        return None
    record = inputs.get(FOLLOW_UP)
    record = record if isinstance(record, Mapping) else {}
    outcome = last.outcome if isinstance(last, RunFinished) else None
    return Turn(
        int(record.get("number", 0)),
        str(record.get("text", request)),
        Resolution(
            record.get("status", "complete"), request, int(record.get("turn", 0)), reason=record.get("reason", "")
        ),
        first.run,
        status,
        outcome.value if isinstance(outcome, ValueOutcome) else None,
        first.label,
    )


def follow_up_record(text: str, number: int, resolution: Resolution) -> dict[str, Any]:
    """Returns the input of a turn that records how its request was made."""
    return {
        "text": text,
        "number": number,
        "status": resolution.status,
        "turn": resolution.turn,
        "replaced": "; ".join(
            f"{replacement.before} -> {replacement.after} ({replacement.kind})"
            for replacement in resolution.replacements
        ),
        "reason": resolution.reason,
    }


def remaining_budget(budget: Budget, used: Usage, thread: str) -> Budget:
    """Returns what is left of a budget. Raises `BudgetExceeded` E042 if a limit is reached."""
    amounts = {
        "tokens": used.prompt_tokens + used.output_tokens,
        "calls": used.calls,
        "seconds": used.seconds,
        "money": used.money,
        "check_tokens": 0,
    }
    limits = budget.model_dump(exclude_none=True)
    for name, limit in limits.items():
        if amounts[name] >= limit:
            raise BudgetExceeded(
                EXHAUSTED,
                f"the thread {thread} has used {amounts[name]:g} of {limit:g} {name}",
                hint="start another thread, or give this one a larger budget",
            )
    return Budget(**{name: limit - amounts[name] for name, limit in limits.items()})


def answer_values(output: Any) -> Iterator[str]:
    """Yields the values of an answer that later turns may refer to, such as names and numbers; at most `MAX_VALUES`."""
    values = dict.fromkeys(value for value in _values(output) if value and len(value) <= MAX_VALUE)
    yield from list(values)[:MAX_VALUES]


def _values(output: Any) -> Iterator[str]:
    match output:
        case {"findings": [_, *_] as findings}:
            for finding in findings:
                if isinstance(finding, Mapping) and isinstance(finding.get("answer"), str):
                    yield finding["answer"].strip()
        case {"text": _, "findings": _} | None:
            return
        case Mapping():
            for name in _VALUE_FIELDS:
                if name in output and not isinstance(output[name], Mapping):
                    yield from _values(output[name])
                    return
            for finding in output.values():
                if isinstance(finding, Mapping):
                    yield from _values(finding)
        case list():
            for finding in output:
                yield from _values(finding)
        case bool():
            return
        case float() if output.is_integer():
            yield str(int(output))
        case str() | int() | float():
            yield str(output).strip()
        case _:
            return


def _texts(output: Any) -> Iterator[str]:
    """Yields the sentences of an answer."""
    match output:
        case {"text": str(text)}:
            yield text
        case {"text": None}:
            return
        case Mapping() | list():
            for item in output.values() if isinstance(output, Mapping) else output:
                if isinstance(item, Mapping | list):
                    yield from _texts(item)
                elif isinstance(item, str):
                    yield item
        case str():
            yield output
        case _:
            return


def tables_of(values: Mapping[str, Any]) -> Iterator[Table]:
    """Yields the tables among values, with the names by which `Vocabulary` finds their cells."""
    for name, value in values.items():
        if not isinstance(value, list) or not value:
            continue
        if all(isinstance(row, list) and all(isinstance(cell, str) for cell in row) for row in value):
            yield Table(name=name, cells=value)
        elif isinstance(value[0], Mapping) and "cells" in value[0]:
            yield from (Table.model_validate(item) for item in value)


def _resolve(text: str, earlier: Iterable[Turn], values: Mapping[str, Any]) -> Resolution:
    turns = [turn.as_earlier() for turn in earlier]
    return resolve_follow_up(require_request(text), turns, Vocabulary.of(tables_of(values)))


def _ended(turn: Turn, result: Result[Any]) -> Turn:
    return Turn(turn.number, turn.text, turn.resolution, turn.run, result.status, result.value, turn.label, result)


async def read_exchanges(journal: Journal, runs: Sequence[str]) -> list[tuple[RunStarted, RunFinished]]:
    """Returns the first and the last event of each of these runs that has ended, in their order."""
    events = await first_and_last_events(journal, runs)
    pairs = [events[run] for run in runs if run in events]
    return [(first, last) for first, last in pairs if isinstance(first, RunStarted) and isinstance(last, RunFinished)]
