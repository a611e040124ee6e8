"""LoRA adapters with random weights, for tests and measurements that need adapters without skills."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestra.fleet.weights.adapter_checks import LINEAR_LAYERS, layer_widths


def write_noise_adapter(
    folder: Path,
    model: Path,
    seed: int,
    *,
    rank: int = 8,
    strength: float = 0.05,
    layers: Sequence[str] = LINEAR_LAYERS,
) -> Path:
    """Writes an adapter for the model in a folder, in the format of peft's `save_pretrained`, and returns its folder.

    With the default strength its texts differ from the model's, and are still words. Needs numpy.
    """
    import numpy

    config = json.loads((model / "config.json").read_text("utf-8"))
    folder.mkdir(parents=True)
    chance = numpy.random.default_rng(seed)
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    size = 0
    for layer in range(config["num_hidden_layers"]):
        for name, (inputs, outputs) in layer_widths(config).items():
            if name not in layers:
                continue
            place = "self_attn" if name in LINEAR_LAYERS[:4] else "mlp"
            for part, shape, scale in (("lora_A", (rank, inputs), inputs**-0.5), ("lora_B", (outputs, rank), strength)):
                values = (chance.standard_normal(shape) * scale).astype(numpy.float32).tobytes()
                key = f"base_model.model.model.layers.{layer}.{place}.{name}.{part}.weight"
                header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [size, size + len(values)]}
                parts.append(values)
                size += len(values)
    packed = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(packed).to_bytes(8, "little") + packed + b"".join(parts))
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(layers),
        "task_type": "CAUSAL_LM",
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
