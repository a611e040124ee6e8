"""Batches: every example once per epoch, within the token limit, with the same losses packed as alone."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.learn.batching import Batcher, Pack
from orchestra.learn.lora.examples import TokenExample

BEGINNINGS = tuple(tuple((seed * 31 + at * 7) % 97 for at in range(40 + seed)) for seed in range(4))
EXAMPLES = st.builds(
    lambda beginning, end, label: TokenExample((*beginning, *end), label),
    st.sampled_from(BEGINNINGS),
    st.lists(st.integers(0, 96), min_size=1, max_size=9),
    st.lists(st.integers(0, 96), min_size=1, max_size=5).map(tuple),
)


def unpacked(pack: Pack) -> list[TokenExample]:
    return [TokenExample((*pack.prefix, *end.prompt), end.label) for end in pack.suffixes]


@given(st.lists(EXAMPLES, min_size=1, max_size=40), st.integers(60, 400), st.integers(0, 3))
def test_epoch_batches_have_every_example_once(examples: list[TokenExample], most: int, seed: int) -> None:
    batches = Batcher.from_examples(examples, most).epoch_batches(seed, 0)
    assert Counter(one for batch in batches for pack in batch for one in unpacked(pack)) == Counter(examples)
    assert all(end.prompt for batch in batches for pack in batch for end in pack.suffixes)


@given(st.lists(EXAMPLES, min_size=1, max_size=40), st.integers(60, 400))
def test_epoch_batches_keep_token_limit(examples: list[TokenExample], most: int) -> None:
    for batch in Batcher.from_examples(examples, most).epoch_batches(0, 0):
        alone = len(batch) == 1 and len(batch[0].suffixes) == 1
        assert alone or max(map(len, batch)) * len(batch) <= most


@given(st.lists(EXAMPLES, min_size=1, max_size=20), st.randoms())
def test_epoch_batches_ignore_row_order(examples: list[TokenExample], chance: random.Random) -> None:
    shuffled = list(examples)
    chance.shuffle(shuffled)
    assert Batcher.from_examples(examples, 200).epoch_batches(3, 2) == Batcher.from_examples(
        shuffled, 200
    ).epoch_batches(3, 2)


def test_epoch_batches_differ_by_epoch_and_seed() -> None:
    examples = [TokenExample((*BEGINNINGS[at % 4], at), (1,)) for at in range(40)]
    orders = {
        str(Batcher.from_examples(examples, 200).epoch_batches(seed, number))
        for seed in range(2)
        for number in range(2)
    }
    assert len(orders) == 4


def test_packs_share_passage() -> None:
    examples = [TokenExample((*BEGINNINGS[0], 90, at), (1, 2)) for at in range(10)]
    assert (
        sum(len(pack) for batch in Batcher.from_examples(examples, 400).epoch_batches(0, 0) for pack in batch)
        == 41 + 10 * 3
    )


@settings(max_examples=10, deadline=None)
@given(st.lists(EXAMPLES, min_size=2, max_size=12))
def test_packed_examples_have_same_losses(tiny: Path, examples: list[TokenExample]) -> None:
    pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    from orchestra.learn.lora.model import AdapterShape, Learner

    learner = Learner(
        AutoModelForCausalLM.from_pretrained(tiny),
        AdapterShape(rank=4, alpha=8),
        seed=1,
        device="cpu",
        precision=torch.float32,
    )
    for master in learner.master_weights.values():
        master.data.add_(torch.randn_like(master), alpha=0.1)
    learner.sync_weights()
    packed = [learner.evaluate(batch) for batch in Batcher.from_examples(examples, 300).epoch_batches(0, 0)]
    alone = [learner.evaluate((Pack((), (one,)),)) for one in examples]
    assert sum(one[0] for one in packed) == pytest.approx(sum(one[0] for one in alone), rel=1e-4)
    assert [sum(column) for column in zip(*packed, strict=True)][1:3] == [
        sum(column) for column in zip(*alone, strict=True)
    ][1:3]
