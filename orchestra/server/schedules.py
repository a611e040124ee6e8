"""Schedules: runs that start at times of a cron expression.

Each time has an idempotency key of its own. However many processes look at a schedule, and whenever one of them dies,
there is exactly one run for a time.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Meta
from starlette.responses import Response

from orchestra.app.run_detail import RunAnswer
from orchestra.core.error_codes import LEASE_HELD, LEASE_LOST
from orchestra.core.errors import OrchestraError
from orchestra.engine.request import RunRequest
from orchestra.server.collections import Collection, Stored
from orchestra.server.endpoints import Call, NoBody, Page, PageQuery, RouteTable
from orchestra.server.files import resolve_files
from orchestra.server.principals import SERVER_TAG, TENANT_TAG, require_public_tags
from orchestra.server.problems import RequestError
from orchestra.server.runs import (
    NO_OPTIONS,
    Delivery,
    Options,
    RunItem,
    find_step,
    recorded_options,
    run_items,
    send_run,
)
from orchestra.server.services import Services

ROUTES = RouteTable()
SCHEDULE_TAG = "orchestra.schedule"
MAX_SCHEDULES = 1000
MAX_PAUSE = 5.0
"""Seconds between two looks at the schedules at most."""
CronText = Annotated[str, Meta(max_length=200)]


class ScheduleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a workflow runs, and with what."""

    cron: CronText
    workflow: str
    timezone: str = "UTC"
    inputs: dict[str, Any] = {}
    options: Options = NO_OPTIONS
    paused: bool = False


class ScheduleChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What changes in a schedule."""

    cron: CronText | None = None
    timezone: str | None = None
    inputs: dict[str, Any] | None = None
    paused: bool | None = None


class LastFiring(msgspec.Struct, frozen=True, kw_only=True):
    """The last time of a schedule: its run, or why there is none."""

    due: float
    run: str
    error: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule."""

    id: str
    cron: str
    timezone: str
    workflow: str
    inputs: dict[str, Any]
    options: Options
    paused: bool
    created: float
    next: float | None
    """The next time; None while it is paused, or if there is none."""
    last: LastFiring | None


def next_time(cron: str, timezone: str, after: float) -> float | None:
    """Returns the next time of a cron expression; None if there is none. Raises `RequestError` S013."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RequestError(
            "S013", f"there is no time zone {timezone[:50]!r}", hint="Europe/Berlin", pointer="/timezone"
        ) from error
    if len(cron.split()) != 5:
        raise RequestError("S013", "a cron expression has five fields", hint="0 7 * * 1-5", pointer="/cron")
    try:
        run_time = next(CronSim(cron, datetime.fromtimestamp(int(after), UTC).astimezone(zone)), None)
    except CronSimError as error:
        raise RequestError(
            "S013", f"the cron expression is invalid: {error}", hint="0 7 * * 1-5", pointer="/cron"
        ) from error
    return None if run_time is None else run_time.timestamp()


def schedules_of(services: Services) -> Collection[Schedule]:
    """The schedules of all tenants."""
    return Collection(services.records, "schedule", "sched", Schedule)


@ROUTES.route("POST", "/api/schedules", "admin", Schedule, body=ScheduleBody, status=201)
async def create_schedule(call: Call[ScheduleBody]) -> Schedule:
    """Add a schedule: a workflow that runs at the times of a cron expression, once for each time."""
    body, schedules = call.body, schedules_of(call.services)
    find_step(call, body.workflow)
    require_public_tags(body.options.tags, "/options/tags")
    if len(await schedules.all(call.principal.tenant)) >= MAX_SCHEDULES:
        raise RequestError("S002", f"a tenant has at most {MAX_SCHEDULES} schedules", hint="delete one")
    due = next_time(body.cron, body.timezone, time.time())
    schedule = Schedule(
        id=schedules.new_id(),
        cron=body.cron,
        timezone=body.timezone,
        workflow=body.workflow,
        inputs=await resolve_files(call, body.inputs),
        options=body.options,
        paused=body.paused,
        created=time.time(),
        next=None if body.paused else due,
        last=None,
    )
    await schedules.add(schedule.id, call.principal.tenant, schedule)
    return schedule


@ROUTES.route("GET", "/api/schedules", "read", Page[Schedule], query=PageQuery)
async def list_schedules(call: Call[NoBody, PageQuery]) -> Page[Schedule]:
    """List the schedules of the tenant."""
    return await schedules_of(call.services).page(
        call.principal.tenant, call.query, lambda stored_schedule: stored_schedule.value
    )


@ROUTES.route("GET", "/api/schedules/{schedule}", "read", Schedule)
async def get_schedule(call: Call) -> Schedule:
    """Show a schedule with its last and its next time."""
    return (await schedules_of(call.services).require(call.path["schedule"], call.principal.tenant)).value


@ROUTES.route("PATCH", "/api/schedules/{schedule}", "admin", Schedule, body=ScheduleChange)
async def change_schedule(call: Call[ScheduleChange]) -> Schedule:
    """Change, pause or continue a schedule. Times that pass while it is paused have no runs."""
    schedule = (await schedules_of(call.services).require(call.path["schedule"], call.principal.tenant)).value
    values = {name: value for name, value in msgspec.structs.asdict(call.body).items() if value is not None}

    def change(old_schedule: Schedule) -> Schedule:
        changed = msgspec.structs.replace(old_schedule, **values)
        due = next_time(changed.cron, changed.timezone, time.time())
        return msgspec.structs.replace(changed, next=None if changed.paused else due)

    changed = await schedules_of(call.services).change(schedule.id, change)
    return changed if changed is not None else schedule


@ROUTES.route("DELETE", "/api/schedules/{schedule}", "admin")
async def delete_schedule(call: Call) -> None:
    """Delete a schedule. Its runs stay."""
    schedule = (await schedules_of(call.services).require(call.path["schedule"], call.principal.tenant)).value
    await schedules_of(call.services).delete(schedule.id)


@ROUTES.route(
    "POST", "/api/schedules/{schedule}/trigger", "run", RunAnswer, body=NoBody, status=202, while_draining=False
)
async def trigger_schedule(call: Call) -> Response:
    """Start the run of a schedule now."""
    stored_schedule = await schedules_of(call.services).require(call.path["schedule"], call.principal.tenant)
    key = f"{call.idempotency_key or time.time_ns()}/now"
    run = await call.services.start(_request(call.services, stored_schedule, key))
    return await send_run(call, run, Delivery(mode="background"))


@ROUTES.route("GET", "/api/schedules/{schedule}/runs", "read", Page[RunItem], query=PageQuery)
async def list_scheduled_runs(call: Call[NoBody, PageQuery]) -> Page[RunItem]:
    """List the latest runs of a schedule, newest first."""
    schedule = (await schedules_of(call.services).require(call.path["schedule"], call.principal.tenant)).value
    runs = await call.orchestra.runs(limit=call.query.limit, tags={SCHEDULE_TAG: schedule.id, **call.principal.filter})
    return Page(items=tuple(await run_items(call, runs)))


# Firing


def _request(services: Services, stored_schedule: Stored[Schedule], key: str) -> RunRequest:
    schedule, tenant = stored_schedule.value, stored_schedule.record.tenant
    marks = {TENANT_TAG: tenant, SERVER_TAG: "1", SCHEDULE_TAG: schedule.id}
    options = recorded_options(schedule.options, marks, f"{tenant}/{schedule.id}/{key}")
    return RunRequest(workflow=services.orchestra.find(schedule.workflow), inputs=schedule.inputs, options=options)


async def fire_forever(services: Services) -> None:
    """Starts the runs of schedules whose time has come."""
    while True:
        pause = MAX_PAUSE
        try:
            coming = await fire_due(services, time.time())
            pause = min(MAX_PAUSE, max(0.05, coming - time.time()))
        except OrchestraError as error:
            services.log("schedules not read", code=error.code)
        await asyncio.sleep(pause)


async def fire_due(services: Services, now: float) -> float:
    """Starts the runs of the schedules whose time has come at a time; returns the next time of any schedule.

    Of several times that have passed, while no server was there, the first one has a run.
    """
    coming = float("inf")
    for stored_schedule in await schedules_of(services).all():
        schedule = stored_schedule.value
        if schedule.next is None or schedule.paused:
            continue
        if schedule.next > now:
            coming = min(coming, schedule.next)
            continue
        if services.draining.is_set():
            break
        # The run is started first: if this process dies now, another one asks for the same run again.
        last = await _fire(services, stored_schedule, schedule.next)
        after = next_time(schedule.cron, schedule.timezone, now)
        await schedules_of(services).replace(stored_schedule, msgspec.structs.replace(schedule, next=after, last=last))
        coming = min(coming, after if after is not None else coming)
    return coming


async def _fire(services: Services, stored_schedule: Stored[Schedule], due: float) -> LastFiring:
    run = ""
    try:
        request = _request(services, stored_schedule, str(int(due)))
        run = request.options.run_id
        await services.start(request)
    except OrchestraError as error:
        if error.code not in (LEASE_HELD, LEASE_LOST):  # Otherwise another process has started the same run.
            services.log("schedule not started", schedule=stored_schedule.value.id, code=error.code)
            return LastFiring(due=due, run="", error=f"{error.code}: {error.message}")
    return LastFiring(due=due, run=run, error="")
