"""What the engine says where it contradicts itself."""

from __future__ import annotations

from orchestra.core.error_help import explain
from orchestra.engine.state import internal_error


def test_a_contradiction_says_how_it_is_reported_as_its_explanation_does() -> None:
    error = internal_error("a was not judged")
    assert error.code == "E002"
    assert "orchestra runs show RUN --json" in error.hint
    assert "orchestra runs show RUN --json" in explain(error.code).text
