"""Guesses of what a request writes next, which a step checks all at once: from the request's own words, and from what
was
written before.

Most of what a specialist writes can be guessed. It quotes its input, which vLLM's own drafter looks up there (prompt
lookup, Saxena 2023);
and around the quotes it writes the same braces, keys and turns of phrase each time, which the n-gram cache stores.

A guess changes when tokens come, and not which: a wrong one is thrown away by the model. Requests that draw by chance
get none, so that
what a seed draws does not depend on what others wrote before; nor do those that are scored, which write one token.

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
"""Tokens that are guessed in one step for all its requests together, at most; and for each of them at least, else none
is.

A step of so many tokens still waits for memory. Of sixteen requests of novel text a server wrote 206 tokens a second
with two guesses for
each, and 237 with none (`python -m bench.adapters --rounds 1`, the base).
"""


def install(runner: Any, vllm_config: Any) -> None:
    """From now on a runner of vLLM's that guesses by looking up does so as this module has it; any other is left alone."""
    if isinstance(getattr(runner, "drafter", None), NgramProposer):
        runner.drafter = NgramDrafter(vllm_config, runner)
        runner.rejection_sampler = GuardedRejectionSampler(runner.sampler, runner.speculative_config, runner.device)
        # Else vLLM asks no drafter where one request is nearly as long as it may be, and guesses zeros for all of them.
        runner._input_fits_in_drafter = lambda metadata: metadata is not None


class GuardedRejectionSampler(RejectionSampler):  # type: ignore[misc]  # vLLM has no types here
    """What says which guesses stand; in a step in which a request asks for the probabilities of some tokens, none.

    There vLLM 0.32 ends, for it fits the few probabilities into a row for all tokens (its issue 42592).
    """

    def forward(self, metadata: Any, draft_probs: Any, logits: torch.Tensor, sampling_metadata: Any) -> Any:
        """The tokens of this step."""
        if not sampling_metadata.logprob_token_ids:
            return super().forward(metadata, draft_probs, logits, sampling_metadata)
        ends = metadata.cu_num_sampled_tokens  # of each request's rows: one for each guess, and one more
        firsts = torch.cat([ends.new_zeros(1), ends[:-1]])
        return self.sampler(logits=logits[firsts], sampling_metadata=sampling_metadata)


class NgramDrafter(NgramProposer):  # type: ignore[misc]  # vLLM has no types here
    """vLLM's drafter, which also uses the n-gram cache, and whose requests are those of a `runner`."""

    def __init__(self, vllm_config: Any, runner: Any) -> None:
        self._runner = runner
        self._ngram_cache = NgramCache()
        super().__init__(vllm_config)  # proposes already
        # vLLM compiles this for a batch in which nobody has a token, that is, not at all: the first request would wait
        # for seconds.
        super().propose(self.k, [[1]], np.full(1, 8, np.int32), np.zeros((1, self.max_model_len), np.int32))

    def propose(
        self,
        num_speculative_tokens: int,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: Any,
        token_ids_cpu: Any,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Guesses for each request of the batch, where it has a token of this step."""
        copied = super().propose(num_speculative_tokens, sampled_token_ids, num_tokens_no_spec, token_ids_cpu)
        batch, found = self._runner.input_batch, list[list[int]]()
        each = MAX_STEP_GUESSES // max(len(sampled_token_ids), 1)
        most = min(num_speculative_tokens, each) if each >= MIN_REQUEST_GUESSES else 0
        for row, (written, own) in enumerate(zip(sampled_token_ids, copied, strict=True)):
            count = int(num_tokens_no_spec[row])
            room = min(most, self.max_model_len - count)
            name = batch.req_ids[row] if written else ""
            if not written or room <= 0 or name in batch.random_reqs or name in batch.logprob_token_ids:
                found.append([])
                continue
            more = self._runner.requests[name].sampling_params.extra_args or {}
            owner = int(batch.request_lora_mapping[row]), str(more.get(TENANT_ARGUMENT, ""))
            last = token_ids_cpu[row, max(count - len(written) - MAX_CONTEXT_SIZE, 0) : count].tolist()
            self._ngram_cache.learn(owner, last, len(written))
            found.append(self._ngram_cache.propose(owner, last, room) or own[:room])
        return found
