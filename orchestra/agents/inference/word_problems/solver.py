"""Word problems: a fine-tuned encoder that reads a problem, and combines its numbers step by step to the answer.

After Jie, Li and Lu 2022 (https://arxiv.org/abs/2203.10316): each quantity is a vector. A step combines two of them by
an operation to a new one. The most probable steps are taken until one is predicted to be the last. So all numbers come
from the problem or are constants, every expression is well-formed, and its value is exact. A beam search follows
several hypotheses, and the probabilities of expressions with equal values are added.

`model.json` has the input and output fields, the base encoder, and the SHA-256 of the arrays beside it (`.npz`): for
each tuned linear layer of the base `down.NAME` and `up.NAME`, each of one member, and those of the head
(`head_shapes`). The code of the head works for numpy here and for torch in training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from pydantic import AliasChoices, Field

from orchestra.agents.card import Card
from orchestra.agents.computed_fields import is_word_problem
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.encoder import Encoder, lora_weights
from orchestra.agents.inference.model_file import EncoderModelConfig
from orchestra.agents.inference.word_problems.quantities import KINDS, Quantity, decimal_text, find_quantities
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Literal["orchestra/deduction/v1"] = "orchestra/deduction/v1"
OPERATIONS: Final = "+-*/"
HIDDEN_SIZE: Final = 256
"""Size of a quantity's vector."""
MAX_STEPS: Final = 9
"""Maximum number of steps."""
MAX_NUMBERS: Final = 10
"""Maximum numbers of an expression."""
BEAM_WIDTH: Final = 6
"""Number of hypotheses of the beam search."""
EPSILON: Final = 1e-6
IMPOSSIBLE_LOGIT: Final = -1e9
"""The logit of an impossible step."""


class WordProblemConfig(EncoderModelConfig):
    """The configuration in `model.json`."""

    format: Literal["orchestra/deduction/v1"]
    input: str
    """The input that is read."""
    output: str
    """The field of the output with the expression."""
    tokens: Annotated[int, Field(ge=32, le=512)] = 512
    """Maximum tokens of a problem."""
    known: tuple[Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")], ...] = Field(min_length=1)
    """Constants that a problem need not state."""
    kinds: tuple[str, ...] = KINDS
    sharpen: Annotated[float, Field(gt=0, allow_inf_nan=False, validation_alias=AliasChoices("sharpen", "heat"))] = 1.0
    """Exponent of the probability of an answer, so that it is calibrated; formerly `heat`."""


def solves_word_problems(card: Card) -> bool:
    """Whether an agent of kind `encoder` writes an expression over the numbers of a text, which code evaluates."""
    return is_word_problem(card.input_schema, card.output_form)


def head_shapes(width: int, known: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the head's arrays, for an encoder's width and a number of constants."""
    square, line = (HIDDEN_SIZE, HIDDEN_SIZE), (HIDDEN_SIZE,)
    return {
        "number": (HIDDEN_SIZE, width),
        "asked": (HIDDEN_SIZE, width),
        "kind": (len(KINDS), HIDDEN_SIZE),
        "known": (known, HIDDEN_SIZE),
        **dict.fromkeys(("left", "right", "first", "second", "state", "was", "now", "alone", "alone.state"), square),
        **dict.fromkeys(("asked.bias", "pair.bias", "alone.bias", "alone.score"), line),
        "score": (2 * len(OPERATIONS), HIDDEN_SIZE),
        "score.bias": (2 * len(OPERATIONS),),
        "new": (len(OPERATIONS), HIDDEN_SIZE, HIDDEN_SIZE),
        "new.bias": (len(OPERATIONS), HIDDEN_SIZE),
    }


class SolverState(NamedTuple):
    """The state of several problems or hypotheses."""

    vectors: Any
    """Of quantities, (hypotheses, quantities, width): constants, those of the problem, and results of steps."""
    state: Any
    """Of the problem and the steps so far, (hypotheses, width)."""


class SolverHead:
    """The head, for arrays of numpy and of torch."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = arrays

    def initial_state(self, read: Any, places: Any, kinds: Any) -> SolverState:
        """Returns the state before the first step.

        Args:
            read: The encoder's vectors, (hypotheses, tokens, encoder's width).
            places: The tokens of each quantity, (hypotheses, quantities, tokens), as shares.
            kinds: The index of each quantity's kind.
        """
        get = self.arrays
        number_states = _rms_norm((places @ read) @ get["number"].T + get["kind"][kinds])
        known_state = _rms_norm(get["known"] + get["kind"][KINDS.index("known")])
        state = _rms_norm(read[:, 0] @ get["asked"].T + get["asked.bias"])
        return SolverState(_concatenate(known_state[None] + 0 * state[:, None], number_states), state)

    def pair_vectors(self, solver_state: SolverState) -> Any:
        """Returns the vector of each pair of quantities, (hypotheses, quantities, quantities, width)."""
        get, vectors = self.arrays, solver_state.vectors
        left, right, first, second = (vectors @ get[name].T for name in ("left", "right", "first", "second"))
        together = first[:, :, None] * second[:, None] + left[:, :, None] + right[:, None]
        return (together + (solver_state.state @ get["state"].T + get["pair.bias"])[:, None, None]).clip(0)

    def step_logits(self, pairs: Any) -> Any:
        """Returns the logits of each pair and operation: (hypotheses, quantities, quantities, 2 × operations). The
        second half is for a last step.
        """
        return pairs @ self.arrays["score"].T + self.arrays["score.bias"]

    def single_logits(self, solver_state: SolverState) -> Any:
        """Returns the logit of each quantity as the answer without a step, (hypotheses, quantities)."""
        get = self.arrays
        hidden_states = (
            solver_state.vectors @ get["alone"].T
            + (solver_state.state @ get["alone.state"].T + get["alone.bias"])[:, None]
        )
        return hidden_states.clip(0) @ get["alone.score"]

    def next_state(self, solver_state: SolverState, pairs: Any, operations: Any) -> SolverState:
        """Returns the state after a step, from each hypothesis's pair vector, (hypotheses, width), and operation."""
        get = self.arrays
        new_state = (get["new"][operations] @ pairs[:, :, None])[:, :, 0] + get["new.bias"][operations]
        new = _rms_norm(new_state + get["kind"][KINDS.index("found")])
        state = _rms_norm(solver_state.state + (solver_state.state @ get["was"].T + new @ get["now"].T).clip(0))
        return SolverState(_concatenate(solver_state.vectors, new[:, None]), state)


def _rms_norm(x: Any) -> Any:
    return x * ((x * x).mean(-1)[..., None] + EPSILON) ** -0.5


def _concatenate(first: Any, second: Any) -> Any:
    """Concatenates arrays along the quantities."""
    if hasattr(first, "numpy"):
        import torch

        return torch.cat([first, second], 1)
    import numpy as np

    return np.concatenate([first, second], 1)


@dataclass(frozen=True, slots=True)
class Term:
    """A quantity as an expression: its value, its text, its precedence, and its number of numbers."""

    value: Fraction
    text: str
    precedence: int = 3
    """3 for a number, 2 for a product, 1 for a sum."""
    numbers: int = 1

    @classmethod
    def combine(cls, left: Term, operation: str, right: Term) -> Term | None:
        """Combines two terms; None for a division by zero, and if the expression is too long."""
        rank = 1 if operation in "+-" else 2
        numbers = left.numbers + right.numbers
        if numbers > MAX_NUMBERS or (operation == "/" and right.value == 0):
            return None
        first = left.text if left.precedence >= rank else f"({left.text})"
        second = (
            right.text
            if right.precedence > rank or (right.precedence == rank and operation in "+*")
            else f"({right.text})"
        )
        return cls(_apply_operation(left.value, operation, right.value), f"{first}{operation}{second}", rank, numbers)


def _value_probabilities(solutions: Sequence[tuple[Term, float]]) -> dict[Fraction, float]:
    """Returns the probability of each value."""
    masses: dict[Fraction, float] = {}
    for term, chance in solutions:
        masses[term.value] = masses.get(term.value, 0.0) + chance
    return masses


def _apply_operation(left: Fraction, operation: str, right: Fraction) -> Fraction:
    match operation:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return left / right


class EncodedProblem(NamedTuple):
    """An encoded problem."""

    tokens: list[int]
    quantities: list[Quantity]
    token_positions: list[list[int]]
    """The tokens of each quantity."""

    @property
    def kinds(self) -> list[int]:
        """The indices of the quantities' kinds."""
        return [KINDS.index(quantity.kind) for quantity in self.quantities]


def encode_problem(encoder: Encoder, text: str) -> EncodedProblem:
    """Encodes a text with its quantities and their tokens."""
    tokens, spans = encoder.tokenize_with_offsets(text)
    quantities, places = [], []
    for quantity in find_quantities(text):
        overlapping_spans = [
            at for at, (start, end) in enumerate(spans) if start < quantity.end and end > quantity.start
        ]
        if overlapping_spans:
            quantities.append(quantity)
            places.append(overlapping_spans)
    return EncodedProblem(tokens, quantities, places)


def step_mask(count: int) -> NDArray[Any]:
    """Returns the allowed steps over quantities, (count, count, operations): one order for commutative operations, and
    no subtraction or division of a quantity by itself.
    """
    import numpy as np

    at = np.arange(count)
    commutes = np.array([sign in "+*" for sign in OPERATIONS])
    in_order, apart = at[:, None] <= at[None], at[:, None] != at[None]
    mask: NDArray[Any] = np.where(commutes, in_order[:, :, None], apart[:, :, None])
    return mask


@dataclass(slots=True)
class _Hypothesis:
    """A hypothesis of the beam search: its terms, in the order of the state, and its log-probability."""

    terms: list[Term]
    log_probability: float


class WordProblemSolver:
    """A loaded solver."""

    def __init__(
        self, config: WordProblemConfig, arrays: Mapping[str, NDArray[Any]], encoder: Encoder, card: Card
    ) -> None:
        """Raises `ValueError` or `KeyError` if the arrays do not fit the encoder."""
        import numpy as np

        self.config, self.encoder, self._card = config, encoder, card
        wide = {name: array.astype(np.float32) for name, array in arrays.items()}
        self._adapters = lora_weights(wide, encoder.shape)
        if config.kinds != KINDS:
            raise ValueError("it was trained with other kinds of quantities than are known: train it again")
        for name, shape in head_shapes(encoder.shape.hidden_size, len(config.known)).items():
            if wide[name].shape != shape:
                raise ValueError(f"the array {name} has another shape than the head")
        self._head = SolverHead({name: wide[name] for name in head_shapes(0, 0)})
        self._known = [Term(Fraction(text), text) for text in config.known]

    @classmethod
    def load(cls, card: Card, encoder: Encoder) -> WordProblemSolver:
        """Loads the solver of a card's folder, with its base encoder.

        Raises:
            InputError: A011 if its files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            return cls(*WordProblemConfig.read(card), encoder, card)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Returns the answer and its probability.

        Raises:
            InputError: A023 if the text is too long.
        """
        text = str(inputs[self.config.input])
        problem = encode_problem(self.encoder, text)
        if len(problem.tokens) > self.config.tokens:
            reason = (
                f"{self.config.input} has {len(problem.tokens):,} tokens, and {self.config.tokens} are read at most"
            )
            raise InputError("A023", reason, hint="leave out what does not matter")
        best, chance = self.best_expression(self.beam_search(problem))
        return self._card.output_form.fill({self.config.output: best}, None), chance

    def best_expression(self, solutions: Sequence[tuple[Term, float]]) -> tuple[str, float]:
        """Returns the most probable expression of the most probable value, and the probability of the value."""
        masses = _value_probabilities(solutions)
        best = max(masses, key=lambda value: masses[value])
        text = max((solution for solution in solutions if solution[0].value == best), key=lambda solution: solution[1])[
            0
        ].text
        return text, min(1.0, masses[best]) ** self.config.sharpen

    def beam_search(self, encoded: EncodedProblem) -> list[tuple[Term, float]]:
        """Returns expressions of the answer and their probabilities, as far as the beam search finds them."""
        import numpy as np

        states = self.encoder.encode(encoded.tokens, self._adapters)
        places = np.zeros((1, len(encoded.quantities), len(encoded.tokens)), dtype=np.float32)
        for at, tokens in enumerate(encoded.token_positions):
            places[0, at, tokens] = 1 / len(tokens)
        solver_state = self._head.initial_state(states, places, np.array(encoded.kinds, dtype=np.int64)[None])
        hypotheses = [
            _Hypothesis(
                [
                    *self._known,
                    *(Term(quantity.value, decimal_text(quantity.value)) for quantity in encoded.quantities),
                ],
                0.0,
            )
        ]
        solutions: list[tuple[Term, float]] = []
        for step in range(MAX_STEPS):
            pairs = self._head.pair_vectors(solver_state)
            logits = self._head.step_logits(pairs)
            alone = self._head.single_logits(solver_state)[0] if step == 0 else np.empty(0, dtype=np.float32)
            candidates = self._expand(hypotheses, logits, alone, solutions)
            if not candidates:
                break
            rows, lefts, rights, operations = (
                np.array(column) for column in zip(*(candidate[:4] for candidate in candidates), strict=True)
            )
            solver_state = SolverState(solver_state.vectors[rows], solver_state.state[rows])
            solver_state = self._head.next_state(solver_state, pairs[rows, lefts, rights], operations)
            hypotheses = [candidate[4] for candidate in candidates]
            best, second = sorted([0.0, 0.0, *_value_probabilities(solutions).values()])[:-3:-1]
            if best - second > sum(math.exp(hypothesis.log_probability) for hypothesis in hypotheses):
                break  # no unfinished hypothesis can become more probable
        return solutions or [(hypotheses[0].terms[-1], 0.0)]

    def _expand(
        self,
        hypotheses: Sequence[_Hypothesis],
        logits: NDArray[Any],
        alone: NDArray[Any],
        solutions: list[tuple[Term, float]],
    ) -> list[tuple[int, int, int, int, _Hypothesis]]:
        """Returns the most probable next steps of all hypotheses. Finished ones are added to `solutions`."""
        import numpy as np

        count = logits.shape[1]
        left, right, operation = np.nonzero(step_mask(count))
        open_logits, last = logits[:, left, right, operation], logits[:, left, right, operation + len(OPERATIONS)]
        all_logits = np.concatenate([open_logits, last, np.broadcast_to(alone, (len(hypotheses), len(alone)))], axis=1)
        top = all_logits.max(axis=1, keepdims=True)
        probabilities = (
            all_logits
            - top
            - np.log(np.exp(all_logits - top).sum(axis=1, keepdims=True))
            + np.array([[hypothesis.log_probability] for hypothesis in hypotheses])
        )
        candidates: list[tuple[int, int, int, int, _Hypothesis]] = []
        finished_count = 0
        for flat in np.argsort(-probabilities, axis=None)[: 64 * BEAM_WIDTH]:
            if len(candidates) >= BEAM_WIDTH <= finished_count:
                break
            row, at = divmod(int(flat), probabilities.shape[1])
            chance, terms = float(probabilities[row, at]), hypotheses[row].terms
            if at >= 2 * len(left):
                solutions.append((terms[at - 2 * len(left)], math.exp(chance)))
                finished_count += 1
                continue
            if (finished_count if at >= len(left) else len(candidates)) >= BEAM_WIDTH:
                continue
            step = int(left[at % len(left)]), int(right[at % len(left)]), int(operation[at % len(left)])
            term = Term.combine(terms[step[0]], OPERATIONS[step[2]], terms[step[1]])
            if term is None:
                continue
            if at >= len(left):
                solutions.append((term, math.exp(chance)))
                finished_count += 1
            else:
                candidates.append((row, *step, _Hypothesis([*terms, term], chance)))
        return candidates
