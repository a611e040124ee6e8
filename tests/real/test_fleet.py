"""The fleet's features on the real vLLM."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from bench.scoring import config_model, scores, tokens
from orchestra.agents.card import Card
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.fleet.config import FleetConfig, LocalServer
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http.openai_protocol import ChatRequest, Completion
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.scheduling import ProgramScheduler
from orchestra.fleet.vllm_metrics import ServerLoad

pytestmark = pytest.mark.real

SERVER = "smol"
PASSAGE = (
    "The Normans were the people who in the 10th and 11th centuries gave their name to Normandy, a region in France. "
    "They were descended from Norse raiders and pirates from Denmark, Iceland and Norway."
)
FRANCE = ChatRequest(
    messages=[{"role": "user", "content": "What is the capital of France?"}], max_output=8, sampling={"temperature": 0}
)
LONG = ChatRequest(
    messages=[{"role": "user", "content": "Tell a long story."}],
    max_output=4000,
    sampling={"temperature": 0, "ignore_eos": True},
)


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


STRING: dict[str, Any] = {"type": "string"}
READER = Card.declare(
    "generative_reader",
    input=record(question=STRING, context=STRING),
    output=record(quote={"type": "string", "format": "quote"}),
    prompt="<context>\n{{ context }}\n</context>\n\nQuestion: {{ question }}",
    evidence="context",
    max_output=120,
    sampling={"temperature": 1.5, "seed": 7},
)
MOODS = Card.declare(
    "moods",
    input=record(text=STRING),
    output=record(mood={"enum": ["glad", "sad"]}, score={"type": "integer", "minimum": 1, "maximum": 5}),
    prompt="What is the mood of this text? {{ text }}",
    max_output=40,
)

TELLER = Card.declare(
    "teller",
    input=record(document=STRING, question=STRING),
    output=STRING,
    prompt="{{ document }}\n\n{{ question }}",
    max_output=4,
)


def call(name: str, attempt: int = 1, **inputs: Any) -> CallRequest:
    return CallRequest(run="r", node="n", attempt=attempt, kind="agent", name=name, inputs=inputs)


PACKAGED = Path(__file__).resolve().parents[2] / "agents" / "generative_reader"


async def only(fleet: Fleet, what: CallRequest) -> CallResult | CallError:
    return await fleet.call(what)


async def guesses_right(fleet: Fleet) -> int:
    """Returns the number of accepted draft tokens since the start of the server."""
    load = await fleet.client.read_load(SERVER)
    assert isinstance(load, ServerLoad), load
    return load.accepted_tokens


def opened(laptop: FleetConfig, *cards: Card) -> Any:
    return Fleet.open(laptop, cards={card.name: card for card in cards}, mode="start")


async def assert_eventually(wanted: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await wanted():
                return
            await asyncio.sleep(0.05)


async def running(fleet: Fleet) -> int:
    load = await fleet.client.read_load(SERVER)
    assert not isinstance(load, RequestError), load
    return load.running + load.waiting


async def test_chunked_prefill_with_seed(laptop: FleetConfig) -> None:
    """vLLM 0.32 as released crashes at the first of them."""
    words = "The quick brown fox jumps over the lazy dog. " * 130

    def chat(seed: int) -> ChatRequest:
        told = [{"role": "user", "content": f"{seed} {words}"}]
        return ChatRequest(messages=told, max_output=6, sampling={"temperature": 1.0, "seed": seed})

    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        together = await asyncio.gather(*(fleet.client.chat(SERVER, chat(seed), seconds=300) for seed in range(1, 8)))
    assert all(isinstance(one, Completion) for one in together), together
    assert len({one.text for one in together if isinstance(one, Completion)}) > 1


async def test_status_has_server_version(laptop: FleetConfig) -> None:
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        (server,) = (await fleet.status())["servers"]
    assert server["version"]["version"]
    assert server["memory_bytes"] > 1 << 30
    assert server["pid"]


async def test_output_is_constrained_by_schema(laptop: FleetConfig) -> None:
    async with opened(laptop, MOODS) as fleet:
        done = await only(fleet, call("moods", text="What a lovely day!"))
    assert isinstance(done, CallResult), done
    assert done.value["mood"] in ("glad", "sad")
    assert 1 <= done.value["score"] <= 5
    assert done.usage.output_tokens > 0


async def test_output_quotes_are_from_evidence(laptop: FleetConfig) -> None:
    """The temperature would otherwise give nonsense, so the grammar enforces the quote, not the model."""
    questions = ["Where is Normandy?", "Who were the Normans?", "What is 7 times 8?", "Sing a song."]
    async with opened(laptop, READER) as fleet:
        replies = await asyncio.gather(
            *(only(fleet, call("generative_reader", question=question, context=PASSAGE)) for question in questions)
        )
    done = [reply for reply in replies if isinstance(reply, CallResult)]
    assert len(done) == len(questions), replies
    assert all(reply.value["quote"] in PASSAGE for reply in done)


async def test_logprobs_for_each_token(laptop: FleetConfig) -> None:
    sampling = {"temperature": 0, "logprobs": True, "top_logprobs": 3}
    chat = ChatRequest(messages=FRANCE.messages, max_output=8, sampling=sampling)
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        result = await fleet.client.chat(SERVER, chat)
    assert isinstance(result, Completion), result
    assert "".join(token.text for token in result.tokens).startswith(result.text)
    for token in result.tokens:
        assert token.top[0] == (token.text, token.logprob), "at temperature 0 the likeliest is written"
        assert sum(math.exp(logprob) for _, logprob in token.top) <= 1.001


async def test_generative_scoring_one_token_per_item(laptop: FleetConfig) -> None:
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        labels = [(await tokens(fleet, city))[0] for city in (" Paris", " London")]
        items = ["The capital of France is", "The capital of England is"]
        (france, england), _ = await scores(
            fleet, config_model(fleet), "Here is a fact about geography.\n", items, labels
        )
    assert france > 0.8
    assert england < 0.2


async def test_scoring_beside_speculation(laptop: FleetConfig) -> None:
    """It crashes vLLM's own worker (its issue 42592)."""
    again = ChatRequest(
        messages=[{"role": "user", "content": "Say it again and again: one two three four five. " * 4}],
        max_output=90,
        sampling={"temperature": 0, "ignore_eos": True},
    )
    items = [f"The capital of {land} is" for land in ("France", "England")]
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        labels = [(await tokens(fleet, city))[0] for city in (" Paris", " London")]
        before = await guesses_right(fleet)
        chats = [asyncio.create_task(fleet.client.chat(SERVER, again)) for _ in range(3)]
        scored = list[list[float]]()
        while not all(chat.done() for chat in chats):
            found, _ = await scores(fleet, config_model(fleet), f"Fact {len(scored)} about geography.\n", items, labels)
            scored.append(found)
        told = [await chat for chat in chats]
        assert await guesses_right(fleet) > before
    assert all(isinstance(one, Completion) for one in told), told
    assert len(scored) > 2
    for france, england in scored:
        assert france > 0.8
        assert england < 0.2


async def test_speculation_keeps_seeded_output(laptop: FleetConfig) -> None:
    copied = [{"role": "user", "content": f"Repeat this word for word: {PASSAGE}"}]
    drawn = ChatRequest(
        messages=FRANCE.messages, max_output=24, sampling={"temperature": 1.0, "seed": 11, "ignore_eos": True}
    )
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        before = await fleet.client.chat(SERVER, structs.replace(drawn, cache_salt="before"))
        guesses = await guesses_right(fleet)
        for _ in range(2):
            await fleet.client.chat(SERVER, ChatRequest(messages=copied, max_output=60, sampling={"temperature": 0}))
        assert await guesses_right(fleet) > guesses + 20
        after = await fleet.client.chat(SERVER, structs.replace(drawn, cache_salt="after"))
    assert isinstance(before, Completion), before
    assert isinstance(after, Completion), after
    assert after.text == before.text


async def test_token_count_equals_server(laptop: FleetConfig) -> None:
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        count = await fleet.client.count_tokens(SERVER, FRANCE.messages)
        result = await fleet.client.chat(SERVER, FRANCE)
    assert isinstance(result, Completion), result
    assert count == result.usage.prompt_tokens


async def test_prompt_above_context_is_permanent_error(laptop: FleetConfig) -> None:
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        chat = ChatRequest(messages=[{"role": "user", "content": "word " * 9000}], max_output=8)
        result = await fleet.client.chat(SERVER, chat)
    assert isinstance(result, RequestError)
    assert (result.code, result.retryable) == ("F215", False)


async def test_priority_and_salt_are_accepted(laptop: FleetConfig) -> None:
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        result = await fleet.client.chat(
            SERVER, ChatRequest(messages=FRANCE.messages, max_output=4, priority=-5, cache_salt="tenant")
        )
    assert isinstance(result, Completion), result


async def test_cache_estimate_matches_server(laptop: FleetConfig) -> None:
    document = " ".join(f"Fact {random.random()}: the Normans came to {number} towns." for number in range(100))
    async with opened(laptop, TELLER) as fleet:
        await fleet.wait_until_ready()
        scheduler = fleet._sender.states[SERVER].gate.scheduler
        assert isinstance(scheduler, ProgramScheduler)
        assert scheduler.prefix_cache.capacity > 100, "the laptop's cache holds 46,592 tokens"
        for cold in (True, False):
            begins = fleet._prompt_prefix([{"role": "user", "content": f"{document}\n\nWhy?"}], "")
            assert scheduler.cached_blocks(begins) == (0 if cold else len(begins))
            done = await only(fleet, call("teller", document=document, question="Why?"))
            assert isinstance(done, CallResult)
            assert (done.usage.cached_tokens == 0) == cold


async def test_cancelled_call_frees_server(laptop: FleetConfig) -> None:
    async with opened(laptop) as fleet:
        await fleet.wait_until_ready()
        task = asyncio.create_task(fleet.client.chat(SERVER, LONG, seconds=300))

        async def busy() -> bool:
            return await running(fleet) == 1

        async def idle() -> bool:
            return await running(fleet) == 0

        await assert_eventually(busy)
        task.cancel()
        await assert_eventually(idle, 15)


async def test_concurrent_opens_share_fleet(laptop: FleetConfig) -> None:
    async def look() -> tuple[int, int]:
        async with opened(laptop) as fleet:
            await fleet.wait_until_ready()
            status = await fleet.status()
            return status["pid"], status["servers"][0]["pid"]

    one, two = await asyncio.gather(look(), look())
    assert one == two


def adapter(folder: Path, seed: int) -> Path:
    """A noise LoRA of rank 8 on every query projection. Its texts differ from those of the base model."""
    import numpy

    folder.mkdir()
    chance = numpy.random.default_rng(seed)
    layers, width, rank = 30, 576, 8
    header: dict[str, Any] = {}
    data = b""
    for layer in range(layers):
        for name, shape in (("lora_A", (rank, width)), ("lora_B", (width, rank))):
            values = (chance.standard_normal(shape) * 0.3).astype(numpy.float32).tobytes()
            key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.{name}.weight"
            header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
            data += values
    packed = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(packed).to_bytes(8, "little") + packed + data)
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


async def test_adapter_answers_and_base_is_unchanged(laptop: FleetConfig, tmp_path: Path) -> None:
    """In one batch, through cards. `test_adapters.py` has all mixtures."""
    folder = adapter(tmp_path / f"noise{random.randrange(1 << 30)}", 3)
    server = laptop.servers[SERVER]
    assert isinstance(server, LocalServer)
    with_adapter = server.model_copy(update={"adapters": {folder.name: str(folder)}})
    config = laptop.model_copy(update={"servers": {SERVER: with_adapter}})
    plain = Card.declare("plain", input=record(text=STRING), output=STRING, prompt="{{ text }}", max_output=8)
    noisy = Card.declare(
        "noisy", input=record(text=STRING), output=STRING, prompt="{{ text }}", max_output=8, adapter=folder.name
    )
    question = "What is the capital of France?"
    async with opened(config, plain, noisy) as fleet:
        alone = await only(fleet, call("plain", text=question))
        replies = await asyncio.gather(
            *(only(fleet, call(name, text=question)) for name in ("plain", "noisy", "plain", "noisy"))
        )
        (status,) = (await fleet.status())["servers"]
        await fleet.client.unload_adapter(SERVER, replies[1].model)
    assert isinstance(alone, CallResult), alone
    assert [reply.value for reply in replies[::2] if isinstance(reply, CallResult)] == [alone.value, alone.value]
    assert replies[1].model.startswith(folder.name)
    assert replies[1].model in status["adapters"]
    assert not (isinstance(replies[1], CallResult) and replies[1].value == alone.value)


async def test_prompt_bound_covers_server_count(laptop: FleetConfig) -> None:
    reader = Card.load(PACKAGED)
    async with opened(laptop, reader) as fleet:
        await fleet.wait_until_ready()
        for text in ("The tower was built in 1889.", "Тысяча восемьсот 一八八九年。 🎼 " * 20, "\x00\u200b\u0301" * 50):
            call = CallRequest(
                run="r",
                node="n",
                attempt=1,
                kind="agent",
                name="generative_reader",
                inputs={"question": "Wann? 何時?", "context": text},
            )
            counted = await fleet.count_tokens(call)
            assert counted is not None
            assert 0 < counted <= fleet.estimate(call).prompt_tokens
