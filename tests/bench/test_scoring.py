"""`bench.scoring`: the server calls that the fleet does not use."""

from __future__ import annotations

from bench.scoring import SERVER, scores, tokens
from orchestra.fleet.config import Endpoint, FleetConfig
from orchestra.fleet.dispatch import Fleet
from orchestra.testing.fake_vllm.http import serving
from orchestra.testing.fake_vllm.server import Behaviour, SimulatedVLLM


async def test_scores_in_item_order_with_server_tokens() -> None:
    app = SimulatedVLLM("m", Behaviour(score=lambda query, item: 0.75 if "France" in item else 0.25))
    async with serving(app) as port:
        served = Endpoint(endpoint=f"http://127.0.0.1:{port}/v1", model="m", label="internal", dialect="vllm")
        config = FleetConfig(
            schema="orchestra/fleet/v1", name="one", servers={SERVER: served}, models={"base": (SERVER,)}
        )
        async with Fleet.open(config, cards={}, mode="none") as fleet:
            labels = [(await tokens(fleet, city))[0] for city in (" Paris", " London")]
            found, usage = await scores(fleet, "m", "A fact.", ["England's capital", "France's capital"], labels)
    assert len({*labels}) == 2
    assert found == [0.25, 0.75]
    assert usage["prompt_tokens"] > 0
