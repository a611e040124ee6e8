"""Draft tokens and their acceptance, with vLLM's own classes, without a server. Tokens are letters."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

# vLLM passes such a type to numba
pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings(r"ignore:\s*Encountered the use of a type that is scheduled for deprecation"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

LONGEST = 64
"""Maximum length of a request in tokens."""
OWNER = 1, ""


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


CONFIG = SimpleNamespace(
    speculative_config=SimpleNamespace(prompt_lookup_min=1, prompt_lookup_max=4, num_speculative_tokens=4),
    model_config=SimpleNamespace(max_model_len=LONGEST),
    scheduler_config=SimpleNamespace(max_num_seqs=64),
    parallel_config=SimpleNamespace(tensor_parallel_size=1),
)


def drafter(
    texts: Sequence[str],
    adapters: Sequence[int],
    by_chance: Sequence[int] = (),
    scored: Sequence[int] = (),
    tenants: Sequence[str | None] = (),
) -> tuple[Any, Any, Any]:
    """Returns a drafter whose batch has these requests, their lengths, and their tokens."""
    import numpy as np

    from orchestra.fleet.vllm_cpu.speculation import NgramDrafter

    batch = SimpleNamespace(
        req_ids=[str(row) for row in range(len(texts))],
        random_reqs={str(row) for row in by_chance},
        logprob_token_ids={str(row): [1] for row in scored},
        request_lora_mapping=np.array(adapters, np.int64),
    )
    tokens = np.zeros((len(texts), LONGEST), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = ids(text)
    said: list[dict[str, str] | None]
    said = [{} if tenant is None else {"orchestra_tenant": tenant} for tenant in tenants] or [None] * len(texts)
    requests = {
        str(row): SimpleNamespace(sampling_params=SimpleNamespace(extra_args=more)) for row, more in enumerate(said)
    }
    return (
        NgramDrafter(CONFIG, SimpleNamespace(input_batch=batch, requests=requests)),
        np.array([len(text) for text in texts], np.int32),
        tokens,
    )


def proposed(drafter: Any, counts: Any, tokens: Any, written: Sequence[int], most: int = 4) -> list[str]:
    """Returns the drafts, if this number of tokens of each request is from this step."""
    lists = [tokens[row, counts[row] - new : counts[row]].tolist() for row, new in enumerate(written)]
    return ["".join(map(chr, one)) for one in drafter.propose(most, lists, counts, tokens)]


def test_drafts_come_from_request_and_cache() -> None:
    one, counts, tokens = drafter(
        ["the Seine is the S", "the Seine is the S", "the Seine is the S", "new", "the Seine is the S"],
        [1] * 5,
        by_chance=[1],
        scored=[4],
    )
    assert proposed(one, counts, tokens, [1, 1, 0, 1, 1]) == ["eine", "", "", "", ""]
    assert proposed(one, counts, tokens, [1, 1, 0, 1, 1], most=2) == ["ei", "", "", "", ""]
    for _ in range(2):
        one._ngram_cache.learn(OWNER, ids("newest"), 3)
    assert proposed(one, counts, tokens, [1, 1, 0, 1, 1]) == ["eine", "", "", "est", ""]


def test_drafts_do_not_cross_tenants() -> None:
    one, counts, tokens = drafter(["new"] * 4, [1, 1, 1, 2], tenants=["a", "b", None, "a"])
    for _ in range(2):
        one._ngram_cache.learn((1, "a"), ids("newest"), 3)
    assert proposed(one, counts, tokens, [1, 1, 1, 1]) == ["est", "", "", ""]


def test_drafts_end_at_maximum_length() -> None:
    text = ("abcdefgh" * 8)[:62]
    one, counts, tokens = drafter([text, text + "gh"], [0, 0])
    assert proposed(one, counts, tokens, [1, 1]) == ["gh", ""]


@pytest.mark.parametrize(("requests", "guesses"), [(1, "eine"), (8, "eine"), (9, "")])
def test_drafts_are_off_with_many_requests(requests: int, guesses: str) -> None:
    one, counts, tokens = drafter(["the Seine is the S"] * requests, [1] * requests)
    assert proposed(one, counts, tokens, [1] * requests) == [guesses] * requests
    for _ in range(2):
        one._ngram_cache.learn(OWNER, ids("the Seine"), 8)
    assert proposed(one, counts, tokens, [1] * requests) == [guesses] * requests


def test_drafts_near_maximum_length_keep_those_of_others() -> None:
    """vLLM's runner then calls no drafter, and drafts zeros for all requests, also for sampled ones."""
    from orchestra.fleet.vllm_cpu.speculation import GuardedRejectionSampler, install

    one, _, _ = drafter(["a"], [1])
    runner = SimpleNamespace(
        drafter=one,
        requests={},
        input_batch=None,
        sampler=SimpleNamespace(logprobs_mode="raw_logprobs"),
        speculative_config=None,
        device="cpu",
    )
    install(runner, CONFIG)
    assert runner.drafter is not one
    assert isinstance(runner.rejection_sampler, GuardedRejectionSampler)
    assert runner._input_fits_in_drafter(SimpleNamespace(max_seq_len=LONGEST - 1))
    other = SimpleNamespace(drafter="another way to guess")
    install(other, CONFIG)
    assert other.drafter == "another way to guess"


def test_drafter_is_compiled_before_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import njit
    from vllm.v1.spec_decode import ngram_proposer

    fresh = njit(parallel=True)(ngram_proposer.batch_propose_numba.py_func)
    monkeypatch.setattr(ngram_proposer, "batch_propose_numba", fresh)
    one, counts, tokens = drafter(["the Seine is the S"], [1])
    compiled = list(fresh.signatures)
    assert proposed(one, counts, tokens, [1]) == ["eine"]
    assert compiled == fresh.signatures != []


def test_drafts_are_rejected_in_scoring_step() -> None:
    import torch
    from vllm.v1.sample.rejection_sampler import RejectionSampler

    from orchestra.fleet.vllm_cpu.speculation import GuardedRejectionSampler

    asked = list[Any]()

    class Sampler(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        logprobs_mode = "raw_logprobs"

        def forward(self, logits: Any, sampling_metadata: Any) -> str:
            asked.append((logits[:, 0].tolist(), sampling_metadata))
            return "sampled"

    judge = GuardedRejectionSampler(Sampler())
    assert isinstance(judge, RejectionSampler)
    scored = SimpleNamespace(logprob_token_ids={1: [5, 6]})
    # two drafts, none, and one
    metadata = SimpleNamespace(cu_num_sampled_tokens=torch.tensor([3, 4, 6], dtype=torch.int32))
    assert judge(metadata, None, torch.arange(6.0)[:, None].repeat(1, 9), scored) == "sampled"
    assert asked == [([0.0, 3.0, 4.0], scored)]
