"""Amounts as text for people."""

from __future__ import annotations

import pytest

from orchestra.core.quantities import format_money


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, ""), (1e-9, "<0.000001"), (0.000045, "0.000045"), (0.5, "0.500000"), (1, "1.00"), (1234.567, "1,234.57")],
)
def test_money_is_told_to_the_cent_and_below_one_to_a_millionth(value: float, shown: str) -> None:
    assert format_money(value) == shown
