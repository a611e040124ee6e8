"""`/v1/responses`: runs as responses. The id of a response is that of its run, so that it can be read later."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, Literal

import msgspec
from starlette.responses import Response

from orchestra.app.run_detail import RunAnswer, UsageTotal
from orchestra.core.errors import OrchestraError
from orchestra.server.endpoints import JSON_TYPE, Call, NoBody, RouteTable
from orchestra.server.openai_api.errors import error_reply, unsupported
from orchestra.server.openai_api.messages import USER, ContentPart, Message, Turn, read_turn
from orchestra.server.openai_api.models import ANY_VALUE, find_target
from orchestra.server.openai_api.options import (
    NO_ORCHESTRA,
    FieldRules,
    OrchestraOptions,
    OutputFormat,
    find_output_target,
    openai_options,
)
from orchestra.server.openai_api.output import OrchestraExtension, extension_of, message_text
from orchestra.server.openai_api.running import (
    Conversation,
    StartedRun,
    location,
    start_conversation,
    stream,
    text_until_blocked,
    wait_for_answer,
)
from orchestra.server.principals import public_tags
from orchestra.server.runs import author, require_run
from orchestra.server.streams import EVENT_STREAM, frame

ROUTES = RouteTable()
RULES: Final = FieldRules(
    ignored=("temperature", "top_p", "max_output_tokens", "reasoning", "truncation", "user", "service_tier"),
    unsupported={
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "include": ([],),
        "prompt": (),
        "conversation": (),
        "top_logprobs": (0,),
    },
    format_pointer="/text/format",
)
MODEL_TAG, STRUCTURED_TAG = "openai.model", "openai.structured"
"""Tags with which a response can be made from its run again."""


class InputItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the input."""

    type: str = "message"
    role: str = USER
    content: str | list[ContentPart] | None = None


class TextSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The wanted form of the text."""

    format: OutputFormat | None = None


class ResponseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request for a response. Fields that are not listed have no effect."""

    model: str
    input: str | list[InputItem]
    instructions: str | None = None
    text: TextSettings | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: dict[str, Any] | None = None
    tools: Any = None
    tool_choice: Any = None
    include: Any = None
    prompt: Any = None
    conversation: Any = None
    top_logprobs: Any = None
    temperature: Any = None
    top_p: Any = None
    max_output_tokens: Any = None
    reasoning: Any = None
    truncation: Any = None
    user: Any = None
    service_tier: Any = None
    orchestra: OrchestraOptions = NO_ORCHESTRA


class InputDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Of the tokens of prompts."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Of the tokens of answers; those of reasoning are not counted separately."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of all model calls of the run."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: UsageTotal) -> ResponseUsage:
        """Returns the usage of a run."""
        return cls(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens),
            output_tokens=usage.output_tokens,
            output_tokens_details=OutputDetails(),
            total_tokens=usage.prompt_tokens + usage.output_tokens,
        )


class ResponseFault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a response has no output."""

    code: str
    message: str


class ResponseObject(msgspec.Struct, frozen=True, kw_only=True):
    """A response. `failed` and `cancelled` runs are responses too, with an error."""

    id: str
    created_at: float
    model: str
    status: Literal["completed", "failed", "in_progress", "cancelled"]
    output: tuple[dict[str, Any], ...]
    error: ResponseFault | None
    usage: ResponseUsage | None
    orchestra: OrchestraExtension
    metadata: dict[str, str]
    previous_response_id: str | None = None
    instructions: None = None
    incomplete_details: None = None
    parallel_tool_calls: bool = False
    tool_choice: Literal["none"] = "none"
    tools: tuple[Any, ...] = ()
    temperature: None = None
    top_p: None = None
    object: Literal["response"] = "response"


@ROUTES.route(
    "POST", "/v1/responses", "run", ResponseObject, body=ResponseRequest, media_type=EVENT_STREAM, while_draining=False
)
async def create_response(call: Call[ResponseRequest]) -> Response:
    """Run a workflow, an agent or the router for an input, as OpenAI's responses.

    With `background` the reply comes at once, and the response is read later. `previous_response_id` names a response
    that waits for a person: the input is the answer. After any other response, its messages are earlier turns.
    """
    body = call.body
    target = find_output_target(call, body.model, body.text.format if body.text is not None else None, RULES)
    previous_options, earlier = await _previous(call)
    options = openai_options(call, previous_options, body.metadata, keep=body.store is not False)
    tags = {**(options.tags or {}), MODEL_TAG: body.model, STRUCTURED_TAG: str(target.structured).lower()}
    conversation = Conversation(target, [*earlier, *_turns(body)], previous_options, options.replace(tags=tags))
    started_run = await start_conversation(call, conversation)
    headers = location(call, started_run, "/v1/responses")
    if body.stream:
        return stream(call, started_run, _frames(call, started_run), headers)
    if body.background:
        answer = await call.services.answer(started_run.run.id)
    else:
        answer = await wait_for_answer(call, started_run)
    response = msgspec.structs.replace(
        _response_of(body.model, started_run, answer), previous_response_id=body.previous_response_id
    )
    return Response(msgspec.json.encode(response), 200, headers, JSON_TYPE)


@ROUTES.route("GET", "/v1/responses/{run}", "read", ResponseObject)
async def get_response(call: Call) -> ResponseObject:
    """Show a response: the id is that of its run, also of a run of another API."""
    return await _stored(call)


@ROUTES.route("POST", "/v1/responses/{run}/cancel", "run", ResponseObject, body=NoBody)
async def cancel_response(call: Call) -> ResponseObject:
    """Cancel a response that is made in the background."""
    await require_run(call, call.path["run"])
    await call.orchestra.cancel(call.path["run"], by=author(call, ""))
    return await _stored(call)


async def _stored(call: Call[Any, Any]) -> ResponseObject:
    start_event = await require_run(call, call.path["run"])
    answer = await call.services.answer(start_event.run)
    model = start_event.tags.get(MODEL_TAG, start_event.workflow)
    try:
        schema = find_target(call, model).output
    except OrchestraError:  # The workflow was renamed or deleted since.
        schema = ANY_VALUE
    return _response(model, answer, start_event.tags.get(STRUCTURED_TAG) == "true", schema, ())


async def _previous(call: Call[ResponseRequest]) -> tuple[OrchestraOptions, list[Turn]]:
    """Returns the options, and the turns of the previous response. Raises `RequestError` S009 for an unknown one."""
    body = call.body
    if not (name := body.previous_response_id):
        return body.orchestra, []
    start_event = await require_run(call, name)
    answer = await call.services.answer(start_event.run)
    if answer.status == "waiting":
        return msgspec.structs.replace(body.orchestra, answer_to=start_event.run), []
    texts = [value for value in start_event.inputs.values() if isinstance(value, str)]
    content = message_text(answer, ANY_VALUE, structured=False).content or "" if answer.status == "done" else ""
    pointer = "/previous_response_id"
    return body.orchestra, [Turn(USER, tuple(texts), (), pointer), Turn("assistant", (content,), (), pointer)]


def _turns(body: ResponseRequest) -> list[Turn]:
    turns = [Turn("system", (body.instructions,), (), "/instructions")] if body.instructions else []
    if isinstance(body.input, str):
        return [*turns, Turn(USER, (body.input,), (), "/input")]
    for index, item in enumerate(body.input):
        pointer = f"/input/{index}"
        if item.type != "message":
            raise unsupported(f"items of the type {item.type[:50]!r} are not supported", pointer, "send messages")
        turns.append(read_turn(Message(role=item.role, content=item.content), pointer))
    return turns


def _response_of(model: str, started_run: StartedRun, answer: RunAnswer) -> ResponseObject:
    """Returns the response for the run of a request."""
    structured = started_run.conversation.target.structured
    return _response(model, answer, structured, started_run.output_schema, started_run.ignored)


def _response(model: str, answer: RunAnswer, structured: bool, schema: Any, ignored: tuple[str, ...]) -> ResponseObject:
    status: Literal["completed", "failed", "in_progress", "cancelled"] = "completed"
    output: tuple[dict[str, Any], ...] = ()
    error = None
    match answer.status:
        case "done" | "abstained" | "waiting":
            output = (_message_item(answer.id, _content_parts(answer, structured, schema), "completed"),)
        case "running" | "interrupted":
            status = "in_progress"
        case _:
            status = "cancelled" if answer.status == "cancelled" else "failed"
            fault = answer.error
            error = ResponseFault(
                code=fault.code if fault is not None else "S033",
                message=fault.message if fault is not None else f"the run is {answer.status}",
            )
    return ResponseObject(
        id=answer.id,
        created_at=answer.started,
        model=model,
        status=status,
        output=output,
        error=error,
        usage=None if status == "in_progress" else ResponseUsage.of(answer.usage),
        orchestra=extension_of(answer, ignored),
        metadata={name: value for name, value in public_tags(answer.tags).items() if not name.startswith("openai.")},
    )


def _content_parts(answer: RunAnswer, structured: bool, schema: Any) -> list[dict[str, Any]]:
    text = message_text(answer, schema, structured=structured)
    parts: list[dict[str, Any]] = []
    if text.content is not None:
        parts.append(_text_part(text.content))
    if text.refusal is not None and text.content is None:
        parts.append({"type": "refusal", "refusal": text.refusal})
    return parts


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message_item(run: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {"id": f"msg_{run}", "type": "message", "role": "assistant", "status": status, "content": content}


async def _frames(call: Call[ResponseRequest], started_run: StartedRun) -> AsyncGenerator[bytes, None]:
    """Yields the events of a stream: unverified text if it is wanted, verified sentences, and the response."""
    number, run, body = -1, started_run.run.id, call.body

    def event(type: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return frame(type, msgspec.json.encode({"type": type, "sequence_number": number, **fields}))

    try:
        response = _response_of(body.model, started_run, await call.services.answer(run))
        response = msgspec.structs.replace(response, status="in_progress", output=(), usage=None)
        yield event("response.created", response=response)
        yield event("response.in_progress", response=response)
        async with aclosing(text_until_blocked(call, started_run)) as pieces:
            async for piece in pieces:
                yield event("orchestra.unverified_text", node=piece.node, agent=piece.agent, text=piece.text)
        answer = await call.services.answer(run)
        final = _response_of(body.model, started_run, answer)
        item = f"msg_{run}"
        place = {"item_id": item, "output_index": 0, "content_index": 0}
        if final.output:
            yield event("response.output_item.added", output_index=0, item=_message_item(run, [], "in_progress"))
            (part,) = final.output[0]["content"]
            if part["type"] == "output_text":
                yield event("response.content_part.added", **place, part=_text_part(""))
                for sentence in started_run.text(answer).pieces():
                    yield event("response.output_text.delta", **place, delta=sentence, logprobs=[])
                yield event("response.output_text.done", **place, text=part["text"], logprobs=[])
            else:
                yield event("response.content_part.added", **place, part={"type": "refusal", "refusal": ""})
                yield event("response.refusal.delta", **place, delta=part["refusal"])
                yield event("response.refusal.done", **place, refusal=part["refusal"])
            yield event("response.content_part.done", **place, part=part)
            yield event("response.output_item.done", output_index=0, item=final.output[0])
        event_type = "response.completed" if final.status == "completed" else "response.failed"
        yield event(event_type, response=final)
    except OrchestraError as error:
        body_of = error_reply(error).error
        yield event("error", code=body_of.code, message=body_of.message, param=body_of.param)
