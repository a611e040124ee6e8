"""The larger bases of `configs/qwen-0.5b.yaml` and `configs/qwen-1.5b.yaml`: installed from parts, converted, served.

Without their weights in the cache, the tests fetch 0.48 GB and 1.09 GB.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.core.protocols import CallRequest, CallResult
from orchestra.fleet import config
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http.openai_protocol import ChatRequest, Completion
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights import weights
from orchestra.fleet.weights.safetensors import read_shapes
from tests.real.test_adapters import STRONG
from tests.simulation.lab.noise_adapters import write_noise_adapter

pytestmark = pytest.mark.real

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SERVER = "qwen"
CITY = Card.declare(
    "city",
    input={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    output={
        "type": "object",
        "properties": {"city": {"type": "string"}, "year": {"type": "integer"}},
        "required": ["city", "year"],
        "additionalProperties": False,
    },
    prompt="Return the city and the year of this text as JSON.\n\n{{ text }}",
    max_output=40,
)


@pytest.fixture
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    """A fleet of one server with a larger base. It is stopped at the end."""
    described = config.read_config(CONFIGS / f"{request.param}.yaml")
    described = described.model_copy(update={"idle_stop": 602.0})  # another supervisor than that of a user
    try:
        async with Fleet.open(described, cards={CITY.name: CITY}, mode="start") as opened:
            await opened.wait_until_ready()
            yield opened
    finally:
        await SupervisorClient(described, Folders.from_environment()).stop()


@pytest.mark.parametrize(
    ("fleet", "width", "layers"),
    [("qwen-0.5b", 896, 24), pytest.param("qwen-1.5b", 1536, 28, marks=pytest.mark.slow)],
    indirect=["fleet"],
)
async def test_larger_base_answers_and_takes_adapters(fleet: Fleet, width: int, layers: int, tmp_path: Path) -> None:
    installed = weights.find_weights(fleet.config.local_servers[SERVER].weights, weights.ModelStore.from_environment())
    assert installed
    shapes = read_shapes(installed / "model.safetensors")
    assert shapes["model.embed_tokens.weight"] == (151_936, width)
    assert "lm_head.weight" not in shapes, "the output matrix is tied to the embeddings"
    assert sum(name.endswith("q_proj.weight") for name in shapes) == layers

    question = ChatRequest(
        messages=[{"role": "user", "content": "What is the capital of France? Answer with one word."}],
        max_output=8,
        sampling={"temperature": 0},
    )
    answer = await fleet.client.chat(SERVER, question, seconds=300)
    assert isinstance(answer, Completion), answer
    assert "Paris" in answer.text
    assert answer.usage.prompt_tokens == await fleet.client.count_tokens(SERVER, question.messages)

    text = "The tower was built in Paris in 1889."
    call = CallRequest(run="r", node="n", attempt=1, kind="agent", name="city", inputs={"text": text})
    result = await fleet.call(call)
    assert isinstance(result, CallResult), result
    assert result.value == {"city": "Paris", "year": 1889}

    name = f"noise{random.randrange(1 << 30)}"
    adapter = write_noise_adapter(tmp_path / name, installed, 3, rank=8, strength=STRONG)
    assert await fleet.client.load_adapter(SERVER, name, str(adapter)) is None
    changed = await fleet.client.chat(SERVER, question, model=name, seconds=300)
    again = await fleet.client.chat(SERVER, question, seconds=300)
    assert isinstance(changed, Completion), changed
    assert isinstance(again, Completion), again
    assert changed.text != again.text == answer.text


def test_conversion_of_a_model_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    """Each size is one that the file has, and their product is not."""
    import gguf
    import numpy

    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    for key, value in {
        "context_length": 64,
        "embedding_length": 4096,
        "feed_forward_length": 4096,
        "attention.head_count": 4096,
        "attention.head_count_kv": 4096,
        "attention.key_length": 4096,
        "attention.value_length": 4096,
    }.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_types([1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_tensor("blk.0.attn_norm.weight", numpy.zeros(4096, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    command = (sys.executable, "-P", "-m", "orchestra.fleet.weights.gguf_convert", str(path), str(tmp_path / "out"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "parameters, and the file has 4,096" in done.stderr
    assert not (tmp_path / "out").exists()
