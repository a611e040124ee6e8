"""Trains the agent `banking_intent`: TF-IDF features and multinomial logistic regression, written as plain arrays.

    python bench/train_banking.py --data PATH/banking77 [--out agents/banking_intent]

`PATH/banking77` has `train.jsonl`, `dev.jsonl` and `labels.json` (Banking77, CC BY 4.0, Casanueva et al. 2020). Settings were chosen by
cross-validation on the training part (`--select` prints that table); the dev part is only measured on, through the card that was written.
Needs scikit-learn; the agent itself needs numpy only.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from orchestra.agent.card import Card
from orchestra.agent.classical import Classifier, Features, packed

ROOT = Path(__file__).resolve().parents[1]
SEED = 7
FOLDS = 3
CHOSEN = (Features(words=(1, 2), characters=(2, 3, 4, 5), gap=3), 2, 20.0)
"""Features, the number of texts that a feature must occur in, and the inverse strength of the L2 penalty."""
CANDIDATES = (
    (Features(words=(1, 2), characters=(), gap=0), 2, 20.0),
    (Features(words=(1, 2), characters=(3, 4, 5), gap=0), 2, 20.0),
    (Features(words=(1, 2), characters=(3, 4, 5), gap=2), 3, 20.0),
    (Features(words=(1, 2), characters=(3, 4, 5), gap=4), 2, 20.0),
    CHOSEN,
    (Features(words=(1, 2), characters=(2, 3, 4, 5), gap=3), 2, 60.0),
)


def rows(path: Path) -> list[tuple[str, str]]:
    """Texts with their intents."""
    found = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return [(row["input"]["text"], row["expected"]["intent"]) for row in found]


def fit(data: Sequence[tuple[str, str]], settings: tuple[Features, int, float]) -> tuple[TfidfVectorizer, LogisticRegression]:
    """The vectorizer and the classifier of some settings."""
    features, least, strength = settings
    vectorizer = TfidfVectorizer(analyzer=features.of, sublinear_tf=True, min_df=least, dtype=np.float32)
    matrix = vectorizer.fit_transform([text for text, _ in data])
    return vectorizer, LogisticRegression(C=strength, max_iter=500, tol=1e-4).fit(matrix, [intent for _, intent in data])


def select(data: list[tuple[str, str]]) -> None:
    """Prints the accuracy of every candidate over three folds of the training part."""
    shuffled = list(data)
    random.Random(SEED).shuffle(shuffled)
    for settings in CANDIDATES:
        right = 0
        for fold in range(FOLDS):
            held = shuffled[fold::FOLDS]
            vectorizer, model = fit([row for index, row in enumerate(shuffled) if index % FOLDS != fold], settings)
            said = model.predict(vectorizer.transform([text for text, _ in held]))
            right += int((said == np.array([intent for _, intent in held])).sum())
        features, least, strength = settings
        shape = f"words {features.words} characters {features.characters} gap {features.gap} in at least {least} texts, C {strength:g}"
        print(f"{right / len(shuffled):.4f}  {shape}", flush=True)


def arrays(vectorizer: TfidfVectorizer, model: LogisticRegression) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `orchestra/linear-text/v1`: weights as int8, scaled by label."""
    words = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)
    weights = model.coef_.T.astype(np.float32)
    scale = np.abs(weights).max(axis=0) / 127
    return {
        "vocabulary": np.frombuffer("\n".join(words).encode(), dtype=np.uint8),
        "idf": vectorizer.idf_.astype(np.float32),
        "weights": np.round(weights / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
        "intercept": model.intercept_.astype(np.float32),
    }


def measure(folder: Path, data: Sequence[tuple[str, str]]) -> None:
    """Prints the accuracy of the written card, and how sure it is when it is right."""
    classifier = Classifier.load(Card.load(folder))
    began = time.perf_counter()
    answers = [classifier.predict({"text": text}) for text, _ in data]
    seconds = time.perf_counter() - began
    right = np.array([answer["intent"] == intent for (answer, _), (_, intent) in zip(answers, data, strict=True)])
    sure = np.array([probability for _, probability in answers])
    print(f"dev: {right.sum()} of {len(right)} right, accuracy {right.mean():.4f}; {1e3 * seconds / len(right):.2f} ms a text")
    for least in (0.5, 0.7, 0.9):
        kept = sure >= least
        print(f"  probability >= {least}: {kept.mean():.3f} of the texts, accuracy {right[kept].mean():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder banking77")
    parser.add_argument("--out", type=Path, default=ROOT / "agents" / "banking_intent")
    parser.add_argument("--select", action="store_true", help="print the accuracy of every candidate, and write nothing")
    parser.add_argument("--measure", action="store_true", help="only measure what is there")
    chosen = parser.parse_args()
    train = rows(chosen.data / "train.jsonl")
    if chosen.select:
        select(train)
        return
    if not chosen.measure:
        vectorizer, model = fit(train, CHOSEN)
        features = CHOSEN[0].model_dump(mode="json")
        layout = {"format": "orchestra/linear-text/v1", "input": "text", "output": "intent", "features": features}
        text, data = packed(
            {**layout, "labels": [str(label) for label in model.classes_], "arrays": "weights.npz"}, arrays(vectorizer, model)
        )
        (chosen.out / "model.json").write_text(text, "utf-8")
        (chosen.out / "weights.npz").write_bytes(data)
        print(f"wrote {chosen.out}: {len(data):,} bytes of arrays, {len(vectorizer.vocabulary_):,} features")
    measure(chosen.out, rows(chosen.data / "dev.jsonl"))


if __name__ == "__main__":
    main()
