"""Batches: a workflow over many rows, as a job in the background.

Each row has an idempotency key of its own, so that a batch continues after a restart and no row runs twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse

from orchestra.app.run_queries import first_and_last_events
from orchestra.core.error_codes import LEASE_HELD, LEASE_LOST
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunFinished
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, SkippedOutcome, ValueOutcome
from orchestra.engine.request import RunOptions, RunRequest
from orchestra.schema.strict_json import iter_json_lines, storage_error
from orchestra.server.collections import Collection, Stored
from orchestra.server.endpoints import Call, NoBody, Page, PageQuery, RouteTable
from orchestra.server.files import file_content, files_of, resolve_files
from orchestra.server.principals import SERVER_TAG, TENANT_TAG, require_public_tags
from orchestra.server.problems import RequestError, not_found
from orchestra.server.runs import NO_OPTIONS, Options, author, find_step, recorded_options
from orchestra.server.services import Services
from orchestra.server.tenant_budgets import must_wait

ROUTES = RouteTable()
BATCH_TAG = "orchestra.batch"
ROWS = "batch_rows"
MAX_ROWS = 100_000
PAGE_SIZE = 200
HEARTBEAT_SECONDS = 5.0
DEAD_SECONDS = 20.0
"""Seconds after the last heartbeat when another process continues a batch."""
BatchStatus: TypeAlias = Literal["running", "done", "cancelled"]


class BatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A batch: the inputs of each row, or a file with one JSON object per line."""

    workflow: str
    rows: tuple[dict[str, Any], ...] = ()
    file: str = ""
    options: Options = NO_OPTIONS
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 16


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as stored."""

    id: str
    workflow: str
    created: float
    status: BatchStatus
    rows: int
    options: Options
    concurrency: int
    alive: float
    """When a process has last worked on it."""
    errors: dict[int, str] = {}
    """Rows that could not start, with the reason."""


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """A batch."""

    id: str
    workflow: str
    created: float
    status: BatchStatus
    rows: int
    counts: dict[str, int]
    """Rows by status; `queued` have not started."""


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a row."""

    row: int
    run: str
    status: str
    output: Any
    error: str


def batches_of(services: Services) -> Collection[Batch]:
    """The batches of all tenants."""
    return Collection(services.records, "batch", "batch", Batch)


async def _require(call: Call[Any, Any]) -> Stored[Batch]:
    return await batches_of(call.services).require(call.path["batch"], call.principal.tenant)


@ROUTES.route("POST", "/api/batches", "run", BatchItem, body=BatchBody, status=202, while_draining=False)
async def create_batch(call: Call[BatchBody]) -> BatchItem:
    """Run a workflow over many rows in the background."""
    body, services = call.body, call.services
    find_step(call, body.workflow)
    require_public_tags(body.options.tags, "/options/tags")
    input_rows: list[Any] = await _read_rows(call, body.file) if body.file else list(body.rows)
    if not input_rows or len(input_rows) > MAX_ROWS:
        raise RequestError("S002", f"a batch has 1 to {MAX_ROWS} rows", hint="rows, or file", pointer="/rows")
    rows = [await resolve_files(call, row, f"/rows/{index}") for index, row in enumerate(input_rows)]
    now = time.time()
    batch = Batch(
        id=batches_of(services).new_id(), workflow=body.workflow, created=now, status="running", rows=len(rows),
        options=body.options, concurrency=body.concurrency, alive=now,
    )  # fmt: skip
    await services.records.add(ROWS, batch.id, call.principal.tenant, msgspec.json.encode(rows))
    stored_batch = await batches_of(services).add(batch.id, call.principal.tenant, batch)
    if stored_batch is not None:
        start_batch(services, stored_batch)
    return await _item(services, call.principal.tenant, batch)


async def _read_rows(call: Call[Any, Any], name: str) -> list[Any]:
    """Returns the rows of a file. Raises `RequestError` S009 or S019."""
    item = (await files_of(call.services).require(name, call.principal.tenant)).value
    rows = list[Any]()
    for number, line in iter_json_lines(await file_content(call, item)):
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            hint = "one JSON object per line"
            raise RequestError("S019", f"line {number} of {name!r}: {error}", hint=hint) from error
        if reason := storage_error(row):
            raise RequestError("S019", f"line {number} of {name!r}: {reason}", hint="send plain JSON values")
        rows.append(row)
    return rows


@ROUTES.route("GET", "/api/batches", "read", Page[BatchItem], query=PageQuery)
async def list_batches(call: Call[NoBody, PageQuery]) -> Page[BatchItem]:
    """List the batches of the tenant, newest first."""
    page = await batches_of(call.services).page(
        call.principal.tenant, call.query, lambda stored_batch: stored_batch.value
    )
    items = [await _item(call.services, call.principal.tenant, item) for item in page.items]
    return Page(items=tuple(items), next=page.next)


@ROUTES.route("GET", "/api/batches/{batch}", "read", BatchItem)
async def get_batch(call: Call) -> BatchItem:
    """Show a batch: its status, and its rows by status."""
    return await _item(call.services, call.principal.tenant, (await _require(call)).value)


async def _item(services: Services, tenant: str, batch: Batch) -> BatchItem:
    runs = await services.orchestra.runs(limit=batch.rows + 1, tags={TENANT_TAG: tenant, BATCH_TAG: batch.id})
    counts = Counter(run.status for run in runs)
    counts["failed"] += len(batch.errors)
    counts["queued" if batch.status == "running" else "cancelled"] += max(0, batch.rows - counts.total())
    return BatchItem(
        id=batch.id, workflow=batch.workflow, created=batch.created, status=batch.status, rows=batch.rows,
        counts={status: count for status, count in counts.items() if count},
    )  # fmt: skip


@ROUTES.route("GET", "/api/batches/{batch}/results", "read", media_type="application/jsonl")
async def get_batch_results(call: Call) -> Response:
    """Download the results: one JSON object per row that has ended, in the order of the rows."""
    stored_batch = await _require(call)
    headers = {"Content-Disposition": f'attachment; filename="{stored_batch.value.id}.jsonl"'}
    return StreamingResponse(_results(call.services, stored_batch), media_type="application/jsonl", headers=headers)


async def _results(services: Services, stored_batch: Stored[Batch]) -> AsyncIterator[bytes]:
    batch = stored_batch.value
    for start in range(0, batch.rows, PAGE_SIZE):
        rows = range(start, min(batch.rows, start + PAGE_SIZE))
        names = {_options(stored_batch, row).run_id: row for row in rows}
        run_events = await first_and_last_events(services.orchestra.journal, list(names))
        for name, row in names.items():
            last = run_events[name][1] if name in run_events else None
            if isinstance(last, RunFinished):
                full = (await services.orchestra.journal.read(name, last.seq - 1))[-1]
                yield msgspec.json.encode(_row(row, name, full if isinstance(full, RunFinished) else last)) + b"\n"
            elif row in batch.errors:
                error = BatchRow(row=row, run="", status="failed", output=None, error=batch.errors[row])
                yield msgspec.json.encode(error) + b"\n"


def _row(row: int, run: str, last: RunFinished) -> BatchRow:
    output, error = None, ""
    match last.outcome:
        case ValueOutcome(value):
            output = value
        case FailedOutcome(code, reason):
            error = f"{code}: {reason}"
        case AbstainedOutcome(reason) | SkippedOutcome(reason):
            error = reason
    return BatchRow(row=row, run=run, status=last.status, output=output, error=error)


@ROUTES.route("POST", "/api/batches/{batch}/cancel", "run", BatchItem, body=NoBody, status=202)
async def cancel_batch(call: Call) -> BatchItem:
    """Cancel a batch: rows that go on are cancelled, and others do not start."""
    stored_batch = await _require(call)
    await _stop(call, stored_batch)
    return await _item(call.services, call.principal.tenant, (await _require(call)).value)


async def _stop(call: Call[Any, Any], stored_batch: Stored[Batch]) -> None:
    name = stored_batch.value.id
    await batches_of(call.services).change(
        name, lambda batch: msgspec.structs.replace(batch, status="cancelled") if batch.status == "running" else None
    )
    call.services.stop_work(work_name(name))
    tags = {TENANT_TAG: call.principal.tenant, BATCH_TAG: name}
    runs = await call.orchestra.runs(limit=MAX_ROWS, status=("running", "waiting", "interrupted"), tags=tags)
    for run in runs:
        await call.orchestra.cancel(run.run, by=author(call, ""))


@ROUTES.route("DELETE", "/api/batches/{batch}", "admin")
async def delete_batch(call: Call) -> None:
    """Delete a batch, and cancel it if it goes on. Its runs stay."""
    stored_batch = await _require(call)
    await _stop(call, stored_batch)
    if not await batches_of(call.services).delete(stored_batch.value.id):
        raise not_found("batch", stored_batch.value.id)
    await call.services.records.delete(ROWS, stored_batch.value.id)


# Running


def _options(stored_batch: Stored[Batch], row: int) -> RunOptions:
    tenant, batch = stored_batch.record.tenant, stored_batch.value
    marks = {TENANT_TAG: tenant, SERVER_TAG: "1", BATCH_TAG: batch.id}
    return recorded_options(batch.options, marks, f"{tenant}/{batch.id}/{row}")


def work_name(batch: str) -> str:
    """Returns the name of the work on a batch."""
    return f"batch {batch}"


def start_batch(services: Services, batch: Stored[Batch]) -> None:
    """Runs a batch in the background."""
    services.spawn_once(work_name(batch.value.id), lambda: run_batch(services, batch))


async def run_batch(services: Services, stored: Stored[Batch]) -> None:
    """Runs the rows of a batch, so many at once as it says. Rows that have ended are not run again."""
    name = stored.value.id
    record = await services.records.get(ROWS, name)
    rows = msgspec.json.decode(record.data, type=list[dict[str, Any]]) if record is not None else []
    heartbeat = asyncio.get_running_loop().create_task(_beat(services, name))
    slots = asyncio.Semaphore(stored.value.concurrency)
    errors = dict[int, str]()

    async def run_row(row: int) -> None:
        try:
            if error := await _run_row(services, stored, row, rows[row]):
                errors[row] = error
        finally:
            slots.release()

    try:
        async with asyncio.TaskGroup() as group:
            for row in range(len(rows)):
                await slots.acquire()
                if services.draining.is_set():
                    return
                group.create_task(run_row(row))
        if services.draining.is_set():
            return  # Rows may have been refused or interrupted: another process looks at them again.
        await batches_of(services).change(name, lambda batch: _ended(batch, errors))
    finally:
        heartbeat.cancel()
        await asyncio.gather(heartbeat, return_exceptions=True)


def _ended(batch: Batch, errors: dict[int, str]) -> Batch | None:
    return msgspec.structs.replace(batch, status="done", errors=errors) if batch.status == "running" else None


async def _beat(services: Services, name: str) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await batches_of(services).change(name, lambda batch: msgspec.structs.replace(batch, alive=time.time()))


async def _run_row(services: Services, stored_batch: Stored[Batch], row: int, inputs: dict[str, Any]) -> str:
    """Runs a row to its end, or until it waits for a person; returns why it could not start."""
    while True:
        try:
            step = services.orchestra.find(stored_batch.value.workflow)
            run = await services.start(RunRequest(workflow=step, inputs=inputs, options=_options(stored_batch, row)))
            await run.wait_until_blocked()
        except OrchestraError as error:
            if error.code in (LEASE_HELD, LEASE_LOST) or must_wait(error):
                await asyncio.sleep(1)  # Another process runs it, or other runs hold the tenant's budget.
                continue
            if services.draining.is_set():
                return ""
            return f"{error.code}: {error.message}"
        return ""
