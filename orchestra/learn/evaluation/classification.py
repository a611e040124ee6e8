"""Classes: precision, recall and F1 by label, and which labels are taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.learn.evaluation.metrics import ALONE, Case
from orchestra.learn.evaluation.rows import measures_of
from orchestra.schema.strict_json import canonical
from orchestra.schema.types import branches, under

CONFUSIONS = 10
"""Pairs of labels that are told at most."""
WITHHELD = "(none)"
"""What stands for an answer that was withheld, or failed."""


@dataclass(frozen=True, slots=True)
class Class:
    """How well one label is told."""

    label: str
    precision: float | None
    """Of the rows that were told it, the share that has it; None where none was."""
    recall: float | None
    """Of the rows that have it, the share that was told it; None where none has it."""
    f1: float
    support: int
    """Rows that have it."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes by name, and the most frequent confusions: (expected, told, rows)."""

    field: str
    classes: Sequence[Class]
    confusions: Sequence[tuple[str, str, int]]

    def data(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "field": self.field,
            "classes": [
                {"label": one.label, "precision": one.precision, "recall": one.recall, "f1": one.f1, "support": one.support}
                for one in self.classes
            ],
            "confusions": [{"expected": expected, "told": told, "rows": rows} for expected, told, rows in self.confusions],
        }


def label_of(card: Card) -> str:
    """The field of an agent's output that is its label: the one whose values are listed, else the only text; `output` of one that is no
    record. Raises `InputError` C010 where there is no such field, or several."""
    fields: Mapping[str, Any] = card.output_schema.get("properties", {}) or {ALONE: card.output_schema}
    each = {name: branches(under(card.output_schema, schema)) for name, schema in fields.items()}
    listed = [name for name, some in each.items() if any("enum" in one or "const" in one or one.get("type") == "boolean" for one in some)]
    texts = [name for name, some in each.items() if any(one.get("type") == "string" for one in some)]
    found = listed or texts
    if len(found) != 1:
        said = f"--classes is of agents that tell a label, and the output of {card.name} has {len(found) or 'no'} fields that could be it"
        raise InputError("C010", said, hint="leave it out")
    return found[0]


def classes(card: Card, evaluation: str, cases: Sequence[Case]) -> Classes:
    """How well an agent tells each label. Of several right labels the one counts that was told, else the first. Raises as `label_of`."""
    field = label_of(card)
    measure = next((one for one in measures_of(card, evaluation)[0].values() if one.field == field), None)
    key = measure.expected if measure is not None and measure.expected else field
    pairs: Counter[tuple[str, str]] = Counter()
    for case in cases:
        value = case.output.get(field) if case.output is not None else None
        told = WITHHELD if case.output is None else _text(measure.means.get(value, value) if measure and isinstance(value, str) else value)
        right = case.expected.get(key)
        labels = [_text(one) for one in (right if isinstance(right, list) else [right])] or [WITHHELD]
        pairs[told if told in labels else labels[0], told] += 1
    names = sorted({name for pair in pairs for name in pair} - {WITHHELD})
    confused = [(expected, told, count) for (expected, told), count in pairs.most_common() if expected != told]
    return Classes(field, [_class(name, pairs) for name in names], confused[:CONFUSIONS])


def _class(name: str, pairs: Counter[tuple[str, str]]) -> Class:
    right = pairs[name, name]
    has = sum(count for (expected, _), count in pairs.items() if expected == name)
    told = sum(count for (_, said), count in pairs.items() if said == name)
    return Class(name, right / told if told else None, right / has if has else None, 2 * right / (has + told), has)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value).decode()
