"""The routes of runs: start, list, show, stream, answer, cancel, resume, fork, compare and delete."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta
from msgspec.structs import fields
from pydantic import ValidationError
from starlette.responses import Response

from orchestra.app.disconnection import CLIENT
from orchestra.app.planning import PlanOptions, request_workflow
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.app.run_detail import (
    NodeDetail,
    NodeSummary,
    Question,
    RunAnswer,
    RunDetail,
    UsageTotal,
    node_summary,
    read_blobs,
    sent_and_received,
)
from orchestra.app.run_queries import first_and_last_events
from orchestra.app.run_status import STATUSES, RunStatus
from orchestra.app.workflow_graph import WorkflowGraph, workflow_graph
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Event, PlanDraft, RunFinished, RunStarted, encode
from orchestra.core.labels import Label
from orchestra.core.paths import is_inside
from orchestra.core.protocols import RunSummary
from orchestra.core.settings import looks_like_path
from orchestra.core.tags import parse_tags
from orchestra.core.timestamps import TimeSpec
from orchestra.engine.kinds.plan import is_complete
from orchestra.engine.request import PLANNING_PURPOSE, RunOptions, RunRequest
from orchestra.journal.summary import blob_digests
from orchestra.journal.verdicts import RunVerdict
from orchestra.server.endpoints import JSON_TYPE, Call, NoBody, Page, PageQuery, RouteTable
from orchestra.server.files import resolve_files
from orchestra.server.principals import public_tags, require_public_tags
from orchestra.server.problems import RequestError, not_found
from orchestra.server.retention import TTL_TAG
from orchestra.server.run_deletion import delete_server_runs
from orchestra.server.services import WaitEnded
from orchestra.server.stream_modes import frames_from
from orchestra.server.streams import (
    EVENT_STREAM,
    EventStream,
    Position,
    StreamMode,
    stop_error,
    wait_for_disconnect,
)
from orchestra.workflows.model import REQUEST, Budget, Graph
from orchestra.workflows.python.steps import Step, Workflow

ROUTES = RouteTable()
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_BULK = 1000
SCAN_SIZE = 500
"""Runs that are read together if only some of them are listed."""
MAX_SCAN = 5000
"""Runs at which one request looks at most, if only some of them are listed."""
READ_SIZE, MAX_READ = 100, 500
"""The same for runs whose events are read."""
Positive: TypeAlias = Annotated[int, Meta(gt=0)]
PositiveFloat: TypeAlias = Annotated[float, Meta(gt=0)]
Mode: TypeAlias = Literal["wait", "background", "stream"]
UNWATCHED_SECONDS = 1.0
"""Seconds of a wait in which the server does not look whether the client has disconnected, if the run goes on without
it. Most runs end before, and need no task that watches the connection.
"""
_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class BudgetLimits(_Body, frozen=True, kw_only=True):
    """Limits of a run, which replace those of its workflow."""

    tokens: Positive | None = None
    seconds: PositiveFloat | None = None
    calls: Positive | None = None
    money: PositiveFloat | None = None
    check_tokens: Positive | None = None


class Options(_Body, frozen=True, kw_only=True):
    """The options of a run."""

    budget: BudgetLimits | None = None
    label: Label | None = None
    """The label of the inputs, if it is stricter than the workflow's."""
    memo: bool = False
    tags: dict[str, str] = {}
    accept: Literal["certified"] | Annotated[float, Meta(ge=0, le=1)] | None = None
    purpose: Annotated[str, Meta(max_length=100)] = ""
    sample: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0
    ttl: Annotated[int, Meta(gt=0, lt=1 << 31)] | None = None
    """Seconds that the run is kept after its end. Then it is deleted with everything that was sent and received."""


NO_OPTIONS = Options()


class Delivery(_Body, frozen=True, kw_only=True):
    """How the answer of a run is sent."""

    mode: Mode = "wait"
    stream: StreamMode = "events"
    timeout: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    """Seconds to wait for the end. The run goes on after it."""
    on_disconnect: Literal["continue", "cancel"] = "continue"
    options: Options = NO_OPTIONS


class StartRun(Delivery, frozen=True, kw_only=True):
    """The request for a run."""

    workflow: str
    """The name of a workflow, an agent or a tool."""
    inputs: dict[str, Any] = {}


class PlanSettings(_Body, frozen=True, kw_only=True):
    """How a request is planned."""

    only: tuple[str, ...] = ()
    """The agents, tools and workflows that the plan may use; empty for all without effects."""
    replans: Annotated[int, Meta(ge=0, le=5)] = 0
    votes: Annotated[int, Meta(ge=1, le=16)] = 1
    confirm: bool = True
    cache: bool = True
    rules: bool = True
    """Whether a request of a known kind is planned by rule, without the router."""


class AskRequest(Delivery, frozen=True, kw_only=True):
    """A request in a person's words, with the values that it is about."""

    request: str
    values: dict[str, Any] = {}
    plan: PlanSettings = PlanSettings()


class AnswerBody(_Body, frozen=True, kw_only=True):
    """The answer to a question."""

    value: Any = None
    node: str = ""
    question_digest: str = ""
    question_seq: int = 0
    decline_reason: str = ""
    call_happened: bool = False
    by: Annotated[str, Meta(max_length=200)] = ""


class ByBody(_Body, frozen=True, kw_only=True):
    """Who does it."""

    by: Annotated[str, Meta(max_length=200)] = ""


class RunFilter(_Body, frozen=True, kw_only=True):
    """Which runs."""

    status: tuple[RunStatus, ...] = ("running", "waiting", "interrupted")
    workflow: str = ""
    tags: dict[str, str] = {}


class CancelRuns(_Body, frozen=True, kw_only=True):
    """Which runs are cancelled: the named ones, or those of a filter."""

    ids: tuple[str, ...] = ()
    filter: RunFilter | None = None
    by: Annotated[str, Meta(max_length=200)] = ""


class RunsQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filters of the list of runs."""

    status: tuple[str, ...] = ()
    workflow: str = ""
    tag: tuple[str, ...] = ()
    """`customer=42`; runs have all of them."""
    label: str = ""
    parent: str = ""
    since: str = ""
    """A duration before now (`24h`), a date, or seconds since the epoch."""
    until: str = ""
    verdict: tuple[RunVerdict, ...] = ()
    """The worst verdict on the last attempt of a node: `fail`, `unknown`, `pass`, or `none` without checks."""
    min_tokens: int = 0
    max_tokens: int | None = None
    min_money: float = 0.0
    max_money: float | None = None


class NodesQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filters of the nodes of a run."""

    under: str = ""
    status: str = ""


class DetailQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is included."""

    nodes: Literal["summary", "full"] = "summary"
    messages: bool = False
    """Whether nodes have what was sent and received. It implies `nodes=full`."""


class AnswerQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long to wait for the end."""

    wait: Annotated[float, Meta(ge=0, le=3600)] = 0.0


class EventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which events."""

    mode: StreamMode = "events"
    after: Annotated[int, Meta(ge=0)] | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class RunItem(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a list."""

    id: str
    workflow: str
    status: str
    started: float
    finished: float | None
    seconds: float | None
    nodes: int
    usage: UsageTotal
    label: str
    tags: dict[str, str]
    parent: str
    due: float
    """The first deadline of an open question; 0 without one."""
    holder: str
    """The process that drives it."""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a run, or why it is not changed."""

    id: str
    status: str = ""
    error: str = ""


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    """Events of a run."""

    items: tuple[Event, ...]
    last: int
    """The number of the last one, for `after`."""


class RunExport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a run."""

    schema: str
    run: RunDetail
    events: tuple[Event, ...]


# What the routes have in common


async def require_run(call: Call[Any, Any], run: str) -> RunStarted:
    """Returns the first event of a run of the caller's tenant. Raises `RequestError` S009 for any other."""
    start_event = await call.services.started(run) if RUN_ID.fullmatch(run) else None
    if start_event is None or not call.principal.owns(start_event.tags):
        raise not_found("run", run[:100])
    return start_event


def author(call: Call[Any, Any], by: str) -> str:
    """Returns who acts: the named person, and the credential that vouches for it."""
    subject = call.principal.subject
    if call.principal.sees_all:
        return by or subject
    return f"{by} (by {subject})" if by and by != subject else subject


def find_step(call: Call[Any, Any], name: str, pointer: str = "/workflow") -> Step[..., Any]:
    """Returns a workflow, an agent or a tool by name. A request never names a file. Raises `RequestError` S009."""
    if not name or looks_like_path(name) or len(name) > 200:
        raise RequestError("S009", f"there is no workflow {name[:100]!r}", hint="GET /api/workflows", pointer=pointer)
    try:
        return call.orchestra.find(name)
    except InputError as error:
        if error.code != "C004":
            raise
        raise RequestError("S009", error.message, hint=error.hint, pointer=pointer) from error


def run_options(call: Call[Any, Any], options: Options, *, live: bool = False) -> RunOptions:
    """Returns the options of a run of the caller's tenant. Raises `RequestError` S002 or S015."""
    require_public_tags(options.tags, "/options/tags")
    key = call.idempotency_key
    name = f"{call.principal.tenant}/{key}" if key else ""
    base_options = recorded_options(options, call.principal.marks, name)
    return base_options.replace(live=True) if live else base_options


def recorded_options(options: Options, marks: Mapping[str, str], key: str) -> RunOptions:
    """Returns the options of a run with the tags of the server and an idempotency key. Raises `RequestError` S002."""
    return RunOptions(
        idempotency_key=key,
        budget=_budget(options.budget),
        label=options.label,
        memo=options.memo,
        purpose=options.purpose,
        sample=options.sample,
        tags={**options.tags, **marks, **({} if options.ttl is None else {TTL_TAG: str(options.ttl)})},
        accept=options.accept,
    )


def _budget(limits: BudgetLimits | None) -> Budget | None:
    if limits is None:
        return None
    values = {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None}
    try:
        return Budget.model_validate(values) if values else None
    except ValidationError as error:
        first = error.errors()[0]
        pointer = "/".join(["/options/budget", *map(str, first["loc"])])
        message = f"the budget is invalid: {first['msg']}"
        raise RequestError("S002", message, hint="see /docs", pointer=pointer) from error


async def send_run(call: Call[Any, Any], run: Run[Any], wanted: Delivery, status: int = 200) -> Response:
    """Returns the reply for a run that has started: its stream, or its answer."""
    headers = {"Location": f"{call.request.scope.get('root_path', '')}/api/runs/{run.id}"}
    cancel = wanted.on_disconnect == "cancel"
    if wanted.mode == "stream":
        frames = frames_from(wanted.stream, call.services, run.id, Position(0))
        leave = (lambda: run.cancel(CLIENT)) if cancel else None
        return EventStream(call.services, frames, headers, leave)
    result = await wait_for_end(call, run, wanted.timeout, cancel=cancel) if wanted.mode == "wait" else None
    if result is None:
        return Response(msgspec.json.encode(await call.services.answer(run.id)), 202, headers, JSON_TYPE)
    answer = await call.services.answer_of(result)
    return Response(msgspec.json.encode(answer), status, headers, JSON_TYPE)


async def wait_for_end(
    call: Call[Any, Any], run: Run[Any], timeout: float | None, *, cancel: bool = False
) -> Result[Any] | None:
    """Waits until a run ends, waits for a person, or the time is up; returns the result, or None before its end.

    If the client disconnects, the run is cancelled with `cancel`. Raises `RequestError` S010 if the server stops.
    """
    services = call.services
    if not cancel:
        unwatched = UNWATCHED_SECONDS if timeout is None else min(timeout, UNWATCHED_SECONDS)
        with suppress(WaitEnded):
            return await services.wait(run.wait_until_blocked(), unwatched)
        timeout = None if timeout is None else timeout - unwatched
    disconnect = asyncio.ensure_future(wait_for_disconnect(call.request.receive))
    try:
        return await services.wait(run.wait_until_blocked(), timeout, disconnect)
    except WaitEnded:
        if disconnect.done() and cancel:
            run.cancel(CLIENT)
        if services.stopping.is_set():
            raise stop_error(run.id) from None
        return None
    finally:
        disconnect.cancel()
        await asyncio.gather(disconnect, return_exceptions=True)


# Start


@ROUTES.route("POST", "/api/runs", "run", RunAnswer, body=StartRun, while_draining=False)
async def start_run(call: Call[StartRun]) -> Response:
    """Start a run, and wait for its end, stream it, or leave it in the background.

    A run that waits for a person, or goes on after the timeout, is answered with 202. With the header
    `Idempotency-Key` there is at most one run, however often the request is repeated.
    """
    body = call.body
    step = find_step(call, body.workflow)
    options = run_options(call, body.options, live=body.stream == "text")
    inputs = await resolve_files(call, body.inputs)
    run = await call.services.start(RunRequest(workflow=step, inputs=inputs, options=options))
    return await send_run(call, run, body)


@ROUTES.route("POST", "/api/ask", "run", RunAnswer, body=AskRequest, while_draining=False)
async def ask(call: Call[AskRequest]) -> Response:
    """Plan a request in a person's words, and run the plan."""
    return await _start_request(call, plan_only=False)


@ROUTES.route("POST", "/api/plan", "run", RunAnswer, body=AskRequest, while_draining=False)
async def plan(call: Call[AskRequest]) -> Response:
    """Plan a request in a person's words. The run ends when its plan is accepted; its output is the plan."""
    return await _start_request(call, plan_only=True)


async def _start_request(call: Call[AskRequest], *, plan_only: bool) -> Response:
    body, planned = call.body, call.body.plan
    for index, name in enumerate(planned.only):
        find_step(call, name, f"/plan/only/{index}")
    plan_options = PlanOptions(
        only=planned.only,
        replans=planned.replans,
        votes=planned.votes,
        confirm=planned.confirm,
        cache=planned.cache,
        rules=planned.rules,
    )
    values = await resolve_files(call, body.values, "/values")
    try:
        step = request_workflow(call.orchestra, body.request, values, plan_options)
    except InputError as error:
        if error.code != "E012":
            raise
        raise RequestError(error.code, error.message, hint=error.hint, pointer="/values") from error
    options = run_options(call, body.options, live=body.stream == "text")
    if plan_only:
        options = options.replace(purpose=options.purpose or PLANNING_PURPOSE)
    inputs = {REQUEST: body.request, **values}
    request = RunRequest(workflow=step, inputs=inputs, options=options, plan_only=plan_only)
    return await send_run(call, await call.services.start(request), body)


# List


@ROUTES.route("GET", "/api/runs", "read", Page[RunItem], query=RunsQuery)
async def list_runs(call: Call[NoBody, RunsQuery]) -> Page[RunItem]:
    """List the runs of the tenant, newest first.

    With filters of label, parent or cost a request looks at 5,000 runs at most, and with `verdict` at 500. So a page
    may have fewer items than its limit, and `next`, with which the list goes on.
    """
    query, items, before = call.query, list[RunItem](), call.query.cursor
    for status in query.status:
        if status not in STATUSES:
            raise RequestError("S002", f"no run is {status[:50]!r}", hint=", ".join(STATUSES), pointer="status")
    if before:
        try:
            await require_run(call, before)
        except RequestError as error:
            raise RequestError("S002", "the cursor is unknown", hint="start without one", pointer="cursor") from error
    tags = {**parse_tags(query.tag), **call.principal.filter}
    require_public_tags(parse_tags(query.tag), "tag")
    statuses = [status for status in STATUSES if status in query.status]
    size = READ_SIZE if query.verdict else query.limit if _is_unfiltered(query) else SCAN_SIZE
    scanned, most, more = 0, MAX_READ if query.verdict else MAX_SCAN, True
    while more and len(items) < query.limit and scanned < most:
        page = await call.orchestra.runs(
            limit=size,
            workflow=query.workflow,
            status=statuses or None,  # type: ignore[arg-type]  # checked above
            tags=tags,
            since=parse_time(query.since, "since"),
            until=parse_time(query.until, "until"),
            before=before,
        )
        more, scanned = len(page) == size, scanned + len(page)
        items += await _matching(call, page)
        before = page[-1].run if page else before
    page_items = items[: query.limit]
    if len(items) > query.limit or (more and len(items) == query.limit):
        return Page(items=tuple(page_items), next=page_items[-1].id)
    return Page(items=tuple(page_items), next=before if more else None)


def _is_unfiltered(query: RunsQuery) -> bool:
    ignored = ("limit", "cursor", "status", "workflow", "tag", "since", "until")  # The journal answers these.
    return all(getattr(query, field.name) == field.default for field in fields(query) if field.name not in ignored)


async def _matching(call: Call[NoBody, RunsQuery], runs: Sequence[RunSummary]) -> list[RunItem]:
    """Returns the matching runs as items. What costs least is compared first: the cost of a run is in the list of runs,
    its label in its first event, and its verdict in all of its events.
    """
    query = call.query
    items = [
        item
        for item in await run_items(call, [run for run in runs if _matches_cost(run, query)])
        if query.label in ("", item.label) and query.parent in ("", item.parent)
    ]
    if not query.verdict:
        return items
    verdicts = [await call.services.run_verdict(item.id, ended=item.finished is not None) for item in items]
    return [item for item, verdict in zip(items, verdicts, strict=True) if verdict in query.verdict]


def _matches_cost(run: RunSummary, query: RunsQuery) -> bool:
    tokens, money = run.usage.prompt_tokens + run.usage.output_tokens, run.usage.money
    return (
        tokens >= query.min_tokens
        and money >= query.min_money
        and (query.max_tokens is None or tokens <= query.max_tokens)
        and (query.max_money is None or money <= query.max_money)
    )


async def run_items(call: Call[Any, Any], runs: Sequence[RunSummary]) -> list[RunItem]:
    """Returns runs as items of a list."""
    run_events = await first_and_last_events(call.orchestra.journal, [run.run for run in runs])
    items = []
    for run in runs:
        first = run_events[run.run][0] if run.run in run_events else None
        start_event = first if isinstance(first, RunStarted) else None
        items.append(
            RunItem(
                id=run.run,
                workflow=run.workflow,
                status=run.status,
                started=run.started,
                finished=run.finished,
                seconds=None if run.finished is None else run.finished - run.started,
                nodes=run.nodes,
                usage=UsageTotal.of(run.usage),
                label=start_event.label if start_event is not None else "",
                tags=public_tags(start_event.tags) if start_event is not None else {},
                parent=start_event.parent if start_event is not None else "",
                due=run.due,
                holder=run.holder,
            )
        )
    return items


def parse_time(text: str, name: str) -> TimeSpec:
    """Returns a time of a query. Raises `RequestError` S002."""
    if not text:
        return None
    if (duration := _DURATION.fullmatch(text)) is not None:
        return timedelta(**{_UNITS[duration[2]]: int(duration[1])})
    try:
        try:
            return datetime.fromtimestamp(float(text)).astimezone()
        except ValueError:
            time = datetime.fromisoformat(text)
            return time if time.tzinfo is not None else time.astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise RequestError("S002", f"{text[:50]!r} is not a time", hint=f"{name}=24h", pointer=name) from error


# Show


@ROUTES.route("GET", "/api/runs/{run}", "read", RunDetail, query=DetailQuery)
async def get_run(call: Call[NoBody, DetailQuery]) -> RunDetail:
    """Show a run: its answer with evidence and verdicts, its graph, and its nodes."""
    await require_run(call, call.path["run"])
    return await _detail(call, full=call.query.nodes == "full", messages=call.query.messages)


async def _detail(call: Call[Any, Any], *, full: bool, messages: bool) -> RunDetail:
    recorded_run = await call.services.read_run(call.path["run"])
    blobs: Mapping[str, bytes] = {}
    if messages:
        blobs = await read_blobs(call.orchestra.journal, sent_and_received(recorded_run.history.rows))
    try:
        graph = workflow_graph(await call.orchestra.stored_program(recorded_run.started))
    except OrchestraError:
        graph = None
    tags = public_tags(recorded_run.started.tags)
    return recorded_run.detail(tags, graph, lambda draft: plan_graph(call, draft), blobs, full=full or messages)


def plan_graph(call: Call[Any, Any], draft: PlanDraft) -> WorkflowGraph | None:
    """Returns the graph of a plan; None if it has none, or does not compile any more."""
    data = draft.graph if is_complete(draft) else draft.plan
    if not isinstance(data, Mapping):
        return None
    try:
        graph = Graph.model_validate({"name": "plan", **data}, strict=False)
        return workflow_graph(call.orchestra.program(Workflow.from_graph(graph)))
    except (ValidationError, OrchestraError):
        return None


@ROUTES.route("GET", "/api/runs/{run}/answer", "read", RunAnswer, query=AnswerQuery)
async def get_answer(call: Call[NoBody, AnswerQuery]) -> RunAnswer:
    """Show the answer of a run with its evidence and verdicts; with `wait`, once it has ended."""
    run = call.path["run"]
    await require_run(call, run)
    if call.query.wait and (active := call.orchestra.active_run(run)) is not None:
        await wait_for_end(call, active, call.query.wait)
    return await call.services.answer(run)


@ROUTES.route("GET", "/api/runs/{run}/nodes", "read", Page[NodeSummary], query=NodesQuery)
async def list_nodes(call: Call[NoBody, NodesQuery]) -> Page[NodeSummary]:
    """List the nodes of a run, or those inside a node, such as the elements of a list."""
    await require_run(call, call.path["run"])
    query, recorded_run = call.query, await call.services.read_run(call.path["run"])
    rows = [row for row in recorded_run.history.rows if not query.under or is_inside(row.path, query.under)]
    rows = [row for row in rows if query.status in ("", row.status, row.display_status)]
    start = int(query.cursor) if query.cursor.isdecimal() else 0
    page = rows[start : start + query.limit]
    end = start + len(page)
    return Page(items=tuple(map(node_summary, page)), next=str(end) if page and end < len(rows) else None)


@ROUTES.route("GET", "/api/runs/{run}/nodes/{node:path}", "read", NodeDetail)
async def get_node(call: Call) -> NodeDetail:
    """Show a node: the exact prompts and responses, the outputs, the evidence, and each verdict."""
    await require_run(call, call.path["run"])
    recorded_run = await call.services.read_run(call.path["run"])
    if (row := recorded_run.history.row(call.path["node"])) is None:
        raise RequestError("S009", f"there is no node {call.path['node'][:100]!r}", hint="list them: GET …/nodes")
    return recorded_run.node(row, await read_blobs(call.orchestra.journal, sent_and_received([row])))


@ROUTES.route("GET", "/api/runs/{run}/blobs/{digest}", "read", media_type="application/octet-stream")
async def get_blob(call: Call) -> Response:
    """Get the exact bytes of a prompt, a response or a part of the workflow, by the digest that the run names."""
    await require_run(call, call.path["run"])
    events, digest = await call.orchestra.journal.read(call.path["run"]), call.path["digest"]
    data = await call.orchestra.journal.get_blob(digest) if digest in set(blob_digests(events)) else None
    if data is None:
        raise RequestError("S009", f"the run has no blob {digest[:64]!r}", hint="digests are in its nodes")
    return Response(data, media_type="application/octet-stream", headers={"Content-Disposition": "attachment"})


@ROUTES.route("GET", "/api/runs/{run}/export", "read", RunExport)
async def export_run(call: Call) -> Response:
    """Get everything about a run as one file: its nodes with what was sent and received, and its events."""
    run = call.path["run"]
    await require_run(call, run)
    events = tuple(await call.orchestra.journal.read(run))
    export = RunExport(schema="orchestra/run/v1", run=await _detail(call, full=True, messages=True), events=events)
    headers = {"Content-Disposition": f'attachment; filename="{run}.json"'}
    return Response(msgspec.json.encode(export), media_type=JSON_TYPE, headers=headers)


@ROUTES.route("GET", "/api/runs/{run}/events", "read", EventList, query=EventsQuery, media_type=EVENT_STREAM)
async def stream_events(call: Call[NoBody, EventsQuery]) -> Response:
    """Stream the events of a run from any event on, as server-sent events; or list them as JSON.

    The ids are the numbers of events in the journal. `Last-Event-ID` or `after` continues a stream without gaps, also
    at another server. The reply is 204 if the client has all events of a run that has ended.
    """
    run, query = call.path["run"], call.query
    await require_run(call, run)
    position = Position(query.after) if query.after is not None else _last_position(call, query.mode)
    after = position.after
    if JSON_TYPE in call.request.headers.get("accept", ""):
        events = (await call.orchestra.journal.read(run, after))[: query.limit]
        content = b'{"items":[%s],"last":%d}' % (b",".join(map(encode, events)), events[-1].seq if events else after)
        return Response(content, media_type=JSON_TYPE)
    if await call.services.has_ended(run, after):
        return Response(status_code=204)
    return EventStream(call.services, frames_from(query.mode, call.services, run, position))


def _last_position(call: Call[Any, Any], mode: StreamMode) -> Position:
    """Returns the position of the last event that the client has. Only ids of verified text name a part of an event."""
    text = call.request.headers.get("last-event-id", "0") or "0"
    position = Position.parse(text)
    if position is None or ("." in text and mode != "verified"):
        raise RequestError("S002", "Last-Event-ID is not the id of an event", hint="send the last id of the stream",
                           pointer="Last-Event-ID")  # fmt: skip
    return position


# Persons


@ROUTES.route("GET", "/api/runs/{run}/questions", "read", Page[Question])
async def list_questions(call: Call) -> Page[Question]:
    """List the open questions of a run to persons."""
    await require_run(call, call.path["run"])
    return Page(items=tuple(map(Question.of, await call.orchestra.questions(call.path["run"]))))


@ROUTES.route("POST", "/api/runs/{run}/answers", "answer", RunState, body=AnswerBody, status=202, while_draining=False)
async def answer_question(call: Call[AnswerBody]) -> RunState:
    """Answer a question of a run, or decline to answer. The run continues."""
    run, body = call.path["run"], call.body
    await require_run(call, run)
    await call.orchestra.answer(
        run,
        body.value,
        node=body.node,
        by=author(call, body.by),
        question_digest=body.question_digest,
        question_seq=body.question_seq,
        decline_reason=body.decline_reason,
        call_happened=body.call_happened,
    )
    if call.orchestra.active_run(run) is None:
        await call.services.resume(run, author(call, body.by))
    return RunState(id=run, status="accepted")


# Change


@ROUTES.route("POST", "/api/runs/{run}/cancel", "run", RunState, body=ByBody, status=202)
async def cancel_run(call: Call[ByBody]) -> RunState:
    """Cancel a run, in whichever process it is. What has ended keeps its value."""
    run = call.path["run"]
    await require_run(call, run)
    return await _cancel(call, run, call.body.by)


async def _cancel(call: Call[Any, Any], run: str, by: str) -> RunState:
    await call.orchestra.cancel(run, by=author(call, by))
    summary = await call.orchestra.journal.summary(run)
    return RunState(id=run, status=summary.status if summary is not None else "")


@ROUTES.route("POST", "/api/runs/cancel", "run", Page[RunState], body=CancelRuns, status=202)
async def cancel_runs(call: Call[CancelRuns]) -> Page[RunState]:
    """Cancel the named runs, or all that a filter selects."""
    body, names = call.body, list(call.body.ids)
    if (run_filter := body.filter) is not None:
        require_public_tags(run_filter.tags, "/filter/tags")
        run_summaries = await call.orchestra.runs(
            limit=MAX_BULK,
            workflow=run_filter.workflow,
            status=[status for status in run_filter.status if status in ("running", "waiting", "interrupted")],
            tags={**run_filter.tags, **call.principal.filter},
        )
        names += [run.run for run in run_summaries]
    if len(names) > MAX_BULK:
        raise RequestError("S002", f"at most {MAX_BULK} runs are cancelled at once", pointer="/ids")
    return Page(items=tuple([await _cancel_one(call, run) for run in dict.fromkeys(names)]))


async def _cancel_one(call: Call[CancelRuns], run: str) -> RunState:
    try:
        await require_run(call, run)
        return await _cancel(call, run, call.body.by)
    except OrchestraError as error:
        return RunState(id=run[:100], error=f"{error.code}: {error.message}")


@ROUTES.route("POST", "/api/runs/{run}/resume", "run", RunAnswer, body=ByBody, status=202, while_draining=False)
async def resume_run(call: Call[ByBody]) -> RunAnswer:
    """Continue a run that was interrupted. Calls that have ended are not made again."""
    run = call.path["run"]
    await require_run(call, run)
    await call.orchestra.resume(run, by=author(call, call.body.by))
    return await call.services.answer(run)


@ROUTES.route("DELETE", "/api/runs/{run}", "admin")
async def delete_run(call: Call) -> None:
    """Delete a run that has ended, with everything that was sent and received in it."""
    run = call.path["run"]
    await require_run(call, run)
    run_events = await first_and_last_events(call.orchestra.journal, [run])
    if run in run_events and not isinstance(run_events[run][1], RunFinished):
        raise RequestError("C056", f"run {run} has not ended", hint=f"POST /api/runs/{run}/cancel")
    for error in await delete_server_runs(call.services, [run]):
        if error is not None:
            raise error
