"""Codes of errors that code compares: `orchestra explain CODE` says what each of them is."""

from __future__ import annotations

NO_BUDGET = "E005"
"""Another call, or another second, would cost more than the budget has left."""
TIMEOUT = "E006"
ALREADY_CALLED = "E024"
"""A call that is not made, because its effect is on record, or may have come about."""
REPEAT_DECLINED = "E016"
"""A call that may have come about, and of which a person said not to make it again."""
IN_DOUBT_CODES = frozenset({ALREADY_CALLED, TIMEOUT, "E007", "T004"})
"""Errors of calls that may have come about: one that was not made again, one whose time was up or that ended itself, and one whose function
gave something of another type."""
LABEL_NOT_ALLOWED = "F202"
"""The label of the data forbids that model."""
NO_TIER = "F220"
"""The fleet has no such larger model, and so none above it either."""
UNSENT_CODES = frozenset({LABEL_NOT_ALLOWED, NO_TIER})
"""No model saw the call."""
INVALID_OVERRIDE = "E033"
"""A value that a person gave, and that its node does not take."""
TOO_FEW_ELEMENTS = "E034"
"""A list of which so many elements have no value that `at_least` cannot be met any more."""
LEASE_LOST = "J005"
"""Another process has taken the run from this one."""
RUN_ENDED = "J006"
"""The run is over."""
LEASE_HELD = "J022"
"""Another process has the run in hand."""
