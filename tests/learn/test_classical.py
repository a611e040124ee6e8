"""Training of text classifiers: labels keep their type and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")

from orchestra.agents.card import Card
from orchestra.agents.inference.linear import LinearClassifier
from orchestra.core.errors import InputError
from orchestra.learn.classical import train
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow

CARD = (
    "name: desk\nkind: sklearn\ninput: {{text: str}}\noutput: {{label: '{}'}}\n"
    "types: {{Stars: {{type: integer, enum: [1, 2]}}}}\n"
)


def card(folder: Path, kind: str) -> Card:
    folder.mkdir(exist_ok=True)
    (folder / "agent.yaml").write_text(CARD.format(kind))
    return Card.load(folder)


def data(card: Card, bad: Any, good: Any) -> Dataset:
    texts = [(f"{word} it {at}", label) for at in range(4) for word, label in (("awful", bad), ("lovely", good))]
    rows = [DatasetRow(str(at), {"text": text}, {"label": label}, str(at)) for at, (text, label) in enumerate(texts)]
    return Dataset.build("rows", "desk", contract_digest(card), "CC0", (), {"train": rows})


@pytest.mark.parametrize(
    ("kind", "bad", "good"),
    [
        ("Stars", 1, 2),
        ("bool", False, True),
        ('Literal["ok"] | null', None, "ok"),
        ('Literal["1"] | int', 1, "1"),
        ("str", "bad", "good"),
    ],
)
def test_classical_labels_keep_type(tmp_path: Path, kind: str, bad: Any, good: Any) -> None:
    desk = card(tmp_path, kind)
    train(desk, data(desk, bad, good)).write(tmp_path)
    told = [LinearClassifier.load(desk).predict({"text": f"{word} it"})[0]["label"] for word in ("awful", "lovely")]
    assert told == [bad, good]
    assert [type(one) for one in told] == [type(bad), type(good)]


def test_classical_invalid_label_refused(tmp_path: Path) -> None:
    desk = card(tmp_path, "list[str]")
    with pytest.raises(InputError, match=r'\["x"\] cannot be a label') as caught:
        train(desk, data(desk, ["x"], ["y"]))
    assert caught.value.code == "N105"
