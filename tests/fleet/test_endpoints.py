"""Endpoints: the fleet of one address, what a server is, and adapters that it does not list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.output_parser import OutputParser
from orchestra.core.errors import InputError
from orchestra.core.protocols import CallError, CallResult
from orchestra.core.settings import Settings
from orchestra.fleet.adapters import LISTING_INTERVAL
from orchestra.fleet.config import Endpoint, FleetConfig, configured_fleet, endpoint_fleet
from orchestra.fleet.endpoints import LocalEndpoint, find_local_endpoints, identify_software, resolve_endpoint
from orchestra.fleet.http.openai_protocol import ListedModel
from orchestra.fleet.progress import Progress
from orchestra.fleet.request_errors import RequestError
from orchestra.testing.fake_vllm.http import serving
from tests.e2e.model_servers import ModelServer, Software, serve

from .calling import CARDS, call, only, opened
from .conftest import HurriedClock, endpoints

DIALECTS: dict[Software, str] = {
    "openai": "openai",
    "ollama": "ollama",
    "llama.cpp": "llamacpp",
    "lm-studio": "openai",
    "vllm": "vllm",
}


def only_endpoint(config: FleetConfig) -> Endpoint:
    (server,) = config.servers.values()
    assert isinstance(server, Endpoint)
    return server


@pytest.mark.parametrize("software", DIALECTS)
async def test_endpoint_of_each_software_answers(software: Software) -> None:
    server = ModelServer(software)
    async with serve(server) as address, opened(endpoint_fleet(address)) as fleet:
        result = await only(fleet, call("writer"))
        structured = await only(fleet, call("reader"))
    assert isinstance(result, CallResult), result
    assert result.value == "yes"
    assert isinstance(structured, CallResult), structured
    assert list(structured.value) == ["answer"]
    assert server.chats[0]["model"] == "qwen3:4b"
    constrained = server.chats[1].keys() & {"structured_outputs", "response_format"}
    assert constrained == ({"structured_outputs"} if software == "vllm" else {"response_format"})


@pytest.mark.parametrize(
    ("software", "questions"), [("ollama", ["/v1/models", "/api/version"]), ("vllm", ["/v1/models"])]
)
async def test_endpoint_is_asked_once_what_it_is(software: Software, questions: list[str]) -> None:
    server = ModelServer(software)
    async with serve(server) as address, opened(endpoint_fleet(address)) as fleet:
        for _ in range(3):
            await only(fleet, call("writer"))
    assert server.paths == [*questions, *["/v1/chat/completions"] * 3]


@pytest.mark.parametrize(
    ("models", "model", "error"), [(("qwen3:4b",), "qwen3:4b", ""), (("small", "large"), "auto", "F225")]
)
async def test_endpoint_status_has_the_model_that_it_lists(models: tuple[str, ...], model: str, error: str) -> None:
    server = ModelServer("ollama", models=models)
    async with serve(server) as address, opened(endpoint_fleet(address)) as fleet:
        (before,) = (await fleet.health()).servers
        (probed,) = (await fleet.health(probe=True)).servers
        (after,) = (await fleet.health()).servers
    assert before.model == "auto"
    assert (probed.model, probed.error, after.model) == (model, error, model)
    assert server.chats == []


async def test_endpoint_down_at_first_call_is_asked_again() -> None:
    server = ModelServer("vllm")
    async with serve(server) as address:
        port = int(address.rsplit(":", 1)[1].split("/")[0])
    async with opened(endpoint_fleet(address)) as fleet:
        refused = await only(fleet, call("writer"))
        assert isinstance(refused, CallError)
        assert (refused.code, refused.retryable) == ("F203", True)
        async with serving(server, port):
            assert isinstance(await only(fleet, call("writer")), CallResult)


@pytest.mark.parametrize(
    ("models", "wanted", "chosen"),
    [
        (("a",), "", "a"),
        (("a", "nomic-embed-text"), "", "a"),
        (("a", "b"), "b", "b"),
        (("qwen3:latest",), "qwen3", "qwen3"),
    ],
)
def test_endpoint_model_is_chosen_from_the_list(models: tuple[str, ...], wanted: str, chosen: str) -> None:
    listed = tuple(ListedModel(name, "library") for name in models)
    target = only_endpoint(endpoint_fleet("http://127.0.0.1:9/v1", wanted))
    resolved = resolve_endpoint(target, listed, "Ollama")
    assert isinstance(resolved, Endpoint)
    assert (resolved.model, resolved.dialect, resolved.is_resolved) == (chosen, "ollama", True)


@pytest.mark.parametrize(
    ("models", "wanted", "reason", "hint"),
    [
        ((), "", "lists no models, and no model is named", "--model NAME"),
        (("a", "b"), "", "lists a, b, and no model is named", "--model NAME"),
        (("llama3.2:3b",), "lama3.2:3b", "has no model 'lama3.2:3b', but llama3.2:3b", "did you mean 'llama3.2:3b'?"),
        (("a",), "zzz", "has no model 'zzz', but a", "ollama pull zzz"),
    ],
)
async def test_endpoint_without_the_model_is_refused(
    models: tuple[str, ...], wanted: str, reason: str, hint: str
) -> None:
    server = ModelServer("ollama", models=models)
    async with serve(server) as address, opened(endpoint_fleet(address, wanted)) as fleet:
        refused = await only(fleet, call("writer"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F225", False)
    assert reason in refused.reason
    assert hint in refused.hint
    assert server.chats == []


def test_identify_software_unknown_owner_is_empty() -> None:
    assert identify_software([ListedModel("m", "someone")]) == ""


@pytest.mark.parametrize(
    ("address", "label", "external"),
    [
        ("http://127.0.0.1:1/v1", "restricted", False),
        ("http://localhost:1/v1", "restricted", False),
        ("http://[::1]:1/v1", "restricted", False),
        ("https://api.example.com/v1", "internal", True),
        ("http://10.0.0.1:1/v1", "internal", True),
        ("http://127.0.0.1.example.com/v1", "internal", True),
        ("http://other.localhost:1/v1", "internal", True),
    ],
)
def test_endpoint_fleet_label_follows_the_address(address: str, label: str, external: bool) -> None:
    endpoint = only_endpoint(endpoint_fleet(address))
    assert (endpoint.label, endpoint.external) == (label, external)


@pytest.mark.parametrize(
    ("address", "own", "sent"),
    [
        ("http://127.0.0.1:1/v1", False, True),
        ("http://127.0.0.2:1/v1", False, True),
        ("http://gpu.localhost:1/v1", False, False),
        ("https://api.example.com/v1", False, True),
        ("http://gpu.example.com/v1", False, False),
    ],
)
def test_endpoint_fleet_key_needs_a_safe_address(
    monkeypatch: pytest.MonkeyPatch, address: str, own: bool, sent: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert only_endpoint(endpoint_fleet(address, own_key=own)).api_key == ("env:OPENAI_API_KEY" if sent else None)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert only_endpoint(endpoint_fleet(address, own_key=own)).api_key is None


def test_endpoint_fleet_key_of_its_own_address_over_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with pytest.raises(InputError, match="plain http") as caught:
        endpoint_fleet("http://gpu.example.com/v1", own_key=True)
    assert caught.value.code == "C002"


@pytest.mark.parametrize(
    "address", ["http://", "http://a b/v1", "http://[", "http://u:p@host/v1", "http://host:0/v1", "http://host/v1?x=1"]
)
def test_endpoint_fleet_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(InputError) as caught:
        endpoint_fleet(address)
    assert caught.value.code == "C002"


async def test_endpoint_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    server = ModelServer("openai", models=("gpt",), key="sk-1")
    async with serve(server) as address, opened(endpoint_fleet(address)) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        refused = await only(fleet, call("writer"))
    assert isinstance(refused, CallError)
    assert refused.code == "F214"


def test_endpoint_fleet_serves_models_of_all_cards() -> None:
    config = endpoint_fleet("http://127.0.0.1:1/v1")
    assert config.servers_for("base") == config.servers_for("large") == ("endpoint",)


def test_configured_fleet_prefers_the_endpoint(tmp_path: Path) -> None:
    settings = Settings.load({"endpoint": "http://127.0.0.1:1/v1", "model": "m"}, start=tmp_path, environ={})
    assert only_endpoint(configured_fleet(settings)).model == "m"
    assert configured_fleet(Settings.load({}, start=tmp_path, environ={})).name == "laptop"


def test_configured_fleet_key_beside_a_plain_http_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    address = "http://gpu.example.com/v1"
    named = Settings.load({"endpoint": address}, start=tmp_path, environ={})
    assert only_endpoint(configured_fleet(named)).api_key is None
    beside = Settings.load({}, start=tmp_path, environ={"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "sk-1"})
    with pytest.raises(InputError, match="plain http"):
        configured_fleet(beside)


def tuned(folder: Path, base: str = "qwen3:4b", more: str = "", untuned: str = "") -> Card:
    """Returns a card with an adapter for this base."""
    (folder / "more.md").write_text(untuned)
    (folder / "adapter").mkdir()
    (folder / "agent.yaml").write_text("name: writer\ninput: {text: str}\noutput: str\nadapter: tuned\n" + more)
    (folder / "prompt.md").write_text("{{ text }}")
    (folder / "tuned").mkdir()
    (folder / "tuned" / "manifest.json").write_text(json.dumps({"base": base}))
    return Card.load(folder)


async def test_adapter_that_the_endpoint_lists_is_requested(tmp_path: Path) -> None:
    server = ModelServer("vllm", adapters={"tuned": "qwen3:4b"})
    async with serve(server) as address, opened(endpoint_fleet(address), {"writer": tuned(tmp_path)}) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
    assert [chat["model"] for chat in server.chats] == ["tuned"]


@pytest.mark.parametrize("base", ["qwen3:4b", "another"])
async def test_adapter_that_the_endpoint_lacks_is_reported_once(tmp_path: Path, base: str) -> None:
    server = ModelServer("vllm")
    shown: list[Progress] = []
    cards = {**CARDS, "writer": tuned(tmp_path, base)}
    async with serve(server) as address, opened(endpoint_fleet(address), cards, report=shown.append) as fleet:
        for _ in range(3):
            assert isinstance(await only(fleet, call("writer")), CallResult)
    assert [chat["model"] for chat in server.chats] == ["qwen3:4b"] * 3
    reported = [step.message for step in shown if step.stage == "adapter"]
    assert reported == ["writer is called on endpoint without its adapter: it answers by its prompt"]


async def test_adapter_that_the_endpoint_loads_later_is_requested(tmp_path: Path) -> None:
    server, clock = ModelServer("vllm"), HurriedClock()
    cards = {"writer": tuned(tmp_path)}
    async with serve(server) as address, opened(endpoint_fleet(address), cards, clock=clock) as fleet:
        await only(fleet, call("writer"))
        server.adapters = {"tuned": "qwen3:4b"}
        await only(fleet, call("writer"))
        assert server.paths.count("/v1/models") == 2, "to identify the server, and for the adapter"
        await clock.sleep(LISTING_INTERVAL)
        await only(fleet, call("writer"))
    assert [chat["model"] for chat in server.chats] == ["qwen3:4b", "qwen3:4b", "tuned"]


async def test_adapter_without_list_of_models_is_asked_for_once(tmp_path: Path) -> None:
    server = ModelServer("openai", lists_models=False)
    async with serve(server) as address:
        config = endpoints(address.removesuffix("/v1"), model="qwen3:4b", dialect="openai")
        async with opened(config, {"writer": tuned(tmp_path)}) as fleet:
            for _ in range(3):
                assert isinstance(await only(fleet, call("writer")), CallResult)
    assert server.paths == ["/v1/models", *["/v1/chat/completions"] * 3]


async def test_find_local_endpoints_lists_servers_that_answer() -> None:
    vllm = ModelServer("vllm", models=("a", "b"), adapters={"tuned": "a"})
    async with serve(vllm) as first, serve(ModelServer("openai", models=("c",))) as second:
        ports = [int(address.split(":")[2].split("/")[0]) for address in (first, second)]
        found = await find_local_endpoints([*ports, 9])
    assert found == [LocalEndpoint(first, "vLLM", ("a", "b")), LocalEndpoint(second, "", ("c",))]


def test_resolve_endpoint_keeps_a_given_dialect() -> None:
    target = Endpoint(endpoint="http://127.0.0.1:9/v1", model="auto", dialect="openai")
    resolved = resolve_endpoint(target, (ListedModel("m", "vllm"),), "vLLM")
    assert not isinstance(resolved, RequestError)
    assert (resolved.dialect, resolved.model) == ("openai", "m")


def systems(server: ModelServer) -> list[str]:
    """Returns the system messages of the chat requests; empty texts for chats without one."""
    return [next((one["content"] for one in chat["messages"] if one["role"] == "system"), "") for chat in server.chats]


async def test_untuned_instructions_follow_system_message_without_adapter(tmp_path: Path) -> None:
    card = tuned(tmp_path, more="untuned: more.md\nsystem: Be brief.\n", untuned="Example: {{ text }}")
    assert card.digest == card.with_settings(untuned=None).digest
    listed, unlisted = (ModelServer("vllm", adapters=names) for names in ({"tuned": "qwen3:4b"}, {}))
    for server in (listed, unlisted):
        async with serve(server) as address, opened(endpoint_fleet(address), {"writer": card}) as fleet:
            assert isinstance(await only(fleet, call("writer")), CallResult)
    assert systems(listed) == ["Be brief."]
    assert systems(unlisted) == ["Be brief.\n\nExample: hello"]


async def test_untuned_instructions_for_another_base_are_sent(tmp_path: Path) -> None:
    card = tuned(tmp_path, base="another", more="untuned: more.md\n", untuned="Example.")
    server = ModelServer("ollama")
    async with serve(server) as address, opened(endpoint_fleet(address), {"writer": card}) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
    assert systems(server) == ["Example."]


async def test_untuned_instructions_are_sent_after_the_adapter_was_dropped(tmp_path: Path) -> None:
    """The server refuses the adapter that it listed before (F212), so the same call goes to its own model."""
    card = tuned(tmp_path, more="untuned: more.md\nsystem: Be brief.\n", untuned="Example.")
    server = ModelServer("vllm", adapters={"tuned": "qwen3:4b"})
    async with serve(server) as address, opened(endpoint_fleet(address), {"writer": card}) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
        server.adapters = {}
        assert isinstance(await only(fleet, call("writer")), CallResult)
    assert [chat["model"] for chat in server.chats] == ["tuned", "tuned", "qwen3:4b"]
    assert systems(server) == ["Be brief.", "Be brief.", "Be brief.\n\nExample."]


async def test_answer_is_read_as_that_of_the_model_that_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call finds out that the adapter is gone while the adapter still answers this one."""
    server = ModelServer("vllm", adapters={"tuned": "qwen3:4b"})
    read: list[bool] = []
    parse = OutputParser.parse

    def recorded(parser: OutputParser, *given: Any, with_adapter: bool) -> Any:
        read.append(with_adapter)
        return parse(parser, *given, with_adapter=with_adapter)

    monkeypatch.setattr(OutputParser, "parse", recorded)
    async with serve(server) as address, opened(endpoint_fleet(address), {"writer": tuned(tmp_path)}) as fleet:

        def forget(body: Any) -> str:
            fleet._adapters.forget("endpoint")
            return "yes"

        server.answer = forget
        assert isinstance(await only(fleet, call("writer")), CallResult)
    assert read == [True]
