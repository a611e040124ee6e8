"""Outcomes of nodes."""

from __future__ import annotations

import pytest

from orchestra.core.outcomes import (
    AbstainedOutcome,
    FailedOutcome,
    Outcome,
    SkippedOutcome,
    ValueOutcome,
    outcome_kind,
)


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (ValueOutcome(1), "value"),
        (SkippedOutcome("a condition was false"), "skipped"),
        (AbstainedOutcome("no check accepted it"), "abstained"),
        (FailedOutcome("T003", "it raised"), "failed"),
    ],
)
def test_outcome_kind_is_one_word(outcome: Outcome, kind: str) -> None:
    assert outcome_kind(outcome) == kind
