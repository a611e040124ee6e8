"""OpenAI's API in the dialects of vLLM, Ollama, llama.cpp and providers: encodes requests, parses responses. Pure
functions.

Responses are parsed strictly. A response that violates the API becomes a `RequestError`, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from orchestra.agents.native_tools import ToolCall
from orchestra.core.events import Usage
from orchestra.fleet.config import Dialect
from orchestra.fleet.request_errors import RequestError
from orchestra.schema.strict_json import MAX_BYTES

COMMON_SAMPLING = frozenset(
    {"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "stop"}
)
"""Sampling parameters that all servers support."""
EXTENDED_SAMPLING = COMMON_SAMPLING | {
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "prompt_logprobs",
    "skip_special_tokens",
}
"""Sampling parameters of vLLM, Ollama and llama.cpp."""
TENANT_ARGUMENT = "orchestra_tenant"
"""The tenant of a request for `orchestra.fleet.vllm_cpu.speculation`, because a worker does not get `cache_salt`. Other
versions of vLLM ignore it.
"""
MAX_LINE_BYTES = MAX_BYTES
"""Size limit of a line of a stream."""
DONE_LINGER = 0.25
"""Seconds in which a body may end after `[DONE]`, so that the connection can be reused."""
FINISH_LINGER = 3.0
"""Seconds in which usage or `[DONE]` may follow after the model's end. Some servers send neither."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""A byte order mark, which some servers and proxies send first."""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request, independent of the server's dialect."""

    messages: Sequence[Mapping[str, str]]
    max_output: int
    sampling: Mapping[str, Any] = {}
    stop: Sequence[str] = ()
    constraint: Mapping[str, Any] | None = None
    """The value of vLLM's `structured_outputs`: exactly one of json, regex, choice, grammar, structural_tag."""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the output, for servers with `response_format` only."""
    tools: Sequence[Mapping[str, Any]] = ()
    """The functions that the model may call, in OpenAI's form."""
    priority: int | None = None
    cache_salt: str = ""
    stream: bool = False
    logprobs: bool = False
    """Whether to return the log-probability of each output token (vLLM only: some providers' models refuse it)."""
    continue_last: bool = False
    """Whether to continue the last message, which is the assistant's (vLLM only)."""


class Token(msgspec.Struct, frozen=True):
    """An output token, its natural log-probability, and its alternatives."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Completion(msgspec.Struct, frozen=True):
    """The text of a model, and the exact bytes of the exchange."""

    text: str
    finish_reason: str
    """`stop`, `length` (cut off), or another word of the server."""
    model: str
    usage: Usage
    usage_is_exact: bool = True
    """Whether the server counted the tokens; else `usage` is an upper bound: no token is shorter than a byte."""
    tokens: tuple[Token, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    """Native calls of functions. The text beside them may be empty."""
    sent: bytes = b""
    received: bytes = b""
    adapter: str = ""
    """The adapter under whose name the request was sent; empty if it went to the server's own model."""


def chat_body(chat: ChatRequest, model: str, dialect: Dialect, max_field: str = "max_tokens") -> bytes:
    """Returns the body of a chat request in a server's dialect. `priority`, `cache_salt` and `structured_outputs` are
    for vLLM only.
    """
    common_sampling = COMMON_SAMPLING if dialect == "openai" else EXTENDED_SAMPLING
    body: dict[str, Any] = {"model": model, "messages": list(chat.messages), max_field: chat.max_output}
    body |= {key: value for key, value in chat.sampling.items() if key in common_sampling}
    if chat.stop:
        body["stop"] = list(chat.stop)
    if chat.tools:
        body["tools"] = list(chat.tools)
    if chat.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if dialect == "vllm":
        if chat.constraint is not None:
            body["structured_outputs"] = dict(chat.constraint)
        if chat.priority is not None:
            body["priority"] = chat.priority
        if chat.cache_salt:
            body["cache_salt"] = chat.cache_salt
            body["vllm_xargs"] = {TENANT_ARGUMENT: chat.cache_salt}
        if chat.logprobs:
            body.setdefault("logprobs", True)
        if chat.continue_last:
            body |= {"add_generation_prompt": False, "continue_final_message": True}
    elif chat.schema is not None:
        json_schema = {"name": "output", "schema": dict(chat.schema), "strict": _is_strict_schema(chat.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    return _encode(body)


def _is_strict_schema(schema: Any) -> bool:
    """Whether OpenAI's `strict` accepts a schema: every object is closed, every property is required."""
    if isinstance(schema, Mapping):
        if "properties" in schema and (
            schema.get("additionalProperties") is not False
            or set(schema.get("required", ())) != set(schema["properties"])
        ):
            return False
        return all(_is_strict_schema(value) for value in schema.values())
    return not isinstance(schema, list) or all(_is_strict_schema(value) for value in schema)


class ListedModel(msgspec.Struct, frozen=True):
    """A model that a server lists."""

    id: str
    owned_by: str = ""
    """The organisation; vLLM and llama.cpp write the name of their software."""
    parent: str | None = None
    """The base model of an adapter (vLLM only)."""


class _ModelList(msgspec.Struct):
    data: list[ListedModel] | None = None


def read_models(body: bytes) -> tuple[ListedModel, ...] | RequestError:
    """Parses a response of `/v1/models`."""
    try:
        model_list = msgspec.json.decode(body.removeprefix(BYTE_ORDER_MARK), type=_ModelList)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _invalid_response(f"the list of models: {str(error)[:200]}")
    return tuple(model_list.data or ())


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _TopLogprob(msgspec.Struct):
    token: str
    logprob: float


class _Logprob(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_TopLogprob] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class _UsageOnly(msgspec.Struct):
    """The usage of a response that otherwise violates the API."""

    usage: _Usage | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None
    """JSON as text. Some servers send the object itself."""


class _ToolCall(msgspec.Struct):
    """A call, or in a stream a part of one."""

    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Response(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Response).decode


def read_completion(sent: bytes, received: bytes, model: str, dialect: Dialect) -> Completion | RequestError:
    """Parses a response of `/v1/chat/completions` without streaming. The error of an unusable response includes its
    usage.
    """
    completion = _parse_completion(sent, received, model, dialect)
    return replace(completion, usage=_reported_usage(received)) if isinstance(completion, RequestError) else completion


def _parse_completion(
    request_body: bytes, response_body: bytes, model: str, dialect: Dialect
) -> Completion | RequestError:
    response = _parse_response(response_body)
    if isinstance(response, RequestError):
        return response
    if not response.choices:
        return _invalid_response("it has no choices")
    choice = response.choices[0]
    text = choice.message.content if choice.message else choice.text
    calls = _CallParts()
    calls.add((choice.message.tool_calls if choice.message else None) or ())
    tool_calls = calls.join()
    if text is None and not tool_calls:
        return _invalid_response("it has no text")
    draft = _CompletionDraft(text or "", choice, response, tool_calls=tool_calls)
    return _build_completion(draft, request_body, response_body, model, dialect)


class _CompletionDraft(msgspec.Struct):
    text: str
    choice: _Choice
    response: _Response
    logprobs: list[_Logprob] | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def written(self) -> str:
        """Everything that the model wrote: the text, then the calls."""
        return "".join([self.text, *(part for call in self.tool_calls for part in (call.name, call.arguments))])


class _CallParts:
    """The calls of a response, assembled from the parts of a stream."""

    def __init__(self) -> None:
        self._calls: list[_PartialCall] = []
        self._by_index: dict[int, _PartialCall] = {}

    def add(self, deltas: Iterable[_ToolCall]) -> int:
        """Adds the next parts. Returns their characters.

        A part without `index` is a whole call. Some servers give every call the index 0: there another identifier with
        another name begins another call. Some give every part an identifier of its own, without a name.
        """
        size = 0
        for delta in deltas:
            function = delta.function or _Function()
            call = None if delta.index is None else self._by_index.get(delta.index)
            if call is None or (delta.id and function.name and call.id != delta.id):
                call = _PartialCall(delta.id or "")
                self._calls.append(call)
                if delta.index is not None:
                    self._by_index[delta.index] = call
            text = function.arguments or ""
            text = text if isinstance(text, str) else _encode(text).decode()
            call.name = call.name or function.name or ""
            call.arguments.append(text)
            size += len(text) + len(function.name or "")
        return size

    def join(self) -> tuple[ToolCall, ...]:
        """Returns the calls."""
        return tuple([ToolCall(call.name, "".join(call.arguments)) for call in self._calls])


class _PartialCall(msgspec.Struct):
    id: str
    name: str = ""
    arguments: list[str] = []


def _build_completion(
    draft: _CompletionDraft, request_body: bytes, response_body: bytes, model: str, dialect: Dialect
) -> Completion | RequestError:
    response_model = draft.response.model or ""
    if not _same_model(model, response_model, dialect):
        reason = f"{response_model[:100]!r} answered instead of {model!r}"
        return RequestError("F211", reason, "orchestra fleet status   # which adapters are loaded, and where")
    finish = draft.choice.finish_reason or "stop"
    if finish in ("abort", "error"):
        return RequestError("F206", f"the server ended the response ({finish})", "orchestra fleet logs")
    if finish == "content_filter":
        return RequestError(
            "F206", "a filter of the server cut the response off", "use a server without this filter", retryable=False
        )
    output_text = draft.written
    if len(output_text) > MAX_BYTES:
        return RequestError("F210", f"the text has more than {MAX_BYTES} characters", "lower `max_output`")
    logprobs = draft.logprobs or (draft.choice.logprobs.content if draft.choice.logprobs else None) or []
    usage, is_counted = _to_usage(draft.response.usage, request_body, output_text)
    tokens = tuple([_to_token(entry) for entry in logprobs])
    return Completion(
        draft.text,
        finish,
        response_model or model,
        usage,
        is_counted,
        tokens,
        draft.tool_calls,
        request_body,
        response_body,
    )


def _to_token(entry: _Logprob) -> Token:
    return Token(entry.token, entry.logprob, tuple((top.token, top.logprob) for top in entry.top_logprobs or ()))


def _to_usage(usage: _Usage | None, request_body: bytes, text: str) -> tuple[Usage, bool]:
    """Returns the reported usage, or upper bounds if it is missing or negative."""
    prompt, output = (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)
    if usage is None or prompt is None or output is None or prompt < 0 or output < 0:
        max_tokens, output = len(request_body), len(text.encode("utf-8", "surrogatepass"))
        return Usage(
            prompt_tokens=max_tokens, output_tokens=output, calls=1, estimated_tokens=max_tokens + output
        ), False
    details = usage.prompt_tokens_details
    cached_tokens = min(max(0, (details.cached_tokens if details else 0) or 0), prompt)
    return Usage(prompt_tokens=prompt, cached_tokens=cached_tokens, output_tokens=output, calls=1), True


def _reported_usage(response_body: bytes) -> Usage | None:
    """Returns the reported usage of a response, also of an invalid one; None if there is none."""
    try:
        usage = msgspec.json.decode(response_body.removeprefix(BYTE_ORDER_MARK), type=_UsageOnly).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return _exact_usage(usage)


def _exact_usage(raw_usage: _Usage | None) -> Usage | None:
    usage, is_counted = _to_usage(raw_usage, b"", "")
    return usage if is_counted else None


def _same_model(requested_model: str, response_model: str, dialect: Dialect) -> bool:
    """Whether the answering model is the requested one.

    vLLM repeats the name. Providers answer with a dated name that begins with it. llama.cpp answers with the loaded
    model.
    """
    match dialect:
        case "vllm":
            return response_model == requested_model
        case "openai" | "ollama":
            return (
                not response_model
                or response_model.startswith(requested_model.removesuffix(":latest"))
                or response_model.endswith(requested_model)
            )
        case "llamacpp":
            return True


def _parse_response(response_body: bytes) -> _Response | RequestError:
    response_body = response_body.removeprefix(BYTE_ORDER_MARK)
    if response_body[:1] != b"{":
        begin = response_body.lstrip()[:1]
        if not begin:
            return _invalid_response("it is empty")
        if begin == b"<":
            return _invalid_response("it is HTML, so this may not be a model server")
    try:
        response = _decode(response_body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _invalid_response(str(error)[:200])
    if response.error is not None:
        return RequestError("F208", f"the server failed: {str(response.error)[:200]}", "orchestra fleet logs")
    return response


def _invalid_response(reason: str) -> RequestError:
    return RequestError(
        "F209",
        f"the response violates the API: {reason}",
        "check `endpoint:` and `dialect:` of the fleet file",
    )


class ChatStream:
    """Parses a streamed chat response (server-sent events) incrementally. Parts may end anywhere, also inside a
    character.
    """

    def __init__(self, model: str, dialect: Dialect, on_text: Callable[[str], None]) -> None:
        self._model, self._dialect, self._on_text = model, dialect, on_text
        self._buffer = b""
        self._texts: list[str] = []
        self._size = 0
        self._last = _Response()
        self._finish: str | None = None
        self._usage: _Usage | None = None
        self._logprobs: list[_Logprob] = []
        self._calls = _CallParts()
        self._started = self._is_single = self._progressed = False
        self.done = False

    def feed(self, block: bytes) -> RequestError | None:
        """Parses the next bytes. Returns an error if they violate the API."""
        if self.done:
            return None
        if not self._started:
            block, self._buffer = (self._buffer + block).removeprefix(BYTE_ORDER_MARK), b""
            if not block.strip() or BYTE_ORDER_MARK.startswith(block):
                self._buffer = block.strip()
                return None
            self._started, self._is_single = True, block.lstrip()[:1] == b"{"
        if self._is_single:
            return None  # not a stream but a single response, which `result` parses
        *lines, self._buffer = (self._buffer + block).split(b"\n")
        if len(self._buffer) > MAX_LINE_BYTES or any(len(line) > MAX_LINE_BYTES for line in lines):
            return RequestError(
                "F210",
                f"a line of the stream has more than {MAX_LINE_BYTES} bytes",
                "check `endpoint:` of the fleet file",
            )
        for line in lines:
            if (fault := self._feed_line(line.strip(b"\r "))) is not None:
                return fault
        return None

    def _feed_line(self, line: bytes) -> RequestError | None:
        if self.done or not line or not line.startswith(b"data:"):
            if line and not self.done and line[:1] in b"<{":
                return _invalid_response("it is not an event stream")
            return None  # comments and other fields of the event-stream format
        data = line[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return None
        response = _parse_response(data)
        if isinstance(response, RequestError):
            return response
        self._progressed = True
        self._usage = response.usage or self._usage
        self._last.model = response.model or self._last.model
        for choice in (response.choices or ())[:1]:
            self._finish = choice.finish_reason or self._finish
            self._logprobs += (choice.logprobs.content or []) if choice.logprobs else []
            text = (choice.delta.content if choice.delta else choice.text) or ""
            self._size += len(text) + self._calls.add((choice.delta.tool_calls if choice.delta else None) or ())
            if self._size > MAX_BYTES:
                return RequestError("F210", f"the text has more than {MAX_BYTES} characters", "lower `max_output`")
            if text:
                self._texts.append(text)
                self._on_text(text)
        return None

    def linger_seconds(self) -> float | None:
        """Returns the seconds after which nothing more is awaited; None if the response is incomplete, or there is no
        new end.
        """
        if self.done:
            return DONE_LINGER
        has_progressed, self._progressed = self._progressed, False
        return FINISH_LINGER if has_progressed and self._finish is not None else None

    def with_usage(self, fault: RequestError) -> RequestError:
        """Returns the error of this stream, with the usage that was reported so far."""
        usage = _exact_usage(self._usage)
        return fault if usage is None else replace(fault, usage=usage)

    def result(self, sent: bytes, received: bytes) -> Completion | RequestError:
        """Returns the complete text after the end of the stream.

        A text is complete if the model reported its end; `[DONE]` alone is also sent by a broken stream. A server
        without streaming, or one that failed before its stream began, sends a single response.
        """
        if self._is_single:
            completion = read_completion(sent, received, self._model, self._dialect)
            if isinstance(completion, Completion) and completion.text:
                self._on_text(completion.text)
            return completion
        completion = self._build_result(sent, received)
        return self.with_usage(completion) if isinstance(completion, RequestError) else completion

    def _build_result(self, request_body: bytes, response_body: bytes) -> Completion | RequestError:
        if self._buffer.strip() and not self.done and (fault := self._feed_line(self._buffer.strip())) is not None:
            if fault.code == "F208":
                return fault
            if self._finish is None:  # else only the usage is missing
                return RequestError("F217", "the stream ended in the middle of a line", "orchestra fleet logs")
        if self._finish is None:
            empty = "it is empty" if not response_body.strip() else ""
            return (
                _invalid_response(empty)
                if empty
                else RequestError("F217", "the stream ended before the response was complete", "orchestra fleet logs")
            )
        self._last.usage = self._usage
        choice = _Choice(finish_reason=self._finish)
        return _build_completion(
            _CompletionDraft("".join(self._texts), choice, self._last, self._logprobs, self._calls.join()),
            request_body,
            response_body,
            self._model,
            self._dialect,
        )


class _TokenizeResponse(msgspec.Struct):
    tokens: list[int]
    count: int


def read_tokens(received: bytes) -> tuple[int, ...] | RequestError:
    """Parses a response of vLLM's `/tokenize`."""
    try:
        response = msgspec.json.decode(received, type=_TokenizeResponse)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return _invalid_response(str(error)[:200])
    return (
        tuple(response.tokens)
        if response.count == len(response.tokens)
        else _invalid_response("its count is not that of its tokens")
    )
