"""The effect of streaming on a plan of three steps, in virtual time: the same on every machine."""

from __future__ import annotations

import pytest

from bench.streaming import SECONDS, simulated, table


def test_streaming_first_step_starts_after_first_line() -> None:
    found = simulated()
    line = SECONDS["router"]
    assert {one.status for one in found.values()} == {"done"}
    assert [found[streaming].first for streaming in (True, False)] == pytest.approx([line, 4 * line])
    assert [found[streaming].whole for streaming in (True, False)] == pytest.approx([4 * line, 4 * line])
    steps = SECONDS["search"] + SECONDS["reader"] + SECONDS["cite"]
    # The reader starts after two lines and ends with the plan; without streaming all steps follow the plan.
    assert found[False].end == pytest.approx(4 * line + steps)
    assert found[True].end == pytest.approx(2 * line + SECONDS["reader"] + SECONDS["cite"])
    assert table([found]).splitlines()[2].startswith("| while it is written | 1.00 s |")
