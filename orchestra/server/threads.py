"""Threads: conversations whose runs go one after the other.

The id of a run is known before the run starts, since it follows from the thread and the number of the request. So a
request can wait in the thread, in any process, and has exactly one run.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta
from starlette.responses import Response

from orchestra.app.run import Run
from orchestra.app.run_detail import RunAnswer
from orchestra.app.threads import THREAD_TAG, read_exchanges
from orchestra.core.error_codes import LEASE_HELD, LEASE_LOST
from orchestra.core.errors import OrchestraError
from orchestra.core.labels import Label, join
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.tags import validate_tags
from orchestra.engine.request import RunOptions, RunRequest
from orchestra.server.collections import Collection, Stored
from orchestra.server.endpoints import JSON_TYPE, Call, NoBody, Page, PageQuery, RouteTable
from orchestra.server.files import resolve_files
from orchestra.server.principals import SERVER_TAG, TENANT_TAG, require_public_tags
from orchestra.server.problems import RequestError, not_found
from orchestra.server.run_deletion import delete_server_runs
from orchestra.server.runs import (
    Options,
    RunItem,
    StartRun,
    author,
    find_step,
    recorded_options,
    run_items,
    send_run,
)
from orchestra.server.services import Services
from orchestra.server.tenant_budgets import must_wait

ROUTES = RouteTable()
MAX_QUEUE = 100
MAX_FAILED = 20
MAX_RUNS = 10_000
POLL_SECONDS = 0.5
REPLACED = "a later request of the thread"
Policy: TypeAlias = Literal["reject", "enqueue", "interrupt", "rollback"]


class ThreadBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new thread."""

    title: Annotated[str, Meta(max_length=200)] = ""
    tags: dict[str, str] = {}


class StartThreadRun(StartRun, frozen=True, kw_only=True):
    """The request for a run of a thread."""

    if_busy: Policy = "enqueue"
    """What happens while another run of the thread goes on: `reject` refuses the request, `enqueue` runs it afterwards,
    `interrupt` cancels the other run, `rollback` cancels it and deletes it.
    """


class QueuedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits in a thread."""

    number: int
    """The number of the request in the thread, from 1."""
    run: str
    workflow: str
    inputs: dict[str, Any]
    options: Options


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread as stored. The first request of the queue is the run that goes on."""

    id: str
    title: str
    created: float
    tags: dict[str, str]
    runs: tuple[str, ...] = ()
    """Runs that have started, the oldest first."""
    queue: tuple[QueuedRun, ...] = ()
    count: int = 0
    """The number of requests so far."""
    failed: tuple[tuple[str, str, str], ...] = ()
    """The latest requests that could not start: the id of the run, the code and the message of the error."""


class ThreadItem(msgspec.Struct, frozen=True, kw_only=True):
    """A thread."""

    id: str
    title: str
    created: float
    tags: dict[str, str]
    runs: tuple[str, ...]
    active: str | None
    """The run that goes on."""
    queued: int
    """The number of requests that wait."""


def threads_of(services: Services) -> Collection[Thread]:
    """The threads of all tenants."""
    return Collection(services.records, "thread", "thread", Thread)


def _item(thread: Thread) -> ThreadItem:
    return ThreadItem(
        id=thread.id,
        title=thread.title,
        created=thread.created,
        tags=thread.tags,
        runs=thread.runs,
        active=thread.queue[0].run if thread.queue else None,
        queued=max(0, len(thread.queue) - 1),
    )


async def _require(call: Call[Any, Any]) -> Stored[Thread]:
    return await threads_of(call.services).require(call.path["thread"], call.principal.tenant)


@ROUTES.route("POST", "/api/threads", "run", ThreadItem, body=ThreadBody, status=201)
async def create_thread(call: Call[ThreadBody]) -> ThreadItem:
    """Start a conversation, whose runs go one after the other."""
    require_public_tags(call.body.tags, "/tags")
    thread = Thread(
        id=threads_of(call.services).new_id(),
        title=call.body.title,
        created=time.time(),
        tags=validate_tags(call.body.tags),
    )
    await threads_of(call.services).add(thread.id, call.principal.tenant, thread)
    return _item(thread)


@ROUTES.route("GET", "/api/threads", "read", Page[ThreadItem], query=PageQuery)
async def list_threads(call: Call[NoBody, PageQuery]) -> Page[ThreadItem]:
    """List the threads of the tenant, newest first."""
    return await threads_of(call.services).page(
        call.principal.tenant, call.query, lambda stored_thread: _item(stored_thread.value)
    )


@ROUTES.route("GET", "/api/threads/{thread}", "read", ThreadItem)
async def get_thread(call: Call) -> ThreadItem:
    """Show a thread: its runs, the one that goes on, and how many wait."""
    return _item((await _require(call)).value)


@ROUTES.route("DELETE", "/api/threads/{thread}", "admin")
async def delete_thread(call: Call) -> None:
    """Delete a thread with its runs. A run that goes on is cancelled."""
    thread = (await _require(call)).value
    await threads_of(call.services).delete(thread.id)
    for queued in thread.queue[:1]:
        await _cancel(call.services, queued.run, author(call, ""))
    await delete_server_runs(call.services, thread.runs)


@ROUTES.route("GET", "/api/threads/{thread}/runs", "read", Page[RunItem], query=PageQuery)
async def list_thread_runs(call: Call[NoBody, PageQuery]) -> Page[RunItem]:
    """List the latest runs of a thread, newest first."""
    thread = (await _require(call)).value
    runs = await call.orchestra.runs(limit=call.query.limit, tags={THREAD_TAG: thread.id, **call.principal.filter})
    return Page(items=tuple(await run_items(call, runs)))


@ROUTES.route("POST", "/api/threads/{thread}/runs", "run", RunAnswer, body=StartThreadRun, while_draining=False)
async def start_thread_run(call: Call[StartThreadRun]) -> Response:
    """Start a run of a thread, or let it wait for the run that goes on. `if_busy` says what happens then.

    In the inputs, `{"$history": 5}` is what the last five runs of the thread read and answered.
    """
    body, services, stored_thread = call.body, call.services, await _require(call)
    find_step(call, body.workflow)
    require_public_tags(body.options.tags, "/options/tags")
    inputs = await resolve_files(call, body.inputs)
    marks, tenant = call.principal.marks, call.principal.tenant
    added = list[QueuedRun]()
    replaced = list[QueuedRun]()

    def enqueue(thread: Thread) -> Thread:
        added.clear()
        replaced.clear()
        if thread.queue and body.if_busy == "reject":
            busy = f"the run {thread.queue[0].run} of the thread goes on"
            raise RequestError("S011", busy, hint='"if_busy": "enqueue"')
        if len(thread.queue) >= MAX_QUEUE or thread.count >= MAX_RUNS:
            raise RequestError("S011", f"the thread has {len(thread.queue)} requests that wait", hint="wait for them")
        number = thread.count + 1
        options = recorded_options(body.options, marks, _key(tenant, thread.id, number))
        added.append(
            QueuedRun(number=number, run=options.run_id, workflow=body.workflow, inputs=inputs, options=body.options)
        )
        if body.if_busy in ("interrupt", "rollback"):
            replaced.extend(thread.queue)
        queued_runs = thread.queue if body.if_busy in ("reject", "enqueue") else ()
        runs = thread.runs
        if body.if_busy == "interrupt" and thread.queue and thread.queue[0].run not in runs:
            runs = (*runs, thread.queue[0].run)  # It starts just now.
        if body.if_busy == "rollback":
            runs = tuple(run for run in runs if run not in {queued_run.run for queued_run in replaced})
        return msgspec.structs.replace(thread, queue=(*queued_runs, *added), count=number, runs=runs)

    if await threads_of(services).change(stored_thread.value.id, enqueue) is None:
        raise not_found("thread", stored_thread.value.id)
    for queued_run in replaced:
        await _cancel(services, queued_run.run, author(call, ""))
    if body.if_busy == "rollback":
        await delete_server_runs(services, [queued_run.run for queued_run in replaced])
    continue_thread(services, stored_thread.value.id)
    return await _send(call, stored_thread.value.id, added[0])


async def _send(call: Call[StartThreadRun], thread: str, queued: QueuedRun) -> Response:
    """Returns the reply for a request of a thread, once its run has started; at once in the background."""
    services, run = call.services, queued.run
    root = call.request.scope.get("root_path", "")
    headers = {"Location": f"{root}/api/runs/{run}"}
    if call.body.mode == "background":
        body = {"id": run, "status": "queued", "thread": thread}
        return Response(msgspec.json.encode(body), 202, headers, JSON_TYPE)
    while await services.started(run) is None:
        stored_thread = await threads_of(services).get(thread)
        if stored_thread is None or all(queued_run.run != run for queued_run in stored_thread.value.queue):
            if await services.started(run) is not None:
                break
            for name, code, message in stored_thread.value.failed if stored_thread is not None else ():
                if name == run:
                    raise RequestError(code, message)
            raise RequestError("S011", "the request was replaced by a later one of the thread", hint="send it again")
        if services.stopping.is_set():
            services.require_running()
        await services.thread_changes.wait(thread, POLL_SECONDS)
    active = call.orchestra.active_run(run)
    if active is None:
        active = await call.orchestra.resume(run)
    return await send_run(call, active, call.body)


def _key(tenant: str, thread: str, number: int) -> str:
    return f"{tenant}/{thread}/{number}"


async def _cancel(services: Services, run: str, by: str) -> None:
    if await services.started(run) is not None:
        await services.orchestra.cancel(run, by=by)


# Running


def continue_thread(services: Services, thread: str) -> None:
    """Runs the requests of a thread in the background."""
    services.spawn_once(f"thread {thread}", lambda: run_thread(services, thread))


async def run_thread(services: Services, thread: str) -> None:
    """Runs the requests of a thread, one after the other, until none waits."""
    while True:
        stored_thread = await threads_of(services).get(thread)
        if stored_thread is None or not stored_thread.value.queue or services.draining.is_set():
            return
        queued = stored_thread.value.queue[0]
        try:
            run = await _start(services, stored_thread, queued)
            if await threads_of(services).change(thread, partial(_started, queued)) is None:
                run.cancel(REPLACED)
            services.thread_changes.notify(thread)
            await run.wait()
        except OrchestraError as error:
            if error.code in (LEASE_HELD, LEASE_LOST) or must_wait(error):
                await asyncio.sleep(POLL_SECONDS)  # Another process runs it, or other runs hold the tenant's budget.
                continue
            if services.stopping.is_set():
                return
            services.log("run of a thread not started", run=queued.run, code=error.code)
            failure = (queued.run, error.code, error.message)
            await threads_of(services).change(thread, partial(_failed, failure))
        await threads_of(services).change(thread, partial(_finished, queued))
        services.thread_changes.notify(thread)


def _started(queued: QueuedRun, thread: Thread) -> Thread | None:
    """The thread with a run that has started; None if a later request has replaced the run."""
    if all(queued_run.run != queued.run for queued_run in thread.queue):
        return None
    if queued.run in thread.runs:
        return thread
    return msgspec.structs.replace(thread, runs=(*thread.runs, queued.run))


def _failed(failure: tuple[str, str, str], thread: Thread) -> Thread:
    return msgspec.structs.replace(thread, failed=(*thread.failed, failure)[-MAX_FAILED:])


def _finished(queued: QueuedRun, thread: Thread) -> Thread | None:
    queue = tuple(queued_run for queued_run in thread.queue if queued_run.run != queued.run)
    return msgspec.structs.replace(thread, queue=queue) if queue != thread.queue else None


async def _start(services: Services, thread: Stored[Thread], queued: QueuedRun) -> Run[Any]:
    tenant, name = thread.record.tenant, thread.value.id
    marks = {**thread.value.tags, TENANT_TAG: tenant, SERVER_TAG: "1", THREAD_TAG: name}
    options: RunOptions = recorded_options(queued.options, marks, _key(tenant, name, queued.number))
    if (await services.started(queued.run)) is not None:
        return await services.orchestra.resume(queued.run)
    inputs, label = await _with_history(services, thread.value, queued.inputs)
    if label != "public":  # what earlier runs read keeps its label
        options = options.replace(label=join((label, options.label or "public")))
    request = RunRequest(workflow=services.orchestra.find(queued.workflow), inputs=inputs, options=options)
    return await services.start(request)


async def _with_history(services: Services, thread: Thread, inputs: dict[str, Any]) -> tuple[dict[str, Any], Label]:
    """Returns the inputs of a run with what the thread's last runs read and answered, and the label of that."""
    counts = _history_counts(inputs)
    if not counts:
        return inputs, "public"
    exchanges = await read_exchanges(services.orchestra.journal, thread.runs[-max(counts.values()) :])
    messages = list[dict[str, Any]]()
    for first, last in exchanges:
        read = {key: value for key, value in first.inputs.items() if key not in counts}
        output = last.outcome.value if isinstance(last.outcome, ValueOutcome) else None
        messages.append({"inputs": read, "output": output})
    values = {name: messages[-counts[name] :] if name in counts else value for name, value in inputs.items()}
    return values, join(first.label for first, _ in exchanges)


def _history_counts(inputs: dict[str, Any]) -> dict[str, int]:
    """Returns how many runs each input wants that is the history of the thread."""
    history_counts = dict[str, int]()
    for name, value in inputs.items():
        match value:
            case {"$history": int(count), **rest} if not rest and count > 0:
                history_counts[name] = count
            case _:
                pass
    return history_counts
