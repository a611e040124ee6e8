"""The mean of two adapters: of one that a training began with, and of what it came to.

    python -m bench.adapter_mean BEFORE TRAINED OUT

A short training on new kinds of rows makes an adapter better at them and a little worse at what it could; weights in the middle keep most
of both (Wortsman et al. 2022, “Model soups”, https://arxiv.org/abs/2203.05482). What is averaged is the product of each pair of LoRA
matrices; what is written is the best approximation of their rank. OUT gets the settings and the manifest of TRAINED, with what was done;
the steps and the losses in it are of that training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, MANIFEST, SETTINGS = "adapter_model.safetensors", "manifest.json", "adapter_config.json"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def mean(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in the middle, of the same names, shapes and types. Raises `ValueError` for adapters of different layers or ranks, and
    for weights that are not of LoRA."""
    import torch

    if {name: tensor.shape for name, tensor in one.items()} != {name: tensor.shape for name, tensor in other.items()}:
        raise ValueError("the adapters are not of the same layers and rank")
    if strange := [name for name in one if not name.endswith((DOWN, UP))]:
        raise ValueError(f"{strange[0]} is no weight of LoRA")
    made: dict[str, Tensor] = {}
    for down in (name for name in one if name.endswith(DOWN)):
        up = down.removesuffix(DOWN) + UP
        rank = len(one[down])
        downs = torch.cat([one[down].float() * 0.5, other[down].float() * 0.5])
        ups = torch.cat([one[up].float(), other[up].float()], 1)
        left, small_left = torch.linalg.qr(ups)
        right, small_right = torch.linalg.qr(downs.T)
        u, values, v = torch.linalg.svd(small_left @ small_right.T)
        root = values[:rank].sqrt()
        made[up] = ((left @ u[:, :rank]) * root).to(one[up].dtype).contiguous()
        made[down] = ((v[:rank] @ right.T) * root[:, None]).to(one[down].dtype).contiguous()
    return made


def write(before: Path, trained: Path, out: Path) -> None:
    """Writes the folder of the mean. Raises `ValueError` for adapters that cannot be averaged."""
    from safetensors.torch import load_file, save_file

    scaled = {json.loads((folder / SETTINGS).read_text("utf-8"))["lora_alpha"] for folder in (before, trained)}
    if len(scaled) > 1:
        raise ValueError(f"the adapters are scaled differently: alpha {', '.join(map(str, sorted(scaled)))}")
    made = mean(load_file(before / WEIGHTS), load_file(trained / WEIGHTS))
    shutil.copytree(trained, out, dirs_exist_ok=True)
    save_file(made, out / WEIGHTS)
    manifest = json.loads((trained / MANIFEST).read_text("utf-8"))
    manifest["sha256"] = hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest()
    manifest["command"] += "; python -m bench.adapter_mean ADAPTER TRAINED OUT"
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def main() -> None:
    """Writes it, and says its digest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("before", "trained", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    write(given.before, given.trained, given.out)
    print(f"{given.out}: {json.loads((given.out / MANIFEST).read_text('utf-8'))['sha256']}")


if __name__ == "__main__":
    main()
