"""LoRA adapters full of noise: for tests and measurements that need adapters, and no skill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder of the Llama family, by peft's names."""


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of those layers, from a model's `config.json`."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    sides = ((hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden), (hidden, inner), (hidden, inner), (inner, hidden))
    return dict(zip(LINEAR, sides, strict=True))


def noisy_adapter(folder: Path, model: Path, seed: int, *, rank: int = 8, strength: float = 0.05, layers: Sequence[str] = LINEAR) -> Path:
    """Writes an adapter for the model in a folder, as peft's `save_pretrained` does, and gives its folder.

    With the default strength its texts are unlike the model's own, and still words. Needs numpy.
    """
    import numpy

    config = json.loads((model / "config.json").read_text("utf-8"))
    folder.mkdir(parents=True)
    chance = numpy.random.default_rng(seed)
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    size = 0
    for layer in range(config["num_hidden_layers"]):
        for name, (inputs, outputs) in shapes(config).items():
            if name not in layers:
                continue
            place = "self_attn" if name in LINEAR[:4] else "mlp"
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
