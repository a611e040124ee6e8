"""The mean of two adapters: the mean of their effects on a layer, up to their rank."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from bench.adapter_mean import DOWN, MANIFEST, UP, WEIGHTS, mean, mean_of_arrays, write, write_encoder  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402

LAYER = "model.layers.0.q_proj"


def adapter(seed: int, rank: int = 4, wide: int = 16, given: int = 12) -> dict[str, Any]:
    chance = torch.Generator().manual_seed(seed)
    return {
        LAYER + DOWN: torch.randn(rank, given, generator=chance),
        LAYER + UP: torch.randn(wide, rank, generator=chance),
    }


def added(weights: dict[str, Any]) -> Any:
    """The effect of an adapter on its layer."""
    return weights[LAYER + UP].float() @ weights[LAYER + DOWN].float()


def test_mean_with_itself_is_unchanged() -> None:
    one = adapter(1)
    assert torch.allclose(added(mean(one, one)), added(one), atol=1e-4)


def test_mean_is_exact_within_rank() -> None:
    one, other = adapter(1), adapter(2)
    other[LAYER + DOWN] = one[LAYER + DOWN]  # the sum of their effects has rank one
    assert torch.allclose(added(mean(one, other)), (added(one) + added(other)) / 2, atol=1e-4)


def test_mean_beyond_rank_is_best_approximation() -> None:
    one, other = adapter(1), adapter(2)
    middle = (added(one) + added(other)) / 2
    left = torch.linalg.svdvals(middle)[4:].square().sum()
    assert float((added(mean(one, other)) - middle).square().sum()) == pytest.approx(float(left), rel=1e-3)


def test_mean_keeps_names_shapes_types(tmp_path: Path) -> None:
    one, other = ({name: tensor.bfloat16() for name, tensor in adapter(seed).items()} for seed in (1, 2))
    made = mean(one, other)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in made.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in one.items()
    }


def test_mean_of_different_ranks_refused() -> None:
    with pytest.raises(ValueError, match="not of the same layers and rank"):
        mean(adapter(1), adapter(2, rank=2))


def test_mean_of_other_weights_or_scales_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bias is no weight of LoRA"):
        mean(adapter(1) | {"bias": torch.zeros(1)}, adapter(2) | {"bias": torch.zeros(1)})
    for name, alpha in (("before", 32), ("trained", 16)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
    with pytest.raises(ValueError, match="alpha 16, 32"):
        write(tmp_path / "before", tmp_path / "trained", tmp_path / "out")


def test_mean_folder_records_averaging(tmp_path: Path) -> None:
    for name, seed in (("before", 1), ("trained", 2)):
        (tmp_path / name).mkdir()
        safetensors.save_file(adapter(seed), tmp_path / name / WEIGHTS)
        (tmp_path / name / MANIFEST).write_text(
            json.dumps({"sha256": name, "command": "orchestra learn train", "rank": 4})
        )
        (tmp_path / name / "adapter_config.json").write_text('{"lora_alpha": 32}')
    write(tmp_path / "before", tmp_path / "trained", tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["sha256"] == hashlib.sha256((tmp_path / "out" / WEIGHTS).read_bytes()).hexdigest()
    assert manifest["command"] == "orchestra learn train; python -m bench.adapter_mean ADAPTER TRAINED OUT"
    assert (manifest["rank"], (tmp_path / "out" / "adapter_config.json").exists()) == (4, True)


def encoder(seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    made = {
        "down.layer": chance.normal(size=(1, 4, 12)),
        "up.layer": chance.normal(size=(1, 16, 4)),
        "sharpness": np.array([seed]),
    }
    directions = chance.normal(size=(1, 3, 12))
    made["prototypes"] = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    return {name: array.astype(np.float32 if name == "sharpness" else np.float16) for name, array in made.items()}


def test_mean_of_encoders_averages_adapters_and_arrays(tmp_path: Path) -> None:
    one, other = encoder(1), encoder(3)
    other["down.layer"] = one["down.layer"]
    made = mean_of_arrays(one, other)
    assert {name: (array.shape, array.dtype) for name, array in made.items()} == {
        name: (one[name].shape, one[name].dtype) for name in one
    }
    added = [np.asarray(arrays["up.layer"][0] @ arrays["down.layer"][0], np.float32) for arrays in (one, other, made)]
    assert np.allclose(added[2], (added[0] + added[1]) / 2, atol=0.05)
    assert made["sharpness"] == [2.0]
    assert np.allclose(np.linalg.norm(made["prototypes"].astype(np.float32), axis=-1), 1, atol=1e-2)
    with pytest.raises(ValueError, match="not of the same layers"):
        mean_of_arrays(one, {**other, "sharpness": np.zeros(2)})

    for name, arrays in (("one", one), ("other", other)):
        text, data = pack_arrays({"format": "orchestra/committee/v1", "arrays": "adapters.npz", "of": name}, arrays)
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text(text)
        (tmp_path / name / "adapters.npz").write_bytes(data)
    said = write_encoder(tmp_path / "one", tmp_path / "other", tmp_path / "mean")
    assert json.loads((tmp_path / "mean" / "model.json").read_text())["of"] == "other"
    assert hashlib.sha256((tmp_path / "mean" / "adapters.npz").read_bytes()).hexdigest() == said
    with np.load(tmp_path / "mean" / "adapters.npz") as found:
        assert all(np.array_equal(found[name], array) for name, array in made.items())
