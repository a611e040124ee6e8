"""Norms on a CPU by the kernel that vLLM 0.32 brings for them, and on x86 does not call.

It computes a root mean square norm as eight operations of torch, twice a layer; of a step that writes a token for each of 16 requests
they are a seventh. Imported inside vLLM's worker only, by `orchestra.fleet.cpu_worker`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.layers.layernorm import RMSNorm


def install() -> None:
    """From now on norms are the kernel's where they are of the usual kind, and vLLM's operations elsewhere."""
    RMSNorm.forward_native = _by_kernel(RMSNorm.forward_native)


def _by_kernel(usual: Callable[..., Any]) -> Callable[..., Any]:
    plain, added = torch.ops._C.rms_norm.default, torch.ops._C.fused_add_rms_norm.default

    def forward_native(self: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        rows = (x,) if residual is None else (x, residual)
        weight = self.weight if self.has_weight else None
        like = all(one.is_contiguous() and one.dtype == (x if weight is None else weight).dtype for one in rows)
        if self.variance_size_override is not None or not like:
            return usual(self, x, residual)
        if residual is None:
            out = torch.empty_like(x)
            plain(out, x, weight, self.variance_epsilon)
            return out
        added(x, residual, weight, self.variance_epsilon)  # both in place, as vLLM's own callers allow
        return x, residual

    return forward_native
