"""Adapters on the real vLLM: in all mixtures each answers as it does alone, with every slot in use.

Decoding on a CPU is bit-identical only for the same batch. So texts are compared by the log-probabilities of the five
most likely tokens at each position, up to the first difference of the texts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TypeAlias

import pytest

from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http.openai_protocol import ChatRequest, Completion
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.weights import weights
from tests.simulation.lab.noise_adapters import write_noise_adapter

pytestmark = pytest.mark.real

SERVER = "smol"
NEAR = 0.5
"""Tolerance in nats of log-probabilities between batches: the mean over tokens that are likely in both texts, up to
their first difference, and half of the difference of two tokens there. Single values move by 0.75, three steps of a
logit in bfloat16, on a machine with matrix instructions, for all ways of computing products. A wrong adapter moves all
of them.
"""
STRONG = 0.1
"""The strength of the adapters' noise. With half of it two adapters may start with the same text."""
QUESTION = "Who built the lighthouse at the harbour, and when was it finished?"
SENTENCE = (
    "The harbour of the town lies to the north of the old bridge, and the boats come in before the sun goes down. "
)

Names: TypeAlias = dict[str, str]


@pytest.fixture
async def fleet(laptop: FleetConfig) -> AsyncIterator[Fleet]:
    async with Fleet.open(laptop, cards={}, mode="start") as opened:
        await opened.wait_until_ready()
        yield opened


@pytest.fixture
async def names(fleet: Fleet, laptop: FleetConfig, tmp_path: Path) -> AsyncIterator[list[str]]:
    """The base model, and as many adapters as the server has slots: ranks 16 and 8 alternately, on all linear
    layers.
    """
    model = weights.find_weights(laptop.local_servers[SERVER].weights, weights.ModelStore.from_environment())
    assert model
    stamp = random.randrange(1 << 30)
    loaded = [""]
    for slot in range(laptop.local_servers[SERVER].max_loras):
        name = f"noise{stamp}_{slot}"
        folder = write_noise_adapter(tmp_path / name, model, slot, rank=(16, 8)[slot % 2], strength=STRONG)
        assert await fleet.client.load_adapter(SERVER, name, str(folder)) is None
        loaded.append(name)
    yield loaded
    for name in loaded[1:]:
        await fleet.client.unload_adapter(SERVER, name)


async def ask(fleet: Fleet, model: str, prompt: str = QUESTION, tokens: int = 24) -> Completion:
    sampling = {"temperature": 0, "logprobs": True, "top_logprobs": 5, "ignore_eos": True}
    chat = ChatRequest(messages=[{"role": "user", "content": prompt}], max_output=tokens, sampling=sampling)
    done = await fleet.client.chat(SERVER, chat, model=model, seconds=300)
    assert isinstance(done, Completion), done
    assert len(done.tokens) == tokens
    return done


def same(found: Completion, wanted: Completion) -> bool:
    """Whether two texts are equal except for batch noise: the same tokens are likely up to their first difference."""
    moved: list[float] = []
    for mine, other in zip(found.tokens, wanted.tokens, strict=True):
        here, there = dict(mine.top), dict(other.top)
        moved += [abs(here[token] - there[token]) for token in here.keys() & there.keys()]
        if mine.text != other.text:  # a tie may be decided differently; the texts differ from there on
            return _near(moved) and _tied(there, mine.text, other.text) and _tied(here, mine.text, other.text)
    return _near(moved)


def _near(moved: Sequence[float]) -> bool:
    return bool(moved) and mean(moved) <= NEAR


def _tied(likely: Mapping[str, float], one: str, other: str) -> bool:
    """Whether two tokens are about equally likely."""
    return one in likely and other in likely and abs(likely[one] - likely[other]) <= 2 * NEAR


async def alone(fleet: Fleet, names: Sequence[str], prompt: str = QUESTION) -> dict[str, Completion]:
    return {name: await ask(fleet, name, prompt) for name in names}


async def test_adapters_all_slots_answer_as_alone(fleet: Fleet, names: list[str]) -> None:
    wanted = await alone(fleet, names)
    texts = {done.text for done in wanted.values()}
    assert len(texts) == len(names), "the adapters are strong enough to tell them apart"
    assert not any(same(wanted[one], wanted[other]) for one in names for other in names if one != other)
    mixes = [
        names * 3,
        [names[0], names[-1]] * 4,
        names[1:] * 2,
        [names[0]] * 8,
        [names[-1]] * 8,
        [*[names[0]] * 7, names[2]],
    ]
    for mix in mixes:
        found = await asyncio.gather(*(ask(fleet, name) for name in mix))
        assert [name for name, done in zip(mix, found, strict=True) if not same(done, wanted[name])] == []


async def test_adapters_prefill_beside_decode_is_correct(fleet: Fleet, names: list[str]) -> None:
    """Long prompts, twice: the second time their prefix comes from the cache, which separates adapters."""
    prompt = SENTENCE * 12 + QUESTION
    short, long = await alone(fleet, names), await alone(fleet, names, prompt)
    for _ in range(2):
        writing = [asyncio.create_task(ask(fleet, name)) for name in names]
        await asyncio.sleep(0.3)
        read = await asyncio.gather(*(ask(fleet, name, prompt) for name in names))
        assert [name for name, done in zip(names, read, strict=True) if not same(done, long[name])] == []
        written = await asyncio.gather(*writing)
        assert [name for name, done in zip(names, written, strict=True) if not same(done, short[name])] == []
    assert any(done.usage.cached_tokens for done in read)


async def test_adapter_loading_keeps_running_requests(
    fleet: Fleet, names: list[str], laptop: FleetConfig, tmp_path: Path
) -> None:
    """One more than the slots, so that it also replaces another."""
    model = weights.find_weights(laptop.local_servers[SERVER].weights, weights.ModelStore.from_environment())
    assert model
    late = f"late{random.randrange(1 << 30)}"
    folder = write_noise_adapter(tmp_path / late, model, 99)
    wanted = await alone(fleet, names)
    running = [asyncio.create_task(ask(fleet, name)) for name in names * 3]
    await asyncio.sleep(0.3)
    fault: RequestError | None = await fleet.client.load_adapter(SERVER, late, str(folder))
    assert fault is None
    among = await ask(fleet, late)
    done = await asyncio.gather(*running)
    again = await ask(fleet, late)
    await fleet.client.unload_adapter(SERVER, late)
    assert [name for name, one in zip(names * 3, done, strict=True) if not same(one, wanted[name])] == []
    assert same(among, again)


async def test_server_log_confirms_plugin_and_kernel(fleet: Fleet, names: list[str]) -> None:
    (server,) = (await fleet.status())["servers"]
    text = await asyncio.to_thread(Path(server["log"]).read_text, "utf-8", "replace")
    assert "orchestra: LoRA products of orchestra" in text
    assert "orchestra: norms by vLLM's kernel" in text
