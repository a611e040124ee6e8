"""The cost of adapters per step on one core, without a server: the kernel of `orchestra.fleet.vllm_cpu.lora_kernel`
beside oneDNN's matrix products.

    python -m bench.adapter_kernel [--rounds 5]

The linear layers of the laptop's model with random weights, and five adapters of ranks 16 and 8 on all of them. The
layers are computed in turn, so caches are as cold as in a step. Prints milliseconds of processor time for the layers
alone and for the adapters, each the minimum over the rounds: with one adapter for all tokens, with five and none in
turn, and in prompts of 25 tokens.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

LAYERS = 30
SHAPES = ((576, (576, 192, 192)), (576, (576,)), (576, (1536, 1536)), (1536, (576,)))
"""SmolLM2-135M: input size and slices of the output size, for q, k, v; o; gate, up; down."""
RANKS = (16, 8, 16, 8, 16)


@dataclass(frozen=True)
class Layer:
    """A linear layer, and its adapters in vLLM's layout."""

    product: Callable[[Any], Any]
    stack: Any
    inputs: int


def layers() -> list[Layer]:
    """Returns all linear layers of the model."""
    import torch

    from orchestra.fleet.vllm_cpu.lora_product import AdapterStack, pack

    chance = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Any:
        return (torch.randn(*shape, generator=chance) * 0.02).to(torch.bfloat16)

    made = []
    for inputs, slices in SHAPES * LAYERS:
        down = [torch.zeros(len(RANKS), 1, max(RANKS), inputs, dtype=torch.bfloat16) for _ in slices]
        up = [torch.zeros(len(RANKS), 1, size, max(RANKS), dtype=torch.bfloat16) for size in slices]
        for a, b in zip(down, up, strict=True):
            for slot, rank in enumerate(RANKS):
                a[slot, 0, :rank], b[slot, 0, :, :rank] = noise(rank, inputs), noise(b.shape[2], rank)
        made.append(Layer(pack(noise(sum(slices), inputs)), AdapterStack.from_slots(down, up), inputs))
    return made


def least(rounds: int, ways: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Returns the minimal milliseconds of processor time of each variant; the variants alternate."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            best[name] = min(best[name], 1000 * (time.process_time() - began))
    return best


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # set before torch is imported: vLLM computes on one core
    import torch

    from orchestra.fleet.vllm_cpu import lora_product

    model, turns = layers(), torch.arange(len(RANKS) + 1) - 1
    print("| tokens | layers alone, ms | of | kernel adds | oneDNN adds |\n|---:|---:|---|---:|---:|")
    for count in (1, 4, 8, 16, 32, 64, 128, 256, 512):
        mixes = {"one adapter": torch.zeros(count, dtype=torch.long), "all in turn": turns.repeat(count)[:count]}
        mixes |= {"prompts of 25": turns.repeat_interleave(25).repeat(count)[:count]}
        given_x = {
            inputs: torch.randn(count, inputs).to(torch.bfloat16) for inputs in {layer.inputs for layer in model}
        }

        def step(few: bool | None, slots: Any, given_x: dict[int, Any] = given_x) -> None:
            made = lora_product.StepSlots(slots)
            made.use_kernel = bool(few)
            for layer in model:
                x = given_x[layer.inputs]
                y = layer.product(x)
                if few is not None:
                    lora_product.add_product(y, x, layer.stack, made)

        for name, slots in mixes.items():
            ways = {"alone": None, "kernel": True, "oneDNN": False}
            best = least(given.rounds, {way: partial(step, few, slots) for way, few in ways.items()})
            alone = best["alone"]
            print(
                f"| {count} | {alone:.1f} | {name} | {best['kernel'] - alone:.1f} | {best['oneDNN'] - alone:.1f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
