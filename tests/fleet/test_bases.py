"""An adapter goes with its base: elsewhere the agent answers by its prompt alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestra.agent.card import Card
from orchestra.doors import Call
from orchestra.fleet.bases import Bases
from orchestra.fleet.config import Endpoint
from tests.fleet.conftest import endpoints, raw_server

from .calling import only, opened, says

AGENT = "name: finder\ninput: {text: str}\noutput: str\nadapter: adapter\n"


def tuned(tmp_path: Path, manifest: str | None) -> Card:
    """A card with an adapter that this manifest tells of."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "agent.yaml").write_text(AGENT)
    (tmp_path / "prompt.md").write_text("{{ text }}")
    if manifest is not None:
        (tmp_path / "adapter" / "manifest.json").write_text(manifest)
    return Card.load(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "adapted"),
    [('{"base": "m", "rank": 4}', True), ('{"base": "another"}', False), (None, True), ("{}", True), ("no json", True)],
)
def test_an_adapter_of_another_base_is_not_asked_for(tmp_path: Path, manifest: str | None, adapted: bool) -> None:
    server = Endpoint(endpoint="http://127.0.0.1:9/v1", model="m")
    assert Bases().adapted(tuned(tmp_path, manifest), server) is adapted


def test_a_card_without_an_adapter_has_none_to_ask_for() -> None:
    card = Card.declared("finder", input={"properties": {"text": {}}}, output={"type": "string"}, prompt="{{ text }}")
    assert not Bases().adapted(card, Endpoint(endpoint="http://127.0.0.1:9/v1", model="m"))


@pytest.mark.parametrize(("base", "asked"), [("another", "m"), ("m", "adapter")])
async def test_the_model_that_a_request_names(tmp_path: Path, base: str, asked: str) -> None:
    card = tuned(tmp_path, json.dumps({"base": base}))
    async with raw_server(says("x", asked)) as server, opened(endpoints(server.url), {"finder": card}) as fleet:
        await only(fleet, Call(run="r", node="n", attempt=1, kind="agent", name="finder", inputs={"text": "hi"}))
    assert [json.loads(visit.body)["model"] for visit in server.visits] == [asked]
