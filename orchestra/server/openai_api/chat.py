"""`/v1/chat/completions`: one message in, one message out; as a whole, or sentence by sentence."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal

import msgspec
from starlette.responses import Response

from orchestra.app.run_detail import RunAnswer, UsageTotal
from orchestra.core.errors import OrchestraError
from orchestra.server.endpoints import JSON_TYPE, Call, RouteTable
from orchestra.server.openai_api.errors import error_reply
from orchestra.server.openai_api.messages import Message, read_turn
from orchestra.server.openai_api.models import find_target
from orchestra.server.openai_api.options import (
    NO_ORCHESTRA,
    TEXT_FORMAT,
    OrchestraOptions,
    OutputFormat,
    ignored_fields,
    openai_options,
    reject_unsupported,
    require_format,
)
from orchestra.server.openai_api.output import OrchestraExtension, extension_of, message_text
from orchestra.server.openai_api.running import (
    Conversation,
    StartedRun,
    disconnection,
    start_conversation,
    stated_fields,
    text_until_blocked,
    wait_for_answer,
)
from orchestra.server.streams import EVENT_STREAM, EventStream

ROUTES = RouteTable()
DONE: Final = b"data: [DONE]\n\n"
IGNORED: Final = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_effort",
)
UNSUPPORTED: Final[Mapping[str, Sequence[Any]]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([], ""),
    "audio": (),
    "modalities": (["text"],),
    "web_search_options": (),
}
"""Fields with the values that a run can honour."""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a stream."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request for a completion. Fields that are not listed have no effect."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: OutputFormat | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    tools: Any = None
    functions: Any = None
    tool_choice: Any = None
    n: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    stop: Any = None
    audio: Any = None
    modalities: Any = None
    web_search_options: Any = None
    temperature: Any = None
    top_p: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    seed: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    reasoning_effort: Any = None
    orchestra: OrchestraOptions = NO_ORCHESTRA


class PromptDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Of the tokens of prompts."""

    cached_tokens: int


class CompletionUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of all model calls of the run."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails

    @classmethod
    def of(cls, usage: UsageTotal) -> CompletionUsage:
        """Returns the usage of a run."""
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.output_tokens,
            total_tokens=usage.prompt_tokens + usage.output_tokens,
            prompt_tokens_details=PromptDetails(cached_tokens=usage.cached_tokens),
        )


class ReplyMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The message of a completion."""

    content: str | None
    refusal: str | None
    role: Literal["assistant"] = "assistant"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The only choice of a completion."""

    message: ReplyMessage
    finish_reason: Literal["stop"] = "stop"
    index: int = 0
    logprobs: None = None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion. Its id is that of the run."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: CompletionUsage
    orchestra: OrchestraExtension
    object: Literal["chat.completion"] = "chat.completion"


@ROUTES.route(
    "POST", "/v1/chat/completions", "run", ChatCompletion, body=ChatRequest, media_type=EVENT_STREAM,
    while_draining=False,
)  # fmt: skip
async def create_chat_completion(call: Call[ChatRequest]) -> Response:
    """Run a workflow, an agent or the router for a conversation, as OpenAI's chat completions.

    With `stream`, a sentence is sent when its checks have passed.
    """
    body, fields = call.body, stated_fields(call.body)
    reject_unsupported(fields, UNSUPPORTED)
    target = find_target(call, body.model)
    wanted = body.response_format or TEXT_FORMAT
    conversation = Conversation(
        target,
        [read_turn(message, f"/messages/{index}") for index, message in enumerate(body.messages)],
        body.orchestra,
        openai_options(call, body.orchestra, body.metadata),
        require_format(target, wanted, "/response_format"),
        wanted.type != "text",
        ignored_fields(fields, IGNORED),
    )
    started = await start_conversation(call, conversation)
    headers = {"Location": f"{call.request.scope.get('root_path', '')}/api/runs/{started.run.id}"}
    if body.stream:
        frames = _frames(call, conversation, started)
        return EventStream(call.services, frames, headers, disconnection(started, body.orchestra))
    answer = await wait_for_answer(call, started, cancel=body.orchestra.on_disconnect == "cancel")
    completion = _completion(body.model, conversation, answer, started.ignored)
    return Response(msgspec.json.encode(completion), 200, headers, JSON_TYPE)


def _completion(model: str, conversation: Conversation, answer: RunAnswer, ignored: tuple[str, ...]) -> ChatCompletion:
    text = message_text(answer, conversation.target.output, structured=conversation.structured)
    return ChatCompletion(
        id=answer.id,
        created=int(answer.started),
        model=model,
        choices=(Choice(message=ReplyMessage(content=text.content, refusal=text.refusal)),),
        usage=CompletionUsage.of(answer.usage),
        orchestra=extension_of(answer, ignored),
    )


async def _frames(
    call: Call[ChatRequest], conversation: Conversation, started: StartedRun
) -> AsyncGenerator[bytes, None]:
    """Yields the chunks of a stream: unverified text if it is wanted, verified sentences, and the end."""
    run, body = started.run, call.body
    first = await call.services.started(run.id)
    head = {
        "id": run.id,
        "object": "chat.completion.chunk",
        "created": int(first.at) if first is not None else 0,
        "model": body.model,
    }

    def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return data_frame({**head, "choices": [choice], **more})

    try:
        yield chunk({"role": "assistant", "content": ""})
        async with aclosing(text_until_blocked(call.services, run, unverified=body.orchestra.unverified)) as pieces:
            async for piece in pieces:
                source = {"node": piece.node, "agent": piece.agent, "attempt": piece.attempt, "start": piece.start}
                yield chunk({"reasoning_content": piece.text}, orchestra={"verified": False, **source})
        answer = await call.services.answer(run.id)
        text = message_text(answer, conversation.target.output, structured=conversation.structured)
        for sentence in text.pieces():
            yield chunk({"content": sentence})
        if text.refusal is not None:
            yield chunk({"refusal": text.refusal})
        yield chunk({}, "stop", orchestra=extension_of(answer, started.ignored))
        if body.stream_options is not None and body.stream_options.include_usage:
            yield data_frame({**head, "choices": [], "usage": CompletionUsage.of(answer.usage)})
        yield DONE
    except OrchestraError as error:
        yield data_frame(error_reply(error))


def data_frame(value: Any) -> bytes:
    """Returns an event without a name, as OpenAI's streams have them."""
    return b"data: %s\n\n" % msgspec.json.encode(value)
