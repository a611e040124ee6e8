"""Tasks of A2A: the runs of a tenant, as other agents read them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from orchestra.app.run_detail import RunAnswer
from orchestra.app.run_queries import first_and_last_events
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunStarted
from orchestra.core.settings import looks_like_path
from orchestra.schema.types import Schema
from orchestra.server.agent_protocols.a2a_errors import TASK_NOT_FOUND, RpcError
from orchestra.server.agent_protocols.a2a_types import Artifact, Message, Part, Task, TaskState, TaskStatus
from orchestra.server.agent_protocols.ag_ui_events import CONTEXT_TAG
from orchestra.server.agent_protocols.replies import reply_of
from orchestra.server.agent_protocols.skills import ASK
from orchestra.server.endpoints import Call
from orchestra.server.problems import RequestError
from orchestra.server.runs import require_run
from orchestra.server.services import Services
from orchestra.workflows.python.steps import Workflow

ANSWER: Final = "answer"
"""The id of the artifact of a task."""
STATES: Final[Mapping[str, TaskState]] = {
    "running": "TASK_STATE_WORKING",
    "interrupted": "TASK_STATE_WORKING",
    "done": "TASK_STATE_COMPLETED",
    "abstained": "TASK_STATE_COMPLETED",
    "failed": "TASK_STATE_FAILED",
    "budget": "TASK_STATE_FAILED",
    "cancelled": "TASK_STATE_CANCELED",
    "waiting": "TASK_STATE_INPUT_REQUIRED",
}
"""The state of a task by the status of its run."""


async def require_task(call: Call[Any, Any], run: str) -> RunStarted:
    """Returns the first event of a run of the caller's tenant. Raises `RpcError` for any other."""
    try:
        return await require_run(call, run)
    except RequestError as error:
        raise RpcError(TASK_NOT_FOUND, "S009", f"there is no task {run[:100]!r}", hint="SendMessage") from error


def output_schema(services: Services, workflow: str) -> Schema:
    """Returns the type of the output of a workflow; that of any value if there is no such workflow any more."""
    if workflow == ASK or looks_like_path(workflow):
        return {}
    try:
        step = services.orchestra.find(workflow)
        return services.orchestra.program(step).output_schema if isinstance(step, Workflow) else {}
    except OrchestraError:
        return {}


async def read_task(services: Services, run: str, *, prefers_question: bool = False) -> Task:
    """Returns a task of any tenant, with its result if it has one.

    Args:
        services: The state of the server.
        run: The id of the task.
        prefers_question: Whether a task with an open question waits for input even if other nodes still work.
    """
    answer = await services.answer(run)
    if prefers_question and answer.questions and STATES.get(answer.status) == "TASK_STATE_WORKING":
        answer = msgspec.structs.replace(answer, status="waiting")
    events = (await first_and_last_events(services.orchestra.journal, [run])).get(run)
    start_event = events[0] if events is not None and isinstance(events[0], RunStarted) else None
    context = start_event.tags.get(CONTEXT_TAG, "") if start_event is not None else ""
    schema = output_schema(services, answer.workflow)
    updated = answer.finished if answer.finished is not None or events is None else events[1].at
    status = _task_status(answer, schema, context, updated)
    return Task(id=run, context_id=context or run, status=status, artifacts=_artifacts(answer, schema))


def _task_status(answer: RunAnswer, schema: Schema, context: str, updated: float | None) -> TaskStatus:
    state = STATES.get(answer.status, "TASK_STATE_WORKING")
    words = "" if state == "TASK_STATE_WORKING" else reply_of(answer, schema).message
    message = agent_message(answer.id, context, words) if words else None
    return TaskStatus(state=state, message=message, timestamp=timestamp_text(updated))


def agent_message(run: str, context: str, words: str) -> Message:
    """Returns a message of the server about a task."""
    parts = (Part(text=words),)
    return Message(message_id=str(uuid.uuid4()), role="ROLE_AGENT", parts=parts, task_id=run, context_id=context or run)


def timestamp_text(at: float | None) -> str:
    """Returns a time as A2A writes it; now for None."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _artifacts(answer: RunAnswer, schema: Schema) -> tuple[Artifact, ...]:
    """Returns the result of a run that has answered: its words, and the output with evidence and verdicts."""
    if answer.status not in ("done", "abstained"):
        return ()
    reply = reply_of(answer, schema)
    parts = (Part(text=reply.message), Part(data=msgspec.to_builtins(reply)))
    return (Artifact(artifact_id=ANSWER, name=ANSWER, parts=parts),)
