"""What the runs of a journal cost, with what the fleet file says of prices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from math import inf
from time import time
from typing import TYPE_CHECKING

from orchestra.app.run_queries import usages
from orchestra.core.errors import InputError
from orchestra.core.protocols import Selection
from orchestra.core.suggestions import nearest
from orchestra.core.tags import PREFIX, Tags, checked, has, is_name
from orchestra.core.timestamps import When, moment
from orchestra.fleet.config import Endpoint, LocalServer, Price, read
from orchestra.fleet.local_workers import HERE
from orchestra.journal.costs import KEYS, Cost, CostRow, Costs, Counting, Key, Unread
from orchestra.journal.summary import standing

if TYPE_CHECKING:
    from orchestra.core.events import Usage
    from orchestra.core.protocols import Journal
    from orchestra.core.settings import Settings

__all__ = ["KEYS", "Cost", "CostRow", "Costs", "Key", "Unread", "When", "costs", "keys", "servers"]


async def costs(
    journal: Journal,
    fleet: Mapping[str, LocalServer | Endpoint],
    by: Key | Iterable[Key] = "workflow",
    *,
    since: When = None,
    until: When = None,
    workflow: str = "",
    tags: Tags | None = None,
) -> Costs:
    """What the runs of a journal took, summed up `by` one key or several: of those that began at `since` or later, and before `until`
    (a moment, or so long ago), of a `workflow` alone, and with all of these `tags`. A page of runs is held at a time.

    `fleet` has the servers whose prices are known (`servers`). A run that cannot be read is left out, and named.
    Raises `InputError` C043 for what is no key, E040 for tags that are none, `JournalError` where the journal as a whole cannot be read.
    """
    names = keys((by,) if isinstance(by, str) else by)
    counting = Counting(names, unpriced(fleet))
    begin, end = moment(since, -inf), moment(until, inf)
    wanted = checked(tags or {})
    async with aclosing(usages(journal, Selection(tags=wanted, since=begin, until=end))) as runs:
        async for run, _, used, fault in runs:
            if fault is not None:
                counting.leave_out(run, fault.code, fault.message)
            elif used is None or (workflow in ("", used.workflow) and has(used.tags, wanted)):
                stands = await _standing(journal, run) if "status" in names and used is not None and not used.status else ""
                counting.count(run, used, stands)
    return counting.costs()


async def _standing(journal: Journal, run: str) -> str:
    """The status of a run without an end, which its events do not say: somebody has it in hand, or it waits."""
    found = await journal.summary(run)
    return standing(found, time()).status if found is not None else ""


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


def unpriced(fleet: Mapping[str, LocalServer | Endpoint]) -> Callable[[str, Usage], str]:
    """Which server of a call is one whose price nobody knows: one that may cost money, and had no price then, or that the fleet file does
    not have any more. What a call cost was reckoned when it was made: a price that was written down since changes nothing."""

    def found(server: str, usage: Usage) -> str:
        names = server.split("+")  # several of an ensemble
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
    """What to sum up by, each once. Raises `InputError` C043 where there is none, or one that is neither among `KEYS` nor `tag:NAME`."""
    known: dict[str, Key] = {**{key: key for key in KEYS}, "tool": "agent"}  # one column has both
    asked = tuple(names) or ("",)
    known |= {one: one for one in asked if one.startswith(PREFIX) and is_name(one.removeprefix(PREFIX))}
    if (wrong := next((one for one in asked if one not in known), None)) is not None:
        near = nearest(wrong, KEYS)
        hint = f"did you mean {near!r}?" if near else f"one of: {', '.join(KEYS)}, {PREFIX}NAME"
        raise InputError("C043", f"costs are not summed up by {wrong!r}", hint=hint)
    return tuple(dict.fromkeys(known[one] for one in asked))
