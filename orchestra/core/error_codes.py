"""Error codes that code compares. `orchestra explain CODE` explains each of them."""

from __future__ import annotations

NO_BUDGET = "E005"
"""Another call, or another second, would exceed the budget."""
TIMEOUT = "E006"
ALREADY_CALLED = "E024"
"""The call is not made, because its effect is recorded or may have happened."""
REPEAT_DECLINED = "E016"
"""The call may have happened, and a person declined to repeat it."""
IN_DOUBT_CODES = frozenset({ALREADY_CALLED, TIMEOUT, "E007", "T004"})
"""Errors of calls that may have happened: a call that was not repeated, timed out or cancelled itself, or whose
function returned a wrong type.
"""
TOOL_RAISED = "T003"
"""The code of a tool raised an exception."""
LABEL_NOT_ALLOWED = "F202"
"""The model may not receive data with this label."""
NO_TIER = "F220"
"""The fleet has no such larger model, and so none above it."""
UNSENT_CODES = frozenset({LABEL_NOT_ALLOWED, NO_TIER})
"""Errors of calls that reached no model."""
INVALID_OVERRIDE = "E033"
"""The value of an override is not valid for its node."""
TOO_FEW_ELEMENTS = "E034"
"""Too many elements of a list have no value: `at_least` cannot be reached."""
LEASE_LOST = "J005"
"""Another process took over the run."""
RUN_ENDED = "J006"
"""The run has ended."""
LEASE_HELD = "J022"
"""Another process holds the lease of the run."""
