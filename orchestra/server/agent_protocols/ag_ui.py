"""AG-UI 1.0: a workflow as an agent of a user interface, which sends messages and gets a stream of events."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from orchestra.app.run import Run
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunFinished, RunStarted
from orchestra.core.tags import is_tag
from orchestra.schema.types import Schema
from orchestra.server.access import require_scope
from orchestra.server.agent_protocols.ag_ui_events import CONTEXT_TAG, AgUiEncoder, ag_ui_frame, error_event
from orchestra.server.agent_protocols.questions import (
    continued_run,
    give_answer,
    open_questions,
    require_run_of,
)
from orchestra.server.agent_protocols.replies import error_words
from orchestra.server.agent_protocols.skills import Skill, cancel_for_client, find_skill, start_skill
from orchestra.server.endpoints import Call, RouteTable
from orchestra.server.openai_api.messages import MESSAGE_ROLES, FileData, Turn, build_inputs
from orchestra.server.problems import RequestError
from orchestra.server.run_following import events_until_blocked
from orchestra.server.streams import EVENT_STREAM, EventStream

ROUTES = RouteTable()
DECLINED = "declined in the user interface"


class _Input(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class PartSource(_Input, frozen=True, kw_only=True):
    """Where the content of a part is: in `value` as base64, or elsewhere."""

    type: str
    value: str = ""


class ContentPart(_Input, frozen=True, kw_only=True):
    """A part of a message."""

    type: str
    text: str = ""
    source: PartSource | None = None


class AgUiMessage(_Input, frozen=True, kw_only=True):
    """A message of a conversation. Messages of tools, and activities, are not read."""

    role: str
    content: str | list[ContentPart] | dict[str, Any] | None = None


class ResumeEntry(_Input, frozen=True, kw_only=True):
    """The answer to a question with which an earlier run has ended."""

    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class RunAgentInput(_Input, frozen=True, kw_only=True):
    """The request for a run. Fields that are not listed have no effect: a workflow calls its own tools."""

    thread_id: str
    run_id: str
    messages: list[AgUiMessage]
    forwarded_props: Any = None
    """`inputs` has inputs that messages do not state, such as documents."""
    resume: list[ResumeEntry] | None = None


@ROUTES.route("POST", "/ag-ui/{name}", "run", body=RunAgentInput, media_type=EVENT_STREAM, while_draining=False)
async def run_ag_ui_agent(call: Call[RunAgentInput]) -> Response:
    """Run a workflow, or `ask`, for a conversation; the reply is a stream of events of AG-UI.

    If the client disconnects, the run is cancelled, unless it waits for a person.
    """
    body, skill = call.body, find_skill(call, call.path["name"])
    run, after = await (_resume(call, skill, body.resume) if body.resume else _start(call, skill))
    frames = _frames(call, run, skill.output_schema, after)
    return EventStream(call.services, frames, on_disconnect=lambda: cancel_for_client(call, run), watches_stop=True)


async def _start(call: Call[RunAgentInput], skill: Skill) -> tuple[Run[Any], int]:
    body, inputs = call.body, dict[str, Any]()
    if isinstance(body.forwarded_props, dict) and isinstance(
        forwarded_inputs := body.forwarded_props.get("inputs"), dict
    ):
        inputs = forwarded_inputs
    turns = [
        _turn(message, f"/messages/{index}")
        for index, message in enumerate(body.messages)
        if message.role in MESSAGE_ROLES
    ]
    if turns or not inputs:
        inputs = (await build_inputs(call, skill.target, turns, inputs)).values
    return await start_skill(call, skill, inputs, {CONTEXT_TAG: _thread(call)}), 0


def _thread(call: Call[RunAgentInput]) -> str:
    """Returns the thread as the value of a tag: its name, or a digest of a name that no tag can have."""
    thread = call.body.thread_id
    return thread if is_tag(CONTEXT_TAG, thread) else str(uuid.uuid5(uuid.NAMESPACE_URL, thread))


def _turn(message: AgUiMessage, pointer: str) -> Turn:
    """Returns a message with its texts and files. Raises `RequestError` S031 for another part."""
    if isinstance(message.content, str):
        return Turn(message.role, (message.content,), (), f"{pointer}/content")
    texts, files = list[str](), list[FileData]()
    parts: Sequence[ContentPart] = message.content if isinstance(message.content, list) else ()
    for index, part in enumerate(parts):
        if part.type == "text":
            texts.append(part.text)
        elif part.type == "document" and part.source is not None and part.source.type == "data":
            files.append(FileData(file_data=part.source.value))
        else:
            raise RequestError("S031", f"parts of the type {part.type[:50]!r} cannot be read",
                               hint="send texts, and documents as data",
                               pointer=f"{pointer}/content/{index}")  # fmt: skip
    return Turn(message.role, tuple(texts), tuple(files), f"{pointer}/content")


async def _resume(call: Call[Any, Any], skill: Skill, entries: Sequence[ResumeEntry]) -> tuple[Run[Any], int]:
    """Answers the questions of a run; returns the run, and the number of its last event before."""
    require_scope(call.principal, "answer")
    names = {entry.interrupt_id.rpartition(":")[0] for entry in entries}
    if len(names) != 1:
        raise RequestError("S002", "the answers are to questions of several runs", hint="answer one run",
                           pointer="/resume")  # fmt: skip
    (name,) = names
    await require_run_of(call, name, skill)
    questions = {f"{name}:{question.seq}": question for question in await open_questions(call, name)}
    last = (await call.services.answer(name)).last_seq
    for index, entry in enumerate(entries):
        if (question := questions.get(entry.interrupt_id)) is None:
            raise RequestError("E021", f"the question {entry.interrupt_id[:100]!r} is not open",
                               hint=f"GET /api/runs/{name}/questions", pointer=f"/resume/{index}")  # fmt: skip
        await give_answer(call, name, question, entry.payload, DECLINED if entry.status == "cancelled" else "")
    return await continued_run(call, name), last


async def _frames(call: Call[RunAgentInput], run: Run[Any], schema: Schema, after: int) -> AsyncGenerator[bytes, None]:
    encoder = AgUiEncoder(call.services, call.body.thread_id, call.body.run_id)
    try:
        for event in encoder.started(run.id):
            yield ag_ui_frame(event)
        async with aclosing(events_until_blocked(call.services, run, after)) as events:
            async for recorded_event in events:
                if not isinstance(recorded_event, RunStarted | RunFinished):
                    for event in await encoder.events_of(recorded_event):
                        yield ag_ui_frame(event)
        for event in encoder.ended(await call.services.answer(run.id), schema):
            yield ag_ui_frame(event)
    except OrchestraError as error:
        yield ag_ui_frame(error_event(error, error_words(error)))
