"""Usage: what a run used, by agent, model and server, folded from its events and stored beside them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from orchestra.core.events import NOTHING, AttemptFinished, AttemptStarted, Event, RunFinished, RunStarted, TurnStarted, Usage
from orchestra.core.protocols import CallUsage, RunUsage
from orchestra.journal.summary import planned

COUNTED = frozenset({RunStarted, AttemptStarted, AttemptFinished, TurnStarted, RunFinished})
"""The kinds of events that change the usage of a run."""
_Kind: TypeAlias = tuple[str, str, str, bool, bool, bool, bool]

read_usage = msgspec.json.Decoder(RunUsage).decode
"""A stored usage from its bytes. Raises `msgspec.DecodeError`."""
write_usage = msgspec.json.Encoder().encode


@dataclass(slots=True, eq=False)
class _Calls:
    finished: int = 0
    recalled: int = 0
    open: int = 0
    usage: Usage = NOTHING


class UsageFold:
    """Sums up one run, event by event, from the first one on."""

    __slots__ = ("_calls", "_names", "_plans", "_saved", "_started", "_status")

    def __init__(self) -> None:
        self._started: RunStarted | None = None
        self._status = ""
        self._calls: dict[_Kind, _Calls] = {}
        self._names: dict[tuple[str, int], str] = {}
        """The agents of the calls that have no end yet."""
        self._plans, self._saved = 0, NOTHING

    def add(self, event: Event) -> None:
        """Takes the next event."""
        if type(event) is AttemptFinished:  # first, and not by a pattern: most events are such, and a writer waits
            self._finish(event)
            return
        match event:
            case AttemptStarted():
                if (cut := self._names.get((event.node, event.attempt))) is not None:
                    self._of(cut, "", "", NOTHING).open += 1
                self._names[event.node, event.attempt] = event.name
            case TurnStarted(drafted=drafted) if drafted is not None and drafted.recalled:
                self._save(drafted.saved)
            case RunStarted():
                self._started = event
                if (plan := planned(event)) is not None:
                    self._save(plan[1])
            case RunFinished():
                self._status = event.status
            case _:
                pass

    def result(self) -> RunUsage | None:
        """What the run used so far; None for a run that does not begin with its beginning."""
        if (started := self._started) is None:
            return None
        calls = [CallUsage(*kind[:3], one.finished, one.recalled, one.open, one.usage) for kind, one in self._calls.items()]
        # Calls without an end may still get one, so they are counted here and not in the fold.
        calls += [CallUsage(name, "", "", open=count) for name, count in Counter(self._names.values()).items()]
        return RunUsage(
            workflow=started.workflow,
            label=started.label,
            started=float(started.at),
            status=self._status,
            purpose=str(started.options.get("purpose") or ""),
            tags=started.tags,
            calls=tuple(calls),
            plans=self._plans,
            saved=self._saved,
        )

    def _finish(self, event: AttemptFinished) -> None:
        usage = event.usage
        calls = self._of(self._names.pop((event.node, event.attempt), "") or event.name, event.model, event.server, usage)
        calls.finished += 1
        if event.recalled:
            calls.recalled += 1
        if usage is not NOTHING:
            calls.usage += usage

    def _of(self, name: str, model: str, server: str, usage: Usage) -> _Calls:
        # Whether a call has a price depends on which kinds of tokens it took, and on whether it cost money
        # (`orchestra.app.costs.unpriced`):
        # calls that differ in that are not summed up, so that the sum is priced as each of them.
        cached, prompt = usage.cached_tokens, usage.prompt_tokens
        kind = (name, model, server, prompt > cached, cached > 0 < prompt, usage.output_tokens > 0, usage.money != 0)
        if (calls := self._calls.get(kind)) is None:
            calls = self._calls[kind] = _Calls()
        return calls

    def _save(self, usage: Usage) -> None:
        self._plans += 1
        self._saved += usage


def usage_of(events: Iterable[Event]) -> RunUsage | None:
    """What a run of these events used; None where the first one is missing."""
    fold = UsageFold()
    for event in events:
        if type(event) in COUNTED:
            fold.add(event)
    return fold.result()
