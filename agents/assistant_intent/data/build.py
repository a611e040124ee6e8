"""The training rows of the agent `assistant_intent`: the training split of CLINC150, and questions out of its scope.

CLINC150 (Larson et al. 2019, https://arxiv.org/abs/1909.02027), CC BY 3.0. The questions are of MMLU, from the training
split of routellm (Apache-2.0). `bench/train_intents.py` trains on these rows; they are in no folder of their own.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from agents.banking_intent.data.build import labelled_texts
from orchestra.learn.encoders.classifier import CommitteeRows
from orchestra.learn.encoders.texts import LabelledText, normalize_text

OUTSIDE = "out_of_scope"
_ABOUT_WORDS = re.compile(r"\b(mean|means|meaning|defin\w*|word|synonym\w*|spell\w*|tax\w*|credit|insurance)\b")
"""Topics of an assistant's intents: such questions are not out of scope."""
_ABOUT_NUMBERS = ("math", "algebra", "statistics")


def out_of_scope_questions(path: Path) -> list[LabelledText]:
    """Returns short questions of MMLU from the training split of routellm, in the spelling of an assistant's messages:
    all out of scope.
    """
    texts: set[str] = set()
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").rstrip("\n").split("\n"):
        row = json.loads(line)
        question = row["input"]["question"].partition("\n")[0].strip()
        words = question.lower().split()
        if row["input"]["set"] != "mmlu" or any(name in row["expected"].get("subject", "") for name in _ABOUT_NUMBERS):
            continue
        if 4 <= len(words) <= 14 and question.endswith("?") and "following" not in question and "_" not in question:
            text = " ".join(re.findall(r"[\w'-]+", question.lower()))
            if not _ABOUT_WORDS.search(text):
                texts.add(text)
    return [LabelledText(text, OUTSIDE) for text in sorted(texts, key=normalize_text)]


def rows(data: Path) -> CommitteeRows:
    """Returns the rows of a folder of public sets."""
    return CommitteeRows.from_sources(
        ("clinc150", "CC-BY-3.0", labelled_texts(data / "clinc150" / "train.jsonl")),
        ("routellm", "Apache-2.0", out_of_scope_questions(data / "routellm" / "train.jsonl.gz")),
    )
