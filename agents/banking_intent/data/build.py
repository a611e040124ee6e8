"""The training rows of the agent `banking_intent`: the training split of banking77.

Casanueva et al. 2020, https://arxiv.org/abs/2003.04807, CC BY 4.0. `bench/train_intents.py` trains on these rows; they
are in no folder of their own.
"""

from __future__ import annotations

import json
from pathlib import Path

from orchestra.learn.encoders.classifier import CommitteeRows
from orchestra.learn.encoders.texts import LabelledText


def labelled_texts(path: Path) -> list[LabelledText]:
    """Reads texts with their intents."""
    lines = (json.loads(line) for line in path.read_text("utf-8").rstrip("\n").split("\n"))
    return [LabelledText(row["input"]["text"], row["expected"]["intent"]) for row in lines]


def rows(data: Path) -> CommitteeRows:
    """Returns the rows of a folder of public sets."""
    return CommitteeRows.from_sources(("banking77", "CC-BY-4.0", labelled_texts(data / "banking77" / "train.jsonl")))
