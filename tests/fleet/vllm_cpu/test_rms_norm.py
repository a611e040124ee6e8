"""Norms by vLLM's kernel, compared with vLLM's own operations.

They change vLLM, so they run in a process of their own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.real

SCRIPT = """
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.layernorm import RMSNorm
from orchestra.fleet.vllm_cpu import rms_norm

usual = RMSNorm.forward_native
rms_norm.install()
installed = RMSNorm.forward_native
rms_norm.install()
assert RMSNorm.forward_native is installed, "twice is once"
with set_current_vllm_config(VllmConfig()):
    norm = RMSNorm(576, eps=1e-5, dtype=torch.bfloat16)
    narrow = RMSNorm(20, eps=1e-5, dtype=torch.bfloat16)
    bare = RMSNorm(576, eps=1e-5, has_weight=False, dtype=torch.bfloat16)
    half = RMSNorm(576, eps=1e-5, var_hidden_size=288, dtype=torch.bfloat16)
chance = torch.Generator().manual_seed(0)
norm.weight.data = torch.rand(576, generator=chance).to(torch.bfloat16) + 0.5
x, residual = (torch.randn(33, 576, generator=chance).to(torch.bfloat16) * 3 for _ in range(2))

def near(found, wanted):
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    torch.testing.assert_close(found.float(), wanted.float(), rtol=2**-6, atol=2**-6)

kept = x.clone()
near(norm.forward_native(x), usual(norm, kept))
assert torch.equal(x, kept), "a norm alone leaves its input as it is"
found, left = norm.forward_native(x.clone(), residual.clone())
wanted, rest = usual(norm, x.clone(), residual.clone())
near(found, wanted)
near(left, rest)
near(norm(x), usual(norm, x))
cube = x.view(3, 11, 576)
near(norm.forward_native(cube), usual(norm, cube))
near(bare.forward_native(x), usual(bare, x))
near(narrow.forward_native(x[:, :20]), usual(narrow, x[:, :20]))
for other in (residual.float(), torch.stack([residual, residual], -1)[..., 0]):
    found, left = norm.forward_native(x.clone(), other.clone() if other.dtype != x.dtype else other)
    wanted, rest = usual(norm, x.clone(), other)
    near(found, wanted)
    near(left, rest)
strided = torch.randn(33, 1152, generator=chance).to(torch.bfloat16)[:, ::2]
near(norm.forward_native(strided), usual(norm, strided))
near(half.forward_native(x), usual(half, x))
near(norm.forward_native(x.float()), usual(norm, x.float()))
from torch.profiler import ProfilerActivity, profile
with profile(activities=[ProfilerActivity.CPU]) as seen:
    norm.forward_native(x)
    norm.forward_native(x.clone(), residual.clone())
names = {event.name for event in seen.events()}
assert {"_C::rms_norm", "_C::fused_add_rms_norm"} <= names, names
print("alike")
"""


def test_rms_norm_kernel_equals_vllm() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("alike\n"), done.stderr[-3000:]
