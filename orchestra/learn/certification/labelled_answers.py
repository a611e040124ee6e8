"""Labelled answers: rows with a known correct answer, as scores with their correctness. The answers come from runs or
from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.learn.certification.rulings import build_situation
from orchestra.learn.data.jsonl import JsonLinesFormat
from orchestra.learn.evaluation.metrics import Case, CorrectnessKind, MetricConfig, build_metric
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet, as_record, metric_configs_for
from orchestra.schema.strict_json import digest
from orchestra.verification.acceptance import CONFIDENCE, certification_score
from orchestra.verification.certificates.certify import ScoredAnswer

CORRECTNESS_KINDS = frozenset(get_args(CorrectnessKind))
CORRECTNESS_DESCRIPTIONS: Mapping[str, str] = {
    "accuracy": "the same value",
    "text": "the same text but for case, blanks and Unicode form",
    "exact": "the same text by SQuAD's form, which drops case, punctuation, signs and articles",
    "joint": "the same spans",
    "number": "the same number to six places",
    "scaled": "the same number and scale, by TAT-QA's rule",
    "calls": "the same calls, by BFCL's rule",
}
"""What is correct, by kind of metric."""
LABEL_METRIC_KINDS = frozenset({"balanced_accuracy", "macro_f1"})
"""Metrics over labels; an answer is correct if its label is."""


@dataclass(frozen=True, slots=True)
class Correctness:
    """The criterion of correctness: a metric, or several that must all hold."""

    metrics: tuple[str, ...]
    is_correct: Callable[[Case], bool | None]
    """None if the metrics are undefined for the case."""
    description: str = ""
    """The criterion in words."""
    is_excluded: Callable[[Case], bool] = lambda case: False
    """Whether the metrics leave the case out of their figures. A guarantee leaves no case out: such answers are
    accepted too.
    """


def correctness_of(
    card: Card, evaluation: str = "", metric_name: str = "", questions: Sequence[EvaluationRow] = ()
) -> Correctness:
    """Returns the criterion of correctness for an agent.

    It is the first metric of the evaluation that decides about single answers, or the metric that is named. Without an
    `evaluation.yaml` it is the default metrics of all output fields for which `questions` have expectations. Filters of
    metrics are dropped: the criterion covers all rows.

    Raises:
        InputError: V008 if no metric decides about single answers.
    """
    measures, is_configured = metric_configs_for(card, evaluation, questions)
    if metric_name and metric_name not in measures:
        near = closest_match(metric_name, measures)
        hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(measures)}"
        raise InputError("V008", f"{card.name} has no metric {metric_name!r}", hint=hint)
    telling = {
        name: _single_answer_config(measure)
        for name, measure in measures.items()
        if not metric_name or name == metric_name
    }
    telling = {name: measure for name, measure in telling.items() if measure.of in CORRECTNESS_KINDS}
    if not telling:
        subject = f"the metric {metric_name!r} of" if metric_name else "no metric of"
        verb = "does not decide" if metric_name else "decides"
        raise InputError(
            "V008", f"{subject} {card.name} {verb} whether a single answer is correct", hint="orchestra explain V008"
        )
    names = tuple(telling)[:1] if is_configured else tuple(telling)
    metric_configs = {name: telling[name] for name in names}
    figures = [build_metric(name, config) for name, config in metric_configs.items()]
    metrics = [build_metric(name, _without_filters(config)) for name, config in metric_configs.items()]
    keys = {key for config in metric_configs.values() if (key := config.expected or config.field)}

    def is_left_out(case: Case) -> bool:
        return any(figure.case_score(case) is None for figure in figures)

    def of(case: Case) -> bool | None:
        if not keys.issubset(case.expected) and is_left_out(case):
            return None
        return all(metric.case_score(case)[0] >= 1 for metric in metrics)

    titles = tuple(
        name if _without_filters(config) == config else f"{name}, of all rows"
        for name, config in metric_configs.items()
    )
    description = "; ".join(
        f"{name} ({CORRECTNESS_DESCRIPTIONS[config.of]})"
        for name, config in zip(titles, metric_configs.values(), strict=True)
    )
    return Correctness(titles, of, description, is_left_out)


def _without_filters(measure: MetricConfig) -> MetricConfig:
    """Returns the metric without its filters."""
    return measure.model_copy(update={"without": (), "where": {}, "where_not": {}})


def _single_answer_config(measure: MetricConfig) -> MetricConfig:
    return measure.model_copy(update={"of": "accuracy"}) if measure.of in LABEL_METRIC_KINDS else measure


def certified_checks(card: Card, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the checks whose score is certified: the requested ones, else those of the card, else the agent's own
    confidence.
    """
    return tuple(dict.fromkeys(requested)) or card.checks or (CONFIDENCE,)


def certification_card(card: Card, checks: tuple[str, ...]) -> Card:
    """Returns the card for collecting answers: every output that passes its checks is accepted at any score, and first
    answers are final.
    """
    return card.with_settings(checks=checks, accept=0.0, otherwise=("abstain",))


def certification_items(test: EvaluationSet, cases: Sequence[Case], correctness: Correctness) -> list[ScoredAnswer]:
    """Returns the score and the error of each row, to certify on. A row without an answer is wrong, and accepted at no
    threshold.

    Raises:
        InputError: V027 if the criterion is undefined for rows that the metrics leave out: such answers would be
        accepted with an unknown error rate.
    """
    scored_answers, untold = [], []
    for question, case in zip(test.rows, cases, strict=True):
        good, is_answered = correctness.is_correct(case), case.output is not None
        if good is None:
            untold.append(question.id)
        scored_answers.append(
            ScoredAnswer(question.id, case.score if is_answered else None, not (is_answered and good))
        )
    if untold:
        of = (
            f"{', '.join(correctness.metrics)}: undefined for {len(untold):,} of {len(scored_answers):,} rows, "
            f"such as {untold[0]!r}"
        )
        raise InputError("V027", of, hint="add expected values, or remove the rows if the agent never gets such inputs")
    return scored_answers


class _PredictionLine(msgspec.Struct, frozen=True):
    id: str
    output: Any = None
    score: float | None = None
    abstained: bool = False


_LINE_FORMAT = JsonLinesFormat(_PredictionLine, "V006", "prediction", '{"id": "1", "output": {...}, "score": 0.93}')


@dataclass(frozen=True, slots=True)
class Predictions:
    """Recorded answers by row id."""

    name: str
    digest: str
    answers: Mapping[str, _PredictionLine]

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Reads a file of lines `{"id", "output", "score"?, "abstained"?}`.

        Raises:
            InputError: V006 with the location of the error.
        """
        data, prediction_lines = _LINE_FORMAT.read_bytes(path), dict[str, _PredictionLine]()
        for location, prediction_line in _LINE_FORMAT.parse_lines(path, data):
            if prediction_line.id in prediction_lines:
                raise InputError(
                    "V006",
                    f"two predictions have the id {prediction_line.id!r}",
                    location=location,
                    hint="count each row once",
                )
            if prediction_line.score is not None and not 0 <= prediction_line.score <= 1:
                raise InputError(
                    "V006",
                    f"the score is {prediction_line.score}, and must be in [0, 1]",
                    location=location,
                    hint=_LINE_FORMAT.hint,
                )
            prediction_lines[prediction_line.id] = prediction_line
        return cls(path.name, digest(data), prediction_lines)

    def restricted_to(self, test: EvaluationSet, kept: EvaluationSet) -> Predictions:
        """Returns the answers to the given rows.

        Raises:
            InputError: V006 if an answer belongs to no row.
        """
        self.outputs_for(test)
        ids = {question.id for question in kept.rows}
        return Predictions(
            self.name, self.digest, {name: answer for name, answer in self.answers.items() if name in ids}
        )

    def outputs_for(self, test: EvaluationSet) -> list[tuple[Any, float | None] | None]:
        """Returns the answer to each row with the agent's confidence; None if a row has none.

        Raises:
            InputError: V006 if an answer belongs to no row.
        """
        ids = {question.id for question in test.rows}
        strange = next((name for name in self.answers if name not in ids), None)
        if strange is not None:
            raise InputError(
                "V006",
                f"{self.name} has an answer to the row {strange!r}, which is not in {test.name}",
                hint="--data FILE",
            )
        answers = [self.answers.get(question.id) for question in test.rows]
        return [
            None if answer is None or answer.abstained or answer.output is None else (answer.output, answer.score)
            for answer in answers
        ]

    def cases_for(self, card: Card, checks: tuple[str, ...], test: EvaluationSet) -> list[Case]:
        """Returns the cases that the engine would have produced with these answers.

        Raises:
            InputError: V006 if an answer belongs to no row.
        """
        return [
            _build_case(card, checks, question, output)
            for question, output in zip(test.rows, self.outputs_for(test), strict=True)
        ]


def _build_case(
    card: Card, checks: tuple[str, ...], question: EvaluationRow, output_and_score: tuple[Any, float | None] | None
) -> Case:
    if output_and_score is None:
        return Case(question.expected, None)
    score = certification_score(build_situation(card, checks, question.input, *output_and_score))
    return Case(question.expected, as_record(output_and_score[0]) if score is not None else None, score)
