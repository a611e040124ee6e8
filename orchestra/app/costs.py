"""The costs of recorded runs, with the prices of the fleet file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from math import inf
from time import time
from typing import TYPE_CHECKING

from orchestra.app.run_queries import query_usages
from orchestra.core.errors import InputError
from orchestra.core.protocols import RunSelection
from orchestra.core.suggestions import closest_match
from orchestra.core.tags import TAG_PREFIX, Tags, has_tags, is_tag_name, validate_tags
from orchestra.core.timestamps import TimeSpec, to_timestamp
from orchestra.fleet.config import Endpoint, LocalServer, Price, configured_fleet, read_config
from orchestra.fleet.local_workers import LOCAL_SERVER
from orchestra.journal.costs import COST_KEYS, CostCounter, CostKey, CostReport, CostRow, CostTotal, UnreadableRun
from orchestra.journal.summary import summary_at

if TYPE_CHECKING:
    from orchestra.core.events import Usage
    from orchestra.core.protocols import Journal
    from orchestra.core.settings import Settings

__all__ = [
    "COST_KEYS",
    "CostKey",
    "CostReport",
    "CostRow",
    "CostTotal",
    "TimeSpec",
    "UnreadableRun",
    "cost_keys",
    "costs",
    "fleet_servers",
]


async def costs(
    journal: Journal,
    fleet: Mapping[str, LocalServer | Endpoint],
    by: CostKey | Iterable[CostKey] = "workflow",
    *,
    since: TimeSpec = None,
    until: TimeSpec = None,
    workflow: str = "",
    tags: Tags | None = None,
) -> CostReport:
    """Sums what the runs of a journal used, by one or several keys. Holds one page of runs at a time. An unreadable run
    is left out and named.

    Args:
        journal: The journal.
        fleet: The servers with known prices (`fleet_servers`).
        by: The keys.
        since: Only runs that began at this time or later: a timestamp, or a duration before now.
        until: Only runs that began before this time.
        workflow: Only runs of this workflow.
        tags: Only runs with all of these tags.

    Raises:
        InputError: C043: an invalid key; E040: invalid tags.
        JournalError: The whole journal cannot be read.
    """
    names = cost_keys((by,) if isinstance(by, str) else by)
    counting = CostCounter(names, unpriced_server(fleet))
    begin, end = to_timestamp(since, -inf), to_timestamp(until, inf)
    filter_tags = validate_tags(tags or {})
    async with aclosing(query_usages(journal, RunSelection(tags=filter_tags, since=begin, until=end))) as runs:
        async for run, _, run_usage, fault in runs:
            if fault is not None:
                counting.skip_run(run, fault.code, fault.message)
            elif run_usage is None or (workflow in ("", run_usage.workflow) and has_tags(run_usage.tags, filter_tags)):
                status = (
                    await _current_status(journal, run)
                    if "status" in names and run_usage is not None and not run_usage.status
                    else ""
                )
                counting.add_usage(run, run_usage, status)
    return counting.report()


async def _current_status(journal: Journal, run: str) -> str:
    """Returns the status of a run without an end, which its events do not tell: it is running, or it waits."""
    run_summary = await journal.summary(run)
    return summary_at(run_summary, time()).status if run_summary is not None else ""


def fleet_servers(settings: Settings) -> Mapping[str, LocalServer | Endpoint]:
    """Returns the servers of the fleet file, and of the project's other fleets, with which runs may have been made; of
    the package's fleets the local servers, which are free. Raises `InputError` if the fleet file cannot be read.
    """
    servers = dict(configured_fleet(settings).servers)
    own_paths = settings.own_resources("configs")
    for path in (*own_paths, *settings.resources("configs").values()):
        with suppress(InputError):
            file_servers = read_config(path).servers
            servers = {
                **{
                    name: server
                    for name, server in file_servers.items()
                    if path in own_paths or isinstance(server, LocalServer)
                },
                **servers,
            }
    return servers


def unpriced_server(fleet: Mapping[str, LocalServer | Endpoint]) -> Callable[[str, Usage], str]:
    """Returns the server of a call whose price is unknown: one that may cost money and had no price then, or that is
    not in the fleet file any more. The cost of a call was computed when it was made: a later price does not change it.
    """

    def find_unpriced(server: str, usage: Usage) -> str:
        """Returns the server without a price; empty if there is none, or if the call used no tokens."""
        names = server.split("+")  # Several, of an ensemble.
        if not usage.prompt_tokens + usage.output_tokens or (usage.money and len(names) == 1):
            return ""
        for name in names:
            match fleet.get(name):
                case LocalServer() | Endpoint(external=False, price=None):
                    continue
                case Endpoint(price=Price() as price) if usage.money or not price.cost(usage):
                    continue
                case None if name in ("", LOCAL_SERVER):
                    continue
                case _:
                    return name
        return ""

    return find_unpriced


def cost_keys(names: Iterable[str]) -> tuple[CostKey, ...]:
    """Returns the keys without repetitions. Raises `InputError` C043 for none, or for a key that is neither in
    `COST_KEYS` nor `tag:NAME`.
    """
    keys_by_name: dict[str, CostKey] = {**{key: key for key in COST_KEYS}, "tool": "agent"}  # One column has both.
    key_names = tuple(names) or ("",)
    keys_by_name |= {
        key: key for key in key_names if key.startswith(TAG_PREFIX) and is_tag_name(key.removeprefix(TAG_PREFIX))
    }
    if (wrong := next((key for key in key_names if key not in keys_by_name), None)) is not None:
        near = closest_match(wrong, COST_KEYS)
        hint = f"did you mean {near!r}?" if near else f"one of: {', '.join(COST_KEYS)}, {TAG_PREFIX}NAME"
        raise InputError("C043", f"costs are not summed up by {wrong!r}", hint=hint)
    return tuple(dict.fromkeys(keys_by_name[key] for key in key_names))
