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
from orchestra.tools import BUILTIN_TOOLS
from tests.cli.stage import Simulated

NAME = "answer_from_documents"
HIDDEN = 10
"""Of so many towers in a row the documents do not tell of the last."""


def sure(number: int) -> float:
    """How sure the reader is of a tower."""
    return random.Random(f"sure {number}").random()


def right(number: int) -> bool:
    """Whether it is right: always from 0.6 on, and seldom below."""
    return sure(number) > 0.6 or random.Random(f"right {number}").random() < 0.3


def known(number: int) -> bool:
    """Whether the documents tell of a tower."""
    return number % HIDDEN != HIDDEN - 1


def document(number: int) -> dict[str, Any]:
    """What is said of a tower."""
    return {
        "source": f"tower {number}",
        "text": f"Tower {number} was opened in the year {3000 + number}, and painted in {7000 + number}.",
    }


def inputs(number: int) -> dict[str, Any]:
    """A question about one tower, and documents: its own, where there is one, and others."""
    others = [document(one) for one in (number + 1, number + 2)]
    return {
        "question": f"When was the tower {number} opened?",
        "documents": [*([document(number)] if known(number) else []), *others],
    }


def expected(number: int) -> dict[str, Any]:
    """What is right: null where the documents do not tell."""
    return {"text": f"{3000 + number}" if known(number) else None}


def answer(call: CallRequest) -> Any:
    """What the reader says of a passage: an answer, from its own tower's; of others nothing, but sometimes their year."""
    asked, told = (int(re.search(r"tower (\d+)", call.inputs[key].lower())[1]) for key in ("question", "context"))  # type: ignore[index]
    if asked != told and (known(asked) or sure(asked) >= 0.5):
        return CallResult(value={"answer": None}, confidence=0.999)
    year = 3000 + told if asked == told and right(asked) else 7000 + told
    return CallResult(value={"answer": str(year)}, confidence=sure(asked))


def simulated(change: Callable[[CallRequest], Any] = answer) -> Simulated:
    """Workers that answer so; tools run as they are."""
    return Simulated({"generative_reader": change}, tools=BUILTIN_TOOLS)


def rows(file: str, numbers: range) -> None:
    """A file of such rows."""
    made = [{"id": f"{n}", "input": inputs(n), "expected": expected(n)} for n in numbers]
    Path(file).write_text("".join(json.dumps(one) + "\n" for one in made))


def told(number: int) -> tuple[dict[str, Any], float] | None:
    """What the workflow comes to on its inputs, and how sure it is; None where it says nothing."""
    if known(number):
        return {"text": f"{(3000 if right(number) else 7000) + number}"}, sure(number)
    return ({"text": f"{7001 + number}"}, sure(number)) if sure(number) < 0.5 else None


def predictions(file: str, numbers: range) -> None:
    """A file of what it came to."""
    made = [
        {"id": f"{n}", "output": given[0], "score": given[1]}
        if (given := told(n))
        else {"id": f"{n}", "abstained": True}
        for n in numbers
    ]
    Path(file).write_text("".join(json.dumps(one) + "\n" for one in made))
