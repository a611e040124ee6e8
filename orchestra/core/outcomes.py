"""Outcomes: what a node ends in. A closed union; each non-value carries its reason."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Evidence(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What an output rests on: a span of a text. `start` and `end` count characters (Python `str` indices)."""

    check: str
    quote: str
    source: str = ""
    start: int | None = None
    end: int | None = None
    field: str = ""
    """Path of the output's field that it supports, such as `quote` or `items[0].quote`."""


class ValueOutcome(msgspec.Struct, frozen=True, gc=False, tag="value", omit_defaults=True, forbid_unknown_fields=True):
    """A value, accepted; `score` is the confidence in [0, 1] where checks gave one."""

    value: Any
    score: float | None = None
    evidence: tuple[Evidence, ...] = ()


class SkippedOutcome(
    msgspec.Struct, frozen=True, gc=False, tag="skipped", omit_defaults=True, forbid_unknown_fields=True
):
    """Not run, because a condition was false or an input was skipped; `origin` is the path of the node where it began."""

    reason: str
    origin: str = ""


class AbstainedOutcome(
    msgspec.Struct, frozen=True, gc=False, tag="abstained", omit_defaults=True, forbid_unknown_fields=True
):
    """Run, and withheld: its checks did not accept the output."""

    reason: str
    origin: str = ""
    score: float | None = None
    feedback: str | None = None
    """What a model may be told of the reason, where that is not all: not the words of checks that could not tell. Empty for nothing."""

    @property
    def reason_for_models(self) -> str:
        """The reason, for models."""
        return self.reason if self.feedback is None else self.feedback


class FailedOutcome(
    msgspec.Struct, frozen=True, gc=False, tag="failed", omit_defaults=True, forbid_unknown_fields=True
):
    """Run, and failed: no attempt gave a value of the right type."""

    code: str
    reason: str
    origin: str = ""
    hint: str = ""


Outcome: TypeAlias = ValueOutcome | SkippedOutcome | AbstainedOutcome | FailedOutcome


def inherit_outcome(outcome: Outcome, name: str) -> Outcome:
    """The outcome as its readers inherit it: a non-value that names the node where it began."""
    return (
        outcome
        if isinstance(outcome, ValueOutcome) or outcome.origin
        else msgspec.structs.replace(outcome, origin=name)
    )
