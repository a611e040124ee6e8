"""A solver being tuned: a base with adapters, and the head that puts quantities together
(`orchestra.agents.inference.word_problems.solver`), in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from orchestra.agents.inference.word_problems.solver import Board, Head, Problem, shapes
from orchestra.learn.encoders.tuned import Adapted, Frozen, Pace, padded_tokens


class Deducing(Adapted):
    """A base with adapters, and the arrays of the head."""

    def __init__(self, base: Frozen, pace: Pace, known: int) -> None:
        """A head of random weights that keep lengths as they are, and of biases of zero."""
        super().__init__(base, pace)
        for name, shape in shapes(base.shape.width, known).items():
            if name.endswith("bias"):
                self.learnt[name] = torch.zeros(shape).requires_grad_()
            else:
                self.learnt[name] = (torch.randn(shape, generator=self.made) / math.sqrt(shape[-1])).requires_grad_()

    @property
    def head(self) -> Head:
        """The head as it is now."""
        return Head(self.learnt)

    def board(self, read: Sequence[Problem], most: int) -> Board:
        """What is known at first of several problems, of which the one with most quantities has `most`."""
        tokens, mask = padded_tokens([one.tokens for one in read])
        places = torch.zeros(len(read), most, tokens.shape[1])
        kinds = torch.zeros(len(read), most, dtype=torch.long)
        for row, one in enumerate(read):
            kinds[row, : len(one.kinds)] = torch.tensor(one.kinds, dtype=torch.long)
            for at, found in enumerate(one.places):
                places[row, at, found] = 1 / len(found)
        return self.head.begun(self.read(self.base.begun(tokens), mask), places, kinds)
