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
from orchestra.core.agent_weights import INDEX_FILE, INSTALL_HINT
from orchestra.core.errors import FleetError
from orchestra.core.protocols import CallRequest, CallResult
from orchestra.core.settings import Settings
from orchestra.fleet.adapters import AdapterBases, find_adapter
from orchestra.fleet.config import Endpoint
from tests.e2e.model_servers import ModelServer, serve

from .calling import only, opened
from .conftest import endpoints, local_config

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


def test_adapter_base_mismatch_of_a_local_server_is_refused(tmp_path: Path) -> None:
    card, bases = tuned(tmp_path, '{"base": "another"}'), AdapterBases()
    (server,) = local_config("m").local_servers.values()
    refused = bases.base_mismatch(card, "s0", server)
    assert refused is not None
    assert (refused.code, refused.retryable) == ("F222", False)
    assert refused.reason == "the adapter 'adapter' of 'finder' is for the base 'another', and the server 's0' has 'm'"
    assert "elsewhere: prompt" in refused.hint
    assert not bases.uses_adapter(card, server)
    (tmp_path / "adapter" / "new").write_text('{"base": "m"}')
    (tmp_path / "adapter" / "new").replace(tmp_path / "adapter" / "manifest.json")
    assert bases.uses_adapter(card, server), "a replaced manifest is read at once"


@pytest.mark.parametrize("more", ["", "elsewhere: prompt\n"])
def test_adapter_base_mismatch_of_an_endpoint_is_allowed(tmp_path: Path, more: str) -> None:
    server = Endpoint(endpoint="http://127.0.0.1:9/v1", model="m")
    assert AdapterBases().base_mismatch(tuned(tmp_path, '{"base": "another"}', more), "far", server) is None


def test_adapter_without_installed_weights_names_installation(tmp_path: Path) -> None:
    (tmp_path / "finder").mkdir()
    card = tuned(tmp_path / "finder", '{"base": "m"}')
    (server,) = local_config("m").local_servers.values()
    assert find_adapter(card, server) == tmp_path / "finder" / "adapter"
    index = {"finder/adapter/adapter_model.safetensors": {"sha256": "a", "bytes": 9_800_000}}
    (tmp_path / INDEX_FILE).write_text(json.dumps({"format": "1", "cards": "c", "files": index}))
    with pytest.raises(FleetError, match=r"'finder' are not installed \(10 MB\)") as caught:
        find_adapter(card, server)
    assert (caught.value.code, caught.value.hint) == ("A025", INSTALL_HINT)


async def test_adapter_prefers_server_with_its_base(tmp_path: Path) -> None:
    card = tuned(tmp_path, '{"base": "m1"}')
    ours, other = ModelServer("vllm", ("m1",), adapters={"adapter": "m1"}), ModelServer("vllm", ("m0",))
    async with serve(other) as first, serve(ours) as second:
        config = endpoints(first.removesuffix("/v1"), second.removesuffix("/v1"))
        servers = {
            name: server.model_copy(update={"model": f"m{at}"})
            for at, (name, server) in enumerate(config.servers.items())
        }
        async with opened(config.model_copy(update={"servers": servers}), {"finder": card}) as fleet:
            for _ in range(3):
                assert isinstance(await only(fleet, ASKED), CallResult)
    assert (len(other.chats), [chat["model"] for chat in ours.chats]) == (0, ["adapter"] * 3)


def test_old_card_without_elsewhere_key_uses_prompt(tmp_path: Path) -> None:
    project = Project.load(Settings.load({}, start=tmp_path, environ={}))
    today = project.registry.cards["generative_reader"]
    before = today.model_copy(update={"elsewhere": None})
    assert today.elsewhere == "prompt"
    assert Card.restore(before.dump()).digest == today.digest, "the key changes no answer, and so no digest"
    assert _restore_card(project, today.name, before.dump(), will_call=True).elsewhere == "prompt"
