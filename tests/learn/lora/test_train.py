"""Training: it learns, stops, resumes to the same result after a kill, and writes an adapter that the fleet loads."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.fleet.weights.adapter_checks import CONFIG, WEIGHTS
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.lora.checkpoint import TrainingPoint, TrainingState
from orchestra.learn.lora.loop import (
    TIMED_STEPS,
    TrainingHyperparameters,
    TrainingProgress,
    best_point,
    points_since_improvement,
)
from orchestra.learn.lora.model import AdapterShape
from orchestra.learn.lora.train import AdapterTraining, prepare_examples, train_adapter
from orchestra.learn.lora_adapter import MANIFEST_FILE, AdapterTrainingRecord, StartingAdapter
from orchestra.learn.promotion.promotion import CURVE_FILE, MAX_BYTES
from tests.learn.conftest import CARD, make_card

pytestmark = [pytest.mark.usefixtures("tiny"), pytest.mark.slow]
COURSE = TrainingHyperparameters(epochs=4, learning_rate=1e-2, warmup_steps=3, patience=99, save_seconds=0)
WORDS = ("Ada", "Lovelace", "notes", "passage", "answer", "question")


class Killed(Exception):
    """Simulates a lost machine."""


def rows(part: str, count: int) -> list[DatasetRow]:
    found = []
    for number in range(count):
        words = [WORDS[(number * 5 + at * (1 + number % 3)) % len(WORDS)] for at in range(3)]
        answer = words[0] if number % 3 else None
        found.append(
            DatasetRow(
                f"{part}{number}",
                {"question": "who?", "context": " ".join(words)},
                {"answer": answer},
                f"{part}{number}",
            )
        )
    return found


def training(tmp_path: Path, tiny: Path, card: Card, course: TrainingHyperparameters = COURSE) -> AdapterTraining:
    data = Dataset.build(
        "words", "finder", contract_digest(card), "CC0", (), {"train": rows("train", 24), "tune": rows("tune", 6)}
    )
    return AdapterTraining(
        card=card,
        data=data,
        base=tiny,
        base_name="tiny",
        base_digest="0" * 32,
        cache=tmp_path / "cache",
        shape=AdapterShape(rank=4, alpha=8),
        hyperparameters=course,
        batch_tokens=120,
        device="cpu",
        command="orchestra learn train finder",
    )


def trained(
    work: AdapterTraining, out: Path, tell: Callable[[TrainingProgress], None] = lambda tick: None
) -> AdapterTrainingRecord:
    return train_adapter(work, prepare_examples(work), out, tell)


def test_train_loss_falls_and_best_weights_kept(tmp_path: Path, tiny: Path, card: Card) -> None:
    ticks: list[TrainingProgress] = []
    course = replace(COURSE, epochs=8, learning_rate=5e-2, save_seconds=1e9)
    made = trained(training(tmp_path, tiny, card, course), tmp_path / "out", ticks.append)
    losses = [point.tune for point in made.curve]
    assert losses[-1] < losses[0] * 0.7
    assert made.best_step == best_point(made.curve).step
    assert ticks[-1].step == ticks[-1].total_steps == made.steps
    assert [tick.step for tick in ticks] == list(range(1, made.steps + 1))


@pytest.mark.parametrize(("at", "saved"), [(1, 0.0), (7, 0.0), (10, 1e9)])
def test_train_killed_resumes_to_same_result(tmp_path: Path, tiny: Path, card: Card, at: int, saved: float) -> None:
    """With the last checkpoint one step before the kill, or at the last evaluation."""
    course = replace(COURSE, epochs=3, save_seconds=saved)
    whole = trained(training(tmp_path / "whole", tiny, card, course), tmp_path / "a")
    work = training(tmp_path / "cut", tiny, card, course)

    def kill(tick: TrainingProgress) -> None:
        if tick.step == at:
            raise Killed

    with pytest.raises(Killed):
        trained(work, tmp_path / "b", kill)
    steps: list[int] = []
    again = trained(work, tmp_path / "b", lambda tick: steps.append(tick.step))
    assert (steps[0] == at) if saved == 0.0 else (1 < steps[0] < at)
    assert again.sha256 == whole.sha256
    assert again.curve == whole.curve


def test_train_other_best_rule_has_other_checkpoint(
    tmp_path: Path, tiny: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = training(tmp_path, tiny, card)
    here = work.checkpoint_folder
    monkeypatch.setattr("orchestra.learn.lora.train.BEST_RULE", "loss")
    assert work.checkpoint_folder != here


def test_train_diverged_ends_with_readable_checkpoint(
    tmp_path: Path, tiny: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestra.learn.lora.model import Learner

    real, steps = Learner.accumulate_gradient, iter(range(100))
    monkeypatch.setattr(
        Learner, "accumulate_gradient", lambda self, batch: float("nan") if next(steps) == 3 else real(self, batch)
    )
    work = training(tmp_path, tiny, card, replace(COURSE, save_seconds=0))
    with pytest.raises(InputError, match="in step 4 its loss is nan") as caught:
        trained(work, tmp_path / "out")
    assert caught.value.code == "N124"
    assert trained(work, tmp_path / "out").steps > 4


def test_train_other_seed_has_other_result(tmp_path: Path, tiny: Path, card: Card) -> None:
    one = training(tmp_path, tiny, card, replace(COURSE, epochs=1))
    other = replace(one, hyperparameters=replace(one.hyperparameters, seed=1))
    assert one.checkpoint_folder != other.checkpoint_folder
    assert trained(one, tmp_path / "a").sha256 != trained(other, tmp_path / "b").sha256


def test_train_stops_early_without_improvement(tmp_path: Path, tiny: Path, card: Card) -> None:
    """With a learning rate of zero nothing improves after the first evaluation."""
    work = training(tmp_path, tiny, card, replace(COURSE, learning_rate=0.0, epochs=50, patience=2))
    made = trained(work, tmp_path / "out")
    assert len(made.curve) == 3
    assert made.best_step == made.curve[0].step


@pytest.mark.parametrize(
    ("looks", "kept", "since"),
    [
        ([(0.9, 0.0)], 0, 0),
        ([(0.9, 0.0), (0.5, 0.0), (0.7, 0.0)], 1, 1),
        ([(0.9, 0.0), (0.9, 0.0), (0.9, 0.0)], 0, 2),
        ([(0.9, 0.01), (0.5, 0.0), (0.7, 0.0)], 1, 1),
        ([(0.9, 0.1), (0.5, 0.3), (0.7, 0.4)], 2, 0),
        ([(0.9, 0.1), (0.5, 0.4), (0.7, 0.4), (0.8, 0.3)], 2, 2),
        ([(0.9, 0.1), (0.5, 0.4), (0.7, 0.4), (0.4, 0.3)], 2, 0),
    ],
)
def test_best_point_has_most_exact_rows(looks: list[tuple[float, float]], kept: int, since: int) -> None:
    points = [TrainingPoint(number, float(number), 1.0, tune, exact) for number, (tune, exact) in enumerate(looks)]
    assert (best_point(points).step, points_since_improvement(points)) == (kept, since)


def test_train_keeps_weights_of_best_point(tmp_path: Path, tiny: Path, card: Card) -> None:
    import torch

    from orchestra.learn.batching import Batch, Batcher
    from orchestra.learn.lora.base_model import load_base
    from orchestra.learn.lora.checkpoint import Checkpoints
    from orchestra.learn.lora.loop import train
    from orchestra.learn.lora.model import Learner

    class Told(Learner):
        """A learner with given evaluation results: most rows are exact where the loss is greatest."""

        def evaluate(self, batch: Batch) -> tuple[float, int, int, int]:
            looks.append({name: master.detach().clone() for name, master in self.master_weights.items()})
            loss, right = ((0.5, 4), (0.1, 5), (0.9, 6), (0.8, 5))[len(looks) - 1]
            return loss, 1, 10, right

    looks: list[dict[str, torch.Tensor]] = []
    prepared = prepare_examples(training(tmp_path, tiny, card))
    learner = Told(load_base(tiny), AdapterShape(rank=4), 0, "cpu")
    held = Batcher.from_examples(prepared.tune[:1], 4096)
    course = replace(COURSE, epochs=4, tune_every=1.0)
    state = train(
        learner,
        Batcher.from_examples(prepared.train, 120),
        held,
        course,
        "plan",
        Checkpoints(tmp_path / "kept"),
        lambda tick: None,
    )
    assert (len(state.points), state.best_step) == (4, state.points[2].step)
    assert all(torch.equal(master, looks[2][name]) for name, master in learner.master_weights.items())
    assert not all(torch.equal(master, looks[3][name]) for name, master in learner.master_weights.items())


def timed(
    tmp_path: Path, tiny: Path, card: Card, minutes: float, tick: Callable[[int], float]
) -> tuple[TrainingState, list[TrainingProgress]]:
    """Trains with a time budget. `tick` returns the seconds that each reading of the clock adds."""
    from orchestra.learn.batching import Batcher
    from orchestra.learn.lora.base_model import load_base
    from orchestra.learn.lora.checkpoint import Checkpoints
    from orchestra.learn.lora.loop import train
    from orchestra.learn.lora.model import Learner

    work = training(tmp_path, tiny, card)
    prepared = prepare_examples(work)
    now, readings = 0.0, 0

    def clock() -> float:
        nonlocal now, readings
        readings += 1
        now += tick(readings)
        return now

    learner = Learner(load_base(tiny), work.shape, 0, "cpu")
    ticks: list[TrainingProgress] = []
    batches, held = Batcher.from_examples(prepared.train, 120), Batcher.from_examples(prepared.tune, 120)
    course = TrainingHyperparameters(minutes=minutes, patience=99)
    return train(learner, batches, held, course, "plan", Checkpoints(tmp_path / "kept"), ticks.append, clock), ticks


def test_train_time_budget_becomes_steps(tmp_path: Path, tiny: Path, card: Card) -> None:
    state, ticks = timed(tmp_path, tiny, card, 1.0, lambda reading: 1.0)
    assert all(tick.total_steps == 0 and tick.seconds_left > 0 for tick in ticks[: TIMED_STEPS - 1])
    assert state.total_steps == state.step == 60
    assert math.isclose(ticks[TIMED_STEPS].seconds_left, 60 - TIMED_STEPS - 1)


@pytest.mark.parametrize(
    ("tick", "steps"),
    [(lambda reading: 25.0, 3), (lambda reading: 1.0 if reading < 31 else 20.0, 31)],
    ids=["slow", "became slower"],
)
def test_train_time_budget_ends_slow_training(
    tmp_path: Path, tiny: Path, card: Card, tick: Callable[[int], float], steps: int
) -> None:
    """The last step has an evaluation, so that there are weights to keep."""
    state, ticks = timed(tmp_path, tiny, card, 1.0, tick)
    assert (state.step, state.total_steps) == (steps, steps)
    assert ticks[-1].point is not None
    assert state.best_step > 0


def test_train_reports_phases_before_first_step(tmp_path: Path, tiny: Path, card: Card) -> None:
    work = training(tmp_path, tiny, card, replace(COURSE, epochs=0.1))
    events: list[str] = []
    train_adapter(
        work,
        prepare_examples(work),
        tmp_path / "out",
        lambda tick: events.append(f"step {tick.step}"),
        on_phase=events.append,
    )
    assert events[:3] == ["loading the base tiny", "training on cpu, in batches of at most 120 tokens", "step 1"]


def test_adapter_is_small_safe_and_has_provenance(tmp_path: Path, tiny: Path, card: Card) -> None:
    from safetensors.torch import load_file

    work = training(tmp_path, tiny, card, replace(COURSE, epochs=1))
    made = trained(work, tmp_path / "out")
    check_folder(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [WEIGHTS, CONFIG, MANIFEST_FILE, CURVE_FILE]
    )
    weights = load_file(tmp_path / "out" / WEIGHTS)
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.bfloat16"}
    assert len(weights) == 2 * 7 * 2
    config = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8, "LORA")
    manifest = json.loads((tmp_path / "out" / MANIFEST_FILE).read_text())
    assert manifest["data"] == f"words {work.data.manifest.digest}"
    assert (manifest["licence"], manifest["bases"], manifest["rank"]) == ("CC0", ["0" * 32], 4)
    assert manifest["sha256"] == made.sha256
    assert (tmp_path / "out" / WEIGHTS).stat().st_size < MAX_BYTES


def test_adapter_loads_in_peft_with_same_output(tmp_path: Path, tiny: Path, card: Card) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from orchestra.learn.batching import Pack
    from orchestra.learn.lora.base_model import load_base
    from orchestra.learn.lora.model import Learner

    work = training(tmp_path, tiny, card, replace(COURSE, epochs=1))
    trained(work, tmp_path / "out")
    example = prepare_examples(work).tune[0]
    own = Learner(load_base(tiny), work.shape, 0, "cpu", precision=torch.float32)
    before = own.evaluate((Pack((), (example,)),))[0]
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), str(tmp_path / "out")
    )
    with torch.no_grad():
        scores = theirs(torch.tensor([[*example.prompt, *example.label]])).logits[0, len(example.prompt) - 1 : -1]
        loss = float(torch.nn.functional.cross_entropy(scores, torch.tensor(example.label), reduction="sum"))
    from safetensors.torch import load_file

    own.load_weights({name: value.float() for name, value in load_file(tmp_path / "out" / WEIGHTS).items()})
    assert own.evaluate((Pack((), (example,)),))[0] == pytest.approx(loss, rel=1e-4)
    assert before != pytest.approx(loss, rel=1e-2)


def test_checkpoint_damaged_refused_torn_ignored(tmp_path: Path, tiny: Path, card: Card) -> None:
    work = training(tmp_path, tiny, card, replace(COURSE, epochs=1))
    first = trained(work, tmp_path / "a")
    partial = work.checkpoint_folder / ".checkpoint.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{")
    assert trained(work, tmp_path / "b").sha256 == first.sha256
    (work.checkpoint_folder / "checkpoint" / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError) as caught:
        trained(work, tmp_path / "c")
    assert (caught.value.code, caught.value.hint) == ("N120", "start again with --fresh")
    assert (
        train_adapter(work, prepare_examples(work), tmp_path / "d", lambda tick: None, fresh=True).sha256
        == first.sha256
    )


def test_train_other_data_types_refused(tmp_path: Path, tiny: Path, card: Card) -> None:
    work = training(tmp_path, tiny, card)
    other = make_card(tmp_path / "other", CARD.replace("Quote | null", "str | null"))
    with pytest.raises(InputError) as caught:
        prepare_examples(replace(work, card=other))
    assert caught.value.code == "N103"


def test_train_empty_split_refused_long_rows_counted(tmp_path: Path, tiny: Path, card: Card) -> None:
    work = training(tmp_path, tiny, card)
    with pytest.raises(InputError) as caught:
        prepare_examples(replace(work, max_example_tokens=16))
    assert caught.value.code == "N104"
    assert prepare_examples(work).too_long == 0


def test_train_evaluations_evenly_spaced(tmp_path: Path, tiny: Path, card: Card) -> None:
    made = trained(
        training(tmp_path, tiny, card, replace(COURSE, learning_rate=1e-4, epochs=6, tune_every=0.5)), tmp_path / "out"
    )
    gaps = [later.step - earlier.step for earlier, later in itertools.pairwise(made.curve)]
    assert max(gaps) - min(gaps[:-1]) <= 1
    assert [point.epoch for point in made.curve][-1] == pytest.approx(6, abs=0.3)


def test_train_starts_from_adapter(tmp_path: Path, tiny: Path, card: Card) -> None:
    first = training(tmp_path, tiny, card, replace(COURSE, epochs=8, learning_rate=5e-2))
    made = trained(first, tmp_path / "a")
    start = StartingAdapter.from_folder(tmp_path / "a", first.shape)
    course = replace(COURSE, epochs=1, learning_rate=1e-7, warmup_steps=1)
    on, anew = replace(first, hyperparameters=course, start=start), replace(first, hyperparameters=course)
    assert on.checkpoint_folder != anew.checkpoint_folder
    went_on = trained(on, tmp_path / "b")
    kept = next(point.tune for point in made.curve if point.step == made.best_step)
    assert went_on.curve[0].tune == pytest.approx(kept, rel=0.02)
    assert trained(anew, tmp_path / "c").curve[0].tune > kept * 1.2
    assert (went_on.start, made.start) == (start.digest, "")


@pytest.mark.parametrize("at", [1, 5])
def test_train_from_adapter_killed_resumes_to_same_result(tmp_path: Path, tiny: Path, card: Card, at: int) -> None:
    trained(training(tmp_path, tiny, card, replace(COURSE, epochs=1)), tmp_path / "a")
    work = replace(
        training(tmp_path, tiny, card, replace(COURSE, epochs=2)),
        start=StartingAdapter.from_folder(tmp_path / "a", AdapterShape(rank=4, alpha=8)),
    )
    whole = trained(replace(work, cache=tmp_path / "elsewhere"), tmp_path / "b")

    def kill(tick: TrainingProgress) -> None:
        if tick.step == at:
            raise Killed

    with pytest.raises(Killed):
        trained(work, tmp_path / "c", kill)
    assert trained(work, tmp_path / "c").sha256 == whole.sha256


def test_train_start_mismatch_refused(tmp_path: Path, tiny: Path, card: Card) -> None:
    work = training(tmp_path, tiny, card, replace(COURSE, epochs=1))
    trained(work, tmp_path / "a")
    attention = replace(work, shape=AdapterShape(rank=4, alpha=8, targets="attention"))
    trained(attention, tmp_path / "b")
    for folder, said in (
        (tmp_path / "nothing", "is not an adapter"),
        (tmp_path / "a", "has rank 4 and alpha 8, and rank 8 and alpha 16 were requested"),
    ):
        with pytest.raises(InputError, match=said) as refused:
            StartingAdapter.from_folder(folder, AdapterShape(rank=8, alpha=16))
        assert refused.value.code == "N123"
    with pytest.raises(InputError, match="of other layers") as refused:
        trained(replace(work, start=StartingAdapter.from_folder(tmp_path / "b", work.shape)), tmp_path / "c")
    assert refused.value.code == "N123"
