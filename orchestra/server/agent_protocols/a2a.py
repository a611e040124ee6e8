"""A2A 1.0: the server as an agent. A task is a run, and a context is a tag of runs.

`message.metadata.skill` names the workflow; without it the message is a request that the router plans. Data parts are
inputs. A question to a person makes a task wait for input; the next message with its id is the answer.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
from starlette.responses import Response

from orchestra.app.run import Run
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunFinished
from orchestra.schema.strict_json import storage_error
from orchestra.server.access import require_scope
from orchestra.server.agent_protocols.a2a_errors import (
    CONTENT_NOT_SUPPORTED,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    TASK_NOT_CANCELABLE,
    UNSUPPORTED_OPERATION,
    VERSION_NOT_SUPPORTED,
    RpcError,
    convert_params,
    error_data,
)
from orchestra.server.agent_protocols.a2a_listing import list_tasks
from orchestra.server.agent_protocols.a2a_push import (
    add_config,
    create_config,
    delete_config,
    get_config,
    list_configs,
    read_config,
)
from orchestra.server.agent_protocols.a2a_tasks import agent_message, read_task, require_task, timestamp_text
from orchestra.server.agent_protocols.a2a_types import (
    AgentCard,
    AgentSkill,
    Capabilities,
    Interface,
    Message,
    RpcRequest,
    SendParams,
    TaskParams,
    TaskStatus,
)
from orchestra.server.agent_protocols.ag_ui_events import CONTEXT_TAG
from orchestra.server.agent_protocols.questions import (
    continued_run,
    give_answer,
    open_questions,
    value_of_text,
    wait_until_blocked,
)
from orchestra.server.agent_protocols.skills import ASK, Skill, find_skill, iter_skills, start_skill
from orchestra.server.endpoints import JSON_TYPE, Call, RouteTable
from orchestra.server.openai_api.messages import USER, FileData, Turn, build_inputs
from orchestra.server.openapi import package_version
from orchestra.server.run_following import events_until_blocked
from orchestra.server.streams import EVENT_STREAM, EventStream, outcome_of

ROUTES = RouteTable()
PROTOCOL_VERSION: Final = "1.0"
SKILL_KEY: Final = "skill"
"""The key of a message's metadata that names a workflow."""
_CONTEXT_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_OLD_METHOD: Final = re.compile(r"(message|tasks|agent)/")


# The card


@ROUTES.route("GET", "/.well-known/agent-card.json", None, AgentCard)
async def get_agent_card(call: Call) -> AgentCard:
    """Show the agent card of A2A. Its skills are the workflows; with credentials required, only the extended card lists
    them.
    """
    return agent_card(call, has_all=not call.services.settings.auth)


def agent_card(call: Call[Any, Any], *, has_all: bool) -> AgentCard:
    """Returns the card: with all skills, or only with the router's."""
    needs_key = call.services.settings.auth
    skills = iter_skills(call) if has_all else [find_skill(call, ASK)]
    return AgentCard(
        name="orchestra",
        description="Runs workflows of small language models. Answers have evidence and verdicts, or are withheld.",
        version=package_version(),
        supported_interfaces=(
            Interface(url=f"{call.request.base_url}a2a", protocol_binding="JSONRPC", protocol_version=PROTOCOL_VERSION),
        ),
        capabilities=Capabilities(streaming=True, push_notifications=True, extended_agent_card=needs_key),
        default_input_modes=("text/plain", JSON_TYPE),
        default_output_modes=("text/plain", JSON_TYPE),
        skills=tuple(_agent_skill(skill) for skill in skills),
        security_schemes={"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}} if needs_key else {},
        security_requirements=({"schemes": {"bearer": {"list": []}}},) if needs_key else (),
    )


def _agent_skill(skill: Skill) -> AgentSkill:
    inputs = ", ".join(skill.target.inputs)
    description = f"{skill.description} metadata.{SKILL_KEY}: {skill.name!r}; inputs: {inputs}."
    return AgentSkill(id=skill.name, name=skill.name, description=description, tags=("workflow",))


# The endpoint


@ROUTES.route("POST", "/a2a", "run", media_type=EVENT_STREAM)
async def call_a2a_method(call: Call) -> Response:
    """Call a method of A2A by JSON-RPC: send a message, stream, get, list or cancel a task, be
    notified of it."""
    data, id = await call.request.body(), None
    try:
        value = _parse(call, data)
        if (
            isinstance(value, dict)
            and isinstance(request_id := value.get("id"), str | int)
            and not isinstance(request_id, bool)
        ):
            id = request_id
        request = convert_params(value, RpcRequest, INVALID_REQUEST)
        _require_version(call, request.method)
        if (stream := _STREAMS.get(request.method)) is not None:
            return await stream(call, request)
        if (method := _METHODS.get(request.method)) is None:
            raise RpcError(METHOD_NOT_FOUND, "S004", f"there is no method {request.method[:100]!r}", hint="SendMessage")
        return _json_reply({"jsonrpc": "2.0", "id": id, "result": await method(call, request)})
    except OrchestraError as error:
        return _json_reply({"jsonrpc": "2.0", "id": id, "error": error_data(error)})


def _json_reply(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type=JSON_TYPE)


def _parse(call: Call[Any, Any], data: bytes) -> Any:
    """Returns the JSON of a body. Raises `RpcError`."""
    content_type = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON_TYPE:
        raise RpcError(INVALID_REQUEST, "S001", f"the body is {content_type[:100] or 'of no stated type'}",
                       hint="Content-Type: application/json")  # fmt: skip
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, "S002", f"the body is not JSON: {error}", hint="send an object") from error
    if reason := storage_error(value):
        raise RpcError(INVALID_REQUEST, "S002", f"the body cannot be stored: {reason}", hint="send plain JSON values")
    return value


def _require_version(call: Call[Any, Any], method: str) -> None:
    version = call.request.headers.get("a2a-version", "") or PROTOCOL_VERSION
    if _OLD_METHOD.match(method) or version.split(".")[0] != PROTOCOL_VERSION.split(".")[0]:
        raise RpcError(VERSION_NOT_SUPPORTED, "S035", "the request is of another version of A2A than 1.0",
                       hint="A2A-Version: 1.0, and the method SendMessage")  # fmt: skip


# Methods


async def _send(call: Call[Any, Any], request: RpcRequest) -> Any:
    params = convert_params(request.params, SendParams)
    run = await _begin(call, params)
    if not params.configuration.return_immediately:
        await wait_until_blocked(call, run)
    return {"task": await read_task(call.services, run.id)}


async def _send_streaming(call: Call[Any, Any], request: RpcRequest) -> Response:
    run = await _begin(call, convert_params(request.params, SendParams))
    return _stream(call, request, run)


async def _subscribe(call: Call[Any, Any], request: RpcRequest) -> Response:
    name = convert_params(request.params, TaskParams).id
    await require_task(call, name)
    answer = await call.services.answer(name)
    if answer.finished is not None:
        raise RpcError(UNSUPPORTED_OPERATION, "S036", f"task {name} has ended", hint="GetTask")
    return _stream(call, request, await continued_run(call, name))


async def _get(call: Call[Any, Any], request: RpcRequest) -> Any:
    name = convert_params(request.params, TaskParams).id
    await require_task(call, name)
    return await read_task(call.services, name)


async def _cancel(call: Call[Any, Any], request: RpcRequest) -> Any:
    name = convert_params(request.params, TaskParams).id
    await require_task(call, name)
    if (await call.services.answer(name)).finished is not None:
        raise RpcError(TASK_NOT_CANCELABLE, "S036", f"task {name} has ended", hint="GetTask")
    await call.orchestra.cancel(name, by=call.principal.subject)
    return await read_task(call.services, name)


async def _extended_card(call: Call[Any, Any], request: RpcRequest) -> Any:
    return agent_card(call, has_all=True)


_METHODS: Final[Mapping[str, Callable[[Call[Any, Any], RpcRequest], Awaitable[Any]]]] = {
    "SendMessage": _send,
    "GetTask": _get,
    "ListTasks": list_tasks,
    "CancelTask": _cancel,
    "GetExtendedAgentCard": _extended_card,
    "CreateTaskPushNotificationConfig": create_config,
    "GetTaskPushNotificationConfig": get_config,
    "ListTaskPushNotificationConfigs": list_configs,
    "DeleteTaskPushNotificationConfig": delete_config,
}
_STREAMS: Final[Mapping[str, Callable[[Call[Any, Any], RpcRequest], Awaitable[Response]]]] = {
    "SendStreamingMessage": _send_streaming,
    "SubscribeToTask": _subscribe,
}


# Messages


async def _begin(call: Call[Any, Any], params: SendParams) -> Run[Any]:
    """Starts the run that a message asks for, or answers the question of its task; returns the run, which goes on.

    Raises:
        RpcError: For a message that cannot be used.
        RequestError: S012 for push notifications to an address to which none may go; and as `start_skill` does.
    """
    message, push_config = params.message, params.configuration.task_push_notification_config
    if not message.parts:
        raise RpcError(INVALID_PARAMS, "S002", "the message has no parts", hint='"parts": [{"text": "..."}]')
    config = None if push_config is None else read_config(call, push_config)
    if message.task_id:
        start_event = await require_task(call, message.task_id)
        if message.context_id not in ("", start_event.tags.get(CONTEXT_TAG, "")):
            raise RpcError(INVALID_PARAMS, "S002", "the task is of another context", hint="leave contextId out")
        after = (await call.services.answer(message.task_id)).last_seq
        run = await _answer(call, message)
    else:
        after, run = 0, await _start(call, message)
    if config is not None:
        await add_config(call, run.id, msgspec.structs.replace(config, after=after))
    return run


async def _start(call: Call[Any, Any], message: Message) -> Run[Any]:
    name = message.metadata.get(SKILL_KEY, ASK)
    skill = find_skill(call, name if isinstance(name, str) else "", f"/message/metadata/{SKILL_KEY}")
    context = message.context_id or str(uuid.uuid4())
    if not _CONTEXT_ID.fullmatch(context):
        raise RpcError(INVALID_PARAMS, "S002", "contextId is not a name", hint="letters, digits and _ . : -")
    inputs = await _inputs(call, skill, message)
    return await start_skill(call, skill, inputs, {CONTEXT_TAG: context})


async def _inputs(call: Call[Any, Any], skill: Skill, message: Message) -> dict[str, Any]:
    """Returns the inputs that a message states: data parts as they are, texts and files as a chat message states them.

    Raises:
        RpcError: For a part that cannot be read.
        RequestError: S031 if the parts do not fit the inputs.
    """
    inputs, texts, files = dict[str, Any](), list[str](), list[FileData]()
    for index, part in enumerate(message.parts):
        if part.text is not None:
            texts.append(part.text)
        elif isinstance(part.data, dict):
            inputs |= part.data
        elif part.raw is not None:
            files.append(FileData(file_data=part.raw, filename=part.filename or None))
        else:
            raise RpcError(CONTENT_NOT_SUPPORTED, "S031", "the part is no text, no object and no file",
                           hint="send text, data or raw; addresses are not fetched",
                           pointer=f"/message/parts/{index}")  # fmt: skip
    if not texts and not files:
        return inputs
    turn = Turn(USER, tuple(texts), tuple(files), "/message/parts")
    return (await build_inputs(call, skill.target, [turn], inputs)).values


async def _answer(call: Call[Any, Any], message: Message) -> Run[Any]:
    """Answers the open question of a task with a message; returns its run, which goes on."""
    require_scope(call.principal, "answer")
    name, part = message.task_id, message.parts[0]
    questions = await open_questions(call, name)
    if not questions:
        raise RpcError(UNSUPPORTED_OPERATION, "S036", f"task {name} asks nothing", hint="start another task")
    if part.text is None and part.data is None:
        raise RpcError(CONTENT_NOT_SUPPORTED, "S031", "the answer is no text and no data", hint="send a text")
    value = value_of_text(questions[0], part.text) if part.text is not None else part.data
    await give_answer(call, name, questions[0], value)
    return await continued_run(call, name)


def _stream(call: Call[Any, Any], request: RpcRequest, run: Run[Any]) -> Response:
    """Returns the stream of a task. It goes on if the client disconnects, and `SubscribeToTask` continues it."""
    return EventStream(call.services, _frames(call, request, run), watches_stop=True)


async def _frames(call: Call[Any, Any], request: RpcRequest, run: Run[Any]) -> AsyncGenerator[bytes, None]:
    """Yields the task, its progress, its result, and its status at the end."""
    try:
        task = await read_task(call.services, run.id)
        context = task.context_id
        yield _frame(request, {"task": msgspec.structs.replace(task, artifacts=())})

        def update(status: TaskStatus) -> bytes:
            return _frame(request, {"statusUpdate": {"taskId": run.id, "contextId": context, "status": status}})

        async with aclosing(events_until_blocked(call.services, run)) as events:
            async for event in events:
                if (outcome := outcome_of(event)) is not None:
                    words = f"{outcome[0]}: {outcome[1].__struct_config__.tag}"
                    message = agent_message(run.id, context, words)
                    yield update(
                        TaskStatus(state="TASK_STATE_WORKING", message=message, timestamp=timestamp_text(event.at))
                    )
                elif isinstance(event, RunFinished):
                    break
        task = await read_task(call.services, run.id)
        for artifact in task.artifacts:
            payload = {"taskId": run.id, "contextId": context, "artifact": artifact, "lastChunk": True}
            yield _frame(request, {"artifactUpdate": payload})
        yield update(task.status)
    except OrchestraError as error:
        yield b"data: %s\n\n" % msgspec.json.encode({"jsonrpc": "2.0", "id": request.id, "error": error_data(error)})


def _frame(request: RpcRequest, result: Any) -> bytes:
    return b"data: %s\n\n" % msgspec.json.encode({"jsonrpc": "2.0", "id": request.id, "result": result})
