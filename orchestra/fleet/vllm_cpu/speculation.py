"""Speculative decoding without a second model: drafts from the request's own text and from earlier outputs.

Much of a specialist's output is predictable. It quotes its input, which vLLM's own drafter finds there (prompt lookup,
Saxena 2023), and the text around the quotes has the same braces, keys and phrases each time, which the n-gram cache
stores.

A draft changes the time of tokens, not the tokens: the model rejects a wrong draft. Sampled requests get no drafts, so
that the result of a seed does not depend on earlier outputs. Scored requests get none either, as they write one token.

Imported inside vLLM's worker only, by `orchestra.fleet.vllm_cpu.worker`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.v1.sample.rejection_sampler import RejectionSampler
from vllm.v1.spec_decode.ngram_proposer import NgramProposer

from orchestra.fleet.http.openai_protocol import TENANT_ARGUMENT
from orchestra.fleet.vllm_cpu.ngram_cache import MAX_CONTEXT_SIZE, NgramCache

MAX_STEP_GUESSES, MIN_REQUEST_GUESSES = 32, 4
"""The most draft tokens in one step of all requests together, and the fewest per request; below it there are none.

A step of so many tokens is still bound by memory. With sixteen requests of novel text a server wrote 206 tokens a
second with two drafts for each, and 237 with none (`python -m bench.adapters --rounds 1`, the base).
"""


def install(runner: Any, vllm_config: Any) -> None:
    """Installs this drafter in a runner that uses vLLM's n-gram drafter. Other runners are not changed."""
    if isinstance(getattr(runner, "drafter", None), NgramProposer):
        runner.drafter = NgramDrafter(vllm_config, runner)
        runner.rejection_sampler = GuardedRejectionSampler(runner.sampler, runner.speculative_config, runner.device)
        # Without it vLLM skips the drafter if one request is near its maximum length, and drafts zeros for all
        # requests.
        runner._input_fits_in_drafter = lambda metadata: metadata is not None


class GuardedRejectionSampler(RejectionSampler):  # type: ignore[misc]  # vLLM has no types here
    """Accepts drafts like vLLM's sampler, but none in a step in which a request asks for the probabilities of some
    tokens.

    vLLM 0.32 crashes there, because it fits the few probabilities into a row for all tokens (its issue 42592).
    """

    def forward(self, metadata: Any, draft_probs: Any, logits: torch.Tensor, sampling_metadata: Any) -> Any:
        """Returns the tokens of this step."""
        if not sampling_metadata.logprob_token_ids:
            return super().forward(metadata, draft_probs, logits, sampling_metadata)
        ends = metadata.cu_num_sampled_tokens  # the end of each request's rows: one for each draft, and one more
        firsts = torch.cat([ends.new_zeros(1), ends[:-1]])
        return self.sampler(logits=logits[firsts], sampling_metadata=sampling_metadata)


class NgramDrafter(NgramProposer):  # type: ignore[misc]  # vLLM has no types here
    """vLLM's drafter, extended by the n-gram cache, for the requests of a `runner`."""

    def __init__(self, vllm_config: Any, runner: Any) -> None:
        self._runner = runner
        self._ngram_cache = NgramCache()
        super().__init__(vllm_config)  # this calls `propose`
        # vLLM compiles it with an empty batch, which does not compile the loop: the first request would wait for
        # seconds.
        super().propose(self.k, [[1]], np.full(1, 8, np.int32), np.zeros((1, self.max_model_len), np.int32))

    def propose(
        self,
        num_speculative_tokens: int,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: Any,
        token_ids_cpu: Any,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Returns drafts for each request of the batch that has a token in this step."""
        copied_tokens = super().propose(num_speculative_tokens, sampled_token_ids, num_tokens_no_spec, token_ids_cpu)
        batch, proposals = self._runner.input_batch, list[list[int]]()
        max_guesses = MAX_STEP_GUESSES // max(len(sampled_token_ids), 1)
        max_tokens = min(num_speculative_tokens, max_guesses) if max_guesses >= MIN_REQUEST_GUESSES else 0
        for row, (tokens, row_tokens) in enumerate(zip(sampled_token_ids, copied_tokens, strict=True)):
            count = int(num_tokens_no_spec[row])
            room = min(max_tokens, self.max_model_len - count)
            name = batch.req_ids[row] if tokens else ""
            if not tokens or room <= 0 or name in batch.random_reqs or name in batch.logprob_token_ids:
                proposals.append([])
                continue
            extra_args = self._runner.requests[name].sampling_params.extra_args or {}
            owner = int(batch.request_lora_mapping[row]), str(extra_args.get(TENANT_ARGUMENT, ""))
            last = token_ids_cpu[row, max(count - len(tokens) - MAX_CONTEXT_SIZE, 0) : count].tolist()
            self._ngram_cache.learn(owner, last, len(tokens))
            proposals.append(self._ngram_cache.propose(owner, last, room) or row_tokens[:room])
        return proposals
