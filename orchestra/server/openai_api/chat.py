"""`/v1/chat/completions`: one message in, one message out; as a whole, or sentence by sentence."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, Literal

import msgspec
from starlette.responses import Response

from orchestra.app.run_detail import RunAnswer, UsageTotal
from orchestra.core.errors import OrchestraError
from orchestra.server.endpoints import JSON_TYPE, Call, RouteTable
from orchestra.server.openai_api.errors import error_reply
from orchestra.server.openai_api.messages import Message, read_turn
from orchestra.server.openai_api.options import (
    NO_ORCHESTRA,
    FieldRules,
    OrchestraOptions,
    OutputFormat,
    find_output_target,
    openai_options,
)
from orchestra.server.openai_api.output import OrchestraExtension
from orchestra.server.openai_api.running import (
    Conversation,
    StartedRun,
    location,
    start_conversation,
    stream,
    text_until_blocked,
    wait_for_answer,
)
from orchestra.server.streams import EVENT_STREAM

ROUTES = RouteTable()
DONE: Final = b"data: [DONE]\n\n"
RULES: Final = FieldRules(
    ignored=(
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "seed",
        "max_tokens",
        "max_completion_tokens",
        "reasoning_effort",
    ),
    unsupported={
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
    },
    format_pointer="/response_format",
)


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
    body = call.body
    target = find_output_target(call, body.model, body.response_format, RULES)
    turns = [read_turn(message, f"/messages/{index}") for index, message in enumerate(body.messages)]
    options = openai_options(call, body.orchestra, body.metadata)
    started_run = await start_conversation(call, Conversation(target, turns, body.orchestra, options))
    headers = location(call, started_run, "/api/runs")
    if body.stream:
        return stream(call, started_run, _frames(call, started_run), headers)
    completion = _completion(body.model, started_run, await wait_for_answer(call, started_run))
    return Response(msgspec.json.encode(completion), 200, headers, JSON_TYPE)


def _completion(model: str, started_run: StartedRun, answer: RunAnswer) -> ChatCompletion:
    text = started_run.text(answer)
    return ChatCompletion(
        id=answer.id,
        created=int(answer.started),
        model=model,
        choices=(Choice(message=ReplyMessage(content=text.content, refusal=text.refusal)),),
        usage=CompletionUsage.of(answer.usage),
        orchestra=started_run.extension(answer),
    )


async def _frames(call: Call[ChatRequest], started_run: StartedRun) -> AsyncGenerator[bytes, None]:
    """Yields the chunks of a stream: unverified text if it is wanted, verified sentences, and the end."""
    run, body = started_run.run, call.body
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
        async with aclosing(text_until_blocked(call, started_run)) as pieces:
            async for piece in pieces:
                source = {"node": piece.node, "agent": piece.agent, "attempt": piece.attempt, "start": piece.start}
                yield chunk({"reasoning_content": piece.text}, orchestra={"verified": False, **source})
        answer = await call.services.answer(run.id)
        text = started_run.text(answer)
        for sentence in text.pieces():
            yield chunk({"content": sentence})
        if text.refusal is not None:
            yield chunk({"refusal": text.refusal})
        yield chunk({}, "stop", orchestra=started_run.extension(answer))
        if body.stream_options is not None and body.stream_options.include_usage:
            yield data_frame({**head, "choices": [], "usage": CompletionUsage.of(answer.usage)})
        yield DONE
    except OrchestraError as error:
        yield data_frame(error_reply(error))


def data_frame(value: Any) -> bytes:
    """Returns an event without a name, as OpenAI's streams have them."""
    return b"data: %s\n\n" % msgspec.json.encode(value)
