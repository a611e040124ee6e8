"""A simulated vLLM server, for tests of its clients.

    async with SimulatedServer("smol", faults=EndpointFaults(busy=0.1, reset=0.05), seed=7) as server:
        ...                                   # server.url is http://127.0.0.1:PORT
        assert server.app.max_running <= 8           # how many requests ran at once

It answers constrained requests with seeded values of their type: JSON Schemas, choices, and (with llguidance, which
vLLM installs) regular expressions and grammars. Pass an `answer` to generate the texts yourself. `SimulatedVLLM` alone
is an ASGI application, for any server.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, Self, TypeAlias

from orchestra.fleet.supervisor.auth_middleware import KeyAuthMiddleware
from orchestra.schema.strict_json import digest
from orchestra.testing.fake_vllm.faults import (
    HTML_PAGE,
    SLOW_FIRST_TOKEN_SECONDS,
    EndpointFault,
    EndpointFaults,
    FaultChoice,
    SimulatedRequest,
)
from orchestra.testing.fake_vllm.http import RESET, AsgiMessage, Receive, Scope, Send, serving
from orchestra.testing.schema_samples import InstanceError, make_instance

_PREFERRED_BYTES = frozenset(range(ord("a"), ord("z") + 1)) | {ord(" "), ord('"')}
_MAX_BYTES = 4096


def constraint_of(body: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Returns a request's constraint: `json` with a schema, `regex`, `choice` or `grammar`; or None.

    It also reads OpenAI's `response_format`.
    """
    constraint = body.get("structured_outputs")
    if isinstance(constraint, Mapping):
        return next(
            (
                (kind, constraint[kind])
                for kind in ("json", "regex", "choice", "grammar")
                if constraint.get(kind) is not None
            ),
            None,
        )
    form = body.get("response_format")
    if isinstance(form, Mapping):
        match form.get("type"):
            case "json_schema":
                return "json", form["json_schema"]["schema"]
            case "json_object":
                return "json", {"type": "object"}
            case _:
                return None
    return None


def constrained_text(constraint: tuple[str, Any], random: Random, sources: tuple[str, ...] = ()) -> str:
    """Returns a text that satisfies the constraint. Grammars and regular expressions need the package llguidance, which
    vLLM installs.

    Raises:
        InstanceError: No text could be generated.
    """
    kind, content = constraint
    match kind:
        case "json":
            schema = json.loads(content) if isinstance(content, str) else content
            return json.dumps(make_instance(schema, random, sources), ensure_ascii=False)
        case "choice":
            return str(random.choice(content))
        case "regex":
            return _random_walk(_import_llguidance().LLMatcher.grammar_from_regex(content), random)
        case _:
            return _random_walk(content, random)


def _import_llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise InstanceError(
            "grammars are simulated with llguidance: pip install llguidance, or give the simulation an `answer`"
        ) from error
    return llguidance


def _random_walk(grammar: str, random: Random) -> str:
    """Walks randomly through a grammar, byte by byte. Prefers letters, and ends as soon as the grammar allows it."""
    guidance = _import_llguidance()
    tokenizer = guidance.LLTokenizer("byte")
    matcher = guidance.LLMatcher(tokenizer, grammar)
    output = bytearray()
    while not matcher.is_stopped() and len(output) < _MAX_BYTES:
        mask = matcher.compute_bitmask()
        allowed_tokens = [token for token in range(tokenizer.vocab_size) if mask[token >> 3] >> (token & 7) & 1]
        if tokenizer.eos_token in allowed_tokens or not allowed_tokens:
            break
        chosen_token = random.choice([token for token in allowed_tokens if token in _PREFERRED_BYTES] or allowed_tokens)
        matcher.consume_token(chosen_token)
        output.append(chosen_token)
    if matcher.is_error():
        raise InstanceError(f"the grammar is refused: {matcher.get_error()}")
    return output.decode("utf-8", "replace")


_TOKEN_PATTERN = re.compile(r"\s?[^\W_]+|\s?[^\s]|\s+")
VOCABULARY_SIZE = 49_152
BLOCK_TOKENS = 16
"""Tokens per block of the prefix cache."""


class SimulatedTokenizer:
    """Splits texts into tokens, and keeps the prefixes of prompts like vLLM's prefix cache.

    The tokens are words with the space before them, and single characters. It is no model's tokenizer, but its counts
    are similar.
    """

    def __init__(self) -> None:
        self._blocks: set[int] = set()

    def split(self, text: str) -> list[str]:
        """Returns the tokens of a text. Joined they are the text."""
        return _TOKEN_PATTERN.findall(text)

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text as numbers below `VOCABULARY_SIZE`."""
        return [zlib.crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY_SIZE for piece in self.split(text)]

    def count_prompt(self, text: str, salt: str) -> tuple[int, int]:
        """Returns the number of tokens of a prompt, and how many of them were cached: complete blocks from the start
        with the same salt.
        """
        ids = self.encode(text)
        link, cached_tokens, is_hit = zlib.crc32(salt.encode()), 0, True
        for start in range(0, len(ids) - len(ids) % BLOCK_TOKENS, BLOCK_TOKENS):
            link = zlib.crc32(repr((link, ids[start : start + BLOCK_TOKENS])).encode())
            is_hit = is_hit and link in self._blocks
            cached_tokens += BLOCK_TOKENS if is_hit else 0
            self._blocks.add(link)
        return len(ids), cached_tokens


VERSION = "0.32.0+simulated"
CREATED_AT = 1_767_225_600
"""The Unix time in every response."""
NO_FAULTS = EndpointFaults()

ResponseFunction: TypeAlias = Callable[[SimulatedRequest], Any]
"""Returns the text of a response, or a value that is encoded as JSON, or None for the simulation's own text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The behaviour of a simulated server. Times are seconds."""

    answer: ResponseFunction | None = None
    score: Callable[[str, str], float] | None = None
    """Returns the probability of the first label for a query and an item, for `/generative_scoring`; random if None."""
    first_token: float = 0.0
    per_token: float = 0.0
    faults: FaultChoice = NO_FAULTS
    seed: int = 0
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Adapters that are loaded from the start: name to folder."""
    key: str = ""
    """The key that all requests except `GET /health` need, as on the fleet's own servers; empty for none."""


class ApiError(Exception):
    """A response with an error status, in vLLM's words."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": status}}


class SimulatedVLLM:
    """An ASGI application with vLLM's API.

    Attributes:
        requests: All posted requests.
        fault_counts: The number of each fault.
        max_running: The highest number of concurrent requests.
        aborted: The requests whose client disconnected.
        adapters: The loaded adapters.
        healthy: The result of `/health`.
    """

    def __init__(self, model: str = "simulated", behaviour: Behaviour | None = None) -> None:
        self.model = model
        self.behaviour = behaviour or Behaviour()
        self.adapters: dict[str, str] = dict(self.behaviour.adapters)
        self.requests: list[SimulatedRequest] = []
        self.aborted: list[SimulatedRequest] = []
        self.fault_counts: Counter[EndpointFault] = Counter()
        self.counts: Counter[str] = Counter()
        self.running = 0
        self.max_running = 0
        self.healthy = True
        self._tokenizer = SimulatedTokenizer()
        self._repeats: Counter[str] = Counter()
        self._post_handlers: dict[str, Callable[[SimulatedRequest, EndpointFault, Send], Awaitable[None]]] = {
            "/v1/chat/completions": self._generate,
            "/v1/completions": self._generate,
            "/tokenize": self._tokenize,
            "/generative_scoring": self._score,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        answer = KeyAuthMiddleware(self._handle, self.behaviour.key) if self.behaviour.key else self._handle
        await answer(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _read_body(receive)
        try:
            if scope["method"] == "GET":
                await self._get(scope["path"], send)
            else:
                await self._post(scope, body, receive, send)
        except ApiError as refusal:
            await _send_json(send, refusal.body, refusal.status)

    async def _get(self, path: str, send: Send) -> None:
        match path:
            case "/health" | "/ping":
                await _send_text(send, b"", 200 if self.healthy else 503)
            case "/version":
                await _send_json(send, {"version": VERSION})
            case "/load":
                await _send_json(send, {"server_load": self.running})
            case "/v1/models":
                cards = [
                    {
                        "id": self.model,
                        "object": "model",
                        "created": CREATED_AT,
                        "owned_by": "vllm",
                        "root": self.model,
                        "parent": None,
                    }
                ]
                cards += [
                    {**cards[0], "id": name, "root": folder, "parent": self.model}
                    for name, folder in self.adapters.items()
                ]
                await _send_json(send, {"object": "list", "data": cards})
            case "/metrics":
                await _send_text(send, self._metrics().encode())
            case _:
                raise ApiError(404, "NotFoundError", "Not Found")

    async def _post(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        answer = self._post_handlers.get(scope["path"])
        if answer is None:
            raise ApiError(404, "NotFoundError", "Not Found")
        request = self._parse_request(scope, body)
        self.requests.append(request)
        choose = self.behaviour.faults
        fault: EndpointFault = choose(request)
        if fault:
            self.fault_counts[fault] += 1
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        response_guard = _ResponseGuard(self, _resetting_send(send, scope, fault))
        try:
            await self._run_until_disconnect(request, answer(request, fault, response_guard.send), receive)
        finally:
            response_guard.finish()

    def _parse_request(self, scope: Scope, body: bytes) -> SimulatedRequest:
        path = str(scope["path"])
        try:
            content = json.loads(body)
        except ValueError as error:
            raise ApiError(400, "BadRequestError", f"the body is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ApiError(400, "BadRequestError", "the body is not an object")
        name = f"{path} {digest(body)}"
        self._repeats[name] += 1
        headers = dict(scope.get("headers", ()))
        key = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        trace = headers.get(b"traceparent", b"").decode("latin-1")
        number, repeat, seed = len(self.requests) + 1, self._repeats[name], f"{self.behaviour.seed}|{name}"
        return SimulatedRequest(path, content, number, repeat, seed, key, trace)

    async def _run_until_disconnect(self, request: SimulatedRequest, work: Any, receive: Receive) -> None:
        """Runs the work, or cancels it if the client disconnects, as vLLM does."""
        working, future = asyncio.ensure_future(work), asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await asyncio.wait((working, future), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self.aborted.append(request)
                return
            working.result()
        finally:
            for task in (working, future):
                task.cancel()
            await asyncio.gather(working, future, return_exceptions=True)

    # Generation

    async def _generate(self, request: SimulatedRequest, fault: EndpointFault, send: Send) -> None:
        if await _send_failure(fault, send):
            return
        self._check_model(request.model)
        text = self._text(request, fault)
        tokens = self._tokenizer.split(text)
        limit = request.body.get("max_completion_tokens") or request.body.get("max_tokens") or 256
        finish = "stop" if len(tokens) <= limit else "length"
        generated_text = _GeneratedText(
            request, tokens[:limit], finish, self.model if fault == "wrong_model" else request.model
        )
        if fault == "wrong_model" and generated_text.model == request.model:
            generated_text.model = "another-model"
        generated_text.usage = self._usage(request, len(generated_text.tokens), fault)
        if fault not in ("reset", "stall", "no_done", "long_line"):
            self.counts["success"] += 1
        self.counts["output"] += len(generated_text.tokens)
        await asyncio.sleep(
            self.behaviour.first_token + (SLOW_FIRST_TOKEN_SECONDS if fault == "slow_first_token" else 0.0)
        )
        if request.body.get("stream"):
            await self._stream(generated_text, fault, send)
        else:
            await asyncio.sleep(self.behaviour.per_token * len(generated_text.tokens))
            await _send_response(send, json.dumps(generated_text.body(), ensure_ascii=False).encode(), fault)

    def _check_model(self, model: str) -> None:
        if model != self.model and model not in self.adapters:
            raise ApiError(404, "NotFoundError", f"The model `{model}` does not exist.")

    def _text(self, request: SimulatedRequest, fault: EndpointFault) -> str:
        if fault == "ignored_constraint" and constraint_of(request.body):
            return "Well, I would say that it depends: – on this, and on that…"
        if (answer := self.behaviour.answer) is not None and (reply_text := answer(request)) is not None:
            return reply_text if isinstance(reply_text, str) else json.dumps(reply_text, ensure_ascii=False)
        constraint = constraint_of(request.body)
        if constraint is None:
            return " ".join(
                request.random("text").choices(("yes", "no", "perhaps", "naïve", "—", "the", "answer"), k=12)
            )
        try:
            return constrained_text(constraint, request.random("text"), (request.prompt,))
        except InstanceError as error:
            raise ApiError(400, "BadRequestError", str(error)) from error

    def _usage(self, request: SimulatedRequest, output: int, fault: EndpointFault) -> dict[str, Any] | None:
        prompt, cached_tokens = self._tokenizer.count_prompt(
            request.prompt, f"{request.model}|{request.body.get('cache_salt', '')}"
        )
        self.counts["prompt"] += prompt
        self.counts["hits"] += cached_tokens
        if fault == "missing_usage":
            return None
        if fault == "negative_usage":
            return {"prompt_tokens": -1, "total_tokens": -2, "completion_tokens": -1}
        details = {"cached_tokens": cached_tokens}
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "completion_tokens": output,
            "prompt_tokens_details": details,
        }

    async def _stream(self, generated_text: _GeneratedText, fault: EndpointFault, send: Send) -> None:
        await send(_response_start(200, "text/event-stream; charset=utf-8"))
        if fault == "long_line":
            await _send_body(send, b"data: " + b"x" * (10 << 20))
            await _send_body(send, b"", last=True)
            return
        middle = len(generated_text.tokens) // 2
        for number, event in enumerate(generated_text.events()):
            if number > middle:
                if fault == "reset":
                    await send({"type": RESET})
                if fault == "stall":
                    await asyncio.Event().wait()
                if fault == "no_done":
                    await _send_body(send, b"", last=True)
                    return
            if fault == "split_character":
                for piece in _split_character(event):
                    await _send_body(send, piece)
            else:
                await _send_body(send, event)
            await asyncio.sleep(self.behaviour.per_token)
        await _send_body(send, b"data: [DONE]\n\n", last=True)

    # All other requests

    async def _tokenize(self, request: SimulatedRequest, fault: EndpointFault, send: Send) -> None:
        if not await _send_failure(fault, send):
            ids = self._tokenizer.encode(request.prompt)
            await _send_response(
                send, json.dumps({"count": len(ids), "max_model_len": 4096, "tokens": ids}).encode(), fault
            )

    async def _score(self, request: SimulatedRequest, fault: EndpointFault, send: Send) -> None:
        if await _send_failure(fault, send):
            return
        self._check_model(request.model)
        items, query = request.body.get("items"), request.prompt
        if not isinstance(items, list) or not items or not request.body.get("label_token_ids"):
            raise ApiError(400, "BadRequestError", "items and label_token_ids must not be empty")
        score = self.behaviour.score or (lambda query, item: request.random(f"score|{query}|{item}").random())
        rows = [
            {"index": index, "object": "score", "score": score(query, str(item))} for index, item in enumerate(items)
        ]
        model = "another-model" if fault == "wrong_model" else request.model
        body = {"id": _id(request, "score"), "object": "list", "created": CREATED_AT, "model": model, "data": rows}
        await _send_response(
            send, json.dumps({**body, "usage": self._usage(request, len(rows), fault)}).encode(), fault
        )

    async def _load(self, request: SimulatedRequest, fault: EndpointFault, send: Send) -> None:
        if await _send_failure(fault, send):
            return
        name, folder = request.body.get("lora_name"), request.body.get("lora_path")
        if not name or not folder:
            raise ApiError(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.adapters and not request.body.get("load_inplace"):
            raise ApiError(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        self.adapters[str(name)] = str(folder)
        await _send_text(send, f"Success: LoRA adapter '{name}' added successfully.".encode())

    async def _unload(self, request: SimulatedRequest, fault: EndpointFault, send: Send) -> None:
        if await _send_failure(fault, send):
            return
        name = request.body.get("lora_name")
        if name not in self.adapters:
            raise ApiError(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        await _send_text(send, f"Success: LoRA adapter '{name}' removed successfully.".encode())

    def _metrics(self) -> str:
        labels = f'{{engine="0",model_name="{self.model}"}}'
        values = {
            "num_requests_running": ("gauge", self.running),
            "num_requests_waiting": ("gauge", 0),
            "kv_cache_usage_perc": ("gauge", min(1.0, self.running / 32)),
            "prompt_tokens_total": ("counter", self.counts["prompt"]),
            "generation_tokens_total": ("counter", self.counts["output"]),
            "request_success_total": ("counter", self.counts["success"]),
            "prefix_cache_queries_total": ("counter", self.counts["prompt"]),
            "prefix_cache_hits_total": ("counter", self.counts["hits"]),
        }
        return "".join(
            f"# TYPE vllm:{name} {kind}\nvllm:{name}{labels} {float(value)}\n" for name, (kind, value) in values.items()
        )


@dataclass(slots=True)
class _ResponseGuard:
    """Wraps `send` of a request. The request counts as finished before its last bytes are sent, so that the client sees
    a correct count.
    """

    app: SimulatedVLLM
    inner_send: Send
    finished: bool = False

    async def send(self, message: AsgiMessage) -> None:
        """Sends a message; before the last one it counts the request as finished."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finish()
        await self.inner_send(message)

    def finish(self) -> None:
        """Counts the request as finished, once."""
        if not self.finished:
            self.finished = True
            self.app.running -= 1


@dataclass(slots=True)
class _GeneratedText:
    """A response, token by token, encoded in the API's formats."""

    request: SimulatedRequest
    tokens: list[str]
    finish_reason: str
    model: str
    usage: dict[str, Any] | None = None

    @property
    def is_chat(self) -> bool:
        """Whether the request is a chat request."""
        return self.request.path.endswith("/chat/completions")

    def body(self) -> dict[str, Any]:
        """Returns the body of a response without streaming."""
        text = "".join(self.tokens)
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": self.finish_reason,
            "logprobs": self._logprobs(self.tokens),
        }
        choice |= {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        return {
            **self._head("chat.completion" if self.is_chat else "text_completion"),
            "choices": [choice],
            **self._usage_field(),
        }

    def events(self) -> Iterator[bytes]:
        """Yields the events of a stream."""
        head = self._head("chat.completion.chunk" if self.is_chat else "text_completion")
        if self.is_chat:
            yield _encode_event(
                {
                    **head,
                    "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
                }
            )
        for number, token in enumerate(self.tokens, 1):
            choice: dict[str, Any] = {"index": 0, "logprobs": self._logprobs([token])}
            choice |= {"delta": {"content": token}} if self.is_chat else {"text": token}
            choice["finish_reason"] = self.finish_reason if number == len(self.tokens) else None
            yield _encode_event({**head, "choices": [choice]})
        if not self.tokens:
            yield _encode_event(
                {
                    **head,
                    "choices": [
                        {"index": 0, "delta": {"content": ""}, "text": "", "finish_reason": self.finish_reason}
                    ],
                }
            )
        options = self.request.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage") and self.usage is not None:
            yield _encode_event({**head, "choices": [], **self._usage_field()})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": _id(self.request, "chatcmpl" if self.is_chat else "cmpl"),
            "object": kind,
            "created": CREATED_AT,
            "model": self.model,
        }

    def _usage_field(self) -> dict[str, Any]:
        return {} if self.usage is None else {"usage": self.usage}

    def _logprobs(self, tokens: list[str]) -> dict[str, Any] | None:
        if not self.is_chat or not self.request.body.get("logprobs"):
            return None
        count = int(self.request.body.get("top_logprobs") or 0)
        random = self.request.random("logprobs")
        content = []
        for token in tokens:
            best = -random.random()
            alternatives = [
                {"token": f" other{rank}", "logprob": best - rank, "bytes": None} for rank in range(1, count)
            ]
            top = [{"token": token, "logprob": best, "bytes": list(token.encode())}, *alternatives] if count else []
            content.append({"token": token, "logprob": best, "bytes": list(token.encode()), "top_logprobs": top})
        return {"content": content}


class SimulatedServer:
    """A simulated vLLM server on a port of 127.0.0.1, as an async context manager.

    Attributes:
        url: The address.
        app: The application with its records.
    """

    def __init__(self, model: str = "simulated", *, port: int = 0, **behaviour: Any) -> None:
        """`behaviour` are the fields of `Behaviour`. Port 0 chooses a free port."""
        self.app = SimulatedVLLM(model, Behaviour(**behaviour))
        self.url = ""
        self._port = port
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Starts the server."""
        port = await self._stack.enter_async_context(serving(self.app, self._port))
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes all connections."""
        await self._stack.aclose()


def _id(request: SimulatedRequest, kind: str) -> str:
    return f"{kind}-{digest(request.seed.encode())[:16]}-{request.repeat}"


def _encode_event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def _split_character(data: bytes) -> tuple[bytes, bytes]:
    """Returns two parts, cut inside a character of several bytes if there is one."""
    split_index = next((index for index, byte in enumerate(data) if 0x80 <= byte < 0xC0), len(data) // 2)
    return data[:split_index], data[split_index:]


async def _read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _response_start(status: int, kind: str, length: int | None = None, **headers: str) -> AsgiMessage:
    header_list = [
        (b"content-type", kind.encode()),
        *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
    ]
    if length is not None:
        header_list.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": status, "headers": header_list}


async def _send_body(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def _send_text(
    send: Send, body: bytes, status: int = 200, kind: str = "text/plain; charset=utf-8", **headers: str
) -> None:
    await send(_response_start(status, kind, len(body), **headers))
    await _send_body(send, body, last=True)


async def _send_json(send: Send, body: Any, status: int = 200, **headers: str) -> None:
    await _send_text(send, json.dumps(body, ensure_ascii=False).encode(), status, "application/json", **headers)


async def _send_failure(fault: EndpointFault, send: Send) -> bool:
    """Sends the response of a server that fails. Returns False if there is no such fault."""
    match fault:
        case "busy":
            await _send_json(send, ApiError(429, "TooManyRequests", "too many requests").body, 429, retry_after="1")
        case "unavailable":
            await _send_text(send, b"Service Unavailable", 503)
        case "error":
            await _send_json(send, ApiError(500, "InternalServerError", "EngineCore encountered an issue.").body, 500)
        case "html":
            await _send_text(send, HTML_PAGE, kind="text/html; charset=utf-8")
        case "empty":
            await _send_text(send, b"", kind="application/json")
        case _:
            return False
    return True


async def _send_response(send: Send, body: bytes, fault: EndpointFault) -> None:
    """Sends a body; only the first half if the fault requires it."""
    await send(_response_start(200, "application/json", len(body)))
    if fault not in ("stall", "reset", "split_character"):
        await _send_body(send, body, last=True)
        return
    head, tail = _split_character(body)
    await _send_body(send, head)
    if fault == "reset":
        await send({"type": RESET})
    if fault == "stall":
        await asyncio.Event().wait()
    await _send_body(send, tail, last=True)


def _resetting_send(send: Send, scope: Scope, fault: EndpointFault) -> Send:
    """Returns a `send` that aborts the connection, on other servers by an error during the response."""
    if fault != "reset" or RESET in scope.get("extensions", {}):
        return send

    async def send_or_reset(message: AsgiMessage) -> None:
        if message["type"] == RESET:
            raise ConnectionResetError("simulated: the connection breaks")
        await send(message)

    return send_or_reset
