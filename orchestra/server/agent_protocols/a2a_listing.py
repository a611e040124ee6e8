"""`ListTasks` of A2A: the tasks of a tenant, the latest changed first, in pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

import msgspec

from orchestra.app.run_queries import first_and_last_events
from orchestra.app.run_status import RunStatus
from orchestra.core.protocols import RunSummary
from orchestra.server.access import require_scope
from orchestra.server.agent_protocols.a2a_errors import INVALID_PARAMS, RpcError, convert_params
from orchestra.server.agent_protocols.a2a_tasks import STATES, read_task
from orchestra.server.agent_protocols.a2a_types import ListTasksParams, ListTasksResult, RpcRequest, Task
from orchestra.server.agent_protocols.ag_ui_events import CONTEXT_TAG
from orchestra.server.endpoints import Call
from orchestra.server.problems import RequestError
from orchestra.server.runs import require_run

MAX_LISTED: Final = 10_000
"""Tasks that one list has at most: the latest ones that were started."""
_UNSPECIFIED: Final = "TASK_STATE_UNSPECIFIED"


class _Place(NamedTuple):
    """Where a task is in the list: the greatest is first."""

    updated: float
    run: str


async def list_tasks(call: Call[Any, Any], request: RpcRequest) -> ListTasksResult:
    """Returns a page of the caller's tasks.

    Raises:
        RpcError: For a filter or a page token that cannot be read.
        RequestError: S006 without the scope `read`.
    """
    require_scope(call.principal, "read")
    params = convert_params(request.params, ListTasksParams)
    after, since = _read_token(params.page_token), _read_time(params.status_timestamp_after)
    places = await _places(call, await _matching_runs(call, params))
    places = sorted((place for place in places if since is None or place.updated >= since), reverse=True)
    later_places = [place for place in places if after is None or place < after]
    page_places = later_places[: params.page_size]
    tasks = [await read_task(call.services, place.run) for place in page_places]
    return ListTasksResult(
        tasks=tuple(task if params.include_artifacts else _without_artifacts(task) for task in tasks),
        next_page_token=_write_token(page_places[-1]) if len(later_places) > len(page_places) else "",
        page_size=params.page_size,
        total_size=len(places),
    )


def _without_artifacts(task: Task) -> Task:
    return msgspec.structs.replace(task, artifacts=())


async def _matching_runs(call: Call[Any, Any], params: ListTasksParams) -> Sequence[RunSummary]:
    """Returns the caller's runs in a context and with a status. A run without a context is the only one in its own."""
    statuses = [cast(RunStatus, status) for status, state in STATES.items() if state == params.status]
    if params.status not in ("", _UNSPECIFIED) and not statuses:
        return ()  # No run has this state.
    tags: Mapping[str, str] = call.principal.filter
    if not params.context_id:
        return await call.orchestra.runs(limit=MAX_LISTED, status=statuses or None, tags=tags)
    in_context = {**tags, CONTEXT_TAG: params.context_id}
    runs = list(await call.orchestra.runs(limit=MAX_LISTED, status=statuses or None, tags=in_context))
    try:
        start_event = await require_run(call, params.context_id)
    except RequestError:
        return runs
    summary = await call.orchestra.journal.summary(params.context_id)
    if summary is not None and CONTEXT_TAG not in start_event.tags and (not statuses or summary.status in statuses):
        runs.append(summary)
    return runs


async def _places(call: Call[Any, Any], runs: Sequence[RunSummary]) -> list[_Place]:
    """Returns the runs with the times of their last changes."""
    going_on = [run.run for run in runs if run.finished is None]
    events = await first_and_last_events(call.orchestra.journal, going_on) if going_on else {}
    places = list[_Place]()
    for run in runs:
        updated = run.finished
        if updated is None:
            updated = events[run.run][1].at if run.run in events else run.started
        places.append(_Place(updated, run.run))
    return places


def _read_time(text: str) -> float | None:
    """Returns a time of a request in seconds. Raises `RpcError`."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RpcError(INVALID_PARAMS, "S002", f"{text[:50]!r} is not a time", hint="2026-01-31T12:00:00Z",
                       pointer="/statusTimestampAfter")  # fmt: skip
    return moment.timestamp()


def _write_token(place: _Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _read_token(text: str) -> _Place | None:
    """Returns the place of the last task of the page before; None without one. Raises `RpcError`."""
    if not text:
        return None
    try:
        return msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=_Place)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise RpcError(INVALID_PARAMS, "S002", "the page token is unknown", hint="start without one",
                       pointer="/pageToken") from error  # fmt: skip
