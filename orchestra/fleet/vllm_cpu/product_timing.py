"""Times matrix products of both data types on one core, and prints `MatmulSpeeds` as JSON.

`orchestra.fleet.cpu` runs it as `python -m orchestra.fleet.vllm_cpu.product_timing`, so that the supervisor does not
load PyTorch. The products are those of a step of the packaged model: a batch of 32 tokens through successive layers, so
that weights come from memory as in a server.
"""

from __future__ import annotations

import sys
import time

import msgspec
import torch

from orchestra.fleet.cpu import MatmulSpeeds

BATCH_TOKENS = 32
SHAPES = ((576, 960), (576, 576), (576, 3072), (1536, 576)) * 8
"""Inputs and outputs of the linear layers of eight blocks of SmolLM2-135M."""
ROUNDS = 8


def measure_speed(dtype: torch.dtype) -> float:
    """Returns billions of floating point operations per second: the best of a few rounds."""
    layers = [
        (torch.randn(BATCH_TOKENS, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype))
        for inputs, outputs in SHAPES
    ]
    best = float("inf")
    for _ in range(ROUNDS):
        start_time = time.perf_counter()
        for x, weight in layers:
            torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - start_time)
    return sum(2 * BATCH_TOKENS * inputs * outputs for inputs, outputs in SHAPES) / best / 1e9


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        found = MatmulSpeeds(bfloat16=measure_speed(torch.bfloat16), float32=measure_speed(torch.float32))
    sys.stdout.buffer.write(msgspec.json.encode(found))
