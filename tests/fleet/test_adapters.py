"""Adapters and their base models: on another base an agent is refused, or uses its prompt alone if its card allows
that.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.app.project import Project
from orchestra.app.snapshot_store import _restore_card
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.core.settings import Settings
from orchestra.fleet.adapters import AdapterBases
from orchestra.fleet.config import Endpoint
from tests.fleet.conftest import endpoints, raw_server

from .calling import only, opened, says

AGENT = "name: finder\ninput: {text: str}\noutput: str\nadapter: adapter\n"
ASKED = CallRequest(run="r", node="n", attempt=1, kind="agent", name="finder", inputs={"text": "hi"})


def tuned(tmp_path: Path, manifest: str | None, more: str = "") -> Card:
    """Returns a card with an adapter that has this manifest."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "agent.yaml").write_text(AGENT + more)
    (tmp_path / "prompt.md").write_text("{{ text }}")
    if manifest is not None:
        (tmp_path / "adapter" / "manifest.json").write_text(manifest)
    return Card.load(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "adapted"),
    [('{"base": "m", "rank": 4}', True), ('{"base": "another"}', False), (None, True), ("{}", True), ("no json", True)],
)
def test_adapter_of_another_base_is_not_used(tmp_path: Path, manifest: str | None, adapted: bool) -> None:
    server = Endpoint(endpoint="http://127.0.0.1:9/v1", model="m")
    assert AdapterBases().uses_adapter(tuned(tmp_path, manifest), server) is adapted


def test_adapter_missing_in_card_is_not_used() -> None:
    card = Card.declare("finder", input={"properties": {"text": {}}}, output={"type": "string"}, prompt="{{ text }}")
    server = Endpoint(endpoint="http://127.0.0.1:9/v1", model="m")
    assert not AdapterBases().uses_adapter(card, server)
    assert AdapterBases().base_mismatch(card, "far", server) is None


@pytest.mark.parametrize(("base", "more", "asked"), [("another", "elsewhere: prompt\n", "m"), ("m", "", "adapter")])
async def test_request_model_name_by_adapter(tmp_path: Path, base: str, more: str, asked: str) -> None:
    card = tuned(tmp_path, json.dumps({"base": base}), more)
    async with raw_server(says("x", asked)) as server, opened(endpoints(server.url), {"finder": card}) as fleet:
        await only(fleet, ASKED)
    assert [json.loads(visit.body)["model"] for visit in server.visits] == [asked]


async def test_adapter_base_mismatch_is_refused(tmp_path: Path) -> None:
    card = tuned(tmp_path, '{"base": "another"}')
    async with raw_server(says("x", "m")) as server, opened(endpoints(server.url), {"finder": card}) as fleet:
        refused = await only(fleet, ASKED)
        assert isinstance(refused, CallError)
        assert (refused.code, refused.retryable, server.visits) == ("F222", False, [])
        assert (
            refused.reason == "the adapter 'adapter' of 'finder' is for the base 'another', and the server 's0' has 'm'"
        )
        assert "elsewhere: prompt" in refused.hint
        (tmp_path / "adapter" / "new").write_text('{"base": "m"}')
        (tmp_path / "adapter" / "new").replace(tmp_path / "adapter" / "manifest.json")
        await only(fleet, ASKED)
    assert [json.loads(visit.body)["model"] for visit in server.visits] == ["adapter"], (
        "one that fits is seen as soon as it is there"
    )


async def test_adapter_prefers_server_with_its_base(tmp_path: Path) -> None:
    card = tuned(tmp_path, '{"base": "m1"}')
    async with raw_server(says("x", "m0")) as first, raw_server(says("x", "adapter")) as second:
        config = endpoints(first.url, second.url)
        servers = {
            name: server.model_copy(update={"model": f"m{at}"})
            for at, (name, server) in enumerate(config.servers.items())
        }
        async with opened(config.model_copy(update={"servers": servers}), {"finder": card}) as fleet:
            for _ in range(3):
                assert isinstance(await only(fleet, ASKED), CallResult)
    assert (len(first.visits), len(second.visits)) == (0, 3)


def test_old_card_without_elsewhere_key_uses_prompt(tmp_path: Path) -> None:
    project = Project.load(Settings.load({}, start=tmp_path, environ={}))
    today = project.registry.cards["generative_reader"]
    before = today.model_copy(update={"elsewhere": None})
    assert today.elsewhere == "prompt"
    assert Card.restore(before.dump()).digest == today.digest, "the key changes no answer, and so no digest"
    assert _restore_card(project, today.name, before.dump(), will_call=True).elsewhere == "prompt"
