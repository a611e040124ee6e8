"""Ranks of sampled tokens without a compiler, compared with vLLM's own function.

They change vLLM, so they run in a process of their own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.real

SCRIPT = """
import torch
from vllm.v1.sample import sampler
from vllm.v1.sample.ops import logprobs as ops
from orchestra.fleet.vllm_cpu import token_ranks

token_ranks.install()
usual = ops.batched_count_greater_than._torchdynamo_orig_callable
chance = torch.Generator().manual_seed(0)
for rows in (1, 2, 33):
    scores = torch.randn(rows, 500, generator=chance).log_softmax(-1)
    scores[0, :7] = scores[0, 3]  # equal probabilities
    tokens = torch.randint(0, 500, (rows,), generator=chance)
    tokens[0] = 3
    ranks = sampler.Sampler.gather_logprobs(scores, 1, tokens).selected_token_ranks
    wanted = usual(scores, scores.gather(-1, tokens.unsqueeze(-1)))
    assert ranks.tolist() == wanted.tolist() and ranks.dtype == wanted.dtype
import torch._dynamo.utils
assert not torch._dynamo.utils.counters["frames"], "nothing was compiled"
"""


def test_token_ranks_are_those_of_vllm_and_compile_nothing() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
