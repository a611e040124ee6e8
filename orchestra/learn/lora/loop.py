"""The training loop: AdamW, warm-up and decay, early stopping, checkpoints, exact resume.

Everything that determines the result is in the plan or in the checkpoint. A time budget is converted once into a number
of steps, after the first steps have been timed. It also ends the training after a step, if the time is over earlier.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from orchestra.learn.batching import Batch, Batcher
from orchestra.learn.lora.checkpoint import Checkpoints, TrainingPoint, TrainingState
from orchestra.learn.lora.model import Learner
from orchestra.learn.numerics import check_finite

if TYPE_CHECKING:
    import torch

RateDecay: TypeAlias = Literal["linear", "cosine", "none"]
TIMED_STEPS = 20
"""Number of steps after which a time budget is converted into a number of steps."""
MIN_RATE_SHARE = 0.02
"""The final share of the learning rate."""
BEST_RULE = "rows"
"""The version of the rule of `best_point`: a checkpoint with another rule belongs to another training."""
MIN_EXACT_SHARE = 0.05
"""Below this share of exact rows their number is ignored: one row that is exact early does not outweigh a lower loss.
Chosen.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingHyperparameters:
    """Hyperparameters of a training."""

    epochs: float | None = None
    minutes: float | None = None
    """Time budget; either it or the number of epochs ends the training."""
    learning_rate: float = 6e-4
    warmup_steps: int = 20
    """Steps of the warm-up of the learning rate."""
    decay: RateDecay = "linear"
    max_gradient_norm: float = 1.0
    """Maximal gradient norm."""
    weight_decay: float = 0.0
    seed: int = 0
    tune_every: float = 0.5
    """Epochs between two evaluations on the tune split."""
    patience: int = 4
    """Number of evaluations with neither a lower loss nor more exact rows that ends the training."""
    save_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Progress that is reported to the caller."""

    step: int
    total_steps: int
    """Total number of steps; 0 while unknown."""
    epoch: float
    loss: float
    tokens_per_second: float
    """Tokens per second."""
    seconds_left: float
    """Seconds left; NaN while unknown."""
    point: TrainingPoint | None = None
    """The evaluation on the tune split, if this step had one."""


def train(
    learner: Learner,
    batches: Batcher,
    held: Batcher,
    hyperparameters: TrainingHyperparameters,
    plan_digest: str,
    checkpoints: Checkpoints,
    on_step: Callable[[TrainingProgress], None],
    clock: Callable[[], float] = time.monotonic,
) -> TrainingState:
    """Trains from the last checkpoint, if there is one, and loads the best weights into the learner.

    Raises:
        InputError: N120 if the checkpoint belongs to another training.
    """
    return _TrainingLoop(learner, batches, held, hyperparameters, plan_digest, checkpoints, on_step, clock).run()


def best_point(points: Sequence[TrainingPoint]) -> TrainingPoint:
    """Returns the evaluation whose weights are kept: the one with most exact rows, the last of equal ones; if hardly
    any row is exact, the one with the least loss.

    The loss alone is a poor criterion for generated text: it rises as a model becomes confident, while more outputs are
    correct. In a training of `caller` (2026-11-27) the evaluation with the least loss was half way, with 0.50 of 231
    other questions correct; the last had 0.57.
    """
    exact = max(point.exact for point in points)
    return (
        [point for point in points if point.exact == exact][-1]
        if exact > MIN_EXACT_SHARE
        else min(points, key=lambda point: point.tune)
    )


def points_since_improvement(points: Sequence[TrainingPoint]) -> int:
    """Returns the number of evaluations since the last one with a lower loss or more exact rows than all before it."""
    news = [
        number
        for number, point in enumerate(points)
        if all(point.tune < training_point.tune for training_point in points[:number])
        or all(point.exact > training_point.exact for training_point in points[:number])
    ]
    return len(points) - 1 - news[-1]


class _TrainingLoop:
    def __init__(
        self,
        learner: Learner,
        batches: Batcher,
        held: Batcher,
        hyperparameters: TrainingHyperparameters,
        plan_digest: str,
        checkpoints: Checkpoints,
        on_step: Callable[[TrainingProgress], None],
        clock: Callable[[], float],
    ) -> None:
        import torch

        self.learner, self.batches, self.hyperparameters, self.checkpoints, self.on_step, self.clock = (
            learner,
            batches,
            hyperparameters,
            checkpoints,
            on_step,
            clock,
        )
        self.held_out_batches = held.epoch_batches(0, 0)
        self.optimizer = torch.optim.AdamW(
            learner.master_weights.values(), lr=hyperparameters.learning_rate, weight_decay=hyperparameters.weight_decay
        )
        self.state = TrainingState(plan_digest=plan_digest)
        if (checkpoint := checkpoints.load(plan_digest)) is not None:
            self.state, weights, moments = checkpoint
            learner.load_weights(weights)
            self._restore_moments(moments)
        else:
            learner.sync_weights()

    def run(self) -> TrainingState:
        """Trains until the end, and returns the final state."""
        state, course = self.state, self.hyperparameters
        start_time = saved_at = self.clock() - state.seconds
        while not self._is_finished():
            epoch = self.batches.epoch_batches(course.seed, state.epoch)
            look = max(1, round(len(epoch) * course.tune_every))
            if not state.total_steps and course.epochs is not None:
                state.total_steps = max(1, math.ceil(course.epochs * len(epoch)))
            for batch in epoch[state.batch :]:
                self._step(batch)
                state.batch += 1
                state.seconds = self.clock() - start_time
                self._apply_time_budget()
                is_finished = bool(state.total_steps) and state.step >= state.total_steps
                last = state.points[-1].step if state.points else 0
                point = self._evaluate(len(epoch)) if state.step - last >= look or is_finished else None
                self._report(len(epoch), point)
                if state.seconds + start_time - saved_at >= course.save_seconds or point is not None:
                    saved_at = state.seconds + start_time
                    self._save()
                if self._is_finished():
                    break
            else:
                state.epoch, state.batch = state.epoch + 1, 0
        self.learner.load_weights(self.checkpoints.load_best())
        return state

    def _apply_time_budget(self) -> None:
        """Converts a time budget into a number of steps, once. If the time is over earlier, because the machine is slow
        or became slower, this step is the last one.
        """
        state, minutes = self.state, self.hyperparameters.minutes
        if minutes is None:
            return
        if not state.total_steps and state.step >= TIMED_STEPS:
            state.total_steps = max(TIMED_STEPS, round(state.step * minutes * 60 / state.seconds))
        if state.seconds >= minutes * 60:
            state.total_steps = state.step

    def _is_finished(self) -> bool:
        return self.state.stopped_early or (bool(self.state.total_steps) and self.state.step >= self.state.total_steps)

    def _step(self, batch: Batch) -> None:
        import torch

        state = self.state
        for group in self.optimizer.param_groups:
            group["lr"] = self.hyperparameters.learning_rate * self._rate_share()
        loss = check_finite(self.learner.accumulate_gradient(batch), state.step + 1)
        torch.nn.utils.clip_grad_norm_(self.learner.master_weights.values(), self.hyperparameters.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.learner.sync_weights()
        state.step += 1
        state.tokens_seen += sum(map(len, batch))
        state.loss_sum += loss
        state.loss_count += 1

    def _rate_share(self) -> float:
        """Returns the factor of the learning rate at a step."""
        state, course = self.state, self.hyperparameters
        rise = min(1.0, (state.step + 1) / max(1, course.warmup_steps))
        if not state.total_steps or course.decay == "none":
            return rise
        progress = min(1.0, state.step / state.total_steps)
        fall = 1 - progress if course.decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return rise * max(MIN_RATE_SHARE, fall)

    def _evaluate(self, epoch_length: int) -> TrainingPoint:
        """Evaluates on the tune split, and stores the weights if they are the best so far."""
        state = self.state
        measurements = [self.learner.evaluate(batch) for batch in self.held_out_batches]
        losses, counts, rows, right = (sum(column) for column in zip(*measurements, strict=True))
        check_finite(losses, state.step)
        epoch = state.epoch + state.batch / epoch_length
        point = TrainingPoint(
            state.step, round(epoch, 3), state.loss_sum / max(1, state.loss_count), losses / counts, right / rows
        )
        state.points = [*state.points, point]
        state.loss_sum, state.loss_count = 0.0, 0
        if best_point(state.points) is point:
            state.best_step = state.step
            self.checkpoints.save_best(dict(self.learner.master_weights))
        state.stopped_early = points_since_improvement(state.points) >= self.hyperparameters.patience
        return point

    def _report(self, epoch_length: int, point: TrainingPoint | None) -> None:
        state = self.state
        pace = state.seconds / state.step
        seconds_left = (state.total_steps - state.step) * pace if state.total_steps else math.nan
        if not state.total_steps and self.hyperparameters.minutes is not None:
            seconds_left = self.hyperparameters.minutes * 60 - state.seconds
        loss = state.loss_sum / state.loss_count if state.loss_count else state.points[-1].train
        self.on_step(
            TrainingProgress(
                state.step,
                state.total_steps,
                state.epoch + state.batch / epoch_length,
                loss,
                state.tokens_seen / max(state.seconds, 1e-9),
                seconds_left,
                point,
            )
        )

    def _save(self) -> None:
        self.checkpoints.save(self.state, dict(self.learner.master_weights), self._moments())

    def _moments(self) -> dict[str, torch.Tensor]:
        """Returns the optimizer's two moments and its step count as named tensors."""
        names = {id(master): name for name, master in self.learner.master_weights.items()}
        return {
            f"{names[id(master)]}/{key}": value
            for master, entries in self.optimizer.state.items()
            for key, value in entries.items()
        }

    def _restore_moments(self, moments: dict[str, torch.Tensor]) -> None:
        for name, master in self.learner.master_weights.items():
            entries = {key: moments[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[master] = {
                key: value if key == "step" else value.to(self.learner.device) for key, value in entries.items()
            }
