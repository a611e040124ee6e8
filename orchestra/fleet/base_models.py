"""Base models for local servers: the ones in the fleet files, and the fleet file of a model of the user."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from orchestra.core.errors import FleetError, InputError
from orchestra.core.xdg import expand_home
from orchestra.fleet.config import Endpoint, FleetConfig, FleetLimits, LocalServer
from orchestra.fleet.http.client import HttpClient, HttpRequest
from orchestra.fleet.http.openai_protocol import ChatRequest
from orchestra.fleet.memory import AvailableMemory, check_memory, weights_bytes
from orchestra.fleet.progress import ProgressCallback
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.fleet.weights.weights import ModelStore, convert_file, find_weights

CONFIG = "config.json"
MAX_CONFIG_BYTES = 1 << 20
MAX_CONTEXT = 8192
"""Tokens of context in a new fleet file: more needs more memory, and no packaged agent uses more."""
FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "mistral", "smollm3")
"""`model_type` of the families that vLLM serves with LoRA adapters:
https://docs.vllm.ai/en/latest/models/supported_models.html.
"""
QUANTIZATIONS = ("awq", "gptq", "fp8", "compressed-tensors")
"""`quant_method` of weights that vLLM serves and whose format a fleet file can name."""
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""Device files of the drivers of NVIDIA and AMD."""
HUB_ADDRESS = "https://huggingface.co"
HUB_SECONDS = 20.0
Device: TypeAlias = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model in a fleet file."""

    fleet: str
    server: str
    model: str
    source: str
    """Where its weights come from, or the address of its endpoint."""
    installed: bool | None
    """Whether its weights are on this machine; None for an endpoint."""
    download_bytes: int
    weights_bytes: int
    refusal: str
    """Why it cannot run now: the memory that is available, or a missing GPU. Empty if it can."""


def list_base_models(
    configs: Mapping[str, FleetConfig], model_store: ModelStore, memory: AvailableMemory | None
) -> Iterator[BaseModel]:
    """Yields the models of fleets by name, in their order."""
    for fleet, config in configs.items():
        for name, server in config.servers.items():
            if isinstance(server, Endpoint):
                yield BaseModel(fleet, name, server.model, server.endpoint, None, 0, 0, "")
                continue
            first = (model_store.sources(server.weights) or server.weights.sources)[0]
            yield BaseModel(
                fleet,
                name,
                server.model,
                first.title,
                find_weights(server.weights, model_store) is not None,
                first.download_bytes,
                weights_bytes(server, model_store) or first.disk_bytes,
                _refusal(name, server, model_store, memory),
            )


def _refusal(name: str, server: LocalServer, model_store: ModelStore, memory: AvailableMemory | None) -> str:
    """Returns why a server cannot run on this machine now; empty if it can."""
    try:
        check_gpu(name, server.device)
        check_memory(name, server, model_store, memory)
    except FleetError as error:
        return error.message
    return ""


def check_gpu(name: str, device: Device) -> None:
    """Refuses a server for a GPU on a machine without the device files of a driver. Raises `FleetError` F227."""
    if device == "gpu" and not any(file.exists() for file in GPU_DEVICES):
        files = " nor ".join(map(str, GPU_DEVICES))
        raise FleetError(
            "F227", f"{name} needs a GPU, and this machine has none", why=f"there is neither {files}",
            hint="--device cpu; or install the driver of the GPU",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder of safetensors that a server can load."""

    folder: Path
    family: str
    context: int
    bytes: int
    quantization: str = ""
    """The format of quantized weights; empty for plain ones."""


def read_model_folder(folder: Path) -> ModelFolder:
    """Reads and checks a folder of a model.

    Raises:
        InputError: F107, it is not a folder of a model that can be served.
        FleetError: F007, a file is not safe to load.
    """
    hint = "name a folder with config.json, tokenizer files and *.safetensors, or a GGUF file"
    if not (folder / CONFIG).is_file() or not any(folder.glob("*.safetensors")):
        raise InputError("F107", f"{folder} has no {CONFIG} with safetensors", hint=hint)
    check_folder(folder)
    config = _read_config(folder / CONFIG)
    family = str(config.get("model_type", ""))
    if family not in FAMILIES:
        families_text = f"supported are {', '.join(FAMILIES)}"
        raise InputError("F107", f"{folder} has a model of the unknown family {family[:60]!r}", hint=families_text)
    context = config.get("max_position_embeddings")
    if not isinstance(context, int) or isinstance(context, bool) or context < 1:
        raise InputError("F107", f"{folder / CONFIG} has no max_position_embeddings", hint=hint)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    method = quantization_method(config)
    if method and method not in QUANTIZATIONS:
        reason = f"{folder} has weights in the unknown format {method[:60]!r}"
        raise InputError("F107", reason, hint=f"supported are {', '.join(QUANTIZATIONS)}, GGUF files and plain weights")
    return ModelFolder(folder.resolve(), family, context, size, method)


def quantization_method(config: Mapping[str, Any]) -> str:
    """Returns the format of the weights that a `config.json` states; empty for plain weights."""
    method = config.get("quantization_config")
    return str(method.get("quant_method") or "unknown") if isinstance(method, Mapping) else ""


def refuse_quantized(folder: Path) -> None:
    """Refuses a folder of quantized weights as the base of a training. Raises `InputError` N108."""
    if method := quantization_method(_read_config(folder / CONFIG)):
        raise InputError(
            "N108", f"the weights in {folder} are quantized ({method}), and cannot be trained", hint="use the original"
        )


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        data = path.read_bytes()
        if len(data) > MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {MAX_CONFIG_BYTES >> 20} MiB")
        return msgspec.json.decode(data, type=dict[str, Any])
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError("F107", f"{path} cannot be read: {error}", hint="download the model again") from error


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the Hugging Face hub, as its API describes it."""

    hub: str
    revision: str
    licence: str
    download_bytes: int


class _HubFile(msgspec.Struct):
    rfilename: str
    size: int | None = None


class _HubAnswer(msgspec.Struct):
    siblings: list[_HubFile]
    sha: str = ""
    gated: bool | str = False
    tags: list[str] = []


def read_hub_answer(hub: str, body: bytes) -> HubModel:
    """Reads the answer of `GET /api/models/ID?blobs=true` (https://huggingface.co/docs/hub/api).

    Raises:
        InputError: F107, the repository has no safetensors, or the answer is not of this API.
    """
    try:
        answer = msgspec.json.decode(body, type=_HubAnswer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            "F107", f"the hub's description of {hub} cannot be read: {str(error)[:200]}", hint="check HF_ENDPOINT"
        ) from error
    sizes = [file.size or 0 for file in answer.siblings if file.rfilename.endswith((".safetensors", ".json"))]
    if not any(file.rfilename.endswith(".safetensors") for file in answer.siblings):
        raise InputError("F107", f"{hub} has no safetensors", hint="choose a repository with *.safetensors")
    licence = next((tag.removeprefix("license:") for tag in answer.tags if tag.startswith("license:")), "unknown")
    return HubModel(hub, answer.sha or "main", licence, max(1, sum(sizes)))


async def find_model(source: str, model_store: ModelStore, progress: ProgressCallback) -> ModelFolder | HubModel:
    """Returns the model of a folder, of a GGUF file, which is converted, or of a repository of the hub.

    Raises:
        InputError: F107, the source is none of these.
        FleetError: F003, the hub cannot be reached, or the conversion failed; F007, a file is not safe to load.
    """
    local = await asyncio.to_thread(_find_local, source)
    if isinstance(local, Path):
        local = read_model_folder(await convert_file(local, model_store, progress))
    if local is not None:
        return local
    if HUB_ID.fullmatch(source):
        return await _ask_hub(source)
    raise InputError("F107", f"{source}: no such file or folder", hint="or name a model of the hub: OWNER/NAME")


def _find_local(source: str) -> ModelFolder | Path | None:
    """Returns the model of a folder, the path of a GGUF file, or None if there is no such file."""
    path = expand_home(source)
    if path.is_dir():
        return read_model_folder(path)
    if path.is_file() and path.suffix != ".gguf":
        raise InputError("F107", f"{path} is neither a folder nor a GGUF file", hint="name the folder of the model")
    return path if path.is_file() else None


async def _ask_hub(hub: str) -> HubModel:
    root = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB_ADDRESS
    request = HttpRequest(f"/api/models/{hub}?blobs=true")
    async with HttpClient(FleetLimits()) as client:
        answer = await client.exchange(root, request, {}, HUB_SECONDS)
    if isinstance(answer, RequestError):
        hint = "check the name and your connection; HF_ENDPOINT names a mirror"
        raise FleetError("F003", f"the hub does not describe {hub}: {answer.reason}", hint=hint)
    return read_hub_answer(hub, answer.received)


async def ask_model(config: FleetConfig, model_store: ModelStore, progress: ProgressCallback) -> str:
    """Starts the server of a fleet of `fleet_text` and returns its answer to a short question.

    Raises:
        FleetError: The server did not start, or did not answer.
    """
    from orchestra.fleet.dispatch import Fleet

    async with Fleet.open(config, cards={}, progress=progress, model_store=model_store) as fleet:
        await fleet.wait_until_ready()
        chat = ChatRequest(messages=[{"role": "user", "content": "Say hello in one short sentence."}], max_output=32)
        reply = await fleet.client.chat(config.name, chat)
    if isinstance(reply, RequestError):
        raise FleetError(reply.code, reply.reason, hint=reply.hint)
    return reply.text.strip()


def fleet_text(name: str, source: ModelFolder | HubModel, *, device: Device, model: str) -> str:
    """Returns the text of a fleet file with one local server.

    Args:
        name: The name of the fleet and of its server.
        source: The weights.
        device: Where the server computes.
        model: The model name in requests.
    """
    if isinstance(source, ModelFolder):
        context, licence = min(source.context, MAX_CONTEXT), "that of the model in this folder"
        weights = [f"        - folder: {json.dumps(str(source.folder), ensure_ascii=False)}"]
        title = f"{source.family}, {source.bytes / 1e9:.1f} GB of weights in {source.folder.name}"
    else:
        context, licence = MAX_CONTEXT, source.licence
        weights = [
            f"        - hub: {source.hub}",
            f"          revision: {json.dumps(source.revision)}",
            f"          download_bytes: {source.download_bytes}",
        ]
        title = f"{source.hub}, {source.download_bytes / 1e9:.1f} GB"
    method = source.quantization if isinstance(source, ModelFolder) else ""
    lines = [f"    quantization: {method}"] if method else []
    if device == "cpu":
        lines = lines or ["    quantization: auto            # int8 on a CPU without bfloat16"]
        lines.append("    kv_cache_gib: 1")
    return "\n".join(
        [
            f"# Written by `orchestra fleet add`. {title}.",
            "schema: orchestra/fleet/v1",
            f"name: {name}",
            "servers:",
            f"  {name}:",
            f"    model: {json.dumps(model)}",
            f"    device: {device}",
            f"    max_model_len: {context}",
            "    max_loras: 8                  # adapters in one batch",
            *lines,
            "    weights:",
            f"      licence: {json.dumps(licence)}",
            "      sources:",
            *weights,
            "models:",
            f"  base: {name}",
            "default: base                   # serves every model name of the agents",
            "",
        ]
    )


def fleet_name(source: str) -> str:
    """Returns a name for the fleet of a source: its last part in small letters, digits and underscores."""
    stem = source.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".gguf").lower()
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")[:48]
    return name if name[:1].isalpha() else f"model_{name}".rstrip("_")
