"""Batches: examples packed so that a prompt's beginning is computed once for all that begin with it.

Ten questions about one passage are ten prompts with one long common beginning. A *pack* is that beginning and the ten ends after it, each
of which sees the beginning and itself: the same numbers as ten rows of their own, for a fifth of the work. Packs of like length make a
batch. What an epoch's batches are follows from the seed and the epoch's number alone, so that a training that was killed goes on with
the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestra.learn.lora.examples import Example

LEAST_SHARED = 32
"""Tokens that prompts must have in common at their beginning to be packed: fewer are not worth a mask."""
WINDOW = 64
"""Packs among which those of like length are sought; the order of windows stays random."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A beginning, and the ends of prompts that follow it, each with its label."""

    prefix: tuple[int, ...]
    ends: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.ends))


Batch = tuple[Pack, ...]


@dataclass(frozen=True, slots=True)
class Batcher:
    """Families of examples whose prompts begin alike, and how large a batch may be."""

    families: tuple[tuple[Example, ...], ...]
    most: int
    """Tokens of a batch, padding included."""

    @classmethod
    def of(cls, examples: Iterable[Example], most: int) -> Batcher:
        """The batcher of some examples."""
        return cls(tuple(_families(examples)), most)

    def epoch(self, seed: int, number: int) -> list[Batch]:
        """The batches of an epoch, in their order."""
        chance = random.Random(f"{seed}:{number}")  # noqa: S311 - an order, not a secret
        packs = [pack for family in self.families for pack in self._packs(family, chance)]
        chance.shuffle(packs)
        made = [batch for at in range(0, len(packs), WINDOW) for batch in self._batches(packs[at : at + WINDOW])]
        chance.shuffle(made)
        return made

    def _packs(self, family: Sequence[Example], chance: random.Random) -> Iterable[Pack]:
        """A family's packs: its examples in random order, as many in each as a batch takes."""
        order = list(family)
        chance.shuffle(order)
        shared = _shared(order)
        room, taken = max(self.most, shared + 1), list[Example]()
        used = shared
        for example in order:
            if taken and used + len(example) - shared > room:
                yield _pack(taken)
                taken, used = [], shared
            taken.append(example)
            used += len(example) - shared
        if taken:
            yield _pack(taken)

    def _batches(self, packs: Sequence[Pack]) -> Iterable[Batch]:
        taken: list[Pack] = []
        for pack in sorted(packs, key=len):
            if taken and len(pack) * (len(taken) + 1) > self.most:
                yield tuple(taken)
                taken = []
            taken.append(pack)
        if taken:
            yield tuple(taken)


def _families(examples: Iterable[Example]) -> Iterable[tuple[Example, ...]]:
    """Examples by their beginnings: neighbours in the order of their tokens that share most of their prompts."""
    family: list[Example] = []
    for example in sorted(examples, key=lambda one: (one.prompt, one.label)):
        if family and _common(family[0].prompt, example.prompt) < max(LEAST_SHARED, len(example.prompt) // 2):
            yield tuple(family)
            family = []
        family.append(example)
    if family:
        yield tuple(family)


def _pack(examples: Sequence[Example]) -> Pack:
    shared = _shared(examples)
    return Pack(examples[0].prompt[:shared], tuple(Example(one.prompt[shared:], one.label) for one in examples))


def _shared(examples: Sequence[Example]) -> int:
    """Tokens that all prompts begin with; at least one of each stays outside, for the label is read from there."""
    if len(examples) == 1:
        return 0
    shortest = min(len(one.prompt) for one in examples) - 1
    return min(shortest, min(_common(examples[0].prompt, one.prompt) for one in examples[1:]))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
