"""Training of linear models over n-grams: agents of kind `sklearn`, and the linear classifier in every committee of
encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from orchestra.agents.inference.array_files import pack_arrays
from orchestra.agents.inference.linear import (
    LinearClassifier,
    LinearClassifierConfig,
    LinearRegressor,
    LinearRegressorConfig,
    NgramFeatures,
    length_steps,
)
from orchestra.learn.encoders.texts import LabelledText, fold_of


@dataclass(frozen=True, slots=True)
class ClassifierHyperparameters:
    """Hyperparameters of a classifier: the best of six sets on three folds of Banking77's training split."""

    features: NgramFeatures = field(default_factory=lambda: NgramFeatures(words=(1, 2), characters=(2, 3, 4, 5), gap=3))
    min_frequency: int = 2
    """Minimal number of texts with a feature."""
    inverse_penalty: float = 20.0
    """Inverse strength of the L2 penalty (`C` of scikit-learn)."""
    max_iterations: int = 500


SMALL_ROW_COUNT = 20
"""With fewer texts, every feature is used: the texts may have none in common."""
MANY_LABELS_HYPERPARAMETERS = ClassifierHyperparameters(
    NgramFeatures(words=(1, 2), characters=(3, 4, 5), gap=2), min_frequency=3
)
"""For more than a hundred labels: a feature has one weight for each label."""


@dataclass(frozen=True, slots=True)
class FittedClassifier:
    """A classifier and its two files."""

    classifier: LinearClassifier
    config_json: str
    arrays: bytes


def fit_classifier(
    rows: Sequence[LabelledText],
    fields: tuple[str, str],
    hyperparameters: ClassifierHyperparameters,
    arrays_file: str,
    values: Mapping[str, Any] | None = None,
) -> FittedClassifier:
    """Trains a classifier with int8 weights, scaled by label.

    Args:
        fields: The names of the input field and of the output field.
        arrays_file: The name of the file of arrays.
        values: The output values of labels that are not texts.
    """
    least = hyperparameters.min_frequency if len(rows) >= SMALL_ROW_COUNT else 1
    vectorizer = TfidfVectorizer(
        analyzer=hyperparameters.features.extract, sublinear_tf=True, min_df=least, dtype=np.float32
    )
    matrix = vectorizer.fit_transform([row.text for row in rows])
    model = LogisticRegression(
        C=hyperparameters.inverse_penalty, max_iter=hyperparameters.max_iterations, tol=1e-4
    ).fit(matrix, [row.label for row in rows])
    by_label, intercept = model.coef_, model.intercept_
    # for two labels scikit-learn has only the log-odds of the second: equivalent to one weight vector for each
    if len(by_label) == 1:
        by_label, intercept = np.concatenate([-by_label, by_label]) / 2, np.concatenate([-intercept, intercept]) / 2
    arrays = _quantize_weights(vectorizer, by_label, intercept)
    shape = {
        "format": "orchestra/linear-text/v1",
        "input": fields[0],
        "output": fields[1],
        "features": hyperparameters.features.model_dump(mode="json"),
    }
    labels = [(values or {}).get(str(label), str(label)) for label in model.classes_]
    text, data = pack_arrays({**shape, "labels": labels, "arrays": arrays_file}, arrays)
    return FittedClassifier(LinearClassifier(LinearClassifierConfig.model_validate_json(text), arrays), text, data)


@dataclass(frozen=True, slots=True)
class RegressorHyperparameters:
    """Hyperparameters of a regression, compared on five folds of the training split of RouteLLM's outcomes
    (`bench/routing.py`).
    """

    features: NgramFeatures = field(default_factory=lambda: NgramFeatures(words=(1, 2), characters=(2, 3, 4)))
    min_frequency: int = 3
    """Minimal number of texts with a feature, for a thousand or more texts."""
    penalties: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)
    """L2 penalties to try; the one with the least squared error in cross-validation with `folds` folds is used."""
    folds: int = 3
    length_weight: float = 0.2
    """Weight of the length feature relative to the features of the text, whose squares sum to 1."""


@dataclass(frozen=True, slots=True)
class FittedRegressor:
    """A regression, its two files, and the chosen penalty."""

    regressor: LinearRegressor
    config_json: str
    arrays: bytes
    penalty: float


def fit_regressor(
    rows: Sequence[tuple[str, float]],
    fields: tuple[str, str],
    arrays_file: str,
    hyperparameters: RegressorHyperparameters | None = None,
) -> FittedRegressor:
    """Trains a regression from texts to numbers.

    Args:
        fields: The names of the input field and of the output field.
        arrays_file: The name of the file of arrays.
    """
    hyperparameters = hyperparameters or RegressorHyperparameters()
    texts, targets = [text for text, _ in rows], np.array([number for _, number in rows])
    least = hyperparameters.min_frequency if len(rows) >= 1000 else 2 if len(rows) >= SMALL_ROW_COUNT else 1
    vectorizer = TfidfVectorizer(
        analyzer=hyperparameters.features.extract, sublinear_tf=True, min_df=least, dtype=np.float32
    )
    steps = [length_steps(text) for text in texts]
    lengths = csr_matrix(
        [[hyperparameters.length_weight] * count + [0.0] * (max(steps) - count) for count in steps],
        shape=(len(rows), max(steps)),
    )
    matrix = csr_matrix(hstack([vectorizer.fit_transform(texts), lengths]))
    penalty = _choose_penalty(
        matrix, targets, np.array([fold_of(text, hyperparameters.folds) for text in texts]), hyperparameters
    )
    model = _ridge(penalty).fit(matrix, targets)
    words = len(vectorizer.vocabulary_)
    arrays = _quantize_weights(vectorizer, model.coef_[None, :words], np.array([model.intercept_]))
    arrays["lengths"] = (model.coef_[words:] * hyperparameters.length_weight).astype(np.float32)
    shape = {
        "format": "orchestra/linear-number/v1",
        "input": fields[0],
        "output": fields[1],
        "features": hyperparameters.features.model_dump(mode="json"),
        "lowest": float(targets.min()),
        "highest": float(targets.max()),
    }
    text, data = pack_arrays({**shape, "arrays": arrays_file}, arrays)
    return FittedRegressor(
        LinearRegressor(LinearRegressorConfig.model_validate_json(text), arrays), text, data, penalty
    )


def _choose_penalty(
    matrix: csr_matrix, targets: NDArray[np.float64], fold: NDArray[np.int64], hyperparameters: RegressorHyperparameters
) -> float:
    def squared_error(penalty: float) -> float:
        total = 0.0
        for left_out in range(hyperparameters.folds):
            held_mask, train_mask = fold == left_out, fold != left_out
            if held_mask.any() and train_mask.any():
                total += float(
                    (
                        (
                            _ridge(penalty).fit(matrix[train_mask], targets[train_mask]).predict(matrix[held_mask])
                            - targets[held_mask]
                        )
                        ** 2
                    ).sum()
                )
        return total

    return min(hyperparameters.penalties, key=squared_error)


def _ridge(penalty: float) -> Ridge:
    return Ridge(alpha=penalty, solver="lsqr", max_iter=100, tol=1e-3)


def _quantize_weights(
    vectorizer: TfidfVectorizer, by_column: NDArray[Any], intercept: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Returns the arrays of both kinds of model: int8 weights, scaled by column."""
    weights = by_column.T.astype(np.float32)
    scale = np.maximum(np.abs(weights).max(axis=0), np.finfo(np.float32).tiny * 127) / 127
    return {
        "vocabulary": np.frombuffer(
            "\n".join(sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)).encode(), dtype=np.uint8
        ),
        "idf": vectorizer.idf_.astype(np.float32),
        "weights": np.round(weights / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
        "intercept": intercept.astype(np.float32),
    }
