"""A simulated vLLM server: test what speaks to a server without one.

    async with SimulatedServer("smol", faults=EndpointFaults(busy=0.1, reset=0.05), seed=7) as server:
        ...                                   # server.url is http://127.0.0.1:PORT
        assert server.app.most <= 8           # how many requests ran at once

It answers constrained requests with seeded values of their type: JSON Schemas, choices, and (with llguidance, which comes with
vLLM) regular expressions and grammars. Give it an `answer` to write the texts yourself. `SimulatedVLLM` alone is an ASGI
application, for any server.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias

from orchestra.fleet.supervisor.auth_middleware import Locked
from orchestra.schema.strict_json import digest
from orchestra.testing.fake_vllm.constrained import constrained_text, constraint_of
from orchestra.testing.fake_vllm.faults import HTML, SLOW, EndpointFault, EndpointFaults, FaultChoice, Request
from orchestra.testing.fake_vllm.http import RESET, Message, Receive, Scope, Send, serving
from orchestra.testing.fake_vllm.tokenizer import Tokenizer
from orchestra.testing.schema_samples import NoInstance

VERSION = "0.32.0+simulated"
CREATED = 1_767_225_600
"""Unix time of every answer."""
NO_FAULTS = EndpointFaults()

Answer: TypeAlias = Callable[[Request], Any]
"""Gives the text of an answer, or a value that is written as JSON, or None for what the simulation writes by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a simulated server behaves. Times are seconds."""

    answer: Answer | None = None
    score: Callable[[str, str], float] | None = None
    """The probability of the first label after a query and an item, for `/generative_scoring`; by chance where None."""
    first_token: float = 0.0
    per_token: float = 0.0
    faults: FaultChoice = NO_FAULTS
    seed: int = 0
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Adapters that are loaded from the start: names and folders."""
    key: str = ""
    """What it wants with each request but `GET /health`, as the fleet's own servers do; nothing where it is empty."""


class Refusal(Exception):
    """An answer with an error's status, in vLLM's words."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": status}}


class SimulatedVLLM:
    """An ASGI application that speaks vLLM's API.

    `requests` are all that were posted, `struck` how often each fault hit, `most` how many ran at once at most, `aborted` the
    requests whose client went away, `adapters` what is loaded, `healthy` what `/health` says.
    """

    def __init__(self, model: str = "simulated", behaviour: Behaviour | None = None) -> None:
        self.model = model
        self.behaviour = behaviour or Behaviour()
        self.adapters: dict[str, str] = dict(self.behaviour.adapters)
        self.requests: list[Request] = []
        self.aborted: list[Request] = []
        self.struck: Counter[EndpointFault] = Counter()
        self.counts: Counter[str] = Counter()
        self.running = 0
        self.most = 0
        self.healthy = True
        self._tokenizer = Tokenizer()
        self._repeats: Counter[str] = Counter()
        self._posts: dict[str, Callable[[Request, EndpointFault, Send], Awaitable[None]]] = {
            "/v1/chat/completions": self._generate,
            "/v1/completions": self._generate,
            "/tokenize": self._tokenize,
            "/generative_scoring": self._score,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        answer = Locked(self._answer, self.behaviour.key) if self.behaviour.key else self._answer
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        try:
            if scope["method"] == "GET":
                await self._get(scope["path"], send)
            else:
                await self._post(scope, body, receive, send)
        except Refusal as refusal:
            await _json(send, refusal.body, refusal.status)

    async def _get(self, path: str, send: Send) -> None:
        match path:
            case "/health" | "/ping":
                await _plain(send, b"", 200 if self.healthy else 503)
            case "/version":
                await _json(send, {"version": VERSION})
            case "/load":
                await _json(send, {"server_load": self.running})
            case "/v1/models":
                cards = [{"id": self.model, "object": "model", "created": CREATED, "owned_by": "vllm", "root": self.model, "parent": None}]
                cards += [{**cards[0], "id": name, "root": folder, "parent": self.model} for name, folder in self.adapters.items()]
                await _json(send, {"object": "list", "data": cards})
            case "/metrics":
                await _plain(send, self._metrics().encode())
            case _:
                raise Refusal(404, "NotFoundError", "Not Found")

    async def _post(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        answer = self._posts.get(scope["path"])
        if answer is None:
            raise Refusal(404, "NotFoundError", "Not Found")
        request = self._request(scope, body)
        self.requests.append(request)
        choose = self.behaviour.faults
        fault: EndpointFault = choose(request)
        if fault:
            self.struck[fault] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        leaving = _Leaving(self, _breaking(send, scope, fault))
        try:
            await self._until_gone(request, answer(request, fault, leaving.send), receive)
        finally:
            leaving.leave()

    def _request(self, scope: Scope, body: bytes) -> Request:
        path = str(scope["path"])
        try:
            found = json.loads(body)
        except ValueError as error:
            raise Refusal(400, "BadRequestError", f"the body is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise Refusal(400, "BadRequestError", "the body is no object")
        name = f"{path} {digest(body)}"
        self._repeats[name] += 1
        key = dict(scope.get("headers", ())).get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        return Request(path, found, len(self.requests) + 1, self._repeats[name], f"{self.behaviour.seed}|{name}", key)

    async def _until_gone(self, request: Request, work: Any, receive: Receive) -> None:
        """Does the work, or leaves it where the client goes away, as vLLM aborts."""
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self.aborted.append(request)
                return
            working.result()
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    # Generation

    async def _generate(self, request: Request, fault: EndpointFault, send: Send) -> None:
        if await _fails(fault, send):
            return
        self._known(request.model)
        text = self._text(request, fault)
        tokens = self._tokenizer.pieces(text)
        limit = request.body.get("max_completion_tokens") or request.body.get("max_tokens") or 256
        finish = "stop" if len(tokens) <= limit else "length"
        written = _Written(request, tokens[:limit], finish, self.model if fault == "wrong_model" else request.model)
        if fault == "wrong_model" and written.model == request.model:
            written.model = "another-model"
        written.usage = self._usage(request, len(written.tokens), fault)
        if fault not in ("reset", "stall", "no_done", "long_line"):
            self.counts["success"] += 1
        self.counts["output"] += len(written.tokens)
        await asyncio.sleep(self.behaviour.first_token + (SLOW if fault == "slow_first_token" else 0.0))
        if request.body.get("stream"):
            await self._stream(written, fault, send)
        else:
            await asyncio.sleep(self.behaviour.per_token * len(written.tokens))
            await _in_halves(send, json.dumps(written.whole(), ensure_ascii=False).encode(), fault)

    def _known(self, model: str) -> None:
        if model != self.model and model not in self.adapters:
            raise Refusal(404, "NotFoundError", f"The model `{model}` does not exist.")

    def _text(self, request: Request, fault: EndpointFault) -> str:
        if fault == "ignored_constraint" and constraint_of(request.body):
            return "Well, I would say that it depends: – on this, and on that…"
        if (answer := self.behaviour.answer) is not None and (found := answer(request)) is not None:
            return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        constraint = constraint_of(request.body)
        if constraint is None:
            return " ".join(request.random("text").choices(("yes", "no", "perhaps", "naïve", "—", "the", "answer"), k=12))
        try:
            return constrained_text(constraint, request.random("text"), (request.prompt,))
        except NoInstance as error:
            raise Refusal(400, "BadRequestError", str(error)) from error

    def _usage(self, request: Request, output: int, fault: EndpointFault) -> dict[str, Any] | None:
        prompt, cached = self._tokenizer.count_prompt(request.prompt, f"{request.model}|{request.body.get('cache_salt', '')}")
        self.counts["prompt"] += prompt
        self.counts["hits"] += cached
        if fault == "missing_usage":
            return None
        if fault == "negative_usage":
            return {"prompt_tokens": -1, "total_tokens": -2, "completion_tokens": -1}
        details = {"cached_tokens": cached}
        return {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output, "prompt_tokens_details": details}

    async def _stream(self, written: _Written, fault: EndpointFault, send: Send) -> None:
        await send(_start(200, "text/event-stream; charset=utf-8"))
        if fault == "long_line":
            await _more(send, b"data: " + b"x" * (10 << 20))
            await _more(send, b"", last=True)
            return
        middle = len(written.tokens) // 2
        for number, event in enumerate(written.events()):
            if number > middle:
                if fault == "reset":
                    await send({"type": RESET})
                if fault == "stall":
                    await asyncio.Event().wait()
                if fault == "no_done":
                    await _more(send, b"", last=True)
                    return
            if fault == "split_character":
                for piece in _split(event):
                    await _more(send, piece)
            else:
                await _more(send, event)
            await asyncio.sleep(self.behaviour.per_token)
        await _more(send, b"data: [DONE]\n\n", last=True)

    # Everything else

    async def _tokenize(self, request: Request, fault: EndpointFault, send: Send) -> None:
        if not await _fails(fault, send):
            ids = self._tokenizer.ids(request.prompt)
            await _in_halves(send, json.dumps({"count": len(ids), "max_model_len": 4096, "tokens": ids}).encode(), fault)

    async def _score(self, request: Request, fault: EndpointFault, send: Send) -> None:
        if await _fails(fault, send):
            return
        self._known(request.model)
        items, query = request.body.get("items"), request.prompt
        if not isinstance(items, list) or not items or not request.body.get("label_token_ids"):
            raise Refusal(400, "BadRequestError", "items and label_token_ids must not be empty")
        score = self.behaviour.score or (lambda query, item: request.random(f"score|{query}|{item}").random())
        rows = [{"index": index, "object": "score", "score": score(query, str(item))} for index, item in enumerate(items)]
        model = "another-model" if fault == "wrong_model" else request.model
        body = {"id": _id(request, "score"), "object": "list", "created": CREATED, "model": model, "data": rows}
        await _in_halves(send, json.dumps({**body, "usage": self._usage(request, len(rows), fault)}).encode(), fault)

    async def _load(self, request: Request, fault: EndpointFault, send: Send) -> None:
        if await _fails(fault, send):
            return
        name, folder = request.body.get("lora_name"), request.body.get("lora_path")
        if not name or not folder:
            raise Refusal(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.adapters and not request.body.get("load_inplace"):
            raise Refusal(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        self.adapters[str(name)] = str(folder)
        await _plain(send, f"Success: LoRA adapter '{name}' added successfully.".encode())

    async def _unload(self, request: Request, fault: EndpointFault, send: Send) -> None:
        if await _fails(fault, send):
            return
        name = request.body.get("lora_name")
        if name not in self.adapters:
            raise Refusal(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        await _plain(send, f"Success: LoRA adapter '{name}' removed successfully.".encode())

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
        return "".join(f"# TYPE vllm:{name} {kind}\nvllm:{name}{labels} {float(value)}\n" for name, (kind, value) in values.items())


@dataclass(slots=True)
class _Leaving:
    """The way out of a request, which no longer runs once its last bytes go: who has the answer finds the server's count right."""

    app: SimulatedVLLM
    onward: Send
    left: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.leave()
        await self.onward(message)

    def leave(self) -> None:
        if not self.left:
            self.left = True
            self.app.running -= 1


@dataclass(slots=True)
class _Written:
    """An answer, token by token, and its spelling in the API's shapes."""

    request: Request
    tokens: list[str]
    finish: str
    model: str
    usage: dict[str, Any] | None = None

    @property
    def chat(self) -> bool:
        return self.request.path.endswith("/chat/completions")

    def whole(self) -> dict[str, Any]:
        text = "".join(self.tokens)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish, "logprobs": self._logprobs(self.tokens)}
        choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {**self._head("chat.completion" if self.chat else "text_completion"), "choices": [choice], **self._counted()}

    def events(self) -> Iterator[bytes]:
        head = self._head("chat.completion.chunk" if self.chat else "text_completion")
        if self.chat:
            yield _event({**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        for number, token in enumerate(self.tokens, 1):
            choice: dict[str, Any] = {"index": 0, "logprobs": self._logprobs([token])}
            choice |= {"delta": {"content": token}} if self.chat else {"text": token}
            choice["finish_reason"] = self.finish if number == len(self.tokens) else None
            yield _event({**head, "choices": [choice]})
        if not self.tokens:
            yield _event({**head, "choices": [{"index": 0, "delta": {"content": ""}, "text": "", "finish_reason": self.finish}]})
        options = self.request.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage") and self.usage is not None:
            yield _event({**head, "choices": [], **self._counted()})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": _id(self.request, "chatcmpl" if self.chat else "cmpl"), "object": kind, "created": CREATED, "model": self.model}

    def _counted(self) -> dict[str, Any]:
        return {} if self.usage is None else {"usage": self.usage}

    def _logprobs(self, tokens: list[str]) -> dict[str, Any] | None:
        if not self.chat or not self.request.body.get("logprobs"):
            return None
        count = int(self.request.body.get("top_logprobs") or 0)
        random = self.request.random("logprobs")
        content = []
        for token in tokens:
            best = -random.random()
            others = [{"token": f" other{rank}", "logprob": best - rank, "bytes": None} for rank in range(1, count)]
            top = [{"token": token, "logprob": best, "bytes": list(token.encode())}, *others] if count else []
            content.append({"token": token, "logprob": best, "bytes": list(token.encode()), "top_logprobs": top})
        return {"content": content}


class SimulatedServer:
    """A simulated vLLM on a port of 127.0.0.1, as an async context manager. `url` is its address, `app` tells what happened."""

    def __init__(self, model: str = "simulated", *, port: int = 0, **behaviour: Any) -> None:
        """`behaviour` are the fields of `Behaviour`; a free port is taken where `port` is 0."""
        self.app = SimulatedVLLM(model, Behaviour(**behaviour))
        self.url = ""
        self._port = port
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Starts to serve."""
        port = await self._stack.enter_async_context(serving(self.app, self._port))
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends all connections."""
        await self._stack.aclose()


def _id(request: Request, kind: str) -> str:
    return f"{kind}-{digest(request.seed.encode())[:16]}-{request.repeat}"


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Two pieces, cut inside a character where there is one of several bytes."""
    cut = next((index for index, byte in enumerate(data) if 0x80 <= byte < 0xC0), len(data) // 2)
    return data[:cut], data[cut:]


async def _body(receive: Receive) -> bytes:
    found = b""
    while True:
        message = await receive()
        found += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return found


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(status: int, kind: str, length: int | None = None, **headers: str) -> Message:
    listed = [(b"content-type", kind.encode()), *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())]
    if length is not None:
        listed.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": status, "headers": listed}


async def _more(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def _plain(send: Send, body: bytes, status: int = 200, kind: str = "text/plain; charset=utf-8", **headers: str) -> None:
    await send(_start(status, kind, len(body), **headers))
    await _more(send, body, last=True)


async def _json(send: Send, body: Any, status: int = 200, **headers: str) -> None:
    await _plain(send, json.dumps(body, ensure_ascii=False).encode(), status, "application/json", **headers)


async def _fails(fault: EndpointFault, send: Send) -> bool:
    """Sends the answer of a server that does not do the work at all; false where it does it."""
    match fault:
        case "busy":
            await _json(send, Refusal(429, "TooManyRequests", "too many requests").body, 429, retry_after="1")
        case "unavailable":
            await _plain(send, b"Service Unavailable", 503)
        case "error":
            await _json(send, Refusal(500, "InternalServerError", "EngineCore encountered an issue.").body, 500)
        case "html":
            await _plain(send, HTML, kind="text/html; charset=utf-8")
        case "empty":
            await _plain(send, b"", kind="application/json")
        case _:
            return False
    return True


async def _in_halves(send: Send, body: bytes, fault: EndpointFault) -> None:
    """Sends a body; the first half only, where the fault says so."""
    await send(_start(200, "application/json", len(body)))
    if fault not in ("stall", "reset", "split_character"):
        await _more(send, body, last=True)
        return
    head, tail = _split(body)
    await _more(send, head)
    if fault == "reset":
        await send({"type": RESET})
    if fault == "stall":
        await asyncio.Event().wait()
    await _more(send, tail, last=True)


def _breaking(send: Send, scope: Scope, fault: EndpointFault) -> Send:
    """The way out, which breaks the connection off also on servers that do not know how: by an error in mid-answer."""
    if fault != "reset" or RESET in scope.get("extensions", {}):
        return send

    async def breaking(message: Message) -> None:
        if message["type"] == RESET:
            raise ConnectionResetError("simulated: the connection breaks")
        await send(message)

    return breaking
