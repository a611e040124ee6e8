"""What the runs of a journal cost, with what the fleet file says of prices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from datetime import date, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from orchestra.errors import InputError
from orchestra.events import AttemptFinished, RunStarted
from orchestra.fleet.config import Endpoint, LocalServer, Price, read
from orchestra.fleet.local import HERE
from orchestra.journal.costs import KEYS, Cost, CostRow, Costs, Counting, Key, Unread
from orchestra.skimming import skim
from orchestra.values.schema import nearest

if TYPE_CHECKING:
    from orchestra.config import Settings
    from orchestra.doors import Journal

__all__ = ["KEYS", "Cost", "CostRow", "Costs", "Key", "Unread", "costs", "keys", "servers"]
When: TypeAlias = datetime | date | timedelta | None


async def costs(
    journal: Journal,
    fleet: Mapping[str, LocalServer | Endpoint],
    by: Key | Iterable[Key] = "workflow",
    *,
    since: When = None,
    until: When = None,
    workflow: str = "",
) -> Costs:
    """What the runs of a journal took, summed up `by` one key or several: of those that began at `since` or later, and before `until`
    (a moment, or so long ago), and with `workflow` of those of that name alone. One run is held at a time, or some short ones.

    `fleet` has the servers whose prices are known (`servers`). A run that cannot be read is left out, and named.
    Raises `InputError` C043 for what is no key, `JournalError` where the journal as a whole cannot be read.
    """
    counting = Counting(keys((by,) if isinstance(by, str) else by), unpriced(fleet))
    begin, end = _moment(since, -inf), _moment(until, inf)
    async with aclosing(skim(journal, begin)) as runs:
        async for run, started, events, fault in runs:
            if started >= end:
                continue
            if fault is not None:
                counting.leave_out(run, fault.code, fault.message)
            elif events and (not workflow or not isinstance(events[0], RunStarted) or events[0].workflow == workflow):
                counting.add(run, events)
    return counting.costs()


def servers(settings: Settings) -> Mapping[str, LocalServer | Endpoint]:
    """The servers that the fleet file names, and those of the project's other fleets, for runs may have been made with them; of fleets of
    the package the local ones, which cost nothing. Raises `InputError` where the fleet file cannot be read."""
    found = dict(read(settings.find_resource("configs", settings.fleet)).servers)
    own = settings.own("configs")
    for path in (*own, *settings.resources("configs").values()):
        with suppress(InputError):
            known = read(path).servers
            found = {**{name: one for name, one in known.items() if path in own or isinstance(one, LocalServer)}, **found}
    return found


def unpriced(fleet: Mapping[str, LocalServer | Endpoint]) -> Callable[[AttemptFinished], str]:
    """Which server of a call is one whose price nobody knows: one that may cost money, and had no price then, or that the fleet file does
    not have any more. What a call cost was reckoned when it was made: a price that was written down since changes nothing."""

    def found(event: AttemptFinished) -> str:
        usage, names = event.usage, event.server.split("+")  # several of an ensemble
        if not usage.prompt_tokens + usage.output_tokens or (usage.money and len(names) == 1):
            return ""
        for name in names:
            match fleet.get(name):
                case LocalServer() | Endpoint(external=False, price=None):
                    continue
                case Endpoint(price=Price() as price) if usage.money or not price.of(usage):
                    continue
                case None if name in ("", HERE):
                    continue
                case _:
                    return name
        return ""

    return found


def keys(names: Iterable[str]) -> tuple[Key, ...]:
    """What to sum up by, each once. Raises `InputError` C043 where there is none, or one that is not among `KEYS`."""
    known: dict[str, Key] = {**{key: key for key in KEYS}, "tool": "agent"}  # one column has both
    asked = tuple(names) or ("",)
    if (wrong := next((one for one in asked if one not in known), None)) is not None:
        near = nearest(wrong, KEYS)
        hint = f"did you mean {near!r}?" if near else f"one of: {', '.join(KEYS)}"
        raise InputError("C043", f"costs are not summed up by {wrong!r}", hint=hint)
    return tuple(dict.fromkeys(known[one] for one in asked))


def _moment(when: When, otherwise: float) -> float:
    """Seconds since the epoch; of a day those of its midnight here. Raises `InputError` C010."""
    hint = "since=timedelta(days=30), since=datetime(2026, 11, 1), since=date(2026, 11, 1)"
    try:
        match when:
            case None:
                return otherwise
            case datetime():
                return when.timestamp()
            case date():
                return datetime(when.year, when.month, when.day).astimezone().timestamp()
            case timedelta():
                return (datetime.now().astimezone() - when).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise InputError("C010", f"{when!r} is before or behind all dates", hint=hint) from error
    raise InputError("C010", f"{when!r} is no moment", hint=hint)
