"""A word-problem solver under training: a base with adapters, and the solver head
(`orchestra.agents.inference.word_problems.solver`) in torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from orchestra.agents.inference.word_problems.solver import EncodedProblem, SolverHead, SolverState, head_shapes
from orchestra.learn.encoders.tuned import AdaptedEncoder, EncoderHyperparameters, FrozenEncoder, pad_tokens


class SolverEncoder(AdaptedEncoder):
    """A base with adapters, and the arrays of the head."""

    def __init__(self, base: FrozenEncoder, hyperparameters: EncoderHyperparameters, constant_count: int) -> None:
        """Creates a head of random weights that preserve norms, and biases of zero."""
        super().__init__(base, hyperparameters)
        for name, shape in head_shapes(base.shape.hidden_size, constant_count).items():
            if name.endswith("bias"):
                self.parameters[name] = torch.zeros(shape).requires_grad_()
            else:
                self.parameters[name] = (
                    torch.randn(shape, generator=self.generator) / math.sqrt(shape[-1])
                ).requires_grad_()

    @property
    def head(self) -> SolverHead:
        """Returns the current head."""
        return SolverHead(self.parameters)

    def initial_state(self, problems: Sequence[EncodedProblem], max_quantities: int) -> SolverState:
        """Returns the first state of several problems, padded to `max_quantities` quantities."""
        tokens, mask = pad_tokens([problem.tokens for problem in problems])
        places = torch.zeros(len(problems), max_quantities, tokens.shape[1])
        kinds = torch.zeros(len(problems), max_quantities, dtype=torch.long)
        for row, problem in enumerate(problems):
            kinds[row, : len(problem.kinds)] = torch.tensor(problem.kinds, dtype=torch.long)
            for at, token_position in enumerate(problem.token_positions):
                places[row, at, token_position] = 1 / len(token_position)
        return self.head.initial_state(self.encode(self.base.embed_tokens(tokens), mask), places, kinds)
