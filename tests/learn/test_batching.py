"""Batches: every example once an epoch, within the limit, and the same losses packed as alone."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.learn.batching import Batcher, Pack
from orchestra.learn.lora.examples import Example

BEGINNINGS = tuple(tuple((seed * 31 + at * 7) % 97 for at in range(40 + seed)) for seed in range(4))
EXAMPLES = st.builds(
    lambda beginning, end, label: Example((*beginning, *end), label),
    st.sampled_from(BEGINNINGS),
    st.lists(st.integers(0, 96), min_size=1, max_size=9),
    st.lists(st.integers(0, 96), min_size=1, max_size=5).map(tuple),
)


def unpacked(pack: Pack) -> list[Example]:
    return [Example((*pack.prefix, *end.prompt), end.label) for end in pack.ends]


@given(st.lists(EXAMPLES, min_size=1, max_size=40), st.integers(60, 400), st.integers(0, 3))
def test_an_epoch_has_every_example_once(examples: list[Example], most: int, seed: int) -> None:
    batches = Batcher.of(examples, most).epoch(seed, 0)
    assert Counter(one for batch in batches for pack in batch for one in unpacked(pack)) == Counter(examples)
    assert all(end.prompt for batch in batches for pack in batch for end in pack.ends)


@given(st.lists(EXAMPLES, min_size=1, max_size=40), st.integers(60, 400))
def test_a_batch_with_its_padding_keeps_the_limit_where_one_example_does(examples: list[Example], most: int) -> None:
    for batch in Batcher.of(examples, most).epoch(0, 0):
        alone = len(batch) == 1 and len(batch[0].ends) == 1
        assert alone or max(map(len, batch)) * len(batch) <= most


@given(st.lists(EXAMPLES, min_size=1, max_size=20), st.randoms())
def test_the_batches_of_an_epoch_do_not_depend_on_the_order_of_the_rows(examples: list[Example], chance: random.Random) -> None:
    shuffled = list(examples)
    chance.shuffle(shuffled)
    assert Batcher.of(examples, 200).epoch(3, 2) == Batcher.of(shuffled, 200).epoch(3, 2)


def test_epochs_and_seeds_differ() -> None:
    examples = [Example((*BEGINNINGS[at % 4], at), (1,)) for at in range(40)]
    orders = {str(Batcher.of(examples, 200).epoch(seed, number)) for seed in range(2) for number in range(2)}
    assert len(orders) == 4


def test_questions_about_one_passage_share_it() -> None:
    examples = [Example((*BEGINNINGS[0], 90, at), (1, 2)) for at in range(10)]
    assert sum(len(pack) for batch in Batcher.of(examples, 400).epoch(0, 0) for pack in batch) == 41 + 10 * 3


@settings(max_examples=10, deadline=None)
@given(st.lists(EXAMPLES, min_size=2, max_size=12))
def test_packed_and_alone_examples_have_the_same_losses(tiny: Path, examples: list[Example]) -> None:
    pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    from orchestra.learn.lora.model import Learner, Shape

    learner = Learner(AutoModelForCausalLM.from_pretrained(tiny), Shape(rank=4, alpha=8), seed=1, device="cpu", precision=torch.float32)
    for master in learner.masters.values():
        master.data.add_(torch.randn_like(master), alpha=0.1)
    learner.publish()
    packed = [learner.measure(batch) for batch in Batcher.of(examples, 300).epoch(0, 0)]
    alone = [learner.measure((Pack((), (one,)),)) for one in examples]
    assert sum(one[0] for one in packed) == pytest.approx(sum(one[0] for one in alone), rel=1e-4)
    assert [sum(column) for column in zip(*packed, strict=True)][1:3] == [sum(column) for column in zip(*alone, strict=True)][1:3]
