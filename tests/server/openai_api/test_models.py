"""Models and embeddings, with the official client."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import openai
import pytest

from orchestra.fleet.weights.encoders import EncoderStore
from orchestra.fleet.weights.weights import ModelStore
from tests.server.openai_api.clients import openai_serving


async def test_models_are_workflows_agents_and_the_router(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        models = {model.id: model async for model in api.client.models.list()}
        shown = await api.client.models.retrieve("answer")
        router = await api.client.models.retrieve("orchestra/auto")
    assert [models[name].kind for name in ("answer", "talker", "orchestra/auto")] == ["workflow", "agent", "router"]
    assert "search" not in models
    assert shown.output_schema["properties"].keys() == {"answer", "quote"}
    assert router.id == "orchestra/auto"


async def test_unknown_route_has_an_error_in_openai_form(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        reply = await api.server.client.get("/v1/assistants")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "S004")


async def test_embeddings_without_an_encoder_are_not_implemented(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        api.server.app.state.encoders = EncoderStore(
            ModelStore.from_environment({"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}), fetch=False
        )
        with pytest.raises(openai.InternalServerError) as lacking:
            await api.client.embeddings.create(model="minilm", input="Paris")
        with pytest.raises(openai.NotFoundError) as unknown:
            await api.client.embeddings.create(model="ada", input="Paris")
    assert (lacking.value.status_code, lacking.value.code) == (501, "S032")
    assert unknown.value.param == "model"


async def test_embeddings_are_unit_vectors_that_compare_meaning(tmp_path: Path) -> None:
    store = EncoderStore(fetch=False)
    if not store.is_installed("minilm"):
        pytest.skip("the encoder is not on this machine")
    async with openai_serving(tmp_path) as api:
        texts = ["A cat sleeps.", "A kitten is asleep.", "The bank raised its rates."]
        found = await api.client.embeddings.create(model="minilm", input=texts)
        plain = await api.client.embeddings.create(model="minilm", input=texts[0], encoding_format="float")
    cat, kitten, bank = (one.embedding for one in found.data)
    assert math.sqrt(math.fsum(number * number for number in cat)) == pytest.approx(1, abs=1e-5)
    assert _cosine(cat, kitten) > _cosine(cat, bank) + 0.3
    assert plain.data[0].embedding == pytest.approx(cat, abs=1e-6)
    assert found.usage.prompt_tokens > len(texts)


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    return math.fsum(one * other for one, other in zip(first, second, strict=True))
