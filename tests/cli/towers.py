"""Questions about documents on towers, and a simulated reader with a known error rate that falls with its
confidence.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestra.core.protocols import CallRequest, CallResult
from orchestra.tools import BUILTIN_TOOLS, load_tool
from tests.cli.stage import Simulated

NAME = "answer_from_documents"
HIDDEN = 10
"""Of this many towers in a row, the last has no document."""


def sure(number: int) -> float:
    """The confidence of the reader for a tower."""
    return random.Random(f"sure {number}").random()


def right(number: int) -> bool:
    """True if its answer is right: always from 0.6, and rarely below."""
    return sure(number) > 0.6 or random.Random(f"right {number}").random() < 0.3


def known(number: int) -> bool:
    """True if a tower has a document."""
    return number % HIDDEN != HIDDEN - 1


def document(number: int) -> dict[str, Any]:
    """The document of a tower."""
    return {
        "source": f"tower {number}",
        "text": f"Tower {number} was opened in the year {3000 + number}, and painted in {7000 + number}.",
    }


def inputs(number: int) -> dict[str, Any]:
    """A question about one tower, with its document, if any, and others."""
    others = [document(one) for one in (number + 1, number + 2)]
    return {
        "question": f"When was the tower {number} opened?",
        "documents": [*([document(number)] if known(number) else []), *others],
    }


def expected(number: int) -> dict[str, Any]:
    """The right answer; null without a document."""
    return {"text": f"{3000 + number}" if known(number) else None}


def answer(call: CallRequest) -> Any:
    """The reader's answer to a passage: an answer from the tower's own document, otherwise nothing or, sometimes, a
    wrong year.
    """
    asked, told = (int(re.search(r"tower (\d+)", call.inputs[key].lower())[1]) for key in ("question", "context"))  # type: ignore[index]
    if asked != told and (known(asked) or sure(asked) >= 0.5):
        return CallResult(value={"answer": None}, confidence=0.999)
    year = 3000 + told if asked == told and right(asked) else 7000 + told
    return CallResult(value={"answer": str(year)}, confidence=sure(asked))


def simulated(change: Callable[[CallRequest], Any] = answer) -> Simulated:
    """Workers with this reader; tools run normally."""
    return Simulated({"generative_reader": change}, tools=map(load_tool, BUILTIN_TOOLS))


def rows(file: str, numbers: range) -> None:
    """A file of such rows."""
    made = [{"id": f"{n}", "input": inputs(n), "expected": expected(n)} for n in numbers]
    Path(file).write_text("".join(json.dumps(one) + "\n" for one in made))


def told(number: int) -> tuple[dict[str, Any], float] | None:
    """The output of the workflow and its confidence; None if empty."""
    if known(number):
        return {"text": f"{(3000 if right(number) else 7000) + number}"}, sure(number)
    return ({"text": f"{7001 + number}"}, sure(number)) if sure(number) < 0.5 else None


def predictions(file: str, numbers: range) -> None:
    """A file of outputs."""
    made = [
        {"id": f"{n}", "output": given[0], "score": given[1]}
        if (given := told(n))
        else {"id": f"{n}", "abstained": True}
        for n in numbers
    ]
    Path(file).write_text("".join(json.dumps(one) + "\n" for one in made))
