"""Training of the agents `banking_intent` and `assistant_intent`: committees of tuned sentence encoders and a linear
classifier.

    python -m bench.train_intents banking_intent --data PATH [--out agents/banking_intent] [--measure]

`PATH` has the folders banking77 (CC BY 4.0), clinc150 (CC BY 3.0) and routellm (Apache-2.0), each with its training
split; `agents/NAME/data/build.py` reads the rows. All choices are made on folds of it that members leave out;
`--measure` evaluates the written card on `dev.jsonl`, and writes nothing. Training needs torch, scikit-learn and
safetensors, the agents themselves only numpy and tokenizers.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.assistant_intent.data import build as assistant_intent
from agents.assistant_intent.data.build import OUTSIDE
from agents.banking_intent.data import build as banking_intent
from agents.banking_intent.data.build import labelled_texts
from orchestra.agents.card import Card
from orchestra.agents.inference.model_file import base_encoder
from orchestra.agents.inference.text_classifier import TextClassifier
from orchestra.fleet.weights.encoders import EncoderStore, describe_base
from orchestra.learn.encoders.classifier import CommitteeRows, CommitteeSettings, train_committee
from orchestra.learn.encoders.member import TrainingStep
from orchestra.learn.encoders.tuned import EncoderHyperparameters
from orchestra.learn.linear import MANY_LABELS_HYPERPARAMETERS, ClassifierHyperparameters

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Recipe:
    """The training data and the settings of an agent."""

    folder: str
    """The folder of its public set."""
    rows: Callable[[Path], CommitteeRows]
    """Builds the rows from a folder of sets."""
    plan: CommitteeSettings


RECIPES = {
    "banking_intent": Recipe(
        "banking77",
        banking_intent.rows,
        CommitteeSettings(EncoderHyperparameters(epochs=6), ClassifierHyperparameters(), members=3),
    ),
    "assistant_intent": Recipe(
        "clinc150",
        assistant_intent.rows,
        CommitteeSettings(
            EncoderHyperparameters(epochs=5, blocks=4, learning_rate=7e-4),
            MANY_LABELS_HYPERPARAMETERS,
            members=2,
            out_of_scope_label=OUTSIDE,
        ),
    ),
}


async def learn(card: Card, recipe: Recipe, data: Path, work: Path) -> None:
    """Trains a card, and prints its accuracy on held-out folds."""
    folder = await EncoderStore().folder(card.model)
    losses: list[float] = []
    began = time.process_time()

    def told(member: int, step: TrainingStep) -> None:
        losses.append(step.loss)
        if step.step % 20 == 0 or step.step == step.total_steps:
            spent = time.process_time() - began
            print(
                (
                    f"member {member}: step {step.step} of {step.total_steps}, loss {np.mean(losses):.4f}, "
                    f"{spent:.0f} s of a processor"
                ),
                flush=True,
            )
            losses.clear()

    made = train_committee(
        card, recipe.rows(data), (folder, describe_base(card.model, folder)), recipe.plan, work, told
    )
    assert card.folder is not None
    made.write(card.folder)
    print(f"right of what members left out: {made.metrics}; {time.process_time() - began:.0f} s of a processor")


async def measure(card: Card, path: Path) -> None:
    """Prints the metrics of the written card on a part of its set."""
    encoder = await EncoderStore().encoder(card.model, base_encoder(card))
    committee = TextClassifier.load(card, encoder)
    rows = labelled_texts(path)
    began = time.process_time()
    said = [committee.predict({"text": row.text}) for row in rows]
    each = 1e3 * (time.process_time() - began) / len(rows)
    right = np.array([output["intent"] == row.label for (output, _), row in zip(said, rows, strict=True)])
    inside = np.array([row.label != OUTSIDE for row in rows])
    sure = np.array([probability for _, probability in said])
    print(
        f"{path.name}: {right[inside].sum()} of {inside.sum()} right, accuracy {right[inside].mean():.4f}; "
        f"{each:.1f} ms a text"
    )
    if not inside.all():
        odds = np.array([output["p_oos"] for output, _ in said])
        print(f"  out of scope: AUROC {auroc(~inside, odds):.4f}, recall {right[~inside].mean():.4f}")
    for least in (0.5, 0.7, 0.9):
        kept = sure >= least
        print(f"  probability >= {least}: {kept.mean():.3f} of the texts, accuracy {right[kept].mean():.4f}")


def auroc(positive: npt.NDArray[np.bool_], score: npt.NDArray[Any]) -> float:
    """Returns the probability that a positive scores higher than a negative; a tie counts half."""
    yes, no = np.sort(score[positive]), np.sort(score[~positive])
    above = np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")
    return float(above.sum() / 2 / len(yes) / len(no))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="the folder of the sets")
    parser.add_argument("--out", type=Path, help="the agent's folder")
    parser.add_argument("--work", type=Path, help="the folder of the checkpoints; a killed training resumes from there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", action="store_true", help="only evaluate the existing card")
    chosen = parser.parse_args()
    recipe, folder = RECIPES[chosen.agent], chosen.out or ROOT / "agents" / chosen.agent
    if chosen.measure:
        asyncio.run(measure(Card.load(folder), chosen.data / recipe.folder / "dev.jsonl"))
        return
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(learn(Card.load(folder), recipe, chosen.data, chosen.work or Path(temporary)))


if __name__ == "__main__":
    main()
