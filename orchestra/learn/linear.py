"""Linear classifiers over n-grams, fitted: what agents of kind `sklearn` are, and a voice in every committee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from orchestra.agent.classical import Classifier, Features, Layout, packed
from orchestra.learn.texts import Labelled


@dataclass(frozen=True, slots=True)
class Fit:
    """The settings of a fit; these were the best of six on three folds of Banking77's training part."""

    features: Features = field(default_factory=lambda: Features(words=(1, 2), characters=(2, 3, 4, 5), gap=3))
    least: int = 2
    """Texts that a feature must occur in."""
    strength: float = 20.0
    """The inverse of the L2 penalty's."""
    steps: int = 500


@dataclass(frozen=True, slots=True)
class Fitted:
    """A classifier, and the two files that it is written as."""

    classifier: Classifier
    layout: str
    arrays: bytes


def fitted(rows: Sequence[Labelled], fields: tuple[str, str], fit: Fit, file: str) -> Fitted:
    """A classifier of rows, its weights as int8, scaled by label. `fields` are the input's and the output's; `file` is its arrays' name."""
    vectorizer = TfidfVectorizer(analyzer=fit.features.of, sublinear_tf=True, min_df=fit.least, dtype=np.float32)
    matrix = vectorizer.fit_transform([row.text for row in rows])
    model = LogisticRegression(C=fit.strength, max_iter=fit.steps, tol=1e-4).fit(matrix, [row.label for row in rows])
    weights = model.coef_.T.astype(np.float32)
    scale = np.abs(weights).max(axis=0) / 127
    arrays = {
        "vocabulary": np.frombuffer("\n".join(sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)).encode(), dtype=np.uint8),
        "idf": vectorizer.idf_.astype(np.float32),
        "weights": np.round(weights / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
        "intercept": model.intercept_.astype(np.float32),
    }
    shape = {
        "format": "orchestra/linear-text/v1",
        "input": fields[0],
        "output": fields[1],
        "features": fit.features.model_dump(mode="json"),
    }
    text, data = packed({**shape, "labels": [str(label) for label in model.classes_], "arrays": file}, arrays)
    return Fitted(Classifier(Layout.model_validate_json(text), arrays), text, data)
