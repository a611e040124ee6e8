"""An adapter that contradicts its manifest, or is for another base, is refused before a server gets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.core.errors import FleetError
from orchestra.fleet import adapters
from orchestra.fleet.config import LocalServer
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.adapter_checks import check_adapter, check_base, layer_widths
from orchestra.fleet.weights.weights import ModelStore

AGENTS = Path(__file__).resolve().parents[3] / "agents"
TUNED = [path.parent for path in sorted(AGENTS.glob("*/adapter/manifest.json"))]
SMALL = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 20,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}
PLACE = "base_model.model.model.layers.{layer}.self_attn.{name}.{part}.weight"


def tensors(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Writes a safetensors file of zeros."""
    header, size = {}, 0
    for name, shape in shapes.items():
        end = size + 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [size, end]}
        size = end
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + bytes(size)


def lora(
    folder: Path, *, rank: int = 4, hidden: int = 8, layer: int = 1, more: Mapping[str, Any] = {}, said: object = None
) -> Path:
    """Writes an adapter of two layers of one block."""
    folder.mkdir(parents=True, exist_ok=True)
    sides = {"q_proj": (hidden, hidden), "k_proj": (hidden, hidden // 2)}
    shapes = {PLACE.format(layer=layer, name=name, part="lora_A"): (rank, wide) for name, (wide, _) in sides.items()}
    shapes |= {PLACE.format(layer=layer, name=name, part="lora_B"): (wide, rank) for name, (_, wide) in sides.items()}
    (folder / "adapter_model.safetensors").write_bytes(tensors(shapes))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "bias": "none", **more}))
    if said is not None:
        (folder / "manifest.json").write_text(json.dumps(said))
    return folder


def base(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**SMALL, **config}))
    return folder


def refused(call: Any, *given: Path) -> str:
    with pytest.raises(FleetError) as caught:
        call(*given)
    assert caught.value.code == "F222"
    assert str(given[0]) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("folder", TUNED, ids=lambda folder: folder.parent.name)
def test_packaged_adapters_fit(folder: Path) -> None:
    assert check_adapter(folder).base == "smollm2-135m-instruct"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"peft_type": "IA3"}, "its type is IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "a bias"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"r": 64}, "has rank 4 and 4, and its adapter_config.json says 64"),
    ],
)
def test_adapter_unsupported_by_vllm_is_refused(tmp_path: Path, more: Mapping[str, Any], told: str) -> None:
    check_adapter(lora(tmp_path))
    assert told in refused(check_adapter, lora(tmp_path, more=more))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"sha256": "0" * 64}, "its weights differ from its manifest.json"),
        ({"rank": 16}, "its manifest.json says rank 16, and its adapter_config.json 4"),
        ({"base": 5}, "its manifest.json cannot be read"),
        ([], "its manifest.json cannot be read"),
    ],
)
def test_adapter_contradicting_manifest_is_refused(tmp_path: Path, said: object, told: str) -> None:
    assert told in refused(check_adapter, lora(tmp_path, said=said))


def test_adapter_foreign_tensors_are_refused(tmp_path: Path) -> None:
    path, name = lora(tmp_path) / "adapter_model.safetensors", PLACE.format(layer=0, name="q_proj", part="lora_A")
    path.write_bytes(tensors({name.replace("lora_A.weight", "lora_magnitude_vector"): (1, 8)}))
    assert "lora_magnitude_vector is not part of a LoRA" in refused(check_adapter, tmp_path)
    path.write_bytes(tensors({name: (4, 8)}))
    assert "has one of two matrices" in refused(check_adapter, tmp_path)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"hidden_size": 12, "head_dim": 2}, "q_proj.lora_A.weight is 8 wide, and the base 12 there"),
        ({"num_key_value_heads": 1}, "k_proj.lora_B.weight is 4 wide, and the base 2 there"),
        ({"num_hidden_layers": 1}, "it has weights of layer 2, and the base has 1 layers"),
        ({"text_config": {**SMALL, "hidden_size": 12}}, "the base 12 there"),
        ({"model_type": "unheard_of", "hidden_size": 12}, "the base 12 there"),
    ],
)
def test_adapter_shapes_of_another_base_are_refused(tmp_path: Path, config: Mapping[str, Any], told: str) -> None:
    folder = lora(tmp_path / "adapter")
    check_base(folder, base(tmp_path / "base"))
    assert told in refused(check_base, folder, base(tmp_path / "base", **config))


@pytest.mark.parametrize(
    "config",
    [{"model_type": "unheard_of", "num_key_value_heads": 1}, {"num_attention_heads": [4, 8]}, {"hidden_size": None}],
)
def test_adapter_unknown_base_is_not_checked(tmp_path: Path, config: Mapping[str, Any]) -> None:
    check_base(lora(tmp_path / "adapter"), base(tmp_path / "base", **config))
    check_base(tmp_path / "adapter", tmp_path / "nowhere")


def test_layer_widths() -> None:
    assert layer_widths(SMALL)["k_proj"] == (8, 4)
    assert layer_widths({**SMALL, "head_dim": 3})["o_proj"] == (12, 8)


def test_adapter_wrong_shapes_is_not_sent_to_server(tmp_path: Path) -> None:
    """An adapter of the fleet file, without a stated base."""
    weights = {"licence": "none", "sources": [{"folder": str(base(tmp_path / "base", hidden_size=12, head_dim=2))}]}
    said = {
        "model": "m",
        "weights": weights,
        "max_model_len": 100,
        "max_loras": 2,
        "adapters": {"skill": str(lora(tmp_path / "skill"))},
    }
    server = LocalServer.model_validate_json(json.dumps(said))
    card = Card.declare(
        "writer", input={"properties": {"text": {}}}, output={"type": "string"}, prompt="{{ text }}", adapter="skill"
    )
    model_store = ModelStore(Folders(tmp_path, tmp_path, tmp_path))
    with pytest.raises(FleetError, match="the base 12 there") as caught:
        adapters.load_adapter_files(card, server, model_store)
    assert caught.value.code == "F222"
    assert not model_store.folders.adapters.exists()
    base(tmp_path / "base")
    assert adapters.load_adapter_files(card, server, model_store).name.startswith("skill-")
