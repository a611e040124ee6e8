"""Batches of examples in which a common prompt prefix is computed once.

Ten questions about one passage are ten prompts with one long common prefix. A *pack* is that prefix and the ten
suffixes. Each suffix attends to the prefix and to itself: the results equal those of ten separate rows, for a fifth of
the work. Packs of similar length form a batch. The batches of an epoch follow from the seed and the number of the epoch
alone, so a resumed training computes the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestra.learn.lora.examples import TokenExample

MIN_SHARED_TOKENS = 32
"""Minimal number of common prefix tokens for packing: a shorter prefix does not pay for its mask."""
SHUFFLE_WINDOW = 64
"""Number of packs that are sorted by length together; the windows are in random order."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A common prefix and the prompt suffixes that follow it, each with its label."""

    prefix: tuple[int, ...]
    suffixes: tuple[TokenExample, ...]

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.suffixes))


Batch = tuple[Pack, ...]


@dataclass(frozen=True, slots=True)
class Batcher:
    """Groups of examples with a common prompt prefix, and the maximal size of a batch."""

    prefix_groups: tuple[tuple[TokenExample, ...], ...]
    max_tokens: int
    """Tokens of a batch, including padding."""

    @classmethod
    def from_examples(cls, examples: Iterable[TokenExample], max_tokens: int) -> Batcher:
        """Groups the examples by prefix."""
        return cls(tuple(_group_by_prefix(examples)), max_tokens)

    def epoch_batches(self, seed: int, number: int) -> list[Batch]:
        """Returns the batches of an epoch in order."""
        chance = random.Random(f"{seed}:{number}")  # noqa: S311 - an order, not a secret
        packs = [pack for family in self.prefix_groups for pack in self._pack_group(family, chance)]
        chance.shuffle(packs)
        batches = [
            batch
            for at in range(0, len(packs), SHUFFLE_WINDOW)
            for batch in self._batch_packs(packs[at : at + SHUFFLE_WINDOW])
        ]
        chance.shuffle(batches)
        return batches

    def _pack_group(self, family: Sequence[TokenExample], chance: random.Random) -> Iterable[Pack]:
        """Returns the packs of a group: its examples in random order, as many in each pack as a batch holds."""
        order = list(family)
        chance.shuffle(order)
        prefix_length = _shared_prefix_length(order)
        room, pack_examples = max(self.max_tokens, prefix_length + 1), list[TokenExample]()
        token_count = prefix_length
        for example in order:
            if pack_examples and token_count + len(example) - prefix_length > room:
                yield _make_pack(pack_examples)
                pack_examples, token_count = [], prefix_length
            pack_examples.append(example)
            token_count += len(example) - prefix_length
        if pack_examples:
            yield _make_pack(pack_examples)

    def _batch_packs(self, packs: Sequence[Pack]) -> Iterable[Batch]:
        batch_packs: list[Pack] = []
        for pack in sorted(packs, key=len):
            if batch_packs and len(pack) * (len(batch_packs) + 1) > self.max_tokens:
                yield tuple(batch_packs)
                batch_packs = []
            batch_packs.append(pack)
        if batch_packs:
            yield tuple(batch_packs)


def _group_by_prefix(examples: Iterable[TokenExample]) -> Iterable[tuple[TokenExample, ...]]:
    """Groups examples by prefix: neighbours in token order that share most of their prompts."""
    family: list[TokenExample] = []
    for example in sorted(examples, key=lambda token_example: (token_example.prompt, token_example.label)):
        if family and _common_prefix_length(family[0].prompt, example.prompt) < max(
            MIN_SHARED_TOKENS, len(example.prompt) // 2
        ):
            yield tuple(family)
            family = []
        family.append(example)
    if family:
        yield tuple(family)


def _make_pack(examples: Sequence[TokenExample]) -> Pack:
    prefix_length = _shared_prefix_length(examples)
    return Pack(
        examples[0].prompt[:prefix_length],
        tuple(TokenExample(example.prompt[prefix_length:], example.label) for example in examples),
    )


def _shared_prefix_length(examples: Sequence[TokenExample]) -> int:
    """Returns the length of the common prefix. At least one token of each prompt stays outside: the label is predicted
    from it.
    """
    if len(examples) == 1:
        return 0
    shortest = min(len(example.prompt) for example in examples) - 1
    return min(shortest, min(_common_prefix_length(examples[0].prompt, example.prompt) for example in examples[1:]))


def _common_prefix_length(tokens: Sequence[int], other_tokens: Sequence[int]) -> int:
    length = 0
    for a, b in zip(tokens, other_tokens, strict=False):
        if a != b:
            break
        length += 1
    return length
