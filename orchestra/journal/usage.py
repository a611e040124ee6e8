"""Usage of a run by agent, model and server, folded from its events and stored next to them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import msgspec

from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    AttemptStarted,
    Event,
    RunFinished,
    RunStarted,
    TurnStarted,
    Usage,
    reused_plan,
)
from orchestra.core.protocols import CallUsage, RunSelection, RunUsage, RunUsageResult

COUNTED_EVENTS = frozenset({RunStarted, AttemptStarted, AttemptFinished, TurnStarted, RunFinished})
"""Kinds of events that change the usage of a run."""
_CallKey: TypeAlias = tuple[str, str, str, bool, bool, bool, bool]

decode_usage = msgspec.json.Decoder(RunUsage).decode
"""Decodes a stored usage. Raises `msgspec.DecodeError`."""
encode_usage = msgspec.json.Encoder().encode
USAGE_BATCH_RUNS = 1000
"""Maximum number of runs whose usage is read at once."""
ALL_RUNS = RunSelection()


class UsagePage(NamedTuple):
    """Usages of some runs. `computed` are usages of ended runs that were not stored yet: run, last event, hash, encoded
    usage.
    """

    found: list[RunUsageResult]
    computed: list[tuple[str, int, bytes, bytes]]


@dataclass(slots=True, eq=False)
class _Calls:
    finished: int = 0
    recalled: int = 0
    open: int = 0
    usage: Usage = NO_USAGE


class UsageFold:
    """Sums up one run, event by event, from the first one on."""

    __slots__ = ("_calls", "_open_calls", "_reused_plans", "_saved_usage", "_started", "_status")

    def __init__(self) -> None:
        self._started: RunStarted | None = None
        self._status = ""
        self._calls: dict[_CallKey, _Calls] = {}
        self._open_calls: dict[tuple[str, int], str] = {}
        """Agents of open calls."""
        self._reused_plans, self._saved_usage = 0, NO_USAGE

    def add(self, event: Event) -> None:
        """Adds the next event."""
        # first, and without pattern matching: most events are of this type and the writer waits
        if type(event) is AttemptFinished:
            self._finish(event)
            return
        match event:
            case AttemptStarted():
                if (open_call := self._open_calls.get((event.node, event.attempt))) is not None:
                    self._calls_of(open_call, "", "", NO_USAGE).open += 1
                self._open_calls[event.node, event.attempt] = event.name
            case TurnStarted(draft=draft) if draft is not None and draft.reused_from:
                self._add_reused_plan(draft.saved_usage)
            case RunStarted():
                self._started = event
                if (plan := reused_plan(event)) is not None:
                    self._add_reused_plan(plan[1])
            case RunFinished():
                self._status = event.status
            case _:
                pass

    def result(self) -> RunUsage | None:
        """Returns the usage so far; None if the first event is missing."""
        if (start_event := self._started) is None:
            return None
        calls = [
            CallUsage(*kind[:3], call.finished, call.recalled, call.open, call.usage)
            for kind, call in self._calls.items()
        ]
        # Open calls may still finish, so they are counted here and not in the fold.
        calls += [CallUsage(name, "", "", open=count) for name, count in Counter(self._open_calls.values()).items()]
        return RunUsage(
            workflow=start_event.workflow,
            label=start_event.label,
            started=float(start_event.at),
            status=self._status,
            purpose=str(start_event.options.get("purpose") or ""),
            tags=start_event.tags,
            calls=tuple(calls),
            reused_plans=self._reused_plans,
            saved_usage=self._saved_usage,
        )

    def _finish(self, event: AttemptFinished) -> None:
        usage = event.usage
        calls = self._calls_of(
            self._open_calls.pop((event.node, event.attempt), "") or event.name, event.model, event.server, usage
        )
        calls.finished += 1
        if event.reused_from:
            calls.recalled += 1
        if usage is not NO_USAGE:
            calls.usage += usage

    def _calls_of(self, name: str, model: str, server: str, usage: Usage) -> _Calls:
        # Whether a call has a price depends on the kinds of tokens it used, and on whether it cost money
        # (`orchestra.app.costs.unpriced_server`). Calls that differ in this are not summed up, so that the sum has the
        # same price as its calls.
        hits, prompt = usage.cached_tokens, usage.prompt_tokens
        kind = (name, model, server, prompt > hits, hits > 0 < prompt, usage.output_tokens > 0, usage.money != 0)
        if (calls := self._calls.get(kind)) is None:
            calls = self._calls[kind] = _Calls()
        return calls

    def _add_reused_plan(self, usage: Usage) -> None:
        self._reused_plans += 1
        self._saved_usage += usage


def usage_of(events: Iterable[Event]) -> RunUsage | None:
    """Returns the usage of a run with these events; None if the first one is missing."""
    fold = UsageFold()
    for event in events:
        if type(event) in COUNTED_EVENTS:
            fold.add(event)
    return fold.result()
