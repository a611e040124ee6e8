"""The routes that repeat and compare runs: fork, replay and differences."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from orchestra.app.planning import recorded_request
from orchestra.app.reuse import compare_runs
from orchestra.app.run_detail import (
    RunAnswer,
)
from orchestra.app.run_record import PromptDifference, prompt_differences
from orchestra.core.events import Event, RunStarted
from orchestra.core.outcomes import Outcome
from orchestra.server.endpoints import JSON_TYPE, Call, NoBody, RouteTable
from orchestra.server.files import resolve_files
from orchestra.server.runs import Delivery, author, find_step, require_run, run_options, send_run
from orchestra.server.streams import (
    EventStream,
)
from orchestra.workflows.python.steps import Step

ROUTES = RouteTable()


class ForkRun(Delivery, frozen=True, kw_only=True):
    """The request for a fork."""

    inputs: dict[str, Any] = msgspec.field(default_factory=dict)
    """Replace inputs of the parent."""
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    """Values of nodes, by name: such a node is not run."""
    unset: tuple[str, ...] = ()
    """Nodes that are run, although a person gave them a value in the parent."""
    prompts: dict[str, Annotated[str, Meta(max_length=100_000)]] = msgspec.field(default_factory=dict)
    """Prompts of agents, by name, in place of those of the project. What they answered is called again."""
    workflow: str = ""
    """Another workflow than the parent's."""
    again: bool = False
    """Whether calls with effects are repeated."""
    by: str = ""


class ChangedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node that a fork runs anew, with the reason."""

    node: str
    reason: str


class ForkAnswer(RunAnswer, frozen=True, kw_only=True):
    """A fork, and what has changed since its parent."""

    changes: tuple[ChangedNode, ...]


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the engine decides today as it did in the run."""

    events: int
    same: bool
    reason: str
    difference: Event | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A node with different outcomes in two runs; an empty name is the run."""

    node: str
    before: Outcome | None
    after: Outcome | None


class RunDifferences(msgspec.Struct, frozen=True, kw_only=True):
    """How two runs differ."""

    items: tuple[Difference, ...]
    prompts: tuple[PromptDifference, ...]
    next: str | None = None


class DiffQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The run to compare with."""

    other: str


@ROUTES.route("POST", "/api/runs/{run}/fork", "run", ForkAnswer, body=ForkRun, while_draining=False)
async def fork_run(call: Call[ForkRun]) -> Response:
    """Run a workflow again with the inputs of a run: only what has changed is called again.

    `values` replaces outputs of nodes, and what depends on them runs again. `inputs` replaces inputs, and `prompts` the
    prompts of agents. The comparison of both runs shows what has changed.
    """
    body, run = call.body, call.path["run"]
    start_event = await require_run(call, run)
    step = find_step(call, body.workflow) if body.workflow else await _step_of(call, start_event)
    options = run_options(call, body.options, live=body.stream == "text")
    inputs = await resolve_files(call, body.inputs)
    call.services.require_running()
    async with call.services.budgets.reserve(options, call.services.own_budget(step)) as options:
        view = call.orchestra.options(
            idempotency_key=options.idempotency_key,
            budget=options.budget,
            label=options.label,
            memo=options.memo,
            sample=options.sample,
            tags=options.tags,
            accept=options.accept,
            live=options.live,
            again=body.again,
            values=body.values,
            unset=body.unset,
            prompts=body.prompts,
            by=author(call, body.by),
        )
        forked = await view.fork(run, step, **inputs)
    reply = await send_run(call, forked.run, body)
    if isinstance(reply, EventStream):
        return reply
    changes = [ChangedNode(node=change.node, reason=change.reason) for change in forked.changes]
    answer = msgspec.json.decode(reply.body)
    answer["changes"] = changes
    return Response(msgspec.json.encode(answer), reply.status_code, {"Location": reply.headers["location"]}, JSON_TYPE)


async def _step_of(call: Call[Any, Any], start_event: RunStarted) -> Step[..., Any]:
    """Returns the workflow of a run as it is today. Raises `RequestError` S009 if there is none of its name."""
    workflow = await recorded_request(call.orchestra, start_event)
    return workflow if workflow is not None else find_step(call, start_event.workflow)


@ROUTES.route("POST", "/api/runs/{run}/replay", "read", ReplayReport, body=NoBody)
async def replay_run(call: Call) -> ReplayReport:
    """Compare the events of a run with what the engine decides today. Nothing is called."""
    await require_run(call, call.path["run"])
    replay_result = await call.orchestra.replay(call.path["run"])
    return ReplayReport(
        events=replay_result.event_count,
        same=replay_result.first_difference is None,
        reason=replay_result.reason,
        difference=replay_result.first_difference,
    )


@ROUTES.route("GET", "/api/runs/{run}/diff", "read", RunDifferences, query=DiffQuery)
async def diff_runs(call: Call[NoBody, DiffQuery]) -> RunDifferences:
    """Show the nodes with different outcomes in two runs, and the agents with different prompts."""
    first_run, second_run = call.path["run"], call.query.other
    starts = [await require_run(call, run) for run in (first_run, second_run)]
    journal = call.orchestra.journal
    differences = compare_runs(await journal.read(first_run), await journal.read(second_run))
    return RunDifferences(
        items=tuple(
            Difference(node=difference.node, before=difference.before, after=difference.after)
            for difference in differences
        ),
        prompts=await prompt_differences(journal, *starts),
    )
