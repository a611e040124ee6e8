"""Distillation: a student approaches its teacher, the loss is that of the paper, and other tokenizers are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.fleet.weights.adapter_checks import WEIGHTS
from orchestra.learn.batching import Batcher
from orchestra.learn.lora.base_model import label_logits
from orchestra.learn.lora.distillation import (
    DistillationSettings,
    SoftTeacher,
    check_tokenizers,
    tokenizer_digest,
)
from orchestra.learn.lora.train import AdapterTraining, prepare_examples, train_adapter
from tests.cli.shell import Shell
from tests.learn.conftest import make_card
from tests.learn.lora.test_train import COURSE, Killed, trained, training
from tests.learn.test_commands import CSV, FLEET, MAPPED

pytestmark = pytest.mark.usefixtures("tiny")


def copied(tiny: Path, place: Path, seed: int, **shape: Any) -> Path:
    """Other weights with the tokenizer of the tiny model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(tiny, place)
    torch.manual_seed(seed)
    config = LlamaConfig.from_pretrained(tiny)
    for name, value in shape.items():
        setattr(config, name, value)
    model: Any = LlamaForCausalLM
    model(config).to(torch.bfloat16).save_pretrained(place)
    return place


@pytest.fixture
def larger(tiny: Path, tmp_path: Path) -> Path:
    """A teacher with wider layers and a padded vocabulary."""
    from transformers import LlamaConfig

    size = LlamaConfig.from_pretrained(tiny).vocab_size + 7
    return copied(tiny, tmp_path / "larger", 11, intermediate_size=96, num_hidden_layers=3, vocab_size=size)


def taught(
    folder: Path, adapter: Path | None = None, temperature: float = 2.0, share: float = 1.0
) -> DistillationSettings:
    return DistillationSettings.from_folder("larger", folder, adapter, temperature, share)


def divergence(work: AdapterTraining, adapter: Path | None, teacher: DistillationSettings) -> float:
    """Divergence of the student from the teacher per label token of the tune split, at temperature 1."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional

    from orchestra.learn.lora.base_model import batch_tensors, load_base
    from orchestra.learn.lora.model import Learner

    student = Learner(load_base(work.base), work.shape, 0, "cpu")
    if adapter is not None:
        student.load_weights({name: value.float() for name, value in load_file(adapter / WEIGHTS).items()})
    model, total, count = load_base(teacher.folder), 0.0, 0
    with torch.no_grad():
        for batch in Batcher.from_examples(prepare_examples(work).tune, work.batch_tokens).epoch_batches(0, 0):
            made = batch_tensors(batch, torch.device("cpu"))
            mine, wanted = (
                label_logits(student._model, made),
                label_logits(model, made)[:, : student._model.config.vocab_size],
            )
            total += float(
                functional.kl_div(
                    functional.log_softmax(mine, -1),
                    functional.log_softmax(wanted, -1),
                    reduction="sum",
                    log_target=True,
                )
            )
            count += len(made.labels)
    return total / count


def test_distillation_student_approaches_teacher(tmp_path: Path, tiny: Path, larger: Path, card: Card) -> None:
    teacher = taught(larger, temperature=1.0)
    work = replace(
        training(tmp_path, tiny, card, replace(COURSE, epochs=8, learning_rate=5e-2, save_seconds=1e9)), teacher=teacher
    )
    made = trained(work, tmp_path / "out")
    before, after = divergence(work, None, teacher), divergence(work, tmp_path / "out", teacher)
    assert after < 0.8 * before
    alone = replace(work, teacher=None)
    trained(alone, tmp_path / "alone")
    assert after < divergence(work, tmp_path / "alone", teacher), "labels alone bring it as near"
    assert made.teacher == f"larger {teacher.digest}, temperature 1, share 1"
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["teacher"] == made.teacher


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.0), (1.0, 1.0), (3.0, 0.4)])
def test_distillation_loss_matches_paper(
    tmp_path: Path, tiny: Path, larger: Path, card: Card, temperature: float, share: float
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from orchestra.learn.lora.base_model import batch_tensors

    student, teacher = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (tiny, larger))
    batch = Batcher.from_examples(prepare_examples(training(tmp_path, tiny, card)).train, 200).epoch_batches(0, 0)[0]
    made = batch_tensors(batch, torch.device("cpu"))
    scores = label_logits(student, made).detach().requires_grad_()
    found = SoftTeacher(teacher, temperature, share).loss(scores, made)
    with torch.no_grad():
        theirs = torch.softmax(label_logits(teacher, made)[:, : scores.shape[1]] / temperature, -1)
        mine = torch.softmax(scores / temperature, -1)
        apart = (theirs * (theirs / mine).log()).sum() * temperature**2
        wrong = -torch.log_softmax(scores, -1)[torch.arange(len(made.labels)), made.labels].sum()
    assert float(found.detach()) == pytest.approx(float((1 - share) * wrong + share * apart), rel=1e-4)
    found.backward()
    assert scores.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("at", [1, 7])
def test_distillation_killed_resumes_to_same_result(
    tmp_path: Path, tiny: Path, larger: Path, card: Card, at: int
) -> None:
    course = replace(COURSE, epochs=2)

    def work(place: str) -> AdapterTraining:
        return replace(training(tmp_path / place, tiny, card, course), teacher=taught(larger, share=0.5))

    def kill(tick: Any) -> None:
        if tick.step == at:
            raise Killed

    whole = trained(work("whole"), tmp_path / "a")
    with pytest.raises(Killed):
        trained(work("cut"), tmp_path / "b", kill)
    again = trained(work("cut"), tmp_path / "b")
    assert (again.sha256, again.curve) == (whole.sha256, whole.curve)


def test_distillation_other_teacher_has_other_checkpoint(tmp_path: Path, tiny: Path, larger: Path, card: Card) -> None:
    work = training(tmp_path, tiny, card)
    other = copied(tiny, tmp_path / "other", 12)
    teachers = [None, taught(larger), taught(larger, share=0.5), taught(larger, temperature=1.0), taught(other)]
    assert len({replace(work, teacher=teacher).plan_digest for teacher in teachers}) == len(teachers)


def test_distillation_teacher_includes_adapter(tmp_path: Path, tiny: Path, card: Card) -> None:
    """A student with its own base plus an adapter as its teacher approaches the adapted model and not the base."""
    work = training(tmp_path, tiny, card, replace(COURSE, epochs=4, learning_rate=5e-2, save_seconds=1e9))
    trained(work, tmp_path / "adapter")
    teacher = taught(tiny, tmp_path / "adapter")
    assert teacher.digest != taught(tiny).digest
    loaded = SoftTeacher.load(teacher, "cpu")
    from orchestra.learn.lora.base_model import batch_tensors, load_base

    torch = pytest.importorskip("torch")
    made = batch_tensors(
        Batcher.from_examples(prepare_examples(work).tune, work.batch_tokens).epoch_batches(0, 0)[0],
        torch.device("cpu"),
    )
    with torch.no_grad():
        assert not torch.allclose(label_logits(loaded._model, made), label_logits(load_base(tiny), made), atol=0.05)


def damaged(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text("utf-8"))
    change(told)
    path.write_text(json.dumps(told), "utf-8")


def test_distillation_other_tokenizer_refused_first(tmp_path: Path, tiny: Path, larger: Path, card: Card) -> None:
    check_tokenizers(tiny, larger)
    damaged(larger, lambda told: told.update(padding={"strategy": "BatchLongest"}))
    assert tokenizer_digest(larger) == tokenizer_digest(tiny), "how a batch is padded makes no other tokens"
    damaged(larger, lambda told: told["model"]["merges"].pop())
    work = replace(training(tmp_path, tiny, card), teacher=taught(larger))
    with pytest.raises(InputError) as caught:
        prepare_examples(work)
    assert caught.value.code == "N121"
    (larger / "tokenizer.json").unlink()
    with pytest.raises(InputError) as caught:
        prepare_examples(work)
    assert caught.value.code == "N121"


def test_distillation_invalid_teacher_refused(tmp_path: Path, tiny: Path, larger: Path, card: Card) -> None:
    for folder, adapter in ((tmp_path / "nowhere", None), (tmp_path, None), (tiny, tmp_path)):
        with pytest.raises(InputError) as caught:
            taught(folder, adapter)
        assert caught.value.code == "N122"
    work = training(tmp_path, tiny, card, replace(COURSE, epochs=1))
    trained(work, tmp_path / "adapter")
    narrow = copied(tiny, tmp_path / "narrow", 3, hidden_size=16)
    with pytest.raises(InputError) as caught:
        train_adapter(
            replace(work, teacher=taught(narrow, tmp_path / "adapter")),
            prepare_examples(work),
            tmp_path / "out",
            lambda tick: None,
        )
    assert caught.value.code == "N122"


def test_distillation_command(shell: Shell, tiny: Path, larger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_card(Path())
    Path("rows.csv").write_text(CSV)
    Path("configs").mkdir()
    Path("configs/tiny.yaml").write_text(FLEET.replace("FOLDER", str(tiny)))
    Path("orchestra.toml").write_text('fleet = "tiny"\n')
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    assert shell("learn", "data", "finder", "rows.csv", "--out", "set", "--licence", "own", *MAPPED).code == 0
    options = (
        "--data",
        "set",
        "--epochs",
        "0.5",
        "--rank",
        "2",
        "--batch",
        "200",
        "--device",
        "cpu",
        "--out",
        "adapter",
    )
    said = shell("learn", "train", "finder", *options, "--teacher", str(larger), "--temperature", "3", "--share", "0.9")
    assert said.code == 0, said.err
    made = json.loads(Path("adapter/manifest.json").read_text())
    assert made["teacher"].startswith("larger ")
    assert made["command"].endswith("--teacher larger --temperature 3 --share 0.9")
    assert shell("learn", "train", "finder", *options, "--teacher", "base").code == 0, (
        "a model of the fleet by its name"
    )
    assert "\nN122: nowhere" in shell("learn", "train", "finder", *options, "--teacher", "nowhere").err
    assert (
        "\nN107: --teacher-adapter" in shell("learn", "train", "finder", *options, "--teacher-adapter", "adapter").err
    )
