"""RMS norms on a CPU with a kernel that vLLM 0.32 includes but does not use on x86.

vLLM computes a root mean square norm with eight operations of torch, twice a layer. In a step that decodes a token for
each of 16 requests they take a seventh. Imported inside vLLM's worker only, by `orchestra.fleet.vllm_cpu.worker`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from vllm.logger import init_logger
from vllm.model_executor.layers.layernorm import RMSNorm

WIDTH_MULTIPLE = 8
"""The kernel requires widths that are a multiple of its vectors, in 16-bit numbers."""


def install() -> None:
    """Makes norms of the usual kind use the kernel. Others keep vLLM's operations. Further calls do nothing."""
    if not hasattr(RMSNorm.forward_native, "__wrapped__"):
        RMSNorm.forward_native = _use_kernel(RMSNorm.forward_native)
        init_logger("vllm.plugins.orchestra").info("orchestra: norms by vLLM's kernel")


def _use_kernel(usual: Callable[..., Any]) -> Callable[..., Any]:
    plain, add_kernel = torch.ops._C.rms_norm.default, torch.ops._C.fused_add_rms_norm.default

    @wraps(usual)
    def forward_native(self: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        """Computes the norm with the kernel if the kernel supports the arguments, otherwise with vLLM's operations."""
        weight = self.weight if self.has_weight else None
        fits = weight is None or (weight.dtype == x.dtype and weight.shape == x.shape[-1:])
        if not fits or x.shape[-1] % WIDTH_MULTIPLE or self.variance_size_override is not None:
            return usual(self, x, residual)
        if residual is None:
            out = torch.empty(x.shape, dtype=x.dtype)
            plain(out, x.contiguous(), weight, self.variance_epsilon)
            return out
        if (
            residual.shape != x.shape
            or residual.dtype != x.dtype
            or not (x.is_contiguous() and residual.is_contiguous())
        ):
            return usual(self, x, residual)
        add_kernel(x, residual, weight, self.variance_epsilon)  # both in place, as vLLM's own callers allow
        return x, residual

    return forward_native
