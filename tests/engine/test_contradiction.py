"""Messages of the engine about contradictions in its own state."""

from __future__ import annotations

from orchestra.core.error_help import explain
from orchestra.engine.state import internal_error


def test_contradiction_message_matches_explanation() -> None:
    error = internal_error("a was not judged")
    assert error.code == "E002"
    assert "orchestra runs show RUN --json" in error.hint
    assert "orchestra runs show RUN --json" in explain(error.code).text
