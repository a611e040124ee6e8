"""Metrics: the quality of an agent's outputs compared with the expected ones.

A metric computes a score of each case once, and a value from the scores, so an interval is computed by resampling
scores.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from orchestra.learn.evaluation.benchmark_metrics import calls_match, parse_amount, scaled_answers_match
from orchestra.learn.evaluation.cascade import apgr
from orchestra.schema.strict_json import canonical

MetricKind: TypeAlias = Literal[
    "accuracy",
    "text",
    "exact",
    "token_f1",
    "silence",
    "wrong",
    "balanced_accuracy",
    "macro_f1",
    "auroc",
    "apgr",
    "span_f1",
    "joint",
    "number",
    "scaled",
    "calls",
]
TOLERANCE = 1e-6
"""Maximal difference of equal numbers."""
_FAILED = object()
"""The label of a failed row; it equals no label."""
WHOLE_OUTPUT = "output"
"""The name under which an output that is not a record is measured."""
CorrectnessKind: TypeAlias = Literal["accuracy", "text", "exact", "joint", "number", "scaled", "calls"]
"""Kinds that decide whether a single answer is correct."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row and its result."""

    expected: Mapping[str, Any]
    output: Mapping[str, Any] | None
    """None if the answer was withheld, or the run failed."""
    score: float | None = None
    """Confidence of the run in [0, 1]."""
    failed: bool = False
    """Whether the run failed: it is never correct, even if no answer is expected."""
    group: str = ""
    """The group of dependent cases, such as questions about one passage; empty for an independent case."""


class MetricConfig(BaseModel):
    """One metric in an evaluation file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    of: MetricKind
    field: str = ""
    """The output field; empty for the complete output."""
    expected: str = ""
    """The key of the expected value; empty for the name of the field, and for the complete expected value if there is
    no field either. For `apgr` also `strong-weak`, the difference of two keys.
    """
    positive: str = ""
    """For `auroc`: the expected value whose probability is the field; other values are negative."""
    without: tuple[str, ...] = Field(default=(), strict=False)
    """Cases with these expected values are left out."""
    where: Mapping[str, Any] = Field(default_factory=dict)
    """Only cases whose expected record has these values; a list allows several."""
    where_not: Mapping[str, Any] = Field(default_factory=dict)
    """Cases whose expected record has one of these values are left out."""
    means: Mapping[str, str] = Field(default_factory=dict)
    """Expected values by output value, if the names differ."""
    by: CorrectnessKind = "exact"
    """For `wrong`: the criterion of correctness."""
    scale: str = "scale"
    """For `scaled`: the output field, and the expected key, with the scale."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric."""

    name: str
    case_score: Callable[[Case], Any]
    """Returns the score of a case; None to leave it out."""
    aggregate: Callable[[Sequence[Any]], float]
    """Returns the value of some scores; NaN without scores."""
    lower_is_better: bool = False
    """Whether lower values are better."""
    is_proportion: bool = False
    """Whether the value is a proportion: the scores are (correct, total)."""

    def compute(self, cases: Sequence[Case]) -> float:
        """Returns the value over cases."""
        return self.aggregate([part for case in cases if (part := self.case_score(case)) is not None])


def build_metric(name: str, config: MetricConfig) -> Metric:
    """Builds the metric of an entry of an evaluation file."""
    reader = _CaseReader(config)
    part, figure = _METRIC_FUNCTIONS[config.of]

    def case_score(case: Case) -> Any:
        if reader.is_excluded(case):
            return None
        score = part(reader, case)
        return (0.0, score[1]) if case.failed and figure is _ratio and score is not None else score

    return Metric(name, case_score, figure, is_lower_better(config), figure is _ratio)


def is_lower_better(config: MetricConfig) -> bool:
    """Returns whether lower values of a metric are better."""
    return config.of == "wrong"


class _CaseReader:
    """Returns the output value and the expected value of a case."""

    def __init__(self, config: MetricConfig) -> None:
        self.config, self.target_key = config, config.expected or config.field

    def prediction(self, case: Case) -> Any:
        """Returns the output value; None if there is no output."""
        value = None if case.output is None else _field_value(case.output, self.config.field)
        return self.config.means.get(value, value) if isinstance(value, str) else value

    def target(self, case: Case) -> Any:
        """Returns the expected value."""
        return _field_value(case.expected, self.target_key)

    def is_excluded(self, case: Case) -> bool:
        """Whether the metric does not count the case."""
        if self.config.without and self.target(case) in self.config.without:
            return True
        only, apart = self.config.where, self.config.where_not
        return any(not matches_any(case.expected.get(key), values) for key, values in only.items()) or any(
            matches_any(case.expected.get(key), values) for key, values in apart.items()
        )

    def accepted_answers(self, case: Case) -> Sequence[Any]:
        """Returns the accepted values: a list, or a single one. Empty if the correct answer is no answer."""
        target = self.target(case)
        return target if isinstance(target, list | tuple) else [] if _is_empty(target) else [target]


def _field_value(record: Mapping[str, Any], key: str) -> Any:
    """Returns a field of a record, or the complete record; the plain value of an output that is not a record."""
    if key:
        return record.get(key)
    return record[WHOLE_OUTPUT] if record.keys() == {WHOLE_OUTPUT} else record


def matches_any(value: Any, values: Any) -> bool:
    """Returns whether a value equals one of the accepted ones."""
    return value in values if isinstance(values, list | tuple) else bool(value == values)


def normalize_squad(text: str) -> str:
    """Returns SQuAD's normal form: lower case, without punctuation and articles, single spaces
    (https://arxiv.org/abs/1606.05250, section 5).
    """
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def normalize_answer(text: str) -> str:
    """Returns the compared form of a text: SQuAD's normal form. A text of only articles and punctuation, such as “A” or
    “+”, is kept.
    """
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return normalize_squad(text) or " ".join((plain if plain.strip() else text).split())


def normalize_spelling(text: str) -> str:
    """Returns the compared form of a text in which no word may be dropped: only case, blanks and Unicode form are
    ignored (NFC and not NFKC: `10²` is not `102`).
    """
    return unicodedata.normalize("NFC", " ".join(unicodedata.normalize("NFC", text).casefold().split()))


def token_f1(gold: str, given: str) -> float:
    """Returns the F1 of the bags of normalised tokens, in [0, 1]; 1 if both are empty."""
    expected_tokens, actual_tokens = normalize_answer(gold).split(), normalize_answer(given).split()
    if not expected_tokens and not actual_tokens:
        return 1.0
    return (
        2
        * sum((Counter(expected_tokens) & Counter(actual_tokens)).values())
        / (len(expected_tokens) + len(actual_tokens))
    )


def _is_empty(value: Any) -> bool:
    """Returns whether a value is empty: null, a blank text, an empty list or record."""
    return not value.strip() if isinstance(value, str) else value is None or value in ([], (), {})


def _best_match(reader: _CaseReader, case: Case, score: Callable[[str, str], float]) -> tuple[float, float]:
    answers, prediction = reader.accepted_answers(case), reader.prediction(case)
    if not answers or _is_empty(prediction):
        return float(not answers and _is_empty(prediction)), 1.0
    whole_targets = (
        [reader.target(case)] if isinstance(prediction, list | tuple) else []
    )  # a list may be one value or several accepted answers
    return max(_score_pair(answer, prediction, score) for answer in (*answers, *whole_targets)), 1.0


def _score_pair(expected: Any, actual: Any, score: Callable[[str, str], float]) -> float:
    """Returns the score of two texts; values other than texts are compared for equality."""
    if isinstance(actual, list | tuple | Mapping):
        return float(_is_equal(expected, actual))
    text = expected.get("text") if isinstance(expected, Mapping) else expected
    if isinstance(text, str) or (isinstance(actual, str) and isinstance(text, int | float)):
        return score(str(text), str(actual))
    return float(_is_equal(text, actual))


def _exact_match(reader: _CaseReader, case: Case) -> tuple[float, float]:
    return _best_match(
        reader, case, lambda expected, actual: float(normalize_answer(expected) == normalize_answer(actual))
    )


def _text_match(reader: _CaseReader, case: Case) -> tuple[float, float]:
    return _best_match(
        reader, case, lambda expected, actual: float(normalize_spelling(expected) == normalize_spelling(actual))
    )


def _token_overlap(reader: _CaseReader, case: Case) -> tuple[float, float]:
    return _best_match(reader, case, token_f1)


def _correct_silence(reader: _CaseReader, case: Case) -> tuple[float, float] | None:
    """Returns, for a case whose correct answer is no answer, whether none was given."""
    return None if reader.accepted_answers(case) else (float(_is_empty(reader.prediction(case))), 1.0)


def _wrong_answer(reader: _CaseReader, case: Case) -> tuple[float, float]:
    """Returns whether an answer was given and is wrong."""
    return float(
        not _is_empty(reader.prediction(case)) and not _METRIC_FUNCTIONS[reader.config.by][0](reader, case)[0]
    ), 1.0


def _is_equal(expected: Any, actual: Any) -> bool:
    return bool(actual == expected and isinstance(actual, bool) == isinstance(expected, bool))


def _value_match(reader: _CaseReader, case: Case) -> tuple[float, float]:
    return float(_is_equal(reader.target(case), reader.prediction(case))), 1.0


def _number_match(reader: _CaseReader, case: Case) -> tuple[float, float]:
    """Returns whether two numbers are equal to six places, in any notation: `$1,452.40`, `(3.1)`, `72%`."""
    actual, expected = parse_amount(reader.prediction(case)), parse_amount(reader.target(case))
    return float(actual is not None and expected is not None and abs(actual - expected) <= TOLERANCE), 1.0


def _scaled_match(reader: _CaseReader, case: Case) -> tuple[float, float]:
    """Returns whether an answer and its scale are correct, by the rule of TAT-QA."""
    key, output = reader.config.scale, case.output or {}
    expected, actual = str(case.expected.get(key) or ""), str(output.get(key) or "")
    return float(
        scaled_answers_match(reader.target(case), expected, reader.prediction(case), actual, normalize_answer)
    ), 1.0


def _calls_match(reader: _CaseReader, case: Case) -> tuple[float, float]:
    """Returns whether the calls are correct, by the rule of BFCL; no answer means no call."""
    return float(case.output is not None and calls_match(reader.target(case), reader.prediction(case))), 1.0


def _as_number(value: Any) -> float | None:
    """Returns the number of a value or a text; None if it is not a number, or too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.replace(",", "") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _spans(value: Any) -> set[tuple[str, Any, Any]]:
    """Returns the spans of a record of slots: name, start and end, in characters."""
    if not isinstance(value, Mapping):
        return set()
    return {
        (name, _hashable(span.get("start")), _hashable(span.get("end")))
        for name, span in value.items()
        if isinstance(span, Mapping)
    }


def _span_f1(reader: _CaseReader, case: Case) -> tuple[float, float]:
    actual_spans, expected_spans = _spans(reader.prediction(case)), _spans(reader.target(case))
    return 2.0 * len(actual_spans & expected_spans), float(len(actual_spans) + len(expected_spans))


def _spans_match(reader: _CaseReader, case: Case) -> tuple[float, float]:
    return float(_spans(reader.prediction(case)) == _spans(reader.target(case))), 1.0


def _label_pair(reader: _CaseReader, case: Case) -> tuple[Any, Any]:
    return _hashable(reader.target(case)), _FAILED if case.failed else _hashable(reader.prediction(case))


def _hashable(value: Any) -> Any:
    """Returns a value that can be counted: lists and records as the bytes of their JSON."""
    return canonical(value) if isinstance(value, list | tuple | Mapping) else value


def _ranking_score(reader: _CaseReader, case: Case) -> tuple[float, bool]:
    prediction = reader.prediction(case)
    likely = None if isinstance(prediction, str) else _as_number(prediction)
    return likely or 0.0, reader.target(case) == reader.config.positive


def _routing_gain(reader: _CaseReader, case: Case) -> tuple[float, float]:
    """Returns the predicted number and the gain; a row without an answer goes to the smaller model."""
    number = _as_number(reader.prediction(case))
    condition_key, _, less = reader.target_key.partition("-")
    keys = (reader.target_key, "") if reader.target_key in case.expected else (condition_key, less)
    gain, loss = (_outcome_value(case.expected.get(key)) for key in keys)
    return (-math.inf if number is None else number), gain - loss


def _outcome_value(value: Any) -> float:
    """Returns the value of an outcome: 1 for correct, 0 for wrong."""
    return float(value) if isinstance(value, bool) else _as_number(value) or 0.0


def _ratio(parts: Sequence[tuple[float, float]]) -> float:
    below = sum(part[1] for part in parts)
    return sum(part[0] for part in parts) / below if below else float("nan")


def _balanced_accuracy(parts: Sequence[tuple[Any, Any]]) -> float:
    """Returns the mean recall over the expected labels."""
    right: dict[Any, list[bool]] = defaultdict(list)
    for expected, actual in parts:
        right[expected].append(expected == actual)
    return sum(sum(outcomes) / len(outcomes) for outcomes in right.values()) / len(right) if right else float("nan")


def _macro_f1(parts: Sequence[tuple[Any, Any]]) -> float:
    """Returns the mean F1 over the expected and predicted labels. No answer is a label only if it is expected; a
    failure never is.
    """
    if not parts:
        return float("nan")
    expected_counts, actual_counts = Counter(pair[0] for pair in parts), Counter(pair[1] for pair in parts)
    matched_counts = Counter(pair[0] for pair in parts if pair[0] == pair[1])
    labels = expected_counts.keys() | (actual_counts.keys() - {None, _FAILED})
    return sum(2 * matched_counts[label] / (expected_counts[label] + actual_counts[label]) for label in labels) / len(
        labels
    )


def auroc(parts: Sequence[tuple[float, bool]]) -> float:
    """Returns the probability that a positive case scores higher than a negative one; ties count half (the rank sum of
    Mann and Whitney, 1947).
    """
    sorted_parts = sorted(parts, key=lambda part: part[0])
    positives = sum(part[1] for part in sorted_parts)
    negatives = len(sorted_parts) - positives
    if not positives or not negatives:
        return float("nan")
    ranks, at = 0.0, 0
    while at < len(sorted_parts):
        end = at
        while end < len(sorted_parts) and sorted_parts[end][0] == sorted_parts[at][0]:
            end += 1
        ranks += (at + 1 + end) / 2 * sum(part[1] for part in sorted_parts[at:end])
        at = end
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


_METRIC_FUNCTIONS: dict[MetricKind, tuple[Callable[[_CaseReader, Case], Any], Callable[[Sequence[Any]], float]]] = {
    "accuracy": (_value_match, _ratio),
    "text": (_text_match, _ratio),
    "exact": (_exact_match, _ratio),
    "token_f1": (_token_overlap, _ratio),
    "silence": (_correct_silence, _ratio),
    "wrong": (_wrong_answer, _ratio),
    "balanced_accuracy": (_label_pair, _balanced_accuracy),
    "macro_f1": (_label_pair, _macro_f1),
    "auroc": (_ranking_score, auroc),
    "apgr": (_routing_gain, apgr),
    "span_f1": (_span_f1, _ratio),
    "joint": (_spans_match, _ratio),
    "number": (_number_match, _ratio),
    "scaled": (_scaled_match, _ratio),
    "calls": (_calls_match, _ratio),
}
