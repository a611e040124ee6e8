"""Training of word-problem solvers: from problems with an expression to the files of a card of kind `encoder`.

The base is frozen except for adapters on the linear layers of its blocks, and has a solver head
(`orchestra.agents.inference.word_problems.solver`). A `Derivation` gives the set of correct steps at each point of a
problem. The loss is the negative log-likelihood of that set, and training continues with its likeliest step. The tune
split determines the confidence of an answer and nothing else.

An expression does not determine which of several equal numbers is meant, the order of independent steps, or the
bracketing of a sum of three. So there is a set of correct steps, and a taken step rules out only the steps that it
makes redundant.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestra.agents.computed_fields import expression_value
from orchestra.agents.inference.word_problems.solver import (
    FORMAT,
    IMPOSSIBLE_LOGIT,
    MAX_NUMBERS,
    MAX_STEPS,
    OPERATIONS,
    EncodedProblem,
    SolverState,
    WordProblemConfig,
    WordProblemSolver,
    encode_problem,
    step_mask,
)
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import DatasetRow
from orchestra.learn.encoders.training import (
    BATCH_TOKENS,
    MIN_TUNE_ROWS,
    PROBABILITY_POWERS,
    HeadTraining,
    TrainedEncoder,
    TrainingExamples,
    maximize_likelihood,
    member_arrays,
)
from orchestra.text.arithmetic import MAX_LENGTH, ArithmeticParseError, evaluate

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import TrainingStep
    from orchestra.learn.encoders.tuned import FrozenEncoder
    from orchestra.learn.encoders.word_problem_model import SolverEncoder

_SUM, _PRODUCT = "+-", "*/"
ARRAYS_FILE = "deduction.npz"
EPOCHS = 3
"""Default number of epochs."""
TOKENS = 512
"""Maximal number of tokens of a problem."""
HEAD_RATE = 4.0
"""Factor of the head's learning rate relative to the adapters': the head starts from random weights. After sixty steps
the loss was 2.1, and 2.6 with the adapters' rate; and 1.8 from the adapters of an agent that reads figures of tables (a
script that was not kept).
"""
COMMON_NUMBERS: Final = ("1", "2", "3", "4", "7", "10", "12", "24", "30", "52", "60", "100", "365", "1000")
"""Common constants that problems leave out: of days and weeks, dozens, halves, per cent, metres."""


@dataclass(frozen=True, slots=True)
class WordProblemExample:
    """A problem and the expression of its answer."""

    problem: EncodedProblem
    expression: str

    def derivation(self, max_quantities: int) -> Derivation:
        """Returns the derivation of the expression among `max_quantities` quantities."""
        return Derivation(self.expression, self.quantities_by_value(max_quantities))

    def quantities_by_value(self, max_quantities: int) -> dict[Fraction, list[int]]:
        """Returns the quantities by value: common numbers, then up to `max_quantities` of the problem's."""
        quantities: dict[Fraction, list[int]] = defaultdict(list)
        for at, text in enumerate(COMMON_NUMBERS):
            quantities[Fraction(text)].append(at)
        for at, quantity in enumerate(self.problem.quantities[:max_quantities], len(COMMON_NUMBERS)):
            quantities[quantity.value].append(at)
        return quantities


def run(training: HeadTraining, on_step: Callable[[TrainingStep], None], *, fresh: bool = False) -> TrainedEncoder:
    """Trains, or resumes a killed training from its last checkpoint.

    Raises:
        InputError: N103 if the data set has other types; N104 if it has no usable rows; N140 if a checkpoint belongs to
        another training.
    """
    card = training.card
    check_contract(card, training.data.manifest)
    reader, frozen_encoder = training.load_base(fresh=fresh)
    fields = {
        "input": next(iter(card.input_schema["properties"])),
        "output": card.output_form.single_field,
        "known": COMMON_NUMBERS,
    }
    layout = training.base_config(FORMAT, ARRAYS_FILE, fields)
    draft = WordProblemConfig.model_validate({**layout, "sha256": "0" * 64})
    arrays = member_arrays(
        _train_member(
            training, frozen_encoder, training.build_examples(lambda row: _build_example(row, reader, draft)), on_step
        )
    )
    fitted_settings, figures = _fit_confidence(
        WordProblemSolver(draft, arrays, reader, card), training.data.rows["tune"]
    )
    return training.build_files(layout | fitted_settings, arrays, figures)


def _build_example(row: DatasetRow, encoder: Encoder, config: WordProblemConfig) -> WordProblemExample | None:
    """Returns the example of a row; None if its expression cannot be derived from its text."""
    example = WordProblemExample(encode_problem(encoder, str(row.input[config.input])), str(row.output[config.output]))
    try:
        derivation = example.derivation(len(example.problem.quantities))
    except (ArithmeticParseError, SyntaxError):
        return None
    return (
        example
        if len(example.problem.tokens) <= config.tokens and (derivation.direct_answers or derivation.step_count)
        else None
    )


def _train_member(
    training: HeadTraining,
    base: FrozenEncoder,
    examples: Sequence[WordProblemExample],
    on_step: Callable[[TrainingStep], None],
) -> SolverEncoder:
    """Trains a solver on the examples."""
    from orchestra.learn.encoders.word_problem_model import SolverEncoder

    member = SolverEncoder(base, training.hyperparameters(base, HEAD_RATE), len(COMMON_NUMBERS))
    facts = (
        FORMAT,
        COMMON_NUMBERS,
        member.hyperparameters,
        BATCH_TOKENS,
        [(example.problem.tokens, example.expression) for example in examples],
    )
    lesson = TrainingExamples(
        lambda batch: loss(member, [examples[at] for at in batch]),
        [len(example.problem.tokens) for example in examples],
        facts,
    )
    warm_start = None if training.warm_start is None else training.warm_start.for_format(FORMAT)
    return training.train_member(member, lesson, warm_start, on_step)


def loss(member: SolverEncoder, examples: Sequence[WordProblemExample]) -> Tensor:
    """Returns the negative log-likelihood of the correct steps, averaged over the problems."""
    import torch

    examples = sorted(examples, key=lambda example: -example.derivation(len(example.problem.quantities)).step_count)
    max_quantities = max(len(example.problem.quantities) for example in examples)
    derivations = [example.derivation(max_quantities) for example in examples]
    head, board = member.head, member.initial_state([example.problem for example in examples], max_quantities)
    available_mask = torch.zeros(len(examples), len(COMMON_NUMBERS) + max_quantities, dtype=torch.bool)
    for at, example in enumerate(examples):
        available_mask[at, : len(COMMON_NUMBERS) + len(example.problem.quantities)] = True
    losses: list[Tensor] = []
    first = True
    while derivations and (first or not derivations[0].is_done):
        open_count = len(derivations) if first else sum(not derivation.is_done for derivation in derivations)
        derivations, available_mask = derivations[:open_count], available_mask[:open_count]
        board = SolverState(board.vectors[:open_count], board.state[:open_count])
        pairs = head.pair_vectors(board)
        logits = _mask_unavailable(head.step_logits(pairs), available_mask)
        alone = head.single_logits(board).masked_fill(~available_mask, IMPOSSIBLE_LOGIT) if first else None
        steps = _choose_steps(derivations, logits, alone, losses)
        rows, lefts, rights, operations = torch.tensor(steps).T if steps else torch.empty(4, 0, dtype=torch.long)
        board = SolverState(board.vectors[rows], board.state[rows])
        board = head.next_state(board, pairs[rows, lefts, rights], operations)
        derivations = [derivations[row] for row in rows.tolist()]
        available_mask = torch.cat([available_mask[rows], torch.ones(len(rows), 1, dtype=torch.bool)], 1)
        first = False
    return torch.stack(losses).sum() / len(examples)


def _mask_unavailable(scores: Tensor, available_mask: Tensor) -> Tensor:
    """Sets the logits of impossible steps, (problems, quantities, quantities, 2 × operations), to a very low value."""
    import torch

    ways = torch.from_numpy(step_mask(scores.shape[1]))
    open_ = ways.repeat(1, 1, 2)[None] & (available_mask[:, :, None] & available_mask[:, None])[..., None]
    return scores.masked_fill(~open_, IMPOSSIBLE_LOGIT)


def _choose_steps(
    derivations: Sequence[Derivation], logits: Tensor, alone: Tensor | None, losses: list[Tensor]
) -> list[tuple[int, int, int, int]]:
    """Returns the likeliest correct step of each problem that takes one; appends the losses to `losses`."""
    import torch

    count, kinds = logits.shape[1], logits.shape[3]
    flat = logits.flatten(1)
    all_logits = flat if alone is None else torch.cat([flat, alone], 1)
    log_total = all_logits.logsumexp(1)
    chosen_steps = []
    for row, derivation in enumerate(derivations):
        if alone is not None and derivation.direct_answers:
            losses.append(log_total[row] - alone[row, list(derivation.direct_answers)].logsumexp(0))
            continue
        moves = derivation.correct_steps()
        steps = list(moves)
        at = [
            (step.left * count + step.right) * kinds + step.operation + (len(OPERATIONS) if step.is_last else 0)
            for step in steps
        ]
        right = all_logits[row, at]
        losses.append(log_total[row] - right.logsumexp(0))
        best = steps[int(right.argmax())]
        derivation.apply(moves[best], count)
        chosen_steps.append((row, best.left, best.right, best.operation))
    return chosen_steps


def _fit_confidence(solver: WordProblemSolver, rows: Sequence[DatasetRow]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the exponent with the best likelihood of the confidence, and the share of correct rows in the tune split;
    empty for few rows.
    """
    predictions: list[tuple[bool, float]] = []
    for row in rows:
        encoded_problem = encode_problem(solver.encoder, str(row.input[solver.config.input]))
        if len(encoded_problem.tokens) > solver.config.tokens:
            continue  # serving refuses it as well
        text, sure = solver.best_expression(solver.beam_search(encoded_problem))
        predictions.append((expression_value(text) == expression_value(row.output[solver.config.output]), sure))
    if len(predictions) < MIN_TUNE_ROWS:
        return {}, {}
    sharpen = maximize_likelihood(
        PROBABILITY_POWERS, lambda power: [(is_right, sure**power) for is_right, sure in predictions]
    )
    return {"sharpen": sharpen}, {"value": sum(is_right for is_right, _ in predictions) / len(predictions)}


class DerivationStep(NamedTuple):
    """A step that combines two quantities."""

    left: int
    right: int
    operation: int
    is_last: bool
    """Whether the result is the answer."""


@dataclass(slots=True)
class _Term:
    """A part of a sum or a product, added or subtracted: a number, a nested group, or the result of a step of this
    group.
    """

    is_added: bool
    key: str
    quantities: tuple[int, ...] = ()
    """The quantities with its value, once they are known."""


@dataclass(slots=True)
class _Group:
    """A sum or a product: its key and its remaining parts."""

    key: str
    operators: str
    terms: list[_Term]


class _StepEffect(NamedTuple):
    """The effect of a step on a group."""

    group: _Group
    first: _Term
    second: _Term
    is_added: bool


class Derivation:
    """The state of deriving an expression step by step."""

    def __init__(self, expression: str, given_quantities: Mapping[Fraction, Sequence[int]]) -> None:
        """Parses an expression.

        Args:
            given_quantities: The quantities of each value.

        Raises:
            ArithmeticParseError: The expression cannot be derived from these quantities.
        """
        self._groups: dict[str, _Group] = {}
        self._quantities: dict[str, tuple[int, ...]] = {}
        self._given_quantities = given_quantities
        if len(expression) > MAX_LENGTH:
            raise ArithmeticParseError(f"an expression of {len(expression)} characters")
        tree = ast.parse(expression, mode="eval").body
        if sum(isinstance(node, ast.Constant) for node in ast.walk(tree)) > MAX_NUMBERS:
            raise ArithmeticParseError(f"an expression of more than {MAX_NUMBERS} numbers")
        self._root = self._add_expression(tree)
        self.step_count = sum(len(group.terms) - 1 for group in self._groups.values())
        if self.step_count > MAX_STEPS:
            raise ArithmeticParseError(f"{expression} takes more than {MAX_STEPS} steps")

    @property
    def direct_answers(self) -> tuple[int, ...]:
        """Returns the quantities that are the answer; empty if steps are needed."""
        return self._quantities.get(self._root, ()) if not self._groups else ()

    @property
    def is_done(self) -> bool:
        """Returns whether the answer is derived."""
        return self._root in self._quantities

    def correct_steps(self) -> dict[DerivationStep, _StepEffect]:
        """Returns the currently correct steps with their effects."""
        step_effects: dict[DerivationStep, _StepEffect] = {}
        for group in self._groups.values():
            for first, second in combinations(group.terms, 2):
                for step, plus in self._combining_steps(group, first, second):
                    step_effects[step] = _StepEffect(group, first, second, plus)
        return step_effects

    def apply(self, effect: _StepEffect, position: int) -> None:
        """Applies a step whose result is the quantity at `position`."""
        group = effect.group
        group.terms = [part for part in group.terms if part is not effect.first and part is not effect.second]
        if group.terms:
            group.terms.append(_Term(effect.is_added, "", (position,)))
        else:
            self._quantities[group.key] = (position,)
            del self._groups[group.key]

    def _combining_steps(self, group: _Group, first: _Term, second: _Term) -> Iterator[tuple[DerivationStep, bool]]:
        """Yields the steps that combine two parts of a group, and whether the result is added."""
        if not first.is_added and second.is_added:
            first, second = second, first
        sign = group.operators[0] if first.is_added == second.is_added else group.operators[1]
        if len(group.terms) == 2 and not first.is_added:
            return  # both are subtracted: other steps derive the result
        operation, last = OPERATIONS.index(sign), group.key == self._root and len(group.terms) == 2
        is_turned = sign != group.operators[0] and sum(part.is_added for part in group.terms) > 1
        for left in self._quantities_of(first):
            for right in self._quantities_of(second):
                if sign == group.operators[0]:
                    yield DerivationStep(min(left, right), max(left, right), operation, last), first.is_added
                elif left != right:
                    yield DerivationStep(left, right, operation, last), first.is_added
                    if is_turned:  # `9-(5-2)` is 9 - 5 + 2: the result of 5 - 2 is subtracted
                        yield DerivationStep(right, left, operation, False), False

    def _quantities_of(self, part: _Term) -> tuple[int, ...]:
        return part.quantities or self._quantities.get(part.key, ())

    def _add_expression(self, node: ast.expr) -> str:
        """Registers a part of the expression tree and returns its key."""
        if isinstance(node, ast.Constant):
            value = evaluate(ast.unparse(node))
            quantity_indexes = tuple(self._given_quantities.get(value, ()))
            if not quantity_indexes:
                raise ArithmeticParseError(f"{value} is not a number of the problem")
            self._quantities[key := str(value)] = quantity_indexes
            return key
        signs = _operators(node)
        parts = [_Term(plus, self._add_expression(part)) for plus, part in _flatten(node, signs, True)]
        if (
            len(parts) == 2
            and not parts[1].is_added
            and parts[0].key == parts[1].key
            and len(self._quantities_of(parts[0])) < 2
        ):
            raise ArithmeticParseError(f"{ast.unparse(node)} is zero or one")
        key = f"({signs}{''.join(sorted(f'{signs[not part.is_added]}{part.key}' for part in parts))})"
        self._groups.setdefault(key, _Group(key, signs, parts))
        return key


def _operators(node: ast.expr) -> str:
    match node:
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return _SUM
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            return _PRODUCT
        case _:
            raise ArithmeticParseError(f"{type(node).__name__} is not an operation")


def _flatten(node: ast.expr, signs: str, plus: bool) -> Iterator[tuple[bool, ast.expr]]:
    """Returns the parts of a sum or a product, with nested ones flattened."""
    if isinstance(node, ast.BinOp) and _operators(node) == signs:
        yield from _flatten(node.left, signs, plus)
        yield from _flatten(node.right, signs, plus == isinstance(node.op, ast.Add | ast.Mult))
    else:
        yield plus, node
