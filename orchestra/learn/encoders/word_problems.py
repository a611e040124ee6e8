"""Solvers that deduce, trained: rows with a problem and an expression in, the files of a card of kind `encoder` out.

The base is frozen but for adapters on the linear layers of its blocks, and a head
(`orchestra.agents.inference.word_problems.solver`). At each point of a problem
the loss asks that one of the right steps be taken (`orchestra.learn.encoders.derivations`), and goes on with the
likeliest of them. The rows to
tune on settle how sure it says that it is; nothing else is chosen by them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from orchestra.agents.computed_fields import expression_value
from orchestra.agents.inference.word_problems.solver import (
    FORMAT,
    IMPOSSIBLE_LOGIT,
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
from orchestra.learn.encoders.derivations import Derivation
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
from orchestra.text.arithmetic import ArithmeticParseError

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import TrainingStep
    from orchestra.learn.encoders.tuned import FrozenEncoder
    from orchestra.learn.encoders.word_problem_model import SolverEncoder

ARRAYS_FILE = "deduction.npz"
EPOCHS = 3
"""Passes over the rows, where nothing is said."""
TOKENS = 512
"""Tokens of a problem."""
HEAD_RATE = 4.0
"""How much faster the head learns than the adapters: it begins with nothing. After sixty steps the loss was 2.1, and 2.6 at their rate;
and 1.8 from the adapters of an agent that reads figures of tables (a script that was not kept)."""
COMMON_NUMBERS: Final = ("1", "2", "3", "4", "7", "10", "12", "24", "30", "52", "60", "100", "365", "1000")
"""What everybody knows: of days and weeks, dozens, halves, per cent, metres."""


@dataclass(frozen=True, slots=True)
class WordProblemExample:
    """A problem, and the expression that answers it."""

    problem: EncodedProblem
    expression: str

    def derivation(self, max_quantities: int) -> Derivation:
        """The expression as it is derived where problems have `most` quantities."""
        return Derivation(self.expression, self.quantities_by_value(max_quantities))

    def quantities_by_value(self, max_quantities: int) -> dict[Fraction, list[int]]:
        """The quantities of each value, on a board: what everybody knows, the problem's, and room up to `most` of these."""
        found: dict[Fraction, list[int]] = defaultdict(list)
        for at, text in enumerate(COMMON_NUMBERS):
            found[Fraction(text)].append(at)
        for at, one in enumerate(self.problem.quantities[:max_quantities], len(COMMON_NUMBERS)):
            found[one.value].append(at)
        return found


def run(training: HeadTraining, on_step: Callable[[TrainingStep], None], *, fresh: bool = False) -> TrainedEncoder:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows that can be learnt from, N140 for a checkpoint of
    another training.
    """
    card = training.card
    check_contract(card, training.data.manifest)
    reader, frozen = training.load_base(fresh=fresh)
    fields = {"input": next(iter(card.input_schema["properties"])), "output": card.output_form.single_field, "known": COMMON_NUMBERS}
    layout = training.base_config(FORMAT, ARRAYS_FILE, fields)
    draft = WordProblemConfig.model_validate({**layout, "sha256": "0" * 64})
    arrays = member_arrays(
        _train_member(training, frozen, training.build_examples(lambda row: _build_example(row, reader, draft)), on_step)
    )
    settled, figures = _fit_confidence(WordProblemSolver(draft, arrays, reader, card), training.data.rows["tune"])
    return training.build_files(layout | settled, arrays, figures)


def _build_example(row: DatasetRow, encoder: Encoder, config: WordProblemConfig) -> WordProblemExample | None:
    """None of a row whose expression cannot be derived from its text."""
    example = WordProblemExample(encode_problem(encoder, str(row.input[config.input])), str(row.output[config.output]))
    try:
        derivation = example.derivation(len(example.problem.quantities))
    except (ArithmeticParseError, SyntaxError):
        return None
    return example if len(example.problem.tokens) <= config.tokens and (derivation.direct_answers or derivation.step_count) else None


def _train_member(
    training: HeadTraining, base: FrozenEncoder, found: Sequence[WordProblemExample], on_step: Callable[[TrainingStep], None]
) -> SolverEncoder:
    """A solver that has learnt the examples."""
    from orchestra.learn.encoders.word_problem_model import SolverEncoder

    member = SolverEncoder(base, training.hyperparameters(base, HEAD_RATE), len(COMMON_NUMBERS))
    facts = (FORMAT, COMMON_NUMBERS, member.hyperparameters, BATCH_TOKENS, [(one.problem.tokens, one.expression) for one in found])
    lesson = TrainingExamples(lambda batch: loss(member, [found[at] for at in batch]), [len(one.problem.tokens) for one in found], facts)
    begun = None if training.warm_start is None else training.warm_start.for_format(FORMAT)
    return training.train_member(member, lesson, begun, on_step)


def loss(member: SolverEncoder, examples: Sequence[WordProblemExample]) -> Tensor:
    """How improbable the right steps are, on average over the problems."""
    import torch

    examples = sorted(examples, key=lambda one: -one.derivation(len(one.problem.quantities)).step_count)
    most = max(len(one.problem.quantities) for one in examples)
    derivations = [one.derivation(most) for one in examples]
    head, board = member.head, member.initial_state([one.problem for one in examples], most)
    there = torch.zeros(len(examples), len(COMMON_NUMBERS) + most, dtype=torch.bool)
    for at, one in enumerate(examples):
        there[at, : len(COMMON_NUMBERS) + len(one.problem.quantities)] = True
    lost: list[Tensor] = []
    first = True
    while derivations and (first or not derivations[0].is_done):
        going = len(derivations) if first else sum(not one.is_done for one in derivations)
        derivations, there = derivations[:going], there[:going]
        board = SolverState(board.vectors[:going], board.state[:going])
        pairs = head.pair_vectors(board)
        logits = _mask_unavailable(head.step_logits(pairs), there)
        alone = head.single_logits(board).masked_fill(~there, IMPOSSIBLE_LOGIT) if first else None
        taken = _choose_steps(derivations, logits, alone, lost)
        rows, lefts, rights, operations = torch.tensor(taken).T if taken else torch.empty(4, 0, dtype=torch.long)
        board = SolverState(board.vectors[rows], board.state[rows])
        board = head.next_state(board, pairs[rows, lefts, rights], operations)
        derivations = [derivations[row] for row in rows.tolist()]
        there = torch.cat([there[rows], torch.ones(len(rows), 1, dtype=torch.bool)], 1)
        first = False
    return torch.stack(lost).sum() / len(examples)


def _mask_unavailable(scores: Tensor, there: Tensor) -> Tensor:
    """The logits of steps, (problems, quantities, quantities, 2 × operations), next to nothing of those that there are not."""
    import torch

    ways = torch.from_numpy(step_mask(scores.shape[1]))
    open_ = ways.repeat(1, 1, 2)[None] & (there[:, :, None] & there[:, None])[..., None]
    return scores.masked_fill(~open_, IMPOSSIBLE_LOGIT)


def _choose_steps(
    derivations: Sequence[Derivation], logits: Tensor, alone: Tensor | None, losses: list[Tensor]
) -> list[tuple[int, int, int, int]]:
    """The steps that are taken, of each problem that takes one the likeliest of the right ones; what they cost goes to `lost`."""
    import torch

    count, kinds = logits.shape[1], logits.shape[3]
    flat = logits.flatten(1)
    every = flat if alone is None else torch.cat([flat, alone], 1)
    whole = every.logsumexp(1)
    taken = []
    for row, derivation in enumerate(derivations):
        if alone is not None and derivation.direct_answers:
            losses.append(whole[row] - alone[row, list(derivation.direct_answers)].logsumexp(0))
            continue
        moves = derivation.correct_steps()
        steps = list(moves)
        at = [(one.left * count + one.right) * kinds + one.operation + (len(OPERATIONS) if one.is_last else 0) for one in steps]
        right = every[row, at]
        losses.append(whole[row] - right.logsumexp(0))
        best = steps[int(right.argmax())]
        derivation.apply(moves[best], count)
        taken.append((row, best.left, best.right, best.operation))
    return taken


def _fit_confidence(solver: WordProblemSolver, rows: Sequence[DatasetRow]) -> tuple[dict[str, float], dict[str, float]]:
    """The power of which the probabilities that it says are likeliest, and the share of the rows to tune on that are right. Nothing where
    there are few rows."""
    said: list[tuple[bool, float]] = []
    for row in rows:
        read = encode_problem(solver.encoder, str(row.input[solver.config.input]))
        if len(read.tokens) > solver.config.tokens:
            continue  # it is refused, whoever asks
        text, sure = solver.best_expression(solver.beam_search(read))
        said.append((expression_value(text) == expression_value(row.output[solver.config.output]), sure))
    if len(said) < MIN_TUNE_ROWS:
        return {}, {}
    sharpen = maximize_likelihood(PROBABILITY_POWERS, lambda power: [(one, sure**power) for one, sure in said])
    return {"sharpen": sharpen}, {"value": sum(one for one, _ in said) / len(said)}
