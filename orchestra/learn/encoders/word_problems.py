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

from orchestra.agents.computed_fields import number
from orchestra.agents.inference.word_problems.solver import FORMAT, NEVER, OPERATIONS, Board, Deduction, Layout, Problem, allowed, problem
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import Row
from orchestra.learn.encoders.derivations import Derivation
from orchestra.learn.encoders.training import BATCH, LEAST, POWERS, HeadTraining, Lesson, Made, arrays_of, likeliest
from orchestra.text.arithmetic import NotArithmetic

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import Step
    from orchestra.learn.encoders.tuned import Frozen
    from orchestra.learn.encoders.word_problem_model import Deducing

ARRAYS = "deduction.npz"
EPOCHS = 3
"""Passes over the rows, where nothing is said."""
TOKENS = 512
"""Tokens of a problem."""
HEAD_RATE = 4.0
"""How much faster the head learns than the adapters: it begins with nothing. After sixty steps the loss was 2.1, and 2.6 at their rate;
and 1.8 from the adapters of an agent that reads figures of tables (a script that was not kept)."""
KNOWN: Final = ("1", "2", "3", "4", "7", "10", "12", "24", "30", "52", "60", "100", "365", "1000")
"""What everybody knows: of days and weeks, dozens, halves, per cent, metres."""


@dataclass(frozen=True, slots=True)
class Example:
    """A problem, and the expression that answers it."""

    read: Problem
    expression: str

    def derivation(self, most: int) -> Derivation:
        """The expression as it is derived where problems have `most` quantities."""
        return Derivation(self.expression, self.places(most))

    def places(self, most: int) -> dict[Fraction, list[int]]:
        """The quantities of each value, on a board: what everybody knows, the problem's, and room up to `most` of these."""
        found: dict[Fraction, list[int]] = defaultdict(list)
        for at, text in enumerate(KNOWN):
            found[Fraction(text)].append(at)
        for at, one in enumerate(self.read.quantities[:most], len(KNOWN)):
            found[one.value].append(at)
        return found


def run(training: HeadTraining, tell: Callable[[Step], None], *, fresh: bool = False) -> Made:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows that can be learnt from, N140 for a checkpoint of
    another training.
    """
    card = training.card
    check_contract(card, training.data.manifest)
    reader, frozen = training.opened(fresh=fresh)
    fields = {"input": next(iter(card.input_schema["properties"])), "output": card.form.alone, "known": KNOWN}
    layout = training.layout(FORMAT, ARRAYS, fields)
    draft = Layout.model_validate({**layout, "sha256": "0" * 64})
    arrays = arrays_of(_trained(training, frozen, training.examples(lambda row: _example(row, reader, draft)), tell))
    settled, figures = _settled(Deduction(draft, arrays, reader, card), training.data.rows["tune"])
    return training.made(layout | settled, arrays, figures)


def _example(row: Row, encoder: Encoder, layout: Layout) -> Example | None:
    """None of a row whose expression cannot be derived from its text."""
    example = Example(problem(encoder, str(row.input[layout.input])), str(row.output[layout.output]))
    try:
        derivation = example.derivation(len(example.read.quantities))
    except (NotArithmetic, SyntaxError):
        return None
    return example if len(example.read.tokens) <= layout.tokens and (derivation.alone or derivation.steps) else None


def _trained(training: HeadTraining, base: Frozen, found: Sequence[Example], tell: Callable[[Step], None]) -> Deducing:
    """A solver that has learnt the examples."""
    from orchestra.learn.encoders.word_problem_model import Deducing

    member = Deducing(base, training.pace(base, HEAD_RATE), len(KNOWN))
    facts = (FORMAT, KNOWN, member.pace, BATCH, [(one.read.tokens, one.expression) for one in found])
    lesson = Lesson(lambda batch: loss(member, [found[at] for at in batch]), [len(one.read.tokens) for one in found], facts)
    begun = None if training.begun is None else training.begun.of_kind(FORMAT)
    return training.taught(member, lesson, begun, tell)


def loss(member: Deducing, examples: Sequence[Example]) -> Tensor:
    """How improbable the right steps are, on average over the problems."""
    import torch

    examples = sorted(examples, key=lambda one: -one.derivation(len(one.read.quantities)).steps)
    most = max(len(one.read.quantities) for one in examples)
    derivations = [one.derivation(most) for one in examples]
    head, board = member.head, member.board([one.read for one in examples], most)
    there = torch.zeros(len(examples), len(KNOWN) + most, dtype=torch.bool)
    for at, one in enumerate(examples):
        there[at, : len(KNOWN) + len(one.read.quantities)] = True
    lost: list[Tensor] = []
    first = True
    while derivations and (first or not derivations[0].done):
        going = len(derivations) if first else sum(not one.done for one in derivations)
        derivations, there = derivations[:going], there[:going]
        board = Board(board.vectors[:going], board.state[:going])
        pairs = head.pairs(board)
        logits = _open(head.scores(pairs), there)
        alone = head.alone(board).masked_fill(~there, NEVER) if first else None
        taken = _taken(derivations, logits, alone, lost)
        rows, lefts, rights, operations = torch.tensor(taken).T if taken else torch.empty(4, 0, dtype=torch.long)
        board = Board(board.vectors[rows], board.state[rows])
        board = head.found(board, pairs[rows, lefts, rights], operations)
        derivations = [derivations[row] for row in rows.tolist()]
        there = torch.cat([there[rows], torch.ones(len(rows), 1, dtype=torch.bool)], 1)
        first = False
    return torch.stack(lost).sum() / len(examples)


def _open(scores: Tensor, there: Tensor) -> Tensor:
    """The logits of steps, (problems, quantities, quantities, 2 × operations), next to nothing of those that there are not."""
    import torch

    ways = torch.from_numpy(allowed(scores.shape[1]))
    open_ = ways.repeat(1, 1, 2)[None] & (there[:, :, None] & there[:, None])[..., None]
    return scores.masked_fill(~open_, NEVER)


def _taken(derivations: Sequence[Derivation], logits: Tensor, alone: Tensor | None, lost: list[Tensor]) -> list[tuple[int, int, int, int]]:
    """The steps that are taken, of each problem that takes one the likeliest of the right ones; what they cost goes to `lost`."""
    import torch

    count, kinds = logits.shape[1], logits.shape[3]
    flat = logits.flatten(1)
    every = flat if alone is None else torch.cat([flat, alone], 1)
    whole = every.logsumexp(1)
    taken = []
    for row, derivation in enumerate(derivations):
        if alone is not None and derivation.alone:
            lost.append(whole[row] - alone[row, list(derivation.alone)].logsumexp(0))
            continue
        moves = derivation.right()
        steps = list(moves)
        at = [(one.left * count + one.right) * kinds + one.operation + (len(OPERATIONS) if one.last else 0) for one in steps]
        right = every[row, at]
        lost.append(whole[row] - right.logsumexp(0))
        best = steps[int(right.argmax())]
        derivation.take(moves[best], count)
        taken.append((row, best.left, best.right, best.operation))
    return taken


def _settled(solver: Deduction, rows: Sequence[Row]) -> tuple[dict[str, float], dict[str, float]]:
    """The power of which the probabilities that it says are likeliest, and the share of the rows to tune on that are right. Nothing where
    there are few rows."""
    said: list[tuple[bool, float]] = []
    for row in rows:
        read = problem(solver.encoder, str(row.input[solver.layout.input]))
        if len(read.tokens) > solver.layout.tokens:
            continue  # it is refused, whoever asks
        text, sure = solver.choose(solver.solutions(read))
        said.append((number(text) == number(row.output[solver.layout.output]), sure))
    if len(said) < LEAST:
        return {}, {}
    sharpen = likeliest(POWERS, lambda power: [(one, sure**power) for one, sure in said])
    return {"sharpen": sharpen}, {"value": sum(one for one, _ in said) / len(said)}
