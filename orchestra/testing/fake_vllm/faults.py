"""Faults of a simulated model server: one seeded choice for each request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from random import Random
from typing import Any, Literal, TypeAlias

EndpointFault: TypeAlias = Literal[
    "",
    "busy",
    "unavailable",
    "error",
    "html",
    "empty",
    "stall",
    "reset",
    "no_done",
    "split_character",
    "missing_usage",
    "negative_usage",
    "wrong_model",
    "ignored_constraint",
    "slow_first_token",
    "long_line",
]


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """A request to the simulated server. `repeat` counts requests with the same body, from 1."""

    path: str
    body: dict[str, Any]
    number: int
    repeat: int
    seed: str
    key: str = ""
    """The key of the request (`Authorization: Bearer KEY`)."""
    traceparent: str = ""
    """The header `traceparent`: the span of the caller."""

    @property
    def model(self) -> str:
        """The requested model or adapter."""
        return str(self.body.get("model", ""))

    @property
    def prompt(self) -> str:
        """The text of the prompt: the messages joined by line breaks."""
        if isinstance(messages := self.body.get("messages"), list):
            return "\n".join(str(message.get("content") or "") for message in messages)
        return str(self.body.get("prompt", self.body.get("query", "")))

    def random(self, purpose: str) -> Random:
        """Returns the random generator of this request. It depends on seed, body and repeat only."""
        return Random(f"{self.seed}|{purpose}|{self.repeat}")  # noqa: S311  # not a secret


@dataclass(frozen=True, slots=True)
class EndpointFaults:
    """The probability of each fault, in [0, 1]; together at most 1. A request has at most one fault.

    Stream faults affect streams only, and `ignored_constraint` affects constrained requests only.
    """

    busy: float = 0.0
    """Status 429, with `Retry-After: 1`."""
    unavailable: float = 0.0
    """Status 503."""
    error: float = 0.0
    """Status 500, with vLLM's error body."""
    html: float = 0.0
    """Status 200, with a page of HTML."""
    empty: float = 0.0
    """Status 200, with an empty body."""
    stall: float = 0.0
    """The headers, half of the body, then silence until the client disconnects."""
    reset: float = 0.0
    """The connection breaks during the response."""
    no_done: float = 0.0
    """A stream that ends without `finish_reason`, `usage` and `[DONE]`."""
    split_character: float = 0.0
    """Chunks that end inside a character. A correct client handles them."""
    missing_usage: float = 0.0
    negative_usage: float = 0.0
    wrong_model: float = 0.0
    """The response names another model, like a silently ignored adapter."""
    ignored_constraint: float = 0.0
    """Free text in spite of `structured_outputs`."""
    slow_first_token: float = 0.0
    """The first token comes after `SLOW_FIRST_TOKEN_SECONDS` seconds."""
    long_line: float = 0.0
    """A stream with a line of 10 MB."""
    repeats: int | None = None
    """Faults affect only this many requests with the same body, so that a resent request succeeds finally; None means
    all.
    """

    def __post_init__(self) -> None:
        chances = [getattr(self, name) for name in FAULT_NAMES]
        if min(chances) < 0 or sum(chances) > 1 + 1e-9:
            raise ValueError(f"probabilities must lie in [0, 1] and sum to at most 1, not {chances}")

    def __call__(self, request: SimulatedRequest) -> EndpointFault:
        """Returns the fault of this request, or an empty string."""
        if self.repeats is not None and request.repeat > self.repeats:
            return ""
        random_value = request.random("fault").random()
        for name in FAULT_NAMES:
            random_value -= getattr(self, name)
            if random_value < 0:
                return name
        return ""


FAULT_NAMES: tuple[EndpointFault, ...] = tuple(
    field.name  # type: ignore[misc]  # the names of the fields are those of the faults
    for field in fields(EndpointFaults)
    if field.name != "repeats"
)
SLOW_FIRST_TOKEN_SECONDS = 0.3
HTML_PAGE = (
    b"<!doctype html><html><head><title>Sign in</title></head><body>Welcome to the hotel's network</body></html>"
)

FaultChoice: TypeAlias = EndpointFaults | Callable[[SimulatedRequest], EndpointFault]
"""Chooses the fault of a request: at random, or by a function of the request."""


def first_faults(*faults: EndpointFault) -> Callable[[SimulatedRequest], EndpointFault]:
    """Returns a function that gives the first requests of a server these faults, in order, and none after them."""

    def choose(request: SimulatedRequest) -> EndpointFault:
        return faults[request.number - 1] if request.number <= len(faults) else ""

    return choose
