"""Routing by the request alone: which calls need the stronger model, decided before any call.

    python -m bench.routing --data FOLDER [--draws 1000] [--scores FILE] [--page]

`FOLDER` has `train.jsonl.gz` and `dev.jsonl`: questions, and whether a weak and a strong model were correct (RouteLLM's
outcomes of Mixtral 8x7B and GPT-4, https://github.com/lm-sys/RouteLLM, Apache-2.0). Each part, MMLU and GSM8K, is
fitted separately on the training rows and evaluated on the others: APGR and the least share of strong calls that closes
50, 80 and 95 % of the gap, with 95 % bootstrap intervals. Other data of a row than its question is used in training
only. `--scores` writes the scores of the agent, one JSON object a line; `--page` writes the tables into
docs/concepts/routing.md.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.feature_extraction.text import TfidfVectorizer

from bench.machine import ROOT, code, now
from bench.page import renewed
from orchestra.learn.evaluation.bootstrap import CONFIDENCE_LEVEL, IntervalEstimate
from orchestra.learn.evaluation.cascade import ScoredCall, apgr, cpt
from orchestra.learn.linear import RegressorHyperparameters, fit_regressor

PAGE = ROOT / "docs" / "evaluation" / "routing.md"
CLOSED = (0.5, 0.8, 0.95)
PRIOR = 10
"""Prior weight, in rows, of the overall mean for each subject's mean."""
SETS = {"mmlu": "MMLU", "gsm8k": "GSM8K"}
ELSEWHERE = {
    "mmlu": {"chance": "0.5", "nearest centroid": "0.55", "TF-IDF, logistic regression": "0.62-0.63"},
    "gsm8k": {"chance": "0.5", "nearest centroid": "0.53", "TF-IDF, logistic regression": "0.56-0.57"},
}
"""APGR of published baselines."""
AGENT = "linear agent (`kind: sklearn`)"
_OPTION = re.compile(r"^[A-D]\. (.*)$", re.M)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
Scores: TypeAlias = Sequence[float]


@dataclass(frozen=True)
class Outcome:
    """A question, and whether each model was correct."""

    id: str
    question: str
    weak: bool
    strong: bool
    subject: str = ""

    @property
    def gain(self) -> float:
        """Returns the gain of the strong model: 1, 0 or -1."""
        return float(self.strong) - float(self.weak)


def outcomes(path: Path) -> dict[str, list[Outcome]]:
    """Reads the rows of a file by set."""
    import gzip

    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    found: dict[str, list[Outcome]] = defaultdict(list)
    for line in data.decode("utf-8").rstrip("\n").split("\n"):
        row = json.loads(line)
        told = row["expected"]
        found[row["input"]["set"]].append(
            Outcome(row["id"], row["input"]["question"], told["weak"], told["strong"], told.get("subject", ""))
        )
    return found


def by_length(_: Sequence[Outcome], judged: Sequence[Outcome]) -> Scores:
    """Longer questions are harder."""
    return [len(one.question) for one in judged]


def by_table(train: Sequence[Outcome], judged: Sequence[Outcome]) -> Scores:
    """A static table: a question gets the subject of the nearest centroid, and the mean gain of that subject."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32)
    matrix = vectorizer.fit_transform([one.question for one in train])
    of_subject: dict[str, list[int]] = defaultdict(list)
    for at, one in enumerate(train):
        of_subject[one.subject].append(at)
    centroids = np.vstack([np.asarray(matrix[rows].mean(axis=0)) for rows in of_subject.values()])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    overall = float(np.mean([one.gain for one in train]))
    worth = [
        (sum(train[at].gain for at in rows) + PRIOR * overall) / (len(rows) + PRIOR) for rows in of_subject.values()
    ]
    nearest = (vectorizer.transform([one.question for one in judged]) @ centroids.T).argmax(axis=1)
    return [worth[at] for at in nearest]


def by_agent(train: Sequence[Outcome], judged: Sequence[Outcome]) -> Scores:
    """The result of `orchestra learn train` for an agent with a number as output: n-grams and length, ridge regression
    on the gain.
    """
    made = fit_regressor([(one.question, one.gain) for one in train], ("question", "need"), "weights.npz").regressor
    return [made.predict_number(one.question) for one in judged]


def shape_of(question: str) -> list[float]:
    """Returns surface features of a question: lengths of it and of its options, digits, signs, negations."""
    options = _OPTION.findall(question)
    stem, lengths, numbers = (
        question.split("\nA. ")[0],
        [len(option) for option in options] or [0],
        _NUMBER.findall(question),
    )
    words = question.lower().split()
    return [
        np.log1p(len(question)),
        np.log1p(len(stem)),
        np.log1p(sum(lengths) / len(lengths)),
        np.log1p(max(lengths)),
        max(lengths) - min(lengths),
        len(numbers),
        sum(char.isdigit() for option in options for char in option) / (sum(lengths) + 1),
        sum(char in "=+-*/^<>" for char in question),
        len(re.findall(r"\b(?:not|except|false|least)\b", question.lower())),
        len(re.findall(r"\b(?:NOT|EXCEPT|LEAST)\b", question)),
        len(re.findall(r"[.?!]", question)),
        stem.count("\n"),
        stem.count(","),
        len(set(words)) / max(1, len(words)),
        sum(map(len, words)) / max(1, len(words)),
        float("_" in stem),
        float("%" in question),
        float("?" in stem),
        sum(char.isupper() for char in question) / max(1, len(question)),
    ]


def by_trees(train: Sequence[Outcome], judged: Sequence[Outcome]) -> Scores:
    """Extremely randomised trees (Geurts et al. 2006) over latent topics of the n-grams and the surface features; not
    served by us.
    """
    vectorizer = TfidfVectorizer(
        analyzer=RegressorHyperparameters().features.extract, sublinear_tf=True, min_df=3, dtype=np.float32
    )
    matrix = vectorizer.fit_transform([one.question for one in train])
    topics = TruncatedSVD(min(50, len(train) // 4), random_state=0).fit(matrix)

    def features(rows: Sequence[Outcome]) -> Any:
        found = topics.transform(vectorizer.transform([one.question for one in rows]))
        return np.hstack([found, np.array([shape_of(one.question) for one in rows])])

    model = ExtraTreesRegressor(300, min_samples_leaf=8, max_features=0.3, n_jobs=-1, random_state=0)
    # with several threads the order of sums is not deterministic
    model.fit(features(train), [one.gain for one in train]).set_params(n_jobs=1)
    found: Scores = model.predict(features(judged)).tolist()
    return found


def together(first: Scores, second: Scores) -> Scores:
    """Returns the mean of two scores, each standardised."""
    both = [(np.array(scores) - np.mean(scores)) / (np.std(scores) or 1.0) for scores in (first, second)]
    summed: Scores = ((both[0] + both[1]) / 2).tolist()
    return summed


def scored(train: Sequence[Outcome], judged: Sequence[Outcome]) -> dict[str, Scores]:
    """Returns the scores of each arm."""
    arms: dict[str, Scores] = {"length": by_length(train, judged)}
    if any(one.subject for one in train):
        arms["static table by subject"] = by_table(train, judged)
    arms[AGENT] = by_agent(train, judged)
    arms["trees (scikit-learn)"] = by_trees(train, judged)
    arms["linear agent and trees"] = together(arms[AGENT], arms["trees (scikit-learn)"])
    return arms


class Gaining(Protocol):
    """A row with the gain of the stronger model."""

    @property
    def gain(self) -> float: ...


def figures(judged: Sequence[Gaining], scores: Scores, draws: int, seed: int = 0) -> list[IntervalEstimate]:
    """Returns APGR and CPT of 50, 80 and 95 %, with percentile intervals."""
    kinds: list[Callable[[Sequence[ScoredCall]], float]] = [apgr, *(lambda calls, x=x: cpt(calls, x) for x in CLOSED)]
    calls = [(score, one.gain) for score, one in zip(scores, judged, strict=True)]
    chance = random.Random(seed)
    samples = [chance.choices(calls, k=len(calls)) for _ in range(draws)]
    found = []
    for kind in kinds:
        drawn = sorted(
            value for sample in samples if sum(gain for _, gain in sample) > 0 and (value := kind(sample)) == value
        )
        cut = (1 - CONFIDENCE_LEVEL) / 2
        low, high = (drawn[int(cut * len(drawn))], drawn[min(len(drawn) - 1, int((1 - cut) * len(drawn)))])
        found.append(IntervalEstimate(kind(calls), low, high))
    return found


def table(
    name: str, train: Sequence[Outcome], judged: Sequence[Outcome], arms: Mapping[str, Scores], draws: int
) -> str:
    """Returns the table of a set."""
    right = (sum(one.weak for one in judged) / len(judged), sum(one.strong for one in judged) / len(judged))
    lines = [
        (
            f"{SETS[name]}: {len(train):,} rows to train on, {len(judged):,} judged; weak {right[0]:.1%} right, "
            f"strong {right[1]:.1%}"
        ),
        "",
        "| score | APGR | CPT 50 % | CPT 80 % | CPT 95 % |",
        "|---|---|---|---|---|",
        *(
            (
                f"| {arm}, elsewhere | {value} | "
                f"{' | '.join(('0.5', '0.8', '0.95') if arm == 'chance' else ('', '', ''))} |"
            )
            for arm, value in ELSEWHERE[name].items()
        ),
    ]
    lines += [f"| {arm} | {' | '.join(map(str, figures(judged, scores, draws)))} |" for arm, scores in arms.items()]
    return "\n".join(lines)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder routellm")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    parser.add_argument("--scores", type=Path, help="the file for the agent's scores of dev.jsonl")
    parser.add_argument("--page", action="store_true", help="write the tables into docs/concepts/routing.md")
    given = parser.parse_args()
    began = time.monotonic()
    train, judged = outcomes(given.data / "train.jsonl.gz"), outcomes(given.data / "dev.jsonl")
    said = [f"{now()}, {code()}"]
    print(said[0])
    written = []
    for name in SETS:
        arms = scored(train[name], judged[name])
        said.append(table(name, train[name], judged[name], arms, given.draws))
        print(f"\n{said[-1]}", flush=True)
        written += [{"id": one.id, "score": score} for one, score in zip(judged[name], arms[AGENT], strict=True)]
    if given.scores:
        given.scores.write_text("".join(f"{json.dumps(row)}\n" for row in written), "utf-8")
    if given.page:
        PAGE.write_text(renewed(PAGE.read_text("utf-8"), {"routing": "\n\n".join(said) + "\n"}), "utf-8")
    print(f"\n{time.monotonic() - began:.0f} seconds")


if __name__ == "__main__":
    main()
