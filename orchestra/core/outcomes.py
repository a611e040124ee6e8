"""Outcomes of nodes: a closed union. Each outcome without a value has a reason."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Evidence(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Evidence of an output: a span of a text. `start` and `end` count characters (Python `str` indices)."""

    check: str
    quote: str
    source: str = ""
    start: int | None = None
    end: int | None = None
    field: str = ""
    """Path of the output field that it supports, such as `quote` or `items[0].quote`."""


class ValueOutcome(msgspec.Struct, frozen=True, gc=False, tag="value", omit_defaults=True, forbid_unknown_fields=True):
    """An accepted value. `score` is the confidence in [0, 1] if checks produced one."""

    value: Any
    score: float | None = None
    evidence: tuple[Evidence, ...] = ()


class SkippedOutcome(
    msgspec.Struct, frozen=True, gc=False, tag="skipped", omit_defaults=True, forbid_unknown_fields=True
):
    """The node did not run, because a condition was false or an input was skipped. `origin` is the first such node."""

    reason: str
    origin: str = ""


class AbstainedOutcome(
    msgspec.Struct, frozen=True, gc=False, tag="abstained", omit_defaults=True, forbid_unknown_fields=True
):
    """The node ran, and its output was withheld: the checks did not accept it."""

    reason: str
    origin: str = ""
    score: float | None = None
    feedback: str | None = None
    """The part of the reason that a model may see, if it is not all of it; without the output of checks with verdict
    `unknown`. Empty for none.
    """

    @property
    def reason_for_models(self) -> str:
        """The reason as models may see it."""
        return self.reason if self.feedback is None else self.feedback


class FailedOutcome(
    msgspec.Struct, frozen=True, gc=False, tag="failed", omit_defaults=True, forbid_unknown_fields=True
):
    """The node failed: no attempt returned a value of the right type."""

    code: str
    reason: str
    origin: str = ""
    hint: str = ""


Outcome: TypeAlias = ValueOutcome | SkippedOutcome | AbstainedOutcome | FailedOutcome


def outcome_kind(outcome: Outcome) -> str:
    """Returns the kind of an outcome: `value`, `skipped`, `abstained` or `failed`."""
    return str(outcome.__struct_config__.tag)


def inherit_outcome(outcome: Outcome, name: str) -> Outcome:
    """Returns the outcome that dependent nodes inherit: an outcome without a value names the node where it began."""
    return (
        outcome
        if isinstance(outcome, ValueOutcome) or outcome.origin
        else msgspec.structs.replace(outcome, origin=name)
    )
