"""A reader without a language model: the baseline of the readers.

The sentence that shares most of the question's rare words is the quote. The answer is its longest run that fits the
question's first word (a year or number for “when” and “how many”, else capitalised words) and shares no word with the
question. It abstains if the sentence has less than a share `tau` of the question's weight, or no run fits. `tau` is
fitted on the training split, for exact match.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from bench.metrics import squad_scores

_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"[^.!?]+(?:[.!?](?!\s)[^.!?]*)*[.!?]*")
_NUMBER = re.compile(
    r"\b(?:\d{1,2} "
    r")?(?:(?:January|February|March|April|May|June|July|August|September|October|November|December) "
    r")?\d[\d,.]*\d|\b\d\b"
)
_NAME = re.compile(r"\b[A-Z][\w'-]*(?:(?: of| the| de| von| and)? [A-Z][\w'-]*)*")


def _words(text: str) -> set[str]:
    return {word.rstrip("s") for word in _WORD.findall(text.lower())}


class SentenceRule:
    """The rule with its word weights and its threshold."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        """Fits on rows {"input": {"question", "context"}, "expected": {"answers"}}."""
        contexts = {row["input"]["context"] for row in rows}
        counts = Counter(word for context in contexts for word in _words(context))
        self._weight: Callable[[str], float] = lambda word: math.log((len(contexts) + 1) / (counts[word] + 0.5))
        found = [(*self._best(row["input"]), [answer["text"] for answer in row["expected"]["answers"]]) for row in rows]
        taus = [step / 20 for step in range(21)]
        self.tau = max(
            taus,
            key=lambda tau: sum(
                squad_scores(gold, answer if share >= tau else None)[0] for share, answer, gold in found
            ),
        )

    def answer(self, row: dict[str, Any]) -> str | None:
        """Returns the answer to a row's question, or None."""
        share, answer = self._best(row["input"])
        return answer if share >= self.tau else None

    def _best(self, given: dict[str, Any]) -> tuple[float, str | None]:
        question = _words(given["question"])
        total = sum(map(self._weight, question)) or 1.0
        sentences = [match[0].strip() for match in _SENTENCE.finditer(given["context"])] or [""]
        share, sentence = max(
            ((sum(map(self._weight, question & _words(text))) / total, text) for text in sentences),
            key=lambda pair: pair[0],
        )
        first = given["question"].lower()
        pattern = (
            _NUMBER if re.match(r"(when|how many|how much|what year|in what year|in which year)\b", first) else _NAME
        )
        runs = [run[0] for run in pattern.finditer(sentence) if not _words(run[0]) & question]
        return share, max(runs, key=len, default=None)
