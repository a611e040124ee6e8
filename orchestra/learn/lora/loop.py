"""The loop: batches in, a better adapter out. AdamW, warm-up and decay, early stopping, checkpoints, exact resume.

Everything that the result follows from is in the plan or in the checkpoint; a budget of minutes becomes a number of steps once, after the
first steps have shown how long one takes, and stays that number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from orchestra.learn.batching import Batch, Batcher
from orchestra.learn.lora.checkpoint import Checkpoints, Point, State
from orchestra.learn.lora.divergence import finite
from orchestra.learn.lora.model import Learner

if TYPE_CHECKING:
    import torch

Decay: TypeAlias = Literal["linear", "cosine", "none"]
MEASURED = 20
"""Steps after which a budget of minutes becomes a number of steps."""
LOWEST = 0.02
"""The share of the learning rate that is left at the end."""
BEST_RULE = "rows"
"""Names the rule of `best`: a checkpoint that was kept by another is of another training."""
FEW = 0.05
"""The share of exact rows up to which they say nothing: one row that came right early outweighs no loss. Chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a training goes."""

    epochs: float | None = None
    minutes: float | None = None
    """One of the two ends it."""
    rate: float = 6e-4
    warmup: int = 20
    """Steps over which the learning rate rises."""
    decay: Decay = "linear"
    clip: float = 1.0
    """The largest norm of a gradient."""
    weight_decay: float = 0.0
    seed: int = 0
    tune_every: float = 0.5
    """Epochs between two looks at the held-out part."""
    patience: int = 4
    """Looks with neither a better loss nor more exact rows after which it ends."""
    save_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Tick:
    """What a training tells whoever watches it."""

    step: int
    steps: int
    """0 while not known."""
    epoch: float
    loss: float
    rate: float
    """Tokens a second."""
    left: float
    """Seconds; NaN while not known."""
    point: Point | None = None
    """A look at the held-out part, where this step had one."""


def train(
    learner: Learner,
    batches: Batcher,
    held: Batcher,
    course: Course,
    plan: str,
    kept: Checkpoints,
    tell: Callable[[Tick], None],
    clock: Callable[[], float] = time.monotonic,
) -> State:
    """Trains, from the last checkpoint where there is one, and leaves the learner with the best weights.

    Raises `InputError` N120 for a checkpoint of another training.
    """
    return _Loop(learner, batches, held, course, plan, kept, tell, clock).run()


def best(points: Sequence[Point]) -> Point:
    """The look whose weights are kept: that with the most exact rows, of several the last; where hardly a row is exact, that with the least
    loss.

    The loss alone is a poor judge of what writes texts: it rises as a model grows sure, while more of what it writes is right. In a
    training of `caller` (2026-11-27) the look with the least loss was half way, with 0.50 of 231 other questions right; the last had 0.57.
    """
    exact = max(point.exact for point in points)
    return [point for point in points if point.exact == exact][-1] if exact > FEW else min(points, key=lambda point: point.tune)


def unchanged(points: Sequence[Point]) -> int:
    """How many looks there are since one had less loss, or more exact rows, than all before it."""
    news = [
        number
        for number, point in enumerate(points)
        if all(point.tune < one.tune for one in points[:number]) or all(point.exact > one.exact for one in points[:number])
    ]
    return len(points) - 1 - news[-1]


class _Loop:
    def __init__(
        self,
        learner: Learner,
        batches: Batcher,
        held: Batcher,
        course: Course,
        plan: str,
        kept: Checkpoints,
        tell: Callable[[Tick], None],
        clock: Callable[[], float],
    ) -> None:
        import torch

        self.learner, self.batches, self.course, self.kept, self.tell, self.clock = learner, batches, course, kept, tell, clock
        self.held = held.epoch(0, 0)
        self.optimizer = torch.optim.AdamW(learner.masters.values(), lr=course.rate, weight_decay=course.weight_decay)
        self.state = State(plan=plan)
        if (found := kept.load(plan)) is not None:
            self.state, weights, moments = found
            learner.adopt(weights)
            self._restore(moments)
        else:
            learner.publish()

    def run(self) -> State:
        state, course = self.state, self.course
        began = saved = self.clock() - state.seconds
        while not self._over():
            epoch = self.batches.epoch(course.seed, state.epoch)
            look = max(1, round(len(epoch) * course.tune_every))
            if not state.steps and course.epochs is not None:
                state.steps = max(1, math.ceil(course.epochs * len(epoch)))
            for batch in epoch[state.batch :]:
                self._step(batch)
                state.batch += 1
                state.seconds = self.clock() - began
                if not state.steps and course.minutes is not None and state.step >= MEASURED:
                    state.steps = max(MEASURED, round(state.step * course.minutes * 60 / state.seconds))
                done = bool(state.steps) and state.step >= state.steps
                last = state.points[-1].step if state.points else 0
                point = self._look(len(epoch)) if state.step - last >= look or done else None
                self._say(len(epoch), point)
                if state.seconds + began - saved >= course.save_seconds or point is not None:
                    saved = state.seconds + began
                    self._save()
                if self._over():
                    break
            else:
                state.epoch, state.batch = state.epoch + 1, 0
        self.learner.adopt(self.kept.load_best())
        return state

    def _over(self) -> bool:
        return self.state.stopped or (bool(self.state.steps) and self.state.step >= self.state.steps)

    def _step(self, batch: Batch) -> None:
        import torch

        state = self.state
        for group in self.optimizer.param_groups:
            group["lr"] = self.course.rate * self._share()
        loss = finite(self.learner.gradient(batch), state.step + 1)
        torch.nn.utils.clip_grad_norm_(self.learner.masters.values(), self.course.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.learner.publish()
        state.step += 1
        state.seen += sum(map(len, batch))
        state.losses += loss
        state.counted += 1

    def _share(self) -> float:
        """The share of the learning rate at this step."""
        state, course = self.state, self.course
        rise = min(1.0, (state.step + 1) / max(1, course.warmup))
        if not state.steps or course.decay == "none":
            return rise
        done = min(1.0, state.step / state.steps)
        fall = 1 - done if course.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return rise * max(LOWEST, fall)

    def _look(self, length: int) -> Point:
        """Measures on the held-out part, and keeps the weights where they are better than ever."""
        state = self.state
        measured = [self.learner.measure(batch) for batch in self.held]
        losses, counts, rows, right = (sum(column) for column in zip(*measured, strict=True))
        finite(losses, state.step)
        epoch = state.epoch + state.batch / length
        point = Point(state.step, round(epoch, 3), state.losses / max(1, state.counted), losses / counts, right / rows)
        state.points = [*state.points, point]
        state.losses, state.counted = 0.0, 0
        if best(state.points) is point:
            state.best_step = state.step
            self.kept.save_best(dict(self.learner.masters))
        state.stopped = unchanged(state.points) >= self.course.patience
        return point

    def _say(self, length: int, point: Point | None) -> None:
        state = self.state
        pace = state.seconds / state.step
        left = (state.steps - state.step) * pace if state.steps else math.nan
        if not state.steps and self.course.minutes is not None:
            left = self.course.minutes * 60 - state.seconds
        loss = state.losses / state.counted if state.counted else state.points[-1].train
        self.tell(
            Tick(state.step, state.steps, state.epoch + state.batch / length, loss, state.seen / max(state.seconds, 1e-9), left, point)
        )

    def _save(self) -> None:
        self.kept.save(self.state, dict(self.learner.masters), self._moments())

    def _moments(self) -> dict[str, torch.Tensor]:
        """The optimizer's two moments and its count of steps, as named tensors."""
        names = {id(master): name for name, master in self.learner.masters.items()}
        return {f"{names[id(master)]}/{key}": value for master, entries in self.optimizer.state.items() for key, value in entries.items()}

    def _restore(self, moments: dict[str, torch.Tensor]) -> None:
        for name, master in self.learner.masters.items():
            entries = {key: moments[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[master] = {
                key: value if key == "step" else value.to(self.learner.device) for key, value in entries.items()
            }
