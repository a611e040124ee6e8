"""Base models: the list over all fleets, and the fleet file of a folder, a GGUF file or a hub repository."""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.errors import FleetError, InputError
from orchestra.fleet.base_models import (
    MAX_CONFIG_BYTES,
    HubModel,
    find_model,
    fleet_name,
    fleet_text,
    list_base_models,
    read_model_folder,
)
from orchestra.fleet.config import FleetConfig, FolderSource, HubSource, parse_config
from orchestra.fleet.memory import AvailableMemory
from orchestra.fleet.progress import ignore_progress
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.weights import ModelStore

from .conftest import Visit, endpoints, raw_server

QWEN = {"model_type": "qwen2", "max_position_embeddings": 32768}


def write_model(
    folder: Path, config: Mapping[str, Any] | None = QWEN, weights: str = "model.safetensors", elements: int = 1
) -> Path:
    """Writes a folder with a configuration and one tensor of zeros, in a sparse file."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    tensor = {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}
    header = json.dumps({"a": tensor}).encode()
    with (folder / weights).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * elements)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(Folders.from_environment({"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}))


async def test_find_model_folder_makes_a_fleet_that_can_be_read(tmp_path: Path, store: ModelStore) -> None:
    found = await find_model(str(write_model(tmp_path / "My Qwen")), store, ignore_progress)
    text = fleet_text("my_qwen", found, device="cpu", model="my_qwen")
    ((name, server),) = parse_config(text, str(tmp_path / "my_qwen.yaml")).local_servers.items()
    assert (name, server.max_model_len, server.device) == ("my_qwen", 8192, "cpu")
    assert (server.quantization, server.max_loras) == ("auto", 8)
    assert server.weights.sources == (FolderSource(folder=str((tmp_path / "My Qwen").resolve())),)
    config = parse_config(text, "f.yaml")
    assert config.servers_for("base") == config.servers_for("large") == ("my_qwen",)


@pytest.mark.parametrize(
    ("config", "weights", "reason"),
    [
        (None, "model.safetensors", "has no config.json with safetensors"),
        (QWEN, "pytorch_model.bin", "has no config.json with safetensors"),
        ({**QWEN, "model_type": "mamba"}, "model.safetensors", "unknown family 'mamba'"),
        ({**QWEN, "padding": " " * MAX_CONFIG_BYTES}, "model.safetensors", "is larger than 1 MiB"),
        ({"model_type": "qwen2"}, "model.safetensors", "has no max_position_embeddings"),
        ({**QWEN, "quantization_config": {"quant_method": "bits"}}, "model.safetensors", "unknown format 'bits'"),
        ({**QWEN, "quantization_config": {}}, "model.safetensors", "unknown format 'unknown'"),
        ({**QWEN, "max_position_embeddings": True}, "model.safetensors", "has no max_position_embeddings"),
    ],
)
def test_read_model_folder_that_cannot_be_served_is_refused(
    tmp_path: Path, config: Mapping[str, Any] | None, weights: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_model_folder(write_model(tmp_path / "m", config, weights))
    assert caught.value.code == "F107"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_fleet_text_names_the_format_of_quantized_weights(tmp_path: Path, device: Any) -> None:
    folder = write_model(tmp_path / "m", {**QWEN, "quantization_config": {"quant_method": "awq"}})
    text = fleet_text("m", read_model_folder(folder), device=device, model="m")
    assert parse_config(text, "m.yaml").local_servers["m"].quantization == "awq"


def test_read_model_folder_with_code_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", {**QWEN, "auto_map": {"AutoModel": "evil.Model"}})
    with pytest.raises(FleetError) as caught:
        read_model_folder(folder)
    assert caught.value.code == "F007"


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "../x y", ""])
async def test_find_model_unknown_source_is_refused(store: ModelStore, source: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        await find_model(source or str(tmp_path / "file.txt"), store, ignore_progress)
    assert caught.value.code == "F107"


async def test_find_model_other_file_is_refused(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="neither a folder nor a GGUF file"):
        await find_model(str(tmp_path / "model.bin"), store, ignore_progress)


async def test_find_model_gguf_is_checked_before_its_conversion(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(bytes(100))
    with pytest.raises(FleetError, match="it is not a GGUF file") as caught:
        await find_model(str(tmp_path / "model.gguf"), store, ignore_progress)
    assert caught.value.code == "F007"


def hub(answer: Any, status: str = "200 OK") -> Callable[[Visit], Awaitable[None]]:
    return lambda visit: visit.answer(json.dumps(answer).encode(), status)


async def test_find_model_of_the_hub_has_its_size_and_licence(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [("model.safetensors", 7), ("config.json", 2), ("README.md", 100)]
    answer = {
        "sha": "abc",
        "tags": ["license:apache-2.0"],
        "siblings": [{"rfilename": name, "size": size} for name, size in files],
    }
    async with raw_server(hub(answer)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        found = await find_model("Qwen/Qwen2.5-0.5B", store, ignore_progress)
    assert server.visits[0].head.startswith("GET /api/models/Qwen/Qwen2.5-0.5B?blobs=true ")
    assert found == HubModel("Qwen/Qwen2.5-0.5B", "abc", "apache-2.0", 9)
    text = fleet_text("qwen", found, device="gpu", model="qwen")
    (local,) = parse_config(text, "qwen.yaml").local_servers.values()
    (source,) = local.weights.sources
    assert isinstance(source, HubSource)
    assert (source.hub, source.revision, local.weights.licence) == ("Qwen/Qwen2.5-0.5B", "abc", "apache-2.0")


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"siblings": [{"rfilename": "model.bin"}]}, "200 OK", "F107"),
        ({"error": "no"}, "200 OK", "F107"),
        ({"error": "Repository not found"}, "404 Not Found", "F003"),
    ],
)
async def test_find_model_of_the_hub_without_safetensors_is_refused(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, answer: Any, status: str, code: str
) -> None:
    async with raw_server(hub(answer, status)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises((InputError, FleetError)) as caught:
            await find_model("owner/name", store, ignore_progress)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2_5_0_5b_instruct"),
        ("/models/My Model.gguf", "my_model"),
        ("/models/7b/", "model_7b"),
        ("/models/---", "model"),
    ],
)
def test_fleet_name_is_valid(source: str, name: str) -> None:
    assert fleet_name(source) == name


def local_fleet(folder: Path, device: str = "cpu") -> FleetConfig:
    found = read_model_folder(write_model(folder))
    text = fleet_text("own", found, device="gpu" if device == "gpu" else "cpu", model="own")
    return parse_config(text, "own.yaml")


def test_list_base_models_says_what_fits(tmp_path: Path, store: ModelStore) -> None:
    configs = {"own": local_fleet(tmp_path / "m"), "far": endpoints("http://127.0.0.1:9")}
    small, large = AvailableMemory(10, "the memory of the machine"), AvailableMemory(1 << 40, "the same")
    own, far = list_base_models(configs, store, large)
    assert (own.fleet, own.model, own.installed, own.refusal) == ("own", "own", True, "")
    assert own.weights_bytes == (tmp_path / "m" / "model.safetensors").stat().st_size
    assert (far.installed, far.source) == (None, "http://127.0.0.1:9/v1")
    own, _ = list_base_models(configs, store, small)
    assert "needs at least" in own.refusal


def test_list_base_models_gpu_needs_its_driver(
    tmp_path: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "driver"
    monkeypatch.setattr("orchestra.fleet.base_models.GPU_DEVICES", (driver,))
    configs = {"own": local_fleet(tmp_path / "m", "gpu")}
    assert [model.refusal for model in list_base_models(configs, store, None)] == [
        "own needs a GPU, and this machine has none"
    ]
    driver.touch()
    assert [model.refusal for model in list_base_models(configs, store, None)] == [""]
