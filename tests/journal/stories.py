"""Events for journal tests: a short run, and a long one."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.core.events import AttemptFinished, AttemptStarted, Event, NodeFinished, RunFinished, RunStarted, Usage
from orchestra.core.outcomes import ValueOutcome

SPENT = Usage(prompt_tokens=30, output_tokens=5, calls=1, seconds=0.5)


def begun(run: str, at: float = 1.0) -> RunStarted:
    return RunStarted(seq=1, at=at, run=run, workflow="staged", graph="0" * 32, inputs={"question": "Wer war’s?"})


def middle(first: int, count: int) -> list[Event]:
    """Events numbered from `first`."""
    return [
        NodeFinished(seq=seq, at=float(seq), node=f"n{seq}", outcome=ValueOutcome(value=f"value {seq}"))
        for seq in range(first, first + count)
    ]


def whole(run: str, at: float = 1.0) -> Sequence[Event]:
    return (
        begun(run, at),
        AttemptStarted(seq=2, at=at + 1, node="a", attempt=1, name="reader"),
        AttemptFinished(seq=3, at=at + 2, node="a", attempt=1, value="x", usage=SPENT),
        NodeFinished(seq=4, at=at + 2, node="a", outcome=ValueOutcome(value="x")),
        RunFinished(seq=5, at=at + 3, status="done", outcome=ValueOutcome(value="x"), usage=SPENT),
    )
