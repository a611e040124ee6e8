"""The mean of two adapters: the one that a training started from, and its result.

    python -m bench.adapter_mean BEFORE TRAINED OUT

A short training on new kinds of rows improves an adapter on them and degrades it slightly on earlier ones; the mean of
the weights keeps most of both (Wortsman et al. 2022, “Model soups”, https://arxiv.org/abs/2203.05482). The averaged
quantity is the product of each pair of LoRA matrices; the written weights are its best approximation of their rank. OUT
gets the settings and the manifest of TRAINED, with a note about the averaging; steps and losses in it are those of that
training. For two encoders OUT gets the arrays, and the model file of TRAINED.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestra.agents.inference.array_files import pack_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Halves: TypeAlias = "tuple[Tensor, Tensor]"
"""The matrices of a layer's adapter: (rank, inputs) and (outputs, rank)."""
Arrays: TypeAlias = "Mapping[str, NDArray[Any]]"
WEIGHTS, MANIFEST, SETTINGS = "adapter_model.safetensors", "manifest.json", "adapter_config.json"
LAYOUT = "model.json"
"""The file of an encoder that names its arrays."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def mean(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the mean weights, with the same names, shapes and types.

    Raises:
        ValueError: The adapters have different layers or ranks, or the weights are not a LoRA.
    """

    if {name: tensor.shape for name, tensor in one.items()} != {name: tensor.shape for name, tensor in other.items()}:
        raise ValueError("the adapters are not of the same layers and rank")
    if strange := [name for name in one if not name.endswith((DOWN, UP))]:
        raise ValueError(f"{strange[0]} is no weight of LoRA")
    made: dict[str, Tensor] = {}
    for down in (name for name in one if name.endswith(DOWN)):
        up = down.removesuffix(DOWN) + UP
        made[down], made[up] = middle((one[down], one[up]), (other[down], other[up]))
    return made


def middle(one: Halves, other: Halves) -> Halves:
    """Returns the mean of two adapters of a layer, (outputs, inputs), as the best approximation of their rank."""
    import torch

    downs = torch.cat([one[0].float() * 0.5, other[0].float() * 0.5])
    ups = torch.cat([one[1].float(), other[1].float()], 1)
    left, small_left = torch.linalg.qr(ups)
    right, small_right = torch.linalg.qr(downs.T)
    u, values, v = torch.linalg.svd(small_left @ small_right.T)
    rank = len(one[0])
    root = values[:rank].sqrt()
    down, up = (v[:rank] @ right.T) * root[:, None], (left @ u[:, :rank]) * root
    return down.to(one[0].dtype).contiguous(), up.to(one[1].dtype).contiguous()


def mean_of_arrays(one: Arrays, other: Arrays) -> dict[str, NDArray[Any]]:
    """Returns the mean of the arrays of two encoders of one member. Arrays that are not adapters are averaged directly,
    and label prototypes are normalised to length 1.

    Raises:
        ValueError: The arrays have different names or shapes.
    """
    import numpy as np
    import torch

    if {name: array.shape for name, array in one.items()} != {name: array.shape for name, array in other.items()}:
        raise ValueError("the encoders are not of the same layers, rank and labels")
    made = {name: (one[name].astype(np.float32) + other[name]) / 2 for name in one}
    for layer in (name.removeprefix("down.") for name in one if name.startswith("down.")):
        names = f"down.{layer}", f"up.{layer}"
        halves = [
            tuple(torch.from_numpy(arrays[name][0].astype(np.float32)) for name in names) for arrays in (one, other)
        ]
        found = middle((halves[0][0], halves[0][1]), (halves[1][0], halves[1][1]))
        made |= {name: half.numpy()[None] for name, half in zip(names, found, strict=True)}
    if "prototypes" in made:
        made["prototypes"] /= np.linalg.norm(made["prototypes"], axis=-1, keepdims=True)
    return {name: array.astype(one[name].dtype) for name, array in made.items()}


def write_encoder(before: Path, trained: Path, out: Path) -> str:
    """Writes the files of the mean of two encoders and returns the digest of its arrays.

    Raises:
        ValueError: The encoders cannot be averaged.
    """
    import numpy as np

    layout = json.loads((trained / LAYOUT).read_text("utf-8"))
    arrays = [dict(np.load(folder / layout["arrays"])) for folder in (before, trained)]
    text, data = pack_arrays({key: value for key, value in layout.items() if key != "sha256"}, mean_of_arrays(*arrays))
    out.mkdir(parents=True, exist_ok=True)
    (out / layout["arrays"]).write_bytes(data)
    (out / LAYOUT).write_text(text, "utf-8")
    return str(json.loads(text)["sha256"])


def write(before: Path, trained: Path, out: Path) -> None:
    """Writes the folder of the mean.

    Raises:
        ValueError: The adapters cannot be averaged.
    """
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
    """Writes the mean and prints its digest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("before", "trained", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    if (given.trained / LAYOUT).is_file():
        print(f"{given.out}: {write_encoder(given.before, given.trained, given.out)}")
        return
    write(given.before, given.trained, given.out)
    print(f"{given.out}: {json.loads((given.out / MANIFEST).read_text('utf-8'))['sha256']}")


if __name__ == "__main__":
    main()
