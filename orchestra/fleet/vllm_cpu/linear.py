"""Linear layers of a CPU server in float32: packed once, optionally in 8 bits, for any number of threads.

Imported inside vLLM's worker only, by `orchestra.fleet.vllm_cpu.worker`. vLLM 0.32 computes these layers with oneDNN
primitives that keep the number of threads from their creation. This module uses PyTorch's own products, which follow
`torch.set_num_threads`.

`quantization: int8` computes weights and activations in 8 bits (W8A8) with FBGEMM (Khudia et al. 2021,
https://arxiv.org/abs/2101.05615). On CPUs with AVX2 it is two to four times as fast as float32. Each output channel of
a weight has a scale, and so has each token, so that the result of a token does not depend on the rest of its batch.
Activations have outliers, most of all before the layers that go from wide to narrow (Dettmers et al. 2022,
*LLM.int8()*, https://arxiv.org/abs/2208.07339; Xiao et al. 2022, *SmoothQuant*, https://arxiv.org/abs/2211.10438), so
those layers stay in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from vllm.logger import init_logger

Product: TypeAlias = Callable[[torch.Tensor, Any, "torch.Tensor | None"], torch.Tensor]
"""`(x, weight, bias) -> x weightᵀ + bias`. The weight is packed inside, and the argument is ignored."""
WEIGHT_LEVELS = 64
"""Levels on each side of zero of an 8-bit weight. With 127, the sum of two products with unsigned activations would
overflow the 16 bits in which AVX2 adds them (`vpmaddubsw`): 2 · 255 · 64 < 2¹⁵.
"""
ACTIVATION_LEVELS = 127
ZERO_POINT = 128
"""FBGEMM's activations are unsigned: this value is zero."""
MIN_SCALE = 1e-12
"""Smaller scales are raised to this value, so that there is no division by zero."""
PACKED_BATCH_TOKENS = 32
"""The number of tokens for which the layout of float32 weights is optimized."""


def int8_product(weight: torch.Tensor) -> Product:
    """Returns a product in 8 bits.

    Args:
        weight: The weights, (outputs, inputs).
    """
    scales = (weight.abs().amax(1) / WEIGHT_LEVELS).clamp_min(MIN_SCALE)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        # A deprecation in a later PyTorch. This module is for known versions.
        warnings.filterwarnings("ignore", "torch.quantize_per", UserWarning)
        quantized_weight = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed_weight = torch.ops.quantized.linear_prepack(quantized_weight, None)
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32

    def product(x: torch.Tensor, _weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        largest = rows.abs().amax(1, keepdim=True).clamp_min_(MIN_SCALE)
        y: torch.Tensor = multiply(rows / largest, 1 / ACTIVATION_LEVELS, ZERO_POINT, packed_weight).mul_(largest)
        return (y if bias is None else y.add_(bias)).view(*x.shape[:-1], -1)

    return product


def float32_product(weight: torch.Tensor) -> Product:
    """Returns a product in float32 with PyTorch's oneDNN, whose primitives are renewed when the number of threads
    changes.
    """
    packed_weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_BATCH_TOKENS)

    def product(x: torch.Tensor, _weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed_weight, bias, "none", [], "")
        return y

    return product


def fits_int8(weight: torch.Tensor) -> bool:
    """Whether a layer is computed in 8 bits: it does not go from wide to narrow, and this PyTorch has FBGEMM."""
    outputs, inputs = weight.shape
    return bool(outputs >= inputs and "fbgemm" in torch.backends.quantized.supported_engines)


def install(int8: bool) -> None:
    """Makes vLLM use these products for linear layers of float32 models. Other layers keep vLLM's own."""
    from vllm.model_executor.layers import utils

    usual = utils.dispatch_cpu_unquantized_gemm

    def dispatch(layer: Any, remove_weight: bool) -> None:
        weight = layer.weight
        if weight.is_meta or weight.ndim != 2 or weight.dtype != torch.float32:
            usual(layer, remove_weight)
            return
        layer.cpu_linear = (int8_product if int8 and fits_int8(weight) else float32_product)(weight.detach())
        if remove_weight:
            layer.weight = torch.nn.Parameter(torch.empty(0, dtype=weight.dtype), requires_grad=False)

    utils.dispatch_cpu_unquantized_gemm = dispatch
    init_logger("vllm.plugins.orchestra").info("orchestra: linear layers in %s", "8 bits" if int8 else "float32")
