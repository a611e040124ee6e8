"""Classification reports: precision, recall and F1 by label, and the most frequent confusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.learn.evaluation.metrics import WHOLE_OUTPUT, Case
from orchestra.learn.evaluation.rows import metric_configs_for
from orchestra.schema.strict_json import canonical
from orchestra.schema.types import subschema, union_members

MAX_CONFUSIONS = 10
"""Maximal number of reported confusions."""
NO_ANSWER = "(none)"
"""Label for a withheld or failed answer."""


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """The metrics of one label."""

    label: str
    precision: float | None
    """Share of correct rows among those predicted as this label; None if there are none."""
    recall: float | None
    """Share of correct rows among those with this label; None if there are none."""
    f1: float
    support: int
    """Number of rows with this label."""


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Metrics by label, and the most frequent confusions: (expected, predicted, rows)."""

    field: str
    labels: Sequence[LabelMetrics]
    confusions: Sequence[tuple[str, str, int]]

    def as_data(self) -> dict[str, Any]:
        """Returns the report as plain JSON."""
        return {
            "field": self.field,
            "labels": [
                {
                    "label": label.label,
                    "precision": label.precision,
                    "recall": label.recall,
                    "f1": label.f1,
                    "support": label.support,
                }
                for label in self.labels
            ],
            "confusions": [
                {"expected": expected, "predicted": predicted_label, "rows": rows}
                for expected, predicted_label, rows in self.confusions
            ],
        }


def label_field(card: Card) -> str:
    """Returns the output field that is the label: the field with enumerated values, else the only text field; `output`
    if the output is not a record.

    Raises:
        InputError: C010 if there is no such field, or several.
    """
    fields: Mapping[str, Any] = card.output_schema.get("properties", {}) or {WHOLE_OUTPUT: card.output_schema}
    branches_by_field = {name: union_members(subschema(card.output_schema, schema)) for name, schema in fields.items()}
    enum_fields = [
        name
        for name, field_branches in branches_by_field.items()
        if any("enum" in branch or "const" in branch or branch.get("type") == "boolean" for branch in field_branches)
    ]
    texts = [
        name
        for name, field_branches in branches_by_field.items()
        if any(branch.get("type") == "string" for branch in field_branches)
    ]
    candidates = enum_fields or texts
    if len(candidates) != 1:
        reason = (
            f"--classes needs an agent with one label field, and the output of {card.name} "
            f"has {len(candidates) or 'no'} such fields"
        )
        raise InputError("C010", reason, hint="leave it out")
    return candidates[0]


def classification_report(card: Card, evaluation: str, cases: Sequence[Case]) -> ClassificationReport:
    """Returns the metrics by label. If several labels are correct, the predicted one counts, else the first.

    Raises:
        InputError: As `label_field`.
    """
    field = label_field(card)
    measure = next(
        (
            metric_config
            for metric_config in metric_configs_for(card, evaluation)[0].values()
            if metric_config.field == field
        ),
        None,
    )
    key = measure.expected if measure is not None and measure.expected else field
    pairs: Counter[tuple[str, str]] = Counter()
    for case in cases:
        value = case.output.get(field) if case.output is not None else None
        predicted_label = (
            NO_ANSWER
            if case.output is None
            else _label_text(measure.means.get(value, value) if measure and isinstance(value, str) else value)
        )
        right = case.expected.get(key)
        labels = [_label_text(item) for item in (right if isinstance(right, list) else [right])] or [NO_ANSWER]
        pairs[predicted_label if predicted_label in labels else labels[0], predicted_label] += 1
    names = sorted({name for pair in pairs for name in pair} - {NO_ANSWER})
    confusions = [
        (expected, wrong_label, count)
        for (expected, wrong_label), count in pairs.most_common()
        if expected != wrong_label
    ]
    return ClassificationReport(field, [_label_metrics(name, pairs) for name in names], confusions[:MAX_CONFUSIONS])


def _label_metrics(name: str, pairs: Counter[tuple[str, str]]) -> LabelMetrics:
    right = pairs[name, name]
    actual_count = sum(count for (expected, _), count in pairs.items() if expected == name)
    predicted_count = sum(count for (_, answer), count in pairs.items() if answer == name)
    return LabelMetrics(
        name,
        right / predicted_count if predicted_count else None,
        right / actual_count if actual_count else None,
        2 * right / (actual_count + predicted_count),
        actual_count,
    )


def _label_text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value).decode()
