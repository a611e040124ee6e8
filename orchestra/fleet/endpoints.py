"""Endpoints: what a model server is that the fleet does not manage, and which servers run on this machine.

The first call to an endpoint with `auto` in its dialect or model asks the server what it is: it lists its models, which
contains no data of a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from orchestra.core.suggestions import closest_match
from orchestra.core.trust import is_loopback
from orchestra.fleet.config import AUTO, Dialect, Endpoint, FleetLimits
from orchestra.fleet.http.client import HttpClient, HttpRequest, HttpResponse
from orchestra.fleet.http.openai_protocol import ListedModel, read_models
from orchestra.fleet.request_errors import RequestError

Software: TypeAlias = Literal["vLLM", "Ollama", "llama.cpp", "LM Studio", ""]
"""The software of a server; empty if it is unknown."""
OLLAMA_VERSION = "/api/version"
"""Path that only Ollama answers: https://github.com/ollama/ollama/blob/main/docs/api.md#version."""
LOCAL_PORTS: Mapping[int, Software] = {11434: "Ollama", 8000: "vLLM", 8080: "llama.cpp", 1234: "LM Studio"}
"""The default ports of model servers."""
DISCOVERY_SECONDS = 1.0
"""Seconds that a server on this machine may take to list its models."""
_OWNERS: Mapping[str, Software] = {"vllm": "vLLM", "llamacpp": "llama.cpp", "organization_owner": "LM Studio"}
"""`owned_by` in the list of models to the software that writes it."""
_DIALECTS: Mapping[Software, Dialect] = {"vLLM": "vllm", "Ollama": "ollama", "llama.cpp": "llamacpp"}


def identify_software(models: Iterable[ListedModel]) -> Software:
    """Returns the software that lists these models; empty if the list does not show it."""
    owners = {model.owned_by for model in models}
    return next((software for owner, software in _OWNERS.items() if owner in owners), "")


def resolve_endpoint(target: Endpoint, models: tuple[ListedModel, ...], software: Software) -> Endpoint | RequestError:
    """Returns an endpoint with the dialect and the model that it really has.

    Args:
        target: The endpoint, with `auto` in its dialect or model.
        models: The models that it lists.
        software: Its software.

    Returns:
        The endpoint; or F225 if no model is named and the server does not list exactly one, or if it does not list the
        named one.
    """
    names = [model.id for model in models if not model.parent]
    dialect = _DIALECTS.get(software, "openai") if target.dialect == AUTO else target.dialect
    model = target.model
    if model == AUTO:
        chats = [name for name in names if "embed" not in name.lower()] or names
        if len(chats) != 1:
            reason = f"{target.endpoint} lists {_enumerate(chats) if chats else 'no models'}, and no model is named"
            return RequestError.not_reached("F225", reason, "name one: --model NAME, or OPENAI_MODEL")
        model = chats[0]
    elif dialect in ("vllm", "ollama") and not any(name in (model, f"{model}:latest") for name in names):
        near = closest_match(model, names)
        hint = f"did you mean {near!r}?" if near else "name one of them: --model NAME"
        if software == "Ollama":
            hint = f"ollama pull {model}; or {hint}"
        return RequestError.not_reached(
            "F225", f"{target.endpoint} has no model {model!r}, but {_enumerate(names)}", hint
        )
    return target.model_copy(update={"dialect": dialect, "model": model})


def _enumerate(names: list[str]) -> str:
    names_text = ", ".join(names[:8])
    return f"{names_text} and {len(names) - 8} more" if len(names) > 8 else names_text or "none"


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A model server that runs on this machine."""

    address: str
    software: Software
    models: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The names of its models, in one line."""
        return _enumerate(list(self.models))


async def find_local_endpoints(ports: Iterable[int] | None = None) -> list[LocalEndpoint]:
    """Returns the model servers that answer on ports of this machine, in their order; None for the default ports."""
    async with HttpClient(FleetLimits()) as client:
        endpoints = await asyncio.gather(*(_probe_port(client, port) for port in ports or LOCAL_PORTS))
    return [endpoint for endpoint in endpoints if endpoint is not None]


async def _probe_port(client: HttpClient, port: int) -> LocalEndpoint | None:
    root = f"http://127.0.0.1:{port}"
    models = await _list_models(client, root)
    if models is None:
        return None
    software = identify_software(models) or LOCAL_PORTS.get(port, "")
    return LocalEndpoint(f"{root}/v1", software, tuple(model.id for model in models if not model.parent))


async def _list_models(client: HttpClient, root: str) -> tuple[ListedModel, ...] | None:
    """Returns the models that a server lists without a key; None if it does not."""
    answer = await client.exchange(root, HttpRequest("/v1/models"), {}, DISCOVERY_SECONDS)
    models = read_models(answer.received) if isinstance(answer, HttpResponse) else answer
    return None if isinstance(models, RequestError) else models


async def inspect_endpoint(target: Endpoint) -> Endpoint:
    """Returns an endpoint with the model that it lists without a key.

    It is returned unchanged if it does not list the model, or is on another machine: inspecting a project that is not
    trusted sends nothing to addresses that the project chooses.
    """
    if target.is_resolved or not is_loopback(target.endpoint):
        return target
    async with HttpClient(FleetLimits()) as client:
        models = await _list_models(client, target.endpoint.removesuffix("/v1")) or ()
    endpoint = resolve_endpoint(target, models, identify_software(models))
    return target if isinstance(endpoint, RequestError) else endpoint
