"""Tests of the truth of tools and checks: `given or usual` works, `quote and numbers` is refused."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra import InputError, Workflow, accepted, numbers, quote, workflow
from tests.workflows.fallback_workflows import echo, fine


def asked(checks: Any) -> Workflow[..., Any]:
    @workflow(name="asked")
    def flow(text: str) -> str:
        return accepted(echo(text=text), checks=checks())

    return flow


def test_truth_outside_workflow_is_true() -> None:
    assert (quote or numbers) is quote
    assert bool(fine)
    assert asked(lambda: fine or quote).graph.nodes["echo"].checks == ("tool(fine)",)
    assert asked(lambda: None or fine).graph.nodes["echo"].checks == ("tool(fine)",)


@pytest.mark.parametrize(
    "checks", [lambda: quote and numbers, lambda: quote and fine, lambda: (quote & fine) or numbers]
)
def test_truth_of_check_in_workflow_refused(checks: Any) -> None:
    with pytest.raises(InputError, match="has no truth value") as caught:
        assert asked(checks).graph
    assert caught.value.code == "W005"
